"""The command `meshwake`: finds the command that was named, runs it, and ends with an exit code.

Results go to stdout, everything else to stderr. Every command ends with one of the exit codes of
harness/meshwake/core/errors.py, 130 after ^C; docs/reference.md promises them to scripts. With
several runs the most serious one decides.

Only the module of the command in use is imported (commands.py is the table of all).
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from meshwake.cli.commands import COMMANDS, CommandEntry
from meshwake.cli.output import CommandExit, print_text, say
from meshwake.core.errors import BadInput, ExitCode, HarnessError
from meshwake.core.refusal import unwritable
from meshwake.runner.flags import variables_behind
from meshwake.system.hints import did_you_mean

# UsageError.exit_code of click. Here 2 is a check that is UNKNOWN, so this one is translated.
CLICK_USAGE_ERROR = 2
# What a shell shows for a program that SIGINT (2) has ended: 128 + 2.
INTERRUPTED = 130
_DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
# Of a file that has a name: tracing a process, for example, is forbidden without one.
_FORBIDDEN = (errno.EACCES, errno.EROFS)
FIRST_STEPS = """\
Makes time jump under a service mesh and reports, with evidence, what breaks.

  meshwake run nightly_sleep       a laptop that sleeps every night, on the model: no set-up
  meshwake matrix                  which fix holds against which clock fault
  meshwake fetch 1.31.0            a real ztunnel for the same scenarios (Linux)
  meshwake doctor                  which labs can run here
  meshwake --help                  all commands
"""


class LazyGroup(TyperGroup):
    """The commands of the table. Each is imported when it is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command called `cmd_name`; None when there is none."""
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = _load(COMMANDS[cmd_name])
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does it, which looks for the nearest among commands already imported."""
        # A word with a dash is an option, about which click has a message of its own.
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"no such command {args[0]!r}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Sections, and a last line with the commands that few people need."""
        sections: dict[str, list[CommandEntry]] = {}
        for entry in COMMANDS.values():
            sections.setdefault(entry.section, []).append(entry)

        # "" is not a heading: those commands are only named.
        also = sections.pop("", [])
        for section, entries in sections.items():
            with formatter.section(section):
                formatter.write_dl([(entry.name, entry.summary) for entry in entries])
        formatter.write_paragraph()
        names = ", ".join(entry.name for entry in also)
        text = f"Also: {names}. meshwake COMMAND -h says more of each."

        # The formatter would break fetch-kernel at its hyphen.
        for line in textwrap.wrap(text, formatter.width, break_on_hyphens=False):
            formatter.write(f"{line}\n")

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The names from the table: nothing is imported while a person types."""
        fitting = [entry for entry in COMMANDS.values() if entry.name.startswith(incomplete)]
        if fitting:
            item = import_module(f"{_click_package()}.shell_completion").CompletionItem
            return [item(entry.name, help=entry.summary) for entry in fitting]
        return super().shell_complete(ctx, incomplete)


def _click_package() -> str:
    """typer brings its own copy of click since 0.22 or so, and used the package before."""
    return TyperGroup.__mro__[1].__module__.rpartition(".")[0]


def _load(entry: CommandEntry) -> Any:
    """The command of `entry`, from its module."""
    # An app of its own for each module: typer makes click commands of a whole app.
    own = typer.Typer(rich_markup_mode=None, add_completion=False)
    import_module(f"meshwake.cli.{entry.module}").add_commands(own)
    return typer.main.get_group(own).commands[entry.name]


app = typer.Typer(
    name="meshwake",
    cls=LazyGroup,
    help="Makes time jump under a service mesh and reports, with evidence, what breaks.",
    invoke_without_command=True,
    # Exceptions are handled in run_command, and not by typer's own traceback of many colours.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        print_text(f"meshwake {version('meshwake')}")
        raise typer.Exit


@app.callback()
def _first_screen(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Makes time jump under a service mesh and reports, with evidence, what breaks."""
    if context.invoked_subcommand is None:
        print_text(FIRST_STEPS.rstrip("\n"))


def run_command(arguments: Sequence[str]) -> int:
    """The exit code of `meshwake ARGUMENTS`. Nothing is raised, whatever happens."""
    _escape_what_cannot_be_encoded()
    try:
        app(list(arguments), prog_name="meshwake")
    except CommandExit as ended:
        return ended.code
    except HarnessError as error:
        return _refused(error)
    except KeyboardInterrupt as interrupt:  # ^C, or SIGTERM: see _end_in_order
        return _interrupted(interrupt)
    except SystemExit as ended:
        return _exited(ended, arguments)
    # The last resort: a fault of ours is reported, never shown as a bare traceback.
    except Exception as error:  # noqa: BLE001
        return _failed(error, arguments)
    return ExitCode.AS_EXPECTED


def main() -> None:
    """The command `meshwake`."""
    # Without a handler SIGTERM ends Python at once: no `finally` would run, and what is moved would
    # stay moved.
    signal.signal(signal.SIGTERM, _end_in_order)
    sys.exit(run_command(sys.argv[1:]))


def _escape_what_cannot_be_encoded() -> None:
    """A character that the output has no code for is written as its escape.

    Windows gives a pipe or a file the code page of the machine: `meshwake matrix > fixes.txt` ended
    at the first mark of a real ztunnel. The same for names in files, with LC_ALL=C.
    """
    for stream in (sys.stdout, sys.stderr):
        # None where the program was started without one, and no TextIOWrapper in some tests.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _end_in_order(number: int, frame: object) -> None:
    """SIGTERM is handled as ^C: what was started is ended."""
    raise KeyboardInterrupt


def _refused(error: HarnessError) -> int:
    say(str(error))
    for line in variables_behind(str(error)):
        say(line)
    if error.evidence is not None:
        say(f"evidence: {error.evidence}")

    # On stderr, which GitHub reads as well: stdout may be JSON for another program.
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from meshwake.report.ci_formats import refusal_annotation

        say(refusal_annotation(str(error)))
    return error.exit_code


def _exited(ended: SystemExit, arguments: Sequence[str]) -> int:
    """After typer has ended the program: for wrong usage, and for ^C, of which it makes an exit."""
    # typer raises its exit while it handles the ^C, which is then the context of the exit.
    cause: BaseException | None = ended
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return _interrupted(cause)
        cause = cause.__cause__ or cause.__context__
    if ended.code == CLICK_USAGE_ERROR:
        return _usage_error_code(arguments)
    return int(ended.code or 0)


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    """Its notes say what was kept."""
    for line in ("interrupted", *getattr(interrupt, "__notes__", ())):
        say(line)
    return INTERRUPTED


def _failed(error: Exception, arguments: Sequence[str]) -> int:
    """A missing extra is the user's to install; everything else is a defect of ours."""
    import traceback

    from meshwake.core.extras import missing_extra

    lacking = missing_extra(error) if isinstance(error, ImportError) else None
    if lacking is not None:
        return _refused(lacking)
    if isinstance(error, OSError) and error.errno in _DISK_IS_FULL:
        # Without a file it is the output itself: meshwake run ... > report.txt.
        return _refused(unwritable(error.filename or "the output", error, "make room, and repeat"))
    if isinstance(error, OSError) and error.errno in _FORBIDDEN and error.filename:
        return _refused(BadInput(f"{error.filename}: cannot be used ({error.strerror})"))
    verbose = "-v" in arguments or "--verbose" in arguments
    say(f"this is a fault of meshwake: {type(error).__name__}: {error}")
    say(traceback.format_exc() if verbose else "-v shows where it came from")
    return ExitCode.HARNESS_FAULT


def _usage_error_code(arguments: Sequence[str]) -> int:
    """How a command ends whose options are wrong. 3 would mean to `git bisect run` that this commit
    is bad, so `probe` ends with a code that stops the bisect."""
    if arguments[:1] != ["probe"]:
        return ExitCode.BAD_INPUT
    from meshwake.analysis.probe import ABORT_GIT_BISECT

    return ExitCode.BAD_INPUT + ABORT_GIT_BISECT
