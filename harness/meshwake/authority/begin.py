"""Starts an authority early: it loads its libraries, and waits for its settings (server.spawn).

Half of what a short run takes is Python loading libraries. A lab that will need an authority starts
it at once and loads its own libraries meanwhile. This module itself loads next to nothing.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

LOG = "authority.log"


class Begun(NamedTuple):
    """It ends when its starter dies, or when `control` is closed before it received anything."""

    process: subprocess.Popen[bytes]
    control: socket.socket


def begin(directory: Path) -> Begun:
    """Starts it in the network namespace of the calling thread, with its log in `directory`."""
    # A pair, and not a named socket: when either end is gone, the other reads its end.
    ours, theirs = socket.socketpair()
    with theirs, (directory / LOG).open("wb") as log:
        # The directory is there for readers of a list of processes.
        command = [
            sys.executable,
            "-m",
            "meshwake.authority.server",
            str(os.getpid()),
            str(theirs.fileno()),
        ]
        process = subprocess.Popen(
            [*command, str(directory)],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return Begun(process, ours)
