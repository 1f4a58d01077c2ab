from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from meshwake.analysis.refresh_versions import CachedFetch, Sources, fetch, refresh
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode, LabUnavailable
from meshwake.core.versions import VERSIONS_FILE, parse_releases

from tests.support.http_server import Request, serving

TABLE = """\
# What is written here stays.
image = "docker.io/istio/ztunnel"

[minor."1.30"]
kubernetes = "1.32-1.36"

[[release]]
version = "1.30.0"
class   = "E"
digest  = "sha256:{a}"

# A remark about the next one.
[[release]]
version = "1.30.2"
class   = "E"
""".replace("{a}", "a" * 64)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tag(name: str, letter: str = "b") -> dict[str, Any]:
    return {"name": name, "digest": f"sha256:{letter * 64}"}


def released(*names: str) -> list[dict[str, Any]]:
    return [{"tag_name": name, "draft": False} for name in names]


class Public:
    """What a public source is for a test: pages by path, on loopback; what is not there breaks
    off."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.requests: list[str] = []
        self.pages: dict[str, Any] = {
            "/tags": {
                "results": [tag("1.30.0", "a"), tag("latest"), tag("1.30.1")],
                "next": f"{self.base}/tags2",
            },
            "/tags2": {
                "results": [tag("1.30.2"), tag("1.31.0", "c"), tag("1.32.0-rc.1")],
                "next": None,
            },
            "/releases?page=1": released("1.30.0", "1.30.1", "1.30.2", "1.31.0-rc.0", "1.17.9"),
            "/releases?page=2": released("1.31.0", "1.32.0-rc.1", "1.31.1", "client-go-1"),
            "/releases?page=3": [],
        }
        for version in ("1.30.1", "1.31.0", "1.32.0-rc.1"):
            self.pages[f"/deps/{version}"] = [{"name": "ZTUNNEL_REPO_SHA", "lastStableSHA": COMMIT}]

    @property
    def sources(self) -> Sources:
        return Sources(
            f"{self.base}/tags", f"{self.base}/releases", f"{self.base}/deps/{{version}}"
        )


@pytest.fixture
def public() -> Iterator[Public]:
    def answer(request: Request) -> None:
        source.requests.append(request.path)
        if request.path not in source.pages:
            request.connection.close()
            return
        request.reply(200, json.dumps(source.pages[request.path]).encode())

    with serving(answer) as address:
        source = Public(address)
        yield source


def test_new_releases_come_in_unclassified(public: Public) -> None:
    """In their place, with digest and commit; no class is guessed, and every other line stays."""
    renewed = refresh(TABLE, "t.toml", fetch, public.sources)
    rows = {row.version: row for row in parse_releases(renewed.new, "t.toml")}
    assert list(rows) == ["1.30.0", "1.30.1", "1.30.2", "1.31.0", "1.32.0-rc.1"]
    assert {rows[v].behaviour_class for v in ("1.30.1", "1.31.0", "1.32.0-rc.1")} == {
        "unclassified"
    }
    assert (rows["1.31.0"].digest, rows["1.31.0"].commit) == (f"sha256:{'c' * 64}", COMMIT)
    assert rows["1.30.2"].digest == f"sha256:{'b' * 64}", "a digest that was missing"
    assert [line for line in renewed.diff.splitlines()[2:] if line.startswith("-")] == []
    assert '# A remark about the next one.\n[[release]]\nversion = "1.30.2"' in renewed.new
    assert "1.31.1: is released and has no image yet" in " ".join(renewed.notes)
    assert 'write a [minor."1.31"] table' in " ".join(renewed.notes)


def test_renewing_twice_changes_nothing(public: Public) -> None:
    """What was written is what is known."""
    once = refresh(TABLE, "t.toml", fetch, public.sources)
    assert refresh(once.new, "t.toml", fetch, public.sources).diff == ""


def test_a_tag_that_moved_is_reported_and_left(public: Public) -> None:
    """A person must look: what was tested is not what is fetched now."""
    public.pages["/tags"]["results"][0] = tag("1.30.0", "d")
    renewed = refresh(TABLE, "t.toml", fetch, public.sources)
    assert f"sha256:{'a' * 64}" in renewed.new
    assert any("1.30.0" in note and "a tag moved" in note for note in renewed.notes)


def test_a_network_that_is_gone_in_the_middle(public: Public, tmp_path: Path) -> None:
    """Nothing is changed, it is reported plainly, and the next time goes on where this one
    ended."""
    messages = list[str]()
    get = CachedFetch(fetch, tmp_path, lambda: 1000.0, messages.append)
    page = public.pages.pop("/releases?page=2")
    with pytest.raises(
        LabUnavailable,
        match=r"releases: .*page=2 does not answer .* nothing was changed; run it again",
    ):
        refresh(TABLE, "t.toml", get, public.sources)
    public.pages["/releases?page=2"] = page
    public.requests.clear()
    refresh(TABLE, "t.toml", get, public.sources)
    assert not {"/tags", "/tags2", "/releases?page=1"} & set(public.requests)
    for path in tmp_path.iterdir():
        path.write_text(path.read_text()[:-9])
    assert refresh(TABLE, "t.toml", get, public.sources).new
    assert "is damaged" in messages[0]


def test_a_source_that_says_something_else(public: Public) -> None:
    """An error page, or another format: refused by name."""
    public.pages["/tags"] = {"message": "rate limited"}
    with pytest.raises(BadInput, match="images: .* is not a page of tags"):
        refresh(TABLE, "t.toml", fetch, public.sources)
    with pytest.raises(BadInput, match="is not JSON"):
        refresh(TABLE, "t.toml", lambda url: b"<html>", public.sources)


def test_a_commit_that_is_not_published_is_left_out(public: Public) -> None:
    """The row comes in without it, and it is reported."""
    public.pages["/deps/1.31.0"] = [{"name": "PROXY_REPO_SHA", "lastStableSHA": COMMIT}]
    renewed = refresh(TABLE, "t.toml", fetch, public.sources)
    assert (
        next(row for row in parse_releases(renewed.new, "t") if row.version == "1.31.0").commit
        == ""
    )
    assert any("1.31.0: istio.deps does not have" in note for note in renewed.notes)


def test_the_command(
    public: Public, tmp_path: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A difference to look at; --write writes it."""
    table = tmp_path / "t.toml"
    table.write_text(TABLE)
    where = public.sources
    words = ["versions", "refresh", "--table", str(table)]
    words += ["--images", where.images, "--releases", where.releases, "--deps", where.deps]
    assert run_command(words) == 0
    out, err = capsys.readouterr()
    assert '+version = "1.31.0"' in out
    assert "nothing was written" in err
    assert table.read_text() == TABLE
    assert run_command([*words, "--write"]) == 0
    assert 'version = "1.31.0"' in table.read_text()
    assert run_command([*words[:3], "nowhere.toml"]) == ExitCode.BAD_INPUT


def test_the_table_of_the_repository_can_be_renewed(public: Public) -> None:
    """Its rows are read as a refresh reads them: each gets its digest, and no other line
    changes."""
    text = VERSIONS_FILE.read_text(encoding="utf-8")
    rows = parse_releases(text, "")
    public.pages["/tags"] = {"results": [tag(row.version) for row in rows], "next": None}
    public.pages["/releases?page=1"] = released(*(row.version for row in rows))
    public.pages["/releases?page=2"] = []
    renewed = refresh(text, "", fetch, public.sources)
    assert {row.digest for row in parse_releases(renewed.new, "")} == {f"sha256:{'b' * 64}"}
    assert (
        "".join(
            line for line in renewed.new.splitlines(keepends=True) if not line.startswith("digest ")
        )
        == text
    )
