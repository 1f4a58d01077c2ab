"""Is this commit good? What `git bisect run` wants to know, of a program that must be built first.

    git bisect run meshwake probe SCENARIO --check NAME --command 'cargo build' --binary
    target/debug/ztunnel

    0     good: the check HOLDS
    1     bad: it is BROKEN
    125   cannot say: it does not build, the build is no ztunnel, the answer is UNKNOWN or not the same twice
    128 and more: the question itself is wrong, or this machine cannot ask it; git bisect stops, as every commit would
                  get the same answer

Answers are kept by what was built, named by its SHA-256: a commit builds something else with
another compiler, another submodule or another profile. So each commit is built, and asked only when
its binary has not been asked before.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from meshwake.analysis.attempt import Attempt
from meshwake.analysis.bisect_log import sha256_of
from meshwake.core.errors import BadInput
from meshwake.core.outcome import Verdict
from meshwake.ztunnel import binaries

ABORT_GIT_BISECT = 128
CACHE_FORMAT = 2
LAST_WORDS = 400


class GitVerdict(IntEnum):
    """The exit codes of `git bisect run`."""

    GOOD = 0
    BAD = 1
    CANNOT_SAY = 125


@dataclass(frozen=True)
class CommitProbe:
    """What is asked of the commit that is checked out in `repository`. `command` is given to the
    shell there, None: nothing needs to be built; `binary` is what it builds."""

    repository: Path
    scenario_file: Path
    check: str
    binary: Path
    command: str | None = None
    version: str = ""
    repeat: int = 2
    build_within_s: float = 3600.0


@dataclass(frozen=True)
class ProbeResult:
    """The answer, in a word for git and a sentence for a person. `commit`: "" where there is none
    or it has changes."""

    verdict: GitVerdict
    because: str
    commit: str = ""
    run: str | None = None
    from_cache: bool = False

    def to_json(self) -> dict[str, Any]:
        """As `meshwake probe --json` prints it."""
        words = {
            GitVerdict.GOOD: "good",
            GitVerdict.BAD: "bad",
            GitVerdict.CANNOT_SAY: "cannot say",
        }
        return asdict(self) | {"verdict": words[self.verdict], "exit_code": int(self.verdict)}


ProbeBinary = Callable[[Path, int], Attempt]  # the built binary, a seed


def probe_commit(
    question: CommitProbe, ask: ProbeBinary, warn: Callable[[str], None] = lambda text: None
) -> ProbeResult:
    """Builds and asks, or remembers. Raises BadInput or LabUnavailable where no commit could be
    asked."""
    commit = clean_commit(question.repository)
    path = question.repository / question.binary
    failed = _built(question, path)
    if failed is not None:
        return ProbeResult(GitVerdict.CANNOT_SAY, failed, commit)
    place = _place_of(question, binaries.sha256_of(path))
    kept = _kept_answer(place, commit, warn)
    if kept is not None:
        return kept
    answer = _judge(_ask_repeatedly(question, ask, path), commit)
    if answer.verdict is not GitVerdict.CANNOT_SAY:
        _keep(place, answer)
    return answer


def clean_commit(repository: Path) -> str:
    """The commit that is checked out, or "" when that is none or what is there differs from it."""
    head = _git(repository, "rev-parse", "--verify", "HEAD")
    changes = _git(repository, "status", "--porcelain", "--untracked-files=no")
    return head.strip() if head and changes == "" else ""


def _git(repository: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(repository), *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _built(question: CommitProbe, path: Path) -> str | None:
    """Builds what is asked about; why there is nothing to ask, or None."""
    if question.command is not None:
        failed = build(question.command, question.repository, path, question.build_within_s)
        if failed is not None:
            return failed
    return None if path.is_file() else f"there is no {question.binary} after the build"


def build(command: str, directory: Path, binary: Path, within_s: float) -> str | None:
    """Has the shell do `command` in `directory`. Why `binary` was not built, or None."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=directory,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the build did not end within {within_s:.0f} s"
    if done.returncode == 0:
        return None
    words = (done.stderr or done.stdout).strip()[-LAST_WORDS:]
    return f"it does not build: {command!r} ended with {done.returncode}: {words}"


def _ask_repeatedly(question: CommitProbe, ask: ProbeBinary, path: Path) -> list[Attempt]:
    attempts: list[Attempt] = []
    for seed in range(question.repeat):
        try:
            attempts.append(ask(path, seed))
        except BadInput as error:
            if str(path) not in str(error):
                raise
            # It is about this build and no other: it is no ztunnel, or not one for this machine.
            attempts.append(Attempt("", seed, Verdict.UNKNOWN, str(error)))
        if attempts[-1].verdict is Verdict.UNKNOWN and not attempts[-1].failed:
            break
    return attempts


def _judge(attempts: list[Attempt], commit: str) -> ProbeResult:
    observed = {attempt.verdict for attempt in attempts if not attempt.failed}
    first = next((attempt for attempt in attempts if not attempt.failed), attempts[0])
    if len(observed) > 1:
        said = ", ".join(f"{attempt.verdict} with seed {attempt.seed}" for attempt in attempts)
        return ProbeResult(GitVerdict.CANNOT_SAY, f"flaky: {said}", commit, first.run)
    if observed == {Verdict.HOLDS}:
        return ProbeResult(GitVerdict.GOOD, first.because, commit, first.run)
    if observed == {Verdict.BROKEN}:
        return ProbeResult(GitVerdict.BAD, first.because, commit, first.run)
    return ProbeResult(GitVerdict.CANNOT_SAY, f"UNKNOWN: {first.because}", commit, first.run)


# Answers by what was built


def _place_of(question: CommitProbe, binary_sha256: str) -> Path:
    asked = [
        sha256_of(question.scenario_file),
        question.check,
        question.version,
        question.repeat,
    ]
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, binary_sha256, *asked]).encode()).hexdigest()
    return binaries.cache_dir() / "probe" / f"{key}.json"


def _kept_answer(path: Path, commit: str, warn: Callable[[str], None]) -> ProbeResult | None:
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        answer = ProbeResult(
            GitVerdict(raw["verdict"]), str(raw["because"]), commit, raw["run"], from_cache=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f"{path}: a kept answer that cannot be read ({error}); it is asked anew")
        path.unlink(missing_ok=True)
        return None
    return answer


def _keep(path: Path, answer: ProbeResult) -> None:
    fresh = path.with_suffix(".new")
    with suppress(OSError):  # a cache that cannot be written costs time, not the answer
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(
            json.dumps(asdict(answer) | {"verdict": int(answer.verdict)}), encoding="utf-8"
        )
        fresh.replace(path)
