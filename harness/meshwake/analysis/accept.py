"""Updates a scenario's expectations from a run that surprised, with the run as evidence.

The user decides that the surprise is the expected verdict from now on. The old [[expect]] row ends
before the release of the run (`until`), and a row of what was found begins there. The file is
edited with tomlkit, so that comments and layout stay; the result is read back and compared with the
run before it is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tomlkit
from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import Version
from tomlkit.items import AoT, Table

from meshwake.checks.format import dated
from meshwake.core import versions
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.events import RunStarted
from meshwake.core.history import History
from meshwake.core.outcome import Comparison, OutcomeKind, Verdict
from meshwake.core.refusal import unreadable
from meshwake.core.run import Run
from meshwake.core.scenario import Expect, Scenario, parse_scenario
from meshwake.core.toml_text import aligned_table, append_aligned, give_trailing, take_trailing
from meshwake.runner.run import check_run
from meshwake.ztunnel import binaries


@dataclass(frozen=True)
class Change:
    """A scenario file before and after, and the change in sentences."""

    path: Path
    old: str
    new: str
    sentences: tuple[str, ...]

    @property
    def diff(self) -> str:
        """As `diff -u` shows it."""
        lines = difflib.unified_diff(
            self.old.splitlines(keepends=True),
            self.new.splitlines(keepends=True),
            str(self.path),
            str(self.path),
        )
        return "".join(lines)


def acceptance(run: Path, scenario_file: Path, today: str, because: str | None = None) -> Change:
    """The change that makes the surprises of the run saved at `run` the expectation of
    `scenario_file`. `because`: the reason to write; without one, what the check found. Raises
    BadInput when nothing surprised, or when the file has changed since the run was planned."""
    judged = check_run(run)
    if judged.plan.goal is not None:
        raise BadInput(
            f"{run}: was judged by --goal {judged.plan.goal}, not by the expectations of a scenario: "
            "run it again without --goal and --fix"
        )

    surprises = [row for row in judged.outcome.comparisons if row.kind is OutcomeKind.SURPRISE]
    if not surprises or judged.outcome.kind is OutcomeKind.UNKNOWN:
        why = dated(judged.outcome.why, judged.plan.dates)
        raise BadInput(f"{run}: is {judged.outcome.kind} ({why}): there is no surprise to accept")

    _check_release(run, judged)

    old = _read(scenario_file)
    text, sentences = old, []

    # One after the other: each is an edit of the text that the one before it left, in which rows
    # have moved.
    for row in surprises:
        text = _accept(text, scenario_file, judged, row, today, because)

        version = judged.plan.version
        sentences.append(
            f"{row.finding.check}: {row.expected} until {version}, {row.finding.verdict} "
            "from there on"
        )

    _check_result(text, scenario_file, judged, surprises)
    return Change(scenario_file, old, text, tuple(sentences))


def _read(scenario_file: Path) -> str:
    try:
        return scenario_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(scenario_file, error, "give its file with --scenario FILE") from error


def _check_release(run: Path, judged: Run) -> None:
    """Raises BadInput unless the binary is a clean build of the release whose expectation would be
    written: a build of one's own may contain any change."""
    version = versions.find(judged.plan.version).version
    for event in judged.history.of(RunStarted):
        subject = event.subject
        if not isinstance(subject, dict) or "sha256" not in subject:
            continue  # a model has no binary

        built_from = binaries.releases_of(str(subject.get("build", "")))
        if version in built_from:
            continue

        found = "does not know its own release"
        if built_from:
            found = f"is a build of {', '.join(built_from)}"
        raise BadInput(
            f"{run}: its ztunnel (sha256 {str(subject['sha256'])[:12]}) {found}, and {version} is "
            "what would be written; run the scenario on the released binary, a clean build of the "
            "commit that clusters/versions.toml has for it"
        )


def _accept(
    text: str, path: Path, judged: Run, row: Comparison, today: str, because: str | None
) -> str:
    """`text` with one surprise accepted."""
    plan = judged.plan
    scenario = parse_scenario(text, str(path), path.stem)
    position, expect = _covering(scenario, path, row.finding.check, plan.version)
    if expect.verdict != _written(row.expected):
        raise BadInput(
            f"{path}: expects {expect.verdict} of {row.finding.check} on {plan.version}, and the "
            f"run was planned with {_written(row.expected)}: run it again"
        )

    # A reason that was typed is better than what the check found: it says why that is right.
    reason = because or dated(row.finding.because, plan.dates)
    evidence = _evidence(judged, row, today)
    fresh = _new_row(expect, row, plan.version, evidence, reason)

    # Rows were cut out by regular expressions first, which took a line that begins with a bracket
    # inside of a value for a header.
    document = tomlkit.parse(text)
    rows = document["expect"]
    if not isinstance(rows, AoT):
        raise BadInput(f"{path}: expect is an array; write each row as a table [[expect]]")

    # The old row ends here, unless it began here: then it would be about no release.
    until = None if _begins_at(expect, plan.version) else plan.version
    _put_row(rows, position, fresh, until)
    return tomlkit.dumps(document)


def _put_row(rows: AoT, position: int, fresh: Table, until: str | None) -> None:
    """Puts `fresh` behind the row at `position`, which then ends at `until`; None: in its place,
    since no older release is left that the old row would be about."""
    old = rows[position]
    trailing = take_trailing(old)  # it belongs to the next row
    if until is not None:
        append_aligned(old, "until", until)
        old.add(tomlkit.nl())
        rows.insert(position + 1, fresh)
    else:
        rows[position] = fresh

    give_trailing(fresh, trailing)


def _written(verdict: Verdict | None) -> str:
    """A verdict as scenario files have it."""
    if verdict is None:
        return ""
    return verdict.value.lower()


def _covering(scenario: Scenario, path: Path, check: str, version: str) -> tuple[int, Expect]:
    """The row about `check` on `version`, and its position. Raises BadInput when there is none."""
    for position, expect in enumerate(scenario.expect):
        if expect.check == check and versions.covers(expect.versions, version, expect.until):
            return position, expect
    raise BadInput(f"{path}: expects nothing of {check} on {version} any more; run it again")


def _begins_at(expect: Expect, version: str) -> bool:
    """Whether `version` is the first release that `expect` is about."""
    for row in versions.releases():
        if versions.covers(expect.versions, row.version, expect.until):
            return Version(row.version) == Version(version)
    return False


def _new_row(expect: Expect, row: Comparison, version: str, evidence: str, because: str) -> Table:
    """The row that begins at `version`."""
    values = {
        "check": expect.check,
        "verdict": _written(row.finding.verdict),
        "versions": _range_from(expect, version),
    }
    if expect.until is not None:
        values["until"] = expect.until
    return aligned_table(values | {"because": because, "evidence": evidence})


def _range_from(expect: Expect, version: str) -> str:
    """The range of `expect` from `version` on: its upper bounds stay."""
    # A lower bound would be below the new one; an exclusion may still lie above it.
    upper = [str(each) for each in SpecifierSet(expect.versions) if _bounds_from_above(each)]
    return ",".join([f">={version}", *sorted(upper)])


def _bounds_from_above(specifier: Specifier) -> bool:
    return specifier.operator in ("<", "<=", "!=")


def _evidence(judged: Run, row: Comparison, today: str) -> str:
    """Where the new expectation comes from, in one line."""
    plan = judged.plan
    parts = [f"lab {plan.lab}, ztunnel {plan.version}", *_subjects(judged.history)]
    parts += [f"plan {plan.sha256[:12]}", f"seed {plan.seed}", f"accepted {today}"]
    parts.append(f"found: {row.finding.because}")
    parts += [evidence.text for evidence in row.finding.evidence[:1]]
    return dated("; ".join(parts), plan.dates)


def _subjects(history: History) -> Iterator[str]:
    for event in history.of(RunStarted):
        subject = event.subject
        if isinstance(subject, dict) and subject.get("sha256"):
            yield f"binary sha256 {str(subject['sha256'])[:12]}"


def _check_result(text: str, path: Path, judged: Run, surprises: Sequence[Comparison]) -> None:
    """Raises HarnessFault when the edited text does not expect what the run found, before it is
    written."""
    scenario, plan = parse_scenario(text, str(path), path.stem), judged.plan
    for row in surprises:
        verdicts = []
        for each in scenario.expect:
            if each.check != row.finding.check:
                continue
            if versions.covers(each.versions, plan.version, each.until):
                verdicts.append(each.verdict)

        # Exactly one row may be about the release: `run` refuses a scenario with two.
        if verdicts != [_written(row.finding.verdict)]:
            raise HarnessFault(
                f"{path}: the edit for {row.finding.check} came out wrong, so nothing was written"
            )
