"""The guard's way to an API server: what it asks, with its rights, and what it makes of the
answers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from meshwake.clocks.movers.own_clock import own_clocks
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.core.errors import LabUnavailable
from meshwake.guard import kubernetes
from meshwake.guard.cluster import ISTIOD, ZTUNNELS, ApiRequestFailed, ClusterNode, Places
from meshwake.guard.kubernetes import ThroughHttp
from meshwake.ztunnel.names import GATEWAY_LABEL, ISTIO_NAMESPACE

from tests.unit.guard.api_server import Cluster, serving

NS = 10**9
WALL_NS = 1_800_000_000 * NS
HOLDS_NS = 45 * NS
# A namespace, a resource of it, and what is done with that.
Right = tuple[str, str, str]


def pod(namespace: str, name: str, node: str, **labels: str) -> dict[str, Any]:
    running = {"name": "istio-proxy", "state": {"running": {"startedAt": "2027-01-15T08:00:00Z"}}}
    return {
        "metadata": {"namespace": namespace, "name": name, "uid": f"uid-{name}", "labels": labels},
        "spec": {"nodeName": node},
        "status": {
            "podIP": "10.0.0.1",
            "containerStatuses": [running],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def cluster() -> Cluster:
    gateway = {"gateway.networking.k8s.io/gateway-name": "web"}
    return Cluster(
        [
            pod("istio-system", "ztunnel-b", "b", app="ztunnel"),
            pod("istio-system", "ztunnel-a", "a", app="ztunnel"),
            pod("elsewhere", "ztunnel-x", "a", app="ztunnel"),
            pod("istio-system", "istiod-1", "b", app="istiod"),
            pod("web", "web-1", "a", **gateway),
        ]
    )


@pytest.fixture
def api(cluster: Cluster, tmp_path: Path) -> Iterator[ThroughHttp]:
    with serving(cluster, tmp_path) as kubeconfig:
        through = ThroughHttp(kubeconfig, "meshwake-guard", lambda: WALL_NS)
        yield through


def test_pods_of_one_node(api: ThroughHttp) -> None:
    """Of one namespace and label; istiod on whichever node it runs."""
    (ztunnel,) = api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a")
    assert (ztunnel.full_name, ztunnel.ready, ztunnel.started_wall_ns) == (
        "istio-system/ztunnel-a",
        True,
        {"istio-proxy": WALL_NS},
    )
    assert [each.full_name for each in api.pods("web", GATEWAY_LABEL, "a")] == ["web/web-1"]
    assert [each.full_name for each in api.pods(ISTIO_NAMESPACE, ISTIOD, None)] == [
        "istio-system/istiod-1"
    ]


def test_an_eviction_and_its_event(api: ThroughHttp, cluster: Cluster) -> None:
    (ztunnel,) = api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a")
    api.post_event(ztunnel, "WakeGuardRestarted", "because", warning=False)
    api.evict(ztunnel)
    assert cluster.evicted == ["/api/v1/namespaces/istio-system/pods/ztunnel-a/eviction"]
    (event,) = cluster.events
    assert event["involvedObject"]["uid"] == "uid-ztunnel-a"
    assert (event["type"], event["reason"], event["firstTimestamp"]) == (
        "Normal",
        "WakeGuardRestarted",
        "2027-01-15T08:00:00Z",
    )


def test_the_lease_goes_from_one_node_to_the_next_when_it_is_not_renewed(
    api: ThroughHttp, cluster: Cluster
) -> None:
    """Judged by our own monotonic clock from when we saw it, whatever another wall clock wrote into
    it."""
    assert api.take_lease(0, "a", HOLDS_NS, 0)
    assert api.take_lease(0, "a", HOLDS_NS, 10 * NS)
    assert not api.take_lease(0, "b", HOLDS_NS, 20 * NS)
    assert not api.take_lease(0, "b", HOLDS_NS, 64 * NS)
    assert api.take_lease(0, "b", HOLDS_NS, 65 * NS)
    assert cluster.leases["wake-guard"]["spec"]["holderIdentity"] == "b"


def test_each_turn_has_a_lease_of_its_own(api: ThroughHttp, cluster: Cluster) -> None:
    """A holder of one blocks no other lease."""
    assert api.take_lease(0, "a", HOLDS_NS, 0)
    assert api.take_lease(7, "b", HOLDS_NS, 0)
    assert not api.take_lease(7, "a", HOLDS_NS, 1)
    assert {name: lease["spec"]["holderIdentity"] for name, lease in cluster.leases.items()} == {
        "wake-guard": "a",
        "wake-guard-7": "b",
    }


def test_of_two_that_reach_for_the_lease_one_gets_it(api: ThroughHttp, cluster: Cluster) -> None:
    assert api.take_lease(0, "a", HOLDS_NS, 0)
    cluster.refuse["/leases/wake-guard"] = 409
    with pytest.raises(ApiRequestFailed):  # a conflict where none can be is not an answer
        api.take_lease(0, "a", HOLDS_NS, 1)
    cluster.refuse.clear()
    assert not api._write_lease("PUT", 0, {"resourceVersion": "0"}, "a", HOLDS_NS)


DUMP = b'{"certificates": [' + b" " * 70_000 + b"]}"
OK = b"\x00HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DUMP)


def test_an_admin_interface_on_localhost_is_reached_through_the_api_server(
    api: ThroughHttp, cluster: Cluster
) -> None:
    """Head and body in several messages, a ping before them; more than one frame of the small kind
    holds."""
    pieces = [b"\x00" + DUMP[at : at + 40_000] for at in range(0, len(DUMP), 40_000)]
    cluster.admin["ztunnel-a"] = [OK, *pieces]
    (ztunnel,) = api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a")
    assert api.get_from_pod(ztunnel, 15000, "/config_dump") == DUMP
    assert (
        cluster.received[0].startswith(b"\x00GET /config_dump HTTP/1.1\r\n")
        and cluster.received[1] == b"are you there"
    )
    assert cluster.requests[-1] == (
        "GET",
        "/api/v1/namespaces/istio-system/pods/ztunnel-a/portforward",
    )


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([b"\x01error forwarding port 15000: connection refused"], "connection refused"),
        (
            [b"\x00HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"],
            "503 Service Unavailable",
        ),
        ([b"\x00HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"], "IncompleteRead"),
        ([], "RemoteDisconnected|BadStatusLine"),
    ],
)
def test_a_port_that_does_not_answer_is_reported_unreachable(
    api: ThroughHttp, cluster: Cluster, messages: list[bytes], words: str
) -> None:
    """No listener; a refusal; an end half way."""
    cluster.admin["ztunnel-a"] = messages
    (ztunnel,) = api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a")
    with pytest.raises(
        ApiRequestFailed, match=rf"GET istio-system/ztunnel-a:15000/config_dump: .*({words})"
    ):
        api.get_from_pod(ztunnel, 15000, "/config_dump")


def test_a_forward_that_is_not_allowed_says_so(api: ThroughHttp, cluster: Cluster) -> None:
    """With the API server's own words: a role is missing."""
    cluster.refuse["/portforward"] = 403
    (ztunnel,) = api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a")
    with pytest.raises(ApiRequestFailed, match="403 Forbidden refused"):
        api.get_from_pod(ztunnel, 15000, "/config_dump")


def _authority() -> bytes:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")]),
    )
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_a_pod_finds_its_own_cluster(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what kubelet puts into it; its token is read again for each call."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT", tmp_path)
    with pytest.raises(LabUnavailable, match="run in a pod"):
        ThroughHttp(None, "meshwake-guard", lambda: WALL_NS)
    (tmp_path / "ca.crt").write_bytes(_authority())
    (tmp_path / "token").write_text("one\n")
    server = kubernetes.server_of_pod()
    assert server.address == ("::1", 443) and server.tls is not None
    assert server.headers() == {"Authorization": "Bearer one"}
    (tmp_path / "token").write_text("two\n")
    assert server.headers() == {"Authorization": "Bearer two"}


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"exec": {"command": "aws"}}, "logs in with another program"),
        ({"auth-provider": {}}, "another program"),
    ],
)
def test_a_login_that_only_another_program_knows_is_refused(
    tmp_path: Path, user: dict[str, Any], words: str
) -> None:
    """With what to give it instead."""
    with serving(Cluster([]), tmp_path) as kubeconfig:
        config = yaml.safe_load(kubeconfig.read_text())
        config["users"][0]["user"] = user
        kubeconfig.write_text(yaml.safe_dump(config))
        with pytest.raises(LabUnavailable, match=words):
            ThroughHttp(kubeconfig, "meshwake-guard", lambda: WALL_NS)


@pytest.mark.parametrize(
    "text", ["", "[]", "a: [", "{}", "clusters: 3", "contexts: [{}]\ncurrent-context: x"]
)
def test_what_is_not_a_kubeconfig_is_reported(tmp_path: Path, text: str) -> None:
    """No traceback."""
    (tmp_path / "odd").write_text(text)
    with pytest.raises(LabUnavailable, match="--kubeconfig"):
        ThroughHttp(tmp_path / "odd", "meshwake-guard", lambda: WALL_NS)


def test_a_missing_answer_is_reported_with_the_request(api: ThroughHttp, cluster: Cluster) -> None:
    cluster.refuse["/pods"] = 503
    with pytest.raises(ApiRequestFailed, match="list pods"):
        api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a")


def test_a_kubeconfig_that_leads_nowhere_gives_no_cluster(tmp_path: Path) -> None:
    with serving(Cluster([]), tmp_path) as kubeconfig:
        pass
    with pytest.raises(LabUnavailable, match="--kubeconfig"):
        ThroughHttp(kubeconfig, "meshwake-guard", lambda: WALL_NS)


def rights_used_by(api: ThroughHttp, cluster: Cluster) -> set[Right]:
    """Every right that the guard of node a used, while it looked, was held back and restarted."""
    places = Places(gateways=("web",))
    node = ClusterNode(
        "a", api, own_clocks, lambda address, port: True, lambda text: None, places=places
    )
    node.seen()
    assert node.authority_answers()
    for each in (*api.pods(ISTIO_NAMESPACE, ZTUNNELS, "a"), *api.pods("web", GATEWAY_LABEL, "a")):
        cluster.admin[each.name] = [OK, b"\x00" + DUMP[:65_000], b"\x00" + DUMP[65_000:]]
        api.get_from_pod(each, 15000, "/config_dump")
        api.evict(each)
        api.post_event(each, "x", "y", warning=True)
    for now_ns in (0, 1):
        api.take_lease(0, "a", HOLDS_NS, now_ns)
    paths = [(method, path) for method, path in cluster.requests if not path.endswith("/version")]
    return {right_of(method, path) for method, path in paths}


def test_the_guard_has_the_rights_that_it_uses_and_no_other(
    api: ThroughHttp, cluster: Cluster
) -> None:
    """Every request, held against the roles of its service account; and every right of those,
    against the requests."""
    objects = guard_objects(Places(gateways=("web",)))
    given = {
        (thing["metadata"]["namespace"], resource, verb)
        for thing in objects
        if thing["kind"] == "Role"
        for rule in thing["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # A WebSocket is a GET; from Kubernetes 1.35 on its API server wants "create" as well.
    as_websocket = {
        (place, "pods/portforward", "create") for place, _, _ in given if place != "meshwake-guard"
    }
    assert given == rights_used_by(api, cluster) | as_websocket


def test_no_right_of_the_guard_is_cluster_wide() -> None:
    """Neither by a ClusterRole, nor by a Role in a namespace that was not named."""
    for places in (
        Places(),
        Places("zt", "control"),
        Places("zt", "control", ("zt", "web", "shop", "web")),
    ):
        objects = guard_objects(places)
        assert not [thing for thing in objects if thing["kind"].startswith("Cluster")]
        roles = [thing for thing in objects if thing["kind"] in {"Role", "RoleBinding"}]
        named = {"meshwake-guard", places.istiod, *places.with_gateways}
        assert {thing["metadata"]["namespace"] for thing in roles} == named
        for thing in objects:
            for rule in thing.get("rules", ()):
                assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}


def test_a_gateway_namespace_without_a_role_does_not_keep_the_guard_from_ztunnel(
    api: ThroughHttp, cluster: Cluster
) -> None:
    """It is logged, and the others are looked at. Any other failure ends the look."""
    logged: list[str] = []
    places = Places(gateways=("shut", "web"))
    node = ClusterNode(
        "a", api, own_clocks, lambda address, port: True, logged.append, places=places
    )
    cluster.refuse["/namespaces/shut/pods"] = 403
    node.seen()
    assert "gateways in shut: not looked at: list pods of shut: 403 refused" in logged
    assert ("GET", "/api/v1/namespaces/web/pods") in cluster.requests
    cluster.refuse["/namespaces/shut/pods"] = 503
    with pytest.raises(ApiRequestFailed, match="list pods of shut: 503"):
        node.seen()


def right_of(method: str, path: str) -> Right:
    """(namespace, resource, verb) as RBAC names a request."""
    words = path.strip("/").split("/")
    words = words[2:] if words[0] == "api" else words[3:]
    assert words[0] == "namespaces", f"{path} is of the whole cluster"
    namespace, words = words[1], words[2:]
    resource = f"{words[0]}/{words[2]}" if len(words) > 2 else words[0]
    read = "get" if len(words) > 1 else "list"
    return namespace, resource, {"POST": "create", "PUT": "update"}.get(method, read)
