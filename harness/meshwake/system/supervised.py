"""Supervises a program that the harness starts: when the harness has ended, so has the program.

Started as `python supervised.py PROGRAM ARGUMENT...` at the head of a session of its own, with a
pipe from the harness as standard input that nothing is ever written to. The end of that pipe means
that the harness has ended, however it ended (kill -9 closes pipes too), or that it closed the pipe:
the whole process group then gets SIGTERM, and SIGKILL 5 s later. The exit code is the program's,
128 + N when signal N ended it. It imports nothing of the harness, and starts at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

END_IN_ORDER_WITHIN_S = 5


def start_guarded(
    command: Sequence[str],
    *,
    out: IO[bytes],
    error: IO[bytes],
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Starts `command` under a supervisor, which is what is returned; end it with `release`. Where
    the program cannot be started, the supervisor writes why to `error` and ends with 127."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, *command],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=error,
        env=environment,
        start_new_session=True,
    )


def release(guardian: subprocess.Popen[bytes]) -> None:
    """Sends SIGTERM to its program, then SIGKILL after 5 s; waits for both processes."""
    assert guardian.stdin is not None
    guardian.stdin.close()
    try:
        guardian.wait(END_IN_ORDER_WITHIN_S + 5)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(guardian.pid, signal.SIGKILL)
        guardian.wait()


def main() -> None:
    """Runs the program named by the arguments, and ends with it."""
    # A handler, not SIG_IGN: the program would inherit that.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{sys.argv[1]}: {error.strerror}\n")
        sys.exit(127)
    threading.Thread(target=_end_with_starter, args=(program,), daemon=True).start()
    code = program.wait()
    os._exit(code if code >= 0 else 128 - code)


def _end_with_starter(program: subprocess.Popen[bytes]) -> None:
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGTERM)
    try:
        program.wait(END_IN_ORDER_WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
