# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
"""Schedules as robfig/cron v3 reads them: what is refused, and when the rest comes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.fixes.schedule import (
    Calendar,
    Every,
    Times,
    calendar_times_ns,
    parse_schedule,
    shortest_gap_s,
)

NS = 10**9
BERLIN = ZoneInfo("Europe/Berlin")


def first_times(text: str, after: str, count: int, zone: ZoneInfo | None = None) -> list[str]:
    schedule = parse_schedule(text)
    assert isinstance(schedule, Calendar)
    begin_ns = int(datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp()) * NS
    times = islice(calendar_times_ns(schedule, zone or UTC, begin_ns), count)
    return [datetime.fromtimestamp(each // NS, tz=UTC).strftime("%m-%d %H:%M") for each in times]


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("0 3 * * 0", ["01-10 03:00", "01-17 03:00", "01-24 03:00"]),
        ("@weekly", ["01-10 00:00", "01-17 00:00", "01-24 00:00"]),
        ("0 3 ? * sun", ["01-10 03:00", "01-17 03:00", "01-24 03:00"]),
        ("30 4 1,15 * *", ["01-15 04:30", "02-01 04:30", "02-15 04:30"]),
        ("*/25 6 * * *", ["01-05 06:00", "01-05 06:25", "01-05 06:50"]),
        ("10/25 6 * * *", ["01-05 06:10", "01-05 06:35", "01-06 06:10"]),
        ("0 0 29 feb *", ["02-29 00:00"]),
        # Two restricted days: either is enough, and a step makes a star a restriction.
        ("0 3 13 * 5", ["01-08 03:00", "01-13 03:00", "01-15 03:00"]),
        ("0 3 */10 * 5", ["01-08 03:00", "01-11 03:00", "01-15 03:00"]),
        ("0 3 13 * */6", ["01-09 03:00", "01-10 03:00", "01-13 03:00"]),
        # A star in a list, or with a step of one, is one; then both must match.
        ("0 3 */1 * 5", ["01-08 03:00", "01-15 03:00", "01-22 03:00"]),
        ("0 3 1,* * 5", ["01-08 03:00", "01-15 03:00", "01-22 03:00"]),
        ("0 3 11-13 * *", ["01-11 03:00", "01-12 03:00", "01-13 03:00"]),
    ],
)  # fmt: skip
def test_when_it_comes(text: str, times: list[str]) -> None:
    """From Tuesday, 5 January 2027, on."""
    assert (
        first_times(
            text,
            "2027-01-05T00:00:00" if not text.startswith("*/25") else "2027-01-04T23:00:00",
            len(times),
        )
        == times
    )


def test_hours_that_are_left_out_have_no_times_and_those_that_come_twice_have_them_twice() -> None:
    """Berlin, 2027: the clock goes forward on 28 March at 01:00 UTC, and back on 31 October at
    01:00 UTC."""
    assert first_times("30 2 * * *", "2027-03-27T12:00", 2, BERLIN) == [
        "03-29 00:30",
        "03-30 00:30",
    ]
    assert first_times("30 2 * * *", "2027-10-30T12:00", 3, BERLIN) == [
        "10-31 00:30",
        "10-31 01:30",
        "11-01 01:30",
    ]
    assert first_times("0 3 * * *", "2027-03-27T12:00", 2, BERLIN) == ["03-28 01:00", "03-29 01:00"]


def test_every() -> None:
    assert parse_schedule("@every 12h") == Every(43_200 * NS)
    assert parse_schedule("@every 1h30m0.9s") == Every(5_400 * NS)
    assert parse_schedule("@every 10ms") == Every(NS)
    times = Times(Every(100 * NS), UTC, 7 * NS)
    assert times.latest_wall_ns(7 * NS, 106 * NS, None) is None
    assert times.latest_wall_ns(7 * NS, 320 * NS, None) == 307 * NS
    assert times.next_wall_ns(7 * NS, 320 * NS) == 407 * NS
    assert times.latest_wall_ns(7 * NS, 320 * NS, 5) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "3 * *", "0 3 * * 7", "0 3 * * 5-7", "0 25 * * 0", "0 0 3 * * 0", "0 3 L * *", "0 3 * * 5#2", "0 3 * * 5L"),
        *("never", "@reboot", "@Daily", "@every", "@every 1d", "@every 12", "@every soon", "TZ=UTC 0 3 * * *"),
        *("0 3 */0 * *", "0 3 5-1 * *", "0 3 1-2-3 * *", "0 3 1/2/3 * *", "0 3 0 * *", "0 3 * 13 *", "0 3 -1 * *", "0 3 , * *"),
        *("0 3 * foo *", "60 3 * * *", "0 3 * * mon-funday", "CRON_TZ=Europe/Berlin 0 12 * * *", " @daily"),
    ],
)  # fmt: skip
def test_what_kubernetes_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="."):
        parse_schedule(text)


FIELD = st.sampled_from(
    ["*", "?", "*/2", "*/7", "1", "1-3", "2,4", "1-5/2", "3/2", "x", "", "jan", "sun", "70", "*/0"]
)


@given(st.one_of(st.text(), st.lists(FIELD, min_size=4, max_size=6).map(" ".join)))
def test_any_text_is_read_or_refused(text: str) -> None:
    """And what is read has times in order, at the given minutes and hours."""
    try:
        schedule = parse_schedule(text)
    except ValueError:
        return
    if isinstance(schedule, Calendar):
        times = list(islice(calendar_times_ns(schedule, UTC, 0), 5))
        assert times == sorted(set(times))
        for each in times:
            moment = datetime.fromtimestamp(each // NS, tz=UTC)
            assert moment.minute in schedule.minutes and moment.hour in schedule.hours
            assert schedule.comes_on(moment.date())


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("0 3 * * *", 24),
        ("0 3,4 * * *", 1),
        ("*/20 * * * *", 1 / 3),
        ("0 3 * * 1-5", 24),
        ("0 3 * * 0", 7 * 24),
        ("0 3 1,2 * *", 24),
        ("@every 36h", 36),
    ],
)
def test_the_shortest_time_between_two_runs(text: str, hours: float) -> None:
    """A day of 23 hours is a day."""
    assert shortest_gap_s(parse_schedule(text), BERLIN) == pytest.approx(hours * 3_600)
