from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.analysis.populations import (
    APART_NS,
    DAY_NS,
    HOUR_NS,
    POPULATIONS,
    MachineFault,
    RecordedMachine,
    faults_of,
)


@pytest.mark.parametrize("population", POPULATIONS)
@given(seed=st.integers(0, 10_000), machine=st.integers(0, 10_000), days=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_faults_are_in_order_and_apart(population: str, seed: int, machine: int, days: int) -> None:
    """As a plan must have them; all begin before the end, none at the very beginning."""
    faults = faults_of(population, machine, seed, days)
    free_ns = APART_NS
    for index, fault in enumerate(faults):
        assert fault.index == index
        assert free_ns <= fault.at_world_ns < days * DAY_NS
        free_ns = fault.ends_world_ns + APART_NS


@pytest.mark.parametrize("population", POPULATIONS)
def test_chance_comes_from_the_seed(population: str) -> None:
    """The same machine twice, and another one."""
    assert faults_of(population, 4, 1, 28) == faults_of(population, 4, 1, 28)
    assert faults_of(population, 4, 1, 28) != faults_of(population, 5, 1, 28)
    assert faults_of(population, 4, 1, 28) != faults_of(population, 4, 2, 28)


def test_populations_sleep_as_their_names_say() -> None:
    """Hours asleep in a week, of a hundred machines: a laptop most of it, a cloud VM hardly."""

    def asleep_h(population: str) -> float:
        faults = [fault for machine in range(100) for fault in faults_of(population, machine, 0, 7)]
        return sum(fault.duration_ns for fault in faults) / 3.6e12 / 100

    assert 90 < asleep_h("office-laptop") < 135
    assert 25 < asleep_h("homelab") < 45
    assert asleep_h("cloud-vm") < 2


REMEMBERED = (
    RecordedMachine("short", DAY_NS, (MachineFault("suspend", HOUR_NS, HOUR_NS),)),
    RecordedMachine(
        "long",
        30 * DAY_NS,
        tuple(MachineFault("pause", day * DAY_NS + HOUR_NS, HOUR_NS, 5) for day in range(30)),
    ),
)


def test_the_first_of_the_imported_is_each_machine_as_it_was() -> None:
    """From its beginning, and no more days than were requested."""
    first, second = (faults_of("imported", machine, 0, 7, REMEMBERED) for machine in (0, 1))
    assert [(fault.kind, fault.at_world_ns) for fault in first] == [("suspend", HOUR_NS)]
    assert [fault.at_world_ns for fault in second] == [day * DAY_NS + HOUR_NS for day in range(7)]
    assert {fault.ends_world_ns - fault.asleep_until_world_ns for fault in second} == {5}


@given(machine=st.integers(2, 10_000), seed=st.integers(0, 100))
def test_the_others_begin_at_another_hour_of_it(machine: int, seed: int) -> None:
    """A window of the machine's own days: its faults keep their distances, and come from its
    seed."""
    faults = faults_of("imported", machine, seed, 7, REMEMBERED)
    assert faults == faults_of("imported", machine, seed, 7, REMEMBERED)
    at_ns = [fault.at_world_ns for fault in faults]
    if machine % 2:
        assert 6 <= len(faults) <= 8
        # The plan keeps a minute free at its beginning; what begins there begins later.
        assert {after - before for before, after in pairwise(at_ns[1:])} == {DAY_NS}
    else:
        assert at_ns == [HOUR_NS]
