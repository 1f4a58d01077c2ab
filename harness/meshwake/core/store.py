"""Runs on disk, so that yesterday's history can be judged by today's checks.

    runs/<scenario>/<lab>-<version>-<plan>[-n]/     plan.json  history.jsonl  result.json  logs/
                                                    repeat.txt, the command that does the same again
    runs/<scenario>/latest                          the newest run that was kept (a link, or a file with its name)

The directory exists from before the lab starts, so that a run which is killed leaves everything up
to its last moment. Once judged, a run is kept when it surprised or stayed unknown, or when it was
requested; else it is removed. The base is ./runs or $MESHWAKE_RUNS. Several processes may write
below it at once.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meshwake.core.dates import dates_of
from meshwake.core.errors import BadInput
from meshwake.core.history import History
from meshwake.core.json_types import JsonObject, MutableJsonObject, value_at
from meshwake.core.plan import PLAN_FORMAT, Plan
from meshwake.core.refusal import unreadable, unwritable
from meshwake.core.text_files import read_text

PLAN_FILE = "plan.json"
HISTORY_FILE = "history.jsonl"
RESULT_FILE = "result.json"
REPEAT_FILE = "repeat.txt"
LATEST = "latest"
# As in analysis/bisect_log.py: an end instead of an endless loop.
_SAME_PLAN_MAX = 10_000
_VANISHED_MAX = 20


@dataclass(frozen=True)
class RunDirectory:
    """The directory of one run and the names of what lies in it."""

    path: Path

    @property
    def history(self) -> Path:
        """Where the lab's recorder writes, event by event."""
        return self.path / HISTORY_FILE

    @property
    def logs(self) -> Path:
        """What the subjects printed, for a person to read."""
        return self.path / "logs"

    def save_result(self, result: JsonObject) -> None:
        """Writes what `meshwake run --json` prints."""
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        (self.path / RESULT_FILE).write_text(text, encoding="utf-8")

    def save_repeat(self, command: str) -> None:
        """Writes the command that does the same again."""
        (self.path / REPEAT_FILE).write_text(command + "\n", encoding="utf-8")

    def keep(self) -> None:
        """The run stays; `latest` of its scenario points to it."""
        pointer = self.path.parent / LATEST

        # Made under a name of this process and renamed, so that a reader never finds `latest`
        # missing or half written while another run ends.
        fresh = self.path.parent / f".{LATEST}-{self.path.name}-{os.getpid()}"
        try:
            fresh.symlink_to(self.path.name)
        except OSError:
            # Windows makes links only for users who were granted that right.
            fresh.write_text(self.path.name, encoding="utf-8")
        fresh.replace(pointer)

    def remove(self) -> None:
        """The run goes, `latest` too if it points here, and the directories above when nothing else
        lies in them."""
        pointer = self.path.parent / LATEST
        if _pointed_to(pointer) == self.path.name:
            pointer.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

        # rmdir fails where another run lies in it, and that is what keeps that run.
        with suppress(OSError):
            self.path.parent.rmdir()
            self.path.parent.parent.rmdir()


@dataclass(frozen=True)
class SavedRun:
    """A run read back. `result` is what it was judged then; None when it ended before that."""

    path: Path
    plan: Plan
    history: History
    result: MutableJsonObject | None

    @property
    def repeat(self) -> str:
        """The command that does the same again; "" where none was recorded."""
        file = self.path / REPEAT_FILE
        if not file.is_file():
            return ""
        return read_text(file).strip()

    @property
    def real_s(self) -> float:
        """What the run cost in real time, as far as is known."""
        # None of a run that ended before it was judged; and any file may have been edited.
        real_s = value_at(self.result, "cost", "real_s")
        return float(real_s) if isinstance(real_s, int | float) else 0.0


def runs_dir() -> Path:
    """Where runs are kept: $MESHWAKE_RUNS, or ./runs."""
    # Set to nothing it means as much as not set.
    chosen = os.environ.get("MESHWAKE_RUNS")
    return Path(chosen or "runs")


def open_run(plan: Plan) -> RunDirectory:
    """A new directory for a run of `plan`, with the plan in it. Raises BadInput when none can be
    made."""
    base = runs_dir() / (plan.scenario or "unnamed")

    # Eight digits of the hash are enough among the plans of one scenario, lab and version.
    name = f"{plan.lab}-{plan.version}-{plan.sha256[:8]}"
    text = plan.model_dump_json(indent=2) + "\n"
    try:
        directory = RunDirectory(_make_directory(base, name))
        directory.logs.mkdir()
        (directory.path / PLAN_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(base, error, "set MESHWAKE_RUNS to a directory of yours") from error
    return directory


def _make_directory(base: Path, name: str) -> Path:
    """Makes NAME below `base`, or NAME-2 and so on where that exists."""
    vanished = 0
    for number in range(1, _SAME_PLAN_MAX):
        path = base / (name if number == 1 else f"{name}-{number}")
        # mkdir and not a look before it: of several processes exactly one makes it.
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            # Another run of the same plan.
            continue
        except FileNotFoundError:
            # A run was removed just now, and its parents with it between two steps of this mkdir;
            # or nothing can be made here at all.
            vanished += 1
            if vanished > _VANISHED_MAX:
                raise
            continue
        return path
    raise BadInput(f"{base}: holds {_SAME_PLAN_MAX} runs of one plan; remove the old ones")


def kept_runs() -> list[Path]:
    """The directories of all runs that were kept, the newest first."""
    plans = runs_dir().glob(f"*/*/{PLAN_FILE}")
    # `latest` is a link to one of them, which would be listed twice.
    found = [plan.parent for plan in plans if plan.parent.name != LATEST]

    # By the name where two ended at once, so that the order is always the same.
    def age(run: Path) -> tuple[float, Path]:
        return ended_s(run), run

    return sorted(found, key=age, reverse=True)


def ended_s(run: Path) -> float:
    """When it was judged; of one that broke off, when it began."""
    for name in (RESULT_FILE, PLAN_FILE):
        with suppress(OSError):
            return (run / name).stat().st_mtime
    # Removed since it was listed.
    return 0.0


def read_run(path: Path) -> SavedRun:
    """The run saved at `path`: its directory, a `latest`, the name of a scenario (its newest run),
    or the word `latest` (the newest of all). Raises BadInput when it is none."""
    directory = _directory_of(path)
    if not (directory / PLAN_FILE).is_file():
        raise BadInput(
            f"{path}: not a run (it has no {PLAN_FILE}); give a directory below {runs_dir()}, "
            f"or {LATEST}; meshwake runs lists them"
        )
    return SavedRun(
        path=directory,
        # First: of another format the history would be wrong as well.
        plan=_read_plan(directory / PLAN_FILE),
        history=History.read(directory / HISTORY_FILE),
        result=read_result(directory),
    )


def _pointed_to(pointer: Path) -> str | None:
    """The name of the run that a `latest` points to."""
    if pointer.is_symlink():
        return str(pointer.readlink())

    # Where there are no links, a file has the name (RunDirectory.keep).
    if pointer.is_file():
        return pointer.read_text(encoding="utf-8").strip()
    return None


def _directory_of(path: Path) -> Path:
    """The directory that `path` means. Raises BadInput for `latest` without any run."""
    # What exists where the user is comes before a name below runs/, as for every other path.
    if path.exists():
        return _newest_in(path)

    if path == Path(LATEST):
        kept = kept_runs()
        if not kept:
            raise BadInput(
                f"{LATEST}: no run is kept in {runs_dir()}; meshwake run --keep-run keeps one"
            )
        return kept[0]

    # The name of a scenario, or SCENARIO/RUN.
    below = runs_dir() / path
    return _newest_in(below) if below.exists() else path


def _newest_in(path: Path) -> Path:
    """`path` itself, or where it has the runs of one scenario the newest of them."""
    is_run = (path / PLAN_FILE).exists()
    latest = path / LATEST
    if latest.exists() and not is_run:
        path = latest
    if path.name != LATEST:
        return path

    name = _pointed_to(path)
    # A directory that a person has called so.
    if name is None:
        return path
    return path.parent / name


def _read_plan(path: Path) -> Plan:
    """The plan saved at `path`. Raises BadInput."""
    raw = _read_json(path)
    # Before the fields are looked at: of another format many would be wrong.
    if isinstance(raw, dict):
        found = raw.get("format")
        if found != PLAN_FORMAT:
            raise BadInput(
                f"{path}: was written in format {found}, this meshwake reads format {PLAN_FORMAT}; "
                "judge it with the version that made it"
            )

    try:
        # As JSON and not as a dict: a strict model takes a list for a tuple only from JSON.
        plan = Plan.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        # One is enough: the file was cut or edited, and is not one that a person writes.
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(
            f"{path}: not a complete plan: {place or 'top level'}: {first['msg']}"
        ) from error

    # A run may come from a machine with time zones that this one does not know.
    try:
        dates_of(plan.dates_from_wall_s, plan.dates_zone)
    except ValueError as error:
        raise BadInput(f"{path}: dates_zone: {plan.dates_zone!r}: {error}") from error
    return plan


def read_result(run: Path) -> MutableJsonObject | None:
    """What the run at `run` was judged; None for one that ended before that. Raises BadInput for a
    file that is none."""
    path = run / RESULT_FILE
    # The run was killed, or goes on still.
    if not path.is_file():
        return None
    raw = _read_json(path)
    return raw if isinstance(raw, dict) else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error, "give the directory of a run") from error
    except ValueError as error:
        raise BadInput(
            f"{path}: is half a file or no JSON ({error}); was the run killed while it began?"
        ) from error
