"""Where a scenario runs: the cases of one scenario, each on one lab with one version, or refused
with the reason.

`--lab auto` is the process lab where a binary is found and the lab can run it, the model elsewhere;
a lab that was named is never replaced by another.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from meshwake.core import resources, versions
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.plan import Plan
from meshwake.core.refusal import invalid_choice
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import Expect, FixName, Scenario
from meshwake.core.scenario import Fix as ScenarioFix
from meshwake.core.text_files import is_there, read_text
from meshwake.fixes import FIXES, adapted, patch_of
from meshwake.fixes.patched import lacks_patch
from meshwake.labs import IN_REAL_TIME, LAB_MODULES, WITH_BINARY, load_lab
from meshwake.runner.flags import AUTO
from meshwake.runner.options import Options, command_line_of
from meshwake.runner.subjects import Subject, find_subjects


@dataclass(frozen=True)
class Case(PlanRequest):
    """A scenario chosen for one lab and one version, or, with `refusal`, the reason why it cannot
    run there."""

    ztunnel: Path | None = None
    chosen_because: str = ""
    refusal: str | None = None
    named_fix: str | None = None

    @property
    def id(self) -> str:
        """The name a person reads in a list: nightly_sleep[process-1.31.0]; with the fix where the
        command line names one."""
        fix = "" if self.named_fix is None else f"-{self.named_fix}"
        return f"{self.scenario.name}[{self.lab}-{self.version}{fix}]"

    @cached_property
    def plan(self) -> Plan:
        """The plan, with the settings that its fix changes. Raises BadInput when the scenario lacks
        what the lab needs, or a manifest is not what it should be."""
        return adapted(resolve(self))

    @property
    def repeat_command(self) -> str:
        """What to type to see the same again; "" for a scenario that no file holds."""
        # The timeline of a test, of a sweep or of the falsifier: its "path" is a name.
        if not self.scenario.path.endswith(".toml"):
            return ""

        return " ".join(
            [
                "meshwake run",
                shlex.quote(_typed_path(self.scenario.path)),
                # Written even where they are defaults: what `auto` chooses, and which release is
                # the newest, may be different on the day of the repetition.
                f"--lab {self.lab} --istio {self.version} --seed {self.seed}",
                *self._subject_words(),
                *self._judged_words(),
                *self._cluster_words(),
            ]
        )

    def _subject_words(self) -> list[str]:
        words = []
        if self.ztunnel is not None:
            words.append(f"--ztunnel {shlex.quote(str(self.ztunnel))}")

        # A model of another class than the release has is the choice of a person, with --as-class.
        own_class = versions.find(self.version).model_class
        if self.lab == "model" and self.behaviour_class != own_class:
            words.append(f"--as-class {self.behaviour_class}")
        return words

    def _judged_words(self) -> list[str]:
        # --fix implies the goal, which need not be typed too.
        if self.named_fix is not None:
            return [f"--fix {self.named_fix}"]

        if self.goal is not None:
            return [f"--goal {self.goal}"]
        return []

    def _cluster_words(self) -> list[str]:
        real_time = ["--real-time"] if self.real_time else []
        if self.cluster is None:
            return real_time

        # On lab kind only this clock has another time to run in.
        if self.cluster.clock == "process":
            return [*command_line_of(self.cluster), *real_time]
        return command_line_of(self.cluster)

    def require_runnable(self) -> None:
        """Raises LabUnavailable with the reason when the case was refused."""
        if self.refusal is not None:
            raise LabUnavailable(f"{self.id}: {self.refusal}")


def _typed_path(path: str) -> str:
    """A scenario that comes with an installed meshwake is typed by its name; a file by its path."""
    file = Path(path)
    if not resources.is_checkout() and file.is_relative_to(resources.SCENARIOS):
        return file.relative_to(resources.SCENARIOS).with_suffix("").as_posix()
    return path


def choose(scenario: Scenario, options: Options) -> tuple[Case, ...]:
    """The cases of one scenario: where it runs and why, or why it does not."""
    return Chooser(options).cases(scenario)


@dataclass
class Chooser:
    """Decides where scenarios run. It examines the binary and the machine once, however many
    scenarios there are."""

    options: Options
    _subjects: tuple[Subject, ...] = field(init=False)
    _missing: dict[tuple[str, Path | None], list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        _check_lab_name(self.options.lab)
        if self.options.as_class is not None:
            versions.check_class(self.options.as_class)
        self._subjects = find_subjects(self.options)

    def cases(self, scenario: Scenario) -> tuple[Case, ...]:
        """One case for each version under test and each fix that was named. Raises BadInput when
        the scenario and its files do not fit together."""
        check_ranges(scenario)
        if not self.options.fixes:
            return tuple(self._case(scenario, subject) for subject in self._subjects)

        found = []
        for fix in self.options.fixes:
            deployed = with_fix(scenario, fix)
            for subject in self._subjects:
                case = self._case(deployed, subject)
                # Named in its id too: the same scenario runs once for each fix.
                found.append(replace(case, named_fix=fix))
        return tuple(found)

    def _case(self, scenario: Scenario, subject: Subject) -> Case:
        options = self.options
        base = Case(
            scenario=scenario,
            lab=options.lab,
            version=subject.version,
            behaviour_class="",  # filled in by _on, with the lab
            seed=options.seed,
            real_time=options.real_time or self._lab_runs_in_real_time(),
            manifest=read_manifest(scenario),
            cluster=options.cluster if options.lab == "kind" else None,
            goal=options.goal,
        )

        # A binary that was typed is wanted on a real lab: the model would silently not use it.
        if options.lab == AUTO and options.ztunnel is None:
            return self._automatic(base, subject)
        return self._named(base, subject)

    def _lab_runs_in_real_time(self) -> bool:
        return self.options.lab in IN_REAL_TIME and not self.options.cluster.lapse

    def _named(self, base: Case, subject: Subject) -> Case:
        """The case on the lab that was named, or, where only a binary was, on the process lab."""
        if self.options.lab == AUTO:
            lab, because = "process", "process: chosen with --ztunnel"
        else:
            lab, because = self.options.lab, f"{self.options.lab}: chosen with --lab"

        if lab in WITH_BINARY and subject.ztunnel is not None:
            because += f"; ztunnel {subject.version} {subject.found}"

        return self._judged(_on(base, lab, subject, because, self.options.as_class))

    def _automatic(self, base: Case, subject: Subject) -> Case:
        """The process lab where it can run this, else the model with the reason."""
        because = f"process: ztunnel {subject.version} {subject.found}"
        # A class is the model's: a real ztunnel behaves as it is.
        process = self._judged(_on(base, "process", subject, because, as_class=None))
        if process.refusal is None:
            return process

        # Without --istio the subject is what the cache has; the model needs no binary, so it can be
        # of the newest release that is known.
        if not self.options.istio:
            subject = replace(subject, version=versions.newest().version)
        because = f"model: {process.refusal}"
        return self._judged(_on(base, "model", subject, because, self.options.as_class))

    def _judged(self, case: Case) -> Case:
        """`case`, refused where it cannot run. One that can stays the same object, and keeps the
        plan that was made to find this out."""
        refusal = self._refusal(case)
        if refusal is None:
            return case
        return replace(case, refusal=refusal)

    def _refusal(self, case: Case) -> str | None:
        """Why `case` cannot run, in one sentence, or None. The plan is made only where nothing
        simpler refuses it: without its [real_time] table a scenario has none."""
        reason = self._refusal_without_plan(case)
        if reason is not None:
            return reason

        # What the machine lacks comes first: where a lab cannot run at all, what it would refuse of
        # this plan does not matter.
        reasons = self._missing_for(case)
        if not reasons:
            reasons = load_lab(case.lab).refusals(case.plan)

        if case.ztunnel is not None:
            # A fix that is a patch of ztunnel needs a binary that was built with it.
            unpatched = lacks_patch(patch_of(case.plan), case.ztunnel)
            if unpatched is not None:
                reasons = [*reasons, unpatched]
        return "; ".join(reasons) or None

    def _refusal_without_plan(self, case: Case) -> str | None:
        if case.lab not in case.scenario.labs:
            return f"the scenario names only {', '.join(case.scenario.labs)} in 'labs'"

        if case.real_time and case.scenario.real_time is None:
            return (
                "the scenario has no [real_time] table, whose numbers fit a run in real time; add "
                "one, or skip idle time with --clock process and without --real-time"
            )

        # The rest is about a ztunnel of this machine; lab kind has its own in containers.
        if case.lab not in WITH_BINARY:
            return None
        if not sys.platform.startswith("linux"):
            return f"the {case.lab} lab needs Linux"
        if case.ztunnel is None:
            return _no_binary(case.version, named=bool(self.options.istio))
        return None

    def _missing_for(self, case: Case) -> list[str]:
        """What this machine lacks. A cluster that exists needs no tools to bring one up."""
        if case.cluster is not None and case.cluster.kubeconfig is not None:
            return []

        # Examined once for each lab and binary: lab process starts a program to see whether
        # namespaces are allowed, and the corpus has dozens of scenarios.
        key = (case.lab, case.ztunnel)
        if key not in self._missing:
            self._missing[key] = load_lab(case.lab).missing(case.ztunnel)
        return self._missing[key]


def _check_lab_name(lab: str) -> None:
    allowed = (AUTO, *LAB_MODULES)
    if lab not in allowed:
        raise invalid_choice("--lab", lab, allowed)


def _no_binary(version: str, named: bool) -> str:
    """`named`: the version was given, and its binary is not in the cache."""
    which = f" for {version}" if named else ""
    return f"no ztunnel binary{which} in the cache (meshwake fetch {version}, or --ztunnel PATH)"


def _on(case: Case, lab: str, subject: Subject, because: str, as_class: str | None) -> Case:
    """`case` on `lab`, with the expectations of its version, and its class or that which a person
    named."""
    release = versions.find(subject.version)

    # What the model of a release takes for granted is part of the reason why it is believed.
    assumed = f"taken as class {as_class}" if as_class else release.assumption
    if lab == "model" and assumed:
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


# --- What a case takes from the scenario and its files --------------------------------------------


def check_ranges(scenario: Scenario) -> None:
    """Raises BadInput when an expectation covers no release at all: a typing error in a range would
    never be noticed."""
    known = versions.releases()
    for position, row in enumerate(scenario.expect):
        covered = [versions.covers(row.versions, each.version, row.until) for each in known]
        if any(covered):
            continue

        until = f" until {row.until}" if row.until else ""
        raise BadInput(
            f"{scenario.path}: expect[{position}].versions: {row.versions!r}{until} covers no "
            f"release of clusters/versions.toml, which has {known[0].version} to "
            f"{known[-1].version}"
        )


def _expectations(scenario: Scenario, version: str) -> tuple[Expect, ...]:
    rows = tuple(
        row for row in scenario.expect if versions.covers(row.versions, version, row.until)
    )

    # Two rows for one check contradict each other, or one of them is never compared.
    for check, times in Counter(row.check for row in rows).items():
        if times > 1:
            raise BadInput(
                f"{scenario.path}: expect: {times} rows for {check} cover {version}; "
                "narrow their 'versions', or end one with 'until', so that only one does"
            )
    return rows


def with_fix(scenario: Scenario, name: FixName) -> Scenario:
    """`scenario` with the fix `name` deployed instead of its own, as this repository has it."""
    fix = None if name == "none" else ScenarioFix(name=name)
    return scenario.model_copy(update={"fix": fix})


def read_manifest(scenario: Scenario) -> str | None:
    """The text of the fix's manifest: the user's own, or the one of this repository; None without a
    fix. Raises BadInput when it cannot be read."""
    if scenario.fix is None:
        return None
    if scenario.fix.manifest is None:
        return FIXES[scenario.fix.name].read_manifest()

    # Next to the scenario, as a user has it; or from the root, as the corpus writes it.
    folders = (Path(scenario.path).parent, resources.ROOT)
    for folder in folders:
        path = folder / scenario.fix.manifest
        if is_there(path):
            # With a byte order mark, or lines that end as on Windows, a script is not executable
            # for the kernel: both stay, so that the fix fails here as it would there.
            return read_text(path, keep_mark=True)

    looked = " or ".join(str((folder / scenario.fix.manifest).parent) for folder in folders)
    raise BadInput(
        f"{scenario.path}: fix.manifest: read {scenario.fix.manifest!r}, which is not a file "
        f"in {looked}"
    )
