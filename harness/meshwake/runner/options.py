"""The options of a run: each declared once, for the command line and for pytest.

A field of one of the `...Flags` classes is an option; its annotation has the name, the help and the
bounds. A typer command takes them with `@with_flags`, pytest with `add_to_pytest`. Which command
takes which:

    WhereFlags    --lab, --real-time
    CaseFlags     and which versions, which binary, which seed        plan
    ClusterFlags  what a cluster on kind is made of                   up, down, status
    LabFlags      WhereFlags, ClusterFlags, and how clocks are moved  bisect
    RunFlags      all of these, and what to keep                      run, pytest

Flags are what was typed; `options_from` checks them against each other and gives the `Options` that
the rest of the program takes. A value of None, False or () means that the option was not given.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

from meshwake.core.errors import BadInput
from meshwake.core.plan import ClockWay, Goal, PlannedCluster
from meshwake.core.refusal import invalid, invalid_choice
from meshwake.core.scenario import FixName

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """What a run is asked for, checked: which labs and versions, with what, and what to keep.
    `cluster` is for lab kind, `as_class` for lab model; `fixes` are deployed one after the other,
    each instead of the scenario's."""

    lab: str = AUTO
    istio: tuple[str, ...] = ()
    ztunnel: Path | None = None
    seed: int = 0
    keep_run: bool = False
    real_time: bool = False
    cluster: PlannedCluster = field(default_factory=PlannedCluster)
    as_class: str | None = None
    goal: Goal | None = None
    fixes: tuple[FixName, ...] = ()


# --- The options ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flag:
    """How one field is typed on a command line. `minimum` is for numbers."""

    name: str
    help: str
    metavar: str | None = None
    minimum: int | None = None


@dataclass(frozen=True)
class Flags:
    """Base of the classes below."""


@dataclass(frozen=True)
class WhereFlags(Flags):
    """Which lab, and which of a scenario's numbers."""

    lab: Annotated[str, Flag("--lab", "auto (default), model, process, machine or kind.")] = AUTO
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
        tuple[str, ...], Flag("--istio", "The release under test; may be repeated.", "VERSION")
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
        int | None, Flag("--nodes", "Worker nodes beside the control plane; default 2.", "N")
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
        Flag("--clock", "How lab kind moves clocks: engine (default), command or process."),
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
        bool, Flag("--keep-run", "Keep the run even when it came out as expected.")
    ] = False
    as_class: Annotated[
        str | None,
        Flag("--as-class", "Lab model: the behaviour class to run, not the release's.", "CLASS"),
    ] = None
    report: Annotated[
        Path | None, Flag("--report", "Write pages for a browser to this folder.", "DIR")
    ] = None


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
    types = get_type_hints(flags, include_extras=True)
    for each in fields(flags):
        type_, flag = get_args(types[each.name])
        yield Declared(each.name, type_, flag, each.default)


def given_in(flags: Flags, of: type[Flags]) -> list[str]:
    """The names of those options of `of` that were given."""
    return [
        each.flag.name for each in declared_in(of) if getattr(flags, each.field) != each.default
    ]


# --- The command line -----------------------------------------------------------------------------


def with_flags(
    flags: type[AnyFlags],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A typer command that takes the options of `flags` in addition to its own, and gets them as
    its parameter `flags`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
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
    import typer

    flag = declared.flag
    option = typer.Option(flag.name, metavar=flag.metavar, help=flag.help, min=flag.minimum)
    # typer knows no tuples of any length: a list, or None where the option was not given.
    type_ = list[str] | None if declared.repeatable else declared.type
    default = None if declared.repeatable else declared.default
    return inspect.Parameter(
        declared.field,
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
        settings: dict[str, Any] = {"dest": f"meshwake_{declared.field}", "help": flag.help}
        if declared.of_type(bool):
            settings |= {"action": "store_true", "default": False}
        elif declared.repeatable:
            settings |= {"action": "append", "default": [], "metavar": flag.metavar}
        elif declared.of_type(int):
            read = functools.partial(_whole_number, minimum=flag.minimum)
            settings |= {"type": read, "default": declared.default, "metavar": flag.metavar}
        else:
            # A path stays text here: pytest-xdist sends the options to its workers, and can send
            # only what Python has built in.
            settings |= {"default": declared.default, "metavar": flag.metavar}
        group.addoption(flag.name.replace("--", prefix, 1), **settings)


def add_ini_to_pytest(parser: Any) -> None:
    """Adds a key of pytest's settings for each option: meshwake_lab, meshwake_istio, ..."""
    for declared in declared_in(RunFlags):
        kind = "bool" if declared.of_type(bool) else "args" if declared.repeatable else "string"
        about = f"default of {declared.flag.name.replace('--', PREFIX, 1)}"
        default = [] if declared.repeatable else declared.default
        parser.addini(f"meshwake_{declared.field}", about, type=kind, default=default)


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
    """What pytest was given: on its command line, else in its settings. Raises BadInput for a
    number in the settings that is none."""
    values = {}
    for declared in declared_in(RunFlags):
        name = f"meshwake_{declared.field}"
        value = getoption(name)
        if getini is not None and value in (declared.default, []):
            value = getini(name) or value
            if declared.of_type(int) and isinstance(value, str):
                value = _ini_number(name, value, declared.flag.minimum)
        if declared.of_type(Path) and value is not None:
            value = Path(value)
        values[declared.field] = value
    return _build(RunFlags, values)


def _ini_number(name: str, text: str, minimum: int | None) -> int:
    try:
        return _whole_number(text, minimum)
    except argparse.ArgumentTypeError as error:
        raise BadInput(f"{name}: {error}") from error


def _build(flags: type[AnyFlags], values: Mapping[str, Any]) -> AnyFlags:
    """Lists become tuples; None, which typer has for a list that was not given, an empty one."""
    repeatable = {each.field for each in declared_in(flags) if each.repeatable}
    built: dict[str, Any] = {
        name: tuple(value or ()) if name in repeatable else value for name, value in values.items()
    }
    return flags(**built)


# --- What they mean together ----------------------------------------------------------------------


def options_from(flags: RunFlags) -> Options:
    """`flags`, checked. Raises BadInput where they contradict each other."""
    return Options(
        lab=flags.lab,
        istio=flags.istio,
        ztunnel=flags.ztunnel,
        seed=flags.seed,
        keep_run=flags.keep_run,
        real_time=flags.real_time,
        cluster=planned_cluster(flags),
        as_class=flags.as_class,
        goal=_goal(flags),
        fixes=_fixes(flags.fix),
    )


def _goal(flags: RunFlags) -> Goal | None:
    """Expectations are written for what a scenario deploys: with another fix they say nothing."""
    if flags.goal is not None and flags.goal not in get_args(Goal):
        raise invalid_choice("--goal", flags.goal, get_args(Goal))
    return "holds" if flags.goal or flags.fix else None


def _fixes(names: tuple[str, ...]) -> tuple[FixName, ...]:
    for name in names:
        if name not in get_args(FixName):
            raise invalid_choice("--fix", name, get_args(FixName))
    return cast(tuple[FixName, ...], names)


def planned_cluster(flags: LabFlags) -> PlannedCluster:
    """The cluster that `flags` describe; one with defaults for the other labs. Raises BadInput
    where they contradict each other."""
    _check_lab(flags)
    way = _clock_way(flags)
    _check_clock(flags, way)
    _check_kubeconfig(flags)
    return PlannedCluster(
        clock=way,
        allow_own_clock=flags.allow_own_clock,
        suspend_command=flags.suspend_command,
        kubeconfig=None if flags.kubeconfig is None else str(flags.kubeconfig.resolve()),
        context=flags.context,
        known_as=flags.known_as,
        lapse=way == "process" and not flags.real_time,
        **cluster_fields(flags),
    )


def cluster_fields(flags: ClusterFlags) -> dict[str, Any]:
    """The values of ClusterFlags as fields of a PlannedCluster. Raises BadInput."""
    values = {each.name: getattr(flags, each.name) for each in fields(ClusterFlags)}
    return values | {"folder": _folder(flags.folder)}


def _folder(folder: Path | None) -> str | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise invalid("--folder", str(folder), "a directory with images/, charts/ and manifests/")
    return str(folder.resolve())


def _check_lab(flags: LabFlags) -> None:
    """Options of a cluster are for lab kind only; --real-time means something on every lab."""
    where = {each.flag.name for each in declared_in(WhereFlags)}
    given = [name for name in given_in(flags, LabFlags) if name not in where]
    if given and flags.lab != "kind":
        raise BadInput(f"{', '.join(given)}: only for a cluster; leave out, or use --lab kind")


def _clock_way(flags: LabFlags) -> ClockWay:
    if flags.clock is None:
        return _default_clock_way(flags)
    if flags.clock not in get_args(ClockWay):
        raise invalid_choice("--clock", flags.clock, get_args(ClockWay))
    return cast(ClockWay, flags.clock)


def _default_clock_way(flags: LabFlags) -> ClockWay:
    if flags.suspend_command:
        return "command"
    # The clock of an engine's machine can be set only where the engine is known, which is where we
    # made the cluster.
    return "engine" if flags.kubeconfig is None else "process"


def _check_clock(flags: LabFlags, way: ClockWay) -> None:
    if (way == "command") != (flags.suspend_command is not None):
        raise BadInput(
            "--clock command and --suspend-command COMMAND go together; give both, or neither"
        )
    if flags.allow_own_clock and way != "engine":
        raise BadInput(
            f"--allow-own-clock: --clock {way} never sets this machine's clock; leave it out"
        )


def _check_kubeconfig(flags: LabFlags) -> None:
    """A cluster that exists is made of what it is made of: options about its parts are refused."""
    if flags.kubeconfig is None:
        context = flags.context or flags.known_as
        if context:
            raise BadInput(f"--context {context}: needs --kubeconfig PATH, the file it is in")
        return
    made_of = given_in(flags, ClusterFlags)
    if made_of:
        raise BadInput(
            f"{', '.join(made_of)}: only for a cluster that meshwake makes; leave out with "
            "--kubeconfig"
        )


def command_line_of(cluster: PlannedCluster) -> list[str]:
    """The options that make `cluster`, ready for a shell."""
    words = []
    for declared in declared_in(LabFlags):
        # --lab and --real-time are not about the cluster but about the case.
        if declared.field in PlannedCluster.model_fields:
            words += _typed(declared, getattr(cluster, declared.field))
    return words


def _typed(declared: Declared, value: Any) -> list[str]:
    """How one option is typed to have `value`; nothing for its default."""
    name = declared.flag.name
    if value is True:
        return [name]
    if declared.repeatable:
        return [f"{name} {shlex.quote(each)}" for each in value]
    return [] if value == declared.default else [f"{name} {shlex.quote(str(value))}"]
