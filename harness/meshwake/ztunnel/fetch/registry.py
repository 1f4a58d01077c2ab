"""A container registry, as far as it takes to get one image: the OCI distribution protocol over
httpx.

Requests are in this order: the manifest by its tag (an index of several machines, or one manifest),
the manifest of this machine by its digest, and layers by theirs. A registry that wants a token says
where one is had (401, WWW-Authenticate); an anonymous one is fetched there. What has a digest is
compared with it before it is believed.

Tried again is what may be different the next time: a cut transfer goes on where it ended, 429 and
5xx are tried again after the time that the registry requests. What will not be different is
reported at once: no network, 401 after a token, 404. Proxies are those of the environment
(HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import httpx

from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.json_types import JsonObject

OFFICIAL_REGISTRY, OFFICIAL_REPOSITORY = "docker.io", "istio/ztunnel"
# The name in a reference is not where Docker Hub serves its registry API.
_HOST_OF = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
# An image for several architectures has an index, of OCI's or of Docker's older media type; what
# the client accepts decides what a registry sends.
INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
TRIES = 5
WAIT_S_MAX = 30.0
ANSWERS_WITHIN_S = 30.0
# Bounds against a registry, or a proxy in front of it, that sends without end. A manifest is some
# kilobytes, and the layer with ztunnel some dozens of megabytes.
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
BLOB_BYTES_MAX = 1024**3
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')

# What was received of how many bytes.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Reference:
    """Where an image is. `repository` without the registry's name."""

    registry: str
    repository: str
    tag: str

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.registry}/{self.repository}:{self.tag}"

    @property
    def base_url(self) -> str:
        """Of the protocol's second version; a registry named with http:// is spoken with in plain
        text."""
        scheme, _, host = self.registry.rpartition("://")
        return f"{scheme or 'https'}://{_HOST_OF.get(host, host)}/v2/{self.repository}"


@dataclass(frozen=True)
class Blob:
    """Something with a digest and a length, named in a manifest."""

    digest: str
    size: int
    media_type: str


def blob_of(descriptor: JsonObject, where: str) -> Blob:
    """A descriptor of a manifest. Raises LabUnavailable when it has no digest that we can check, or
    is too long."""
    digest, size = str(descriptor.get("digest")), descriptor.get("size")
    if not _DIGEST.fullmatch(digest) or not isinstance(size, int):
        raise LabUnavailable(
            f"{where}: names a part by {digest!r}, expected was a sha256 digest with a size"
        )
    if not 0 <= size <= BLOB_BYTES_MAX:
        raise LabUnavailable(
            f"{where}: {digest} has {size} bytes, which is more than meshwake takes"
        )
    return Blob(digest, size, str(descriptor.get("mediaType", "")))


def check_digest(content: bytes, digest: str, what: str) -> None:
    """Raises LabUnavailable when `content` is not what `digest` names."""
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != digest:
        raise LabUnavailable(
            f"{what}: has digest {found}, expected was {digest}; it was changed on its way, "
            "or there"
        )


@cache
def _trusted() -> ssl.SSLContext:
    """Whom we believe: read once, for it takes a fifth of a second."""
    return httpx.create_ssl_context()


class Registry:
    """One image of a registry. `sleep` waits between tries."""

    def __init__(self, reference: Reference, sleep: Callable[[float], None] = time.sleep) -> None:
        self.reference, self._sleep = reference, sleep
        self._token = ""
        try:
            self._client = httpx.Client(
                verify=_trusted(), timeout=ANSWERS_WITHIN_S, follow_redirects=True
            )
        except (httpx.InvalidURL, ValueError, ImportError) as error:
            raise BadInput(
                f"the proxy of the environment cannot be used ({error}); mend HTTPS_PROXY"
            ) from error

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def manifest(self, reference: str, types: tuple[str, ...]) -> tuple[JsonObject, str, str]:
        """The manifest under a tag or a digest: its content, its media type, its digest."""
        url = f"{self.reference.base_url}/manifests/{reference}"
        answer = self._get(url, {"Accept": ", ".join(types)})
        content = answer.content
        if len(content) > MANIFEST_BYTES_MAX:
            raise LabUnavailable(
                f"{self.reference.name}: its manifest has {len(content)} bytes; that is none"
            )
        digest = answer.headers.get("Docker-Content-Digest", "")
        for expected in {reference, digest}:
            if _DIGEST.fullmatch(expected):
                check_digest(content, expected, f"{self.reference.name}: manifest")
        try:
            manifest = dict(json.loads(content))
        except ValueError as error:
            raise LabUnavailable(
                f"{self.reference.name}: answered no manifest ({content[:60]!r}); is "
                f"{self.reference.registry} a "
                "registry, or does a proxy answer in its place?"
            ) from error
        media_type = (
            manifest.get("mediaType") or answer.headers.get("Content-Type", "").split(";")[0]
        )
        return manifest, media_type, f"sha256:{hashlib.sha256(content).hexdigest()}"

    def download(self, blob: Blob, path: Path, progress: Progress) -> None:
        """The blob as the file `path`, which is there only when whole and right. What an earlier
        call left half done is gone on with."""
        partial = path.with_name(path.name + ".partial")
        for left in reversed(range(TRIES)):
            have = partial.stat().st_size if partial.exists() else 0
            if have > blob.size:
                partial.unlink()
                continue
            if have == blob.size or self._receive(blob, partial, have, progress, last_try=not left):
                _take_if_right(partial, path, blob, self.reference.name)
                return
            self._sleep(_pause_s(TRIES - left))
        raise LabUnavailable(
            f"{self.reference.name}: {blob.digest} could not be received whole in {TRIES} tries"
        )

    def _receive(
        self, blob: Blob, partial: Path, have: int, progress: Progress, last_try: bool
    ) -> bool:
        """Whether everything has come; else what came is kept."""
        url = f"{self.reference.base_url}/blobs/{blob.digest}"
        headers = {"Range": f"bytes={have}-"} if have else {}

        # No compression on the way: lengths and ranges are those of the blob.
        request = self._client.build_request(
            "GET", url, headers=self._authorized(headers | {"Accept-Encoding": "identity"})
        )
        answer = self._answer(request, stream=True)

        # A registry that ignores the range answers 200, with everything from the beginning.
        goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT
        have = have if goes_on else 0
        try:
            with partial.open("ab" if goes_on else "wb") as file:
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    have += len(chunk)
                    progress(have, blob.size)
                    if have > blob.size:
                        raise LabUnavailable(
                            f"{self.reference.name}: {blob.digest} is longer than its "
                            f"{blob.size} bytes"
                        )
        except httpx.TransportError as error:
            if last_try:
                raise LabUnavailable(
                    f"{self.reference.name}: the transfer was cut {TRIES} times, last at "
                    f"{have} of {blob.size} bytes "
                    f"({error}); what has come is kept: try again"
                ) from error
            return False
        finally:
            answer.close()
        return have == blob.size

    def _get(self, url: str, headers: dict[str, str]) -> httpx.Response:
        return self._answer(
            self._client.build_request("GET", url, headers=self._authorized(headers))
        )

    def _authorized(self, headers: dict[str, str]) -> dict[str, str]:
        return headers | ({"Authorization": f"Bearer {self._token}"} if self._token else {})

    def _answer(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        """A good answer; what may pass by itself is tried again, everything else raised."""
        for attempt in range(1, TRIES + 1):
            answer = self._send(request, stream=stream, attempt=attempt)
            if answer is not None and answer.is_success:
                return answer
            if answer is None:
                self._sleep(_pause_s(attempt))
                continue
            # Public images need a token, too, which any client gets where the challenge names.
            challenge = answer.headers.get("WWW-Authenticate", "")
            answer.close()
            if answer.status_code == httpx.codes.UNAUTHORIZED and not self._token and challenge:
                self._token = self._fetch_token(challenge)
                request.headers["Authorization"] = f"Bearer {self._token}"
            elif answer.status_code == httpx.codes.TOO_MANY_REQUESTS or answer.is_server_error:
                if attempt < TRIES:
                    self._sleep(_requested_pause_s(answer, attempt))
            else:
                raise self._refusal(answer.status_code)
        raise LabUnavailable(
            f"{self.reference.name}: the registry answered "
            f"{answer.status_code if answer else 'nothing'} "
            f"{TRIES} times; try later, or another one with --registry"
        )

    def _send(self, request: httpx.Request, *, stream: bool, attempt: int) -> httpx.Response | None:
        """None when the connection broke after it had been there, which may pass."""
        try:
            return self._client.send(request, stream=stream)
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.ProxyError,
            httpx.UnsupportedProtocol,
        ) as error:
            raise LabUnavailable(
                f"{self.reference.name}: {request.url.host} cannot be reached ({error}); "
                "without a network, bring a "
                "saved image or the binary itself: meshwake fetch VERSION --from FILE"
            ) from error
        except httpx.TransportError as error:
            if attempt == TRIES:
                raise LabUnavailable(
                    f"{self.reference.name}: {request.url.host} gave no answer ({error})"
                ) from error
            return None

    def _fetch_token(self, challenge: str) -> str:
        words = dict(_CHALLENGE.findall(challenge))
        if not challenge.lower().startswith("bearer") or "realm" not in words:
            raise self._refusal(httpx.codes.UNAUTHORIZED)
        query = {key: words[key] for key in ("service", "scope") if key in words}
        query.setdefault("scope", f"repository:{self.reference.repository}:pull")
        request = self._client.build_request("GET", words["realm"], params=query)
        answer = self._send(request, stream=False, attempt=TRIES)
        assert answer is not None
        if not answer.is_success:
            raise self._refusal(answer.status_code)
        with suppress(ValueError):
            token = answer.json()
            return str(token.get("token") or token["access_token"])
        raise LabUnavailable(f"{self.reference.name}: {words['realm']} gave no token")

    def _refusal(self, status: int) -> BadInput | LabUnavailable:
        if status == httpx.codes.NOT_FOUND:
            return BadInput(
                f"{self.reference.name}: no such image; meshwake versions lists what is known"
            )
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            return LabUnavailable(
                f"{self.reference.name}: the registry wants a login ({status}); "
                "save the image with a tool "
                "that is logged in (docker pull, docker save) and give it with --from FILE"
            )
        return LabUnavailable(f"{self.reference.name}: the registry answered {status}")


def _take_if_right(partial: Path, path: Path, blob: Blob, name: str) -> None:
    with partial.open("rb") as file:
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if found != blob.digest:
        partial.unlink()
        raise LabUnavailable(
            f"{name}: what was received has digest {found}, expected was {blob.digest}; it "
            "was changed on its way, or "
            "there; nothing of it is kept"
        )
    partial.replace(path)


def _pause_s(attempt: int) -> float:
    return min(0.25 * 2.0**attempt, WAIT_S_MAX)


def _requested_pause_s(answer: httpx.Response, attempt: int) -> float:
    """What the registry asks for (Retry-After in seconds), within our bound."""
    # A number of seconds; the other form, a date, would need a wall clock that is right.
    with suppress(ValueError, KeyError):
        return min(max(float(answer.headers["Retry-After"]), 0.0), WAIT_S_MAX)
    return _pause_s(attempt)
