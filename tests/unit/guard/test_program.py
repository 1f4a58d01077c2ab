"""What surrounds the guard on a real node: arguments, metrics, /proc, admin interfaces, and an API
server's answers."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from meshwake.clocks.movers.own_clock import own_clocks
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.guard.__main__ import StopFlag, read_arguments
from meshwake.guard.certificates import of_envoy, of_ztunnel
from meshwake.guard.cluster import ApiPod, ApiRequestFailed, ClusterNode, Places, pod_from
from meshwake.guard.guard import Guard
from meshwake.guard.metrics import PrometheusMetrics
from meshwake.guard.settings import Settings
from meshwake.guard.starts import Process, Starts, Witnessed, boottime_of_start_ns, pid_of_container
from meshwake.guard.watch import ObservedProcess
from prometheus_client.parser import text_string_to_metric_families

from tests.support.paths import REPOSITORY
from tests.unit.guard.nodes import HOUR, NS, WALL_S, HandNode

UID = "3f0c5bd2-8c2f-4d5e-9b1a-6a7c1d2e3f40"


# Arguments


def test_the_arguments_of_the_manifest_are_understood() -> None:
    objects = yaml.safe_load_all(
        (REPOSITORY / "clusters/fixes/wake-guard/daemonset.yaml").read_text(encoding="utf-8")
    )
    container = next(each for each in objects if each["kind"] == "DaemonSet")["spec"]["template"][
        "spec"
    ]["containers"][0]
    arguments, settings = read_arguments([*container["args"], "--node=n"])
    assert settings == Settings()
    assert arguments.metrics_port == container["ports"][0]["containerPort"]


@pytest.mark.parametrize(
    "words", [["--perod=3s"], ["--period=soon"], ["--period=0s"], ["--metrics-port=x"]]
)
def test_a_wrong_argument_is_refused(words: list[str]) -> None:
    with pytest.raises(BadInput):
        read_arguments(["--node=n", *words])


def test_the_arguments_of_the_manifest_say_where_to_look() -> None:
    """Those of a guard that was installed with other namespaces too."""
    places = Places("zt", "control", ("web", "shop"))
    (daemon_set,) = [each for each in guard_objects(places) if each["kind"] == "DaemonSet"]
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    arguments, _ = read_arguments([*container["args"], "--node=n"])
    assert (arguments.ztunnel_namespace, arguments.istiod_namespace) == ("zt", "control")
    assert arguments.gateway_namespace == ["web", "shop"]


def test_the_unit_starts_the_guard_with_words_that_it_understands() -> None:
    """Without root, and with nothing of its own to write to."""
    text = (REPOSITORY / "clusters/fixes/wake-guard/wake-guard.service").read_text("utf-8")
    settings = dict(
        line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#"
    )
    _, _, words = settings["ExecStart"].partition(" -m meshwake.guard ")
    arguments, _ = read_arguments(words.split())
    assert (arguments.node, arguments.namespace) == ("%H", "meshwake-guard")
    assert (settings["DynamicUser"], settings["CapabilityBoundingSet"]) == ("yes", "")


def test_a_guard_must_know_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NODE_NAME", raising=False)
    with pytest.raises(BadInput, match="NODE_NAME"):
        read_arguments([])


def test_the_guard_has_no_privilege_on_its_node() -> None:
    """No root, no capability, nothing to write to, a user that no other image has; hostPID is all."""
    text = (REPOSITORY / "clusters/fixes/wake-guard/daemonset.yaml").read_text(encoding="utf-8")
    (daemon_set,) = [each for each in yaml.safe_load_all(text) if each["kind"] == "DaemonSet"]
    pod = daemon_set["spec"]["template"]["spec"]
    assert {name for name in pod if name.startswith("host")} == {"hostPID"}
    assert "volumes" not in pod and "initContainers" not in pod
    (container,) = pod["containers"]
    user = container["securityContext"].pop("runAsUser")
    assert container["securityContext"] == {
        "runAsNonRoot": True,
        "runAsGroup": user,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    # Of distroless and of istio's images.
    assert user not in {0, 1000, 1337, 65532, 65534}
    dockerfile = (REPOSITORY / "clusters/fixes/wake-guard/Dockerfile").read_text(encoding="utf-8")
    assert f"\nUSER {user}:{user}\n" in dockerfile


# Metrics

NAMES = {
    "meshwake_guard_drift_seconds": {"node", "process"},
    "meshwake_guard_renewal_late_seconds": {"node", "process"},
    "meshwake_guard_certificate_not_before_timestamp_seconds": {"node", "process", "identity"},
    "meshwake_guard_certificate_not_after_timestamp_seconds": {"node", "process", "identity"},
    "meshwake_guard_restarts_total": {"node", "target"},
    "meshwake_guard_restarts_held_back_total": {"node", "reason"},
    "meshwake_guard_last_look_timestamp_seconds": {"node"},
}


def scraped(metrics: PrometheusMetrics) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(metrics.text()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


def test_metrics_have_the_names_that_alerts_are_written_against() -> None:
    metrics, node = PrometheusMetrics("laptop"), HandNode()
    node.ztunnel("istio-system/ztunnel-x")
    guard = Guard(node, Settings(), metrics)
    guard.look()
    node.asleep(40 * HOUR)
    for _ in range(4):
        guard.look()
        node.awake(30)
    found = scraped(metrics)
    assert {name: set(dict(next(iter(of)))) for name, of in found.items()} == NAMES
    restarts = found["meshwake_guard_restarts_total"]
    assert restarts[frozenset({("node", "laptop"), ("target", "ztunnel")})] == 1
    assert restarts[frozenset({("node", "laptop"), ("target", "proxy")})] == 0
    held = found["meshwake_guard_restarts_held_back_total"]
    assert held[frozenset({("node", "laptop"), ("reason", "settling")})] == 1


def test_drift_and_expiry_are_exported_and_a_process_that_is_gone_is_forgotten() -> None:
    metrics, node = PrometheusMetrics("laptop"), HandNode()
    node.ztunnel()
    guard = Guard(node, Settings(), metrics)
    node.asleep(3 * HOUR)
    guard.look()
    assert list(scraped(metrics)["meshwake_guard_renewal_late_seconds"].values()) == [3 * HOUR]
    not_after = scraped(metrics)["meshwake_guard_certificate_not_after_timestamp_seconds"]
    assert list(not_after.values()) == [WALL_S + 24 * HOUR]
    not_before = scraped(metrics)["meshwake_guard_certificate_not_before_timestamp_seconds"]
    assert list(not_before.values()) == [WALL_S - 120]
    node.processes.clear()
    guard.look()
    assert "meshwake_guard_renewal_late_seconds" not in scraped(metrics)


def test_a_scrape_in_the_middle_of_a_look_finds_the_one_before_whole() -> None:
    """A request takes seconds where the API server is busy; an alert must not end, and start again,
    for it."""
    metrics, node = PrometheusMetrics("laptop"), HandNode()
    node.ztunnel()
    guard = Guard(node, Settings(), metrics)
    guard.look()
    before, between = scraped(metrics), []
    ask = node.seen

    def slow() -> list[ObservedProcess]:
        between.append(scraped(metrics))
        return ask()

    node.seen = slow  # type: ignore[method-assign]
    node.awake(30)
    guard.look()
    assert between == [before]


def test_a_guard_that_only_watches_exports_the_same_and_restarts_nothing() -> None:
    """Nor does it ask for a turn or for the authority, which it may not have a right to."""
    exported = []
    for acts in (True, False):
        metrics, node = PrometheusMetrics("laptop"), HandNode()
        node.ztunnel()
        guard = Guard(node, Settings(), metrics, acts=acts)
        guard.look()
        node.asleep(40 * HOUR)
        node.awake(60)
        guard.look()
        assert bool(node.restarted or node.waited) is acts
        exported.append(
            {name: of for name, of in scraped(metrics).items() if "restarts" not in name}
        )
    assert exported[0] == exported[1]


# When a process started


def test_a_start_that_the_guard_saw_is_known_to_the_clock() -> None:
    """An hour of sleep before the process, two hours after it: only those two are drift."""
    starts = Starts()
    starts.look(ClockReading(0, 10 * NS, 10 * NS))
    starts.look(ClockReading(0, 20 * NS, (20 + HOUR) * NS))
    started = starts.started(WALL_S * NS, (30 + HOUR) * NS)
    starts.look(ClockReading(0, 40 * NS, (40 + 3 * HOUR) * NS))
    assert started == ClockReading(WALL_S * NS, 30 * NS, (30 + HOUR) * NS)
    assert starts.started(WALL_S * NS, (30 + HOUR) * NS) == started


def test_of_an_older_process_all_sleep_is_taken_to_lie_after_its_start() -> None:
    """Too much drift rather than too little."""
    starts = Starts()
    starts.look(ClockReading(0, 20 * NS, (20 + HOUR) * NS))
    assert starts.started(WALL_S * NS, 5 * NS).monotonic_ns == 5 * NS


A, B = Process(7, 100 * NS), Process(8, 900 * NS)


def test_who_began_between_two_looks_began_with_the_drift_of_now() -> None:
    """Whatever kubelet and /proc say of it; and that stays so, however far the clocks part
    afterwards."""
    witnessed, then, now = (
        Witnessed(),
        ClockReading(50 * HOUR * NS, 0, 0),
        ClockReading(50 * HOUR * NS + 30 * NS, 30 * NS, 0),
    )
    witnessed.look(then, {A})
    witnessed.look(now, {A, B})
    later = ClockReading(60 * HOUR * NS, 60 * NS, 0)
    witnessed.look(later, {A, B})
    assert witnessed.started(B) == now
    assert witnessed.started(A) is None, "it was there when the guard came"


def test_a_start_while_clocks_parted_was_not_seen() -> None:
    """Before the sleep or after it: the guard was asleep too."""
    witnessed = Witnessed()
    witnessed.look(ClockReading(0, 0, 0), {A})
    witnessed.look(ClockReading(HOUR * NS, 30 * NS, 0), {A, B})
    assert witnessed.started(B) is None


def test_who_has_ended_is_forgotten() -> None:
    """A later process of the same number has another start."""
    witnessed = Witnessed()
    for there in ({A}, {A, B}, {A}, {A, Process(8, 901 * NS)}):
        witnessed.look(ClockReading(0, 0, 0), there)
    assert witnessed.started(B) is None and witnessed.started(Process(8, 901 * NS)) is not None


# Waiting


def test_the_end_is_waited_for_within_a_bound_and_noticed_at_once() -> None:
    """Also from a signal's handler."""
    ended = StopFlag()
    began_s = time.monotonic()
    assert ended.wait(0.2) is False and time.monotonic() - began_s >= 0.2
    ended.set()
    assert ended.wait(60) is True and time.monotonic() - began_s < 30


def test_proc_has_the_start_of_a_process() -> None:
    """This very process: before now, and not longer ago than the machine runs."""
    started_ns = boottime_of_start_ns(os.getpid())
    assert 0 < started_ns <= own_clocks().boottime_ns


@pytest.mark.parametrize("written", [UID, UID.replace("-", "_")])
def test_a_process_is_found_by_its_pod(tmp_path: Path, written: str) -> None:
    """Control groups write the uid of a pod with either line."""
    for pid, comm, started in (
        ("10", "ztunnel", 500),
        ("11", "ztunnel", 900),
        ("12", "envoy", 100),
    ):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(comm + "\n")
        (tmp_path / pid / "cgroup").write_text(f"0::/../kubepods-pod{written}.slice/x.scope\n")
        (tmp_path / pid / "stat").write_text(
            f"{pid} (a ) b) S " + " ".join(["0"] * 18) + f" {started} 0\n"
        )
    (tmp_path / "13").mkdir()
    assert pid_of_container(UID, "ztunnel", tmp_path) == 10
    assert pid_of_container(UID.replace("3", "4"), "ztunnel", tmp_path) is None


# Admin interfaces


@pytest.mark.parametrize("name", ["1.27.9-available", "1.28.0-available", "1.31.0-rc.0-available"])
def test_certificates_of_real_ztunnels(name: str) -> None:
    held = of_ztunnel((REPOSITORY / f"tests/data/config_dumps/{name}.json").read_bytes())
    assert held
    assert all(each.identity.startswith("spiffe://") for each in held)
    assert all((each.not_after_wall_ns - each.not_before_wall_ns) / NS > 60 for each in held)


def test_a_ztunnel_without_certificates_holds_none() -> None:
    assert (
        of_ztunnel((REPOSITORY / "tests/data/config_dumps/1.27.9-unavailable.json").read_bytes())
        == ()
    )


@pytest.mark.parametrize(
    "text", ["", "[1]", "7", '{"certificates": 3}', '{"certificates": [{"certChain": [{}]}]}']
)
def test_nonsense_is_reported_as_nonsense(text: str) -> None:
    with pytest.raises(HarnessFault, match="not what was expected"):
        of_ztunnel(text.encode())


def envoy(identity: str = "spiffe://cluster.local/ns/x/sa/y") -> dict[str, object]:
    """As Envoy's /certs has it (envoy.admin.v3.Certificates)."""
    return {
        "ca_cert": [{"path": "<inline>", "expiration_time": "2036-01-01T00:00:00Z"}],
        "cert_chain": [
            {
                "path": "<inline>",
                "subject_alt_names": [{"uri": identity}],
                "days_until_expiration": "0",
                "valid_from": "2027-01-04T07:58:00Z",
                "expiration_time": "2027-01-05T08:00:00Z",
            }
        ],
    }


def test_certificates_of_an_envoy() -> None:
    """Of each identity once, and no authority's."""
    (held,) = of_envoy(json.dumps({"certificates": [envoy(), envoy(), {"ca_cert": []}]}).encode())
    assert held.not_after_wall_ns - held.not_before_wall_ns == (24 * HOUR + 120) * NS


# A node of a cluster


@dataclass
class HandApi:
    """An API server of two pods."""

    found: dict[str, list[ApiPod]]
    answers: dict[str, bytes]
    events: list[tuple[str, str]] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)

    def pods(self, namespace: str, labels: str, node: str | None) -> Sequence[ApiPod]:
        return self.found.get(labels, [])

    def get_from_pod(self, pod: ApiPod, port: int, path: str) -> bytes:
        if pod.name not in self.answers:
            raise ApiRequestFailed(f"{pod.full_name}: no answer")
        return self.answers[pod.name]

    def evict(self, pod: ApiPod) -> None:
        self.evicted.append(pod.full_name)

    def post_event(self, pod: ApiPod, reason: str, message: str, warning: bool) -> None:
        self.events.append((reason, message))

    def take_lease(self, number: int, holder: str, holds_ns: int, now_monotonic_ns: int) -> bool:
        return True


def pod(name: str, uid: str = UID, *, ready: bool = True) -> ApiPod:
    return ApiPod("istio-system", name, uid, "10.0.0.9", ready, {"istio-proxy": WALL_S * NS})


def cluster_node(tmp_path: Path, api: HandApi, logged: list[str], now: ClockReading) -> ClusterNode:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "comm").write_text("ztunnel\n")
    (tmp_path / "7" / "cgroup").write_text(f"0::/kubepods/pod{UID}/x\n")
    ticks = os.sysconf("SC_CLK_TCK")
    (tmp_path / "7" / "stat").write_text(
        "7 (ztunnel) S " + " ".join(["0"] * 18) + f" {100 * ticks} 0\n"
    )
    return ClusterNode(
        "laptop", api, lambda: now, lambda address, port: True, logged.append, tmp_path
    )


def dump(not_after: str) -> bytes:
    chain = {"validFrom": "2027-01-15T07:58:00Z", "expirationTime": not_after, "serialNumber": "1"}
    entry = {"identity": "spiffe://a", "state": "Available", "certChain": [chain]}
    return json.dumps({"certificates": [entry]}).encode()


def test_a_node_of_a_cluster_from_its_pods_to_the_eviction(tmp_path: Path) -> None:
    """Forty hours of sleep since the ztunnel started; its certificate has run out: an Event, then
    an eviction."""
    now = ClockReading((WALL_S + 41 * HOUR) * NS, (100 + HOUR) * NS, (100 + 41 * HOUR) * NS)
    api = HandApi(
        {"app=ztunnel": [pod("zt")], "app=istiod": [pod("istiod")]},
        {"zt": dump("2027-01-16T08:00:00Z")},
    )
    logged: list[str] = []
    Guard(cluster_node(tmp_path, api, logged, now), Settings()).look()
    assert api.evicted == ["istio-system/zt"]
    assert [reason for reason, _ in api.events] == ["WakeGuardRestarted"]
    assert "renewals are 1d16h late" in api.events[0][1]


def test_without_an_istiod_that_is_ready_it_waits(tmp_path: Path) -> None:
    now = ClockReading((WALL_S + 41 * HOUR) * NS, (100 + HOUR) * NS, (100 + 41 * HOUR) * NS)
    found = {"app=ztunnel": [pod("zt")], "app=istiod": [pod("istiod", ready=False)]}
    api = HandApi(found, {"zt": dump("2027-01-16T08:00:00Z")})
    Guard(cluster_node(tmp_path, api, [], now), Settings()).look()
    assert api.evicted == []
    assert [reason for reason, _ in api.events] == ["WakeGuardHeldBack"]


def test_a_pod_that_does_not_answer_is_left_out_and_logged(tmp_path: Path) -> None:
    api = HandApi({"app=ztunnel": [pod("zt")]}, {})
    logged: list[str] = []
    assert cluster_node(tmp_path, api, logged, ClockReading(0, 0, 0)).seen() == []
    assert logged == ["istio-system/zt: not looked at this time: istio-system/zt: no answer"]


def test_a_pod_as_an_api_server_describes_it() -> None:
    item = {
        "metadata": {
            "namespace": "n",
            "name": "p",
            "uid": UID,
            "ownerReferences": [{"kind": "DaemonSet", "name": "ztunnel"}],
        },
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {
                    "name": "istio-proxy",
                    "state": {"running": {"startedAt": "2027-01-04T08:00:00Z"}},
                },
                {"name": "other", "state": {"waiting": {}}},
            ],
        },
    }
    assert pod_from(item, len) == ApiPod(
        "n", "p", UID, "10.0.0.1", True, {"istio-proxy": 20}, "n/DaemonSet/ztunnel"
    )
