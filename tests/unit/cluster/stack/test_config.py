from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.stack.config import DIGEST_ANNOTATION, config_map, with_digest, with_images
from meshwake.core.errors import BadInput


def deployment(volume: dict[str, Any]) -> dict[str, Any]:
    pod = {
        "initContainers": [{"name": "i", "image": "one"}],
        "containers": [{"name": "c", "image": "two"}],
    }
    spec = {"template": {"spec": pod | {"volumes": [volume]}}}
    return {"kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def digest(thing: dict[str, Any]) -> str:
    return str(thing["spec"]["template"]["metadata"]["annotations"][DIGEST_ANNOTATION])


@pytest.mark.parametrize(
    "volume", [{"configMap": {"name": "used"}}, {"secret": {"secretName": "used"}}]
)
def test_pods_restart_when_what_they_mount_has_changed(volume: dict[str, Any]) -> None:
    kind = "ConfigMap" if "configMap" in volume else "Secret"

    def after(content: str, name: str) -> str:
        configuration = config_map("n", name, {"file": content}) | {"kind": kind}
        (changed,) = with_digest([deployment(volume)], [configuration])
        return digest(changed)

    assert after("1", "used") == after("1", "used")
    assert after("1", "used") != after("2", "used")
    assert after("1", "other") == after("2", "other"), (
        "what they do not mount does not restart them"
    )


def test_containers_get_their_pins_and_the_file_stays_as_it_is() -> None:
    thing = deployment({"emptyDir": {}})
    (pinned,) = with_images([thing], {"one": "example/one:1", "two": "example/two:2"})
    pod = pinned["spec"]["template"]["spec"]
    assert (pod["initContainers"][0]["image"], pod["containers"][0]["image"]) == (
        "example/one:1",
        "example/two:2",
    )
    assert thing["spec"]["template"]["spec"]["containers"][0]["image"] == "two"


def test_a_key_without_a_pin_is_named() -> None:
    with pytest.raises(
        BadInput, match=r"no \[images\] entry 'two', which Deployment d runs; found: one"
    ):
        with_images([deployment({"emptyDir": {}})], {"one": "example/one:1"})
