"""Runs as a person reads them at a terminal: a table over many, and one run in detail.

Everything is there in words; colour only repeats it, so that nothing is lost in a log, a pipe or to
an eye that sees no red. Nothing is wider than 100 columns, and nothing is cut off: long text goes
on in the next line.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from meshwake.checks.facts.certificates import renewals
from meshwake.checks.facts.clocks import clock_faults
from meshwake.checks.format import dated, lasting, moment, moment_exactly
from meshwake.core.dates import Dates
from meshwake.core.history import History
from meshwake.core.outcome import Comparison, OutcomeKind, Verdict
from meshwake.core.plan import Plan
from meshwake.core.run import Run
from meshwake.report.headline import GOAL_WORDS, headline, judged
from meshwake.report.result import Summary
from meshwake.report.tally import differ_in_fix

WIDTH_MAX = 100
_STYLES = {
    OutcomeKind.AS_EXPECTED.value: "green",
    OutcomeKind.SURPRISE.value: "bold red",
    OutcomeKind.UNKNOWN.value: "yellow",
    Verdict.HOLDS.value: "green",
    Verdict.BROKEN.value: "red",
    Verdict.UNKNOWN.value: "yellow",
}
_NOTHING = "-"
# In ASCII: a table is also written to logs in any encoding.
_LINE_UNDER_HEADINGS = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def plain(renderable: RenderableType, width: int = WIDTH_MAX) -> str:
    """`renderable` as text without colour, for logs and for pytest's own terminal; no line ends in
    blanks."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, highlight=False, markup=False)
    console.print(renderable)
    return "".join(line.rstrip() + "\n" for line in stream.getvalue().splitlines())


def show(console: Console, renderable: RenderableType) -> None:
    """Prints `renderable`, no wider than a person reads with ease; without colour or padding where
    the output is not a terminal."""
    if console.is_terminal:
        # No markup: a reason may name an extra, as in meshwake[process].
        width = min(console.width, WIDTH_MAX)
        console.print(renderable, width=width, highlight=False, markup=False)
    else:
        console.file.write(plain(renderable))


# Many runs


def summary_table(summaries: Sequence[Summary]) -> RenderableType:
    """One line a run, and below it why those did not come out as expected and where their evidence
    lies."""
    table = Table(box=_LINE_UNDER_HEADINGS, pad_edge=False, padding=(0, 1), expand=False)
    # A column only where it distinguishes rows: the table has to fit into 100 columns.
    with_fix = differ_in_fix(summaries)
    table.add_column("scenario", overflow="fold")
    table.add_column("lab", overflow="fold")
    table.add_column("ztunnel", overflow="fold")
    if with_fix:
        table.add_column("fix", overflow="fold")
    table.add_column("outcome", no_wrap=True)
    table.add_column("outage", overflow="fold")
    table.add_column("first failure", no_wrap=True)

    remarks: list[RenderableType] = []
    for row in summaries:
        cells: list[RenderableType] = [row.scenario, row.lab, row.version]
        if with_fix:
            cells.append(row.fix)
        cells += [_outcome(row), _outage(row), _first_failure(row)]
        table.add_row(*cells)
        remarks += _remarks(row)
    return Group(table, *remarks)


def _word(word: str) -> Text:
    return Text(word, style=_STYLES.get(word, ""))


def _outcome(row: Summary) -> Text:
    """In one word; of a goal whether it was reached."""
    if row.goal and row.outcome in _STYLES:
        return Text(GOAL_WORDS[OutcomeKind(row.outcome)], style=_STYLES[row.outcome])
    return _word(row.outcome)


def _outage(row: Summary) -> str:
    if row.outage_ns is None:
        return _NOTHING
    if row.outage_ns == 0:
        return "none"
    return lasting(row.outage_ns)


def _first_failure(row: Summary) -> str:
    if row.first_failure_world_ns is None:
        return _NOTHING
    return dated(moment(row.first_failure_world_ns), row.dates)


def _remarks(row: Summary) -> Iterator[RenderableType]:
    """Below the table: why a run did not come out as expected, and where its evidence is."""
    if row.outcome == OutcomeKind.AS_EXPECTED.value:
        return
    fix = ""
    if row.fix not in {"", "none"}:
        fix = f", {row.fix}"
    where = f"{row.scenario} ({row.lab} {row.version}{fix}): "
    if row.judged:
        yield Text.assemble(where, (row.judged, _STYLES.get(row.outcome, "")))
        yield _indented(row.headline, 2)
    else:
        yield Text.assemble(where, _word(row.outcome), f": {row.why}")
    if row.run is not None:
        yield _indented(f"evidence: {row.run}", 2)


# One run


def run_detail(run: Run, verbose: bool = False) -> RenderableType:
    """What the checks found, and what was expected. `verbose` adds what goes well and was not
    expected, every piece of evidence, renewals and clock faults."""
    plan, outcome = run.plan, run.outcome
    first = headline(run)
    parts: list[RenderableType] = [
        Text.assemble((first.verdict.value, _STYLES[first.verdict.value]), f": {first.text}"),
        Text.assemble("outcome: ", (judged(run), _STYLES[outcome.kind.value])),
        Text(
            f"{plan.scenario} on {plan.lab}, ztunnel {plan.version}, "
            f"{lasting(plan.duration_ns)}: {plan.title}"
        ),
        Text(_when_it_began(plan)),
        Text(),
    ]
    # What was not expected and went well is one line together; a person looks for the others.
    asides: list[str] = []
    for row in outcome.comparisons:
        if _is_aside(row) and not verbose:
            asides.append(f"{row.finding.check} {row.finding.verdict.value}")
        else:
            parts += _comparison(plan, row, verbose)
    if asides:
        words = f"nothing expected of: {', '.join(asides)} (-v shows more)"
        parts.append(Text(words, overflow="fold"))
    if verbose:
        parts += _tables(plan, run.history)
    return Group(*parts)


def _when_it_began(plan: Plan) -> str:
    dates = plan.dates
    if dates is None:
        began = Dates(plan.starts_wall_s).to_the_minute(0)
        return f"day 0 00:00 is {began} UTC, when every ztunnel was started"
    began = dates.to_the_minute(0)
    return f"every ztunnel was started on {began}; all times are {dates.zone.label}"


def _is_aside(row: Comparison) -> bool:
    """Whether nothing was expected of it and it is not BROKEN."""
    return row.expected is None and row.finding.verdict is not Verdict.BROKEN


def _comparison(plan: Plan, row: Comparison, verbose: bool) -> Iterator[RenderableType]:
    """One finding against what was expected of it; its evidence where a person has to look."""
    finding, dates = row.finding, plan.dates
    expectation = _expectation(row)
    if plan.goal is not None:
        expectation = _goal(row)
    verdict = (f"{finding.verdict.value:<8}", _STYLES[finding.verdict.value])
    yield Text.assemble(verdict, finding.check, expectation)
    yield _indented(dated(finding.because, dates), 8)

    if row.kind is OutcomeKind.AS_EXPECTED and not verbose:
        return
    # That an assumption should hold needs no reason.
    if row.expected is not None and not finding.is_assumption:
        yield _indented(f"expected {row.expected.value}, because {row.expected_because}", 8)
    for evidence in finding.evidence:
        yield _indented(dated(evidence.text, dates), 10)


def _goal(row: Comparison) -> str:
    if row.expected is None:
        return ""
    return "  (must hold)"


def _expectation(row: Comparison) -> str:
    if row.expected is None:
        return "  (nothing expected)"
    if row.kind is OutcomeKind.AS_EXPECTED:
        return "  (as expected)"
    return f"  ({row.kind.value}: expected {row.expected.value})"


def _indented(text: str, columns: int) -> RenderableType:
    return Padding(Text(text, overflow="fold"), (0, 0, 0, columns))


def _tables(plan: Plan, history: History) -> list[RenderableType]:
    try:
        return [*_renewal_table(plan, history), *_fault_table(plan, history)]
    except Exception as error:  # noqa: BLE001
        # A damaged history: the findings report that, and are shown all the same.
        return [Text(f"renewals and clock faults cannot be shown: {error}")]


def _when(plan: Plan, world_ns: int) -> str:
    return dated(moment_exactly(world_ns), plan.dates)


def _table(title: str, *headings: str, rows: Iterable[Sequence[str]]) -> Iterator[RenderableType]:
    table = Table(*headings, box=_LINE_UNDER_HEADINGS, pad_edge=False, padding=(0, 1))
    for row in rows:
        table.add_row(*row)
    # A heading over nothing would read as if nothing had been looked for.
    if table.row_count:
        yield Text(f"\n{title}")
        yield table


def _renewal_table(plan: Plan, history: History) -> Iterator[RenderableType]:
    rows: list[tuple[str, ...]] = []
    for renewal in renewals(plan, history):
        done = "never"
        if renewal.done_world_ns is not None:
            done = _when(plan, renewal.done_world_ns)
        late = _NOTHING
        if renewal.late_ns is not None:
            late = lasting(renewal.late_ns)
        issued = _when(plan, renewal.certificate.issued_world_ns)
        due = _when(plan, renewal.certificate.due_world_ns)
        rows.append((renewal.identity, issued, due, done, late))
    return _table("Renewals", "identity", "issued", "due", "done", "late (wall)", rows=rows)


def _fault_table(plan: Plan, history: History) -> Iterator[RenderableType]:
    rows: list[tuple[str, ...]] = []
    for fault in clock_faults(plan, history):
        kind, node = fault.planned.kind, str(fault.planned.node)
        began = _when(plan, fault.span.began_world_ns)
        planned = lasting(fault.planned_ns)
        # One column for each clock.
        measured = ["not ended"] * 3
        if fault.measured is not None:
            measured = [lasting(moved_ns) for moved_ns in fault.measured]
        rows.append((kind, node, began, planned, *measured))
    headings = ("fault", "node", "began", "planned", "wall moved", "monotonic", "boottime")
    return _table("Clock faults, as measured inside the subject", *headings, rows=rows)
