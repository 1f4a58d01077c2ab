"""`Environment` on this machine: our own clusters through kind, or an existing one; movers,
workloads, watchers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from meshwake.clocks.movers.base import Mover
from meshwake.cluster.bring_up_context import BringUpContext
from meshwake.cluster.choosing import choice_of, choose_cluster
from meshwake.cluster.cluster import Cluster, bring_up, existing_cluster
from meshwake.cluster.docker import Engine, open_engine
from meshwake.cluster.images import machine_image
from meshwake.cluster.preflight import engine_problems
from meshwake.cluster.real_time import SystemTime
from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.gateways import (
    DESTINATION_HEADER,
    gateway_labels,
    gateway_objects,
    gateway_refusals,
    gateway_url,
)
from meshwake.cluster.stack.own_images import HELPER, OwnImage, own_images_in
from meshwake.cluster.stack.pieces import DEMO_NAMESPACE, OBSERVABILITY_NAMESPACE
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import node_image
from meshwake.cluster.stack.workloads import (
    CONTAINER,
    SERVER_PORT,
    identity_labels,
    namespace_of,
    server_url,
    workload_objects,
)
from meshwake.cluster.state import ClusterState
from meshwake.cluster.steps import BringUpStep
from meshwake.cluster.tools import find_tools, look_for_tools
from meshwake.core.errors import BadInput, HarnessError
from meshwake.core.json_types import JsonObject, MutableJsonObject
from meshwake.core.plan import Plan, PlannedCluster
from meshwake.kubernetes.api import Kubernetes
from meshwake.kubernetes.through_kr8s import connect
from meshwake.labs.kind.environment import LookedAt, RunningCluster
from meshwake.labs.kind.fix import images_of_fix, objects_of_fix
from meshwake.labs.kind.movers import inside_of, make_mover, mover_refusals, moves_clocks
from meshwake.labs.kind.own_clock import own_clock_step
from meshwake.labs.kind.session import ClusterWatcher
from meshwake.labs.kind.traffic import Client, Route
from meshwake.labs.kind.watchers import Alerts, Flows, ProxyCertificates, TokenWatcher, ZtunnelLogs

AT_ONCE = 16
# `meshwake doctor` waits for it. A probe container takes a second, on a busy machine ten.
PROBE_TIMEOUT_S = 15.0
PROMETHEUS, ALERTMANAGER = ("prometheus", 9090), ("alertmanager", 9093)


class LocalEnvironment:
    """The `Environment` of a real run; see the module."""

    real = SystemTime()

    def missing(self) -> list[str]:
        """See Environment."""
        pins = read_pins().tools
        wanted = {"kind": pins.kind, "helm": pins.helm}
        reasons = _within_bound(
            "the programs docker, kind and helm", lambda: look_for_tools(wanted)[1]
        )
        return [*reasons, *_within_bound("the container engine", _engine_missing)]

    def refusals(self, plan: Plan) -> list[str]:
        """See Environment."""
        try:
            if _cluster_of(plan).kubeconfig is None:
                choice_of(plan)
            workload_objects(plan, {node.name: node.name for node in plan.nodes})
        except BadInput as error:
            return [str(error)]
        return [*gateway_refusals(plan), *mover_refusals(plan)]

    @contextmanager
    def place(self, plan: Plan, report: Callable[[str], None]) -> Iterator[RunningCluster]:
        """See Environment."""
        wanted = _cluster_of(plan)
        if wanted.kubeconfig is not None:
            yield _place(
                existing_cluster(Path(wanted.kubeconfig), wanted.context, known_as=wanted.known_as)
            )
            return
        engine = open_engine()
        try:
            choice, remarks = choose_cluster(plan, engine)
            for remark in remarks:
                report(remark)
            with ClusterState.of(choice.name).lock(f"run of {plan.scenario}"):
                yield _place(_brought_up(choice, plan, engine, report), engine)
        finally:
            engine.close()

    def connect(self, place: RunningCluster) -> Kubernetes:
        """See Environment."""
        return connect(place.kubeconfig, place.context)

    def mover(
        self,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        node_names: Mapping[str, str],
    ) -> Mover:
        """See Environment."""
        return make_mover(plan, place, kubernetes, node_names, self.real)

    def executor(self) -> Executor:
        """See Environment."""
        return ThreadPoolExecutor(AT_ONCE, "look")

    def objects(self, plan: Plan, node_names: Mapping[str, str]) -> tuple[JsonObject, ...]:
        """See Environment."""
        return workload_objects(plan, node_names)

    def awaited(self, plan: Plan) -> tuple[tuple[str, Mapping[str, str]], ...]:
        """See Environment."""
        identities = [identity for node in plan.nodes for identity in node.identities]
        return tuple((namespace_of(identity), identity_labels(identity)) for identity in identities)

    def gateways(
        self, plan: Plan, node_names: Mapping[str, str]
    ) -> tuple[tuple[JsonObject, ...], tuple[tuple[str, Mapping[str, str]], ...]]:
        """See Environment."""
        awaited = tuple(
            (namespace_of(gateway.identity), gateway_labels(gateway)) for gateway in plan.gateways
        )
        return tuple(gateway_objects(plan, node_names)), awaited

    def looked_at(
        self,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        node_names: Mapping[str, str],
    ) -> LookedAt:
        """See Environment."""
        pairs = tuple(_route(plan, source, destination) for source, destination in plan.pairs)
        clients = {
            route.client: Client(
                namespace_of(route.client), identity_labels(route.client), CONTAINER
            )
            for route in pairs
        }
        more = tuple(_more_routes(pairs[0].client, place.parts))
        return LookedAt(
            (*pairs, *more), clients, tuple(_watchers(plan, place, kubernetes, node_names))
        )


def _brought_up(
    choice: Choice, plan: Plan, engine: Engine, report: Callable[[str], None]
) -> Cluster:
    """Bring up the cluster of `choice`; the caller holds the lock of its state."""
    pins, wanted = read_pins(), _cluster_of(plan)
    cluster = bring_up(
        choice,
        pins,
        engine,
        find_tools({"kind": pins.tools.kind, "helm": pins.tools.helm}),
        lambda progress: report(str(progress)),
        folder=Path(wanted.folder) if wanted.folder is not None else None,
        own_images=own_images_of(plan),
        further_images=images_of_fix(plan),
        before=_steps_before(plan),
        locked=True,
    )
    report(
        f"cluster {cluster.name} is up and stays up for the next run; delete it with: meshwake down"
    )
    return cluster


def _steps_before(plan: Plan) -> tuple[BringUpStep[BringUpContext], ...]:
    """Steps that must come before a cluster is created: the check that --clock engine would not
    set this machine's own clock."""
    wanted = _cluster_of(plan)
    return (
        (own_clock_step(),)
        if wanted.clock == "engine" and moves_clocks(plan) and not wanted.allow_own_clock
        else ()
    )


def own_images_of(plan: Plan) -> tuple[OwnImage, ...]:
    """The images of ours that a run of `plan` needs: the helper's if it moves clocks, and the
    guard's if it deploys it."""
    helped = _cluster_of(plan).clock == "process" and (
        moves_clocks(plan) or _cluster_of(plan).lapse
    )
    return (*((HELPER,) if helped else ()), *own_images_in(objects_of_fix(plan)))


def _cluster_of(plan: Plan) -> PlannedCluster:
    return plan.cluster or PlannedCluster()


def _place(cluster: Cluster, engine: Engine | None = None) -> RunningCluster:
    choice = cluster.choice
    about: MutableJsonObject = {}
    if choice is not None:
        about = {"istio": choice.istio, "kubernetes": choice.kubernetes, "profile": choice.profile}
        about["digest"] = choice.digest
        about["node_image"] = node_image(choice, read_pins())
        machine = None if engine is None else machine_image(engine, choice, read_pins())
        if machine is not None:
            about["node_image"], about["node_image_id"] = machine.name, machine.id
    parts = choice.parts if choice is not None else frozenset[str]()
    return RunningCluster(
        cluster.name, cluster.kubeconfig, cluster.context, cluster.ours, cluster.nodes, parts, about
    )


def _route(plan: Plan, source: str, destination: str) -> Route:
    """How a connection from `source` to `destination` is made: straight, or through the gateway
    whose identity `source` is, by a request from the pod of the destination (stack/gateways.py)."""
    gateway = next((each for each in plan.gateways if each.identity == source), None)
    if gateway is None:
        return Route(source, destination, server_url(destination))
    header = f"{DESTINATION_HEADER}: {destination}"
    return Route(
        source, destination, gateway_url(gateway), headers=(header,), requested_by=destination
    )


def _more_routes(source: str, parts: frozenset[str]) -> list[Route]:
    """Routes through the waypoint and the Gateway, if the cluster has them (clusters/gateway/)."""
    inside = f"{DEMO_NAMESPACE}.svc.cluster.local"
    routes = []
    if "waypoint" in parts:
        url = f"http://server-by-waypoint.{inside}:{SERVER_PORT}/"
        routes.append(Route(source, f"{DEMO_NAMESPACE}/server", url, via="waypoint"))
    if "gateway" in parts:
        routes.append(
            Route(
                source, f"{DEMO_NAMESPACE}/server", f"http://gateway-istio.{inside}/", via="gateway"
            )
        )
    return routes


def _watchers(
    plan: Plan, place: RunningCluster, kubernetes: Kubernetes, node_names: Mapping[str, str]
) -> list[ClusterWatcher]:
    nodes = {node_names[node.name]: (node.name, node.identities) for node in plan.nodes}
    watchers: list[ClusterWatcher] = [
        ZtunnelLogs(kubernetes, nodes),
        TokenWatcher(kubernetes, inside_of(place, kubernetes)),
    ]
    if place.parts & {"gateway", "waypoint"}:
        watchers.append(ProxyCertificates(kubernetes, (DEMO_NAMESPACE,)))
    if "hubble" in place.parts:
        namespaces = sorted(
            {namespace_of(identity) for node in plan.nodes for identity in node.identities}
        )
        watchers.append(Flows(kubernetes, namespaces))

    # In time lapse Prometheus lives in real time: a rule's `for: 5m` lasts five real minutes, which
    # are days of the mesh, so when its alerts fire says nothing. The check is UNKNOWN then.
    if "observability" in place.parts and not _cluster_of(plan).lapse:
        watchers.append(Alerts(kubernetes, OBSERVABILITY_NAMESPACE, PROMETHEUS, ALERTMANAGER))
    return watchers


def _engine_missing() -> list[str]:
    engine, pins = open_engine(), read_pins()
    try:
        return engine_problems(engine, choose_stack(pins), pins)
    finally:
        engine.close()


def _within_bound(what: str, ask: Callable[[], list[str]]) -> list[str]:
    """The result of `ask`, or why there is none; after `PROBE_TIMEOUT_S` at most."""
    found: list[str] = [
        f"{what} did not answer within {PROBE_TIMEOUT_S:.0f} s; is the engine stuck? try: "
        "docker version"
    ]

    def run() -> None:
        try:
            found[:] = ask()
        except HarnessError as error:
            found[:] = [str(error)]

    thread = threading.Thread(target=run, name="missing", daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT_S)
    return list(found)
