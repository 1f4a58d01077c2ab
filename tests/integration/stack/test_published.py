"""Files that a chart or a ConfigMap hands on unlooked, held against what their programs publish of
them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.pieces import Chart
from meshwake.cluster.stack.pins import minor_of, read_pins
from meshwake.cluster.stack.render import cilium_values
from meshwake.ztunnel.environment import observed_environment

from tests.integration.stack.charts import our_charts
from tests.integration.stack.published import misfits, published
from tests.support.paths import CLUSTERS

PINS = read_pins()
CHARTS = our_charts(PINS.istio.default)


def cert_manager() -> dict[str, Any]:
    return dict(CHARTS["cert-manager"].values["config"])


def pebble() -> dict[str, Any]:
    return dict(json.loads((CLUSTERS / "certificates" / "pebble.json").read_text(encoding="utf-8")))


OURS = {
    "cert-manager": cert_manager(),
    "pebble": pebble(),
    "istio-mesh": CHARTS["istiod"].values["meshConfig"],
}


@pytest.mark.parametrize("section", OURS)
def test_the_file_is_of_the_shape_that_its_program_decodes(section: str) -> None:
    assert misfits(section, OURS[section]) == []


@pytest.mark.parametrize(
    ("section", "wrong", "message"),
    [
        (
            "cert-manager",
            {"gatewayAPIConfig": {"enabled": True}},
            ".gatewayAPIConfig: unknown field",
        ),
        ("cert-manager", {"gatewayAPI": {"enable": True}}, ".gatewayAPI.enable: unknown field"),
        (
            "cert-manager",
            {"gatewayAPI": {"enabled": "yes"}},
            ".gatewayAPI.enabled: expected bool, found 'yes'",
        ),
        ("cert-manager", {"gatewayAPI": True}, ".gatewayAPI: expected a table, found True"),
        (
            "cert-manager",
            {"acmeDNS01Config": {"checkRetryPeriod": "10"}},
            "expected duration, found '10'",
        ),
        (
            "pebble",
            {"pebble": {"profiles": {"p": {"validity": 900}}}},
            ".pebble.profiles.p.validity: unknown field",
        ),
        ("pebble", {"pebble": {"retryAfter": 1}}, ".pebble.retryAfter: expected a table, found 1"),
        ("istio-mesh", {"proxyMetadata": {}}, ".proxyMetadata: unknown field"),
        (
            "istio-mesh",
            {"defaultConfig": {"proxyMetadata": {"A": 600}}},
            "expected string, found 600",
        ),
    ],
)
def test_what_a_program_would_refuse_is_found(
    section: str, wrong: dict[str, Any], message: str
) -> None:
    """So the test above can fail."""
    assert any(message in each for each in misfits(section, {**OURS[section], **wrong}))


def test_every_list_is_of_the_release_that_is_pinned() -> None:
    """A list of another minor would prove nothing; a new pin means to read its types again."""
    assert published("cert-manager")["tag"] == PINS.charts["cert-manager"].version
    assert published("cilium")["tag"] == f"v{PINS.charts['cilium'].version}"
    assert published("pebble")["tag"] == f"v{PINS.images['pebble'].rpartition(':')[2]}"
    kubernetes = PINS.istio.minor[PINS.istio.default].kubernetes
    assert minor_of(published("kubelet-labels")["tag"].removeprefix("v")) == minor_of(kubernetes)


def test_words_that_the_cilium_agent_looks_up_are_words_that_it_has() -> None:
    """The chart writes both into cilium-config unchanged."""
    values = cilium_values(choose_stack(PINS, profile="full"), PINS)
    assert values["ipam"]["mode"] in published("cilium")["ipam"]
    metrics = [entry.partition(":")[0] for entry in values["hubble"]["metrics"]["enabled"]]
    assert metrics and set(metrics) <= set(published("cilium")["metrics"])


@pytest.mark.parametrize(
    "environment", [CHARTS["ztunnel"].values["env"], observed_environment(600)], ids=["up", "a run"]
)
def test_ztunnel_reads_every_variable_that_it_is_given(environment: dict[str, str]) -> None:
    assert set(environment) <= set(published("ztunnel")["environment"])


def test_nothing_else_is_handed_on_unlooked() -> None:
    """Tables of free keys in the values of charts: who adds one says here what it is held
    against."""
    free = {
        ("cert-manager", "config"),
        ("istiod", "meshConfig"),
        ("ztunnel", "env"),
    }
    names = {
        "config",
        "meshConfig",
        "env",
        "extraConfig",
        "extraArgs",
        "extraEnv",
        "podAnnotations",
    }
    assert {
        (piece.release, key) for piece in CHARTS.values() for key in _tables(piece, names)
    } == free


def _tables(piece: Chart, names: set[str]) -> set[str]:
    return {key for key in _keys(piece.values) if key in names}


def _keys(thing: Any) -> set[str]:
    if not isinstance(thing, dict):
        return set()
    return set(thing).union(*(_keys(value) for value in thing.values()))
