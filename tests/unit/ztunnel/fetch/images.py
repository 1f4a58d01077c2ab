"""Images of a ztunnel that only says what it is, as a registry or a saved file holds them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import tarfile
from dataclasses import dataclass, field
from typing import Any

from meshwake.core.versions import find, has_row

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
WANTED = "usr/local/bin/ztunnel"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def program(version: str) -> bytes:
    """A Linux program for x86-64 that says the version of its build, as ztunnel does, and ends."""
    commit = find(version).commit if has_row(version) else "0" * 40
    text = (
        f'version.BuildInfo{{GitRevision:"{commit}", BuildStatus:"Clean", '
        f'IstioVersion:"unknown"}}\n'
    ).encode()
    code = bytes.fromhex("bf01000000")  # mov edi, 1
    code += bytes.fromhex("488d35") + struct.pack("<i", 5 + 5 + 2 + 2 + 5 + 2)  # lea rsi, [text]
    code += b"\xba" + struct.pack("<I", len(text))  # mov edx, length
    code += bytes.fromhex("b8010000000f05")  # mov eax, SYS_write; syscall
    code += bytes.fromhex("31ffb83c0000000f05")  # xor edi, edi; mov eax, SYS_exit; syscall
    base, head = 0x400000, 64 + 56
    size = head + len(code) + len(text)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 4096)
    return elf + load + code + text


def layer(members: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A layer with these files and symbolic links, compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
        for name, to in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, to
            archive.addfile(member)
    return gzip.compress(buffer.getvalue(), mtime=0)


@dataclass
class Image:
    """An index for two machines, a manifest for this one, a base layer and one with the program."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    index: bytes = b""
    manifest: bytes = b""

    @property
    def top_layer(self) -> str:
        """The digest of the layer with the program."""
        return str(json.loads(self.manifest)["layers"][-1]["digest"])

    def add(self, content: bytes) -> dict[str, Any]:
        """A blob, and the descriptor that names it."""
        self.blobs[digest_of(content)] = content
        return {"digest": digest_of(content), "size": len(content)}


def image(version: str = "1.28.0", top: bytes | None = None) -> Image:
    """`top`: the last layer, when it is to be another."""
    made = Image()
    config = made.add(b"{}") | {"mediaType": "application/vnd.oci.image.config.v1+json"}
    layers = [layer({"etc/os-release": b"base"}), top or layer({WANTED: program(version)})]
    kind = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"}
    made.manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [made.add(each) | kind for each in layers],
        }
    ).encode()
    this = made.add(made.manifest) | {
        "mediaType": MANIFEST,
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    other = this | {"platform": {"os": "linux", "architecture": "s390x"}}
    made.index = json.dumps(
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, this]}
    ).encode()
    return made
