"""How machines of different kinds sleep: seeded generators of the clock faults of one machine.

Each is a sequence of days, drawn from a distribution that its docstring states. They are
assumptions, not measurements: `sweep` finds which fix holds over a whole range of habits, not how
often a habit occurs. Journals of real machines can be imported (meshwake import-sleep) and swept
over: the population `imported`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.faults import FaultKind
from meshwake.core.planned_faults import (
    PlannedDrift,
    PlannedFault,
    PlannedPause,
    PlannedPodRestart,
    PlannedStep,
    read_planned_fault,
)

MINUTE_NS, HOUR_NS, DAY_NS = 60 * NS_PER_S, 3_600 * NS_PER_S, 86_400 * NS_PER_S
NODE = "machine"
APART_NS = MINUTE_NS  # between two faults: no generator may make them touch


class MachineFault(NamedTuple):
    """One fault of the machine, at a world time."""

    kind: FaultKind
    at_world_ns: int
    lasts_ns: int = 0
    corrected_after_ns: int = 0
    by_wall_ns: int = 0
    corrected: bool = True


def machine_fault(fault: PlannedFault) -> MachineFault:
    """The same fault, without its node. Raises BadInput for kinds that need more numbers than a
    machine of a population has."""
    match fault:
        case PlannedDrift() | PlannedPodRestart():
            raise BadInput(
                f"[fault {fault.index}] {fault.kind}: a machine of a population cannot have it; "
                "leave it out"
            )
        case PlannedPause():
            return MachineFault(
                "pause",
                fault.at_world_ns,
                fault.lasts_ns,
                fault.corrected_after_ns,
                corrected=fault.corrected,
            )
        case PlannedStep():
            return MachineFault("step", fault.at_world_ns, by_wall_ns=fault.by_wall_ns)
        case _:
            return MachineFault(fault.kind, fault.at_world_ns, fault.duration_ns)


Generator = Callable[[Random, int], Iterator[MachineFault]]


@dataclass(frozen=True)
class RecordedMachine:
    """What one real machine did, from its journals: its faults in order, over `span_ns` of world
    time."""

    name: str
    span_ns: int
    faults: tuple[MachineFault, ...]


def _around(chance: Random, middle_h: float, spread_h: float) -> int:
    """Hours as nanoseconds, whole seconds, evenly spread about a middle."""
    return round((middle_h + chance.uniform(-spread_h, spread_h)) * 3_600) * NS_PER_S


def _seconds(chance: Random, least: int, most: int) -> int:
    return chance.randint(least, most) * NS_PER_S


def office_laptop(chance: Random, days: int) -> Iterator[MachineFault]:
    """World time 0 is Monday 08:00. Closed at lunch (3 days of 5, 30 to 75 min), between meetings
    (0 to 3 times, 5 to 20 min), from 17:30 +- 1 h until 08:00 +- 45 min, and over most weekends."""
    for day in range(days):
        begins_ns = day * DAY_NS
        if day % 7 in (5, 6):
            continue  # Saturday and Sunday: closed since Friday, or open all the time
        if chance.random() < 0.6:
            yield MachineFault(
                "suspend", begins_ns + _around(chance, 4.25, 0.5), _around(chance, 0.875, 0.375)
            )
        for hour in sorted(chance.sample(range(6, 9), chance.randint(0, 3))):
            yield MachineFault(
                "suspend",
                begins_ns + hour * HOUR_NS + _seconds(chance, 60, 1_800),
                _seconds(chance, 300, 1_200),
            )
        evening_ns = begins_ns + _around(chance, 9.75, 0.5)
        # On 4 Fridays of 5 until Monday; on the fifth until Saturday morning, and then left open.
        free_days = 3 if day % 7 == 4 and chance.random() < 0.8 else 1
        morning_ns = begins_ns + free_days * DAY_NS + _around(chance, 0, 0.75)
        yield MachineFault("suspend", evening_ns, morning_ns - evening_ns)


def homelab(chance: Random, days: int) -> Iterator[MachineFault]:
    """A machine at home: asleep from 00:30 +- 1.5 h for 5 to 9 h in 7 nights of 10, else on; now
    and then ztunnel is restarted."""
    for day in range(days):
        begins_ns = day * DAY_NS
        if chance.random() < 0.1:
            yield MachineFault("restart", begins_ns + _around(chance, 8, 4))
        if chance.random() < 0.7:
            yield MachineFault(
                "suspend", begins_ns + _around(chance, 16.5, 1.5), _around(chance, 7, 2)
            )


def wsl(chance: Random, days: int) -> Iterator[MachineFault]:
    """A VM below a laptop: paused with it at lunch and over night, the wall clock corrected 5 s to
    10 min after."""
    for day in range(days):
        begins_ns = day * DAY_NS
        if chance.random() < 0.5:
            at_ns = begins_ns + _around(chance, 4.5, 0.5)
            yield MachineFault(
                "pause", at_ns, _around(chance, 0.75, 0.25), _seconds(chance, 5, 600)
            )
        at_ns = begins_ns + _around(chance, 10, 1)
        yield MachineFault("pause", at_ns, _around(chance, 12, 1), _seconds(chance, 5, 600))


def ci_runner(chance: Random, days: int) -> Iterator[MachineFault]:
    """A VM restored for each job of 20 to 90 min, and paused for 30 min to 16 h between them;
    corrected within 30 s."""
    now_ns, end_ns = _seconds(chance, 1_200, 5_400), days * DAY_NS
    while now_ns < end_ns:
        lasts_ns, corrected_ns = _around(chance, 8.25, 7.75), _seconds(chance, 1, 30)
        yield MachineFault("pause", now_ns, lasts_ns, corrected_ns)
        now_ns += lasts_ns + corrected_ns + _seconds(chance, 1_200, 5_400)


def cloud_vm(chance: Random, days: int) -> Iterator[MachineFault]:
    """A VM that never sleeps: moved live on 1 day of 4 (a pause of 1 to 30 s), on 1 of 50 stopped
    for 1 to 8 h."""
    for day in range(days):
        begins_ns = day * DAY_NS
        if chance.random() < 0.25:
            yield MachineFault(
                "pause",
                begins_ns + _around(chance, 5, 4),
                _seconds(chance, 1, 30),
                _seconds(chance, 1, 30),
            )
        if chance.random() < 0.02:
            yield MachineFault(
                "pause",
                begins_ns + _around(chance, 12, 2),
                _around(chance, 4.5, 3.5),
                _seconds(chance, 1, 120),
            )


POPULATIONS: dict[str, Generator] = {
    "office-laptop": office_laptop,
    "homelab": homelab,
    "wsl": wsl,
    "ci-runner": ci_runner,
    "cloud-vm": cloud_vm,
}


IMPORTED = "imported"


def faults_of(
    population: str, machine: int, seed: int, days: int, remembered: Sequence[RecordedMachine] = ()
) -> tuple[PlannedFault, ...]:
    """The faults of one machine of a population, in order and apart from one another, all begun
    before the end. `remembered`: the machines of the population `imported`."""
    # A generator for each machine, so that its faults do not depend on which other machines are
    # simulated, in which worker, or in which order.
    chance = Random(f"{seed} {population} {machine}")
    if population == IMPORTED:
        # Each real machine first as it was; then again, from other days of it on.
        is_first = machine < len(remembered)
        faults = window_of(
            remembered[machine % len(remembered)], days, None if is_first else chance
        )
    else:
        faults = POPULATIONS[population](chance, days)
    return placed(sorted(faults, key=lambda fault: fault.at_world_ns), days * DAY_NS)


def window_of(machine: RecordedMachine, days: int, chance: Random | None) -> Iterator[MachineFault]:
    """What `machine` did in so many of its days: the first of them, or with `chance` from any full
    hour on, so that ztunnel starts at any time of its week. A sleep that was going on at the
    beginning is left out."""
    spare_h = max(machine.span_ns - days * DAY_NS, 0) // HOUR_NS
    begins_ns = chance.randint(0, spare_h) * HOUR_NS if chance else 0
    for fault in machine.faults:
        if begins_ns <= fault.at_world_ns < begins_ns + days * DAY_NS:
            yield fault._replace(at_world_ns=fault.at_world_ns - begins_ns)


def placed(faults: list[MachineFault], end_world_ns: int) -> tuple[PlannedFault, ...]:
    """`faults` as a plan has them. One that would touch the one before begins later; nothing begins
    at world time 0."""
    found: list[PlannedFault] = []
    free_ns = APART_NS
    for fault in faults:
        at_ns = max(fault.at_world_ns, free_ns)
        if at_ns >= end_world_ns:
            break
        found.append(
            read_planned_fault(
                fault._asdict() | {"index": len(found), "node": NODE, "at_world_ns": at_ns}
            )
        )
        free_ns = found[-1].ends_world_ns + APART_NS
    return tuple(found)
