"""The run loop, on a backend of which every call is noted and whose clocks are the plan's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.guard.watch import ObservedProcess
from meshwake.labs.backend import (
    CsrReport,
    IssuedCertificate,
    MeshProcess,
    ProcessKind,
    Recording,
    ReportedCertificate,
)
from meshwake.labs.driver import Driver
from meshwake.labs.limits import CSR_FLOOD_MAX, CSR_FLOOD_WINDOW_NS

from tests.support.plans import TWO_NODES, plan

MINUTE_NS = 60 * NS_PER_S
CLIENT, SERVER = "default/client", "default/server"
HELD = ReportedCertificate("Available", "1", 2_000_000_000)


class ScriptedBackend:
    """Notes its calls. `reports`: what the authority reports when everything is waited for next;
    `at_timers`: what happens when timers fire at a world time."""

    flood_window_ns = CSR_FLOOD_WINDOW_NS
    starts_together = False

    def __init__(self, of: Plan) -> None:
        self.plan, self.timeline = of, clocks_of(of)
        self.world_ns = 0
        self.calls: list[tuple[int, str]] = []
        self.reports: list[CsrReport] = []
        self.timers: dict[int, list[CsrReport]] = {}
        self.states: dict[str, ReportedCertificate | None] = {CLIENT: HELD, SERVER: HELD}
        self.error: str | None = None
        self.wall_before_ns: int | None = None

    def note(self, call: str) -> None:
        self.calls.append((self.world_ns // MINUTE_NS, call))

    def open(self, recording: Recording, stack: ExitStack) -> None:
        self.recording = recording
        stack.callback(self.note, "closed")

    def subject_details(self) -> dict[str, Any]:
        return {"mode": "scripted"}

    def begin_time(self) -> None:
        self.note("begin time")

    def next_world_ns(self) -> int | None:
        return min(self.timers, default=None)

    def advance(self, world_ns: int) -> None:
        self.world_ns = world_ns

    def fire_timers(self) -> None:
        self.note("timers")
        self.reports += self.timers.pop(self.world_ns, [])
        self.recording.settle()

    def catch_up(self) -> None:
        self.note("catch up")

    def clocks_jumped(self) -> None:
        self.note("jumped")

    def event_world_ns(self, clocks: ClockReading | None) -> int:
        return self.world_ns

    def clocks(self, node: str) -> ClockReading:
        return self.timeline[node].reading(self.world_ns)

    def measure(self, fault: PlannedFault) -> ClockReading:
        return self.timeline[fault.node].reading(self.world_ns)

    def processes(self, node: str, kind: ProcessKind) -> list[MeshProcess]:
        return [
            MeshProcess(each.name, each.name, each.identities)
            for each in self.plan.nodes
            if each.name == node and kind == "ztunnel"
        ]

    def start(self, process: MeshProcess) -> ClockReading:
        self.note(f"start {process.name}")
        return self.clocks(process.node)

    def await_ready(self, processes: Sequence[MeshProcess]) -> None:
        self.note("ready")

    def stop(self, processes: Sequence[MeshProcess]) -> None:
        self.note("stop " + " ".join(process.name for process in processes))

    def remove_pod(self, identity: str) -> None:
        self.note(f"remove {identity}")

    def add_pod(self, identity: str) -> None:
        self.note(f"add {identity}")

    def restart_applications(self, node: str) -> None:
        self.note(f"applications {node}")

    def prepare(self, fault: PlannedFault) -> None:
        self.note(f"prepare {fault.kind}")

    def begin(self, fault: PlannedFault) -> None:
        self.note(f"begin {fault.kind}")

    def wake(self, fault: PlannedFault) -> None:
        self.note(f"wake {fault.kind}")

    def end(self, fault: PlannedFault) -> int | None:
        self.note(f"end {fault.kind}")
        return self.wall_before_ns

    def attempt(self, source: str, destination: str) -> str | None:
        self.note("attempt")
        return self.error

    def logged_error(self, source: str) -> str | None:
        return "what the log says"

    def await_quiet(self) -> None:
        reports, self.reports = self.reports, []
        for report in reports:
            self.recording.csr_received(report)

    def certificate_state(self, identity: str) -> ReportedCertificate | None:
        return self.states[identity]

    def observe(self, node: str) -> list[ObservedProcess]:
        return []

    def authority_answers(self) -> bool:
        return True


def issued(identity: str, serial: str) -> CsrReport:
    return CsrReport(identity, "issued", IssuedCertificate(serial, 0, 4_000_000_000))


def ran(backend: ScriptedBackend) -> History:
    events: list[Event] = []
    Driver(backend.plan, backend, events.append, lambda world_ns: None).run({"kind": "fake"})
    return History(events)


def backend_of(faults: str = "", **options: Any) -> ScriptedBackend:
    return ScriptedBackend(plan(faults, **({"duration": "30m", "every": "10m"} | options)))


def test_a_run_begins_and_ends_and_closes_its_backend() -> None:
    """The subject has what the backend adds; the end is at the planned time."""
    backend = backend_of()
    history = ran(backend)
    first, last = history.events[0], history.events[-1]
    assert first["subject"] == {"kind": "fake", "mode": "scripted"}
    assert (last.kind, last["reason"], last.world_ns) == ("run_ended", "duration", 30 * MINUTE_NS)
    assert backend.calls[-1][1] == "closed"


def test_at_one_moment_faults_come_before_timers_and_timers_before_connections() -> None:
    backend = backend_of('[[fault]]\nkind = "suspend"\nat = "5m"\nlasts = "5m"')
    ran(backend)
    at_end = [call for minute, call in backend.calls if minute == 10]
    assert at_end[:4] == ["end suspend", "jumped", "timers", "attempt"]


def test_after_a_freeze_processes_catch_up_before_a_restart() -> None:
    backend = backend_of(
        '[[fault]]\nkind = "freeze"\nat = "5m"\nlasts = "5m"\n'
        '[[fault]]\nkind = "restart"\nat = "10m"'
    )
    ran(backend)
    calls = [call for minute, call in backend.calls if minute == 10]
    assert calls.index("end freeze") < calls.index("catch up") < calls.index("prepare restart")
    assert calls.index("stop laptop") < calls.index("start laptop")


def test_reports_of_one_moment_are_recorded_by_identity_whatever_came_first() -> None:
    """And each certificate's state once, until it changes."""
    backend = backend_of()
    backend.timers = {7 * MINUTE_NS: [issued(SERVER, "3"), issued(CLIENT, "2")]}
    history = ran(backend)
    answered = [event["identity"] for event in history.of("csr_answered")]
    assert answered == [CLIENT, SERVER]
    states = [(event["identity"], event["serial"]) for event in history.of("certificate_state")]
    assert states == [(CLIENT, "1"), (SERVER, "1")]


def test_a_slow_authority_takes_a_request_before_it_answers() -> None:
    backend = backend_of()
    backend.timers = {
        5 * MINUTE_NS: [CsrReport(CLIENT, "taken")],
        6 * MINUTE_NS: [issued(CLIENT, "2")],
    }
    history = ran(backend)
    [taken], [answered] = history.of("csr_taken"), history.of("csr_answered")
    assert (taken.world_ns, answered.world_ns) == (5 * MINUTE_NS, 6 * MINUTE_NS)
    assert (answered["outcome"], answered["serial"]) == ("issued", "2")


def test_requests_without_end_end_the_run() -> None:
    """What was received until then is recorded."""
    backend = backend_of()
    backend.timers = {5 * MINUTE_NS: [issued(CLIENT, str(n)) for n in range(CSR_FLOOD_MAX + 5)]}
    history = ran(backend)
    assert history.events[-1]["reason"] == "csr_flood"
    assert len(history.of("csr_answered")) == CSR_FLOOD_MAX + 1


def test_a_failed_connection_has_the_reason_from_the_log() -> None:
    """When an outage begins, both ends are queried for their state, and not again in it."""
    backend = backend_of()
    backend.error = "closed"
    backend.states[SERVER] = ReportedCertificate("Unavailable: x", None, None)
    history = ran(backend)
    attempts = history.of("connection_attempted")
    assert {event["error"] for event in attempts} == {"what the log says"}
    assert len(history.of("certificate_state")) == 2


@pytest.mark.parametrize("wall_before_ns", [None, 5])
def test_the_end_of_a_fault_says_what_was_stepped(wall_before_ns: int | None) -> None:
    backend = backend_of('[[fault]]\nkind = "step"\nat = "5m"\nby = "1h"')
    backend.wall_before_ns = wall_before_ns
    [ended] = ran(backend).of("fault_ended")
    assert ended["wall_before_ns"] == wall_before_ns


def test_nodes_start_one_by_one_unless_the_backend_starts_them_together() -> None:
    one_by_one, together = (
        backend_of('[authority]\nnode = "east"', nodes=TWO_NODES) for _ in range(2)
    )
    together.starts_together = True
    ran(one_by_one)
    ran(together)
    start = [call for minute, call in one_by_one.calls][:5]
    assert start == ["begin time", "start east", "ready", "start west", "ready"]
    start = [call for minute, call in together.calls][:4]
    assert start == ["begin time", "start east", "start west", "ready"]
