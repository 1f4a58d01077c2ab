"""What kind hands to kubelet: labels, taints and flags of every node, by kubelet's own rule and by
a real kubelet.

kind takes any label. kubelet ends at once with those that it does not allow itself, and kubeadm
then waits four minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import kind_config

from tests.integration.stack.programs import program, run
from tests.integration.stack.published import published

PINS = read_pins()
CHOICES: list[dict[str, Any]] = [
    {},
    {"profile": "full", "workers": 9},
    {"workers": 1, "without_parts": ["cilium"]},
]
_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")
_DOMAIN = re.compile(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$")
_EFFECTS = {"NoSchedule", "PreferNoSchedule", "NoExecute"}
# Of kubeadm's own kinds; a patch of another kind is for another program.
_OF_A_NODE = {"InitConfiguration", "JoinConfiguration"}
KUBELET = "make it of its Go module, k8s.io/kubernetes/cmd/kubelet"


def refused_label(key: str, value: str) -> str | None:
    """Why kubelet does not start with this label; None when it does."""
    rule = published("kubelet-labels")
    domain, slash, name = key.rpartition("/")
    if (
        _below(domain, ("kubernetes.io", "k8s.io"))
        and key not in rule["keys"]
        and not _below(domain, rule["domains"])
    ):
        return f"{key}: unknown 'kubernetes.io' or 'k8s.io' label"
    if not _NAME.match(name) or (slash and (len(domain) > 253 or not _DOMAIN.match(domain))):
        return f"{key}: is not a qualified name"
    return (
        None if value == "" or _NAME.match(value) else f"{key}: {value!r} is not a value of a label"
    )


def _below(domain: str, domains: Any) -> bool:
    return any(domain == each or domain.endswith(f".{each}") for each in domains)


def refused_taint(key: str, value: str, effect: str) -> str | None:
    """Why kubelet does not start with this taint."""
    if effect not in _EFFECTS:
        return f"{key}: {effect!r} is not an effect of a taint"
    named = refused_label(key, value)
    return None if named is None or "unknown 'kubernetes.io'" in named else named


def handed_to_kubelet(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(flag, value) of every kubelet that this configuration of kind makes."""
    for node in config["nodes"]:
        labels = node.get("labels") or {}
        if labels:
            yield "node-labels", ",".join(f"{key}={value}" for key, value in labels.items())
    for patch in patches(config):
        if patch.get("kind") not in _OF_A_NODE:
            continue
        registration = patch.get("nodeRegistration") or {}
        flags = registration.get("kubeletExtraArgs") or {}
        # A table up to kubeadm's v1beta3, a list of name and value from v1beta4 on.
        pairs = (
            flags.items()
            if isinstance(flags, dict)
            else [(each["name"], each["value"]) for each in flags]
        )
        yield from ((str(name), str(value)) for name, value in pairs)
        taints = [
            f"{t['key']}={t.get('value', '')}:{t['effect']}"
            for t in registration.get("taints") or ()
        ]
        if taints:
            yield "register-with-taints", ",".join(taints)


def patches(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every patch of kubeadm's configuration, of the whole cluster and of each node."""
    places = [config, *config["nodes"]]
    texts = [text for place in places for text in place.get("kubeadmConfigPatches") or ()]
    return [thing for text in texts for thing in yaml.safe_load_all(text) if thing]


def refusals(config: Mapping[str, Any]) -> list[str]:
    """What kubelet would refuse of this configuration."""
    return [
        message
        for flag, value in handed_to_kubelet(config)
        for message in _refused_flag(flag, value)
    ]


def _refused_flag(flag: str, value: str) -> Iterator[str]:
    for entry in [entry for entry in value.split(",") if entry]:
        message: str | None = None
        if flag == "node-labels":
            key, _, text = entry.partition("=")
            message = refused_label(key, text)
        elif flag == "register-with-taints":
            taint, _, effect = entry.rpartition(":")
            key, _, text = taint.partition("=")
            message = refused_taint(key, text, effect)
        if message is not None:
            yield message


def config_of(words: dict[str, Any]) -> dict[str, Any]:
    return kind_config(choose_stack(PINS, **words), PINS)


def with_label(key: str, value: str = "meshwake") -> dict[str, Any]:
    config = config_of({})
    config["nodes"][-1]["labels"] = {key: value}
    return config


def with_patch(**registration: Any) -> dict[str, Any]:
    patch = yaml.safe_dump({"kind": "JoinConfiguration", "nodeRegistration": registration})
    config = config_of({})
    config["nodes"][-1]["kubeadmConfigPatches"] = [patch]
    return config


@pytest.mark.parametrize("words", CHOICES, ids=str)
def test_kubelet_starts_with_what_it_is_handed(words: dict[str, Any]) -> None:
    assert refusals(config_of(words)) == []


@pytest.mark.parametrize("words", CHOICES, ids=str)
def test_every_patch_is_of_a_kind_that_is_looked_at_here(words: dict[str, Any]) -> None:
    """kind merges patches unlooked; one for another program needs a test of its own."""
    assert {patch.get("kind") for patch in patches(config_of(words))} <= _OF_A_NODE


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_label("app.kubernetes.io/managed-by"), "unknown 'kubernetes.io' or 'k8s.io' label"),
        (with_label("kubernetes.io/role"), "unknown"),
        (with_label("node-role.kubernetes.io/worker", ""), "unknown"),
        (with_label("x.k8s.io/a"), "unknown"),
        (with_label("meshwake.dev/a b"), "is not a qualified name"),
        (with_label("Mesh.dev/a"), "is not a qualified name"),
        (with_label("meshwake.dev/a", "two words"), "is not a value of a label"),
        (
            with_patch(kubeletExtraArgs={"node-labels": "a=b,node.k8s.io/c=d"}),
            "node.k8s.io/c: unknown",
        ),
        (
            with_patch(kubeletExtraArgs=[{"name": "node-labels", "value": "k8s.io/c=d"}]),
            "k8s.io/c: unknown",
        ),
        (with_patch(taints=[{"key": "a", "effect": "NoStart"}]), "is not an effect"),
        (
            with_patch(kubeletExtraArgs={"register-with-taints": "a b=c:NoSchedule"}),
            "is not a qualified name",
        ),
    ],
)
def test_what_kubelet_refuses_is_found(config: dict[str, Any], message: str) -> None:
    """So the test above can fail."""
    assert any(message in each for each in refusals(config))


@pytest.mark.parametrize(
    "key", ["meshwake.dev/a", "a", "kubernetes.io/hostname", "x.node.kubernetes.io/y"]
)
def test_what_kubelet_allows_is_let_be(key: str) -> None:
    assert refused_label(key, "x") is None


@given(
    st.sampled_from(["kubernetes.io", "k8s.io"]), st.from_regex(r"\A[a-z]{1,8}\Z"), st.booleans()
)
def test_nothing_below_kubernetes_is_let_by_but_what_is_listed(
    domain: str, name: str, deeper: bool
) -> None:
    key = f"{'x.' if deeper else ''}{domain}/{name}"
    assert (refused_label(key, "v") is None) == (key in published("kubelet-labels")["keys"])


# A real kubelet


def kubelet_says(config: Mapping[str, Any], folder: Path) -> str:
    """What a real kubelet says to the flags of this configuration. It judges flags and
    configuration first, and ends at an authority's file that is not there: it never runs."""
    kubelet = program("kubelet", KUBELET)
    file = folder / "kubelet.yaml"
    missing = folder / "no-such-authority"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "containerRuntimeEndpoint": f"unix://{folder}/missing.sock",
                "authentication": {"x509": {"clientCAFile": str(missing)}},
            }
        )
    )
    flags = [f"--{flag}={value}" for flag, value in handed_to_kubelet(config)]
    own = [f"--config={file}", f"--root-dir={folder / 'root'}", f"--cert-dir={folder / 'pki'}"]
    completed = run(kubelet, *own, *flags, within_s=60)
    assert completed.returncode != 0
    return completed.stdout


@pytest.mark.parametrize("words", CHOICES, ids=str)
def test_a_real_kubelet_takes_the_configuration(words: dict[str, Any], tmp_path: Path) -> None:
    """It comes as far as the file that is not there."""
    assert "no-such-authority" in kubelet_says(config_of(words), tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (with_label("app.kubernetes.io/managed-by"), "unknown 'kubernetes.io' or 'k8s.io' labels"),
        (with_label("meshwake.dev/a", "two words"), "invalid node labels"),
        (with_patch(kubeletExtraArgs={"no-such-flag": "1"}), "unknown flag: --no-such-flag"),
    ],
)
def test_a_real_kubelet_refuses_what_the_rule_refuses(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """So the test above can fail."""
    answer = kubelet_says(deepcopy(config), tmp_path)
    assert message in answer and "no-such-authority" not in answer
