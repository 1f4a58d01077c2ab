"""Files that people hand in, as text: what an editor or a shell may have made of them is read, what
is not text is refused by name.

PowerShell's `>` writes UTF-16 with a byte order mark, some editors UTF-8 with one.
"""

from __future__ import annotations

import codecs
import stat
from pathlib import Path

from meshwake.core.errors import BadInput
from meshwake.core.refusal import unreadable

# A name that was mistyped may be a disk or /dev/zero, which has no end.
BYTES_MOST = 64 << 20
MARK = "\ufeff"
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(start: bytes) -> str:
    """The encoding of a text that begins with `start`, by its mark or its zeros: UTF-8 where
    nothing indicates another."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding

    # UTF-16 without a mark: the first character is nearly always ASCII, so that one of its two
    # bytes is zero, and which one gives the byte order.
    zeros = [byte == 0 for byte in start[:2]]
    if zeros == [False, True]:
        return "utf-16-le"
    if zeros == [True, False]:
        return "utf-16-be"

    # Python's name for UTF-8 with or without a mark.
    return "utf-8-sig"


def is_there(path: Path) -> bool:
    """What may not be looked at is there, and is refused when it is read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    # No permission, a loop of links, a path with a NUL in it: read_text says which.
    except (OSError, ValueError):
        return True
    return True


def read_text(path: Path, *, keep_mark: bool = False) -> str:
    """All of `path`, with its line ends as they are. `keep_mark`: a byte order mark too, for what
    makes a difference of it. Raises BadInput when it cannot be read, is not a file, or not text."""
    content = _read_bytes(path)
    encoding = encoding_of(content[:4])
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise BadInput(f"{path}: is not {name} text (byte {error.start})") from error

    # Codecs differ in whether they leave a mark in the text.
    text = text.removeprefix(MARK)
    is_marked = content.startswith((codecs.BOM_UTF8, *dict(_MARKS)))
    return f"{MARK}{text}" if keep_mark and is_marked else text


def _read_bytes(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        # Before it is opened: to open a pipe without a writer would wait for one.
        if not stat.S_ISREG(mode):
            found = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise BadInput(f"{path}: is {found}, expected a file")

        with path.open("rb") as stream:
            # One byte more than is allowed, to know without reading the rest that there is more.
            content = stream.read(BYTES_MOST + 1)
    # ValueError: a path with a NUL in it.
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error

    if len(content) > BYTES_MOST:
        raise BadInput(f"{path}: has more than {BYTES_MOST >> 20} MiB")
    return content
