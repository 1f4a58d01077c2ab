"""Places where a command will write, tried before it begins: a report that cannot be written is not
found out after an hour of runs."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from meshwake.core.refusal import unwritable


def try_folder(path: Path, option: str) -> None:
    """Writes in the folder at `path`, which was given with `option`, and leaves nothing behind, not
    the folder either where there was none. Raises BadInput where that is not possible."""
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        _try_to_write(path)
    except OSError as error:
        raise unwritable(f"{option} {path}", error, "give another folder") from error
    finally:
        # The innermost first, as `parents` has them. One that was not made, or in which another
        # program has begun to write, stays as it is.
        for folder in absent:
            with suppress(OSError):
                folder.rmdir()


def try_file(path: Path, option: str) -> None:
    """Opens the file at `path`, which was given with `option`, and leaves it as it is; one that
    does not exist needs a folder that takes it. Raises BadInput."""
    try:
        if path.exists():
            path.open("ab").close()
        else:
            _try_to_write(path.parent)
    except OSError as error:
        raise unwritable(f"{option} {path}", error, "give another file") from error


def _try_to_write(folder: Path) -> None:
    # Permissions alone do not say it: a file system may be mounted read-only, or be full.
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\n")
