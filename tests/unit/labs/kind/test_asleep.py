"""While programs of a node are stopped, no connection is made to it; from their wake on everything
is looked at again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from typing import Any

import pytest
from meshwake.clocks.movers.base import Moment, Moved
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History, Recorder
from meshwake.core.planned_faults import PlannedFault
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.session import ClusterSession

from tests.unit.cluster.simulated import Clock, Inline, SimulatedCluster, SimulatedMover
from tests.unit.labs.kind.runs import TWO_NODES, cluster_of, plan, setting_of

LATE_NS = 40 * NS_PER_S


@dataclass
class RecordingExecutor(Executor):
    """Work is done where it is submitted, but for a fault: that takes its time, and begins late,
    while the run goes on and asks whether it is done."""

    cluster: SimulatedCluster

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if getattr(fn, "__name__", "") != "move":
            return Inline().submit(fn, *args, **kwargs)
        return Sleeping(self.cluster, *args)


class Sleeping(Future[Any]):
    """A pause of one node: its clocks fall behind, it wakes, and its wall clock is corrected."""

    def __init__(self, cluster: SimulatedCluster, fault: PlannedFault, meanwhile: Any) -> None:
        super().__init__()
        self._cluster, self._fault, self._meanwhile = cluster, fault, meanwhile
        self._wakes_ns = cluster.now_ns + fault.duration_ns + LATE_NS
        self._before = self._moment()
        self._woke: Moment | None = None

    def _moment(self) -> Moment:
        assert self._fault.node is not None
        return Moment(self._cluster.monotonic_ns(), self._cluster.reading(self._fault.node), 0)

    def done(self) -> bool:
        assert self._fault.node is not None
        clock, now_ns, lasts_ns = (
            self._cluster.clocks[self._fault.node],
            self._cluster.now_ns,
            self._fault.duration_ns,
        )
        if self._woke is None and now_ns >= self._wakes_ns:
            clock.wall_ns -= lasts_ns
            clock.monotonic_ns -= lasts_ns
            clock.boottime_ns -= lasts_ns
            self._woke = self._moment()
            self._meanwhile(self._woke, 0, 0)
        corrected_after_ns = self._fault.ends_world_ns - self._fault.asleep_until_world_ns
        if not super().done() and now_ns >= self._wakes_ns + corrected_after_ns:
            wall_before_ns = self._moment().clocks.wall_ns
            clock.wall_ns += lasts_ns
            after = self._moment()
            self.set_result(Moved(self._fault, self._before, after, 0, self._woke, wall_before_ns))
        return super().done()


def paused() -> History:
    of = plan(
        '[[fault]]\nkind = "pause"\nnode = "west"\nat = "1m"\nlasts = "2m"\ncorrected_after = "1m"',
        nodes=TWO_NODES,
        duration="12m",
    )
    cluster = cluster_of(of, clocks={node.name: Clock() for node in of.nodes})
    mover, recorder = SimulatedMover(cluster, name="process"), Recorder()
    session = ClusterSession(
        replace(setting_of(of, cluster), executor=RecordingExecutor(cluster)), mover, recorder
    )
    session.run(Faults(session, mover, cluster))
    return recorder.history


def test_no_connection_is_made_to_a_node_that_sleeps_longer_than_planned() -> None:
    """Planned from 60 to 180 s; it really wakes at 220 s: the attempts between are none, with the
    reason."""
    history = paused()
    (woke,) = history.of("node_woke")
    assert woke.world_ns == pytest.approx(220 * NS_PER_S, abs=2 * NS_PER_S)
    asleep = [
        event
        for event in history.of("connection_attempted")
        if 62 * NS_PER_S < event.world_ns < woke.world_ns
    ]
    assert asleep == []
    missed = history.of("connection_not_attempted")
    assert missed and {event["error"] for event in missed} == {"node west is asleep"}
    assert all(180 * NS_PER_S <= event.world_ns < woke.world_ns for event in missed)


def test_from_its_wake_on_a_node_is_looked_at_by_its_own_clocks() -> None:
    """Its wall clock is two minutes behind until it is corrected: attempts are made, events show
    those clocks, and nothing of it is taken for a disturbance."""
    history = paused()
    (woke,), (ended,) = history.of("node_woke"), history.of("fault_ended")
    between = [
        event
        for event in history.of("connection_attempted")
        if woke.world_ns < event.world_ns < ended.world_ns
    ]
    assert between
    before = history.of("connection_attempted")[0]
    states = [
        event
        for event in history.of("certificate_state")
        if woke.world_ns < event.world_ns < ended.world_ns
    ]
    assert woke.clocks is not None and before.clocks is not None
    for event in [each for each in states if each.node == "west"]:
        assert event.clocks is not None
        behind_ns = (before.clocks.wall_ns - before.world_ns) - (
            event.clocks.wall_ns - event.world_ns
        )
        assert behind_ns == 120 * NS_PER_S
    assert history.of("run_ended", reason="duration")
