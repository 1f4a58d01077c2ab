"""Each alert has a page, and the commands of the pages exist: every one is parsed by the program
that it names."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from meshwake.cli.app import run_command

from tests.integration.alerts.tools import ALERTS

ROOT = ALERTS.parents[2]
PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
COMMANDS = sorted(
    {
        line
        for page in PAGES
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
    }
    | {
        text
        for page in PAGES
        for text in re.findall(r"`((?:kubectl|meshwake) [^`]+)`", page.read_text(encoding="utf-8"))
    }
)
# Of the node's own time service, and plain HTTP: not this program's to test.
OTHERS = ("curl", "timedatectl", "chronyc")
NO_SERVER = "https://127.0.0.1:1"


def rules() -> list[dict[str, dict[str, str]]]:
    groups = yaml.safe_load((ALERTS / "mesh.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_page_that_names_it(rule: dict[str, dict[str, str]]) -> None:
    """Its annotation leads there."""
    page = ROOT / rule["annotations"]["runbook"]
    assert page.is_file()
    assert str(rule["alert"]) in page.read_text(encoding="utf-8").splitlines()[0]


def test_every_page_is_listed_and_belongs_to_an_alert() -> None:
    """No page is left over."""
    used = {Path(rule["annotations"]["runbook"]).name for rule in rules()} | {"README.md"}
    assert {page.name for page in PAGES} == used
    index = (ROOT / "docs" / "runbooks" / "README.md").read_text(encoding="utf-8")
    for rule in rules():
        assert str(rule["alert"]) in index


def test_the_pages_have_commands() -> None:
    """Else the next test would judge nothing."""
    assert sum(command.startswith("kubectl ") for command in COMMANDS) > 10


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_exists(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """kubectl: it gets as far as asking a server that is not there. meshwake: its options are
    known."""
    words = shlex.split(command)
    if words[0] == "kubectl":
        _kubectl(words, tmp_path)
    elif words[0] == "meshwake":
        assert run_command([words[1], "--help"]) == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words[2:] if word.startswith("--"))
    else:
        assert words[0] in OTHERS


def _kubectl(words: list[str], tmp_path: Path) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl on PATH")
    if "apply" in words:
        assert words[words.index("-f") + 1].startswith("clusters/")
        return
    (tmp_path / "config").write_text(yaml.safe_dump(_config()))
    command = [kubectl, f"--kubeconfig={tmp_path / 'config'}", "--request-timeout=5s", *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "unknown" not in done.stderr, done.stderr
    assert "127.0.0.1:1" in done.stderr, done.stderr


def _config() -> dict[str, object]:
    """A kubeconfig that leads to no server."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "nowhere", "cluster": {"server": NO_SERVER}}],
        "users": [{"name": "me", "user": {"token": "none"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "me"}}],
        "current-context": "nowhere",
    }
