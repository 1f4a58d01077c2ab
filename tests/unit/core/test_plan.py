from __future__ import annotations

import json
from dataclasses import replace

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import parse_scenario

from tests.support.scenarios import SMALL, small

HOUR_NS = 3_600 * NS_PER_S


def case_of(text: str = SMALL) -> PlanRequest:
    scenario = parse_scenario(text, "small.toml", "small")
    return PlanRequest(scenario, "model", "1.31.0-rc.0", "E", expectations=tuple(scenario.expect))


def test_a_pause_that_nothing_corrects_drifts_by_nothing() -> None:
    """And its plan is another than that of one that is corrected at once."""
    text = small(('kind  = "suspend"', 'kind  = "pause"\ncorrected_after = "never"'))
    never, at_once = resolve(case_of(text)), resolve(case_of(text.replace("never", "0s")))
    assert [plan.faults[0].expected_drift_ns for plan in (never, at_once)] == [0, 8 * HOUR_NS]
    assert never.sha256 != at_once.sha256


def test_same_scenario_same_plan() -> None:
    """The digest of a plan names it: same case, same digest; another seed, another digest."""
    assert resolve(case_of()).sha256 == resolve(case_of()).sha256
    assert resolve(case_of()).sha256 != resolve(replace(case_of(), seed=1)).sha256


def test_dates_that_are_shown() -> None:
    """Of the recorded history, else of the scenario's own start; none for the default. They do not
    change what runs, so the digest is the same."""
    recorded = "starts = 2027-01-08T12:00:00Z\nrecorded_from = 2025-11-21T12:00:00Z\n"
    own = "starts = 2027-01-08T12:00:00Z\n"
    shown = [resolve(case_of(text + SMALL)).dates_from_wall_s for text in (recorded, own, "")]
    assert shown == [1_763_726_400, 1_799_409_600, None]
    assert resolve(case_of(recorded + SMALL)).sha256 == resolve(case_of(own + SMALL)).sha256


def test_the_zone_of_dates() -> None:
    """It is in the plan, and does not change what runs; without one, and in the file of an earlier
    version, dates are UTC."""
    recorded = "recorded_from = 2025-11-21T12:00:00Z\n"
    plan = resolve(case_of(f'{recorded}recorded_zone = "Europe/Berlin"\n{SMALL}'))
    in_utc = resolve(case_of(recorded + SMALL))
    assert plan.sha256 == in_utc.sha256
    earlier = json.loads(in_utc.model_dump_json())
    del earlier["dates_zone"]
    shown = [
        each.dates.to_the_minute(0)
        for each in (plan, in_utc, Plan.model_validate_json(json.dumps(earlier)))
        if each.dates is not None
    ]
    assert shown == ["Fri 2025-11-21 13:00", *["Fri 2025-11-21 12:00"] * 2]


def test_a_plan_survives_json() -> None:
    """Printed, saved and read back it is the same plan."""
    plan = resolve(case_of())
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_repeats_and_every_node_are_written_out() -> None:
    """A fault on "*" that repeats becomes one planned fault for each node and time, in order."""
    second = '[[node]]\nname       = "desk"\nidentities = ["default/other"]\n\n[traffic]'
    text = small(
        ("[traffic]", second), ('lasts = "8h"', 'lasts = "8h"\nevery = "24h"\nnode  = "*"')
    )
    faults = resolve(case_of(text)).faults
    assert [(fault.index, fault.node, fault.at_world_ns // HOUR_NS) for fault in faults] == [
        (0, "laptop", 15),
        (1, "desk", 15),
        (2, "laptop", 39),
        (3, "desk", 39),
    ]


def test_expected_drift_of_each_fault() -> None:
    """A pause drifts by its length, a step by its size, a drift by what its rate makes, a freeze
    not at all."""
    faults = (
        '[[fault]]\nkind = "pause"\nat = "1h"\nlasts = "17m"\ncorrected_after = "25s"\n'
        '[[fault]]\nkind = "step"\nat = "2h"\nby = "-13h"\n'
        '[[fault]]\nkind = "freeze"\nat = "3h"\nlasts = "1h"\n'
        '[[fault]]\nkind = "drift"\nat = "5h"\nlasts = "40s"\nrate = 1.025\n\n[[expect]]'
    )
    drifts_s = [
        fault.expected_drift_ns / NS_PER_S
        for fault in resolve(case_of(small(("[[expect]]", faults)))).faults
    ]
    assert drifts_s == [1020, -46_800, 0, 1, 28_800]


def test_the_authority_sleeps_with_the_first_node_unless_apart() -> None:
    """Who signs, and by which clock, is never left open."""
    assert resolve(case_of()).authority_node == "laptop"
    apart = small(("[traffic]", '[authority]\nnode = "apart"\n\n[traffic]'))
    assert resolve(case_of(apart)).authority_node is None


def test_real_time_needs_its_own_numbers() -> None:
    """Without [real_time] a run in real time would last for days: refused."""
    with pytest.raises(BadInput, match=r"no \[real_time\] table"):
        resolve(replace(case_of(), real_time=True))


def test_half_life_of_a_day() -> None:
    """24 h dated back by 2 min are renewed 11 h 59 min after issue."""
    assert resolve(case_of()).half_life_s == 11 * 3600 + 59 * 60
