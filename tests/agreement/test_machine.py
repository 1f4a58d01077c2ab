"""The same scenario on the process lab and on a kernel that was really suspended: same verdicts,
same renewals.

The whole corpus takes the better part of an hour, so it runs on request:
MESHWAKE_TEST_MACHINE=1, or the name of one scenario. Needs a ztunnel, QEMU and a kernel
(docs/machine.md).
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from meshwake.core.run import Run
from meshwake.core.scenario import parse_scenario, read_scenario
from meshwake.labs import load_lab
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.agreement.conftest import (
    VERSIONS,
    binary_of,
    case_of,
    renewal_rows,
    times_are_fixed,
    verdicts,
)
from tests.support.paths import SCENARIOS

REQUESTED = os.environ.get("MESHWAKE_TEST_MACHINE", "")
# Each sleep may be a second longer or shorter than planned, and what a ztunnel does takes its time.
WITHIN_S = 2.0
CORPUS = sorted(
    str(path.relative_to(SCENARIOS).with_suffix(""))
    for path in SCENARIOS.rglob("*.toml")
    if "machine" in read_scenario(path).labs and REQUESTED in ("1", path.stem)
)
TEN_RUNS = """
title = "Half an hour asleep, certificates of twenty minutes"
labs = ["process", "machine"]
duration = "100m"
[certificate]
lifetime = "20m"
[[node]]
name = "laptop"
identities = ["default/client", "default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "30m"
[[fault]]
kind = "suspend"
at = "5m"
lasts = "30m"
[[expect]]
check = "renewals_on_time"
verdict = "broken"
because = "half an hour of drift"
"""
pytestmark = pytest.mark.skipif(
    not REQUESTED, reason="takes long: set MESHWAKE_TEST_MACHINE=1, or to one scenario's name"
)


def needs_machine(version: str) -> None:
    if reasons := load_lab("machine").missing(binary_of(version)):
        pytest.skip(reasons[0])


def renewals(saved: Run) -> dict[str, list[tuple[float | None, float | None]]]:
    """Per identity, by how much each renewal came after its due time, and when it came."""
    found: dict[str, list[tuple[float | None, float | None]]] = {}
    for row in renewal_rows(saved):
        found.setdefault(row["identity"], []).append((row["late_s"], row["done_world_s"]))
    return found


def near(mine: float | None, theirs: float | None, within_s: float) -> bool:
    return (mine is None) == (theirs is None) and (
        mine is None or mine == pytest.approx(theirs, abs=within_s)
    )


def assert_near(real: Run, other: Run) -> None:
    """Each renewal is as late as there, give or take a second for each sleep since ztunnel started.
    One that waited for the end of a fault came when it ended, as there; how late that was depends
    on when it was due, and each renewal before it took a tenth of a second here."""
    within_s = WITHIN_S + len(real.plan.faults)
    for identity, seen in renewals(real).items():
        expected = renewals(other)[identity]
        assert len(seen) == len(expected)
        for (late_s, done_s), (their_late_s, their_done_s) in zip(seen, expected, strict=True):
            assert near(late_s, their_late_s, within_s) or near(done_s, their_done_s, within_s), (
                late_s,
                their_late_s,
            )


@pytest.mark.parametrize("version", VERSIONS[-1:])
@pytest.mark.parametrize("scenario", CORPUS or ["none"])
def test_process_and_machine_agree(scenario: str, version: str) -> None:
    """Every verdict is the same, and every renewal as late."""
    needs_machine(version)
    real = run_case(
        case_of(scenario, "machine", version),
        Options(lab="machine", istio=(version,), keep_run=True),
    )
    moved = run_case(
        case_of(scenario, "process", version), Options(lab="process", istio=(version,))
    )
    assert verdicts(real) == verdicts(moved)
    if times_are_fixed(real, moved):
        assert_near(real, moved)


@pytest.mark.skipif(
    REQUESTED != "1", reason="ten runs take ten minutes: set MESHWAKE_TEST_MACHINE=1"
)
@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_ten_runs_are_alike(version: str) -> None:
    """Same verdicts, renewals within two seconds of each other and of the formula: half a life, and
    the clock drift."""
    needs_machine(version)
    options = Options(lab="machine", istio=(version,))
    case = choose(parse_scenario(TEN_RUNS, "ten.toml", "ten"), options)[0]
    runs = [run_case(case, options) for _ in range(10)]
    assert all(verdicts(saved) == verdicts(runs[0]) for saved in runs)
    lates: list[Any] = [
        late
        for saved in runs
        for rows in renewals(saved).values()
        for late, _ in rows
        if late is not None
    ]
    assert lates == pytest.approx([30 * 60] * len(lates), abs=WITHIN_S)
