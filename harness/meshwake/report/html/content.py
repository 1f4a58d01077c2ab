"""The contents of the page of one run, as plain values: for the templates, and for the script that
draws timelines."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from meshwake.checks import TITLES
from meshwake.checks.facts.certificates import renewals
from meshwake.checks.facts.spans import Spans
from meshwake.checks.format import count, dated, lasting, moment_exactly
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.outcome import Comparison, Evidence, OutcomeKind, Verdict
from meshwake.core.plan import Plan
from meshwake.core.resources import SCENARIOS
from meshwake.core.run import Run
from meshwake.report.headline import headline
from meshwake.report.html.cards import Fact, facts_of
from meshwake.report.html.sentence import sentence
from meshwake.report.tracks import NodeTracks, Track, node_tracks

# More timelines than this are folded when the page opens: each costs the browser a plot.
OPEN_NODES = 3
# A page stays readable, and within about a megabyte; the files of the run have everything.
RENEWALS_SHOWN = 500
FAULTS_SHOWN = 200
REST_SHOWN = 500
# A node's wall clock may be off, and a timeline is drawn a little beyond its ends.
_DAYS_S = 2 * 86_400
_Derived = TypeVar("_Derived")


def page(run: Run, name: str) -> dict[str, Any]:
    """What the template of a run shows. `name`: its file's, without an ending."""
    plan, first = run.plan, headline(run)
    nodes = _or_none(lambda: node_tracks(plan, run.history)) or ()
    listed = _or_none(lambda: list(_renewal_rows(run)))
    return {
        "id": name,
        "title": plan.title,
        "scenario": plan.scenario,
        "lab": plan.lab,
        "version": plan.version,
        "fix": run.fix_name,
        "plan": plan.sha256[:8],
        "verdict": first.verdict.value,
        "headline": first.text,
        "sentence": sentence(run),
        "world": lasting(run.history.end_world_ns),
        "began": _when(plan, 0),
        "zone": plan.dates.zone.label if plan.dates else "",
        "real": lasting(round(run.real_s * 1e9)) if run.real_s else "",
        "facts": facts(run, nodes),
        "nodes": [{"name": node.node, "words": describe_node(node)} for node in nodes],
        "open_nodes": OPEN_NODES,
        "findings": [_finding(run, row) for row in _in_order(run)],
        "renewals": listed[:RENEWALS_SHOWN] if listed is not None else None,
        "renewals_left_out": max(len(listed or ()) - RENEWALS_SHOWN, 0),
        "again": again(run),
        "plan_json": _plan_text(plan),
    }


def again(run: Run) -> list[dict[str, str]]:
    """How to see it again: what to type, and what that does."""
    commands = []

    # A run of an older version has no command; its scenario may have changed since.
    if run.repeat:
        commands.append({"does": "Run it again:", "command": run.repeat})
    elif (SCENARIOS / f"{run.plan.scenario}.toml").is_file():
        plan = run.plan
        command = (
            f"meshwake run {shlex.quote(plan.scenario)} --lab {plan.lab} --istio {plan.version} "
            f"--seed {plan.seed}"
        )
        does = "Its command was not recorded. To run a scenario of this name that meshwake has:"
        commands.append({"does": does, "command": command})
    if run.path is not None:
        command = f"meshwake check {shlex.quote(str(run.path))}"
        commands.append({"does": "Judge the recorded history again:", "command": command})
    return commands


def _plan_text(plan: Plan) -> str:
    # A month of naps is a thousand faults, and most of a page.
    left_out = max(len(plan.faults) - FAULTS_SHOWN, 0)
    text = plan.model_copy(update={"faults": plan.faults[:FAULTS_SHOWN]}).model_dump_json(indent=2)
    return text + (f"\n({left_out} more faults: see plan.json of the run)" if left_out else "")


def data(run: Run, name: str) -> str:
    """The script that hands the timelines of `run` to report.js."""
    nodes, first = _or_none(lambda: node_tracks(run.plan, run.history)) or (), headline(run)
    content = {
        "id": name,
        "words": run.label,
        "title": run.plan.title,
        "verdict": first.verdict.value,
        "headline": first.text,
        "starts_s": run.plan.starts_wall_s,
        "dates": _calendar(run),
        "end_s": seconds(run.history.end_world_ns),
        "facts": [[fact.label, fact.value, fact.note] for fact in facts(run, nodes)],
        "findings": [
            {
                "check": row.finding.check,
                "title": TITLES[row.finding.check],
                "verdict": row.finding.verdict.value,
                "because": row.finding.because,
            }
            for row in _in_order(run)
        ],
        "nodes": [_node(node) for node in nodes],
    }

    # A script of its own has no tag to break out of; the two separators are line ends
    # to old JavaScript.
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=True)
    return f"MESHWAKE.add({_dated(run.plan, text)});\n"


def _calendar(run: Run) -> dict[str, Any] | None:
    """What report.js needs to show dates, so that it does not depend on which time zones a browser
    knows; None where moments have no dates."""
    dates = run.plan.dates
    if dates is None:
        return None
    ends_wall_s = dates.from_wall_s + run.history.end_world_ns // NS_PER_S
    changes = dates.zone.changes(dates.from_wall_s - _DAYS_S, ends_wall_s + _DAYS_S)
    return {
        "from_s": dates.from_wall_s,
        "zone": dates.zone.label,
        "offsets": [[change.from_wall_s, change.offset_s] for change in changes],
    }


def _or_none(derive: Callable[[], _Derived]) -> _Derived | None:
    try:
        return derive()
    except Exception:  # noqa: BLE001
        # A damaged history: the findings have named the error, and a page must show them all the
        # same.
        return None


# --- Numbers and words ----------------------------------------------------------------------------


def facts(run: Run, nodes: tuple[NodeTracks, ...]) -> list[Fact]:
    """The numbers on top; none where the history is too damaged for them."""
    found = _or_none(lambda: list(facts_of(run, nodes))) or []
    return [replace(fact, value=_dated(run.plan, fact.value)) for fact in found]


def _dated(plan: Plan, text: str) -> str:
    return dated(text, plan.dates)


def _when(plan: Plan, world_ns: int) -> str:
    return _dated(plan, moment_exactly(world_ns))


def describe_node(node: NodeTracks) -> str:
    """A timeline in words, for readers who cannot see it or want a summary."""
    asleep_ns = Spans(node.asleep).total_ns
    words = ["never asleep"]
    if asleep_ns:
        words = [f"asleep {lasting(asleep_ns)} in {count(len(node.asleep), 'sleep')}"]
    if node.drift_end_ns:
        words.append(f"clock drift {lasting(node.drift_end_ns)} at the end")
    if node.out_ns:
        words.append(f"no connection for {lasting(node.out_ns)} awake")
    else:
        words.append("connections always worked")
    if merged := sum(track.merged for track in node.tracks):
        words.append(f"{merged} of its marks are drawn together with a neighbour")
    return ", ".join(words)


def _renewal_rows(run: Run) -> Iterator[dict[str, str]]:
    for renewal in renewals(run.plan, run.history):
        done_ns = renewal.done_world_ns
        yield {
            "identity": renewal.identity,
            "node": renewal.node,
            "issued": _when(run.plan, renewal.certificate.issued_world_ns),
            "due": _when(run.plan, renewal.certificate.due_world_ns),
            "done": "never" if done_ns is None else _when(run.plan, done_ns),
            "late": "-" if renewal.late_ns is None else lasting(renewal.late_ns),
        }


# --- Findings -------------------------------------------------------------------------------------

# What needs a look comes first; assumptions that hold come last.
_VERDICTS = (Verdict.BROKEN, Verdict.UNKNOWN, Verdict.HOLDS)


def _in_order(run: Run) -> list[Comparison]:
    return sorted(run.outcome.comparisons, key=_place_in_order)


def _place_in_order(row: Comparison) -> tuple[bool, bool, int]:
    rests_on_it = row.finding.is_assumption and row.finding.verdict is Verdict.HOLDS
    as_expected = row.kind is OutcomeKind.AS_EXPECTED
    return rests_on_it, as_expected, _VERDICTS.index(row.finding.verdict)


def _finding(run: Run, row: Comparison) -> dict[str, Any]:
    finding = row.finding
    return {
        "check": finding.check,
        "title": TITLES[finding.check],
        "verdict": finding.verdict.value,
        "because": _dated(run.plan, finding.because),
        "expectation": _expectation(row),
        "expected": row.expected.value if row.expected else "",
        "expected_because": "" if finding.is_assumption else row.expected_because or "",
        # Without "and 9 more from here on": the page lists those as well.
        "evidence": [
            _place(run.plan, each) for each in finding.evidence if "more" not in each.data
        ],
        "rest": [_place(run.plan, each) for each in finding.rest[:REST_SHOWN]],
        "rest_count": len(finding.rest),
    }


def _expectation(row: Comparison) -> str:
    if row.expected is None:
        return "nothing was expected of it"
    if row.kind is OutcomeKind.AS_EXPECTED:
        return "as expected"
    return f"{row.kind.value}: expected {row.expected.value}"


def _place(plan: Plan, evidence: Evidence) -> dict[str, Any]:
    return {
        "world_s": evidence.world_s,
        "moment": _when(plan, round(evidence.world_s * 1e9)),
        "text": _dated(plan, evidence.text),
        "node": _node_of(plan, evidence.data),
    }


def _node_of(plan: Plan, data: dict[str, Any]) -> str:
    """On whose timeline a piece of evidence lies; "" when it does not say."""
    if isinstance(data.get("node"), str):
        return str(data["node"])

    # Of a pair the client's: there its connection failed.
    pair = data.get("pair")
    identity = pair[0] if pair else data.get("identity")
    if not identity:
        return ""
    return _or_none(lambda: plan.node_of(str(identity))) or ""


# --- What report.js draws -------------------------------------------------------------------------


def _node(node: NodeTracks) -> dict[str, Any]:
    lags = node.clocks.lags_ns
    return {
        "name": node.node,
        "words": describe_node(node),
        "asleep": [_span(*span) for span in node.asleep],
        "clocks": {
            "t": [seconds(world_ns) for world_ns in node.clocks.world_ns],
            "wall": [seconds(lag.wall_ns) for lag in lags],
            "mono": [seconds(lag.monotonic_ns) for lag in lags],
            "boot": [seconds(lag.boottime_ns) for lag in lags],
        },
        "walls": [_span(*point) for point in node.walls],
        "tracks": [_track(track) for track in node.tracks],
    }


def _span(from_ns: int, to_ns: int) -> list[float]:
    return [seconds(from_ns), seconds(to_ns)]


def _track(track: Track) -> dict[str, Any]:
    # Texts are listed once and named by their number: a month has thousands of marks, and few
    # sentences.
    texts: dict[str, int] = {}
    bars = [
        [*_span(b.from_world_ns, b.to_world_ns), b.state, texts.setdefault(b.text, len(texts))]
        for b in track.bars
    ]
    marks = [
        [seconds(mark.world_ns), mark.kind, texts.setdefault(mark.text, len(texts))]
        for mark in track.marks
    ]
    return {
        "label": track.label,
        "kind": track.kind,
        "bars": bars,
        "marks": marks,
        "texts": list(texts),
    }
