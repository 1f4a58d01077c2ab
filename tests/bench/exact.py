"""How exact the process lab is on a real ztunnel, and what a crowd costs.

python -m tests.bench.exact repeat VERSION          ten runs of one plan in each mode: how many different answers?
python -m tests.bench.exact formula VERSION         twenty scenarios: how far from the formula is any renewal?
python -m tests.bench.exact crowd VERSION           three nodes, ten pods, two weeks, in-pod, one node sleeps
python -m tests.bench.exact polling VERSION PATH    eight hours of a ztunnel that was patched to poll its wall clock

The formula is that of harness/meshwake/labs/model/ztunnel.py (istio/ztunnel src/tls/certificate.rs,
src/time.rs). `make bench` measures the last where MESHWAKE_POLLING_ZTUNNEL names such a binary.
"""

from __future__ import annotations

import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.core.resolve import resolve
from meshwake.core.scenario import parse_scenario
from meshwake.labs import Toolbox, load_lab
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.ztunnel import binaries

from tests.agreement.timelines import random_scenario
from tests.bench.numbers import DAY_S, MIB, Number, hand_over
from tests.bench.process import ROLES, Run, run

RUNS, SCENARIOS = 10, 20
NS_PER_MS = 1_000_000
CROWD_S = 14 * DAY_S

REPEATED = """
title = "Three pods on two nodes, one of which sleeps at night"
duration = "3d"
[[node]]
name = "east"
identities = ["default/client", "default/other"]
[[node]]
name = "west"
identities = ["default/server"]
[authority]
node = "apart"
[traffic]
pairs = [["default/client", "default/server"], ["default/server", "default/other"]]
every = "1h"
[[fault]]
kind = "suspend"
node = "east"
at = "15h"
lasts = "8h"
every = "24h"
[[expect]]
check = "traffic_flows"
verdict = "broken"
because = "only times are compared here"
"""


def crowd() -> str:
    """Three nodes with ten pods together; the first sleeps every night."""
    names = [[f"shop/p{pod}" for pod in range(first, 10, 3)] for first in range(3)]
    nodes = "".join(
        f'[[node]]\nname = "n{node}"\nidentities = {pods}\n' for node, pods in enumerate(names)
    )
    pairs = [[f"shop/p{pod}", f"shop/p{(pod + 1) % 10}"] for pod in range(10)]
    return f"""
title = "A crowd"
duration = "14d"
[ztunnel]
mode = "in-pod"
{nodes}
[authority]
node = "apart"
[traffic]
pairs = {pairs}
every = "6h"
[[fault]]
kind = "suspend"
node = "n0"
at = "15h"
lasts = "8h"
every = "24h"
[[expect]]
check = "traffic_flows"
verdict = "broken"
because = "only the cost counts here"
"""


def plan_of(text: str, lab: str, version: str) -> Plan:
    """The plan of a scenario written here."""
    return resolve(
        choose(parse_scenario(text, "bench.toml", "bench"), Options(lab=lab, istio=(version,)))[0]
    )


def history_of(plan: Plan, ztunnel: Path | None) -> History:
    """One run of `plan`, in memory."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as directory:
        load_lab(plan.lab).run(plan, Toolbox(ztunnel, Path(directory)), recorder)
    return recorder.history


def issued(history: History) -> list[tuple[Any, ...]]:
    """Every certificate: whose, when in nanoseconds of world time, and which."""
    return sorted(
        (event["identity"], event.world_ns, event["serial"], event["not_after_wall_s"])
        for event in history.of("csr_answered", outcome="issued")
    )


def measure_repeat(version: str, ztunnel: Path) -> list[Number]:
    """Ten runs of one plan in each mode: different sets of renewal times, of one if the lab is
    exact."""
    plan = plan_of(REPEATED, "process", version)
    plans = {"dedicated": plan, "in_pod": plan.model_copy(update={"ztunnel_mode": "in-pod"})}
    answers = {
        mode: [issued(history_of(each, ztunnel)) for _ in range(RUNS)]
        for mode, each in plans.items()
    }
    everything = [answer for of_mode in answers.values() for answer in of_mode]
    numbers = [
        Number(
            f"exact {version}",
            f"{mode}_different_answers",
            float(different(of_mode)),
            "",
            different(of_mode) / RUNS,
            "runs",
        )
        for mode, of_mode in answers.items()
    ]
    certificates = float(len(everything[0]))
    both = Number(
        f"exact {version}",
        "both_modes_different_answers",
        float(different(everything)),
        "",
        None,
        "",
    )
    return [*numbers, both, Number(f"exact {version}", "certificates_compared", certificates)]


def different(answers: list[list[tuple[Any, ...]]]) -> int:
    """How many different answers there are."""
    return len({str(answer) for answer in answers})


def measure_formula(version: str, ztunnel: Path) -> list[Number]:
    """The largest distance of any certificate of the binary from the formula, over twenty drawn
    scenarios in which nothing is left to chance (no request refused); both modes take turns."""
    furthest_ns, compared, scenarios = 0, 0, 0
    for seed in count():
        real_plan = plan_of(random_scenario(seed), "process", version)
        real_plan = real_plan.model_copy(update={"ztunnel_mode": ("dedicated", "in-pod")[seed % 2]})
        formula = history_of(real_plan.model_copy(update={"lab": "model"}), None)
        if len(formula.of("csr_answered")) != len(issued(formula)) or formula.of(
            "run_ended", reason="csr_flood"
        ):
            continue
        ours, theirs = issued(formula), issued(history_of(real_plan, ztunnel))
        if len(ours) != len(theirs):
            raise SystemExit(f"seed {seed}: {len(theirs)} certificates, by the formula {len(ours)}")
        distances = [abs(mine[1] - other[1]) for mine, other in zip(ours, theirs, strict=True)]
        furthest_ns, compared, scenarios = (
            max(furthest_ns, *distances),
            compared + len(distances),
            scenarios + 1,
        )
        if scenarios == SCENARIOS:
            break
    part, furthest_ms = f"exact {version}", furthest_ns / NS_PER_MS
    return [
        Number(part, "furthest_from_formula_ms", furthest_ms, "ms", furthest_ms / 50, "50 ms"),
        Number(
            part, "formula_certificates", float(compared), "", compared / scenarios, "scenarios"
        ),
    ]


def measure_crowd(version: str, ztunnel: Path) -> list[Number]:
    """Real time, time on a CPU and memory of everybody."""
    crowded = run(plan_of(crowd(), "process", version), ztunnel)
    mib = crowded.watcher.peak_mib(*ROLES)
    return [
        Number("exact crowd", "two_weeks_s", crowded.seconds, "s", crowded.seconds / 60, "60 s"),
        Number("exact crowd", "peak_mib", mib, "MiB", mib * MIB / 2**30, "1 GiB"),
        _cpu("exact crowd", crowded, CROWD_S),
    ]


def measure_polling(version: str, patched: Path) -> list[Number]:
    """Eight hours of one ztunnel, and of two, that look at the wall clock every ten seconds. Each
    look is two or three jumps: tokio comes to it by way of the slots of its timer wheel, and waits
    for each of them."""
    text = (
        REPEATED.replace('"3d"', '"8h"')
        .replace('"1h"', '"8h"')
        .replace('at = "15h"', 'at = "7h59m59s"')
    )
    one_node = text.replace(
        '[[node]]\nname = "west"\nidentities = ["default/server"]\n', ""
    ).replace('"default/other"]\n[', '"default/other", "default/server"]\n[')
    numbers = []
    for part, written in (("one", one_node), ("two", text)):
        plan = plan_of(written, "process", version).model_copy(
            update={"ztunnel_mode": "in-pod", "faults": ()}
        )
        polling = min((run(plan, patched) for _ in range(3)), key=lambda each: each.seconds)
        per_cpu_s = polling.cost["jumps"] / sum(polling.watcher.cpu_s(role) for role in ROLES)
        name, total_s, start_up_s = (
            f"exact polling {part}",
            polling.seconds,
            polling.watcher.start_up_s,
        )
        numbers += [
            Number(name, "eight_hours_s", total_s, "s", total_s / 2, "2 s"),
            Number(
                name, "of_which_start_up_s", start_up_s, "s", start_up_s / total_s, "eight_hours_s"
            ),
            Number(
                name,
                "jumps",
                polling.cost["jumps"],
                "",
                polling.cost["jumps"] / 2880,
                "looks at the clock",
            ),
            Number(
                name, "jumps_per_s", polling.jumps_per_s, "/s", polling.jumps_per_s / 2000, "2000/s"
            ),
            _cpu(name, polling, 8 * 3600),
            Number(name, "jumps_per_cpu_s", per_cpu_s, "/s", per_cpu_s / 2000, "2000/s"),
        ]
    return numbers


def _cpu(part: str, of: Run, world_s: int) -> Number:
    """On a machine that others use too, only time on a CPU can be compared."""
    cpu_s = sum(of.watcher.cpu_s(role) for role in ROLES)
    return Number(part, "cpu_s", cpu_s, "s", world_s / cpu_s, "world time")


def main() -> None:
    """One question."""
    question, version, *more = sys.argv[1:]
    found = binaries.find(version)
    if found is None:
        raise SystemExit(f"no ztunnel {version} in the cache")
    if question == "polling":
        hand_over(measure_polling(version, Path(more[0])))
        return
    measure = {"repeat": measure_repeat, "formula": measure_formula, "crowd": measure_crowd}[
        question
    ]
    hand_over(measure(version, found.path))


if __name__ == "__main__":
    main()
