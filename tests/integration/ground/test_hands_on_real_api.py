"""The adapter to Kubernetes, against a real API server: what simulated clusters in the
unit tests promise is what a server does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from meshwake.core.errors import HarnessFault
from meshwake.core.json_types import text_at
from meshwake.kubernetes.api import Refused, Unreachable
from meshwake.kubernetes.labels import OUR_LABELS
from meshwake.kubernetes.rollouts import unmet
from meshwake.kubernetes.through_kr8s import ThroughKr8s, connect

from tests.integration.ground import api as ground
from tests.integration.ground.api import RealApi
from tests.integration.ground.programs import Deadline
from tests.support.ports import free_port

WITHIN_S = 30
WIDGETS = "widgets.ground.example"


def config_map(name: str, *, ours: bool = True, **data: str) -> dict[str, Any]:
    labels = dict(OUR_LABELS) if ours else {}
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def widget_definition() -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": WIDGETS, "labels": dict(OUR_LABELS)},
        "spec": {
            "group": "ground.example",
            "names": {"kind": "Widget", "plural": "widgets"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


def established(kubernetes: ThroughKr8s) -> bool:
    kind = "CustomResourceDefinition.apiextensions.k8s.io"
    definition = kubernetes.read(kind, None, WIDGETS)
    return definition is not None and unmet(definition) is None


def unreachable_kubeconfig(real_api: RealApi, path: Path) -> Path:
    path.write_text(
        real_api.kubeconfig.read_text(encoding="utf-8").replace(
            f":{real_api.port}", f":{free_port()}"
        ),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def kubernetes(real_api: RealApi) -> Iterator[ThroughKr8s]:
    client = ThroughKr8s(real_api.kubeconfig, "ground")
    yield client
    client.close()


class TestBringingUp:
    def test_ready(self, kubernetes: ThroughKr8s) -> None:
        assert kubernetes.ready()

    def test_a_server_that_is_not_there_is_not_ready(
        self, real_api: RealApi, tmp_path: Path
    ) -> None:
        client = ThroughKr8s(unreachable_kubeconfig(real_api, tmp_path / "kubeconfig"))
        try:
            assert not client.ready()
            with pytest.raises(Unreachable):
                client.read("Namespace", None, "default")
        finally:
            client.close()

    def test_applied_twice_is_applied_once(
        self, kubernetes: ThroughKr8s, real_api: RealApi
    ) -> None:
        kubernetes.apply([config_map("twice", answer="42")])
        first = kubernetes.read("ConfigMap", "default", "twice")
        kubernetes.apply([config_map("twice", answer="42")])
        assert kubernetes.read("ConfigMap", "default", "twice") == first
        assert first is not None and first["data"] == {"answer": "42"}
        assert real_api.exists("/api/v1/namespaces/default/configmaps/twice")

    def test_what_others_set_stays(self, kubernetes: ThroughKr8s, real_api: RealApi) -> None:
        kubernetes.apply([config_map("shared", mine="1")])
        real_api.apply(config_map("shared", theirs="2"), manager="another-client")
        kubernetes.apply([config_map("shared", mine="3")])
        found = kubernetes.read("ConfigMap", "default", "shared")
        assert found is not None and found["data"] == {"mine": "3", "theirs": "2"}

    def test_what_is_not_there_is_none(self, kubernetes: ThroughKr8s) -> None:
        assert kubernetes.read("ConfigMap", "default", "missing") is None
        assert kubernetes.read("ClusterIssuer.cert-manager.io", None, "no-such-kind-yet") is None
        assert kubernetes.all("Certificate.cert-manager.io") == []

    def test_all_are_chosen_by_label(self, kubernetes: ThroughKr8s) -> None:
        kubernetes.apply([config_map("chosen")])
        kubernetes.apply([config_map("passed-over", ours=False)])
        found = {
            text_at(thing, "metadata", "name")
            for thing in kubernetes.all("ConfigMap", "default", OUR_LABELS)
        }
        assert "chosen" in found and "passed-over" not in found
        assert {"chosen", "passed-over"} <= {
            text_at(thing, "metadata", "name") for thing in kubernetes.all("ConfigMap", "default")
        }

    def test_a_kind_is_known_as_soon_as_it_is_defined(
        self, kubernetes: ThroughKr8s, real_api: RealApi
    ) -> None:
        widget = {
            "apiVersion": "ground.example/v1",
            "kind": "Widget",
            "metadata": {"name": "first", "namespace": "default", "labels": dict(OUR_LABELS)},
        }
        with pytest.raises(Refused, match="Widget"):
            kubernetes.apply([widget])
        kubernetes.apply([widget_definition()])
        deadline = Deadline("the definition to be established", WITHIN_S)
        while (seen := kubernetes.all("Widget.ground.example")) or not established(kubernetes):
            deadline.pause(seen)
        kubernetes.apply([widget])
        assert real_api.exists("/apis/ground.example/v1/namespaces/default/widgets/first")

    def test_a_refusal_names_object_and_reason(self, kubernetes: ThroughKr8s) -> None:
        broken = config_map("broken")
        broken["metadata"]["name"] = "No_Such_Name"
        with pytest.raises(
            Refused, match=r"(?s)ConfigMap default/No_Such_Name: .*refused.*RFC 1123"
        ) as refused:
            kubernetes.apply([broken])
        assert refused.value.status == 422

    def test_a_namespace_that_is_missing_is_named(self, kubernetes: ThroughKr8s) -> None:
        lost = config_map("lost")
        lost["metadata"]["namespace"] = "nowhere"
        with pytest.raises(Refused, match='"nowhere" not found'):
            kubernetes.apply([lost])


class TestARun:
    def test_connects_to_a_context_by_name(self, real_api: RealApi) -> None:
        with pytest.raises(Unreachable, match="no-such-context"):
            connect(real_api.kubeconfig, "no-such-context")

    def test_a_missing_server_is_reported(self, real_api: RealApi, tmp_path: Path) -> None:
        with pytest.raises(Unreachable, match="does not answer"):
            connect(unreachable_kubeconfig(real_api, tmp_path / "kubeconfig"))

    def test_applies_and_reads(self, kubernetes: ThroughKr8s) -> None:
        kubernetes.apply([config_map("run", answer="42")])
        found = kubernetes.read("ConfigMap", "default", "run")
        assert found is not None and found["data"] == {"answer": "42"}
        assert kubernetes.read("ConfigMap", "default", "missing") is None

    def test_an_undefined_kind_is_not_there(self, kubernetes: ThroughKr8s) -> None:
        assert kubernetes.read("Certificate.cert-manager.io", "default", "demo") is None
        assert kubernetes.ours("Certificate.cert-manager.io", {}) == []

    def test_kinds_of_other_groups_are_found(
        self, kubernetes: ThroughKr8s, real_api: RealApi
    ) -> None:
        labels = {"app": "found"}
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "found", "namespace": "default", "labels": dict(OUR_LABELS)},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "found", "image": "localhost/found"}]},
                },
            },
        }
        kubernetes.apply([deployment])
        assert kubernetes.read("Deployment.apps", "default", "found") is not None
        assert ("default", "found") in kubernetes.ours("Deployment.apps", {})
        patch = {
            "spec": {
                "template": {
                    "spec": {
                        "containers": [{"name": "found", "env": [{"name": "A", "value": "1"}]}]
                    }
                }
            }
        }
        kubernetes.patch("Deployment.apps", "default", "found", patch)
        (container,) = real_api.get("/apis/apps/v1/namespaces/default/deployments/found")["spec"][
            "template"
        ]["spec"]["containers"]
        assert (container["image"], container["env"]) == (
            "localhost/found",
            [{"name": "A", "value": "1"}],
        )

    def test_only_what_is_ours_is_deleted(self, kubernetes: ThroughKr8s, real_api: RealApi) -> None:
        kubernetes.apply([config_map("our-own")])
        real_api.apply(config_map("somebodys", ours=False))
        assert kubernetes.delete_ours("ConfigMap", "default", "our-own")
        assert not kubernetes.delete_ours("ConfigMap", "default", "somebodys")
        assert not kubernetes.delete_ours("ConfigMap", "default", "missing")
        assert not real_api.exists("/api/v1/namespaces/default/configmaps/our-own")
        assert real_api.exists("/api/v1/namespaces/default/configmaps/somebodys")

    def test_cluster_wide_kinds_too(self, kubernetes: ThroughKr8s, real_api: RealApi) -> None:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "meshwake-ground", "labels": dict(OUR_LABELS)},
            "rules": [],
        }
        kubernetes.apply([role])
        assert kubernetes.ours("ClusterRole.rbac.authorization.k8s.io", {}) == [
            (None, "meshwake-ground")
        ]
        assert kubernetes.delete_ours(
            "ClusterRole.rbac.authorization.k8s.io", None, "meshwake-ground"
        )
        assert not real_api.exists(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/meshwake-ground"
        )

    def test_what_lacks_our_label_is_not_applied(
        self, kubernetes: ThroughKr8s, real_api: RealApi
    ) -> None:
        with pytest.raises(HarnessFault, match="lacks our label"):
            kubernetes.apply([config_map("unmarked", ours=False)])
        assert not real_api.exists("/api/v1/namespaces/default/configmaps/unmarked")

    def test_pods_and_their_nodes(self, real_cluster: RealApi) -> None:
        """Simulated nodes have no kubelet: whatever needs one raises Unreachable, which is not
        statement about the pod."""
        real_cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "lone", "namespace": "default", "labels": {"app": "lone"}},
                "spec": {"containers": [{"name": "lone", "image": "localhost/lone"}]},
            }
        )
        client = ThroughKr8s(real_cluster.kubeconfig)
        try:
            deadline = Deadline("pod lone is ready", WITHIN_S)
            while not (found := client.pods("default", {"app": "lone"})) or not found[0].ready:
                deadline.pause(found)
            (pod,) = found
            assert pod.node.startswith("meshwake-ground-")
            assert pod.address
            with pytest.raises(Unreachable, match="lone"):
                client.execute(pod, "lone", ["true"], within_s=10)
            with pytest.raises(Unreachable, match="lone"):
                client.log_lines(pod, "lone", 10)
            with pytest.raises(Unreachable, match="lone"):
                client.get(pod, 15000, "/config_dump", within_s=10)
            client.end_pod(pod)
            while client.pods("default", {"app": "lone"}):
                deadline.pause("still there")
        finally:
            client.close()


def test_a_server_that_refuses_says_why(real_api: RealApi) -> None:
    """What the tests above compare with: the ground's own client sees the same refusal."""
    with pytest.raises(ground.Refused, match="RFC 1123"):
        real_api.apply(config_map("No_Such_Name"))
