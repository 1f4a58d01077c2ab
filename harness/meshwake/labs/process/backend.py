"""Lab `process` as the driver's backend: real ztunnels on clocks that do not move until everything
is quiescent, and then jump to the next thing that is due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from meshwake.authority.begin import Begun
from meshwake.authority.server import RequestReport
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage
from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessFault
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import ASLEEP_FAULTS, PlannedFault
from meshwake.labs.limits import CSR_FLOOD_WINDOW_NS
from meshwake.labs.process.mesh import ProcessMesh, report_of
from meshwake.labs.process.modes import Mode, mode_of
from meshwake.labs.process.namespaces import Network
from meshwake.labs.process.processor import Processor

# Ahead of any real monotonic clock, so that deadlines which programs hand to the kernel as absolute
# times never come: behind it they would end at once, and the program would spin.
MONOTONIC_START_NS = 10**18
# A program that sets a timer for a moment that has come, again and again, would keep world time
# from going on.
WAKES_AT_ONE_TIME_MAX = 10_000
# A ztunnel that watches its root file polls it every half second of real time, and reads a change
# when the file has not been modified for two seconds by its clock.
ROOT_FILE_STABLE_NS = 2 * NS_PER_S
# Three of those polls: one may be just before the change.
ROOT_FILE_POLLED_WITHIN_S = 1.5


class ProcessBackend(ProcessMesh):
    """See labs.backend.Backend; everything but time is in mesh.py."""

    flood_window_ns = CSR_FLOOD_WINDOW_NS
    # A paused node is resumed by `wake`, before its wall clock is corrected.
    stops_for = frozenset({*ASLEEP_FAULTS, "freeze"})
    resumes_after = frozenset({"suspend", "freeze"})
    world_ns = 0

    def __init__(
        self,
        plan: Plan,
        binary: Path,
        directory: Path,
        begun: Begun | None = None,
        processor: Processor | None = None,
    ) -> None:
        super().__init__(plan, binary, directory, begun=begun, processor=processor)
        self.timeline = clocks_of(plan, MONOTONIC_START_NS)
        self.jumps = 0  # how often time went on

        # What a slow authority has taken, by its number, and when it answers.
        self._answers_world_ns: dict[int, int] = {}
        self._root_read_world_ns: int | None = None

    def new_page(self) -> ClockPage:
        """See ProcessMesh."""
        return ClockPage("fixed")

    def set_first_clocks(self) -> None:
        """See ProcessMesh."""
        self._set_pages(before_jumps=True)

    def new_mode(self, network: Network) -> Mode:
        """See ProcessMesh."""
        return mode_of(self.plan, network, self._directory)

    # Time

    def begin_time(self) -> None:
        """See Backend: it is 0 already."""
        self.set_authority_mode()  # it may be unavailable from the beginning

    def next_world_ns(self) -> int | None:
        """See Backend."""
        times = [*self._answers_world_ns.values(), *self._timers_world_ns()]
        return min(times, default=None)

    def _timers_world_ns(self) -> Iterator[int]:
        for node, watched in self.running():
            due_ns = watched.due_monotonic_ns()
            # It waits for something other than time.
            if due_ns is None:
                continue
            yield self.timeline[node].world_ns_at_monotonic(due_ns, self.world_ns)

    def advance(self, world_ns: int) -> None:
        """See Backend."""
        self.jumps += world_ns > self.world_ns
        self.world_ns = max(world_ns, self.world_ns)
        self._set_pages(before_jumps=True)
        self._let_root_file_be_read()

    def clocks_jumped(self) -> None:
        """See Backend."""
        self._set_pages(before_jumps=False)

    def event_world_ns(self, clocks: ClockReading | None) -> int:
        """See Backend."""
        return self.world_ns

    def _set_pages(self, before_jumps: bool) -> None:
        for node, page in self.pages.items():
            clock = self.timeline[node]
            reading = clock.reading_before if before_jumps else clock.reading
            page.set(reading(self.world_ns))

    def fire_timers(self) -> None:
        """See Backend."""
        self._answer_late()
        names = ""
        for _ in range(WAKES_AT_ONE_TIME_MAX):
            due = [watched for node, watched in self.running() if self._is_due(node, watched)]
            if not due:
                return
            for watched in due:
                watched.wake(self.monotonic_now_ns(watched))
            self.recording.settle()
            names = ", ".join(watched.name for watched in due)

        raise HarnessFault(f"{names}: a timer is due again and again while its clock does not move")

    def _is_due(self, node: str, watched: WatchedProcess) -> bool:
        due_ns = watched.due_monotonic_ns()
        return due_ns is not None and due_ns <= self.pages[node].get().monotonic_ns

    def catch_up(self) -> None:
        """See Backend: `resume_node` has waited for that."""

    # A slow authority

    def csr_reported(self, message: RequestReport) -> None:
        """See ProcessMesh."""
        if "taken" in message:
            self._answers_world_ns[message["taken"]] = self._answer_world_ns()
        self.recording.csr_received(report_of(message))

    def _answer_world_ns(self) -> int:
        """When the slow authority answers what it takes now."""
        clock = self.timeline[self.plan.authority_node]
        now_monotonic_ns = clock.reading(self.world_ns).monotonic_ns
        due_monotonic_ns = now_monotonic_ns + self.plan.answers_after_ns(self.world_ns)
        return clock.world_ns_at_monotonic(due_monotonic_ns, self.world_ns)

    def _answer_late(self) -> None:
        """A slow authority answers what it took long enough ago."""
        due = []
        for taken, world_ns in self._answers_world_ns.items():
            if world_ns <= self.world_ns:
                due.append(taken)
        if not due:
            return

        for taken in due:
            del self._answers_world_ns[taken]
        self.authority.answer(due)
        self.recording.settle()

    # Faults

    def begin(self, fault: PlannedFault) -> None:
        """See Backend."""
        if fault.kind == "ca_root_change":
            self._replace_authority()
        if fault.node is None:
            self.set_authority_mode()

    def wake(self, fault: PlannedFault) -> None:
        """See Backend."""
        assert fault.node is not None
        self.resume_node(fault.node)

    def _replace_authority(self) -> None:
        """The old one loses what it had taken and not answered."""
        self.recording.settle()
        self.change_root()
        self._answers_world_ns.clear()
        self._root_read_world_ns = self.world_ns + ROOT_FILE_STABLE_NS
        self.recording.settle()

    def _let_root_file_be_read(self) -> None:
        """Once the new root file has been there for long enough by the clocks, those that poll it
        get the real time in which they do."""
        due_world_ns = self._root_read_world_ns
        if due_world_ns is None or self.world_ns < due_world_ns:
            return
        self._root_read_world_ns = None
        time.sleep(ROOT_FILE_POLLED_WITHIN_S)
        self.recording.settle()
