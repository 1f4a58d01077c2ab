"""What is remembered of a cluster between two commands, in a directory of its own.

    <state>/clusters/NAME/state.json    what was chosen, when it was begun, when it was up
                          kubeconfig    the cluster's own; never the user's
                          lock          held by the command that works on it: up, down, a run
                          folder        where images, charts and manifests were taken from, if from files
                          facts.json    addresses for load balancers, and the seed of the cluster's own secrets
                          kind.yaml, values/, words/, failures/

<state> is $MESHWAKE_STATE, or the user's state directory. It is a memory, not the truth: whether a
cluster is there is read from the engine, and what is in it of the cluster itself.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_state_dir

from meshwake.cluster.hold import Holder, InUse
from meshwake.cluster.stack.choice import NAME_PREFIX, Choice, is_our_name
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.json_types import JsonObject, MutableJsonObject, list_at

_FORMAT = 1
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Record:
    """state.json. `up_wall_s` is None until every step has been done once; walls are of this
    machine, in seconds."""

    name: str
    choice: Choice | None
    begun_wall_s: int
    up_wall_s: int | None


def clusters_dir() -> Path:
    """Where clusters are remembered."""
    base = os.environ.get("MESHWAKE_STATE") or user_state_dir("meshwake", appauthor=False)
    return Path(base) / "clusters"


def intents_dir() -> Path:
    """Where it is written down what is done to the clocks of engines
    (harness/meshwake/clocks/movers/restore.py)."""
    return clusters_dir().parent / "clocks"


def known_names() -> tuple[str, ...]:
    """The clusters that have a directory here."""
    found = clusters_dir().glob(f"{NAME_PREFIX}*")
    names = [path.name for path in found if path.is_dir()]
    return tuple(sorted(names))


@dataclass(frozen=True)
class ClusterState:
    """The directory of one cluster."""

    name: str
    directory: Path

    @classmethod
    def of(cls, name: str) -> ClusterState:
        """The directory of the cluster `name`; it need not exist. BadInput for a name that is none
        of ours."""
        if not is_our_name(name):
            raise BadInput(
                f"cluster {name!r}: only clusters called {NAME_PREFIX}NAME are ever made or deleted"
            )
        return cls(name, clusters_dir() / name)

    @property
    def kubeconfig(self) -> Path:
        """The cluster's own kubeconfig; written by kind when the cluster has been made."""
        return self.directory / "kubeconfig"

    def read(self) -> Record | None:
        """What is remembered; None when there is nothing, or nothing that this version can read."""
        try:
            found = json.loads((self.directory / "state.json").read_text(encoding="utf-8"))
            # Of a newer meshwake: as if nothing were known, which `up` and `down` can deal with.
            if found["format"] != _FORMAT:
                return None
            return Record(
                self.name,
                choice_from_json(found["choice"]),
                found["begun_wall_s"],
                found["up_wall_s"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, record: Record) -> None:
        """Remembers `record`, whole or not at all."""
        content = {
            "format": _FORMAT,
            "name": record.name,
            "choice": choice_to_json(record.choice) if record.choice else None,
            "begun_wall_s": record.begun_wall_s,
            "up_wall_s": record.up_wall_s,
        }
        self.put("state.json", json.dumps(content, indent=2) + "\n")

    def put(self, name: str, content: str) -> Path:
        """Writes a file of the directory, whole or not at all."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")

        # For the user alone: kubeconfig and seed are as good as the cluster's own secrets.
        fresh.touch(mode=0o600)
        fresh.write_text(content, encoding="utf-8")
        fresh.replace(path)
        return path

    def remembered_folder(self, given: Path | None) -> Path | None:
        """The folder that the cluster is made from: the one `given`, else the one of last time if
        it is still there."""
        if given is not None:
            # Absolute: the next `up` may be typed in another directory.
            self.put("folder", str(given.resolve()))
            return given
        with suppress(OSError):
            kept = Path((self.directory / "folder").read_text(encoding="utf-8"))
            return kept if kept.is_dir() else None
        return None

    def forget(self) -> None:
        """Removes the directory. A command that waits for its lock finds that out (`lock`)."""
        shutil.rmtree(self.directory, ignore_errors=True)

    @contextmanager
    def lock(self, doing: str) -> Iterator[None]:
        """One command at a time: InUse at once, with its holder, when another works on this
        cluster. The lock is the kernel's, so it ends with its holder, however that ends. `doing`:
        what other commands report meanwhile."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            handle = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if not _lock_at_once(handle):
                    holder = _holder_in(handle)
                    if holder is None or holder.lives_here is not False:
                        raise InUse(f"cluster {self.name}", holder)
                    # Another command reads who holds it (`holder`), for a moment.
                    time.sleep(_LOOK_EVERY_S)
                # `down` may have removed the directory while this waited: then what is locked is a
                # file without a name, and another command can lock the new one.
                elif _is_still(handle, self._lock_path):
                    os.truncate(handle, 0)
                    os.pwrite(handle, Holder.here(doing).to_text().encode(), 0)
                    yield
                    return
            finally:
                os.close(handle)
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def holder(self) -> Holder | None:
        """Which command of this machine works on the cluster now; None: none does, or the
        lock file does not name it."""
        try:
            handle = os.open(self._lock_path, os.O_RDWR)
        except OSError:
            return None
        try:
            return None if _lock_at_once(handle) else _holder_in(handle)
        finally:
            os.close(handle)

    @property
    def _lock_path(self) -> Path:
        return self.directory / "lock"


def _holder_in(handle: int) -> Holder | None:
    return Holder.read(os.pread(handle, 4096, 0).decode(errors="replace"))


def _is_still(handle: int, path: Path) -> bool:
    """Whether `path` is the file that was opened: another may have put the directory away in
    between."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _lock_at_once(handle: int) -> bool:
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise HarnessFault("the kind lab locks its state with flock; run it inside WSL") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def choice_to_json(choice: Choice) -> MutableJsonObject:
    """The choice as JSON can hold it."""
    return {**asdict(choice), "parts": sorted(choice.parts)}


def choice_from_json(content: JsonObject | None) -> Choice | None:
    """The choice that `choice_to_json` wrote."""
    if content is None:
        return None

    # Lists in JSON; a set, so that two choices of the same parts are equal.
    fields: dict[str, Any] = {**content, "parts": frozenset(map(str, list_at(content, "parts")))}
    return Choice(**fields)
