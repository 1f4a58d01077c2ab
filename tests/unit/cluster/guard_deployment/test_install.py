"""Installing the wake guard and removing it: what is made, what is left alone, and what is
reported when a node gets none."""

from __future__ import annotations

import pytest
from meshwake.cluster.guard_deployment.install import (
    Installed,
    find_places,
    install,
    installed_image,
    namespaces_with_gateways,
    uninstall,
)
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.guard.cluster import Places
from meshwake.guard.names import OBJECT_LABELS
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS, is_ours

from tests.unit.cluster.guard_deployment.homelab import UNMANAGED, Homelab

IMAGE = "registry.example/wake-guard:7"
GATEWAY = {"gateway.istio.io/managed": "istio.io-gateway-controller"}


def installed(cluster: Homelab, *gateways: str) -> Installed:
    places = find_places(cluster, None, gateways)
    return install(cluster, cluster, places, IMAGE, lambda text: None)


def test_after_an_install_every_node_is_guarded_and_after_an_uninstall_nothing_is_left() -> None:
    """Also of what guards make themselves, their Lease."""
    cluster = Homelab()
    before = cluster.there()
    done = installed(cluster, "demo")
    assert (done.image, done.nodes) == (IMAGE, ("one", "two"))
    assert installed_image(cluster) == IMAGE
    made = cluster.there() - before
    assert {(kind, place) for kind, place, _ in made if kind == "Role"} == {
        ("Role", "istio-system"),
        ("Role", "demo"),
        ("Role", "meshwake-guard"),
    }
    assert all(
        is_ours(cluster.objects[key]["metadata"]["labels"]) for key in made if key[0] != "Pod"
    )
    cluster.put("Lease", "meshwake-guard", "wake-guard", OBJECT_LABELS)
    gone = uninstall(cluster, cluster)
    assert cluster.there() == before and gone.kept == ""
    assert "Role demo/wake-guard" in gone.removed
    assert installed_image(cluster) is None
    assert uninstall(cluster, cluster).removed == ()


def test_our_label_is_on_what_a_guard_makes() -> None:
    """By it everything is found again."""
    assert is_ours(OBJECT_LABELS) and OUR_LABELS.items() < OBJECT_LABELS.items()


def test_a_second_install_makes_the_cluster_what_it_says() -> None:
    """A role in a namespace that it no longer names goes."""
    cluster = Homelab()
    installed(cluster, "demo")
    done = installed(cluster)
    assert done.removed == ("RoleBinding demo/wake-guard", "Role demo/wake-guard")
    assert not [key for key in cluster.there() if key[1] == "demo"]
    assert installed(cluster).removed == ()


def test_the_guard_looks_where_ztunnel_and_istiod_are() -> None:
    """Found by their labels, wherever that is."""
    assert find_places(Homelab(), None, ()) == Places()
    apart = Homelab(ztunnel_namespace="zt", istiod_namespace="control")
    assert find_places(apart, None, ("demo",)) == Places("zt", "control", ("demo",))
    apart.pod("istio-system", "istiod-2", "one", {"app": "istiod"})
    assert find_places(apart, "zt", ()).istiod == "istio-system"


def test_gateways_elsewhere_are_named() -> None:
    """The guard has no right there until it is given one."""
    cluster = Homelab()
    cluster.pod("demo", "web-1", "one", GATEWAY)
    cluster.pod("istio-system", "ingress-1", "one", GATEWAY)
    assert installed(cluster).unwatched == ("demo",)
    assert namespaces_with_gateways(cluster, Places(gateways=("demo",))) == ()


def test_a_namespace_that_is_not_there_is_refused() -> None:
    """Before anything is applied."""
    cluster = Homelab()
    with pytest.raises(BadInput, match="--gateway-namespace dmeo: namespace not found"):
        find_places(cluster, None, ("dmeo",))
    assert installed_image(cluster) is None


def test_without_an_istiod_the_guard_would_never_act() -> None:
    """So it is not installed."""
    cluster = Homelab()
    del cluster.objects["Pod", "istio-system", "istiod-1"]
    with pytest.raises(LabUnavailable, match="no pod of istiod in any namespace"):
        find_places(cluster, None, ())


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ({"meta.helm.sh/release-name": "wg"}, "installed by helm, as release 'wg'.*helm uninstall"),
        ({}, "kubectl --namespace istio-system delete role wake-guard"),
    ],
)
def test_what_another_tool_made_is_left_alone(annotations: dict[str, str], words: str) -> None:
    """Nothing is applied, and nothing removed."""
    cluster = Homelab()
    foreign = cluster.put("Role", "istio-system", "wake-guard", UNMANAGED)
    foreign["metadata"]["annotations"] = annotations
    before = cluster.there()
    with pytest.raises(LabUnavailable, match=words):
        installed(cluster)
    assert uninstall(cluster, cluster).removed == ()
    assert cluster.there() == before


def test_a_guard_of_helm_is_removed_by_helm() -> None:
    cluster = Homelab()
    thing = cluster.put("DaemonSet", "meshwake-guard", "wake-guard", UNMANAGED)
    thing["metadata"]["annotations"] = {"meta.helm.sh/release-name": "wg"}
    with pytest.raises(LabUnavailable, match="helm uninstall wg"):
        uninstall(cluster, cluster)


def test_the_guard_of_a_run_is_left_to_the_run() -> None:
    """Its objects have the same names, and go with it."""
    cluster = Homelab()
    labels = {**OBJECT_LABELS, **RUN_LABELS}
    cluster.put("DaemonSet", "meshwake-guard", "wake-guard", labels)
    before = cluster.there()
    with pytest.raises(LabUnavailable, match="belongs to a run"):
        installed(cluster)
    with pytest.raises(LabUnavailable, match="belongs to a run"):
        uninstall(cluster, cluster)
    assert cluster.there() == before and installed_image(cluster) is None


def test_a_namespace_that_was_there_stays() -> None:
    """It is not labelled, and not deleted."""
    cluster = Homelab()
    cluster.put("Namespace", None, "meshwake-guard", {"team": "mine"})
    before = cluster.there()
    installed(cluster)
    assert cluster.objects["Namespace", None, "meshwake-guard"]["metadata"]["labels"] == {
        "team": "mine"
    }
    uninstall(cluster, cluster)
    assert cluster.there() == before


def test_a_namespace_with_something_of_anothers_stays() -> None:
    """Deleting it would take that along."""
    cluster = Homelab()
    installed(cluster)
    cluster.put("ConfigMap", "meshwake-guard", "kube-root-ca.crt")
    cluster.put("Secret", "meshwake-guard", "of-another")
    gone = uninstall(cluster, cluster)
    assert gone.kept == "Secret meshwake-guard/of-another"
    left = {key for key in cluster.there() if key[1] == "meshwake-guard"}
    assert left == {
        ("ConfigMap", "meshwake-guard", "kube-root-ca.crt"),
        ("Secret", "meshwake-guard", "of-another"),
    }
    assert ("Namespace", None, "meshwake-guard") in cluster.there()


def test_a_node_that_cannot_have_the_image_is_named_at_once() -> None:
    """With the way into that distribution; waiting would not help."""
    cluster = Homelab()
    cluster.waiting["two"] = ("ImagePullBackOff", "back-off pulling image")
    with pytest.raises(LabUnavailable, match=r"node two: ImagePullBackOff.*k3s ctr images import"):
        installed(cluster)
    assert cluster.now_ns == 0


def test_a_guard_that_never_looks_is_not_ready() -> None:
    """Within a bound; what Kubernetes complains of is passed on."""
    cluster = Homelab()
    cluster.silent.add("two")
    event = cluster.put("Event", "meshwake-guard", "e", type="Warning", reason="FailedCreate")
    event["message"] = "forbidden: violates policy"
    with pytest.raises(LabUnavailable, match=r"no look yet on two.*violates policy.*stays") as info:
        installed(cluster)
    assert "meshwake guard uninstall" in str(info.value)
