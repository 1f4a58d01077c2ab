"""A night on one page, in Markdown, and as JSON; and what is to become of the issue about it.

The page is for a person before the first coffee: one sentence, one table of counts, and what is not
as expected, with releases that say the same in one line. Whatever is longer stands in summary.json.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshwake.core.errors import ExitCode

LINES_MAX = 12
VERSIONS_MAX = 4
LEFT_OUT = "left out"
OUTCOMES = ("as expected", "surprise", "unknown", "refused", "error", LEFT_OUT)
Row = Mapping[str, Any]
_WORDS = {
    ExitCode.AS_EXPECTED: "As expected",
    ExitCode.SURPRISE: "Surprise",
    ExitCode.UNKNOWN: "Unknown",
    ExitCode.BAD_INPUT: "Bad input",
    ExitCode.LAB_UNAVAILABLE: "A lab is missing",
    ExitCode.HARNESS_FAULT: "A fault",
}


def summary(
    day: str,
    rows: Sequence[Row],
    missing: Mapping[str, str],
    versions: Mapping[str, Sequence[str]],
    unclassified: Sequence[str],
    real_s: float,
    code: ExitCode,
    previous: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The night as JSON."""
    surprises = sorted({key for row in rows for key in surprise_keys(row)})
    before = None if previous is None else set(previous.get("surprises", []))
    return {
        "day": day,
        "outcome": _WORDS[code].lower(),
        "exit_code": int(code),
        "runs": sum(row["outcome"] != LEFT_OUT for row in rows),
        "counts": {
            lab: dict(Counter(row["outcome"] for row in _of(rows, lab))) for lab in versions
        },
        "real_s": {lab: round(sum(row["real_s"] for row in _of(rows, lab)), 1) for lab in versions},
        "cost_s": round(real_s, 1),
        "versions": {lab: list(listed) for lab, listed in versions.items()},
        "missing": dict(missing),
        "unclassified": list(unclassified),
        "surprises": surprises,
        "new": surprises if before is None else sorted(set(surprises) - before),
        "gone": [] if before is None else sorted(before - set(surprises)),
        "not_as_expected": [
            dict(row) for row in rows if row["outcome"] not in ("as expected", LEFT_OUT)
        ],
        "left_out": _left_out(rows),
        "issue": _issue(surprises, code),
    }


def surprise_keys(row: Row) -> list[str]:
    """What of `row` surprised, in words that stay the same from night to night."""
    if row["outcome"] != "surprise":
        return []
    return [
        f"{row['scenario']} {row['lab']} {row['version']} {check} {said[0]}"
        for check, said in row["differs"].items()
    ]


def _left_out(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """lab -> scenario -> why it is never run there."""
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["outcome"] == LEFT_OUT:
            found.setdefault(row["lab"], {}).setdefault(row["scenario"], row["why"])
    return found


def _issue(surprises: Sequence[str], code: ExitCode) -> dict[str, str]:
    """`open`: there is a surprise; `close`: all was looked at and there is none; `leave`: it could
    not all be seen."""
    if surprises:
        count = f"{len(surprises)} findings differ" if len(surprises) > 1 else "one finding differs"
        return {"action": "open", "title": f"Nightly: {count} from what is known"}
    return {"action": "close" if code is ExitCode.AS_EXPECTED else "leave", "title": "Nightly"}


def _of(rows: Iterable[Row], lab: str) -> list[Row]:
    return [row for row in rows if row["lab"] == lab]


def page(told: Mapping[str, Any]) -> str:
    """The page of `summary`'s result."""
    lines = [
        f"# meshwake, {told['day']}",
        "",
        f"**{_WORDS[ExitCode(told['exit_code'])]}** (exit {told['exit_code']}): {_sentence(told)}",
        "",
    ]
    lines += _counts(told)
    lines += [f"- **{lab}** did not run: {why}" for lab, why in told["missing"].items()]
    lines += [
        f"- {lab} leaves out what it cannot do: {', '.join(why)} (summary.json says why)"
        for lab, why in told["left_out"].items()
    ]
    if told["unclassified"]:
        listed = ", ".join(told["unclassified"])
        lines += [
            f"- no class yet, so not on the model: {listed} (`meshwake probe --istio VERSION`)"
        ]
    lines += _not_as_expected(told)
    lines += _news(told)
    return "\n".join(lines).rstrip() + "\n"


def _sentence(told: Mapping[str, Any]) -> str:
    off = len(told["not_as_expected"])
    if off:
        return f"{off} of {told['runs']} runs {'is' if off == 1 else 'are'} not as expected."
    return f"all {told['runs']} runs came out as expected." if told["runs"] else "nothing ran."


def _counts(told: Mapping[str, Any]) -> list[str]:
    lines = [
        f"| lab | releases | {' | '.join(OUTCOMES)} | seconds |",
        f"|---|---|{'---|' * len(OUTCOMES)}---|",
    ]
    for lab, counts in told["counts"].items():
        cells = " | ".join(str(counts.get(outcome, 0) or "") for outcome in OUTCOMES)
        lines.append(
            f"| {lab} | {_shortened(told['versions'][lab])} | {cells} | {told['real_s'][lab]:.0f} |"
        )
    return [*lines, ""]


def _not_as_expected(told: Mapping[str, Any]) -> list[str]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in told["not_as_expected"]:
        for what in _whats(row):
            groups.setdefault((row["scenario"], row["lab"], what), []).append(row)
    if not groups:
        return []
    lines = ["", "| scenario | lab | releases | what | evidence |", "|---|---|---|---|---|"]
    for (scenario, lab, what), rows in list(groups.items())[:LINES_MAX]:
        shown = next((row["run"] for row in rows if row["run"]), None)
        listed = _shortened([row["version"] for row in rows])
        lines.append(
            f"| {scenario} | {lab} | {listed} | {what} | {f'`{shown}`' if shown else ''} |"
        )
    if len(groups) > LINES_MAX:
        lines.append(f"\n{len(groups) - LINES_MAX} more: summary.json")
    return lines


def _whats(row: Row) -> list[str]:
    if not row["differs"]:
        return [f"{row['outcome']}: {_one_line(row['why'])}"]
    return [_what(row["outcome"], check, *said) for check, said in row["differs"].items()]


def _what(outcome: str, check: str, verdict: str, expected: str, because: str) -> str:
    words = {("HOLDS", "BROKEN"): "no longer broken", ("BROKEN", "HOLDS"): "newly broken"}
    named = words.get((verdict, expected), f"{verdict}, expected {expected}")
    return f"{outcome}: {check} {named}: {_one_line(because)}"


def _one_line(text: str, width: int = 160) -> str:
    flat = " ".join(text.split()).replace("|", "/")
    return flat if len(flat) <= width else f"{flat[: width - 3]}..."


def _shortened(listed: Sequence[str]) -> str:
    if len(listed) <= VERSIONS_MAX:
        return ", ".join(listed)
    return f"{listed[0]} to {listed[-1]} ({len(listed)})"


def _news(told: Mapping[str, Any]) -> list[str]:
    if told["gone"]:
        return ["", f"Gone since the night before: {'; '.join(told['gone'][:LINES_MAX])}"]
    return []
