"""pebble and BIND on loopback with the very files that the cluster's ConfigMaps and Secrets hold,
and a real client.

Only the addresses they listen on are taken for others, and the image's entry point for the program
itself.
"""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from meshwake.cluster.stack.certificates import (
    GATEWAY_HOST,
    PEBBLE_NAMES,
    TSIG_KEY_NAME,
    certificate_stages,
    tsig_conf,
)
from meshwake.cluster.stack.keys import AcmeKeys, acme_keys
from meshwake.cluster.stack.pieces import Objects

from tests.integration.stack.programs import listens, program, replaced, run, running
from tests.support.ports import free_port
from tests.unit.cluster.stack.choices import full_choice, pins

SEED = "a seed that only this test has"
_PEBBLE = "go install github.com/letsencrypt/pebble/v2/cmd/pebble@v2.10.1"
_BIND = "Debian, Ubuntu: apt install bind9"
_CERTBOT = "certbot with certbot-dns-rfc2136, or a link to it in tools/bin of the cache"


@dataclass(frozen=True)
class NameServer:
    """named, running."""

    dns_port: int
    keys: AcmeKeys
    folder: Path


@dataclass(frozen=True)
class Authority:
    """pebble, running, with the name server that it asks."""

    acme_port: int
    management_port: int
    names: NameServer
    log: Path

    def fetch(self, url: str) -> bytes:
        """An answer of pebble's, whose certificate is checked as cert-manager checks it: against
        `caBundle`."""
        trust = ssl.create_default_context(cadata=self.names.keys.authority)
        with urllib.request.urlopen(url, timeout=10, context=trust) as answer:  # noqa: S310 - a loopback address
            return bytes(answer.read())


def objects() -> dict[tuple[str, str], dict[str, Any]]:
    """Everything that is applied for certificates, by kind and name."""
    pieces = [
        piece for stage in certificate_stages(full_choice(), pins(), SEED) for piece in stage.pieces
    ]
    return {
        (thing["kind"], thing["metadata"]["name"]): thing
        for piece in pieces
        if isinstance(piece, Objects)
        for thing in piece.objects
    }


def container(name: str) -> dict[str, Any]:
    """The one container of a Deployment."""
    (only,) = objects()["Deployment", name]["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.fixture(scope="module")
def name_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NameServer]:
    named, folder = program("named", _BIND), tmp_path_factory.mktemp("names")
    server = NameServer(free_port(), acme_keys(SEED, PEBBLE_NAMES), folder)
    zones, files = folder / "zones", objects()["ConfigMap", "name-server"]["data"]
    (zones / "keys").mkdir(parents=True)
    (zones / "zone.db").write_text(files["zone.db"])
    (zones / "keys" / "tsig.conf").write_text(tsig_conf(server.keys))
    (folder / "named.conf").write_text(
        replaced(files["named.conf"], {"listen-on { any; };": "listen-on { 127.0.0.1; };"})
    )
    # A copy: where AppArmor confines the path of Debian's named, it may not read files of tests.
    own_named = shutil.copy(named, folder / "named")
    named_says = [*container("name-server")["command"][1:]]
    named_says[named_says.index("/config/named.conf")] = str(folder / "named.conf")
    named_says[named_says.index("5353")] = str(server.dns_port)
    with running(
        [str(own_named), *named_says],
        folder=zones,
        log=folder / "named.log",
        ready=lambda: listens(server.dns_port),
    ):
        yield server


@pytest.fixture(scope="module")
def authority(
    name_server: NameServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Authority]:
    pebble, home = program("pebble", _PEBBLE), tmp_path_factory.mktemp("pebble")
    there = Authority(free_port(), free_port(), name_server, home / "pebble.log")
    for place in (home / "config", home / "tls"):
        place.mkdir()
    addresses = {
        "0.0.0.0:14000": f"127.0.0.1:{there.acme_port}",
        "0.0.0.0:15000": f"127.0.0.1:{there.management_port}",
    }
    (home / "config" / "pebble.json").write_text(
        replaced(objects()["ConfigMap", "pebble"]["data"]["pebble.json"], addresses)
    )
    (home / "tls" / "tls.crt").write_text(name_server.keys.certificate)
    (home / "tls" / "tls.key").write_text(name_server.keys.private_key)
    pebble_says = [*container("pebble")["args"]]
    pebble_says[pebble_says.index("-dnsserver") + 1] = f"127.0.0.1:{name_server.dns_port}"
    environment = {entry["name"]: entry["value"] for entry in container("pebble")["env"]}
    with running(
        [pebble, *pebble_says],
        folder=home,
        log=there.log,
        ready=lambda: listens(there.acme_port) and listens(there.management_port),
        **environment,
    ):
        yield there


def update(names: NameServer, change: str, *, signed: bool) -> str:
    """What nsupdate says about a change of the zone; empty: it was made."""
    nsupdate = program("nsupdate", "Debian, Ubuntu: apt install bind9-dnsutils")
    script = names.folder / "update"
    script.write_text(
        f"server 127.0.0.1 {names.dns_port}\nzone meshwake.test\nupdate {change}\nsend\n"
    )
    key = ["-k", str(names.folder / "zones" / "keys" / "tsig.conf")] if signed else []
    return run(nsupdate, *key, str(script)).stdout


def answer_of(names: NameServer, name: str, kind: str) -> str:
    """dig's short answer."""
    dig = program("dig", "Debian, Ubuntu: apt install bind9-dnsutils")
    return run(
        dig, "@127.0.0.1", "-p", str(names.dns_port), "+short", "+tries=1", name, kind
    ).stdout.strip()


def test_a_real_client_gets_a_certificate_by_dns01(authority: Authority, tmp_path: Path) -> None:
    """certbot proves by RFC 2136 that the zone is its own, and pebble issues what the Gateway
    shows."""
    certbot = program("certbot", _CERTBOT)
    credentials, trust = tmp_path / "rfc2136.ini", tmp_path / "trust.pem"
    credentials.write_text(
        f"dns_rfc2136_server = 127.0.0.1\ndns_rfc2136_port = {authority.names.dns_port}\n"
        f"dns_rfc2136_name = {TSIG_KEY_NAME}\ndns_rfc2136_secret = "
        f"{authority.names.keys.tsig_secret}\n"
        "dns_rfc2136_algorithm = HMAC-SHA256\n"
    )
    credentials.chmod(0o600)
    trust.write_text(authority.names.keys.authority)
    folders = [f"--{name}-dir={tmp_path / name}" for name in ("config", "work", "logs")]
    completed = run(
        certbot,
        "certonly",
        "--non-interactive",
        "--agree-tos",
        "--register-unsafely-without-email",
        *folders,
        f"--server=https://127.0.0.1:{authority.acme_port}/dir",
        "--authenticator=dns-rfc2136",
        f"--dns-rfc2136-credentials={credentials}",
        "--dns-rfc2136-propagation-seconds=0",
        "--required-profile=meshwake",
        "--key-type=ecdsa",
        f"--domain={GATEWAY_HOST}",
        within_s=120,
        REQUESTS_CA_BUNDLE=str(trust),
    )
    assert completed.returncode == 0, completed.stdout + authority.log.read_text()[-3000:]
    chain = x509.load_pem_x509_certificates(
        (tmp_path / "config/live" / GATEWAY_HOST / "fullchain.pem").read_bytes()
    )
    root = x509.load_pem_x509_certificate(
        authority.fetch(f"https://127.0.0.1:{authority.management_port}/roots/0")
    )
    leaf, issuer = chain[0], chain[1]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [GATEWAY_HOST]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(
        minutes=15
    ) - timedelta(seconds=1)
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert answer_of(authority.names, f"_acme-challenge.{GATEWAY_HOST}", "TXT") == "", (
        "the client took its proof away"
    )


def test_pebble_offers_the_one_profile_that_the_issuer_asks_for(authority: Authority) -> None:
    """With several, pebble would draw one for every order that names none."""
    issuer = objects()["ClusterIssuer", "meshwake-acme"]
    directory = json.loads(authority.fetch(f"https://localhost:{authority.acme_port}/dir"))
    assert list(directory["meta"]["profiles"]) == [issuer["spec"]["acme"]["profile"]]


def test_only_txt_records_and_only_with_the_key(name_server: NameServer) -> None:
    """The zone is written to by those who prove that they may, and only what DNS-01 needs."""
    name = "_acme-challenge.other.meshwake.test."
    assert update(name_server, f"add {name} 5 TXT hello", signed=True) == ""
    assert answer_of(name_server, name, "TXT") == '"hello"'
    assert "REFUSED" in update(name_server, "add demo.meshwake.test. 5 A 192.0.2.1", signed=True)
    assert "REFUSED" in update(name_server, f"add {name} 5 TXT stranger", signed=False)
    assert answer_of(name_server, "demo.meshwake.test", "A") == ""


def test_the_zone_is_found_from_below(name_server: NameServer) -> None:
    """cert-manager walks up from the challenge's name until a SOA record answers (its
    FindZoneByFqdn)."""
    assert answer_of(name_server, "meshwake.test", "SOA").startswith(
        "ns.meshwake.test. hostmaster.meshwake.test. "
    )


def test_named_takes_the_files_without_complaint(name_server: NameServer) -> None:
    """Also by BIND's own checkers; with the key file next to it, as in the pod."""
    checkconf = program("named-checkconf", "Debian, Ubuntu: apt install bind9-utils")
    completed = run(
        "sh",
        "-c",
        f"cd {name_server.folder / 'zones'} && {checkconf} -z {name_server.folder / 'named.conf'}",
    )
    assert completed.returncode == 0, completed.stdout
