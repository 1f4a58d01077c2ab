"""A run leaves the cluster as it was: ours or not, however it ends, also when it is killed at
any moment."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from meshwake.cluster.hold import HOLDER, LEASE_NAME, LEASE_NAMESPACE, Holder, hold, is_marked
from meshwake.cluster.node_channel import GOES_LABELS
from meshwake.cluster.reset import (
    CHANGED,
    RESTARTED_BY_KUBECTL,
    check_ambient,
    restart_ztunnels,
    restore_after_kill,
    restore_cluster,
    scale_istiod_down,
)
from meshwake.core.errors import HarnessError, LabUnavailable, SubjectFailed
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS

from tests.unit.cluster.simulated import SimulatedCluster
from tests.unit.labs.kind.runs import cluster_of, node_names, plan
from tests.unit.labs.kind.test_lab import PAUSE, SimulatedEnvironment, run

OUTAGE = '[[fault]]\nkind = "ca_outage"\nat = "2m"\nlasts = "1m"\n'
DAEMON_SET, DEPLOYMENT = (
    ("DaemonSet", "istio-system", "ztunnel"),
    ("Deployment", "istio-system", "istiod"),
)
LEASE = ("Lease", LEASE_NAMESPACE, LEASE_NAME)


def settings(cluster: SimulatedCluster) -> dict[Any, Any]:
    """Everything that is in the cluster."""
    return deepcopy({key: thing for key, thing in cluster.objects.items() if key != LEASE})


def as_users_have_it(cluster: SimulatedCluster, *, ttl: str = "86400s") -> SimulatedCluster:
    """Settings and annotations that are not ours, some of them the very ones that a run sets."""
    template = cluster.objects[DAEMON_SET]["spec"]["template"]
    template["metadata"]["annotations"] = {
        RESTARTED_BY_KUBECTL: "2026-11-01T00:00:00Z",
        "team": "mesh",
    }
    (container,) = template["spec"]["containers"]
    container["env"] = [
        {"name": "RUST_LOG", "value": "warn"},
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "SECRET_TTL", "value": ttl},
    ]
    if ttl == "600s":
        container["env"].append({"name": "POOL_MAX_STREAMS_PER_CONNECTION", "value": "1"})
    return cluster


def bare(of: Any) -> SimulatedCluster:
    return SimulatedCluster(of, node_names(of))


@pytest.mark.parametrize("ours", [True, False])
def test_a_run_leaves_everything_as_it_was(ours: bool) -> None:
    """Lifetimes, log levels, pools, annotations; ztunnels are restarted on them, and no command
    holds the cluster."""
    of = plan(PAUSE + (OUTAGE if ours else ""), duration="30m")
    cluster = as_users_have_it(bare(of), ttl="86400s" if ours else "600s")
    before = settings(cluster)
    run(SimulatedEnvironment(of, cluster, ours=ours))
    assert settings(cluster) == before
    assert not is_marked(cluster)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SubjectFailed("lost")])
def test_also_when_it_is_broken_off(error: BaseException) -> None:
    """While istiod is unavailable, and everything is set."""
    of = plan(OUTAGE, duration="10m")
    cluster = as_users_have_it(bare(of))
    before = settings(cluster)

    def stop(what: str) -> bool:
        if what == "exec curl" and cluster.istiods == 0:
            raise error
        return False

    cluster.unreachable = stop
    with pytest.raises(type(error)):
        run(SimulatedEnvironment(of, cluster))
    assert settings(cluster) == before
    assert not is_marked(cluster)


class Killed(BaseException):
    """kill -9: nothing is done after it."""


@dataclass
class Mortal(SimulatedCluster):
    """Its user is killed before its n-th change, and changes nothing any more."""

    changes: list[str] = field(default_factory=list)
    killed_at: int = 10**9

    def reach(self, what: str) -> None:
        if what.split(maxsplit=1)[0] in {"apply", "patch", "replace", "end", "delete"}:
            if len(self.changes) >= self.killed_at:
                raise Killed
            self.changes.append(what)
        super().reach(what)


OF = plan(PAUSE + OUTAGE, duration="30m")


def mortal() -> Mortal:
    cluster = Mortal(OF, node_names(OF))
    as_users_have_it(cluster)
    return cluster


def changes_of_a_run() -> int:
    cluster = mortal()
    run(SimulatedEnvironment(OF, cluster))
    return len(cluster.changes)


@pytest.mark.parametrize("killed_at", range(changes_of_a_run() + 1))
def test_a_run_that_is_killed_is_undone_by_the_next_command(killed_at: int) -> None:
    """Before any of its changes: what it left is found by the next command, and restored."""
    cluster = mortal()
    before = settings(cluster)
    cluster.killed_at = killed_at
    try:
        run(SimulatedEnvironment(OF, cluster))
    except Killed:
        cluster.killed_at = 10**9
        if LEASE in cluster.objects:
            dead = replace(Holder.here("run"), started="gone")
            cluster.objects[LEASE]["metadata"]["annotations"][HOLDER] = dead.to_text()
    restore_after_kill(cluster, cluster, "c", "status")
    assert settings(cluster) == before
    assert not is_marked(cluster)


def test_a_run_that_could_not_undo_is_undone_by_the_next_command() -> None:
    """The API server fails at the end of a run: no command holds the cluster, and it is found all
    the same."""
    of = plan(duration="2m")
    cluster = as_users_have_it(bare(of))
    before = settings(cluster)
    cluster.unreachable = lambda what: (
        "patch DaemonSet" in what and CHANGED in str(cluster.objects[DAEMON_SET])
    )
    with pytest.raises(HarnessError, match="patch DaemonSet.apps ztunnel: no answer"):
        run(SimulatedEnvironment(of, cluster))
    cluster.unreachable = lambda what: False
    assert not is_marked(cluster) and settings(cluster) != before
    assert restore_after_kill(cluster, cluster, "c", "up")
    assert settings(cluster) == before


def test_what_was_restored_is_reported() -> None:
    """Workloads, istiod, and the settings of ztunnel, each once; a second time there is nothing to
    say."""
    cluster = cluster_of(plan())
    cluster.objects["Namespace", None, "shop"] = {
        "metadata": {"labels": {**OUR_LABELS, **RUN_LABELS}}
    }
    restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
    scale_istiod_down(cluster)
    assert restore_cluster(cluster, cluster) == [
        "removed Namespace shop",
        "istiod scaled back to 1",
        "ztunnel restarted with its own settings again (SECRET_TTL, "
        "POOL_MAX_STREAMS_PER_CONNECTION, RUST_LOG)",
    ]
    assert restore_cluster(cluster, cluster) == []


def test_what_another_client_set_meanwhile_stays() -> None:
    """A helm upgrade during a run: its lifetime is not undone, ours are."""
    cluster = as_users_have_it(bare(plan()))
    restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
    environment = cluster.objects[DAEMON_SET]["spec"]["template"]["spec"]["containers"][0]["env"]
    next(each for each in environment if each["name"] == "SECRET_TTL")["value"] = "7200s"
    restore_cluster(cluster, cluster)
    (container,) = cluster.objects[DAEMON_SET]["spec"]["template"]["spec"]["containers"]
    values = {each["name"]: each.get("value") for each in container["env"]}
    assert values == {"RUST_LOG": "warn", "NODE_NAME": None, "SECRET_TTL": "7200s"}
    assert CHANGED not in cluster.objects[DAEMON_SET]["metadata"]["annotations"]


def test_two_outages_remember_how_many_there_were() -> None:
    """The second begins while istiod is unavailable; three come back."""
    cluster = cluster_of(plan())
    cluster.objects[DEPLOYMENT]["spec"]["replicas"] = cluster.istiods = 3
    scale_istiod_down(cluster)
    scale_istiod_down(cluster)
    restore_cluster(cluster, cluster)
    assert cluster.istiods == 3


def test_what_cannot_be_undone_keeps_nothing_else_from_being_undone() -> None:
    """Objects that stay: ztunnel's settings are restored all the same, and the fault is
    reported."""
    cluster = as_users_have_it(bare(plan()))
    before = settings(cluster)
    restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
    cluster.unreachable = lambda what: what == "list Namespace"
    with pytest.raises((HarnessError, Exception), match="list Namespace: no answer"):
        restore_cluster(cluster, cluster)
    assert settings(cluster) == before


def test_while_a_run_is_at_work_nothing_is_undone() -> None:
    """`status` in the middle of a run shows which command is at work."""
    cluster = cluster_of(plan())
    with hold(cluster, cluster, "c", "run of nightly_sleep"):
        restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
        with pytest.raises(HarnessError, match="in use: run of nightly_sleep"):
            restore_after_kill(cluster, cluster, "c", "status")
        assert CHANGED in cluster.objects[DAEMON_SET]["metadata"]["annotations"]


def test_programs_are_not_restarted_on_clocks_that_are_still_moved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Clocks come first; where they stay moved, ztunnel and istiod stay as they are, for the next
    command."""

    def stuck(kubernetes: object, real: object) -> list[str]:
        raise SubjectFailed("node w1: process 7: gone")

    cluster = cluster_of(plan())
    restart_ztunnels(cluster, cluster, 600, "stamp", ours=True)
    scale_istiod_down(cluster)
    monkeypatch.setattr("meshwake.cluster.reset.restore_clocks", stuck)
    with pytest.raises(SubjectFailed, match="process 7"):
        restore_cluster(cluster, cluster)
    assert (
        CHANGED in cluster.objects[DAEMON_SET]["metadata"]["annotations"] and cluster.istiods == 0
    )
    monkeypatch.undo()
    assert len(restore_cluster(cluster, cluster)) == 2 and cluster.istiods == 1


def test_the_helper_goes_from_a_cluster_that_is_not_ours() -> None:
    """Also when the run was killed that put it in; in a cluster of ours it stays for the next."""
    cluster = cluster_of(plan())
    ours, theirs = {"labels": dict(OUR_LABELS)}, {"labels": {**OUR_LABELS, **GOES_LABELS}}
    cluster.objects["Namespace", None, "meshwake-helper"] = {"metadata": ours}
    assert restore_after_kill(cluster, cluster, "c", "status") == []
    cluster.objects["Namespace", None, "meshwake-helper"] = {"metadata": theirs}
    assert restore_after_kill(cluster, cluster, "c", "status") == [
        "removed Namespace meshwake-helper"
    ]


def test_a_ztunnel_elsewhere_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run changes its DaemonSet, which is looked for in istio-system alone; not "install Istio
    first"."""
    cluster = cluster_of(plan())
    del cluster.objects["DaemonSet", "istio-system", "ztunnel"]
    pods = [replace(pod, namespace="ztunnel") for pod in cluster.pods(None, {"app": "ztunnel"})]
    monkeypatch.setattr(cluster, "pods", lambda namespace, labels: pods)
    with pytest.raises(
        LabUnavailable, match="ztunnel runs in namespace ztunnel; runs need it in istio-system"
    ):
        check_ambient(cluster)
    pods.clear()
    with pytest.raises(LabUnavailable, match="no DaemonSet istio-system/ztunnel; install Istio"):
        check_ambient(cluster)
