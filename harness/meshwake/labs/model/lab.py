"""The model as a lab: see meshwake.labs.Lab. It has no prerequisites, and can do all that a plan
can contain."""

from __future__ import annotations

from pathlib import Path

from meshwake.core.history import Recorder
from meshwake.core.plan import Plan
from meshwake.labs import Toolbox
from meshwake.labs.driver import Driver
from meshwake.labs.model.backend import ModelBackend
from meshwake.labs.model.ztunnel import BEHAVIOURS


class ModelLab:
    """See meshwake.labs.Lab."""

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Nothing: it runs wherever Python does."""
        return []

    def refusals(self, plan: Plan) -> list[str]:
        """Only a behaviour class that is not described."""
        if plan.behaviour_class in BEHAVIOURS:
            return []
        known = ", ".join(BEHAVIOURS)
        return [
            f"version {plan.version}: behaviour class {plan.behaviour_class!r} is not "
            f"modelled; expected one of {known}"
        ]

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See meshwake.labs.Lab.run; same plan, same history, byte for byte."""
        subject = {"kind": "model", "behaviour_class": plan.behaviour_class}
        Driver(plan, ModelBackend(plan), recorder.append, toolbox.progress).run(subject)


LAB = ModelLab()
