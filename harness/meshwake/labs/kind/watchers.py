"""What else is looked at: the proxies that are no ztunnel, tokens, logs, flows and alerts. None of
it is judged but the alerts; all of it is evidence of what a suspend did to the rest of the stack.

Each watcher asks one kind of thing and turns the answer into events (history.py `KINDS`). A watcher
that cannot look says so once, and is asked again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwake.clocks.movers.node_access import Inside, NoAnswer
from meshwake.cluster.observe import ANSWER_WITHIN_S
from meshwake.kubernetes.api import Kubernetes, Pod, Unreachable
from meshwake.labs.kind.session import Told
from meshwake.ztunnel.envoy_certificates import parse_envoy_certificates
from meshwake.ztunnel.logs import failed_renewals, kind_of_line
from meshwake.ztunnel.names import GATEWAY_LABEL, ISTIO_NAMESPACE, PROXY_CONTAINER, ZTUNNEL_LABELS
from meshwake.ztunnel.ports import ADMIN_PORT, ENVOY_CERTIFICATES_PATH

# By way of process 1, whose root is the node's own, also where the way in is a container that sees
# its processes.
TOKEN_FILE = "/proc/1/root/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~projected/istio-token/istio-token"  # noqa: S105  a path, no secret


@dataclass(frozen=True)
class ProxyCertificates:
    """The certificates that gateways and waypoints serve, by Envoy's own admin interface (/certs)."""

    kubernetes: Kubernetes
    namespaces: Sequence[str]
    name: str = "certificates of gateways and waypoints"
    every_s: float = 15.0
    reads_logs: bool = False

    def look(self) -> list[Told]:
        """One event for each certificate of each proxy, when it is new."""
        told = []
        for namespace in self.namespaces:
            for pod in self.kubernetes.pods(
                namespace, {"gateway.istio.io/managed": "istio.io-gateway-controller"}
            ):
                told += self._of(pod)
            for pod in self.kubernetes.pods(
                namespace, {"gateway.istio.io/managed": "istio.io-mesh-controller"}
            ):
                told += self._of(pod)
        return told

    def _of(self, pod: Pod) -> list[Told]:
        answer = self.kubernetes.get(pod, ADMIN_PORT, ENVOY_CERTIFICATES_PATH, ANSWER_WITHIN_S)
        return [
            Told(
                "proxy_certificate",
                f"{pod} {name}",
                {"proxy": pod.labels.get(GATEWAY_LABEL, pod.name), **about},
            )
            for name, about in read_envoy_certs(answer)
        ]


def read_envoy_certs(text: bytes) -> list[tuple[str, dict[str, Any]]]:
    """(subject, what KINDS promises of it) of each leaf in Envoy's /certs. Raises Unreachable when
    it is none."""
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
class Tokens:
    """When the token runs out that kubelet puts into each ztunnel, and with which ztunnel asks
    istiod. It is read on the node, from kubelet's own directory: ztunnel's image is distroless and
    has no program that could read it."""

    kubernetes: Kubernetes
    inside: Inside
    name: str = "tokens of ztunnel"
    every_s: float = 30.0
    reads_logs: bool = False

    def look(self) -> list[Told]:
        """One event for each token, when kubelet has changed it. The token itself is read and
        forgotten."""
        told = []
        for pod in self.kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS):
            if (expires_wall_s := read_token_expiry(self._token(pod))) is None:
                raise Unreachable(
                    f"{TOKEN_FILE.format(uid=pod.uid)} on {pod.node} holds no token that ends"
                )
            told.append(
                Told("token_seen", str(pod), {"pod": str(pod), "expires_wall_s": expires_wall_s})
            )
        return told

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
    """When a token (JWT) runs out, Unix time; None when it is none, or says nothing of it."""
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
    """What ztunnels say about certificates at fault, and requests that the authority did not grant.
    `nodes`: Kubernetes node -> (node of the plan, its identities)."""

    kubernetes: Kubernetes
    nodes: Mapping[str, tuple[str, tuple[str, ...]]]
    name: str = "logs of ztunnel"
    every_s: float = 5.0
    reads_logs: bool = True

    def look(self) -> list[Told]:
        """Each line once: it begins with a time, so no two are the same."""
        told = []
        for pod in self.kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS):
            if pod.node in self.nodes:
                lines = self.kubernetes.log_lines(
                    pod, PROXY_CONTAINER, since_s=int(self.every_s) * 4
                )
                told += self._of(pod, lines)
        return told

    def _of(self, pod: Pod, lines: list[str]) -> list[Told]:
        node, identities = self.nodes[pod.node]
        told = [
            Told(
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
            told.append(Told("csr_answered", f"{pod} {line}", refused, node))
        return told


@dataclass(frozen=True)
class Alerts:
    """Rules that are evaluated and alerts that fire, by Prometheus itself; and what Alertmanager
    has been handed."""

    kubernetes: Kubernetes
    namespace: str
    prometheus: tuple[str, int]
    alertmanager: tuple[str, int]
    name: str = "alerts"
    every_s: float = 10.0
    reads_logs: bool = False

    def look(self) -> list[Told]:
        """`alerts_evaluated` when the set of rules is new, `alert_fired` when one begins to fire."""
        rules = self._ask(self.prometheus, "/api/v1/rules?type=alert")["data"]["groups"]
        names = sorted(
            {
                rule["name"]
                for group in rules
                for rule in group["rules"]
                if rule.get("lastEvaluation")
            }
        )
        told = [Told("alerts_evaluated", "rules", {"rules": names})] if names else []
        for alert in self._ask(self.prometheus, "/api/v1/alerts")["data"]["alerts"]:
            labels = alert["labels"]
            # One about those who watch warns nobody of an outage (analysis/alert_replay.py leaves
            # it out too).
            if alert["state"] == "firing" and labels.get("concerns") != "watchers":
                data = {
                    "alert": labels["alertname"],
                    "labels": labels,
                    "active_at": alert["activeAt"],
                }
                told.append(
                    Told(
                        "alert_fired",
                        f"{json.dumps(labels, sort_keys=True)} {alert['activeAt']}",
                        data,
                    )
                )
        return told + self._handed_over()

    def _handed_over(self) -> list[Told]:
        handed = self._ask(self.alertmanager, "/api/v2/alerts?active=true")
        names = sorted({alert["labels"]["alertname"] for alert in handed})
        return [Told("alerts_received", "alertmanager", {"alerts": names})] if names else []

    def _ask(self, service: tuple[str, int], path: str) -> Any:
        text = self.kubernetes.get_from_service(self.namespace, *service, path, ANSWER_WITHIN_S)
        try:
            return json.loads(text)
        except ValueError as error:
            raise Unreachable(f"{service[0]}{path} gave no JSON: {text[:200]!r}") from error


@dataclass(frozen=True)
class Flows:
    """How many flows to and from the pods of a run Cilium forwarded and dropped, by each node's own
    Hubble."""

    kubernetes: Kubernetes
    namespaces: Sequence[str]
    name: str = "Hubble flows"
    every_s: float = 30.0
    reads_logs: bool = False

    def look(self) -> list[Told]:
        """One event for each agent and look; the same counts twice in a row are told once."""
        told = []
        for pod in self.kubernetes.pods("kube-system", {"k8s-app": "cilium"}):
            command = ["hubble", "observe", "--since", f"{self.every_s:.0f}s", "-o", "jsonpb"]
            for namespace in self.namespaces:
                command += ["--namespace", namespace]
            ended = self.kubernetes.execute(pod, "cilium-agent", command, ANSWER_WITHIN_S)
            if ended.code:
                raise Unreachable(
                    f"hubble observe in {pod} ended with {ended.code}: {ended.stderr.strip()[:200]}"
                )
            told.append(
                Told("flows_seen", str(pod), {"agent": str(pod), **count_flows(ended.stdout)})
            )
        return told


def count_flows(text: str) -> dict[str, Any]:
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
