"""How the Gateway gets its certificate: cert-manager, an ACME authority, and a name server to prove
by.

The original asks Let's Encrypt and proves by DNS-01 through Route 53. Here the authority is pebble
and the name server is BIND, written to by RFC 2136; cert-manager and its ClusterIssuer stay. All of
it is in clusters/certificates/:

    cert-manager.yaml                    values of the chart
    acme.yaml                            namespace, pebble, name server
    pebble.json, named.conf, zone.db     their configuration (tests/integration/stack/test_acme.py)
    issuer.yaml                          ClusterIssuer, and the certificate `demo-tls` that the Gateway's listener names

Pebble keeps accounts and its issuing key in memory. When its pod is restarted, cert-manager's
account is unknown to it and no certificate comes until the account is registered again, which `up`
sees to (cluster/acme_account.py): a property of the test authority, not of a suspend.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.config import config_map, with_digest, with_images
from meshwake.cluster.stack.keys import AcmeKeys, acme_keys
from meshwake.cluster.stack.pieces import (
    ACME_NAMESPACE,
    CERT_MANAGER_NAMESPACE,
    Stage,
    labelled_objects,
    read_objects,
    read_values,
)
from meshwake.cluster.stack.pins import Pins, pinned_chart
from meshwake.core.resources import CLUSTERS

FOLDER = "certificates"
GATEWAY_HOST = "demo.meshwake.test"
ISSUER = "meshwake-acme"
# In cert-manager's namespace, made by cert-manager (issuer.yaml, privateKeySecretRef).
ACCOUNT_SECRET = f"{ISSUER}-account"
TSIG_KEY_NAME = "cert-manager"
PEBBLE_NAMES = (
    f"pebble.{ACME_NAMESPACE}.svc.cluster.local",
    f"pebble.{ACME_NAMESPACE}.svc",
    "localhost",
    "127.0.0.1",
)
# What the chart starts, by the name of its image; tests compare it with what the real chart
# renders.
CERT_MANAGER_IMAGES = (
    "cert-manager-controller",
    "cert-manager-webhook",
    "cert-manager-cainjector",
    "cert-manager-startupapicheck",
)


def certificate_stages(choice: Choice, pins: Pins, seed: str = "") -> tuple[Stage, ...]:
    """The steps that give the Gateway its certificate; none if the part "cert-manager" is off.

    `seed` is the cluster's own secret, from which the keys of authority and name server are worked
    out. Without one they follow from the choice: enough to print a plan, and no secret.
    """
    if "cert-manager" not in choice.parts:
        return ()
    keys = acme_keys(seed or choice.digest, PEBBLE_NAMES)
    return (_cert_manager_stage(choice, pins), _acme_stage(pins, keys), _issuer_stage(choice, keys))


def certificate_images(pins: Pins) -> tuple[str, ...]:
    """Every image that these steps start."""
    version = pins.charts["cert-manager"].version
    return (
        *(f"quay.io/jetstack/{image}:{version}" for image in CERT_MANAGER_IMAGES),
        pins.images["name-server"],
        pins.images["pebble"],
    )


def tsig_conf(keys: AcmeKeys) -> str:
    """The file keys/tsig.conf, which named.conf includes."""
    return (
        f'key "{TSIG_KEY_NAME}" {{\n\talgorithm hmac-sha256;\n\tsecret "{keys.tsig_secret}";\n}};\n'
    )


def _cert_manager_stage(choice: Choice, pins: Pins) -> Stage:
    values = read_values(FOLDER, "cert-manager.yaml")
    # Without the Gateway API's definitions the controller would not start.
    values["config"]["gatewayAPI"]["enabled"] = "gateway" in choice.parts
    return Stage(
        name="cert-manager",
        title="cert-manager",
        pieces=(pinned_chart("cert-manager", CERT_MANAGER_NAMESPACE, pins, values),),
    )


def _acme_stage(pins: Pins, keys: AcmeKeys) -> Stage:
    namespace, *rest = read_objects(FOLDER, "acme.yaml")
    configuration = [
        config_map(ACME_NAMESPACE, "pebble", {"pebble.json": _text("pebble.json")}),
        config_map(
            ACME_NAMESPACE, "name-server", {name: _text(name) for name in ("named.conf", "zone.db")}
        ),
        _secret(
            ACME_NAMESPACE,
            "pebble-tls",
            {"tls.crt": keys.certificate, "tls.key": keys.private_key},
            "kubernetes.io/tls",
        ),
        _secret(ACME_NAMESPACE, "name-server-key", {"tsig.conf": tsig_conf(keys)}),
        # A ClusterIssuer's Secrets are looked for in cert-manager's own namespace.
        _secret(CERT_MANAGER_NAMESPACE, f"{ISSUER}-tsig", {"secret": keys.tsig_secret}),
    ]
    programs = with_digest(with_images(rest, pins.images), configuration)
    return Stage(
        name="acme",
        title="ACME authority (pebble) and its name server",
        pieces=(labelled_objects("acme", [namespace, *configuration, *programs]),),
    )


def _issuer_stage(choice: Choice, keys: AcmeKeys) -> Stage:
    issuer, certificate = read_objects(FOLDER, "issuer.yaml")
    issuer["spec"]["acme"]["caBundle"] = base64.b64encode(keys.authority.encode()).decode()
    objects = [issuer, *([certificate] if "gateway" in choice.parts else [])]
    return Stage(
        name="certificate",
        title="the Gateway's certificate, by DNS-01",
        pieces=(labelled_objects("certificate", objects),),
    )


def _text(name: str) -> str:
    return (CLUSTERS / FOLDER / name).read_text(encoding="utf-8")


def _secret(
    namespace: str, name: str, content: Mapping[str, str], kind: str = "Opaque"
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": kind,
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in content.items()},
    }
