"""The options of a run: each declared once, for the command line and for pytest.

A field of one of the `...Flags` classes is an option; its annotation has the name, the help and the
bounds. A typer command takes them with `@with_flags`, pytest with `add_to_pytest`. Which command
takes which:

    WhereFlags    --lab, --real-time
    CaseFlags     and which versions, which binary, which seed        plan
    ClusterFlags  what a cluster on kind is made of                   up, down, status
    LabFlags      WhereFlags, ClusterFlags, and how clocks are moved  bisect
    RunFlags      all of these, and what to keep                      run, pytest
    SelectFlags   which of the scenarios named, by -k                 run, list, nightly

A value of None, False or () means that the option was not given. An option with a `variable` takes
its default from the environment: the command line wins, then comes the environment, then pytest's
settings. Not every option has one: what is right for one command only, such as a binary or a
cluster, would make others refuse, and consent is typed each time. What was typed is checked in
options.py. This module imports little: pytest declares the options at every start, in every project
that has meshwake installed.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from meshwake.core.errors import BadInput

AUTO = "auto"
KEYWORD_OPTION = "-k"


# --- The options ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flag:
    """How one field is typed on a command line. `minimum` is for numbers; `variable` of the
    environment has its default."""

    name: str
    help: str
    metavar: str | None = None
    minimum: int | None = None
    variable: str | None = None


@dataclass(frozen=True)
class Flags:
    """Base of the classes below."""


@dataclass(frozen=True)
class WhereFlags(Flags):
    """Which lab, and which of a scenario's numbers."""

    lab: Annotated[
        str,
        Flag("--lab", "auto (default), model, process, machine or kind.", variable="MESHWAKE_LAB"),
    ] = AUTO
    real_time: Annotated[
        bool,
        Flag(
            "--real-time",
            "Use the numbers of the [real_time] table; on lab kind, skip no idle time.",
        ),
    ] = False


@dataclass(frozen=True)
class CaseFlags(WhereFlags):
    """Which versions of what."""

    istio: Annotated[
        tuple[str, ...],
        Flag(
            "--istio",
            "The release under test; may be repeated.",
            "VERSION",
            variable="MESHWAKE_ISTIO",
        ),
    ] = ()
    ztunnel: Annotated[Path | None, Flag("--ztunnel", "The ztunnel binary under test.", "PATH")] = (
        None
    )
    seed: Annotated[
        int, Flag("--seed", "Chooses what is left to chance, such as retry delays.", minimum=0)
    ] = 0


@dataclass(frozen=True)
class ClusterFlags(Flags):
    """Which of our clusters: its name, or what it is made of."""

    name: Annotated[
        str | None, Flag("--name", "The cluster; meshwake- is put before it.", "NAME")
    ] = None
    profile: Annotated[
        str | None, Flag("--profile", "What it is made of: core (default), or full: everything.")
    ] = None
    kubernetes: Annotated[
        str | None, Flag("--kubernetes", "Version of its nodes, such as 1.34.", "VERSION")
    ] = None
    workers: Annotated[
        int | None,
        Flag("--nodes", "Worker nodes in addition to the control plane; default 2.", "N"),
    ] = None
    with_parts: Annotated[
        tuple[str, ...], Flag("--with", "A part that the profile does not have.", "PART")
    ] = ()
    without_parts: Annotated[
        tuple[str, ...], Flag("--without", "A part of the profile to leave out.", "PART")
    ] = ()
    mirror: Annotated[
        str | None, Flag("--mirror", "One registry to pull everything from.", "HOST")
    ] = None
    folder: Annotated[
        Path | None,
        Flag("--folder", "Has images/, charts/, manifests/: no network needed.", "DIR"),
    ] = None


@dataclass(frozen=True)
class LabFlags(ClusterFlags, WhereFlags):
    """And how its clocks are moved, or which other cluster to use."""

    clock: Annotated[
        str | None,
        Flag("--clock", "How lab kind moves clocks: process (default), engine or command."),
    ] = None
    allow_own_clock: Annotated[
        bool, Flag("--allow-own-clock", "Let --clock engine set the clock of this very machine.")
    ] = False
    suspend_command: Annotated[
        str | None, Flag("--suspend-command", "What --clock command runs to suspend.", "COMMAND")
    ] = None
    kubeconfig: Annotated[
        Path | None, Flag("--kubeconfig", "A cluster that exists already.", "PATH")
    ] = None
    context: Annotated[str | None, Flag("--context", "The context of --kubeconfig.")] = None
    known_as: Annotated[
        str | None,
        Flag("--i-know", "Use this context even though it looks like production.", "CONTEXT"),
    ] = None


@dataclass(frozen=True)
class RunFlags(LabFlags, CaseFlags):
    """All options of a run."""

    fix: Annotated[
        tuple[str, ...],
        Flag("--fix", "Deploy this, not the scenario's fix; implies --goal; repeatable.", "NAME"),
    ] = ()
    goal: Annotated[
        str | None,
        Flag("--goal", "holds: judge the mesh, not the scenario's expectations.", "GOAL"),
    ] = None
    keep_run: Annotated[
        bool,
        Flag(
            "--keep-run",
            "Keep the run even when it came out as expected.",
            variable="MESHWAKE_KEEP_RUN",
        ),
    ] = False
    as_class: Annotated[
        str | None,
        Flag("--as-class", "Lab model: the behaviour class to run, not the release's.", "CLASS"),
    ] = None
    report: Annotated[
        Path | None,
        Flag(
            "--report",
            "Write pages for a browser to this folder.",
            "DIR",
            variable="MESHWAKE_REPORT",
        ),
    ] = None


@dataclass(frozen=True)
class SelectFlags(Flags):
    """Which of the scenarios that were named. Not for pytest, which has this option itself."""

    keyword: Annotated[
        str,
        Flag(
            KEYWORD_OPTION,
            "Only scenarios of these names: 'sleep and not (vm or weekly)', as pytest's -k.",
            "EXPRESSION",
        ),
    ] = ""


@dataclass(frozen=True)
class RunCommandFlags(RunFlags, SelectFlags):
    """What `meshwake run` takes."""


AnyFlags = TypeVar("AnyFlags", bound=Flags)


@dataclass(frozen=True)
class Declared:
    """One option with its field."""

    field: str
    type: Any
    flag: Flag
    default: Any

    @property
    def repeatable(self) -> bool:
        """Whether it may be given several times."""
        return isinstance(self.default, tuple)

    def of_type(self, type_: type) -> bool:
        """Whether its value is of `type_`, or None."""
        return self.type is type_ or type_ in get_args(self.type)


def declared_in(flags: type[Flags]) -> Iterator[Declared]:
    """Every option of `flags`, those of its bases first."""
    # With the extras: a Flag is the second part of an annotation.
    types = get_type_hints(flags, include_extras=True)
    for each in fields(flags):
        type_, flag = get_args(types[each.name])
        yield Declared(each.name, type_, flag, each.default)


def given_in(flags: Flags, of: type[Flags]) -> list[str]:
    """The names of those options of `of` that were given."""
    # An option typed with its default value is the same as none.
    return [
        declared.flag.name
        for declared in declared_in(of)
        if getattr(flags, declared.field) != declared.default
    ]


def variables_behind(message: str) -> list[str]:
    """One line for each option in `message` whose default is set in the environment: the user may
    have typed none of it."""
    lines = []
    for declared in declared_in(RunFlags):
        variable, name = declared.flag.variable, declared.flag.name
        value = os.environ.get(variable) if variable is not None else None
        if not value:
            continue

        # The whole name: --istio is not mentioned where a message is about --istio-something.
        is_mentioned = re.search(rf"{name}(?![\w-])", message)
        if is_mentioned:
            lines.append(f"{variable}={value} is set, the default of {name}")
    return lines


# --- The command line -----------------------------------------------------------------------------


def with_flags(
    flags: type[AnyFlags],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A typer command that takes the options of `flags` in addition to its own, and gets them as
    its parameter `flags`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # Evaluated: `from __future__ import annotations` makes texts of them, and typer would look
        # the names up in this module.
        signature = inspect.signature(command, eval_str=True)
        own = [each for each in signature.parameters.values() if each.name != "flags"]
        added = [_typer_parameter(each) for each in declared_in(flags)]

        @functools.wraps(command)
        def run(**values: Any) -> None:
            typed = {each.name: values.pop(each.name) for each in added}
            command(**values, flags=_build(flags, typed))

        # typer reads the signature and the annotations of what it is given.
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
        return run

    return decorate


def _typer_parameter(declared: Declared) -> inspect.Parameter:
    import typer  # only here: pytest reads this module too

    flag = declared.flag
    option = typer.Option(
        flag.name,
        metavar=flag.metavar,
        help=flag.help,
        min=flag.minimum,
        envvar=flag.variable,
    )

    type_, default = declared.type, declared.default
    if declared.repeatable:
        # typer knows no tuples of any length: a list, or None where the option was not given.
        type_, default = list[str] | None, None
    return inspect.Parameter(
        declared.field,
        # A command has parameters of its own before these.
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[type_, option],
    )


# --- pytest ---------------------------------------------------------------------------------------


PREFIX = "--meshwake-"


def add_to_pytest(group: Any, prefix: str = PREFIX) -> None:
    """Adds the options of a run to pytest's command line: `--meshwake-lab` for `--lab`. With the
    prefix "--" they are named as on our own command line, which other plugins' options may be, too;
    both set the same value."""
    for declared in declared_in(RunFlags):
        flag = declared.flag
        name = flag.name.replace("--", prefix, 1)
        group.addoption(
            name,
            dest=f"meshwake_{declared.field}",
            help=flag.help,
            **_pytest_settings(declared),
        )


def _pytest_settings(declared: Declared) -> dict[str, Any]:
    """How pytest reads an option of this type, as keyword arguments of argparse."""
    flag = declared.flag
    if declared.of_type(bool):
        return {"action": "store_true", "default": False}

    if declared.repeatable:
        return {"action": "append", "default": [], "metavar": flag.metavar}

    if declared.of_type(int):
        read = functools.partial(_whole_number, minimum=flag.minimum)
        return {"type": read, "default": declared.default, "metavar": flag.metavar}

    # A path stays text here: pytest-xdist sends the options to its workers, and can send
    # only what Python has built in.
    return {"default": declared.default, "metavar": flag.metavar}


def add_ini_to_pytest(parser: Any) -> None:
    """Adds a key of pytest's settings for each option: meshwake_lab, meshwake_istio, ..."""
    for declared in declared_in(RunFlags):
        option = declared.flag.name.replace("--", PREFIX, 1)
        parser.addini(
            f"meshwake_{declared.field}",
            f"default of {option}",
            type=_ini_kind(declared),
            default=[] if declared.repeatable else declared.default,
        )


def _ini_kind(declared: Declared) -> Literal["bool", "args", "string"]:
    """The type of a key as pytest names it; "args" is split as a shell would."""
    if declared.of_type(bool):
        return "bool"
    if declared.repeatable:
        return "args"

    # A number too is a string here: _from_ini reads it, with its bounds and our message.
    return "string"


def as_typed_to_pytest(message: str) -> str:
    """`message` about options, with the names that they have there without short_options.py."""
    for declared in declared_in(RunFlags):
        name = declared.flag.name
        prefixed = name.replace("--", PREFIX, 1)
        # Whole names only: --lab is not a part of --meshwake-lab, nor of --lab-something.
        message = re.sub(rf"(?<![\w-]){name}(?![\w-])", prefixed, message)
    return message


def _whole_number(text: str, minimum: int | None) -> int:
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, not {text!r}") from error
    if minimum is not None and number < minimum:
        raise argparse.ArgumentTypeError(f"expected {minimum} or more, not {number}")
    return number


def from_pytest(
    getoption: Callable[[str], Any], getini: Callable[[str], Any] | None = None
) -> RunFlags:
    """What pytest was given: on its command line, else in the environment, else in its settings.
    Raises BadInput for an invalid value of the latter two."""
    values = {}
    for declared in declared_in(RunFlags):
        value = getoption(f"meshwake_{declared.field}")

        # pytest does not show whether an option was typed; one typed with its default value is
        # the same as none.
        is_default = value in (declared.default, [])
        if is_default:
            value = _default_for_pytest(declared, getini) or value

        if declared.of_type(Path) and value is not None:
            value = Path(value)
        values[declared.field] = value
    return _build(RunFlags, values)


def _default_for_pytest(declared: Declared, getini: Callable[[str], Any] | None) -> Any:
    """From the environment, else from the settings; a false value where neither has one."""
    value = _from_environment(declared)
    if value or getini is None:
        return value
    return _from_ini(declared, getini)


# What typer reads as true and as false in a variable of the environment.
_TRUE, _FALSE = ("1", "true", "t", "yes", "y", "on"), ("0", "false", "f", "no", "n", "off", "")


def _from_environment(declared: Declared) -> Any:
    """The default of an option in the environment, read as typer reads it; None without one."""
    variable = declared.flag.variable
    text = os.environ.get(variable, "").strip() if variable else ""

    # As click reads a variable of an option that may be repeated: words between white space.
    if declared.repeatable:
        return text.split()
    if not declared.of_type(bool):
        return text or None

    word = text.lower()
    if word not in (*_TRUE, *_FALSE):
        raise BadInput(f"{variable}={text}: expected true or false")
    return word in _TRUE


def _from_ini(declared: Declared, getini: Callable[[str], Any]) -> Any:
    """What pytest's settings have for an option: a text, also where the option is a number."""
    name = f"meshwake_{declared.field}"
    value = getini(name)

    # A default of an option is a number already; what a file has is text.
    if declared.of_type(int) and isinstance(value, str) and value:
        return _ini_number(name, value, declared.flag.minimum)
    return value


def _ini_number(name: str, text: str, minimum: int | None) -> int:
    try:
        return _whole_number(text, minimum)
    except argparse.ArgumentTypeError as error:
        raise BadInput(f"{name}: {error}") from error


def _build(flags: type[AnyFlags], values: Mapping[str, Any]) -> AnyFlags:
    """Lists become tuples; None, which typer has for a list that was not given, an empty one."""
    built: dict[str, Any] = dict(values)
    for declared in declared_in(flags):
        if declared.repeatable and declared.field in built:
            listed = built[declared.field] or ()
            built[declared.field] = tuple(listed)
    return flags(**built)
