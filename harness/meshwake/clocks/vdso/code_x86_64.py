"""The machine code that answers for a process's clocks, byte by byte with what each byte means.

A process asks for the time by calling into its vDSO, a page of kernel code in its memory. page.py
and attach.py put a jump there, to the code below, which is on a page of memory shared with us:

    offset    0   one 64-bit number of nanoseconds for each clock id 0 to 11   (the table: we write it, the code reads)
    offset   96   a second table                                               (offset mode)
    offset  192   where the table in force begins: 0 or 96                     (offset mode)
    offset  200   what kind of page this is, for a later helper that finds it in a process
    offset  256   the code

In *fixed* mode the table holds the time itself: no system call is made, and time stops until
the table is changed. In *offset* mode the table holds what is added to the kernel's time. An entry
is one aligned 64-bit number, so a reader sees the old or the new time of a clock and never half of
each.

In offset mode programs run while their clocks are moved. There the table that is not in force is
written, and then one store puts it in force: all clocks move at the same moment, and no
reader sees one moved and another not yet.

The functions keep the C calling convention (System V ABI for AMD64, 3.2): arguments in rdi and rsi,
the result in rax; rcx, rdx, r8 to r11 may be overwritten. They need no stack of more than 64 bytes
(a goroutine has little), and touch no callee-saved register. Encodings are those of the Intel SDM,
volume 2; the comment behind each line is the instruction as a disassembler writes it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from meshwake.system.libc import system_call_number

Mode = Literal["fixed", "offset"]

# include/uapi/linux/time.h; clock_gettime(2).
CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME = 0, 1, 7
# Clock ids that show the wall time, and those that follow monotonic and boottime.
WALL_IDS = (0, 5, 8, 11)  # REALTIME, REALTIME_COARSE, REALTIME_ALARM, TAI
MONOTONIC_IDS = (1, 4, 6)  # MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE
BOOTTIME_IDS = (7, 9)  # BOOTTIME, BOOTTIME_ALARM
# Not in the table: 2 and 3 (CPU time of the process and of the thread) and 10 (the former
# CLOCK_SGI_CYCLE). Those are read from the kernel.
TABLE_IDS = (*WALL_IDS, *MONOTONIC_IDS, *BOOTTIME_IDS)
LAST_TABLE_ID = 11
# Ids 0 to 11, eight bytes each.
TABLE_BYTES = 8 * (LAST_TABLE_ID + 1)
# Where these are in the page: behind both tables; the code begins at the next multiple of 64 that
# leaves room, which is also the size of a cache line.
IN_FORCE_OFFSET = 2 * TABLE_BYTES
KIND_OFFSET = IN_FORCE_OFFSET + 8
CODE_OFFSET = 256
# Eight bytes each; the digit at the end is raised when the layout of the page changes.
KINDS: dict[Mode, bytes] = {"fixed": b"mwfixed1", "offset": b"mwoffst1"}

# The `syscall` instruction: number in rax, result in rax; destroys rcx and r11.
SYSCALL = b"\x0f\x05"
# `jmp rel32`: opcode and the distance from the end of the instruction, signed.
JUMP = b"\xe9"
# The opcode and 32 bits.
JUMP_BYTES = 5
# Fills the gaps between functions: int3, so that a wild jump into one stops at once.
_BREAKPOINT = b"\xcc"
_FUNCTION_ALIGNMENT = 16
# Distances of short jumps are one signed byte.
_SHORT_REACH = range(-128, 128)

# Immediate operands of 32 bits.
_NS_PER_S = struct.pack("<I", 1_000_000_000)
_NS_PER_US = struct.pack("<I", 1_000)
_SYS_CLOCK_GETTIME = struct.pack("<I", system_call_number("clock_gettime", "x86_64"))
# Bit N is set when clock id N is in the table.
_TABLE_MASK = struct.pack("<I", sum(1 << clock_id for clock_id in TABLE_IDS))


def near_jump(entry: int, target: int) -> bytes:
    """What at `entry` sends the processor to `target`, 2 GiB away at most."""
    return JUMP + struct.pack("<i", target - (entry + JUMP_BYTES))


@dataclass(frozen=True)
class ClockCode:
    """The code of one page, and where in the page each function begins; `trap_offset` is a lone
    breakpoint, the return address for calls that we make into a process ourselves."""

    code: bytes
    clock_gettime_offset: int
    gettimeofday_offset: int
    time_offset: int
    trap_offset: int


class _Assembler:
    """Bytes with labels: just enough to write jumps by name."""

    def __init__(self, origin: int) -> None:
        self.origin, self.code = origin, bytearray()
        self.labels: dict[str, int] = {}
        self._short: list[tuple[int, str]] = []

    def emit(self, hexadecimal: str, immediate: bytes = b"") -> None:
        self.code += bytes.fromhex(hexadecimal) + immediate

    def label(self, name: str) -> int:
        self.labels[name] = len(self.code)
        return self.origin + len(self.code)

    def short(self, opcode: str, label: str) -> None:
        """A jump of one byte's reach."""
        self.emit(opcode, b"\x00")
        self._short.append((len(self.code) - 1, label))

    def near(self, opcode: str, page_offset: int) -> None:
        """An instruction that reaches `page_offset` relative to its own end (lea, call)."""
        # In 64-bit mode such operands count from the next instruction: behind the opcode and the
        # distance of four bytes.
        end = self.origin + len(self.code) + len(opcode) // 2 + 4
        self.emit(opcode, struct.pack("<i", page_offset - end))

    def align(self) -> None:
        while len(self.code) % _FUNCTION_ALIGNMENT:
            self.code += _BREAKPOINT

    def finish(self) -> bytes:
        for place, label in self._short:
            distance = self.labels[label] - (place + 1)
            if distance not in _SHORT_REACH:
                raise AssertionError(f"{label} is out of a short jump's reach")
            self.code[place] = distance & 0xFF
        return bytes(self.code)


def assemble_x86_64(mode: Mode) -> ClockCode:
    """The code for x86-64; `mode` as in the head of this file."""
    asm = _Assembler(CODE_OFFSET)
    clock_gettime = asm.label("clock_gettime")
    if mode == "fixed":
        _fixed_clock_gettime(asm)
    else:
        _offset_clock_gettime(asm)
    asm.align()
    gettimeofday = asm.label("gettimeofday")
    _gettimeofday(asm, clock_gettime)
    asm.align()
    time = asm.label("time")
    _time(asm, clock_gettime)
    asm.align()
    trap = asm.label("trap")
    asm.emit(_BREAKPOINT.hex())  # int3                 calls that we inject return here
    return ClockCode(asm.finish(), clock_gettime, gettimeofday, time, trap)


def _split_and_store(asm: _Assembler) -> None:
    """rax nanoseconds -> the timespec at rsi; returns 0."""
    asm.emit("31d2")  # xor edx, edx
    asm.emit("b9", _NS_PER_S)  # mov ecx, 1000000000
    asm.emit("48f7f1")  # div rcx              rax: seconds, rdx: nanoseconds
    asm.emit("488906")  # mov [rsi], rax
    asm.emit("48895608")  # mov [rsi+8], rdx
    asm.emit("31c0")  # xor eax, eax
    asm.emit("c3")  # ret


def _fixed_clock_gettime(asm: _Assembler) -> None:
    """edi: clock id, rsi: timespec. Clocks that are not in the table are read from the kernel."""
    asm.emit("83ff0b")  # cmp edi, 11
    asm.short("77", "kernel")  # ja kernel            (negative ids too: the compare is unsigned)
    asm.emit("b8", _TABLE_MASK)  # mov eax, mask
    asm.emit("0fa3f8")  # bt eax, edi
    asm.short("73", "kernel")  # jnc kernel
    asm.emit("89f8")  # mov eax, edi
    asm.near("488d15", 0)  # lea rdx, [table]
    asm.emit("488b04c2")  # mov rax, [rdx+rax*8]
    _split_and_store(asm)
    asm.label("kernel")
    asm.emit("b8", _SYS_CLOCK_GETTIME)  # mov eax, SYS_clock_gettime
    asm.emit(SYSCALL.hex())  # syscall
    asm.emit("c3")  # ret


def _offset_clock_gettime(asm: _Assembler) -> None:
    """As above; the kernel's time plus the table's entry."""
    asm.emit("b8", _SYS_CLOCK_GETTIME)  # mov eax, SYS_clock_gettime
    asm.emit(SYSCALL.hex())  # syscall              keeps edi and rsi
    asm.emit("85c0")  # test eax, eax
    asm.short("75", "done")  # jnz done
    asm.emit("83ff0b")  # cmp edi, 11
    asm.short("77", "done")  # ja done
    asm.near("488d15", 0)  # lea rdx, [table]
    asm.near("480315", IN_FORCE_OFFSET)  # add rdx, [in force]
    asm.emit("89f9")  # mov ecx, edi
    asm.emit("486906", _NS_PER_S)  # imul rax, [rsi], 1000000000
    asm.emit("48034608")  # add rax, [rsi+8]
    asm.emit("480304ca")  # add rax, [rdx+rcx*8]
    _split_and_store(asm)
    asm.label("done")
    asm.emit("c3")  # ret


def _gettimeofday(asm: _Assembler, clock_gettime: int) -> None:
    """rdi: timeval or null, rsi: timezone or null."""
    asm.emit("4885ff")  # test rdi, rdi
    asm.short("74", "zone")  # jz zone
    asm.emit("57")  # push rdi
    asm.emit("56")  # push rsi
    asm.emit("4883ec18")  # sub rsp, 24
    asm.emit("31ff")  # xor edi, edi         CLOCK_REALTIME
    asm.emit("4889e6")  # mov rsi, rsp
    asm.near("e8", clock_gettime)  # call clock_gettime
    asm.emit("488b442408")  # mov rax, [rsp+8]
    asm.emit("31d2")  # xor edx, edx
    asm.emit("b9", _NS_PER_US)  # mov ecx, 1000
    asm.emit("48f7f1")  # div rcx              rax: microseconds
    asm.emit("4c8b0424")  # mov r8, [rsp]
    asm.emit("4883c418")  # add rsp, 24
    asm.emit("5e")  # pop rsi
    asm.emit("5f")  # pop rdi
    asm.emit("4c8907")  # mov [rdi], r8
    asm.emit("48894708")  # mov [rdi+8], rax
    asm.label("zone")
    asm.emit("4885f6")  # test rsi, rsi
    asm.short("74", "out")  # jz out
    asm.emit("48c70600000000")  # mov qword [rsi], 0   Greenwich, no summer time
    asm.label("out")
    asm.emit("31c0")  # xor eax, eax
    asm.emit("c3")  # ret


def _time(asm: _Assembler, clock_gettime: int) -> None:
    """rdi: time_t to be set, or null; returns the seconds."""
    asm.emit("57")  # push rdi
    asm.emit("4883ec10")  # sub rsp, 16
    asm.emit("31ff")  # xor edi, edi         CLOCK_REALTIME
    asm.emit("4889e6")  # mov rsi, rsp
    asm.near("e8", clock_gettime)  # call clock_gettime
    asm.emit("488b0424")  # mov rax, [rsp]
    asm.emit("4883c410")  # add rsp, 16
    asm.emit("5f")  # pop rdi
    asm.emit("4885ff")  # test rdi, rdi
    asm.short("74", "back")  # jz back
    asm.emit("488907")  # mov [rdi], rax
    asm.label("back")
    asm.emit("c3")  # ret
