"""The code for ARM64, executed in an emulator on any machine."""

from __future__ import annotations

import struct
from functools import cache
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.clocks.vdso.code_arm64 import SYS_CLOCK_GETTIME, assemble_arm64, jump_to
from meshwake.clocks.vdso.code_x86_64 import (
    CODE_OFFSET,
    IN_FORCE_OFFSET,
    TABLE_BYTES,
    TABLE_IDS,
    ClockCode,
    Mode,
)

# Its types are not written down.
unicorn: Any = import_module("unicorn")
arm64: Any = import_module("unicorn.arm64_const")
PAGE, VDSO, STACK, DATA = 0x7F00_0000_0000, 0x7FF0_0000_0000, 0x5000_0000, 0x6000_0000
RETURNS_TO = VDSO + 0x800
NS_PER_S = 10**9
SOFTWARE_INTERRUPT = 2
EINVAL = 2**64 - 22
CALLEE_SAVED = [getattr(arm64, f"UC_ARM64_REG_X{number}") for number in range(19, 30)]
ARGUMENTS = [arm64.UC_ARM64_REG_X0, arm64.UC_ARM64_REG_X1]


class Machine:
    """An ARM64 processor with the page, a vDSO whose functions jump there, and a kernel that knows
    the time."""

    def __init__(self, mode: Mode) -> None:
        self.code: ClockCode = assemble_arm64(mode)
        self.kernel_ns, self.calls = 0, 0
        self.cpu = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        for address in (PAGE, VDSO, STACK, DATA):
            self.cpu.mem_map(address, 0x1000)
        self.cpu.mem_write(PAGE + CODE_OFFSET, self.code.code)
        self.cpu.mem_write(VDSO, jump_to(PAGE + self.code.clock_gettime_offset))
        self.cpu.mem_write(VDSO + 0x400, jump_to(PAGE + self.code.gettimeofday_offset))
        self.cpu.hook_add(unicorn.UC_HOOK_INTR, self._system_call)

    def put(self, clock_id: int, value_ns: int, table: int = 0) -> None:
        self.cpu.mem_write(PAGE + table + 8 * clock_id, struct.pack("<q", value_ns))

    def call(self, address: int, *arguments: int) -> int:
        """x0 after the call; callee-saved registers and the stack are as they were."""
        saved = [0x1000 + number for number in range(len(CALLEE_SAVED))]
        for register, value in zip(CALLEE_SAVED, saved, strict=True):
            self.cpu.reg_write(register, value)
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            self.cpu.reg_write(register, value & (2**64 - 1))
        self.cpu.reg_write(arm64.UC_ARM64_REG_SP, STACK + 0x1000)
        self.cpu.reg_write(arm64.UC_ARM64_REG_LR, RETURNS_TO)
        self.cpu.emu_start(address, RETURNS_TO, count=200)
        assert self.cpu.reg_read(arm64.UC_ARM64_REG_PC) == RETURNS_TO
        assert [self.cpu.reg_read(register) for register in CALLEE_SAVED] == saved
        assert self.cpu.reg_read(arm64.UC_ARM64_REG_SP) == STACK + 0x1000
        return int(self.cpu.reg_read(arm64.UC_ARM64_REG_X0))

    def clock_gettime(self, clock_id: int) -> tuple[int, int]:
        """Status, and what is in the timespec, in nanoseconds."""
        self.cpu.mem_write(DATA, struct.pack("<qq", -1, -1))
        status = self.call(VDSO, clock_id, DATA)
        seconds, nanoseconds = struct.unpack("<qq", self.cpu.mem_read(DATA, 16))
        return status, seconds * NS_PER_S + nanoseconds

    def _system_call(self, cpu: Any, number: int, _: object) -> None:
        assert number == SOFTWARE_INTERRUPT
        assert cpu.reg_read(arm64.UC_ARM64_REG_X8) == SYS_CLOCK_GETTIME
        self.calls += 1
        if cpu.reg_read(arm64.UC_ARM64_REG_W0) == 4711:
            cpu.reg_write(arm64.UC_ARM64_REG_X0, EINVAL)
            return
        timeval = struct.pack("<qq", *divmod(self.kernel_ns, NS_PER_S))
        cpu.mem_write(cpu.reg_read(arm64.UC_ARM64_REG_X1), timeval)
        cpu.reg_write(arm64.UC_ARM64_REG_X0, 0)


@cache
def machine(mode: Mode) -> Machine:
    return Machine(mode)


@given(st.sampled_from(TABLE_IDS), st.integers(0, 2**62))
def test_fixed_time_is_the_table_to_the_nanosecond(clock_id: int, value_ns: int) -> None:
    """Through the jump in the vDSO, with no system call."""
    fixed = machine("fixed")
    fixed.put(clock_id, value_ns)
    before = fixed.calls
    assert fixed.clock_gettime(clock_id) == (0, value_ns)
    assert fixed.calls == before


@pytest.mark.parametrize("clock_id", [2, 3, 10, 12, 4096, -6])
def test_other_clocks_are_read_from_the_kernel(clock_id: int) -> None:
    """Those of CPU time, and unknown ids."""
    fixed = machine("fixed")
    fixed.kernel_ns = 123_456_789_012
    before = fixed.calls
    assert fixed.clock_gettime(clock_id) == (0, 123_456_789_012)
    assert fixed.calls == before + 1


@given(
    st.sampled_from(TABLE_IDS),
    st.integers(2**61, 2**62),
    st.integers(-(2**60), 2**60),
    st.sampled_from([0, TABLE_BYTES]),
)
def test_an_offset_is_added_to_the_kernels_time(
    clock_id: int, kernel_ns: int, offset_ns: int, table: int
) -> None:
    """Of the table in force, whichever it is; forward and back."""
    running = machine("offset")
    running.kernel_ns = kernel_ns
    running.put(clock_id, offset_ns, table)
    running.put(clock_id, 77, TABLE_BYTES - table)
    running.cpu.mem_write(PAGE + IN_FORCE_OFFSET, struct.pack("<Q", table))
    assert running.clock_gettime(clock_id) == (0, kernel_ns + offset_ns)


@pytest.mark.parametrize("mode", ["fixed", "offset"])
def test_an_unknown_clock_is_refused_as_the_kernel_refuses_it(mode: Mode) -> None:
    """Its status is the caller's, and nothing is written."""
    assert machine(mode).clock_gettime(4711) == (EINVAL, -NS_PER_S - 1)


@given(st.integers(0, 2**62))
def test_gettimeofday_returns_whole_microseconds(wall_ns: int) -> None:
    """To the caller's timeval, with a zone of nothing; either may be null."""
    fixed = machine("fixed")
    fixed.put(0, wall_ns)
    fixed.cpu.mem_write(DATA, b"\xff" * 32)
    assert fixed.call(VDSO + 0x400, DATA, DATA + 16) == 0
    seconds, microseconds, zone = struct.unpack("<qqq", fixed.cpu.mem_read(DATA, 24))
    assert (seconds, microseconds, zone) == (wall_ns // NS_PER_S, wall_ns % NS_PER_S // 1000, 0)
    assert fixed.call(VDSO + 0x400, 0, 0) == 0


def test_the_jump_keeps_the_landing_pad_and_reaches_everywhere() -> None:
    """BTI C first, whatever the distance."""
    jump = jump_to(0x0000_7FFF_1234_5678)
    assert jump[:4] == bytes.fromhex("5f2403d5")
    assert struct.unpack("<Q", jump[12:])[0] == 0x0000_7FFF_1234_5678
    assert len(jump) == 20
