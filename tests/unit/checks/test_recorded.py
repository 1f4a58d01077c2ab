"""Histories of real ztunnels, judged again by today's checks, and run again by today's model."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.checks import judge
from meshwake.checks.facts.certificates import renewals
from meshwake.checks.facts.clocks import clock_faults
from meshwake.checks.facts.traffic import outages
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import OutcomeKind, Verdict, compare
from meshwake.core.plan import Plan
from meshwake.labs import Toolbox, load_lab

from tests.support.paths import DATA

RECORDED = DATA / "histories"
NAMES = sorted(path.name for path in RECORDED.iterdir() if path.is_dir())
# Of binaries in a world of ours, where every moment is exact; of clusters in real time; and of
# clusters whose idle time was skipped ("-lapse-"), which renew when the model does where nothing
# took its real seconds: no restart, no outage.
OF_BINARIES = [name for name in NAMES if "-kind-" not in name]
OF_CLUSTERS = [name for name in NAMES if "-kind-" in name]
EXACT_CLUSTERS = [
    name
    for name in OF_CLUSTERS
    if "-lapse-" in name and not {"restart", "away", "guard"} & set(name.split("-")[0].split("_"))
]
CURED = RECORDED.with_name("cured_histories")
WITHIN_S, FIRST_WITHIN_S = 2.0, 10.0


def recorded(name: str, directory: Path = RECORDED) -> tuple[Plan, History]:
    """A run as it lies on disk."""
    plan = Plan.model_validate_json((directory / name / "plan.json").read_text())
    return plan, History.read(directory / name / "history.jsonl")


def verdicts(name: str) -> dict[str, Verdict]:
    """What today's checks say of it."""
    return {finding.check: finding.verdict for finding in judge(*recorded(name))}


def test_there_are_enough() -> None:
    """At least three real runs, of at least three releases."""
    versions = {recorded(name)[1].events[0]["version"] for name in NAMES}
    assert len(NAMES) >= 3
    assert {"1.27.9", "1.28.0", "1.31.0-rc.0"} <= versions


@pytest.mark.parametrize("name", NAMES)
def test_todays_checks_say_what_was_expected_then(name: str) -> None:
    """The expectations that were saved with the plan still hold of the history."""
    plan, history = recorded(name)
    assert history.events[0]["subject"]["kind"] == ("cluster" if name in OF_CLUSTERS else "ztunnel")
    assert compare(plan, judge(plan, history)).kind is OutcomeKind.AS_EXPECTED


@pytest.mark.parametrize("name", [*OF_BINARIES, *EXACT_CLUSTERS])
def test_the_model_renews_when_the_binary_did(name: str) -> None:
    """The same plan on the model: the first renewal of each certificate at the same world time,
    wherever ztunnel leaves nothing to chance (a retry after a refusal is random, and in a flood it
    does not matter how many there are)."""
    plan, real = recorded(name)
    recorder = Recorder()
    load_lab("model").run(plan, Toolbox(None, RECORDED), recorder)
    model = recorder.history
    ends_s = min(
        [
            event.world_ns / 1e9
            for history in (real, model)
            for event in history.of("csr_answered")
            if not event["serial"]
        ]
        + [
            event.world_ns / 1e9
            for history in (real, model)
            for event in history.of("run_ended", reason="csr_flood")
        ]
        + [float("inf")]
    )
    # A renewal that is due when the run ends comes just before that in a cluster, and not on the
    # model.
    until_s = plan.duration_ns / NS_PER_S - WITHIN_S if name in EXACT_CLUSTERS else ends_s
    ours, theirs = (
        sorted(
            (row.identity, row.issued_world_s, row.done_world_s)
            for row in renewals(plan, history)
            if row.done_world_s is not None and row.done_world_s < min(ends_s, until_s)
        )
        for history in (model, real)
    )
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    # The model issues every first certificate in the same instant. In a cluster the ztunnel of
    # another node, or the next second, makes it later, and everything of that identity with it.
    first_s = {
        identity: min(row[1] for row in theirs if row[0] == identity) for identity, *_ in theirs
    }
    late_s = first_s if name in EXACT_CLUSTERS else dict.fromkeys(first_s, 0.0)
    assert all(seconds <= FIRST_WITHIN_S for seconds in late_s.values())
    for (identity, *mine), (_, *other) in zip(ours, theirs, strict=True):
        from_first_s = [seconds - late_s[identity] for seconds in other]
        assert mine == pytest.approx(from_first_s, abs=WITHIN_S)
    assert ours or ends_s < plan.duration_ns


def test_the_report_of_1481() -> None:
    """A pause of 17 min with certificates of 10 min: 1020 s late for ever, 11 min of every 21
    out."""
    plan, history = recorded("ztunnel_1481-1.31.0-rc.0")
    late_s = {
        row.late_s
        for row in renewals(plan, history)
        if row.issued_world_s > 2_845 and row.late_s is not None
    }
    assert late_s == {1020.0}
    whole_s = {row.to_world_s - row.from_world_s for row in outages(plan, history)[1:-1]}
    assert whole_s == {659.0}
    (fault,) = clock_faults(plan, history)
    assert fault.measured is not None
    assert fault.measured.monotonic_ns == fault.measured.boottime_ns == 25 * 10**9
    assert fault.measured.wall_ns == (17 * 60 + 25) * 10**9


def test_the_nights_of_a_week() -> None:
    """24 h certificates, 8 h nights: the first outage begins on the third day, when the clock drift
    is 16 h."""
    plan, history = recorded("nightly_sleep-1.28.0")
    done_s = [
        row.done_world_s for row in renewals(plan, history) if row.identity == "default/server"
    ]
    assert done_s[:4] == [43140.0, 115080.0, 215820.0, 374160.0]
    assert outages(plan, history)[0].from_world_s == 201_481


def test_the_authority_away_at_renewal() -> None:
    """1.27.9 threw its valid certificates away, 1.28.0 kept them."""
    assert verdicts("ca_away_at_renewal-1.27.9")["valid_certificate_kept"] is Verdict.BROKEN
    assert verdicts("ca_away_at_renewal-1.28.0")["valid_certificate_kept"] is Verdict.HOLDS


def test_the_storm_of_requests() -> None:
    """Stepped back by 13 h, 1.31.0-rc.0 sent requests without end; it was stopped after a bounded
    number."""
    plan, history = recorded("backward_step-1.31.0-rc.0")
    assert verdicts("backward_step-1.31.0-rc.0")["ca_not_flooded"] is Verdict.BROKEN
    assert history.events[-1]["reason"] == "csr_flood"
    assert 200 <= len(history.of("csr_answered")) <= 210
    assert history.end_world_ns < plan.duration_ns


@pytest.mark.parametrize("name", OF_CLUSTERS)
def test_a_cluster_records_what_really_ran(name: str) -> None:
    """The versions of kubelets, istiod and every ztunnel, and the images by their ids; no path of
    the user."""
    subject = recorded(name)[1].events[0]["subject"]
    assert set(subject["kubernetes"].values()) == {"v1.34.11"}
    assert all(versions == ["1.31.0-rc.0"] for versions in subject["ztunnel"].values())
    assert subject["istiod"].startswith("1.31.0-rc.0")
    assert all("@sha256:" in each for ids in subject["image_ids"].values() for each in ids)
    assert "/" not in str(recorded(name)[0].cluster.folder or "")  # type: ignore[union-attr]


def test_a_cluster_that_slept_renews_late_by_its_sleep() -> None:
    """Certificates of 6 min and a sleep of 7 min, in real pods: the renewal after the wake comes 7
    min late, to the few seconds that a look at a cluster takes, and connections fail for the time
    that the certificate had run out."""
    plan, history = recorded("short_sleep-kind-1.31.0-rc.0")
    late_s = [row.late_s for row in renewals(plan, history) if row.late_s is not None]
    assert late_s
    assert max(late_s) == pytest.approx(7 * 60, abs=15)
    found = verdicts("short_sleep-kind-1.31.0-rc.0")
    assert found["recovers_within"] is found["no_expired_certificate_served"] is Verdict.BROKEN
    assert found["clock_fault_happened"] is found["ca_not_flooded"] is Verdict.HOLDS


def test_the_guard_makes_a_cluster_recover_that_without_it_does_not() -> None:
    """The same sleep in real pods: after the wake the guard has evicted both ztunnels, one node
    after the other, and every certificate from then on is renewed in time; without it none is."""
    name = "short_sleep_with_guard-kind-1.31.0-rc.0"
    _, history = recorded(name)
    restarts = [event for event in history.of("ztunnel_started") if event["cause"] == "wake-guard"]
    assert [event.node for event in restarts] == ["here", "there"]
    woke_ns = max(event.world_ns for event in history.of("fault_ended"))
    assert all(0 < event.world_ns - woke_ns < 5 * 60 * NS_PER_S for event in restarts)
    plan, _ = recorded(name)
    last_restart_ns = restarts[-1].world_ns
    rows = [
        row for row in renewals(plan, history) if row.certificate.issued_world_ns > last_restart_ns
    ]
    late_s = [row.late_s for row in rows if row.late_s is not None]
    assert late_s and max(late_s) < 15
    assert verdicts(name)["recovers_within"] is Verdict.HOLDS
    assert verdicts("short_sleep-kind-1.31.0-rc.0")["recovers_within"] is Verdict.BROKEN


def test_in_a_cluster_our_alert_fires_before_the_outage_and_the_reported_one_never() -> None:
    """By a Prometheus of profile full. After the wake the next renewal is late by the sleep, which
    fires for minutes before the certificate runs out; the alert of the report waits for a metric
    that ztunnel does not have."""
    _, history = recorded("short_sleep_with_alerts-kind-1.31.0-rc.0")
    fired = [(event["alert"], event.world_ns) for event in history.of("alert_fired")]
    assert "ZtunnelCertificateExpiringAsReported" in history.of("alerts_evaluated")[-1]["rules"]
    assert "ZtunnelCertificateExpiringAsReported" not in {name for name, _ in fired}
    expired_ns = max(world_ns for name, world_ns in fired if name == "ZtunnelCertificateExpired")
    late_ns = max(world_ns for name, world_ns in fired if name == "ZtunnelRenewalLate")
    assert expired_ns - late_ns > 3 * 60 * NS_PER_S
    failed = [event.world_ns for event in history.of("connection_attempted") if not event["ok"]]
    assert not [world_ns for world_ns in failed if late_ns <= world_ns < expired_ns - 60 * NS_PER_S]
    assert any(world_ns > expired_ns - 60 * NS_PER_S for world_ns in failed)


def test_a_cured_ztunnel_is_a_surprise() -> None:
    """Its time base is taken again at every conversion: no outage in a week of nights, which is
    not expected of 1.31."""
    plan, history = recorded("nightly_sleep-1.31.0-rc.0-fresh-time-base", CURED)
    outcome = compare(plan, judge(plan, history))
    assert outcome.kind is OutcomeKind.SURPRISE
    assert outcome.exit_code == 1
    surprises = {
        row.finding.check for row in outcome.comparisons if row.kind is OutcomeKind.SURPRISE
    }
    assert surprises == {"no_expired_certificate_served", "traffic_flows", "recovers_within"}
    assert outages(plan, history) == ()
