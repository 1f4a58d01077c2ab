"""The world of the process lab with each node in a guest of its own: this side gives the orders,
hands.py obeys.

The loop, the agenda, connections, records and what they mean are the process lab's (World). What
differs is where things are, and time: it passes for all guests at once (clocks/guest/fleet.py), and
world time is that time since the ztunnels were started, which an observer beside the machines would
count too.

    suspend   the node's kernel sleeps when the fault begins and is woken when it ends; the others go on meanwhile
    pause     the node's machine stands; then its wall clock is behind, and is set right at the end of the fault
    drift     as in world.py: the wall clock is set forward every few seconds

An authority on a node that sleeps is not there: nobody refuses anything, connections to it time
out. An authority apart has a machine of its own, which never sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from meshwake.authority.server import Mode, State
from meshwake.clocks.guest.fleet import Fleet
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.events import Event
from meshwake.core.plan import ASLEEP_FAULTS, Plan, PlannedFault
from meshwake.labs.limits import FloodGuard
from meshwake.labs.machine.world import FLOOD_WINDOW_NS, FOLLOW_DRIFT_EVERY_NS, next_to_do_ns
from meshwake.labs.process.places import Home, Place
from meshwake.labs.process.world import CsrFlood, World
from meshwake.labs.process.ztunnel import CertificateState

APART = "authority"  # the guest of an authority that stands apart
_ELSEWHERE = -1


def guests_of(plan: Plan) -> list[str]:
    """The guests that `plan` needs, by name: its nodes, and one for an authority that stands apart."""
    names = [node.name for node in plan.nodes]
    if plan.authority_node is not None:
        return names
    return [*names, next(name for name in _names_like(APART) if name not in names)]


def _names_like(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}-{number}" for number in range(2, 1000))


def requests_of(plan: Plan, ztunnel: str) -> dict[str, dict[str, Any]]:
    """What each guest is told from the beginning (see node.Node)."""
    identities = {node.name: list(node.identities) for node in plan.nodes}
    everybody = sorted(identity for node in plan.nodes for identity in node.identities)
    authority = {"backdate_s": plan.backdate_s, "identities": everybody}
    told, first = {}, 0
    for name in guests_of(plan):
        own = identities.get(name, [])
        has_authority = name == (plan.authority_node or guests_of(plan)[-1])
        told[name] = {
            "node": name,
            "identities": own,
            "first": first,
            "authority": authority if has_authority else None,
            "ztunnel": ztunnel,
            "lifetime_s": plan.lifetime_s,
        }
        first += len(own)
    return told


class _Way(NamedTuple):
    """What World asks of its mode (see process/modes.py) here."""

    way_in: str = "socks5"


class _Clocks:
    """The clocks of a guest's kernel, with the face of a ClockPage. While the guest is away, what
    it last showed."""

    def __init__(self, fleet: Fleet, guest: str) -> None:
        self._fleet, self._guest = fleet, guest
        self._last = ClockReading(0, 0, 0)

    def get(self) -> ClockReading:
        if not self._fleet.is_away(self._guest):
            self._last = self._fleet.clocks(self._guest)
        return self._last

    def set(self, clocks: ClockReading) -> None:
        """Sets the wall clock, as kernel.KernelClockPage does."""
        self._fleet.order(self._guest, "set_clocks", clocks=list(clocks))


class _Watched:
    """Whether its ztunnel stands: see skip.Watched."""

    stopped = False


class _Ztunnel:
    """A ztunnel in a guest, with the face of process/ztunnel.py."""

    def __init__(self, fleet: Fleet, home: Home) -> None:
        self._fleet, self.home = fleet, home
        self.watched = _Watched()

    def _order(self, do: str, **arguments: Any) -> Any:
        return self._fleet.order(self.home.node, do, name=self.home.name, **arguments)

    def log_size(self) -> int:
        return int(self._order("log_size"))

    def errors_since(self, position: int) -> list[str]:
        return list(self._order("errors_since", position=position))

    def validities(self) -> list[tuple[str, int, int]]:
        return [(identity, begins, ends) for identity, begins, ends in self._order("validities")]

    def certificate_state(self, identity: str) -> CertificateState | None:
        state = self._order("certificate_state", identity=identity)
        return None if state is None else CertificateState(*state)

    def end(self) -> None:
        """All of a guest's end together: see FleetWorld.restart."""


class _Authority:
    """The authority in a guest, with the face of authority.server.AuthorityProcess."""

    def __init__(self, fleet: Fleet, guest: str) -> None:
        self._fleet, self._guest = fleet, guest

    def set_mode(self, mode: Mode) -> None:
        self._fleet.order(self._guest, "mode", mode=mode)

    def set_state(self, state: State) -> None:
        self._fleet.order(self._guest, "state", state=state.__dict__)


class _Traffic:
    """Connections between guests, with the face of process/traffic.py."""

    def __init__(self, fleet: Fleet, places: dict[str, Place]) -> None:
        self._fleet, self._places = fleet, places

    def attempt(self, source: str, destination: str, quiet: Callable[[], bool]) -> str | None:
        error = self._fleet.order(
            self._places[source].node, "attempt", source=source, destination=destination
        )
        return None if error is None else str(error)


class FleetWorld(World):
    """Everything of one run on several guests; `fleet` has been booted, and tells what it hears to
    `heard`."""

    def __init__(
        self,
        plan: Plan,
        directory: Path,
        tell: Callable[[Event], None],
        progress: Callable[[int], None],
        fleet: Fleet,
    ) -> None:
        super().__init__(plan, directory / "ztunnel", directory, tell, progress)
        self._fleet = fleet
        self._guests = guests_of(plan)
        self._authority_guest = plan.authority_node or self._guests[-1]
        self._began_ns: int | None = None
        self._drifting: set[int] = set()
        self._suspended: set[str] = set()
        self._asked: list[dict[str, Any]] = []
        self._flood = FloodGuard(sum(len(node.identities) for node in plan.nodes), FLOOD_WINDOW_NS)

    def heard(self, guest: str, message: dict[str, Any]) -> None:
        """What guests tell by themselves."""
        self._asked += message.get("requests", [])

    @property
    def looks(self) -> int:
        """How often time leapt."""
        return self._fleet.leaps

    # Building

    def _build(self, stack: ExitStack) -> None:
        self._stack = stack
        pages: dict[str | None, Any] = {
            node.name: _Clocks(self._fleet, node.name) for node in self.plan.nodes
        }
        pages[None] = _Clocks(self._fleet, self._authority_guest)
        self._pages = pages
        self._authority: Any = _Authority(self._fleet, self._authority_guest)
        self._mode: Any = _Way()
        self._places, root = self._introduced()
        self._homes = {place.name: _home(place) for place in self._places.values()}
        self._home_of = {place.identity: self._homes[place.name] for place in self._places.values()}
        known = [
            {"identity": place.identity, "node": place.node, "address": place.address}
            for place in self._places.values()
        ]
        self._fleet.order_each(
            dict.fromkeys(self._guests, ("connect", {"places": known, "root": root}))
        )
        self._traffic: Any = _Traffic(self._fleet, self._places)

    def _introduced(self) -> tuple[dict[str, Place], str]:
        told = self._fleet.order_each(dict.fromkeys(self._guests, ("introduce", {})))
        places = {
            identity: Place(identity, guest, _ELSEWHERE, address)
            for guest, known in told.items()
            for identity, address in known["addresses"].items()
        }
        return places, told[self._authority_guest]["root"]

    # ztunnels

    def _start_ztunnels(self, node: str, cause: str) -> None:
        if cause != "start":
            self._start_on([node], cause)
        elif (
            self._began_ns is None
        ):  # all at once, and only now does the world begin: what came before took its time
            self._begin()
            self._start_on([one.name for one in self.plan.nodes], cause)

    def _begin(self) -> None:
        for guest in self._guests:
            clocks = self._fleet.clocks(guest)
            wall_ns = self.plan.starts_wall_s * NS_PER_S
            self._fleet.order(guest, "set_clocks", clocks=list(clocks._replace(wall_ns=wall_ns)))
        self._began_ns = self._fleet.now_ns

    def _start_on(self, nodes: list[str], cause: str) -> None:
        started = [home for home in self._homes.values() if home.node in nodes]
        for home in started:
            self._ztunnels[home.name] = _Ztunnel(self._fleet, home)  # type: ignore[assignment]
            for identity in home.identities:
                self._states.pop(identity, None)
            self._started[home.name] = self._pages[home.node].get()
            self._expiry_logged_wall_ns.pop(home.node, None)
            self._record(
                "ztunnel_started",
                home.node,
                process=home.name,
                identities=list(home.identities),
                cause=cause,
            )
        self._fleet.order_each(dict.fromkeys(nodes, ("start", {})))
        for home in started:
            self._probes.ztunnel_started(home.identities, self.now_world_ns)
        self._settle()

    def restart(self, node: str, cause: str) -> None:
        """See agenda.Keeper."""
        self._fleet.order(node, "end")
        super().restart(node, cause)

    def _end_ztunnels(self) -> None:
        """They end with their guests."""

    # Time

    def _set_pages(self, before_jumps: bool) -> None:
        """Nobody sets them."""

    def _look_at_clock(self) -> None:
        if self._began_ns is not None:
            self.now_world_ns = max(self.now_world_ns, self._fleet.now_ns - self._began_ns)

    def _next_world_ns(self) -> int:
        return next_to_do_ns(self.plan, self._agenda, self._probes, self.now_world_ns)

    def _move_to(self, world_ns: int) -> None:
        """Time passes, until then or until somebody asks for a certificate."""
        assert self._began_ns is not None
        self.jumps += 1
        self._look_at_clock()
        while self.now_world_ns < world_ns and not self._asked:
            slice_ns = FOLLOW_DRIFT_EVERY_NS if self._drifting else _TELL_PROGRESS_EVERY_NS
            until_ns = self._began_ns + min(world_ns, self.now_world_ns + slice_ns)
            self._fleet.pass_until(until_ns, lambda: bool(self._asked))
            self._look_at_clock()
            self._follow_drift()
            self._progress(self.now_world_ns)
        self._drain()
        for identity in self._record_requests():
            self._settle()
            self._record_state(identity)

    def _fire_timers(self) -> None:
        """They have fired by themselves."""
        self._settle()

    def _settle(self) -> None:
        self._fleet.await_quiet()
        while self._drain():
            for identity in self._record_requests():
                self._record_state(identity)
            self._fleet.await_quiet()

    def _drain(self) -> bool:
        self._look_at_clock()
        asked, self._asked = self._asked, []
        for request in asked:
            self._requests.append(request)
            if self._flood.is_flooded_by(self.now_world_ns):
                raise CsrFlood
        return bool(asked)

    # Faults

    def begin(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        self._settle()
        self._record_fault("fault_began", fault)
        if fault.node is None:
            self._set_authority_mode()
            return
        if fault.kind == "drift":
            self._drifting.add(fault.index)
        elif fault.kind == "suspend":
            self._suspended.add(fault.node)
            self._fleet.suspend(fault.node)
        elif fault.kind == "pause":
            self._fleet.stop(fault.node)
        elif fault.kind == "freeze":
            self._freeze(fault.node, frozen=True)
        if fault.kind in (*ASLEEP_FAULTS, "freeze"):
            self._stopped_nodes.add(fault.node)
            self._set_authority_mode()

    def _resume_node(self, node: str) -> None:
        if self._fleet.is_away(node):
            (self._fleet.wake if node in self._suspended else self._fleet.go_on)(node)
            self._suspended.discard(node)
        else:
            self._freeze(node, frozen=False)
        self._stopped_nodes.discard(node)
        self._set_authority_mode()
        self._settle()

    def end(self, fault: PlannedFault) -> None:
        """See agenda.Keeper."""
        if fault.index in self._drifting:
            self._follow_drift()
            self._drifting.discard(fault.index)
        super().end(fault)

    def _freeze(self, node: str, frozen: bool) -> None:
        self._fleet.order(node, "freeze", frozen=frozen)
        for ztunnel in self._ztunnels_on(node):
            ztunnel.watched.stopped = frozen

    def _set_authority_mode(self) -> None:
        if self._fleet.is_away(self._authority_guest):
            self._authority_mode = "ca_outage"  # nobody is there to be told so
            return
        super()._set_authority_mode()

    def _follow_drift(self) -> None:
        """Sets the wall clock to what it shows on a node that drifts as planned."""
        for index in self._drifting:
            node = self.plan.faults[index].node
            assert node is not None
            if self._fleet.is_away(node):
                continue
            clocks = self._pages[node].get()
            self._look_at_clock()
            planned = self._clocks[node].reading(self.now_world_ns)
            self._pages[node].set(clocks._replace(wall_ns=planned.wall_ns))

    def _measure(self, node: str) -> ClockReading:
        return self._pages[node].get()

    # Recording

    def _record(
        self, kind: str, node: str | None, clocks: ClockReading | None = None, **data: Any
    ) -> None:
        if kind == "run_started":
            data["lab"] = self.plan.lab
        self._look_at_clock()
        super()._record(kind, node, clocks, **data)


_TELL_PROGRESS_EVERY_NS = 60 * NS_PER_S


def _home(place: Place) -> Home:
    return Home(place.name, place.node, place.namespace, place.address, (place.identity,))
