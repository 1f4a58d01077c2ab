"""Every scenario on every version on every lab that is asked for, and what of it is news.

    model     every release whose class is known        process   every release with a binary in the cache
    machine   of those the newest of each minor         kind      the pinned release of each minor that is supported

Each result is on disk before the next begins (results.jsonl), so a night that was broken off is
gone on with. What was not as expected keeps its history; so does every run on something real. What
a lab lacks is told and has its exit code: a night that could not look has not seen that all is
well. A scenario that asks a lab for what it never does (a patched ztunnel of a released one, a
gateway of lab process) is left out there and named: that says nothing about the machine.
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

from meshwake.analysis.nightly_report import LEFT_OUT
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
ON_BINARIES = ("process", "machine")


@dataclass(frozen=True)
class Row:
    """How one case ended. `findings`: check -> verdict, of those that were expected or surprised;
    `differs`: check -> (verdict, expected), of those that were not as expected; `subject`: the
    digest of the binary, "" without one."""

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
        """What makes it the same run as another: the plan and the binary."""
        return (self.scenario, self.lab, self.version, self.plan, self.subject)


@dataclass(frozen=True)
class Night:
    """What one night was. `missing`: lab -> why nothing ran there; `unclassified`: releases no
    model runs."""

    day: str
    labs: tuple[str, ...]
    rows: tuple[Row, ...]
    missing: dict[str, str]
    versions: dict[str, tuple[str, ...]]
    unclassified: tuple[str, ...]
    real_s: float

    @property
    def exit_code(self) -> ExitCode:
        """The most serious of all, as with `meshwake run`; a missing lab counts as one that is not
        available."""
        codes = [ExitCode(row.exit_code) for row in self.rows]
        return most_serious([*codes, *(ExitCode.LAB_UNAVAILABLE for _ in self.missing)])


@dataclass
class Keeper:
    """The results on disk. `known`: what an earlier, broken off night left, if it is gone on with."""

    path: Path
    known: dict[tuple[str, ...], Row] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def keep(self, row: Row) -> Row:
        """`row` is on disk when this returns."""
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
        return row


def open_keeper(directory: Path, resume: bool, say: Callable[[str], None]) -> Keeper:
    """Results below `directory`. Raises BadInput when there are some already and nobody said to go
    on with them."""
    path = directory / RESULTS_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if path.exists() and not resume:
            raise BadInput(
                f"{path}: is there already; say --resume to go on with it, or choose another --out"
            )
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = list(_whole_rows(path, lines, say))
        path.write_text(
            "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows),
            encoding="utf-8",
        )
    except OSError as error:
        raise BadInput(
            f"{directory}: cannot be written ({error.strerror}); choose another --out"
        ) from error
    return Keeper(path, {row.key: row for row in rows})


def _whole_rows(path: Path, lines: Sequence[str], say: Callable[[str], None]) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        try:
            yield Row(**json.loads(line))
        except (ValueError, TypeError) as error:
            say(f"{path}:{number}: is no whole result ({error}); that case runs again")


# What runs where


def versions_on(lab: str, asked: Sequence[str], today: date) -> tuple[str, ...]:
    """The releases that are tried on `lab`, oldest first; of those `asked` for where some were."""
    rows = versions.releases()
    if lab == "kind":
        rows = tuple(row for row in rows if row.version in _pinned() and _is_supported(row, today))
    elif lab in ON_BINARIES:
        here = {versions.parse_version(binary.version) for binary in binaries.cached()}
        rows = tuple(row for row in rows if versions.parse_version(row.version) in here)
    else:
        rows = tuple(row for row in rows if row.classified)
    if lab == "machine":
        rows = versions.newest_of_each_minor(rows)
    wanted = {versions.find(version).version for version in asked}
    return tuple(row.version for row in rows if not wanted or row.version in wanted)


@cache
def _pinned() -> frozenset[str]:
    from meshwake.cluster.stack.pins import read_pins

    return frozenset(pin.version for pin in read_pins().istio.minor.values())


def _is_supported(row: versions.Release, today: date) -> bool:
    """Up to the month or the day of its end of life; a release without one is supported."""
    return not row.end_of_life or (
        row.end_of_life[:1].isdigit() and row.end_of_life >= today.isoformat()[:7]
    )


def why_missing(lab: str, found: Sequence[str]) -> str | None:
    """Why nothing can run on `lab`, or None. Raises BadInput when there is no such lab."""
    if lab not in LAB_MODULES:
        raise invalid_choice("--labs", lab, LAB_MODULES)
    if not found:
        what = (
            "no ztunnel binary of a known release in the cache"
            if lab in ON_BINARIES
            else "no release that fits"
        )
        return f"{what}; meshwake doctor says what belongs where"
    binary = binaries.find(found[-1]) if lab in ON_BINARIES else None
    return "; ".join(load_lab(lab).missing(binary.path if binary else None)) or None


@dataclass(frozen=True)
class Request:
    """What is asked of a night."""

    labs: tuple[str, ...]
    files: tuple[Path, ...]
    versions: tuple[str, ...] = ()
    seed: int = 0
    jobs: int = 1


def run_night(request: Request, keeper: Keeper, today: date, tell: Callable[[Row], None]) -> Night:
    """All of it. `tell` hears of every row, those that were known already too. Raises BadInput."""
    scenarios = [read_scenario(path) for path in scenario_files(request.files)]
    began_s, rows, missing, tried = (
        time.perf_counter(),
        list[Row](),
        dict[str, str](),
        dict[str, tuple[str, ...]](),
    )
    for lab in dict.fromkeys(request.labs):
        found = versions_on(lab, request.versions, today) if lab in LAB_MODULES else ()
        why = why_missing(lab, found)
        if why is not None:
            missing[lab] = why
            continue
        tried[lab] = found
        rows += _run_lab(request, lab, found, scenarios, keeper, tell)
    unclassified = tuple(row.version for row in versions.releases() if not row.classified)
    spent_s = time.perf_counter() - began_s
    return Night(
        today.isoformat(), tuple(request.labs), tuple(rows), missing, tried, unclassified, spent_s
    )


def _run_lab(
    request: Request,
    lab: str,
    found: Sequence[str],
    scenarios: Iterable[Scenario],
    keeper: Keeper,
    tell: Callable[[Row], None],
) -> list[Row]:
    options = Options(lab, tuple(found), seed=request.seed, keep_run=lab != "model")
    chooser = Chooser(options)
    cases = [
        case for scenario in scenarios if lab in scenario.labs for case in chooser.cases(scenario)
    ]

    def run(case: Case) -> Row:
        row = _run_one(case, options, keeper)
        tell(row)
        return row

    with ThreadPoolExecutor(request.jobs if lab in ON_BINARIES else 1) as pool:
        return list(pool.map(run, cases))


def _run_one(case: Case, options: Options, keeper: Keeper) -> Row:
    empty = _row_of(case)
    known = keeper.known.get(empty.key)
    if known is not None:
        return known
    if case.refusal is not None and not load_lab(case.lab).missing(case.ztunnel):
        return keeper.keep(replace(empty, outcome=LEFT_OUT, why=case.refusal))
    try:
        if case.refusal is not None:
            raise LabUnavailable(case.refusal)
        ending = Ending(case, run=run_case(case, options))
    except BadInput:
        raise
    except HarnessError as error:
        ending = Ending(case, error=error)
    return keeper.keep(_filled(empty, ending))


def _row_of(case: Case) -> Row:
    plan = case.plan.sha256[:16] if case.refusal is None else ""
    subject = binaries.sha256_of(case.ztunnel)[:16] if case.ztunnel is not None else ""
    return Row(case.scenario.name, case.lab, case.version, "", 0, "", plan, subject)


def _filled(row: Row, ending: Ending) -> Row:
    run = ending.run
    if run is None:
        return replace(
            row,
            outcome=ending.word,
            exit_code=int(ending.exit_code),
            why=str(ending.error),
            run=str(ending.evidence) if ending.evidence else None,
        )
    expected = [each for each in run.outcome.comparisons if each.expected is not None]
    return replace(
        row,
        outcome=run.outcome.kind.value,
        exit_code=int(run.outcome.exit_code),
        why=run.outcome.why,
        findings={each.finding.check: each.finding.verdict.value for each in expected},
        differs={
            each.finding.check: [
                each.finding.verdict.value,
                str(each.expected),
                each.finding.because,
            ]
            for each in expected
            if each.finding.verdict is not each.expected
        },
        run=str(run.path) if run.path else None,
        real_s=round(run.real_s, 3),
    )
