"""Times in the words of a person: `3 h 59 m` for how long, `day 2 23:59` for when. Day 0 is the
first."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from meshwake.core.dates import Dates
from meshwake.core.durations import NS_PER_S

_UNITS = (("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400))
# Days have no larger unit.
_IN_NEXT_UNIT = {"m": 60, "h": 24}


def lasting(duration_ns: int) -> str:
    """How long, in the two largest units, rounded: '11 m 4 s', '3 h 59 m', '2 d 3 h', '0.4 s', '-13
    h'."""
    sign = "-" if duration_ns < 0 else ""
    rest_s = abs(duration_ns) / NS_PER_S
    # Rounded before it is compared, so that 59.96 s is not "60 s" but "1 m".
    if round(rest_s, 1) < 60:
        return f"{sign}{round(rest_s, 1):g} s"
    for (small, small_s), (large, large_s) in pairwise(_UNITS):
        # Rounded to the smaller unit first: 3 h 59 m 59 s is "4 h", not "3 h 60 m".
        many, few = divmod(round(rest_s / small_s), large_s // small_s)
        if many >= _IN_NEXT_UNIT.get(large, math.inf):
            continue
        words = f"{sign}{many} {large}"
        if few:
            words += f" {few} {small}"
        return words
    raise AssertionError("days have no larger unit")


def moment(world_ns: int) -> str:
    """When, in world time, to the minute: 'day 2 07:59'."""
    return moment_exactly(world_ns)[:-3]  # cut, not rounded: 07:59:59 is still 07:59


def moment_exactly(world_ns: int) -> str:
    """When, in world time, to the second: 'day 2 07:59:02'."""
    minutes, second = divmod(world_ns // NS_PER_S, 60)
    hours, minute = divmod(minutes, 60)
    day, hour = divmod(hours, 24)
    return f"day {day} {hour:02}:{minute:02}:{second:02}"


# What `moment` and `moment_exactly` write.
_MOMENT = re.compile(r"\bday (\d+)(?: at)? (\d\d):(\d\d)(:\d\d)?")


def dated(text: str, dates: Dates | None) -> str:
    """`text` with its moments as dates: 'Tue 2026-11-24 15:57' for 'day 2 07:58'. The text as it is
    for None."""
    if dates is None:
        return text

    def date(found: re.Match[str]) -> str:
        day, hour, minute = (int(found[group]) for group in (1, 2, 3))
        world_s = day * 86_400 + hour * 3_600 + minute * 60
        if found[4]:
            return dates.to_the_second(world_s + int(found[4][1:]))
        return dates.to_the_minute(world_s)

    return _MOMENT.sub(date, text)


def count(number: int, what: str) -> str:
    """How many: '1 request', '20 requests'."""
    if number == 1:
        return f"1 {what}"
    return f"{number} {what}s"
