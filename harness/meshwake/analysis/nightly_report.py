"""A nightly run on one page in Markdown, as JSON, and what should happen to the issue about it.

The page is written to be read in half a minute: one sentence, one table of counts, and what is not
as expected, with releases that have the same finding in one line. Everything longer is in
summary.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from meshwake.analysis.nightly import LEFT_OUT, CaseResult, NightlyRun
from meshwake.core.errors import ExitCode
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import OutcomeKind

# An issue must be readable as a whole: what is over is counted.
LINES_MAX = 12
VERSIONS_MAX = 4
OUTCOMES = ("as expected", "surprise", "unknown", "refused", "error", LEFT_OUT)
_TITLES = {
    ExitCode.AS_EXPECTED: "As expected",
    ExitCode.SURPRISE: "Surprise",
    ExitCode.UNKNOWN: "Unknown",
    ExitCode.BAD_INPUT: "Bad input",
    ExitCode.LAB_UNAVAILABLE: "A lab is missing",
    ExitCode.HARNESS_FAULT: "A fault",
}


@dataclass(frozen=True)
class NightlyReport:
    """What is published of a nightly run. `previous`: the surprises of the run before, by their
    keys; None where that run is not known, and then every surprise counts as new."""

    night: NightlyRun
    previous: frozenset[str] | None = None

    @property
    def surprises(self) -> list[str]:
        """The keys of all surprises, sorted."""
        found: set[str] = set()
        for row in self.night.rows:
            found.update(surprise_keys(row))
        return sorted(found)

    @property
    def gone(self) -> list[str]:
        """Surprises of the run before that are no longer there."""
        before = self.previous or frozenset()
        return sorted(before - set(self.surprises))

    @property
    def not_as_expected(self) -> list[CaseResult]:
        """Cases that ran, or should have run, and did not come out as expected."""
        fine = (OutcomeKind.AS_EXPECTED.value, LEFT_OUT)
        return [row for row in self.night.rows if row.outcome not in fine]

    @property
    def runs(self) -> int:
        """How many cases there were, without those that a lab never runs."""
        return sum(row.outcome != LEFT_OUT for row in self.night.rows)

    @property
    def issue(self) -> dict[str, str]:
        """`open`: there is a surprise; `close`: everything was checked and there is none; `leave`:
        not everything could be checked."""
        surprises = len(self.surprises)
        if surprises:
            count = f"{surprises} findings differ" if surprises > 1 else "one finding differs"
            return {"action": "open", "title": f"Nightly: {count} from what is known"}

        # An issue is closed only by a night that could have found the surprise again.
        if self.night.exit_code is ExitCode.AS_EXPECTED:
            return {"action": "close", "title": "Nightly"}
        return {"action": "leave", "title": "Nightly"}

    def counts(self, lab: str) -> dict[str, int]:
        """Outcome -> how many cases of `lab` had it."""
        return dict(Counter(row.outcome for row in self._of(lab)))

    def real_s(self, lab: str) -> float:
        """Real seconds that the cases of `lab` took."""
        return sum(row.real_s for row in self._of(lab))

    def left_out(self) -> dict[str, dict[str, str]]:
        """lab -> scenario -> why it is never run there."""
        reasons: dict[str, dict[str, str]] = {}
        for row in self.night.rows:
            if row.outcome != LEFT_OUT:
                continue
            # The same for every release: it is about the lab.
            of_lab = reasons.setdefault(row.lab, {})
            of_lab.setdefault(row.scenario, row.why)
        return reasons

    def _of(self, lab: str) -> list[CaseResult]:
        return [row for row in self.night.rows if row.lab == lab]

    def to_json(self) -> MutableJsonObject:
        """The contents of summary.json."""
        night, surprises = self.night, self.surprises
        labs = list(night.versions)

        # Without a night before everything is new.
        new = surprises
        if self.previous is not None:
            new = sorted(set(surprises) - self.previous)

        return {
            "day": night.day,
            "outcome": _TITLES[night.exit_code].lower(),
            "exit_code": int(night.exit_code),
            "runs": self.runs,
            "counts": {lab: self.counts(lab) for lab in labs},
            "real_s": {lab: round(self.real_s(lab), 1) for lab in labs},
            "cost_s": round(night.real_s, 1),
            "versions": {lab: list(listed) for lab, listed in night.versions.items()},
            "missing": dict(night.missing),
            "unclassified": list(night.unclassified),
            "surprises": surprises,
            "new": new,
            "gone": self.gone,
            "not_as_expected": [asdict(row) for row in self.not_as_expected],
            "left_out": self.left_out(),
            "issue": self.issue,
        }

    def page(self) -> str:
        """The contents of summary.md."""
        night = self.night
        title = f"**{_TITLES[night.exit_code]}** (exit {int(night.exit_code)})"
        lines = [
            f"# meshwake, {night.day}",
            "",
            f"{title}: {self._sentence()}",
            "",
            *self._counts_table(),
            *self._remarks(),
            *self._differences_table(),
        ]
        if self.gone:
            shown = "; ".join(self.gone[:LINES_MAX])
            lines += ["", f"Gone since the night before: {shown}"]
        return "\n".join(lines).rstrip() + "\n"

    def _remarks(self) -> list[str]:
        """What did not run, and why: with it a reader knows what the counts do not cover."""
        lines = []
        for lab, why in self.night.missing.items():
            lines.append(f"- **{lab}** did not run: {why}")

        for lab, reasons in self.left_out().items():
            scenarios = ", ".join(reasons)
            lines.append(
                f"- {lab} leaves out what it cannot do: {scenarios} (summary.json says why)"
            )

        if self.night.unclassified:
            listed = ", ".join(self.night.unclassified)
            lines.append(
                f"- no class yet, so not on the model: {listed} (`meshwake probe --istio VERSION`)"
            )
        return lines

    def _sentence(self) -> str:
        if not self.runs:
            return "nothing ran."

        differing = len(self.not_as_expected)
        if not differing:
            return f"all {self.runs} runs came out as expected."
        verb = "is" if differing == 1 else "are"
        return f"{differing} of {self.runs} runs {verb} not as expected."

    def _counts_table(self) -> list[str]:
        lines = [
            f"| lab | releases | {' | '.join(OUTCOMES)} | seconds |",
            f"|---|---|{'---|' * len(OUTCOMES)}---|",
        ]
        for lab, versions in self.night.versions.items():
            counts = self.counts(lab)
            # Empty and not 0: what is there is seen at a glance.
            cells = " | ".join(str(counts.get(outcome, 0) or "") for outcome in OUTCOMES)
            took_s = round(self.real_s(lab), 1)
            lines.append(f"| {lab} | {_shortened(versions)} | {cells} | {took_s:.0f} |")
        return [*lines, ""]

    def _differences_table(self) -> list[str]:
        groups = _grouped(self.not_as_expected)
        if not groups:
            return []

        lines = ["", "| scenario | lab | releases | what | evidence |", "|---|---|---|---|---|"]
        shown = list(groups.items())[:LINES_MAX]
        for (scenario, lab, what), rows in shown:
            releases = _shortened([row.version for row in rows])
            lines.append(f"| {scenario} | {lab} | {releases} | {what} | {_evidence(rows)} |")

        if len(groups) > LINES_MAX:
            lines.append(f"\n{len(groups) - LINES_MAX} more: summary.json")
        return lines


def surprise_keys(row: CaseResult) -> list[str]:
    """Names each surprising finding of `row`, with the same name every night."""
    if row.outcome != OutcomeKind.SURPRISE.value:
        return []

    keys = []
    # By the verdict and without the reason, whose numbers differ from night to night.
    for check, difference in row.differs.items():
        verdict = difference[0]
        keys.append(f"{row.scenario} {row.lab} {row.version} {check} {verdict}")
    return keys


def _evidence(rows: Sequence[CaseResult]) -> str:
    """The first run directory that was kept."""
    for row in rows:
        if row.run:
            return f"`{row.run}`"
    return ""


def _grouped(rows: Sequence[CaseResult]) -> Mapping[tuple[str, str, str], list[CaseResult]]:
    """By scenario, lab and what differs: releases with the same finding share a line."""
    groups: dict[tuple[str, str, str], list[CaseResult]] = {}
    for row in rows:
        for what in _descriptions(row):
            groups.setdefault((row.scenario, row.lab, what), []).append(row)
    return groups


def _descriptions(row: CaseResult) -> list[str]:
    """What is not as expected of a case: each finding that differs, or why it has none."""
    if not row.differs:
        return [f"{row.outcome}: {_one_line(row.why)}"]

    return [
        _description(row.outcome, check, *difference) for check, difference in row.differs.items()
    ]


def _description(outcome: str, check: str, verdict: str, expected: str, because: str) -> str:
    changes = {("HOLDS", "BROKEN"): "no longer broken", ("BROKEN", "HOLDS"): "newly broken"}
    change = changes.get((verdict, expected), f"{verdict}, expected {expected}")
    return f"{outcome}: {check} {change}: {_one_line(because)}"


def _one_line(text: str, width: int = 160) -> str:
    """`text` as a cell of a Markdown table: a bar would end the cell."""
    flat = " ".join(text.split()).replace("|", "/")
    if len(flat) <= width:
        return flat
    return f"{flat[: width - 3]}..."


def _shortened(versions: Sequence[str]) -> str:
    """Releases in a cell of a table: many of them, which are sorted, as a range."""
    if len(versions) <= VERSIONS_MAX:
        return ", ".join(versions)
    return f"{versions[0]} to {versions[-1]} ({len(versions)})"
