"""Kubeconfigs: the one reader. It merges, chooses and resolves as kubectl does, and names, before
anything is connected to, the file and what it lacks.

kr8s is then given a configuration of one context without relative paths (`Access.laid_out`): what
it cannot do is refused here, and the little that it does otherwise than kubectl is done here.
"""

from __future__ import annotations

import base64
import binascii
import importlib.util
import json
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx

from meshwake.core.errors import BadInput
from meshwake.core.json_types import JsonObject, MutableJsonObject, list_at, object_at, text_at
from meshwake.core.text_files import is_there, read_text
from meshwake.core.yaml_text import read_documents
from meshwake.kubernetes.api import LoginFailed

GIVE_ONE = "give one with --kubeconfig"
_NAMES_SHOWN = 20
_SECTIONS = {"clusters": "cluster", "contexts": "context", "users": "user"}
_TEXTS = (
    *("cluster", "user", "namespace"),  # of a context
    *(
        "server",
        "tls-server-name",
        "proxy-url",
        "certificate-authority",
        "certificate-authority-data",
    ),
    *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
    *("token", "tokenFile", "username", "password"),
)
_FLAGS = ("insecure-skip-tls-verify",)
# What is loaded for TLS; each is a path, or with -data after its name what such a file holds.
_AUTHORITY, _CERTIFICATE, _KEY = "certificate-authority", "client-certificate", "client-key"
# What client-go takes since 1.24, which dropped v1alpha1.
_EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_PROXIES = ("http", "https", "socks5", "socks5h")


class _Entry(NamedTuple):
    """One named cluster, user or context, and the file that has it: its relative paths begin there."""

    value: MutableJsonObject
    file: Path


@dataclass(frozen=True)
class Access:
    """How one cluster is reached: what a context leads to, checked. Paths in `cluster` and `user`
    are absolute."""

    context: str
    file: Path
    server: str
    user_name: str
    cluster: JsonObject
    user: JsonObject

    def __str__(self) -> str:
        return f"{self.file} (context {self.context!r})"

    @property
    def login_program(self) -> str | None:
        """The program that hands out the credentials; None where the file holds them."""
        return text_at(self.user, "exec", "command") or None

    def laid_out(self, folder: Path) -> MutableJsonObject:
        """A kubeconfig of this context alone, as kr8s can use it; keys and certificates that the
        file holds are written to `folder`. Raises LoginFailed for a program or a library that is
        not installed here."""
        self._check_programs()

        cluster, user = _written(self.cluster, folder), _written(self.user, folder)
        cluster["server"] = self.server

        if _CERTIFICATE in user and _AUTHORITY not in cluster:
            # With a client certificate kr8s trusts no other authority than the one it is given.
            system = ssl.get_default_verify_paths().cafile
            if system:
                cluster[_AUTHORITY] = system

        if "tokenFile" in user:
            user = _ReadsToken(user, token="")

        if self.login_program is not None:
            user["exec"] = self._exec()

        # The names of the cluster and the user are free: only this one context refers to them.
        return {
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": self.context, "context": {"cluster": "cluster", "user": "user"}}],
            "current-context": self.context,
        }

    def _check_programs(self) -> None:
        program = self.login_program
        if program is not None and shutil.which(program) is None:
            # Written by the provider of the cluster; GKE's has several lines.
            hint = " ".join(text_at(self.user, "exec", "installHint").split())
            advice = f"; {hint}" if hint else ""
            raise LoginFailed(
                f"{self.file}: user {self.user_name!r} logs in by the program {program!r}, "
                f"which is not installed here{advice}"
            )

        proxy_url = text_at(self.cluster, "proxy-url")
        is_socks = urlsplit(proxy_url).scheme.startswith("socks")
        if is_socks and importlib.util.find_spec("socksio") is None:
            raise LoginFailed(
                f"{self.file}: proxy-url {_masked(proxy_url)}: a SOCKS proxy needs one more "
                "package: pip install 'httpx[socks]'"
            )

    def _exec(self) -> MutableJsonObject:
        """With what kubectl puts into the environment of such a program."""
        configured = object_at(self.user, "exec")
        plugin = {key: configured[key] for key in ("apiVersion", "command", "args", "env")}

        # Nothing here could answer a question on the terminal.
        spec: MutableJsonObject = {"interactive": False}

        # Only for a plugin that requests it: the authority's certificates can be very long.
        if configured.get("provideClusterInfo"):
            cluster = {"server": self.server}
            authority = _data_of(self.cluster, _AUTHORITY)
            if authority:
                cluster["certificate-authority-data"] = base64.b64encode(authority).decode()
            spec["cluster"] = cluster

        # The contract between kubectl and its plugins: client.authentication.k8s.io.
        info = {"kind": "ExecCredential", "apiVersion": plugin["apiVersion"], "spec": spec}
        variable = {"name": "KUBERNETES_EXEC_INFO", "value": json.dumps(info)}
        plugin["env"] = [*list_at(configured, "env"), variable]
        return plugin


class _ReadsToken(dict[str, object]):
    """A user whose token lies in a file that others renew: it is read whenever kr8s logs in."""

    def __getitem__(self, key: str) -> object:
        if key != "token":
            return super().__getitem__(key)

        # The kubelet replaces a projected token before it expires.
        path = Path(str(self["tokenFile"]))
        return path.read_text(encoding="utf-8").strip()


def read_access(kubeconfig: Path | None, context: str | None = None) -> Access:
    """What `context` (None: the current one) leads to, in `kubeconfig`, or (None) in what
    KUBECONFIG lists or else in ~/.kube/config. Raises BadInput that names the file and what it
    lacks."""
    files = [kubeconfig] if kubeconfig is not None else _default_files()
    contents = [(file, _content(file)) for file in files]
    sections = {section: _merged(contents, section) for section in _SECTIONS}

    # As in kubectl, the first file that sets a current context decides.
    current = ""
    for file, content in contents:
        of_file = _current(content, file)
        current = current or of_file

    where = ", ".join(map(str, files))
    name = _chosen(where, sections["contexts"], context, current)
    return _access(name, sections)


def _default_files() -> list[Path]:
    listed = os.environ.get("KUBECONFIG", "")
    # An empty entry, as from "a:" or "::", means nothing, also to kubectl.
    named = [Path(each).expanduser() for each in listed.split(os.pathsep) if each]
    if named:
        return _existing(named, "KUBECONFIG: ")

    return _existing([_home() / ".kube" / "config"], "")


def _existing(candidates: list[Path], source: str) -> list[Path]:
    """As kubectl does, files that do not exist are left out, unless none of them does."""
    existing = [file for file in candidates if is_there(file)]
    if existing:
        return existing

    shown = ", ".join(str(file) for file in candidates)
    raise BadInput(f"{source}{shown}: not a kubeconfig: there is no such file; {GIVE_ONE}")


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError as error:
        # Neither HOME nor an entry for this user in the password database, as in some containers.
        raise BadInput(f"~/.kube/config: {error}; {GIVE_ONE}") from error


# --- Files ----------------------------------------------------------------------------------------


def _content(file: Path) -> MutableJsonObject:
    """What `file` holds; an empty one holds nothing. Raises BadInput."""
    if not is_there(file):
        hint = GIVE_ONE
        if os.pathsep in str(file):
            hint = f"a list of files goes into KUBECONFIG, or {GIVE_ONE}"
        raise BadInput(f"--kubeconfig {file}: not a kubeconfig: there is no such file; {hint}")

    documents = read_documents(read_text(file), f"{file}: not a kubeconfig")
    if not documents:
        return {}

    if len(documents) > 1:
        raise BadInput(
            f"{file}: not a kubeconfig: it holds {len(documents)} documents, expected one"
        )
    (content,) = documents
    if not isinstance(content, dict):
        raise BadInput(
            f"{file}: not a kubeconfig: found {_shown(content)}, expected clusters, users "
            "and contexts"
        )

    # kubectl itself does not need a kind; another one is the object of another program.
    if content.get("kind") not in (None, "", "Config"):
        raise BadInput(
            f"{file}: not a kubeconfig: its kind is {_shown(content['kind'])}, expected 'Config'"
        )
    return content


def _merged(contents: Iterable[tuple[Path, MutableJsonObject]], section: str) -> dict[str, _Entry]:
    """All that the files name, as the first that names it has it."""
    merged: dict[str, _Entry] = {}
    for file, content in contents:
        for name, entry in _section(content, section, file).items():
            # Not merged field by field: a cluster of one file has no authority of another's.
            merged.setdefault(name, entry)
    return merged


def _section(content: MutableJsonObject, section: str, file: Path) -> dict[str, _Entry]:
    items = content.get(section) or []
    if not isinstance(items, list):
        raise BadInput(
            f"{file}: not a kubeconfig: {section}: expected a list, found {_shown(items)}"
        )

    found: dict[str, _Entry] = {}
    for number, item in enumerate(items):
        place = f"{file}: not a kubeconfig: {section}[{number}]"
        name, value = _named_value(item, _SECTIONS[section], place)

        # Between files the first one counts (_merged); within one it is a mistake.
        if name in found:
            raise BadInput(f"{place}: the name {name!r} is there twice in this file")

        found[name] = _Entry(_fields(value, f"{file}: {_SECTIONS[section]} {name!r}"), file)
    return found


def _named_value(item: object, key: str, place: str) -> tuple[str, JsonObject]:
    """The name of an entry, and what it has at `key`: {name: NAME, cluster: {...}}."""
    name = text_at(item, "name")
    if not isinstance(item, dict) or not name:
        raise BadInput(f"{place}: expected an entry with a name, found {_shown(item)}")

    # A user without credentials is written as `user: {}`, or as nothing at all.
    value = item.get(key) or {}
    if not isinstance(value, dict):
        raise BadInput(f"{place}: {key}: expected keys and values, found {_shown(value)}")

    return name, value


# What `kubectl config view` writes in the place of secrets.
_LEFT_OUT = ("DATA+OMITTED", "REDACTED")


def _fields(value: JsonObject, place: str) -> MutableJsonObject:
    """Without what is empty, which means the same as what is left out. Raises BadInput for another
    type."""
    present = {key: found for key, found in value.items() if found is not None}
    for key, found in present.items():
        _check_field(key, found, place)

    return {key: found for key, found in present.items() if found != ""}


def _check_field(key: str, found: object, place: str) -> None:
    if found in _LEFT_OUT:
        raise BadInput(
            f"{place}: {key}: was left out ({found}); save it with: kubectl config view --raw"
        )

    # A token of digits, and a password of them, are numbers to YAML.
    if key in _TEXTS and not isinstance(found, str):
        raise BadInput(
            f"{place}: {key}: expected text, found {type(found).__name__}; put it in quotes"
        )

    if key in _FLAGS and not isinstance(found, bool):
        raise BadInput(f"{place}: {key}: expected true or false, found {_shown(found)}")


def _current(content: MutableJsonObject, file: Path) -> str:
    current = content.get("current-context") or ""
    if not isinstance(current, str):
        raise BadInput(
            f"{file}: not a kubeconfig: current-context: expected a name, found {_shown(current)}"
        )
    return current


# --- A context ------------------------------------------------------------------------------------


def _chosen(where: str, contexts: dict[str, _Entry], wanted: str | None, current: str) -> str:
    if not contexts:
        option = f"--context {wanted}: " if wanted else ""
        raise BadInput(
            f"{option}{where}: not a kubeconfig that leads to a cluster: it has no contexts; "
            f"{GIVE_ONE}"
        )
    existing = _names(contexts)

    # What was named on the command line counts, whatever the file has chosen.
    if wanted:
        if wanted not in contexts:
            raise BadInput(f"--context {wanted}: {where} has no such context; it has: {existing}")
        return wanted

    choose = "choose one: --context NAME, or kubectl config use-context NAME"
    if not current:
        raise BadInput(f"{where}: no current-context is set; it has: {existing}; {choose}")

    if current not in contexts:
        raise BadInput(
            f"{where}: its current-context {current!r} is not one of its contexts; it has: "
            f"{existing}; {choose}"
        )
    return current


def _access(name: str, sections: Mapping[str, dict[str, _Entry]]) -> Access:
    context = sections["contexts"][name]

    cluster = _referred(name, context, sections, "cluster")
    if cluster is None:
        raise BadInput(f"{context.file}: context {name!r} names no cluster; it lacks cluster: NAME")
    cluster_place = f"{cluster.file}: cluster {context.value['cluster']!r}"

    # A context without a user is allowed: the API server then decides what anonymous users may.
    user = _referred(name, context, sections, "user") or _Entry({}, context.file)
    user_name = text_at(context.value, "user")
    user_place = f"{user.file}: user {user_name!r}"

    of_cluster = _resolved(cluster, (_AUTHORITY,), cluster_place)
    of_user = _resolved(user, (_CERTIFICATE, _KEY, "tokenFile"), user_place)

    # Whether https is meant depends on the user's certificate too, so both are resolved before.
    server = _server(of_cluster, of_user, cluster_place)
    _check_proxy(of_cluster, cluster_place)
    of_user = _login(of_user, user, user_place)
    if server.startswith("https:"):
        _check_tls(of_cluster, of_user, cluster_place, user_place)

    return Access(name, context.file, server, user_name, of_cluster, of_user)


def _referred(
    name: str,
    context: _Entry,
    sections: Mapping[str, dict[str, _Entry]],
    what: str,
) -> _Entry | None:
    """The entry that a context names as its `what`, "cluster" or "user"; None where it names
    none."""
    named = context.value.get(what)
    if named is None:
        return None

    there = sections[f"{what}s"]
    if named not in there:
        raise BadInput(
            f"{context.file}: context {name!r} names {what} {named!r}, which is not there; "
            f"{what}s that are: {_names(there)}"
        )
    return there[named]


def _server(cluster: JsonObject, user: JsonObject, place: str) -> str:
    """The address, with the scheme that kubectl would take where none is written."""
    server = text_at(cluster, "server").strip()
    if not server:
        raise BadInput(f"{place}: lacks server: https://ADDRESS:PORT")

    if "://" not in server:
        scheme = "https" if _expects_tls(cluster, user) else "http"
        server = f"{scheme}://{server}"

    _check_address(server, ("http", "https"), f"{place}: server")
    return server.rstrip("/")


def _expects_tls(cluster: JsonObject, user: JsonObject) -> bool:
    """Whether an address without a scheme means https: client-go's rest/url_utils.go takes it where
    an authority, a certificate or "insecure" is set."""
    if any(key.startswith(_CERTIFICATE) for key in user):
        return True

    keys = {_AUTHORITY, f"{_AUTHORITY}-data", "insecure-skip-tls-verify"}
    return not keys.isdisjoint(cluster)


def _check_address(address: str, schemes: tuple[str, ...], place: str) -> None:
    try:
        split = urlsplit(address)
        # Reading the port converts it: it raises for one that is not a number, or over 65535.
        host, port = split.hostname, split.port
        # httpx, which will connect, has rules of its own.
        url = httpx.URL(address)
        if any(character.isspace() for character in address):
            raise ValueError("it has a space")
    except (ValueError, httpx.InvalidURL) as error:
        raise BadInput(
            f"{place}: {_masked(address)} is not an address ({error}); expected https://ADDRESS:PORT"
        ) from error

    if split.scheme.lower() not in schemes:
        expected = ", ".join(f"{scheme}://" for scheme in schemes)
        raise BadInput(f"{place}: {_masked(address)}: expected one of {expected}")

    # Port 0 means "any free one", which can be listened on and not connected to.
    if not host or not url.host or port == 0:
        raise BadInput(
            f"{place}: {_masked(address)} lacks a host or a port; expected https://ADDRESS:PORT"
        )


def _check_proxy(cluster: JsonObject, place: str) -> None:
    if "proxy-url" in cluster:
        _check_address(text_at(cluster, "proxy-url"), _PROXIES, f"{place}: proxy-url")


def _resolved(entry: _Entry, keys: tuple[str, ...], place: str) -> MutableJsonObject:
    """With absolute paths; a relative one begins at the file that has it. Where an entry has both
    the content and the path of a file, the content counts. A key where it does not belong has no
    effect, as for kubectl."""
    elsewhere = {_AUTHORITY, _CERTIFICATE, _KEY} - set(keys)
    value = {
        key: found
        for key, found in entry.value.items()
        if key.removesuffix("-data") not in elsewhere
    }

    for key in keys:
        if f"{key}-data" in value:
            value.pop(key, None)
            # Decoded once here, so that a mistake is found before anything is connected to.
            _decoded(text_at(value, f"{key}-data"), f"{place}: {key}-data")
        elif key in value:
            path = entry.file.absolute().parent / text_at(value, key)
            _check_file(path, f"{place}: {key}")
            value[key] = str(path)
    return value


def _check_file(path: Path, place: str) -> None:
    try:
        # A directory and a file without permission are there, too; only reading shows them.
        with path.open("rb") as stream:
            stream.read(1)
    except (OSError, ValueError) as error:
        # A path with a NUL byte is a ValueError, which has no strerror.
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"{place}: {path} cannot be read ({why})") from error


def _decoded(text: str, place: str) -> bytes:
    """base64 as Go reads it: lines of any length. PEM itself is taken for what it is."""
    if "-----BEGIN" in text:
        return text.encode()

    without_breaks = "".join(text.split())
    try:
        content = base64.b64decode(without_breaks, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"{place}: not base64 ({error})") from error

    if not content:
        raise BadInput(f"{place}: is empty")
    return content


def _data_of(value: JsonObject, key: str) -> bytes | None:
    """What the file of `key` holds, wherever it is written; None where neither is."""
    # The content counts before the path, as in `_resolved`.
    if f"{key}-data" in value:
        return _decoded(text_at(value, f"{key}-data"), key)

    if key in value:
        return Path(text_at(value, key)).read_bytes()
    return None


def _written(value: JsonObject, folder: Path) -> MutableJsonObject:
    """`value` with files instead of their content: kr8s would write such files itself, and leave
    them behind, private keys too."""
    written = {key: value[key] for key in (*_TEXTS, *_FLAGS) if key in value}
    for key in (_AUTHORITY, _CERTIFICATE, _KEY):
        content = written.pop(f"{key}-data", None)
        if content is None:
            continue

        path = folder / key
        # Made before it is written, so that no other user can read a key for a moment.
        path.touch(mode=0o600)
        path.write_bytes(_decoded(str(content), key))
        written[key] = str(path)
    return written


def _check_tls(cluster: JsonObject, user: JsonObject, cluster_place: str, user_place: str) -> None:
    """Loads what will be loaded, so that an error names the file that has it."""
    with tempfile.TemporaryDirectory(prefix="meshwake-") as folder:
        of_cluster = _written(cluster, Path(folder))
        of_user = _written(user, Path(folder))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

        if _AUTHORITY in of_cluster:
            _load_authority(context, text_at(of_cluster, _AUTHORITY), cluster_place)

        # A certificate without its key is refused by kubectl too.
        has_certificate, has_key = _CERTIFICATE in of_user, _KEY in of_user
        if has_certificate and not has_key:
            raise BadInput(f"{user_place}: has {_CERTIFICATE} and lacks {_KEY}")
        if has_key and not has_certificate:
            raise BadInput(f"{user_place}: has {_KEY} and lacks {_CERTIFICATE}")

        if has_certificate:
            _load_certificate(context, of_user, user_place)


def _load_authority(context: ssl.SSLContext, path: str, place: str) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ValueError) as error:
        raise BadInput(f"{place}: {_AUTHORITY}: holds no certificate in PEM ({error})") from error


def _load_certificate(context: ssl.SSLContext, user: JsonObject, place: str) -> None:
    certificate, key = text_at(user, _CERTIFICATE), text_at(user, _KEY)
    try:
        # With a password, a wrong one: else OpenSSL prompts for that of an encrypted key on the
        # terminal.
        context.load_cert_chain(certificate, key, password=lambda: "-")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{place}: {_CERTIFICATE} and {_KEY}: expected a certificate and its key in PEM, not "
            f"encrypted ({error})"
        ) from error


# --- Logging in -----------------------------------------------------------------------------------


def _login(user: MutableJsonObject, entry: _Entry, place: str) -> MutableJsonObject:
    """The user as kr8s can log in as it. Raises BadInput that names what is not supported."""
    impersonates = [key for key in ("as", "as-uid", "as-groups", "as-user-extra") if key in user]
    if impersonates:
        raise BadInput(
            f"{place}: {impersonates[0]}: acting as another user is not supported; use a "
            "context without it"
        )

    if "auth-provider" in user:
        user = _without_provider(user, place)

    if "username" in user or "password" in user:
        raise BadInput(
            f"{place}: username and password: Kubernetes gave this up in 1.19; use a token "
            "or a certificate"
        )

    if "exec" in user:
        user["exec"] = _plugin(user["exec"], entry, f"{place}: exec")

    token_file = text_at(user, "tokenFile")
    if token_file:
        # The file counts where both are given, as for kubectl.
        user.pop("token", None)
        _check_token(read_text(Path(token_file)).strip(), f"{place}: tokenFile {token_file}")

    if "token" in user:
        # Written as a block of YAML (`token: |`) it has a line end.
        token = text_at(user, "token").strip()
        _check_token(token, f"{place}: token")
        user["token"] = token
    return user


def _without_provider(user: JsonObject, place: str) -> MutableJsonObject:
    """An OpenID Connect provider has its last token in the file, which is used as it is. The other
    providers were programs inside kubectl, which dropped them in 1.26."""
    provider = user["auth-provider"]
    # Its name alone is not what kubectl writes; then it is shown as it was found.
    name = provider.get("name") if isinstance(provider, dict) else provider
    token = text_at(provider, "config", "id-token")
    if name != "oidc" or not token:
        raise BadInput(
            f"{place}: auth-provider {_shown(name)} is not supported, and not by kubectl since "
            "1.26; have your cloud's tool write a user with exec (a plugin), or use a token"
        )

    without = {key: value for key, value in user.items() if key != "auth-provider"}
    return without | {"token": token}


def _plugin(plugin: object, entry: _Entry, place: str) -> MutableJsonObject:
    """The login program of a user, with lists where it has none. Raises BadInput where kubectl
    would not run it, or it cannot be run here."""
    command = text_at(plugin, "command")
    if not isinstance(plugin, dict) or not command.strip():
        raise BadInput(f"{place}: lacks command: PROGRAM")

    if plugin.get("apiVersion") not in _EXEC_VERSIONS:
        raise BadInput(
            f"{place}: apiVersion {_shown(plugin.get('apiVersion'))}: expected one of "
            f"{', '.join(_EXEC_VERSIONS)}"
        )

    if plugin.get("interactiveMode") == "Always":
        raise BadInput(
            f"{place}: {command!r} is interactive (interactiveMode: Always), and nothing here "
            "could answer its questions"
        )

    return {
        **plugin,
        "command": _command(command, entry, place),
        "args": _arguments(plugin, place),
        "env": _environment(plugin, place),
    }


def _command(command: str, entry: _Entry, place: str) -> str:
    # exec(2) and its environment are C strings: a NUL would end them.
    if "\0" in command:
        raise BadInput(f"{place}: command: {_shown(command)} is not a program")

    # As with execvp(3): a word without a slash is looked for on PATH. A path begins at the file.
    if os.sep in command:
        return str(entry.file.absolute().parent / command)
    return command


def _arguments(plugin: JsonObject, place: str) -> list[object]:
    arguments = plugin.get("args") or []
    if not isinstance(arguments, list) or not all(map(_is_argument, arguments)):
        raise BadInput(f"{place}: args: expected a list of texts, found {_shown(arguments)}")
    return arguments


def _environment(plugin: JsonObject, place: str) -> list[object]:
    environment = plugin.get("env") or []
    if not isinstance(environment, list) or not all(map(_is_variable, environment)):
        raise BadInput(
            f"{place}: env: expected a list of name and value, found {_shown(environment)}"
        )
    return environment


def _is_argument(thing: object) -> bool:
    return isinstance(thing, str) and "\0" not in thing


def _is_variable(thing: object) -> bool:
    if not isinstance(thing, dict):
        return False

    name, value = thing.get("name"), thing.get("value")
    if not isinstance(name, str) or not isinstance(value, str):
        return False

    # In an environment (environ(7)) the first "=" ends a name, and a NUL the whole string.
    return bool(name) and "=" not in name and "\0" not in name + value


def _check_token(token: str, place: str) -> None:
    """It becomes part of a header. Never shown."""
    if not token:
        raise BadInput(f"{place}: expected one word of ASCII, found nothing")

    # Printable ASCII is what a header may have, and a bearer token has no space (RFC 6750, 2.1).
    is_one_word = token.isascii() and token.isprintable() and " " not in token
    if not is_one_word:
        raise BadInput(f"{place}: expected one word of ASCII, found something else")


# --- Words ----------------------------------------------------------------------------------------


def _names(entries: Mapping[str, _Entry]) -> str:
    names = sorted(entries)
    if not names:
        return "none"

    # Of a company's hundreds of clusters a few show what such a name looks like.
    shown, left_out = names[:_NAMES_SHOWN], names[_NAMES_SHOWN:]
    more = f" and {len(left_out)} more" if left_out else ""
    return ", ".join(shown) + more


def _masked(address: str) -> str:
    """Without name and password, which an address of a proxy may have: http://me:secret@proxy."""
    without_login = re.sub(r"//[^/]*@", "//...@", address)
    return repr(without_login)[:120]


def _shown(value: object) -> str:
    """Only of what is not secret, or too short to be: an entry may hold a token."""
    if isinstance(value, dict):
        keys = ", ".join(sorted(map(str, value)))
        return f"keys {keys[:80] or '(none)'}"

    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)[:80]
