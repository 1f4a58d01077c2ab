"""A cluster that exists is only looked at, and one that people depend on is not even run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.cluster.cluster import existing_cluster
from meshwake.core.errors import BadInput
from meshwake.kubernetes.api import Unreachable

from tests.support.fake_kubernetes import FakeKubernetes


class Looked(FakeKubernetes):
    """A Kubernetes that only answers what nodes there are; anything else is a fault."""

    def __init__(self, nodes: list[dict[str, Any]]) -> None:
        self.nodes, self.requests = nodes, 0

    def all(
        self, kind: str, namespace: str | None = None, labels: Any = None
    ) -> list[dict[str, Any]]:
        assert kind == "Node"
        self.requests += 1
        return self.nodes

    def close(self) -> None:
        """Nothing is open."""


def node(name: str, *, control_plane: bool = False, provider: str = "") -> dict[str, Any]:
    labels = {"node-role.kubernetes.io/control-plane": ""} if control_plane else {}
    return {"metadata": {"name": name, "labels": labels}, "spec": {"providerID": provider}}


HOME = [node("pi", control_plane=True), node("laptop")]


def kubeconfig(
    directory: Path, *, name: str = "homelab", server: str = "https://127.0.0.1:6443", **user: Any
) -> Path:
    path = directory / "kubeconfig"
    content = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def connect_to(kube: Looked) -> Callable[[Path, str | None], Any]:
    return lambda path, context: kube


def test_it_is_looked_at_and_its_workers_come_first(tmp_path: Path) -> None:
    """Not ours: nothing of it may be deleted."""
    path = kubeconfig(tmp_path)
    before = path.read_bytes()
    cluster = existing_cluster(path, None, connect=connect_to(Looked(HOME)))
    assert (cluster.name, cluster.context, cluster.ours) == ("homelab", "homelab", False)
    assert cluster.nodes == ("laptop", "pi") and cluster.choice is None
    assert path.read_bytes() == before


PRODUCTION: list[tuple[dict[str, Any], str]] = [
    ({"name": "acme-prod"}, "its name says so"),
    ({"server": "https://ABC.gr7.eu-west-1.eks.amazonaws.com"}, "belongs to a cloud"),
    ({"server": "https://x.hcp.westeurope.azmk8s.io:443"}, "belongs to a cloud"),
    ({"server": "https://api.live.example.org:6443"}, "its name says so"),
    (
        {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": "/usr/local/bin/gke-gcloud-auth-plugin",
            }
        },
        "logs in to it with gke-gcloud-auth-plugin",
    ),
]


@pytest.mark.parametrize(("about", "message"), PRODUCTION)
def test_what_looks_like_production_is_refused_before_any_request(
    tmp_path: Path, about: dict[str, Any], message: str
) -> None:
    """By what its kubeconfig says; and let through only under its own name."""
    kube = Looked(HOME)
    path = kubeconfig(tmp_path, **about)
    with pytest.raises(BadInput, match=rf"{message}.*say: --i-know"):
        existing_cluster(path, None, connect=connect_to(kube))
    assert kube.requests == 0
    with pytest.raises(BadInput, match="say: --i-know"):
        existing_cluster(path, None, known_as="another", connect=connect_to(kube))
    name = about.get("name", "homelab")
    assert existing_cluster(path, None, known_as=name, connect=connect_to(kube)).nodes == (
        "laptop",
        "pi",
    )


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node(f"n{at}") for at in range(11)], "it has 11 nodes"),
        ([node("n", provider="aws:///eu-west-1a/i-0123")], "its nodes belong to aws"),
    ],
)
def test_and_by_its_machines(tmp_path: Path, nodes: list[dict[str, Any]], message: str) -> None:
    """More than a person's own cluster has, or a cloud's."""
    with pytest.raises(BadInput, match=message):
        existing_cluster(kubeconfig(tmp_path), None, connect=connect_to(Looked(nodes)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no such file"),
        ("[1, 2]", "not a kubeconfig"),
        (": : :", "not a kubeconfig"),
        ("{}", "not a kubeconfig"),
    ],
)
def test_a_file_that_is_not_a_kubeconfig(tmp_path: Path, text: str | None, message: str) -> None:
    """Refused by name."""
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadInput, match=message):
        existing_cluster(path, None, connect=connect_to(Looked(HOME)))


def test_a_missing_context_is_reported_with_those_that_exist(tmp_path: Path) -> None:
    """A typing mistake must never end in another cluster."""
    with pytest.raises(BadInput, match=r"--context home: .* has no such context; it has: homelab"):
        existing_cluster(kubeconfig(tmp_path), "home", connect=connect_to(Looked(HOME)))


def test_one_that_does_not_answer(tmp_path: Path) -> None:
    """As the API says it."""

    class Gone(Looked):
        def all(
            self, kind: str, namespace: str | None = None, labels: Any = None
        ) -> list[dict[str, Any]]:
            raise Unreachable("GET /api/v1: connection refused")

    with pytest.raises(Unreachable, match="connection refused"):
        existing_cluster(kubeconfig(tmp_path), None, connect=connect_to(Gone([])))
