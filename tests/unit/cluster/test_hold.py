"""One command at a time on a cluster: the second learns the holder, and a holder that was killed
blocks no other."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from meshwake.cluster.hold import (
    HOLDER,
    LEASE_NAME,
    LEASE_NAMESPACE,
    LEASE_S,
    Holder,
    InUse,
    at_work,
    hold,
    holder_in,
    is_marked,
)
from meshwake.cluster.state import ClusterState
from meshwake.core.errors import LabUnavailable, SubjectFailed

from tests.unit.cluster.simulated import SimulatedCluster
from tests.unit.labs.kind.runs import cluster_of, plan

KEY = ("Lease", LEASE_NAMESPACE, LEASE_NAME)
ELSEWHERE = replace(Holder.here("run of far_away"), machine="another-host boot pid:[1]")


def cluster() -> SimulatedCluster:
    return cluster_of(plan())


def gone() -> Holder:
    """A holder on this machine whose process has ended."""
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    return replace(Holder.here("run of killed"), pid=int(done.stdout), started="1")


def held_by(of: SimulatedCluster, holder: Holder) -> dict[str, Any]:
    """The Lease as `holder` left it."""
    with hold(of, of, "c", "run"):
        lease = of.objects[KEY]
    lease["metadata"]["annotations"][HOLDER] = holder.to_text()
    of.objects[KEY] = lease
    return lease


def test_the_second_learns_who_holds_it() -> None:
    """At once, with command, process, host and since when; and the first goes on."""
    of = cluster()
    with hold(of, of, "meshwake-c", "run of nightly_sleep") as held:
        words = rf"meshwake-c is in use: run of nightly_sleep \(process {os.getpid()} on .*, since 20.*Z\); wait"
        with pytest.raises(InUse, match=words), hold(of, of, "meshwake-c", "run of another"):
            pass
        held.check()
        assert of.now_ns == 0
    assert not is_marked(of)


def test_a_holder_that_was_killed_here_blocks_no_other() -> None:
    """Its process is gone, or another has its number: no waiting."""
    of = cluster()
    for dead in (gone(), replace(Holder.here("run"), started="not this process")):
        held_by(of, dead)
        with hold(of, of, "c", "run"):
            assert of.now_ns == 0


def test_a_holder_elsewhere_that_renews_is_left_alone() -> None:
    """Whatever its wall clock says: a change is seen, by our own clock."""
    of = cluster()
    held_by(of, ELSEWHERE)

    class Renewing(SimulatedCluster):
        def sleep(self, lasts_s: float) -> None:
            super().sleep(lasts_s)
            lease = self.objects[KEY]
            lease["metadata"]["resourceVersion"] = f"renewed-{self.now_ns // 5_000_000_000}"

    of.__class__ = Renewing
    with (
        pytest.raises(InUse, match="run of far_away .process .* on another-host"),
        hold(of, of, "c", "run"),
    ):
        pass
    assert of.now_ns < 10**10


def test_a_holder_elsewhere_that_was_killed_is_waited_out() -> None:
    """It is not renewed for as long as a Lease lasts."""
    of = cluster()
    held_by(of, ELSEWHERE)
    with hold(of, of, "c", "run"):
        assert LEASE_S * 10**9 < of.now_ns < (LEASE_S + 5) * 10**9


def test_of_two_that_come_at_once_one_gets_it() -> None:
    """Between read and write another client was faster: the version that was seen is not
    there."""
    of = cluster()

    class Raced(SimulatedCluster):
        def replace(self, thing: Any) -> bool:
            if not self.objects.get(KEY):
                lease = {**thing, "metadata": {**thing["metadata"], "resourceVersion": "7"}}
                lease["metadata"]["annotations"] = {
                    HOLDER: Holder.here("run of the faster").to_text()
                }
                self.objects[KEY] = lease
            return super().replace(thing)

    of.__class__ = Raced
    with pytest.raises(InUse, match="run of the faster"), hold(of, of, "c", "run"):
        pass


def test_one_whose_cluster_was_taken_over_is_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine slept, another took over: the run ends, and the other's Lease stays."""
    monkeypatch.setattr("meshwake.cluster.hold.RENEW_EVERY_S", 0.01)
    of = cluster()
    with hold(of, of, "c", "run") as held:
        of.objects[KEY]["metadata"]["annotations"][HOLDER] = ELSEWHERE.to_text()
        held._renewer.join(timeout=10)
        assert held.lost
        with pytest.raises(SubjectFailed, match="taken over by run of far_away"):
            held.check()
    assert holder_in(of.objects[KEY]) == ELSEWHERE


def test_a_lease_is_renewed_while_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after an outage of the API server."""
    monkeypatch.setattr("meshwake.cluster.hold.RENEW_EVERY_S", 0.01)
    of = cluster()
    with hold(of, of, "c", "run") as held:
        of.unreachable = lambda what: True
        held._ends.wait(0.05)
        of.unreachable = lambda what: False
        first = of.objects[KEY]["metadata"]["resourceVersion"]
        for _ in range(1000):
            if of.objects[KEY]["metadata"]["resourceVersion"] != first:
                break
            held._ends.wait(0.01)
        assert of.objects[KEY]["metadata"]["resourceVersion"] != first
        held.check()


def test_a_foreign_lease_of_that_name_is_left_alone() -> None:
    """No label of ours: refused, not overwritten."""
    of = cluster()
    of.objects[KEY] = theirs = {"metadata": {"resourceVersion": "1"}}
    with pytest.raises(LabUnavailable, match="exists without our label"), hold(of, of, "c", "run"):
        pass
    assert of.objects[KEY] is theirs


def test_a_cluster_of_ours_says_who_works_on_it(tmp_path: Path) -> None:
    """The file lock: held, named, and released."""
    state = ClusterState.of("meshwake-h")
    assert state.holder() is None
    with state.lock("run of nightly_sleep"):
        holder = state.holder()
        assert (
            holder is not None
            and holder.doing == "run of nightly_sleep"
            and holder.pid == os.getpid()
        )
    assert state.holder() is None


def test_the_holder_is_shown_with_what_it_is_doing() -> None:
    """At once, not with the next renewal; a holder that was killed is not shown."""
    kubernetes = cluster()
    assert at_work(kubernetes) is None
    with hold(kubernetes, kubernetes, "c", "run of nightly") as held:
        assert str(at_work(kubernetes)).startswith(f"run of nightly (process {os.getpid()} on ")
        held.report("pause of vm for 17m")
        assert str(at_work(kubernetes)).endswith("; under way: pause of vm for 17m")
        held.report("")
        assert "under way" not in str(at_work(kubernetes))
    kubernetes.objects[KEY] = held_by(kubernetes, gone())
    assert at_work(kubernetes) is None
