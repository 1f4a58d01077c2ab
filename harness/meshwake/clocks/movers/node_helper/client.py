"""One request to the helper, through its socket."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from meshwake.core.errors import LabUnavailable

# Longer than any request may take: a sleep answers at once, a take attaches every program in turn.
_ANSWER_WITHIN_S = 120.0
_PIECE_BYTES = 65536


def send(path: Path, line: str) -> dict[str, Any]:
    """Sends one request to the helper behind the socket at `path`; its whole answer. Raises
    LabUnavailable when there is none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        try:
            connection.connect(str(path))
            connection.sendall(line.strip().encode() + b"\n")
            answer = _read_line(connection)
        except OSError as error:
            raise LabUnavailable(
                f"no helper answers at {path} ({error}); is its container running?"
            ) from error
    if not answer:
        raise LabUnavailable(f"the helper at {path} ended during the request; see its log")
    parsed: dict[str, Any] = json.loads(answer)
    return parsed


def _read_line(connection: socket.socket) -> bytes:
    """Up to the end of the line, or to where the helper has closed the connection."""
    answer = b""
    while not answer.endswith(b"\n"):
        piece = connection.recv(_PIECE_BYTES)
        if not piece:
            break
        answer += piece
    return answer
