"""`cluster.Api` kept by kr8s, a call at a time, each with a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx_ws
import kr8s
from kr8s.asyncio import api as connect
from kr8s.asyncio.objects import Pod

from harness.durations import NS_PER_S
from harness.errors import LabUnavailable
from harness.fixes.guard.cluster import ApiPod, Unreachable, pod_from

CALL_WITHIN_S = 10.0
LEASE = "wake-guard"
_LEASES = "coordination.k8s.io/v1"
_LOST = (
    OSError,
    TimeoutError,
    httpx.HTTPError,
    httpx_ws.HTTPXWSException,
    kr8s.APITimeoutError,
    kr8s.ServerError,
    kr8s.NotFoundError,
    kr8s.ConnectionClosedError,
)
_CONFLICTS = (404, 409)
_Answer = TypeVar("_Answer")


class ThroughKr8s:
    """See cluster.Api. `namespace` is where the guards' Lease lies; `kubeconfig` None: as a pod finds its own cluster,
    or a person theirs. `now_wall_ns` dates Events and Leases. Raises LabUnavailable when nobody answers."""

    def __init__(self, kubeconfig: Path | None, namespace: str, now_wall_ns: Any) -> None:
        self._namespace, self._now_wall_ns = namespace, now_wall_ns
        self._runner = asyncio.Runner()
        self._leases_seen: dict[int, tuple[str, int]] = {}
        try:
            self._api: Any = self._call(connect(kubeconfig=None if kubeconfig is None else str(kubeconfig)), "connect")
            self._call(self._api.async_version(), "connect")
        except (Unreachable, ValueError, KeyError) as error:
            self.close()
            raise LabUnavailable(f"no cluster: {error}; give --kubeconfig PATH, or run in a pod") from error

    def close(self) -> None:
        """Ends all connections."""
        session = getattr(getattr(self, "_api", None), "_session", None)
        if session is not None:
            self._runner.run(session.aclose())
        self._runner.close()

    def _call(self, work: Coroutine[Any, Any, _Answer], what: str) -> _Answer:
        try:
            return self._runner.run(asyncio.wait_for(work, CALL_WITHIN_S))
        except _LOST as error:
            raise Unreachable(f"{what}: {type(error).__name__}: {error}") from error

    async def _request(self, method: str, url: str, **about: Any) -> httpx.Response:
        async with self._api.call_api(method, url=url, **about) as response:
            answer: httpx.Response = response
            return answer

    def pods(self, namespace: str | None, labels: str, node: str | None) -> Sequence[ApiPod]:
        """See cluster.Api."""
        query = {"labelSelector": labels} | ({"fieldSelector": f"spec.nodeName={node}"} if node else {})
        everywhere = namespace if namespace is not None else ""
        answer = self._call(self._request("GET", "pods", namespace=everywhere or None, params=query), "list pods")
        items = [item for item in answer.json()["items"] if "deletionTimestamp" not in item["metadata"]]
        return sorted((pod_from(item, _wall_ns) for item in items), key=lambda pod: pod.full_name)

    def get_from_pod(self, pod: ApiPod, port: int, path: str) -> bytes:
        """See cluster.Api."""
        return self._call(self._get(pod, port, path), f"GET {pod.full_name}:{port}{path}")

    async def _get(self, pod: ApiPod, port: int, path: str) -> bytes:
        thing = await Pod.get(pod.name, namespace=pod.namespace, api=self._api)
        async with (
            thing.portforward(port, local_port="auto") as local_port,
            httpx.AsyncClient(trust_env=False, timeout=CALL_WITHIN_S) as client,
        ):
            answer = await client.get(f"http://127.0.0.1:{local_port}{path}", headers={"connection": "close"})
            answer.raise_for_status()
            return answer.content

    def evict(self, pod: ApiPod) -> None:
        """See cluster.Api."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
        }
        work = self._request("POST", f"pods/{pod.name}/eviction", namespace=pod.namespace, json=body)
        self._call(work, f"evict {pod.full_name}")

    def tell(self, pod: ApiPod, reason: str, message: str, warning: bool) -> None:
        """See cluster.Api."""
        now = _moment(self._now_wall_ns())
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{pod.name}.", "namespace": pod.namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "namespace": pod.namespace,
                "name": pod.name,
                "uid": pod.uid,
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": message,
            "source": {"component": "meshwake-wake-guard"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._call(self._request("POST", "events", namespace=pod.namespace, json=body), f"event of {pod.full_name}")

    # The Leases, one for each turn. Whether one has run out is judged by our monotonic clock, from when we first saw it
    # as it is: what another node's wall clock wrote into it is of no use here.

    def take_lease(self, number: int, holder: str, holds_ns: int, now_monotonic_ns: int) -> bool:
        """See cluster.Api."""
        found = self._lease(number)
        if found is None:
            return self._write_lease("POST", number, {}, holder, holds_ns)
        version = str(found["metadata"]["resourceVersion"])
        seen = self._leases_seen.get(number)
        if seen is None or seen[0] != version:
            seen = self._leases_seen[number] = (version, now_monotonic_ns)
        mine = found["spec"].get("holderIdentity") in (holder, "", None)
        if not mine and now_monotonic_ns - seen[1] < holds_ns:
            return False
        return self._write_lease("PUT", number, {"resourceVersion": version}, holder, holds_ns)

    def _lease(self, number: int) -> dict[str, Any] | None:
        work = self._request("GET", f"leases/{lease_name(number)}", version=_LEASES, namespace=self._namespace)
        try:
            return dict(self._call(work, "read the Lease").json())
        except Unreachable as error:
            if _status(error) == 404:
                return None
            raise

    def _write_lease(self, method: str, number: int, metadata: dict[str, str], holder: str, holds_ns: int) -> bool:
        name = lease_name(number)
        body = {
            "apiVersion": _LEASES,
            "kind": "Lease",
            "metadata": {"name": name, "namespace": self._namespace, **metadata},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(holds_ns // NS_PER_S, 1),
                "renewTime": _moment(self._now_wall_ns(), micros=True),
            },
        }
        url = "leases" if method == "POST" else f"leases/{name}"
        work = self._request(method, url, version=_LEASES, namespace=self._namespace, json=body)
        try:
            self._call(work, "take the Lease")
        except Unreachable as error:
            if _status(error) in _CONFLICTS:  # another was faster
                return False
            raise
        return True


def lease_name(number: int) -> str:
    """The Lease of one turn. The first has the name that it had when there was one only."""
    return LEASE if number == 0 else f"{LEASE}-{number}"


def _status(error: Unreachable) -> int | None:
    cause = error.__cause__
    response = getattr(cause, "response", None)
    return getattr(response, "status_code", None)


def _wall_ns(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp()) * NS_PER_S


def _moment(wall_ns: int, *, micros: bool = False) -> str:
    moment = datetime.fromtimestamp(wall_ns // NS_PER_S, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (".000000Z" if micros else "Z")
