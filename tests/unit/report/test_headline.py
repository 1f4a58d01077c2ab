"""The first line of a run says what happens to the mesh, whatever was expected."""

from __future__ import annotations

from dataclasses import replace

import pytest
from meshwake.core.outcome import OutcomeKind, Verdict
from meshwake.core.plan import PlannedExpectation, PlannedFix
from meshwake.core.run import Run
from meshwake.report.headline import headline, judged, surprise
from meshwake.runner.run import check_run

from tests.support.paths import DATA


def recorded(name: str) -> Run:
    return check_run(DATA / "histories" / name)


def with_verdicts(run: Run, **verdicts: Verdict) -> Run:
    findings = (
        replace(finding, verdict=verdicts.get(finding.check, finding.verdict))
        for finding in run.findings
    )
    return Run(run.plan, run.history, tuple(findings))


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "nightly_sleep-1.28.0",
            "BROKEN: 1 d 16 h of 7 d without mTLS, first on day 2 at 07:58 "
            "(known for 1.28, istio/ztunnel#1481)",
        ),
        ("ca_away_at_renewal-1.28.0", "HOLDS: no connection failed in 1 d"),
        (
            "ca_away_at_renewal-1.27.9",
            "BROKEN: ztunnel throws away a certificate that was still good "
            "(known for 1.27, istio/ztunnel#1567)",
        ),
        (
            "restart_without_authority-kind-1.31.0-rc.0",
            "HOLDS: 2 m 10 s of 10 m without mTLS, first on day 0 at 00:02, "
            "and connections recover in time",
        ),
    ],
)
def test_a_recorded_run(name: str, line: str) -> None:
    verdict, text = headline(recorded(name))
    assert f"{verdict}: {text}" == line


def test_what_could_not_be_judged_is_neither() -> None:
    """A failed assumption, and a check of connections that is UNKNOWN."""
    run = recorded("ca_away_at_renewal-1.28.0")
    unclear = with_verdicts(run, clock_fault_happened=Verdict.BROKEN)
    assert headline(unclear).verdict is Verdict.UNKNOWN
    assert "nothing could be judged" in headline(unclear).text
    cut = with_verdicts(run, recovers_within=Verdict.UNKNOWN)
    assert headline(cut).verdict is Verdict.UNKNOWN


def test_harm_without_a_failed_connection_is_no_pass() -> None:
    run = recorded("ca_away_at_renewal-1.28.0")
    served = with_verdicts(run, no_expired_certificate_served=Verdict.BROKEN)
    flooded = with_verdicts(run, ca_not_flooded=Verdict.BROKEN)
    assert headline(served).verdict is headline(flooded).verdict is Verdict.BROKEN
    assert "without a pause" in headline(flooded).text


def test_what_is_known_depends_on_the_release_and_its_class() -> None:
    """A class of whose releases nothing is known, and a ztunnel with a patch, have no issue."""
    nights = recorded("nightly_sleep-1.28.0")
    newer = nights.plan.model_copy(update={"version": "1.99.0"})
    patched = nights.plan.model_copy(update={"fix": PlannedFix(name="boottime")})
    restarted = nights.plan.model_copy(update={"fix": PlannedFix(name="weekly-restart")})
    shown = [
        "#1481" in headline(Run(plan, nights.history, nights.findings)).text
        for plan in (nights.plan, newer, patched, restarted)
    ]
    assert shown == [True, False, False, True]


@pytest.mark.parametrize(
    "name",
    sorted(path.parent.name for path in (DATA / "histories").glob("*/plan.json")),
)
def test_the_goal_and_the_headline_agree(name: str) -> None:
    """Of every recorded run: it is reached where the first line says HOLDS."""
    run = recorded(name)
    of_goal = Run(run.plan.model_copy(update={"goal": "holds"}), run.history, run.findings)
    reached = {
        Verdict.HOLDS: OutcomeKind.AS_EXPECTED,
        Verdict.BROKEN: OutcomeKind.SURPRISE,
        Verdict.UNKNOWN: OutcomeKind.UNKNOWN,
    }
    assert of_goal.outcome.kind is reached[headline(run).verdict]
    assert judged(of_goal).startswith("goal 'holds' ")


def expecting(run: Run, verdict: Verdict) -> Run:
    """`run` with one expectation, that connections flow or that they do not."""
    row = PlannedExpectation(check="traffic_flows", verdict=verdict.value, because="of a test")
    plan = run.plan.model_copy(update={"expectations": (row,)})
    return Run(plan, run.history, run.findings)


def test_a_surprise_is_called_a_cure_or_a_regression() -> None:
    holds, broken = recorded("ca_away_at_renewal-1.28.0"), recorded("nightly_sleep-1.28.0")
    assert surprise(expecting(holds, Verdict.BROKEN)) == "a cure"
    assert surprise(expecting(broken, Verdict.HOLDS)) == "a regression"
    assert surprise(expecting(holds, Verdict.HOLDS)) is None
