"""New connections from inside: `curl` in the client's own pod, to a server's Service, bounded.

A connection that could not be attempted (the API server or a kubelet was away, the pod is gone) is
no failed connection: nobody knocked, so nobody was refused. It is told as
`connection_not_attempted`, with the reason.

Every attempt must be a new handshake, since expiry is looked at nowhere else. ztunnel keeps
connections to a peer for five minutes; the run tells it to use each for one stream only (reset.py
`ZTUNNEL_ENVIRONMENT`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from meshwake.kubernetes.api import Conversation, Kubernetes, Unreachable

CONNECT_WITHIN_S = 5.0
# The way through the API server and the kubelet, on a machine that has just woken.
EXEC_WITHIN_S = CONNECT_WITHIN_S + 5.0
_WORKED = "200"
# Runs each line that it reads, and answers with one: how that ended, and what it said.
_SHELL = (
    "sh",
    "-c",
    'while read -r line; do said=$(eval "$line" 2>&1 </dev/null); echo "$?" $said; done',
)
# The shell's words for "not a program" and "no such program", and curl's for a wrong option: ours
# is the fault.
_NOT_TRIED = (2, 126, 127)


@dataclass(frozen=True)
class Route:
    """Who connects to what: `source` and `destination` as the history calls them, `via` None for
    pod to pod."""

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
    """How it ended. `made` False: nobody knocked, and `error` says why not; else `error` None means
    that it worked."""

    made: bool
    error: str | None


class Knocks:
    """The attempts of a run. Each route has a shell of its own in the client's pod, which lives
    from one attempt to the next; it is begun anew where it has ended."""

    def __init__(self, kubernetes: Kubernetes, clients: Mapping[str, Client]) -> None:
        self._kubernetes, self._clients = kubernetes, clients
        self._shells: dict[Route, Conversation] = {}

    def attempt(self, route: Route) -> Attempt:
        """One new connection. Never raises for anything that an attempt may meet."""
        try:
            if route not in self._shells:
                return self._knock(route, self._begin(route))
            try:
                return self._knock(route, self._shells[route])
            except Unreachable:  # a shell that had ended heard nothing
                self._hang_up(route)
                return self._knock(route, self._begin(route))
        except Unreachable as error:
            self._hang_up(route)
            return Attempt(made=False, error=str(error))

    def close(self) -> None:
        """Ends the shells."""
        for route in list(self._shells):
            self._hang_up(route)

    def _begin(self, route: Route) -> Conversation:
        client = self._clients[route.source]
        pods = [pod for pod in self._kubernetes.pods(client.namespace, client.labels) if pod.ready]
        if not pods:
            raise Unreachable(f"no pod of {route.source} is ready")
        self._shells[route] = self._kubernetes.converse(pods[0], client.container, _SHELL)
        return self._shells[route]

    def _hang_up(self, route: Route) -> None:
        shell = self._shells.pop(route, None)
        if shell is not None:
            shell.close()

    def _knock(self, route: Route, shell: Conversation) -> Attempt:
        headers = [word for header in route.headers for word in ("-H", header)]
        command = [
            "curl",
            *("-sS", "-k", "-o", "/dev/null", "-w", " %{http_code}"),
            *("--max-time", f"{CONNECT_WITHIN_S:.0f}", "--no-keepalive"),
            *headers,
            route.url,
        ]
        code, _, said = shell.ask(shlex.join(command), EXEC_WITHIN_S).partition(" ")
        error, _, status = said.strip().rpartition(" ")
        if not code.isdecimal():
            raise Unreachable(
                f"the shell of {route.source} gave no answer that is understood: {code} "
                f"{said[:200]}"
            )
        if int(code) in _NOT_TRIED:
            return Attempt(
                made=False, error=f"curl of {route.source} ended with {code}: {said.strip()[:200]}"
            )
        if int(code):
            return Attempt(made=True, error=error.strip() or f"curl ended with {code}")
        if status != _WORKED:
            return Attempt(made=True, error=f"HTTP {status or 'nothing'}")
        return Attempt(made=True, error=None)
