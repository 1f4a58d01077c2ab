"""The cluster brought to a known state before a run, and left in one after it.

    take_away          what the last run left, by label; only what carries ours is ever deleted
    put_in             the workloads of this run; all ready
    restart_ztunnels   every ztunnel new, so that no drift of an earlier run is left in any of them

One cluster serves all scenarios of a version, so how long certificates live is set here and not by its installation:
`SECRET_TTL` in ztunnel's own DaemonSet. In a cluster that is not ours nothing of that is changed: it must be as the
plan wants it, and the restart is what `kubectl rollout restart` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.durations import NS_PER_S, parse_duration_ns
from harness.errors import LabUnavailable
from harness.labs.kind.clocks import RealTime, wait_for
from harness.labs.kind.kubernetes import OUR_LABELS, Kubernetes
from harness.labs.kind.observe import ZTUNNEL_CONTAINER, ZTUNNEL_LABELS, ZTUNNEL_NAMESPACE

RUN_LABELS: Mapping[str, str] = {"meshwake.dev/run": "true"}
RESTARTED = "meshwake.dev/restarted"
GONE_WITHIN_S, READY_WITHIN_S, ROLLED_OUT_WITHIN_S = 180.0, 240.0, 300.0
# Children go with their owners, and what lives in a namespace goes with it. The order is that of deletion.
KINDS_OF_A_RUN = (
    "Namespace",
    "CronJob.batch",
    "DaemonSet.apps",
    "Deployment.apps",
    "Service",
    "RoleBinding.rbac.authorization.k8s.io",
    "Role.rbac.authorization.k8s.io",
    "ClusterRoleBinding.rbac.authorization.k8s.io",
    "ClusterRole.rbac.authorization.k8s.io",
    "ServiceAccount",
    "ConfigMap",
)


def ztunnel_environment(lifetime_s: int) -> dict[str, str]:
    """What a run sets in ztunnel's environment."""
    return {
        "SECRET_TTL": f"{lifetime_s}s",
        # A connection that is never used twice: every attempt is a handshake, which is where expiry is looked at.
        "POOL_MAX_STREAMS_PER_CONNECTION": "1",
        # Up to 1.27 a renewal that fails is told at this level only.
        "RUST_LOG": "info,ztunnel::identity=debug",
    }


def take_away(kubernetes: Kubernetes, real: RealTime) -> None:
    """Removes what runs put in, and waits until it has gone."""
    for kind in KINDS_OF_A_RUN:
        for namespace, name in _of_runs(kubernetes, kind):
            kubernetes.delete_ours(kind, namespace, name)

    def look() -> tuple[bool | None, str]:
        left = [f"{kind} {name}" for kind in KINDS_OF_A_RUN for _, name in _of_runs(kubernetes, kind)]
        return (None if left else True), ", ".join(left)

    wait_for("the objects of the last run to go", real, GONE_WITHIN_S, look)


def _of_runs(kubernetes: Kubernetes, kind: str) -> list[tuple[str | None, str]]:
    return kubernetes.ours(kind, RUN_LABELS)


def of_this_run(thing: Mapping[str, Any]) -> dict[str, Any]:
    """`thing` with the labels by which a run knows its own."""
    metadata = dict(thing["metadata"])
    metadata["labels"] = {**metadata.get("labels", {}), **OUR_LABELS, **RUN_LABELS}
    return {**thing, "metadata": metadata}


def put_in(
    kubernetes: Kubernetes,
    real: RealTime,
    objects: Iterable[Mapping[str, Any]],
    awaited: Iterable[tuple[str, Mapping[str, str]]],
) -> None:
    """Applies `objects`, namespaces first, and waits until each of `awaited` (namespace, labels) has a ready pod.
    Raises LabUnavailable before anything is changed when one of these names is taken by something that is not ours."""
    things = sorted((of_this_run(thing) for thing in objects), key=lambda thing: thing["kind"] != "Namespace")
    for thing in things:
        _check_name_is_free(kubernetes, thing)
    kubernetes.apply(things)
    for namespace, labels in awaited:
        _await_pod(kubernetes, real, namespace, labels)


def _check_name_is_free(kubernetes: Kubernetes, thing: Mapping[str, Any]) -> None:
    namespace, name = thing["metadata"].get("namespace"), thing["metadata"]["name"]
    group = thing["apiVersion"].rpartition("/")[0]
    found = kubernetes.read(f"{thing['kind']}.{group}" if group else thing["kind"], namespace, name)
    if found is not None and not OUR_LABELS.items() <= (found["metadata"].get("labels") or {}).items():
        raise LabUnavailable(
            f"{thing['kind']} {f'{namespace}/' if namespace else ''}{name} exists and does not carry our label "
            f"({', '.join(f'{key}={value}' for key, value in OUR_LABELS.items())}), so it is left alone; use another "
            "cluster, or rename the identities of the scenario"
        )


def _await_pod(kubernetes: Kubernetes, real: RealTime, namespace: str, labels: Mapping[str, str]) -> None:
    def look() -> tuple[bool | None, str]:
        pods = kubernetes.pods(namespace, labels)
        ready = bool(pods) and all(pod.ready for pod in pods)
        return (True if ready else None), ", ".join(f"{pod}: ready={pod.ready}" for pod in pods) or "no pod"

    words = ",".join(f"{key}={value}" for key, value in labels.items())
    wait_for(f"a ready pod of {words} in {namespace}", real, READY_WITHIN_S, look)


def restart_ztunnels(kubernetes: Kubernetes, real: RealTime, lifetime_s: int, stamp: str, ours: bool) -> None:
    """Every ztunnel is new and ready. `stamp` must be one that was never used before. Raises LabUnavailable when a
    cluster that is not ours asks for another lifetime."""
    wanted = ztunnel_environment(lifetime_s) if ours else {}
    if not ours:
        _check_environment(kubernetes, lifetime_s)
    container = {"name": ZTUNNEL_CONTAINER, "env": [{"name": name, "value": value} for name, value in wanted.items()]}
    template: dict[str, Any] = {"metadata": {"annotations": {RESTARTED: stamp}}}
    if wanted:
        template["spec"] = {"containers": [container]}
    kubernetes.patch("DaemonSet.apps", ZTUNNEL_NAMESPACE, "ztunnel", {"spec": {"template": template}})
    await_ztunnels(kubernetes, real)


def await_ztunnels(kubernetes: Kubernetes, real: RealTime) -> None:
    """Waits until the DaemonSet says that every node has its present ztunnel, available."""

    def look() -> tuple[bool | None, str]:
        found = kubernetes.read("DaemonSet.apps", ZTUNNEL_NAMESPACE, "ztunnel")
        if found is None:
            return None, "no such DaemonSet"
        status, wanted = found.get("status", {}), found.get("status", {}).get("desiredNumberScheduled", 0)
        counts = {key: status.get(key, 0) for key in ("updatedNumberScheduled", "numberAvailable")}
        present = status.get("observedGeneration") == found["metadata"].get("generation")
        pods = kubernetes.pods(ZTUNNEL_NAMESPACE, ZTUNNEL_LABELS)
        done = present and wanted > 0 and set(counts.values()) == {wanted} and len(pods) == wanted
        return (True if done else None), f"{counts} of {wanted}, {len(pods)} pods, generation observed: {present}"

    wait_for("every ztunnel to be restarted (DaemonSet istio-system/ztunnel)", real, ROLLED_OUT_WITHIN_S, look)


def _check_environment(kubernetes: Kubernetes, lifetime_s: int) -> None:
    found = kubernetes.read("DaemonSet.apps", ZTUNNEL_NAMESPACE, "ztunnel")
    if found is None:
        raise LabUnavailable("the cluster has no DaemonSet istio-system/ztunnel; install Istio in ambient mode first")
    containers = found["spec"]["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value", "") for one in containers for each in one.get("env", [])}
    asked = environment.get("SECRET_TTL", "24h")
    streams = environment.get("POOL_MAX_STREAMS_PER_CONNECTION")
    if _seconds(asked) != lifetime_s or streams != "1":
        raise LabUnavailable(
            f"ztunnel of this cluster has SECRET_TTL={asked} and POOL_MAX_STREAMS_PER_CONNECTION={streams}, and a "
            "cluster that is not ours is not reconfigured; set them yourself: helm upgrade ztunnel istio/ztunnel "
            f"-n istio-system --reuse-values --set env.SECRET_TTL={lifetime_s}s "
            "--set-string env.POOL_MAX_STREAMS_PER_CONNECTION=1"
        )


def _seconds(text: str) -> int | None:
    try:
        return parse_duration_ns(text) // NS_PER_S
    except ValueError:
        return None
