"""The wake guard as a program, for one node of a cluster: python -m meshwake.guard.

    --node NAME            the node it guards; $NODE_NAME without it
    --kubeconfig PATH      how it finds the cluster; without it as pods do
    --namespace NAME       where its Leases lie (meshwake-guard)
    --ztunnel-namespace NAME    where ztunnel runs (istio-system)
    --istiod-namespace NAME     where istiod runs (istio-system)
    --gateway-namespace NAME    where gateways and waypoints run as well; may be repeated
    --metrics-port PORT    where Prometheus finds it (15099); 0: nowhere
    --period, --lead, --settle, --cooldown, --turn DURATION    see settings.py
    --turns NUMBER         so many nodes may restart at a time (1)
    --only-look            restarts nothing: the metrics are all that it is for
    --once                 one look, then the end

It needs nothing but Python itself, unless it is given a kubeconfig (PyYAML). It looks every
`period` of the monotonic clock until it is ended (SIGTERM). A look that fails because the API
server gives no answer is reported on stderr, and the next one is tried: after a wake that is usual.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from meshwake.clocks.movers.own_clock import own_clocks
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, ExitCode, HarnessError, LabUnavailable
from meshwake.guard.cluster import ApiRequestFailed, ClusterNode, Places
from meshwake.guard.guard import Guard
from meshwake.guard.kubernetes import ThroughHttp
from meshwake.guard.metrics import PrometheusMetrics, serve
from meshwake.guard.names import METRICS_PORT, NAMESPACE
from meshwake.guard.settings import Settings, parse_settings
from meshwake.ztunnel.names import ISTIO_NAMESPACE

CONNECTS_WITHIN_S = 2.0
_SETTINGS = ("period", "lead", "settle", "cooldown", "turn", "turns")


def read_arguments(words: Sequence[str]) -> tuple[Namespace, Settings]:
    """The options of the command line. Raises BadInput."""
    parser = ArgumentParser(
        prog="python -m meshwake.guard", exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--node", default=os.environ.get("NODE_NAME", ""))
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--ztunnel-namespace", default=ISTIO_NAMESPACE)
    parser.add_argument("--istiod-namespace", default=ISTIO_NAMESPACE)
    parser.add_argument("--gateway-namespace", action="append", default=[])
    parser.add_argument("--metrics-port", type=int, default=METRICS_PORT)
    parser.add_argument("--only-look", action="store_true")
    parser.add_argument("--once", action="store_true")
    for name in _SETTINGS:
        parser.add_argument(f"--{name}")

    # exit_on_error=False raises ArgumentError for values only; for unknown words argparse would
    # still exit by itself, with its own code, so those are taken as `rest`.
    try:
        arguments, rest = parser.parse_known_args(words)
    except Exception as error:
        raise BadInput(f"{error}; see --help") from error
    if rest:
        raise BadInput(f"{rest[0]}: is not an option of the guard; see --help")
    if not arguments.node:
        raise BadInput(
            "--node: is missing, and so is $NODE_NAME; expected the name of this node in "
            "the cluster"
        )

    # As text, by the same reader that the labs use for a manifest.
    given = [
        f"--{name}={value}" for name in _SETTINGS if (value := getattr(arguments, name)) is not None
    ]
    return arguments, parse_settings(given)


class StopFlag:
    """Whether the guard is to end. Waits by a bound that is relative: `threading.Event` hands the
    kernel a moment of the monotonic clock, which is wrong where a test of ours shows this process
    another clock than the kernel's. And in epoll where there is one: what moves that clock can make
    such a wait read it again."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)

    def set(self) -> None:
        """It is; also from a signal's handler."""
        os.write(self._writer, b"x")

    def wait(self, within_s: float) -> bool:
        """Whether it is, at the latest after so long."""
        return bool(self._selector.select(within_s))


def run(words: Sequence[str], ended: StopFlag) -> None:
    """Guards until `ended` is set. Raises HarnessError when it cannot begin."""
    arguments, settings = read_arguments(words)
    api = ThroughHttp(arguments.kubeconfig, arguments.namespace, lambda: own_clocks().wall_ns)
    metrics = PrometheusMetrics(arguments.node)
    if arguments.metrics_port:
        try:
            serve(metrics, arguments.metrics_port)
        except OSError as error:
            raise LabUnavailable(
                f"--metrics-port {arguments.metrics_port}: {error.strerror}; 0 is none"
            ) from error
    node = ClusterNode(
        arguments.node,
        api,
        own_clocks,
        _connects,
        _say,
        turn=settings.turn_of(arguments.node),
        places=Places(
            arguments.ztunnel_namespace,
            arguments.istiod_namespace,
            tuple(arguments.gateway_namespace),
        ),
    )
    guard = Guard(node, settings, metrics, acts=not arguments.only_look)
    _say(f"{'looking at' if arguments.only_look else 'guarding'} node {arguments.node}: {settings}")
    wait_ns = 0 if arguments.once else settings.first_look_after_ns(arguments.node)

    # On the monotonic clock, as everything here: a jump of the wall clock neither ends nor extends
    # it.
    while not ended.wait(wait_ns / NS_PER_S):
        try:
            guard.look()
        except ApiRequestFailed as error:
            _say(f"this look failed, the next may not: {error}")
        if arguments.once:
            return
        wait_ns = settings.period_ns


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), CONNECTS_WITHIN_S).close()
    except OSError:
        return False
    return True


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """Ends with the exit codes of harness/meshwake/core/errors.py."""
    ended = StopFlag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: ended.set())
    try:
        run(sys.argv[1:], ended)
    except HarnessError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    sys.exit(ExitCode.AS_EXPECTED)


if __name__ == "__main__":
    main()
