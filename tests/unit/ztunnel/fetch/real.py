"""The registry server of the distribution project on loopback, as Debian packages it; an image
pushed to it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import httpx
from meshwake.system.deadline import Deadline

from tests.unit.ztunnel.fetch.images import INDEX, MANIFEST, Image, digest_of

ANSWERS_WITHIN_S = 20.0
NAME = "/v2/istio/ztunnel"


def program_of_registry() -> str | None:
    """Where it is installed."""
    return shutil.which("docker-registry")


class RealRegistry:
    """Runs for the length of a with block, and keeps what it has in `directory`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self._log = (directory / "log").open("wb")
        settings = directory / "config.json"  # JSON is a part of YAML
        settings.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
                    "http": {"addr": f"127.0.0.1:{port}"},
                }
            )
        )
        program = program_of_registry()
        assert program is not None
        self._process = subprocess.Popen(
            [program, "serve", str(settings)], stdout=self._log, stderr=self._log
        )
        self._client = httpx.Client(base_url=self.address, trust_env=False)

    def __enter__(self) -> Self:
        deadline = Deadline("docker-registry to answer", ANSWERS_WITHIN_S)
        while True:
            try:
                self._client.get("/v2/").raise_for_status()
            except httpx.HTTPError as error:
                assert self._process.poll() is None, "docker-registry has ended"
                deadline.pause(0.05, seen=error)
            else:
                return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def push(self, image: Image, tag: str) -> None:
        """All blobs, the manifest, and the index under `tag`."""
        for digest, content in image.blobs.items():
            if content == image.manifest:
                continue
            place = (
                self._client.post(f"{NAME}/blobs/uploads/").raise_for_status().headers["Location"]
            )
            where = urljoin(self.address, place)
            self._client.put(
                where, params={**httpx.URL(where).params, "digest": digest}, content=content
            ).raise_for_status()
        self._put_manifest(digest_of(image.manifest), image.manifest, MANIFEST)
        self._put_manifest(tag, image.index, INDEX)

    def _put_manifest(self, name: str, content: bytes, kind: str) -> None:
        self._client.put(
            f"{NAME}/manifests/{name}", content=content, headers={"Content-Type": kind}
        ).raise_for_status()
