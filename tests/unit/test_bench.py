"""The bench runs and hands over what it promises. How fast anything is, is no business of a test."""

from __future__ import annotations

import json

import pytest

from harness.checks import judge
from harness.clocks.vdso import unsupported_here
from tests.bench import calls, model
from tests.bench.__main__ import machine, readable, table
from tests.bench.numbers import Number, hand_over
from tests.unit.labs import plans

MODEL_KEYS = {
    "days_per_s",
    "best_days_per_s",
    "moments_per_s",
    "bare_loop_moments_per_s",
    "events_per_s",
    "judging_s_per_week",
}


def test_the_model_part_gives_all_its_numbers() -> None:
    """On a plan of an hour: every key, a positive value, and what it is compared with."""
    numbers = model.measure(plans.plan(duration="1h"), rounds=1)
    assert {number.key for number in numbers} == MODEL_KEYS
    assert all(number.value and number.ratio and number.peer for number in numbers)


def test_the_bench_measures_the_week_it_says() -> None:
    """The plan is whole: it has its nights, and its checks can judge it."""
    week = model.nightly_sleep()
    assert len(week.faults) == 7
    assert judge(week, model.run(week))


def test_a_number_survives_the_way_to_its_reader(capsys: pytest.CaptureFixture[str]) -> None:
    """A part prints its numbers, refusals too; the table shows what was measured."""
    numbers = [
        Number("model", "days_per_s", 1234.5, "days/s", 2.0, "simpy"),
        Number("x", "", None, refusal="no binary"),
    ]
    hand_over(numbers)
    assert [Number(**each) for each in json.loads(capsys.readouterr().out)] == numbers
    assert [list(column.cells) for column in table(numbers).columns] == [
        ["model"],
        ["days_per_s"],
        ["1,234 days/s"],
        ["2"],
        ["simpy"],
    ]


def test_the_machine_is_described_without_its_name() -> None:
    """Facts that numbers depend on, and nothing else."""
    assert set(machine()) == {"system", "kernel", "architecture", "cpus", "python"}


@pytest.mark.parametrize(("value", "text"), [(0.01234, "0.0123"), (1234567.8, "1,234,568"), (0.0, "0"), (99.96, "100")])
def test_numbers_are_readable(value: float, text: str) -> None:
    """Three digits that count, and no exponent where anybody reads."""
    assert readable(value) == text


@pytest.mark.skipif(unsupported_here() is not None, reason=str(unsupported_here()))
def test_the_loop_in_machine_code_calls_what_it_is_given() -> None:
    """Around the vDSO's function it leaves the clock's reading behind, and comes back."""
    loop = calls.Loop()
    assert loop.ns_per_call(calls.vdso_clock_gettime()) >= 0
    assert loop.read_s() > 0
