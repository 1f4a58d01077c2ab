"""docs/versions.md: what is true of which release on which lab, made by the program and never by
hand.

The model's part is computed whenever the page is made. What binaries and clusters did is recorded
from nights into docs/seen.json, each row with its day, its plan and the digest of what ran, since
not every machine has them; a row whose scenario has changed since is marked. A test makes the page
anew: one that is stale fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.version import Version

from meshwake.analysis.bisect_log import sha256_of
from meshwake.analysis.nightly import RESULTS_FILE, Row
from meshwake.core import versions
from meshwake.core.errors import BadInput
from meshwake.core.outcome import Verdict
from meshwake.core.resources import SCENARIOS, SOURCES
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.core.store import RunDirectory
from meshwake.runner.choose import choose
from meshwake.runner.corpus import scenario_files
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

# Pages of the repository: only a checkout has them (core/resources.py `repository`).
DOCS = SOURCES.parent / "docs"
PAGE = DOCS / "versions.md"
SEEN = DOCS / "seen.json"
CORPUS = SCENARIOS
# As short as a table wants them; the page explains them.
SHORT = {
    "no_expired_certificate_served": "expired",
    "renewals_on_time": "late",
    "traffic_flows": "traffic",
    "recovers_within": "recovers",
    "ca_not_flooded": "flood",
    "valid_certificate_kept": "dropped",
    "alert_before_outage": "silent",
}
_HEAD = """\
# What is true of which release

Made by `meshwake dashboard`; do not edit. A cell names the checks of a scenario that come out BROKEN, of those that the
scenario expects something of; *holds*: none does. **!** stands where that is not what is expected, **?** where a check
stayed UNKNOWN. Why each is so stands in the scenario itself.

{legend}
"""


@dataclass(frozen=True)
class Cell:
    """What one scenario came to on one release: the expected checks that broke, and those that said
    nothing."""

    broken: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    as_expected: bool = True
    stale: bool = False

    @property
    def words(self) -> str:
        """As the table has it."""
        said = ", ".join(SHORT.get(check, check) for check in self.broken) or "holds"
        said += "".join(f" ?{SHORT.get(check, check)}" for check in self.unknown)
        return ("" if self.as_expected else "**!** ") + said + (" †" if self.stale else "")


def make_page(corpus: Path = CORPUS, seen: Path = SEEN) -> str:
    """The page as it should be now."""
    files = {path.stem: path for path in scenario_files([corpus])}
    scenarios = {name: read_scenario(path) for name, path in sorted(files.items())}
    legend = ", ".join(f"*{short}*: `{check}`" for check, short in SHORT.items())
    lines = [_HEAD.format(legend=legend), "## On the model, by behaviour class", ""]
    lines += _model_table(scenarios)
    for lab, rows in _seen_by_lab(seen).items():
        lines += ["", f"## Seen on lab {lab}", "", *_seen_table(rows, files)]
    lines += ["", "## Every release", "", *_releases_table()]
    return "\n".join(lines) + "\n"


def _model_table(scenarios: Mapping[str, Scenario]) -> list[str]:
    spans = {each: _span(each) for each in versions.BEHAVIOUR_CLASSES}
    lines = [_line(["scenario", *(f"{each}: {words}" for each, (words, _) in spans.items())])]
    lines.append(_rule(len(spans) + 1))
    for name, scenario in scenarios.items():
        if "model" in scenario.labs:
            lines.append(
                _line([name, *(_on_model(scenario, first).words for _, first in spans.values())])
            )
    return lines


def _span(behaviour_class: str) -> tuple[str, str]:
    """The releases of a class as a person says them, and the last of them, which stands for all:
    what is true of it is what is expected of the newest."""
    rows = [row for row in versions.releases() if row.behaviour_class == behaviour_class]
    by_minor: dict[str, list[str]] = {}
    for row in rows:
        by_minor.setdefault(row.minor, []).append(row.version)
    whole = [minor for minor, listed in by_minor.items() if listed == _all_of(minor)]
    parts = [
        f"{listed[0]} to {listed[-1]}" for minor, listed in by_minor.items() if minor not in whole
    ]
    if whole:
        parts.append(whole[0] if len(whole) == 1 else f"{whole[0]} to {whole[-1]}")
    return ", ".join(sorted(parts, key=lambda part: Version(part.split()[0]))), rows[-1].version


def _all_of(minor: str) -> list[str]:
    return [row.version for row in versions.releases() if row.minor == minor and row.classified]


def _on_model(scenario: Scenario, version: str) -> Cell:
    options = Options("model", (version,))
    saved = run_case(choose(scenario, options)[0], options)
    if saved.path is not None:
        RunDirectory(saved.path).remove()
    expected = [
        row
        for row in saved.outcome.comparisons
        if row.expected is not None and not row.finding.is_assumption
    ]
    return Cell(
        tuple(row.finding.check for row in expected if row.finding.verdict is Verdict.BROKEN),
        tuple(row.finding.check for row in expected if row.finding.verdict is Verdict.UNKNOWN),
        saved.outcome.exit_code == 0,
    )


# What was seen elsewhere


def record(night: Path, seen: Path = SEEN, corpus: Path = CORPUS) -> int:
    """Takes the results of a night, but for the model's, into `seen`; how many. Raises BadInput."""
    day = _day_of(night)
    files = {path.stem: path for path in scenario_files([corpus])}
    known = {_place(row): row for row in _read_seen(seen)}
    fresh = [
        row
        for row in _rows_of(night)
        if row.lab != "model" and row.findings and row.scenario in files
    ]
    for row in fresh:
        entry = _entry(row, day, sha256_of(files[row.scenario])[:12])
        known[_place(entry)] = entry
    listed = sorted(
        known.values(), key=lambda row: (row["lab"], row["scenario"], Version(row["version"]))
    )
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in listed)
    seen.write_text(f"[\n{text}\n]\n" if listed else "[]\n", encoding="utf-8")
    return len(fresh)


def _entry(row: Row, day: str, scenario_sha256: str) -> dict[str, Any]:
    return {
        "scenario": row.scenario,
        "lab": row.lab,
        "version": row.version,
        "outcome": row.outcome,
        "day": day,
        "plan": row.plan,
        "subject": row.subject,
        "scenario_sha256": scenario_sha256,
        "findings": row.findings,
    }


def _day_of(night: Path) -> str:
    try:
        return str(json.loads((night / "summary.json").read_text(encoding="utf-8"))["day"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{night}: is no night ({error!r}); give the --out of meshwake nightly"
        ) from error


def _rows_of(night: Path) -> Iterator[Row]:
    path = night / RESULTS_FILE
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield Row(**json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"{path}: cannot be read ({error}); run the night again with --resume"
        ) from error


def _read_seen(seen: Path) -> list[dict[str, Any]]:
    if not seen.is_file():
        return []
    try:
        return list(json.loads(seen.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"{seen}: is no list of what was seen ({error}); take it from the repository again"
        ) from error


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return (row["scenario"], row["lab"], row["version"])


def _seen_by_lab(seen: Path) -> dict[str, list[dict[str, Any]]]:
    by_lab: dict[str, list[dict[str, Any]]] = {}
    for row in _read_seen(seen):
        by_lab.setdefault(row["lab"], []).append(row)
    return by_lab


def _seen_table(rows: Sequence[Mapping[str, Any]], files: Mapping[str, Path]) -> list[str]:
    columns = sorted({row["version"] for row in rows}, key=Version)
    cells = {(row["scenario"], row["version"]): row for row in rows}
    lines = [_line(["scenario", *columns, "last seen"]), _rule(len(columns) + 2)]
    for name in sorted({row["scenario"] for row in rows}):
        own = [cells.get((name, column)) for column in columns]
        days = sorted({row["day"] for row in own if row is not None})
        lines.append(_line([name, *(_seen_cell(row, files) for row in own), days[-1]]))
    lines += [
        "",
        "Evidence: `docs/seen.json` has the plan of every run and the digest of the "
        "program that ran:",
        "",
    ]
    lines += [f"- {column}: {_subjects(rows, column)}" for column in columns]
    if any("†" in line for line in lines):
        lines += ["", "†: the scenario has changed since; run a night and record it."]
    return lines


def _seen_cell(row: Mapping[str, Any] | None, files: Mapping[str, Path]) -> str:
    if row is None:
        return ""
    path = files.get(row["scenario"])
    stale = path is None or sha256_of(path)[:12] != row["scenario_sha256"]
    found = row["findings"]
    return Cell(
        tuple(
            check
            for check, verdict in found.items()
            if verdict == Verdict.BROKEN and check in SHORT
        ),
        tuple(
            check
            for check, verdict in found.items()
            if verdict == Verdict.UNKNOWN and check in SHORT
        ),
        row["outcome"] == "as expected",
        stale,
    ).words


def _subjects(rows: Iterable[Mapping[str, Any]], version: str) -> str:
    listed = sorted(
        {row["subject"] for row in rows if row["version"] == version and row["subject"]}
    )
    return ", ".join(f"sha256 {digest}..." for digest in listed) or "no binary of ours"


def _releases_table() -> list[str]:
    lines = [_line(["minor", "classes", "Kubernetes", "end of life"]), _rule(4)]
    by_minor: dict[str, list[versions.Release]] = {}
    for row in versions.releases():
        by_minor.setdefault(row.minor, []).append(row)
    for minor, rows in by_minor.items():
        spans: dict[str, list[str]] = {}
        for row in rows:
            spans.setdefault(row.behaviour_class, []).append(row.version)
        words = [
            f"{each}: {listed[0]}" + (f" to {listed[-1]}" if len(listed) > 1 else "")
            for each, listed in spans.items()
        ]
        lines.append(_line([minor, ", ".join(words), rows[0].kubernetes, rows[0].end_of_life]))
    return lines


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return "|" + "---|" * count
