"""Builds the commit that is checked out and judges its binary, for `git bisect run`.

    git bisect run meshwake probe SCENARIO --check NAME --command 'cargo build' --binary
    target/debug/ztunnel

    0     good: the check HOLDS
    1     bad: it is BROKEN
    125   cannot say: it does not build, it is not a ztunnel, the verdict is UNKNOWN or varies
    128 and more: the command line is wrong, or this machine cannot run it; git bisect stops, since that is so for
                  every commit

Results are cached by the SHA-256 of what was built: a commit builds something else with another
compiler, submodule or profile. So each commit is built, and run only when its binary is new.
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

from meshwake.analysis.attempt import Attempt
from meshwake.analysis.bisect_log import sha256_of
from meshwake.core.errors import BadInput
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Verdict
from meshwake.ztunnel import binaries

# git-bisect(1): an exit code above 127 ends the whole bisect, where 125 skips one commit.
ABORT_GIT_BISECT = 128
# A part of every key of the cache: raised when a verdict that is kept would mean something else.
CACHE_FORMAT = 2
OUTPUT_SHOWN = 400


class GitVerdict(IntEnum):
    """The exit codes of `git bisect run`."""

    GOOD = 0
    BAD = 1
    CANNOT_SAY = 125


_FOR_GIT = {Verdict.HOLDS: GitVerdict.GOOD, Verdict.BROKEN: GitVerdict.BAD}


@dataclass(frozen=True)
class CommitProbe:
    """What to find out about the commit that is checked out in `repository`. `command` is run by
    the shell there, None: nothing needs to be built; `binary` is what it builds."""

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
    """The verdict for git, and why in a sentence. `commit`: "" where there is none, or where the
    work tree differs from it."""

    verdict: GitVerdict
    because: str
    commit: str = ""
    run: str | None = None
    from_cache: bool = False

    def to_json(self) -> MutableJsonObject:
        """As `meshwake probe --json` prints it."""
        names = {
            GitVerdict.GOOD: "good",
            GitVerdict.BAD: "bad",
            GitVerdict.CANNOT_SAY: "cannot say",
        }
        return asdict(self) | {"verdict": names[self.verdict], "exit_code": int(self.verdict)}


ProbeBinary = Callable[[Path, int], Attempt]  # the built binary, a seed


def probe_commit(
    question: CommitProbe, ask: ProbeBinary, warn: Callable[[str], None] = lambda text: None
) -> ProbeResult:
    """Builds the commit and runs it, or uses the cache. Raises BadInput or LabUnavailable where no
    commit could be probed."""
    commit = clean_commit(question.repository)
    path = question.repository / question.binary
    failed = _built(question, path)
    if failed is not None:
        return ProbeResult(GitVerdict.CANNOT_SAY, failed, commit)
    place = _cache_file(question, binaries.sha256_of(path))
    kept = _cached(place, commit, warn)
    if kept is not None:
        return kept
    answer = _judge(_run_repeatedly(question, ask, path), commit)

    # What could not be tested today may be possible tomorrow.
    if answer.verdict is not GitVerdict.CANNOT_SAY:
        _keep(place, answer)
    return answer


def clean_commit(repository: Path) -> str:
    """The commit that is checked out; "" when there is none, or the work tree differs from it."""
    head = _git(repository, "rev-parse", "--verify", "HEAD")
    changes = _git(repository, "status", "--porcelain", "--untracked-files=no")

    # Not clean: what was built is not that commit, and a result must not be filed under it.
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
    """Builds the binary. Why there is none, or None."""
    if question.command is not None:
        failed = build(question.command, question.repository, path, question.build_within_s)
        if failed is not None:
            return failed
    return None if path.is_file() else f"the build left no {question.binary}"


def build(command: str, directory: Path, binary: Path, within_s: float) -> str | None:
    """Runs `command` in `directory` by the shell. Why `binary` was not built, or None."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=directory,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=within_s,
            stdin=subprocess.DEVNULL,  # a build that prompts would wait for the whole hour
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the build did not end within {within_s:.0f} s"
    if done.returncode == 0:
        return None
    output = (done.stderr or done.stdout).strip()[-OUTPUT_SHOWN:]
    return f"it does not build: {command!r} ended with {done.returncode}: {output}"


def _run_repeatedly(question: CommitProbe, ask: ProbeBinary, path: Path) -> list[Attempt]:
    attempts: list[Attempt] = []
    for seed in range(question.repeat):
        try:
            attempts.append(ask(path, seed))
        except BadInput as error:
            # Anything else is wrong for every commit, and must stop the bisect.
            if str(path) not in str(error):
                raise
            # The error is about this build: it is not a ztunnel, or not one for this machine.
            attempts.append(Attempt("", seed, Verdict.UNKNOWN, str(error)))
        # An UNKNOWN that is not a failure comes again with any seed.
        if attempts[-1].verdict is Verdict.UNKNOWN and not attempts[-1].failed:
            break
    return attempts


def _judge(attempts: list[Attempt], commit: str) -> ProbeResult:
    """The result of all runs: their verdict, if it is the same in each that did not fail."""
    finished = [attempt for attempt in attempts if not attempt.failed]
    shown = [*finished, attempts[0]][0]
    verdicts = {attempt.verdict for attempt in finished} or {Verdict.UNKNOWN}
    if len(verdicts) > 1:
        return ProbeResult(GitVerdict.CANNOT_SAY, f"flaky: {_listed(attempts)}", commit, shown.run)
    for_git = _FOR_GIT.get(verdicts.pop())
    if for_git is None:
        return ProbeResult(GitVerdict.CANNOT_SAY, f"UNKNOWN: {shown.because}", commit, shown.run)
    return ProbeResult(for_git, shown.because, commit, shown.run)


def _listed(attempts: list[Attempt]) -> str:
    return ", ".join(f"{attempt.verdict} with seed {attempt.seed}" for attempt in attempts)


# --- Results by what was built


def _cache_file(question: CommitProbe, binary_sha256: str) -> Path:
    # All that an answer depends on. The commit is not among it: two commits may build the same
    # binary.
    what = [
        sha256_of(question.scenario_file),
        question.check,
        question.version,
        question.repeat,
    ]
    key = hashlib.sha256(json.dumps([CACHE_FORMAT, binary_sha256, *what]).encode()).hexdigest()
    return binaries.cache_dir() / "probe" / f"{key}.json"


def _cached(path: Path, commit: str, warn: Callable[[str], None]) -> ProbeResult | None:
    if not path.is_file():
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        answer = ProbeResult(
            GitVerdict(raw["verdict"]), str(raw["because"]), commit, raw["run"], from_cache=True
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn(f"{path}: a cached result that cannot be read ({error}); the binary is run again")
        path.unlink(missing_ok=True)
        return None
    return answer


def _keep(path: Path, answer: ProbeResult) -> None:
    # Written next to it and renamed: a bisect that is killed leaves no half a result.
    fresh = path.with_suffix(".new")
    with suppress(OSError):  # a cache that cannot be written costs time, not the result
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(
            json.dumps(asdict(answer) | {"verdict": int(answer.verdict)}), encoding="utf-8"
        )
        fresh.replace(path)
