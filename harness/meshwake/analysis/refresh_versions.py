"""Adds new releases and missing image digests to clusters/versions.toml, from public sources.

    images      the tags of the ztunnel image, with their digests (Docker Hub's API)
    releases    the list of releases of istio/istio (GitHub's API)
    deps        istio.deps at a release's tag: the commit of its ztunnel

A new row is always `unclassified`: what a release does is not guessed from its number. An existing
row only gets a digest that it lacks; a digest that differs is reported and left as it is, since a
tag that moved is for a person to look at. Pages are cached for an hour, so a run that the network
interrupted continues where it was.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from packaging.version import Version
from tomlkit.items import AoT

from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.toml_text import aligned_table, append_aligned, give_trailing, take_trailing
from meshwake.core.versions import UNCLASSIFIED, Release, minor_of, parse_releases

Fetch = Callable[[str], bytes]
FETCH_WITHIN_S = 20.0
# Each page names the next one; a chain of links that leads back to itself must end.
PAGES_MAX = 100
CACHED_FOR_S = 3600.0
OLDEST = Version("1.18")
_RELEASE = re.compile(r"^\d+\.\d+\.\d+(-(alpha|beta|rc)\.\d+)?$")
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")


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
        old = self.old.splitlines(keepends=True)
        new = self.new.splitlines(keepends=True)
        return "".join(difflib.unified_diff(old, new, self.path, self.path))


def fetch(url: str) -> bytes:
    """What is at `url`. Raises OSError (URLError is one)."""
    # A test has its server on loopback, without a certificate.
    if not url.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise OSError("only https addresses are fetched")

    request = urllib.request.Request(  # noqa: S310  as above
        url,
        headers={
            "Accept": "application/json",
            # GitHub's API refuses requests without one.
            "User-Agent": "meshwake",
        },
    )
    with urllib.request.urlopen(request, timeout=FETCH_WITHIN_S) as answer:  # noqa: S310  as above
        body: bytes = answer.read()
    return body


@dataclass(frozen=True)
class CachedFetch:
    """`fetch` with a cache of an hour. A page of the cache that is damaged is fetched again, after
    a warning by `warn`."""

    fetch: Fetch
    directory: Path
    now_s: Callable[[], float]
    warn: Callable[[str], None]

    def __call__(self, url: str) -> bytes:
        """Raises OSError."""
        # The name of an address as a file: any length, and any character, is allowed in it.
        name = hashlib.sha256(url.encode()).hexdigest()[:32]
        path = self.directory / f"{name}.json"
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
        """The page of the cache, if there is one that is whole and fresh."""
        if not path.is_file():
            return None

        try:
            page = json.loads(path.read_text(encoding="utf-8"))
            body: bytes = page["body"].encode()
            age_s = self.now_s() - float(page["at_s"])
            is_whole = hashlib.sha256(body).hexdigest() == page["sha256"]
            if page["url"] != url or not is_whole:
                raise ValueError("its contents are not what was written")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            self.warn(f"{path}: a page of the cache is damaged ({error}); it is fetched again")
            return None

        # From the future too it is not fresh: this machine's clock was set back.
        return body if 0 <= age_s < CACHED_FOR_S else None


def refresh(text: str, path: str, get: Fetch, sources: Sources) -> Refreshed:
    """The table `text` with what is new. Raises LabUnavailable when a source does not answer,
    BadInput when it answers something else; then nothing has changed."""
    rows = {row.version: row for row in parse_releases(text, path)}
    digests = _image_digests(get, sources.images)

    new = [version for version in _wanted(_released(get, sources.releases)) if version not in rows]
    notes = [
        f"{version}: is released and has no image yet; it is left out until it has one"
        for version in new
        if version not in digests
    ]
    added = [version for version in new if version in digests]
    commits = {version: _commit(get, sources.deps, version, notes) for version in added}

    # With tomlkit, which keeps comments and the order of what is there.
    document = tomlkit.parse(text)
    table = document["release"]
    if not isinstance(table, AoT):
        raise BadInput(f"{path}: release is not a list of tables [[release]]; nothing was changed")

    notes += _add_digests(table, rows, digests)
    for version in added:
        _insert_row(table, version, digests[version], commits[version])
    notes += _notes_on_new(added, rows.values())

    fresh = tomlkit.dumps(document)
    # Read back before it is written: a table that cannot be read would stop every command.
    parse_releases(fresh, path)
    return Refreshed(text, fresh, path, tuple(notes))


def _notes_on_new(added: Sequence[str], rows: Iterable[Release]) -> list[str]:
    """What a person has to do about releases that were added."""
    known_minors = {row.minor for row in rows}

    # Each minor once, however many of its releases are new.
    minors = dict.fromkeys(map(minor_of, added))

    about_minors = [
        f'{minor}: a new minor; look up its Kubernetes range and write a [minor."{minor}"] table'
        for minor in minors
        if minor not in known_minors
    ]
    about_releases = [
        f"{version}: new and {UNCLASSIFIED}; run: meshwake probe --istio {version}"
        for version in added
    ]
    return [*about_minors, *about_releases]


def _json(get: Fetch, url: str, source: str) -> Any:
    """The JSON at `url`; `source` names it for messages."""
    try:
        body = get(url)
    except OSError as error:
        # urllib wraps what happened, and its own text is "<urlopen error ...>".
        reason = getattr(error, "reason", None) or error
        raise LabUnavailable(
            f"{source}: {url} does not answer ({reason}); nothing was changed; run it "
            "again: what was read is kept for "
            "an hour"
        ) from error

    try:
        return json.loads(body)
    except ValueError as error:
        raise BadInput(f"{source}: {url} is not JSON ({error}); nothing was changed") from error


def _image_digests(get: Fetch, url: str) -> dict[str, str]:
    """Tag -> digest of every tag that names a release."""
    digests: dict[str, str] = {}
    following: str | None = url
    for _ in range(PAGES_MAX):
        if following is None:
            return digests

        page = _json(get, following, "images")
        try:
            # A tag without an image has none, or null.
            found = {tag["name"]: tag.get("digest") or "" for tag in page["results"]}
            following = page.get("next")
        except (KeyError, TypeError, AttributeError) as error:
            raise BadInput(
                f"images: {following} is not a page of tags ({error!r}); nothing was changed"
            ) from error

        # Among the others are "latest", "1.30" and those of flavours, such as 1.30.0-distroless.
        digests |= {tag: digest for tag, digest in found.items() if _is_release(tag, digest)}

    raise BadInput(f"images: {url} has more than {PAGES_MAX} pages; nothing was changed")


def _is_release(tag: str, digest: str) -> bool:
    return bool(_RELEASE.match(tag)) and bool(_DIGEST.match(digest))


def _released(get: Fetch, url: str) -> list[str]:
    """Every release that is not a draft."""
    released: list[str] = []
    separator = "&" if "?" in url else "?"
    for number in range(1, PAGES_MAX):
        page = _json(get, f"{url}{separator}page={number}", "releases")
        # GitHub answers with an empty list behind the last page.
        if not page:
            return released

        try:
            names = [str(release["tag_name"]) for release in page if not release["draft"]]
        except (KeyError, TypeError) as error:
            raise BadInput(
                f"releases: {url} is not a list of releases ({error!r}); nothing was changed"
            ) from error
        released += filter(_is_wanted_release, names)

    raise BadInput(f"releases: {url} has more than {PAGES_MAX} pages; nothing was changed")


def _is_wanted_release(name: str) -> bool:
    # The pattern first: other tags are no versions that could be compared.
    return bool(_RELEASE.match(name)) and Version(name) >= OLDEST


def _wanted(released: list[str]) -> list[str]:
    """Releases, and those pre-releases that are newer than all of them, oldest first."""
    by_name = {name: Version(name) for name in released}
    final = [version for version in by_name.values() if not version.is_prerelease]
    newest = max(final, default=OLDEST)
    wanted = []
    for name, version in by_name.items():
        # An old candidate is of no interest once its release is out.
        if not version.is_prerelease or version > newest:
            wanted.append(name)
    return sorted(wanted, key=Version)


def _commit(get: Fetch, url: str, version: str, notes: list[str]) -> str:
    """The commit of its ztunnel; "" with a note where istio.deps does not have it."""
    commit = ""
    try:
        for entry in _json(get, url.format(version=version), "deps"):
            if entry["name"] == "ZTUNNEL_REPO_SHA":
                commit = str(entry["lastStableSHA"])
                break
    except (KeyError, TypeError, BadInput):
        # Not worth a failure: a row without a commit can be used.
        commit = ""

    if not _COMMIT.match(commit):
        notes.append(
            f"{version}: istio.deps does not have the commit of its ztunnel; the row has none"
        )
        return ""
    return commit


def _add_digests(table: AoT, rows: Mapping[str, Release], digests: Mapping[str, str]) -> list[str]:
    """Adds the digest to each row that had none and whose image has one; notes on those that
    differ."""
    notes = []
    for row in table:
        version = str(row["version"])
        known, found = rows[version].digest, digests.get(version)
        if found is None or found == known:
            continue

        if known is not None:
            notes.append(
                f"{version}: its image was {known} and is {found} now: a tag moved; left as it is"
            )
            continue

        # What follows the last key of a row, a blank line and comments, belongs behind the new one.
        trailing = take_trailing(row)
        append_aligned(row, "digest", found)
        give_trailing(row, trailing)
    return notes


def _insert_row(table: AoT, version: str, digest: str, commit: str) -> None:
    """Puts a new row before the first that is newer."""
    values = {"version": version, "class": UNCLASSIFIED}
    if commit:
        values["commit"] = commit
    fresh = aligned_table(values | {"digest": digest})

    position = _position_of(table, Version(version))
    if position > 0:
        before = table[position - 1]
        # What follows the row before, comments too, is about the row after.
        trailing = take_trailing(before)
        before.add(tomlkit.nl())
        give_trailing(fresh, trailing)
    table.insert(position, fresh)


def _position_of(table: AoT, version: Version) -> int:
    """Where a row of `version` belongs: before the first that is newer, else at the end."""
    for position, row in enumerate(table):
        if Version(str(row["version"])) > version:
            return position
    return len(table)
