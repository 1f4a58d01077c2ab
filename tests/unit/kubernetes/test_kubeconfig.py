"""Kubeconfigs as they are found on people's machines: merged and resolved as kubectl does it, or
refused by the name of the file and what it lacks. Against a server on loopback where it counts what
is really sent.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.json_types import objects_at, text_at, texts_at
from meshwake.kubernetes.api import LoginFailed, Refused, Unreachable
from meshwake.kubernetes.kubeconfig import Access, read_access
from meshwake.kubernetes.through_kr8s import connect

from tests.support.http_server import Request, serving
from tests.support.paths import DATA
from tests.unit.mutations import chance, many, mutated, reshaped

EXEC = "client.authentication.k8s.io/v1"


def config(
    name: str = "home", server: str = "https://192.0.2.1:6443", **about: Any
) -> dict[str, Any]:
    """One cluster, one user, one context of the same name. `cluster`, `user`, `context`: more of
    each."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, **about.get("cluster", {})}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, **about.get("context", {})}}
        ],
        "users": [{"name": name, "user": about.get("user", {"token": "t"})}],
        "current-context": about.get("current", name),
    }


def save(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def listed(monkeypatch: pytest.MonkeyPatch, *paths: Path | str) -> None:
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, paths)))


# --- Several files --------------------------------------------------------------------------------


def test_files_are_merged_and_the_first_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each name, and for the current context; an empty name, a missing and an empty file are
    skipped."""
    first = save(tmp_path / "a", config("one", "https://192.0.2.1:1", current=""))
    second = save(tmp_path / "b", config("two", "https://192.0.2.2:2"))
    third = save(tmp_path / "c", config("one", "https://192.0.2.3:3"))
    (tmp_path / "empty").touch()
    listed(monkeypatch, "", tmp_path / "none", tmp_path / "empty", first, second, third)
    assert read_access(None).server == "https://192.0.2.2:2"
    assert read_access(None, "one").server == "https://192.0.2.1:1"
    listed(monkeypatch, third, second, first)
    assert (read_access(None).context, read_access(None).server) == ("one", "https://192.0.2.3:3")


def test_parts_may_lie_in_different_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each relative path begins at the file that has it."""
    whole = config(
        "home", user={"tokenFile": "token"}, cluster={"certificate-authority": "pki/ca.crt"}
    )
    for section, folder in (("clusters", "x"), ("users", "y"), ("contexts", "z")):
        save(tmp_path / folder / "config", {section: whole[section]})
    (tmp_path / "x" / "pki").mkdir()
    (tmp_path / "x" / "pki" / "ca.crt").write_bytes(certificate()[0])
    (tmp_path / "y" / "token").write_text("secret\n")
    listed(monkeypatch, *(tmp_path / folder / "config" for folder in "xyz"))
    access = read_access(None, "home")
    assert access.cluster["certificate-authority"] == str(tmp_path / "x" / "pki" / "ca.crt")
    assert access.user["tokenFile"] == str(tmp_path / "y" / "token")


def test_without_kubeconfig_it_is_that_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty KUBECONFIG is none; and that there is nothing is reported."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", "")
    with pytest.raises(
        BadInput, match=r"\.kube/config: not a kubeconfig: there is no such file; give one with"
    ):
        read_access(None)
    save(tmp_path / ".kube" / "config", config())
    assert read_access(None).context == "home"
    listed(monkeypatch, tmp_path / "a", tmp_path / "b")
    with pytest.raises(BadInput, match=r"KUBECONFIG: \S+/a, \S+/b: not a kubeconfig"):
        read_access(None)


def test_one_that_is_broken_is_not_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with kubectl: half of a configuration may lead to another cluster."""
    (tmp_path / "b").write_text("clusters: [")
    listed(monkeypatch, save(tmp_path / "a", config()), tmp_path / "b")
    with pytest.raises(BadInput, match="/b: not a kubeconfig: is not YAML"):
        read_access(None)


# --- What a file lacks ----------------------------------------------------------------------------

TWICE = "apiVersion: v1\nusers: []\nusers: []\n"
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "nulls": (
        "clusters: null\ncontexts: null\nusers: null\ncurrent-context: ''",
        "it has no contexts",
    ),
    "empty lists": ("clusters: []\ncontexts: []\nusers: []", "it has no contexts"),
    "nothing": ("", "it has no contexts"),
    "only a comment": ("# moved", "it has no contexts"),
    "braces": ("{}", "it has no contexts"),
    "a list": ("[1, 2]", "found a list of 2, expected clusters"),
    "a word": ("Error: no such cluster", "expected clusters|found keys|it has no contexts"),
    "no YAML": ("a: [", "is not YAML"),
    "a tab": ("a:\n\t- b", "is not YAML"),
    "a key twice": (TWICE, "the key 'users' is there twice"),
    "a key twice in JSON": ('{"users": [], "users": []}', "the key 'users' is there twice"),
    "two documents": ("kind: Config\n---\nkind: Config\n", "2 documents"),
    "another kind": ("kind: Pod", "its kind is 'Pod', expected 'Config'"),
    "no list": ("contexts: {a: b}", "contexts: expected a list"),
    "no name": ("contexts: [{context: {}}]", r"contexts\[0\]: expected an entry with a name"),
    "a number for a name": ("users: [{name: 7}]", r"users\[0\]: expected an entry with a name"),
    "a name twice": ("users: [{name: a}, {name: a}]", "the name 'a' is there twice"),
    "no keys": ("users: [{name: a, user: [1]}]", "user: expected keys and values"),
    "no text": (
        "users: [{name: a, user: {token: 17}}]",
        "user 'a': token: expected text, found int",
    ),
    "no flag": (
        "clusters: [{name: a, cluster: {insecure-skip-tls-verify: 'no'}}]",
        "expected true or false",
    ),
    "no word for current": (
        "contexts: [{name: a}]\ncurrent-context: [a]",
        "current-context: expected a name",
    ),
    "nothing for a cluster": (
        "contexts: [{name: a}]\ncurrent-context: a",
        "context 'a' names no cluster",
    ),
    "no text at all": (b"\xff\x00\x81", "is not UTF"),
    "deep": ("[" * 1_000, "YAML that cannot be read"),
    "half of UTF-16": (b"\xff\xfea", "is not UTF-16 text"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_not_a_kubeconfig_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, the file and what it lacks; whether kubectl would have tried localhost:8080
    instead or not."""
    content, message = TEXTS[name]
    path = tmp_path / "mine.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(BadInput, match=message) as raised:
        read_access(path)
    assert str(path) in str(raised.value)
    assert run_command(["forecast", "--kubeconfig", str(path)]) == ExitCode.BAD_INPUT
    assert "mine.yaml" in capsys.readouterr().err


LACKS: dict[str, tuple[dict[str, Any], str]] = {
    "no current": (
        config(current=""),
        "no current-context is set; it has: home; choose one: --context NAME, or kub",
    ),
    "current gone": (
        config(current="kind-gone"),
        "current-context 'kind-gone' is not one of its contexts; it has: home",
    ),
    "cluster gone": (
        config(context={"cluster": "x"}),
        "names cluster 'x', which is not there; clusters that are: home",
    ),
    "user gone": (
        config(context={"user": "x"}),
        "names user 'x', which is not there; users that are: home",
    ),
    "no server": (config(server=""), "cluster 'home': lacks server"),
    "no port": (config(server="https://a:b"), "is not an address"),
    "port too high": (config(server="https://a:99999"), "is not an address"),
    "unix": (config(server="unix:///run/k.sock"), "expected one of http://, https://"),
    "no host": (config(server="https://"), "lacks a host"),
    "spaces": (config(server="https://a b"), "is not an address"),
    "no CA": (
        config(cluster={"certificate-authority": "/none"}),
        "certificate-authority: /none cannot be read",
    ),
    "left out": (
        config(user={"client-key-data": "DATA+OMITTED"}),
        "client-key-data: was left out (DATA+OMITTED)",
    ),
    "token left out": (config(user={"token": "REDACTED"}), "kubectl config view --raw"),
    "no base64": (
        config(cluster={"certificate-authority-data": "!!!"}),
        "authority-data: not base64",
    ),
    "no certificate": (
        config(cluster={"certificate-authority-data": "eHh4"}),
        "holds no certificate in PEM",
    ),
    "CA is a folder": (
        config(cluster={"certificate-authority": "/"}),
        "certificate-authority: / cannot be read",
    ),
    "no key": (
        config(user={"client-certificate-data": "eHh4"}),
        "has client-certificate and lacks client-key",
    ),
    "no PEM": (
        config(user={"client-certificate-data": "eA==", "client-key-data": "eA=="}),
        "its key in PEM",
    ),
    "no token file": (config(user={"tokenFile": "/none"}), "tokenFile: /none cannot be read"),
    "token of two words": (config(user={"token": "a b"}), "token: expected one word of ASCII"),
    "token with a line end": (
        config(user={"token": "a\nHost: b"}),
        "token: expected one word of ASCII",
    ),
    "password": (config(user={"username": "a", "password": "b"}), "gave this up in 1.19"),
    "gcp": (
        config(user={"auth-provider": {"name": "gcp"}}),
        "auth-provider 'gcp' is not supported",
    ),
    "oidc": (
        config(user={"auth-provider": {"name": "oidc", "config": {}}}),
        "auth-provider 'oidc' is not",
    ),
    "no provider": (config(user={"auth-provider": []}), "auth-provider a list of 0 is not"),
    "as": (config(user={"token": "t", "as": "root"}), "as: acting as another user"),
    "exec without": (config(user={"exec": {"apiVersion": EXEC}}), "exec: lacks command"),
    "exec of old": (
        config(user={"exec": {"command": "a", "apiVersion": "v1alpha1"}}),
        "apiVersion 'v1alpha1': expected",
    ),
    "exec asks": (
        config(user={"exec": {"command": "a", "apiVersion": EXEC, "interactiveMode": "Always"}}),
        "'a' is interactive",
    ),
    "exec args": (
        config(user={"exec": {"command": "a", "apiVersion": EXEC, "args": "b"}}),
        "args: expected a list",
    ),
    "exec env": (
        config(user={"exec": {"command": "a", "apiVersion": EXEC, "env": [{}]}}),
        "env: expected a list",
    ),
    "proxy": (
        config(cluster={"proxy-url": "ftp://a"}),
        "proxy-url: 'ftp://a': expected one of http://",
    ),
    "proxy's secret": (config(cluster={"proxy-url": "ftp://me:secret@a"}), "'ftp://...@a'"),
}


@pytest.mark.parametrize("name", LACKS)
def test_what_a_context_lacks_is_named(name: str, tmp_path: Path) -> None:
    """Before anything is connected to, with the file and the entry that has it."""
    content, message = LACKS[name]
    path = save(tmp_path / "config", content)
    with pytest.raises(BadInput) as raised:
        read_access(path)
    assert (
        message in str(raised.value)
        and str(path) in str(raised.value)
        and "secret" not in str(raised.value)
    )


def test_what_is_where_it_does_not_belong_counts_for_nothing(tmp_path: Path) -> None:
    """As for kubectl: a user's key in a cluster, whatever it holds."""
    astray = {"client-key-data": "!!!", "client-certificate": "/none"}
    path = save(
        tmp_path / "config",
        config(cluster=astray, user={"token": "t", "certificate-authority-data": "!!!"}),
    )
    access = read_access(path)
    assert not astray.keys() & access.cluster.keys() and set(access.user) == {"token"}


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory, a pipe, one that is not there, a list where one path is expected."""
    with pytest.raises(BadInput, match="is a directory"):
        read_access(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="no regular file"):
        read_access(tmp_path / "pipe")
    with pytest.raises(
        BadInput,
        match=r"--kubeconfig \S+a:b: not a kubeconfig: there is no such file; a list of files",
    ):
        read_access(tmp_path / "a:b")
    with pytest.raises(BadInput, match="cannot be read"):
        read_access(tmp_path / ("x" * 5_000))
    listed(monkeypatch, tmp_path)
    with pytest.raises(BadInput, match="is a directory"):
        read_access(None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """Named with the reason."""
    path = save(tmp_path / "config", config())
    path.chmod(0)
    with pytest.raises(BadInput, match="Permission denied"):
        read_access(path)


# --- What is understood ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
)
def test_encodings_that_shells_write(encoding: str, tmp_path: Path) -> None:
    """PowerShell's `kubectl config view --raw > config` is UTF-16; YAML and JSON, the latter
    indented with tabs."""
    for number, text in enumerate((yaml.safe_dump(config()), json.dumps(config(), indent="\t"))):
        path = tmp_path / f"{number}"
        path.write_bytes(text.encode(encoding))
        assert read_access(path).server == "https://192.0.2.1:6443"


def test_a_context_needs_no_user_and_no_current(tmp_path: Path) -> None:
    """A server without authentication; the context is named."""
    content = config(current="")
    del content["contexts"][0]["context"]["user"], content["users"]
    access = read_access(save(tmp_path / "config", content), "home")
    assert (access.user_name, access.user) == ("", {})
    assert access.laid_out(tmp_path)["current-context"] == "home"


@pytest.mark.parametrize(
    ("about", "server"),
    [
        ({"server": "192.0.2.1:6443"}, "http://192.0.2.1:6443"),
        (
            {"server": "192.0.2.1:6443", "cluster": {"insecure-skip-tls-verify": True}},
            "https://192.0.2.1:6443",
        ),
        ({"server": "https://[2001:db8::1]:6443/"}, "https://[2001:db8::1]:6443"),
        (
            {"server": "https://rancher.example/k8s/clusters/c-1"},
            "https://rancher.example/k8s/clusters/c-1",
        ),
    ],
)
def test_addresses(about: dict[str, Any], server: str, tmp_path: Path) -> None:
    """Without a scheme it is kubectl's guess; a path belongs to it."""
    assert read_access(save(tmp_path / "config", config(**about))).server == server


def test_data_counts_before_a_file_and_may_be_folded(tmp_path: Path) -> None:
    """A path next to it need not even exist; base64 in lines is what `base64` prints."""
    pem, key = certificate()
    user = {
        "client-certificate": "/none",
        "client-certificate-data": base64.encodebytes(pem).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    access = read_access(save(tmp_path / "config", config(user=user)))
    laid_out = access.laid_out(tmp_path)
    (user_entry,) = objects_at(laid_out, "users")
    (cluster_entry,) = objects_at(laid_out, "clusters")
    held = texts_at(user_entry, "user")
    assert Path(held["client-certificate"]).read_bytes() == pem
    assert stat.S_IMODE(Path(held["client-key"]).stat().st_mode) == 0o600
    # kr8s trusts no server where there is a client certificate and no authority.
    assert Path(text_at(cluster_entry, "cluster", "certificate-authority")).is_file()


def test_a_key_that_is_encrypted_or_of_another_is_refused(tmp_path: Path) -> None:
    """No password is requested on the terminal."""
    pem, key = certificate()
    other = serialization.load_pem_private_key(key, None)
    assert isinstance(other, ec.EllipticCurvePrivateKey)
    encrypted = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    for wrong in (encrypted, certificate()[1]):
        user = {
            "client-certificate-data": base64.b64encode(pem).decode(),
            "client-key-data": base64.b64encode(wrong).decode(),
        }
        with pytest.raises(
            BadInput, match="expected a certificate and its key in PEM, not encrypted"
        ):
            read_access(save(tmp_path / "config", config(user=user)))


def certificate() -> tuple[bytes, bytes]:
    """One for 127.0.0.1 that signs itself, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("kubernetes")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


# --- What is sent ---------------------------------------------------------------------------------


@contextmanager
def server(tokens: list[str], want: str = "", tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The address of an API server that notes each token, and refuses all others than `want`."""

    def answer(request: Request) -> None:
        tokens.append(request.headers.get("Authorization", "").removeprefix("Bearer "))
        refused = bool(want) and tokens[-1] != want
        body = json.dumps({"gitVersion": "v1.34.0", "message": "Unauthorized"}).encode()
        request.reply(401 if refused else 200, body)

    with serving(answer, tls) as address:
        yield address


def program(path: Path, lines: str) -> Path:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def credential(token: str) -> str:
    return json.dumps({"kind": "ExecCredential", "apiVersion": EXEC, "status": {"token": token}})


def logged_in(path: Path) -> Access:
    """Connects as a command does, and hangs up."""
    access = read_access(path)
    connect(access).close()
    return access


def test_a_token_file_is_read_at_each_login(tmp_path: Path) -> None:
    """It is renewed by others; it counts before a token next to it."""
    tokens: list[str] = []
    (tmp_path / "token").write_text("new\n")
    with server(tokens) as address:
        logged_in(
            save(
                tmp_path / "config",
                config(server=address, user={"tokenFile": "token", "token": "old"}),
            )
        )
    assert set(tokens) == {"new"}
    tokens.clear()
    with server(tokens, "fresh") as address:
        access = read_access(
            save(tmp_path / "config", config(server=address, user={"tokenFile": "token"}))
        )
        (tmp_path / "token").write_text("fresh")
        connect(access).close()
    assert set(tokens) == {"fresh"}


def test_a_server_with_another_name_in_its_certificate(tmp_path: Path) -> None:
    """By its tls-server-name, or without a look at it; else it is refused, and not because of the
    file."""
    pem, key = certificate()
    (tmp_path / "both").write_bytes(key + pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "both")
    authority = {"certificate-authority-data": base64.b64encode(pem).decode()}
    path = tmp_path / "config"
    with server([], tls=tls) as address:
        logged_in(
            save(
                path, config(server=address, cluster=authority | {"tls-server-name": "kubernetes"})
            )
        )
        logged_in(save(path, config(server=address, cluster={"insecure-skip-tls-verify": True})))
        for distrusts in (authority, {}):
            with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
                logged_in(save(path, config(server=address, cluster=distrusts)))


def test_a_plugin_logs_in(tmp_path: Path) -> None:
    """By a path relative to the kubeconfig, with its arguments and environment, and what kubectl
    prints it."""
    tokens: list[str] = []
    (tmp_path / "bin").mkdir()
    printed = credential("$WORD-$1-$(echo $KUBERNETES_EXEC_INFO | grep -c server)").replace(
        '"', '\\"'
    )
    program(tmp_path / "bin" / "log-in", f'echo "{printed}"')
    plugin = {
        "apiVersion": EXEC,
        "command": "./bin/log-in",
        "args": ["a"],
        "env": [{"name": "WORD", "value": "w"}],
        "provideClusterInfo": True,
    }
    with server(tokens) as address:
        access = logged_in(save(tmp_path / "config", config(server=address, user={"exec": plugin})))
    assert set(tokens) == {"w-a-1"} and access.login_program == str(tmp_path / "bin/log-in")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("echo no profile >&2; exit 1", "no profile"),
        ("echo Please log in", "handed out no credentials"),
        ("echo '{}'", "handed out no credentials"),
        ("echo '[]'", "handed out no credentials"),
        ("echo '{\"status\": {}}'", "handed out no credentials"),
        ("echo '{\"status\": null}'", "handed out no credentials"),
        ("printf '\\377'", "handed out no credentials"),
    ],
)
def test_a_plugin_that_fails_is_named(
    lines: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 4, its name and what it printed."""
    path = program(tmp_path / "log-in", lines)
    plugin = {"apiVersion": EXEC, "command": str(path)}
    kubeconfig = save(tmp_path / "config", config(user={"exec": plugin}))
    assert run_command(["forecast", "--kubeconfig", str(kubeconfig)]) == ExitCode.LAB_UNAVAILABLE
    err = capsys.readouterr().err
    assert message in err and "log-in" in err and "Traceback" not in err


def test_a_plugin_that_fails_when_it_is_called_again_is_named(tmp_path: Path) -> None:
    """Credentials ran out in the middle of a run."""
    once = f"test -e {tmp_path}/done && exit 3; touch {tmp_path}/done; echo '{credential('t')}'"
    plugin = {"apiVersion": EXEC, "command": str(program(tmp_path / "log-in", once))}
    with server([], "another") as address:
        access = read_access(
            save(tmp_path / "config", config(server=address, user={"exec": plugin}))
        )
        with pytest.raises(Unreachable, match="log-in"):
            connect(access)


def test_a_plugin_that_is_missing_is_named_with_its_hint(tmp_path: Path) -> None:
    """Before anything is connected to."""
    plugin = {
        "apiVersion": EXEC,
        "command": "no-such-login",
        "installHint": "install it\nfrom there",
    }
    access = read_access(save(tmp_path / "config", config(user={"exec": plugin})))
    with pytest.raises(
        LoginFailed, match="'no-such-login', which is not installed here; install it from there"
    ):
        connect(access)


def test_keys_do_not_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the folder for temporary files nor elsewhere; also where no server answers."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    pem, key = certificate()
    user = {
        "client-certificate-data": base64.b64encode(pem).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    path = save(tmp_path / "config", config(server="https://127.0.0.1:1", user=user))
    with pytest.raises(Unreachable, match="does not answer"):
        connect(read_access(path))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_http_proxy_is_used(tmp_path: Path) -> None:
    """The server's name is not resolved here: the proxy does it."""
    tokens: list[str] = []
    with server(tokens) as proxy:
        content = config(server="http://mesh.invalid:6443", cluster={"proxy-url": proxy})
        logged_in(save(tmp_path / "config", content))
    assert set(tokens) == {"t"}


def test_a_socks_proxy_without_its_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with it, it is connected to."""
    content = config(cluster={"proxy-url": "socks5://me:secret@127.0.0.1:1"})
    access = read_access(save(tmp_path / "config", content))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        LoginFailed, match=r"socks5://...@127.0.0.1:1.*pip install 'httpx\[socks\]'"
    ):
        connect(access)


def test_a_socks_proxy_is_used(tmp_path: Path) -> None:
    """Word by word as RFC 1928 has it, to a server that only the proxy finds."""
    pytest.importorskip("socksio", reason="pip install 'httpx[socks]'")
    tokens: list[str] = []
    with server(tokens) as address, socks(int(address.rpartition(":")[2])) as proxy:
        content = config(server="http://mesh.invalid:6443", cluster={"proxy-url": proxy})
        logged_in(save(tmp_path / "config", content))
    assert set(tokens) == {"t"}


@contextmanager
def socks(port: int) -> Iterator[str]:
    """A SOCKS proxy for which every name means `port` of this machine."""
    import socket
    import socketserver

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            assert self.request.recv(2)[:1] == b"\5"
            self.request.recv(8)
            self.request.sendall(b"\5\0")
            self.request.recv(300)
            with socket.create_connection(("127.0.0.1", port)) as behind:
                self.request.sendall(b"\5\0\0\1\0\0\0\0\0\0")
                threading.Thread(target=passes_on, args=(behind, self.request), daemon=True).start()
                passes_on(self.request, behind)

    def passes_on(source: socket.socket, destination: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(65536):
                destination.sendall(part)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        listening.block_on_close = False
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"socks5://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


# --- Anything at all ------------------------------------------------------------------------------

SAMPLES = DATA / "kubeconfigs"
TOKENS = [
    *(
        b"null",
        b"[]",
        b"{}",
        b"~",
        b"- ",
        b": ",
        b"\t",
        b"\n",
        b'"',
        b"'",
        b"&a",
        b"*a",
        b"<<: ",
        b"---\n",
        b"!!binary ",
    ),
    *(
        b"2026-13-45",
        b"1e400",
        b"0x" + b"f" * 5_000,
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"exec:",
        b"auth-provider:",
    ),
    *(
        b"server: unix:///a",
        b"token: 1",
        b"as: root",
        b"proxy-url: socks5://a",
        b"https://[::",
        b"tokenFile: /",
        b"%",
    ),
]


def reads(path: Path, context: str | None = None) -> None:
    """A way to a cluster or a sentence that names the file; whatever else is raised is a fault of
    ours."""
    try:
        access = read_access(path, context)
    except BadInput as error:
        if str(path) not in str(error):
            raise
        return
    folder = path.parent / "laid-out"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with suppress(LoginFailed):
        json.dumps(access.laid_out(folder))


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda sample: sample.name)
def test_a_damaged_kubeconfig_is_read_or_named(sample: Path, tmp_path: Path) -> None:
    """Of forms that kind, k3s, clouds and people write."""
    random, others = chance(f"kubeconfig {sample.name}"), sorted(SAMPLES.iterdir())
    damaged = tmp_path / "damaged"
    for _ in range(many(30)):
        damaged.write_bytes(mutated(sample.read_bytes(), random, others, TOKENS))
        reads(damaged, random.choice([None, None, "kind-mesh"]))


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda sample: sample.name)
def test_a_kubeconfig_of_another_shape_is_read_or_named(sample: Path, tmp_path: Path) -> None:
    """Well formed, with other values than it should have; certificates and keys among them."""
    random, (pem, key) = chance(f"shape of {sample.name}"), certificate()
    whole = yaml.safe_load(sample.read_text().replace("\t", ""))
    for each in whole["users"] or ():
        each["user"]["client-certificate-data"] = base64.b64encode(pem).decode()
        each["user"]["client-key-data"] = base64.b64encode(key).decode()
    path = tmp_path / "reshaped"
    for _ in range(many(60)):
        path.write_text(json.dumps(reshaped(copy.deepcopy(whole), random)))
        reads(path, random.choice([None, None, "kind-mesh"]))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["a", "https://a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "cluster",
                    "user",
                    "context",
                    "server",
                    "token",
                    "exec",
                    "command",
                    "args",
                    "env",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
NAMED = st.fixed_dictionaries(
    {"name": st.just("a")}, optional={"cluster": VALUES, "user": VALUES, "context": VALUES}
)
OF_USERS = st.dictionaries(
    st.sampled_from(
        [
            "token",
            "tokenFile",
            "exec",
            "auth-provider",
            "as",
            "client-key-data",
            "client-certificate-data",
        ]
    ),
    VALUES
    | st.fixed_dictionaries(
        {"command": VALUES, "apiVersion": st.just(EXEC)}, optional={"env": VALUES}
    ),
)
OF_CLUSTERS = st.dictionaries(
    st.sampled_from(
        [
            "server",
            "proxy-url",
            "certificate-authority",
            "certificate-authority-data",
            "tls-server-name",
        ]
    ),
    VALUES | st.text(),
).map(lambda found: {"server": "https://a", **found})
WHOLE = st.builds(
    lambda cluster, user: config("a", cluster=cluster, user=user), OF_CLUSTERS, OF_USERS
) | st.fixed_dictionaries(
    {},
    optional={
        "clusters": VALUES | st.lists(NAMED, max_size=2),
        "contexts": VALUES | st.lists(NAMED, max_size=2),
        "users": VALUES | st.lists(NAMED, max_size=2),
        "current-context": VALUES | st.just("a"),
        "kind": VALUES | st.just("Config"),
    },
)


@settings(max_examples=many(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(content=WHOLE, as_json=st.booleans())
@pytest.mark.slow(reason="hundreds of drawn files")
def test_any_content_is_read_or_named(
    content: Any, as_json: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Values of every type in every place."""
    path = tmp_path_factory.getbasetemp() / "any-kubeconfig"
    path.write_text(json.dumps(content) if as_json else yaml.safe_dump(content), encoding="utf-8")
    reads(path, "a" if as_json else None)


def test_a_refusal_is_not_a_lost_connection(tmp_path: Path) -> None:
    """A token that the server does not know is the server's word, not a broken file."""
    with server([], "another") as address:
        path = save(tmp_path / "config", config(server=address))
        with pytest.raises((Unreachable, Refused), match="Unauthorized"):
            connect(read_access(path))
