"""The real chart of cert-manager with our values, and our objects against its own definitions.

The chart is that of a release of the pinned minor version, kept outside the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from harness.binaries import cache_dir
from harness.stack.certificates import certificate_images, certificate_stages
from harness.stack.pieces import Chart, Objects, image_references
from tests.stack.definitions import NotAsDefined, check_defined, definitions
from tests.stack.programs import program, run
from tests.unit.stack.choices import full_choice, pins

_HELM = "make tools"
# Every key of the chart that we set. A change here is a change of what is installed.
OUR_KEYS = {
    "crds.enabled",
    "crds.keep",
    "config.apiVersion",
    "config.kind",
    "config.gatewayAPIConfig.enabled",
    "dns01RecursiveNameservers",
    "dns01RecursiveNameserversOnly",
}


def chart_folder() -> Path:
    """The newest chart of the cache that has the pinned minor version."""
    minor = pins().charts["cert-manager"].version.rsplit(".", 1)[0]
    found = sorted((cache_dir() / "charts" / "cert-manager").glob(f"{minor}.*/Chart.yaml"))
    if not found:
        pytest.skip(f"needs the chart of cert-manager {minor} in {cache_dir() / 'charts' / 'cert-manager'}/VERSION/")
    return found[-1].parent


def our_chart() -> Chart:
    (chart,) = [
        piece
        for stage in certificate_stages(full_choice(), pins())
        for piece in stage.pieces
        if isinstance(piece, Chart)
    ]
    return chart


def our_objects() -> list[dict[str, Any]]:
    stages = certificate_stages(full_choice(), pins())
    pieces = [piece for stage in stages for piece in stage.pieces]
    return [thing for piece in pieces if isinstance(piece, Objects) for thing in piece.objects]


def rendered(tmp_path: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """What helm makes of the chart with `values`; helm itself checks them against the chart's own schema."""
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    command = (program("helm", _HELM), "template", "cert-manager", str(chart_folder()), "--namespace=cert-manager")
    said = run(*command, f"--values={file}", "--kube-version=1.34.0")
    assert said.returncode == 0, said.stdout
    return [thing for thing in yaml.safe_load_all(said.stdout) if thing]


def keys_of(values: Any, prefix: str = "") -> set[str]:
    """The leaves of `values`, written with dots."""
    if not isinstance(values, dict):
        return {prefix.rstrip(".")}
    return {leaf for key, value in values.items() for leaf in keys_of(value, f"{prefix}{key}.")}


def test_we_set_these_keys_and_no_others() -> None:
    assert keys_of(our_chart().values) == OUR_KEYS


def test_the_chart_knows_every_key(tmp_path: Path) -> None:
    """Its schema forbids what it does not know; `config` is handed on, and checked in the next test."""
    known = yaml.safe_load((chart_folder() / "values.yaml").read_text())
    assert {key.split(".")[0] for key in OUR_KEYS} <= set(known)
    rendered(tmp_path, our_chart().values)
    command = program("helm", _HELM), "template", "x", str(chart_folder()), "--set", "crds.enabledd=true"
    assert "enabledd" in run(*command).stdout, "a key that the chart does not know is refused"


def test_what_it_makes_is_valid_and_does_what_we_want(tmp_path: Path) -> None:
    """Definitions are in it, Gateway API is on, and DNS-01 asks our name server alone."""
    things = rendered(tmp_path, our_chart().values)
    for thing in things:
        kubernetes_validate.validate(thing, "1.34", strict=True)
    by_name = {(thing["kind"], thing["metadata"]["name"]): thing for thing in things}
    assert ("CustomResourceDefinition", "clusterissuers.cert-manager.io") in by_name
    (controller,) = by_name["Deployment", "cert-manager"]["spec"]["template"]["spec"]["containers"]
    server = our_chart().values["dns01RecursiveNameservers"]
    assert f"--dns01-recursive-nameservers={server}" in controller["args"]
    assert "--dns01-recursive-nameservers-only=true" in controller["args"]
    configuration = yaml.safe_load(by_name["ConfigMap", "cert-manager"]["data"]["config.yaml"])
    assert configuration["gatewayAPIConfig"] == {"enabled": True}
    for kind, name in [
        (condition.kind, condition.name) for condition in certificate_stages(full_choice(), pins())[0].conditions
    ]:
        assert (kind, name) in by_name, "what is waited for is what the chart makes"


def test_the_images_listed_are_those_it_starts(tmp_path: Path) -> None:
    """But for the release: the chart's own stands in for the pinned one of the same minor."""
    started = {reference.rsplit(":", 1)[0] for reference in image_references(rendered(tmp_path, our_chart().values))}
    listed = {reference.rsplit(":", 1)[0] for reference in certificate_images(pins())}
    assert {reference for reference in listed if "jetstack" in reference} == started


def test_issuer_and_certificate_are_as_cert_manager_defines_them() -> None:
    schemas = definitions("cert-manager")
    ours = [thing for thing in our_objects() if "cert-manager.io" in thing["apiVersion"]]
    assert [thing["kind"] for thing in ours] == ["ClusterIssuer", "Certificate"]
    for thing in ours:
        check_defined(thing, schemas)
    ours[0]["spec"]["acme"]["caBundel"] = ""
    with pytest.raises(NotAsDefined, match="caBundel"):
        check_defined(ours[0], schemas)
