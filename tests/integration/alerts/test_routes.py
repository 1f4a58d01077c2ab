"""Which receiver gets what: Alertmanager's routes by amtool, and inhibition in a real
Alertmanager."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.analysis.alert_replay import read_rules

from tests.integration.alerts.tools import (
    ALERTS,
    alertmanager,
    amtool_alerts,
    output_of,
    post_alerts,
    tool,
)

CONFIG = ALERTS / "alertmanager.yml"
RECEIVER = {"critical": "immediately", "warning": "next-day", "info": "record-only"}
ZTUNNEL = {"node": "laptop", "process": "ztunnel-1"}


def test_the_configuration_is_well_formed() -> None:
    """amtool check-config."""
    assert "SUCCESS" in output_of(tool("amtool"), "check-config", str(CONFIG))


@pytest.mark.parametrize("severity", RECEIVER)
def test_each_severity_reaches_its_receiver(severity: str) -> None:
    """amtool config routes test."""
    words = [
        tool("amtool"),
        "config",
        "routes",
        "test",
        f"--config.file={CONFIG}",
        f"severity={severity}",
    ]
    assert output_of(*words).strip() == RECEIVER[severity]


def test_no_rule_has_a_severity_without_a_route() -> None:
    """Every alert goes to a receiver on purpose."""
    text = (ALERTS / "mesh.yml").read_text()
    used = {
        line.split("severity: ")[1].split("}")[0].split(",")[0]
        for line in text.splitlines()
        if "severity: " in line
    }
    assert used <= set(RECEIVER)
    assert read_rules(ALERTS / "mesh.yml")


def test_the_worse_alert_silences_the_milder_of_the_same_process(tmp_path: Path) -> None:
    """Expired before will-expire before late, of the same node and process only."""
    other = ZTUNNEL | {"node": "server"}
    with alertmanager(CONFIG, tmp_path) as address:
        post_alerts(
            address,
            [
                ZTUNNEL
                | {
                    "alertname": "ZtunnelCertificateExpired",
                    "severity": "critical",
                    "identity": "default/client",
                },
                ZTUNNEL | {"alertname": "ZtunnelCertificatesWillExpire", "severity": "critical"},
                ZTUNNEL | {"alertname": "ZtunnelRenewalsLate", "severity": "warning"},
                {"alertname": "MeshConnectionsFail", "node": "laptop", "severity": "critical"},
                {
                    "alertname": "ProxyCertificateExpired",
                    "namespace": "a",
                    "pod": "g",
                    "severity": "critical",
                },
                {
                    "alertname": "ProxyRenewalOverdue",
                    "namespace": "a",
                    "pod": "g",
                    "severity": "warning",
                },
                {
                    "alertname": "ProxyRenewalOverdue",
                    "namespace": "a",
                    "pod": "h",
                    "severity": "warning",
                },
                other | {"alertname": "ZtunnelCertificatesWillExpire", "severity": "critical"},
                other | {"alertname": "ZtunnelRenewalsLate", "severity": "warning"},
                {"alertname": "MeshConnectionsFail", "node": "server", "severity": "critical"},
            ],
        )
        shown = {_name(alert) for alert in amtool_alerts(address)}
        every = {_name(alert) for alert in amtool_alerts(address, "--inhibited")}
    assert shown == {
        ("ZtunnelCertificateExpired", "laptop"),
        ("ProxyCertificateExpired", "g"),
        ("ProxyRenewalOverdue", "h"),
        ("ZtunnelCertificatesWillExpire", "server"),
        ("MeshConnectionsFail", "server"),
    }
    assert every - shown == {
        ("ZtunnelCertificatesWillExpire", "laptop"),
        ("ZtunnelRenewalsLate", "laptop"),
        ("MeshConnectionsFail", "laptop"),
        ("ProxyRenewalOverdue", "g"),
        ("ZtunnelRenewalsLate", "server"),
    }


def _name(alert: dict[str, dict[str, str]]) -> tuple[str, str]:
    labels = alert["labels"]
    return labels["alertname"], labels.get("pod") or labels["node"]
