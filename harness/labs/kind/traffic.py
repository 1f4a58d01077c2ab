"""New connections from inside: `curl` in the client's own pod, to a server's Service, bounded.

A connection that could not be attempted (the API server or a kubelet was away, the pod is gone) is no failed
connection: nobody knocked, so nobody was refused. It is told as `connection_not_attempted`, with the reason.

Every attempt must be a new handshake, since expiry is looked at nowhere else. ztunnel keeps connections to a peer for
five minutes; the run tells it to use each for one stream only (reset.py `ZTUNNEL_ENVIRONMENT`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.kubernetes.api import Kubernetes, Pod, Unreachable

CONNECT_WITHIN_S = 5.0
# The way through the API server and the kubelet, on a machine that has just woken.
EXEC_WITHIN_S = CONNECT_WITHIN_S + 5.0
_WORKED = "200"
# The shell's words for "not a program" and "no such program", and curl's for a wrong option: ours is the fault.
_NOT_TRIED = (2, 126, 127)


@dataclass(frozen=True)
class Route:
    """Who connects to what: `source` and `destination` as the history calls them, `via` None for pod to pod."""

    source: str
    destination: str
    url: str
    headers: tuple[str, ...] = ()
    via: str | None = None


@dataclass(frozen=True)
class Client:
    """Where a source's connections start."""

    namespace: str
    labels: Mapping[str, str]
    container: str


@dataclass(frozen=True)
class Attempt:
    """How it ended. `made` False: nobody knocked, and `error` says why not; else `error` None means that it worked."""

    made: bool
    error: str | None


def attempt(kubernetes: Kubernetes, client: Client, route: Route) -> Attempt:
    """One new connection. Never raises for anything that an attempt may meet."""
    try:
        pods = [pod for pod in kubernetes.pods(client.namespace, client.labels) if pod.ready]
        if not pods:
            return Attempt(made=False, error=f"no pod of {route.source} is ready")
        return _attempt(kubernetes, pods[0], client.container, route)
    except Unreachable as error:
        return Attempt(made=False, error=str(error))


def _attempt(kubernetes: Kubernetes, pod: Pod, container: str, route: Route) -> Attempt:
    headers = [word for header in route.headers for word in ("-H", header)]
    command = [
        "curl",
        *("-sS", "-k", "-o", "/dev/null", "-w", "%{http_code}"),
        *("--max-time", f"{CONNECT_WITHIN_S:.0f}", "--no-keepalive"),
        *headers,
        route.url,
    ]
    ended = kubernetes.execute(pod, container, command, EXEC_WITHIN_S)
    if ended.code in _NOT_TRIED:
        return Attempt(made=False, error=f"curl in {pod} ended with {ended.code}: {ended.stderr.strip()[:200]}")
    if ended.code:
        return Attempt(made=True, error=ended.stderr.strip() or f"curl ended with {ended.code}")
    if ended.stdout.strip() != _WORKED:
        return Attempt(made=True, error=f"HTTP {ended.stdout.strip() or 'nothing'}")
    return Attempt(made=True, error=None)
