"""The way of a scenario: one list of steps, behind every door.

    files ── read ──> scenarios ── choose ──> cases ── run each ──> endings
    case ── plan ──> run on its lab ──> judge ──> compare ──> save

Each step takes the value of the step before and returns a richer one; to stop early it raises a
HarnessError, which owns an exit code. The command line, pytest and the nightly job only turn their
options into `Options` and show what came out.
"""

from __future__ import annotations

import difflib
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from meshwake.checks import judge
from meshwake.core import resources, versions
from meshwake.core.errors import (
    BadInput,
    ExitCode,
    HarnessError,
    HarnessFault,
    LabUnavailable,
    SubjectFailed,
)
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Finding, Outcome, OutcomeKind, compare
from meshwake.core.plan import Case, Plan, PlannedCluster, resolve
from meshwake.core.scenario import Expect, LabName, Scenario, read_scenario
from meshwake.core.store import RunDirectory, SavedRun, open_run, read_run
from meshwake.core.text_files import is_there, read_text
from meshwake.fixes import FIXES, adapted, patch_of
from meshwake.fixes.patched import lacks_patch
from meshwake.labs import IN_REAL_TIME, LAB_MODULES, WITH_BINARY, Toolbox, load_lab
from meshwake.report.result import Summary, result, summarise
from meshwake.runner.execution import execute
from meshwake.ztunnel import binaries

AUTO = "auto"
# Of several runs the most serious ending is the exit code: whose turn it is to act, the furthest
# from a verdict first.
MOST_SERIOUS_FIRST = (
    ExitCode.HARNESS_FAULT,
    ExitCode.BAD_INPUT,
    ExitCode.LAB_UNAVAILABLE,
    ExitCode.SURPRISE,
    ExitCode.UNKNOWN,
    ExitCode.AS_EXPECTED,
)


@dataclass(frozen=True)
class Options:
    """What the doors let a person say; the words are those of the command line."""

    lab: str = AUTO
    istio: tuple[str, ...] = ()
    ztunnel: Path | None = None
    seed: int = 0
    keep_run: bool = False
    real_time: bool = False
    cluster: PlannedCluster = field(default_factory=PlannedCluster)  # for lab kind
    as_class: str | None = None  # for lab model


Progress = Callable[[int], None]


def _no_progress(world_ns: int) -> None:
    """Nobody watches."""


# --- A suite: several files -----------------------------------------------------------------------


@dataclass(frozen=True)
class Ending:
    """How one case ended: with a saved run, or with the error that stopped it."""

    case: Case
    run: Saved | None = None
    error: HarnessError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of this case alone."""
        if self.error is not None:
            return self.error.exit_code
        return self.run.outcome.exit_code if self.run else ExitCode.HARNESS_FAULT


@dataclass(frozen=True)
class Suite:
    """What was asked for, and what has become of it so far. `watch` is called with each case before
    it runs, `tell` with how it ended."""

    paths: tuple[Path, ...]
    options: Options
    watch: Callable[[Case], Progress] = lambda case: _no_progress
    tell: Callable[[Ending], None] = lambda ending: None
    scenarios: tuple[Scenario, ...] = ()
    cases: tuple[Case, ...] = ()
    endings: tuple[Ending, ...] = ()


def read(suite: Suite) -> Suite:
    """Reads every file before any runs, and refuses all the bad ones at once."""
    scenarios, refusals = [], []
    for path in scenario_files(suite.paths):
        try:
            scenarios.append(read_scenario(path))
        except BadInput as error:
            refusals.append(str(error))
    if refusals:
        raise BadInput("\n".join(refusals))
    return replace(suite, scenarios=tuple(scenarios))


def choose_cases(suite: Suite) -> Suite:
    """Says for every scenario on which lab and which versions it is to run."""
    chooser = Chooser(suite.options)
    return replace(
        suite, cases=tuple(case for scenario in suite.scenarios for case in chooser.cases(scenario))
    )


def run_cases(suite: Suite) -> Suite:
    """Runs one case after another; an error ends its own case only."""
    endings = []
    for case in suite.cases:
        try:
            refuse(case)
            ending = Ending(case, run=run_case(case, suite.options, suite.watch(case)))
        except HarnessError as error:
            ending = Ending(case, error=error)
        suite.tell(ending)
        endings.append(ending)
    return replace(suite, endings=tuple(endings))


SUITE_STEPS: tuple[Callable[[Suite], Suite], ...] = (read, choose_cases, run_cases)


def run_suite(suite: Suite) -> Suite:
    """Takes `suite` through all its steps."""
    for step in SUITE_STEPS:
        suite = step(suite)
    return suite


def summary_of(ending: Ending) -> Summary:
    """The row of one case in a table of many, whether it ran or not."""
    case, run = ending.case, ending.run
    if run is not None:
        return summarise(
            run.plan, run.history, run.outcome, run.directory.path if run.kept else None
        )
    word = "refused" if ending.exit_code is ExitCode.LAB_UNAVAILABLE else "error"
    evidence = ending.error.evidence if ending.error else None
    return Summary(
        case.scenario.name, case.lab, case.version, word, why=str(ending.error), run=evidence
    )


def scenario_files(paths: Iterable[Path]) -> list[Path]:
    """The files named, and those in the directories named. Raises BadInput for a directory without
    any."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*.toml")) if path.is_dir() else [path]
        if not inside:
            raise BadInput(f"{path}: holds no scenario (*.toml); see scenarios/README.md")
        files += inside
    return files


def most_serious(codes: Iterable[ExitCode]) -> ExitCode:
    """The exit code of several runs together."""
    return min(codes, key=MOST_SERIOUS_FIRST.index, default=ExitCode.AS_EXPECTED)


# --- A case: one scenario on one lab and one version ----------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """A case about to run."""

    case: Case
    options: Options
    progress: Progress


@dataclass(frozen=True)
class Planned(Chosen):
    """... with nothing left open, and a directory that has the plan in it."""

    plan: Plan
    directory: RunDirectory


@dataclass(frozen=True)
class Judged(Planned):
    """... with what happened, what it cost in real time, and what every check says of it."""

    history: History
    real_s: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Compared(Judged):
    """... with findings set against expectations."""

    outcome: Outcome


@dataclass(frozen=True)
class Saved(Compared):
    """... with the result that --json prints; `kept` says whether the directory still exists."""

    result: dict[str, Any]
    kept: bool


def refuse(case: Case) -> None:
    """Raises LabUnavailable with the reason when the case was refused. It may not even have a plan."""
    if case.refusal is not None:
        raise LabUnavailable(f"{case.id}: {case.refusal}")


def plan_case(chosen: Chosen) -> Planned:
    """Raises LabUnavailable with the reason when the case was refused."""
    refuse(chosen.case)
    plan = adapted(resolve(chosen.case))
    return Planned(**vars(chosen), plan=plan, directory=open_run(plan))


def execute_plan(planned: Planned) -> Judged:
    """Only here something happens; every event is on disk before the next."""
    toolbox = Toolbox(planned.case.ztunnel, planned.directory.logs, planned.progress)
    began_s = time.perf_counter()
    executed = execute(planned.plan, toolbox, Recorder(planned.directory.history))
    real_s = time.perf_counter() - began_s
    return Judged(
        **vars(planned), history=executed.history, real_s=real_s, findings=executed.findings
    )


def compare_findings(judged: Judged) -> Compared:
    """Sets findings against expectations."""
    return Compared(**vars(judged), outcome=compare(judged.plan, judged.findings))


def save(compared: Compared) -> Saved:
    """Keeps a surprise, an unknown and what was asked for; removes the rest."""
    report = result(compared.plan, compared.history, compared.outcome, compared.real_s)
    kept = compared.options.keep_run or compared.outcome.kind is not OutcomeKind.AS_EXPECTED
    if kept:
        compared.directory.save_result(report)
        compared.directory.keep()
    else:
        compared.directory.remove()
    return Saved(**vars(compared), result=report, kept=kept)


CASE_STEPS: tuple[Callable[[Any], Any], ...] = (plan_case, execute_plan, compare_findings, save)


def run_case(case: Case, options: Options, progress: Progress = _no_progress) -> Saved:
    """Takes `case` through all its steps. Raises HarnessError, which says where the evidence lies
    if there is any."""
    value: Any = Chosen(case, options, progress)
    try:
        for step in CASE_STEPS:
            value = step(value)
    except (BadInput, LabUnavailable, KeyboardInterrupt):
        _drop_evidence(value)
        raise
    except (SubjectFailed, HarnessFault) as error:
        _point_to_evidence(value, error)
        raise
    except Exception as error:
        fault = HarnessFault(
            f"{case.id}: this is a fault of meshwake: {type(error).__name__}: {error}"
        )
        _point_to_evidence(value, fault)
        _save_traceback(value, error)
        raise fault from error
    saved: Saved = value
    return saved


def _drop_evidence(value: Chosen) -> None:
    if isinstance(value, Planned) and not value.options.keep_run:
        value.directory.remove()


def _point_to_evidence(value: Chosen, error: HarnessError) -> None:
    if isinstance(value, Planned):
        error.evidence = value.directory.path


def _save_traceback(value: Chosen, error: Exception) -> None:
    if isinstance(value, Planned):
        text = "".join(traceback.format_exception(error))
        (value.directory.logs / "traceback.txt").write_text(text, encoding="utf-8")


# --- A saved run judged again ---------------------------------------------------------------------


@dataclass(frozen=True)
class Rejudged:
    """A saved run under today's checks and the expectations it was planned with."""

    saved: SavedRun
    outcome: Outcome
    result: dict[str, Any]


def check_run(path: Path) -> Rejudged:
    """Judges the run saved at `path` again. Raises BadInput when it is none."""
    saved = read_run(path)
    outcome = compare(saved.plan, judge(saved.plan, saved.history))
    return Rejudged(saved, outcome, result(saved.plan, saved.history, outcome, saved.real_s))


# --- Choosing a lab and a version -----------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """The release under test and its binary, as far as one is known; `found` says where the binary
    comes from."""

    version: str
    ztunnel: Path | None
    found: str


@dataclass
class Chooser:
    """Decides where scenarios run. It asks the binary and the machine once, however many scenarios
    there are."""

    options: Options
    _subjects: tuple[_Subject, ...] = field(init=False)
    _missing: dict[tuple[str, Path | None], list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        _check_lab_word(self.options.lab)
        if self.options.as_class is not None:
            versions.check_class(self.options.as_class)
        self._subjects = _find_subjects(self.options)

    def cases(self, scenario: Scenario) -> tuple[Case, ...]:
        """One case for each version asked for. Raises BadInput when the scenario and its files do
        not fit together."""
        _check_ranges(scenario)
        return tuple(self._case(scenario, subject) for subject in self._subjects)

    def _case(self, scenario: Scenario, subject: _Subject) -> Case:
        base = Case(
            scenario=scenario,
            lab=self.options.lab,
            version=subject.version,
            behaviour_class="",
            seed=self.options.seed,
            real_time=self.options.real_time
            or (self.options.lab in IN_REAL_TIME and not self.options.cluster.lapse),
            manifest=_read_manifest(scenario),
            cluster=self.options.cluster if self.options.lab == "kind" else None,
        )
        if self.options.lab == AUTO and self.options.ztunnel is None:
            return self._automatic(base, subject)
        lab = "process" if self.options.lab == AUTO else self.options.lab
        asked = f"{lab}: asked for with {'--ztunnel' if self.options.lab == AUTO else '--lab'}"
        if lab in WITH_BINARY and subject.ztunnel is not None:
            asked += f"; ztunnel {subject.version} {subject.found}"
        case = _on(base, lab, subject, asked, self.options.as_class)
        return replace(case, refusal=self._refusal(case))

    def _automatic(self, base: Case, subject: _Subject) -> Case:
        process = _on(
            base, "process", subject, f"process: ztunnel {subject.version} {subject.found}", None
        )
        why_not = self._refusal(process)
        if why_not is None:
            return process
        on_model = (
            subject if self.options.istio else replace(subject, version=versions.newest().version)
        )
        model = _on(base, "model", on_model, f"model: {why_not}", self.options.as_class)
        return replace(model, refusal=self._refusal(model))

    def _refusal(self, case: Case) -> str | None:
        """Why `case` cannot run, in one sentence, or None."""
        if case.lab not in case.scenario.labs:
            return f"the scenario names only {', '.join(case.scenario.labs)} in 'labs'"
        if case.lab in WITH_BINARY and not sys.platform.startswith("linux"):
            return f"the {case.lab} lab needs Linux"
        if case.lab in WITH_BINARY and case.ztunnel is None:
            return _no_binary(case.version, asked=bool(self.options.istio))
        if case.real_time and case.scenario.real_time is None:
            return "the scenario has no [real_time] table"
        missing = [] if self._has_cluster(case) else self._missing_on(case.lab, case.ztunnel)
        plan = adapted(resolve(case))
        reasons = missing or load_lab(case.lab).refusals(plan)
        if (
            case.ztunnel is not None
            and (unfit := lacks_patch(patch_of(plan), case.ztunnel)) is not None
        ):
            reasons = [*reasons, unfit]
        return "; ".join(reasons) or None

    def _has_cluster(self, case: Case) -> bool:
        """Whether nothing needs to be brought up: then the tools for that may be missing."""
        return case.cluster is not None and case.cluster.kubeconfig is not None

    def _missing_on(self, lab: str, ztunnel: Path | None) -> list[str]:
        if (lab, ztunnel) not in self._missing:
            self._missing[lab, ztunnel] = load_lab(lab).missing(ztunnel)
        return self._missing[lab, ztunnel]


def choose(scenario: Scenario, options: Options) -> tuple[Case, ...]:
    """The cases of one scenario: where it runs and why, or why it does not."""
    return Chooser(options).cases(scenario)


def _check_lab_word(lab: str) -> None:
    allowed = (AUTO, *LAB_MODULES)
    if lab not in allowed:
        near = difflib.get_close_matches(lab, (*allowed, *get_args(LabName)), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"--lab {lab}: is no lab; allowed: {', '.join(allowed)}{hint}")


def _find_subjects(options: Options) -> tuple[_Subject, ...]:
    if options.ztunnel is not None:
        return (_given_binary(options.ztunnel, options),)
    if options.istio:
        return tuple(_wanted_version(version) for version in dict.fromkeys(options.istio))
    if options.lab == "kind":
        return (_Subject(_of_the_cluster(options.cluster), None, ""),)
    known = {release.version for release in versions.releases()}
    for binary in reversed(binaries.cached()):
        if binary.version in known:
            return (_Subject(binary.version, binary.path, "in the cache"),)
    return (_Subject(versions.newest().version, None, ""),)


def _of_the_cluster(cluster: PlannedCluster) -> str:
    """The release of the cluster that a run would use, or of the one that would be made."""
    from meshwake.cluster.choosing import version_there
    from meshwake.cluster.stack.choice import choose_stack
    from meshwake.cluster.stack.pins import read_pins

    return version_there(cluster) or choose_stack(read_pins()).istio


def _wanted_version(version: str) -> _Subject:
    release = versions.find(version)
    binary = binaries.find(release.version)
    return _Subject(release.version, binary.path if binary else None, "in the cache")


def _given_binary(path: Path, options: Options) -> _Subject:
    if options.lab in ("model", "kind"):
        raise BadInput(
            f"--ztunnel {path}: lab {options.lab} runs no binary; leave it out, or say "
            "--lab process"
        )
    if len(options.istio) > 1:
        raise BadInput(
            f"--ztunnel {path}: is one binary and cannot be {len(options.istio)} versions; "
            "give one --istio"
        )
    identity = binaries.identify(path)
    return _Subject(
        _version_of(identity, options.istio[:1]), identity.path, f"given with --ztunnel {path}"
    )


def _version_of(identity: binaries.Identity, said: tuple[str, ...]) -> str:
    own = identity.own_version
    if not said:
        if own is None:
            raise BadInput(
                f"--ztunnel {identity.path}: does not know its own version (somebody built it); "
                "say which release it was built from: --istio VERSION"
            )
        try:
            return versions.find(own).version
        except BadInput as error:
            raise BadInput(
                f"--ztunnel {identity.path}: says it is {own}, which has no row in "
                "clusters/versions.toml; "
                "say which release it is nearest to: --istio VERSION"
            ) from error
    wanted = versions.find(said[0]).version
    if own is not None and _has_row(own) and versions.find(own).version != wanted:
        raise BadInput(
            f"--ztunnel {identity.path}: says it is {own}, --istio says {wanted}; leave --istio out"
        )
    return wanted


def _has_row(version: str) -> bool:
    return versions.has_row(version)


def _no_binary(version: str, asked: bool) -> str:
    place = binaries.place_of(version if asked else "VERSION")
    return (
        f"no ztunnel binary{f' for {version}' if asked else ''} (put one at {place} or pass "
        "--ztunnel PATH)"
    )


def _on(case: Case, lab: str, subject: _Subject, because: str, as_class: str | None) -> Case:
    """`case` on `lab`, with the expectations of its version, and its class or that which a person
    named."""
    release = versions.find(subject.version)
    if lab == "model" and (
        assumed := f"taken as class {as_class}" if as_class else release.assumption
    ):
        because += f"; {assumed}"
    return replace(
        case,
        lab=lab,
        version=subject.version,
        behaviour_class=as_class or release.model_class,
        expectations=_expectations(case.scenario, subject.version),
        ztunnel=subject.ztunnel if lab in WITH_BINARY else None,
        chosen_because=because,
    )


def _check_ranges(scenario: Scenario) -> None:
    """Raises BadInput when an expectation is about no release at all: a typing error would never be
    noticed."""
    for position, row in enumerate(scenario.expect):
        if not any(
            versions.covers(row.versions, known.version, row.until) for known in versions.releases()
        ):
            until = f" until {row.until}" if row.until else ""
            first, last = versions.releases()[0].version, versions.releases()[-1].version
            raise BadInput(
                f"{scenario.path}: expect[{position}].versions: {row.versions!r}{until} "
                "covers no release of "
                f"clusters/versions.toml, which has {first} to {last}"
            )


def _expectations(scenario: Scenario, version: str) -> tuple[Expect, ...]:
    rows = tuple(
        row for row in scenario.expect if versions.covers(row.versions, version, row.until)
    )
    checks = [row.check for row in rows]
    for check in checks:
        if checks.count(check) > 1:
            raise BadInput(
                f"{scenario.path}: expect: {checks.count(check)} rows for {check} cover {version}; "
                "narrow their 'versions', or end one with 'until', so that one of them does"
            )
    return rows


def _read_manifest(scenario: Scenario) -> str | None:
    if scenario.fix is None:
        return None
    if scenario.fix.manifest is None:
        return FIXES[scenario.fix.name].read_manifest()
    places = [base / scenario.fix.manifest for base in (Path(scenario.path).parent, resources.ROOT)]
    for place in places:
        if is_there(place):
            # A script that begins with a mark, or whose lines end as on Windows, is none to a
            # kernel.
            return read_text(place, keep_mark=True)
    looked = " or ".join(str(place.parent) for place in places)
    raise BadInput(
        f"{scenario.path}: fix.manifest: read {scenario.fix.manifest!r}, which is no file "
        f"in {looked}"
    )
