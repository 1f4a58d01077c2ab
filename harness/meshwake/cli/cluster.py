"""meshwake up | down | status: bring up, delete and examine clusters of lab kind.

Results go to stdout, progress to stderr. Errors are raised as HarnessError;
harness/meshwake/cli/app.py prints them and ends with their exit code. `--dry-run` touches nothing.
What speaks to engine and Kubernetes is imported when a command runs: it takes half a second, which
the other commands need not wait.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from meshwake.cli.options import DryRunOption, JsonOption
from meshwake.cli.output import print_json, print_text, say
from meshwake.core.durations import NS_PER_S, format_duration, parse_option_ns
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.json_types import JsonObject, MutableJsonObject, list_at, object_at, texts_at
from meshwake.core.plan import PlannedCluster
from meshwake.runner.flags import ClusterFlags, given_in, with_flags
from meshwake.runner.options import cluster_fields

if TYPE_CHECKING:
    from meshwake.cluster.cluster import Cluster, PrintedStep
    from meshwake.cluster.docker import DockerEngine, Engine
    from meshwake.cluster.stack.choice import Choice
    from meshwake.cluster.stack.pins import Pins
    from meshwake.cluster.steps import Progress

IstioOption = Annotated[
    str | None, typer.Option("--istio", metavar="VERSION", help="1.30, or in full 1.30.7.")
]


WORKERS = 2


def add_commands(app: typer.Typer) -> None:
    """Adds up, down and status to `app`."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)


@with_flags(ClusterFlags)
def up(
    istio: IstioOption = None,
    lifetime: Annotated[
        str, typer.Option("--lifetime", help="Of workload certificates, such as 10m.")
    ] = "10m",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    *,
    flags: ClusterFlags,
) -> None:
    """Bring a cluster up on kind, or go on where an earlier up ended."""
    from meshwake.cluster.cluster import plan_up
    from meshwake.cluster.stack.choice import choose_stack
    from meshwake.cluster.stack.pins import read_pins

    pins, wanted = read_pins(), _described(flags)
    choice = choose_stack(
        pins,
        profile=wanted.profile or "core",
        istio=istio,
        kubernetes=wanted.kubernetes,
        workers=WORKERS if wanted.workers is None else wanted.workers,
        name=wanted.name,
        with_parts=wanted.with_parts,
        without_parts=wanted.without_parts,
        lifetime_s=_whole_seconds(lifetime),
        mirror=wanted.mirror,
    )
    folder = Path(wanted.folder) if wanted.folder is not None else None
    if dry_run:
        _print_plans({f"up {choice.name}": plan_up(choice, pins)}, as_json)
        return
    _warn_outside_support(choice, pins)

    # Before anything is started: certificates of a cluster that begins on a moved clock are wrong.
    _restore_clocks()
    cluster = _bring_up(choice, pins, folder)
    if as_json:
        print_json(_cluster_json(cluster))
    else:
        print_text(f"{cluster.name} is up: {', '.join(cluster.nodes)}")
        print_text(f"kubeconfig: {cluster.kubeconfig}")


def _bring_up(choice: Choice, pins: Pins, folder: Path | None) -> Cluster:
    """What is missing on this machine is reported all at once: programs, and the engine."""
    from meshwake.cluster.cluster import bring_up
    from meshwake.cluster.docker import open_engine
    from meshwake.cluster.tools import InstalledTools, look_for_tools

    found, problems = look_for_tools({"kind": pins.tools.kind, "helm": pins.tools.helm})
    engine = None
    try:
        engine = open_engine()
    except LabUnavailable as error:
        problems.append(str(error))

    # All problems in one message: installing one thing after the other is tedious.
    if problems or engine is None:
        raise LabUnavailable("\n".join(problems))
    try:
        return bring_up(choice, pins, engine, InstalledTools(found), say_progress, folder=folder)
    finally:
        engine.close()


@with_flags(ClusterFlags)
def down(
    istio: IstioOption = None,
    every: Annotated[
        bool, typer.Option("--all", help="All clusters of ours; never another.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    *,
    flags: ClusterFlags,
) -> None:
    """Delete a cluster: its machines, and what is remembered of it."""
    from meshwake.cluster.cluster import our_clusters, plan_down, remove_looks, take_down
    from meshwake.cluster.docker import open_engine

    wanted = _described(flags)
    given = given_in(flags, ClusterFlags) + (["--istio"] if istio is not None else [])

    # `down --all --name x`: either could be meant, and one of them deletes too much.
    if every and given:
        raise BadInput(f"{', '.join(given)} and --all: give one of the two")
    full = _full(wanted.name) if wanted.name is not None else None

    # With a name the plan needs no engine; else the engine is queried for the clusters, below.
    if dry_run and full is not None:
        _print_plans({f"down {full}": plan_down(full)}, as_json)
        return
    _restore_clocks()
    engine = open_engine()
    try:
        there = our_clusters(engine)
        names = there if every else (full or _the_one(engine, wanted, istio),)
        if dry_run:
            _print_plans({f"down {each}": plan_down(each) for each in names}, as_json)
            return
        for each in names:
            _refuse_if_in_use(each)
            take_down(each, engine, say_progress)
        if every:
            remove_looks(engine)
    finally:
        engine.close()
    # Not an error: a script may delete what an earlier one has deleted. But it may be a typing
    # error, too.
    deleted = [each for each in names if each in there]
    if as_json:
        print_json({"down": deleted})
    elif deleted or every:
        print_text(f"deleted: {', '.join(deleted) or 'nothing was there'}")
    else:
        print_text(f"nothing deleted: no cluster {full} is here; {_listed(there)}")


def _listed(names: Sequence[str]) -> str:
    return f"there are: {', '.join(names)}" if names else "there is none of meshwake's"


def _described(flags: ClusterFlags) -> PlannedCluster:
    return PlannedCluster(**cluster_fields(flags))


def _the_one(engine: Engine, wanted: PlannedCluster, istio: str | None) -> str:
    from meshwake.cluster.choosing import fitting, remembered, the_one

    there = remembered(engine)
    return the_one(fitting(there, wanted, istio), there, "down", "--name NAME, or --all").name


def _refuse_if_in_use(name: str) -> None:
    """A run from another machine, or by way of --kubeconfig, holds no lock here. A cluster that
    does not answer is not in use."""
    from meshwake.cluster.cluster import find_cluster
    from meshwake.cluster.hold import InUse, hold
    from meshwake.cluster.real_time import SystemTime
    from meshwake.kubernetes.api import Unreachable

    cluster = find_cluster(name)
    if cluster is None:
        return

    # Taken and released again: between this and the deletion a run could begin, which then fails
    # with a cluster that is gone.
    try:
        with cluster.opened() as kubernetes, hold(kubernetes, SystemTime(), name, "down"):
            pass
    except InUse:
        raise
    except (Unreachable, HarnessError):
        return


@with_flags(ClusterFlags)
def status(istio: IstioOption = None, as_json: JsonOption = False, *, flags: ClusterFlags) -> None:
    """Say which clusters of ours there are, what they were made of, and whether they are well."""
    from meshwake.cluster.choosing import fitting, remembered

    wanted = _described(flags)
    _restore_clocks()

    # Without an engine there is still what is remembered here.
    engine, problem = _engine_or_why_not()
    try:
        fit = [one.name for one in fitting(remembered(engine), wanted, istio)]
        names = (_full(wanted.name),) if wanted.name else fit
        clusters = [_status_of(each, engine) for each in names]
    finally:
        if engine is not None:
            engine.close()
    if as_json:
        print_json({"engine": problem or "answers", "clusters": clusters})
        return
    if problem is not None:
        print_text(f"engine: {problem}")
    for each in clusters:
        _print_status(each)
    if not clusters:
        print_text("no cluster of ours; bring one up: meshwake up")


def _restore_clocks() -> None:
    """A harness that was killed together with its watchdog may have left an engine's clock where it
    moved it."""
    from meshwake.cluster.state import intents_dir

    # Nearly always there is nothing, and then the movers need not be imported.
    if not any(intents_dir().glob("*")):
        return
    from meshwake.clocks.movers.restore import restore_leftovers

    for line in restore_leftovers(intents_dir()):
        say(f"clock of an engine that a killed run left: {line}")


def _engine_or_why_not() -> tuple[DockerEngine | None, str | None]:
    from meshwake.cluster.docker import open_engine

    try:
        return open_engine(), None
    except LabUnavailable as error:
        return None, str(error)


class _Health(TypedDict):
    """One finding of the health checks."""

    check: str
    verdict: str
    evidence: str


class _Queried(TypedDict):
    """What a running cluster itself reports; nothing of one that does not run."""

    runs: JsonObject | None
    drift: list[str]
    health: list[_Health]


class _Status(_Queried):
    """A row of `meshwake status --json`."""

    name: str
    in_use: str | None
    state: str
    machines: dict[str, str]
    age_s: int | None
    choice: JsonObject | None
    kubeconfig: str | None


def _status_of(name: str, engine: Engine | None) -> _Status:
    from meshwake.cluster.cluster import find_cluster
    from meshwake.cluster.docker import KIND_CLUSTER_LABEL
    from meshwake.cluster.state import ClusterState, choice_to_json

    record, cluster = ClusterState.of(name).read(), find_cluster(name)
    machines = engine.containers({KIND_CLUSTER_LABEL: name}) if engine is not None else ()
    runs = bool(machines) and all(machine.state == "running" for machine in machines)

    # A cluster whose machines are stopped answers nothing: every query would end in a timeout.
    running = cluster if runs else None
    in_use = _at_work(name, running)

    # Only where no run is at work: what it moved on purpose must stay.
    if running is not None and in_use is None:
        _put_in_order(running)
    begun_wall_s = None if record is None else record.begun_wall_s
    choice = None if record is None else record.choice
    return {
        "name": name,
        "in_use": in_use,
        "state": _state_word(cluster is not None, bool(machines), runs, engine is not None, in_use),
        "machines": {machine.name: machine.state for machine in machines},
        "age_s": None if begun_wall_s is None else int(time.time()) - begun_wall_s,
        "choice": None if choice is None else choice_to_json(choice),
        "kubeconfig": None if cluster is None else str(cluster.kubeconfig),
        **_queried(running, engine, in_use),
    }


def _queried(cluster: Cluster | None, engine: Engine | None, in_use: str | None) -> _Queried:
    """What a running cluster itself reports."""
    from meshwake.cluster.cluster import check_health

    if cluster is None:
        return {"runs": None, "drift": [], "health": []}
    health: list[_Health] = [
        {"check": finding.check, "verdict": finding.verdict, "evidence": finding.evidence}
        for finding in check_health(cluster, engine)
    ]

    # A run that is at work changes what `up` made, on purpose.
    drift = _drift(cluster) if in_use is None else []
    return {"runs": _versions(cluster), "drift": drift, "health": health}


def _at_work(name: str, cluster: Cluster | None) -> str | None:
    """Which command works on the cluster, and which fault is under way: by the cluster's own Lease,
    which says more and knows of other machines; else by the lock of its state, which is there
    before the cluster is."""
    from meshwake.cluster.hold import at_work
    from meshwake.cluster.state import ClusterState

    if cluster is not None:
        try:
            with cluster.opened() as kubernetes:
                if (command := at_work(kubernetes)) is not None:
                    return command
        except HarnessError as error:
            say(f"{name}: whether a run is at work is unknown: {error}")
    holder = ClusterState.of(name).holder()
    return None if holder is None else str(holder)


def _put_in_order(cluster: Cluster) -> None:
    """Undoes what a run left that was killed."""
    from meshwake.cluster.real_time import SystemTime
    from meshwake.cluster.reset import restore_after_kill

    try:
        with cluster.opened() as kubernetes:
            for line in restore_after_kill(kubernetes, SystemTime(), cluster.name, "status"):
                say(f"{cluster.name}: left by a run that was killed: {line}")
    except HarnessError as error:
        say(f"{cluster.name}: what a killed run may have left could not be undone: {error}")


def _versions(cluster: Cluster) -> MutableJsonObject | None:
    from meshwake.cluster.cluster import find_versions

    try:
        return find_versions(cluster).to_json()
    except HarnessError:
        return None  # health says that it does not answer


def _drift(cluster: Cluster) -> list[str]:
    from meshwake.cluster.cluster import find_drift

    try:
        return find_drift(cluster)
    except HarnessError:
        return []  # as above: health has the reason


def _version_words(runs: JsonObject) -> str:
    kubelets = ", ".join(sorted(set(texts_at(runs, "kubernetes").values())))

    # A build that several releases share is named with all of them.
    releases: set[str] = set()
    for pod in object_at(runs, "ztunnel"):
        releases |= {str(release) for release in list_at(runs, "ztunnel", pod)}
    ztunnel = ", ".join(sorted(releases)) or "of no known release"
    istiod = runs["istiod"] or "that does not answer"
    return f"Kubernetes {kubelets}, istiod {istiod}, ztunnel {ztunnel}"


def _state_word(
    known: bool, machines: bool, runs: bool, has_engine: bool, in_use: str | None
) -> str:
    if not has_engine:
        return "unknown: the engine does not answer"

    # The state on disk outlives machines that were removed with docker, or by a new start of it.
    if not machines:
        return "gone: only its memory is left"
    if not known:
        return "being made" if in_use is not None else "half made, or its memory is lost"
    return "up" if runs else "stopped"  # docker stopped them, or the machine was restarted


def _print_status(each: _Status) -> None:
    age = ""
    if each["age_s"] is not None:
        # Not below 0: the wall clock of this machine may have been set back since.
        age_s = max(each["age_s"], 0)
        age = f", begun {format_duration(age_s * NS_PER_S)} ago"
    print_text(f"{each['name']}: {each['state']}{age}")
    if each["choice"] is not None:
        choice = each["choice"]
        print_text(
            f"  requested: Istio {choice['istio']} on Kubernetes {choice['kubernetes']}, "
            f"{', '.join(str(part) for part in list_at(choice, 'parts'))}"
        )
    if each["runs"] is not None:
        print_text(f"  runs: {_version_words(each['runs'])}")
    if each["in_use"] is not None:
        print_text(f"  in use: {each['in_use']}")
    for machine, state in each["machines"].items():
        print_text(f"  {machine}: {state}")
    for changed in each["drift"]:
        print_text(f"  changed since up: {changed} (meshwake up restores it)")
    for finding in each["health"]:
        print_text(f"  {finding['check']}: {finding['verdict']}: {finding['evidence']}")


def say_progress(progress: Progress) -> None:
    """One line on stderr for each thing that happens."""
    say(f"{progress}")


def _warn_outside_support(choice: Choice, pins: Pins) -> None:
    warning = pins.outside_support(choice.istio, choice.kubernetes)
    if warning is not None and "istio" in choice.parts:
        say(f"note: {warning}")


def _whole_seconds(text: str) -> int:
    return parse_option_ns(text, "--lifetime") // NS_PER_S


def _full(name: str) -> str:
    from meshwake.cluster.stack.choice import full_name

    return full_name(name)


def _cluster_json(cluster: Cluster) -> MutableJsonObject:
    from meshwake.cluster.state import choice_to_json

    return {
        "name": cluster.name,
        "kubeconfig": str(cluster.kubeconfig),
        "nodes": list(cluster.nodes),
        "choice": choice_to_json(cluster.choice) if cluster.choice is not None else None,
    }


def _print_plans(plans: Mapping[str, list[PrintedStep]], as_json: bool) -> None:
    if as_json:
        print_json([step for steps in plans.values() for step in steps])
    else:
        print_text(
            "\n\n".join("\n".join(plan_lines(title, steps)) for title, steps in plans.items())
        )


def plan_lines(title: str, steps: list[PrintedStep]) -> Iterator[str]:
    """A plan for a person."""
    yield title
    for number, step in enumerate(steps, start=1):
        yield ""
        yield f"{number}. {step['step']}: {step['title']} (within {step['within_s']:.0f} s)"
        yield from (f"     {line}" for line in step["does"])
        yield from (f"     until {line}" for line in step["awaits"])
