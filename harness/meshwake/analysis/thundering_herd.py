"""The load on istiod when many nodes wake at the same moment, second by second.

So many nodes, each with one ztunnel and one identity, started at times spread over half a
certificate's life, all sleep from one moment to another for longer than a certificate lives, so
that every one of them wakes with an expired certificate. istiod runs elsewhere and never sleeps.
Counted is what reaches it from the wake on.

Each node is a machine of its own, so without anything shared it is simulated by itself. The guards
do share something: whose turn it is to restart. So a herd is one world, whatever is deployed; ten
thousand nodes take some minutes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.events import CsrAnswered, ZtunnelStopped
from meshwake.core.history import History
from meshwake.core.plan import Plan, PlannedFix, PlannedNode
from meshwake.core.planned_faults import PlannedFault, read_planned_fault
from meshwake.core.refusal import invalid, invalid_choice
from meshwake.core.versions import newest
from meshwake.fixes import FIXES, adapted, wake_guard
from meshwake.runner.execution import execute

FIXES_WITH_TURNS = (wake_guard.NAME,)
FIXES_SHOWN = ("none", "sleep-hook", "wall-polling", *FIXES_WITH_TURNS)
NODES_MAX = 20_000
# PILOT_MAX_REQUESTS_PER_SECOND (istio.io, istiod's environment): 25 until 1.20; since 1.21 by CPUs,
# 20 with one.
ISTIOD_STREAMS_A_SECOND = 25
HOUR_NS = 3_600 * NS_PER_S
LIFETIME_S = 86_400
# Starts are spread over half a life, so that renewals are spread too. All are then asleep for
# longer than a life, and wake with a certificate that has expired.
STARTED_WITHIN_NS = 12 * HOUR_NS
ASLEEP_AT_NS, ASLEEP_FOR_NS = 13 * HOUR_NS, 26 * HOUR_NS
WAKES_NS = ASLEEP_AT_NS + ASLEEP_FOR_NS
AFTER_NS = HOUR_NS
_BARS = " .:-=+*#%@"


@dataclass(frozen=True)
class HerdResult:
    """What one herd did in the hour after its wake. `good_*`: the share of nodes with a valid
    certificate by then."""

    nodes: int
    fix: str
    turns: int
    seed: int
    requests: int
    most_in_1_s: int
    most_in_10_s: int
    good_at_once: float
    good_in_5_min: float
    good_in_1_h: float
    per_minute: list[int]


def simulate_herd(nodes: int, fix: str, seed: int, turns: int = 1) -> HerdResult:
    """The herd with `fix` on every node, of which `turns` wake guards may restart at a time. Raises
    BadInput."""
    if not 1 <= nodes <= NODES_MAX:
        raise invalid("--herd", nodes, f"1 to {NODES_MAX} nodes")
    if fix not in FIXES:
        raise invalid_choice("--fix", fix, FIXES)

    plan = adapted(plan_of(nodes, fix, seed, turns))
    history = execute(plan).history

    # Before the wake istiod has the usual load, spread over half a life.
    requests_ns = [
        event.world_ns - WAKES_NS
        for event in history.of("csr_answered")
        if event.world_ns >= WAKES_NS
    ]
    return HerdResult(
        nodes=nodes,
        fix=fix,
        turns=turns,
        seed=seed,
        requests=len(requests_ns),
        most_in_1_s=most_within(requests_ns, NS_PER_S),
        most_in_10_s=most_within(requests_ns, 10 * NS_PER_S),
        good_at_once=_good(plan, history, WAKES_NS + NS_PER_S),
        good_in_5_min=_good(plan, history, WAKES_NS + 300 * NS_PER_S),
        good_in_1_h=_good(plan, history, WAKES_NS + AFTER_NS - 1),
        per_minute=[count for _, count in _per_minute(requests_ns)],
    )


def plan_of(nodes: int, fix: str, seed: int, turns: int = 1) -> Plan:
    """The plan of a herd."""
    names = [f"node-{number}" for number in range(nodes)]
    release = newest()
    return Plan(
        scenario="herd",
        title=f"{nodes} nodes wake at the same moment",
        lab="model",
        version=release.version,
        behaviour_class=release.behaviour_class,
        seed=seed,
        starts_wall_s=1_799_049_600,
        duration_ns=WAKES_NS + AFTER_NS,
        lifetime_s=LIFETIME_S,
        backdate_s=120,
        nodes=tuple(PlannedNode(name=name, identities=(f"{name}/workload",)) for name in names),
        authority_node=None,
        pairs=(),
        attempt_every_ns=12 * HOUR_NS,
        faults=_faults(names, Random(f"{seed} herd")),
        fix=PlannedFix(name=fix, manifest=_manifest(fix, turns)),
    )


def _manifest(fix: str, turns: int) -> str | None:
    """That of this repository, the guard's with as many turns. Raises BadInput where they are of no
    use."""
    manifest = FIXES[fix].read_manifest()
    if turns == 1:
        return manifest

    # The other fixes restart at fixed times, or not at all: nothing is taken in turns.
    if fix != wake_guard.NAME or manifest is None:
        raise BadInput(
            f"--turns {turns}: is about {wake_guard.NAME}; give --fix {wake_guard.NAME} too"
        )
    return wake_guard.with_turns(manifest, turns)


def _faults(names: list[str], chance: Random) -> tuple[PlannedFault, ...]:
    # A restart at a time of its own is how a plan spreads starts: all ztunnels begin at 0.
    starts = sorted((chance.randrange(NS_PER_S, STARTED_WITHIN_NS), name) for name in names)
    placed = [("restart", at_ns, name, 0) for at_ns, name in starts]
    placed += [("suspend", ASLEEP_AT_NS, name, ASLEEP_FOR_NS) for name in names]

    faults = []
    for index, (kind, at_ns, name, lasts_ns) in enumerate(placed):
        fault = {
            "index": index,
            "kind": kind,
            "node": name,
            "at_world_ns": at_ns,
            "lasts_ns": lasts_ns,
        }
        faults.append(read_planned_fault(fault))
    return tuple(faults)


def most_within(times_ns: Iterable[int], window_ns: int) -> int:
    """The most of `times_ns`, which are in order, that lie within one window."""
    ordered = list(times_ns)
    most = first = 0
    for last, time_ns in enumerate(ordered):
        # A window is [first, first + length): what lies exactly its length later is not in it.
        while time_ns - ordered[first] >= window_ns:
            first += 1
        most = max(most, last - first + 1)
    return most


def _per_minute(times_ns: Iterable[int]) -> list[tuple[int, int]]:
    counted = Counter(time_ns // (60 * NS_PER_S) for time_ns in times_ns)
    return [(minute, counted[minute]) for minute in range(AFTER_NS // (60 * NS_PER_S))]


def _good(plan: Plan, history: History, world_ns: int) -> float:
    """The share of nodes that hold a certificate valid at `world_ns`; every wall clock is the
    world's by then. Read off the events: checks/facts looks at every ztunnel for each that
    ends, too slow for ten thousand of them."""
    wall_s = plan.starts_wall_s + world_ns // NS_PER_S
    held_until_s: dict[str | None, int] = {}

    # A node has one ztunnel with one identity, so the last that happened to a node is its state.
    for event in history:
        if event.world_ns > world_ns:
            break
        if isinstance(event, ZtunnelStopped):
            held_until_s.pop(event.node, None)
        # A request that failed leaves what was held before.
        elif isinstance(event, CsrAnswered) and event.not_after_wall_s is not None:
            held_until_s[event.node] = event.not_after_wall_s

    valid = [until_s for until_s in held_until_s.values() if wall_s <= until_s]
    return len(valid) / len(plan.nodes)


def markdown(herds: Iterable[HerdResult]) -> str:
    """The table of docs/sweeps.md."""
    head = ("nodes", "deployed", "requests in the worst second", "in the worst 10 s", "in the hour")
    lines = [[*head, "well again after 5 min", "after an hour"], ["---"] * 7]

    for herd in herds:
        turns = "" if herd.turns == 1 else f", {herd.turns} turns"
        lines.append(
            [
                f"{herd.nodes:,}",
                f"`{herd.fix}`{turns}",
                f"{herd.most_in_1_s:,}",
                f"{herd.most_in_10_s:,}",
                f"{herd.requests:,}",
                f"{100 * herd.good_in_5_min:.0f} %",
                f"{100 * herd.good_in_1_h:.0f} %",
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def bar_line(counts: list[int]) -> str:
    """A load as a line of characters, one a minute, by the most of them."""
    most = max([*counts, 1])
    line = ""
    for count in counts:
        # Rounded up, so that a single request in a minute still shows as a dot.
        height = -(-count * (len(_BARS) - 1) // most)
        line += _BARS[height]
    return line
