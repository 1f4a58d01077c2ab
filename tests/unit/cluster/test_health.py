"""The seven questions: a stack that is well, and each way in which one with every pod ready is
not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from meshwake.cluster.health import examine, total
from meshwake.cluster.stack.choice import choose_stack
from meshwake.kubernetes.api import Executed, Pod, Unreachable
from meshwake.ztunnel.names import ISTIO_NAMESPACE

from tests.support.fake_kubernetes import FakeKubernetes
from tests.unit.cluster.stack.choices import pins
from tests.unit.cluster.world import SimulatedEngine, World

CHOICE = choose_stack(pins(), name="t", with_parts=["cert-manager"])
NODES = ("worker", "control-plane")
UID = "00000000-1111-4222-8333-444455556666"
SETTINGS = {"bpf-lb-sock-hostns-only": "true", "cni-exclusive": "false"}


class Stack(FakeKubernetes):
    """As the questions see it; each answer may be changed."""

    def __init__(self) -> None:
        self.settings: Mapping[str, str] | None = dict(SETTINGS)
        self.address: str | None = "172.18.255.204"
        self.pool: list[str] | None = ["172.18.255.204-172.18.255.253"]
        self.curl = Executed(0, "200", "")
        self.mutual_tls, self.by_waypoint = 5, 7
        self.rises, self.through_waypoint, self.waypoints, self.clients = True, True, 1, True
        self.down = False
        labels = {"istio.io/dataplane-mode": "ambient"}
        metadata = {"name": "client-1", "namespace": "meshwake-demo", "uid": UID, "labels": labels}
        pod = {"kind": "Pod", "metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
        self.objects = {("Pod", "meshwake-demo", "client-1"): pod}

    def pods(self, namespace: str | None, labels: Mapping[str, str]) -> list[Pod]:
        if self.down:
            raise Unreachable("the API server is down")
        assert namespace is not None
        if namespace == ISTIO_NAMESPACE:
            return [Pod(namespace, "ztunnel-1", "u", "worker", ready=True)]
        if labels == {"app": "client"}:
            return [Pod(namespace or "", "client-1", "u", "worker", ready=self.clients)]
        return [
            Pod(namespace or "", f"waypoint-{at}", "u", "worker", ready=True)
            for at in range(self.waypoints)
        ]

    def execute(
        self, pod: Pod, container: str, command: Sequence[str], within_s: float
    ) -> Executed:
        self.mutual_tls += self.rises
        if "by-waypoint" in command[-1]:
            self.by_waypoint += self.through_waypoint
        return self.curl

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        labels = 'connection_security_policy="mutual_tls",reporter="source"'
        return (
            f'# TYPE istio_requests_total counter\nistio_requests_total{{a="b"}} '
            f"{self.by_waypoint}\n"
            f"istio_tcp_connections_opened_total{{{labels}}} {self.mutual_tls}\n"
            f'istio_tcp_connections_opened_total{{connection_security_policy="unknown"}} 99\n'
        ).encode()

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        if name == "cilium-config":
            return None if self.settings is None else {"data": self.settings}
        if kind.startswith("Gateway"):
            return {"status": {"addresses": [{"value": self.address}] if self.address else []}}
        return None if self.pool is None else {"spec": {"addresses": self.pool}}


class Node(SimulatedEngine):
    """An engine whose nodes have Cilium's file, and a curl."""

    def __init__(
        self, plugins: Sequence[str] = ("cilium-cni", "istio-cni"), code: str = "200"
    ) -> None:
        super().__init__(World())
        self.text = json.dumps({"plugins": [{"type": each} for each in plugins]})
        self.gateway = Executed(0, code, "")
        self.listens, self.commands = True, list[str]()

    def execute(self, container: str, command: Sequence[str]) -> Executed:
        self.commands.append(" ".join(command))
        if "cni/net.d" in command[-1]:
            return Executed(0, f"02-istio-cni.conflist\n{self.text}", "")
        if "/proc/" in command[-1]:
            sockets = f"/proc/10/net/tcp:{int(self.listens)}\n/proc/1/net/tcp:0"
            return Executed(0, f"/proc/10/cgroup:pod{UID}\n{sockets}", "")
        return self.gateway


def verdicts(stack: Stack, node: Node | None = None) -> dict[str, tuple[str, str]]:
    kubernetes: Any = stack
    found = examine(kubernetes, NODES, CHOICE, Node() if node is None else node)
    return {each.check: (each.verdict, each.evidence) for each in found}


def test_a_stack_that_is_well() -> None:
    """All seven hold, with their evidence; the Gateway is requested over HTTPS as well."""
    node = Node()
    found = verdicts(Stack(), node)
    assert {verdict for verdict, _ in found.values()} == {"HOLDS"} and len(found) == 7
    assert "5 before a request, 6 after" in found["hbone_used"][1]
    assert any("https://" in command and "172.18.255.204" in command for command in node.commands)


BROKEN: list[tuple[str, Callable[[Stack], None], str, str]] = [
    (
        "cilium_settings",
        lambda s: s.__setattr__("settings", {**SETTINGS, "cni-exclusive": "true"}),
        "BROKEN",
        "is 'true'",
    ),
    ("cilium_settings", lambda s: s.__setattr__("settings", None), "UNKNOWN", "no ConfigMap"),
    (
        "hbone_used",
        lambda s: s.__setattr__("rises", False),
        "BROKEN",
        "5 before a request, 5 after",
    ),
    (
        "hbone_used",
        lambda s: s.__setattr__("curl", Executed(7, "", "refused")),
        "BROKEN",
        "curl ended with 7",
    ),
    ("hbone_used", lambda s: s.__setattr__("clients", False), "UNKNOWN", "no pod of DaemonSet"),
    (
        "waypoint_in_the_way",
        lambda s: s.__setattr__("through_waypoint", False),
        "BROKEN",
        "7 before a request, 7 after",
    ),
    (
        "waypoint_in_the_way",
        lambda s: s.__setattr__("waypoints", 0),
        "BROKEN",
        "no pod of the waypoint",
    ),
    (
        "address_in_pool",
        lambda s: s.__setattr__("address", "10.0.0.1"),
        "BROKEN",
        "address 10.0.0.1",
    ),
    ("address_in_pool", lambda s: s.__setattr__("address", None), "BROKEN", "has no address"),
    ("address_in_pool", lambda s: s.__setattr__("pool", None), "UNKNOWN", "no IPAddressPool"),
    ("gateway_answers", lambda s: s.__setattr__("address", None), "BROKEN", "has no address"),
    ("hbone_used", lambda s: s.__setattr__("down", True), "UNKNOWN", "the API server is down"),
]


@pytest.mark.parametrize(("check", "change", "verdict", "because"), BROKEN)
def test_each_way_to_be_ill(
    check: str, change: Callable[[Stack], None], verdict: str, because: str
) -> None:
    """Only what can be shown is BROKEN; what could not be queried is UNKNOWN, and never well."""
    stack = Stack()
    change(stack)
    found = verdicts(stack)[check]
    assert found[0] == verdict and because in found[1]


@pytest.mark.parametrize("plugins", [("cilium-cni",), ("istio-cni", "cilium-cni"), ()])
def test_a_file_that_does_not_chain(plugins: tuple[str, ...]) -> None:
    """istio-cni missing, or before Cilium: new pods pass ztunnel by."""
    verdict, because = verdicts(Stack(), Node(plugins))["chained_cni"]
    assert verdict == "BROKEN" and "worker: 02-istio-cni.conflist has" in because


def test_an_ambient_pod_in_which_nothing_listens() -> None:
    """Every pod is ready, its annotation says enabled, and its traffic goes past ztunnel."""
    node = Node()
    node.listens = False
    verdict, because = verdicts(Stack(), node)["ambient_redirected"]
    assert (
        verdict == "BROKEN" and "nothing listens on 15008 in Pod meshwake-demo/client-1" in because
    )


def test_a_gateway_that_answers_with_an_error() -> None:
    """Programmed, and no route."""
    verdict, because = verdicts(Stack(), Node(code="404"))["gateway_answers"]
    assert verdict == "BROKEN" and "404" in because


def test_a_gateway_that_does_not_answer_is_described_by_what_curl_reports() -> None:
    """curl prints a status of 000 in addition to its error; only the error is of use."""
    node = Node()
    node.gateway = Executed(28, "000", "curl: (28) Connection timed out\n")
    verdict, because = verdicts(Stack(), node)["gateway_answers"]
    assert verdict == "BROKEN"
    assert "curl: (28) Connection timed out (curl ended with 28)" in because
    assert "000" not in because


def test_what_only_nodes_know_is_unknown_of_a_cluster_that_exists() -> None:
    """Their processes may not be read."""
    kubernetes: Any = Stack()
    found = {each.check: each.verdict for each in examine(kubernetes, NODES, CHOICE, None)}
    assert (found["chained_cni"], found["gateway_answers"], found["hbone_used"]) == (
        "UNKNOWN",
        "UNKNOWN",
        "HOLDS",
    )


def test_questions_go_with_the_parts() -> None:
    """Without a gateway it is not checked."""
    kubernetes: Any = Stack()
    choice = choose_stack(pins(), name="t", without_parts=["gateway", "waypoint"])
    checked = {each.check for each in examine(kubernetes, NODES, choice, Node())}
    assert checked == {"ambient_redirected", "chained_cni", "cilium_settings", "hbone_used"}


def test_a_sum_over_labels() -> None:
    """Prometheus' text format."""
    text = 'a_total{x="1",y="2"} 3\na_total{x="2"} 4\nb_total{x="1"} 9\n# a_total{x="1"} 5\n'
    assert (total(text, "a_total"), total(text, "a_total", 'x="1"'), total(text, "c")) == (7, 3, 0)
