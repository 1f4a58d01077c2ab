"""What is read of processes, on real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from meshwake.clocks.movers.node_helper.processes import (
    age_s,
    count_streams,
    describe,
    executable_of,
    other_processes,
    send_signal,
)
from meshwake.clocks.movers.node_helper.rules import Rule, first_rule
from meshwake.system.process_stat import is_running, started_ticks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
WITHIN_S = 20.0
# A name with a bracket and a space in it, as a program may give itself.
WAITS = """
import pathlib
pathlib.Path("/proc/self/comm").write_text("a) Z 1")
print("waits", flush=True)
input()
"""


@contextmanager
def waiting() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == "waits\n"
            yield child
        finally:
            child.kill()


def await_true(what: str, there: Callable[[], bool]) -> None:
    give_up = time.monotonic() + WITHIN_S
    while not there():
        assert time.monotonic() < give_up, f"{what}: not within {WITHIN_S} s"
        time.sleep(0.002)


def test_a_process_is_named_by_pid_and_start() -> None:
    """Also one whose name looks like the rest of its line."""
    with waiting() as child:
        ticks = started_ticks(child.pid)
        assert ticks is not None and 0 <= age_s(ticks) < WITHIN_S
        assert is_running(child.pid)
        assert (
            executable_of(child.pid)
            == describe(child.pid)["executable"]
            == os.path.realpath(sys.executable)
        )
    assert started_ticks(child.pid) is None and not is_running(child.pid)
    assert executable_of(child.pid) is None


def test_a_process_that_was_not_waited_for_has_ended() -> None:
    with waiting() as child:
        child.kill()
        await_true("the end", lambda: started_ticks(child.pid) is None)
        assert child.returncode is None  # its status is still there


def test_a_signal_does_not_reach_another_process_of_the_same_number() -> None:
    with waiting() as child:
        ticks = started_ticks(child.pid)
        assert ticks is not None
        send_signal(child.pid, ticks + 1, signal.SIGSTOP)
        assert is_running(child.pid)
        send_signal(child.pid, ticks, signal.SIGSTOP)
        await_true("the stop", lambda: not is_running(child.pid))


def test_our_children_are_not_programs_of_the_node() -> None:
    """Guardians of a sleep, children that attach."""
    with waiting() as child:
        found = other_processes()
        assert child.pid not in found and os.getpid() not in found and os.getppid() in found


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "127.0.0.1"), ("AF_INET6", "::1")])
def test_open_connections_to_a_port_are_counted(family: str, address: str) -> None:
    try:
        listener = socket.create_server((address, 0), family=getattr(socket, family))
    except OSError as error:
        pytest.skip(f"no loopback of {family}: {error}")
    with listener:
        port = listener.getsockname()[1]
        assert count_streams(os.getpid(), port) == 0
        with socket.create_connection(listener.getsockname()[:2]):
            assert count_streams(os.getpid(), port) == 1


def test_the_first_rule_that_fits_counts() -> None:
    path = os.path.realpath(sys.executable)
    name = path.rpartition("/")[2]
    assert Rule(path).fits(os.getpid()) and Rule(name).fits(os.getpid())
    assert not Rule(f"/other/{name}").fits(os.getpid())
    assert not Rule(name, cgroup="no such group").fits(os.getpid())
    rules = (Rule("ztunnel"), Rule(name, keeps_monotonic=True), Rule(path))
    assert first_rule(rules, os.getpid()) == rules[1]
    assert first_rule(rules[:1], os.getpid()) is None
