"""What this lab cannot do is reported before a cluster is even looked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from meshwake.core.errors import HarnessFault
from meshwake.core.faults import CLOCK_FAULTS, SERVICE_FAULTS
from meshwake.core.plan import Plan, PlannedCluster
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.refusals import refusals
from meshwake.labs.kind.session import ClusterSession

from tests.support.faults import planned_fault
from tests.unit.labs.kind.runs import TWO_NODES, plan, plan_of


def on(faults: str = "", nodes: str = TWO_NODES, **about: Any) -> Plan:
    cluster = about.pop("cluster", {"clock": "process"})
    return plan(faults, nodes=nodes).model_copy(
        update={"cluster": PlannedCluster(**cluster), **about}
    )


def fault(kind: str, more: str = 'lasts = "5m"') -> str:
    return f'[[fault]]\nkind = "{kind}"\nnode = "*"\nat = "5m"\n{more}\n'


REFUSED: list[tuple[Plan, str]] = [
    (on(backdate_s=4), "istiod dates certificates back by 120 s"),
    (on(lifetime_s=60), "too short to be seen from outside"),
    (on(duration_ns=3 * 3600 * 10**9), "a run in real time lasts at most 2 h"),
    (
        on(fault("drift", 'lasts = "5m"\nrate = 1.1')),
        "[fault 0] drift: a wall clock that runs at another rate",
    ),
    (on(fault("freeze"), cluster={"clock": "engine"}), "use --clock process"),
    (on(fault("step", 'by = "-2h"')), "renews without a pause"),
    (
        on('[[fault]]\nkind = "ca_hang"\nat = "5m"\nlasts = "5m"\n'),
        "[fault 0] ca_hang: the connections of an istiod that is stopped",
    ),
    (
        on(
            '[[fault]]\nkind = "restart"\nnode = "east"\nat = "5m"\n',
            cluster={"clock": "process", "kubeconfig": "/k"},
        ),
        "only what carries our label is ended; leave --kubeconfig out",
    ),
    (
        on(
            '[[fault]]\nkind = "ca_outage"\nat = "5m"\nlasts = "5m"\n',
            cluster={"clock": "process", "kubeconfig": "/k"},
        ),
        "not done to a cluster that is not ours",
    ),
    (
        on(
            fault("pause", 'lasts = "5m"\ncorrected_after = "9s"'),
            cluster={"clock": "engine"},
            authority_node=None,
        ),
        "istiod runs on a machine whose clock --clock engine moves too",
    ),
]


@pytest.mark.parametrize(("of", "message"), REFUSED)
def test_each_by_name(of: Plan, message: str) -> None:
    """One sentence, with what to do."""
    assert message in "\n".join(refusals(of))


@pytest.mark.parametrize(
    "name", ["kind/two_nodes_of_one_machine.toml", "regressions/ztunnel_1481.toml"]
)
def test_what_was_made_for_it_is_not_refused(name: str) -> None:
    """With the numbers of [real_time]."""
    assert refusals(plan_of(name)) == []


@pytest.mark.parametrize("kind", [*CLOCK_FAULTS, *SERVICE_FAULTS])
def test_a_kind_of_fault_is_either_carried_out_or_refused(kind: str) -> None:
    """Never both, never neither, for every kind that a scenario can have (docs/adr/0009)."""
    of = on(fault("freeze"))
    of = of.model_copy(update={"faults": (planned_fault(kind, index=0, node="east"),)})
    unused = cast("Any", None)
    try:
        Faults(cast("ClusterSession", SimpleNamespace(plan=of)), unused, unused)
    except HarnessFault:
        assert refusals(of)
    else:
        assert refusals(of) == []
