"""The runs of a bisect, on disk: one line a run, so that it can be resumed and replayed.

    {"format": 1, "scenario": ..., "scenario_sha256": ..., "check": ..., "lab": ..., "good": ...,
    "bad": ..., ...} {"version": "1.28.0", "seed": 0, "verdict": "HOLDS", "because": ..., ...}

A line without its end is what a killed bisect leaves; it is dropped, and that version runs again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from meshwake.analysis.attempt import Attempt, RunAttempt
from meshwake.analysis.bisect import BisectRequest
from meshwake.core.errors import BadInput
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Verdict
from meshwake.core.refusal import unreadable
from meshwake.core.store import runs_dir

FORMAT = 1
# So that a directory in which every name is taken ends with a message and not with an endless loop.
_SAME_NAME_MAX = 10_000
_QUESTION_KEYS = ("scenario", "check", "lab", "good", "bad", "claimed", "repeat", "seed")


@dataclass
class BisectLog:
    """The log of one bisect. `broken_off`: its last line has no end."""

    path: Path
    question: BisectRequest
    scenario_file: str
    scenario_sha256: str
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    broken_off: bool = False
    _lock: Lock = field(default_factory=Lock)

    def logged(
        self, ask: RunAttempt | None, subject: Callable[[str], str] | None = None
    ) -> RunAttempt:
        """A function that takes attempts from the log, and else makes and logs them with `ask`;
        with None from the log alone. `subject`: the SHA-256 of the binary that would run as a
        version now; an attempt of another one is repeated."""

        def run(version: str, seed: int) -> Attempt:
            known = self.attempts.get((version, seed))
            # The cache may have another build of that version by now, which the log is not about.
            if known is not None:
                same_binary = subject is None or known.subject == subject(version)
                if ask is None or same_binary:
                    return known
            if ask is None:
                return Attempt(
                    version, seed, Verdict.UNKNOWN, f"not in the log {self.path}", possible=False
                )
            attempt = ask(version, seed)
            self._append(attempt)
            return attempt

        return run

    def _append(self, attempt: Attempt) -> None:
        with self._lock:
            self.attempts[attempt.version, attempt.seed] = attempt
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(attempt.to_json(), ensure_ascii=False) + "\n")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a scenario file. Raises BadInput."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be read ({error.strerror}); give the path of a scenario file"
        ) from error


def begin_log(question: BisectRequest, scenario_file: Path) -> BisectLog:
    """A new log below runs/bisect/. Raises BadInput when none can be made there."""
    base = runs_dir() / "bisect"
    log = BisectLog(base, question, str(scenario_file), sha256_of(scenario_file))
    try:
        base.mkdir(parents=True, exist_ok=True)
        log.path = _new_file(base, f"{question.scenario}-{question.check}-{question.lab}")
        log.path.write_text(json.dumps(_head(log)) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{base}: cannot be written ({error.strerror}); set MESHWAKE_RUNS to a "
            "directory of yours"
        ) from error
    return log


def _new_file(base: Path, name: str) -> Path:
    for number in range(1, _SAME_NAME_MAX):
        path = base / (f"{name}.jsonl" if number == 1 else f"{name}-{number}.jsonl")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise BadInput(f"{base}: holds {_SAME_NAME_MAX} logs of one question; remove the old ones")


def _head(log: BisectLog) -> MutableJsonObject:
    head = {
        "format": FORMAT,
        "scenario_file": log.scenario_file,
        "scenario_sha256": log.scenario_sha256,
    }
    return head | {key: getattr(log.question, key) for key in _QUESTION_KEYS}


def read_log(path: Path) -> BisectLog:
    """The log at `path`. Raises BadInput with the line that does not belong to a log."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error, "give the log of a bisect, below runs/bisect") from error

    # What is behind the last newline is half a line: the bisect was killed while it wrote.
    *lines, rest = text.split("\n")
    if not lines:
        raise BadInput(
            f"{path}: has no whole line, so it is not a log of a bisect; start the bisect again"
        )
    log = _read_head(path, lines[0])
    log.broken_off = bool(rest)
    for number, line in enumerate(lines[1:], start=2):
        try:
            attempt = Attempt.from_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path}:{number}: is not a run of a bisect ({error}); remove that line, "
                "and that version runs again"
            ) from error
        log.attempts[attempt.version, attempt.seed] = attempt
    return log


def _read_head(path: Path, line: str) -> BisectLog:
    try:
        head = json.loads(line)
        if head["format"] != FORMAT:
            raise BadInput(
                f"{path}: was written in format {head['format']}, this meshwake reads "
                f"format {FORMAT}"
            )
        question = BisectRequest(**{key: head[key] for key in _QUESTION_KEYS})
        return BisectLog(path, question, head["scenario_file"], head["scenario_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}:1: is not the first line of a log of a bisect ({error!r}); start the bisect "
            "again"
        ) from error


def drop_partial_line(log: BisectLog) -> None:
    """Removes the partial line that a killed bisect left, so that the next one begins a line."""
    if log.broken_off:
        whole = log.path.read_text(encoding="utf-8").rpartition("\n")[0]
        log.path.write_text(whole + "\n", encoding="utf-8")
        log.broken_off = False


def check_scenario(log: BisectLog) -> None:
    """Raises BadInput when the scenario has changed since the log was begun: its runs would be of
    two scenarios."""
    found = sha256_of(Path(log.scenario_file))
    if found != log.scenario_sha256:
        raise BadInput(
            f"{log.path}: is about another {log.scenario_file} (sha256 "
            f"{log.scenario_sha256[:8]}, now {found[:8]}); "
            "start the bisect again, or only --replay the log"
        )
