"""The JSON object of a run: the keys that were promised, plain values, times to the millisecond."""

from __future__ import annotations

import json
from pathlib import Path

from meshwake.checks import judge
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.core.run import Run
from meshwake.report.result import Summary, result, summarise

from tests.support.histories import CLIENT, LAPTOP, SERVER, Formula, World, fault, ns, plan

EXPECTED = {"no_expired_certificate_served": "BROKEN", "traffic_flows": "HOLDS"}
NIGHTS = fault("suspend", "15h", lasts="8h", every="24h")


def a_week() -> tuple[Plan, History]:
    """Seven nights of sleep on an unpatched ztunnel."""
    world = Formula(World(plan([NIGHTS], duration="7d", expectations=EXPECTED))).world
    return world.plan, world.history()


def test_the_keys_are_those_that_were_promised() -> None:
    """Scripts read them; a key more or less is a change of the format."""
    of, history = a_week()
    found = result(Run(of, history, judge(of, history), 1.23456))
    assert list(found) == [
        "scenario",
        "lab",
        "version",
        "seed",
        "outcome",
        "exit_code",
        "findings",
        "renewals",
        "outages",
        "clock_faults",
        "cost",
    ]
    assert list(found["findings"][0]) == ["check", "verdict", "expected", "because", "evidence"]
    assert list(found["renewals"][0]) == [
        "node",
        "identity",
        "issued_world_s",
        "due_world_s",
        "done_world_s",
        "late_s",
    ]
    assert list(found["outages"][0]) == ["pair", "from_world_s", "to_world_s"]
    measured = ["measured_wall_s", "measured_monotonic_s", "measured_boottime_s"]
    assert list(found["clock_faults"][0]) == ["kind", "node", "asked_s", *measured]


def test_the_values_are_plain() -> None:
    """What is written as JSON is read back the same, and says what happened."""
    of, history = a_week()
    found = result(Run(of, history, judge(of, history), 1.23456))
    assert json.loads(json.dumps(found)) == found
    assert (found["scenario"], found["outcome"], found["exit_code"]) == ("by_hand", "surprise", 1)
    assert found["cost"] == {"real_s": 1.235, "world_s": 604_800.0}
    verdicts = {row["check"]: (row["verdict"], row["expected"]) for row in found["findings"]}
    assert verdicts["no_expired_certificate_served"] == ("BROKEN", "BROKEN")
    assert verdicts["traffic_flows"] == ("BROKEN", "HOLDS")
    assert verdicts["ca_not_flooded"] == ("HOLDS", None)
    assert found["renewals"][2] | {"identity": ""} == {
        "node": LAPTOP,
        "identity": "",
        "issued_world_s": 43_140.0,
        "due_world_s": 86_280.0,
        "done_world_s": 115_080.0,
        "late_s": 28_800.0,
    }
    assert found["outages"][0] == {
        "pair": [CLIENT, SERVER],
        "from_world_s": 201_483.0,
        "to_world_s": 215_822.0,
    }
    assert found["clock_faults"][0] == {
        "kind": "suspend",
        "node": LAPTOP,
        "asked_s": 28_800.0,
        "measured_wall_s": 28_800.0,
        "measured_monotonic_s": 0.0,
        "measured_boottime_s": 28_800.0,
    }


def test_a_fault_that_never_ended_has_no_measure() -> None:
    """Numbers that nobody read are null."""
    world = World(plan([NIGHTS], duration="1d"))
    history = world.history(killed_at="16h")
    found = result(Run(world.plan, history, judge(world.plan, history)))
    assert found["clock_faults"][0]["measured_wall_s"] is None


def damaged() -> tuple[Plan, History]:
    """A history whose connections have lists for names."""
    of, history = a_week()
    broken = {"source": [], "destination": [], "ok": True, "error": None}
    event = Event.of_kind(history.end_world_ns, "connection_attempted", LAPTOP, None, broken)
    return of, History([*history.events[:-1], event, history.events[-1]])


def test_what_cannot_be_derived_is_null_and_not_nothing() -> None:
    """An empty list would say that there was no outage; the rest of the result is as good as ever."""
    of, history = damaged()
    found = result(Run(of, history, judge(of, history)))
    assert found["outages"] is None
    assert found["renewals"]
    assert found["outcome"] == "unknown"


def test_the_row_of_a_run() -> None:
    """Outages of several pairs at once count once, and only while awake."""
    houses = {LAPTOP: (CLIENT, SERVER)}
    of = plan([NIGHTS], duration="1d", nodes=houses, pairs=((CLIENT, SERVER), (SERVER, CLIENT)))
    world = World(of).start()
    for pair in of.pairs:
        world.attempt("14h", ok=False, pair=pair)
        world.attempt("23h30m", ok=True, pair=pair)
    history = world.history()
    row = summarise(Run(of, history, judge(of, history), path=Path("runs/one")))
    assert row == Summary(
        scenario="by_hand",
        lab="model",
        version="1.31.0",
        outcome="unknown",
        outage_ns=ns("1h30m"),
        first_failure_world_ns=ns("14h"),
        why="no [[expect]] of the scenario covers version 1.31.0",
        run=Path("runs/one"),
        fix="none",
        headline="UNKNOWN: nothing could be judged: default/client, default/server never got a "
        "certificate",
        judged="unknown (no [[expect]] of the scenario covers version 1.31.0)",
    )


def test_the_row_of_a_damaged_run() -> None:
    """It has no numbers, rather than zeros."""
    of, history = damaged()
    row = summarise(Run(of, history, judge(of, history)))
    assert (row.outage_ns, row.first_failure_world_ns) == (None, None)
