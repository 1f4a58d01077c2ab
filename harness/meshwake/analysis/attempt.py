"""Runs a scenario once on a version, and returns the verdict of one check as plain data.

Everything that compares versions (bisect, probe) runs them through here; what comes back is plain
data, so that a log can keep it. A verdict that could not be had is UNKNOWN with its reason: a
version that cannot run here, a subject that died. Only a mistake of the user (BadInput) ends the
comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from meshwake.checks.format import dated
from meshwake.core import versions
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable
from meshwake.core.outcome import Verdict
from meshwake.core.run import Run
from meshwake.core.scenario import Scenario
from meshwake.core.store import RunDirectory
from meshwake.report.result import result
from meshwake.runner.choose import Case, choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.ztunnel import binaries


@dataclass(frozen=True)
class Attempt:
    """The verdict of one run. `because`: with the dates of a recorded month. `places`: where in the
    history its reason lies; `run`: its directory, if that was kept; `failed`: the run ended in an
    error, so to try again may help; `subject`: the SHA-256 of the binary that ran, "" where none
    did."""

    version: str
    seed: int
    verdict: Verdict
    because: str
    places: tuple[dict[str, Any], ...] = ()
    run: str | None = None
    real_s: float = 0.0
    failed: bool = False
    possible: bool = True  # False: this version cannot run on this lab and machine, now or later
    subject: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a line of a log keeps it."""
        return asdict(self) | {"verdict": self.verdict.value, "places": list(self.places)}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Attempt:
        """Raises KeyError, TypeError or ValueError when it is none."""
        return cls(**raw | {"verdict": Verdict(raw["verdict"]), "places": tuple(raw["places"])})


RunAttempt = Callable[[str, int], Attempt]


@dataclass
class ScenarioExperiment:
    """Runs `scenario` on one lab, for the verdict of `check`. `keep` False: the run directory is
    removed."""

    scenario: Scenario
    check: str
    lab: str
    options: Options = field(default_factory=Options)
    keep: bool = True

    def __call__(self, version: str, seed: int) -> Attempt:
        """One run of `version`. Raises BadInput."""
        options = self._options(version, seed)
        return run_attempt(self.scenario, self.check, options, version, self.keep)

    def subject(self, version: str) -> str:
        """The SHA-256 of the binary that would run as `version` now; "" where there is none."""
        case = choose(self.scenario, self._options(version, 0))[0]
        return _subject_of(case)

    def impossible(self, version: str) -> str | None:
        """Why `version` cannot run here, found out without a run; None when it can. On the model a
        release whose class is not known has no verdict of its own: it would only repeat the one
        before it."""
        if self.lab == "model" and versions.find(version).assumption is not None:
            return (
                "its behaviour class is not known, so that the model would only repeat the "
                f"release before it; meshwake fetch {version}, and --lab process runs it"
            )

        # The seed chooses nothing of where a scenario runs.
        case = choose(self.scenario, self._options(version, 0))[0]
        return case.refusal

    def _options(self, version: str, seed: int) -> Options:
        return replace(self.options, lab=self.lab, istio=(version,), seed=seed, keep_run=True)


def run_attempt(
    scenario: Scenario, check: str, options: Options, version: str, keep: bool = True
) -> Attempt:
    """One run with these options, as an attempt of `version`. Raises BadInput."""
    case = choose(scenario, options)[0]
    if case.refusal is not None:
        return Attempt(
            version,
            options.seed,
            Verdict.UNKNOWN,
            f"cannot run here: {case.refusal}",
            possible=False,
        )

    try:
        saved = run_case(case, options)
    except BadInput:
        raise  # the question is wrong: no other version would answer it either
    except LabUnavailable as error:
        return Attempt(version, options.seed, Verdict.UNKNOWN, str(error), possible=False)
    except HarnessError as error:
        run = None if error.evidence is None else str(error.evidence)
        return Attempt(
            version, options.seed, Verdict.UNKNOWN, f"the run failed: {error}", run=run, failed=True
        )

    attempt = replace(_attempt_of(saved, check, version), subject=_subject_of(case))
    if keep:
        return attempt

    RunDirectory(saved.kept_at).remove()
    return replace(attempt, run=None)


def _subject_of(case: Case) -> str:
    if case.ztunnel is None:
        return ""
    return binaries.sha256_of(case.ztunnel)


def _attempt_of(saved: Run, check: str, version: str) -> Attempt:
    summary = result(saved)
    finding = next(row for row in summary["findings"] if row["check"] == check)
    return Attempt(
        version,
        saved.plan.seed,
        Verdict(finding["verdict"]),
        dated(finding["because"], saved.plan.dates),
        # A few: a log has a line for each run, and the run itself has all of them.
        tuple(dict(row) for row in finding["evidence"][:3]),
        str(saved.path) if saved.path else None,
        round(saved.real_s, 3),
    )
