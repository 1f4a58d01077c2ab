"""Creates the clock mover of a run, for the `--clock` of its plan.

engine    clocks/movers/engine.py, through the docker command line, so that its watchdog process can
          use the same
command   clocks/movers/command.py; clocks are read by docker exec in our own clusters, and in the
          helper's pod elsewhere
process   clocks/movers/process.py or, in time lapse, clocks/movers/lapse.py, through the helper's
          pod on each node
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from meshwake.clocks.movers.base import Meanwhile, Moved, Mover, sleep_meanwhile
from meshwake.clocks.movers.command import CommandMover, command_refusals
from meshwake.clocks.movers.engine import EngineMover, EngineWays, engine_refusals
from meshwake.clocks.movers.node_access import CommandResult, Inside, NoAnswer, Way, measure
from meshwake.clocks.movers.node_helper.answers import DescribedProcess
from meshwake.clocks.movers.process import ProcessMover
from meshwake.cluster.docker import LOOK_LABEL
from meshwake.cluster.moved import end_begun_moved, unmark
from meshwake.cluster.node_channel import (
    CONTAINER,
    LABELS,
    NAMESPACE,
    Help,
    HelpedLapse,
    HelpedMover,
    PodChannel,
    install_helper,
)
from meshwake.cluster.real_time import HostTime
from meshwake.cluster.state import intents_dir
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.json_types import JsonObject, MutableJsonObject
from meshwake.core.plan import Plan, PlannedCluster
from meshwake.core.planned_faults import PlannedFault
from meshwake.kubernetes.api import Kubernetes, Unreachable
from meshwake.labs.kind.environment import RunningCluster
from meshwake.ztunnel.names import ISTIO_NAMESPACE, ISTIOD_LABELS, ZTUNNEL_LABELS

INTO_NODE = ("docker", "exec", "{node}")
_DOCKER_WORDS = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
)


def mover_refusals(plan: Plan) -> list[str]:
    """What the plan requires that the chosen clock mover cannot do; changes nothing."""
    cluster = _cluster_of(plan)
    if not moves_clocks(plan):
        return []
    if cluster.clock == "process":
        return ProcessMover(plan, _NoChannel()).refusals(plan)
    if cluster.clock == "command":
        return command_refusals(plan, cluster.suspend_command or "")
    if cluster.kubeconfig is not None:
        return [
            "--clock engine: sets the clock of the machine that runs our nodes, and "
            "--kubeconfig names a cluster whose "
            "machines are not known here; use --clock process, or --suspend-command"
        ]
    return engine_refusals(plan)


def make_mover(
    plan: Plan,
    place: RunningCluster,
    kubernetes: Kubernetes,
    node_names: Mapping[str, str],
    real: HostTime,
) -> Mover:
    """The mover for `plan` on a cluster; not prepared yet."""
    cluster = _cluster_of(plan)
    install, uninstall = _helper_of(place, kubernetes, node_names, real)
    inside = inside_of(place, kubernetes)
    if not moves_clocks(plan) and not cluster.lapse:
        return (
            Reader(inside, node_names)
            if place.ours
            else Reader(inside, node_names, install, uninstall)
        )
    if cluster.clock == "engine":
        ways = engine_ways(str(place.about["node_image"]))
        return EngineMover(
            plan, ways, node_names, intents_dir(), allow_own_clock=cluster.allow_own_clock
        )
    if cluster.clock == "process":

        def when_released(begun_moved: list[DescribedProcess]) -> None:
            end_begun_moved(kubernetes, real, begun_moved, place.ours)
            unmark(kubernetes)

        others = _others(kubernetes, node_names) if cluster.lapse else {}
        channel = PodChannel(kubernetes, {**node_names, **others})

        def after() -> None:
            channel.close()
            uninstall()

        help_ = Help(
            lambda owner: install({"owner": owner, "ours": place.ours}),
            when_released,
            after,
        )
        if cluster.lapse:
            return HelpedLapse(plan, channel, help_, tuple(others))
        return HelpedMover(plan, channel, help_)
    command = cluster.suspend_command or ""
    if place.ours:
        return CommandMover(plan, inside, node_names, command)
    return _CommandElsewhere(plan, inside, node_names, command, install, uninstall)


def _others(kubernetes: Kubernetes, node_names: Mapping[str, str]) -> dict[str, str]:
    """Nodes outside the plan that run programs of the mesh: a name for messages -> Kubernetes
    node. Their clocks are skipped along with those of the plan's nodes."""
    labels = (ZTUNNEL_LABELS, ISTIOD_LABELS)
    nodes = {pod.node for each in labels for pod in kubernetes.pods(ISTIO_NAMESPACE, each)}
    return {
        f"{node} (not in the plan)": node
        for node in sorted(nodes - set(node_names.values()))
        if node
    }


def inside_of(place: RunningCluster, kubernetes: Kubernetes) -> Inside:
    """How commands are run on the nodes of a cluster."""
    return Way(INTO_NODE) if place.ours else PodInside(kubernetes)


def engine_ways(image: str) -> EngineWays:
    """Nodes by docker exec; the engine's machine by a privileged container of `image`, which works
    without any node."""
    container = (
        "docker",
        "run",
        "--rm",
        "--pull=never",
        "--privileged",
        "--network=none",
        f"--label={LOOK_LABEL}=true",
    )
    environment = {name: os.environ[name] for name in _DOCKER_WORDS if name in os.environ}
    return EngineWays(
        nodes=(INTO_NODE, (*container, "--entrypoint=", image)),
        host=(*container, "--pid=host", "--entrypoint=", image),
        environment=environment,
    )


class PodInside(Inside):
    """Runs commands on a node in the helper's pod there; nodes by their Kubernetes names."""

    def __init__(self, kubernetes: Kubernetes) -> None:
        self._kubernetes = kubernetes

    def run(self, node: str, argv: Sequence[str], within_s: float) -> CommandResult:
        """See Inside."""
        try:
            pods = [
                pod
                for pod in self._kubernetes.pods(NAMESPACE, LABELS)
                if pod.node == node and pod.ready
            ]
            if not pods:
                raise NoAnswer(f"node {node}: no helper is ready there; see namespace {NAMESPACE}")
            ended = self._kubernetes.execute(pods[0], CONTAINER, list(argv), within_s)
        except Unreachable as error:
            raise NoAnswer(f"node {node}: {error}") from error
        return CommandResult(ended.code, ended.stdout.strip(), ended.stderr.strip())


class Reader:
    """A Mover for plans without clock faults: it only reads clocks."""

    name = "reader"

    def __init__(
        self,
        inside: Inside,
        names: Mapping[str, str],
        install: Any = lambda: None,
        uninstall: Any = lambda: None,
    ) -> None:
        self._inside, self._names, self._install, self._uninstall = (
            inside,
            dict(names),
            install,
            uninstall,
        )

    def refusals(self, plan: Plan) -> list[str]:
        """See Mover."""
        return []

    def prepare(self) -> None:
        """See Mover."""
        self._install()

    def read(self, node: str) -> ClockReading:
        """See Mover."""
        try:
            return measure(self._inside, self._names[node]).clocks
        except NoAnswer as error:
            raise SubjectFailed(f"node {node}: its clocks cannot be read: {error}") from error

    def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
        """See Mover: never."""
        raise HarnessFault(
            f"fault {fault.index}: {fault.kind} was to be moved by one that only reads clocks"
        )

    def release(self) -> None:
        """See Mover."""
        self._uninstall()


class _CommandElsewhere(CommandMover):
    """A CommandMover that installs the helper first, to read clocks by, and removes it again."""

    def __init__(
        self,
        plan: Plan,
        inside: Inside,
        names: Mapping[str, str],
        command: str,
        install: Any,
        uninstall: Any,
    ) -> None:
        super().__init__(plan, inside, names, command)
        self._install, self._uninstall = install, uninstall

    def prepare(self) -> None:
        """See Mover."""
        self._install()
        super().prepare()

    def release(self) -> None:
        """See Mover."""
        self._uninstall()


def _helper_of(
    place: RunningCluster, kubernetes: Kubernetes, node_names: Mapping[str, str], real: HostTime
) -> tuple[Any, Any]:
    """How the helper is installed and removed; in our own clusters it stays for the next run."""

    def install(mark: JsonObject | None = None) -> None:
        install_helper(
            kubernetes, real, set(node_names.values()), place.name, mark, stays=place.ours
        )

    def uninstall() -> None:
        # Its namespace carries our label; Kubernetes deletes everything in it.
        if not place.ours:
            kubernetes.delete_ours("Namespace", None, NAMESPACE)

    return install, uninstall


def moves_clocks(plan: Plan) -> bool:
    """Whether the plan has clock faults."""
    return any(fault.kind in CLOCK_FAULTS for fault in plan.faults)


def _cluster_of(plan: Plan) -> PlannedCluster:
    return plan.cluster or PlannedCluster()


class _NoChannel:
    def send(self, node: str, request: JsonObject, within_s: float = 0.0) -> MutableJsonObject:
        raise LabUnavailable("a mover that is only made for its refusals has no way to a node")
