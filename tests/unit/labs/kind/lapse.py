"""Idle time skipped on a simulated cluster: its clocks go on at once, and what falls due meanwhile
happens late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwake.clocks.movers.lapse import LapseMover
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.labs.kind.cron_jobs import FixJobs, WithJobs
from meshwake.labs.kind.fix import due_jobs_of
from meshwake.labs.kind.lapsed import LapsedFaults
from meshwake.labs.kind.pace import LapsePace
from meshwake.labs.kind.session import ClusterSession
from meshwake.labs.kind.watchers import ZtunnelLogs

from tests.unit.cluster.simulated import Clock, SimulatedCluster
from tests.unit.labs.kind.runs import cluster_of, setting_of

LEAP_TAKES_S, CHECK_OF_STILLNESS_S = 0.1, 0.05


@dataclass
class SimulatedLapse(LapseMover):
    """Moves the clocks of a SimulatedCluster as the helpers do: of those who are awake, and at a
    wake."""

    cluster: SimulatedCluster
    leaps: list[int] = field(default_factory=list)
    released: bool = False

    def __post_init__(self) -> None:
        self._stopped: dict[str, ClockReading] = {}
        self._fell_asleep_ns: dict[str, tuple[int, int]] = {}

    def prepare(self) -> None:
        """See Mover."""

    def release(self) -> None:
        """See Mover."""
        self.released = True

    def read(self, node: str) -> ClockReading:
        """See Mover. A node whose programs are stopped cannot answer."""
        assert node not in self._stopped, f"{node} was queried while it slept"
        return self.cluster.reading(node)

    def await_still(self) -> None:
        """See LapseMover."""
        self.cluster.sleep(CHECK_OF_STILLNESS_S)

    def skip(self, by_ns: int) -> None:
        """See LapseMover."""
        self.leaps.append(by_ns)
        for node, clock in self.cluster.clocks.items():
            if node not in self._stopped:
                _move(clock, ClockReading(by_ns, by_ns, by_ns))
        self._skipped_ns = getattr(self, "_skipped_ns", 0) + by_ns
        self.cluster.sleep(LEAP_TAKES_S)

    def fall_asleep(self, nodes: Sequence[str]) -> None:
        """See LapseMover."""
        for node in nodes:
            self._stopped[node] = self.cluster.reading(node)
            self.cluster.stopped.add(node)
            self._fell_asleep_ns[node] = (self.cluster.now_ns, getattr(self, "_skipped_ns", 0))

    def wake(self, nodes: Sequence[str], kind: str, lasts_ns: int) -> None:
        """See LapseMover."""
        for node in nodes:
            clock = self.cluster.clocks[node]
            skipped_ns = getattr(self, "_skipped_ns", 0) - self._fell_asleep_ns[node][1]
            back_ns = {"suspend": (0, 1, 0), "pause": (1, 1, 1), "freeze": (0, 0, 0)}[kind]
            _move(clock, ClockReading(*(skipped_ns - lasts_ns * each for each in back_ns)))
            slept_at = self._stopped.pop(node)
            assert self.cluster.reading(node).monotonic_ns >= slept_at.monotonic_ns, (
                "its monotonic clock went back"
            )
            self.cluster.stopped.discard(node)
        self.cluster.sleep(0)

    def set_wall(self, node: str, by_ns: int) -> None:
        """See LapseMover."""
        self.cluster.clocks[node].wall_ns += by_ns


def _move(clock: Clock, by: ClockReading) -> None:
    clock.wall_ns += by.wall_ns
    clock.monotonic_ns += by.monotonic_ns
    clock.boottime_ns += by.boottime_ns


def lapsed(
    of: Plan, mover: SimulatedLapse | None = None, **about: Any
) -> tuple[History, SimulatedLapse]:
    """The history of `of` with idle time skipped, and the mover that skipped it: `mover`, or one of
    a new cluster in which every node has clocks of its own."""
    if mover is None:
        clocks = {node.name: Clock() for node in of.nodes}
        mover = SimulatedLapse(cluster_of(of, clocks=clocks, **about))
    cluster, recorder = mover.cluster, Recorder()
    nodes = {cluster.node_names[node.name]: (node.name, node.identities) for node in of.nodes}
    setting = setting_of(of, cluster, watchers=(ZtunnelLogs(cluster, nodes),), skips=mover)
    session = ClusterSession(setting, mover, recorder)
    assert isinstance(session.pace, LapsePace)
    faults = LapsedFaults(session, mover, cluster, session.pace)
    session.run(WithJobs(faults, FixJobs(session, cluster, due_jobs_of(of))))
    return recorder.history, mover


def took_s(mover: SimulatedLapse) -> float:
    """Real time that it took."""
    return mover.cluster.now_ns / NS_PER_S
