"""Which cluster of ours is meant: by its name, or by its description; the only one there is,
where it fits.

`run`, `down` and `status` take the words of `up` (harness/meshwake/runner/options.py). A cluster
fits them when it was made as they say; what was not given is as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwake.cluster.cluster import existing_cluster, our_clusters
from meshwake.cluster.docker import KIND_CLUSTER_LABEL, DockerEngine, Engine, open_engine
from meshwake.cluster.observe import running_versions
from meshwake.cluster.stack.choice import Choice, choose_stack, full_name
from meshwake.cluster.stack.pins import minor_of, read_pins
from meshwake.cluster.state import ClusterState
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.plan import Plan, PlannedCluster
from meshwake.kubernetes.api import Unreachable
from meshwake.kubernetes.through_kr8s import connect

WORKERS = 2


@dataclass(frozen=True)
class There:
    """A cluster of ours that is there. `choice`: what it was made of, None where that is not
    remembered here."""

    name: str
    choice: Choice | None


def clusters_there(engine: Engine | None) -> tuple[There, ...]:
    """Those that have machines; where no engine answers, those that are remembered."""
    names = our_clusters(engine)
    if engine is None:
        return _with_choice(names)

    machines = engine.containers({KIND_CLUSTER_LABEL: None})
    has_machines = {machine.labels[KIND_CLUSTER_LABEL] for machine in machines}
    return _with_choice([name for name in names if name in has_machines])


def remembered(engine: Engine | None) -> tuple[There, ...]:
    """All clusters of ours, also those of which only the memory is left."""
    return _with_choice(our_clusters(engine))


def _with_choice(names: Sequence[str]) -> tuple[There, ...]:
    found = []
    for name in names:
        record = ClusterState.of(name).read()
        choice = None if record is None else record.choice
        found.append(There(name, choice))
    return tuple(found)


def fitting(
    there: Sequence[There],
    wanted: PlannedCluster,
    istio: str | None = None,
    nodes: int = 0,
) -> tuple[There, ...]:
    """Those of `there` that `wanted` may mean, of this Istio and with so many nodes for
    workloads."""
    fit = []
    for one in there:
        why_not = list(misfits(one, wanted, istio, nodes))
        if not why_not:
            fit.append(one)
    return tuple(fit)


def the_one(
    fit: Sequence[There], there: Sequence[There], command: str, say: str = "--name NAME"
) -> There:
    """The only one of `fit`. Raises BadInput that lists which there are."""
    if len(fit) == 1:
        return fit[0]

    if fit:
        found = "which cluster?"
        shown = fit
    else:
        # None fits: then all that there are may help to choose.
        found = "no cluster fits that;" if there else "which cluster?"
        shown = there
    lines = [f"{command}: {found} say {say}; there are:"]
    lines += [described(one) for one in shown]
    if not shown:
        lines.append("  none")
    raise BadInput("\n".join(lines))


def described(one: There) -> str:
    """A line of a list of clusters."""
    if one.choice is None:
        return f"  {one.name}: how it was made is not recorded here"
    of = one.choice
    return (
        f"  {one.name}: Istio {of.istio} on Kubernetes {of.kubernetes}, {of.workers} workers, "
        f"{', '.join(sorted(of.parts))}"
    )


def misfits(
    one: There, wanted: PlannedCluster, istio: str | None = None, nodes: int = 0
) -> Iterator[str]:
    """Why `one` is not the cluster that `wanted` means, a phrase each. Where nothing is wanted,
    every cluster fits."""
    if wanted.name is not None and one.name != full_name(wanted.name):
        yield f"it is called {one.name}"

    if one.choice is not None:
        yield from _misfits_of_choice(one.choice, wanted, istio, nodes)
        return

    # What it was made of cannot be compared, so it fits by its name, or where nothing is wanted.
    wants_nothing = istio is None and wanted == PlannedCluster()
    if wanted.name is None and not wants_nothing:
        yield "how it was made is not recorded here"


def _misfits_of_choice(
    choice: Choice, wanted: PlannedCluster, istio: str | None, nodes: int
) -> Iterator[str]:
    # A release or its minor version: 1.28.1, 1.28.
    releases = (choice.istio, minor_of(choice.istio))
    yield from _differs("Istio", istio, istio, releases)
    yield from _differs("profile", wanted.profile, wanted.profile, (choice.profile,))

    # Kubernetes writes its own versions with a v, pins and choices are without.
    kubernetes = None if wanted.kubernetes is None else wanted.kubernetes.removeprefix("v")
    kubernetes_releases = (choice.kubernetes, minor_of(choice.kubernetes))
    yield from _differs("Kubernetes", wanted.kubernetes, kubernetes, kubernetes_releases)
    yield from _differs("workers", wanted.workers, wanted.workers, (choice.workers,))

    mirror = None if wanted.mirror is None else wanted.mirror.rstrip("/")
    yield from _differs("mirror", wanted.mirror, mirror, (choice.mirror,))

    for part in wanted.with_parts:
        if part not in choice.parts:
            yield f"without {part} there"
    for part in wanted.without_parts:
        if part in choice.parts:
            yield f"with {part} there"

    # The control plane's node takes workloads, too.
    nodes_there = choice.workers + 1
    if nodes_there < nodes:
        yield f"{nodes_there} nodes there, {nodes} needed"


def _differs(
    what: str,
    requested: object,
    value: object,
    there: tuple[object, ...],
) -> Iterator[str]:
    """`value` is `requested` in the form in which it is compared, `there` what it may be."""
    # What was not given is as it is.
    if requested is None or value in there:
        return
    yield f"{what} {there[0]} there, {requested} requested"


def choice_of(plan: Plan) -> Choice:
    """The cluster that would be made for `plan`: the same for all plans of a version, whatever
    their certificates (reset.py sets those). More than two nodes need a cluster of their own.
    Raises BadInput."""
    wanted = plan.cluster or PlannedCluster()
    profile = wanted.profile or "core"
    workers = wanted.workers or max(WORKERS, len(plan.nodes))
    name = f"{profile}-{plan.version.replace('.', '-')}"
    return choose_stack(
        read_pins(),
        profile=profile,
        istio=plan.version,
        kubernetes=wanted.kubernetes,
        workers=workers,
        name=wanted.name or (name if workers == WORKERS else f"{name}-{workers}w"),
        with_parts=wanted.with_parts,
        without_parts=wanted.without_parts,
        mirror=wanted.mirror,
    )


def choose_cluster(plan: Plan, engine: Engine) -> tuple[Choice, list[str]]:
    """The cluster that `plan` runs on, and what there is to say about it: the one that is there and
    fits, else the one that is to be made. Raises BadInput when several fit, or the one that is
    named does not."""
    wanted = plan.cluster or PlannedCluster()
    there = clusters_there(engine)
    fit = fitting(there, wanted, plan.version, len(plan.nodes))

    if wanted.name is None and fit:
        found = the_one(fit, there, "run").choice
        assert found is not None  # one whose making is not known fits only by its name
        return found, []

    named = _named(there, wanted)
    if named is None or named.choice is None:
        # None fits, so one is made; why not is printed, since it takes minutes.
        notes = [f"{one.name} is there, but {_why_not(one, plan)}" for one in there]
        return choice_of(plan), notes

    # A name that was typed means that cluster, and no new one.
    wrong = _why_not(named, plan)
    if wrong:
        raise BadInput(
            f"--name {wanted.name}: cluster {named.name} is there, but {wrong}; "
            "leave those options out, "
            f"choose another --name, or delete it: meshwake down --name {named.name}"
        )
    return named.choice, []


def _named(there: Sequence[There], wanted: PlannedCluster) -> There | None:
    if wanted.name is None:
        return None

    name = full_name(wanted.name)
    for one in there:
        if one.name == name:
            return one
    return None


def _why_not(one: There, plan: Plan) -> str:
    """Why `plan` cannot run on `one`; "" when it can."""
    wanted = plan.cluster or PlannedCluster()
    reasons = misfits(one, wanted, plan.version, len(plan.nodes))
    return "; ".join(reasons)


def version_there(wanted: PlannedCluster) -> str | None:
    """The Istio of the cluster that `wanted` means, None where there is none. Raises BadInput when
    several with different versions are meant."""
    if wanted.kubeconfig is not None:
        return _version_elsewhere(wanted)

    engine = _engine()
    there = clusters_there(engine)
    if engine is not None:
        engine.close()

    meant: list[There] = []
    releases: list[str] = []
    for one in fitting(there, wanted):
        if one.choice is not None:
            meant.append(one)
            releases.append(one.choice.istio)
    if not releases:
        return None

    # Several of one release may be meant: which of them, the run itself decides.
    if len(set(releases)) > 1:
        the_one(meant, there, "run")
    return releases[0]


def _version_elsewhere(wanted: PlannedCluster) -> str | None:
    """What the ztunnels of a cluster that is not ours report of themselves; None where they do not
    answer, and the run itself will say why."""
    assert wanted.kubeconfig is not None
    try:
        cluster = existing_cluster(
            Path(wanted.kubeconfig), wanted.context, known_as=wanted.known_as
        )
        kubernetes = connect(cluster.kubeconfig, cluster.context)
    except LabUnavailable:
        return None
    try:
        running = running_versions(kubernetes, ())
    except Unreachable:
        return None
    finally:
        kubernetes.close()

    # One that does not know its own release has none.
    for releases in running.ztunnels.values():
        if releases:
            return releases[0]
    return None


def _engine() -> DockerEngine | None:
    try:
        return open_engine()
    except LabUnavailable:
        return None
