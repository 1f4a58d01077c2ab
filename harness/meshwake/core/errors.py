"""The few errors of the harness, sorted by who must act, and the exit codes of every command.

A message says three things: what was found, what was expected, what to do next. Only `HarnessFault`
may ever show a traceback, because only there the harness itself is to blame.
"""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """How a command ends. The numbers are a promise to scripts (docs/reference.md)."""

    AS_EXPECTED = 0
    SURPRISE = 1
    UNKNOWN = 2
    BAD_INPUT = 3
    LAB_UNAVAILABLE = 4
    HARNESS_FAULT = 5


class HarnessError(Exception):
    """Base of all errors that end a run; `exit_code` is how the command ends, `evidence` where a
    person may look further."""

    exit_code: ExitCode = ExitCode.HARNESS_FAULT
    evidence: Path | None = None


class BadInput(HarnessError):
    """The author of a scenario, an option or a saved run must act: something written is wrong."""

    exit_code = ExitCode.BAD_INPUT


class LabUnavailable(HarnessError):
    """The owner of the machine must act: a tool or a right is missing, or this lab cannot do what
    is queried."""

    exit_code = ExitCode.LAB_UNAVAILABLE


class SubjectFailed(HarnessError):
    """The thing under test ended or hung in a way no scenario requested; its last words are in the
    message."""

    exit_code = ExitCode.HARNESS_FAULT


class HarnessFault(HarnessError):
    """We must act: a promise of the harness was broken. Worth an issue, with the run directory
    attached."""

    exit_code = ExitCode.HARNESS_FAULT
