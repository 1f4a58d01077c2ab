"""meshwake clock exec | attach: one ordinary program on clocks that jump, without a scenario.

What the program prints is all that `exec` prints on stdout; our words go to stderr. `exec` ends as
the program did, as env and timeout do: with its exit code, or with 128 + N after signal N; what
kept it from being started, or its clocks from being moved, ends with a code of
harness/meshwake/core/errors.py.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from meshwake.cli.output import CommandExit, print_text
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import parse_option_ns
from meshwake.core.errors import BadInput, SubjectFailed
from meshwake.core.refusal import invalid_choice
from meshwake.system.deadline import Deadline

if TYPE_CHECKING:  # what only Linux has is imported by the command that needs it
    from meshwake.clocks.injectors.base import Injector, ManagedProcess
    from meshwake.clocks.injectors.programs import Program

INJECTORS = ("auto", "vdso", "attach", "faketime")
_LOOK_EVERY_S = 0.01  # how soon the end of the program is noticed
_ENDS_WITHIN_S = 3.0  # for the program, after each signal
# Waits that cannot be shortened are looked for this often: by way of /proc, thread by thread.
_ASK_EVERY_S = 0.5

SuspendOption = Annotated[
    str | None,
    typer.Option(
        "--suspend", metavar="DURATION", help="Sleep: wall and boottime jump, monotonic does not."
    ),
]
StepOption = Annotated[
    str | None,
    typer.Option("--step", metavar="DURATION", help="Set the wall clock; may be negative."),
]
AwakeOption = Annotated[
    str | None,
    typer.Option(
        "--awake", metavar="DURATION", help="Time passes awake: all clocks move, timers fire."
    ),
]
AfterOption = Annotated[
    str | None,
    typer.Option(
        "--after", metavar="DURATION", help="How long the program runs before; without it, not."
    ),
]
InjectorOption = Annotated[
    str, typer.Option("--injector", help="auto, vdso, attach or faketime (docs/injectors.md).")
]
ChildrenOption = Annotated[
    bool,
    typer.Option("--with-children", help="What the program executes lives on the same clocks."),
]
GiveBackOption = Annotated[
    bool, typer.Option("--give-back", help="Give it the kernel's clocks back.")
]
CommandArgument = Annotated[list[str], typer.Argument(metavar="-- PROGRAM")]
PidArgument = Annotated[int, typer.Argument(metavar="PID", min=1)]


def add_commands(app: typer.Typer) -> None:
    """Adds `clock` with its commands to `app`."""
    clock = typer.Typer(
        help="Run one program on clocks that jump, or make those of a running one jump."
    )
    clock.command("exec")(execute)
    clock.command("attach")(attach_to)
    app.add_typer(clock, name="clock")


def execute(
    command: CommandArgument,
    suspend: SuspendOption = None,
    step: StepOption = None,
    awake: AwakeOption = None,
    after: AfterOption = None,
    injector: InjectorOption = "auto",
    with_children: ChildrenOption = False,
) -> None:
    """Run a program on clocks that jump: before its first instruction, or while it runs
    (--after)."""
    by = _movement(suspend, step, awake)
    if by is None:
        raise BadInput(
            "no movement of the clocks was given: use --suspend 8h, --step 30d, --step=-13h or "
            "--awake 1h"
        )
    if injector not in INJECTORS:
        raise invalid_choice("--injector", injector, INJECTORS)
    after_ns = _duration(after, "--after")
    clocks = _choose(injector, command, by, with_children=with_children)
    try:
        raise CommandExit(_run(clocks, command, by, after_ns, with_children=with_children))
    finally:
        clocks.close()


def attach_to(
    pid: PidArgument,
    suspend: SuspendOption = None,
    step: StepOption = None,
    awake: AwakeOption = None,
    give_back: GiveBackOption = False,
) -> None:
    """Make the clocks of a running process jump, and print what it sees then; they stay so until
    --give-back."""
    from meshwake.clocks.injectors.base import in_words
    from meshwake.clocks.injectors.vdso import AttachInjector, offsets_inside

    by = _movement(suspend, step, awake)
    if give_back and by is not None:
        raise BadInput("--give-back: goes with no movement")

    # Neither a movement nor a way back: only a look, for which nothing is attached.
    if by is None and not give_back:
        print_text(f"process {pid}: moved by {in_words(offsets_inside(pid))}")
        return
    injector = AttachInjector()
    try:
        taken = injector.attach(pid)
        if by is None:
            injector.detach(taken)
            print_text(f"process {pid} ({taken.name}): the kernel's clocks")
            return
        injector.move(by)
        print_text(
            f"process {pid} ({taken.name}): moved by {in_words(injector.moved)} "
            f"{_seen(injector, taken)}"
        )
    finally:
        injector.close()


def _movement(suspend: str | None, step: str | None, awake: str | None) -> ClockReading | None:
    """What is added to wall, monotonic and boottime; None when no movement was given."""
    options = {"--suspend": suspend, "--step": step, "--awake": awake}
    given = {name: text for name, text in options.items() if text is not None}
    if not given:
        return None
    if len(given) > 1:
        raise BadInput(f"one movement at a time: {' and '.join(given)} were given")
    ((name, text),) = given.items()
    by_ns = parse_option_ns(text, name)

    # No kernel ever sets monotonic or boottime back; programs rely on it (clock_gettime(2)).
    if by_ns < 0 and name != "--step":
        raise BadInput(f"{name} {text}: only the wall clock can be set back; use --step={text}")
    return {
        "--suspend": ClockReading(wall_ns=by_ns, monotonic_ns=0, boottime_ns=by_ns),
        "--step": ClockReading(wall_ns=by_ns, monotonic_ns=0, boottime_ns=0),
        "--awake": ClockReading(by_ns, by_ns, by_ns),
    }[name]


def _duration(text: str | None, option: str) -> int | None:
    return None if text is None else parse_option_ns(text, option)


def _choose(name: str, command: list[str], by: ClockReading, *, with_children: bool) -> Injector:
    """The injector that was chosen, or for `auto` the first one that can; others are refused
    before any start."""
    from meshwake.clocks.injectors.base import CannotInject
    from meshwake.clocks.injectors.programs import find_program, look_at

    program = look_at(find_program(command[0]))
    refusals: list[CannotInject] = []

    # vdso first: it keeps more promises with more programs (docs/injectors.md).
    candidates = ("vdso", "faketime") if name == "auto" else (name,)
    for one in candidates:
        try:
            injector = _fitting(one, program, by, with_children=with_children)
        except CannotInject as refused:
            refusals.append(refused)
            continue
        # A choice that was not the first one is explained.
        for each in refusals:
            _say(f"{each.injector} is not used: {each.because}")
        return injector
    if name != "auto":
        raise refusals[0]
    because = ", and ".join(f"{each.injector}: {each.because}" for each in refusals)
    instead = f"{program.instead}, or use a guest (lab machine)"
    raise CannotInject("auto", program.name, because, instead)


def _fitting(name: str, program: Program, by: ClockReading, *, with_children: bool) -> Injector:
    """A new injector for this program and movement. Raises CannotInject."""
    from meshwake.clocks.injectors.faketime import FaketimeInjector
    from meshwake.clocks.injectors.vdso import AttachInjector, VdsoInjector

    injector: Injector
    if name == "faketime":
        injector = FaketimeInjector("all" if by.monotonic_ns else "wall")
    else:
        injector = VdsoInjector() if name == "vdso" else AttachInjector()
    try:
        injector.check(by)
        refused = injector.refusal(program, with_children=with_children)
        if refused is not None:
            raise refused
    except BaseException:
        injector.close()
        raise
    return injector


def _run(
    injector: Injector,
    command: list[str],
    by: ClockReading,
    after_ns: int | None,
    *,
    with_children: bool,
) -> int:
    """Starts the program, moves its clocks, and waits for its end, which is returned as a shell
    reports it."""
    from meshwake.clocks.injectors.base import Start, in_words

    # Without --after the program must not see a moment of the kernel's clocks: it is started on
    # clocks that are moved already.
    if after_ns is None:
        injector.move(by)
    taken = None

    # From its first moment on: an interrupt just after the start ended the program without a word.
    try:
        taken = injector.start(Start(tuple(command), with_children=with_children))
        _say(f"injector {injector.name}: process {taken.pid} ({taken.name})")
        if after_ns is not None and not _ends_within(taken, after_ns / 1e9):
            injector.move(by)
            _say(f"moved by {in_words(by)}")
        _await_end(injector, taken)
    # It is at the head of a session of its own, so the terminal signalled only us.
    except KeyboardInterrupt:
        if taken is not None:
            _interrupt(taken)
        raise

    # Python has -N for a program that signal N ended; a shell shows 128 + N.
    code = taken.poll() or 0
    return code if code >= 0 else 128 - code


def _await_end(injector: Injector, taken: ManagedProcess) -> None:
    """Until the program has ended. One that sleeps for hours by our doing is not waited for without
    a word."""
    from meshwake.clocks.injectors.base import CannotInject
    from meshwake.clocks.injectors.unreachable_waits import BECAUSE

    reported: set[int] = set()
    while not _ends_within(taken, _ASK_EVERY_S):
        found = injector.unreachable_waits(taken)
        for wait in found.waits:
            # With every thread in such a wait the program would hang for the time that was moved.
            if found.all_of_it:
                what = (
                    f"process {taken.pid} ({taken.name}), which began to wait {wait.how} on "
                    "moved clocks"
                )
                raise CannotInject(injector.name, what, BECAUSE, "it was ended (docs/clock.md)")
            if wait.tid not in reported:
                reported.add(wait.tid)
                _say(
                    f"thread {wait.tid} began to wait {wait.how} on moved clocks: too long "
                    "by what was moved"
                )


def _ends_within(taken: ManagedProcess, within_s: float) -> bool:
    deadline = Deadline(f"the end of process {taken.pid}", within_s)
    while taken.poll() is None:
        if deadline.has_passed:
            return False
        deadline.sleep(_LOOK_EVERY_S)
    return True


def _interrupt(taken: ManagedProcess) -> None:
    # Politely first, and to its whole group; what is left then, the end of the injector kills.
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ProcessLookupError):
            os.killpg(taken.pid, number)
        with suppress(SubjectFailed):
            taken.wait(_ENDS_WITHIN_S)
            return


def _seen(injector: Injector, taken: ManagedProcess) -> str:
    """Whether the program sees what was set: its clocks are read in it, and the kernel's before and
    after that."""
    from meshwake.clocks.injectors.base import in_words
    from meshwake.clocks.movers.own_clock import own_clocks

    before = own_clocks()
    try:
        read = injector.read(taken)
    except SubjectFailed:
        if not taken.has_ended:
            raise
        return "(it has ended since)"
    after = own_clocks()

    # Less what was moved, each clock of the program must lie between the kernel's two readings.
    own = read.since(injector.moved)
    for low, clock, high in zip(before, own, after, strict=True):
        if low <= clock <= high:
            continue
        raise SubjectFailed(
            f"process {taken.pid} does not see what was set; it sees {in_words(read.since(before))}"
        )
    return f"(measured in it, within {(after.monotonic_ns - before.monotonic_ns) / 1e6:.0f} ms)"


def _say(text: str) -> None:
    sys.stderr.write(f"meshwake: {text}\n")
    sys.stderr.flush()
