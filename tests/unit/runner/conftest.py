"""A lab that fails as configured, and cases to run on it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from meshwake.core.history import Recorder
from meshwake.core.plan import Plan
from meshwake.core.scenario import Scenario, parse_scenario
from meshwake.labs import Toolbox, load_lab
from meshwake.runner import choose as choosing
from meshwake.runner import execution
from meshwake.runner.choose import Case, choose
from meshwake.runner.options import Options

from tests.support.scenarios import SMALL, small

BOTH_LABS = small(('["model"]', '["model", "process"]'))
ON_MODEL = Options(lab="model")


def scenario_of(text: str = SMALL, path: str = "small.toml") -> Scenario:
    return parse_scenario(text, path, "small")


def case_of(text: str = SMALL, options: Options = ON_MODEL) -> Case:
    return choose(scenario_of(text), options)[0]


class FakeLab:
    """A lab that can do everything, or lacks what it is configured to lack, or fails as configured
    to."""

    def __init__(self, missing: list[str] | None = None, refusals: list[str] | None = None) -> None:
        self._missing, self._refusals = missing or [], refusals or []
        self.error: BaseException | None = None

    def missing(self, ztunnel: Path | None) -> list[str]:
        return self._missing

    def refusals(self, plan: Plan) -> list[str]:
        return self._refusals

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        if self.error is not None:
            raise self.error
        load_lab("model").run(plan, toolbox, recorder)


@pytest.fixture
def labs(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeLab], None]:
    """Puts a fake in the place of the process lab (on whatever system), and the model stays."""

    def use(fake: FakeLab) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        for module in (choosing, execution):
            monkeypatch.setattr(
                module, "load_lab", lambda name: fake if name == "process" else load_lab(name)
            )

    return use
