"""The clock faults of the matrix: one small world each, on one machine with certificates of 24 h,
from a Monday 08:00.

Each is a scenario like any other, so that a row of the matrix can be run by itself, and on a real
ztunnel. `weekend` is the one in which the surroundings of ztunnel matter: a gateway, and tokens of
12 hours. Only the model has those.
"""

from __future__ import annotations

from typing import NamedTuple

from meshwake.core.json_types import MutableJsonObject
from meshwake.core.scenario import Scenario, scenario_of

CLIENT, SERVER, GATEWAY = "default/client", "default/server", "ingress/gateway"


class FaultWorld(NamedTuple):
    """A fault by name, in words, and the tables of its scenario."""

    name: str
    words: str
    tables: MutableJsonObject


_NIGHTLY = {"at": "15h", "lasts": "8h", "every": "24h"}
_ALL = (
    FaultWorld(
        "suspend",
        "the machine suspends itself, 8 h every night",
        {"fault": [{"kind": "suspend", **_NIGHTLY}]},
    ),
    FaultWorld(
        "pause",
        "the VM is paused for 8 h every night, its clock is corrected 25 s after the resume",
        {"fault": [{"kind": "pause", "corrected_after": "25s", **_NIGHTLY}]},
    ),
    FaultWorld(
        "many-short-sleeps",
        "half an hour of suspend every two hours",
        {"fault": [{"kind": "suspend", "at": "1h", "lasts": "30m", "every": "2h"}]},
    ),
    FaultWorld(
        "backward-step",
        "the wall clock is set back by 13 h, once",
        {"fault": [{"kind": "step", "at": "6h", "by": "-13h"}]},
    ),
    FaultWorld(
        "drift",
        "the wall clock runs 2.5 % faster than the monotonic one, for 22 days of 28, as on WSL2",
        {
            "duration": "28d",
            "fault": [{"kind": "drift", "at": "0s", "lasts": "22d", "rate": "1.025"}],
        },
    ),
    FaultWorld(
        "freeze",
        "processes are stopped for 8 h every night (docker pause)",
        {"fault": [{"kind": "freeze", **_NIGHTLY}]},
    ),
    FaultWorld(
        "restart",
        "every ztunnel is restarted at 18:00",
        {"fault": [{"kind": "restart", "at": "10h", "every": "24h"}]},
    ),
    FaultWorld(
        "weekend",
        "suspended from Friday 15:00 to Monday 08:00; with a gateway, and tokens of 12 h",
        {
            "fault": [{"kind": "suspend", "at": "103h", "lasts": "65h", "every": "7d"}],
            "gateway": [{"name": "ingress", "node": "laptop", "identity": GATEWAY}],
            "authority": {"node": "laptop", "token": "12h"},
            "traffic": {"pairs": [[CLIENT, SERVER], [GATEWAY, SERVER]], "every": "1h"},
        },
    ),
    FaultWorld("nothing", "two weeks without a fault", {}),
)
FAULTS: dict[str, FaultWorld] = {world.name: world for world in _ALL}


def scenario_for(world: FaultWorld) -> Scenario:
    """The scenario of one fault; the fix comes later."""
    document: MutableJsonObject = {
        "title": world.words,
        "duration": "14d",
        "node": [{"name": "laptop", "identities": [CLIENT, SERVER]}],
        "traffic": {"pairs": [[CLIENT, SERVER]], "every": "1h"},
        "expect": [
            {
                "check": "recovers_within",
                "verdict": "holds",
                "because": "what a fix is deployed for",
            }
        ],
    }
    return scenario_of(document | world.tables, f"matrix/{world.name}", world.name)
