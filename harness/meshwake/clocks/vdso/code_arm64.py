"""The machine code of code_x86_64.py for ARM64 (aarch64): the same page, the same two modes.

What is other than on x86-64:

    the vDSO's names   __kernel_clock_gettime, __kernel_gettimeofday; there is no time(): C
                       libraries ask the others
    the jump           a branch reaches 128 MiB only, so the address is placed behind it and loaded;
                       the landing pad for indirect calls (BTI) stays first, or a kernel that guards
                       its vDSO would stop the caller there
    a call of ours     returns to a BRK instruction

Calling convention (AAPCS64): arguments and result in x0, x1; x0 to x17 may be changed; the system
call number is in x8. Encodings are those of the Arm Architecture Reference Manual, part C6: every
instruction is one word of 32 bits, with the numbers of its registers in fields of five. The code is
run in an emulator by its test; the whole of it, with ptrace and a real vDSO, in a guest
(docs/arm64.md).
"""

from __future__ import annotations

import struct

from meshwake.clocks.vdso.code_x86_64 import (
    CODE_OFFSET,
    IN_FORCE_OFFSET,
    LAST_TABLE_ID,
    TABLE_IDS,
    ClockCode,
    Mode,
)
from meshwake.system.libc import system_call_number

SYS_CLOCK_GETTIME = system_call_number("clock_gettime", "aarch64") or 0
_NS_PER_S, _NS_PER_US = 1_000_000_000, 1_000
# Bit N is set when clock id N is in the table. It fits the 16 bits of a movz.
_MASK = sum(1 << clock_id for clock_id in TABLE_IDS)

# --- Instructions without operands of ours --------------------------------------------------------

_SVC_0 = 0xD4000001  # svc #0: a system call; keeps every register but x0
SVC = struct.pack("<I", _SVC_0)
_BRK_0 = 0xD4200000  # brk #0: a breakpoint
_RET = 0xD65F03C0  # ret: to the address in x30
_BTI_C = 0xD503245F  # bti c: a landing pad for indirect calls; a no-op where there is no BTI
_MOV_W9_W0 = 0x2A0003E9  # mov w9, w0
_ADD_X1_SP_32 = 0x910083E1  # add x1, sp, #32
_STORE_ZERO_AT_X1 = 0xF900003F  # str xzr, [x1]
# A frame of 64 bytes: x29 and x30 at 0, our arguments at 16, a timespec at 32, which keeps the
# stack pointer a multiple of 16.
_PUSH_FRAME = 0xA9BC7BFD  # stp x29, x30, [sp, #-64]!
_POP_FRAME = 0xA8C47BFD  # ldp x29, x30, [sp], #64
_FRAME_ARGUMENTS, _FRAME_TIMESPEC = 16, 32

# --- Branches: the distance, in instructions, is filled in at the end -----------------------------

_B_COND = 0x54000000  # b.cond: condition in the lowest four bits
_HIGHER = 8  # condition HI: higher, unsigned
_CBZ_X = 0xB4000000  # cbz xN: if the whole register is zero
_CBNZ_W = 0x35000000  # cbnz wN: if its lower half is not zero
_TBZ_BIT_0 = 0x36000000  # tbz wN, #0: if its lowest bit is zero
_BL = 0x94000000  # bl: a call
# Width and place of the field with the distance (imm19, imm14, imm26 of the manual).
_DISTANCE_OF_COND = (19, 5)
_DISTANCE_OF_TBZ = (14, 5)
_DISTANCE_OF_BL = (26, 0)
_INSTRUCTION_BYTES = 4

_SP = 31  # as a base register; elsewhere 31 is the zero register


def jump_to(address: int) -> bytes:
    """What is placed at the beginning of a function of the vDSO to send it to `address`."""
    # ldr reads what is 8 bytes behind itself: the ldr, the br, and then the address.
    load_and_branch = struct.pack("<III", _BTI_C, _ldr_literal(16, 8), _br(16))
    return load_and_branch + struct.pack("<Q", address)


def assemble_arm64(mode: Mode) -> ClockCode:
    """The code for ARM64; `mode` as in code_x86_64.py. `time_offset` is that of a trap: it is never
    called."""
    asm = _Assembler()
    clock_gettime = asm.label("clock_gettime")
    if mode == "fixed":
        _fixed_clock_gettime(asm)
    else:
        _offset_clock_gettime(asm)
    gettimeofday = asm.label("gettimeofday")
    _gettimeofday(asm)
    trap = asm.label("trap")
    asm.emit(_BRK_0)  # calls that we inject return here
    return ClockCode(asm.finish(), clock_gettime, gettimeofday, trap, trap)


class _Assembler:
    """Words with labels; a branch to a label is filled in at the end."""

    def __init__(self) -> None:
        self._words: list[int] = []
        self._labels: dict[str, int] = {}
        self._branches: list[tuple[int, str, tuple[int, int]]] = []

    @property
    def here(self) -> int:
        """Where in the page the next instruction is."""
        return CODE_OFFSET + _INSTRUCTION_BYTES * len(self._words)

    def emit(self, *words: int) -> None:
        self._words += words

    def label(self, name: str) -> int:
        self._labels[name] = self.here
        return self.here

    def branch(self, word: int, label: str, field: tuple[int, int] = _DISTANCE_OF_COND) -> None:
        """`word` with the distance to `label`, in instructions, as a field of that width and
        place."""
        self._branches.append((len(self._words), label, field))
        self._words.append(word)

    def table(self, register: int) -> None:
        """adr register, the page."""
        # A signed distance in bytes: its two lowest bits in bits 29 and 30 (immlo), the other 19
        # from bit 5 on (immhi).
        distance = -self.here
        low, high = distance & 3, (distance >> 2) & 0x7FFFF
        self.emit(0x10000000 | low << 29 | high << 5 | register)

    def finish(self) -> bytes:
        for place, label, (bits, shift) in self._branches:
            here = CODE_OFFSET + _INSTRUCTION_BYTES * place
            distance = (self._labels[label] - here) // _INSTRUCTION_BYTES
            self._words[place] |= (distance & ((1 << bits) - 1)) << shift
        return struct.pack(f"<{len(self._words)}I", *self._words)


def _fixed_clock_gettime(asm: _Assembler) -> None:
    """w0: clock id, x1: timespec. Clocks that are not in the table are read from the kernel."""
    asm.emit(_cmp_w(0, LAST_TABLE_ID))  # negative ids too: the compare is unsigned
    asm.branch(_B_COND | _HIGHER, "kernel")
    asm.emit(_movz(2, _MASK), _lsr_w(2, 2, 0))  # bit w0 of the mask
    asm.branch(_TBZ_BIT_0 | 2, "kernel", _DISTANCE_OF_TBZ)
    asm.table(3)
    asm.emit(_ldr_indexed(2, 3, 0))  # x2: the entry of the table
    _split_and_store(asm)
    asm.label("kernel")
    asm.emit(_movz(8, SYS_CLOCK_GETTIME), _SVC_0, _RET)


def _offset_clock_gettime(asm: _Assembler) -> None:
    """As above; the kernel's time plus the entry of the table in force."""
    asm.emit(_MOV_W9_W0)  # w9: the clock id, because x0 becomes the result
    asm.emit(_movz(8, SYS_CLOCK_GETTIME), _SVC_0)
    asm.branch(_CBNZ_W, "done")  # w0: an error
    asm.emit(_cmp_w(9, LAST_TABLE_ID))
    asm.branch(_B_COND | _HIGHER, "done")
    asm.table(3)

    # x3: the table in force; x10: its entry (zero for a clock that is not moved)
    asm.emit(_ldr(10, 3, IN_FORCE_OFFSET), _add(3, 3, 10), _ldr_indexed(10, 3, 9))

    # into x2: the seconds in nanoseconds, the nanoseconds and the entry, summed up
    asm.emit(_ldp(5, 6, 1, 0), *_load_ns_per_s(4), _madd(2, 5, 4, 6), _add(2, 2, 10))
    _split_and_store(asm)
    asm.label("done")
    asm.emit(_RET)


def _split_and_store(asm: _Assembler) -> None:
    """x2 nanoseconds -> the timespec at x1; returns 0."""
    # x5: the quotient; x6: x2 - x5 * 10**9, the remainder, which udiv does not give
    asm.emit(*_load_ns_per_s(4), _udiv(5, 2, 4), _msub(6, 5, 4, 2))
    asm.emit(_stp(5, 6, 1, 0))
    asm.emit(_movz(0, 0), _RET)


def _gettimeofday(asm: _Assembler) -> None:
    """x0: timeval or null, x1: timezone or null."""
    asm.branch(_CBZ_X | 0, "zone")
    asm.emit(_PUSH_FRAME)
    asm.emit(_stp(0, 1, _SP, _FRAME_ARGUMENTS))
    asm.emit(_movz(0, 0), _ADD_X1_SP_32)  # CLOCK_REALTIME, and the timespec in the frame
    asm.branch(_BL, "clock_gettime", _DISTANCE_OF_BL)
    asm.emit(_ldp(0, 1, _SP, _FRAME_ARGUMENTS), _ldp(5, 6, _SP, _FRAME_TIMESPEC))
    asm.emit(_movz(4, _NS_PER_US), _udiv(6, 6, 4))  # microseconds
    asm.emit(_stp(5, 6, 0, 0))
    asm.emit(_POP_FRAME)
    asm.label("zone")
    asm.branch(_CBZ_X | 1, "out")
    asm.emit(_STORE_ZERO_AT_X1)  # Greenwich, no summer time
    asm.label("out")
    asm.emit(_movz(0, 0), _RET)


# --- Instructions: numbers of registers in, the word out ------------------------------------------

# Fields: the result is in bits 0 to 4 (Rd, Rt), the first operand from 5 (Rn), the second from 16
# (Rm), the third from 10 (Ra). Immediate values are where the manual has them.


def _movz(register: int, value: int) -> int:
    """movz register, #value: 16 bits, the rest becomes zero."""
    return 0xD2800000 | value << 5 | register


def _movk_upper(register: int, value: int) -> int:
    """movk register, #value, lsl #16: bits 16 to 31, the others are kept."""
    return 0xF2A00000 | value << 5 | register


def _load_ns_per_s(register: int) -> tuple[int, int]:
    """A number of 30 bits, in two halves."""
    return _movz(register, _NS_PER_S & 0xFFFF), _movk_upper(register, _NS_PER_S >> 16)


def _cmp_w(register: int, value: int) -> int:
    """cmp wN, #value: subs with the zero register as its result."""
    return 0x7100001F | value << 10 | register << 5


def _lsr_w(to: int, of: int, by: int) -> int:
    """lsr wT, wN, wM: shifted right by what is in the third."""
    return 0x1AC02400 | by << 16 | of << 5 | to


def _add(to: int, one: int, two: int) -> int:
    """add xT, xN, xM."""
    return 0x8B000000 | two << 16 | one << 5 | to


def _udiv(to: int, dividend: int, divisor: int) -> int:
    """udiv xT, xN, xM."""
    return 0x9AC00800 | divisor << 16 | dividend << 5 | to


def _madd(to: int, one: int, two: int, plus: int) -> int:
    """madd xT, xN, xM, xA: xN * xM + xA."""
    return 0x9B000000 | two << 16 | plus << 10 | one << 5 | to


def _msub(to: int, one: int, two: int, of: int) -> int:
    """msub xT, xN, xM, xA: xA - xN * xM."""
    return 0x9B008000 | two << 16 | of << 10 | one << 5 | to


def _ldr(to: int, base: int, offset: int) -> int:
    """ldr xT, [xN, #offset]: the offset is counted in words of 8 bytes."""
    return 0xF9400000 | (offset // 8) << 10 | base << 5 | to


def _ldr_indexed(to: int, base: int, index: int) -> int:
    """ldr xT, [xN, wM, uxtw #3]: the index, without sign, times 8."""
    return 0xF8605800 | index << 16 | base << 5 | to


def _ldr_literal(to: int, distance: int) -> int:
    """ldr xT, what is `distance` bytes from here: counted in words of 4 bytes."""
    return 0x58000000 | (distance // 4) << 5 | to


def _br(to: int) -> int:
    """br xN: to the address in it."""
    return 0xD61F0000 | to << 5


def _stp(one: int, two: int, base: int, offset: int) -> int:
    """stp xT, xU, [xN, #offset]: both at once; the offset is counted in words of 8 bytes."""
    return 0xA9000000 | (offset // 8) << 15 | two << 10 | base << 5 | one


def _ldp(one: int, two: int, base: int, offset: int) -> int:
    """ldp xT, xU, [xN, #offset]."""
    return 0xA9400000 | (offset // 8) << 15 | two << 10 | base << 5 | one
