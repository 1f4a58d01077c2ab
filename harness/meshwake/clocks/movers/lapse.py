"""Clocks of programs that are taken ahead of real time: a cluster lives a week in minutes.

World time is real time and all that was skipped. Of a node that is awake every clock shows

    the kernel's + what was skipped in all + the node's own shift       the shift is what its faults
                                                                        have done

and of istiod wall and boottime only: its monotonic clock stays the kernel's
(docs/adr/0001-time-lapse.md). A node falls asleep by having its programs stopped, and wakes with a
shift that makes up for what was skipped meanwhile:

    suspend    monotonic has not gone on
    pause      no clock has; later the wall clock is corrected
    freeze     every clock has
    step       the wall clock is set, no program stops

A skip is made when every program waits for something to happen; first where istiod is, then
elsewhere, so that no program asks one that is behind. Then every program is woken, so that it reads
its clocks. At the end what is ahead is not released, which would turn its clocks back, but ended
by the helper; kubelet restarts it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meshwake.clocks.movers.base import Meanwhile, Moved, sleep_meanwhile
from meshwake.clocks.movers.node_helper.answers import Listing, StillResult
from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.clocks.movers.process import (
    GUARD,
    ISTIOD,
    PROXIES,
    ZTUNNEL,
    NodeChannel,
    ProcessMover,
)
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.ports import ISTIOD_PORT

STILL_WITHIN_S, _STILL_AT_ONCE_S = 60.0, 5.0
# A node whose harness has gone is woken by its helper long before.
_ASLEEP_AT_MOST_NS = 3_600 * 10**9


def rules_of_lapse(plan: Plan, node: str) -> tuple[Rule, ...]:
    """All that live by a node's clocks. istiod is ahead with them wherever it runs, even where it
    is apart."""
    asking = (rule._replace(streams_to_port=ISTIOD_PORT) for rule in (ZTUNNEL, PROXIES[0]))
    return (
        *asking,
        *PROXIES[1:],
        GUARD._replace(idles_in_epoll=True),
        ISTIOD._replace(keeps_monotonic=True),
    )


class LapseMover(ProcessMover):
    """See the module. `others`: nodes of the cluster that are none of the plan's; they never
    sleep."""

    name = "lapse"

    def __init__(
        self,
        plan: Plan,
        channel: NodeChannel,
        others: Sequence[str] = (),
        *,
        rules: Callable[[Plan, str], Sequence[Rule]] = rules_of_lapse,
        launchers: Sequence[str] | None = None,
        owner: str | None = None,
    ) -> None:
        super().__init__(plan, channel, rules=rules, launchers=launchers, owner=owner)
        self._others = frozenset(others)
        for node in others:
            self._rules[node] = tuple(rules(plan, node))
            self._offsets[node] = ClockReading(0, 0, 0)
        self.skipped_ns = 0
        self._shifts = {node: ClockReading(0, 0, 0) for node in self._rules}
        self._with_istiod: set[str] = set()  # nodes on which istiod runs
        self._asleep: set[str] = set()

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        """See Mover: never whole, since the world goes on meanwhile; see `fall_asleep`."""
        raise HarnessFault(
            f"fault {fault.index}: {fault.kind} is made of its beginning and its end where "
            "time is skipped"
        )

    # Time

    def await_still(self) -> None:
        """Waits until every program of every node waits for something to happen. Raises
        SubjectFailed, naming who does not, and when a program was not caught at its start."""
        deadline = Deadline("the mesh to be quiescent", STILL_WITHIN_S)
        while True:
            nodes = sorted(self._rules.keys() - self._asleep)
            answers = self._on_each(nodes, self._look_whether_still)
            answer = dict(zip(nodes, answers, strict=True))

            # istiod may have moved to another node since.
            self._with_istiod = {node for node in nodes if answer[node]["keeps_monotonic"]}
            busy = [
                f"node {node}: {about['busy']}" for node, about in answer.items() if about["busy"]
            ]
            if not busy:
                return
            if deadline.has_passed:
                raise SubjectFailed(
                    f"the mesh was not quiet within {STILL_WITHIN_S:.0f} s, so no time can "
                    "be skipped; last seen busy: "
                    f"{', '.join(busy)}"
                )

    def skip(self, by_ns: int) -> None:
        """World time goes on by `by_ns` at once, for all who are awake."""
        self.skipped_ns += by_ns
        awake = self._rules.keys() - self._asleep
        for nodes in (awake & self._with_istiod, awake - self._with_istiod):
            self._on_each(sorted(nodes), self._bring_up_to_date)

    def _look_whether_still(self, node: str) -> StillResult:
        answer: StillResult = self._ask(node, do="still", within_s=_STILL_AT_ONCE_S)
        for pid, why in answer["refused"].items():
            raise SubjectFailed(f"node {node}: process {pid}: {why}")
        return answer

    def _bring_up_to_date(self, node: str) -> None:
        offsets = self._wanted(node)
        self._ask(node, do="set", kick=True, **offsets._asdict())
        self._offsets[node] = offsets

    def _wanted(self, node: str) -> ClockReading:
        return ClockReading(*(self.skipped_ns + shift_ns for shift_ns in self._shifts[node]))

    # Faults

    def fall_asleep(self, nodes: Sequence[str]) -> None:
        """The programs of these nodes are stopped when this returns, until `wake`."""
        self._on_each(
            nodes,
            lambda node: self._ask(node, do="sleep", lasts_ns=_ASLEEP_AT_MOST_NS, at_wake=None),
        )
        self._asleep |= set(nodes)

    def wake(self, nodes: Sequence[str], kind: str, lasts_ns: int) -> None:
        """They run on; world time has gone on by at least `lasts_ns` since they fell asleep."""
        moments = {
            "suspend": ClockReading(0, 1, 0),
            "pause": ClockReading(1, 1, 1),
            "freeze": ClockReading(0, 0, 0),
        }
        for node in nodes:
            back = moments[kind]
            self._shifts[node] = ClockReading(
                *(
                    shift - lasts_ns * each
                    for shift, each in zip(self._shifts[node], back, strict=True)
                )
            )
        self._on_each(nodes, self._wake)
        self._asleep -= set(nodes)

    def _wake(self, node: str) -> None:
        offsets = self._wanted(node)
        self._ask(node, do="wake", **offsets._asdict())
        self._offsets[node] = offsets

    def set_wall(self, node: str, by_ns: int) -> None:
        """A step, or the correction of a pause."""
        shift = self._shifts[node]
        self._shifts[node] = shift._replace(wall_ns=shift.wall_ns + by_ns)
        self._bring_up_to_date(node)

    # The two ends

    def _about_take(self) -> JsonObject:
        return {"ends": True}

    def _check_taken(self, node: str, answer: Listing) -> None:
        if node not in self._others:
            super()._check_taken(node, answer)

        watch = answer["watch"]
        if watch is None or not watch["launchers"]:
            raise LabUnavailable(
                f"node {node}: programs cannot be caught at their start "
                f"({answer['unwatched_because']}), and one that is "
                "restarted while time is skipped would begin on the node's own clocks; use "
                "--real-time"
            )

        executables = {process["executable"] for process in answer["processes"]}
        if ISTIOD.executable in executables:
            self._with_istiod.add(node)

    def _in_order_of_release(self) -> list[str]:
        """Those first where istiod runs: what is restarted must not ask one that is ahead."""
        return sorted(self._taken, key=lambda node: (node not in self._with_istiod, node))
