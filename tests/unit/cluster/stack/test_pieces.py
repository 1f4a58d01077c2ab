from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.stack.pieces import (
    Objects,
    image_references,
    labelled,
    labelled_objects,
    read_objects,
)
from meshwake.core.errors import HarnessFault
from meshwake.kubernetes.api import identity_of
from meshwake.kubernetes.labels import OUR_LABELS


def _deployment() -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {
                "metadata": {"labels": {"app": "a"}},
                "spec": {"initContainers": [{"image": "one"}], "containers": [{"image": "two"}]},
            },
        },
    }


def test_what_makes_pods_labels_them_too() -> None:
    """The selector, which cannot be changed later, stays; the original stays as it was."""
    before = _deployment()
    thing = labelled(before)
    assert thing["metadata"]["labels"] == dict(OUR_LABELS)
    assert thing["spec"]["template"]["metadata"]["labels"] == {"app": "a", **OUR_LABELS}
    assert thing["spec"]["selector"] == {"matchLabels": {"app": "a"}}
    assert before == _deployment()


def test_objects_without_the_label_cannot_be_made() -> None:
    """Only what carries it is ever taken away: without it something would be left behind."""
    with pytest.raises(HarnessFault, match="Deployment b/a lacks our label"):
        Objects("some", (_deployment(),))


def test_images_of_all_containers_are_found() -> None:
    """Init containers too, in every kind of object."""
    assert list(image_references([{"kind": "List", "items": (_deployment(),)}])) == ["one", "two"]


def test_files_are_read_again_each_time() -> None:
    """What one caller fills in is not seen by the next."""
    first = read_objects("metallb", "pool.yaml")
    first[0]["spec"]["addresses"].append("changed")
    assert read_objects("metallb", "pool.yaml")[0]["spec"]["addresses"] == []


def test_objects_have_names_for_people() -> None:
    """Namespace and name as kubectl takes them; what has no namespace has none."""
    assert (
        identity_of({"kind": "Deployment", "metadata": {"name": "a", "namespace": "b"}})
        == "Deployment b/a"
    )
    assert identity_of(
        labelled_objects("x", [{"kind": "Namespace", "metadata": {"name": "n"}}]).objects[0]
    ) == ("Namespace n")
