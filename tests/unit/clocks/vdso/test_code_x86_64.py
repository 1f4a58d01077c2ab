"""The code that answers for a process's clocks, executed here, in our own process."""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.clocks.vdso.code_x86_64 import (
    CODE_OFFSET,
    TABLE_IDS,
    ClockCode,
    Mode,
    assemble_x86_64,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the code is for x86-64 Linux"
)
NS_PER_S = 10**9


class Page:
    """The code on an executable page of our own."""

    def __init__(self, mode: Mode) -> None:
        self.code: ClockCode = assemble_x86_64(mode)
        self.memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self.memory[CODE_OFFSET : CODE_OFFSET + len(self.code.code)] = self.code.code
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def put(self, clock_id: int, value_ns: int) -> None:
        struct.pack_into("<q", self.memory, 8 * clock_id, value_ns)

    def function(self, offset: int, *argument_types: Any) -> Callable[..., int]:
        return ctypes.CFUNCTYPE(ctypes.c_long, *argument_types)(self.base + offset)

    def clock_gettime(self, clock_id: int) -> tuple[int, int]:
        timespec = (ctypes.c_longlong * 2)(-1, -1)
        call = self.function(self.code.clock_gettime_offset, ctypes.c_int, ctypes.c_void_p)
        status = call(clock_id, ctypes.addressof(timespec)) & 0xFFFFFFFF
        return status, timespec[0] * NS_PER_S + timespec[1]


FIXED, OFFSET = Page("fixed"), Page("offset")


@given(st.sampled_from(TABLE_IDS), st.integers(0, 2**62))
def test_fixed_time_is_the_table_to_the_nanosecond(clock_id: int, value_ns: int) -> None:
    """In fixed mode every clock of the table shows exactly what was put there."""
    FIXED.put(clock_id, value_ns)
    assert FIXED.clock_gettime(clock_id) == (0, value_ns)


@pytest.mark.parametrize("clock_id", [2, 3, -6])
def test_cpu_clocks_stay_the_kernels(clock_id: int) -> None:
    """Clocks of CPU time are not in the table and go on by themselves, dynamic ones (negative ids)
    too."""
    status, first_ns = FIXED.clock_gettime(clock_id)
    sum(range(20_000))
    assert status == 0
    assert FIXED.clock_gettime(clock_id)[1] > first_ns


@pytest.mark.parametrize("page", [FIXED, OFFSET], ids=["fixed", "offset"])
def test_an_unknown_clock_is_refused_as_the_kernel_refuses_it(page: Page) -> None:
    """A clock id that does not exist gives EINVAL."""
    assert page.clock_gettime(10)[0] == 2**32 - 22
    assert page.clock_gettime(4711)[0] == 2**32 - 22


@pytest.mark.parametrize("clock_id", [time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, 7])
def test_offset_is_added_to_the_kernels_time(clock_id: int) -> None:
    """In offset mode a clock runs, ahead of the kernel's by the table's entry."""
    offset_ns = 17 * 3600 * NS_PER_S + 999_999_999
    OFFSET.put(clock_id, offset_ns)
    before_ns = time.clock_gettime_ns(clock_id)
    status, shown_ns = OFFSET.clock_gettime(clock_id)
    assert status == 0
    assert before_ns <= shown_ns - offset_ns <= time.clock_gettime_ns(clock_id)


def test_negative_offset_goes_back() -> None:
    """A backward step is an offset below nothing."""
    OFFSET.put(time.CLOCK_REALTIME, -13 * 3600 * NS_PER_S)
    _, shown_ns = OFFSET.clock_gettime(time.CLOCK_REALTIME)
    assert 0 <= time.time_ns() - 13 * 3600 * NS_PER_S - shown_ns < 60 * NS_PER_S


@given(st.integers(0, 2**62))
def test_gettimeofday_and_time_agree(wall_ns: int) -> None:
    """gettimeofday shows the wall clock in whole microseconds, time in whole seconds, to the caller
    and in memory."""
    FIXED.put(time.CLOCK_REALTIME, wall_ns)
    timeval, zone = (ctypes.c_longlong * 2)(-1, -1), (ctypes.c_int * 2)(-1, -1)
    gettimeofday = FIXED.function(FIXED.code.gettimeofday_offset, ctypes.c_void_p, ctypes.c_void_p)
    assert gettimeofday(ctypes.addressof(timeval), ctypes.addressof(zone)) & 0xFFFFFFFF == 0
    assert (timeval[0], timeval[1]) == (wall_ns // NS_PER_S, wall_ns % NS_PER_S // 1000)
    assert list(zone) == [0, 0]
    stored = ctypes.c_long(-1)
    time_function = FIXED.function(FIXED.code.time_offset, ctypes.c_void_p)
    assert (
        time_function(ctypes.addressof(stored))
        == stored.value
        == time_function(None)
        == wall_ns // NS_PER_S
    )


def test_gettimeofday_takes_null() -> None:
    """Both arguments of gettimeofday may be null."""
    gettimeofday = FIXED.function(FIXED.code.gettimeofday_offset, ctypes.c_void_p, ctypes.c_void_p)
    assert gettimeofday(None, None) & 0xFFFFFFFF == 0
