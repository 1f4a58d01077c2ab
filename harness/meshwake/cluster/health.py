"""Health checks of the stack: seven properties that can be broken while every pod is ready.

    chained_cni          istio-cni follows Cilium in the CNI file that the nodes load; otherwise
                         traffic of new pods bypasses ztunnel
    ambient_redirected   ztunnel listens in every ambient pod, whatever the pod's annotation says
    cilium_settings      socket load balancing is limited to host namespaces, and Cilium leaves
                         other CNI files alone
    hbone_used           a request from pod to pod raises ztunnel's count of mutual TLS connections
    address_in_pool      the Gateway has an address, and it is in MetalLB's pool
    gateway_answers      the Gateway answers at that address, over HTTPS where it has a certificate
    waypoint_in_the_way  a request to the Service behind the waypoint goes through the waypoint

`gateway_answers` connects from a node, where kube-proxy itself answers for load balancers: it
proves Gateway and route, but not that MetalLB's ARP replies reach the rest of the network. A
property that cannot be checked is UNKNOWN, never HOLDS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from meshwake.cluster.docker import Engine
from meshwake.cluster.redirection import ambient_pods, not_redirected
from meshwake.cluster.stack.certificates import GATEWAY_HOST
from meshwake.cluster.stack.choice import PARTS, Choice
from meshwake.cluster.stack.pieces import CILIUM_NAMESPACE, DEMO_NAMESPACE, METALLB_NAMESPACE
from meshwake.core.errors import HarnessError, LabUnavailable
from meshwake.core.json_types import list_at, objects_at, texts_at
from meshwake.core.outcome import Verdict
from meshwake.kubernetes.api import Executed, Kubernetes, Pod, identity_of
from meshwake.ztunnel.names import ISTIO_NAMESPACE, ZTUNNEL_LABELS
from meshwake.ztunnel.ports import ENVOY_METRICS_PATH, HBONE_PORT, METRICS_PATH, METRICS_PORT

HOLDS, BROKEN, UNKNOWN = Verdict

# containerd loads the first file by name, and does not report which.
_CNI_FILE = (
    "sh",
    "-c",
    "cd /etc/cni/net.d && first=$(ls | LC_ALL=C sort | grep -E '[.](conf|conflist|json)$' "
    "| head -n 1)"
    ' && test -n "$first" && echo "$first" && cat "$first"',
)
ANSWERS_WITHIN_S = 10.0
_CURL = ("curl", "-sS", "-k", "--max-time", "8", "-o", "/dev/null")
_CLIENT, _CLIENT_CONTAINER = {"app": "client"}, "client"
_WAYPOINT_PODS = {"gateway.networking.k8s.io/gateway-name": "waypoint"}
_SAMPLE = re.compile(r"^(\w+)\{([^}]*)\} (\S+)", re.MULTILINE)


@dataclass(frozen=True)
class HealthFinding:
    """The result of one check, with its evidence."""

    check: str
    verdict: Verdict
    evidence: str

    def __str__(self) -> str:
        """One line, such as `hbone_used: BROKEN: ...`."""
        return f"{self.check}: {self.verdict}: {self.evidence}"


_Result = tuple[Verdict, str]


@dataclass(frozen=True)
class _Subject:
    kubernetes: Kubernetes
    nodes: Sequence[str]
    parts: frozenset[str]
    engine: Engine | None


def examine(
    kubernetes: Kubernetes, nodes: Sequence[str], choice: Choice | None, engine: Engine | None
) -> list[HealthFinding]:
    """Run every check that applies to the cluster's parts. Makes a few connections, changes
    nothing."""
    # Of a cluster that is not ours it is not known what it is made of: every check is tried.
    parts = choice.parts if choice is not None else frozenset(PARTS)
    subject = _Subject(kubernetes, nodes, parts, engine)

    findings = []
    for name, check, needed in _CHECKS:
        if needed <= parts:
            findings.append(_run_check(name, check, subject))
    return findings


def _run_check(name: str, check: Callable[[_Subject], _Result], subject: _Subject) -> HealthFinding:
    try:
        verdict, evidence = check(subject)
    except HarnessError as error:
        verdict, evidence = UNKNOWN, f"could not be checked: {error}"
    return HealthFinding(name, verdict, evidence)


# The CNI file


def _chained_cni(subject: _Subject) -> _Result:
    if subject.engine is None:
        return (
            UNKNOWN,
            "the CNI configuration lies on the nodes, which only a cluster of ours lets "
            "one look into",
        )
    wrong = list(filter(None, (_not_chained(subject.engine, node) for node in subject.nodes)))
    if wrong:
        return BROKEN, "; ".join(wrong)
    return HOLDS, "what every node loads chains istio-cni to cilium-cni"


def _not_chained(engine: Engine, node: str) -> str | None:
    ended = engine.execute(node, _CNI_FILE)
    if ended.code != 0:
        return f"{node}: no CNI configuration: {ended.stderr.strip()}"

    name, _, content = ended.stdout.partition("\n")
    try:
        types = [str(plugin["type"]) for plugin in json.loads(content)["plugins"]]
    except (ValueError, KeyError, TypeError):
        return f"{node}: {name} is not a list of plugins: {content[:80]!r}"

    # Plugins run in the order of the list, and istio-cni needs the interface that Cilium makes.
    if "cilium-cni" in types:
        after_cilium = types[types.index("cilium-cni") :]
        if "istio-cni" in after_cilium:
            return None
    return f"{node}: {name} has {', '.join(types)}, and istio-cni is expected after cilium-cni"


def _ambient_redirected(subject: _Subject) -> _Result:
    if subject.engine is None:
        return (
            UNKNOWN,
            "a pod's network namespace lies on its node, which only a cluster of ours lets "
            "one look into",
        )
    pods = ambient_pods(subject.kubernetes)
    lacking = not_redirected(pods, subject.engine, subject.nodes)
    if lacking:
        return BROKEN, f"nothing listens on {HBONE_PORT} in {', '.join(map(identity_of, lacking))}"
    return HOLDS, f"ztunnel listens in all of {len(pods)} ambient pods"


def _cilium_settings(subject: _Subject) -> _Result:
    found = subject.kubernetes.read("ConfigMap", CILIUM_NAMESPACE, "cilium-config")
    if found is None:
        return UNKNOWN, "there is no ConfigMap cilium-config"

    # Without the first a Service's address is replaced inside the pod, past ztunnel (istio#49149);
    # without the second Cilium renames istio-cni's configuration (docs/stack.md).
    wanted = {"bpf-lb-sock-hostns-only": "true", "cni-exclusive": "false"}
    data = texts_at(found, "data")
    right = []
    wrong = []
    for key, value in wanted.items():
        if data.get(key) == value:
            right.append(f"{key}={value}")
        else:
            wrong.append(f"{key} is {data.get(key)!r}, expected {value!r}")
    if wrong:
        return BROKEN, "; ".join(wrong)
    return HOLDS, ", ".join(right)


# HBONE and the waypoint: a counter rises with a request


def _hbone_used(subject: _Subject) -> _Result:
    client = _client(subject.kubernetes)

    # Connections are counted by the ztunnel at their source.
    everywhere = subject.kubernetes.pods(ISTIO_NAMESPACE, ZTUNNEL_LABELS)
    ztunnels = [pod for pod in everywhere if pod.node == client.node]
    if not ztunnels:
        return BROKEN, f"no ztunnel on {client.node}, where {client} runs"

    def count() -> float:
        metrics = subject.kubernetes.get(
            ztunnels[0], METRICS_PORT, METRICS_PATH, ANSWERS_WITHIN_S
        ).decode()
        return total(
            metrics, "istio_tcp_connections_opened_total", 'connection_security_policy="mutual_tls"'
        )

    return _rises(subject, client, "server", f"mutual TLS connections of {ztunnels[0]}", count)


def _waypoint_in_the_way(subject: _Subject) -> _Result:
    waypoints = subject.kubernetes.pods(DEMO_NAMESPACE, _WAYPOINT_PODS)
    if not waypoints:
        return BROKEN, "no pod of the waypoint"

    def count() -> float:
        # Of several waypoints any one may have the request.
        answers = [
            subject.kubernetes.get(pod, METRICS_PORT, ENVOY_METRICS_PATH, ANSWERS_WITHIN_S)
            for pod in waypoints
        ]
        return sum(total(answer.decode(), "istio_requests_total") for answer in answers)

    return _rises(
        subject,
        _client(subject.kubernetes),
        "server-by-waypoint",
        "requests seen by the waypoint",
        count,
    )


def _rises(
    subject: _Subject, client: Pod, service: str, what: str, count: Callable[[], float]
) -> _Result:
    """Whether a request to `service` is answered, and `count` rises with it."""
    before = count()
    status = _curl(subject.kubernetes, client, f"http://{service}.{DEMO_NAMESPACE}:8080/")
    after = count()
    if status != "200":
        return BROKEN, f"{client} requested http://{service} and got {status}"
    verdict = HOLDS if after > before else BROKEN
    return verdict, f"{what}: {before:.0f} before a request, {after:.0f} after"


def total(metrics: str, name: str, label: str = "") -> float:
    """The sum of all samples `name` in Prometheus' text format whose labels hold `label`."""
    values = [
        float(value)
        for found, labels, value in _SAMPLE.findall(metrics)
        if found == name and label in labels
    ]
    return sum(values)


def _client(kubernetes: Kubernetes) -> Pod:
    for pod in kubernetes.pods(DEMO_NAMESPACE, _CLIENT):
        if pod.ready:
            return pod
    raise LabUnavailable(f"no pod of DaemonSet {DEMO_NAMESPACE}/client is ready")


def _curl(kubernetes: Kubernetes, client: Pod, url: str) -> str:
    ended = kubernetes.execute(
        client, _CLIENT_CONTAINER, [*_CURL, "-w", "%{http_code}", url], ANSWERS_WITHIN_S
    )
    return _code(ended)


def _code(ended: Executed) -> str:
    if ended.code == 0:
        return ended.stdout.strip()
    return f"{ended.stderr.strip()} (curl ended with {ended.code})"


# The Gateway


def _address_in_pool(subject: _Subject) -> _Result:
    address = _gateway_address(subject.kubernetes)
    if address is None:
        return BROKEN, f"Gateway {DEMO_NAMESPACE}/gateway has no address"

    # The pool that `up` chose for this cluster; a cluster that is not ours has another, or none.
    pool = subject.kubernetes.read("IPAddressPool.metallb.io", METALLB_NAMESPACE, "meshwake")
    ranges = [str(each) for each in list_at(pool, "spec", "addresses")]
    if not ranges:
        return UNKNOWN, f"address {address}; there is no IPAddressPool meshwake to compare it with"

    is_inside = any(_within(address, each) for each in ranges)
    verdict = HOLDS if is_inside else BROKEN
    return verdict, f"address {address}, pool {', '.join(ranges)}"


def _gateway_address(kubernetes: Kubernetes) -> str | None:
    found = kubernetes.read("Gateway.gateway.networking.k8s.io", DEMO_NAMESPACE, "gateway")
    addresses = objects_at(found, "status", "addresses")
    return str(addresses[0]["value"]) if addresses else None


def _within(address: str, pool: str) -> bool:
    first, _, last = pool.partition("-")
    try:
        return int(ip_address(first)) <= int(ip_address(address)) <= int(ip_address(last))
    except ValueError:
        return False


def _gateway_answers(subject: _Subject) -> _Result:
    address = _gateway_address(subject.kubernetes)
    if address is None:
        return BROKEN, f"Gateway {DEMO_NAMESPACE}/gateway has no address"
    if subject.engine is None or not subject.nodes:
        return (
            UNKNOWN,
            "the request comes from a node, which only a cluster of ours allows; try: curl "
            f"http://{address}/",
        )

    verdict = HOLDS
    answers = []
    node = subject.nodes[-1]
    for url in _gateway_urls(subject.parts):
        _, code = _from_node(subject.engine, node, url, address)
        answers.append(f"{url} at {address}: {code}")
        if code != "200":
            verdict = BROKEN
    return verdict, "; ".join(answers)


def _gateway_urls(parts: frozenset[str]) -> Iterator[str]:
    yield f"http://{GATEWAY_HOST}/"
    if "cert-manager" in parts:
        yield f"https://{GATEWAY_HOST}/"


def _from_node(engine: Engine, node: str, url: str, address: str) -> tuple[str, str]:
    port = 443 if url.startswith("https:") else 80
    # --resolve: the name is in no DNS; TLS needs it all the same, for SNI and the certificate.
    command = [*_CURL, "-w", "%{http_code}", "--resolve", f"{GATEWAY_HOST}:{port}:{address}", url]
    return url, _code(engine.execute(node, command))


_CHECKS: tuple[tuple[str, Callable[[_Subject], _Result], frozenset[str]], ...] = (
    ("chained_cni", _chained_cni, frozenset({"cilium", "istio"})),
    ("ambient_redirected", _ambient_redirected, frozenset({"istio"})),
    ("cilium_settings", _cilium_settings, frozenset({"cilium"})),
    ("hbone_used", _hbone_used, frozenset({"istio"})),
    ("address_in_pool", _address_in_pool, frozenset({"gateway", "metallb"})),
    ("gateway_answers", _gateway_answers, frozenset({"gateway"})),
    ("waypoint_in_the_way", _waypoint_in_the_way, frozenset({"waypoint"})),
)
