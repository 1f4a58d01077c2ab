"""Times as Windows writes them around the world: 11/24/2026 9:03:12 PM, 24-11-2026 21.03.12, 2026.
11. 24. 21:03:12.

Three numbers are the date, two or three after them the time; a word may say which half of the day
it is. Whether the day or the month comes first follows from all rows of a file together: a number
above 12 is a day, rows are in order under one reading only, and a time whose zone is known decides
too. Where nothing decides, the user has to say (--date-order).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from datetime import time as time_of_day
from functools import lru_cache
from typing import Literal, NamedTuple

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import checked_ns

DateOrder = Literal["day-first", "month-first"]
# Local times repeat an hour when summer ends, and whole rows may be that much out of order.
SUMMER_NS = 2 * 3_600 * NS_PER_S

_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[T ](?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r"\s*(?P<offset>Z|UTC|[+-]\d\d:?\d\d)?$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?P<first>\d{1,4})\s*(?P<separator>[./-])\s*(?P<middle>\d{1,2}|[^\W\d]{3,})"
    r"\s*(?P=separator)\s*(?P<last>\d{1,4})\b\.?(?:\s*[гр]\.)?"  # noqa: RUF001
)
_TIME = re.compile(
    r"(?P<hour>\d{1,2})\s*(?:[:.]|h)\s*(?P<minute>\d{2})(?:\s*(?:[:.]|min)\s*(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?\s*s?)?"
    r"(?:\s*min)?"
)
# The halves of the day, without points, spaces and case, in the languages whose clocks have twelve
# hours (and some that may be set to that).
_AM = {
    *("am", "a", "vm", "fm", "ap", "sa", "de", "md", "dop", "dopoledne", "vorm", "dom", "öö", "nt"),
    *("paradites", "eparadites", "zjutraj", "priešpiet", "priekšpusdienā"),
    *("πμ", "претпл", "пп", "ام", "ص", "قظ", "पूर्वाह्न", "ก่อนเที่ยง"),
    *("오전", "上午", "午前", "凌晨", "早上"),
}
_PM = {
    *("pm", "p", "nm", "em", "ip", "ch", "du", "pd", "odp", "odpoledne", "nachm", "pop", "ös"),
    *("pasdites", "epasdites", "popoldne", "popiet", "pēcpusdienā"),
    *("μμ", "попл", "م", "بظ", "अपराह्न", "หลังเที่ยง"),
    *("오후", "下午", "午後", "晚上", "中午"),
}
# Words next to a time that mean nothing.
_AROUND_A_WORD = re.compile(r"[\s.,:']")
_NO_HALF = {"", "h", "ч", "г", "uhr", "kl", "klo", "s", "min", "godz"}  # noqa: RUF001
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
# Characters between numbers that mean nothing: marks of direction, and a byte order mark.
_UNSEEN = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u061c\ufeff"))
# Thailand counts years from the death of the Buddha.
_BUDDHIST_AHEAD = 543
_BUDDHIST = range(1970 + _BUDDHIST_AHEAD, 2200 + _BUDDHIST_AHEAD)
# 1440 and after: Saudi Arabia counts them from the Hijra, and writes two digits.
_HIJRI_IN_SHORT = range(40, 70)
_YEAR_DIGITS = 4
_FIRST_YEAR, _LAST_YEAR = 1900, 2299
_MONTHS_OF_A_YEAR = 12
# No zone is farther from UTC than 14 hours; a day is added for events that were logged late.
_NEAR_NS = (14 + 24) * 3_600 * NS_PER_S
_ORDERS: tuple[DateOrder, DateOrder] = ("day-first", "month-first")


class LocalTime(NamedTuple):
    """A date and time whose zone is not known, and perhaps not which number is the day. `sure`: the
    year came first or the month was a name, so that `first` is the month and `second` the day;
    `dotted`: the numbers are separated by dots."""

    year: int
    first: int
    second: int
    sure: bool
    seconds: int
    part_ns: int
    dotted: bool


@dataclass(frozen=True)
class LocalTimeRules:
    """How the local times of one file are read: in which zone, and with which order of day and
    month."""

    zone: tzinfo
    order: DateOrder


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """The text with ASCII digits and spaces, without marks of direction."""
    text = unicodedata.normalize("NFKC", text.translate(_UNSEEN))
    return "".join(map(_plain_character, text)).strip()


def _plain_character(character: str) -> str:
    if character.isspace():
        return " "
    # U+0661 ARABIC-INDIC DIGIT ONE is 1: Windows writes times in the digits of its region.
    if character.isdigit() and not character.isascii():
        return str(unicodedata.digit(character))
    return character


def iso_ns(text: str, zone: tzinfo) -> int | None:
    """2026-11-24T21:03:12.345678900Z in ns since 1970; None when the text has another form. Raises
    ValueError when the time is impossible. `zone`: of a text that has none."""
    match = _ISO.match(text.strip())
    if match is None:
        return None

    offset = match["offset"] or ""
    if offset.upper() in ("Z", "UTC"):
        offset = "+00:00"
    moment = datetime.fromisoformat(f"{match['day']}T{match['clock']}{offset}")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)

    # Apart, because datetime keeps microseconds only, and Windows writes seven digits and more.
    whole_ns = _whole_s(moment) * NS_PER_S
    return checked_ns(whole_ns + _fraction_ns(match["fraction"]))


def utc_ns(text: str) -> int:
    """A time of XML, which is UTC unless it says otherwise. Raises ValueError."""
    found = iso_ns(text, UTC)
    if found is None:
        raise ValueError(f"{text!r} is not a time")
    return found


def knows_its_zone(text: str) -> bool:
    """Whether the text has its zone."""
    match = _ISO.match(text.strip())
    return match is not None and match["offset"] is not None


def offset_s_of(text: str) -> int | None:
    """How far ahead of UTC the zone in the text is; None where it has none, or is UTC itself, which
    says nothing of where it was written."""
    match = _ISO.match(text.strip())
    if match is None:
        return None

    written = match["offset"] or ""
    # Z and UTC.
    if not written.startswith(("+", "-")):
        return None

    moment = datetime.fromisoformat(f"{match['day']}T{match['clock']}{written}")
    offset = moment.utcoffset() or timedelta()

    # +00:00 may be UTC as well as a winter in London.
    return int(offset.total_seconds()) or None


def local_of(text: str) -> LocalTime:
    """The local time in `text`. Raises ValueError when there is none."""
    cleaned = plain(text)
    date = _DATE.search(cleaned)
    if date is None:
        raise ValueError(f"{text!r} is not a time of a known form")

    # The time is before the date in some places, behind it in others.
    rest = cleaned[: date.start()] + " " + cleaned[date.end() :]
    seconds, part_ns = _time_of(rest, text)
    year, first, second, sure = _numbers(date, text)
    return LocalTime(
        year=year,
        first=first,
        second=second,
        sure=sure,
        seconds=seconds,
        part_ns=part_ns,
        dotted=date["separator"] == ".",
    )


def _numbers(date: re.Match[str], text: str) -> tuple[int, int, int, bool]:
    """The year, the two others, and whether these are month and day for sure."""
    first, middle, last = date["first"], date["middle"], date["last"]
    # 24-Nov-2026. Names of months are known in English only.
    if not middle.isdigit():
        month = _MONTHS.get(middle[:3].lower())
        if month is None:
            raise ValueError(f"{text!r} has an unknown month")
        # 2026-Nov-24.
        if len(first) == _YEAR_DIGITS:
            return _year(first), month, int(last), True
        return _year(last), month, int(first), True

    # Where the year is first the month is second, in every country.
    if len(first) > 2:
        return _year(first), int(middle), int(last), True
    return _year(last), int(first), int(middle), False


def _year(text: str) -> int:
    """The year of the Gregorian calendar. Raises ValueError."""
    year = int(text)
    if year in _BUDDHIST:
        year -= _BUDDHIST_AHEAD
    # Two digits of this century; those of the Hijra stay what they are, and are refused below.
    elif len(text) <= 2 and year not in _HIJRI_IN_SHORT:
        year += 2000

    # A year of another calendar would date the journal centuries before or after its sleeps.
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        raise ValueError(f"year {text} is not of a known calendar")
    return year


def _time_of(rest: str, text: str) -> tuple[int, int]:
    """Seconds since midnight, and the nanoseconds beyond. Raises ValueError."""
    time = _TIME.search(rest)
    if time is None:
        raise ValueError(f"{text!r} has no time of day")
    hour = int(time["hour"])

    # What is left besides date and time is the word for the half of the day, before it or behind.
    around = rest[: time.start()] + rest[time.end() :]
    word = _AROUND_A_WORD.sub("", around).lower()
    if word not in _NO_HALF:
        hour = _hour_of_day(hour, word, text)

    try:
        clock = time_of_day(hour, int(time["minute"]), int(time["second"] or 0))
    except ValueError as error:
        raise ValueError(f"{text!r} has an impossible time of day") from error

    seconds = clock.hour * 3_600 + clock.minute * 60 + clock.second
    return seconds, _fraction_ns(time["part"])


def _fraction_ns(digits: str | None) -> int:
    """What is behind the point of a second: up to nine digits, or none."""
    return int((digits or "").ljust(9, "0"))


def _hour_of_day(hour: int, half: str, text: str) -> int:
    """The hour of 24 that `hour` with a word for one half of the day means. Raises ValueError."""
    if half in _AM:
        # Some write 0:30 am for half past midnight.
        earliest, most = 0, 12
    elif half in _PM:
        # Some write 21:03 with the word for the afternoon.
        earliest, most = 12, 23
    else:
        raise ValueError(f"{text!r} has an unknown word: {half!r}")

    if hour > most:
        raise ValueError(f"{text!r} has an impossible hour")

    # 12 is the first hour of either half: 12:05 am is five past midnight.
    return earliest + hour % 12


def moment_ns(local: LocalTime, reading: LocalTimeRules, fold: int = 0) -> int:
    """When it was. Raises ValueError for a day that no month has."""
    month, day = local.first, local.second
    if not local.sure and reading.order == "day-first":
        day, month = local.first, local.second

    # By the clock on the wall: hours are added before anything is known of the zone.
    midnight = datetime(local.year, month, day, tzinfo=UTC)
    on_the_wall = midnight + timedelta(seconds=local.seconds)
    moment = on_the_wall.replace(tzinfo=reading.zone, fold=fold)
    return checked_ns(_whole_s(moment) * NS_PER_S + local.part_ns)


def _whole_s(moment: datetime) -> int:
    """Seconds since 1970. Raises ValueError."""
    try:
        return int(moment.timestamp())
    # The year 1 in a zone that is ahead of UTC began in a year that datetime does not have.
    except OverflowError as error:
        raise ValueError("is an impossible time") from error


def order_of(
    rows: Sequence[LocalTime], known: Sequence[tuple[LocalTime, int]] = ()
) -> DateOrder | None:
    """Whether days or months come first; None when nothing decides. `rows` in the order of the
    file; `known`: local times whose true moment (ns) is known too."""
    # From the surest to the least sure: the numbers of one row, a moment known from elsewhere, the
    # order of the rows.
    unsure = [row for row in rows if not row.sure]
    decided = _order_by_numbers(unsure)
    if decided is not None:
        return decided

    # Each order by itself: where both fit, or none does, nothing is decided.
    day_first, month_first = (_fits_known(known, order) for order in _ORDERS)
    if day_first == month_first:
        day_first, month_first = (_in_order(rows, order) for order in _ORDERS)
    if day_first == month_first:
        return None
    return "day-first" if day_first else "month-first"


def _order_by_numbers(rows: Sequence[LocalTime]) -> DateOrder | None:
    """What the numbers of one row alone decide."""
    firsts = [row.first for row in rows]
    seconds = [row.second for row in rows]

    # Either is right where no row depends on it: there are none, or all are like 11/11.
    if firsts == seconds:
        return "month-first"

    # No month has such a number, so it is a day. Where damage makes rows contradict one another,
    # the first number counts.
    if max(firsts) > _MONTHS_OF_A_YEAR:
        return "day-first"
    if max(seconds) > _MONTHS_OF_A_YEAR:
        return "month-first"

    # Dots are only written where the day comes first.
    if any(row.dotted for row in rows):
        return "day-first"
    return None


def _fits_known(known: Sequence[tuple[LocalTime, int]], order: DateOrder) -> bool:
    """Whether each local time may be its true moment in some zone."""
    # The zone of the rows does not matter here: `_NEAR_NS` allows for every zone.
    reading = LocalTimeRules(UTC, order)
    for local, true_ns in known:
        try:
            by_row_ns = moment_ns(local, reading)
        # No month has such a day, in this order.
        except ValueError:
            return False

        off_ns = abs(by_row_ns - true_ns)
        if off_ns >= _NEAR_NS:
            return False
    return True


def _in_order(rows: Sequence[LocalTime], order: DateOrder) -> bool:
    """Whether the rows are oldest first or newest first, but for the hour that the end of summer
    time repeats."""
    reading = LocalTimeRules(UTC, order)
    try:
        moments = [moment_ns(row, reading) for row in rows]
    # No month has such a day.
    except ValueError:
        return False

    # Event Viewer writes the newest first, Get-WinEvent too; a file may have been sorted since.
    rises = True
    falls = True

    # Against the latest and the earliest so far: many small steps back are not in order.
    latest_ns = earliest_ns = moments[0]
    for moment in moments:
        if moment < latest_ns - SUMMER_NS:
            rises = False
        if moment > earliest_ns + SUMMER_NS:
            falls = False
        latest_ns = max(latest_ns, moment)
        earliest_ns = min(earliest_ns, moment)
    return rises or falls
