"""Plans for tests of labs and fixes, written as scenarios are: in TOML, through the same reader."""

from __future__ import annotations

from meshwake.core.plan import Plan
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import parse_scenario

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
    then. `lab` may be the name of a lab of your own. Raises BadInput for an invalid `body`."""
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
