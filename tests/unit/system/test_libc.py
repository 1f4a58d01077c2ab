"""Numbers of system calls agree with the kernel's own headers; calls raise what Python's own
raise."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from meshwake.system import libc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a libc of Linux is meant")

# The headers of this machine's libc (Debian: linux-libc-dev), by machine.
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
# In the generic header a call that differs for 32 bits is __NR3264_mmap, for example.
DEFINED = re.compile(r"^#define __NR(?:3264)?_(\w+) (\d+)", re.MULTILINE)


@pytest.mark.parametrize("machine", sorted(HEADERS))
def test_numbers_are_those_of_the_kernels_header(machine: str) -> None:
    """A wrong number is not an error: it is another system call."""
    header = HEADERS[machine]
    if not header.exists():
        pytest.skip(f"{header} is not installed (linux-libc-dev)")
    text = header.read_text()
    in_header = {name: int(number) for name, number in DEFINED.findall(text)}
    ours = {name: libc.system_call_number(name, machine) for name in libc._NUMBERS}
    assert ours == {name: in_header.get(name) for name in ours}


def test_an_unknown_machine_counts_as_x86_64() -> None:
    assert libc.system_call_number("tgkill", "riscv64") == libc.system_call_number(
        "tgkill", "x86_64"
    )


def test_calls_that_a_machine_does_not_have_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """ARM64 has no poll: a thread in its call number None would be a thread in any call."""
    monkeypatch.setattr(libc, "system_call_number", lambda name: {"poll": None, "ppoll": 73}[name])
    assert libc.system_call_numbers("poll", "ppoll") == {73: "ppoll"}


def test_a_failed_call_raises_with_its_name_and_reason() -> None:
    with open(os.devnull) as no_namespace, pytest.raises(OSError, match="setns: Invalid argument"):  # noqa: PTH123
        libc.setns(no_namespace.fileno(), libc.CLONE_NEWNET)
    with pytest.raises(ProcessLookupError, match="tgkill"):
        libc.signal_thread(os.getpid(), 2**22 + 1, signal.SIGTERM)


def test_a_signal_reaches_one_thread() -> None:
    """Python's handler runs in the main thread, so it is sent to that one."""
    came = threading.Event()
    before = signal.signal(signal.SIGUSR1, lambda number, frame: came.set())
    try:
        libc.signal_thread(os.getpid(), threading.main_thread().native_id or 0, signal.SIGUSR1)
        assert came.wait(5)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_file_of_another_process_is_the_same_open_file() -> None:
    """Here of this very process: what is written to the one is read from the other."""
    reader, writer = os.pipe()
    process = os.pidfd_open(os.getpid())
    duplicate = libc.duplicate_file_of(process, writer)
    try:
        os.write(duplicate, b"received")
        assert os.read(reader, 16) == b"received"
    finally:
        for file in (reader, writer, process, duplicate):
            os.close(file)


def test_a_timer_at_a_time_that_has_passed_ends_at_once() -> None:
    """Both arguments arrive: with the flag lost it would wait for as long as the machine runs."""
    timer = libc.timerfd_create(time.CLOCK_MONOTONIC)
    try:
        libc.timerfd_settime(timer, libc.TFD_TIMER_ABSTIME, 1)
        assert select.select([timer], [], [], 5)[0] == [timer]
        libc.timerfd_settime(timer, 0, 3600)
        assert select.select([timer], [], [], 0)[0] == []
    finally:
        os.close(timer)
