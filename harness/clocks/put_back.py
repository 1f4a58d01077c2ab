"""How the engine's wall clock is put back: by what really elapsed, at most once, whoever comes first.

Before anything is changed an intent is written down: what the clocks were (the anchor), and every base (wall - monotonic)
that will be set from then on. The clock belongs where the anchor's base puts it. That does not depend on how many steps
were carried out before a crash, and doing it twice does what doing it once does.

Whoever touches the clock of one engine holds the lock beside its intent: the harness for its whole run, then its watchdog
or `restore_leftovers`. Who gets the lock and finds no intent has nothing to do.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.clocks.inside import Inside, Measured, NoAnswer, Way, measure, set_base
from harness.clocks.reading import ClockReading
from harness.clocks.timesync import TimeSync, let_go
from harness.durations import NS_PER_MS, NS_PER_S, seconds
from harness.errors import SubjectFailed

# Setting takes two short-lived programs inside the node; what is nearer than this needs no setting.
RIGHT_WITHIN_NS = 250 * NS_PER_MS
# An intended base is recognised again within this, whatever NTP has slewed meanwhile (500 ppm of an hour).
RECOGNISED_WITHIN_NS = 2 * NS_PER_S
# /proc/uptime counts hundredths of a second; a machine that sleeps does so for longer than this.
_SLEPT_AT_LEAST_NS = NS_PER_S
_SETS_MAX = 3
_PAUSE_S = 2.0


class Intent(BaseModel):
    """What will be done to an engine's clock, written before it is done. Clocks in ns; see the module."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int = 1
    boot_id: str
    wall_ns: int
    monotonic_ns: int
    boottime_ns: int
    ahead_of_ours_ns: int | None  # the engine's wall clock before this machine's own; None: they are one clock
    bases_ns: tuple[int, ...] = ()
    held: tuple[TimeSync, ...] = ()
    node: str
    ways: tuple[tuple[str, ...], ...]
    host_way: tuple[str, ...] | None
    environment: dict[str, str] = {}

    @property
    def base_ns(self) -> int:
        """Where the wall clock belongs beside the monotonic one, if the machine does not sleep."""
        return self.wall_ns - self.monotonic_ns

    def inside(self) -> Inside:
        """The first way into the machine that answers."""
        return AnyWay(tuple(Way(way, self.environment) for way in self.ways))


@dataclass(frozen=True)
class AnyWay(Inside):
    """Several ways into one machine; tried in order, because a node may be gone when its clock is put back."""

    ways: tuple[Inside, ...]

    def run(self, node: str, argv: object, within_s: float) -> object:
        raise NotImplementedError


@dataclass(frozen=True)
class Decision:
    """Whether the wall clock is to be set (`base_ns`) or left alone (None), and why."""

    base_ns: int | None
    why: str
