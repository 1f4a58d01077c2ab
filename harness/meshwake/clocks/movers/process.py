"""Clocks of chosen programs on chosen nodes: one node sleeps while the others do not.

How a node that slept appears to the others: its wall clock is right again, and its monotonic
clock is behind by the length of the sleep. So that is done, and not the reverse (a wall clock that
is ahead of all others', the authority's too, would make certificates look expired that are not):
the programs of the node are stopped for the whole length of the fault, in real time, and when they
run on, their clocks are set back by it.

    suspend    stopped for its length L; at the wake monotonic is L behind, wall and boottime have
               gone on
    pause      stopped for L; at the wake all three are L behind; after a while the wall clock is
               corrected
    step       wall clock set, no program stops
    freeze     stopped, all clocks have gone on: the trap
    drift      refused: a rate would have to be made of many steps, each of which is one

The helper on each node (node_helper/) does it; a `NodeChannel` carries requests there. Nodes
whose faults differ in nothing but the node are put to sleep together, with the first of them.

Every helper is sent a renewal every `RENEWED_EVERY_S`. After `LEASE_S` without one
it puts its clocks back: that is how long they stay moved when we are killed.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from meshwake.clocks.movers.base import (
    Meanwhile,
    Moment,
    Moved,
    NoProgramToRead,
    SharedMovements,
    sleep_meanwhile,
)
from meshwake.clocks.movers.node_helper.answers import (
    DescribedProcess,
    Hello,
    Listing,
    Readings,
    Released,
)
from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.errors import BadInput, HarnessError, HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject, text_at
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault, PlannedFreeze, PlannedSleep, PlannedStep
from meshwake.system.deadline import Deadline

ZTUNNEL = Rule("/usr/local/bin/ztunnel")
PROXIES = (Rule("/usr/local/bin/pilot-agent"), Rule("/usr/local/bin/envoy"))
ISTIOD = Rule("/usr/local/bin/pilot-discovery")
# The wake guard's image has an interpreter of its own (clusters/fixes/wake-guard/Dockerfile).
GUARD = Rule("/usr/local/bin/wake-guard")
EVERY_RULE = (ZTUNNEL, *PROXIES, ISTIOD, GUARD)
# An exec by way of a busy API server takes seconds: several may fail before the lease is over.
# How long a node stays on moved clocks after its owner was killed; several renewals may be lost
# before.
LEASE_S, RENEWED_EVERY_S, RENEWED_WITHIN_S = 20.0, 3.0, 8.0
ANSWERED_WITHIN_S = 135.0
_WOKEN_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.2
_T = TypeVar("_T")
_ERRORS: dict[str, type[HarnessError]] = {
    "BadInput": BadInput,
    "LabUnavailable": LabUnavailable,
    "SubjectFailed": SubjectFailed,
}


class NodeChannel(Protocol):
    """The way to the helper of a node."""

    def send(
        self, node: str, request: JsonObject, within_s: float = ANSWERED_WITHIN_S
    ) -> JsonObject:
        """Carries one request of node_helper/protocol.py to the helper of `node` (a node of the
        plan) and returns its whole answer, {"version": 3, "ok": ...}. May be called from several
        threads at once. Raises LabUnavailable when there is no answer in time; the usual bound is
        longer than the 120 s of the helper's own `send`."""


def new_owner(what: str) -> str:
    """A name for a run that moves clocks, that no run had before: `what` it does, and where it can
    be found."""
    return f"{what}, process {os.getpid()} on {socket.gethostname()}, {uuid.uuid4().hex[:8]}"


def rules_for(plan: Plan, node: str) -> tuple[Rule, ...]:
    """ztunnel first, then gateways and waypoints, a guard, and istiod: it has the clock of whatever
    node it runs on, and may move to another. Only where the plan has the authority apart it is left
    alone."""
    rules = (ZTUNNEL, *PROXIES, GUARD)
    if plan.authority_node is None:
        return rules
    return (*rules, ISTIOD)


@dataclass(frozen=True)
class _Look:
    """Clocks inside a node, the offsets that the helper says are set, and when that was."""

    moment: Moment
    offsets: ClockReading


class _Renewals:
    """Renews the lease of `owner` with the helpers of `nodes` again and again, each by a thread of
    its own: a node that is slow keeps no other waiting. `lost` says of which nodes the helper has
    answered that it is too late."""

    def __init__(self, channel: NodeChannel, owner: str) -> None:
        self._channel, self._owner = channel, owner
        self._ended = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self.lost: dict[str, str] = {}

    def begin(self, node: str) -> None:
        """From now on for `node` too."""
        if node not in self._threads:
            thread = threading.Thread(
                target=self._renew, args=(node,), name=f"renew {node}", daemon=True
            )
            self._threads[node] = thread
            thread.start()

    def end(self) -> None:
        """No more of it; one that is under way ends within its bound."""
        self._ended.set()
        for thread in self._threads.values():
            thread.join(RENEWED_WITHIN_S + 2.0)
        self._ended, self._threads, self.lost = threading.Event(), {}, {}

    def _renew(self, node: str) -> None:
        ended, request = (
            self._ended,
            {"version": PROTOCOL_VERSION, "do": "renew", "owner": self._owner},
        )
        while not ended.wait(RENEWED_EVERY_S):
            with suppress(
                LabUnavailable
            ):  # out of reach for a moment, or for good: the next request reports it
                answer = self._channel.send(node, request, RENEWED_WITHIN_S)
                if not answer["ok"] and not ended.is_set():
                    self.lost[node] = text_at(answer, "error", "message")
                    return


# During these the programs of a node are stopped, in real time.
_Stopped: TypeAlias = PlannedSleep | PlannedFreeze


class ProcessMover:
    """A Mover (clocks/movers/base.py) for the nodes of `plan`. The first rule of a node names the
    program that is measured and must be there. `launchers`: see node_helper/protocol.py; None: the
    usual ones."""

    name = "process"

    def __init__(
        self,
        plan: Plan,
        channel: NodeChannel,
        *,
        rules: Callable[[Plan, str], Sequence[Rule]] = rules_for,
        launchers: Sequence[str] | None = None,
        owner: str | None = None,
    ) -> None:
        self._plan, self._channel, self._launchers = plan, channel, launchers
        self.owner = owner or new_owner(f"a run of {plan.scenario}")
        self._renewals = _Renewals(channel, self.owner)

        # Programs that took their time base on moved clocks, as the helpers named them when they
        # put them back.
        self.begun_moved: list[DescribedProcess] = []
        self._rules = {node.name: tuple(rules(plan, node.name)) for node in plan.nodes}
        self._offsets = {node.name: ClockReading(0, 0, 0) for node in plan.nodes}
        self._taken: set[str] = set()
        self._movements = SharedMovements(plan)

    def refusals(self, plan: Plan) -> list[str]:
        """See Mover."""
        return [
            f"[fault {fault.index}] drift: the clocks of programs are moved by offsets, and "
            "a rate would be a row of "
            "steps; use --lab process"
            for fault in plan.faults
            if fault.kind == "drift"
        ]

    def prepare(self) -> None:
        """See Mover: every node has a helper that can do it, and the program that is measured is
        under its clocks."""
        try:
            for node in self._rules:
                self._prepare(node)
        except HarnessError as error:
            self._release_all()
            raise LabUnavailable(str(error)) from error

    def read(self, node: str) -> ClockReading:
        """See Mover."""
        return self._look(node).moment.clocks

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        """See Mover; also freeze. `skipped_world_ns` is 0: what is slept is slept in real time."""
        if fault.kind == "step":
            return self._step(fault)
        if not isinstance(fault, _Stopped):
            raise HarnessFault(
                f"fault {fault.index}: {fault.kind} is not moved by clocks of processes"
            )
        return self._movements.move(fault, lambda group: self._sleep(group, meanwhile))

    def release(self) -> None:
        """See Mover."""
        failed = self._release_all()
        if failed:
            raise SubjectFailed(
                "clocks could not be restored: "
                + "; ".join(failed)
                + "; end those pods (kubectl delete pod), new "
                "ones have the clocks of the node"
            )

    def _prepare(self, node: str) -> None:
        hello: Hello = self._ask(node, do="hello")
        if hello["unsupported"] is not None:
            raise LabUnavailable(f"node {node}: {hello['unsupported']}")
        self._taken.add(node)
        rules = self._rules[node]
        answer: Listing = self._ask(
            node,
            do="take",
            rules=[rule._asdict() for rule in rules],
            launchers=None if self._launchers is None else list(self._launchers),
            lease_s=LEASE_S,
            **self._about_take(),
        )
        self._renewals.begin(node)
        for refused in answer["refused"]:
            raise LabUnavailable(f"node {node}: process {refused['pid']}: {refused['why']}")
        self._check_taken(node, answer)

    def _about_take(self) -> JsonObject:
        """What else is requested when a node is taken."""
        return {}

    def _check_taken(self, node: str, answer: Listing) -> None:
        ztunnel = self._rules[node][0]
        executables = [process["executable"] for process in answer["processes"]]
        if not any(_is_meant(executable, ztunnel) for executable in executables):
            raise LabUnavailable(
                f"node {node}: no {ztunnel.executable} runs there, so there is nothing to move"
            )

        restarted_nodes = {fault.node for fault in self._plan.faults if fault.kind == "restart"}
        if node not in restarted_nodes:
            return

        # Without launchers the container runtime is not watched, and a new container starts unseen.
        watch = answer["watch"]
        if watch is None or not watch["launchers"]:
            raise LabUnavailable(
                f"node {node}: programs cannot be caught at their start "
                f"({answer['unwatched_because']}), and the plan "
                "restarts one there; it would begin on the node's own clocks"
            )

    def _step(self, fault: PlannedStep) -> Moved:
        node = _node(fault)
        before = self._look(node)
        offsets = self._offsets[node]
        self._set(node, offsets._replace(wall_ns=offsets.wall_ns + fault.by_wall_ns))
        after = self._look(node)
        moved = Moved(
            fault,
            before.moment,
            after.moment,
            0,
            wall_before_ns=after.moment.clocks.wall_ns - fault.by_wall_ns,
        )
        return _checked(moved, fault.by_wall_ns)

    def _sleep(self, group: Sequence[_Stopped], meanwhile: Meanwhile) -> list[Moved]:
        event = group[0]
        lasts_ns, kind = event.lasts_ns, event.kind
        nodes = [_node(fault) for fault in group]
        before = self._on_each(nodes, self._look)
        at_wake = {node: _at_wake(kind, self._offsets[node], lasts_ns) for node in nodes}
        sleep = Deadline("the end of the sleep", seconds(lasts_ns))
        self._on_each(nodes, lambda node: self._fall_asleep(node, lasts_ns, at_wake[node]))
        time.sleep(sleep.remaining_s)
        self._on_each(nodes, self._await_wake)
        for node in nodes:
            self._offsets[node] = at_wake[node] or self._offsets[node]
        woke = self._on_each(nodes, self._look)
        if event.kind != "pause":
            drift = lasts_ns if kind == "suspend" else 0
            return [
                _checked(Moved(fault, look.moment, after.moment, 0), drift)
                for fault, look, after in zip(group, before, woke, strict=True)
            ]
        first, corrected_by_ns = woke[0].moment, event.corrected_by_ns
        meanwhile(first, 0, first.real_monotonic_ns + event.corrected_after_ns)
        self._on_each(nodes, lambda node: self._correct(node, corrected_by_ns))
        after_all = self._on_each(nodes, self._look)
        return [
            _checked(
                Moved(
                    fault,
                    look.moment,
                    after.moment,
                    0,
                    wake.moment,
                    after.moment.clocks.wall_ns - corrected_by_ns,
                ),
                corrected_by_ns,
            )
            for fault, look, wake, after in zip(group, before, woke, after_all, strict=True)
        ]

    def _fall_asleep(self, node: str, lasts_ns: int, at_wake: ClockReading | None) -> None:
        self._ask(
            node,
            do="sleep",
            lasts_ns=lasts_ns,
            at_wake=None if at_wake is None else at_wake._asdict(),
        )

    def _await_wake(self, node: str) -> None:
        deadline = Deadline(f"the programs of node {node} to wake", _WOKEN_WITHIN_S)
        while self._ask(node, do="list")["asleep"]:
            if deadline.has_passed:
                raise SubjectFailed(
                    f"node {node}: its programs still sleep {_WOKEN_WITHIN_S} s after their time"
                )
            deadline.sleep(_LOOK_EVERY_S)

    def _correct(self, node: str, by_wall_ns: int) -> None:
        offsets = self._offsets[node]
        self._set(node, offsets._replace(wall_ns=offsets.wall_ns + by_wall_ns))

    def _set(self, node: str, offsets: ClockReading) -> None:
        self._ask(node, do="set", **offsets._asdict())
        self._offsets[node] = offsets

    def _look(self, node: str) -> _Look:
        """Measured in the program of the first rule, and compared with what the kernel's clocks and
        our offsets say."""
        sent_ns = time.monotonic_ns()
        answer: Readings = self._ask(node, do="read", executable=self._rules[node][0].executable)
        answered_ns = time.monotonic_ns()
        if not answer["readings"]:
            failed = SubjectFailed if answer["failed"] else NoProgramToRead
            raise failed(
                f"node {node}: {self._rules[node][0].executable} cannot be read: "
                f"{answer['failed'] or 'gone'}"
            )
        read = answer["readings"][0]
        inside, offsets = ClockReading(**read["clocks"]), ClockReading(**answer["offsets"])
        own = inside.since(offsets)
        least, most = ClockReading(**read["kernel_before"]), ClockReading(**read["kernel_after"])
        if offsets != self._offsets[node] or not all(
            a <= b <= c for a, b, c in zip(least, own, most, strict=True)
        ):
            raise SubjectFailed(
                f"node {node}: process {read['pid']} shows {inside}, expected were the "
                f"node's own clocks ({least}) "
                f"plus {self._offsets[node]}; something else has moved them, or the process "
                "missed its page"
            )
        return _Look(
            Moment((sent_ns + answered_ns) // 2, inside, (answered_ns - sent_ns) // 2), offsets
        )

    def _release_all(self) -> list[str]:
        self._renewals.end()
        failed = []
        for node in self._in_order_of_release():
            try:
                answer: Released = self._ask(node, do="release")
            except HarnessError as error:
                failed.append(str(error))
                continue
            failed += [
                f"node {node}: process {pid}: {why}" for pid, why in answer["failed"].items()
            ]
            self.begun_moved += [*answer["begun_moved"], *answer["ended"]]
            if not answer["failed"]:
                self._taken.discard(node)
                self._offsets[node] = ClockReading(0, 0, 0)
        return failed

    def _in_order_of_release(self) -> list[str]:
        return sorted(self._taken)

    def _ask(self, node: str, **request: Any) -> Any:
        """The result of one request: a record of node_helper/answers.py, which one by `do`."""
        if node in self._renewals.lost:
            raise LabUnavailable(f"node {node}: {self._renewals.lost[node]}")
        answer = self._channel.send(
            node, {"version": PROTOCOL_VERSION, "owner": self.owner, **request}
        )
        if answer.get("version") != PROTOCOL_VERSION:
            raise LabUnavailable(
                f"node {node}: the helper speaks another protocol: {answer}; use its image "
                "of this version"
            )
        if not answer["ok"]:
            failed = _ERRORS.get(text_at(answer, "error", "kind"), HarnessFault)
            raise failed(f"node {node}: {text_at(answer, 'error', 'message')}")
        return answer["result"]

    def _on_each(self, nodes: Sequence[str], do: Callable[[str], _T]) -> list[_T]:
        """At once, so that nodes fall asleep and wake together."""
        with ThreadPoolExecutor(max(len(nodes), 1)) as pool:
            return list(pool.map(do, nodes))


def _at_wake(kind: str, offsets: ClockReading, lasts_ns: int) -> ClockReading | None:
    if kind == "suspend":
        # Only the monotonic clock does not advance while a machine is suspended.
        return offsets._replace(monotonic_ns=offsets.monotonic_ns - lasts_ns)
    if kind == "pause":
        # A virtual machine that is paused has no running clock at all.
        return ClockReading(*(offset - lasts_ns for offset in offsets))
    return None


def _node(fault: PlannedFault) -> str:
    if fault.node is None:
        raise HarnessFault(f"fault {fault.index}: {fault.kind} of no node")
    return fault.node


def _is_meant(executable: str, rule: Rule) -> bool:
    # A rule has a whole path, or the name of a file in whatever folder.
    file_name = executable.rpartition("/")[2]
    return rule.executable in (executable, file_name)


def _checked(moved: Moved, expected_drift_ns: int) -> Moved:
    """Raises when the program does not show the requested drift. Its clocks are read one
    after another, so on a busy machine a reading may be wrong by as long as it took."""
    shown_ns = drift_ns(moved.before.clocks, moved.after.clocks)
    if abs(shown_ns - expected_drift_ns) > max(NS_PER_S // 10, 2 * moved.within_ns):
        raise SubjectFailed(
            f"fault {moved.fault.index}: {moved.fault.kind} on {moved.fault.node}: its "
            "program shows a drift of "
            f"{seconds(shown_ns):.3f} s, expected {seconds(expected_drift_ns):.3f} s; is "
            "that node's clock being set?"
        )
    return moved
