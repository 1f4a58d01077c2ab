"""Histories written by hand: what a lab would have recorded, without a lab.

    world = World(plan(faults=[fault("suspend", at="15h", lasts="8h")], duration="2d"))
    world.start()
    world.issue(SERVER, at="0s")
    world.attempt(at="10m", ok=False)
    history = world.history()

Faults are recorded as planned, with the clocks of meshwake.clocks.virtual; everything else is what
the test says. Times are durations since world time 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshwake.clocks.virtual import NodeClock, clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S, parse_duration_ns
from meshwake.core.events import Event
from meshwake.core.history import HISTORY_FORMAT, History, Recorder
from meshwake.core.plan import Plan, PlannedExpectation, PlannedNode
from meshwake.core.planned_faults import PlannedFault, read_planned_fault

CLIENT, SERVER = "default/client", "default/server"
LAPTOP = "laptop"
STARTS_WALL_S = 1_800_000_000
EXPIRED = "tls handshake error: CertificateExpired"


def ns(text: str) -> int:
    """`text` as written in scenarios, in nanoseconds."""
    return parse_duration_ns(text)


def fault(kind: str, at: str, node: str | None = LAPTOP, **times: Any) -> dict[str, Any]:
    """One fault for `plan`; `every` repeats it until the end."""
    return {"kind": kind, "at": at, "node": node, **times}


def plan(
    faults: list[dict[str, Any]] | None = None,
    duration: str = "3d",
    lifetime: str = "24h",
    nodes: Mapping[str, tuple[str, ...]] | None = None,
    pairs: tuple[tuple[str, str], ...] = ((CLIENT, SERVER),),
    expectations: dict[str, str] | None = None,
) -> Plan:
    """A plan of one laptop with a client and a server, unless others are given."""
    houses = nodes or {LAPTOP: (CLIENT, SERVER)}
    return Plan(
        scenario="by_hand",
        title="Written by hand",
        lab="model",
        version="1.31.0",
        behaviour_class="E",
        seed=0,
        starts_wall_s=STARTS_WALL_S,
        duration_ns=ns(duration),
        lifetime_s=ns(lifetime) // NS_PER_S,
        backdate_s=120,
        nodes=tuple(
            PlannedNode(name=name, identities=identities) for name, identities in houses.items()
        ),
        authority_node=next(iter(houses)),
        pairs=pairs,
        attempt_every_ns=ns("10m"),
        faults=_placed(faults or [], ns(duration)),
        expectations=tuple(
            PlannedExpectation(check=check, verdict=verdict, because="the test says so")  # type: ignore[arg-type]
            for check, verdict in (expectations or {}).items()
        ),
    )


def _placed(faults: list[dict[str, Any]], duration_ns: int) -> tuple[PlannedFault, ...]:
    each = [
        (at_ns, one)
        for one in faults
        for at_ns in (
            range(ns(one["at"]), duration_ns, ns(one["every"]))
            if "every" in one
            else [ns(one["at"])]
        )
    ]
    each.sort(key=lambda entry: entry[0])
    return tuple(
        read_planned_fault(
            {
                "index": index,
                "kind": one["kind"],
                "node": one["node"],
                "at_world_ns": at_ns,
                "lasts_ns": ns(one.get("lasts", "0s")),
                "corrected_after_ns": ns(one.get("corrected_after", "0s")),
                "by_wall_ns": ns(one.get("by", "0s")),
                "rate_numerator": one.get("rate", (1, 1))[0],
                "rate_denominator": one.get("rate", (1, 1))[1],
            }
        )
        for index, (at_ns, one) in enumerate(each)
    )


class World:
    """Collects events in any order; `history()` puts them into that of world time, faults first."""

    def __init__(self, of: Plan, faults_happen: bool = True) -> None:
        self.plan, self.clocks = of, clocks_of(of)
        self._events: list[tuple[int, int, int, Event]] = []
        self._serials = 0
        self._ended = False
        if faults_happen:
            for planned in of.faults:
                self._record_fault(planned)

    def clock(self, identity: str) -> NodeClock:
        """The clocks of the node on which `identity` lives."""
        return self.clocks[self.plan.node_of(identity)]

    def add(
        self,
        world_ns: int,
        kind: str,
        node: str | None,
        clocks: ClockReading | None = None,
        **data: Any,
    ) -> None:
        """Any event; the clocks are those of the node unless given."""
        if clocks is None and node is not None:
            clocks = self.clocks[node].reading(world_ns)
        rank = {
            "run_started": 0,
            "fault_began": 1,
            "node_woke": 2,
            "fault_ended": 3,
            "run_ended": 9,
        }.get(kind, 5)
        self._events.append(
            (world_ns, rank, len(self._events), Event.of_kind(world_ns, kind, node, clocks, data))
        )

    def start(self, at: str = "0s", cause: str = "start") -> World:
        """Every ztunnel starts, one for each identity; those that ran have been stopped."""
        for node in self.plan.nodes:
            for identity in node.identities:
                if cause != "start":
                    self.add(ns(at), "ztunnel_stopped", node.name, process=identity, cause=cause)
                self.add(
                    ns(at),
                    "ztunnel_started",
                    node.name,
                    process=identity,
                    identities=[identity],
                    cause=cause,
                )
        return self

    def issue(self, identity: str, at: str | int, lifetime: str | None = None) -> Event:
        """The authority, whose wall clock is the first node's, issues a certificate."""
        world_ns = ns(at) if isinstance(at, str) else at
        self._serials += 1
        authority = self.plan.authority_node
        wall_s = self.clocks[authority].reading(world_ns).wall_ns // NS_PER_S
        lasts_s = ns(lifetime) // NS_PER_S if lifetime else self.plan.lifetime_s
        self.add(
            world_ns,
            "csr_answered",
            authority,
            identity=identity,
            outcome="issued",
            serial=f"{self._serials:04x}",
            not_before_wall_s=wall_s - self.plan.backdate_s,
            not_after_wall_s=wall_s + lasts_s,
        )
        return self._events[-1][-1]

    def answer(self, identity: str, at: str, outcome: str = "refused") -> None:
        """The authority answers without a certificate."""
        nothing: dict[str, Any] = dict.fromkeys(("serial", "not_before_wall_s", "not_after_wall_s"))
        self.add(
            ns(at),
            "csr_answered",
            self.plan.authority_node,
            identity=identity,
            outcome=outcome,
            **nothing,
        )

    def state(self, identity: str, at: str, state: str, of: Event | None = None) -> None:
        """What ztunnel says of its certificate `of`."""
        serial, not_after_s = (of["serial"], of["not_after_wall_s"]) if of else (None, None)
        node = self.plan.node_of(identity)
        reported: dict[str, Any] = {
            "state": state,
            "serial": serial,
            "not_after_wall_s": not_after_s,
        }
        self.add(ns(at), "certificate_state", node, identity=identity, **reported)

    def show(self, identity: str, at: str, not_after_wall_s: int) -> None:
        """ztunnel shows a certificate, serial ffff, that the authority of this history never
        issued."""
        reported: dict[str, Any] = {
            "serial": "ffff",
            "not_after_wall_s": not_after_wall_s,
            "state": "Available",
        }
        self.add(
            ns(at), "certificate_state", self.plan.node_of(identity), identity=identity, **reported
        )

    def attempt(self, at: str | int, ok: bool = True, pair: tuple[str, str] | None = None) -> None:
        """One connection."""
        source, destination = pair or self.plan.pairs[0]
        world_ns = ns(at) if isinstance(at, str) else at
        error = None if ok else EXPIRED
        node = self.plan.node_of(source)
        reported: dict[str, Any] = {
            "source": source,
            "destination": destination,
            "ok": ok,
            "error": error,
        }
        self.add(world_ns, "connection_attempted", node, **reported)

    def attempts(self, good: tuple[str, ...] = (), bad: tuple[str, ...] = ()) -> World:
        """Good and failed connections of the first pair."""
        for ok, times in ((True, good), (False, bad)):
            for at in times:
                self.attempt(at, ok)
        return self

    def end(self, at: str | None = None, reason: str = "duration") -> World:
        """The run ends, at the plan's end unless `at` is given."""
        self.add(self.plan.duration_ns if at is None else ns(at), "run_ended", None, reason=reason)
        self._ended = True
        return self

    def history(self, killed_at: str | None = None) -> History:
        """The history so far; it has ended properly unless `killed_at` says after which time
        nothing was written."""
        if not self._ended and killed_at is None:
            self.end()
        recorder = Recorder()
        reported = {
            "format": HISTORY_FORMAT,
            "lab": self.plan.lab,
            "version": self.plan.version,
            "subject": {},
        }
        recorder.record(0, "run_started", None, None, **reported)
        last_ns = self._last_ns() if killed_at is None else ns(killed_at)
        for world_ns, _, _, event in sorted(self._events, key=lambda entry: entry[:3]):
            if world_ns <= last_ns:
                recorder.append(event)
        return recorder.history

    def _last_ns(self) -> int:
        return next(world_ns for world_ns, _, _, event in self._events if event.kind == "run_ended")

    def _record_fault(self, planned: PlannedFault) -> None:
        reported: dict[str, Any] = {"fault": planned.index, "fault_kind": planned.kind}
        began_ns, ended_ns = planned.at_world_ns, planned.ends_world_ns
        clock = self.clocks[planned.node] if planned.node else None
        before = clock.reading_before(began_ns) if clock else None
        self.add(began_ns, "fault_began", planned.node, before, **reported)
        if planned.kind == "pause":
            woke_ns = planned.asleep_until_world_ns
            self.add(
                woke_ns,
                "node_woke",
                planned.node,
                clock.reading_before(woke_ns) if clock else None,
                **reported,
            )
        stepped = planned.kind in ("pause", "step") and clock is not None
        wall_before_ns = clock.reading_before(ended_ns).wall_ns if clock and stepped else None
        self.add(ended_ns, "fault_ended", planned.node, wall_before_ns=wall_before_ns, **reported)


class Formula:
    """Fills a World as the unpatched ztunnel would: facts/ztunnel.md 2.1, time base taken once, at
    the start.

    A reckoning of a dozen lines, independent of the model lab, so that checks can be tried on a
    long history.
    """

    def __init__(self, world: World, attempt_every: str = "10m") -> None:
        self.world, self.plan = world, world.plan
        self._valid: dict[str, list[tuple[int, int, int]]] = {}
        world.start()
        for node in self.plan.nodes:
            for identity in node.identities:
                self._renew_for_ever(identity)
        self._talk(ns(attempt_every))

    def _renew_for_ever(self, identity: str) -> None:
        clock, world_ns = self.world.clock(identity), 0
        start = clock.reading(0)
        while world_ns < self.plan.duration_ns:
            event = self.world.issue(identity, world_ns)
            not_before_s, not_after_s = event["not_before_wall_s"], event["not_after_wall_s"]
            self._valid.setdefault(identity, []).append((world_ns, not_before_s, not_after_s))
            due_wall_ns = (not_before_s + not_after_s) * (NS_PER_S // 2)
            world_ns = clock.world_ns_at_monotonic(
                start.monotonic_ns + due_wall_ns - start.wall_ns, world_ns
            )

    def _talk(self, every_ns: int) -> None:
        regular = range(2 * NS_PER_S, self.plan.duration_ns, every_ns)
        for pair in self.plan.pairs:
            for world_ns in sorted({*regular, *self._changes(pair)}):
                if all(self.world.clock(one).processes_run(world_ns) for one in pair):
                    self.world.attempt(
                        world_ns, all(self._is_valid(one, world_ns) for one in pair), pair
                    )

    def _changes(self, pair: tuple[str, str]) -> list[int]:
        issued = [world_ns for one in pair for world_ns, _, _ in self._valid[one]]
        expired = [
            self.world.clock(one).world_ns_at_wall((not_after_s + 1) * NS_PER_S, world_ns)
            for one in pair
            for world_ns, _, not_after_s in self._valid[one]
        ]
        settled = [world_ns + 2 * NS_PER_S for world_ns in issued + expired]
        return [world_ns for world_ns in settled if world_ns < self.plan.duration_ns]

    def _is_valid(self, identity: str, world_ns: int) -> bool:
        held = [entry for entry in self._valid[identity] if entry[0] <= world_ns][-1]
        return (
            held[1] <= self.world.clock(identity).reading(world_ns).wall_ns // NS_PER_S <= held[2]
        )
