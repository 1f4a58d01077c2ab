"""Installs a wake guard that stays, waits until it looks on every node, and removes it again.

What is installed carries the labels of guard/names.py, and nothing without them is ever changed or
removed: an object of the same name that another tool made (helm, an older manifest) is refused
before anything is applied, and a namespace that was there before stays. A second install makes the
cluster what that one says: roles in namespaces that it no longer names are removed.

The guard of a run (`[fix] name = "wake-guard"`) is made of the same objects, so the two exclude one
another; labs/kind refuses such a run, and `install` refuses while one is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from meshwake.cluster.guard_deployment.image import way_into_nodes
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.cluster.guard_deployment.status import look_of
from meshwake.cluster.real_time import HostTime, wait_for
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.json_types import (
    JsonObject,
    object_at,
    objects_at,
    text_at,
    texts_at,
)
from meshwake.guard import names
from meshwake.guard.cluster import Places
from meshwake.kubernetes.api import (
    Kubernetes,
    Refused,
    Unreachable,
    identity_of,
    kind_of,
    namespace_and_name,
    object_name,
)
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS, is_ours
from meshwake.kubernetes.rollouts import unmet
from meshwake.kubernetes.ztunnels import find_ztunnels
from meshwake.ztunnel.names import (
    GATEWAY_CONTROLLERS,
    ISTIO_NAMESPACE,
    ISTIOD_LABELS,
    MANAGED_LABEL,
    selector,
)

READY_WITHIN_S, GONE_WITHIN_S = 300.0, 180.0
DAEMON_SET = ("DaemonSet.apps", names.NAMESPACE, names.NAME)
# What an install makes, in the order of removal: first what acts, last the namespace.
ROLES = ("RoleBinding.rbac.authorization.k8s.io", "Role.rbac.authorization.k8s.io")
KINDS = (
    "DaemonSet.apps",
    *ROLES,
    "ServiceAccount",
    "Lease.coordination.k8s.io",
    "PodMonitor.monitoring.coreos.com",
    "PrometheusRule.monitoring.coreos.com",
    "Namespace",
)
# What another may have put into the guard's namespace, and what Kubernetes and istiod put into
# every one.
_OTHERS = ("Pod", "Service", "ConfigMap", "Secret", "Deployment.apps", "Job.batch")
_IN_EVERY_NAMESPACE = ("kube-root-ca.crt", "istio-ca-root-cert", "istio-ca-crl")
# A container that waits for one of these waits for a person.
_HOPELESS = (
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
)
_WORDS_SHOWN = 300
_HELM_RELEASE = "meta.helm.sh/release-name"


class _CannotStart(LabUnavailable):
    """A node will not start the guard, however long one waits."""


@dataclass(frozen=True)
class Installed:
    """What an install did. `nodes`: where a guard now looks; `removed`: what an earlier install had
    made and this one does not name; `unwatched`: namespaces with gateways in which it does not
    look."""

    image: str
    places: Places
    nodes: tuple[str, ...]
    removed: tuple[str, ...]
    unwatched: tuple[str, ...]


@dataclass(frozen=True)
class Removed:
    """What an uninstall did. `kept`: why the namespace is still there, "" when it is not."""

    removed: tuple[str, ...]
    kept: str


# --- Where ----------------------------------------------------------------------------------------


def find_places(kubernetes: Kubernetes, namespace: str | None, gateways: Iterable[str]) -> Places:
    """Where the guard of this cluster looks: at ztunnel in `namespace` (None: wherever it runs), at
    istiod wherever that runs, and in the namespaces `gateways`. Raises BadInput, LabUnavailable."""
    ztunnel = find_ztunnels(kubernetes, namespace)[0].namespace

    # A right in a namespace that does not exist could not be applied.
    for each in gateways:
        if kubernetes.read("Namespace", None, each) is None:
            raise BadInput(f"--gateway-namespace {each}: namespace not found")

    istiod = _namespace_of_istiod(kubernetes, ztunnel)
    return Places(ztunnel, istiod, tuple(gateways))


def _namespace_of_istiod(kubernetes: Kubernetes, ztunnel: str) -> str:
    found = {pod.namespace for pod in kubernetes.pods(None, ISTIOD_LABELS)}
    if not found:
        raise LabUnavailable(
            f"no pod of istiod in any namespace (label {selector(ISTIOD_LABELS)}): the guard "
            "restarts nothing while istiod is unavailable, so it would never act here; is istiod in "
            "another cluster? Then this guard cannot see it"
        )

    # Next to ztunnel is the likeliest to be the one that serves it.
    for namespace in (ztunnel, ISTIO_NAMESPACE):
        if namespace in found:
            return namespace

    # Of several others the first by name, so that two installs choose alike.
    return min(found)


def namespaces_with_gateways(kubernetes: Kubernetes, places: Places) -> tuple[str, ...]:
    """Namespaces with gateways or waypoints in which a guard in `places` does not look; none when
    they may not be listed."""
    found: set[str] = set()
    with suppress(Refused, Unreachable):
        for controller in GATEWAY_CONTROLLERS:
            pods = kubernetes.pods(None, {MANAGED_LABEL: controller})
            found.update(pod.namespace for pod in pods)
    return tuple(sorted(found - set(places.with_gateways)))


# --- Install --------------------------------------------------------------------------------------


def install(
    kubernetes: Kubernetes,
    real: HostTime,
    places: Places,
    image: str,
    report: Callable[[str], None],
) -> Installed:
    """A guard on every node, ready, and after its first look. Raises LabUnavailable: before
    anything is changed when something of these names is not ours; afterwards when a node has none
    in time, with why."""
    objects = guard_objects(places, image)
    # Everything is looked at before anything is applied: half an install is harder to remove.
    keeps_namespace = _check_free(kubernetes, objects)
    if keeps_namespace:
        report(f"namespace {names.NAMESPACE} was there before and stays as it is")
        objects = [thing for thing in objects if thing["kind"] != "Namespace"]
    kubernetes.apply(objects)

    # Rights of an earlier install for namespaces in which this one does not look.
    removed = _remove(kubernetes, ROLES, but=objects)
    nodes = _await_guards(kubernetes, real, places, image, report)
    return Installed(image, places, nodes, removed, namespaces_with_gateways(kubernetes, places))


def _check_free(kubernetes: Kubernetes, objects: Iterable[JsonObject]) -> bool:
    """Whether the namespace is there and not ours. Raises LabUnavailable for anything else that is
    not ours, or is a run's."""
    foreign_namespace = False
    for thing in objects:
        found = kubernetes.read(*_address_of(thing))
        if found is None:
            continue
        # A run has a guard of its own, of the same names, and deletes it at its end.
        if _of_a_run(found):
            raise LabUnavailable(
                f"{identity_of(thing)} belongs to a run with the fix wake-guard; wait for its end "
                "(meshwake status removes what a killed run left)"
            )
        if is_ours(texts_at(found, "metadata", "labels")):
            continue
        if thing["kind"] != "Namespace":
            raise LabUnavailable(_is_anothers(thing, found))
        foreign_namespace = True
    return foreign_namespace


def _is_anothers(thing: JsonObject, found: JsonObject) -> str:
    release = texts_at(found, "metadata", "annotations").get(_HELM_RELEASE)
    if release is not None:
        return (
            f"{identity_of(thing)} was installed by helm, as release {release!r}; change it with "
            f"helm, or remove it first: helm uninstall {release}"
        )
    kind, _, name = identity_of(thing).partition(" ")
    place, _, name = name.rpartition("/")
    within = f"--namespace {place} " if place else ""
    return (
        f"{identity_of(thing)} is there and was not made by meshwake guard install (it lacks the "
        f"label {selector(OUR_LABELS)}); remove it first: kubectl {within}delete {kind.lower()} "
        f"{name}"
    )


def _of_a_run(thing: JsonObject) -> bool:
    return RUN_LABELS.items() <= texts_at(thing, "metadata", "labels").items()


def _address_of(thing: JsonObject) -> tuple[str, str | None, str]:
    """(kind, namespace, name), by which the API server finds it; no namespace for what is the whole
    cluster's."""
    namespace, name = namespace_and_name(thing)
    return kind_of(thing), namespace or None, name


def _await_guards(
    kubernetes: Kubernetes,
    real: HostTime,
    places: Places,
    image: str,
    report: Callable[[str], None],
) -> tuple[str, ...]:
    """The nodes on which a guard looks: all that the DaemonSet wants, those with a ztunnel among
    them."""
    # What the last look saw, for the caller: `look` itself says only what is missing.
    guarded: list[str] = []

    def look() -> str | None:
        guarded[:] = []
        pods = kubernetes.pods(names.NAMESPACE, names.LABELS)
        _check_hope(kubernetes, image)
        seen = unmet(kubernetes.read(*DAEMON_SET))
        if seen is not None:
            return seen
        looking = {pod.node for pod in pods if pod.ready and look_of(kubernetes, pod)}
        wanted = {pod.node for pod in (*pods, *find_ztunnels(kubernetes, places.ztunnel))}
        guarded[:] = sorted(looking)
        missing = sorted(wanted - looking)
        return f"no look yet on {', '.join(missing)}" if missing else None

    try:
        wait_for(
            "a wake guard that looks on every node",
            real,
            READY_WITHIN_S,
            look,
            failed=LabUnavailable,
            report=report,
        )
    except LabUnavailable as error:
        complaints = () if isinstance(error, _CannotStart) else _complaints(kubernetes)
        lines = [str(error), *complaints, "it stays installed; remove it: meshwake guard uninstall"]
        raise LabUnavailable("\n  ".join(lines)) from error
    return tuple(guarded)


def _check_hope(kubernetes: Kubernetes, image: str) -> None:
    """Raises _CannotStart when a node cannot get the image, or cannot start it: that does not change
    by waiting."""
    for pod in kubernetes.all("Pod", names.NAMESPACE, names.LABELS):
        waiting = _waiting_for(pod, image)
        reason = text_at(waiting, "reason")
        if reason not in _HOPELESS:
            continue
        node = text_at(pod, "spec", "nodeName") or "?"
        way = way_into_nodes(kubernetes.all("Node"), image)
        raise _CannotStart(
            f"node {node} cannot start {image}: {reason}: "
            f"{text_at(waiting, 'message')[:_WORDS_SHOWN]}\n"
            f"  put the image into the nodes: {way}"
        )


def _waiting_for(pod: JsonObject, image: str) -> JsonObject:
    """Why the container with `image` does not run; {} when it does, or nothing is known of it."""
    for container in objects_at(pod, "status", "containerStatuses"):
        # Of a sidecar it does not matter here.
        if text_at(container, "image") != image:
            continue
        return object_at(container, "state", "waiting")
    return {}


def _complaints(kubernetes: Kubernetes) -> Iterator[str]:
    """What Kubernetes itself says of the DaemonSet and its pods (a policy that forbids them, no
    room), each sentence once."""
    try:
        events = kubernetes.all("Event", names.NAMESPACE)
    except HarnessError:
        return

    warnings = [each for each in events if each.get("type") == "Warning"]
    sentences = []
    for warning in warnings[-3:]:
        words = str(warning.get("message"))[:_WORDS_SHOWN]
        sentences.append(f"{warning.get('reason')}: {words}")
    yield from dict.fromkeys(sentences)


# --- What is installed ----------------------------------------------------------------------------


def installed_image(kubernetes: Kubernetes) -> str | None:
    """The image of the guard that stays in this cluster; None when there is none, or only that of a
    run."""
    found = kubernetes.read(*DAEMON_SET)
    if found is None:
        return None
    if _of_a_run(found):
        return None
    container, *_ = objects_at(found, "spec", "template", "spec", "containers")
    return text_at(container, "image")


# --- Uninstall ------------------------------------------------------------------------------------


def uninstall(kubernetes: Kubernetes, real: HostTime) -> Removed:
    """Removes what `install` made, in any namespace, and waits until it is gone. Raises
    LabUnavailable when another tool installed the guard."""
    daemon_set = kubernetes.read(*DAEMON_SET)
    if daemon_set is not None:
        _check_is_removable(daemon_set)

    # What others put into our namespace would be deleted with it.
    kept = _strangers(kubernetes)
    kinds = [kind for kind in KINDS if kind != "Namespace" or not kept]
    removed = _remove(kubernetes, kinds)

    poll = partial(_names_installed, kubernetes, kinds)
    wait_for("the wake guard to go", real, GONE_WITHIN_S, poll, failed=LabUnavailable)
    return Removed(removed, kept)


def _check_is_removable(daemon_set: JsonObject) -> None:
    if _of_a_run(daemon_set):
        raise LabUnavailable("this guard belongs to a run, which removes it at its end")
    if not is_ours(texts_at(daemon_set, "metadata", "labels")):
        about = {**daemon_set, "kind": "DaemonSet"}
        raise LabUnavailable(_is_anothers(about, daemon_set))


def _names_installed(kubernetes: Kubernetes, kinds: Iterable[str]) -> str | None:
    """What is left of an install; None once nothing is."""
    left = _installed_objects(kubernetes, kinds)
    if not left:
        return None
    return ", ".join(object_name(*each) for each in left)


def _remove(
    kubernetes: Kubernetes,
    kinds: Iterable[str],
    but: Iterable[JsonObject] = (),
) -> tuple[str, ...]:
    """Deletes what was installed of these kinds, except `but`; returns the names of what went."""
    wanted = {_address_of(thing) for thing in but}
    installed = _installed_objects(kubernetes, kinds)
    gone = [each for each in installed if each not in wanted]

    names_gone = []
    for kind, namespace, name in gone:
        kubernetes.delete_ours(kind, namespace, name)
        names_gone.append(object_name(kind, namespace, name))
    return tuple(names_gone)


def _installed_objects(
    kubernetes: Kubernetes, kinds: Iterable[str]
) -> list[tuple[str, str | None, str]]:
    """(kind, namespace, name) of all that an install made of these kinds."""
    found = []
    for kind in kinds:
        for thing in kubernetes.all(kind, None, names.OBJECT_LABELS):
            # A run applies a guard as its fix, and deletes it itself.
            if _of_a_run(thing):
                continue
            # The items of a list may lack their kind.
            namespace, name = namespace_and_name(thing)
            found.append((kind, namespace or None, name))
    return found


def _strangers(kubernetes: Kubernetes) -> str:
    """What is in the guard's namespace and not the guard's, in words; "" when there is nothing."""
    found: list[str] = []
    for kind in _OTHERS:
        for thing in kubernetes.all(kind, names.NAMESPACE):
            if _belongs_to_guard(thing):
                continue
            # The items of a list may lack their kind, or have it without its group.
            found.append(identity_of({**thing, "kind": kind}))
    return ", ".join(found)


def _belongs_to_guard(thing: JsonObject) -> bool:
    if text_at(thing, "metadata", "name") in _IN_EVERY_NAMESPACE:
        return True
    return names.OBJECT_LABELS.items() <= texts_at(thing, "metadata", "labels").items()
