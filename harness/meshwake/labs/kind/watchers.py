"""What is observed in addition to ztunnel's certificates: proxies, tokens, logs, flows and alerts.
Only the alerts are judged; the rest is evidence of what a suspend did to the rest of the stack.

Each watcher polls one source and turns the answer into events (core/history.py `KINDS`). One that
fails is recorded once and polled again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwake.clocks.movers.node_access import Inside, NoAnswer
from meshwake.cluster.observe import ANSWER_WITHIN_S
from meshwake.core.json_types import JsonObject, MutableJsonObject, text_at, texts_at
from meshwake.kubernetes.api import Kubernetes, Pod, Unreachable
from meshwake.labs.kind.session import WatcherEvent
from meshwake.ztunnel.envoy_certificates import parse_envoy_certificates
from meshwake.ztunnel.logs import failed_renewals, kind_of_line
from meshwake.ztunnel.names import (
    GATEWAY_CONTROLLERS,
    GATEWAY_LABEL,
    ISTIO_NAMESPACE,
    MANAGED_LABEL,
    PROXY_CONTAINER,
    ZTUNNEL_LABELS,
)
from meshwake.ztunnel.ports import ADMIN_PORT, ENVOY_CERTIFICATES_PATH

# Through process 1, whose root is the node's own, also where the command runs in a helper container
# that shares the node's processes.
TOKEN_FILE = "/proc/1/root/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/istio-token/istio-token"  # noqa: S105  a path, no secret


@dataclass(frozen=True)
class ProxyCertificates:
    """The certificates that gateways and waypoints serve, from Envoy's admin interface (/certs)."""

    kubernetes: Kubernetes
    namespaces: Sequence[str]
    name: str = "certificates of gateways and waypoints"
    every_s: float = 15.0
    reads_logs: bool = False

    def poll(self) -> list[WatcherEvent]:
        """One observation for each certificate of each proxy."""
        found = []
        for namespace in self.namespaces:
            for controller in GATEWAY_CONTROLLERS:
                for pod in self.kubernetes.pods(namespace, {MANAGED_LABEL: controller}):
                    found += self._of(pod)
        return found

    def _of(self, pod: Pod) -> list[WatcherEvent]:
        answer = self.kubernetes.get(pod, ADMIN_PORT, ENVOY_CERTIFICATES_PATH, ANSWER_WITHIN_S)
        return [
            WatcherEvent(
                "proxy_certificate",
                f"{pod} {name}",
                {"proxy": pod.labels.get(GATEWAY_LABEL, pod.name), **about},
            )
            for name, about in read_envoy_certs(answer)
        ]


def read_envoy_certs(text: bytes) -> list[tuple[str, MutableJsonObject]]:
    """(subject, fields of `proxy_certificate`) of each leaf in Envoy's /certs. Raises Unreachable
    for anything else."""
    try:
        certificates = parse_envoy_certificates(text)
    except ValueError as error:
        raise Unreachable(str(error)) from error
    found = []
    for certificate in certificates:
        subject = certificate.names[0] if certificate.names else ""
        about = {
            "subject": subject,
            "serial": certificate.serial,
            "not_after_wall_s": certificate.not_after_wall_s,
        }
        found.append((subject, about))
    return found


@dataclass(frozen=True)
class TokenWatcher:
    """When the service account token expires that kubelet mounts into each ztunnel, and with which
    ztunnel authenticates to istiod. It is read on the node, in kubelet's directory: ztunnel's image
    is distroless and has no program that could print it."""

    kubernetes: Kubernetes
    inside: Inside
    name: str = "tokens of ztunnel"
    every_s: float = 30.0
    reads_logs: bool = False

    def poll(self) -> list[WatcherEvent]:
        """One observation for each token. Only its expiry is kept, never the token."""
        found = []
        for pod in self.kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS):
            if (expires_wall_s := read_token_expiry(self._token(pod))) is None:
                raise Unreachable(
                    f"{TOKEN_FILE.format(uid=pod.uid)} on {pod.node} holds no token with an expiry"
                )
            found.append(
                WatcherEvent(
                    "token_seen", str(pod), {"pod": str(pod), "expires_wall_s": expires_wall_s}
                )
            )
        return found

    def _token(self, pod: Pod) -> str:
        file = TOKEN_FILE.format(uid=pod.uid)
        try:
            answer = self.inside.run(pod.node, ["cat", file], ANSWER_WITHIN_S)
        except NoAnswer as error:
            raise Unreachable(f"token of {pod}: {error}") from error
        if answer.code:
            raise Unreachable(
                f"token of {pod}: cat on {pod.node} ended with {answer.code}: {answer.error}"
            )
        return answer.output


def read_token_expiry(token: str) -> int | None:
    """When a token (JWT) expires, Unix time; None when it is not a token or has no expiry."""
    parts = token.strip().split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return int(claims["exp"])
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class ZtunnelLogs:
    """Log lines of ztunnels about certificates at fault, and requests that the authority refused.
    `nodes`: Kubernetes node -> (node of the plan, its identities)."""

    kubernetes: Kubernetes
    nodes: Mapping[str, tuple[str, tuple[str, ...]]]
    name: str = "logs of ztunnel"
    every_s: float = 5.0
    reads_logs: bool = True

    def poll(self) -> list[WatcherEvent]:
        """One observation for each line; lines begin with a timestamp, so no two are the same."""
        found = []
        for pod in self.kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS):
            if pod.node in self.nodes:
                lines = self.kubernetes.log_lines(
                    pod, PROXY_CONTAINER, since_s=int(self.every_s) * 4
                )
                found += self._of(pod, lines)
        return found

    def _of(self, pod: Pod, lines: list[str]) -> list[WatcherEvent]:
        node, identities = self.nodes[pod.node]
        found = [
            WatcherEvent(
                "log_line",
                f"{pod} {line}",
                {"process": pod.process, "match": match, "line": line[:600]},
                node,
            )
            for line in lines
            if (match := kind_of_line(line)) is not None
        ]
        for identity, line in failed_renewals(lines, identities):
            refused = {"identity": identity, "outcome": "refused", "because": line[:600]}
            found.append(WatcherEvent("csr_answered", f"{pod} {line}", refused, node))
        return found


@dataclass
class Alerts:
    """Rules that Prometheus evaluates, alerts that fire, and alerts that Alertmanager received.

    An alert that fires at the first poll already fired before the run, because of an earlier one
    or of the bring-up, and warns of nothing that this run does: it is not recorded, unless it
    resolves and fires again. (Seen on a cluster: a certificate alert from before made
    `alert_before_outage` HOLD.)"""

    kubernetes: Kubernetes
    namespace: str
    prometheus: tuple[str, int]
    alertmanager: tuple[str, int]
    name: str = "alerts"
    every_s: float = 10.0
    reads_logs: bool = False
    _fired_before: frozenset[str] | None = None

    def poll(self) -> list[WatcherEvent]:
        """`alerts_evaluated` with the set of rules, `alert_fired` for each alert that fires."""
        rules = self._ask(self.prometheus, "/api/v1/rules?type=alert")["data"]["groups"]
        names = sorted(
            {
                rule["name"]
                for group in rules
                for rule in group["rules"]
                if rule.get("lastEvaluation")
            }
        )
        evaluated = [WatcherEvent("alerts_evaluated", "rules", {"rules": names})] if names else []
        fired = [
            _fired(alert)
            for alert in self._ask(self.prometheus, "/api/v1/alerts")["data"]["alerts"]
            if _is_warning(alert)
        ]
        if self._fired_before is None:
            self._fired_before = frozenset(each.key for each in fired)
        news = [each for each in fired if each.key not in self._fired_before]
        return [*evaluated, *news, *self._received()]

    def _received(self) -> list[WatcherEvent]:
        handed = self._ask(self.alertmanager, "/api/v2/alerts?active=true")
        names = sorted({alert["labels"]["alertname"] for alert in handed})
        return [WatcherEvent("alerts_received", "alertmanager", {"alerts": names})] if names else []

    def _ask(self, service: tuple[str, int], path: str) -> Any:
        text = self.kubernetes.get_from_service(self.namespace, *service, path, ANSWER_WITHIN_S)
        try:
            return json.loads(text)
        except ValueError as error:
            raise Unreachable(
                f"{service[0]}{path} returned invalid JSON: {text[:200]!r}"
            ) from error


def _is_warning(alert: JsonObject) -> bool:
    """Whether an alert fires, and not about the monitoring itself: that warns of no outage
    (analysis/alert_replay.py leaves it out too)."""
    is_firing = alert["state"] == "firing"
    return is_firing and text_at(alert, "labels", "concerns") != "watchers"


def _fired(alert: JsonObject) -> WatcherEvent:
    labels, active_at = texts_at(alert, "labels"), alert["activeAt"]
    data = {"alert": labels["alertname"], "labels": labels, "active_at": active_at}
    return WatcherEvent("alert_fired", f"{json.dumps(labels, sort_keys=True)} {active_at}", data)


@dataclass(frozen=True)
class Flows:
    """How many flows to and from the pods of a run Cilium forwarded and dropped, from each node's
    Hubble."""

    kubernetes: Kubernetes
    namespaces: Sequence[str]
    name: str = "Hubble flows"
    every_s: float = 30.0
    reads_logs: bool = False

    def poll(self) -> list[WatcherEvent]:
        """One observation for each agent."""
        found = []
        for pod in self.kubernetes.pods("kube-system", {"k8s-app": "cilium"}):
            command = ["hubble", "observe", "--since", f"{self.every_s:.0f}s", "-o", "jsonpb"]
            for namespace in self.namespaces:
                command += ["--namespace", namespace]
            ended = self.kubernetes.execute(pod, "cilium-agent", command, ANSWER_WITHIN_S)
            if ended.code:
                raise Unreachable(
                    f"hubble observe in {pod} ended with {ended.code}: {ended.stderr.strip()[:200]}"
                )
            found.append(
                WatcherEvent(
                    "flows_seen", str(pod), {"agent": str(pod), **count_flows(ended.stdout)}
                )
            )
        return found


def count_flows(text: str) -> MutableJsonObject:
    """Of `hubble observe -o jsonpb`: `forwarded`, `dropped`, and the reasons of the drops."""
    counts: dict[str, int] = {}
    reasons: set[str] = set()
    for line in text.splitlines():
        try:
            flow = json.loads(line).get("flow", {})
        except (ValueError, AttributeError):
            continue
        verdict = str(flow.get("verdict", "")).lower()
        counts[verdict] = counts.get(verdict, 0) + 1
        if verdict == "dropped":
            reasons.add(str(flow.get("drop_reason_desc", "unknown")))
    return {
        "forwarded": counts.get("forwarded", 0),
        "dropped": counts.get("dropped", 0),
        "drop_reasons": sorted(reasons),
    }
