"""The bench runs and hands over what it promises. How fast anything is, is not judged by a test."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from meshwake.checks import judge
from meshwake.clocks.vdso.page import unsupported_here

from tests.bench import calls, model
from tests.bench.__main__ import machine, readable, table
from tests.bench.numbers import Number, hand_over
from tests.bench.page import HEADING, NEXT, PAGE, page
from tests.support import plans

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


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (1234567.8, "1,234,568"), (0.0, "0"), (99.96, "100")]
)
def test_numbers_are_readable(value: float, text: str) -> None:
    """Three digits that count, and no exponent where anybody reads."""
    assert readable(value) == text


def test_the_table_of_the_page_is_the_one_measured() -> None:
    """Old rows go, the text around them stays; a part that could not be measured is named."""
    text = f"# Page\n\n{HEADING}\n| old |\n{NEXT}\n* so\n"
    numbers = [
        Number("model", "days", 12.5, "d", 2.0, "real time"),
        Number("exact", "", None, refusal="no binary"),
    ]
    machine_of = machine() | {"cpus": 2}
    written = page(
        text,
        {"machine": machine_of, "numbers": [asdict(number) for number in numbers]},
        "2026-11-25",
    )
    assert "| model | `days` | 12.5 d | 2 | real time |\n" in written
    assert "* exact: not measured: no binary" in written and "2 CPUs" in written
    assert (
        "old" not in written
        and written.startswith("# Page\n")
        and written.endswith(f"{NEXT}\n* so\n")
    )
    assert page(
        PAGE.read_text(encoding="utf-8"), {"machine": machine_of, "numbers": []}, "2026-11-25"
    )


@pytest.mark.skipif(unsupported_here() is not None, reason=str(unsupported_here()))
def test_the_loop_in_machine_code_calls_what_it_is_given() -> None:
    """Around the vDSO's function it leaves the clock's reading behind, and comes back."""
    loop = calls.Loop()
    assert loop.ns_per_call(calls.vdso_clock_gettime()) >= 0
    assert loop.read_s() > 0
