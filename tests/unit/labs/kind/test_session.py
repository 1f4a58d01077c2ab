from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.clocks.movers.base import NoProgramToRead
from meshwake.cluster.reset import restore_cluster
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessFault, SubjectFailed
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import LocalFailure, Unreachable
from meshwake.labs import Toolbox
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.session import LOST_TIMEOUT_NS, ClusterSession, WatcherEvent
from meshwake.labs.model.lab import LAB as MODEL

from tests.unit.cluster.simulated import SimulatedCluster, SimulatedMover
from tests.unit.labs.kind.runs import (
    CLIENT,
    SERVER,
    TWO_NODES,
    cluster_of,
    plan,
    plan_of,
    run,
    setting_of,
    verdicts,
)


def on_the_model(of: Plan) -> History:
    recorder = Recorder()
    MODEL.run(of, Toolbox(ztunnel=None, work_dir=Path()), recorder)
    return recorder.history


@pytest.mark.parametrize(
    "name",
    [
        "regressions/ztunnel_1481.toml",
        "nothing_happens.toml",
        "one_long_suspend.toml",
        "forward_step.toml",
    ],
)
def test_what_is_seen_from_outside_is_judged_as_the_model_is(name: str) -> None:
    """Certificates in config_dumps, connections by curl, clocks by a mover: every check comes to
    the same verdict."""
    of = plan_of(name)
    assert verdicts(of, run(of)) == verdicts(of, on_the_model(of))


def test_the_pause_of_issue_1481_is_broken() -> None:
    """17 min of pause, corrected 25 s late, certificates of 10 min: the fault this program is
    about."""
    of = plan_of("regressions/ztunnel_1481.toml")
    found = verdicts(of, run(of))
    assert found["clock_fault_happened"] is Verdict.HOLDS
    assert found["no_expired_certificate_served"] is found["traffic_flows"] is Verdict.BROKEN
    assert found["renewals_on_time"] is found["recovers_within"] is Verdict.BROKEN


def test_nothing_breaks_when_nothing_sleeps() -> None:
    """Thirty minutes, and no fault."""
    of = plan(duration="30m")
    found = verdicts(of, run(of))
    checks = (
        "no_expired_certificate_served",
        "renewals_on_time",
        "traffic_flows",
        "ca_not_flooded",
    )
    assert {found[check] for check in checks} == {Verdict.HOLDS}


def test_certificates_are_placed_at_the_second_in_which_they_were_issued() -> None:
    """A poll is up to two seconds late; the times in the certificate are not."""
    of = plan(duration="15m")
    seen = run(of).of("csr_answered", outcome="issued", identity=CLIENT)
    exact = on_the_model(of).of("csr_answered", outcome="issued", identity=CLIENT)
    assert len(seen) == len(exact)
    assert all(
        abs(one.world_ns - other.world_ns) <= NS_PER_S
        for one, other in zip(seen, exact, strict=True)
    )


def test_an_outage_is_seen_when_it_begins() -> None:
    """The first failure after a late renewal comes within seconds of notAfter, not at the next
    regular attempt."""
    of = plan('[[fault]]\nkind = "step"\nat = "1m"\nby = "7m"', duration="30m")
    history = run(of)
    failed = history.of("connection_attempted", ok=False)
    worlds_s = [event.world_ns / 1e9 for event in failed]
    not_after_s = [
        event["not_after_wall_s"] for event in history.of("csr_answered", identity=SERVER)
    ]
    walls_s = [event.clocks.wall_ns / 1e9 for event in failed if event.clocks]
    assert any(0 < wall - not_after_s[1] < 3 for wall in walls_s), (worlds_s, not_after_s)


def test_both_nodes_of_one_kernel_sleep_once() -> None:
    """One movement carries out the faults of both nodes; world time jumps once, and both are
    measured."""
    of = plan(
        '[[fault]]\nkind = "pause"\nnode = "*"\nat = "3m"\nlasts = "17m"\ncorrected_after = "10s"',
        nodes=TWO_NODES,
        duration="40m",
    )
    cluster = cluster_of(of)
    history = run(of, cluster)
    assert verdicts(of, history)["clock_fault_happened"] is Verdict.HOLDS
    assert (
        len(history.of("fault_began"))
        == len(history.of("fault_ended"))
        == len(history.of("node_woke"))
        == 2
    )
    assert cluster.now_ns / NS_PER_S == pytest.approx((40 - 17) * 60, abs=5)


def test_a_ztunnel_that_is_restarted_is_another_process() -> None:
    """The restart of a plan ends a pod; the next is found, with its certificates, and the drift is
    gone."""
    of = plan(
        '[[fault]]\nkind = "pause"\nat = "3m"\nlasts = "5m"\ncorrected_after = "5s"\n'
        '[[fault]]\nkind = "restart"\nat = "12m"'
    )
    history = run(of)
    assert [event["cause"] for event in history.of("ztunnel_started")] == ["start", "restart"]
    assert [event["process"] for event in history.of("ztunnel_stopped")] == ["ztunnel-1"]
    assert verdicts(of, history)["traffic_flows"] is Verdict.HOLDS


def test_istiod_away_is_istiod_scaled_to_nothing() -> None:
    """It goes and comes back, ztunnel's log has renewals refused, and 1.28 keeps what is still
    valid."""
    of = plan('[[fault]]\nkind = "ca_outage"\nat = "3m"\nlasts = "4m"', duration="20m")
    cluster = cluster_of(of)
    history = run(of, cluster, log=True)
    assert cluster.istiods == 1
    assert history.of("csr_answered", outcome="refused")
    assert verdicts(of, history)["valid_certificate_kept"] is Verdict.HOLDS


def test_a_ztunnel_that_restarts_without_istiod_is_seen_before_it_is_ready() -> None:
    """It is not ready before istiod is back, which the same run brings back: the restart does not
    wait for that."""
    of = plan(
        '[[fault]]\nkind = "ca_outage"\nat = "3m"\nlasts = "4m"\n[[fault]]\nkind = '
        '"restart"\nat = "4m"',
        duration="20m",
    )
    history = run(of)
    assert [event["cause"] for event in history.of("ztunnel_started")] == ["start", "restart"]
    ended_s = [event.world_ns / NS_PER_S for event in history.of("fault_ended")]
    assert ended_s == [pytest.approx(240, abs=10), pytest.approx(420, abs=10)]
    assert history.of("connection_attempted", ok=False)


def test_a_run_that_ends_during_an_outage_of_istiod_brings_it_back() -> None:
    """A run that is ended in the middle leaves no cluster without its authority."""
    of = plan('[[fault]]\nkind = "ca_outage"\nat = "3m"\nlasts = "4m"')
    cluster = cluster_of(of)
    session = ClusterSession(setting_of(of, cluster), SimulatedMover(cluster), Recorder())
    faults = Faults(session, SimulatedMover(cluster), cluster)
    cluster.sleep(180)
    faults.do_next()
    assert cluster.istiods == 0
    assert restore_cluster(cluster, cluster) == ["istiod scaled back to 1"]
    assert cluster.istiods == 1


def test_a_connection_that_could_not_be_attempted_did_not_fail() -> None:
    """The API server is unavailable for a minute: no outage, and the reason is recorded."""
    of = plan(duration="10m")
    cluster = cluster_of(of)
    cluster.unreachable = lambda what: what == "exec curl" and 120 < cluster.now_ns / NS_PER_S < 180
    history = run(of, cluster)
    assert history.of("connection_not_attempted")
    assert not history.of("connection_attempted", ok=False)
    assert verdicts(of, history)["traffic_flows"] is Verdict.HOLDS


def test_an_api_server_that_comes_back_ends_no_run() -> None:
    """Unavailable for a minute and a half: recorded once for each observer that failed."""
    of = plan(duration="10m")
    cluster = cluster_of(of)
    cluster.unreachable = lambda what: 120 < cluster.now_ns / NS_PER_S < 210
    history = run(of, cluster)
    assert {event["what"] for event in history.of("observation_failed")} == {
        "the API server",
        "ztunnel of node vm",
    }
    assert history.of("run_ended", reason="duration")


def test_an_api_server_that_stays_away_ends_the_run() -> None:
    """Past the bound the subject has failed; what was seen until then is recorded."""
    of = plan(duration="20m")
    cluster = cluster_of(of)
    cluster.unreachable = lambda what: cluster.now_ns > 120 * NS_PER_S
    recorder = Recorder()
    session = ClusterSession(setting_of(of, cluster), SimulatedMover(cluster), recorder)
    with pytest.raises(SubjectFailed, match="not been reached for 12[0-9] s: .*no answer"):
        session.run(Faults(session, SimulatedMover(cluster), cluster))
    assert cluster.now_ns < 120 * NS_PER_S + LOST_TIMEOUT_NS + 20 * NS_PER_S
    assert recorder.history.of("csr_answered")


def _out_of_files(cluster: SimulatedCluster, from_s: int, to_s: int) -> None:
    def ask(what: str) -> bool:
        if what == "get /config_dump" and from_s < cluster.now_ns / NS_PER_S < to_s:
            raise LocalFailure("too many open files")
        return False

    cluster.unreachable = ask


def test_a_look_that_failed_here_is_not_a_ztunnel_out_of_reach() -> None:
    """Recorded once, as trouble of this machine; the run goes on when it is over."""
    of = plan(duration="10m")
    cluster = cluster_of(of)
    _out_of_files(cluster, 120, 210)
    history = run(of, cluster)
    assert [event["what"] for event in history.of("observation_failed")] == [
        "this machine's way to ztunnel of node vm"
    ]
    assert history.of("run_ended", reason="duration")


def test_a_machine_that_cannot_look_for_long_ends_the_run_as_a_fault_of_ours() -> None:
    """A run that saw nothing must not be judged, and ztunnel is not to blame."""
    of = plan(duration="20m")
    cluster = cluster_of(of)
    _out_of_files(cluster, 120, 9999)
    session = ClusterSession(setting_of(of, cluster), SimulatedMover(cluster), Recorder())
    with pytest.raises(
        HarnessFault, match="this machine's way to ztunnel of node vm has not .*open files"
    ):
        session.run(Faults(session, SimulatedMover(cluster), cluster))


def test_a_clock_that_is_moved_from_outside_ends_the_run() -> None:
    """A time synchronisation puts the clock back: nothing after it would be about the plan."""
    of = plan('[[fault]]\nkind = "pause"\nat = "3m"\nlasts = "17m"\ncorrected_after = "10s"')
    cluster = cluster_of(of)

    class Synchronised(SimulatedMover):
        def read(self, node: str) -> ClockReading:
            reading = super().read(node)
            if cluster.now_ns > 300 * NS_PER_S:
                return reading._replace(wall_ns=reading.wall_ns - 1020 * NS_PER_S)
            return reading

    with pytest.raises(
        SubjectFailed, match="wall clock moved by -1020.0 s that no fault of the plan requested"
    ):
        run(of, cluster, Synchronised(cluster))


class WithoutClocks(SimulatedMover):
    """Its ztunnel is gone from the second minute on, for so many seconds."""

    lasts_s = 0.0

    def read(self, node: str) -> ClockReading:
        if 0 < self.cluster.now_ns / NS_PER_S - 120 < self.lasts_s:
            raise NoProgramToRead(f"node {node}: ztunnel cannot be read: gone")
        return super().read(node)


def test_a_ztunnel_that_is_just_restarting_has_no_clocks_to_read() -> None:
    """They are looked at the next time; a run does not end for it, unless it lasts."""
    of = plan(duration="10m")
    cluster = cluster_of(of)
    mover = WithoutClocks(cluster)
    mover.lasts_s = 60
    assert run(of, cluster, mover).of("run_ended", reason="duration")
    cluster = cluster_of(of)
    mover = WithoutClocks(cluster)
    mover.lasts_s = 9999
    with pytest.raises(
        SubjectFailed, match="the clocks of node vm have not been read for 120 s: .*gone"
    ):
        run(of, cluster, mover)


def test_what_a_watcher_reports_is_recorded_when_it_changes() -> None:
    """The same observation is recorded once; a watcher that fails is recorded once, too."""

    class Watcher:
        name, every_s, reads_logs = "a watcher", 5.0, False
        looks = 0

        def poll(self) -> list[WatcherEvent]:
            self.looks += 1
            if self.looks in {3, 4}:
                raise Unreachable("no such service")
            return [WatcherEvent("alert_fired", "one", {"alert": "ZtunnelCertificateExpired"})]

    watcher = Watcher()
    history = run(plan(duration="2m"), watchers=(watcher,))
    assert watcher.looks > 20
    assert len(history.of("alert_fired")) == 1
    assert [event["error"] for event in history.of("observation_failed")] == ["no such service"]


def test_world_time_in_events_never_goes_back() -> None:
    """Faults, looks and attempts, all late in their own way: the recorder would refuse one out of
    order."""
    history = run(plan_of("nightly_sleep.toml"))
    worlds = [event.world_ns for event in history]
    assert worlds == sorted(worlds)
    assert History.from_text(history.to_text()).to_text() == history.to_text()


def test_same_plan_same_history() -> None:
    """With time and threads as arguments, a run is the same byte for byte."""
    of = plan_of("nothing_happens.toml")
    assert run(of).to_text() == run(of).to_text()
