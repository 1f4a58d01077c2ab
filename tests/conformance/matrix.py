"""Injector x program x promise, measured: one body for each promise, whatever moves the clocks
and whatever reads them.

`python -m tests.conformance.matrix` measures all that this machine has the tools for, and writes
docs/injectors.json and, made from that, docs/injectors.md; what cannot be measured here is kept as
it was last seen.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meshwake.clocks.injectors.base import UNMOVED, CannotInject, Injector, sum_of
from meshwake.clocks.injectors.faketime import Clocks, FaketimeInjector
from meshwake.clocks.injectors.vdso import AttachInjector, VdsoInjector
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S

from tests.conformance.subjects import (
    PROGRAMS,
    Ended,
    Missing,
    ReportedClocks,
    Running,
    Subject,
    build,
    running,
)
from tests.support.paths import DOCS

SEEN, PAGE = DOCS / "injectors.json", DOCS / "injectors.md"
H, S = 3600 * NS_PER_S, NS_PER_S
ENDS_WITHIN_S = 10.0
GOES_ON_FOR_S = 0.2
# libfaketime adds in floating point.
_ROUNDED_NS = 10_000


def kernel_clocks() -> ClockReading:
    """The clocks of this machine, which are never moved."""
    return ClockReading(
        time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    )


@contextmanager
def injector_called(name: str, clocks: Clocks = "wall") -> Iterator[Injector]:
    """A fresh one, closed at the end."""
    injector: Injector
    if name == "faketime":
        injector = FaketimeInjector(clocks)
    else:
        injector = VdsoInjector() if name == "vdso" else AttachInjector()
    try:
        yield injector
    finally:
        injector.close()


# --- The promises ---------------------------------------------------------------------------------


def step(name: str, subject: Subject) -> str:
    """The wall clock moves by what was requested, either way, while the program runs, and no other
    clock does."""
    with injector_called(name) as injector, running(subject, injector) as program:
        _moves_only(program, injector, ClockReading(13 * H, 0, 0))
        _moves_only(program, injector, ClockReading(-26 * H - 1, 0, 0))
    return DOES


def suspend(name: str, subject: Subject) -> str:
    """Wall and boottime move, and monotonic does not."""
    with injector_called(name) as injector, running(subject, injector) as program:
        _moves_only(program, injector, ClockReading(8 * H, 0, 8 * H))
    return DOES


def event_wait(name: str, subject: Subject) -> str:
    """A wait in an event loop ends when monotonic has moved past its end: not before, not by wall,
    and not for less."""
    return _wait(name, subject, "event")


def sleep_wait(name: str, subject: Subject) -> str:
    """The same of the sleep of the language."""
    return _wait(name, subject, "sleep")


def _wait(name: str, subject: Subject, kind: str) -> str:
    if kind not in subject.waits:
        return NONE
    with injector_called(name, "all") as injector, running(subject, injector) as program:
        program.begin_wait(kind, 3_600_000)
        assert program.still_waits(GOES_ON_FOR_S)
        if name != "faketime":  # it has no suspend
            _move(injector, ClockReading(8 * H, 0, 8 * H))
        _move(injector, ClockReading(H // 2, H // 2, H // 2))
        assert program.still_waits(GOES_ON_FOR_S), (
            "half an hour awake, or a sleep, ended a wait of an hour"
        )
        _move(injector, ClockReading(H // 2, H // 2, H // 2))
        program.await_end(ENDS_WITHIN_S)
        if subject.waits_again:
            began_s = time.monotonic()
            program.begin_wait(kind, 300)
            program.await_end(ENDS_WITHIN_S)
            assert time.monotonic() - began_s >= 0.295, (
                "a wait that began after the move ended too soon"
            )
    return DOES


def forked_child(name: str, subject: Subject) -> str:
    """A forked child lives on the same clocks."""
    return _child(name, subject, "fork", with_children=False) if subject.forks else NONE


def executed_child(name: str, subject: Subject) -> str:
    """What it executes lives on the same clocks, if that was requested."""
    return _child(name, subject, "exec", with_children=True) if subject.executes else NONE


def _child(name: str, subject: Subject, how: str, *, with_children: bool) -> str:
    with (
        injector_called(name) as injector,
        running(subject, injector, with_children=with_children) as program,
    ):
        _move(injector, ClockReading(13 * H, 0, 0))
        before = kernel_clocks()
        shown = program.child(how)
        after = kernel_clocks()
    _check_wall(shown, before, after, 13 * H)
    return DOES


def restart(name: str, subject: Subject) -> str:
    """A program that is started after a move takes its time base from the moved clocks, and has no
    drift."""
    with injector_called(name) as injector:
        with running(subject, injector):
            _move(injector, ClockReading(13 * H, 0, 0))
        before = kernel_clocks()
        with running(subject, injector) as program:
            after = kernel_clocks()
            _check_wall(program.ready, before, after, 13 * H)
            now = program.clocks()
    drift_ns = now.wall_ns - program.ready.wall_ns
    if now.monotonic_ns is not None and program.ready.monotonic_ns is not None:
        drift_ns -= now.monotonic_ns - program.ready.monotonic_ns
    assert abs(drift_ns) < S + program.ready.resolution_ns, drift_ns
    return DOES


def inside(name: str, subject: Subject) -> str:
    """What is read from outside is what the program sees: the kernel's clocks and what was moved,
    to the nanosecond."""
    with injector_called(name) as injector, running(subject, injector) as program:
        for by in (UNMOVED, ClockReading(13 * H, 0, 0)):
            _move(injector, by)
            before = kernel_clocks()
            read = injector.read(program.taken)
            after = kernel_clocks()
            low, high = sum_of(before, injector.moved), sum_of(after, injector.moved)
            assert all(a <= b <= c for a, b, c in zip(low, read, high, strict=True)), (
                low,
                read,
                high,
            )
    return DOES


def _move(injector: Injector, by: ClockReading) -> None:
    """As `Injector.move`; what is refused has moved nothing."""
    before = injector.moved
    try:
        injector.move(by)
    except CannotInject:
        assert injector.moved == before
        raise


def _moves_only(program: Running, injector: Injector, by: ClockReading) -> None:
    """`by` is what moves between two looks of the program, to what the looks themselves may have
    taken."""
    before = kernel_clocks()
    first = program.clocks()
    _move(injector, by)
    second = program.clocks()
    took_ns = kernel_clocks().monotonic_ns - before.monotonic_ns
    for clock, earlier, later, moved_ns in (
        ("wall", first.wall_ns, second.wall_ns, by.wall_ns),
        ("monotonic", first.monotonic_ns, second.monotonic_ns, by.monotonic_ns),
        ("boottime", first.boottime_ns, second.boottime_ns, by.boottime_ns),
    ):
        if earlier is None or later is None:
            continue
        off_ns = later - earlier - moved_ns
        slack_ns = (first.resolution_ns if clock == "wall" else 0) + _ROUNDED_NS
        assert -slack_ns <= off_ns <= took_ns + slack_ns, (
            f"{clock}: off by {off_ns} ns, the looks took {took_ns}"
        )


def _check_wall(
    shown: ReportedClocks, before: ClockReading, after: ClockReading, moved_ns: int
) -> None:
    shown_ns = shown.wall_ns - moved_ns
    slack_ns = shown.resolution_ns + _ROUNDED_NS
    assert before.wall_ns - slack_ns <= shown_ns <= after.wall_ns + slack_ns, shown


INJECTORS = ("vdso", "attach", "faketime")
PROMISES: dict[str, Callable[[str, Subject], str]] = {
    "step": step,
    "suspend": suspend,
    "event wait": event_wait,
    "sleep": sleep_wait,
    "forked child": forked_child,
    "executed child": executed_child,
    "restart": restart,
    "read inside": inside,
}
DOES, NONE = "does", "-"


@dataclass(frozen=True)
class Cell:
    """One injector, one program, one promise."""

    injector: str
    program: str
    promise: str

    @property
    def key(self) -> str:
        """In docs/injectors.json."""
        return f"{self.injector} / {self.program} / {self.promise}"


TRIES = 3
CELLS = [
    Cell(*names)
    for names in ((i, program, p) for i in INJECTORS for program in PROGRAMS for p in PROMISES)
]


def measure(cell: Cell, place: Path) -> str:
    """`does`, `-` (the program has no such thing), or why it is refused. Raises Missing;
    AssertionError for a promise that is broken, and whatever else goes wrong."""
    subject = build(cell.program, place)
    for left in reversed(range(TRIES)):
        try:
            return PROMISES[cell.promise](cell.injector, subject)
        except CannotInject as refused:
            return f"{refused.because}; {refused.instead}"
        except Ended:
            # libfaketime reads its file into one place for all threads; when two do at once, it may
            # end the program ("failed to parse FAKETIME timestamp"; seen once in some fifty starts
            # of Java). docs/clock.md says so.
            if cell.injector != "faketime" or not left:
                raise
    raise AssertionError


def read_seen() -> dict[str, str]:
    """Cell to what was last measured."""
    seen: dict[str, str] = json.loads(SEEN.read_text(encoding="utf-8")) if SEEN.exists() else {}
    return seen


# --- The page -------------------------------------------------------------------------------------

_HEAD = """\
# Injectors: who moves which program's clocks

Written by `make injectors` from what was measured (`docs/injectors.json`); do not edit. How to use them:
[clock.md](clock.md). Each cell is one test of `tests/conformance/test_injectors.py`: *does*; *refused*, by name and before
anything is started or moved, for the reason whose number follows; or *-* where a program has no such thing.

| injector | how |
|---|---|
| `vdso` | the clock functions that the kernel maps into a program are rewritten at its start |
| `attach` | the same in a process that runs already |
| `faketime` | libfaketime 0.9.10 (of python-libfaketime) is preloaded; what a program executes inherits it |

| promise | means |
|---|---|
| step | the wall clock moves by what was requested, either way, while the program runs, and no other clock does |
| suspend | wall and boottime move, monotonic does not |
| event wait | an hour's wait in an event loop ends when an hour of time awake has been injected, not after half of it; one that is begun later is neither longer nor shorter |
| sleep | the same of the sleep of the language |
| forked child, executed child | live on the same clocks; the second if that was requested |
| restart | a program that is started after a move has no drift: it takes its time base from the moved clocks |
| read inside | the clocks are read in the program, from outside, and are the kernel's and what was moved, to the nanosecond |

"""  # noqa: E501  a row of a table is a line


def page(seen: dict[str, str]) -> str:
    """docs/injectors.md."""
    reasons: dict[str, int] = {}
    lines = [_HEAD]
    for name in INJECTORS:
        lines += [
            f"## {name}\n\n",
            f"| program | {' | '.join(PROMISES)} |\n",
            f"|---|{'---|' * len(PROMISES)}\n",
        ]
        for program in PROGRAMS:
            cells = [
                seen.get(Cell(name, program, promise).key, "not measured") for promise in PROMISES
            ]
            lines.append(
                f"| {program} | {' | '.join(_in_cell(result, reasons) for result in cells)} |\n"
            )
        lines.append("\n")
    lines.append("## Refused because\n\n")
    lines += [f"{number}. {reason}\n" for reason, number in reasons.items()]
    return "".join(lines)


def _in_cell(result: str, reasons: dict[str, int]) -> str:
    if result in (DOES, NONE, "not measured"):
        return result
    return f"refused ({reasons.setdefault(result, len(reasons) + 1)})"


def main() -> None:
    """Measures, and writes both files; says what could not be measured, and ends with 1 if a
    promise was broken."""
    seen, broken = read_seen(), 0
    with tempfile.TemporaryDirectory(prefix="meshwake-matrix-") as place:
        for cell in CELLS:
            try:
                seen[cell.key] = measure(cell, Path(place))
            except Missing as missing:
                sys.stderr.write(f"{cell.key}: not measured: {missing}\n")
            except Exception as error:  # noqa: BLE001  one cell of many; the page must not say that it does
                broken += 1
                seen.pop(cell.key, None)
                sys.stderr.write(f"{cell.key}: BROKEN: {type(error).__name__}: {error}\n")
    keys = [cell.key for cell in CELLS]
    SEEN.write_text(
        json.dumps({key: seen[key] for key in keys if key in seen}, indent=1) + "\n",
        encoding="utf-8",
    )
    PAGE.write_text(page(seen), encoding="utf-8")
    sys.exit(min(broken, 1))


if __name__ == "__main__":
    main()
