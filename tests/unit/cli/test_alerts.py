from __future__ import annotations

import json
from pathlib import Path

import pytest
from meshwake.analysis.alert_replay import missing_tools
from meshwake.cli.app import run_command
from meshwake.core.errors import ExitCode

from tests.support.paths import REPOSITORY

RUN = str(REPOSITORY / "tests" / "data" / "histories" / "ztunnel_1481-1.31.0-rc.0")
AS_REPORTED = str(REPOSITORY / "clusters" / "observability" / "as_reported.yml")
NEEDS = pytest.mark.skipif(
    bool(missing_tools()), reason="; ".join(missing_tools()) or "Prometheus is here"
)


@NEEDS
def test_our_alerts_and_the_one_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    """The recorded run of the issue: ours in time, exit code 0; the reported one never, exit code
    1."""
    assert run_command(["alerts", RUN]) == ExitCode.AS_EXPECTED
    out = capsys.readouterr().out
    assert (
        "day 0 00:48  ZtunnelCertificatesWillExpire" in out and "HOLDS  alert_before_outage" in out
    )
    assert run_command(["alerts", RUN, "--rules", AS_REPORTED, "--json"]) == ExitCode.SURPRISE
    answer = json.loads(capsys.readouterr().out)
    assert (answer["verdict"], answer["alerts"]) == ("BROKEN", [])
    assert "no alert ever fired" in answer["because"]


def test_without_prometheus_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4, never a traceback."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert run_command(["alerts", RUN]) == ExitCode.LAB_UNAVAILABLE
    assert "apt install prometheus" in capsys.readouterr().err


def test_a_file_that_holds_no_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 3."""
    assert run_command(["alerts", RUN, "--rules", str(tmp_path / "none.yml")]) == ExitCode.BAD_INPUT
    assert "give a file of Prometheus rules" in capsys.readouterr().err


@NEEDS
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_rules_that_powershell_wrote(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kubectl get prometheusrule -o yaml > rules.yaml` makes UTF-16 there: the same answer."""
    rules = tmp_path / "rules.yaml"
    rules.write_bytes(
        Path(AS_REPORTED).read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding)
    )
    assert run_command(["alerts", RUN, "--rules", str(rules), "--json"]) == ExitCode.SURPRISE
    assert json.loads(capsys.readouterr().out)["verdict"] == "BROKEN"
