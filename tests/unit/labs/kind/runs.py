"""Runs of a session on a simulated cluster, and what the judge says of them."""

from __future__ import annotations

from typing import Any

from meshwake.checks import judge
from meshwake.cluster.stack.gateways import DESTINATION_HEADER, gateway_url
from meshwake.core.history import History, Recorder
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan
from meshwake.core.resolve import PlanRequest, resolve
from meshwake.core.scenario import parse_scenario, read_scenario
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.session import ClusterSession, ClusterWatcher, Setting
from meshwake.labs.kind.traffic import Client, Route
from meshwake.labs.kind.watchers import ZtunnelLogs

from tests.support.paths import SCENARIOS
from tests.unit.cluster.simulated import Inline, SimulatedCluster, SimulatedMover

CLIENT, SERVER = "default/client", "default/server"
ONE_NODE = f'[[node]]\nname = "vm"\nidentities = ["{CLIENT}", "{SERVER}"]\n'
TWO_NODES = (
    f'[[node]]\nname = "east"\nidentities = ["{CLIENT}"]\n[[node]]\nname = "west"\nidentities = '
    f'["{SERVER}"]\n'
)


def plan(
    faults: str = "", *, nodes: str = ONE_NODE, duration: str = "30m", behaviour_class: str = "E"
) -> Plan:
    """A plan of certificates that live ten minutes, and a connection from client to server twice a
    minute."""
    text = f"""
        title = "a test"
        labs = ["kind"]
        duration = "{duration}"
        [certificate]
        lifetime = "10m"
        [traffic]
        pairs = [["{CLIENT}", "{SERVER}"]]
        every = "30s"
        [[expect]]
        check = "traffic_flows"
        verdict = "holds"
        because = "no test of this judges"
        {nodes}
        {faults}
    """
    case = PlanRequest(parse_scenario(text, "test.toml", "test"), "kind", "1.31.0", behaviour_class)
    return resolve(case)


def plan_of(name: str) -> Plan:
    """The plan of a scenario in real time, for this lab."""
    scenario = read_scenario(SCENARIOS / name)
    return resolve(PlanRequest(scenario, "kind", "1.31.0", "E", real_time=True))


def sleeping_gateway() -> Plan:
    """A gateway on a node that sleeps, in time lapse."""
    scenario = read_scenario(SCENARIOS / "kind" / "gateway_sleeps.toml")
    return resolve(PlanRequest(scenario, "kind", "1.31.0", "E"))


def node_names(of: Plan) -> dict[str, str]:
    return {node.name: f"worker{at}" for at, node in enumerate(of.nodes)}


def cluster_of(
    of: Plan, made: type[SimulatedCluster] = SimulatedCluster, **about: Any
) -> SimulatedCluster:
    """A cluster of class `made` with the workloads of `of`."""
    cluster = made(of, node_names(of), lifetime_s=of.lifetime_s, **about)
    for identity in (identity for node in of.nodes for identity in node.identities):
        namespace, account = identity.split("/")
        cluster.objects["Deployment", namespace, account] = {"metadata": {"labels": {}}}
    return cluster


def setting_of(of: Plan, cluster: SimulatedCluster, **about: Any) -> Setting:
    routes = tuple(_route(of, *pair) for pair in of.pairs)
    clients = {
        route.client: Client(
            route.client.split("/")[0], {"app": route.client.split("/")[1]}, "client"
        )
        for route in routes
    }
    return Setting(
        plan=of,
        kubernetes=cluster,
        real=cluster,
        executor=Inline(),
        node_names=node_names(of),
        routes=routes,
        clients=clients,
        subject={"kind": "simulated"},
        **about,
    )


def _route(of: Plan, source: str, destination: str) -> Route:
    for gateway in of.gateways:
        if gateway.identity == source:
            headers = (f"{DESTINATION_HEADER}: {destination}",)
            url = gateway_url(gateway)
            return Route(source, destination, url, headers, requested_by=destination)
    return Route(source, destination, f"http://{'.'.join(reversed(destination.split('/')))}:8080/")


def run(
    of: Plan,
    cluster: SimulatedCluster | None = None,
    mover: SimulatedMover | None = None,
    *,
    watchers: tuple[ClusterWatcher, ...] = (),
    log: bool = False,
) -> History:
    """The history of `of` on a simulated cluster. `log`: ztunnel's log is read too."""
    cluster = cluster or cluster_of(of)
    mover = mover or SimulatedMover(cluster)
    recorder = Recorder()
    nodes = {cluster.node_names[node.name]: (node.name, node.identities) for node in of.nodes}
    watchers += (ZtunnelLogs(cluster, nodes),) if log else ()
    session = ClusterSession(setting_of(of, cluster, watchers=watchers), mover, recorder)
    session.run(Faults(session, mover, cluster))
    return recorder.history


def verdicts(of: Plan, history: History) -> dict[str, Verdict]:
    """What every check says."""
    return {finding.check: finding.verdict for finding in judge(of, history)}
