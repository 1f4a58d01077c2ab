"""The alerting rules, by Prometheus' own promtool; and that its tests can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from meshwake.analysis.alert_replay import read_rules
from meshwake.core.errors import BadInput

from tests.integration.alerts.tools import ALERTS, output_of, tool

RULES = ALERTS / "mesh.yml"
AS_REPORTED = ALERTS.parent / "as_reported.yml"


@pytest.mark.parametrize("file", ["mesh.yml", "for_five_minutes.yml"])
def test_rules_are_well_formed(file: str) -> None:
    """promtool check rules."""
    assert "SUCCESS" in output_of(tool("promtool"), "check", "rules", str(ALERTS / file))


@pytest.mark.parametrize("file", ["mesh_test.yml", "days_test.yml"])
def test_rules_fire_when_they_should_and_not_before(file: str) -> None:
    """promtool test rules: asleep half of the time, napping, with the authority away, with the
    clock set back."""
    assert "SUCCESS" in output_of(tool("promtool"), "test", "rules", str(ALERTS / file))


def test_the_tests_of_the_rules_can_fail(tmp_path: Path) -> None:
    """With `for: 5m` on the rule that must fire at once, promtool finds the difference."""
    promtool = tool("promtool")
    for name in ("mesh_test.yml", "for_five_minutes.yml"):
        shutil.copy(ALERTS / name, tmp_path)
    (tmp_path / "mesh_test.yml").write_text(
        (ALERTS / "mesh_test.yml").read_text().replace("../", "")
    )
    shutil.copy(AS_REPORTED, tmp_path)
    text = RULES.read_text()
    spoilt = text.replace(
        "alert: ZtunnelCertificatesWillExpire\n",
        "alert: ZtunnelCertificatesWillExpire\n        for: 5m\n",
    )
    assert spoilt != text
    (tmp_path / "mesh.yml").write_text(spoilt)
    done = subprocess.run(
        [promtool, "test", "rules", str(tmp_path / "mesh_test.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "alertname: ZtunnelCertificatesWillExpire" in done.stdout + done.stderr


def test_no_rule_waits() -> None:
    """`for` starts over after each gap of the data."""
    rules = [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]
    assert [rule["alert"] for rule in rules if "for" in rule] == []


def test_every_rule_has_a_test() -> None:
    """Each fires in one of the two files."""
    tested = "".join((ALERTS / file).read_text() for file in ("mesh_test.yml", "days_test.yml"))
    for rule in read_rules(RULES):
        assert re.search(rf"- alertname: {rule.name}\n\s+eval_time: \S+\n\s+exp_alerts:", tested), (
            rule.name
        )


def test_every_rule_is_explained() -> None:
    """In the table of docs/alerts.md, which has no others."""
    table = (
        (ALERTS.parents[2] / "docs" / "alerts.md")
        .read_text()
        .split("| alert |")[1]
        .split("\n\n")[0]
    )
    named = {
        name for row in table.splitlines()[2:] for name in row.split("|")[1].strip().split(", ")
    }
    assert named == {rule.name for rule in read_rules(RULES)}


def test_the_metrics_are_those_of_the_guard() -> None:
    """The names are a promise of harness/meshwake/guard; a rule on another name would be
    silent for ever."""
    allowed = {
        "meshwake_guard_drift_seconds",
        "meshwake_guard_renewal_late_seconds",
        "meshwake_guard_certificate_not_before_timestamp_seconds",
        "meshwake_guard_certificate_not_after_timestamp_seconds",
        "meshwake_guard_restarts_held_back_total",
        "meshwake_guard_last_look_timestamp_seconds",
        "istio_agent_cert_expiry_seconds",
        "istio_tcp_connections_failed_total",
        "istio_build",
        "certmanager_certificate_renewal_timestamp_seconds",
        "certmanager_certificate_expiration_timestamp_seconds",
        "citadel_server_csr_count",
        "citadel_server_authentication_failure_count",
    }
    named = re.compile(r"\b(?:meshwake|istio|certmanager|citadel)_\w+")
    used = {name for rule in read_rules(RULES) for name in named.findall(rule.expression)}
    assert used == allowed


@pytest.mark.parametrize(
    ("text", "what"),
    [("groups: 3", "not a file"), ("a: [", "not a file"), (None, "cannot be read")],
)
def test_what_is_not_a_file_of_rules_is_refused(
    text: str | None, what: str, tmp_path: Path
) -> None:
    """With the file and what to try."""
    if text is not None:
        (tmp_path / "r.yml").write_text(text)
    with pytest.raises(BadInput, match=what):
        read_rules(tmp_path / "r.yml")
