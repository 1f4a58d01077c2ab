"""See README.md. Event waits are epoll in a loop around the monotonic clock, as asyncio does it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time


def say(word: str) -> None:
    """One line, whole."""
    boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    os.write(1, f"{word} {time.time_ns()} {time.monotonic_ns()} {boottime_ns}\n".encode())


def wait(kind: str, lasts_s: float) -> None:
    """For so long."""
    os.write(1, b"waiting\n")
    if kind == "sleep":
        time.sleep(lasts_s)
    else:
        poller, due = select.epoll(), time.monotonic() + lasts_s
        while (left_s := due - time.monotonic()) > 0:
            poller.poll(left_s)
    os.write(1, b"waited\n")


def fork() -> None:
    """A child that says what it sees."""
    pid = os.fork()
    if pid == 0:
        say("child")
        os._exit(0)
    os.waitpid(pid, 0)


def main() -> None:
    """Until standard input ends."""
    if len(sys.argv) > 1:
        say("child")
        return
    say("ready")
    while line := sys.stdin.readline():
        word, *rest = line.split()
        if word == "clocks":
            say("clocks")
        elif word == "wait":
            wait(rest[0], int(rest[1]) / 1000)
        elif word == "fork":
            fork()
        else:
            subprocess.run([sys.executable, "-S", __file__, "once"], check=True)


if __name__ == "__main__":
    main()
