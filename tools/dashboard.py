"""Makes docs/versions.md: which checks hold for which release on which lab.

    python tools/dashboard.py                   write the page python tools/dashboard.py --record
    NIGHT    first take in what a night saw on binaries and clusters python tools/dashboard.py
    --check           write nothing; exit code 1 when the page is stale

`meshwake dashboard` runs this program. The model's part is computed whenever the page is made. What
binaries and clusters did is recorded from nights in docs/seen.json, each row with its day, its plan
and the digest of what ran, since not every machine has them; a row whose scenario has changed since
is marked. A test makes the page too, and fails when it is stale.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwake.analysis.bisect_log import sha256_of
from meshwake.analysis.nightly import RESULTS_FILE, CaseResult
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode, HarnessError
from meshwake.core.outcome import Verdict
from meshwake.core.resources import SCENARIOS
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.core.store import RunDirectory
from meshwake.runner.choose import choose
from meshwake.runner.corpus import scenario_files
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from packaging.version import Version

DOCS = Path(__file__).resolve().parent.parent / "docs"
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
scenario expects something of; *holds*: none does. **!** marks what is not as expected, **?** a check that
stayed UNKNOWN. Why each is so is written in the scenario itself.

{legend}
"""


@dataclass(frozen=True)
class Cell:
    """The outcome of one scenario on one release: the expected checks that are BROKEN, and those
    that are UNKNOWN. `stale`: the scenario has changed since."""

    broken: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    as_expected: bool = True
    stale: bool = False

    @property
    def text(self) -> str:
        """As the table has it."""
        outcome = ", ".join(SHORT.get(check, check) for check in self.broken) or "holds"
        outcome += "".join(f" ?{SHORT.get(check, check)}" for check in self.unknown)
        surprise = "" if self.as_expected else "**!** "
        return f"{surprise}{outcome}{' †' if self.stale else ''}"


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
    headings = [f"{each}: {releases}" for each, (releases, _) in spans.items()]
    lines = [_line(["scenario", *headings]), _rule(len(spans) + 1)]
    for name, scenario in scenarios.items():
        if "model" in scenario.labs:
            cells = [_on_model(scenario, last).text for _, last in spans.values()]
            lines.append(_line([name, *cells]))
    return lines


def _span(behaviour_class: str) -> tuple[str, str]:
    """The releases of a class in words, and the last of them, which represents all: what a scenario
    expects of the newest is expected of it."""
    rows = [row for row in versions.releases() if row.behaviour_class == behaviour_class]
    by_minor: dict[str, list[str]] = {}
    for row in rows:
        by_minor.setdefault(row.minor, []).append(row.version)
    whole = [minor for minor, listed in by_minor.items() if listed == _all_of(minor)]
    parts = [_range_of(listed) for minor, listed in by_minor.items() if minor not in whole]
    if whole:
        parts.append(_range_of(whole) if len(whole) > 1 else whole[0])
    parts.sort(key=lambda part: Version(part.split()[0]))
    return ", ".join(parts), rows[-1].version


def _range_of(listed: Sequence[str]) -> str:
    return f"{listed[0]} to {listed[-1]}"


def _all_of(minor: str) -> list[str]:
    return [row.version for row in versions.releases() if row.minor == minor and row.classified]


def _on_model(scenario: Scenario, version: str) -> Cell:
    options = Options("model", (version,))
    run = run_case(choose(scenario, options)[0], options)
    if run.path is not None:
        RunDirectory(run.path).remove()
    verdicts = {
        row.finding.check: row.finding.verdict
        for row in run.outcome.comparisons
        if row.expected is not None and not row.finding.is_assumption
    }
    return Cell(
        _with_verdict(verdicts, Verdict.BROKEN),
        _with_verdict(verdicts, Verdict.UNKNOWN),
        run.outcome.exit_code == 0,
    )


def _with_verdict(verdicts: Mapping[str, Any], wanted: Verdict) -> tuple[str, ...]:
    """The checks with verdict `wanted`. Verdicts may come from JSON, as words."""
    return tuple(check for check, verdict in verdicts.items() if verdict == wanted)


# --- What was seen elsewhere


def record(night: Path, seen: Path = SEEN, corpus: Path = CORPUS) -> int:
    """Takes the results of a night, but for the model's, into `seen`, and returns how many. Raises
    BadInput."""
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


def _entry(row: CaseResult, day: str, scenario_sha256: str) -> dict[str, Any]:
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
            f"{night}: is not a night ({error!r}); give the --out of meshwake nightly"
        ) from error


def _rows_of(night: Path) -> Iterator[CaseResult]:
    path = night / RESULTS_FILE
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            yield CaseResult(**json.loads(line))
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
            f"{seen}: is not a list of what was seen ({error}); take it from the repository again"
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
    lines = [_line(["scenario", *columns, "last seen"]), _rule(len(columns) + 2)]
    for name in sorted({row["scenario"] for row in rows}):
        own = {row["version"]: row for row in rows if row["scenario"] == name}
        cells = [_seen_cell(own.get(column), files) for column in columns]
        last_day = max(row["day"] for row in own.values())
        lines.append(_line([name, *cells, last_day]))
    lines += [
        "",
        "Evidence: `docs/seen.json` has the plan of every run and the digest of the program that "
        "ran:",
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
    verdicts = {check: verdict for check, verdict in row["findings"].items() if check in SHORT}
    return Cell(
        _with_verdict(verdicts, Verdict.BROKEN),
        _with_verdict(verdicts, Verdict.UNKNOWN),
        row["outcome"] == "as expected",
        stale,
    ).text


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
        classes = ", ".join(_class_spans(rows))
        lines.append(_line([minor, classes, rows[0].kubernetes, rows[0].end_of_life]))
    return lines


def _class_spans(rows: Sequence[versions.Release]) -> Iterator[str]:
    """The classes of one minor, each with its releases."""
    by_class: dict[str, list[str]] = {}
    for row in rows:
        by_class.setdefault(row.behaviour_class, []).append(row.version)
    for behaviour_class, listed in by_class.items():
        releases = _range_of(listed) if len(listed) > 1 else listed[0]
        yield f"{behaviour_class}: {releases}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(count: int) -> str:
    return "|" + "---|" * count


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 where --check finds the page stale; 3 and more as `meshwake` has
    them."""
    parser = argparse.ArgumentParser(description="Write docs/versions.md.")
    parser.add_argument("--record", type=Path, metavar="NIGHT")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if options.record is not None:
            count = record(options.record, SEEN, CORPUS)
            _say(f"recorded {count} results of {options.record} in {SEEN}")
        return _write_page(options.check)
    except HarnessError as error:
        _say(str(error))
        return int(error.exit_code)


def _write_page(check: bool) -> int:
    page = make_page()
    stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page
    if check and stale:
        _say(f"{PAGE} is stale; run: meshwake dashboard")
        return int(ExitCode.SURPRISE)
    if stale:
        PAGE.write_text(page, encoding="utf-8")
    _say(f"{PAGE}: {'written' if stale else 'is up to date'}")
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
