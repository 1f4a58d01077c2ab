"""The model as a lab: see harness.labs.Lab. It needs nothing, and can do all that a plan can say."""

from __future__ import annotations

from pathlib import Path

from harness.history import Recorder
from harness.labs import Toolbox
from harness.labs.model.world import World
from harness.labs.model.ztunnel import BEHAVIOURS
from harness.plan import Plan


class ModelLab:
    """See harness.labs.Lab."""

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Nothing: it runs wherever Python does."""
        return []

    def refusals(self, plan: Plan) -> list[str]:
        """Only a behaviour class that nobody has described."""
        if plan.behaviour_class in BEHAVIOURS:
            return []
        known = ", ".join(BEHAVIOURS)
        return [f"version {plan.version}: behaviour class {plan.behaviour_class!r} is not modelled; there are {known}"]

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See harness.labs.Lab.run; same plan, same history, byte for byte."""
        World(plan, recorder, toolbox.progress).run()


LAB = ModelLab()
