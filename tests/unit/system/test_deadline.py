"""Bounded waits, on a clock that only the test moves."""

from __future__ import annotations

import pytest
from meshwake.core.errors import HarnessFault
from meshwake.system.deadline import Deadline, DeadlinePassed, wait_until


class Clock:
    """Moves during a sleep."""

    def __init__(self) -> None:
        self.now_s, self.slept_s = 100.0, list[float]()

    def sleep(self, lasts_s: float) -> None:
        self.slept_s.append(lasts_s)
        self.now_s += lasts_s

    def deadline(self, within_s: float) -> Deadline:
        return Deadline("a port", within_s, now_s=lambda: self.now_s, sleep=self.sleep)


def test_a_wait_ends_at_its_bound_with_what_was_last_seen() -> None:
    """The last pause is as long as what is left, so that the bound is met and not overshot."""
    clock = Clock()
    deadline = clock.deadline(1.0)
    for _ in range(3):
        deadline.pause(0.4, seen="closed")
    with pytest.raises(DeadlinePassed, match=r"^waited 1 s for a port; last seen: closed$"):
        deadline.pause(0.4, seen="closed")
    assert clock.slept_s == pytest.approx([0.4, 0.4, 0.2])
    assert deadline.has_passed and deadline.remaining_s == 0.0


def test_what_is_left_is_a_timeout_for_other_calls() -> None:
    """It shrinks, and is never negative."""
    clock = Clock()
    deadline = clock.deadline(2.0)
    clock.sleep(0.5)
    assert deadline.remaining_s == pytest.approx(1.5)
    clock.sleep(5)
    assert deadline.remaining_s == 0.0


def test_the_error_says_who_must_act() -> None:
    """The caller names its class; without `seen` the sentence ends earlier."""
    deadline = Deadline("a port", 0.0, HarnessFault)
    with pytest.raises(HarnessFault, match=r"^waited 0 s for a port$"):
        deadline.check()


def test_what_is_already_so_is_not_waited_for() -> None:
    """Even with no time at all."""
    wait_until(lambda: True, "nothing", 0.0)
    with pytest.raises(DeadlinePassed, match="for a miracle"):
        wait_until(lambda: False, "a miracle", 0.0)
