"""What waiting threads of real programs wait for, and when they wake."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
NS_PER_S = 10**9
PROCESSORS = os.sched_getaffinity(0) if sys.platform == "linux" else set()
TIMES_WOKEN = 200
WITHIN_S = 20.0
# Two threads: one waits in epoll with a timeout, the other for ever on a lock.
WAITS = """
import select, threading
lock = threading.Lock()
lock.acquire()
threading.Thread(target=lock.acquire, daemon=True).start()
poller = select.epoll()
print("waits", flush=True)
poller.poll({timeout})
print("woke", flush=True)
poller.poll()
"""
# Waits on another processor than the one that it is woken from.
WAITS_ELSEWHERE = """
import os, select
os.sched_setaffinity(0, {{{processor}}})
poller = select.epoll()
poller.register({file}, select.EPOLLIN | select.EPOLLET)
print("waits", flush=True)
while True:
    poller.poll()
"""
SPINS = "print('spins', flush=True)\nwhile True: pass\n"


@contextmanager
def running(program: str, pass_fds: tuple[int, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=pass_fds,
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child
        finally:
            child.kill()


def await_asleep(process: Any, monotonic_now_ns: int) -> None:
    give_up = time.monotonic() + WITHIN_S
    while not (process.asleep(monotonic_now_ns) and process.still_asleep()):
        assert time.monotonic() < give_up, f"{process.name} is not asleep within {WITHIN_S} s"
        time.sleep(0.002)


@pytest.mark.parametrize(("timeout", "due_ns"), [("3600", 3607 * NS_PER_S), ("-1", None)])
def test_the_deadline_is_the_timeout_counted_from_virtual_time(
    timeout: str, due_ns: int | None
) -> None:
    from meshwake.clocks.quiescence.threads import WatchedProcess

    with running(WAITS.format(timeout=timeout)) as child:
        process = WatchedProcess(child.pid, "waiter")
        await_asleep(process, 7 * NS_PER_S)
        assert process.due_monotonic_ns() == due_ns
        assert process.known_asleep()
        process.close()


def test_a_thread_whose_deadline_has_come_is_woken() -> None:
    """Its epoll_wait ends by signals, with EINTR; Python then waits for what is left in real time,
    so what shows it is the CPU time that was used."""
    from meshwake.clocks.quiescence.threads import WatchedProcess

    with running(WAITS.format(timeout="3600")) as child:
        process = WatchedProcess(child.pid, "waiter")
        await_asleep(process, 0)
        process.wake(3599 * NS_PER_S)
        await_asleep(process, 0)
        slept = process._cpu_ns()
        process.wake(3600 * NS_PER_S)
        assert not process.known_asleep()
        give_up = time.monotonic() + WITHIN_S
        while process._cpu_ns() == slept:
            assert time.monotonic() < give_up, "the thread has not run"
            time.sleep(0.002)
        process.close()


def test_a_program_that_works_is_not_asleep() -> None:
    from meshwake.clocks.quiescence.threads import WatchedProcess

    with running(SPINS) as child:
        process = WatchedProcess(child.pid, "spinner")
        assert not any(process.asleep(0) and process.still_asleep() for _ in range(20))
        process.close()


@pytest.mark.skipif(len(PROCESSORS) < 2, reason="needs two processors")
def test_a_thread_that_was_woken_and_has_not_run_is_not_asleep() -> None:
    """While a wake-up is on its way to another processor, the kernel still shows the thread in its
    system call. A guest of a busy machine was leapt over 752 s because of that; 15 polls of a
    hundred were wrong."""
    from meshwake.clocks.quiescence.threads import WatchedProcess

    here, there = sorted(PROCESSORS)[:2]
    file = os.eventfd(0)
    os.sched_setaffinity(0, {here})
    try:
        with running(WAITS_ELSEWHERE.format(processor=there, file=file), (file,)) as child:
            process = WatchedProcess(child.pid, "waiter")
            wrong = sum(_is_asleep_though_woken(process, file) for _ in range(TIMES_WOKEN))
            process.close()
    finally:
        os.sched_setaffinity(0, PROCESSORS)
        os.close(file)
    assert wrong == 0


def _is_asleep_though_woken(process: Any, file: int) -> bool:
    """Wakes it, and polls it at once."""
    await_asleep(process, 0)
    slept_cpu_ns = process._cpu_ns()
    os.eventfd_write(file, 1)
    found_asleep = process.asleep(0) and process.still_asleep()
    has_run = process._cpu_ns() != slept_cpu_ns
    return bool(found_asleep and not has_run)


def test_a_process_that_ended_by_itself_is_named_with_its_end() -> None:
    from meshwake.clocks.quiescence.threads import describe_end

    assert describe_end(9) == "killed by SIGKILL"
    assert describe_end(3 << 8) == "exit code 3"
