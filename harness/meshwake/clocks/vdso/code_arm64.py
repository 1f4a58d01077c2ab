"""The machine code of code_x86_64.py for ARM64 (aarch64): the same page, the same two modes.

What is other than on x86-64:

    the vDSO's names   __kernel_clock_gettime, __kernel_gettimeofday; there is no time(): C libraries ask the others
    the jump           a branch reaches 128 MiB only, so the address stands behind it and is loaded; the landing pad for
                       indirect calls (BTI) stays first, or a kernel that guards its vDSO would stop the caller there
    a call of ours     returns to a BRK instruction

Calling convention (AAPCS64): arguments and result in x0, x1; x0 to x17 may be changed; the system
call number is in x8. The code is run in an emulator by its test; the whole of it, with ptrace and a
real vDSO, in a guest (docs/arm64.md).
"""

from __future__ import annotations

import struct

from meshwake.clocks.vdso.code_x86_64 import (
    CODE_OFFSET,
    IN_FORCE_OFFSET,
    TABLE_IDS,
    ClockCode,
    Mode,
)

SYS_CLOCK_GETTIME = 113
_NS_PER_S, _NS_PER_US = 1_000_000_000, 1_000
_MASK = sum(1 << clock_id for clock_id in TABLE_IDS)
_ALWAYS_HIGHER = 8  # condition HI, unsigned
_SP = 31


def jump_to(address: int) -> bytes:
    """What stands at the beginning of a function of the vDSO to send it to `address`."""
    return struct.pack("<III", 0xD503245F, _ldr_literal(16, 8), _br(16)) + struct.pack(
        "<Q", address
    )


def assemble_arm64(mode: Mode) -> ClockCode:
    """The code for ARM64; `mode` as in code_x86_64.py. `time_offset` is that of a trap: nobody
    calls it."""
    asm = _Assembler()
    clock_gettime = asm.label("clock_gettime")
    _fixed_clock_gettime(asm) if mode == "fixed" else _offset_clock_gettime(asm)
    gettimeofday = asm.label("gettimeofday")
    _gettimeofday(asm)
    trap = asm.label("trap")
    asm.emit(0xD4200000)  # brk #0
    return ClockCode(asm.finish(), clock_gettime, gettimeofday, trap, trap)


class _Assembler:
    """Words with labels; a branch to a label is filled in at the end."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._labels: dict[str, int] = {}
        self._branches: list[tuple[int, str, int, int]] = []

    @property
    def here(self) -> int:
        """Where in the page the next instruction stands."""
        return CODE_OFFSET + 4 * len(self._words)

    def emit(self, *words: int) -> None:
        self._words += words

    def label(self, name: str) -> int:
        self._labels[name] = self.here
        return self.here

    def branch(self, word: int, label: str, bits: int, shift: int) -> None:
        """`word` with the distance to `label`, in instructions, as a field of `bits` at `shift`."""
        self._branches.append((len(self._words), label, bits, shift))
        self._words.append(word)

    def table(self, register: int) -> None:
        """adr register, the page."""
        distance = -self.here
        self.emit(0x10000000 | (distance & 3) << 29 | ((distance >> 2) & 0x7FFFF) << 5 | register)

    def finish(self) -> bytes:
        for place, label, bits, shift in self._branches:
            distance = (self._labels[label] - (CODE_OFFSET + 4 * place)) // 4
            self._words[place] |= (distance & ((1 << bits) - 1)) << shift
        return struct.pack(f"<{len(self._words)}I", *self._words)


def _fixed_clock_gettime(asm: _Assembler) -> None:
    """w0: clock id, x1: timespec. Clocks that are not in the table are asked of the kernel."""
    asm.emit(_cmp_w(0, 11))  # negative ids too: the compare is unsigned
    asm.branch(0x54000000 | _ALWAYS_HIGHER, "kernel", 19, 5)  # b.hi kernel
    asm.emit(_movz(2, _MASK), _lsr_w(2, 2, 0))
    asm.branch(0x36000000 | 2, "kernel", 14, 5)  # tbz w2, #0, kernel
    asm.table(3)
    asm.emit(_ldr_indexed(2, 3, 0))
    _split_and_store(asm)
    asm.label("kernel")
    asm.emit(_movz(8, SYS_CLOCK_GETTIME), 0xD4000001, 0xD65F03C0)  # svc #0; ret


def _offset_clock_gettime(asm: _Assembler) -> None:
    """As above; the kernel's time plus the entry of the table in force."""
    asm.emit(0x2A0003E9)  # mov w9, w0
    asm.emit(_movz(8, SYS_CLOCK_GETTIME), 0xD4000001)  # svc #0     keeps all but x0
    asm.branch(0x35000000, "done", 19, 5)  # cbnz w0, done
    asm.emit(_cmp_w(9, 11))
    asm.branch(0x54000000 | _ALWAYS_HIGHER, "done", 19, 5)
    asm.table(3)
    asm.emit(_ldr(10, 3, IN_FORCE_OFFSET), _add(3, 3, 10), _ldr_indexed(10, 3, 9))
    asm.emit(_ldp(5, 6, 1, 0), *_load_ns_per_s(4), _madd(2, 5, 4, 6), _add(2, 2, 10))
    _split_and_store(asm)
    asm.label("done")
    asm.emit(0xD65F03C0)  # ret


def _split_and_store(asm: _Assembler) -> None:
    """x2 nanoseconds -> the timespec at x1; returns 0."""
    asm.emit(*_load_ns_per_s(4), _udiv(5, 2, 4), _msub(6, 5, 4, 2), _stp(5, 6, 1, 0))
    asm.emit(_movz(0, 0), 0xD65F03C0)


def _gettimeofday(asm: _Assembler) -> None:
    """x0: timeval or null, x1: timezone or null."""
    asm.branch(0xB4000000, "zone", 19, 5)  # cbz x0, zone
    asm.emit(0xA9BC7BFD)  # stp x29, x30, [sp, #-64]!
    asm.emit(_stp(0, 1, _SP, 16), _movz(0, 0), 0x910083E1)  # CLOCK_REALTIME; add x1, sp, #32
    asm.branch(0x94000000, "clock_gettime", 26, 0)  # bl
    asm.emit(
        _ldp(0, 1, _SP, 16),
        _ldp(5, 6, _SP, 32),
        _movz(4, _NS_PER_US),
        _udiv(6, 6, 4),
        _stp(5, 6, 0, 0),
    )
    asm.emit(0xA8C47BFD)  # ldp x29, x30, [sp], #64
    asm.label("zone")
    asm.branch(0xB4000000 | 1, "out", 19, 5)  # cbz x1, out
    asm.emit(0xF900003F)  # str xzr, [x1]     Greenwich, no summer time
    asm.label("out")
    asm.emit(_movz(0, 0), 0xD65F03C0)


# One function for each kind of instruction: numbers of registers in, the word out.


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | value << 5 | register


def _load_ns_per_s(register: int) -> tuple[int, int]:
    """movz, movk: a number of 30 bits."""
    return _movz(register, _NS_PER_S & 0xFFFF), 0xF2A00000 | (_NS_PER_S >> 16) << 5 | register


def _cmp_w(register: int, value: int) -> int:
    return 0x7100001F | value << 10 | register << 5


def _lsr_w(to: int, of: int, by: int) -> int:
    return 0x1AC02400 | by << 16 | of << 5 | to


def _add(to: int, one: int, two: int) -> int:
    return 0x8B000000 | two << 16 | one << 5 | to


def _udiv(to: int, dividend: int, divisor: int) -> int:
    return 0x9AC00800 | divisor << 16 | dividend << 5 | to


def _madd(to: int, one: int, two: int, plus: int) -> int:
    return 0x9B000000 | two << 16 | plus << 10 | one << 5 | to


def _msub(to: int, one: int, two: int, of: int) -> int:
    return 0x9B008000 | two << 16 | of << 10 | one << 5 | to


def _ldr(to: int, base: int, offset: int) -> int:
    return 0xF9400000 | (offset // 8) << 10 | base << 5 | to


def _ldr_indexed(to: int, base: int, index: int) -> int:
    """ldr to, [base, w(index), uxtw #3]"""
    return 0xF8605800 | index << 16 | base << 5 | to


def _ldr_literal(to: int, distance: int) -> int:
    return 0x58000000 | (distance // 4) << 5 | to


def _br(to: int) -> int:
    return 0xD61F0000 | to << 5


def _stp(one: int, two: int, base: int, offset: int) -> int:
    return 0xA9000000 | (offset // 8) << 15 | two << 10 | base << 5 | one


def _ldp(one: int, two: int, base: int, offset: int) -> int:
    return 0xA9400000 | (offset // 8) << 15 | two << 10 | base << 5 | one
