"""The plan says how clocks are moved; here that becomes a mover, or a refusal by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.command import CommandMover
from meshwake.clocks.movers.engine import EngineMover
from meshwake.clocks.movers.lapse import LapseMover
from meshwake.clocks.movers.node_access import NoAnswer, Way
from meshwake.clocks.movers.process import ProcessMover
from meshwake.cluster.node_channel import LABELS, NAMESPACE
from meshwake.core.errors import HarnessFault, SubjectFailed
from meshwake.core.plan import Plan, PlannedCluster
from meshwake.kubernetes.api import Executed, Pod, Unreachable
from meshwake.labs.kind.environment import RunningCluster
from meshwake.labs.kind.movers import PodInside, Reader, engine_ways, make_mover, mover_refusals

from tests.unit.clocks.machines import Box, Machine, answer
from tests.unit.labs.kind.runs import TWO_NODES, cluster_of, node_names, plan

PAUSE = '[[fault]]\nkind = "pause"\nnode = "*"\nat = "5m"\nlasts = "17m"\ncorrected_after = "25s"\n'
SUSPEND = '[[fault]]\nkind = "suspend"\nnode = "*"\nat = "5m"\nlasts = "17m"\n'
ALONE = SUSPEND.replace('"*"', '"east"')
STEP = '[[fault]]\nkind = "step"\nnode = "*"\nat = "5m"\nby = "2m"\n'


def on(faults: str, *, nodes: str = TWO_NODES, **cluster: Any) -> Plan:
    return plan(faults, nodes=nodes).model_copy(update={"cluster": PlannedCluster(**cluster)})


CANNOT = [
    ("engine", SUSPEND, {}, "[fault 0] suspend: --clock engine sets the wall clock"),
    (
        "engine",
        ALONE,
        {},
        "suspend of node east alone: the nodes of a cluster share one kernel clock",
    ),
    (
        "engine",
        PAUSE,
        {"kubeconfig": "/k"},
        "--kubeconfig names a cluster whose machines are not known here",
    ),
    ("command", STEP, {"suspend_command": "true"}, "[fault 0] step: --clock command suspends"),
    ("command", ALONE, {"suspend_command": "true"}, "suspend of node east alone"),
    (
        "command",
        SUSPEND,
        {"suspend_command": "no-such-program"},
        "no program 'no-such-program' on PATH",
    ),
]


@pytest.mark.parametrize(("way", "faults", "about", "message"), CANNOT)
def test_what_a_way_cannot_do_is_refused_by_name(
    way: Any, faults: str, about: dict[str, Any], message: str
) -> None:
    """Before a cluster is even looked for."""
    assert message in "\n".join(mover_refusals(on(faults, clock=way, **about)))


CAN: list[tuple[str, str, dict[str, Any], type]] = [
    ("engine", PAUSE, {}, EngineMover),
    ("engine", STEP, {}, EngineMover),
    ("command", SUSPEND, {"suspend_command": "true {seconds}"}, CommandMover),
    ("command", PAUSE, {"suspend_command": "true", "kubeconfig": "/k"}, CommandMover),
    ("process", ALONE, {}, ProcessMover),
    ("process", PAUSE, {"kubeconfig": "/k"}, ProcessMover),
    ("process", ALONE, {"lapse": True}, LapseMover),
    ("process", "", {"lapse": True}, LapseMover),
]


@pytest.mark.parametrize(("way", "faults", "about", "kind"), CAN)
def test_each_way_has_its_mover(way: Any, faults: str, about: dict[str, Any], kind: type) -> None:
    """Which has the name that the plan says, so that faults are carried out its way."""
    of = on(faults, clock=way, **about)
    assert mover_refusals(of) == []
    cluster = cluster_of(of)
    place = RunningCluster(
        "c", Path("/k"), None, "kubeconfig" not in about, ("w1", "w2"), about={"node_image": "n:1"}
    )
    mover = make_mover(of, place, cluster, node_names(of), cluster)
    assert isinstance(mover, kind) and mover.name == ("lapse" if kind is LapseMover else way)
    assert mover.refusals(of) == []


@pytest.mark.parametrize("about", [{}, {"kubeconfig": "/k"}])
def test_where_no_clock_is_moved_they_are_only_read(about: dict[str, Any]) -> None:
    """Neither a guard nor a way to move them is in the way of such a run; elsewhere the helper is
    put in and out."""
    of = on('[[fault]]\nkind = "restart"\nnode = "east"\nat = "5m"\n', clock="engine", **about)
    assert mover_refusals(of) == []
    cluster = cluster_of(of)
    place = RunningCluster("c", Path("/k"), None, "kubeconfig" not in about, ("w1", "w2"))
    mover = make_mover(of, place, cluster, node_names(of), cluster)
    assert isinstance(mover, Reader) and mover.refusals(of) == []
    with pytest.raises(HarnessFault, match="only reads clocks"):
        mover.move(of.faults[0])
    mover.release()


def test_a_reader_reads_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reports a missing answer."""
    monkeypatch.setattr(Way, "run", answer)
    box = Box(tmp_path / "box", Machine())
    reader = Reader(Way(box.way), {"vm": "worker"})
    reader.prepare()
    assert abs(reader.read("vm").monotonic_ns - box.now.monotonic_ns) < 60 * 10**9
    box.change(dead=True)
    with pytest.raises(SubjectFailed, match="node vm: its clocks cannot be read"):
        reader.read("vm")


def test_the_ways_into_an_engines_machine_can_be_written_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By name, or by a container of the node's image when no node is left; never by a pull."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/one.sock")
    environment = engine_ways("kindest/node:v1@sha256:0")
    assert environment.nodes[0] == ("docker", "exec", "{node}")
    assert (
        environment.host is not None
        and environment.environment["DOCKER_HOST"] == "unix:///run/one.sock"
    )
    for way in (environment.nodes[1], environment.host):
        assert way[:3] == ("docker", "run", "--rm") and way[-1] == "kindest/node:v1@sha256:0"
        assert {"--pull=never", "--privileged", "--network=none"} <= set(way)
    assert "--pid=host" in environment.host and "--pid=host" not in environment.nodes[1]


class Pods:
    """A cluster with a helper on one node."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error

    def pods(self, namespace: str | None, labels: dict[str, str]) -> list[Pod]:
        assert (namespace, labels) == (NAMESPACE, LABELS)
        return [
            Pod(NAMESPACE, "helper-1", "u", "w1", ready=True),
            Pod(NAMESPACE, "helper-2", "u", "w2", ready=False),
        ]

    def execute(self, pod: Pod, container: str, command: list[str], within_s: float) -> Executed:
        if self.error:
            raise Unreachable(self.error)
        return Executed(0, f"{pod.node}: {' '.join(command)}\n", "")


def test_a_node_of_another_cluster_is_entered_through_its_helper() -> None:
    """A node without a helper gives no answer."""
    pods: Any = Pods()
    assert PodInside(pods).run("w1", ["sh", "-c", "x"], 5).output == "w1: sh -c x"
    with pytest.raises(NoAnswer, match="no helper is ready there"):
        PodInside(pods).run("w2", ["sh"], 5)
    gone: Any = Pods("the API server is down")
    with pytest.raises(NoAnswer, match="the API server is down"):
        PodInside(gone).run("w1", ["sh"], 5)
