"""What every ztunnel says of itself: its process, its certificates and their states (/config_dump on its localhost).

Nobody tells us of a request to the authority. One that was answered shows as a new serial number, and the second in
which it was answered stands in the certificate: notBefore + the backdate, by the authority's wall clock. So
`csr_answered` is derived, to the second, and never placed before the last look that still showed the old certificate.
A request that was refused leaves a line in ztunnel's log (`refusals_in`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.config_dump import parse_config_dump
from harness.durations import NS_PER_S
from harness.errors import SubjectFailed
from harness.labs.kind.kubernetes import Kubernetes, Pod

ZTUNNEL_NAMESPACE = "istio-system"
ZTUNNEL_LABELS: Mapping[str, str] = {"app": "ztunnel"}
ZTUNNEL_CONTAINER = "istio-proxy"
ADMIN_PORT = 15000
ANSWER_WITHIN_S = 8.0

_SPIFFE = re.compile(r"spiffe://[^/\s\"]+/ns/([^/\s\"]+)/sa/([^/\s\",;)]+)")
# istio/ztunnel src/identity/manager.rs, at every release that says anything: 1.22.1 and newer.
_RENEWAL_FAILED = ("certificate fetch failed", "certificate renewal failed")


@dataclass(frozen=True)
class Held:
    """What ztunnel says of one identity. Without a certificate only `state` is told."""

    state: str
    serial: str | None = None
    not_before_wall_s: int | None = None
    not_after_wall_s: int | None = None


def read_config_dump(text: bytes) -> dict[str, Held]:
    """identity (namespace/serviceaccount) -> what is held for it. Raises SubjectFailed when it is no config_dump."""
    try:
        entries = parse_config_dump(text)
    except ValueError as error:
        raise SubjectFailed(f"ztunnel's /config_dump is not understood: {error}") from error
    return {
        entry.identity: Held(entry.state, entry.serial, entry.not_before_wall_s, entry.not_after_wall_s)
        for entry in entries
    }


def refusals_in(lines: Iterable[str], identities: Sequence[str]) -> list[tuple[str, str]]:
    """(identity, the line) of every failed renewal of one of `identities` that ztunnel's log tells of, JSON or not."""
    found = []
    for line in lines:
        match = _SPIFFE.search(line)
        if match and any(words in line for words in _RENEWAL_FAILED) and f"{match[1]}/{match[2]}" in identities:
            found.append((f"{match[1]}/{match[2]}", line))
    return found


@dataclass(frozen=True)
class Seen:
    """One look at the ztunnel of one node of the plan; `held` has the identities of that node only."""

    node: str
    pod: Pod
    held: Mapping[str, Held]


@dataclass(frozen=True)
class Issued:
    """A certificate seen for the first time; `world_ns` is when it was issued."""

    world_ns: int
    identity: str
    held: Held


class Ztunnels:
    """Where each plan node's ztunnel runs, and what it held when it was last looked at."""

    def __init__(self, kubernetes: Kubernetes, node_names: Mapping[str, str], backdate_s: int) -> None:
        self._kubernetes, self._backdate_s = kubernetes, backdate_s
        self._nodes = {name: node for node, name in node_names.items()}
        self._held: dict[str, Held] = {}
        self._looked_world_ns: dict[str, int] = {}

    def pods(self) -> dict[str, Pod]:
        """plan node -> its ztunnel's pod, of those that are ready. Raises Unreachable."""
        pods = self._kubernetes.pods(ZTUNNEL_NAMESPACE, ZTUNNEL_LABELS)
        return {self._nodes[pod.node]: pod for pod in pods if pod.ready and pod.node in self._nodes}

    def look(self, node: str, pod: Pod, identities: Sequence[str]) -> Seen:
        """Asks one ztunnel. Raises Unreachable."""
        held = read_config_dump(self._kubernetes.get(pod, ADMIN_PORT, "/config_dump", ANSWER_WITHIN_S))
        return Seen(node, pod, {identity: held[identity] for identity in identities if identity in held})

    def forget(self, identities: Iterable[str]) -> None:
        """A process ended, and with it what it held."""
        for identity in identities:
            self._held.pop(identity, None)

    def changes(
        self, seen: Seen, looked_world_ns: int, authority_wall_ns: int
    ) -> tuple[list[Issued], list[tuple[str, Held]]]:
        """What of `seen` is new since the last look: certificates issued, and states. `authority_wall_ns`: its wall
        clock at `looked_world_ns`."""
        earliest_ns = self._looked_world_ns.get(seen.node, 0)
        self._looked_world_ns[seen.node] = looked_world_ns
        issued, states = [], []
        for identity, held in seen.held.items():
            before = self._held.get(identity)
            if held == before:
                continue
            self._held[identity] = held
            states.append((identity, held))
            if held.serial is not None and (before is None or held.serial != before.serial):
                assert held.not_before_wall_s is not None
                ago_ns = authority_wall_ns - (held.not_before_wall_s + self._backdate_s) * NS_PER_S
                issued.append(Issued(min(max(looked_world_ns - ago_ns, earliest_ns), looked_world_ns), identity, held))
        return issued, states
