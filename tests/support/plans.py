"""Plans for tests of labs and fixes, written as scenarios are: in TOML, through the same reader."""

from __future__ import annotations

from pathlib import Path

from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import parse_scenario
from meshwake.labs import Toolbox
from meshwake.labs.model.lab import LAB

CLIENT, SERVER = "default/client", "default/server"

ONE_NODE = """
[[node]]
name = "laptop"
identities = ["default/client", "default/server"]
"""

TWO_NODES = """
[[node]]
name = "east"
identities = ["default/client"]
[[node]]
name = "west"
identities = ["default/server"]
"""

NIGHTS = """
[[fault]]
kind = "suspend"
at = "15h"
lasts = "8h"
every = "24h"
"""


def plan(
    body: str = "",
    *,
    nodes: str = ONE_NODE,
    lifetime: str = "24h",
    duration: str = "5d",
    every: str = "10m",
    lab: str = "model",
    behaviour_class: str = "E",
    seed: int = 0,
    manifest: str | None = None,
) -> Plan:
    """A plan of `nodes` and the tables in `body`, with a connection from client to server now and
    then."""
    text = f"""
        title = "a test"
        duration = "{duration}"
        [certificate]
        lifetime = "{lifetime}"
        [traffic]
        pairs = [["{CLIENT}", "{SERVER}"]]
        every = "{every}"
        [[expect]]
        check = "traffic_flows"
        verdict = "holds"
        because = "no test of this judges"
        {nodes}
        {body}
    """
    case = PlanRequest(
        scenario=parse_scenario(text, "test.toml", "test"),
        lab=lab,
        version="1.31.0",
        behaviour_class=behaviour_class,
        seed=seed,
        manifest=manifest,
    )
    return resolve(case)


def run(of: Plan) -> History:
    """The history of `of` on the model."""
    recorder = Recorder()
    LAB.run(of, Toolbox(ztunnel=None, work_dir=Path()), recorder)
    return recorder.history


def issued_world_s(history: History, identity: str = SERVER) -> list[float]:
    """When `identity` got a certificate."""
    return [
        event.world_ns / 1e9
        for event in history.of("csr_answered", identity=identity, outcome="issued")
    ]


def failed_world_s(history: History) -> list[float]:
    """When a connection failed."""
    return [event.world_ns / 1e9 for event in history.of("connection_attempted", ok=False)]
