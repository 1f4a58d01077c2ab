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
file ("8h"), a timedelta, or the arguments of one (hours=8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any

from meshwake.core.durations import NS_PER_S, format_duration, parse_option_ns
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.outcome import Finding
from meshwake.core.run import Run
from meshwake.core.scenario import Scenario, scenario_of
from meshwake.core.store import RunDirectory
from meshwake.report.result import result
from meshwake.runner.choose import Case, choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.system.hints import one_of

NS_PER_US = 1_000
CLIENT, SERVER = "default/client", "default/server"
# How long: "8h", a timedelta, or None where words such as hours=8 say it.
Lasts = str | timedelta | None


@dataclass(frozen=True)
class World:
    """What the story happens in: one machine with a client and a server. Durations as in a scenario
    file."""

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
    for name in named:
        if name not in allowed:
            raise BadInput(f"marker mesh: unknown word {name!r}: expected {one_of(name, allowed)}")
    return World(**named)


@dataclass
class Mesh:
    """A timeline made call by call. `refused` is called, and must not return, when the lab asked
    for cannot run it."""

    options: Options
    name: str
    refused: Callable[[str], Any]
    world: World = field(default_factory=World)
    directories: list[RunDirectory] = field(default_factory=list)
    _now_ns: int = 0
    _faults: list[dict[str, Any]] = field(default_factory=list)
    _answered: Run | None = None

    def run(self, lasts: Lasts = None, **length: float) -> None:
        """Time passes, and nothing happens."""
        self._advance(_ns(lasts, length))

    def suspend(self, lasts: Lasts = None, **length: float) -> None:
        """The machine sleeps: wall and boottime count it, monotonic does not."""
        self._last("suspend", _ns(lasts, length))

    def pause(self, lasts: Lasts = None, *, corrected_after_s: float, **length: float) -> None:
        """Pause the VM: all clocks stop; the wall clock is corrected `corrected_after_s` after the
        resume."""
        corrected_after_ns = round(corrected_after_s * NS_PER_S)
        self._last("pause", _ns(lasts, length), corrected_after=format_duration(corrected_after_ns))
        self._advance(corrected_after_ns)

    def freeze(self, lasts: Lasts = None, **length: float) -> None:
        """The processes are stopped, all clocks go on."""
        self._last("freeze", _ns(lasts, length))

    def step(self, by: Lasts = None, **length: float) -> None:
        """The wall clock is set, forward, or back with negative numbers."""
        self._happen("step", by=format_duration(_ns(by, length)))

    def restart(self) -> None:
        """Every ztunnel is stopped and started again."""
        self._happen("restart")

    def ca_outage(self, lasts: Lasts = None, **length: float) -> None:
        """From now on, for so long, the authority answers every request with UNAVAILABLE. The
        timeline stays here."""
        self._happen("ca_outage", lasts=format_duration(_ns(lasts, length)))

    def outages(self) -> list[dict[str, Any]]:
        """When a pair could not talk: pair, from_world_s, to_world_s."""
        return self._listed("outages")

    def renewals(self) -> list[dict[str, Any]]:
        """Every renewal: node, identity, issued_world_s, due_world_s, done_world_s, late_s."""
        return self._listed("renewals")

    def findings(self) -> dict[str, Finding]:
        """What every check found, by its name."""
        return {finding.check: finding for finding in self._answer().findings}

    def fix(self, name: str) -> None:
        """Deploys the fix `name` (meshwake matrix lists them) for the whole timeline."""
        self.world = replace(self.world, fix=name)
        self._answered = None

    def assert_holds(self, *checks: str) -> None:
        """Fails the test with the finding unless every one of `checks` HOLDS. Raises BadInput for a
        name that no check has."""
        self._assert("HOLDS", checks)

    def assert_broken(self, *checks: str) -> None:
        """Fails the test with the finding unless every one of `checks` is BROKEN."""
        self._assert("BROKEN", checks)

    def _assert(self, verdict: str, checks: Sequence[str]) -> None:
        __tracebackhide__ = True  # pytest shows the line of the test
        found = self.findings()
        for check in checks:
            if check not in found:
                raise BadInput(f"no check is named {check!r}: expected {one_of(check, found)}")
            finding = found[check]
            if finding.verdict != verdict:
                raise AssertionError(
                    f"{check} is {finding.verdict}, expected {verdict}: {finding.because}"
                )

    def _listed(self, key: str) -> list[dict[str, Any]]:
        answered = self._answer()
        listed: list[dict[str, Any]] | None = result(answered)[key]
        if listed is None:
            raise HarnessFault(f"{key} cannot be told from this history: {answered.outcome.why}")
        return listed

    def _advance(self, by_ns: int) -> None:
        self._now_ns += by_ns
        self._answered = None

    def _last(self, kind: str, lasts_ns: int, **more: str) -> None:
        self._happen(kind, lasts=format_duration(lasts_ns), **more)
        self._advance(lasts_ns)

    def _happen(self, kind: str, **more: str) -> None:
        self._faults.append({"kind": kind, "at": format_duration(self._now_ns), **more})
        self._answered = None

    def _answer(self) -> Run:
        if self._answered is None:
            case = self._case()
            if case.refusal is not None:
                self.refused(f"{case.id}: {case.refusal}")
            self._answered = run_case(case, self.options)
            if self._answered.path is not None:
                self.directories.append(RunDirectory(self._answered.path))
        return self._answered

    def _case(self) -> Case:
        return choose(self._scenario(), self.options)[0]

    def _scenario(self) -> Scenario:
        document: dict[str, Any] = {
            "title": f"told by {self.name}",
            "duration": format_duration(self._now_ns),
            "certificate": {"lifetime": self.world.lifetime, "backdate": self.world.backdate},
            "node": [{"name": "laptop", "identities": [CLIENT, SERVER]}],
            "traffic": {"pairs": [[CLIENT, SERVER]], "every": self.world.every},
            "fault": self._faults,
            "expect": [
                {
                    "check": "traffic_flows",
                    "verdict": "holds",
                    "because": "the test that tells it will judge",
                }
            ],
        }
        if self.world.fix is not None:
            document["fix"] = {"name": self.world.fix}
        return scenario_of(document, self.name, self.name)


def _ns(text: str | timedelta | None, length: Mapping[str, float]) -> int:
    """Of "8h", a timedelta, or hours=8: exactly one is given. Raises BadInput."""
    if (text is None) == (not length):
        raise BadInput("expected one duration: '8h', a timedelta, or words such as hours=8")
    if isinstance(text, str):
        return parse_option_ns(text, "duration")
    if text is not None and not isinstance(text, timedelta):
        raise BadInput(f"read {text!r} as a duration: expected '8h', a timedelta, or hours=8")
    return (text or timedelta(**length)) // timedelta(microseconds=1) * NS_PER_US
