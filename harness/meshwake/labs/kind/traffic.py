"""New connections inside the cluster: `curl` in the client's own pod to a server's Service, with a
timeout.

An attempt that could not be made (the API server or a kubelet was unavailable, the pod is gone) is
not a failed connection: it says nothing about the mesh. It is recorded as
`connection_not_attempted`, with the reason.

Every attempt must be a new handshake, because expiry is checked nowhere else. ztunnel keeps HBONE
connections to a peer for five minutes; a run configures it to use each for one stream only
(cluster/reset.py `ZTUNNEL_ENVIRONMENT`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from meshwake.kubernetes.api import Conversation, Kubernetes, Unreachable

# An expired certificate is refused at once. A node that sleeps does not answer at all, and must not
# hold up what is to be tried next.
CONNECT_WITHIN_S = 5.0
# An exec goes through the API server and the kubelet, on a machine that may just have woken.
EXEC_WITHIN_S = CONNECT_WITHIN_S + 5.0
_WORKED = "200"
# Evaluates each line that it reads, and answers with one line: exit code and output.
_SHELL = (
    "sh",
    "-c",
    'while read -r line; do out=$(eval "$line" 2>&1 </dev/null); echo "$?" $out; done',
)
# The shell's exit codes for "not executable" and "not found", and curl's for a wrong option: the
# fault is ours, and no connection was attempted.
_NOT_ATTEMPTED = (2, 126, 127)


@dataclass(frozen=True)
class Route:
    """Who connects to what: `source` and `destination` as the history calls them, `via` None for a
    pair of the plan. `requested_by`: the identity in whose pod the request is made, where that is
    not the source (a gateway connects when it receives a request)."""

    source: str
    destination: str
    url: str
    headers: tuple[str, ...] = ()
    via: str | None = None
    requested_by: str | None = None

    @property
    def client(self) -> str:
        """The identity in whose pod the request is made."""
        return self.requested_by or self.source


@dataclass(frozen=True)
class Client:
    """The pod in which an identity's requests are made."""

    namespace: str
    labels: Mapping[str, str]
    container: str


@dataclass(frozen=True)
class ConnectionAttempt:
    """`made` False: no connection was attempted, and `error` says why. Else `error` None means
    success."""

    made: bool
    error: str | None


class ConnectionProbe:
    """Makes the connection attempts of a run. Each route has a shell of its own in the client's
    pod, which is kept from one attempt to the next (an exec by way of the API server takes longer
    than the connection) and is opened again when it has ended."""

    def __init__(self, kubernetes: Kubernetes, clients: Mapping[str, Client]) -> None:
        self._kubernetes, self._clients = kubernetes, clients
        self._shells: dict[Route, Conversation] = {}

    def attempt(self, route: Route) -> ConnectionAttempt:
        """One new connection. Failures of an attempt are returned, never raised."""
        try:
            if route not in self._shells:
                return self._connect(route, self._begin(route))
            try:
                return self._connect(route, self._shells[route])
            except Unreachable:  # the shell had ended before it read the command
                self._close_shell(route)
                return self._connect(route, self._begin(route))
        except Unreachable as error:
            self._close_shell(route)
            return ConnectionAttempt(made=False, error=str(error))

    def close(self) -> None:
        """Close all shells."""
        for route in list(self._shells):
            self._close_shell(route)

    def _begin(self, route: Route) -> Conversation:
        client = self._clients[route.client]
        pods = self._kubernetes.pods(client.namespace, client.labels)
        ready = [pod for pod in pods if pod.ready]
        if not ready:
            raise Unreachable(f"no pod of {route.client} is ready")

        shell = self._kubernetes.converse(ready[0], client.container, _SHELL)
        self._shells[route] = shell
        return shell

    def _close_shell(self, route: Route) -> None:
        shell = self._shells.pop(route, None)
        if shell is not None:
            shell.close()

    def _connect(self, route: Route, shell: Conversation) -> ConnectionAttempt:
        headers = [word for header in route.headers for word in ("-H", header)]
        command = [
            "curl",
            *("-sS", "-k", "-o", "/dev/null", "-w", " %{http_code}"),
            *("--max-time", f"{CONNECT_WITHIN_S:.0f}", "--no-keepalive"),
            *headers,
            route.url,
        ]
        code, _, output = shell.ask(shlex.join(command), EXEC_WITHIN_S).partition(" ")
        error, _, status = output.strip().rpartition(" ")
        if not code.isdecimal():
            raise Unreachable(
                f"unexpected answer from the shell of {route.client}: {code} {output[:200]}"
            )
        if int(code) in _NOT_ATTEMPTED:
            return ConnectionAttempt(
                made=False,
                error=f"curl of {route.client} ended with {code}: {output.strip()[:200]}",
            )
        if int(code):
            return ConnectionAttempt(made=True, error=error.strip() or f"curl ended with {code}")
        if status != _WORKED:
            return ConnectionAttempt(made=True, error=f"HTTP {status or 'nothing'}")
        return ConnectionAttempt(made=True, error=None)
