from __future__ import annotations

import base64
from typing import Any

import kubernetes_validate
import pytest
from meshwake.cluster.stack.certificates import (
    CERT_MANAGER_IMAGES,
    GATEWAY_HOST,
    PEBBLE_NAMES,
    TSIG_KEY_NAME,
    certificate_images,
    certificate_stages,
)
from meshwake.cluster.stack.config import DIGEST_ANNOTATION
from meshwake.cluster.stack.keys import acme_keys
from meshwake.cluster.stack.pieces import Chart, Objects, image_references
from meshwake.cluster.stages import awaited_lines

from tests.unit.cluster.stack.choices import full_choice, pins


def objects(seed: str = "", *without: str) -> dict[tuple[str, str], dict[str, Any]]:
    pieces = [
        piece
        for stage in certificate_stages(full_choice(*without), pins(), seed)
        for piece in stage.pieces
    ]
    applied = [thing for piece in pieces if isinstance(piece, Objects) for thing in piece.objects]
    return {(thing["kind"], thing["metadata"]["name"]): thing for thing in applied}


def decoded(secret: dict[str, Any], key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode()


def test_cert_manager_then_the_authority_then_the_certificate() -> None:
    """In this order: the issuer's kind is in the chart, and its account is registered with
    pebble."""
    assert [stage.name for stage in certificate_stages(full_choice(), pins())] == [
        "cert-manager",
        "acme",
        "certificate",
    ]


def test_nothing_without_the_part() -> None:
    assert certificate_stages(full_choice("cert-manager"), pins()) == ()


def test_without_a_gateway_there_is_an_issuer_but_nothing_to_issue() -> None:
    """And cert-manager leaves the Gateway API alone, whose definitions are not there."""
    stages = certificate_stages(full_choice("gateway", "waypoint"), pins())
    (chart,) = [piece for piece in stages[0].pieces if isinstance(piece, Chart)]
    assert chart.values["config"]["gatewayAPI"]["enabled"] is False
    assert list(awaited_lines(stages[-1])) == ["ClusterIssuer meshwake-acme: Ready"]


@pytest.mark.parametrize("kubernetes", ["1.34", "1.35", "1.36", "1.37"])
def test_every_object_is_valid(kubernetes: str) -> None:
    for thing in objects().values():
        if "cert-manager.io" not in thing["apiVersion"]:
            kubernetes_validate.validate(thing, kubernetes, strict=True)


def test_what_is_mounted_is_there() -> None:
    """A pod that names a missing ConfigMap or Secret would wait for ever."""
    found = objects()
    for name in ("pebble", "name-server"):
        for volume in found["Deployment", name]["spec"]["template"]["spec"]["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in found
            if "secret" in volume:
                assert ("Secret", volume["secret"]["secretName"]) in found


def test_the_three_who_share_a_key_have_the_same() -> None:
    found, keys = objects("seed"), acme_keys("seed", PEBBLE_NAMES)
    assert decoded(found["Secret", "meshwake-acme-tsig"], "secret") == keys.tsig_secret
    assert f'secret "{keys.tsig_secret}";' in decoded(
        found["Secret", "name-server-key"], "tsig.conf"
    )
    issuer = found["ClusterIssuer", "meshwake-acme"]["spec"]["acme"]
    assert base64.b64decode(issuer["caBundle"]).decode() == keys.authority
    assert decoded(found["Secret", "pebble-tls"], "tls.crt") == keys.certificate
    assert issuer["solvers"][0]["dns01"]["rfc2136"]["tsigKeyName"] == TSIG_KEY_NAME


def test_names_that_must_agree_do() -> None:
    """Server and solver are Services of ours; the certificate is for the zone, in the Secret the
    Gateway names."""
    found = objects()
    issuer = found["ClusterIssuer", "meshwake-acme"]["spec"]["acme"]
    assert issuer["server"] == f"https://{PEBBLE_NAMES[0]}/dir"
    assert PEBBLE_NAMES[0].split(".")[:2] == [
        "pebble",
        found["Service", "pebble"]["metadata"]["namespace"],
    ]
    (solver,) = issuer["solvers"]
    (chart,) = certificate_stages(full_choice(), pins())[0].pieces
    assert isinstance(chart, Chart)
    assert solver["dns01"]["rfc2136"]["nameserver"] == chart.values["dns01RecursiveNameservers"]
    assert solver["dns01"]["rfc2136"]["nameserver"].split(".")[:2] == [
        "name-server",
        "meshwake-acme",
    ]
    certificate = found["Certificate", "demo-tls"]["spec"]
    assert certificate["secretName"] == "demo-tls"
    assert certificate["dnsNames"] == [GATEWAY_HOST]
    assert GATEWAY_HOST.endswith("." + solver["selector"]["dnsZones"][0])


def test_a_second_up_changes_nothing_and_another_seed_restarts_the_pods() -> None:
    def digests(seed: str) -> list[str]:
        deployments = [objects(seed)["Deployment", name] for name in ("pebble", "name-server")]
        return [
            one["spec"]["template"]["metadata"]["annotations"][DIGEST_ANNOTATION]
            for one in deployments
        ]

    assert objects("a") == objects("a")
    assert all(one != other for one, other in zip(digests("a"), digests("b"), strict=True))


def test_all_images_are_listed() -> None:
    listed = certificate_images(pins())
    assert set(image_references(list(objects().values()))) <= set(listed)
    assert len(listed) == len(set(listed)) == len(CERT_MANAGER_IMAGES) + 2
