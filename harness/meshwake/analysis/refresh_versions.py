"""clusters/versions.toml renewed from public sources: releases that have no row yet, digests of
images.

    images      the tags of the ztunnel image, with their digests (Docker Hub's API)
    releases    the list of releases of istio/istio (GitHub's API)
    deps        istio.deps at a release's tag: the commit of its ztunnel

A new row is always `unclassified`: what a release does is not guessed from its number. Nothing is
changed in a row but a digest that was missing; one that differs from what is written is told and
left alone: a tag that moved is for a person to look at. Pages that were read stay in the cache for
an hour, so what a broken network cut short goes on.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from packaging.version import Version

from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.versions import UNCLASSIFIED, Release, minor_of, parse_releases

Fetch = Callable[[str], bytes]
FETCH_WITHIN_S = 20.0
PAGES_MAX = 100
CACHED_FOR_S = 3600.0
OLDEST = Version("1.18")
_RELEASE = re.compile(r"^\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_ROW = re.compile(r"^\[\[release\]\]\s*$")


@dataclass(frozen=True)
class Sources:
    """Where to look. `deps` has {version} in it."""

    images: str = "https://hub.docker.com/v2/repositories/istio/ztunnel/tags?page_size=100"
    releases: str = "https://api.github.com/repos/istio/istio/releases?per_page=100"
    deps: str = "https://raw.githubusercontent.com/istio/istio/{version}/istio.deps"


@dataclass(frozen=True)
class Refreshed:
    """What the table would be, how it differs, and what a person should know."""

    old: str
    new: str
    path: str
    notes: tuple[str, ...]

    @property
    def diff(self) -> str:
        """As `diff -u` shows it; "" when nothing is new."""
        old, new = (text.splitlines(keepends=True) for text in (self.old, self.new))
        return "".join(difflib.unified_diff(old, new, self.path, self.path))


def fetch(url: str) -> bytes:
    """What is at `url`. Raises OSError (URLError is one)."""
    if not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise OSError("only https is asked")
    request = urllib.request.Request(  # noqa: S310  as above
        url, headers={"Accept": "application/json", "User-Agent": "meshwake"}
    )
    with urllib.request.urlopen(request, timeout=FETCH_WITHIN_S) as answer:  # noqa: S310  as above
        body: bytes = answer.read()
    return body


@dataclass(frozen=True)
class CachedFetch:
    """`fetch`, but what was read within the last hour is not asked for again. A page of the cache
    that is damaged is fetched anew, and `warn` tells."""

    fetch: Fetch
    directory: Path
    now_s: Callable[[], float]
    warn: Callable[[str], None]

    def __call__(self, url: str) -> bytes:
        """Raises OSError."""
        path = self.directory / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
        kept = self._kept(path, url)
        if kept is not None:
            return kept
        body = self.fetch(url)
        page = {
            "url": url,
            "at_s": self.now_s(),
            "sha256": hashlib.sha256(body).hexdigest(),
            "body": body.decode(),
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(page), encoding="utf-8")
        return body

    def _kept(self, path: Path, url: str) -> bytes | None:
        if not path.is_file():
            return None
        try:
            page = json.loads(path.read_text(encoding="utf-8"))
            body: bytes = page["body"].encode()
            if page["url"] != url or hashlib.sha256(body).hexdigest() != page["sha256"]:
                raise ValueError("its contents are not what was written")
            fresh = 0 <= self.now_s() - float(page["at_s"]) < CACHED_FOR_S
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.warn(f"{path}: a page of the cache is damaged ({error}); it is fetched again")
            return None
        return body if fresh else None


def refresh(text: str, path: str, get: Fetch, sources: Sources) -> Refreshed:
    """The table `text` with what is new. Raises LabUnavailable when a source does not answer,
    BadInput when it answers something else; then nothing has changed."""
    rows = {row.version: row for row in parse_releases(text, path)}
    digests = _image_digests(get, sources.images)
    released = _released(get, sources.releases)
    notes: list[str] = []
    new = [version for version in _wanted(released) if version not in rows]
    without = [version for version in new if version not in digests]
    notes += [
        f"{version}: is released and has no image yet; it is left out until it has one"
        for version in without
    ]
    added = {
        v: _block(v, digests[v], _commit(get, sources.deps, v, notes)) for v in new if v in digests
    }
    lines = list(_with_digests(text.splitlines(keepends=True), rows, digests, notes))
    fresh = _insert(lines, added)
    known_minors = {row.minor for row in rows.values()}
    for minor in dict.fromkeys(minor_of(version) for version in added):
        if minor not in known_minors:
            notes.append(
                f"{minor}: a new minor; look up its Kubernetes range and write a "
                f'[minor."{minor}"] table'
            )
    notes += [
        f"{version}: new and {UNCLASSIFIED}; run: meshwake probe --istio {version}"
        for version in added
    ]
    parse_releases(fresh, path)
    return Refreshed(text, fresh, path, tuple(notes))


def _json(get: Fetch, url: str, source: str) -> Any:
    try:
        body = get(url)
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise LabUnavailable(
            f"{source}: {url} does not answer ({reason}); nothing was changed; run it "
            "again: what was read is kept for "
            "an hour"
        ) from error
    try:
        return json.loads(body)
    except ValueError as error:
        raise BadInput(f"{source}: {url} is no JSON ({error}); nothing was changed") from error


def _image_digests(get: Fetch, url: str) -> dict[str, str]:
    """Tag -> digest of every tag that names a release."""
    digests: dict[str, str] = {}
    following: str | None = url
    for _ in range(PAGES_MAX):
        if following is None:
            return digests
        page = _json(get, following, "images")
        try:
            found = {tag["name"]: tag.get("digest") or "" for tag in page["results"]}
            following = page.get("next")
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"images: {following} is no page of tags ({error!r}); nothing was changed"
            ) from error
        digests |= {
            tag: digest
            for tag, digest in found.items()
            if _RELEASE.match(tag) and _DIGEST.match(digest)
        }
    raise BadInput(f"images: {url} has more than {PAGES_MAX} pages; nothing was changed")


def _released(get: Fetch, url: str) -> list[str]:
    """Every release that is no draft."""
    released: list[str] = []
    for number in range(1, PAGES_MAX):
        page = _json(get, f"{url}{'&' if '?' in url else '?'}page={number}", "releases")
        try:
            names = [str(release["tag_name"]) for release in page if not release["draft"]]
        except (KeyError, TypeError) as error:
            raise BadInput(
                f"releases: {url} is no list of releases ({error!r}); nothing was changed"
            ) from error
        if not page:
            return released
        released += [name for name in names if _RELEASE.match(name) and Version(name) >= OLDEST]
    raise BadInput(f"releases: {url} has more than {PAGES_MAX} pages; nothing was changed")


def _wanted(released: list[str]) -> list[str]:
    """Releases, and those pre-releases that are newer than all of them, oldest first."""
    final = [Version(name) for name in released if not Version(name).is_prerelease]
    newest = max(final, default=OLDEST)
    wanted = {
        name for name in released if not Version(name).is_prerelease or Version(name) > newest
    }
    return sorted(wanted, key=Version)


def _commit(get: Fetch, url: str, version: str, notes: list[str]) -> str:
    """The commit of its ztunnel; "" with a note where istio.deps does not tell."""
    try:
        listed = _json(get, url.format(version=version), "deps")
        commit = str(
            next(entry["lastStableSHA"] for entry in listed if entry["name"] == "ZTUNNEL_REPO_SHA")
        )
    except (StopIteration, KeyError, TypeError, BadInput):
        commit = ""
    if not _COMMIT.match(commit):
        notes.append(
            f"{version}: istio.deps does not tell the commit of its ztunnel; the row has none"
        )
        return ""
    return commit


def _block(version: str, digest: str, commit: str) -> str:
    lines = ["[[release]]", f'version = "{version}"', f'class   = "{UNCLASSIFIED}"']
    lines += [f'commit  = "{commit}"'] if commit else []
    return "\n".join([*lines, f'digest  = "{digest}"', ""])


def _with_digests(
    lines: list[str], rows: Mapping[str, Release], digests: Mapping[str, str], notes: list[str]
) -> Iterator[str]:
    """`lines` with a digest after the last line of each row that had none and whose image has one."""
    for piece in _pieces(lines):
        version = _version_of(piece)
        if version is None or version not in digests:
            yield from piece
            continue
        known = rows[version].digest
        end = max(number for number, line in enumerate(piece, start=1) if line.strip())
        yield from piece[:end]
        if known is None:
            yield f'digest  = "{digests[version]}"\n'
        elif known != digests[version]:
            notes.append(
                f"{version}: its image was {known} and is {digests[version]} now: a tag "
                "moved; left as it is"
            )
        yield from piece[end:]


def _pieces(lines: list[str]) -> list[list[str]]:
    """The file cut before each row; a comment right above a row goes with it."""
    cuts = [0]
    for number, line in enumerate(lines):
        if _ROW.match(line):
            cut = number
            while cut > cuts[-1] and lines[cut - 1].startswith("#"):
                cut -= 1
            cuts.append(cut)
    return [lines[begin:end] for begin, end in pairwise([*cuts, len(lines)])]


def _version_of(piece: list[str]) -> str | None:
    if not any(_ROW.match(line) for line in piece):
        return None
    found = next(
        (match for line in piece if (match := re.match(r'^version\s*=\s*"([^"]+)"', line))), None
    )
    return found[1] if found else None


def _insert(lines: list[str], added: Mapping[str, str]) -> str:
    """Each new row before the first row that is newer."""
    for version, block in added.items():
        pieces = _pieces(lines)
        at = next((n for n, piece in enumerate(pieces) if _is_newer(piece, version)), len(pieces))
        before = "".join(line for piece in pieces[:at] for line in piece).rstrip("\n")
        after = "".join(line for piece in pieces[at:] for line in piece)
        lines = f"{before}\n\n{block}{chr(10) + after if after else ''}".splitlines(keepends=True)
    return "".join(lines)


def _is_newer(piece: list[str], version: str) -> bool:
    own = _version_of(piece)
    return own is not None and Version(own) > Version(version)
