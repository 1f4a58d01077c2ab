"""The world of the process lab on clocks that nobody moves but the kernel: inside a guest.

Everything that is not about time is the process lab's own: namespaces, ztunnels, authority,
connections, records. World time is what an ideal observer beside the machine would count: boottime
since the start, and the time for which the whole machine was made to stand (its own clocks know
nothing of that).

    suspend   the kernel sleeps, here and now; when the call returns it is over, and the world has gone on by it
    pause     the machine stands; then its wall clock is behind, and is set right at the end of the fault
    drift     the wall clock is set forward every few seconds, as a guest agent does (adjtimex would take the monotonic
              clock along: docs/clocks-measured.md)
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshwake.clocks.guest.init import Channel, GuestClocks, kernel_clocks
from meshwake.clocks.guest.kernel_page import KernelClockPage
from meshwake.clocks.quiescence.detector import QuiescenceDetector
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS, NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.core.history import Event
from meshwake.core.plan import ASLEEP_FAULTS, Plan, PlannedFault
from meshwake.labs.agenda import Agenda
from meshwake.labs.limits import FloodGuard
from meshwake.labs.machine.telling import DedicatedInGuest
from meshwake.labs.probes import ProbeSchedule
from meshwake.labs.process.modes import Mode as ZtunnelMode
from meshwake.labs.process.namespaces import Network
from meshwake.labs.process.world import World

# An emulated ztunnel asks a few times a second where a real one asks hundreds of times.
FLOOD_WINDOW_NS = 600 * NS_PER_S
LEAP_MAX_NS = 10 * NS_PER_S
# How long nobody looks at anything while nothing is due: within it the host hears of us.
_LOOK_EVERY_NS = 600 * NS_PER_S
FOLLOW_DRIFT_EVERY_NS = 5 * NS_PER_S


# The guest has one processor: who looks for quiet all the time keeps those busy whom it waits for.
# Costs nothing where idle time is skipped.
_PATIENCE_S = 0.05


def next_to_do_ns(plan: Plan, agenda: Agenda, probes: ProbeSchedule, now_world_ns: int) -> int:
    """World time of what we have to do ourselves next; timers of ztunnels end by themselves."""
    candidates = [plan.duration_ns]
    if (agenda_ns := agenda.next_world_ns()) is not None:
        candidates.append(agenda_ns)
    if (probe_ns := probes.next_world_ns()) is not None:
        candidates.append(probe_ns)
    # The end is the last thing to wait for, not the end of waiting: somebody may ask for a
    # certificate until then.
    before_end_ns = plan.duration_ns - 1
    return (
        max(min(*candidates, before_end_ns), 0)
        if now_world_ns < before_end_ns
        else plan.duration_ns
    )


class _PatientDetector(QuiescenceDetector):
    """As in the process lab, but it lets the others work before it polls."""

    def first_activity(self, monotonic_now_ns: Callable[[WatchedProcess], int]) -> str | None:
        time.sleep(_PATIENCE_S)
        return super().first_activity(monotonic_now_ns)


class KernelWorld(World):
    """Everything of one run inside a guest; `channel` leads to the host."""

    def __init__(
        self,
        plan: Plan,
        ztunnel: Path,
        directory: Path,
        tell: Callable[[Event], None],
        progress: Callable[[int], None],
        channel: Channel,
    ) -> None:
        super().__init__(plan, ztunnel, directory, tell, progress)
        self._guest = GuestClocks(channel)
        self._stillness = _PatientDetector(self._drain)
        self._began_boottime_ns = kernel_clocks().boottime_ns
        self._stood_ns = 0
        self._drifting: set[int] = set()
        self._arrived: dict[tuple[str, str | None], deque[ClockReading]] = {}
        self._flood = FloodGuard(sum(len(node.identities) for node in plan.nodes), FLOOD_WINDOW_NS)

    def _start_ztunnels(self, node: str, cause: str) -> None:
        if cause == "start":
            # Only now does the world begin: what came before took its time.
            clocks = kernel_clocks()
            self._began_boottime_ns = clocks.boottime_ns
            self._pages[node].set(clocks._replace(wall_ns=self.plan.starts_wall_s * NS_PER_S))
        super()._start_ztunnels(node, cause)

    # Time

    def _new_page(self) -> ClockPage:
        return KernelClockPage()

    def _new_mode(self, network: Network) -> ZtunnelMode:
        return DedicatedInGuest(self.plan, network, self._directory)

    def _set_pages(self, before_jumps: bool) -> None:
        """Nobody sets them."""

    def _world_ns_of(self, clocks: ClockReading) -> int:
        return clocks.boottime_ns - self._began_boottime_ns + self._stood_ns

    def _look_at_clock(self) -> None:
        self.now_world_ns = max(self.now_world_ns, self._world_ns_of(kernel_clocks()))

    def _next_world_ns(self) -> int:
        return next_to_do_ns(self.plan, self._agenda, self._probes, self.now_world_ns)

    def _move_to(self, world_ns: int) -> None:
        """Time passes, until then or until somebody asks for a certificate: that is recorded at
        once, and may be a reason to attempt a connection."""
        self.jumps += 1
        self._look_at_clock()
        asked = False
        while self.now_world_ns < world_ns and not asked:
            self._await_request(world_ns - self.now_world_ns)
            asked = self._drain()
            self._look_at_clock()
            self._follow_drift()
            self._progress(self.now_world_ns)
        for identity in self._record_requests():
            self._settle()
            self._record_state(identity)

    def _await_request(self, at_most_ns: int) -> None:
        slice_ns = min(at_most_ns, FOLLOW_DRIFT_EVERY_NS if self._drifting else _LOOK_EVERY_NS)
        poll = select.poll()
        poll.register(self._authority.fileno(), select.POLLIN)
        poll.poll(-(-slice_ns // NS_PER_MS))

    def _fire_timers(self) -> None:
        """They have fired by themselves."""
        self._settle()

    # Faults

    def begin(self, fault: PlannedFault) -> None:
        """See agenda.Keeper. A sleep is over when this returns."""
        if fault.kind not in ASLEEP_FAULTS:
            super().begin(fault)
            if fault.kind == "drift":
                self._drifting.add(fault.index)
            return
        self._record_fault("fault_began", fault)
        if fault.kind == "suspend":
            self._guest.suspend(fault.lasts_ns)
        else:
            self._pause(fault.lasts_ns)
            self._stood_ns += fault.lasts_ns
        self._look_at_clock()

    def _pause(self, lasts_ns: int) -> None:
        """Where idle time is skipped, an emulator on a very busy machine was once seen to skip
        minutes while it was asked to stop: a run in which that happens is worth nothing, and says
        so."""
        before = kernel_clocks()
        self._guest.pause(lasts_ns)
        leapt_ns = kernel_clocks().monotonic_ns - before.monotonic_ns
        if leapt_ns > LEAP_MAX_NS:
            raise SubjectFailed(
                f"the guest's own time went on by {leapt_ns / NS_PER_S:.0f} s while it was "
                "being stopped, expected was "
                f"at most {LEAP_MAX_NS // NS_PER_S} s; run it again when the machine is "
                "less busy, or let no time be "
                "skipped (MESHWAKE_MACHINE_TIME=real)"
            )

    def wake(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        self._record_fault("node_woke", fault)

    def end(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        if fault.kind == "suspend":
            self._record_fault("fault_ended", fault, wall_before_ns=None)
            return
        if fault.index in self._drifting:
            self._follow_drift()
            self._drifting.discard(fault.index)
        super().end(fault)

    def _follow_drift(self) -> None:
        """Sets the wall clock to what it shows on a node that drifts as planned."""
        for index in self._drifting:
            node = self.plan.faults[index].node
            clocks = kernel_clocks()
            planned = self._clocks[node].reading(self._world_ns_of(clocks))
            self._pages[node].set(clocks._replace(wall_ns=planned.wall_ns))

    # Recording

    def _drain(self) -> bool:
        known = len(self._requests)
        self._look_at_clock()
        heard = super()._drain()
        for request in self._requests[known:]:
            self._arrived.setdefault((request["identity"], request["serial"]), deque()).append(
                kernel_clocks()
            )
        return heard

    def _record(
        self, kind: str, node: str | None, clocks: ClockReading | None = None, **data: Any
    ) -> None:
        if kind == "run_started":
            data["lab"] = self.plan.lab
        if kind == "csr_answered" and (
            arrived := self._arrived.get((data["identity"], data["serial"]))
        ):
            clocks = arrived.popleft()
        if clocks is None:
            clocks = kernel_clocks()
        self.now_world_ns = max(self.now_world_ns, self._world_ns_of(clocks))
        super()._record(
            kind, node, None if node is None and kind.startswith("run_") else clocks, **data
        )
