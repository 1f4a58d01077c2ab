"""The smallest timeline that breaks a fix, or a promise: searched for, shrunk, and written down as
a scenario.

hypothesis draws timelines  ──>  the first that breaks  ──>  hypothesis shrinks it  ──>  `smallest`
goes on

A timeline is a list of moves, one after another on one machine; each is some time after the one
before. What hypothesis leaves is shrunk further by plain rules until none applies: no move can be
left out, and no length, step or pause before a move can be made a quarter shorter, without the
break going away. That is checked, move by move, before anything is called smallest
(`FalsifyResult.minimal` says so).

Deterministic: the same fix, property, seed and budget that suffices give the same timeline. The
budget bounds the search in real time and nothing else.

Left out unless requested: `ca_hang`. A request that is never answered breaks every ztunnel without
any clock fault, whatever is deployed (facts: no deadline in any release), so that nothing else
would ever be found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any

import tomlkit

from meshwake.analysis.matrix import plan_for
from meshwake.checks import CHECKS
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.errors import BadInput
from meshwake.core.extras import require
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan
from meshwake.core.refusal import invalid_choice
from meshwake.core.scenario import Scenario, scenario_of
from meshwake.core.versions import Release, releases
from meshwake.fixes import FIXES
from meshwake.labs import Toolbox
from meshwake.runner.execution import execute
from meshwake.runner.timelines import (
    DEFAULT_KINDS,
    KINDS,
    MINUTE_NS,
    Move,
    Timeline,
    describe,
    ends_ns,
    faults_of,
    timelines,
)

# The budget of time is looked at between two batches. Each has a seed of its own, so a search that
# had more time begins with the same draws.
DRAWS_AT_A_TIME = 50
# A find of two moves or fewer is small enough for a person, and ends the search; a longer one may
# be a local minimum of shrinking, so it is compared with up to three others.
FEW_MOVES, FINDS_MAX = 2, 4
HOUR_NS, DAY_NS = 3_600 * NS_PER_S, 86_400 * NS_PER_S
# Two lives of a certificate of a day: so long something broken may be in coming
# (guard_trial.COMES_WITHIN_NS counts a day more).
AFTERWARDS_NS = 2 * DAY_NS
# A longer timeline has its connections at longer intervals, so that a search over weeks costs as
# much per draw as one over days.
ATTEMPTS_MAX, EVERY_MIN_NS = 1_000, 5 * MINUTE_NS
CLIENT, SERVER = "default/client", "default/server"
SOURCE = "https://github.com/istio/ztunnel/issues/1481"
# What of a move may be made shorter, and the least it may become. Minutes, but seconds for
# `corrected_s`.
_LEAST = {"after": 1, "lasts": 1, "by": 1, "corrected_s": 1, "rate_off": 1}


# --- A timeline as a scenario ---------------------------------------------------------------------


def document_of(
    timeline: Timeline, fix: str, check: str, because: str = "it was found to break"
) -> dict[str, Any]:
    """The tables of the scenario in which `timeline` happens."""
    asleep_ns = sum(move.lasts + move.by for move in timeline) * MINUTE_NS
    # A certificate is served expired at the latest half a life, a life and the drift after the last
    # sleep.
    needed_ns = ends_ns(timeline) + AFTERWARDS_NS + asleep_ns
    duration_ns = _rounded_up(needed_ns, HOUR_NS)

    # Rounded up to whole minutes, as a person would write an interval.
    every_ns = max(EVERY_MIN_NS, _rounded_up(-(-duration_ns // ATTEMPTS_MAX), MINUTE_NS))

    subject, deployed = fix, {"fix": {"name": fix}}
    if fix == "none":
        subject, deployed = "ztunnel as released", {}

    return {
        "title": f"{describe(timeline)}: the smallest timeline that breaks {subject}",
        "source": SOURCE,
        "labs": ["model", "process"],
        "duration": format_duration(duration_ns),
        "node": [{"name": "laptop", "identities": [CLIENT, SERVER]}],
        "traffic": {"pairs": [[CLIENT, SERVER]], "every": format_duration(every_ns)},
        "fault": list(faults_of(timeline)),
        **deployed,
        "expect": [{"check": check, "verdict": "broken", "because": because}],
    }


def _rounded_up(length_ns: int, unit_ns: int) -> int:
    # `//` rounds down, and of a negative number therefore up.
    return -(-length_ns // unit_ns) * unit_ns


# --- The question ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FalsifyTarget:
    """What is to be broken, and on what. `ztunnel`: the binary, for lab `process`."""

    fix: str
    check: str
    release: Release
    lab: str = "model"
    seed: int = 0
    kinds: tuple[str, ...] = DEFAULT_KINDS
    ztunnel: Path | None = None
    work_dir: Path = field(default_factory=Path)

    def plan(self, timeline: Timeline) -> Plan:
        """The plan in which `timeline` happens to the fix."""
        return plan_for(FIXES[self.fix], self.scenario(timeline), self.release, self.lab, self.seed)

    def scenario(self, timeline: Timeline) -> Scenario:
        """The same as a scenario."""
        return scenario_of(
            document_of(timeline, self.fix, self.check), "falsify", file_name(self.fix, self.check)
        )

    def finding(self, timeline: Timeline) -> Finding:
        """What the check says of it."""
        plan = self.plan(timeline)
        return execute(plan, Toolbox(self.ztunnel, self.work_dir)).finding(self.check)


def make_target(
    fix: str,
    check: str,
    release: Release,
    lab: str = "model",
    seed: int = 0,
    kinds: tuple[str, ...] = DEFAULT_KINDS,
) -> FalsifyTarget:
    """The question, its words looked up. Raises BadInput that names what is allowed."""
    _check_word("--fix", fix, tuple(FIXES))
    _check_word("--property", check, tuple(CHECKS))
    for kind in kinds:
        _check_word("--faults", kind, KINDS)
    return FalsifyTarget(fix, check, release, lab, seed, kinds)


def _check_word(option: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise invalid_choice(option, word, allowed)


# --- Searching ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FalsifyResult:
    """What a search ended with. `timeline` None: nothing was found in the budget. `minimal`:
    nothing can be left out and nothing made a quarter shorter; False only when the budget of
    shrinking ran out first. `unknown`: for how many timelines the check was UNKNOWN, which neither
    breaks the property nor shows that it holds."""

    question: FalsifyTarget
    timeline: Timeline | None
    tried: int
    real_s: float
    minimal: bool = False
    because: str = ""
    unknown: int = 0


class _Counted:
    """Whether a timeline breaks the property; counts the timelines, and runs none twice."""

    def __init__(self, question: FalsifyTarget, report: Callable[[int], None]) -> None:
        self._question, self._report = question, report
        self._known: dict[Timeline, Verdict] = {}

    def __call__(self, timeline: Timeline) -> bool:
        if timeline not in self._known:
            self._known[timeline] = self._question.finding(timeline).verdict
            self._report(self.tried)
        return self._known[timeline] is Verdict.BROKEN

    @property
    def tried(self) -> int:
        return len(self._known)

    @property
    def unknown(self) -> int:
        return sum(verdict is Verdict.UNKNOWN for verdict in self._known.values())


def falsify(
    question: FalsifyTarget,
    budget_s: float,
    shrink_budget_s: float = 60.0,
    report: Callable[[int], None] = lambda tried: None,
    clock: Callable[[], float] = time.monotonic,
) -> FalsifyResult:
    """Searches until something breaks or the budget is over. A find of many moves is
    compared with a few others, as long as the budget lasts. `report` gets how many were tried."""
    breaks, began_s = _Counted(question, report), clock()

    def in_time() -> bool:
        return clock() - began_s < budget_s

    finds: list[Timeline] = []
    for timeline in islice(_finds(question, breaks, in_time), FINDS_MAX):
        until_s = clock() + shrink_budget_s
        finds.append(smallest(timeline, breaks, partial(_before, clock, until_s)))
        if len(finds[-1]) <= FEW_MOVES:
            break

    if not finds:
        return FalsifyResult(
            question, None, breaks.tried, clock() - began_s, unknown=breaks.unknown
        )

    least = min(finds, key=_size)
    # Tried again here, whatever ended the shrinking: `breaks` remembers what it has seen.
    minimal = not any(breaks(smaller) for smaller in neighbours(least))
    because = question.finding(least).because
    return FalsifyResult(
        question, least, breaks.tried, clock() - began_s, minimal, because, breaks.unknown
    )


def _before(clock: Callable[[], float], until_s: float) -> bool:
    return clock() < until_s


def _size(timeline: Timeline) -> tuple[int, int]:
    return len(timeline), sum(move.lasts + move.by for move in timeline)


def _finds(
    question: FalsifyTarget, breaks: Callable[[Timeline], bool], in_time: Callable[[], bool]
) -> Iterator[Timeline]:
    """Some draws at a time, each batch with a seed of its own: where time ends the search changes
    no draw before."""
    require("search")
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis.errors import NoSuchExample

    limits = settings(
        max_examples=DRAWS_AT_A_TIME,
        database=None,  # what an earlier search found is not to change this one
        deadline=None,  # a run takes as long as it takes; the budget is ours
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),  # they warn of slow tests, which a run is
    )
    for batch in count(1):
        if not in_time():
            return
        chance = Random(f"{question.fix} {question.check} {question.seed} {batch}")
        with suppress(NoSuchExample):
            yield find(timelines(question.kinds), breaks, settings=limits, random=chance)


# --- Shrinking ------------------------------------------------------------------------------------


def smallest(
    timeline: Timeline, breaks: Callable[[Timeline], bool], in_time: Callable[[], bool]
) -> Timeline:
    """`timeline` made smaller as long as it breaks and there is time: first by leaving out, then by
    shortening."""
    while in_time():
        # The first that still breaks, not the best of all: each costs a run.
        smaller = next((each for each in neighbours(timeline) if breaks(each)), None)
        if smaller is not None:
            timeline = smaller
            continue

        # A number that is a few minutes less may let a neighbour break that did not before.
        shorter = _to_the_minute(timeline, breaks)
        if shorter == timeline:
            return timeline
        timeline = shorter
    return timeline


def neighbours(timeline: Timeline) -> Iterator[Timeline]:
    """Every timeline with one move less (left out, or one with its neighbour), and with one number
    a quarter less. A timeline is the smallest when none of them breaks."""
    # What takes most away comes first.
    if len(timeline) > 1:
        for position in range(len(timeline)):
            yield _without(timeline, position, later=False)
            yield _without(timeline, position, later=True)

    for position, (move, following) in enumerate(pairwise(timeline)):
        if _can_be_joined(move, following):
            both = replace(move, lasts=move.lasts + following.lasts)
            yield (*timeline[:position], both, *timeline[position + 2 :])

    yield from _shorter(timeline)


def _can_be_joined(move: Move, following: Move) -> bool:
    # A step and a restart take no time, so there is nothing to add up.
    if move.lasts == 0:
        return False
    return move.kind == following.kind and move.rate_off == following.rate_off


def _shorter(timeline: Timeline) -> Iterator[Timeline]:
    """Every timeline with one number of one move a quarter less."""
    for position, move in enumerate(timeline):
        for name, least in _LEAST.items():
            value = getattr(move, name)
            if value > least:
                yield _with(timeline, position, name, max(value * 3 // 4, least))


def _without(timeline: Timeline, position: int, later: bool) -> Timeline:
    """`later`: what follows stays in its place; else it moves up."""
    rest = [*timeline[:position], *timeline[position + 1 :]]
    if later and position < len(rest):
        gone, following = timeline[position], rest[position]
        rest[position] = replace(following, after=following.after + gone.after + gone.takes)
    return tuple(rest)


def _with(timeline: Timeline, position: int, name: str, value: int) -> Timeline:
    changed: dict[str, Any] = {name: value}
    return (*timeline[:position], replace(timeline[position], **changed), *timeline[position + 1 :])


def _to_the_minute(timeline: Timeline, breaks: Callable[[Timeline], bool]) -> Timeline:
    """Each number as small as it can be, found by halves: 12 h 1 m says more to a person than 14
    h."""
    for position in range(len(timeline)):
        for name, least in _LEAST.items():
            # `bad` breaks the property, `good` is taken not to; between them the least that does.
            good, bad = least - 1, getattr(timeline[position], name)
            while bad - good > 1 and bad > least:
                middle = max((good + bad) // 2, least)
                if breaks(_with(timeline, position, name, middle)):
                    bad = middle
                else:
                    good = middle

            if bad < getattr(timeline[position], name):
                timeline = _with(timeline, position, name, bad)
    return timeline


# --- Writing it down ------------------------------------------------------------------------------


def file_name(fix: str, check: str) -> str:
    """The name of the scenario, which is that of its file."""
    return f"{fix}_{check}".replace("-", "_")


def scenario_text(found: FalsifyResult) -> str:
    """The scenario as TOML, with what is expected of every release: what the model says of each."""
    assert found.timeline is not None
    question = found.question
    document = document_of(found.timeline, question.fix, question.check, found.because)
    lines = [
        f"# Found by `meshwake falsify --fix {question.fix} --property {question.check} "
        f"--seed {question.seed}`:",
        "# no fault can be left out, and none made a quarter shorter.",
        *(f"{key:<8} = {_toml(document[key])}" for key in ("title", "source", "labs", "duration")),
    ]
    lines += _table("[[node]]", document["node"][0]) + _table("[traffic]", document["traffic"])
    for fault in document["fault"]:
        lines += _table("[[fault]]", fault)
    if "fix" in document:
        lines += _table("[fix]", document["fix"])
    for verdict, versions in _expected(found):
        reason = "the older release behaves otherwise"
        if verdict == "broken":
            reason = "the smallest timeline that breaks it"
        row = {"check": question.check, "verdict": verdict, "versions": versions, "because": reason}
        lines += _table("[[expect]]", row)
    return "\n".join(lines) + "\n"


def _table(header: str, values: dict[str, Any]) -> list[str]:
    width = max(map(len, values))
    return ["", header, *(f"{key:<{width}} = {_toml(value)}" for key, value in values.items())]


def _toml(value: Any) -> str:
    return str(tomlkit.item(value).as_string())


def _expected(found: FalsifyResult) -> Iterator[tuple[str, str]]:
    """The verdict of each range of releases, as (verdict, version range): each is run on the
    model."""
    ranges = groupby(_verdicts_of_releases(found), key=itemgetter(0))
    # Of each run of equal verdicts its first release, which is where the range begins.
    spans = [(verdict, next(group)[1]) for verdict, group in ranges]
    for (verdict, first), following in zip(spans, [*spans[1:], None], strict=True):
        # The first range holds for older releases than the table has, the last for newer ones.
        least = first if (verdict, first) != spans[0] else "0"
        most = "" if following is None else f",<{following[1]}"
        yield verdict, f">={least}{most}"


def _verdicts_of_releases(found: FalsifyResult) -> Iterator[tuple[str, str]]:
    """(verdict, version) of every release whose class is known, oldest first."""
    assert found.timeline is not None
    by_class: dict[str, str] = {}  # nothing else of a release matters to the model
    for release in releases():
        if not release.classified:
            continue

        if release.behaviour_class not in by_class:
            plan = replace(found.question, release=release, lab="model").plan(found.timeline)
            verdict = execute(plan).verdict(found.question.check)
            by_class[release.behaviour_class] = verdict.value.lower()

        yield by_class[release.behaviour_class], release.version


def save(found: FalsifyResult, directory: Path) -> Path:
    """Writes the scenario below `directory`. Raises BadInput when it cannot be written."""
    path = directory / f"{file_name(found.question.fix, found.question.check)}.toml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(scenario_text(found), encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); give another --output"
        ) from error
    return path
