"""Runs the fixes over whole populations: thousands of machines x fixes x lifetimes x releases.

    SweepSpec ── parts ──> SweepPart (some machines of one population) ── simulate_part ──> MachineResults ── one
    Parquet file a part ──> summary

Every part can be simulated anywhere, alone, and gives the same rows: chance comes from the seed,
the population and the number of the machine, and every fix meets the very same sleeps. So it does
not matter on how many cores or machines a sweep ran, whether workers died on the way, or whether it
was killed and started again: the digest of the rows is equal.

A part is written to a temporary file and then renamed, so it is whole or missing. A sweep that is
started again in the same folder takes the parts that are there, after checking that their spec is
the same.

Its limits: lab model only (a week of a real ztunnel takes seconds, not milliseconds), and one
ztunnel with two identities a machine. Where a connection fails is known to the second, since the
model tries one whenever the result could change.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

from meshwake.analysis.populations import IMPORTED, NODE, POPULATIONS, RecordedMachine, faults_of
from meshwake.checks.facts.certificates import certificates
from meshwake.checks.facts.traffic import failures
from meshwake.checks.recovers_within import NAME as RECOVERS_WITHIN
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.errors import BadInput
from meshwake.core.extras import require
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan, PlannedFix, PlannedNode
from meshwake.core.refusal import invalid_choice
from meshwake.core.versions import find
from meshwake.fixes import FIXES, adapted
from meshwake.runner.execution import execute

# Raised when results get other columns or the same seed other machines: results of two formats must
# not be summed up as one distribution.
SPEC_FORMAT = 3
SPEC_FILE, SUMMARY_FILE, PARTS = "sweep.json", "summary.json", "parts"
CLIENT, SERVER = "default/client", "default/server"
EVERY_NS = 6 * 3_600 * NS_PER_S
STARTS_WALL_S = 1_799_049_600  # Monday 2027-01-04 08:00 UTC, as scenarios begin
DAY_S = 86_400


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep asks. `machines` of each population, each for `days`; every combination of the
    others. `remembered`: the real machines of which the population `imported` is made."""

    populations: tuple[str, ...]
    fixes: tuple[str, ...]
    lifetimes_s: tuple[int, ...]
    versions: tuple[str, ...]
    machines: int
    days: int
    seed: int
    remembered: tuple[RecordedMachine, ...] = ()
    machines_a_part: int = 50

    def to_json(self) -> dict[str, Any]:
        """As it is kept with the results."""
        plain: dict[str, Any] = json.loads(json.dumps({"format": SPEC_FORMAT, **asdict(self)}))
        return plain


@dataclass(frozen=True)
class SweepPart:
    """Some machines of one population, under one release and one lifetime, with every fix."""

    number: int
    population: str
    version: str
    lifetime_s: int
    first: int
    last: int
    spec: SweepSpec


@dataclass(frozen=True)
class MachineResult:
    """One machine with one fix. `recovers`: that was shown; `unknown`: neither that nor its
    opposite was (an assumption failed, or the run ended too early). `outage_s` counts time awake,
    `worst_s` is the longest outage; `first_failure_s` -1: never. `requests` is every one that
    reached the authority."""

    population: str
    version: str
    lifetime_s: int
    machine: int
    fix: str
    recovers: bool
    unknown: bool
    outage_s: float
    outages: int
    worst_s: float
    first_failure_s: float
    restarts: int
    requests: int
    certificates: int
    asleep_s: float


def spec_of(
    populations: Iterable[str],
    fixes: Iterable[str],
    lifetimes_s: Iterable[int],
    versions: Iterable[str],
    machines: int,
    days: int,
    seed: int,
    remembered: tuple[RecordedMachine, ...] = (),
) -> SweepSpec:
    """The question, its words looked up. Raises BadInput that names what is allowed."""
    spec = SweepSpec(
        tuple(dict.fromkeys(populations)),
        tuple(dict.fromkeys(fixes)),
        tuple(dict.fromkeys(lifetimes_s)),
        tuple(dict.fromkeys(find(version).version for version in versions)),
        machines,
        days,
        seed,
        remembered,
    )
    _known("--population", spec.populations, [*POPULATIONS, *([IMPORTED] if remembered else [])])
    _known("--fix", spec.fixes, FIXES)

    # With less a certificate would be due, or expired, when it is issued.
    if min(spec.lifetimes_s, default=0) < 240:
        raise BadInput(
            "--lifetime: expected four minutes or more, since istiod backdates certificates by two"
        )
    return spec


def _known(option: str, words: tuple[str, ...], allowed: Iterable[str]) -> None:
    for word in words:
        if word not in allowed:
            raise invalid_choice(option, word, allowed)


def parts(spec: SweepSpec) -> Iterator[SweepPart]:
    """Every part, numbered in the order in which rows are counted."""
    number = 0
    for population in spec.populations:
        for version in spec.versions:
            for lifetime_s in spec.lifetimes_s:
                for first in range(0, spec.machines, spec.machines_a_part):
                    last = min(first + spec.machines_a_part, spec.machines)
                    yield SweepPart(number, population, version, lifetime_s, first, last, spec)
                    number += 1


# --- Answering ------------------------------------------------------------------------------------


def simulate_part(part: SweepPart) -> list[MachineResult]:
    """Every machine of `part` with every fix. Runs in a worker: it takes plain values and returns
    plain values."""
    return [row for machine in range(part.first, part.last) for row in _of_machine(part, machine)]


def _of_machine(part: SweepPart, machine: int) -> Iterator[MachineResult]:
    spec = part.spec
    faults = faults_of(part.population, machine, spec.seed, spec.days, spec.remembered)
    base = _base_plan(part.population, part.version, part.lifetime_s, spec.days)
    for name in spec.fixes:
        plan = base.model_copy(
            update={"faults": faults, "seed": machine, "fix": _planned_fix(name)}
        )
        yield _row(adapted(plan), part, machine, name)


@lru_cache(maxsize=64)
def _planned_fix(name: str) -> PlannedFix:
    return PlannedFix(name=name, manifest=FIXES[name].read_manifest())


@lru_cache(maxsize=64)
def _base_plan(population: str, version: str, lifetime_s: int, days: int) -> Plan:
    release = find(version)
    return Plan(
        scenario=f"sweep_{population}",
        title=f"a machine of the population {population}",
        lab="model",
        version=release.version,
        behaviour_class=release.model_class,
        seed=0,
        starts_wall_s=STARTS_WALL_S,
        duration_ns=days * DAY_S * NS_PER_S,
        lifetime_s=lifetime_s,
        backdate_s=120,
        nodes=(PlannedNode(name=NODE, identities=(CLIENT, SERVER)),),
        authority_node=NODE,
        pairs=((CLIENT, SERVER),),
        attempt_every_ns=EVERY_NS,
        faults=(),
    )


def _row(plan: Plan, part: SweepPart, machine: int, fix: str) -> MachineResult:
    executed = execute(plan)
    history, verdict = executed.history, executed.verdict(RECOVERS_WITHIN)
    failing = failures(plan, history)
    restarted = history.of("ztunnel_started", "proxy_started", cause=fix)
    asleep_ns = sum(fault.asleep_until_world_ns - fault.at_world_ns for fault in plan.faults)
    return MachineResult(
        population=part.population,
        version=part.version,
        lifetime_s=part.lifetime_s,
        machine=machine,
        fix=fix,
        recovers=verdict is Verdict.HOLDS,
        unknown=verdict is Verdict.UNKNOWN,
        outage_s=seconds(sum(each.awake_ns for each in failing)),
        outages=len(failing),
        worst_s=seconds(max((each.awake_ns for each in failing), default=0)),
        first_failure_s=seconds(failing[0].from_world_ns) if failing else -1.0,
        # ztunnel and gateways of a node that restart at one moment are one restart.
        restarts=len({(event.world_ns, event.node) for event in restarted}),
        requests=len(history.of("csr_answered")),
        certificates=sum(len(held) for held in certificates(history).values()),
        asleep_s=seconds(asleep_ns),
    )


# --- Keeping what was answered --------------------------------------------------------------------


@dataclass(frozen=True)
class ResultStore:
    """The folder of a sweep: its question, a Parquet file for every part answered, and the
    summary."""

    path: Path

    def done(self) -> set[int]:
        """The numbers of the parts that are there, whole."""
        return {
            int(file.stem) for file in (self.path / PARTS).glob("*.parquet") if file.stem.isdigit()
        }

    def put(self, part: SweepPart, rows: list[MachineResult]) -> None:
        """Keeps the rows of one part. Raises BadInput where the disk does not take them; parts kept
        before stay."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        place = self.path / PARTS / f"{part.number:06}.parquet"
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        columns = {
            field.name: [getattr(row, field.name) for row in rows]
            for field in fields(MachineResult)
        }
        try:
            try:
                pq.write_table(pa.table(columns), fresh)
                fresh.replace(place)
            finally:
                with suppress(OSError):
                    fresh.unlink(missing_ok=True)
        except OSError as error:
            raise BadInput(
                f"{place}: cannot be written ({error.strerror or error}); the "
                f"{len(self.done())} parts before it are "
                "kept: make room and give the same command again, and it goes on from there"
            ) from error

    def rows(self) -> Iterator[MachineResult]:
        """Everything that was answered, in the order of parts."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in sorted((self.path / PARTS).glob("*.parquet")):
            try:
                table = pq.read_table(file)
            except (OSError, pa.ArrowException) as error:
                raise BadInput(
                    f"{file}: is not a whole part ({error}); remove it and give the same command "
                    "again"
                ) from error
            yield from (MachineResult(**values) for values in table.to_pylist())


def open_result_store(path: Path, spec: SweepSpec) -> ResultStore:
    """The folder for `spec`, new or begun before. Raises BadInput where the folder is of another
    spec, or where nothing can be written; LabUnavailable without pyarrow."""
    require("sweep")
    question = path / SPEC_FILE
    try:
        (path / PARTS).mkdir(parents=True, exist_ok=True)
        if not question.exists():
            question.write_text(json.dumps(spec.to_json(), indent=1) + "\n", encoding="utf-8")
        kept = question.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"{path}: cannot be written ({error.strerror}); give another --output"
        ) from error
    _check_spec(path, kept, spec)
    return ResultStore(path)


def _check_spec(path: Path, kept: str, spec: SweepSpec) -> None:
    try:
        before = json.loads(kept)
    except ValueError as error:
        raise BadInput(
            f"{path / SPEC_FILE}: is half a file ({error}); remove {path} and start again"
        ) from error

    # As JSON has it, where a tuple is a list: else a kept question would differ from itself.
    now = spec.to_json()
    if not isinstance(before, dict) or before.get("format") != SPEC_FORMAT:
        found = before.get("format") if isinstance(before, dict) else before
        raise BadInput(
            f"{path}: holds a sweep of format {found}, this meshwake writes {SPEC_FORMAT}; "
            "give another --output"
        )
    differ = [key for key in now if before.get(key) != now[key]]
    if differ:
        differences = (key if key == "remembered" else f"{key} {before.get(key)}" for key in differ)
        raise BadInput(
            f"{path}: holds a sweep with another spec ({', '.join(differences)}); give the same "
            "to continue, or give another "
            "--output"
        )


# --- The whole sweep ------------------------------------------------------------------------------

PartRunner = Callable[[list[SweepPart]], Iterator[tuple[SweepPart, list[MachineResult]]]]


def sweep(
    spec: SweepSpec, store: ResultStore, answers: PartRunner, report: Callable[[int, int], None]
) -> dict[str, Any]:
    """Answers every part that is not on the store yet, with `answers` (workers.py), and sums up.
    `report` gets how many of how many parts are there."""
    everything = list(parts(spec))
    done = store.done()
    report(len(done), len(everything))

    # Each part is on disk before the next is counted: an interrupted sweep goes on from there.
    for part, rows in answers([part for part in everything if part.number not in done]):
        store.put(part, rows)
        done.add(part.number)
        report(len(done), len(everything))
    summary = summarise_results(spec, store.rows())
    try:
        (store.path / SUMMARY_FILE).write_text(
            json.dumps(summary, indent=1) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise BadInput(
            f"{store.path}: cannot be written ({error.strerror}); every part is kept"
        ) from error
    return summary


def summarise_results(spec: SweepSpec, rows: Iterable[MachineResult]) -> dict[str, Any]:
    """The distribution of each fix in each population, and the digest of all rows: equal where they
    are."""
    groups: dict[tuple[Any, ...], list[MachineResult]] = {}
    digest = hashlib.sha256()
    for row in rows:
        # Rows come in the order of parts, in whatever order they were computed.
        digest.update(json.dumps(list(asdict(row).values())).encode())
        groups.setdefault((row.population, row.version, row.lifetime_s, row.fix), []).append(row)
    listed = [
        dict(zip(("population", "version", "lifetime_s", "fix"), key, strict=True))
        | _distribution(spec, group)
        for key, group in groups.items()
    ]
    return {
        "spec": spec.to_json(),
        "rows": sum(map(len, groups.values())),
        "sha256": digest.hexdigest(),
        "groups": listed,
    }


def _distribution(spec: SweepSpec, rows: list[MachineResult]) -> dict[str, Any]:
    weeks = spec.days / 7
    outage_s = sorted(row.outage_s / weeks for row in rows)
    return {
        "machines": len(rows),
        "recover": sum(row.recovers for row in rows),
        "unknown": sum(row.unknown for row in rows),
        "with_outage": sum(row.outages > 0 for row in rows),
        "outage_s_per_week": {
            name: round(_quantile(outage_s, at), 1)
            for name, at in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        }
        | {"mean": round(mean(outage_s), 1), "most": round(outage_s[-1], 1)},
        "worst_s": max(row.worst_s for row in rows),
        "restarts_per_week": round(mean(row.restarts for row in rows) / weeks, 2),
        "requests_per_week": round(mean(row.requests for row in rows) / weeks, 1),
    }


def _quantile(ordered: list[float], at: float) -> float:
    return ordered[min(int(at * len(ordered)), len(ordered) - 1)]
