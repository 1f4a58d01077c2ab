"""Why a step failed: the first fatal reason in what was collected of a cluster (failures.py). Pure
functions on it.

    the machines      a full disk, too many open files, no memory: whatever else is wrong follows from it
    kubelet           why it ended: what kubeadm waits minutes for
    pods              image not to be had, container not to be made, container that keeps ending (its last words),
                      evicted, not scheduled, not created, not ready
    nodes             why one is not ready

Of pods those come first that the failed step waited for, and of equal reasons the earlier one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, auto
from pathlib import Path

from meshwake.core.json_types import JsonObject, int_at, object_at, objects_at, text_at, value_at
from meshwake.kubernetes.api import condition, is_ready, namespace_and_name

LONGEST = 500
_KINDS = ("Node", "Pod", "Event")
_OF_A_MACHINE = re.compile(
    r"no space left on device|too many open files|cannot allocate memory", re.IGNORECASE
)
_KUBELET_ENDED = re.compile(
    r'"command failed" err=|"Failed to run kubelet" err=|failed to run Kubelet:'
)
_NO_IMAGE = {
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
}
_NOT_MADE = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
# The kernel's journal is the whole machine's, also of last week; containers/ are the same files as
# pods/.
_NOT_READ = re.compile(r"/(journal\.log$|containers/)")
_JOURNAL = re.compile(r"^\w{3} +\d+ [\d:]+ \S+ [\w.-]+\[\d+\]: ")
_CRI = re.compile(r"^\S+ (stdout|stderr) [FP] ")
_TROUBLE = re.compile(
    r"^[EF]\d{4} |Error\b|\b(error|fatal|panic|failed|cannot|unable|denied|refused|unknown)\b",
    re.IGNORECASE,
)
# "Deployment cert-manager/cert-manager: rolled out", and the Service of a webhook that cannot be
# called.
_AWAITED = re.compile(r"\b[A-Z]\w+ (?P<namespace>[a-z0-9-]+)/(?P<name>[a-z0-9.-]+)")
_WEBHOOK = re.compile(r"https://(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)\.svc")


class Rank(IntEnum):
    """How far down a reason lies: what is above follows from it."""

    MACHINE = auto()
    KUBELET = auto()
    IMAGE = auto()
    NOT_MADE = auto()
    ENDS = auto()
    EVICTED = auto()
    NODE = auto()
    NOT_SCHEDULED = auto()
    NOT_CREATED = auto()
    NOT_READY = auto()
    UNHEALTHY = auto()
    SILENT = auto()


_EVENTS = {
    "FailedAttachVolume": Rank.NOT_MADE,
    "FailedCreate": Rank.NOT_CREATED,
    "FailedCreatePodSandBox": Rank.NOT_MADE,
    "FailedMount": Rank.NOT_MADE,
    "SystemOOM": Rank.NODE,
    "Unhealthy": Rank.UNHEALTHY,
}


@dataclass(frozen=True)
class ClusterEvidence:
    """What was collected: objects of the API by kind, logs by their path below `kind export
    logs`."""

    objects: Mapping[str, Sequence[JsonObject]] = field(default_factory=dict, hash=False)
    logs: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Cause:
    """One reason. `when` is an RFC 3339 time or empty, `pod` (namespace, name)."""

    rank: Rank
    when: str
    where: str
    why: str
    pod: tuple[str, str] | None = None

    def __str__(self) -> str:
        """As it is quoted."""
        return f"{self.where}: {self.why}"


def first_cause(evidence: ClusterEvidence, error: str) -> Cause | None:
    """The reason for `error`, as far as `evidence` has one."""
    awaited = [(match["namespace"], match["name"]) for match in _AWAITED.finditer(error)]
    # A webhook is named by its Service, whose pods may have any name: all of its namespace count.
    behind = {match["namespace"] for match in _WEBHOOK.finditer(error)}

    def order(cause: Cause) -> tuple[bool, bool, Rank, str, str]:
        # A machine or a kubelet that fails explains everything; then comes what the error is about;
        # among those what lies deepest, and happened first.
        return (
            cause.rank > Rank.KUBELET,
            not _is_about(cause.pod, behind, awaited),
            cause.rank,
            cause.when,
            cause.where,
        )

    return min(all_causes(evidence), key=order, default=None)


def _is_about(
    pod: tuple[str, str] | None,
    namespaces: set[str],
    awaited: Iterable[tuple[str, str]],
) -> bool:
    """Whether `pod` is in one of `namespaces`, or of one of the objects that are `awaited`."""
    if pod is None:
        return False

    pod_namespace, pod_name = pod
    if pod_namespace in namespaces:
        return True

    # A pod has the name of what made it before its own: istiod-7d4b-x2k. With the dash `ztunnel` is
    # not `ztunnel2`.
    beginnings = [f"{name}-" for namespace, name in awaited if namespace == pod_namespace]
    return f"{pod_name}-".startswith(tuple(beginnings))


def all_causes(evidence: ClusterEvidence) -> list[Cause]:
    """Every reason that is found."""
    pods = evidence.objects.get("Pod", ())
    nodes = evidence.objects.get("Node", ())
    events = evidence.objects.get("Event", ())
    unready = {namespace_and_name(pod) for pod in pods if not _is_well(pod)}

    found = list(_in_logs(evidence.logs))
    for pod in pods:
        found += _of_pod(pod, evidence.logs)
    for node in nodes:
        found += _of_node(node)
    for event in events:
        found += _of_event(event, unready)
    return found


def read_evidence(place: Path) -> ClusterEvidence:
    """What failures.py has written below `place`; what is not there or cannot be read is left
    out."""
    objects = {kind: _objects(place / f"{kind.lower()}s.json") for kind in _KINDS}

    directory = place / "kind"
    logs: dict[str, str] = {}
    for path in sorted(directory.rglob("*.log")):
        if _NOT_READ.search(str(path)):
            continue
        logs[str(path.relative_to(directory))] = path.read_text(errors="replace")

    return ClusterEvidence(objects, logs)


def _objects(path: Path) -> list[JsonObject]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []

    # What a failure left may be half a file, or another's: evidence that cannot be read is none.
    if not isinstance(found, list):
        return []
    objects: list[JsonObject] = []
    for thing in found:
        if not isinstance(thing, dict):
            continue
        if isinstance(thing.get("metadata", {}), dict):
            objects.append(thing)
    return objects


# Logs


def _in_logs(logs: Mapping[str, str]) -> Iterator[Cause]:
    """The first line of each kind in each log: what follows is its consequence."""
    for path, text in logs.items():
        node, _, name = path.partition("/")
        where = f"{node}, {name}"

        full = _first_match(_OF_A_MACHINE, text)
        if full is not None:
            yield Cause(Rank.MACHINE, "", where, full)

        # Every program of Kubernetes ends with "command failed": only in its own log it is kubelet.
        if name == "kubelet.log":
            ended = _first_match(_KUBELET_ENDED, text)
            if ended is not None:
                yield Cause(Rank.KUBELET, "", where, ended)


def _first_match(pattern: re.Pattern[str], text: str) -> str | None:
    """The first line of `text` in which `pattern` is found, as it is quoted."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if pattern.search(line):
            # klog writes an error of several lines between err=< and >.
            more = 2 if line.endswith("=<") else 1
            quoted = map(_plain, lines[at : at + more])
            return _shortened(" ".join(quoted))
    return None


def last_words(text: str) -> str:
    """Of what a program wrote before it ended, the last line that sounds like trouble, else the
    last."""
    # Of the end only: an error of long ago is not why it ended.
    end = text.splitlines()[-40:]
    last = ""
    for line in map(_plain, reversed(end)):
        if _TROUBLE.search(line):
            return line
        # Going backwards, the first line that has anything in it is the last one.
        last = last or line
    return last


def _plain(line: str) -> str:
    """A line without what the journal and the container runtime write before it."""
    return _shortened(_CRI.sub("", _JOURNAL.sub("", line)).strip())


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]} ..."


# Objects


def _is_well(pod: JsonObject) -> bool:
    # The pod of a job that is done is never ready again.
    is_done = value_at(pod, "status", "phase") == "Succeeded"
    return is_done or is_ready(pod)


def _of_pod(pod: JsonObject, logs: Mapping[str, str]) -> Iterator[Cause]:
    if _is_well(pod):
        return

    namespace, name = pod_name = namespace_and_name(pod)
    created = text_at(pod, "metadata", "creationTimestamp")
    where = f"Pod {namespace}/{name}"

    if value_at(pod, "status", "reason") == "Evicted":
        why = f"Evicted: {text_at(pod, 'status', 'message')}"
        yield Cause(Rank.EVICTED, created, where, why, pod_name)

    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        why = f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"
        yield Cause(Rank.NOT_SCHEDULED, created, where, why, pod_name)

    for container in _containers_of(pod):
        container_name = text_at(container, "name")
        log = _log_of(logs, namespace, name, container_name)
        found = _of_container(container, log)
        if found is not None:
            rank, why = found
            where_inside = f"{where}, container {container_name}"
            yield Cause(rank, created, where_inside, why, pod_name)


def _containers_of(pod: JsonObject) -> list[JsonObject]:
    """The states of its containers, those that run before the others first."""
    return [
        *objects_at(pod, "status", "initContainerStatuses"),
        *objects_at(pod, "status", "containerStatuses"),
    ]


def _of_container(container: JsonObject, log: str) -> tuple[Rank, str] | None:
    waiting = object_at(container, "state", "waiting")
    reason = text_at(waiting, "reason")
    message = text_at(waiting, "message")
    if reason in _NO_IMAGE:
        return Rank.IMAGE, f"{reason}: {message}"
    if reason in _NOT_MADE:
        return Rank.NOT_MADE, f"{reason}: {message}"

    ended = object_at(container, "state", "terminated")
    if not ended:
        # One that waits to be started again (CrashLoopBackOff) has its end in lastState.
        ended = object_at(container, "lastState", "terminated")
    if ended.get("exitCode"):
        return Rank.ENDS, _how_it_ended(container, ended, log)

    is_running = "running" in object_at(container, "state")
    if not is_running or container.get("ready"):
        return None

    # One that complains is a better reason than one that is silent and merely waits.
    last_line = last_words(log)
    rank = Rank.NOT_READY if _TROUBLE.search(last_line) else Rank.SILENT
    return rank, f"runs and is not ready{_quoted(last_line)}"


def _how_it_ended(container: JsonObject, ended: JsonObject, log: str) -> str:
    restarts = int_at(container, "restartCount")
    times = f", restarted {restarts} times" if restarts else ""
    last_line = last_words(log) or text_at(ended, "message").strip()
    how = f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}"
    return f"{how}{times}{_quoted(last_line)}"


def _quoted(words: str) -> str:
    if not words:
        return ""
    return f"; its last words: {words}"


def _log_of(logs: Mapping[str, str], namespace: str, pod: str, container: str) -> str:
    """Of the last start that wrote anything: `kind export logs` keeps
    pods/NAMESPACE_POD_UID/CONTAINER/NUMBER.log."""
    pod_directory = re.escape(f"{namespace}_{pod}_")
    place = re.compile(rf"pods/{pod_directory}[^/]*/{re.escape(container)}/(\d+)\.log$")

    # The numbers count restarts, and only the newest few logs are kept.
    last_start = -1
    last_log = ""
    for path, text in logs.items():
        match = place.search(path)
        if match is None or not text.strip():
            continue
        start = int(match[1])
        if start > last_start:
            last_start, last_log = start, text
    return last_log


def _of_node(node: JsonObject) -> Iterator[Cause]:
    _, name = namespace_and_name(node)
    # Ready should be True, pressure of any kind should not.
    wrong_when = {
        "DiskPressure": True,
        "MemoryPressure": True,
        "PIDPressure": True,
        "Ready": False,
    }
    for kind, wrong in wrong_when.items():
        found = condition(node, kind)
        if not found:
            continue

        is_true = found.get("status") == "True"
        if is_true == wrong:
            since = text_at(found, "lastTransitionTime")
            why = f"{kind}: {text_at(found, 'message')}"
            yield Cause(Rank.NODE, since, f"Node {name}", why)


def _of_event(event: JsonObject, unready: set[tuple[str, str]]) -> Iterator[Cause]:
    """Only of what is not well now: many a warning is over after a second."""
    reason = text_at(event, "reason")
    rank = _EVENTS.get(reason)
    if event.get("type") != "Warning" or rank is None:
        return

    about = object_at(event, "involvedObject")
    kind = text_at(about, "kind")
    namespace = text_at(about, "namespace")
    name = text_at(about, "name")
    if kind == "Pod" and (namespace, name) not in unready:
        return

    # Events of the API group events.k8s.io have only the latter.
    when = text_at(event, "firstTimestamp") or text_at(event, "eventTime")
    why = _shortened(f"{reason}: {text_at(event, 'message')}")
    yield Cause(rank, when, f"{kind} {namespace}/{name}", why, (namespace, name))
