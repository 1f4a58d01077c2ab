"""The backend over several guests, on simulated guests: which commands it sends, when, and what the
driver records."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from meshwake.checks import clock_fault_happened
from meshwake.clocks.vdso.page import unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan

from tests.support.plans import TWO_NODES, plan

pytestmark = pytest.mark.skipif(bool(unsupported_here()), reason=str(unsupported_here()))
S, M = 10**9, 60 * 10**9
SLEEP = (
    '[authority]\nnode = "east"\n[[fault]]\nkind = "{kind}"\nnode = "west"\nat = "10m"\nlasts '
    '= "8m"\n{more}'
)


def assert_node_takes(do: str, arguments: dict[str, Any]) -> None:
    """A real guest has a method of this name, if it has one, that takes these arguments."""
    from meshwake.labs.machine.node import GuestNode

    if method := getattr(GuestNode, do, None):
        inspect.signature(method).bind(None, **arguments)


class FakeFleet:
    """Guests whose clocks do what those of real ones do (tests/conformance/test_fleet.py). Nothing
    takes time."""

    leaps = 0

    def __init__(self, names: list[str]) -> None:
        self.now_ns, self.done = 0, []  # type: ignore[var-annotated]
        self.received: Callable[[str, dict[str, Any]], None] = lambda guest, message: None
        self._away: dict[str, tuple[str, int]] = {}
        self._offsets = {name: [0, 0, 0] for name in names}
        self._serial = 0

    def order(self, guest: str, do: str, /, **arguments: Any) -> Any:
        assert guest not in self._away, f"{guest} sleeps or is stopped, and cannot {do}"
        assert_node_takes(do, arguments)
        self.done.append((self.now_ns // S, guest, do))
        return getattr(self, f"_{do}", lambda guest, **_: None)(guest, **arguments)

    def order_each(self, orders: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        return {
            guest: self.order(guest, do, **arguments) for guest, (do, arguments) in orders.items()
        }

    def clocks(self, guest: str) -> ClockReading:
        self.order(guest, "clocks")
        return ClockReading(*(self.now_ns + offset for offset in self._offsets[guest]))

    def suspend(self, guest: str) -> None:
        self._leave(guest, "suspend")

    def stop(self, guest: str) -> None:
        self._leave(guest, "stop")

    def wake(self, guest: str) -> None:
        self._offsets[guest][1] -= self._came_back(guest)

    def go_on(self, guest: str) -> None:
        stopped_ns = self._came_back(guest)
        self._offsets[guest] = [offset - stopped_ns for offset in self._offsets[guest]]

    def is_asleep(self, guest: str) -> bool:
        return guest in self._away

    def pass_until(self, until_ns: int, unless: Callable[[], bool]) -> None:
        self.now_ns = max(self.now_ns, until_ns)

    def await_quiet(self) -> None:
        pass

    def _leave(self, guest: str, how: str) -> None:
        self.done.append((self.now_ns // S, guest, how))
        self._away[guest] = (how, self.now_ns)

    def _came_back(self, guest: str) -> int:
        self.done.append((self.now_ns // S, guest, "back"))
        return self.now_ns - self._away.pop(guest)[1]

    def _introduce(self, guest: str) -> dict[str, Any]:
        identity = {"east": "default/client", "west": "default/server"}.get(guest)
        return {"addresses": {identity: f"10.77.0.{len(guest)}"} if identity else {}, "root": "pem"}

    def _set_clocks(self, guest: str, clocks: list[int]) -> None:
        self._offsets[guest][0] = clocks[0] - self.now_ns

    def _start(self, guest: str) -> None:
        self._serial += 1
        issued = {
            "identity": "default/client" if guest == "east" else "default/server",
            "outcome": "issued",
        }
        dates = {"not_before_wall_s": 0, "not_after_wall_s": 2 * 10**9}
        self.received("east", {"requests": [issued | {"serial": str(self._serial)} | dates]})

    def _log_size(self, guest: str, name: str) -> int:
        return 0

    def _errors_since(self, guest: str, name: str, position: int) -> list[str]:
        return []


def ran(of: Plan) -> tuple[FakeFleet, History]:
    from meshwake.labs.driver import Driver
    from meshwake.labs.machine.fleet_backend import FleetBackend, guests_of

    fleet, events = FakeFleet(guests_of(of)), list[Event]()
    backend = FleetBackend(of, fleet)  # type: ignore[arg-type]
    fleet.received = backend.received
    Driver(of, backend, events.append, lambda world_ns: None).run({})
    return fleet, History(events)


def two_nodes(kind: str, more: str = "") -> Plan:
    return plan(
        SLEEP.format(kind=kind, more=more),
        nodes=TWO_NODES,
        duration="30m",
        every="1m",
        lab="machine",
    )


def test_a_node_that_sleeps_gets_no_command() -> None:
    """The other goes on; the fault is as planned, measured by the kernel that slept."""
    of = two_nodes("suspend")
    fleet, history = ran(of)
    of_west = [(at, do) for at, guest, do in fleet.done if guest == "west" and 600 <= at <= 1080]
    assert (600, "suspend") in of_west
    assert (1080, "back") in of_west
    assert not [at for at, _ in of_west if 600 < at < 1080]
    assert clock_fault_happened.check(of, history).verdict is Verdict.HOLDS
    [began], [ended] = history.of("fault_began"), history.of("fault_ended")
    assert began.clocks is not None
    assert ended.clocks is not None
    moved = ended.clocks.since(began.clocks)
    assert (moved.wall_ns, moved.monotonic_ns, moved.boottime_ns) == (8 * M, 0, 8 * M)


def test_a_stopped_machine_is_corrected_when_the_scenario_says() -> None:
    """Its wall clock only."""
    of = two_nodes("pause", 'corrected_after = "25s"')
    fleet, history = ran(of)
    assert clock_fault_happened.check(of, history).verdict is Verdict.HOLDS
    assert (1105, "west", "set_clocks") in fleet.done
    [woke] = history.of("node_woke")
    assert woke.world_ns == 18 * M


def test_connections_are_attempted_by_the_guest_of_their_source() -> None:
    """And only while both ends are there."""
    fleet, history = ran(two_nodes("suspend"))
    attempts = [(at, guest) for at, guest, do in fleet.done if do == "attempt"]
    assert len(attempts) == len(history.of("connection_attempted")) > 20
    assert {guest for _, guest in attempts} == {"east"}
    assert not [at for at, _ in attempts if 600 < at < 1080]


def test_an_authority_apart_is_a_guest_and_does_not_sleep() -> None:
    """Whatever the nodes are called."""
    from meshwake.labs.machine.fleet_backend import guests_of, requests_of

    of = plan(
        '[authority]\nnode = "apart"\n',
        nodes=TWO_NODES.replace("east", "authority"),
        duration="30m",
    )
    assert guests_of(of) == ["authority", "west", "authority-2"]
    requests = requests_of(of, "/ztunnel")
    assert [name for name, one in requests.items() if one["authority"]] == ["authority-2"]
    assert [one["first"] for one in requests.values()] == [0, 1, 2]


def test_an_authority_that_sleeps_gets_no_command() -> None:
    """It would not receive it; connections to it time out."""
    of = two_nodes("suspend")
    fleet, _ = ran(of.model_copy(update={"authority_node": "west"}))
    modes = [at for at, guest, do in fleet.done if guest == "west" and do == "mode"]
    assert 1080 in modes
    assert not [at for at in modes if 600 < at < 1080]


def test_a_restart_ends_and_starts_the_ztunnels_of_its_guest() -> None:
    """And of no other one; the fault lies around it."""
    of = plan(
        '[authority]\nnode = "east"\n[[fault]]\nkind = "restart"\nnode = "west"\nat = "10m"',
        nodes=TWO_NODES,
        duration="30m",
        lab="machine",
    )
    fleet, history = ran(of)
    done = [(guest, do) for at, guest, do in fleet.done if at == 600 and do in ("end", "start")]
    assert done == [("west", "end"), ("west", "start")]
    at_restart = [event for event in history if event.world_ns == 10 * M and event.node == "west"]
    kinds = [event.kind for event in at_restart if event.kind.startswith(("fault", "ztunnel"))]
    assert kinds == ["fault_began", "ztunnel_stopped", "ztunnel_started", "fault_ended"]
