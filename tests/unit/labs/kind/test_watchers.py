"""Tokens are read on the node, because ztunnel's image is distroless; alerts are of the run."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from meshwake.clocks.movers.node_access import CommandResult, Inside, NoAnswer
from meshwake.core.plan import PlannedCluster
from meshwake.kubernetes.api import Unreachable
from meshwake.labs.kind.environment import RunningCluster
from meshwake.labs.kind.local_environment import LocalEnvironment
from meshwake.labs.kind.watchers import Alerts, TokenWatcher

from tests.unit.labs.kind.runs import TWO_NODES, cluster_of, plan

FILE = "/proc/1/root/var/lib/kubelet/pods/uid-ztunnel-{}/volumes/kubernetes.io~projected/istio-token/istio-token"


def token(expires_wall_s: int) -> str:
    claims = (
        base64.urlsafe_b64encode(json.dumps({"exp": expires_wall_s}).encode()).decode().rstrip("=")
    )
    return f"head.{claims}.signature"


@dataclass
class Nodes(Inside):
    """The nodes' files, by node and path."""

    files: dict[tuple[str, str], str]
    silent: bool = False
    commands: list[Sequence[str]] = field(default_factory=list)

    def run(self, node: str, argv: Sequence[str], within_s: float) -> CommandResult:
        self.commands.append(argv)
        if self.silent:
            raise NoAnswer("docker: no answer")
        content = self.files.get((node, argv[-1]))
        return (
            CommandResult(0, content, "")
            if content is not None
            else CommandResult(1, "", f"cat: {argv[-1]}: No such file")
        )


def test_each_token_is_read_on_its_own_node() -> None:
    """From the directory of its pod; nothing is run in ztunnel."""
    cluster = cluster_of(plan(nodes=TWO_NODES))
    nodes = Nodes(
        {("worker0", FILE.format(1)): token(1000), ("worker1", FILE.format(2)): token(2000)}
    )
    seen = TokenWatcher(cluster, nodes).poll()
    assert {each.data["pod"]: each.data["expires_wall_s"] for each in seen} == {
        "istio-system/ztunnel-1": 1000,
        "istio-system/ztunnel-2": 2000,
    }
    assert not [call for call in cluster.calls if call.startswith("exec")]
    assert "signature" not in repr(seen), "the token itself is read and forgotten"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (Nodes({}), "cat on worker0 ended with 1: cat: .*No such file"),
        (Nodes({}, silent=True), "docker: no answer"),
        (Nodes({("worker0", FILE.format(1)): "no token"}), "holds no token with an expiry"),
    ],
)
def test_what_cannot_be_read_is_reported(nodes: Nodes, message: str) -> None:
    """A watcher out of reach; the run records it once."""
    with pytest.raises(Unreachable, match=message):
        TokenWatcher(cluster_of(plan()), nodes).poll()


class Monitoring:
    """Prometheus and Alertmanager; `firing` are (name, since when)."""

    def __init__(self) -> None:
        self.firing: list[tuple[str, str]] = []

    def get_from_service(
        self, namespace: str, service: str, port: int, path: str, within_s: float
    ) -> bytes:
        if path.startswith("/api/v1/rules"):
            rule = {"name": "ZtunnelCertificateExpired", "lastEvaluation": "2026-11-30T12:00:00Z"}
            return json.dumps({"data": {"groups": [{"rules": [rule]}]}}).encode()
        if path == "/api/v1/alerts":
            alerts = [
                {"state": "firing", "labels": {"alertname": name}, "activeAt": since}
                for name, since in self.firing
            ]
            return json.dumps({"data": {"alerts": alerts}}).encode()
        return b"[]"


def fired(alerts: Alerts) -> list[str]:
    return [str(each.data["alert"]) for each in alerts.poll() if each.kind == "alert_fired"]


def test_an_alert_that_fired_before_the_run_does_not_count() -> None:
    """Unless it resolves and fires again."""
    monitoring = Monitoring()
    services = (("prometheus", 9090), ("alertmanager", 9093))
    alerts = Alerts(monitoring, "monitoring", *services)  # type: ignore[arg-type]
    monitoring.firing = [("GatewayRenewalLate", "12:16")]
    assert [each.kind for each in alerts.poll()] == ["alerts_evaluated"]
    monitoring.firing += [("ZtunnelRenewalsLate", "12:30")]
    assert fired(alerts) == ["ZtunnelRenewalsLate"]
    monitoring.firing = [("GatewayRenewalLate", "12:40")]
    assert fired(alerts) == ["GatewayRenewalLate"]


@pytest.mark.parametrize("lapse", [False, True])
def test_alerts_are_not_recorded_where_time_is_skipped(lapse: bool) -> None:
    """Prometheus lives in real time, so the moments at which its alerts fire mean nothing there."""
    of = plan(nodes=TWO_NODES)
    of = of.model_copy(update={"cluster": PlannedCluster(clock="process", lapse=lapse)})
    place = RunningCluster(
        "c", Path(), None, ours=True, nodes=(), parts=frozenset({"observability"})
    )
    names = {node.name: node.name for node in of.nodes}
    looked_at = LocalEnvironment().looked_at(of, place, cluster_of(of), names)
    watched = {type(watcher) for watcher in looked_at.watchers}
    assert (Alerts in watched) is not lapse
