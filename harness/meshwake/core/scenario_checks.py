"""What a scenario must keep as a whole: names that exist, faults that fit on the timeline, clocks
that stay in the years programs can be trusted with.

Each check raises ImpossibleScenario for the first mistake it finds; scenario.py calls them when the
parts are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate, pairwise, product
from typing import TYPE_CHECKING, NamedTuple

from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.faults import (
    CLOCK_FAULTS,
    EVERY_NODE,
    Drift,
    Fault,
    NodeFault,
    PodRestart,
    Step,
    TimedFault,
    fault_times_ns,
)
from meshwake.core.scenario_errors import Place, impossible, impossible_choice, missing

if TYPE_CHECKING:
    from meshwake.core.scenario import Scenario

APART = "apart"
# A typing error such as every = "1ms" must be refused, not expanded until the memory is gone.
FAULTS_MAX = 20_000
ATTEMPTS_MAX = 1_000_000
# X.509 in nanoseconds fits in 64 bits from 1678 to 2262; programs are less careful near 1970.
_WALL_S_MIN = int(datetime(1971, 1, 1, tzinfo=UTC).timestamp())
_WALL_S_MAX = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())


def check_scenario(scenario: Scenario) -> None:
    """Raises ImpossibleScenario."""
    _check_dates(scenario)
    _check_attempts(scenario)
    _check_names(scenario)
    _check_faults(scenario, scenario.fault, scenario.duration, ("fault",))

    # In real time another timeline happens, on the same nodes.
    short = scenario.real_time
    if short is not None:
        faults = scenario.fault if short.fault is None else short.fault
        _check_faults(scenario, faults, short.duration, ("real_time", "fault"))


def _check_dates(scenario: Scenario) -> None:
    _check_zone("starts", scenario.starts)
    if scenario.recorded_from is not None:
        _check_zone("recorded_from", scenario.recorded_from)
        return
    if scenario.recorded_zone is not None:
        raise missing(("recorded_from",), "the date of which recorded_zone is the time zone")


def _check_zone(key: str, date: datetime) -> None:
    # TOML has dates without a zone, which would mean another moment on each machine.
    if date.tzinfo is None:
        raise impossible((key,), date.isoformat(), "needs a zone: '2027-01-04T08:00:00Z'")


def _check_attempts(scenario: Scenario) -> None:
    every_ns = scenario.traffic.every
    attempts = scenario.duration // every_ns
    if attempts > ATTEMPTS_MAX:
        why = f"makes over {ATTEMPTS_MAX} attempts"
        raise impossible(("traffic", "every"), format_duration(every_ns), why)


# --- Names ----------------------------------------------------------------------------------------


def _check_names(scenario: Scenario) -> None:
    nodes = [node.name for node in scenario.node]

    # Gateways are connected to as well, so their identities are names like those of workloads.
    identities = _identities_on_nodes(scenario)
    identities += [gateway.identity for gateway in scenario.gateway]
    _check_gateways(scenario, nodes)
    _check_nodes(scenario, nodes, identities)
    _check_ztunnel(scenario)
    _check_authority(scenario, nodes)
    _check_pairs(scenario, identities)


def _identities_on_nodes(scenario: Scenario) -> list[str]:
    identities: list[str] = []
    for node in scenario.node:
        identities += node.identities
    return identities


def _check_ztunnel(scenario: Scenario) -> None:
    ztunnel = scenario.ztunnel
    # A dedicated ztunnel has one identity, which its configuration names.
    if ztunnel.mode == "dedicated" and ztunnel.workloads == "discovery":
        why = "needs mode = 'in-pod'; a dedicated ztunnel reads a file"
        raise impossible(("ztunnel", "workloads"), "discovery", why)


def _check_authority(scenario: Scenario, nodes: list[str]) -> None:
    # Without [authority] it is on the first node (resolve.py).
    if scenario.authority is None:
        return
    node = scenario.authority.node
    allowed = [*nodes, APART]
    if node not in allowed:
        raise impossible_choice(("authority", "node"), node, allowed)


def _check_pairs(scenario: Scenario, identities: list[str]) -> None:
    for position, pair in enumerate(scenario.traffic.pairs):
        place: Place = ("traffic", "pairs", position)
        for identity in pair:
            if identity not in identities:
                raise impossible_choice(place, identity, identities)

        # Two of them, as the model of Traffic has made sure.
        source, destination = pair
        if source == destination:
            raise impossible(place, pair, "connects an identity to itself")


def _check_gateways(scenario: Scenario, nodes: list[str]) -> None:
    # Nodes too: events name either by its name alone.
    taken = {*nodes}
    for position, gateway in enumerate(scenario.gateway):
        if gateway.node not in nodes:
            raise impossible_choice(("gateway", position, "node"), gateway.node, nodes)

        if gateway.name in taken:
            why = "is used twice; a process needs a name of its own"
            raise impossible(("gateway", position, "name"), gateway.name, why)
        taken.add(gateway.name)


def _check_nodes(scenario: Scenario, nodes: list[str], identities: list[str]) -> None:
    for position, node in enumerate(scenario.node):
        place: Place = ("node", position, "name")
        if node.name == APART:
            why = "means an authority on no node; give the node another name"
            raise impossible(place, APART, why)

        # The second of two nodes is the one that is refused.
        first_position = nodes.index(node.name)
        if first_position != position:
            why = "is used twice; every node needs a name of its own"
            raise impossible(place, node.name, why)

        for number, identity in enumerate(node.identities):
            if identities.count(identity) > 1:
                why = "is used twice; an identity is on one node only"
                raise impossible(("node", position, "identities", number), identity, why)


# --- Faults, one by one ---------------------------------------------------------------------------


def _check_faults(
    scenario: Scenario, faults: Sequence[Fault], duration_ns: int, place: Place
) -> None:
    nodes = [node.name for node in scenario.node]
    for position, fault in enumerate(faults):
        where = (*place, position)
        _check_times(fault, duration_ns, where)
        if isinstance(fault, PodRestart):
            _check_pod_restart(scenario, fault, where)
        if isinstance(fault, NodeFault):
            _check_node_fault(fault, nodes, where)

    # After each by itself: the times of all of them are valid now.
    _check_overlaps(nodes, faults, duration_ns, place)
    _check_wall_clocks(scenario, faults, duration_ns, place)


def _check_times(fault: TimedFault, duration_ns: int, place: Place) -> None:
    if fault.at >= duration_ns:
        why = f"begins after the end; the scenario lasts {format_duration(duration_ns)}"
        raise impossible((*place, "at"), format_duration(fault.at), why)

    if fault.every is None:
        return
    every = format_duration(fault.every)

    # Equal too: two clock faults of a node would begin and end at one moment.
    if fault.every <= fault.lasts_world_ns:
        lasts = format_duration(fault.lasts_world_ns)
        why = f"comes again before it has ended (it takes {lasts})"
        raise impossible((*place, "every"), every, why)

    # A range, which has its length without being walked through.
    times_ns = fault_times_ns(fault, duration_ns)
    if len(times_ns) > FAULTS_MAX:
        raise impossible((*place, "every"), every, f"makes more than {FAULTS_MAX} faults")


def _check_node_fault(fault: NodeFault, nodes: list[str], place: Place) -> None:
    # A drift from the start on is a clock that was never right.
    may_begin_at_once = isinstance(fault, Drift)
    if fault.at == 0 and not may_begin_at_once:
        why = (
            "is the moment at which every ztunnel starts and gets its certificates; let it "
            "begin later, at '1s'"
        )
        raise impossible((*place, "at"), format_duration(fault.at), why)

    allowed = [*nodes, EVERY_NODE]
    where = (*place, "node")
    if fault.node is None:
        # A single node need not be named.
        if len(nodes) > 1:
            raise missing(where, f"one of {', '.join(allowed)}")
        return
    if fault.node not in allowed:
        raise impossible_choice(where, fault.node, allowed)


def _check_pod_restart(scenario: Scenario, fault: PodRestart, place: Place) -> None:
    identities = _identities_on_nodes(scenario)
    if fault.identity not in identities:
        raise impossible_choice((*place, "identity"), fault.identity, identities)
    if fault.at == 0:
        why = "is the moment at which its first pod starts; let it begin later, at '1s'"
        raise impossible((*place, "at"), "0s", why)

    # Only a dedicated ztunnel has no discovery, and that was refused before (_check_ztunnel).
    if scenario.ztunnel.workloads != "discovery":
        why = (
            "needs [ztunnel] mode = 'in-pod', workloads = 'discovery': no other ztunnel learns "
            "that a pod was deleted"
        )
        raise impossible((*place, "kind"), "pod_restart", why)


# --- Faults together ------------------------------------------------------------------------------


def _check_wall_clocks(
    scenario: Scenario, faults: Sequence[Fault], duration_ns: int, place: Place
) -> None:
    """No wall clock may leave the years that programs can be trusted with."""
    starts_s = int(scenario.starts.timestamp())
    steps_ns = _steps_ns(faults, duration_ns)

    # How far all steps up to each of them have taken the wall clock; 0 before the first.
    ahead_ns = [0, *accumulate(steps_ns)]

    # As if the fastest drift lasted all the time: a bound, not the very end.
    longest_ns = int(duration_ns * _fastest_rate(faults))
    earliest_s = starts_s + min(ahead_ns) // NS_PER_S
    latest_s = starts_s + (max(ahead_ns) + longest_ns) // NS_PER_S
    if earliest_s >= _WALL_S_MIN and latest_s <= _WALL_S_MAX:
        return

    # Which key is to blame: the date itself, or the steps that lead away from it.
    starts_outside = not _WALL_S_MIN <= starts_s <= _WALL_S_MAX
    raise impossible(
        ("starts",) if starts_outside else place,
        str(scenario.starts),
        "takes a wall clock out of the years 1971 to 2200",
    )


def _steps_ns(faults: Sequence[Fault], duration_ns: int) -> list[int]:
    """By how much the wall clock is stepped, in order of time, repeats included."""
    steps = []
    for fault in faults:
        # A suspend or a pause moves the wall clock to where it would be without it.
        if not isinstance(fault, Step):
            continue
        for at_ns in fault_times_ns(fault, duration_ns):
            step = (at_ns, fault.by)
            steps.append(step)

    steps.sort()
    return [by_ns for _, by_ns in steps]


def _fastest_rate(faults: Sequence[Fault]) -> Decimal:
    """Wall time that passes at most in a second of monotonic time; 1 where no clock drifts."""
    fastest = Decimal(1)
    for fault in faults:
        if isinstance(fault, Drift):
            fastest = max(fastest, fault.rate)
    return fastest


class _Span(NamedTuple):
    """Where one clock fault is on the timeline of one node; sorts by time."""

    node: str
    begins_ns: int
    ends_ns: int
    position: int
    kind: str

    def contains(self, moment_ns: int) -> bool:
        """Whether `moment_ns` is within it, its ends excluded."""
        return self.begins_ns < moment_ns < self.ends_ns


def _check_overlaps(
    nodes: list[str], faults: Sequence[Fault], duration_ns: int, place: Place
) -> None:
    """One clock fault at a time on one node; only a drift may have others within it."""
    for node in nodes:
        drifts: list[_Span] = []
        others: list[_Span] = []
        for span in _spans_on(node, faults, duration_ns):
            if span.kind == "drift":
                drifts.append(span)
            else:
                others.append(span)

        _check_none_overlap(others, place)
        _check_none_overlap(drifts, place)
        for drift, other in product(drifts, others):
            _check_within(drift, other, place)


def _check_within(drift: _Span, other: _Span, place: Place) -> None:
    """A fault may lie within a drift or outside it, but not across one of its ends."""
    is_across = other.contains(drift.begins_ns) or other.contains(drift.ends_ns)
    if not is_across:
        return
    why = (
        f"is across an end of fault {drift.position} (drift) on node {drift.node!r}; put it "
        "within or outside"
    )
    at = format_duration(other.begins_ns)
    raise impossible((*place, other.position, "at"), at, why)


def _check_none_overlap(spans: list[_Span], place: Place) -> None:
    """`spans`: in order of time, all on one node."""
    for one, two in pairwise(spans):
        # One may begin when the other ends.
        overlap = two.begins_ns < one.ends_ns
        # Two steps at one moment, which last for nothing, have no order.
        begin_together = two.begins_ns == one.begins_ns
        if overlap or begin_together:
            why = (
                f"overlaps fault {one.position} ({one.kind}) on node {one.node!r}; one clock "
                "fault at a time on a node"
            )
            at = format_duration(two.begins_ns)
            raise impossible((*place, two.position, "at"), at, why)


def _spans_on(node: str, faults: Sequence[Fault], duration_ns: int) -> list[_Span]:
    """The clock faults of one node, repeats included, in order of time."""
    spans = []
    for position, fault in enumerate(faults):
        if fault.kind not in CLOCK_FAULTS or not isinstance(fault, NodeFault):
            continue
        # None: the only node of the scenario, as _check_node_fault has made sure.
        if fault.node not in (node, EVERY_NODE, None):
            continue
        for at_ns in fault_times_ns(fault, duration_ns):
            span = _Span(
                node,
                begins_ns=at_ns,
                ends_ns=at_ns + fault.lasts_world_ns,
                position=position,
                kind=fault.kind,
            )
            spans.append(span)
    return sorted(spans)
