"""What a timer did, in words."""

from __future__ import annotations

from typing import Any

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.labs.machine.timers import (
    FAULTS,
    WAIT_S,
    Found,
    GuestProgram,
    describe_end,
    timers_page,
)


def message(ended_monotonic_s: float | None) -> dict[str, Any]:
    """A wait that began at 100 s, a fault from 160 s to 161 s."""

    def reading(monotonic_s: float) -> list[int]:
        return [0, int(monotonic_s * NS_PER_S), 0]

    ended = None if ended_monotonic_s is None else reading(ended_monotonic_s)
    return {"armed": reading(100), "before": reading(160), "after": reading(161), "ended": ended}


@pytest.mark.parametrize(
    ("ended_monotonic_s", "words"),
    [
        (161.3, "at once after it"),
        (100 + WAIT_S + 0.2, f"after {WAIT_S} s awake"),
        (4000, "after 3900 s awake"),
        (130, "before the fault, after 30 s"),
        (None, "did not end"),
    ],
)
def test_when_a_timer_ended(ended_monotonic_s: float | None, words: str) -> None:
    """Counted in time awake."""
    assert describe_end(message(ended_monotonic_s)) == words


def test_a_program_that_did_not_start() -> None:
    """A timer that did not start is not one that did not end."""
    assert describe_end(message(None) | {"armed": None}) == "did not start"


def test_the_page_has_a_row_for_each_program_and_says_what_is_missing() -> None:
    """Also one that reported nothing."""
    found = Found(
        {"sleep": GuestProgram(["sleep"]), "other": GuestProgram(["other"])},
        ["Java: javac is not on PATH"],
    )
    text = timers_page(found, {("sleep", fault): "at once after it" for fault in FAULTS}, "6.1.0-1")
    assert f"| sleep |{' at once after it |' * len(FAULTS)}" in text
    assert f"| other |{' not measured |' * len(FAULTS)}" in text
    assert "* Java: javac is not on PATH" in text
