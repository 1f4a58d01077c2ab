"""An archive as the kernel unpacks it into its first file system: cpio, format "newc"
(Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

    for each file   a header of 110 bytes: the magic number and 13 numbers of 8 hexadecimal digits
                    the name, a zero byte, padding to a multiple of 4
                    the content, padding to a multiple of 4
    at the end      a file of the name TRAILER!!!

Several archives one after the other are one, each begun at a multiple of 512 bytes: what changes
often goes last.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import IO

# The unit in which cpio and tar pad. The kernel itself skips any zeros between two archives
# (init/initramfs.c, state Reset).
BLOCK_BYTES = 512
_MAGIC = b"070701"  # "newc", without a checksum of each file
_ALIGNMENT_BYTES = 4
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
        header = (
            self._number,  # c_ino: differs for each file, else the kernel takes two for hard links
            mode,  # c_mode: type and permissions, as of stat
            0,  # c_uid: root
            0,  # c_gid
            1,  # c_nlink
            changed_s,  # c_mtime
            len(content),  # c_filesize
            0,  # c_maj: the device that it is on; of no use to the kernel
            0,  # c_min
            0,  # c_rmaj: the device that it is, of device files only
            0,  # c_rmin
            len(name),  # c_namesize, with the zero byte
            0,  # c_chksum: zero in this format
        )
        self._put(_MAGIC + b"".join(b"%08X" % number for number in header) + name)
        self.pad(_ALIGNMENT_BYTES)
        self._put(content)
        self.pad(_ALIGNMENT_BYTES)

    def pad(self, to: int) -> None:
        self._put(bytes(-self._at % to))

    def _put(self, data: bytes) -> None:
        self._output.write(data)
        self._at += len(data)
