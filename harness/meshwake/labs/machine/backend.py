"""Lab `machine` on one guest as the driver's backend: real ztunnels on clocks that only the kernel
moves.

Everything that is not about time is the process lab's own (process/mesh.py). World time is what an
ideal observer outside the machine would count: boottime since the start, and the time for which the
whole machine was stopped (its own clocks do not count that).

    suspend   the kernel sleeps, here and now; when the call returns it is over, and world time has
              gone on by it
    pause     the machine is stopped; then its wall clock is behind, and is corrected at the end of
              the fault
    drift     the wall clock is set forward every few seconds, as a guest agent does (adjtimex would
              take the monotonic clock along: docs/clocks-measured.md)
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from pathlib import Path

from meshwake.authority.server import RequestReport
from meshwake.clocks.guest.init import Channel, GuestClocks, kernel_clocks
from meshwake.clocks.guest.kernel_page import KernelClockPage
from meshwake.clocks.quiescence.detector import QuiescenceDetector
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage
from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS, NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault, PlannedSleep
from meshwake.labs.machine.guest_overrides import DedicatedInGuest
from meshwake.labs.process.mesh import ProcessMesh, report_of
from meshwake.labs.process.modes import Mode
from meshwake.labs.process.namespaces import Network

# An emulated ztunnel sends a few requests a second where a real one sends hundreds.
FLOOD_WINDOW_NS = 600 * NS_PER_S
# An emulator that skips idle time goes from timer to timer while its guest waits for the host: a
# slow host once cost a guest 366 s, and one that slept for 4 s cost it 62 hours.
LEAP_MAX_NS = 10 * NS_PER_S
# How long to wait for requests while nothing is due: progress is reported in between.
_POLL_EVERY_NS = 600 * NS_PER_S
# As guest agents do. adjtimex would take the monotonic clock along (docs/clocks-measured.md).
FOLLOW_DRIFT_EVERY_NS = 5 * NS_PER_S
# The guest has one processor: a detector that checks without a pause keeps it from those it waits
# for. Costs nothing where idle time is skipped.
_PATIENCE_S = 0.05


def wait_until_end(plan: Plan, now_world_ns: int) -> int | None:
    """Where time passes by itself: when the backend wants to be called next. The end itself is the
    last thing to wait for, not the end of waiting: a ztunnel may request a certificate until
    then."""
    before_end_ns = plan.duration_ns - 1
    return before_end_ns if now_world_ns < before_end_ns else None


class _PatientDetector(QuiescenceDetector):
    """As in the process lab, but it lets the others work before it polls."""

    def first_activity(self, monotonic_now_ns: Callable[[WatchedProcess], int]) -> str | None:
        time.sleep(_PATIENCE_S)
        return super().first_activity(monotonic_now_ns)


class GuestBackend(ProcessMesh):
    """See labs.backend.Backend. Runs inside the guest; `channel` leads to the host."""

    flood_window_ns = FLOOD_WINDOW_NS
    # Sleeps and pauses are the kernel's own.
    stops_for = resumes_after = frozenset({"freeze"})

    def __init__(self, plan: Plan, binary: Path, directory: Path, channel: Channel) -> None:
        super().__init__(plan, binary, directory, _PatientDetector)
        self.timeline = clocks_of(plan)
        self.jumps = 0
        self._guest = GuestClocks(channel)
        self._world_ns = 0
        self._began_boottime_ns: int | None = None  # None: before world time
        self._paused_ns = 0  # for how long the machine was stopped, so far
        self._drifting: set[int] = set()
        self._csr_received = False  # since time was last let pass

    def new_page(self) -> ClockPage:
        """See ProcessMesh."""
        return KernelClockPage()

    def set_first_clocks(self) -> None:
        """See ProcessMesh: only `begin_time` sets them."""

    def new_mode(self, network: Network) -> Mode:
        """See ProcessMesh."""
        return DedicatedInGuest(self.plan, network, self._directory)

    # Time

    @property
    def world_ns(self) -> int:
        """See Backend: as of the last reading of the clock."""
        return self._world_ns

    def begin_time(self) -> None:
        """See Backend. Building the network and starting the authority took time; the scenario's
        wall clock begins only now."""
        self.set_authority_mode()
        clocks = kernel_clocks()
        self._began_boottime_ns = clocks.boottime_ns
        (node,) = self.plan.nodes
        self.pages[node.name].set(clocks._replace(wall_ns=self.plan.starts_wall_s * NS_PER_S))

    def _world_ns_of(self, clocks: ClockReading) -> int:
        if self._began_boottime_ns is None:
            return 0
        return clocks.boottime_ns - self._began_boottime_ns + self._paused_ns

    def _read_clock(self) -> None:
        self.event_world_ns(kernel_clocks())

    def event_world_ns(self, clocks: ClockReading | None) -> int:
        """See Backend."""
        self._world_ns = max(self._world_ns, self._world_ns_of(clocks or kernel_clocks()))
        return self._world_ns

    def next_world_ns(self) -> int | None:
        """See Backend: timers of ztunnels fire by themselves."""
        return wait_until_end(self.plan, self._world_ns)

    def advance(self, world_ns: int) -> None:
        """See Backend. A request for a certificate ends it early: that is recorded at once, and may
        be a reason to attempt a connection."""
        self.jumps += 1
        self._read_clock()
        self._csr_received = False
        while self._world_ns < world_ns and not self._csr_received:
            self._await_request(world_ns - self._world_ns)
            self._drain()
            self._read_clock()
            self._follow_drift()
            self.recording.time_passed()

    def _await_request(self, at_most_ns: int) -> None:
        slice_ns = min(at_most_ns, FOLLOW_DRIFT_EVERY_NS if self._drifting else _POLL_EVERY_NS)
        poll = select.poll()
        poll.register(self.authority.fileno(), select.POLLIN)
        poll.poll(-(-slice_ns // NS_PER_MS))  # rounded up

    def fire_timers(self) -> None:
        """See Backend: they have fired by themselves."""
        self.recording.settle()

    def catch_up(self) -> None:
        """See Backend: `resume_node` has waited for that."""

    def clocks_jumped(self) -> None:
        """See Backend: the kernel keeps its clocks."""

    def csr_reported(self, message: RequestReport) -> None:
        """See ProcessMesh."""
        clocks = kernel_clocks()
        self.event_world_ns(clocks)
        self._csr_received = True
        self.recording.csr_received(report_of(message, clocks))

    # Faults

    def begin(self, fault: PlannedFault) -> None:
        """See Backend. A sleep is over when this returns."""
        if fault.node is None:
            self.set_authority_mode()
        elif fault.kind == "drift":
            self._drifting.add(fault.index)
        elif isinstance(fault, PlannedSleep):
            self._sleep(fault)
            self._read_clock()

    def _sleep(self, fault: PlannedSleep) -> None:
        if fault.kind == "suspend":
            self._guest.suspend(fault.lasts_ns)
        else:
            self._pause(fault.lasts_ns)
            self._paused_ns += fault.lasts_ns

    def _pause(self, lasts_ns: int) -> None:
        """Raises SubjectFailed when the guest's time went on meanwhile: where idle time is skipped,
        an emulator on a very busy machine was once seen to skip minutes while it was being
        stopped."""
        before = kernel_clocks()
        self._guest.pause(lasts_ns)
        leapt_ns = kernel_clocks().monotonic_ns - before.monotonic_ns
        if leapt_ns > LEAP_MAX_NS:
            raise SubjectFailed(
                f"the guest's own time went on by {leapt_ns / NS_PER_S:.0f} s while it was being "
                f"stopped; expected at most {LEAP_MAX_NS // NS_PER_S} s; run it again when the "
                "machine is less busy, or without skipping time (MESHWAKE_MACHINE_TIME=real)"
            )

    def wake(self, fault: PlannedFault) -> None:
        """See Backend: it woke by itself."""

    def end(self, fault: PlannedFault) -> int | None:
        """See Backend."""
        if fault.kind == "drift":
            self._follow_drift()
            self._drifting.discard(fault.index)
        return super().end(fault)

    def _follow_drift(self) -> None:
        """Sets the wall clock to what it shows on a node that drifts as planned."""
        for index in self._drifting:
            node = self.plan.faults[index].node
            clocks = kernel_clocks()
            planned = self.timeline[node].reading(self._world_ns_of(clocks))
            self.pages[node].set(clocks._replace(wall_ns=planned.wall_ns))
