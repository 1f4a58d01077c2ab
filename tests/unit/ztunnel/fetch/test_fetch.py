"""Fetching from a registry on loopback: what comes right, and everything that goes wrong on the
way."""

from __future__ import annotations

import io
import json
import os
import platform
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.ztunnel import binaries
from meshwake.ztunnel.fetch.fetch import Fetched, fetch, source_of

from tests.unit.ztunnel.fetch.images import WANTED, Image, digest_of, image, layer, program
from tests.unit.ztunnel.fetch.server import RegistryServer

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the program in the image is for Linux on x86-64",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, no proxy, and no waiting between tries."""
    monkeypatch.setenv("MESHWAKE_CACHE", str(tmp_path / "cache"))
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("meshwake.ztunnel.fetch.registry._pause_s", lambda attempt: 0.0)
    return tmp_path / "cache"


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    server = RegistryServer()
    server.images["1.28.0"] = image("1.28.0")
    yield server
    server.close()


def get(registry: RegistryServer, version: str = "1.28.0", *, relock: bool = False) -> Fetched:
    return fetch(
        version,
        source_of(registry.address, None, None, relock),
        lambda what: lambda received, of: None,
    )


def left_in(cache: Path) -> list[str]:
    """Every file of the cache."""
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


LOCK = "ztunnel/lock.json"
BINARY = "ztunnel/1.28.0/x86_64/ztunnel"


def test_a_version_is_fetched_checked_and_remembered(registry: RegistryServer, cache: Path) -> None:
    """The binary runs and is found like any other; index, manifest, layer and binary are in the
    lock file."""
    fetched = get(registry)
    found = binaries.find("1.28.0")
    assert found is not None and binaries.identify(found.path).own_version == "1.28.0"
    assert (fetched.was_there, fetched.remark) == (False, "")
    locked = json.loads((cache / LOCK).read_text())["ztunnel"]["1.28.0"]["x86_64"]
    made = registry.images["1.28.0"]
    assert locked["index"] == digest_of(made.index)
    assert (locked["manifest"], locked["layer"]) == (digest_of(made.manifest), made.top_layer)
    assert locked["binary"] == fetched.sha256 == digest_of(program("1.28.0"))
    assert left_in(cache) == sorted([BINARY, LOCK])


def test_only_the_layer_with_the_program_is_received(registry: RegistryServer) -> None:
    """The layers of the operating system below it stay where they are."""
    get(registry)
    blobs = [path for path in registry.requests if "/blobs/" in path]
    assert blobs == [f"/v2/istio/ztunnel/blobs/{registry.images['1.28.0'].top_layer}"]


def test_what_is_there_is_not_downloaded_again(registry: RegistryServer) -> None:
    """There is not one request; a binary that differs from the lock file is fetched again."""
    get(registry)
    registry.requests.clear()
    assert get(registry).was_there
    assert not registry.requests
    binaries.place_of("1.28.0").write_bytes(b"something else")
    assert not get(registry).was_there
    assert binaries.place_of("1.28.0").read_bytes() == program("1.28.0")


def test_a_token_is_fetched_where_the_registry_says(registry: RegistryServer) -> None:
    """401 with a challenge: an anonymous token for this repository, requested once."""
    registry.wants_token = True
    get(registry)
    assert registry.requests["/token"] == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_transfer_goes_on_where_it_ended(registry: RegistryServer, ranges: bool) -> None:
    """Twice cut, then whole; from the beginning where the registry knows no ranges."""
    registry.cuts, registry.ranges = 2, ranges
    get(registry)
    size = len(registry.images["1.28.0"].blobs[registry.images["1.28.0"].top_layer])
    half = size // 2
    assert registry.ranges_requested[0] == f"bytes={half}-"
    assert len(registry.ranges_requested) == 2


def test_what_was_received_before_a_failure_is_not_received_again(
    registry: RegistryServer, cache: Path
) -> None:
    """Cut too often: a refusal that says so; the next call goes on."""
    registry.cuts = 5
    with pytest.raises(LabUnavailable, match=r"cut 5 times.*try again"):
        get(registry)
    assert [name for name in left_in(cache) if name.endswith(".partial")]
    registry.ranges_requested.clear()
    get(registry)
    assert len(registry.ranges_requested) == 1
    assert left_in(cache) == sorted([BINARY, LOCK])


def test_a_busy_registry_is_retried(registry: RegistryServer) -> None:
    """429 with Retry-After."""
    registry.busy = 3
    get(registry)


@pytest.mark.parametrize(
    ("status", "error", "why"),
    [
        (404, BadInput, "no such image"),
        (401, LabUnavailable, r"wants a login \(401\).*--from"),
        (403, LabUnavailable, r"wants a login \(403\)"),
        (429, LabUnavailable, "answered 429 5 times"),
        (503, LabUnavailable, "answered 503 5 times"),
        (418, LabUnavailable, "answered 418"),
    ],
)
def test_refusals_are_named(
    registry: RegistryServer, cache: Path, status: int, error: type[HarnessError], why: str
) -> None:
    """Each with the image and what to do; nothing is left."""
    registry.refuses = status
    with pytest.raises(error, match=f"istio/ztunnel:1.28.0: .*{why}"):
        get(registry)
    assert left_in(cache) == []


@pytest.mark.parametrize("part", ["manifest", "layer"])
def test_a_wrong_digest_is_refused(registry: RegistryServer, cache: Path, part: str) -> None:
    """What is not what its digest names is not taken, and not kept."""
    made = registry.images["1.28.0"]
    registry.changes = made.top_layer if part == "layer" else digest_of(made.manifest)
    with pytest.raises(LabUnavailable, match="has digest sha256:.*expected was sha256:"):
        get(registry)
    assert left_in(cache) == []


def test_a_release_that_changes_is_refused_until_it_is_wanted(registry: RegistryServer) -> None:
    """The same tag names something else: not without the option."""
    get(registry)
    registry.images["1.28.0"] = image("1.28.0", layer({WANTED: program("1.28.0") + b"more"}))
    binaries.place_of("1.28.0").unlink()
    with pytest.raises(LabUnavailable, match=r"lock file says.*--relock"):
        get(registry)
    assert not binaries.place_of("1.28.0").exists()
    get(registry, relock=True)
    assert binaries.place_of("1.28.0").read_bytes().endswith(b"more")


@pytest.mark.parametrize("name", ["../../../escaped", "/escaped", "usr/../../escaped"])
def test_a_layer_that_writes_outside_is_refused(
    registry: RegistryServer, cache: Path, tmp_path: Path, name: str
) -> None:
    """Nothing of it is written anywhere."""
    registry.images["1.28.0"] = image("1.28.0", layer({WANTED: program("1.28.0"), name: b"evil"}))
    with pytest.raises(LabUnavailable, match="outside of the image"):
        get(registry)
    assert left_in(cache) == []
    assert not list(tmp_path.rglob("escaped")) and not Path("/escaped").exists()


def test_a_link_in_the_place_of_the_program_is_refused(
    registry: RegistryServer, cache: Path
) -> None:
    """Not followed, not copied."""
    registry.images["1.28.0"] = image("1.28.0", layer({}, links={WANTED: "/etc/passwd"}))
    with pytest.raises(LabUnavailable, match="is not an ordinary file"):
        get(registry)
    assert left_in(cache) == []


def test_an_image_without_a_ztunnel_is_named(registry: RegistryServer) -> None:
    """Every layer was looked through."""
    registry.images["1.28.0"] = image("1.28.0", layer({"usr/local/bin/pilot-agent": b"x"}))
    with pytest.raises(LabUnavailable, match="has no usr/local/bin/ztunnel"):
        get(registry)


def test_a_program_that_is_not_a_ztunnel_is_not_kept(registry: RegistryServer, cache: Path) -> None:
    """Its version is read before it gets its place."""
    registry.images["1.28.0"] = image("1.28.0", layer({WANTED: b"#!/bin/sh\n"}))
    with pytest.raises(BadInput, match="not a Linux program"):
        get(registry)
    assert left_in(cache) == []


def test_a_version_of_its_own_is_a_remark(registry: RegistryServer) -> None:
    """A tag that holds another release is taken, and reported."""
    registry.images["1.28.0"] = image("1.27.9")
    assert get(registry).remark == "it calls itself 1.27.9"


def test_without_a_network_the_refusal_is_immediate(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port without a listener: no second try, and the way out is named."""

    def no_second_try(attempt: int) -> float:
        pytest.fail(f"waits after try {attempt}")

    monkeypatch.setattr("meshwake.ztunnel.fetch.registry._pause_s", no_second_try)
    with pytest.raises(LabUnavailable, match=r"127\.0\.0\.1 cannot be reached.*--from FILE"):
        fetch(
            "1.28.0",
            source_of("http://127.0.0.1:9", None, None, False),
            lambda what: lambda received, of: None,
        )
    assert left_in(cache) == []


def test_a_proxy_of_the_environment_is_used(
    registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry plays a proxy here: it is requested by the whole address."""
    monkeypatch.setenv("http_proxy", registry.address)
    fetch(
        "1.28.0",
        source_of("http://registry.test", None, None, False),
        lambda what: lambda received, of: None,
    )
    assert registry.requests["/v2/istio/ztunnel/manifests/1.28.0"] == 1


# --- Saved images ---------------------------------------------------------------------------------


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def oci(made: Image) -> dict[str, bytes]:
    blobs = {f"blobs/{digest.replace(':', '/')}": content for digest, content in made.blobs.items()}
    return {"oci-layout": b"{}", "index.json": made.index, **blobs}


def from_file(path: Path, version: str = "1.28.0") -> Fetched:
    return fetch(
        version, source_of(None, None, path, False), lambda what: lambda received, of: None
    )


def docker_save(made: Image) -> dict[str, bytes]:
    names = [f"{place}/layer.tar" for place in range(2)]
    layers = [made.blobs[each["digest"]] for each in json.loads(made.manifest)["layers"]]
    return {
        "manifest.json": json.dumps([{"Layers": names}]).encode(),
        **dict(zip(names, layers, strict=True)),
    }


@pytest.mark.parametrize("kind", ["docker save", "OCI archive", "binary"])
def test_a_file_brings_it_without_a_network(tmp_path: Path, kind: str) -> None:
    """What docker saves, an OCI archive of several machines, the bare program."""
    path = tmp_path / "saved"
    if kind == "binary":
        path.write_bytes(program("1.28.0"))
    else:
        tar(path, oci(image("1.28.0")) if kind == "OCI archive" else docker_save(image("1.28.0")))
    assert from_file(path).sha256 == digest_of(program("1.28.0"))


def test_an_oci_archive_with_a_wrong_layer_is_refused(tmp_path: Path, cache: Path) -> None:
    """Digests are compared there too."""
    made = image("1.28.0")
    top = made.top_layer
    made.blobs[top] = made.blobs[top][:-1] + b"?"
    with pytest.raises(LabUnavailable, match="expected was sha256:"):
        from_file(tar(tmp_path / "saved", oci(made)))
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"some text", "neither a saved image"),
        ({"readme": b"x"}, "no saved image"),
        ({"manifest.json": b'[{"Layers": ["gone/layer.tar"]}]'}, "which is not in it"),
        ({"manifest.json": b"[{}, {}]"}, "holds 2 images"),
        ({"index.json": b'{"manifests": []}'}, "holds 0 images"),
    ],
)
def test_files_that_are_something_else_are_named(tmp_path: Path, content: Any, why: str) -> None:
    """What was found, what was expected."""
    path = tmp_path / "saved"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        tar(path, content)
    with pytest.raises(BadInput, match=f"--from .*{why}"):
        from_file(path)


# --- The command ----------------------------------------------------------------------------------


def test_the_command_says_what_it_has_done(
    registry: RegistryServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Version, digest and place; with --json for programs; 3 for a version that is none."""
    assert run_command(["fetch", "1.28.0", "--registry", registry.address]) == 0
    out = capsys.readouterr().out
    assert digest_of(program("1.28.0")) in out and str(binaries.place_of("1.28.0")) in out
    assert run_command(["fetch", "1.28.0", "--registry", registry.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["was_there"] is True
    assert run_command(["fetch", "../evil", "--registry", registry.address]) == 3
    assert run_command(["fetch", "1.28.0", "--registry", registry.address, "--from", "x"]) == 3


def test_mirrors_keep_the_official_name_below_their_prefix() -> None:
    """HOST/PREFIX/istio/ztunnel; another registry names its own."""
    assert source_of(None, "mirror.test/hub", None, False).repository == "hub/istio/ztunnel"
    assert source_of("registry.test/our/ztunnel", None, None, False).repository == "our/ztunnel"
    assert source_of(None, None, None, False).registry == "docker.io"


# --- A registry that others made ------------------------------------------------------------------


def test_from_a_real_registry_server(tmp_path: Path) -> None:
    """Debian's docker-registry, where it is installed: the image is pushed to it, and fetched from
    it."""
    from tests.unit.ztunnel.fetch.real import RealRegistry, program_of_registry

    if program_of_registry() is None:
        pytest.skip("no docker-registry on PATH (Debian: apt install docker-registry)")
    with RealRegistry(tmp_path / "registry") as server:
        server.push(image("1.28.0"), "1.28.0")
        source = source_of(server.address, None, None, False)
        fetched = fetch("1.28.0", source, lambda what: lambda received, of: None)
        assert fetched.sha256 == digest_of(program("1.28.0"))
        with pytest.raises(BadInput, match="no such image"):
            fetch("1.28.1", source, lambda what: lambda received, of: None)
    assert os.access(fetched.path, os.X_OK)


def test_a_cache_that_cannot_be_written(registry: RegistryServer, cache: Path) -> None:
    """Is the user's to mend, by the variable that names another."""
    cache.write_text("a file, where the directory should be")
    with pytest.raises(BadInput, match=r"cannot be written \(.*\); set MESHWAKE_CACHE"):
        get(registry)
