"""The real chart of cert-manager with our values, and our objects against its own definitions."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from meshwake.cluster.stack.certificates import certificate_stages
from meshwake.cluster.stack.pieces import Chart, Objects

from tests.integration.stack.charts import helm_template, our_charts, rendered
from tests.integration.stack.definitions import NotAsDefined, check_defined, definitions
from tests.unit.cluster.stack.choices import full_choice, pins

KUBERNETES = "1.34.11"


def our_chart() -> Chart:
    return our_charts(pins().istio.default)["cert-manager"]


def our_objects() -> list[dict[str, Any]]:
    stages = certificate_stages(full_choice(), pins())
    pieces = [piece for stage in stages for piece in stage.pieces]
    return [thing for piece in pieces if isinstance(piece, Objects) for thing in piece.objects]


def test_a_key_that_the_chart_does_not_know_is_refused() -> None:
    """Of this chart by its own schema; `config` is handed on, and checked in the next test."""
    printed, made = helm_template(our_chart(), KUBERNETES, {"crds": {"enabledd": True}})
    assert made is None and "enabledd" in printed


def test_what_it_makes_does_what_we_want() -> None:
    """Definitions are in it, Gateway API is on, and DNS-01 asks our name server alone."""
    by_name = {
        (thing["kind"], thing["metadata"]["name"]): thing
        for thing in rendered(our_chart(), KUBERNETES)
    }
    assert ("CustomResourceDefinition", "clusterissuers.cert-manager.io") in by_name
    (controller,) = by_name["Deployment", "cert-manager"]["spec"]["template"]["spec"]["containers"]
    server = our_chart().values["dns01RecursiveNameservers"]
    assert f"--dns01-recursive-nameservers={server}" in controller["args"]
    assert "--dns01-recursive-nameservers-only=true" in controller["args"]
    configuration = yaml.safe_load(by_name["ConfigMap", "cert-manager"]["data"]["config.yaml"])
    assert configuration["gatewayAPI"] == {"enabled": True}


def test_issuer_and_certificate_are_as_cert_manager_defines_them() -> None:
    schemas = definitions("cert-manager")
    ours = [thing for thing in our_objects() if "cert-manager.io" in thing["apiVersion"]]
    assert [thing["kind"] for thing in ours] == ["ClusterIssuer", "Certificate"]
    for thing in ours:
        check_defined(thing, schemas)
    ours[0]["spec"]["acme"]["caBundel"] = ""
    with pytest.raises(NotAsDefined, match="caBundel"):
        check_defined(ours[0], schemas)
