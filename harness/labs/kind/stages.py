"""The stages of the stack: charts and objects put in, and what must be true before the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import yaml

from harness.errors import HarnessFault, LabUnavailable
from harness.kubernetes.api import Kubernetes, Refused, Unreachable, identity_of
from harness.kubernetes.labels import OUR_LABELS
from harness.labs.kind.making import Making
from harness.labs.kind.steps import Step, Watch
from harness.labs.kind.tools import ToolFailed
from harness.stack.pieces import (
    Chart,
    Condition,
    Objects,
    Piece,
    RemoteManifest,
    Stage,
    labelled,
)

MARKS_NAMESPACE, MARKS_NAME = "kube-system", "meshwake-up"
FETCH_WITHIN_S = 120
_PASSING = {404, 409, 429}  # no such kind yet, somebody else was faster, too many requests
_PENDING = {"pending-install": "uninstall", "uninstalling": "uninstall"}


def stage_step(planned: Stage) -> Step[Making]:
    """The step that puts in one stage and waits for its conditions."""
    return Step(
        planned.name,
        planned.title,
        planned.within_s,
        partial(_stage_done, planned.name),
        partial(_take_stage, planned.name),
        tuple(line for piece in planned.pieces for line in piece_lines(piece)),
        tuple(f"{condition} (within {condition.within_s} s)" for condition in planned.conditions),
    )


def piece_lines(piece: Piece) -> Iterator[str]:
    """What a plan says of a piece."""
    if isinstance(piece, Chart):
        source = f"{piece.repo} {piece.chart}" if piece.repo else piece.chart
        yield f"helm upgrade --install {piece.release} --namespace {piece.namespace}  ({source} {piece.version})"
    elif isinstance(piece, RemoteManifest):
        yield f"apply {piece.url}"
    else:
        for thing in piece.objects:
            yield f"apply {identity_of(thing)}"


def stage_digest(stage: Stage) -> str:
    """Names the pieces of a stage: equal digests, nothing new to put in."""
    return hashlib.sha256(json.dumps([asdict(piece) for piece in stage.pieces], sort_keys=True).encode()).hexdigest()[
        :16
    ]


def _stage_done(name: str, making: Making) -> str | None:
    stage = making.stage(name)
    if _marks(making).get(name) != stage_digest(stage):
        return None
    if any(unmet(making.kube(), condition) is not None for condition in stage.conditions):
        return None
    return "is in, and every condition holds"


def _marks(making: Making) -> dict[str, str]:
    found = making.kube().read("ConfigMap", MARKS_NAMESPACE, MARKS_NAME) or {}
    return dict(found.get("data") or {})


def _take_stage(name: str, making: Making, watch: Watch) -> None:
    stage = making.stage(name)
    for piece in stage.pieces:
        _put_in(making, watch, piece)
    for condition in stage.conditions:
        _await(making, watch, condition)
    _mark(making, watch, name, stage_digest(stage))


def _mark(making: Making, watch: Watch, name: str, digest: str) -> None:
    marks = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": MARKS_NAME, "namespace": MARKS_NAMESPACE, "labels": dict(OUR_LABELS)},
        "data": {**_marks(making), name: digest},
    }
    _apply(making, watch, marks)


def _await(making: Making, watch: Watch, condition: Condition) -> None:
    watch.wait_for(str(condition), lambda: unmet(making.kube(), condition), condition.within_s)


def _put_in(making: Making, watch: Watch, piece: Piece) -> None:
    if isinstance(piece, Chart):
        _install(making, watch, piece)
    elif isinstance(piece, RemoteManifest):
        for thing in _documents_of(making, watch, piece):
            _apply(making, watch, labelled(thing))
    else:
        assert isinstance(piece, Objects)
        for thing in piece.objects:
            _apply(making, watch, thing)


def _apply(making: Making, watch: Watch, thing: Mapping[str, Any]) -> None:
    """Applied again while it is refused for a reason that passes: a kind that is not served yet, a webhook whose pod
    is not up yet. What the server finds wrong with the object itself is raised at once."""

    def refused() -> str | None:
        try:
            making.kube().apply([thing])
        except Refused as error:
            if error.status not in _PASSING:
                raise
            return str(error)
        except Unreachable as error:
            return str(error)
        return None

    watch.wait_for(f"the server to take {identity_of(thing)}", refused)


def _documents_of(making: Making, watch: Watch, manifest: RemoteManifest) -> list[dict[str, Any]]:
    here = making.folder / "manifests" / f"{manifest.name}.yaml" if making.folder is not None else None
    if here is not None and here.is_file():
        content = here.read_bytes()
        source = str(here)
    else:
        watch.say(f"fetching {manifest.url}")
        content, source = making.kit.fetch(manifest.url, min(FETCH_WITHIN_S, watch.left_s)), manifest.url
    sha256 = hashlib.sha256(content).hexdigest()
    if manifest.sha256 is not None and sha256 != manifest.sha256:
        raise LabUnavailable(f"{source}: its sha256 is {sha256}, and {manifest.sha256} is pinned; it is not applied")
    return [thing for thing in yaml.safe_load_all(content) if thing]


def _install(making: Making, watch: Watch, chart: Chart) -> None:
    watch.say(f"helm installs {chart.release}")
    values = making.state.put(f"values/{chart.release}.yaml", yaml.safe_dump(chart.values, sort_keys=True))
    _heal_release(making, watch, chart)
    making.tools.run(
        "helm",
        *("upgrade", "--install", chart.release, *_chart_source(making, chart)),
        *("--namespace", chart.namespace, "--create-namespace"),
        *("--values", str(values), "--timeout", f"{int(watch.left_s)}s"),
        *_helm_place(making),
        within_s=watch.left_s,
        log=making.words(f"helm-{chart.release}"),
        environment=_helm_environment(making),
    )


def _chart_source(making: Making, chart: Chart) -> list[str]:
    if making.folder is not None:
        name = chart.chart.rpartition("/")[2]
        unpacked = making.folder / "charts" / name / chart.version
        packed = making.folder / "charts" / f"{name}-{chart.version}.tgz"
        for place in (unpacked, packed):
            if place.exists():
                return [str(place)]
        raise LabUnavailable(f"chart {name} {chart.version}: neither {unpacked} nor {packed} is there; put it there")
    return [chart.chart, "--version", chart.version, *(["--repo", chart.repo] if chart.repo else [])]


def _heal_release(making: Making, watch: Watch, chart: Chart) -> None:
    """A helm that was killed leaves its release pending, and every later helm refuses it. Nobody else works on this
    cluster (it is locked), so what is pending is nobody's."""
    place = ["--namespace", chart.namespace, *_helm_place(making)]
    run = partial(making.tools.run, "helm", within_s=watch.left_s, environment=_helm_environment(making))
    try:
        status = json.loads(run("status", chart.release, "--output", "json", *place).stdout)["info"]["status"]
    except ToolFailed as error:
        if "not found" in error.said:
            return
        raise
    if status.startswith("pending-") or status in _PENDING:
        watch.say(f"release {chart.release} was left {status}; that is undone first")
        run(_PENDING.get(status, "rollback"), chart.release, *place)


def _helm_place(making: Making) -> list[str]:
    return ["--kubeconfig", str(making.state.kubeconfig)]


def _helm_environment(making: Making) -> dict[str, str]:
    """The user's own repositories, plugins and credentials stay out of it."""
    home = making.state.directory / "helm"
    return {f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}


_GROUPS = {
    "CustomResourceDefinition": "apiextensions.k8s.io",
    "Certificate": "cert-manager.io",
    "ClusterIssuer": "cert-manager.io",
    "Issuer": "cert-manager.io",
    "DaemonSet": "apps",
    "Deployment": "apps",
    "StatefulSet": "apps",
    "Gateway": "gateway.networking.k8s.io",
    "IPAddressPool": "metallb.io",
    "L2Advertisement": "metallb.io",
    "Job": "batch",
}


def unmet(kube: Kubernetes, condition: Condition) -> str | None:
    """None when `condition` holds now; else what was seen instead. A server that does not answer was seen too."""
    group = _GROUPS.get(condition.kind)
    kind = f"{condition.kind}.{group}" if group else condition.kind
    try:
        if condition.name == "*":
            found: list[dict[str, Any] | None] = [*kube.all(kind, condition.namespace)] or [None]
        else:
            found = [kube.read(kind, condition.namespace, condition.name)]
    except (Unreachable, Refused) as error:
        return str(error)
    seen = [said for thing in found if (said := _unmet_by(thing, condition.what)) is not None]
    return "; ".join(seen) if seen else None


def _unmet_by(thing: Mapping[str, Any] | None, what: str) -> str | None:
    if thing is None:
        return "there is none"
    who, status = identity_of(thing), thing.get("status") or {}
    if what == "exists":
        return None
    if what == "rolled out":
        said = _not_rolled_out(thing, status)
    elif what == "address":
        ingress = (status.get("loadBalancer") or {}).get("ingress")
        said = None if status.get("addresses") or ingress else "no address yet"
    elif what.startswith("condition="):
        said = _not_in_condition(thing, status, what.removeprefix("condition="))
    else:
        raise HarnessFault(f"{who}: nobody knows how to wait for {what!r}")
    return None if said is None else f"{who}: {said}"


def _not_in_condition(thing: Mapping[str, Any], status: Mapping[str, Any], name: str) -> str | None:
    generation = thing["metadata"].get("generation", 0)
    for condition in status.get("conditions") or []:
        if condition["type"] == name:
            if condition.get("observedGeneration", generation) < generation:
                return f"{name} was said of an older generation"
            if condition["status"] == "True":
                return None
            why = f"{condition.get('reason', '')} {condition.get('message', '')}".strip()
            return f"{name} is {condition['status']}: {why}"
    return f"{name} not said yet"


def _not_rolled_out(thing: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    if status.get("observedGeneration", 0) < thing["metadata"].get("generation", 0):
        return "not seen by its controller yet"
    if thing["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        have = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
        return None if 0 < wanted <= have else f"{have} of {wanted} pods available"
    wanted = (thing.get("spec") or {}).get("replicas", 1)
    have = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    leftover = status.get("replicas", 0) - wanted
    if have >= wanted and leftover <= 0:
        return None
    return f"{have} of {wanted} pods available" + (f", {leftover} old ones left" if leftover > 0 else "")
