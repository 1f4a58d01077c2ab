"""Planned faults: a class a kind, and one flat form in JSON, the same since the first plans."""

from __future__ import annotations

from typing import get_args

import pytest
from meshwake.core.faults import CLOCK_FAULTS, SERVICE_FAULTS
from meshwake.core.plan import Plan, PlannedNode
from meshwake.core.planned_faults import (
    AnyPlannedFault,
    PlannedFault,
    event_of,
    read_planned_fault,
)
from pydantic import ValidationError

from tests.support.faults import FAULT_FIELDS, planned_fault

FIELDS = [
    *("index", "kind", "node", "at_world_ns", "lasts_ns", "corrected_after_ns"),
    *("answers_after_ns", "by_wall_ns", "rate_numerator", "rate_denominator", "lifetime_s"),
    *("identity", "corrected"),
]


def test_every_kind_of_a_scenario_can_be_planned() -> None:
    assert set(FAULT_FIELDS) == {*CLOCK_FAULTS, *SERVICE_FAULTS}
    assert len(get_args(get_args(PlannedFault)[0])) == len(FAULT_FIELDS)


@pytest.mark.parametrize("kind", FAULT_FIELDS)
def test_a_fault_is_written_with_the_fields_of_all_kinds_and_read_again(kind: str) -> None:
    planned = planned_fault(kind)
    assert list(planned.flat()) == FIELDS
    assert FAULT_FIELDS[kind].items() <= planned.flat().items()
    assert read_planned_fault(planned.flat()) == planned


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("suspend", "rate_numerator", 2), ("restart", "lasts_ns", 1), ("freeze", "corrected", False)],
)
def test_a_value_that_a_kind_does_not_use_is_refused(kind: str, name: str, value: object) -> None:
    """A suspend with a rate cannot be planned, nor read."""
    with pytest.raises(ValidationError, match=name):
        planned_fault(kind, **{name: value})


def test_a_kind_cannot_lack_what_it_needs() -> None:
    with pytest.raises(ValidationError, match="by_wall_ns"):
        read_planned_fault({"index": 0, "kind": "step", "node": "a", "at_world_ns": 0})


@pytest.mark.parametrize(
    ("kind", "asleep_until_ns", "ends_ns", "drift_ns"),
    [
        ("suspend", 107, 107, 7),
        ("pause", 107, 110, 0),  # its wall clock stays behind
        ("step", 100, 100, -5),
        ("drift", 100, 109, 4),
        ("freeze", 100, 107, 0),
        ("restart", 100, 100, 0),
    ],
)
def test_when_a_fault_ends_and_what_it_does_to_the_clocks(
    kind: str, asleep_until_ns: int, ends_ns: int, drift_ns: int
) -> None:
    planned: AnyPlannedFault = planned_fault(kind)
    assert planned.asleep_until_world_ns == asleep_until_ns
    assert planned.ends_world_ns == ends_ns
    assert planned.expected_drift_ns == drift_ns


def test_one_event_on_two_nodes() -> None:
    assert event_of(planned_fault("pause")) == event_of(planned_fault("pause", node="b", index=4))
    assert event_of(planned_fault("pause")) != event_of(planned_fault("pause", corrected=True))


@pytest.mark.parametrize(
    ("kinds", "sha256"),
    [
        (("suspend", "step", "drift", "freeze", "ca_outage", "ca_root"), "d234f38712d1e422"),
        (("pause",), "74bc0307e154f19e"),
        (("ca_slow", "restart"), "1a0d4419b4c80302"),
        (("ca_lifetime",), "e736ac50b60f7a5d"),
        (("suspend", "pod_restart", "ca_clock"), "36fea0a6a96a68d2"),
        (tuple(FAULT_FIELDS), "e4ee1aca0fc4cc43"),
    ],
)
def test_a_plan_has_the_name_it_had_before_faults_had_classes(
    kinds: tuple[str, ...], sha256: str
) -> None:
    """Taken from the version before: runs that were saved are found by it."""
    plan = small_plan().model_copy(update={"faults": tuple(planned_fault(kind) for kind in kinds)})
    assert plan.sha256.startswith(sha256)


def small_plan() -> Plan:
    """Without faults."""
    return Plan(
        scenario="small",
        title="Small",
        lab="model",
        version="1.27.0",
        behaviour_class="A",
        seed=0,
        starts_wall_s=0,
        duration_ns=1000,
        lifetime_s=100,
        backdate_s=0,
        nodes=(PlannedNode(name="a", identities=("default/client",)),),
        authority_node="a",
        pairs=(),
        attempt_every_ns=10,
        faults=(),
    )
