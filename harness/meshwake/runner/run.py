"""One case to one run, with its evidence on disk; and a saved run judged again.

A run that came out as expected leaves nothing behind unless that was requested; a surprise, an
unknown and a failure keep their directory.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from meshwake.checks import judge
from meshwake.core.errors import BadInput, HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.history import Recorder
from meshwake.core.outcome import OutcomeKind
from meshwake.core.run import Run
from meshwake.core.store import RunDirectory, open_run, read_run
from meshwake.labs import Toolbox
from meshwake.report.result import result
from meshwake.runner.choose import Case
from meshwake.runner.execution import execute
from meshwake.runner.options import Options

Progress = Callable[[int], None]  # called with world time in ns


def ignore_progress(world_ns: int) -> None:
    """A progress callback that shows nothing."""


def run_case(case: Case, options: Options, progress: Progress = ignore_progress) -> Run:
    """Carries out `case`, judges it, and keeps what is worth keeping. Raises LabUnavailable with
    the reason when the case was refused; any other HarnessError says where its evidence is."""
    case.require_runnable()
    with _recording(case, options.keep_run) as directory:
        toolbox = Toolbox(case.ztunnel, directory.logs, progress)
        run = execute(case.plan, toolbox, Recorder(directory.history))
        run = replace(run, repeat=case.repeat_command)

        is_surprise = run.outcome.kind is not OutcomeKind.AS_EXPECTED
        if not is_surprise and not options.keep_run:
            directory.remove()
            return run

        # Saved first: `keep` lets `latest` point to it, and a reader finds a whole run there.
        directory.save_result(result(run))
        directory.keep()
        return replace(run, path=directory.path)


def check_run(path: Path) -> Run:
    """The run saved at `path` under today's checks and the expectations it was planned with.
    Raises BadInput when there is no run at `path`."""
    saved = read_run(path)
    findings = judge(saved.plan, saved.history)
    return Run(saved.plan, saved.history, findings, saved.real_s, saved.path, saved.repeat)


@contextmanager
def _recording(case: Case, keep_run: bool) -> Iterator[RunDirectory]:
    """The directory in which a run of `case` is recorded. Where the run fails, it stays as evidence
    if there is something to learn from it; where it never began, it is removed."""
    directory = open_run(case.plan)
    if case.repeat_command:
        directory.save_repeat(case.repeat_command)

    try:
        yield directory

    # Nothing ran, so there is nothing to look at; the message has it all.
    except (BadInput, LabUnavailable):
        if not keep_run:
            directory.remove()
        raise

    except KeyboardInterrupt as interrupt:
        # An hour of a real cluster may be of use; a model is as quick again.
        if keep_run or case.real_time:
            interrupt.add_note(f"recorded until then: {directory.path}")
        else:
            directory.remove()
            interrupt.add_note(f"{case.id}: not kept; --keep-run keeps what was recorded")
        raise

    # The logs and the history until then show how it failed.
    except (SubjectFailed, HarnessFault) as error:
        error.evidence = directory.path
        raise

    # An error that is not ours to explain: a user sees one sentence and where the traceback is.
    except Exception as error:
        (directory.logs / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
        fault = HarnessFault(
            f"{case.id}: this is a fault of meshwake: {type(error).__name__}: {error}"
        )
        fault.evidence = directory.path
        raise fault from error
