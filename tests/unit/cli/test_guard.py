"""What a person sees of `meshwake guard`: one command to install, output, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.cli import guard
from meshwake.cli.app import run_command
from meshwake.cluster.guard_deployment.install import installed_image
from meshwake.core.errors import ExitCode

from tests.unit.cluster.guard_deployment.homelab import NOW_S, Homelab

Says = pytest.CaptureFixture[str]
IMAGE = "registry.example/wake-guard:7"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Homelab:
    """That of the current context."""
    found = Homelab()

    @contextmanager
    def opened(*named: Any) -> Iterator[guard._Place]:
        yield guard._Place(found, None)

    monkeypatch.setattr(guard, "_opened", opened)
    monkeypatch.setattr("time.time", lambda: float(NOW_S))
    return found


def test_one_command_installs_it_and_says_what_comes_next(cluster: Homelab, capsys: Says) -> None:
    """Where it looks, metrics, alerts, runbooks, and how it is removed."""
    assert run_command(["guard", "install", "--image", IMAGE, "--gateway-namespace", "demo"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("the wake guard looks on 2 nodes: one, two\n")
    for words in (IMAGE, "istio-system, demo; it has no right elsewhere", "15099", "mesh.yml"):
        assert words in out
    assert "docs/runbooks" in out and "meshwake guard uninstall" in out
    assert installed_image(cluster) == IMAGE


def test_an_image_that_does_not_exist_is_not_applied(cluster: Homelab, capsys: Says) -> None:
    """Exit 4, with how to build it, how to get it into these nodes, and what to type then."""
    before = cluster.there()
    assert run_command(["guard", "install"]) == ExitCode.LAB_UNAVAILABLE
    printed = capsys.readouterr().err
    for words in ("published", "docker build -f", "k3s ctr images import", "install --image"):
        assert words in printed
    assert cluster.there() == before


def test_the_manifest_is_printed_without_a_cluster(
    capsys: Says, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """For kubectl; a note on stderr says that its image must be built."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    words = ["guard", "install", "--dry-run", "--gateway-namespace", "web", "-n", "zt"]
    assert run_command(words) == 0
    printed = capsys.readouterr()
    objects = list(yaml.safe_load_all(printed.out))
    assert {thing["metadata"].get("namespace") for thing in objects} == {
        None,
        "meshwake-guard",
        "zt",
        "istio-system",
        "web",
    }
    assert "not published" in printed.err
    assert run_command(["guard", "install", "--print", "--image", IMAGE]) == 0
    printed = capsys.readouterr()
    assert IMAGE in printed.out and printed.err == ""


def test_status_shows_each_node_and_its_exit_code_says_whether_all_is_well(
    cluster: Homelab, capsys: Says
) -> None:
    assert run_command(["guard", "status"]) == ExitCode.LAB_UNAVAILABLE
    assert "meshwake guard install" in capsys.readouterr().err
    run_command(["guard", "install", "--image", IMAGE])
    capsys.readouterr()
    assert run_command(["guard", "status"]) == 0
    assert capsys.readouterr().out.split("two:")[0] == (
        "one: guarded\n"
        f"  image      {IMAGE}\n"
        "  last look  12s ago, 2027-01-15T07:59:48Z\n"
        "  drift      istio-system/ztunnel-x 8h\n"
        "  restarts   ztunnel 3\n"
        "  held back  settling 2\n"
    )
    del cluster.objects["Pod", "meshwake-guard", "wake-guard-two"]
    assert run_command(["guard", "status", "--json"]) == ExitCode.SURPRISE
    one, two = json.loads(capsys.readouterr().out)["nodes"]
    assert one["drift_s"] == {"istio-system/ztunnel-x": 28800.4} and one["problem"] is None
    assert two["problem"] == "a ztunnel runs here and no guard" and two["last_look"] is None


def test_uninstall_names_what_it_removed(cluster: Homelab, capsys: Says) -> None:
    before = cluster.there()
    run_command(["guard", "install", "--image", IMAGE])
    capsys.readouterr()
    assert run_command(["guard", "uninstall"]) == 0
    out = capsys.readouterr().out
    assert "removed DaemonSet meshwake-guard/wake-guard" in out
    assert "removed Namespace meshwake-guard" in out
    assert cluster.there() == before
    assert run_command(["guard", "uninstall"]) == 0
    assert "nothing of the wake guard was there" in capsys.readouterr().out


def test_alert_rules_for_the_operator(capsys: Says) -> None:
    assert run_command(["guard", "alerts", "--label", "release=stack"]) == 0
    objects = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [thing["kind"] for thing in objects] == ["PodMonitor", "PrometheusRule"]
    assert all(thing["metadata"]["labels"]["release"] == "stack" for thing in objects)


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["install", "--name", "t", "--kubeconfig", "x"], "give one of the two"),
        (["status", "--name", "nowhere"], "no cluster of ours is up under that name"),
        (["install", "--kubeconfig", "/no/such/file"], "/no/such/file"),
        (["alerts", "--label", "release"], "--label release: expected KEY=VALUE"),
        (["instal"], "instal"),
    ],
)
def test_mistakes_are_named(
    words: list[str],
    printed: str,
    capsys: Says,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Exit 3, and no traceback."""
    monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path))
    assert run_command(["guard", *words]) == ExitCode.BAD_INPUT
    shown = capsys.readouterr().err
    assert printed in shown and "Traceback" not in shown
