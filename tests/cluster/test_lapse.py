"""A cluster in time lapse, measured: the same plan again and again, timelines drawn at random
against the process lab, kills and restarts while the mesh is days ahead, and a cluster that is
treated as one that meshwake did not make.

All of it is slow. MESHWAKE_SEEDS=0:500 draws other timelines; those that lab kind refuses skip.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from meshwake.checks import judge
from meshwake.checks.facts.certificates import renewals
from meshwake.checks.facts.traffic import outages
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import ExitCode
from meshwake.core.history import History
from meshwake.core.plan import Plan

from tests.agreement.conftest import binary_of, run_text_on
from tests.agreement.timelines import random_scenario
from tests.cluster.test_kills import LEFT
from tests.cluster.trial import OF_EVERY_LAB, TWO_NODES, Trial, wait_until

pytestmark = pytest.mark.slow(reason="a whole run on a cluster, or several")

# How far the times of two runs may lie apart, in world time: a program of a cluster is seen from
# outside, and a leap ends up to a second before what it leads to.
RENEWALS_WITHIN_S = 2.0
TIMES = 5


def renewal_times(plan: Plan, history: History) -> list[tuple[str, float, float | None]]:
    """Every renewal: whose certificate, when it was issued, when it was renewed, since the first
    certificate of that identity: ztunnels of two nodes start some seconds apart."""
    rows = renewals(plan, history)
    first_s = {
        identity: min(row.issued_world_s for row in rows if row.identity == identity)
        for identity in {row.identity for row in rows}
    }
    return sorted(
        (
            row.identity,
            row.issued_world_s - first_s[row.identity],
            None if row.done_world_s is None else row.done_world_s - first_s[row.identity],
        )
        for row in rows
    )


def outage_times(plan: Plan, history: History) -> list[tuple[float, float]]:
    """Every outage, from and to."""
    return sorted((row.from_world_s, row.to_world_s) for row in outages(plan, history))


def verdicts(plan: Plan, history: History) -> dict[str, str]:
    """What every check says."""
    return {finding.check: str(finding.verdict) for finding in judge(plan, history)}


def furthest(ours: Sequence[tuple[Any, ...]], theirs: Sequence[tuple[Any, ...]]) -> float:
    """The greatest difference in seconds between two lists that have the same rows."""
    assert len(ours) == len(theirs), (ours, theirs)
    apart = [0.0]
    for mine, other in zip(ours, theirs, strict=True):
        for one, two in zip(mine, other, strict=True):
            if isinstance(one, float) and isinstance(two, float):
                apart.append(abs(one - two))
            else:
                assert one == two, (mine, other)
    return max(apart)


def test_five_runs_of_the_same_plan_are_equal(trial: Trial) -> None:
    """Verdicts, and what came of the connections at every moment; renewals to two seconds of world
    time, outages to the step by which connections are tried.

    Not the number of connections. istiod dates certificates to whole seconds of its clock, and each
    end of each certificate is a reason to connect. Where the first certificates of client and server
    fall into one second, the two ends are one moment, and so is every later pair; where they fall
    into two, as in one run of five, there are two connections a second apart at each: 172
    connections and 67 failures in four runs, 193 and 81 in the fifth.
    """
    scenario = OF_EVERY_LAB / "regressions" / "ztunnel_1481.toml"
    runs = []
    for _ in range(TIMES):
        ran = trial.run(scenario, real_time=False)
        assert ran.code == ExitCode.AS_EXPECTED, ran.log
        saved = ran.saved()
        runs.append((saved.plan, saved.history))
    first_plan, first = runs[0]
    for plan, history in runs[1:]:
        assert verdicts(plan, history) == verdicts(first_plan, first)
        assert moments(history) == moments(first)
        renewed = furthest(renewal_times(plan, history), renewal_times(first_plan, first))
        failed = furthest(outage_times(plan, history), outage_times(first_plan, first))
        assert renewed <= RENEWALS_WITHIN_S
        assert failed <= plan.attempt_every_ns / NS_PER_S


def moments(history: History) -> list[bool]:
    """Whether connections succeed after each moment: attempts that follow one another within
    RENEWALS_WITHIN_S are one, and the last of them counts."""
    attempts = history.of("connection_attempted")
    apart_ns = RENEWALS_WITHIN_S * NS_PER_S
    last_of_each = [
        attempt
        for attempt, following in pairwise(attempts)
        if following.world_ns - attempt.world_ns > apart_ns
    ]
    return [bool(attempt["ok"]) for attempt in [*last_of_each, *attempts[-1:]]]


# The first ten that lab kind takes, that move a clock, and that have less than 120 certificates and
# connections together, so that each takes a minute or two.
DRAWN = (3, 26, 28, 47, 49, 50, 54, 55, 57, 67)


EXPIRED_SERVED = "no_expired_certificate_served"


def _seeds() -> tuple[int, ...]:
    seeds = os.environ.get("MESHWAKE_SEEDS")
    if seeds is None:
        return DRAWN
    first, beyond = (int(word) for word in seeds.split(":"))
    return tuple(range(first, beyond))


def drawn_for_clusters(seed: int) -> str:
    """The timeline of `seed`, with what no cluster can have otherwise: istiod dates certificates
    back by two minutes."""
    text = re.sub(r"^backdate = .*$", 'backdate = "2m"', random_scenario(seed), flags=re.MULTILINE)
    return f'labs = ["model", "process", "kind"]\n{text}'


@pytest.mark.parametrize("seed", _seeds())
def test_a_timeline_drawn_at_random_is_the_one_of_the_process_lab(
    trial: Trial, seed: int, tmp_path: Path
) -> None:
    """Every verdict, but for an expired certificate that was held only while its ztunnel was
    replaced; renewals to two seconds, unless a renewal was refused (ztunnel draws its retries by
    chance), something took its real seconds (a restart), or a fault begins when a renewal is
    due."""
    text, version = drawn_for_clusters(seed), trial.istio
    binary_of(version)
    path = tmp_path / f"seed_{seed}.toml"
    path.write_text(text)
    other = run_text_on(text, path.stem, version, "process")
    ran = trial.run(path, real_time=False)
    if ran.code == ExitCode.LAB_UNAVAILABLE:
        pytest.skip(ran.log[-300:])
    saved = ran.saved()
    here, there = (verdicts(each.plan, each.history) for each in (saved, other))
    if _is_served_only_while_replaced(saved.plan, saved.history):
        del here[EXPIRED_SERVED], there[EXPIRED_SERVED]
    assert here == there, text
    if _has_chance(saved.history) or _has_chance(other.history):
        return
    if _has_a_tie(saved.plan, saved.history) or _has_a_tie(other.plan, other.history):
        return
    ours = renewal_times(saved.plan, saved.history)
    assert furthest(ours, renewal_times(other.plan, other.history)) <= RENEWALS_WITHIN_S


def _is_served_only_while_replaced(plan: Plan, history: History) -> bool:
    """Whether expired certificates were served, and only during restarts. In a cluster the old pod
    runs for some seconds after it was deleted, on lab process for none: of seed 55 a restart comes
    at the wake, when the certificate has expired in the sleep, and the new ztunnel is there 8 s
    later."""
    (found,) = [each for each in judge(plan, history) if each.check == EXPIRED_SERVED]
    restarts_s = [
        (began.world_ns / NS_PER_S - RENEWALS_WITHIN_S, ended.world_ns / NS_PER_S)
        for began in history.of("fault_began", fault_kind="restart")
        for ended in history.of("fault_ended", fault=began["fault"])
    ]
    return bool(found.evidence) and all(
        any(from_s <= served.world_s <= to_s for from_s, to_s in restarts_s)
        for served in found.evidence
    )


def _has_chance(history: History) -> bool:
    refused = any(event["outcome"] != "issued" for event in history.of("csr_answered"))
    restarted = len(history.of("ztunnel_stopped")) > 0
    return refused or restarted


def _has_a_tie(plan: Plan, history: History) -> bool:
    """Whether a fault begins within RENEWALS_WITHIN_S of a renewal. Either order is right then: of
    seed 28 a pause begins at the very second of the fourth renewal, which comes 10 ms earlier in a
    cluster and after the pause, 7 h later, on lab process."""
    apart_ns = RENEWALS_WITHIN_S * NS_PER_S
    answered = history.of("csr_answered")
    return any(
        abs(event.world_ns - fault.at_world_ns) <= apart_ns
        for event in answered
        for fault in plan.faults
    )


# Three days with two nights, one node asleep alone, and the wall clock set: everything that can be
# moved. Whatever is expected of it, its end is not waited for.
AHEAD = f"""
title    = "A run that is killed while the mesh is days ahead"
labs     = ["kind"]
duration = "3d"
{TWO_NODES}every = "30m"
[[fault]]
kind  = "suspend"
node  = "*"
at    = "6h"
lasts = "8h"
[[fault]]
kind = "step"
node = "there"
at   = "20h"
by   = "1h"
[[fault]]
kind  = "suspend"
node  = "there"
at    = "30h"
lasts = "2h"
[[fault]]
kind = "restart"
node = "here"
at   = "40h"
[[fault]]
kind  = "pause"
node  = "*"
at    = "50h"
lasts = "3h"
corrected_after = "10m"
[[expect]]
check   = "ca_not_flooded"
verdict = "holds"
because = "a scenario must expect something"
"""
KILLS, APART_S = range(10), 6.0


@pytest.mark.parametrize("moment", KILLS, ids=lambda moment: f"moment{moment}")
def test_a_run_that_is_killed_while_it_is_ahead_leaves_nothing(
    trial: Trial, moment: int, tmp_path: Path
) -> None:
    """From when the helpers have taken their programs: before that, test_kills.py has all of it."""
    trial.command("status")  # whatever an earlier test left
    made, log, scenario = trial.settings(), tmp_path / "killed.log", tmp_path / "killed_ahead.toml"
    scenario.write_text(AHEAD)
    earlier = trial.histories(scenario)
    with trial.running(scenario, log, real_time=False) as run:
        wait_until("the run to begin", 300, lambda: _began(trial, scenario, earlier, run, log))
        time.sleep(moment * APART_S)
        assert run.poll() is None, log.read_text()
        run.kill()
        run.wait()
    output = trial.command("status")
    assert "could not be undone" not in output
    assert trial.settings() == made
    trial.has_nothing_of_a_run()
    assert LEFT not in trial.command("status"), "the second command still found something"
    trial.is_ready()


def _began(
    trial: Trial, scenario: Path, earlier: set[Path], run: subprocess.Popen[bytes], log: Path
) -> Path | None:
    """The history of the run once it has begun: from then on clocks are moved."""
    assert run.poll() is None, log.read_text()
    new = trial.histories(scenario) - earlier
    return next((path for path in new if "run_started" in path.read_text()), None)


RESTARTED = f"""
title    = "Programs of the mesh end and are restarted while it is days ahead"
labs     = ["kind"]
duration = "5d"
{TWO_NODES}every = "30m"
[[fault]]
kind  = "suspend"
node  = "*"
at    = "6h"
lasts = "8h"
[[expect]]
check   = "no_expired_certificate_served"
verdict = "holds"
because = "eight hours are less than half a day, and whatever restarts begins on moved clocks"
[[expect]]
check   = "ca_not_flooded"
verdict = "holds"
because = "a restart asks once for each identity"
"""
# On which of the cluster's nodes a program is ended, and which, as `pkill` finds it there; kubelet
# restarts it. Of the gateway's node and of istiod's it is not known which they are.
ENDED = ("ztunnel", "pilot-discovery", "envoy", "pilot-agent", "ztunnel")
ENDED_EVERY_S = 12.0


def test_programs_that_end_in_the_middle_begin_on_moved_clocks(
    trial: Trial, tmp_path: Path
) -> None:
    """Each is ended by SIGKILL wherever it runs; the run goes on to its end, nothing that was
    restarted has clocks of its own, and nothing is left."""
    before, scenario = trial.objects(), tmp_path / "programs_restart.toml"
    scenario.write_text(RESTARTED)
    earlier, log = trial.histories(scenario), tmp_path / "restarted.log"
    with trial.running(scenario, log, real_time=False) as run:
        wait_until("the run to begin", 300, lambda: _began(trial, scenario, earlier, run, log))
        ended = list[str]()
        for name in ENDED:
            time.sleep(ENDED_EVERY_S)
            assert run.poll() is None, (ended, log.read_text())
            codes = [
                trial.execute(node, "pkill", "-KILL", "-x", name).code
                for node in trial.cluster.nodes
            ]
            assert 0 in codes, f"{name} runs on no node"
            ended.append(name)
        code = wait_until("the end of the run", 1200, run.poll)
    assert code == ExitCode.AS_EXPECTED, log.read_text()
    (history,) = trial.histories(scenario) - earlier
    started = History.read(history).of("ztunnel_started")
    assert [event for event in started if event["cause"] == "by itself"], "no ztunnel was ended"
    trial.is_as_before(before, trial.objects())


DAY_S = 86_400
ELSEWHERE = f"""
title    = "A day and a half with one night, on a cluster that meshwake did not make"
labs     = ["kind"]
duration = "36h"
{TWO_NODES}every = "2h"
[[fault]]
kind  = "suspend"
node  = "*"
at    = "6h"
lasts = "8h"
[[expect]]
check   = "no_expired_certificate_served"
verdict = "holds"
because = "the renewal after the night is eight hours late, and four hours before the certificate ends"
[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "eight hours are less than half of a certificate of a day"
"""


def test_a_cluster_that_is_not_ours_is_as_it_was_afterwards(trial: Trial, tmp_path: Path) -> None:
    """By --kubeconfig alone, so nothing of what `up` knows of it is used; the helper goes too."""
    log, scenario = tmp_path / "elsewhere.log", tmp_path / "elsewhere.toml"
    scenario.write_text(ELSEWHERE)
    access = ("--kubeconfig", str(trial.cluster.kubeconfig), "--context", trial.context)
    with trial.set_for(DAY_S):
        before = trial.objects()
        with trial.running(scenario, log, real_time=False, cluster=access) as run:
            code = wait_until("the end of the run", 1800, run.poll)
        assert code == ExitCode.AS_EXPECTED, log.read_text()
        assert "(not ours)" in log.read_text()
        trial.is_as_before(before, trial.objects())
        trial.has_no_helper()
