from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.core.durations import NS_PER_S, format_duration, parse_duration_ns, seconds


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [
        ("24h", 86_400 * NS_PER_S),
        ("1h30m", 5_400 * NS_PER_S),
        ("-13h", -46_800 * NS_PER_S),
        ("250ms", NS_PER_S // 4),
        ("1.5s", 3 * NS_PER_S // 2),
        ("2w", 1_209_600 * NS_PER_S),
        ("0s", 0),
    ],
)
def test_reads_what_people_write(text: str, duration_ns: int) -> None:
    """Each way of writing a duration means the nanoseconds one expects."""
    assert parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize(
    "text", ["", "8", "8 h", "h", "8 hours", "1h-2m", "--1h", "1.2345678912s", "8H"]
)
def test_refuses_what_could_be_misread(text: str) -> None:
    """No unit, a blank, an unknown unit or more digits than nanoseconds: refused, and what is
    allowed is reported."""
    with pytest.raises(ValueError, match="^expected "):
        parse_duration_ns(text)


@given(st.integers(min_value=-(10**18), max_value=10**18))
def test_what_is_written_is_read_back(duration_ns: int) -> None:
    """`format_duration` and `parse_duration_ns` are inverse, to the nanosecond."""
    assert parse_duration_ns(format_duration(duration_ns)) == duration_ns


@pytest.mark.slow(reason="hundreds of drawn examples")
@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but ValueError ever comes out."""
    try:
        parse_duration_ns(text)
    except ValueError:
        return


def test_seconds_are_rounded_to_the_millisecond() -> None:
    """Reports promise milliseconds, no more."""
    assert seconds(1_234_567_890) == 1.235
