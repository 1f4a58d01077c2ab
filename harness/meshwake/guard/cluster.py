"""A node of a real cluster, as the guard needs it: its pods by the API server, its clocks and
processes by /proc.

A pod that gives no answer (it is starting, or kubelet is busy after a wake) is left out of this
poll, and logged; the next poll is half a minute away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault
from meshwake.guard.certificates import of_envoy, of_ztunnel
from meshwake.guard.starts import (
    PROC,
    Process,
    Starts,
    Witnessed,
    boottime_of_start_ns,
    pid_of_container,
)
from meshwake.guard.watch import ObservedProcess
from meshwake.ztunnel.names import (
    GATEWAY_LABEL,
    ISTIO_NAMESPACE,
    ISTIOD_LABELS,
    PROXY_CONTAINER,
    ZTUNNEL_LABELS,
    ZTUNNEL_NAME,
    selector,
)
from meshwake.ztunnel.ports import (
    ADMIN_PORT,
    CONFIG_DUMP_PATH,
    ENVOY_CERTIFICATES_PATH,
    ISTIOD_PORT,
)

ZTUNNELS, ISTIOD = selector(ZTUNNEL_LABELS), selector(ISTIOD_LABELS)
FORBIDDEN = 403


class Places(NamedTuple):
    """The namespaces in which the guard looks; it needs rights in these and in no other. Gateways
    and waypoints are looked for in ztunnel's namespace and in `gateways`."""

    ztunnel: str = ISTIO_NAMESPACE
    istiod: str = ISTIO_NAMESPACE
    gateways: tuple[str, ...] = ()

    @property
    def with_gateways(self) -> tuple[str, ...]:
        """Where gateways and waypoints are looked for, each namespace once."""
        return tuple(dict.fromkeys([self.ztunnel, *self.gateways]))


IN_ISTIO_SYSTEM = Places()


class ApiPod(NamedTuple):
    """What of a pod the guard needs. `started_wall_ns`: when each of its running containers
    started; `owner`: what makes the next one when it is evicted."""

    namespace: str
    name: str
    uid: str
    address: str
    ready: bool
    started_wall_ns: dict[str, int]
    owner: str = ""

    @property
    def full_name(self) -> str:
        """As metrics and messages name it."""
        return f"{self.namespace}/{self.name}"


class ApiRequestFailed(HarnessFault):
    """The API server, or something behind it, gave no answer in time."""


class ApiRequestRefused(ApiRequestFailed):
    """The API server answered with `status`, a number of HTTP."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Api(Protocol):
    """The API server, with the guard's own rights. Everything raises ApiRequestFailed when
    there is no answer."""

    def pods(self, namespace: str, labels: str, node: str | None) -> Sequence[ApiPod]:
        """The pods of a namespace with `labels`, of one node or of all, by name."""

    def get_from_pod(self, pod: ApiPod, port: int, path: str) -> bytes:
        """What a pod answers on a port of its own localhost."""

    def evict(self, pod: ApiPod) -> None:
        """Evicts a pod, as its disruption budget allows."""

    def post_event(self, pod: ApiPod, reason: str, message: str, warning: bool) -> None:
        """An Event about `pod`."""

    def take_lease(self, number: int, holder: str, holds_ns: int, now_monotonic_ns: int) -> bool:
        """Whether `holder` has that one of the guards' Leases from now on."""


class ClusterNode:
    """See guard.GuardedNode. `connects` says whether an address takes connections; `say` is the
    guard's log; `turn` is which of the Leases it takes; `places` are the namespaces in which it looks."""

    def __init__(
        self,
        name: str,
        api: Api,
        clocks: Callable[[], ClockReading],
        connects: Callable[[str, int], bool],
        say: Callable[[str], None],
        proc: Path = PROC,
        turn: int = 0,
        places: Places = IN_ISTIO_SYSTEM,
    ) -> None:
        self.name, self._api, self._clocks, self._turn = name, api, clocks, turn
        self._places = places
        self._connects, self._say, self._proc = connects, say, proc
        self._starts = Starts()
        self._witnessed = Witnessed()
        self._pods: dict[str, ApiPod] = {}
        self._now = ClockReading(0, 0, 0)

    def clocks(self) -> ClockReading:
        """See guard.GuardedNode."""
        # Kept for `seen` of the same look: processes are judged by the clocks of that moment.
        self._now = self._clocks()
        self._starts.look(self._now)
        return self._now

    def seen(self) -> Sequence[ObservedProcess]:
        """See guard.GuardedNode. Raises ApiRequestFailed when the API server cannot be reached
        at all."""
        ztunnels = self._api.pods(self._places.ztunnel, ZTUNNELS, self.name)
        gateways: list[ApiPod] = []
        for namespace in self._places.with_gateways:
            gateways += self._gateways_in(namespace)

        running = filter(None, map(self._process_of, ztunnels))
        self._witnessed.look(self._now, set(running))
        self._pods = {pod.full_name: pod for pod in (*ztunnels, *gateways)}

        found = [self._ask(self._ztunnel, pod) for pod in ztunnels]
        found += [self._ask(self._proxy, pod) for pod in gateways]

        # One that does not answer is left out of this look.
        return list(filter(None, found))

    def _gateways_in(self, namespace: str) -> Sequence[ApiPod]:
        """A namespace whose Role is missing is left out, and logged: it must not keep the guard
        from ztunnel. Raises ApiRequestFailed for every other failure."""
        try:
            return self._api.pods(namespace, GATEWAY_LABEL, self.name)
        except ApiRequestRefused as error:
            if error.status != FORBIDDEN:
                raise
            self._say(f"gateways in {namespace}: not looked at: {error}")
            return ()

    def _ask(
        self, ask: Callable[[ApiPod], ObservedProcess | None], pod: ApiPod
    ) -> ObservedProcess | None:
        try:
            return ask(pod)
        except (HarnessFault, OSError, ValueError) as error:
            self._say(f"{pod.full_name}: not looked at this time: {error}")
            return None

    def _ztunnel(self, pod: ApiPod) -> ObservedProcess | None:
        started_wall_ns, process = pod.started_wall_ns.get(PROXY_CONTAINER), self._process_of(pod)
        if started_wall_ns is None or process is None:
            self._say(
                f"{pod.full_name}: has no running ztunnel that /proc shows; does the guard "
                "run with hostPID?"
            )
            return None
        started = self._witnessed.started(process) or self._starts.started(
            started_wall_ns, process.boottime_ns
        )
        held = of_ztunnel(self._api.get_from_pod(pod, ADMIN_PORT, CONFIG_DUMP_PATH))
        return ObservedProcess(pod.full_name, "ztunnel", started, held, pod.owner)

    def _process_of(self, pod: ApiPod) -> Process | None:
        pid = pid_of_container(pod.uid, ZTUNNEL_NAME, self._proc)
        if pid is None:
            return None
        try:
            return Process(pid, boottime_of_start_ns(pid, self._proc))
        except (OSError, ValueError):
            return None  # it has just ended

    def _proxy(self, pod: ApiPod) -> ObservedProcess | None:
        started_wall_ns = pod.started_wall_ns.get(PROXY_CONTAINER)
        if started_wall_ns is None:
            return None
        held = of_envoy(self._api.get_from_pod(pod, ADMIN_PORT, ENVOY_CERTIFICATES_PATH))

        # Its agent counts from each issue, so the other clocks at its start do not matter.
        return ObservedProcess(
            pod.full_name, "proxy", ClockReading(started_wall_ns, 0, 0), held, pod.owner
        )

    def authority_answers(self) -> bool:
        """See guard.GuardedNode: a pod of istiod is ready, and its signing port takes
        connections."""
        for pod in self._api.pods(self._places.istiod, ISTIOD, None):
            # An istiod may be ready by its last probe and gone since.
            if pod.ready and self._connects(pod.address, ISTIOD_PORT):
                return True
        return False

    def take_turn(self, holds_ns: int) -> bool:
        """See guard.GuardedNode."""
        return self._api.take_lease(self._turn, self.name, holds_ns, self._clocks().monotonic_ns)

    def restart(self, process: ObservedProcess, why: str) -> None:
        """See guard.GuardedNode. The Event comes first: it must be there even when the
        eviction fails."""
        pod = self._pods[process.name]
        self._say(f"{process.name}: restarted: {why}")
        self._api.post_event(
            pod, "WakeGuardRestarted", f"restarted on node {self.name}: {why}", warning=False
        )
        self._api.evict(pod)

    def held_back(self, process: ObservedProcess, why: str) -> None:
        """See guard.GuardedNode."""
        self._say(f"{process.name}: restart held back: {why}")
        self._api.post_event(
            self._pods[process.name], "WakeGuardHeldBack", f"restart held back: {why}", warning=True
        )


def pod_from(item: dict[str, Any], wall_ns_of: Callable[[str], int]) -> ApiPod:
    """A pod from what the API server says of it."""
    metadata, status = item["metadata"], item.get("status", {})
    # A container that waits or has ended serves no certificate.
    running = {
        container["name"]: wall_ns_of(container["state"]["running"]["startedAt"])
        for container in status.get("containerStatuses", [])
        if "running" in container.get("state", {})
    }
    ready = any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in status.get("conditions", [])
    )

    # The DaemonSet or ReplicaSet: the name that stays when the pod's own is gone.
    owners = [
        f"{metadata['namespace']}/{owner['kind']}/{owner['name']}"
        for owner in metadata.get("ownerReferences", [])
    ]
    return ApiPod(
        metadata["namespace"],
        metadata["name"],
        metadata["uid"],
        status.get("podIP", ""),
        ready,
        running,
        owners[0] if owners else "",
    )
