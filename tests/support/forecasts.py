"""A forecast made in the middle of a run, from what a cluster would have shown then, against what
really happened.

`case(seed)` is a timeline by chance: sleeps, pauses, steps and drifts of one machine, then the
moment of the forecast, at which it may fall asleep, then a day and a half in which nothing else
happens. `save_shown` writes what a user would have saved at that moment (docs/forecast.md), from
the history alone and no finer than a cluster shows it; `compare` reads that back through the
program's own reader and sets the forecast against the history.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Literal

from meshwake.analysis.forecast import NodeForecast, forecast_node
from meshwake.analysis.forecast_files import read_nodes
from meshwake.checks.facts.certificates import CertificateInUse, certificates, lives
from meshwake.checks.facts.clocks import timeline
from meshwake.checks.facts.traffic import failures
from meshwake.clocks.virtual import clocks_of
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.ztunnel.spiffe import spiffe_id

from tests.support import plans

Way = Literal["journal", "elapsed", "start"]
WAYS: tuple[Way, ...] = ("journal", "elapsed", "start")
UPTIME_AT_START_NS = 41 * NS_PER_S + 130_000_000
WITHIN_S = 2.0


@dataclass(frozen=True)
class Case:
    """A plan, the world time of the forecast, how long the machine sleeps from then on, and what is
    saved."""

    seed: int
    plan: Plan
    at_world_ns: int
    sleep_ns: int
    way: Way


def case(seed: int, lab: str = "model") -> Case:
    """The case of this number: the same each time."""
    random = Random(seed)
    body, at_s = [], random.randint(60, 40_000)
    for _ in range(random.randint(1, 6)):
        text, lasts_s = _fault(random, at_s)
        body.append(text)
        at_s += lasts_s + random.randint(600, 30_000)
    sleep_s = random.choice((0, random.randint(600, 50_000)))
    if sleep_s:
        # Until a VM's wall clock is corrected, it takes what ran out meanwhile for valid, and for
        # how long cannot be predicted.
        kind = random.choice(('"suspend"', '"pause"\ncorrected_after = "1s"'))
        body.append(f'[[fault]]\nkind = {kind}\nat = "{at_s}s"\nlasts = "{sleep_s}s"')
    duration = format_duration((at_s + sleep_s + 180_000) * NS_PER_S)
    plan = plans.plan("\n".join(body), duration=duration, every="30m", lab=lab, seed=seed)
    return Case(seed, plan, at_s * NS_PER_S, sleep_s * NS_PER_S, WAYS[seed % len(WAYS)])


def _fault(random: Random, at_s: int) -> tuple[str, int]:
    """A [[fault]] and how long it lies on the timeline."""
    kind = random.choice(("suspend", "suspend", "pause", "step", "drift"))
    lasts_s = random.randint(300, 36_000)
    about = {
        "suspend": f'lasts = "{lasts_s}s"',
        "pause": f'lasts = "{lasts_s}s"\ncorrected_after = "25s"',
        "step": "by = "
        f'"{random.choice((random.randint(60, 30_000), -random.randint(60, 3_600)))}s"',
        "drift": f'lasts = "{lasts_s}s"\nrate = 1.025',
    }[kind]
    text = f'[[fault]]\nkind = "{kind}"\nat = "{at_s}s"\n{about}'
    return text, 0 if kind == "step" else lasts_s + 30


# --- What a cluster would have shown --------------------------------------------------------------


def save_shown(of: Case, history: History, folder: Path) -> None:
    """One folder for each ztunnel, as it would have been saved just before the sleep."""
    for life in lives(history):
        if life.started.world_ns > of.at_world_ns:
            continue
        place = folder / life.process
        place.mkdir(parents=True, exist_ok=True)
        started = life.started.clocks
        assert started is not None
        now = _now(of, history, life.node, started)
        entries = [
            _entry(_held_at(history, identity, of.at_world_ns)) for identity in life.identities
        ]
        (place / "config_dump.json").write_text(json.dumps({"certificates": entries}))
        (place / "pod.json").write_text(json.dumps(_pod(life.node, life.process, started)))
        (place / "clocks.txt").write_text(_clocks(of, started, now))
        if of.way == "journal":
            (place / "journal.json").write_text(_journal(started, now))


def _now(of: Case, history: History, node: str, started: ClockReading) -> ClockReading:
    """The node's clocks at the forecast, by the clock of the plan, laid to where the subject's own
    began."""
    clock = clocks_of(of.plan)[node]
    moved = clock.reading_before(of.at_world_ns).since(clock.reading(0))
    return ClockReading(*(begun + by for begun, by in zip(started, moved, strict=True)))


def _held_at(history: History, identity: str, world_ns: int) -> CertificateInUse:
    return next(
        each
        for each in reversed(certificates(history)[identity])
        if each.issued_world_ns <= world_ns
    )


def _entry(held: CertificateInUse) -> dict[str, object]:
    leaf = {
        "serialNumber": held.serial,
        "validFrom": _stamp(held.not_before_wall_s),
        "expirationTime": _stamp(held.not_after_wall_s),
    }
    return {"identity": spiffe_id(held.identity), "state": "Available", "certChain": [leaf]}


def _stamp(wall_s: int) -> str:
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _pod(node: str, process: str, started: ClockReading) -> dict[str, object]:
    running = {"running": {"startedAt": _stamp(started.wall_ns // NS_PER_S)}}
    statuses = [{"name": "istio-proxy", "state": running}]
    return {
        "metadata": {"name": process},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": statuses},
    }


def _clocks(of: Case, started: ClockReading, now: ClockReading) -> str:
    moved = now.since(started)
    ticks = UPTIME_AT_START_NS // 10_000_000
    lines = [
        f"wall {now.wall_ns / NS_PER_S:.6f}",
        f"uptime {(UPTIME_AT_START_NS + moved.boottime_ns) / NS_PER_S:.2f} 1.00",
        f"stat 1 (ztunnel) S {' '.join(['0'] * 18)} {ticks} 0 0",
    ]
    if of.way == "start":
        lines.append(f"monotonic {(UPTIME_AT_START_NS + moved.monotonic_ns) / NS_PER_S:.6f}")
    if of.way == "elapsed":
        lines.append(f"elapsed {moved.monotonic_ns / NS_PER_S:.6f}")
    return "\n".join(lines) + "\n"


def _journal(started: ClockReading, now: ClockReading) -> str:
    moments = [
        (started.wall_ns - NS_PER_S, started.monotonic_ns - NS_PER_S),
        (now.wall_ns, now.monotonic_ns),
    ]
    return "\n".join(
        json.dumps(
            {
                "__REALTIME_TIMESTAMP": str(wall_ns // 1000),
                "__MONOTONIC_TIMESTAMP": str((UPTIME_AT_START_NS + monotonic_ns) // 1000),
                "_BOOT_ID": "one",
                "MESSAGE": "x",
            }
        )
        for wall_ns, monotonic_ns in moments
    )


# --- What then happened ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """By how much the forecast was off, in seconds: the worst of renewals and of the next break.
    `breaks`: whether one was predicted."""

    off_s: float
    breaks: bool
    words: str


def compare(of: Case, history: History, folder: Path) -> Compared:
    """Raises AssertionError when a break came that was not predicted, or one that was did not come."""
    save_shown(of, history, folder)
    forecasts = [forecast_node(node, of.sleep_ns) for node in read_nodes(folder)]
    off_s = max(_renewals_off_s(of, history, each) for each in forecasts)
    breaks = [each.outage_from_wall_ns for node in forecasts for each in node.identities]
    predicted = min((at_ns for at_ns in breaks if at_ns is not None), default=None)
    renewed_world_ns = max(
        _renewed_world_ns(of, history, identity) for identity in (plans.CLIENT, plans.SERVER)
    )
    happened = next(
        (max(each.from_world_ns, of.at_world_ns) for each in failures(of.plan, history)
         if each.to_world_ns > of.at_world_ns + of.sleep_ns and each.from_world_ns < renewed_world_ns),
        None,
    )  # fmt: skip
    if predicted is None or happened is None:
        assert (predicted is None) == (happened is None), (
            f"case {of.seed}: predicted {predicted}, happened {happened}"
        )
        return Compared(off_s, breaks=False, words=f"no break, renewals {off_s:.2f} s off")
    awake_world_ns = max(happened, of.at_world_ns + of.sleep_ns)
    break_off_s = abs(_world_ns(of, forecasts[0], predicted) - awake_world_ns) / NS_PER_S
    words = f"break predicted {break_off_s:.2f} s off, renewals {off_s:.2f} s off"
    return Compared(max(off_s, break_off_s), breaks=True, words=words)


def _world_ns(of: Case, forecast: NodeForecast, wall_ns: int) -> int:
    return of.at_world_ns + wall_ns - forecast.now_wall_ns


def _renewed_world_ns(of: Case, history: History, identity: str) -> int:
    held = _held_at(history, identity, of.at_world_ns)
    assert held.until == "replaced", f"case {of.seed}: {identity} was never renewed"
    return held.until_world_ns


def _renewals_off_s(of: Case, history: History, forecast: NodeForecast) -> float:
    worst_s = 0.0
    for each in forecast.identities:
        assert each.renews_wall_ns is not None
        predicted_ns = _world_ns(of, forecast, each.renews_wall_ns)
        worst_s = max(
            worst_s, abs(predicted_ns - _renewed_world_ns(of, history, each.identity)) / NS_PER_S
        )
    return worst_s


def wall_is_whole(of: Case, history: History) -> bool:
    """Whether the history's own reading of the wall clock at the forecast is the one that was
    saved."""
    node = of.plan.nodes[0].name
    life = lives(history)[0]
    assert life.started.clocks is not None
    return (
        timeline(history, node).wall_before_ns(of.at_world_ns)
        == _now(of, history, node, life.started.clocks).wall_ns
    )
