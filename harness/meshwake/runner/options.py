"""What the options of a run mean together: `options_from` checks what was typed (flags.py) and gives
the `Options` that the rest of the program takes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast, get_args

from meshwake.core.errors import BadInput
from meshwake.core.plan import ClockWay, Goal, PlannedCluster
from meshwake.core.refusal import invalid, invalid_choice
from meshwake.core.scenario import FixName
from meshwake.runner.flags import (
    AUTO,
    ClusterFlags,
    Declared,
    LabFlags,
    RunFlags,
    WhereFlags,
    declared_in,
    given_in,
)


@dataclass(frozen=True)
class Options:
    """What is requested of a run, checked: which labs and versions, with what, and what to keep.
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

    if flags.goal or flags.fix:
        return "holds"
    return None


def _fixes(names: tuple[str, ...]) -> tuple[FixName, ...]:
    for name in names:
        if name not in get_args(FixName):
            raise invalid_choice("--fix", name, get_args(FixName))
    return cast(tuple[FixName, ...], names)


def planned_cluster(flags: LabFlags) -> PlannedCluster:
    """The cluster that `flags` describe; one with defaults for the other labs. Raises BadInput
    where they contradict each other."""
    _check_lab(flags)
    if flags.lab != "kind":
        return PlannedCluster()

    way = _clock_way(flags)
    _check_clock(flags, way)
    _check_kubeconfig(flags)
    return PlannedCluster(
        clock=way,
        allow_own_clock=flags.allow_own_clock,
        suspend_command=flags.suspend_command,
        # Absolute, as it goes into the plan on disk and may be read in another directory.
        kubeconfig=None if flags.kubeconfig is None else str(flags.kubeconfig.resolve()),
        context=flags.context,
        known_as=flags.known_as,
        # Only clocks of processes can be made to skip time; those of a kernel take as long.
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

    # Looked at now: a cluster would fail for it minutes later.
    if not folder.is_dir():
        raise invalid("--folder", str(folder), "a directory with images/, charts/ and manifests/")
    return str(folder.resolve())


def _check_lab(flags: LabFlags) -> None:
    """Options of a cluster are for lab kind only; --real-time means something on every lab."""
    if flags.lab == "kind":
        return

    of_every_lab = {each.flag.name for each in declared_in(WhereFlags)}
    # In the order in which they are declared, which is that of --help.
    for_cluster = [name for name in given_in(flags, LabFlags) if name not in of_every_lab]
    if for_cluster:
        raise BadInput(
            f"{', '.join(for_cluster)}: only for a cluster; leave out, or use --lab kind"
        )


def _clock_way(flags: LabFlags) -> ClockWay:
    if flags.clock is None:
        return _default_clock_way(flags)

    if flags.clock not in get_args(ClockWay):
        raise invalid_choice("--clock", flags.clock, get_args(ClockWay))
    return cast(ClockWay, flags.clock)


def _default_clock_way(flags: LabFlags) -> ClockWay:
    # Each of these two has one way that it is for.
    if flags.suspend_command:
        return "command"
    if flags.allow_own_clock:
        return "engine"

    # The only way that skips idle time, works on clusters of others, and touches no clock of the
    # machine: a week takes minutes, with the scenario's own numbers.
    return "process"


def _check_clock(flags: LabFlags, way: ClockWay) -> None:
    # Either without the other: a command that is never run, or nothing to run.
    has_command = flags.suspend_command is not None
    if (way == "command") != has_command:
        raise BadInput(
            "--clock command and --suspend-command COMMAND go together; give both, or neither"
        )

    # Consent to what does not happen: who gives it expects something else.
    if flags.allow_own_clock and way != "engine":
        raise BadInput(
            f"--allow-own-clock: --clock {way} never sets this machine's clock; leave it out"
        )


def _check_kubeconfig(flags: LabFlags) -> None:
    """A cluster that exists is made of what it is made of: options about its parts are refused."""
    if flags.kubeconfig is None:
        context = flags.context or flags.known_as
        # A context of the user's own file may be a production cluster: it is never taken by itself.
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
        if declared.field not in PlannedCluster.model_fields:
            continue
        words += _typed(declared, getattr(cluster, declared.field))
    return words


def _typed(declared: Declared, value: Any) -> list[str]:
    """How one option is typed to have `value`; nothing for its default."""
    name = declared.flag.name
    if value == declared.default:
        return []

    # A switch is its name alone.
    if value is True:
        return [name]
    if declared.repeatable:
        return [f"{name} {shlex.quote(each)}" for each in value]
    return [f"{name} {shlex.quote(str(value))}"]
