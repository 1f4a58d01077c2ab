"""An archive as the kernel unpacks it into its first file system (cpio, format "newc"), written in
one go.

    070701 and 13 numbers of 8 hexadecimal digits, the name, zero, padding to 4; the bytes, padding
    to 4; TRAILER!!!

Several archives one after the other are one, each begun at a multiple of 512 bytes: what changes
often goes last.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import IO

BLOCK_BYTES = 512
_TRAILER = "TRAILER!!!"


def write_archive(output: IO[bytes], files: Mapping[str, tuple[bytes, int, int]]) -> None:
    """`files`: absolute path to content, permissions, and time of change. The directories above
    come with them."""
    writer = _Writer(output)
    for path in sorted(files):
        for above in reversed(PurePosixPath(path).parents[:-1]):
            writer.directory(str(above))
        content, permissions, changed_s = files[path]
        writer.entry(path, stat.S_IFREG | permissions, changed_s, content)
    writer.entry(_TRAILER, 0, 0, b"")
    writer.pad(BLOCK_BYTES)


class _Writer:
    def __init__(self, output: IO[bytes]) -> None:
        self._output, self._at, self._number = output, 0, 0
        self._directories: set[str] = set()

    def directory(self, path: str) -> None:
        if path not in self._directories:
            self._directories.add(path)
            self.entry(path, stat.S_IFDIR | 0o755, 0, b"")

    def entry(self, path: str, mode: int, changed_s: int, content: bytes) -> None:
        self._number += 1
        name = path.lstrip("/").encode() + b"\0"
        numbers = (self._number, mode, 0, 0, 1, changed_s, len(content), 0, 0, 0, 0, len(name), 0)
        self._put(b"070701" + b"".join(b"%08X" % number for number in numbers) + name)
        self.pad(4)
        self._put(content)
        self.pad(4)

    def pad(self, to: int) -> None:
        self._put(bytes(-self._at % to))

    def _put(self, data: bytes) -> None:
        self._output.write(data)
        self._at += len(data)
