"""Dates in a time zone: at every moment what the clock on the wall showed, over changes of its
offset too."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from meshwake.core.dates import Dates
from meshwake.core.zones import (
    OFFSET_S_MAX,
    UTC_ZONE,
    OffsetChange,
    Zone,
    offset_text,
    zone_of,
    zone_of_offsets,
)

# Whole and half hours of summer time, both halves of the globe, weeks between two changes, quarters
# of an hour, and a day that never was (Samoa crossed the date line in 2011).
NAMES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "America/St_Johns",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "UTC",
)
BERLIN = zone_of("Europe/Berlin")
# Summer time ends: 02:00 to 03:00 comes twice.
AUTUMN_S = int(datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp())
SPRING_S = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp())
MONTH_S = 31 * 86_400

names = st.sampled_from(NAMES)
moments = st.integers(
    int(datetime(2005, 1, 1, tzinfo=UTC).timestamp()),
    int(datetime(2037, 1, 1, tzinfo=UTC).timestamp()),
)
offsets = st.integers(-OFFSET_S_MAX // 60, OFFSET_S_MAX // 60).map(lambda minutes: minutes * 60)


@st.composite
def changing(draw: st.DrawFn) -> Zone:
    """The local time of a journal: summer time, or a traveller's."""
    at_s = sorted(draw(st.sets(moments, max_size=4)))
    found = [OffsetChange(0, draw(offsets)), *(OffsetChange(each, draw(offsets)) for each in at_s)]
    return zone_of_offsets(found) or UTC_ZONE


zones = st.one_of(names.map(zone_of), changing())


def near_a_change(zone: Zone, moment_s: int) -> int:
    """The change of its offset that comes next within a year, or the moment itself."""
    changes = zone.changes(moment_s, moment_s + 366 * 86_400)
    return changes[1].from_wall_s if len(changes) > 1 else moment_s


def read_back(text: str, zone: Zone) -> set[int]:
    """The moments that a date of `to_the_second` can mean."""
    words = text.split()
    local = datetime.fromisoformat(f"{words[1]}T{words[2]}+00:00")
    assert f"{local:%a}" == words[0]
    local_s = int(local.timestamp())
    around = zone.changes(local_s - 2 * 86_400, local_s + 2 * 86_400)
    meant = {local_s - each.offset_s for each in around}
    found = {each for each in meant if each + zone.offset_s(each) == local_s}
    if len(words) == 4:
        return {each for each in found if offset_text(zone.offset_s(each)) == words[3]}
    return found


@given(zones, moments, st.integers(-7_300, 7_300))
@example(BERLIN, AUTUMN_S, -1)
@example(BERLIN, AUTUMN_S, 0)
@example(BERLIN, AUTUMN_S, 3_599)
@example(BERLIN, AUTUMN_S, 3_600)
@example(BERLIN, SPRING_S, 0)
def test_a_date_means_one_moment(zone: Zone, moment_s: int, near_s: int) -> None:
    """Also in the hour that comes twice, where the offset says which of the two."""
    wall_s = near_a_change(zone, moment_s) + near_s
    shown = Dates(wall_s - 60, zone).to_the_second(60)
    assert read_back(shown, zone) == {wall_s}


@given(names, moments, st.integers(-7_300, 7_300))
def test_a_name_shows_what_python_shows(name: str, moment_s: int, near_s: int) -> None:
    zone = zone_of(name)
    wall_s = near_a_change(zone, moment_s) + near_s
    expected = datetime.fromtimestamp(wall_s, ZoneInfo(name))
    assert zone.local(wall_s) == expected.replace(tzinfo=None, fold=0)
    assert Dates(wall_s, zone).to_the_minute(0).startswith(f"{expected:%a %Y-%m-%d %H:%M}")


@given(zones, moments, st.lists(st.integers(0, MONTH_S), max_size=20))
def test_changes_are_the_offsets_of_every_moment(
    zone: Zone, from_s: int, later_s: list[int]
) -> None:
    """What the script of a report draws with. A journey of less than half a day may hide in it."""
    changes = zone.changes(from_s, from_s + MONTH_S)
    if any(two.from_wall_s - one.from_wall_s < 86_400 for one, two in pairwise(changes)):
        return
    for moment_s in [from_s, from_s + MONTH_S, *(from_s + each for each in later_s)]:
        known = [each.offset_s for each in changes if each.from_wall_s <= moment_s]
        assert known[-1] == zone.offset_s(moment_s)


@given(changing(), moments)
def test_a_zone_is_read_back_from_its_text(zone: Zone, moment_s: int) -> None:
    again = zone_of(zone.text)
    assert again == zone
    assert again.offset_s(moment_s) == zone.offset_s(moment_s)


@given(names, moments, st.integers(7_200, 172_800))
def test_offsets_seen_often_enough_are_the_zone(name: str, from_s: int, every_s: int) -> None:
    """A journal that shows its offset in every line: at each line it is shown as there."""
    zone = zone_of(name)
    lines_s = range(from_s, from_s + MONTH_S, every_s)
    seen = zone_of_offsets(OffsetChange(each, zone.offset_s(each)) for each in lines_s)
    assert seen is not None
    assert all(seen.local(each) == zone.local(each) for each in lines_s)


def test_the_hour_that_comes_twice() -> None:
    """Summer time ends in Berlin: half past two, and half past two again."""
    dates = Dates(AUTUMN_S - 5_400, BERLIN)
    assert [dates.to_the_minute(hours * 3_600) for hours in range(4)] == [
        "Sun 2026-10-25 01:30",
        "Sun 2026-10-25 02:30 +02:00",
        "Sun 2026-10-25 02:30 +01:00",
        "Sun 2026-10-25 03:30",
    ]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Europe/Berlin", "Europe/Berlin"),
        ("+05:45", "UTC+05:45"),
        ("+00:00", "UTC"),
        (
            "-06:00, -07:00 from 2026-11-01T08:00:00Z",
            "local time (UTC-06:00, UTC-07:00)",
        ),
    ],
)
def test_how_a_zone_is_named(text: str, label: str) -> None:
    assert zone_of(text).label == label


@pytest.mark.parametrize(
    "text",
    [
        *("", "Berlin", "Europe", "/etc/localtime", "\0", "Local", "Factory"),
        *("+1:00", "+15:00", "-00", "+01:60", "-06:00, from 2026-11-01T08:00:00Z"),
        "-06:00, -07:00 from 2026-11-01T08:00:00",
        "-06:00, -07:00 from 2026-13-01T08:00:00Z",
        "-06:00, -07:00 from 2026-11-01T08:00:00Z, -06:00 from 2026-10-01T08:00:00Z",
    ],
)
def test_what_is_not_a_zone(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        zone_of(text)
