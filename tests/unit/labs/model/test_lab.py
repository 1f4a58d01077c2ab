from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256

import pytest
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.labs import load_lab
from meshwake.labs.model.lab import LAB

from tests.support.plans import NIGHTS, TWO_NODES, plan, run

# Retries by chance, two nodes, an authority apart: everything in which an order of things could
# show.
RESTLESS = """
[authority]
node = "apart"
[[fault]]
kind = "suspend"
node = "*"
at = "15h"
lasts = "8h"
every = "24h"
[[fault]]
kind = "ca_outage"
at = "11h57m"
lasts = "40m"
"""
RUN_PLAN_ON_STDIN = """
import sys
from meshwake.core.plan import Plan
from tests.support.plans import run
sys.stdout.write(run(Plan.model_validate_json(sys.stdin.read())).to_text())
"""


def restless(seed: int = 7, behaviour_class: str = "C") -> Plan:
    return plan(
        RESTLESS, nodes=TWO_NODES, duration="7d", behaviour_class=behaviour_class, seed=seed
    )


def test_the_same_plan_gives_the_same_bytes() -> None:
    """Twice in one process."""
    assert run(restless()).to_text() == run(restless()).to_text()


@pytest.mark.slow(reason="starts another Python")
@pytest.mark.parametrize("hash_seed", ["1", "4711"])
def test_the_same_plan_gives_the_same_bytes_in_another_process(hash_seed: str) -> None:
    """Whatever order that process gives its sets."""
    other = subprocess.run(
        [sys.executable, "-c", RUN_PLAN_ON_STDIN],
        input=restless().model_dump_json(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
    )
    assert (
        sha256(other.stdout.encode()).hexdigest()
        == sha256(run(restless()).to_text().encode()).hexdigest()
    )


def test_another_seed_gives_other_retries() -> None:
    """Else the two tests above would show nothing of chance."""
    assert run(restless(seed=7)).to_text() != run(restless(seed=8)).to_text()


@pytest.mark.parametrize("behaviour_class", ["A0", "A1", "B", "C", "D", "E"])
def test_every_history_is_read_back_as_it_was_written(behaviour_class: str) -> None:
    """Every class runs, and its events keep the promises of KINDS."""
    history = run(restless(behaviour_class=behaviour_class))
    assert History.from_text(history.to_text()).events == history.events


def test_it_runs_anywhere_and_refuses_nothing_that_it_knows() -> None:
    """The default lab of a machine that has nothing."""
    assert load_lab("model") is LAB
    assert LAB.missing(None) == []
    assert LAB.refusals(plan(NIGHTS)) == []


def test_a_class_that_is_not_described_is_refused_by_name() -> None:
    """Not guessed at."""
    (refusal,) = LAB.refusals(plan().model_copy(update={"behaviour_class": "F"}))
    assert "'F'" in refusal and "A0" in refusal
