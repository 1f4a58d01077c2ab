"""Durations: written as people write them (`24h`, `1h30m`, `-13h`, `250ms`), kept as integer
nanoseconds.

Integers, because a week of simulated time added up in floats is off by more than a certificate's
half-life is allowed to be off; nanoseconds, because that is what the clocks of a node count.
"""

from __future__ import annotations

import re

from meshwake.core.errors import BadInput

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000

_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
    "d": 86_400 * NS_PER_S,
    "w": 604_800 * NS_PER_S,
}
_PART = re.compile(r"(\d+)(?:\.(\d+))?(ns|us|ms|s|m|h|d|w)")
EXPECTED = "a duration such as '24h', '1h30m' or '250ms' (units w, d, h, m, s, ms, us, ns)"


def parse_duration_ns(text: str) -> int:
    """`text` in nanoseconds; a leading minus makes it negative. Raises ValueError that says what
    was expected."""
    rest = text.removeprefix("-")
    total_ns, position = 0, 0

    # Part by part from the left: a blank ('1h 30m'), an unknown unit or a number without one ends
    # the loop before the text ends.
    while match := _PART.match(rest, position):
        whole, fraction, unit = match.groups()
        total_ns += int(whole) * _UNIT_NS[unit]
        total_ns += _fraction_ns(fraction, unit, text)
        position = match.end()
    if position == 0 or position != len(rest):
        raise ValueError(f"expected {EXPECTED}")

    return -total_ns if text.startswith("-") else total_ns


def parse_go_duration_ns(text: str) -> int:
    """`text` as Go's time.ParseDuration reads it, in whole nanoseconds: hours are its longest unit,
    and a number without a unit is none but 0. Raises ValueError."""
    # Go takes two signs for micro, U+00B5 and the Greek letter U+03BC (unitMap in time/format.go).
    match = re.fullmatch(r"([-+]?)((?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+|0)", text)
    if match is None or len(text) > 60:
        raise ValueError(
            f"{text!r} is not a duration of Go; allowed are h, m, s, ms, us, ns: '12h', "
            "'1h30m', '0.5s'"
        )

    sign, unsigned = match.groups()
    parts = re.findall(r"(\d*)\.?(\d*)(ns|us|µs|μs|ms|s|m|h)", unsigned)
    units = {**_UNIT_NS, "µs": 1_000, "μs": 1_000}
    total_ns = 0
    for whole, part, unit in parts:
        # Digits before and after the point as one integer, divided last: a float would lose
        # nanoseconds. The 0 is for '.5s', which has none before its point.
        digits = int(f"0{whole}{part}")
        total_ns += digits * units[unit] // int(10 ** len(part))
    return -total_ns if sign == "-" else total_ns


def parse_option_ns(text: str, option: str) -> int:
    """The value of `option`, or of a key, in nanoseconds. Raises BadInput that names it."""
    try:
        return parse_duration_ns(text)
    except ValueError as error:
        # The sentence of core/refusal.py, which is not imported here: this module is in the image
        # of the node helper, where nothing is that it does not need.
        raise BadInput(f"invalid value {text!r} for {option}: {error}") from error


def parse_positive_ns(text: str, option: str) -> int:
    """The same for a length, which must be more than 0. Raises BadInput."""
    length_ns = parse_option_ns(text, option)
    if length_ns <= 0:
        raise BadInput(f"invalid value {text!r} for {option}: expected more than 0")
    return length_ns


def _fraction_ns(digits: str | None, unit: str, text: str) -> int:
    if digits is None:
        return 0
    numerator = int(digits) * _UNIT_NS[unit]

    # 0.5ns cannot be kept, and is refused instead of rounded.
    if numerator % 10 ** len(digits):
        raise ValueError(f"expected whole nanoseconds, not {text!r}")
    return numerator // int(10 ** len(digits))


def format_duration(duration_ns: int) -> str:
    """The shortest text that `parse_duration_ns` reads back as the same number."""
    sign = "-" if duration_ns < 0 else ""
    rest_ns = abs(duration_ns)
    parts = []

    # Without weeks, which are read and not written: 10d, not 1w3d.
    for unit in ("d", "h", "m", "s", "ms", "us", "ns"):
        count, rest_ns = divmod(rest_ns, _UNIT_NS[unit])
        if count:
            parts.append(f"{count}{unit}")

    # Nothing at all has no unit left to write.
    if not parts:
        return "0s"
    return sign + "".join(parts)


def seconds(duration_ns: int) -> float:
    """Nanoseconds as seconds, rounded to the millisecond: the precision that reports and JSON
    promise."""
    return round(duration_ns / NS_PER_S, 3)
