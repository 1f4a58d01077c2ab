"""A surprise becomes the known truth: by somebody's decision, in the scenario file, with its
evidence.

The row of the old truth ends before the release that surprised (`until`), and a row of what was
found begins there. The file is edited as text, so that comments and order stay, and the result is
read back and compared with the run before it is written: what it then expects is what was found,
and nothing else has changed.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import Version

from meshwake.core import versions
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.history import History
from meshwake.core.outcome import Comparison, OutcomeKind, Verdict
from meshwake.core.run import Run
from meshwake.core.scenario import Expect, Scenario, parse_scenario
from meshwake.runner.run import check_run
from meshwake.ztunnel import binaries

_HEADER = re.compile(r"^\s*\[\[\s*expect\s*\]\]")
_ANY_HEADER = re.compile(r"^\s*\[")
_KEY = re.compile(r"^(\s*)([A-Za-z_]+)(\s*)=")


@dataclass(frozen=True)
class Change:
    """What is to be written, and how it differs from what is there."""

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
    """The change that makes the truth of what surprised in `run`. `because`: the reason that a
    person gives; without, what the check found. Raises BadInput when nothing surprised, or the file
    is not what the run was planned from."""
    judged = check_run(run)
    surprises = [row for row in judged.outcome.comparisons if row.kind is OutcomeKind.SURPRISE]
    if not surprises or judged.outcome.kind is OutcomeKind.UNKNOWN:
        raise BadInput(
            f"{run}: is {judged.outcome.kind} ({judged.outcome.why}): there is no surprise "
            "to accept"
        )
    _check_release(run, judged)
    try:
        old = scenario_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{scenario_file}: cannot be read ({error}); say which with --scenario PATH"
        ) from error
    text, sentences = old, []
    for row in surprises:
        text = _accept(text, scenario_file, judged, row, today, because)
        version = judged.plan.version
        sentences.append(
            f"{row.finding.check}: {row.expected} until {version}, {row.finding.verdict} "
            "from there on"
        )
    _check_result(text, scenario_file, judged, surprises)
    return Change(scenario_file, old, text, tuple(sentences))


def _check_release(run: Path, judged: Run) -> None:
    """Raises BadInput unless the binary is the release whose truth would be written: of one that
    somebody built only its owner knows what it was built from, and with which changes."""
    version = versions.find(judged.plan.version).version
    for event in judged.history.of("run_started"):
        subject = event["subject"]
        if not isinstance(subject, dict) or "sha256" not in subject:
            continue
        built_from = binaries.releases_of(str(subject.get("build", "")))
        if version not in built_from:
            found = (
                f"is a build of {', '.join(built_from)}"
                if built_from
                else "does not know its own release"
            )
            raise BadInput(
                f"{run}: its ztunnel (sha256 {str(subject['sha256'])[:12]}) {found}, and "
                f"{version} is what would be "
                "written; run the scenario on the released binary, a clean build of the "
                "commit that "
                "clusters/versions.toml has for it"
            )


def _accept(
    text: str, path: Path, judged: Run, row: Comparison, today: str, because: str | None
) -> str:
    plan = judged.plan
    scenario = parse_scenario(text, str(path), path.stem)
    place, expect = _covering(scenario, path, row.finding.check, plan.version)
    if expect.verdict != _word(row.expected):
        raise BadInput(
            f"{path}: expects {expect.verdict} of {row.finding.check} on {plan.version}, "
            "and the run was planned with "
            f"{_word(row.expected)}: run it again"
        )
    lines = text.splitlines(keepends=True)
    begin, end = _blocks(lines)[place]
    fresh = _fresh_row(
        expect, row, plan.version, _evidence(judged, row, today), because or row.finding.because
    )
    if _begins_at(expect, plan.version):
        # Nothing older is left of the old truth: its row becomes the new one.
        return "".join([*lines[:begin], *fresh, *lines[end:]])
    ended = _with_until(lines[begin:end], plan.version)
    return "".join([*lines[:begin], *ended, "\n", *fresh, *lines[end:]])


def _word(verdict: Verdict | None) -> str:
    return "" if verdict is None else verdict.value.lower()


def _covering(scenario: Scenario, path: Path, check: str, version: str) -> tuple[int, Expect]:
    for place, expect in enumerate(scenario.expect):
        if expect.check == check and versions.covers(expect.versions, version, expect.until):
            return place, expect
    raise BadInput(f"{path}: expects nothing of {check} on {version} any more; run it again")


def _blocks(lines: Sequence[str]) -> list[tuple[int, int]]:
    """Where each [[expect]] begins and ends, without the blank lines and comments that follow it."""
    begins = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    blocks = []
    for begin in begins:
        after = next(
            (n for n in range(begin + 1, len(lines)) if _ANY_HEADER.match(lines[n])), len(lines)
        )
        end = after
        while end > begin + 1 and (
            not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")
        ):
            end -= 1
        blocks.append((begin, end))
    return blocks


def _begins_at(expect: Expect, version: str) -> bool:
    """Whether `version` is the first release that `expect` is about."""
    covered = [
        row
        for row in versions.releases()
        if versions.covers(expect.versions, row.version, expect.until)
    ]
    return bool(covered) and Version(covered[0].version) == Version(version)


def _with_until(block: Sequence[str], version: str) -> list[str]:
    lines = [
        line if line.endswith("\n") else f"{line}\n" for line in block if not _is_key(line, "until")
    ]
    width = max(
        (len(match[2] + match[3]) for line in lines if (match := _KEY.match(line))), default=6
    )
    after = next((n for n, line in enumerate(lines) if _is_key(line, "versions")), None)
    if after is None:
        after = next(n for n, line in enumerate(lines) if _is_key(line, "verdict"))
    return [*lines[: after + 1], f'{"until":<{width}}= "{version}"\n', *lines[after + 1 :]]


def _is_key(line: str, key: str) -> bool:
    match = _KEY.match(line)
    return match is not None and match[2] == key


def _fresh_row(
    expect: Expect, row: Comparison, version: str, evidence: str, because: str
) -> list[str]:
    values = {
        "check": expect.check,
        "verdict": _word(row.finding.verdict),
        "versions": _rest(expect, version),
    }
    if expect.until is not None:
        values["until"] = expect.until
    values |= {"because": because, "evidence": evidence}
    # JSON writes a string as TOML's basic strings are written.
    return [
        "[[expect]]\n",
        *(f"{key:<8} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()),
    ]


def _rest(expect: Expect, version: str) -> str:
    """The range of `expect` from `version` on: its upper bounds stay."""
    upper = [str(each) for each in SpecifierSet(expect.versions) if _bounds_from_above(each)]
    return ",".join([f">={version}", *sorted(upper)])


def _bounds_from_above(specifier: Specifier) -> bool:
    return specifier.operator in ("<", "<=", "!=")


def _evidence(judged: Run, row: Comparison, today: str) -> str:
    plan = judged.plan
    words = [
        f"lab {plan.lab}, ztunnel {plan.version}",
        *_subject(judged.history),
        f"plan {plan.sha256[:12]}",
    ]
    words += [f"seed {plan.seed}", f"accepted {today}", f"found: {row.finding.because}"]
    return "; ".join([*words, *(place.text for place in row.finding.evidence[:1])])


def _subject(history: History) -> Iterator[str]:
    for event in history.of("run_started"):
        subject = event["subject"]
        if isinstance(subject, dict) and subject.get("sha256"):
            yield f"binary sha256 {str(subject['sha256'])[:12]}"


def _check_result(text: str, path: Path, judged: Run, surprises: Sequence[Comparison]) -> None:
    """Raises HarnessFault when the edited text does not say what it should: it is then not written."""
    scenario, plan = parse_scenario(text, str(path), path.stem), judged.plan
    for row in surprises:
        covering = [
            each
            for each in scenario.expect
            if each.check == row.finding.check
            and versions.covers(each.versions, plan.version, each.until)
        ]
        if [each.verdict for each in covering] != [_word(row.finding.verdict)]:
            raise HarnessFault(
                f"{path}: the edit for {row.finding.check} came out wrong, so nothing was written"
            )
