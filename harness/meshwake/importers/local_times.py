"""Times as Windows writes them around the world: 11/24/2026 9:03:12 PM, 24-11-2026 21.03.12, 2026.
11. 24. 21:03:12.

Three numbers are the date, two or three after them the time; words say which half of the day it is.
Whether the day or the month comes first follows from all rows of a file together: a number above 12
is a day, rows are in order by one of the two only, and a time whose zone is known tells it too.
Where nothing decides, a person must.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Literal, NamedTuple

from meshwake.core.durations import NS_PER_S
from meshwake.importers.items import checked_ns

DateOrder = Literal["day-first", "month-first"]
# Local times repeat an hour when summer ends, and whole rows may be that much out of order.
SUMMER_NS = 2 * 3_600 * NS_PER_S

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s*(Z|UTC|[+-]\d\d:?\d\d)?$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(\d{1,4})\s*([./-])\s*(\d{1,2}|[^\W\d]{3,})\s*\2\s*(\d{1,4})\b\.?(?:\s*[гр]\.)?"  # noqa: RUF001
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
# Words that stand beside a time and mean nothing.
_NO_HALF = {"", "h", "ч", "г", "uhr", "kl", "klo", "s", "min", "godz"}  # noqa: RUF001
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
# What is written between numbers and means nothing: directions, and spaces of all kinds.
_UNSEEN = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u061c\ufeff"))
# Thailand counts years from the death of the Buddha.
_BUDDHIST = range(2513, 2743)
# 1440 and after: Saudi Arabia counts them from the Hijra, and writes two digits.
_HIJRI_IN_SHORT = range(40, 70)
_FIRST_YEAR, _LAST_YEAR = 1900, 2299


class LocalTime(NamedTuple):
    """What a text says without saying which of the first two numbers is the day. `first`, `second`:
    None when the year came first or the month was a name; then `day` and `month` are sure."""

    year: int
    first: int
    second: int
    sure: bool
    seconds: int
    part_ns: int
    dotted: bool


@dataclass(frozen=True)
class LocalTimeRules:
    """How local times of one file are read."""

    zone: tzinfo
    order: DateOrder


@lru_cache(maxsize=4096)
def plain(text: str) -> str:
    """The text with ASCII digits and spaces."""
    text = unicodedata.normalize("NFKC", text.translate(_UNSEEN))
    return "".join(
        str(unicodedata.digit(each))
        if each.isdigit() and not each.isascii()
        else " "
        if each.isspace()
        else each
        for each in text
    ).strip()


def iso_ns(text: str, zone: tzinfo) -> int | None:
    """2026-11-24T21:03:12.345678900Z in ns; None when it is no such time. Raises ValueError when it
    is impossible."""
    match = _ISO.match(text.strip())
    if match is None:
        return None
    day, clock, fraction, offset = match.groups()
    offset = "+00:00" if offset and offset.upper() in ("Z", "UTC") else offset or ""
    moment = datetime.fromisoformat(f"{day}T{clock}{offset}")
    return checked_ns(_stamp_s(moment, zone) * NS_PER_S + int((fraction or "0").ljust(9, "0")))


def utc_ns(text: str) -> int:
    """A time of XML, which is UTC unless it says otherwise. Raises ValueError."""
    found = iso_ns(text, UTC)
    if found is None:
        raise ValueError(f"{text!r} is no time")
    return found


def knows_its_zone(text: str) -> bool:
    """Whether the text says it."""
    match = _ISO.match(text.strip())
    return match is not None and bool(match[4])


def local_of(text: str) -> LocalTime:
    """What a local time says. Raises ValueError when it cannot be one."""
    cleaned = plain(text)
    date = _DATE.search(cleaned)
    if date is None:
        raise ValueError(f"{text!r} is no time that is known")
    rest = cleaned[: date.start()] + " " + cleaned[date.end() :]
    seconds, part_ns = _time_of(rest, text)
    year, one, two, sure = _numbers(date, text)
    return LocalTime(year, one, two, sure, seconds, part_ns, date[2] == ".")


def _numbers(date: re.Match[str], text: str) -> tuple[int, int, int, bool]:
    """The year, the two others, and whether these are month and day for sure."""
    first, middle, last = date[1], date[3], date[4]
    if not middle.isdigit():
        month = _MONTHS.get(middle[:3].lower())
        if month is None:
            raise ValueError(f"{text!r} has a month that is not known")
        return (
            _year(first if len(first) == 4 else last),
            month,
            int(last if len(first) == 4 else first),
            True,
        )
    if len(first) > 2:
        return _year(first), int(middle), int(last), True
    return _year(last), int(first), int(middle), False


def _year(text: str) -> int:
    year = int(text)
    if len(text) <= 2:
        year = year if year in _HIJRI_IN_SHORT else year + 2000
    elif year in _BUDDHIST:
        year -= 543
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        raise ValueError(f"year {text} is of another calendar, or none")
    return year


def _time_of(rest: str, text: str) -> tuple[int, int]:
    """Seconds since midnight, and what is left of them. Raises ValueError."""
    time = _TIME.search(rest)
    if time is None:
        raise ValueError(f"{text!r} has no time of day")
    hour, minute, second = int(time["hour"]), int(time["minute"]), int(time["second"] or 0)
    words = re.sub(r"[\s.,:']", "", rest[: time.start()] + rest[time.end() :]).lower()
    if words not in _NO_HALF:
        if words not in _AM and words not in _PM:
            raise ValueError(f"{text!r} has a word that is not known: {words!r}")
        if not 1 <= hour <= 12 and not (hour == 0 or (13 <= hour <= 23 and words in _PM)):
            raise ValueError(f"{text!r} has an impossible hour")
        hour = hour % 12 + (12 if words in _PM else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"{text!r} has an impossible time of day")
    return hour * 3_600 + minute * 60 + second, int((time["part"] or "0").ljust(9, "0"))


def moment_ns(local: LocalTime, reading: LocalTimeRules, fold: int = 0) -> int:
    """When it was. Raises ValueError for a day that no month has."""
    month, day = local.first, local.second
    if not local.sure and reading.order == "day-first":
        month, day = day, month
    # By the clock on the wall: hours are added before anything is known of the zone.
    midnight = datetime(local.year, month, day, tzinfo=UTC)
    moment = (midnight + timedelta(seconds=local.seconds)).replace(tzinfo=reading.zone, fold=fold)
    return checked_ns(_stamp_s(moment, reading.zone) * NS_PER_S + local.part_ns)


def _stamp_s(moment: datetime, zone: tzinfo) -> int:
    moment = moment if moment.tzinfo else moment.replace(tzinfo=zone)
    try:
        return int(moment.timestamp())
    except OverflowError as error:
        raise ValueError("is an impossible time") from error


def order_of(
    rows: Sequence[LocalTime], known: Sequence[tuple[LocalTime, int]] = ()
) -> DateOrder | None:
    """Whether days or months come first; None when nothing tells. `rows` in the order of the file;
    `known`: local times of which the true moment stands beside them."""
    open_rows = [row for row in rows if not row.sure]
    if any(row.first > 12 for row in open_rows):
        return "day-first"
    if any(row.second > 12 for row in open_rows):
        return "month-first"
    if any(row.dotted for row in open_rows):
        return "day-first"
    if all(row.first == row.second for row in open_rows):
        return "month-first"  # as good as the other; so it is where no row is open
    orders: tuple[DateOrder, DateOrder] = ("day-first", "month-first")
    for fits in (
        [
            order
            for order in orders
            if known and all(_near(local, true_ns, order) for local, true_ns in known)
        ],
        [order for order in orders if _in_order(rows, order)],
    ):
        if len(fits) == 1:
            return fits[0]
    return None


def _near(local: LocalTime, true_ns: int, order: DateOrder) -> bool:
    """No zone is farther from UTC than 14 hours; a day is left for what is told late."""
    try:
        return abs(moment_ns(local, LocalTimeRules(UTC, order)) - true_ns) < 38 * 3_600 * NS_PER_S
    except ValueError:
        return False


def _in_order(rows: Sequence[LocalTime], order: DateOrder) -> bool:
    """Oldest or newest first, but for an hour that a summer's end repeats."""
    moments = []
    for row in rows:
        try:
            moments.append(moment_ns(row, LocalTimeRules(UTC, order)))
        except ValueError:
            return False
    rises = falls = True
    highest = lowest = moments[0]
    for moment in moments[1:]:
        rises = rises and moment >= highest - SUMMER_NS
        falls = falls and moment <= lowest + SUMMER_NS
        highest, lowest = max(highest, moment), min(lowest, moment)
    return rises or falls
