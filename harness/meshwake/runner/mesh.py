"""The same in Python, for people who would rather write a test than a TOML file.

    def test_my_week(mesh):
        mesh.run("15h")
        mesh.suspend("8h")
        mesh.run("16h")
        mesh.assert_holds("traffic_flows")

The calls become a scenario, which runs like any other (harness/meshwake/runner/run.py) when the
first result is read. Calls after that make the timeline longer, and the next result runs all of it
again: the same plan has the same past. A clock fault takes its time on the timeline; a fault of the
authority begins now and goes on during the calls that follow. A duration is text as in a scenario
file ("8h"), a number of seconds, a timedelta, or the arguments of one (hours=8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

from meshwake.checks.format import count, dated
from meshwake.core.durations import NS_PER_S, format_duration, parse_option_ns
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.faults import EVERY_NODE
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Finding
from meshwake.core.plan import PlannedExpectation
from meshwake.core.refusal import invalid, invalid_choice
from meshwake.core.run import Run
from meshwake.core.scenario import CheckName, FixName, Scenario, read_scenario, scenario_of
from meshwake.core.store import RunDirectory
from meshwake.report.result import OutageRow, RenewalRow, result
from meshwake.runner.choose import Case, choose, with_fix
from meshwake.runner.corpus import scenario_file
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.runner.timelines import Timeline, ends_ns, faults_of
from meshwake.system.hints import one_of

TIMEDELTA_WORDS = (
    "weeks",
    "days",
    "hours",
    "minutes",
    "seconds",
    "milliseconds",
    "microseconds",
)
CLIENT, SERVER = "default/client", "default/server"
# How long: "8h", seconds, a timedelta, or None where words such as hours=8 say it.
Lasts = str | float | timedelta | None


@dataclass(frozen=True)
class World:
    """What the timeline happens in: one machine with a client and a server. Durations as in a
    scenario file."""

    lifetime: str = "24h"
    backdate: str = "2m"
    every: str = "10m"
    fix: str | None = None


def world_of(unnamed: Sequence[object], named: Mapping[str, Any]) -> World:
    """What the marker `mesh` was given. Raises BadInput with the words that it knows."""
    allowed = [each.name for each in fields(World)]
    if unnamed:
        raise BadInput(
            f"marker mesh: read {unnamed[0]!r} without a name: expected one of "
            f"{', '.join(allowed)}, for example mesh(lifetime='10m')"
        )

    for name, value in named.items():
        if name not in allowed:
            raise BadInput(f"marker mesh: unknown word {name!r}: expected {one_of(name, allowed)}")
        _check_world(name, value)
    return World(**named)


def _check_world(name: str, value: object) -> None:
    """Durations and the name of a fix, as in a scenario file."""
    if name == "fix":
        _check_fix("marker mesh: fix", value)
        return

    if not isinstance(value, str):
        raise BadInput(f"marker mesh: {name}: read {value!r}: expected a duration such as '10m'")
    parse_option_ns(value, f"marker mesh: {name}")


def _check_fix(where: str, name: object) -> FixName:
    if name not in get_args(FixName):
        raise invalid_choice(where, name, get_args(FixName))
    return cast(FixName, name)


_Row = TypeVar("_Row")


@dataclass(repr=False)
class Mesh:
    """A timeline made call by call. `refused` is called, and must not return, when the lab that
    was chosen cannot run it. `directories`: the run of each answer, the last one last; without
    `keep_runs` they are removed at once."""

    options: Options
    name: str
    refused: Callable[[str], Any]
    world: World = field(default_factory=World)
    directories: list[RunDirectory] = field(default_factory=list)
    keep_runs: bool = True
    _now_ns: int = 0
    _faults: list[MutableJsonObject] = field(default_factory=list)
    _nodes: list[MutableJsonObject] = field(default_factory=list)
    _gateways: list[dict[str, str]] = field(default_factory=list)
    _pairs: list[list[str]] = field(default_factory=list)
    _file: Scenario | None = None
    _case: Case | None = None
    _answered: Run | None = None
    _asserted: dict[str, Literal["HOLDS", "BROKEN"]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Short: it is shown with every failed assertion."""
        if self._file is not None:
            return f"<mesh {self.name}: {self._file.name}>"
        faults = count(len(self._faults), "fault")
        return f"<mesh {self.name}: {faults} in {format_duration(self._now_ns)}>"

    # --- The world

    def node(self, name: str, *identities: str) -> None:
        """A machine with clocks of its own, and who is on it; the first call replaces the one that
        is there from the beginning. With several, name the node of a fault, or all have it."""
        self._nodes.append({"name": name, "identities": list(identities)})
        self._changed()

    def gateway(self, name: str, identity: str, node: str | None = None) -> None:
        """A gateway or waypoint on `node`, the first one without (lab model)."""
        if node is None:
            node = str(self._world_nodes()[0]["name"])
        self._gateways.append({"name": name, "node": node, "identity": identity})
        self._changed()

    def connect(self, source: str, destination: str) -> None:
        """From the beginning `source` connects to `destination`, at the interval of the marker;
        without any call the client to the server."""
        self._pairs.append([source, destination])
        self._changed()

    def fix(self, name: str) -> None:
        """Deploys the fix `name` (meshwake matrix lists them) for the whole timeline. Raises
        BadInput for another word."""
        self.world = replace(self.world, fix=_check_fix("fix", name))
        self._changed()

    def scenario(self, file: str | Path) -> None:
        """World and timeline of a scenario, a file or a name (meshwake list); `fix` deploys another
        fix in it. Raises BadInput after any other call."""
        has_begun = self._faults or self._now_ns or self._nodes
        if has_begun:
            raise BadInput(f"scenario {file}: has a timeline of its own: call it first, and alone")

        self._file = read_scenario(scenario_file(file))
        self._changed()

    # --- The timeline

    def run(self, lasts: Lasts = None, **length: float) -> None:
        """Time passes, and nothing happens."""
        forward_ns = _ns(lasts, length)
        # Back in time what comes later would happen before what came first.
        if forward_ns <= 0:
            raise invalid("duration", format_duration(forward_ns), "more than 0")
        self._advance(forward_ns)

    def suspend(self, lasts: Lasts = None, node: str | None = None, **length: float) -> None:
        """The machine sleeps: wall and boottime count it, monotonic does not."""
        self._last("suspend", _ns(lasts, length), node)

    def pause(
        self,
        lasts: Lasts = None,
        node: str | None = None,
        *,
        corrected_after_s: float = 25,
        **length: float,
    ) -> None:
        """Pause the VM: all clocks stop; the wall clock is corrected `corrected_after_s` after the
        resume (25 s were measured in istio/ztunnel#1481)."""
        lasts_ns = _ns(lasts, length)
        after_ns = round(corrected_after_s * NS_PER_S)
        self._last("pause", lasts_ns, node, corrected_after=format_duration(after_ns))

        # The correction belongs to the fault: a call that follows begins with right clocks.
        self._advance(after_ns)

    def freeze(self, lasts: Lasts = None, node: str | None = None, **length: float) -> None:
        """The processes are stopped, all clocks go on."""
        self._last("freeze", _ns(lasts, length), node)

    def step(self, by: Lasts = None, node: str | None = None, **length: float) -> None:
        """The wall clock is set, forward, or back with negative numbers."""
        self._on_node("step", node, by=format_duration(_ns(by, length)))

    def restart(self, node: str | None = None) -> None:
        """Every ztunnel is stopped and started again."""
        self._on_node("restart", node)

    def ca_outage(self, lasts: Lasts = None, **length: float) -> None:
        """From now on, for so long, the authority answers every request with UNAVAILABLE. The
        timeline stays here."""
        self._happen("ca_outage", lasts=format_duration(_ns(lasts, length)))

    def play(self, timeline: Timeline) -> None:
        """What `meshwake.testing.timelines()` draws, from here on, until its last fault is over."""
        for fault in faults_of(timeline, self._now_ns):
            # Faults of the authority have no node, and a [[fault]] with one would be refused.
            is_of_authority = fault["kind"] in {"ca_outage", "ca_hang", "token_expired"}
            where = {} if is_of_authority else self._where(None)
            self._happen(**fault | where)

        self._advance(ends_ns(timeline))

    # --- The answer

    def outages(self) -> list[OutageRow]:
        """When a pair could not connect: pair, from_world_s, to_world_s."""
        return self._derived("outages", lambda answered: result(answered)["outages"])

    def renewals(self) -> list[RenewalRow]:
        """Every renewal: node, identity, issued_world_s, due_world_s, done_world_s, late_s."""
        return self._derived("renewals", lambda answered: result(answered)["renewals"])

    def findings(self) -> dict[str, Finding]:
        """What every check found, by its name."""
        return {finding.check: finding for finding in self._answer().findings}

    def assert_holds(self, *checks: str) -> None:
        """Fails the test with the finding unless every one of `checks` HOLDS. Raises BadInput for a
        name that no check has."""
        __tracebackhide__ = True
        self._assert("HOLDS", checks)

    def assert_broken(self, *checks: str) -> None:
        """Fails the test with the finding unless every one of `checks` is BROKEN."""
        __tracebackhide__ = True
        self._assert("BROKEN", checks)

    def as_asserted(self) -> Run:
        """The last answer, with what was asserted of it as its expectations."""
        run = self._answer()
        rows = []
        for check, verdict in self._asserted.items():
            # An assumption can be asserted too, and is not what a scenario may expect.
            if check not in get_args(CheckName):
                continue

            row = PlannedExpectation(
                check=cast(CheckName, check),
                verdict=verdict,
                because="the test asserts it",
            )
            rows.append(row)

        plan = run.plan.model_copy(update={"expectations": tuple(rows)})
        return replace(run, plan=plan)

    @property
    def chosen_because(self) -> str:
        """Why this lab."""
        return self._chosen().chosen_because

    def _assert(self, verdict: Literal["HOLDS", "BROKEN"], checks: Sequence[str]) -> None:
        __tracebackhide__ = True  # pytest shows the line of the test
        found = self.findings()
        for check in checks:
            if check not in found:
                raise BadInput(f"no check is named {check!r}: expected {one_of(check, found)}")

            # Noted before it is judged: the report shows what failed as well.
            self._asserted[check] = verdict
            finding = found[check]
            if finding.verdict != verdict:
                because = dated(finding.because, self._answer().plan.dates)
                raise AssertionError(f"{check} is {finding.verdict}, expected {verdict}: {because}")

    def _derived(self, what: str, derive: Callable[[Run], list[_Row] | None]) -> list[_Row]:
        """What `derive` makes of the last answer; `what` names it for messages."""
        answered = self._answer()
        rows = derive(answered)

        # An empty list would let a test pass that asserts that there is no outage.
        if rows is None:
            why = dated(answered.outcome.why, answered.plan.dates)
            raise HarnessFault(f"{what} is unknown from this history: {why}")
        return rows

    def _advance(self, by_ns: int) -> None:
        if self._file is not None:
            raise BadInput(f"scenario {self._file.name}: has a timeline of its own")
        self._now_ns += by_ns
        self._changed()

    def _last(self, kind: str, lasts_ns: int, node: str | None, **more: str) -> None:
        self._on_node(kind, node, lasts=format_duration(lasts_ns), **more)
        self._advance(lasts_ns)

    def _on_node(self, kind: str, node: str | None, **more: str) -> None:
        self._happen(kind, **more, **self._where(node))

    def _where(self, node: str | None) -> dict[str, str]:
        """The node of a fault; with several machines all of them, unless one is named."""
        if node is None and len(self._world_nodes()) == 1:
            return {}
        return {"node": node or EVERY_NODE}

    def _happen(self, kind: str, **more: str) -> None:
        self._faults.append({"kind": kind, "at": format_duration(self._now_ns), **more})
        self._advance(0)

    def _changed(self) -> None:
        # The timeline is longer now: the next answer runs all of it, and what was asserted of the
        # shorter one is not a claim about this.
        self._answered = self._case = None
        self._asserted = {}

    def _answer(self) -> Run:
        if self._answered is not None:
            return self._answered

        case = self._chosen()
        if case.refusal is not None:
            self.refused(f"{case.id}: {case.refusal}")

        self._answered = run_case(case, self.options)
        self._remember(self._answered)
        return self._answered

    def _remember(self, run: Run) -> None:
        # A run that came out as expected keeps its directory only with --keep-run.
        if run.path is None:
            return

        directory = RunDirectory(run.path)
        if self.keep_runs:
            self.directories.append(directory)
        else:
            directory.remove()

    def _chosen(self) -> Case:
        if self._case is None:
            self._case = choose(self._scenario(), self.options)[0]
        return self._case

    def _scenario(self) -> Scenario:
        if self._file is not None:
            return self._with_own_fix(self._file)

        if not self._now_ns:
            raise BadInput(
                f"{self.name}: has no timeline yet; call mesh.run('8h') before a question"
            )

        document: MutableJsonObject = {
            "title": f"The timeline of {self.name}",
            "duration": format_duration(self._now_ns),
            "certificate": {"lifetime": self.world.lifetime, "backdate": self.world.backdate},
            "node": self._world_nodes(),
            "gateway": self._gateways,
            "traffic": {"pairs": self._pairs or [[CLIENT, SERVER]], "every": self.world.every},
            "fault": self._faults,
            # The format wants a row. It is replaced by what the test asserts (as_asserted).
            "expect": [
                {
                    "check": "traffic_flows",
                    "verdict": "holds",
                    "because": "a scenario expects something; the test judges what it finds",
                }
            ],
        }
        if self.world.fix is not None:
            document["fix"] = {"name": self.world.fix}
        return scenario_of(document, self.name, self.name)

    def _with_own_fix(self, scenario: Scenario) -> Scenario:
        """`scenario` with the fix of this test; with its own where the test names none."""
        fix = self.world.fix
        if fix is None:
            return scenario
        return with_fix(scenario, cast(FixName, fix))

    def _world_nodes(self) -> list[MutableJsonObject]:
        return self._nodes or [{"name": "laptop", "identities": [CLIENT, SERVER]}]


def new_mesh(
    options: Options, refused: Callable[[str], Any], name: str = "new_mesh", **world: Any
) -> Mesh:
    """A mesh of which no run is kept, for tests that make many: one for each example of Hypothesis.
    `world` as the marker takes it. Raises BadInput."""
    plain = replace(options, keep_run=False, fixes=(), goal=None)
    return Mesh(plain, name, refused, world_of((), world), keep_runs=False)


def _ns(lasts: Lasts, length: Mapping[str, float]) -> int:
    """Of "8h", seconds, a timedelta, or hours=8: exactly one is given. Raises BadInput."""
    if (lasts is None) == (not length):
        raise BadInput("expected one duration: '8h', seconds, a timedelta, or words: hours=8")

    if isinstance(lasts, str):
        return parse_option_ns(lasts, "duration")
    if lasts is None:
        lasts = _timedelta(length)

    # A bool is an int for Python, and is a mistake here.
    if isinstance(lasts, bool) or not isinstance(lasts, (int, float, timedelta)):
        raise BadInput(f"read {lasts!r} as a duration: expected '8h', seconds, or hours=8")

    if isinstance(lasts, timedelta):
        # In whole microseconds, which is all that a timedelta has: total_seconds() is a float.
        return lasts // timedelta(microseconds=1) * 1_000
    return round(lasts * NS_PER_S)


def _timedelta(length: Mapping[str, float]) -> timedelta:
    for word in length:
        if word not in TIMEDELTA_WORDS:
            raise BadInput(f"unknown word {word!r}: expected {one_of(word, TIMEDELTA_WORDS)}")
    try:
        return timedelta(**length)
    except (TypeError, ValueError, OverflowError) as error:
        typed = ", ".join(f"{word}={value!r}" for word, value in length.items())
        raise BadInput(f"{typed}: expected a number of each, as in hours=8") from error
