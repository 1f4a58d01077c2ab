"""Runs the wake guard through months of random sleeps and outages of the authority.

    outages    was there one of more than five minutes awake? (`recovers_within`, as everywhere)
    needed     was every restart needed? Each is tried: the same world, with the restarts before it and none from it
               on. Where no outage follows, it was not needed.
    fewest     how few restarts would have been enough? With the future known, one waits until the last moment each
               time: a later restart leaves less drift behind, so none of the next ones is due earlier.

Everything is drawn from the seed; the same seed gives the same months.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from meshwake.analysis.matrix import plan_for
from meshwake.checks.facts.spans import Spans
from meshwake.checks.facts.traffic import PairFailure, failures
from meshwake.checks.format import count
from meshwake.checks.recovers_within import NAME as RECOVERS_WITHIN
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Verdict
from meshwake.core.plan import RECOVERS_WITHIN_NS, Plan
from meshwake.core.planned_faults import PlannedZtunnelRestart
from meshwake.core.scenario import Scenario, scenario_of
from meshwake.core.versions import Release
from meshwake.fixes import FIXES
from meshwake.fixes.wake_guard import NAME as GUARD
from meshwake.labs import Toolbox
from meshwake.runner.execution import execute

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
# How long an outage may be in coming, once a certificate's half life is lost: two lives.
COMES_WITHIN_NS = 3 * DAY_S * NS_PER_S
# Each restart moves the first outage to a later time, so the search ends by itself; this is for a
# mistake in it.
_RESTARTS_MAX = 1_000


@dataclass(frozen=True)
class GuardTrialResult:
    """The result. `unneeded_world_s` should be empty. Outages are counted while awake;
    `longest_with_authority_s` leaves out the time without an authority, when no fix can help."""

    seed: int
    days: int
    lab: str
    sleeps: int
    asleep_s: int
    ca_outages: int
    restarts: int
    fewest: int
    verdict: str
    because: str
    longest_outage_s: float
    longest_with_authority_s: float
    unneeded_world_s: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether the guard did all that it promises."""
        return self.verdict == Verdict.HOLDS.value and not self.unneeded_world_s

    def to_json(self) -> MutableJsonObject:
        """For programs."""
        return vars(self) | {"passed": self.passed}


def random_months(seed: int, days: int) -> Scenario:
    """A world of `days` days: naps, nights and weekends, suspended or paused, and an authority
    that is unavailable now and then."""
    random = Random(f"guard trial {seed}")
    document = {
        "title": f"{days} days of random sleeps, seed {seed}",
        "duration": f"{days}d",
        "node": [{"name": "laptop", "identities": ["default/client", "default/server"]}],
        "traffic": {"pairs": [["default/client", "default/server"]], "every": "2h"},
        "fault": [*_sleeps(random, days), *_ca_outages(random, days)],
        "expect": [
            {
                "check": "recovers_within",
                "verdict": "holds",
                "because": "the guard is there for that",
            }
        ],
    }
    return scenario_of(document, f"trial/{seed}", f"trial-{seed}")


def _sleeps(random: Random, days: int) -> list[MutableJsonObject]:
    faults: list[MutableJsonObject] = []
    at_s = random.randint(HOUR_S, 12 * HOUR_S)
    while True:
        # Naps and nights are equally frequent, a long weekend is one sleep in eleven.
        lasts_s = random.choices(
            [
                random.randint(5 * MINUTE_S, 2 * HOUR_S),
                random.randint(5, 10) * HOUR_S,
                random.randint(20, 80) * HOUR_S,
            ],
            [5, 5, 1],
        )[0]
        # The last day is quiet, so that an outage that comes of the last sleep still shows.
        if at_s + lasts_s >= (days - 1) * DAY_S:
            return faults
        fault: MutableJsonObject = {"kind": "suspend", "at": f"{at_s}s", "lasts": f"{lasts_s}s"}
        if random.random() < 0.4:
            fault |= {"kind": "pause", "corrected_after": f"{random.randint(1, 30)}s"}
        faults.append(fault)
        at_s += lasts_s + random.randint(MINUTE_S, 18 * HOUR_S)


def _ca_outages(random: Random, days: int) -> list[MutableJsonObject]:
    faults: list[MutableJsonObject] = []
    at_s = random.randint(HOUR_S, 3 * DAY_S)
    while True:
        lasts_s = random.choice([random.randint(MINUTE_S, HOUR_S), random.randint(1, 9) * HOUR_S])
        if at_s + lasts_s >= (days - 1) * DAY_S:
            return faults
        faults.append({"kind": "ca_outage", "at": f"{at_s}s", "lasts": f"{lasts_s}s"})
        at_s += lasts_s + random.randint(6 * HOUR_S, 5 * DAY_S)


def try_guard(
    scenario: Scenario,
    release: Release,
    seed: int,
    days: int,
    lab: str = "model",
    toolbox: Toolbox | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> GuardTrialResult:
    """The guard through `scenario` on `lab`; what would have been is worked out on the model."""
    plan = plan_for(FIXES[GUARD], scenario, release, lab, seed)
    report(f"{days} days on lab {lab}")
    executed = execute(plan, toolbox)
    history, finding = executed.history, executed.finding(RECOVERS_WITHIN)
    bare = plan_for(FIXES["none"], scenario, release, "model", seed)
    restarts_ns = sorted({event.world_ns for event in history.of("ztunnel_started", cause=GUARD)})
    report(f"{len(restarts_ns)} restarts; was each needed?")

    # Each by itself: the restarts before it are given, those after it are left out too.
    unneeded = [
        at for number, at in enumerate(restarts_ns) if not _needed(bare, restarts_ns[:number], at)
    ]
    report("how few could there have been?")
    failing = failures(plan, history)
    sleeps = [fault for fault in plan.faults if fault.kind in ("suspend", "pause")]
    with_authority_ns = max((_with_authority_ns(plan, each) for each in failing), default=0)
    return GuardTrialResult(
        seed=seed,
        days=days,
        lab=lab,
        sleeps=len(sleeps),
        asleep_s=sum(fault.lasts_ns for fault in sleeps) // NS_PER_S,
        ca_outages=sum(fault.kind == "ca_outage" for fault in plan.faults),
        restarts=len(restarts_ns),
        fewest=len(fewest_restarts(bare)),
        verdict=finding.verdict.value,
        because=finding.because,
        longest_outage_s=max((each.awake_ns for each in failing), default=0) / NS_PER_S,
        longest_with_authority_s=with_authority_ns / NS_PER_S,
        unneeded_world_s=tuple(at / NS_PER_S for at in unneeded),
    )


def _with_authority_ns(plan: Plan, failing: PairFailure) -> int:
    """The part of an outage (ns) during which the node was awake and the authority available."""
    away = Spans(
        (
            max(fault.at_world_ns, failing.from_world_ns),
            min(fault.ends_world_ns, failing.to_world_ns),
        )
        for fault in plan.faults
        if fault.kind in ("ca_outage", "suspend", "pause")
    )
    return failing.to_world_ns - failing.from_world_ns - away.total_ns


def _needed(bare: Plan, before_ns: list[int], at_ns: int) -> bool:
    """Whether an outage comes when the restart at `at_ns` and all later ones do not."""
    ends_ns = at_ns + COMES_WITHIN_NS
    without = _with_restarts(bare, before_ns, ends_ns)

    # Outages that were over before the restart are no reason for it.
    failing = failures(without, execute(without).history)
    return any(each.to_world_ns > at_ns for each in failing)


def fewest_restarts(bare: Plan) -> list[int]:
    """The fewest world times (ns) at which a restart, with the future known, avoids every
    outage."""
    restarts: list[int] = []
    # Greedy, and therefore the fewest: each is as late as the first outage allows, so it delays the
    # next outage by as much as any could.
    while len(restarts) < _RESTARTS_MAX:
        plan = _with_restarts(bare, restarts, bare.duration_ns)
        finding = execute(plan).finding(RECOVERS_WITHIN)
        if finding.verdict is not Verdict.BROKEN:
            return restarts
        first_ns = round(finding.evidence[0].world_s * NS_PER_S)
        restarts.append(_last_moment(plan, first_ns))
    raise AssertionError("restarts do not help")


def _last_moment(plan: Plan, outage_ns: int) -> int:
    """The latest time at which a restart still keeps the outage that was found at `outage_ns`
    within the bound."""
    ends = sorted(fault.ends_world_ns for fault in plan.faults)
    position = bisect_right(ends, outage_ns) - 1
    forgiven_until_ns = ends[position] + RECOVERS_WITHIN_NS if position >= 0 else 0
    if forgiven_until_ns > outage_ns:
        return outage_ns - NS_PER_S
    return _before(plan, outage_ns, forgiven_until_ns)


def _before(plan: Plan, outage_ns: int, forgiven_until_ns: int) -> int:
    """Where the outage began while it was forgiven: at the end of that; else just before it
    began."""
    around = (
        each
        for each in failures(plan, execute(plan).history)
        if each.from_world_ns <= outage_ns < each.to_world_ns
    )
    began_ns = min((each.from_world_ns for each in around), default=outage_ns)
    return max(began_ns, forgiven_until_ns) - NS_PER_S


def _with_restarts(bare: Plan, restarts_ns: list[int], ends_ns: int) -> Plan:
    """`bare`, cut or made longer to end at `ends_ns`, with every ztunnel restarted at these
    times."""
    node = bare.nodes[0].name
    restarts = [PlannedZtunnelRestart(index=0, node=node, at_world_ns=at) for at in restarts_ns]
    faults = sorted([*bare.faults, *restarts], key=lambda fault: fault.at_world_ns)
    kept = [fault for fault in faults if fault.at_world_ns < ends_ns]
    numbered = tuple(fault.model_copy(update={"index": index}) for index, fault in enumerate(kept))
    return bare.model_copy(update={"faults": numbered, "duration_ns": ends_ns})


def describe_trial(trial: GuardTrialResult) -> str:
    """What a person reads."""
    lines = [
        f"{trial.days} days on lab {trial.lab}, seed {trial.seed}: {count(trial.sleeps, 'sleep')}, "
        f"{format_duration(trial.asleep_s * NS_PER_S)} in all; authority away "
        f"{count(trial.ca_outages, 'time')}",
        f"recovers_within  {trial.verdict}  {trial.because}",
        f"longest outage   {trial.longest_with_authority_s:.0f} s awake with the authority there, "
        f"{trial.longest_outage_s:.0f} s in all",
        f"restarts         {trial.restarts}, the least possible {trial.fewest}",
        f"not needed       {len(trial.unneeded_world_s)}",
    ]
    return "\n".join(lines)
