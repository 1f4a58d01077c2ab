"""What a person may say of a cluster of lab `kind`: each option once, for every door that takes it.

The fields of `ClusterWords` are the options of `up`, `down`, `status`, those of `LabWords` besides
them the options of `run`, `bisect` and pytest. A command gets them by `@with_words`, pytest by
`add_to_pytest`; what they mean together says `planned_cluster`. None, False and () mean that
nothing was said.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_type_hints

from meshwake.core.errors import BadInput
from meshwake.core.plan import ClockWay, PlannedCluster
from meshwake.core.refusal import invalid, invalid_choice

Words = TypeVar("Words", bound="ClusterWords")
AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """What a run is asked for, checked: which labs and versions, with what, and what to keep.
    `cluster` is for lab kind, `as_class` for lab model."""

    lab: str = AUTO
    istio: tuple[str, ...] = ()
    ztunnel: Path | None = None
    seed: int = 0
    keep_run: bool = False
    real_time: bool = False
    cluster: PlannedCluster = field(default_factory=PlannedCluster)
    as_class: str | None = None


@dataclass(frozen=True)
class Option:
    """How one field is typed on a command line."""

    flag: str
    help: str
    metavar: str | None = None


@dataclass(frozen=True)
class ClusterWords:
    """Which cluster of ours: its name, or what it is made of."""

    name: Annotated[
        str | None, Option("--name", "The cluster; meshwake- goes before it.", "NAME")
    ] = None
    profile: Annotated[
        str | None, Option("--profile", "What it is made of: core (default), or full: everything.")
    ] = None
    kubernetes: Annotated[
        str | None, Option("--kubernetes", "Of its nodes, such as 1.34.", "VERSION")
    ] = None
    workers: Annotated[
        int | None, Option("--nodes", "Its workers, beside the control plane: 2.", "N")
    ] = None
    with_parts: Annotated[tuple[str, ...], Option("--with", "Beside the profile's.", "PART")] = ()
    without_parts: Annotated[tuple[str, ...], Option("--without", "Left out.", "PART")] = ()
    mirror: Annotated[str | None, Option("--mirror", "One registry for everything.", "HOST")] = None
    folder: Annotated[
        Path | None,
        Option("--folder", "Has images/, charts/, manifests/: no network needed.", "DIR"),
    ] = None


@dataclass(frozen=True)
class LabWords(ClusterWords):
    """And how its clocks are moved, or which other cluster."""

    clock: Annotated[
        str | None,
        Option("--clock", "How lab kind moves clocks: engine (default), command or process."),
    ] = None
    allow_own_clock: Annotated[
        bool, Option("--allow-own-clock", "Let --clock engine set the clock of this very machine.")
    ] = False
    suspend_command: Annotated[
        str | None, Option("--suspend-command", "What --clock command runs to suspend.", "COMMAND")
    ] = None
    kubeconfig: Annotated[Path | None, Option("--kubeconfig", "A cluster that exists.", "PATH")] = (
        None
    )
    context: Annotated[str | None, Option("--context", "The context of --kubeconfig.")] = None
    known_as: Annotated[
        str | None,
        Option("--i-know", "This context may be broken, whatever it looks like.", "CONTEXT"),
    ] = None
    real_time: Annotated[
        bool,
        Option(
            "--real-time",
            "Use the numbers of the [real_time] table; on lab kind, skip no idle time.",
        ),
    ] = False


def options_of(words: type[ClusterWords]) -> Iterator[tuple[str, Any, Option, Any]]:
    """Name, type, option and default of every field."""
    types = get_type_hints(words, include_extras=True)
    for each in fields(words):
        type_, option = get_args(types[each.name])
        yield each.name, type_, option, each.default


def with_words(words: type[Words]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A typer command that takes the options of `words` besides its own, and gets them as its
    parameter `words`."""
    import typer

    def parameter(name: str, type_: Any, option: Option, default: Any) -> inspect.Parameter:
        said = typer.Option(option.flag, metavar=option.metavar, help=option.help)
        if default == ():
            type_, default = list[str] | None, None
        annotation = Annotated[type_, said]
        return inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
        )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            each
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.name != "words"
        ]
        added = [parameter(*each) for each in options_of(words)]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            said = {each.name: given.pop(each.name) for each in added}
            command(**given, words=_words(words, said))

        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
        return run

    return decorate


def add_to_pytest(group: Any) -> None:
    """The options of lab kind, in the same words, for pytest's command line."""
    for name, type_, option, default in options_of(LabWords):
        about: dict[str, Any] = {
            "dest": f"meshwake_{name}",
            "default": default,
            "help": option.help,
        }
        if type_ is bool:
            about["action"] = "store_true"
        else:
            about["metavar"] = option.metavar
            about |= {"action": "append", "default": []} if default == () else {}
            about |= {"type": int} if int in get_args(type_) else {}
            about |= {"type": Path} if Path in get_args(type_) else {}
        group.addoption(option.flag, **about)


def from_pytest(getoption: Callable[[str], Any]) -> LabWords:
    """What pytest was given."""
    return _words(
        LabWords, {each.name: getoption(f"meshwake_{each.name}") for each in fields(LabWords)}
    )


def _words(words: type[Words], said: Mapping[str, Any]) -> Words:
    """Of what may be repeated typer and pytest give lists, and typer None when it was not said at
    all."""
    lists = {name for name, _, _, default in options_of(words) if default == ()}
    given: dict[str, Any] = {
        name: tuple(value or ()) if name in lists else value for name, value in said.items()
    }
    return words(**given)


def said_in(words: ClusterWords, of: type[ClusterWords] | None = None) -> list[str]:
    """The options of `of` (None: all of its kind) that were said."""
    options = options_of(of or type(words))
    return [option.flag for name, _, option, default in options if getattr(words, name) != default]


def planned_cluster(lab: str, words: LabWords) -> PlannedCluster:
    """What `words` mean for a run on `lab`. Raises BadInput where they do not fit together."""
    said = [
        option for option in said_in(words) if option != "--real-time"
    ]  # other labs have those numbers too
    if said and lab != "kind":
        raise BadInput(f"{', '.join(said)}: is about a cluster; leave it out, or say --lab kind")
    way = _way(words)
    if (way == "command") != (words.suspend_command is not None):
        raise BadInput(
            "--clock command and --suspend-command COMMAND go together; give both, or neither"
        )
    if words.allow_own_clock and way != "engine":
        raise BadInput(
            f"--allow-own-clock: --clock {way} never sets this machine's clock; leave it out"
        )
    if words.kubeconfig is None and (words.context or words.known_as):
        raise BadInput(
            f"--context {words.context or words.known_as}: of which file? give --kubeconfig "
            "PATH too"
        )
    _check_place(words)
    return PlannedCluster(
        clock=way,
        allow_own_clock=words.allow_own_clock,
        suspend_command=words.suspend_command,
        kubeconfig=None if words.kubeconfig is None else str(words.kubeconfig.resolve()),
        context=words.context,
        known_as=words.known_as,
        lapse=way == "process" and not words.real_time,
        **cluster_said(words),
    )


def cluster_said(words: ClusterWords) -> dict[str, Any]:
    """The fields of `ClusterWords` as a PlannedCluster has them; no profile means core. Raises
    BadInput."""
    said = {each.name: getattr(words, each.name) for each in fields(ClusterWords)}
    return said | {"profile": words.profile, "folder": _folder(words)}


def _folder(words: ClusterWords) -> str | None:
    if words.folder is None:
        return None
    if not words.folder.is_dir():
        raise invalid(
            "--folder", str(words.folder), "a directory with images/, charts/ and manifests/"
        )
    return str(words.folder.resolve())


def _way(words: LabWords) -> ClockWay:
    # The clock of an engine's machine can be set only where the engine is known, which is where we
    # made the cluster.
    otherwise = (
        "command"
        if words.suspend_command
        else "process"
        if words.kubeconfig is not None
        else "engine"
    )
    way = words.clock or otherwise
    if way not in get_args(ClockWay):
        raise invalid_choice("--clock", way, get_args(ClockWay))
    return cast(ClockWay, way)


def _check_place(words: LabWords) -> None:
    """A cluster of ours and one that exists are two."""
    ours = said_in(words, ClusterWords)
    if words.kubeconfig is not None and ours:
        one = len(ours) == 1
        raise BadInput(
            f"{', '.join(ours)}: {'says' if one else 'say'} what a cluster of ours is made of; "
            f"leave {'it' if one else 'them'} out with --kubeconfig"
        )


def as_typed(cluster: PlannedCluster) -> list[str]:
    """The options that make `cluster`, ready for a shell."""
    typed = []
    for name, _, option, default in options_of(LabWords):
        if name == "real_time":
            continue  # not said of the cluster but of the run: see Case
        value = getattr(cluster, name)
        if value is True:
            typed.append(option.flag)
        elif isinstance(value, tuple):
            typed += [f"{option.flag} {shlex.quote(each)}" for each in value]
        elif value != default:
            typed.append(f"{option.flag} {shlex.quote(str(value))}")
    return typed
