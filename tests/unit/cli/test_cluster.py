"""What a person sees of up, down and status: plans that touch nothing, refusals by name, exit
codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from meshwake.cli.app import run_command
from meshwake.cluster import cluster as clusters
from meshwake.cluster.hold import hold
from meshwake.cluster.observe import Running
from meshwake.cluster.reset import restart_ztunnels
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.state import ClusterState, Record, clusters_dir
from meshwake.core.errors import ExitCode

from tests.support.paths import SCENARIOS
from tests.unit.cluster.simulated import SimulatedCluster
from tests.unit.cluster.world import SimulatedEngine, World, machine
from tests.unit.labs.kind.runs import cluster_of, plan

Says = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No engine, no program, and a state of our own."""
    monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    # A doctor gives up after seconds; a busy test machine is given longer.
    monkeypatch.setattr("meshwake.labs.kind.local_environment.PROBE_TIMEOUT_S", 60.0)


def with_engine(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    monkeypatch.setattr("meshwake.cluster.docker.open_engine", lambda: SimulatedEngine(world))


def test_a_plan_of_up_is_printed_whole_and_nothing_is_touched(capsys: Says) -> None:
    """The same each time; also as JSON."""
    assert (
        run_command(["up", "--dry-run", "--profile", "full", "--istio", "1.30", "--nodes", "3"])
        == 0
    )
    printed = capsys.readouterr()
    assert (
        run_command(["up", "--dry-run", "--profile", "full", "--istio", "1.30", "--nodes", "3"])
        == 0
    )
    assert capsys.readouterr() == printed and printed.err == ""
    for word in (
        "preflight",
        "kind create cluster",
        "cilium",
        "istiod",
        "ztunnel",
        "metallb",
        "cert-manager",
        "health",
    ):
        assert word in printed.out
    assert "4 machines made by kind" in printed.out
    assert run_command(["up", "--dry-run", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["step"] for step in steps][:3] == ["preflight", "images", "cluster"]
    assert all(step["within_s"] > 0 for step in steps) and not clusters_dir().exists()


def test_a_plan_of_down(capsys: Says) -> None:
    """Needs no engine when the name is known."""
    assert run_command(["down", "--name", "t", "--dry-run"]) == 0
    assert (
        "remove every container labelled io.x-k8s.kind.cluster=meshwake-t"
        in capsys.readouterr().out
    )


BAD = [
    (["up", "--profile", "fool"], "expected one of core, full"),
    (["up", "--istio", "1.2"], "1.2"),
    (["up", "--kubernetes", "1.12"], "1.12"),
    (["up", "--nodes", "0"], "a cluster has 1 to"),
    (["up", "--nodes", "99"], "a cluster has 1 to"),
    (["up", "--name", "My Cluster"], "small letters"),
    (["up", "--with", "promethues"], "'promethues' for --with: expected one of cilium"),
    (["up", "--without", "istio"], "needs 'istio'"),
    (["up", "--lifetime", "10 parsecs"], "--lifetime"),
    (["up", "--lifetime", "1m"], "lifetime 60 s"),
    (["up", "--mirror", "https://mirror"], "without https://"),
    (["up", "--folder", "/no/such/folder"], "expected a directory"),
    (["down", "--name", "t", "--all"], "give one of the two"),
    (["down", "--name", "../../etc"], "only clusters so named"),
    (["status", "--name", "X"], "only clusters so named"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_refused_by_name(words: list[str], message: str, capsys: Says) -> None:
    """Exit 3, one message, no traceback, nothing touched."""
    assert run_command(words) == ExitCode.BAD_INPUT
    shown = capsys.readouterr()
    assert message in shown.err and "Traceback" not in shown.err and shown.out == ""
    assert not clusters_dir().exists()


def test_up_says_all_that_is_missing_at_once(capsys: Says) -> None:
    """Programs and engine, each with what to do; exit 4."""
    assert run_command(["up"]) == ExitCode.LAB_UNAVAILABLE
    err = capsys.readouterr().err
    for words in (
        "docker: not found",
        "kind: not found",
        "helm: not found",
        "run: make tools",
        "nothing listens",
    ):
        assert words in err
    assert not clusters_dir().exists()


@pytest.mark.parametrize("words", [["down"], ["down", "--all"], ["down", "--name", "t"]])
def test_down_without_an_engine(words: list[str], capsys: Says) -> None:
    """What cannot be queried is not claimed to be gone."""
    assert run_command(words) == ExitCode.LAB_UNAVAILABLE
    assert "nothing listens" in capsys.readouterr().err


def test_an_engine_that_refuses_us(monkeypatch: pytest.MonkeyPatch, capsys: Says) -> None:
    """No permission: reported, with the group to join."""

    def refuse(*words: Any, **about: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("docker.from_env", refuse)
    assert run_command(["down", "--all"]) == ExitCode.LAB_UNAVAILABLE
    assert "permission denied" in capsys.readouterr().err


def test_down_asks_which_one(monkeypatch: pytest.MonkeyPatch, capsys: Says) -> None:
    """Two are there, and a foreign one."""
    names = {"meshwake-a": "meshwake-a", "meshwake-b": "meshwake-b", "kind-worker": "kind"}
    world = World(
        machines={name: machine(name, cluster=cluster) for name, cluster in names.items()}
    )
    with_engine(monkeypatch, world)
    assert run_command(["down"]) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "which cluster? say --name NAME, or --all; there are:\n  meshwake-a: " in err
    assert "  meshwake-b: " in err and "kind-worker" not in err
    assert run_command(["down", "--all", "--dry-run"]) == 0
    assert len(world.machines) == 3
    assert run_command(["down", "--all"]) == 0
    assert set(world.machines) == {"kind-worker"}
    assert run_command(["down", "--name", "a", "--json"]) == 0
    assert json.loads(
        capsys.readouterr().out.rpartition("deleted: meshwake-a, meshwake-b\n")[2]
    ) == {"down": []}


def test_down_says_that_a_named_cluster_was_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: Says
) -> None:
    """It may be a typing error, and must not be answered with "deleted"."""
    world = World(machines={"n": machine("n", cluster="meshwake-a")})
    with_engine(monkeypatch, world)
    assert run_command(["down", "--name", "b"]) == 0
    out = capsys.readouterr().out
    assert "nothing deleted: no cluster meshwake-b is here; there are: meshwake-a" in out
    assert list(world.machines) == ["n"]
    assert run_command(["down", "--name", "a", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"down": ["meshwake-a"]}
    assert run_command(["down", "--name", "a"]) == 0
    out = capsys.readouterr().out
    assert "nothing deleted: no cluster meshwake-a is here; there is none of meshwake's" in out


STATES: list[tuple[str, Callable[[World], None], str]] = [
    ("up", lambda world: None, "unknown|up"),
    (
        "stopped",
        lambda world: world.machines.update({"n": machine("n", "exited", "meshwake-t")}),
        "stopped",
    ),
    ("gone", lambda world: world.machines.clear(), "gone: only its memory is left"),
]


@pytest.mark.parametrize(
    ("name", "change", "expected"), STATES, ids=[name for name, _, _ in STATES]
)
def test_status_says_how_it_is(
    name: str,
    change: Callable[[World], None],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Says,
) -> None:
    """Read from the engine, not from a record."""
    choice = choose_stack(read_pins(), name="t")
    state = ClusterState.of("meshwake-t")
    state.write(Record("meshwake-t", choice, 1_700_000_000, 1_700_000_100))
    state.put("kubeconfig", "")
    monkeypatch.setattr(clusters, "check_health", lambda cluster, engine: [])
    world = World(machines={"n": machine("n", cluster="meshwake-t")})
    change(world)
    with_engine(monkeypatch, world)
    assert run_command(["status", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)["clusters"]
    assert shown["state"] in expected.split("|") and shown["choice"]["istio"] == choice.istio
    assert run_command(["status"]) == 0
    assert capsys.readouterr().out.startswith(f"meshwake-t: {shown['state']}, begun ")


def test_status_says_what_runs_and_what_was_changed_since(
    monkeypatch: pytest.MonkeyPatch, capsys: Says
) -> None:
    """As the cluster reports it, not as it was requested."""
    state = ClusterState.of("meshwake-t")
    state.write(
        Record("meshwake-t", choose_stack(read_pins(), name="t"), 1_700_000_000, 1_700_000_100)
    )
    state.put("kubeconfig", "")
    runs = Running({"n": "v1.34.11"}, {}, {"istio-system/ztunnel-x": ("1.31.0-rc.0",)}, None, ())
    monkeypatch.setattr(clusters, "check_health", lambda cluster, engine: [])
    monkeypatch.setattr(clusters, "find_versions", lambda cluster: runs)
    monkeypatch.setattr(
        clusters, "find_drift", lambda cluster: ["DaemonSet a/z: SECRET_TTL is 240s, was 600s"]
    )
    with_engine(monkeypatch, World(machines={"n": machine("n", cluster="meshwake-t")}))
    assert run_command(["status"]) == 0
    out = capsys.readouterr().out
    assert "runs: Kubernetes v1.34.11, istiod that does not answer, ztunnel 1.31.0-rc.0" in out
    assert (
        "changed since up: DaemonSet a/z: SECRET_TTL is 240s, was 600s (meshwake up restores it)"
        in out
    )


def test_status_while_up_is_at_work(monkeypatch: pytest.MonkeyPatch, capsys: Says) -> None:
    """Not "half made, or its memory is lost": whose work it is, since when."""
    with_engine(monkeypatch, World(machines={"n": machine("n", cluster="meshwake-t")}))
    script = (
        "import sys; from meshwake.cluster.state import ClusterState\n"
        "with ClusterState.of('meshwake-t').lock('up'):\n    print('held', flush=True); "
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert run_command(["status"]) == 0
        assert other.stdin is not None
        other.stdin.close()
    out = capsys.readouterr().out
    assert (
        out.startswith("meshwake-t: being made") and f"in use: up (process {other.pid} on " in out
    )


def simulated(monkeypatch: pytest.MonkeyPatch) -> tuple[World, SimulatedCluster]:
    """A cluster that is up, whose API is simulated."""
    state = ClusterState.of("meshwake-t")
    state.write(
        Record("meshwake-t", choose_stack(read_pins(), name="t"), 1_700_000_000, 1_700_000_100)
    )
    state.put("kubeconfig", "")
    cluster = cluster_of(plan())
    monkeypatch.setattr(clusters, "connect", lambda kubeconfig, context: cluster)
    monkeypatch.setattr(clusters, "check_health", lambda cluster, engine: [])
    monkeypatch.setattr("meshwake.cluster.real_time.SystemTime", lambda: cluster)
    world = World(machines={"n": machine("n", cluster="meshwake-t")})
    with_engine(monkeypatch, world)
    return world, cluster


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_is_in_use_is_reported_and_not_deleted(
    elsewhere: bool, monkeypatch: pytest.MonkeyPatch, capsys: Says
) -> None:
    """By a run of this machine, which holds the lock, or of another, whose Lease alone is seen."""
    world, cluster = simulated(monkeypatch)
    state, doing = ClusterState.of("meshwake-t"), "run of nightly_sleep"
    restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
    calls = len(cluster.calls)
    with hold(cluster, cluster, "t", doing) if elsewhere else state.lock(doing):
        assert run_command(["status", "--json"]) == 0
        (shown,) = json.loads(capsys.readouterr().out)["clusters"]
        assert shown["in_use"].startswith(f"{doing} (process ")
        assert run_command(["status"]) == 0
        assert f"  in use: {doing} (process " in capsys.readouterr().out
        assert run_command(["down", "--name", "t"]) == ExitCode.LAB_UNAVAILABLE
        assert f"cluster meshwake-t is in use: {doing}" in capsys.readouterr().err
        assert world.machines
    assert not [call for call in cluster.calls[calls:] if call.startswith("patch")]
    assert run_command(["down", "--name", "t"]) == 0
    assert not world.machines


def test_status_undoes_what_a_killed_run_left(
    monkeypatch: pytest.MonkeyPatch, capsys: Says
) -> None:
    """And says so, once."""
    _, cluster = simulated(monkeypatch)
    restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
    assert run_command(["status"]) == 0
    assert (
        "meshwake-t: left by a run that was killed: ztunnel restarted with its own"
        in capsys.readouterr().err
    )
    assert run_command(["status"]) == 0
    assert "killed" not in capsys.readouterr().err


def test_down_deletes_what_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster without an API server is not in use."""
    world, cluster = simulated(monkeypatch)
    cluster.unreachable = lambda what: True
    assert run_command(["down", "--name", "t"]) == 0
    assert not world.machines


def test_words_of_up_choose_for_status_and_down(
    monkeypatch: pytest.MonkeyPatch, capsys: Says
) -> None:
    """The one that is made so; with an option that fits none nothing is deleted."""
    world, _ = simulated(monkeypatch)
    assert run_command(["status", "--json", "--profile", "full"]) == 0
    assert json.loads(capsys.readouterr().out)["clusters"] == []
    assert run_command(["down", "--with", "hubble"]) == ExitCode.BAD_INPUT
    assert (
        "no cluster fits that; say --name NAME, or --all; there are:\n  meshwake-t: "
        in capsys.readouterr().err
    )
    assert run_command(["down", "--all", "--nodes", "2"]) == ExitCode.BAD_INPUT
    assert "--nodes and --all: give one of the two" in capsys.readouterr().err
    assert world.machines
    assert run_command(["down", "--profile", "core", "--nodes", "2", "--without", "hubble"]) == 0
    assert not world.machines


def test_status_without_anything(capsys: Says) -> None:
    """It never fails."""
    assert run_command(["status"]) == 0
    assert "no cluster of ours; bring one up: meshwake up" in capsys.readouterr().out


@pytest.mark.slow(reason="starts the program")
def test_what_is_broken_of_the_engine_reaches_doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: Says
) -> None:
    """The doctor names programs and engine alike."""
    assert run_command(["doctor", "--json"]) == 0
    labs = {lab["lab"]: lab for lab in json.loads(capsys.readouterr().out)["labs"]}
    reasons = "\n".join(labs["kind"]["reasons"])
    assert labs["kind"]["can_run"] is False
    for words in ("docker: not found", "kind: not found", "helm: not found", "nothing listens"):
        assert words in reasons


def test_run_on_kind_is_refused_by_name_where_there_is_none(capsys: Says) -> None:
    """Exit 4, before anything is made."""
    scenario = SCENARIOS / "kind" / "two_nodes_of_one_machine.toml"
    assert run_command(["run", str(scenario), "--lab", "kind"]) == ExitCode.LAB_UNAVAILABLE
    shown = capsys.readouterr()
    assert "nothing listens" in shown.err + shown.out and "run: make tools" in shown.err + shown.out
    assert not clusters_dir().exists()


def test_a_folder_that_is_one_goes_on_to_what_is_missing(tmp_path: Path) -> None:
    """The folder does not replace an engine."""
    assert run_command(["up", "--folder", str(tmp_path)]) == ExitCode.LAB_UNAVAILABLE
