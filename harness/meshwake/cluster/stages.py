"""The stages of the stack: what is put in, and that it is ready before the next.

Ready is what the cluster itself says of each object that a stage puts in
(harness/meshwake/kubernetes/rollouts.py): the workloads of a chart, our own objects, what a
Gateway's controller makes of it. That is looked at rather than left to `helm --wait`: a helm that
is killed while it waits leaves its release pending, which costs an uninstall, and it says nothing
of what it waits for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial

import yaml

from meshwake.cluster import acme_account
from meshwake.cluster.bring_up_context import BringUpContext
from meshwake.cluster.drift import WorkloadDrift, drift, read_release, restore_workload
from meshwake.cluster.gateway_status import recompute_stale
from meshwake.cluster.stack.pieces import Chart, Objects, Piece, RemoteManifest, Stage, labelled
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.core.json_types import JsonObject, object_at, texts_at
from meshwake.kubernetes.api import (
    Kubernetes,
    Refused,
    identity_of,
    kind_of,
    namespace_and_name,
    object_name,
)
from meshwake.kubernetes.labels import OUR_LABELS
from meshwake.kubernetes.rollouts import awaited_of, unmet, workloads
from meshwake.ztunnel.names import GATEWAY_LABEL

MARKS_NAMESPACE, MARKS_NAME = "kube-system", "meshwake-up"
FETCH_WITHIN_S = 120
_PASSING = {404, 409, 429}  # no such kind yet, another client was faster, too many requests
# By helm's status: what undoes it. A first installation that did not end has nothing to roll back
# to.
_PENDING = {"pending-install": "uninstall", "uninstalling": "uninstall"}


def stage_step(planned: Stage) -> BringUpStep[BringUpContext]:
    """The step that puts in one stage and waits until it is ready."""
    return BringUpStep(
        planned.name,
        planned.title,
        planned.within_s,
        partial(_take_stage, planned.name),
        tuple(line for piece in planned.pieces for line in piece_lines(piece)),
        tuple(awaited_lines(planned)),
        done=partial(_stage_done, planned.name),
    )


def awaited_lines(stage: Stage) -> Iterator[str]:
    """What a plan prints of what a stage waits for."""
    for piece in stage.pieces:
        yield from _awaited_of_piece(piece)

    for kind, namespace, name in stage.others:
        # Without its API group: Deployment.apps is a Deployment.
        plain_kind = kind.partition(".")[0]
        place = object_name(plain_kind, namespace, name or "*")
        yield f"{place}: {awaited_of(plain_kind)}"


def _awaited_of_piece(piece: Piece) -> Iterator[str]:
    if isinstance(piece, Chart):
        # Which workloads it has is known only when helm has rendered it.
        yield f"every workload of release {piece.release}: rolled out"
        return
    if not isinstance(piece, Objects):
        return

    for thing in piece.objects:
        awaited = awaited_of(str(thing["kind"]))
        # Most kinds are ready as soon as they are there.
        if awaited is not None:
            yield f"{identity_of(thing)}: {awaited}"


def piece_lines(piece: Piece) -> Iterator[str]:
    """What a plan says of a piece."""
    if isinstance(piece, Chart):
        source = f"{piece.repo} {piece.chart}" if piece.repo else piece.chart
        yield (
            f"helm upgrade --install {piece.release} --namespace {piece.namespace}  ({source} "
            f"{piece.version})"
        )
    elif isinstance(piece, RemoteManifest):
        yield f"apply {piece.url}"
    else:
        for thing in piece.objects:
            yield f"apply {identity_of(thing)}"


def stage_digest(stage: Stage) -> str:
    """Names the pieces of a stage: equal digests, nothing new to put in."""
    pieces = json.dumps([asdict(piece) for piece in stage.pieces], sort_keys=True)
    return hashlib.sha256(pieces.encode()).hexdigest()[:16]


def _stage_done(name: str, bringup: BringUpContext) -> str | None:
    stage = bringup.stage(name)
    if _marks(bringup).get(name) != stage_digest(stage):
        return None  # never put in, or its values have changed since
    if _is_account_forgotten(bringup, stage):
        return None
    if _not_ready(bringup, stage) is not None:
        return None

    # Last: it compares every workload of the stage.
    if stage_drift(bringup.kube(), stage):
        return None
    return "is in, and ready"


def _marks(bringup: BringUpContext) -> dict[str, str]:
    """stage -> its digest when it was last put in."""
    return texts_at(bringup.kube().read("ConfigMap", MARKS_NAMESPACE, MARKS_NAME), "data")


def _take_stage(name: str, bringup: BringUpContext, watch: Watch) -> None:
    stage = bringup.stage(name)
    if _is_account_forgotten(bringup, stage):
        watch.say("pebble was restarted and has no account any more; cert-manager gets a new one")
        unregistered = acme_account.forget(bringup.kube(), _certificates(stage))
        watch.wait_for("cert-manager to register with pebble", unregistered)

    for piece in stage.pieces:
        _put_in(bringup, watch, piece)

    # Its mark is the last thing: a stage that was cut short is put in again as a whole.
    watch.wait_for(
        f"{stage.title} to be as it was made", partial(_as_it_was_made, bringup, watch, stage)
    )
    watch.wait_for(f"{stage.title} to be ready", partial(_awaited, bringup, watch, stage))
    _mark(bringup, watch, name, stage_digest(stage))


def _certificates(stage: Stage) -> list[JsonObject]:
    found: list[JsonObject] = []
    for piece in stage.pieces:
        if isinstance(piece, Objects):
            found += _of_kind("Certificate", piece.objects)
    return found


def _of_kind(kind: str, things: Iterable[JsonObject]) -> list[JsonObject]:
    return [thing for thing in things if thing["kind"] == kind]


def _is_account_forgotten(bringup: BringUpContext, stage: Stage) -> bool:
    """Of the stage that has certificates."""
    if not _certificates(stage):
        return False
    return acme_account.is_forgotten(bringup.kube())


# Whether it is ready


def stage_drift(kube: Kubernetes, stage: Stage) -> list[WorkloadDrift]:
    """What of a stage is not as it was applied."""
    return drift(kube, _objects(kube, stage))


def _as_it_was_made(bringup: BringUpContext, watch: Watch, stage: Stage) -> None:
    """Restores what others changed: helm and `apply` leave alone what they did not set."""
    for changed in stage_drift(bringup.kube(), stage):
        watch.say(f"restoring {changed}")
        restore_workload(bringup.kube(), changed)


def _awaited(bringup: BringUpContext, watch: Watch, stage: Stage) -> str | None:
    """As `_not_ready`; a status that nothing would compute again is computed again."""
    seen = _not_ready(bringup, stage)
    if seen is None:
        return None

    # What it could not change is seen again at the next poll.
    with suppress(HarnessError):
        _recompute_gateways(bringup.kube(), watch, stage)
    return seen


def _recompute_gateways(kube: Kubernetes, watch: Watch, stage: Stage) -> None:
    gateways = _of_kind("Gateway", _there(kube, stage))
    for name in recompute_stale(kube, gateways):
        watch.say(f"{name}: its pods are ready and its status is stale; istiod computes it again")


def _not_ready(bringup: BringUpContext, stage: Stage) -> str | None:
    """None when everything of the stage is ready; else what was seen. A server that does not answer
    was seen, too."""
    seen = []
    try:
        for thing in _there(bringup.kube(), stage):
            missing = unmet(thing)
            if missing:
                seen.append(missing)
    except HarnessError as error:
        return str(error)
    return "; ".join(seen) or None


def _there(kube: Kubernetes, stage: Stage) -> Iterator[JsonObject]:
    """Everything that the stage waits for, as it is now."""
    for wanted in _objects(kube, stage):
        kind = str(wanted["kind"])
        if awaited_of(kind) is not None:
            yield from _there_of(kube, wanted)

    for kind, namespace, name in stage.others:
        yield from _others_there(kube, kind, namespace, name)


def _others_there(
    kube: Kubernetes, kind: str, namespace: str | None, name: str | None
) -> Sequence[JsonObject]:
    """What others put in, such as Nodes; name None: all of a kind."""
    if name is None:
        found = kube.all(kind, namespace)
    else:
        one = kube.read(kind, namespace, name)
        found = [] if one is None else [one]
    if found:
        return found

    metadata = {"name": name or "*", "namespace": namespace}
    plain_kind = kind.partition(".")[0]
    return [_missing({"kind": plain_kind, "metadata": metadata})]


def _there_of(kube: Kubernetes, wanted: JsonObject) -> Iterator[JsonObject]:
    namespace, name = namespace_and_name(wanted)
    found = kube.read(kind_of(wanted), namespace or None, name)
    yield _missing(wanted) if found is None else found

    if wanted["kind"] == "Gateway":
        # Its controller makes a Deployment for it, which routes nothing before it is rolled out.
        yield from kube.all("Deployment.apps", namespace, {GATEWAY_LABEL: name})


def _missing(wanted: JsonObject) -> JsonObject:
    """As if it existed, and had no status yet."""
    # A controller that has looked at it would have written the same generation into its status.
    metadata = {**object_at(wanted, "metadata"), "generation": 1}
    return {"kind": wanted["kind"], "metadata": metadata}


def _objects(kube: Kubernetes, stage: Stage) -> Iterator[JsonObject]:
    """What the stage has made: of charts, by helm's own record of them."""
    for piece in stage.pieces:
        if isinstance(piece, Objects):
            yield from piece.objects
        elif isinstance(piece, Chart):
            release = read_release(kube, piece.namespace, piece.release)
            if release is None:
                raise LabUnavailable(
                    f"helm knows of no release {piece.release} in {piece.namespace}"
                )
            yield from workloads(release.objects)


# Putting in


def _mark(bringup: BringUpContext, watch: Watch, name: str, digest: str) -> None:
    marks = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": MARKS_NAME, "namespace": MARKS_NAMESPACE, "labels": dict(OUR_LABELS)},
        "data": {**_marks(bringup), name: digest},
    }
    _apply(bringup, watch, marks)


def _put_in(bringup: BringUpContext, watch: Watch, piece: Piece) -> None:
    if isinstance(piece, Chart):
        _install(bringup, watch, piece)
        return

    things: Iterable[JsonObject]
    if isinstance(piece, RemoteManifest):
        things = [labelled(thing) for thing in _documents_of(bringup, watch, piece)]
    else:
        assert isinstance(piece, Objects)
        things = piece.objects
    for thing in things:
        _apply(bringup, watch, thing)


def _apply(bringup: BringUpContext, watch: Watch, thing: JsonObject) -> None:
    """Applied again while it is refused for a reason that passes: a kind that is not served yet, a
    webhook whose pod is not up yet. What the server finds wrong with the object itself is raised at
    once."""
    awaited = f"the server to take {identity_of(thing)}"
    watch.wait_for(awaited, partial(_refused, bringup, thing))


def _refused(bringup: BringUpContext, thing: JsonObject) -> str | None:
    """Applies `thing`; returns why it was refused, for a reason that passes."""
    try:
        bringup.kube().apply([thing])
    except Refused as error:
        if error.status not in _PASSING:
            raise
        return str(error)
    return None


def _documents_of(
    bringup: BringUpContext, watch: Watch, manifest: RemoteManifest
) -> list[JsonObject]:
    content = _manifest_in_folder(bringup, manifest)
    if content is None:
        watch.say(f"fetching {manifest.url}")
        within_s = min(FETCH_WITHIN_S, watch.left_s)
        content = bringup.dependencies.fetch(manifest.url, within_s)
    # A file that begins or ends with --- has an empty document there.
    return [thing for thing in yaml.safe_load_all(content) if thing]


def _manifest_in_folder(bringup: BringUpContext, manifest: RemoteManifest) -> bytes | None:
    if bringup.folder is None:
        return None

    path = bringup.folder / "manifests" / f"{manifest.name}.yaml"
    if not path.is_file():
        return None
    return path.read_bytes()


def _install(bringup: BringUpContext, watch: Watch, chart: Chart) -> None:
    watch.say(f"helm installs {chart.release}")
    values = bringup.state.put(
        f"values/{chart.release}.yaml", yaml.safe_dump(chart.values, sort_keys=True)
    )
    _heal_release(bringup, watch, chart)

    # Without --wait: what must be ready is awaited by ourselves, with what was seen meanwhile.
    bringup.run(
        watch,
        f"helm-{chart.release}",
        "helm",
        *("upgrade", "--install", chart.release, *_chart_source(bringup, chart)),
        *("--create-namespace", "--values", str(values), "--timeout", f"{int(watch.left_s)}s"),
        *_place(bringup, chart),
    )


def _chart_source(bringup: BringUpContext, chart: Chart) -> list[str]:
    if bringup.folder is None:
        # An oci:// address names its registry itself.
        repo = ["--repo", chart.repo] if chart.repo else []
        return [chart.chart, "--version", chart.version, *repo]

    name = chart.chart.rpartition("/")[2]
    unpacked = bringup.folder / "charts" / name / chart.version
    packed = bringup.folder / "charts" / f"{name}-{chart.version}.tgz"
    for place in (unpacked, packed):
        if place.exists():
            return [str(place)]
    raise LabUnavailable(
        f"chart {name} {chart.version}: neither {unpacked} nor {packed} is there; put it there"
    )


def _heal_release(bringup: BringUpContext, watch: Watch, chart: Chart) -> None:
    """A helm that was killed leaves its release pending, and every later helm refuses it. No other
    command works on this cluster (it is locked), so what is pending has been abandoned."""
    release = read_release(bringup.kube(), chart.namespace, chart.release)
    if release is None:
        return

    # An upgrade goes back to the revision before it; what _PENDING names has none.
    if release.status in _PENDING:
        word = _PENDING[release.status]
    elif release.status.startswith("pending-"):
        word = "rollback"
    else:
        return
    watch.say(f"release {chart.release} was left {release.status}; that is undone first")
    log = f"helm-{word}-{chart.release}"
    bringup.run(watch, log, "helm", word, chart.release, *_place(bringup, chart))


def _place(bringup: BringUpContext, chart: Chart) -> tuple[str, ...]:
    return "--namespace", chart.namespace, "--kubeconfig", str(bringup.state.kubeconfig)
