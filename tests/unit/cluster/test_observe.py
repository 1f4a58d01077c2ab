"""Versions are those that run, and the authority's clock is that of the node on which istiod is."""

from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.observe import (
    Held,
    Running,
    Seen,
    SeenCertificates,
    check_versions,
    node_names,
    releases_of,
    running_versions,
)
from meshwake.core import versions
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import LabUnavailable
from meshwake.core.history import History
from meshwake.kubernetes.api import Pod

from tests.unit.cluster.simulated import STARTS_WALL_NS, Clock, SimulatedMover
from tests.unit.labs.kind.runs import TWO_NODES, cluster_of, plan, run
from tests.unit.labs.kind.test_lab import environment_of
from tests.unit.labs.kind.test_lab import run as run_lab

BACKDATE_S = 120
COMMIT = versions.find("1.28.0").commit


@pytest.mark.parametrize(
    ("build", "releases"),
    [
        ({"istioVersion": "1.30.2", "version": COMMIT}, ()),
        ({"istioVersion": "1.28.0", "version": "1.31.0-rc.0-distroless"}, ("1.31.0-rc.0",)),
        ({"istioVersion": "unknown", "version": "1.29.1-dirty"}, ("1.29.1",)),
        ({"istioVersion": "unknown", "version": "unknown", "gitRevision": "unknown"}, ()),
        ({"version": "1.30.2.7"}, ()),
        ({}, ()),
    ],
)
def test_a_release_by_its_own_words(build: dict[str, Any], releases: tuple[str, ...]) -> None:
    """By the tag of its build; istioVersion is an environment variable of the pod, and nothing is
    guessed from it."""
    assert releases_of(build) == releases


def test_a_release_by_the_commit_that_it_was_built_from() -> None:
    """Every release of which it may be one."""
    releases = releases_of(
        {"istioVersion": "1.18.0", "gitRevision": COMMIT, "buildStatus": "Clean"}
    )
    assert "1.28.0" in releases
    assert {versions.find(each).commit for each in releases} == {COMMIT}


def running(*releases: str) -> Running:
    return Running({}, {}, {"istio-system/ztunnel-x": releases}, None, ())


def test_another_release_than_the_one_that_would_be_judged_is_refused() -> None:
    """With a remark; an unknown version, or a ztunnel that does not know its own, is taken as
    requested."""
    of = plan().model_copy(update={"version": "1.30.2"})
    for fits in (running(), running("1.30.2"), running("1.29.0", "1.30.2"), running("1.99.0")):
        check_versions(of, "c", fits)
    with pytest.raises(
        LabUnavailable, match=r"runs ztunnel 1.28.0 .*judged as 1.30.2; say --istio 1.28.0"
    ):
        check_versions(of, "c", running("1.28.0"))


def test_a_run_on_another_release_changes_nothing() -> None:
    """Refused before anything is applied."""
    ways = environment_of(plan(duration="2m"))
    ways.real.istio = "1.28.0"
    with pytest.raises(LabUnavailable, match=r"runs ztunnel 1.28.0"):
        run_lab(ways)
    assert not [call for call in ways.real.calls if call.startswith(("apply", "patch"))]


def test_the_history_records_what_runs() -> None:
    """Kubelets, image ids, ztunnel and istiod, by their own word and not by the choice."""
    ways = environment_of(plan(duration="1m").model_copy(update={"version": "1.30.2"}))
    ways.real.istio = "1.30.2"
    for node in ways.nodes:
        info = {"status": {"nodeInfo": {"kubeletVersion": "v1.34.4"}}}
        ways.real.objects["Node", None, node] = {"metadata": {}, **info}
    status = {"status": {"containerStatuses": [{"imageID": "sha256:1234"}]}}
    ways.real.objects["Pod", "istio-system", "istiod-0"] = {"metadata": {}, **status}
    (started,) = run_lab(ways).of("run_started")
    about = started["subject"]
    assert about["kubernetes"] == dict.fromkeys(ways.nodes, "v1.34.4")
    assert about["image_ids"]["istiod"] == ["sha256:1234"]
    assert set(map(tuple, about["ztunnel"].values())) == {("1.30.2",)}
    assert about["istiod"] == "1.30.2-0123-Clean"


def test_what_does_not_answer_is_unknown_and_no_failure() -> None:
    """A version that cannot be queried is recorded as such."""
    cluster = cluster_of(plan())
    cluster.unreachable = lambda what: what.startswith("get")
    found = running_versions(cluster, ())
    assert found.istiod is None and set(found.ztunnels.values()) == {()}
    assert len(found.unknown) == 2 and all("no answer" in each for each in found.unknown)


# Where istiod is


@pytest.mark.parametrize(
    ("authority", "istiod", "names"),
    [
        ("east", ("w1",), {"east": "w1", "west": "w0"}),
        ("west", ("w1",), {"east": "w0", "west": "w1"}),
        ("east", ("control-plane",), {"east": "control-plane", "west": "w0"}),
        ("east", (), {"east": "w0", "west": "w1"}),
        ("east", ("elsewhere",), {"east": "w0", "west": "w1"}),
        (None, ("w0",), {"east": "w1", "west": "control-plane"}),
    ],
)
def test_the_plans_authority_lives_where_istiod_is(
    authority: str | None, istiod: tuple[str, ...], names: dict[str, str]
) -> None:
    """Its node of the plan is istiod's own; one that is apart keeps it to itself as long as there
    is another."""
    of = plan(nodes=TWO_NODES).model_copy(update={"authority_node": authority})
    assert node_names(of, ("w0", "w1", "control-plane"), istiod) == names


def test_a_run_takes_istiods_node_for_the_plans_authority() -> None:
    """One node of the plan, and istiod on the second of the cluster."""
    of = plan(duration="1m")
    ways = environment_of(of)
    ways.real.node_names = {"vm": "worker1"}
    ways.real.start_ztunnels()
    ways.real.istiod_nodes = ("worker1",)
    history = run_lab(ways)
    assert history.of("run_started")[0]["subject"]["nodes"] == {"vm": "worker1"}
    (seen,) = history.of("istiod_seen")
    assert (seen.node, seen["kubernetes_node"]) == ("vm", "worker1")


STEP = '[[fault]]\nkind = "step"\nnode = "west"\nat = "2m"\nby = "2m"\n'
AWAY = '[[fault]]\nkind = "ca_outage"\nat = "{at}"\nlasts = "30s"\n'


def late_ns(history: History) -> list[int]:
    """How much later than by the authority's own clock, which was not moved, each certificate
    appears to be issued."""
    issued = [event for event in history.of("csr_answered", outcome="issued") if event.world_ns > 0]
    return [
        event.world_ns - ((event["not_before_wall_s"] + 120) * NS_PER_S - STARTS_WALL_NS)
        for event in issued
    ]


@pytest.mark.parametrize("authority", ["east", None])
def test_certificates_are_dated_by_the_clock_of_the_authority(authority: str | None) -> None:
    """The wall clock of west jumps; istiod is on east, or apart. Its certificates are placed to the
    second all the same, and an outage of istiod shows istiod's clocks."""
    of = plan(STEP + AWAY.format(at="15m"), nodes=TWO_NODES, duration="40m")
    of = of.model_copy(update={"authority_node": authority})
    apart = Clock() if authority is None else None
    cluster = cluster_of(
        of, clocks={node.name: Clock() for node in of.nodes}, authority_clock=apart
    )
    if authority is None:
        cluster.istiod_nodes = ("worker1",)
    history = run(of, cluster, SimulatedMover(cluster, name="process"))
    assert len(late_ns(history)) > 10
    assert all(0 <= late < NS_PER_S for late in late_ns(history))
    (began,) = history.of("fault_began", fault_kind="ca_outage")
    assert began.clocks is not None
    assert began.clocks.wall_ns - began.world_ns == STARTS_WALL_NS


def test_an_istiod_that_moves_is_followed() -> None:
    """It comes back on west after an outage, whose clock is then moved: recorded, and dated by that
    clock from then on."""
    of = plan(AWAY.format(at="1m") + STEP.replace("2m", "3m", 1), nodes=TWO_NODES, duration="40m")
    cluster = cluster_of(
        of, clocks={node.name: Clock() for node in of.nodes}, moves_to=("worker1",)
    )
    history = run(of, cluster, SimulatedMover(cluster, name="process"))
    assert [event.node for event in history.of("istiod_seen")] == ["east", "west"]
    west_ahead_ns = 120 * NS_PER_S
    late = [late for late in late_ns(history) if late < -west_ahead_ns // 2]
    assert len(late) > 10
    assert all(0 <= each + west_ahead_ns < NS_PER_S for each in late)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_certificate_of_a_new_process_is_not_dated_before_its_start(restarted: bool) -> None:
    """Its start is seen at second 102, and it was issued at second 100; seen on a cluster, where a
    report then drew it for the process before."""
    certificates = SeenCertificates(BACKDATE_S)
    pod = Pod("istio-system", "ztunnel-1", "uid", "worker", ready=True)
    if restarted:
        certificates.restarted("vm", ["default/client"], 102 * NS_PER_S)
    held = Held("Available", "1", 1000 + 100 - BACKDATE_S, 1000 + 86_400)
    seen = Seen("vm", "vm", pod, {"default/client": held})
    (issued,), _ = certificates.changes(seen, 103 * NS_PER_S, (1000 + 103) * NS_PER_S)
    assert issued.world_ns == (102 if restarted else 100) * NS_PER_S
