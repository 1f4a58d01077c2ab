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
from collections.abc import Callable, Sequence
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
# Words next to a time that mean nothing.
_NO_HALF = {"", "h", "ч", "г", "uhr", "kl", "klo", "s", "min", "godz"}  # noqa: RUF001
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, start=1)}
# Characters between numbers that mean nothing: marks of direction, and a byte order mark.
_UNSEEN = dict.fromkeys(map(ord, "\u200e\u200f\u202a\u202b\u202c\u061c\ufeff"))
# Thailand counts years from the death of the Buddha.
_BUDDHIST = range(2513, 2743)
# 1440 and after: Saudi Arabia counts them from the Hijra, and writes two digits.
_HIJRI_IN_SHORT = range(40, 70)
_FIRST_YEAR, _LAST_YEAR = 1900, 2299
_MONTHS_OF_A_YEAR = 12
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
    if character.isdigit() and not character.isascii():
        return str(unicodedata.digit(character))
    return character


def iso_ns(text: str, zone: tzinfo) -> int | None:
    """2026-11-24T21:03:12.345678900Z in ns since 1970; None when the text has another form. Raises
    ValueError when the time is impossible. `zone`: of a text that has none."""
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
        raise ValueError(f"{text!r} is not a time")
    return found


def knows_its_zone(text: str) -> bool:
    """Whether the text has its zone."""
    match = _ISO.match(text.strip())
    return match is not None and bool(match[4])


def offset_s_of(text: str) -> int | None:
    """How far ahead of UTC the zone in the text is; None where it has none, or is UTC itself, which
    says nothing of where it was written."""
    match = _ISO.match(text.strip())
    if match is None or not match[4] or match[4][0] not in "+-":
        return None
    offset = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4]}").utcoffset()
    return int(offset.total_seconds()) if offset else None


def local_of(text: str) -> LocalTime:
    """The local time in `text`. Raises ValueError when there is none."""
    cleaned = plain(text)
    date = _DATE.search(cleaned)
    if date is None:
        raise ValueError(f"{text!r} is not a time of a known form")
    rest = cleaned[: date.start()] + " " + cleaned[date.end() :]
    seconds, part_ns = _time_of(rest, text)
    year, one, two, sure = _numbers(date, text)
    return LocalTime(year, one, two, sure, seconds, part_ns, date[2] == ".")


def _numbers(date: re.Match[str], text: str) -> tuple[int, int, int, bool]:
    """The year, the two others, and whether these are month and day for sure."""
    first, middle, last = date[1], date[3], date[4]
    # 24-Nov-2026. Names of months are known in English only.
    if not middle.isdigit():
        month = _MONTHS.get(middle[:3].lower())
        if month is None:
            raise ValueError(f"{text!r} has an unknown month")
        year, day = (first, last) if len(first) == 4 else (last, first)
        return _year(year), month, int(day), True
    # Where the year is first the month is second, in every country.
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
        raise ValueError(f"year {text} is not of a known calendar")
    return year


def _time_of(rest: str, text: str) -> tuple[int, int]:
    """Seconds since midnight, and the nanoseconds beyond. Raises ValueError."""
    time = _TIME.search(rest)
    if time is None:
        raise ValueError(f"{text!r} has no time of day")
    hour, minute, second = int(time["hour"]), int(time["minute"]), int(time["second"] or 0)
    # What is left besides date and time is the word for the half of the day, before it or behind.
    around = rest[: time.start()] + rest[time.end() :]
    word = re.sub(r"[\s.,:']", "", around).lower()
    if word not in _NO_HALF:
        hour = _hour_of_day(hour, word, text)
    if not _is_possible(hour, minute, second):
        raise ValueError(f"{text!r} has an impossible time of day")
    fraction_ns = int((time["part"] or "0").ljust(9, "0"))
    return hour * 3_600 + minute * 60 + second, fraction_ns


def _is_possible(hour: int, minute: int, second: int) -> bool:
    return hour <= 23 and minute <= 59 and second <= 59


def _hour_of_day(hour: int, half: str, text: str) -> int:
    """The hour of 24 that `hour` with a word for one half of the day means. Raises ValueError."""
    if half not in _PM and half not in _AM:
        raise ValueError(f"{text!r} has an unknown word: {half!r}")
    # Some write 0:30 am for half past midnight, and 21:03 with the word for the afternoon.
    most = 12 if half in _AM else 23
    if hour > most:
        raise ValueError(f"{text!r} has an impossible hour")
    return hour % 12 + (0 if half in _AM else 12)


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
    """Whether days or months come first; None when nothing decides. `rows` in the order of the
    file; `known`: local times whose true moment (ns) is known too."""
    # From the surest to the least sure: the numbers of one row, a moment known from elsewhere, the
    # order of the rows.
    decided = _order_by_numbers([row for row in rows if not row.sure])
    if decided is None:
        decided = _only_order(lambda order: _fits_known(known, order))
    if decided is None:
        decided = _only_order(lambda order: _in_order(rows, order))
    return decided


def _only_order(fits: Callable[[DateOrder], bool]) -> DateOrder | None:
    """The order that fits, if only one does."""
    fitting = [order for order in _ORDERS if fits(order)]
    return fitting[0] if len(fitting) == 1 else None


def _order_by_numbers(rows: Sequence[LocalTime]) -> DateOrder | None:
    """What the numbers of one row alone decide."""
    # Either is right where no row depends on it: there are none, or all are like 11/11.
    if all(row.first == row.second for row in rows):
        return "month-first"
    if max(row.first for row in rows) > _MONTHS_OF_A_YEAR:
        return "day-first"
    if max(row.second for row in rows) > _MONTHS_OF_A_YEAR:
        return "month-first"
    # Dots are only written where the day comes first.
    if any(row.dotted for row in rows):
        return "day-first"
    return None


def _fits_known(known: Sequence[tuple[LocalTime, int]], order: DateOrder) -> bool:
    return bool(known) and all(_near(local, true_ns, order) for local, true_ns in known)


def _near(local: LocalTime, true_ns: int, order: DateOrder) -> bool:
    """Whether `local` may be `true_ns` in some zone: none is farther from UTC than 14 hours. A day
    is added for events that were logged late."""
    try:
        return abs(moment_ns(local, LocalTimeRules(UTC, order)) - true_ns) < 38 * 3_600 * NS_PER_S
    except ValueError:
        return False


def _in_order(rows: Sequence[LocalTime], order: DateOrder) -> bool:
    """Whether the rows are oldest first or newest first, but for the hour that the end of summer
    time repeats."""
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
