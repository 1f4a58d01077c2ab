"""`serve`, the helper itself, and `send`, one request to it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from meshwake.clocks.movers.node_helper.client import send
from meshwake.clocks.movers.node_helper.node import NODE_ROOT
from meshwake.clocks.movers.node_helper.server import Server, keep_alive
from meshwake.core.errors import HarnessError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code (harness/meshwake/core/errors.py)."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "serve":
            keep_alive()
            Server(chosen.socket, chosen.state, chosen.node_root).run()
            return 0
        _send_all(chosen.socket, chosen.request)
    except HarnessError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return int(error.exit_code)
    return 0


def _send_all(socket: Path, request: str) -> None:
    """One request, or each line of standard input as it comes."""
    lines = iter(sys.stdin.readline, "") if request == "-" else (request,)
    for line in lines:
        answer = send(socket, line)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m meshwake.clocks.movers.node_helper", description="clocks of one node"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="the helper itself; until SIGTERM")
    serve.add_argument(
        "--state", type=Path, required=True, help="file that outlives the helper, on the node"
    )
    serve.add_argument(
        "--node-root", type=Path, default=NODE_ROOT, help="where the node's own files are found"
    )
    request = commands.add_parser("send", help="one request")
    request.add_argument("request", help="JSON, or - for each line of standard input, to its end")
    for command in (serve, request):
        command.add_argument("--socket", type=Path, required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
