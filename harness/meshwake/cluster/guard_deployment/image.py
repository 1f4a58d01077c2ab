"""Which image a guard runs, and what a user does where there is none.

A release publishes it for amd64 and arm64 and writes its digest into the manifest
(.github/release-guard). Before the first release the manifest names one that has to be built; then nothing
is installed unless the user names an image that their nodes have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshwake.cluster.stack.own_images import GUARD
from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject, text_at, texts_at
from meshwake.core.resources import ROOT, SOURCES

# How an image that was built here gets into the nodes, by a sign of the distribution: a part of
# what kubelet says of its version, of a node's labels, or of its name.
_WAYS: Mapping[str, str] = {
    "+k3s": "docker save {image} | sudo k3s ctr images import -    # on every node",
    "+rke2": (
        "docker save {image} | sudo /var/lib/rancher/rke2/bin/ctr -a /run/k3s/containerd/"
        "containerd.sock -n k8s.io images import -    # on every node"
    ),
    "+k0s": "docker save {image} | sudo k0s ctr -n k8s.io images import -    # on every node",
    "microk8s.io/cluster": "docker save {image} | microk8s images import",
    "minikube.k8s.io/name": "minikube image load {image}",
    "docker-desktop": "nothing more: with kubeadm its nodes see the images of Docker itself",
    "kind://": "kind load docker-image {image} --name CLUSTER",
}
_ANY = "push it to a registry that your nodes can pull from, and give that name with --image"


def published_image() -> str | None:
    """The image of this release, by digest; None when this version was built from sources."""
    if not GUARD.is_published:
        return None
    return GUARD.named


def build_command() -> str:
    """What builds the image from the files of this installation, wherever that is."""
    return f"docker build -f {ROOT / GUARD.dockerfile} -t {GUARD.named} {SOURCES}"


def no_image(nodes: Iterable[JsonObject]) -> LabUnavailable:
    """The refusal to install an image that does not exist, with what to do on these nodes."""
    return LabUnavailable(
        "\n".join(
            [
                "no image of the wake guard is published for this version: it was built from "
                "sources, and only a release names an image by digest. Build it and put it into "
                "the nodes, then name it:",
                f"  {build_command()}",
                f"  {way_into_nodes(nodes, GUARD.named)}",
                f"  meshwake guard install --image {GUARD.named}",
            ]
        )
    )


def way_into_nodes(nodes: Iterable[JsonObject], image: str) -> str:
    """How `image` gets into these nodes without a registry."""
    signs: list[str] = []
    for node in nodes:
        signs += _signs(node)
    text = " ".join(signs)

    for sign, way in _WAYS.items():
        if sign in text:
            return way.format(image=image)
    return _ANY


def _signs(node: JsonObject) -> list[str]:
    """Where it shows how a node was made, such as "v1.34.1+k3s1", "kind://docker/..." or a label."""
    return [
        text_at(node, "status", "nodeInfo", "kubeletVersion"),
        text_at(node, "spec", "providerID"),
        *texts_at(node, "metadata", "labels"),
        text_at(node, "metadata", "name"),
    ]
