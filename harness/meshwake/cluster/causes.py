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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, auto
from pathlib import Path
from typing import Any

from meshwake.kubernetes.api import condition, is_ready

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
class Evidence:
    """What was collected: objects of the API by kind, logs by their path below `kind export logs`."""

    objects: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict, hash=False)
    logs: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Cause:
    """One reason. `when` is an RFC 3339 time or empty, `pod` (namespace, name)."""

    rank: Rank
    when: str
    where: str
    said: str
    pod: tuple[str, str] | None = None

    def __str__(self) -> str:
        """As it is quoted."""
        return f"{self.where}: {self.said}"


def first_cause(evidence: Evidence, error: str) -> Cause | None:
    """The reason for `error`, as far as `evidence` has one."""
    awaited = [(match["namespace"], match["name"]) for match in _AWAITED.finditer(error)]
    behind = {match["namespace"] for match in _WEBHOOK.finditer(error)}

    def key(cause: Cause) -> tuple[bool, bool, Rank, str, str]:
        wanted = cause.pod is not None and (cause.pod[0] in behind or _is_of(cause.pod, awaited))
        return cause.rank > Rank.KUBELET, not wanted, cause.rank, cause.when, cause.where

    return min(all_causes(evidence), key=key, default=None)


def _is_of(pod: tuple[str, str], awaited: Iterable[tuple[str, str]]) -> bool:
    return any(
        pod[0] == namespace and f"{pod[1]}-".startswith(f"{name}-") for namespace, name in awaited
    )


def all_causes(evidence: Evidence) -> list[Cause]:
    """Every reason that is found."""
    unready = {_name_of(pod) for pod in evidence.objects.get("Pod", ()) if not _is_well(pod)}
    return [
        *_in_logs(evidence.logs),
        *(
            cause
            for pod in evidence.objects.get("Pod", ())
            for cause in _of_pod(pod, evidence.logs)
        ),
        *(cause for node in evidence.objects.get("Node", ()) for cause in _of_node(node)),
        *(
            cause
            for event in evidence.objects.get("Event", ())
            for cause in _of_event(event, unready)
        ),
    ]


def read_evidence(place: Path) -> Evidence:
    """What failures.py has written below `place`; what is not there or cannot be read is left out."""
    objects = {kind: _objects(place / f"{kind.lower()}s.json") for kind in _KINDS}
    logs = place / "kind"
    paths = [path for path in sorted(logs.rglob("*.log")) if not _NOT_READ.search(str(path))]
    return Evidence(
        objects, {str(path.relative_to(logs)): path.read_text(errors="replace") for path in paths}
    )


def _objects(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    things = found if isinstance(found, list) else []
    return [
        thing
        for thing in things
        if isinstance(thing, dict) and isinstance(thing.get("metadata", {}), dict)
    ]


# Logs


def _in_logs(logs: Mapping[str, str]) -> Iterator[Cause]:
    """The first line of each kind in each log: what follows is its consequence."""
    for path, text in logs.items():
        node, _, name = path.partition("/")
        for rank, pattern in ((Rank.MACHINE, _OF_A_MACHINE), (Rank.KUBELET, _KUBELET_ENDED)):
            if rank == Rank.KUBELET and name != "kubelet.log":
                continue
            lines = text.splitlines()
            at = next((at for at, line in enumerate(lines) if pattern.search(line)), None)
            if at is not None:
                # klog writes an error of several lines between err=< and >.
                more = 2 if lines[at].endswith("=<") else 1
                yield Cause(
                    rank,
                    "",
                    f"{node}, {name}",
                    _shortened(" ".join(map(_plain, lines[at : at + more]))),
                )


def last_words(text: str) -> str:
    """Of what a program wrote before it ended, the last line that sounds like trouble, else the
    last."""
    lines = [plain for line in text.splitlines()[-40:] if (plain := _plain(line))]
    return next(
        (line for line in reversed(lines) if _TROUBLE.search(line)), lines[-1] if lines else ""
    )


def _plain(line: str) -> str:
    """A line without what the journal and the container runtime write before it."""
    return _shortened(_CRI.sub("", _JOURNAL.sub("", line)).strip())


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


# Objects


def _name_of(thing: Mapping[str, Any]) -> tuple[str, str]:
    metadata = thing.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _is_well(pod: Mapping[str, Any]) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase == "Succeeded" or is_ready(pod)


def _of_pod(pod: Mapping[str, Any], logs: Mapping[str, str]) -> Iterator[Cause]:
    if _is_well(pod):
        return
    (namespace, name), status = _name_of(pod), pod.get("status") or {}
    began, where = (
        str((pod.get("metadata") or {}).get("creationTimestamp", "")),
        f"Pod {namespace}/{name}",
    )
    if status.get("reason") == "Evicted":
        yield Cause(
            Rank.EVICTED, began, where, f"Evicted: {status.get('message', '')}", (namespace, name)
        )
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        said = f"{scheduled.get('reason', '')}: {scheduled.get('message', '')}"
        yield Cause(Rank.NOT_SCHEDULED, began, where, said, (namespace, name))
    for container in (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ):
        found = _of_container(container, _log_of(logs, namespace, name, str(container["name"])))
        if found is not None:
            rank, said = found
            yield Cause(
                rank, began, f"{where}, container {container['name']}", said, (namespace, name)
            )


def _of_container(container: Mapping[str, Any], log: str) -> tuple[Rank, str] | None:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    waiting, ended = (
        state.get("waiting") or {},
        state.get("terminated") or last.get("terminated") or {},
    )
    reason = str(waiting.get("reason", ""))
    if reason in _NO_IMAGE or reason in _NOT_MADE:
        said = f"{reason}: {waiting.get('message', '')}"
        return Rank.IMAGE if reason in _NO_IMAGE else Rank.NOT_MADE, said
    if ended.get("exitCode"):
        words = last_words(log) or str(ended.get("message", "")).strip()
        times = (
            f", {container['restartCount']} times started anew"
            if container.get("restartCount")
            else ""
        )
        return (
            Rank.ENDS,
            f"{ended.get('reason', 'Error')}, exit code {ended['exitCode']}{times}{_quoted(words)}",
        )
    if "running" in state and not container.get("ready"):
        words = last_words(log)
        return Rank.NOT_READY if _TROUBLE.search(
            words
        ) else Rank.SILENT, f"runs and is not ready{_quoted(words)}"
    return None


def _quoted(words: str) -> str:
    return f"; its last words: {words}" if words else ""


def _log_of(logs: Mapping[str, str], namespace: str, pod: str, container: str) -> str:
    """Of the last start that wrote anything: `kind export logs` keeps
    pods/NAMESPACE_POD_UID/CONTAINER/NUMBER.log."""
    place = re.compile(
        rf"pods/{re.escape(f'{namespace}_{pod}_')}[^/]*/{re.escape(container)}/(\d+)\.log$"
    )
    found = [
        (int(match[1]), text)
        for path, text in logs.items()
        if (match := place.search(path)) and text.strip()
    ]
    return max(found, default=(0, ""))[1]


def _of_node(node: Mapping[str, Any]) -> Iterator[Cause]:
    where = f"Node {_name_of(node)[1]}"
    for kind in ("DiskPressure", "MemoryPressure", "PIDPressure", "Ready"):
        found = condition(node, kind)
        if found and (found.get("status") == "True") != (kind == "Ready"):
            yield Cause(
                Rank.NODE,
                str(found.get("lastTransitionTime", "")),
                where,
                f"{kind}: {found.get('message', '')}",
            )


def _of_event(event: Mapping[str, Any], unready: set[tuple[str, str]]) -> Iterator[Cause]:
    """Only of what is not well now: many a warning is over after a second."""
    about = event.get("involvedObject") or {}
    thing, rank = (
        (str(about.get("namespace", "")), str(about.get("name", ""))),
        _EVENTS.get(str(event.get("reason"))),
    )
    if (
        event.get("type") != "Warning"
        or rank is None
        or (about.get("kind") == "Pod" and thing not in unready)
    ):
        return
    when = str(event.get("firstTimestamp") or event.get("eventTime") or "")
    where = f"{about.get('kind')} {thing[0]}/{thing[1]}"
    yield Cause(
        rank, when, where, _shortened(f"{event['reason']}: {event.get('message', '')}"), thing
    )
