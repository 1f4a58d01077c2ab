"""The shapes of a helper's results (protocol.py), and of what it keeps in its file (state.py).

They are written once and read by both sides: the helper that builds them, and the movers and
commands that receive them as JSON. Offsets and clocks are `ClockReading._asdict()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    # rules.py reads processes, whose descriptions have their shape here.
    from meshwake.clocks.movers.node_helper.rules import Rule
    from meshwake.core.clock_reading import ClockReading

Clocks = dict[str, int]


class DescribedProcess(TypedDict):
    """A process for a reader who knows pods: their ids are part of its control group."""

    pid: int
    executable: str | None
    cgroup: str


class ListedProcess(TypedDict):
    """A program under the clock page; `how` it came there: attached, launched, late or found."""

    pid: int
    executable: str
    started_ticks: int
    how: str


class RefusedProcess(TypedDict):
    """A program that fits a rule and cannot be attached to."""

    pid: int
    why: str


class Watched(TypedDict):
    """How starts of programs are watched (vdso/exec_watch.py), and how many were seen."""

    holds: bool
    launchers: list[str]
    marks: int
    asked: int
    caught: int
    passed: int
    missed: int


class WatchState(TypedDict):
    """`watch` None: starts are not watched. `unwatched_because`: which starts are missed, and
    why."""

    watch: Watched | None
    unwatched_because: str | None


class Hello(TypedDict):
    """What this system allows; `unsupported` None: everything."""

    kernel: str
    unsupported: str | None
    boot_id: str


class Released(TypedDict):
    """`ended`: programs that were ahead and were killed for that. `begun_moved`: those that took
    their time base while clocks were moved. `failed`: process -> why."""

    released: list[int]
    ended: list[DescribedProcess]
    failed: dict[str, str]
    offsets: Clocks
    begun_moved: list[DescribedProcess]


class GivenUp(Released):
    """What was released without a request: whose it was, and why."""

    owner: str
    why: str


class Listing(WatchState):
    """The answer to `list` and `take`."""

    rules: list[dict[str, object]]
    processes: list[ListedProcess]
    refused: list[RefusedProcess]
    offsets: Clocks
    asleep: bool
    lease_s: float
    owner: str | None
    ends: bool
    silent_s: float
    given_up: GivenUp | None


class StillResult(TypedDict):
    """The answer to `still`; `busy` "": every program waits."""

    busy: str
    refused: dict[str, str]
    keeps_monotonic: list[int]
    programs: list[int]


class ReadProcess(TypedDict):
    """Clocks measured inside a program, and the kernel's before and after."""

    pid: int
    executable: str
    how: str
    clocks: Clocks
    kernel_before: Clocks
    kernel_after: Clocks


class Readings(TypedDict):
    """The answer to `read`. `failed`: process -> why."""

    readings: list[ReadProcess]
    failed: dict[str, str]
    offsets: Clocks


class SavedSleep(TypedDict):
    """A sleep in the helper's file. JSON has no keys but texts, so a mapping is a list of pairs."""

    guardian: tuple[int, int | None]
    sleepers: list[tuple[int, int]]
    until_boottime_ns: int
    at_wake: ClockReading | None
    stopped_monotonic_ns: int | None


class SavedState(TypedDict):
    """The helper's file, without what state.py adds: format and boot. Named tuples are lists in
    JSON, and are made again from those."""

    rules: list[Rule]
    launchers: list[str]
    lease_s: float
    owner: str | None
    given_up: GivenUp | None
    begun_moved: list[tuple[int, int]]
    offsets: ClockReading
    ends: bool
    asleep: SavedSleep | None
