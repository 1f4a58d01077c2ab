from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.versions import find
from meshwake.ztunnel import binaries

COMMIT = find("1.28.0").commit
BUILD = (
    'version.BuildInfo{{Version:"x", GitRevision:"{}", RustVersion:"1.90", BuildStatus:"{}", '
    'IstioVersion:"{}"}}\n'
)

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only Linux starts Linux programs"
)


def program(directory: Path, name: str) -> Path:
    """A copy of a real program of this machine."""
    found = shutil.which(name)
    assert found is not None
    return Path(shutil.copy(Path(found).resolve(), directory / "ztunnel"))


def put(cache: Path, version: str) -> Path:
    """An empty file where the cache looks for `version`."""
    path = cache / "ztunnel" / version / binaries.architecture() / "ztunnel"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_an_empty_cache_has_nothing(empty_cache: Path) -> None:
    """No directory, no binary, no error."""
    assert empty_cache == binaries.cache_dir()
    assert binaries.cached() == ()
    assert binaries.find("1.28.0") is None


def test_the_cache_is_listed_oldest_first(empty_cache: Path) -> None:
    """By version, not by name: 1.9 comes before 1.10; what is not a version is left alone."""
    for version in ("1.28.0", "1.9.0", "1.31.0-rc.0", "trash"):
        put(empty_cache, version)
    assert [binary.version for binary in binaries.cached()] == ["1.9.0", "1.28.0", "1.31.0-rc.0"]


def test_a_version_is_found_however_it_is_written(empty_cache: Path) -> None:
    """1.31.0rc0 and 1.31.0-rc.0 are one release."""
    path = put(empty_cache, "1.31.0-rc.0")
    found = binaries.find("1.31.0rc0")
    assert found is not None
    assert found.path == path == binaries.place_of("1.31.0-rc.0")


def test_binaries_of_other_machines_are_not_listed(empty_cache: Path) -> None:
    """A cache that is shared between machines holds several."""
    other = empty_cache / "ztunnel" / "1.28.0" / "sparc" / "ztunnel"
    other.parent.mkdir(parents=True)
    other.touch()
    assert binaries.cached() == ()


@linux
@pytest.mark.parametrize(
    ("says", "own_version"),
    [
        (BUILD.format(COMMIT, "Clean", "unknown"), "1.28.0"),
        (BUILD.format(COMMIT, "Clean", "1.18.0"), "1.28.0"),
        (BUILD.format(COMMIT, "Modified", "1.28.0"), None),
        (BUILD.format(f"{COMMIT}-dirty", "Modified", "1.28.0"), None),
        (BUILD.format("unknown", "Clean", "1.28.0"), None),
    ],
)
def test_a_binary_names_itself_if_it_can(
    says: str, own_version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commit that it was built from, unchanged. IstioVersion is what the environment says at
    the moment."""
    path = program(tmp_path, "echo")
    monkeypatch.setattr(binaries, "_ask_version", lambda _: says)
    identity = binaries.identify(path)
    assert identity.own_version == own_version
    assert identity.build_info == says.strip()
    assert len(identity.sha256) == 64


@linux
def test_another_program_is_not_a_ztunnel(tmp_path: Path) -> None:
    """`echo version` answers, but not as a ztunnel does."""
    with pytest.raises(BadInput, match="is not a ztunnel: 'ztunnel version' printed 'version'"):
        binaries.identify(program(tmp_path, "echo"))


@linux
def test_a_program_that_fails_is_named_with_its_last_words(tmp_path: Path) -> None:
    """Exit code and stderr are in the message."""
    with pytest.raises(LabUnavailable, match=r"ended with 1: .*version"):
        binaries.identify(program(tmp_path, "sleep"))


@linux
def test_a_program_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has a bound and says what it waited for."""

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("ztunnel", binaries.IDENTIFY_WITHIN_S)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(LabUnavailable, match="did not end within 10 s"):
        binaries.identify(program(tmp_path, "echo"))


@linux
def test_not_executable(tmp_path: Path) -> None:
    """The message is the command that mends it."""
    path = program(tmp_path, "echo")
    path.chmod(0o644)
    with pytest.raises(BadInput, match="run: chmod \\+x"):
        binaries.identify(path)


def test_a_binary_for_another_machine(tmp_path: Path) -> None:
    """Reported before it is started."""
    path = tmp_path / "ztunnel"
    path.write_bytes(b"\x7fELF\x02\x01" + bytes(12) + (0xF3).to_bytes(2, "little"))
    with pytest.raises(LabUnavailable, match="is made for machine 243"):
        binaries.identify(path)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF"])
def test_no_linux_program(content: bytes, tmp_path: Path) -> None:
    """A script, an archive, half a download."""
    path = tmp_path / "ztunnel"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is not a Linux program"):
        binaries.identify(path)


def test_missing(tmp_path: Path) -> None:
    """The path that was given is in the message."""
    with pytest.raises(BadInput, match=r"--ztunnel .*nowhere: cannot be read"):
        binaries.identify(tmp_path / "nowhere")


def test_a_binary_of_the_cache_that_cannot_be_started(empty_cache: Path) -> None:
    """Is a reason not to use it, with what to do, and not a failure of the first run."""
    place = binaries.place_of("1.28.0")
    place.parent.mkdir(parents=True)
    whole = Path(sys.executable).read_bytes()
    place.write_bytes(whole)
    place.chmod(0o644)
    reason = binaries.why_not_started(place)
    assert reason == f"{place}: is not executable; run: chmod +x {place}"
    place.chmod(0o755)
    assert binaries.why_not_started(place) is None
    for length in (20, 63, 64, len(whole) // 2, len(whole) - 1):
        place.write_bytes(whole[:length])
        reason = binaries.why_not_started(place)
        assert reason and f"{place}: is cut off: it has {length} bytes" in reason
    place.write_text("#!/bin/sh\n")
    assert "is not a Linux program" in (binaries.why_not_started(place) or "")


def test_a_binary_that_no_run_would_find(empty_cache: Path) -> None:
    """Under no version, or without the directory of an architecture."""
    wrong = ("ztunnel", "ztunnel/ztunnel", "ztunnel/mine/x86_64/ztunnel", "ztunnel/1.28.0/ztunnel")
    for word in wrong:
        base = empty_cache / word.replace("/", "-")
        (base / word).parent.mkdir(parents=True)
        (base / word).touch()
    right = [binaries.place_of("1.28.0"), empty_cache / "ztunnel/1.28.0/aarch64/ztunnel"]
    for place in right:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    found = {str(path.relative_to(empty_cache)) for path in binaries.misplaced()}
    assert found == {f"{word.replace('/', '-')}/{word}" for word in wrong}
