"""Runs every scenario on every version on every lab that is named, and keeps each result at once.

    model     every release whose class is known        process   every release with a binary in the cache
    machine   of those the newest of each minor         kind      the pinned release of each minor that is supported

Each result is on disk before the next case begins (results.jsonl), so an interrupted night can be
resumed. The history of a run is kept when it was not as expected, or when something real ran. What
a lab lacks is reported and sets the exit code: a night that could not run everything has not shown
that all is well. A scenario that needs of a lab what it never does (a patched ztunnel, a gateway on
lab process) is left out there and named; that says nothing about the machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from threading import Lock

from meshwake.checks.format import dated
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode, HarnessError, LabUnavailable
from meshwake.core.refusal import invalid_choice
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.labs import LAB_MODULES, load_lab
from meshwake.runner.choose import Case, Chooser
from meshwake.runner.corpus import scenario_files
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.runner.suite import Ending, most_serious
from meshwake.ztunnel import binaries

RESULTS_FILE = "results.jsonl"
LEFT_OUT = "left out"  # the outcome of a case that its lab never runs, on any machine
ON_BINARIES = ("process", "machine")


@dataclass(frozen=True)
class CaseResult:
    """How one case ended, as results.jsonl has it. `findings`: check -> verdict, of the checks that
    the scenario expects something of; `differs`: check -> [verdict, expected, because], of those
    that were not as expected; `subject`: the digest of the binary, "" without one."""

    scenario: str
    lab: str
    version: str
    outcome: str
    exit_code: int
    why: str
    plan: str
    subject: str = ""
    findings: dict[str, str] = field(default_factory=dict)
    differs: dict[str, list[str]] = field(default_factory=dict)
    run: str | None = None
    real_s: float = 0.0

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Two results with the same key are of the same plan and binary."""
        return (self.scenario, self.lab, self.version, self.plan, self.subject)


@dataclass(frozen=True)
class NightlyRun:
    """All results of one night. `missing`: lab -> why nothing ran there; `versions`: lab -> the
    releases that were tried there; `unclassified`: releases without a class, which no model
    runs."""

    day: str
    labs: tuple[str, ...]
    rows: tuple[CaseResult, ...]
    missing: dict[str, str]
    versions: dict[str, tuple[str, ...]]
    unclassified: tuple[str, ...]
    real_s: float

    @property
    def exit_code(self) -> ExitCode:
        """The most serious of all results, as with `meshwake run`; a missing lab counts as
        unavailable."""
        codes = [ExitCode(row.exit_code) for row in self.rows]
        if self.missing:
            codes.append(ExitCode.LAB_UNAVAILABLE)
        return most_serious(codes)


@dataclass
class ResultLog:
    """Appends results to a file. `known`: the results of an interrupted night that is resumed."""

    path: Path
    known: dict[tuple[str, ...], CaseResult] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def append(self, row: CaseResult) -> CaseResult:
        """Writes `row`, and returns it; it is on disk then."""
        # One line at a time: cases of several threads end at the same moment.
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(_line_of(row))
        return row


def _line_of(row: CaseResult) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


def open_result_log(directory: Path, resume: bool, warn: Callable[[str], None]) -> ResultLog:
    """The log of results in `directory`. Raises BadInput when it has results already and `resume`
    is False."""
    path = directory / RESULTS_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists() and not resume:
            raise BadInput(
                f"{path}: exists already; add --resume to continue it, or choose another --out"
            )

        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = list(_whole_rows(path, lines, warn))
        # Without what a crash cut off: the next row would be appended to half a line.
        path.write_text("".join(map(_line_of, rows)), encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{directory}: cannot be written ({error.strerror}); choose another --out"
        ) from error

    return ResultLog(path, {row.key: row for row in rows})


def _whole_rows(
    path: Path, lines: Sequence[str], warn: Callable[[str], None]
) -> Iterator[CaseResult]:
    for number, line in enumerate(lines, start=1):
        try:
            yield CaseResult(**json.loads(line))
        except (ValueError, TypeError) as error:
            warn(f"{path}:{number}: is not a whole result ({error}); that case runs again")


# --- What runs where


def versions_on(lab: str, named: Sequence[str], today: date) -> tuple[str, ...]:
    """The releases that can be tried on `lab`, oldest first. `named`: only these, if any are
    named."""
    wanted = {versions.find(version).version for version in named}
    on_lab = [row.version for row in _rows_on(lab, today)]
    if not wanted:
        return tuple(on_lab)
    return tuple(version for version in on_lab if version in wanted)


def _rows_on(lab: str, today: date) -> tuple[versions.Release, ...]:
    """All releases that can be tried on `lab`."""
    if lab == "kind":
        return _supported_pins(today)

    # The model runs classes; a release without one has nothing that could be run.
    if lab not in ON_BINARIES:
        return tuple(row for row in versions.releases() if row.classified)

    rows = _cached()
    # A guest boots for each run, so lab machine tries one release of each minor.
    if lab == "machine":
        return versions.newest_of_each_minor(rows)
    return rows


def _cached() -> tuple[versions.Release, ...]:
    """The releases with a binary in the cache."""
    # Compared as versions, to which 1.30.0-rc.1 and 1.30.0rc1 are the same.
    cached = {versions.parse_version(binary.version) for binary in binaries.cached()}
    return tuple(
        row for row in versions.releases() if versions.parse_version(row.version) in cached
    )


def _supported_pins(today: date) -> tuple[versions.Release, ...]:
    """The pinned release of each minor that is supported."""
    pinned = _pinned()
    return tuple(
        row for row in versions.releases() if row.version in pinned and _is_supported(row, today)
    )


@cache
def _pinned() -> frozenset[str]:
    """The releases that the stack of lab kind is pinned to."""
    from meshwake.cluster.stack.pins import read_pins

    return frozenset(pin.version for pin in read_pins().istio.minor.values())


def _is_supported(row: versions.Release, today: date) -> bool:
    """Up to the month or the day of its end of life; a release without one is supported."""
    if not row.end_of_life:
        return True
    has_date = row.end_of_life[:1].isdigit()  # or it is "past"

    # As text: 2026-11 and 2026-11-30 both come after 2026-10.
    return has_date and row.end_of_life >= today.isoformat()[:7]


def why_missing(lab: str, found: Sequence[str]) -> str | None:
    """Why nothing can run on `lab`, or None. Raises BadInput when there is no such lab."""
    if lab not in LAB_MODULES:
        raise invalid_choice("--labs", lab, LAB_MODULES)

    if not found:
        what = "no release that fits"
        if lab in ON_BINARIES:
            what = "no ztunnel binary of a known release in the cache"
        return f"{what}; meshwake doctor says what belongs where"

    # The newest is as good as any: what a lab lacks is about the machine.
    binary = binaries.find(found[-1]) if lab in ON_BINARIES else None
    path = None if binary is None else binary.path
    reasons = load_lab(lab).missing(path)
    return "; ".join(reasons) or None


@dataclass(frozen=True)
class NightlyRequest:
    """What a night has to run."""

    labs: tuple[str, ...]
    files: tuple[Path, ...]
    versions: tuple[str, ...] = ()
    seed: int = 0
    jobs: int = 1


def run_night(
    request: NightlyRequest,
    result_log: ResultLog,
    today: date,
    report: Callable[[CaseResult], None],
) -> NightlyRun:
    """Every case of `request`. `report` is called with every result, those of an interrupted night
    too. Raises BadInput."""
    scenarios = [read_scenario(path) for path in scenario_files(request.files)]
    began_s = time.perf_counter()
    rows: list[CaseResult] = []
    missing: dict[str, str] = {}
    tried: dict[str, tuple[str, ...]] = {}

    # Each once, in the order in which they were named.
    for lab in dict.fromkeys(request.labs):
        found = versions_on(lab, request.versions, today) if lab in LAB_MODULES else ()
        why = why_missing(lab, found)
        # A lab that is missing here ends neither the night nor the others; the report names it.
        if why is not None:
            missing[lab] = why
            continue

        tried[lab] = found
        rows += _run_lab(request, lab, found, scenarios, result_log, report)

    return NightlyRun(
        day=today.isoformat(),
        labs=tuple(request.labs),
        rows=tuple(rows),
        missing=missing,
        versions=tried,
        unclassified=tuple(row.version for row in versions.releases() if not row.classified),
        real_s=time.perf_counter() - began_s,
    )


def _run_lab(
    request: NightlyRequest,
    lab: str,
    found: Sequence[str],
    scenarios: Iterable[Scenario],
    result_log: ResultLog,
    report: Callable[[CaseResult], None],
) -> list[CaseResult]:
    # A run of the model is repeated at once; of a real one the evidence is kept.
    options = Options(lab, tuple(found), seed=request.seed, keep_run=lab != "model")
    chooser = Chooser(options)
    cases: list[Case] = []
    for scenario in scenarios:
        if lab in scenario.labs:
            cases += chooser.cases(scenario)

    def run(case: Case) -> CaseResult:
        row = _run_one(case, options, result_log)
        report(row)
        return row

    # The model computes in this process, where threads would take turns; a binary is waited for.
    jobs = request.jobs if lab in ON_BINARIES else 1
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, cases))


def _run_one(case: Case, options: Options, result_log: ResultLog) -> CaseResult:
    empty = _row_of(case)
    # Of an interrupted night: the same plan on the same binary need not run again.
    known = result_log.known.get(empty.key)
    if known is not None:
        return known

    # Refused though nothing is missing here: the lab never runs this scenario, on any machine. That
    # is not a result of this night.
    if case.refusal is not None and not load_lab(case.lab).missing(case.ztunnel):
        return result_log.append(replace(empty, outcome=LEFT_OUT, why=case.refusal))

    try:
        if case.refusal is not None:
            raise LabUnavailable(case.refusal)
        ending = Ending(case, run=run_case(case, options))
    # A file that is wrong is for the user to mend, before any more of the night.
    except BadInput:
        raise
    except HarnessError as error:
        ending = Ending(case, error=error)
    return result_log.append(_filled(empty, ending))


def _row_of(case: Case) -> CaseResult:
    # A case that was refused has no plan.
    plan = case.plan.sha256[:16] if case.refusal is None else ""
    subject = ""
    if case.ztunnel is not None:
        subject = binaries.sha256_of(case.ztunnel)[:16]

    return CaseResult(
        scenario=case.scenario.name,
        lab=case.lab,
        version=case.version,
        outcome="",
        exit_code=0,
        why="",
        plan=plan,
        subject=subject,
    )


def _filled(row: CaseResult, ending: Ending) -> CaseResult:
    run = ending.run
    if run is None:
        return replace(
            row,
            outcome=ending.word,
            exit_code=int(ending.exit_code),
            why=str(ending.error),
            run=str(ending.evidence) if ending.evidence else None,
        )

    findings, differs = {}, {}
    for each in run.outcome.comparisons:
        # What the scenario does not expect anything of is in the run itself.
        if each.expected is None:
            continue

        check, verdict = each.finding.check, each.finding.verdict
        findings[check] = verdict.value
        if verdict is not each.expected:
            because = dated(each.finding.because, run.plan.dates)
            differs[check] = [verdict.value, str(each.expected), because]

    return replace(
        row,
        outcome=run.outcome.kind.value,
        exit_code=int(run.outcome.exit_code),
        why=dated(run.outcome.why, run.plan.dates),
        findings=findings,
        differs=differs,
        run=str(run.path) if run.path else None,
        real_s=round(run.real_s, 3),
    )
