"""The registers of a stopped thread, as ptrace shows them, and what calling something takes: x86-64
and ARM64.

    x86-64   System V ABI: arguments in rdi, rsi, rdx; the return address is on the stack; a system call has its number
             in rax and arguments in rdi, rsi, rdx, r10, r8, r9, and its result in rax. `orig_rax` -1: whatever call
             the thread was in is not begun again from registers that are ours
    ARM64    AAPCS64: arguments in x0 and on, the return address in x30 (lr); a system call has its number in x8,
             arguments in x0 to x5, its result in x0. The kernel begins an interrupted call again only where the program
             counter is where it left it, so other registers than those need no care

Both are read and written as the register set NT_PRSTATUS.
"""

from __future__ import annotations

import ctypes
import platform
from typing import ClassVar

_ALL_64 = 2**64 - 1
_X86_NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)


class RegistersX86(ctypes.Structure):
    """struct user_regs_struct of x86-64."""

    _fields_: ClassVar = [(name, ctypes.c_ulonglong) for name in _X86_NAMES.split()]

    @property
    def at(self) -> int:
        """The address of the next instruction."""
        return int(self.rip)

    @property
    def stack_pointer(self) -> int:
        """Where its stack ends."""
        return int(self.rsp)

    @property
    def result(self) -> int:
        """What a function or a system call answered."""
        return ctypes.c_longlong(self.rax).value

    def aim_at_system_call(self, gadget: int, number: int, arguments: tuple[int, ...]) -> None:
        """The next instruction, at `gadget`, does this system call."""
        self.rip, self.rax, self.orig_rax = gadget, number, _ALL_64
        self._set(("rdi", "rsi", "rdx", "r10", "r8", "r9"), arguments)

    def aim_at_function(
        self, function: int, return_to: int, below: int, arguments: tuple[int, ...]
    ) -> tuple[int, bytes]:
        """The next instruction is the first of `function`, which returns to `return_to`; the stack
        is free under `below`. Returns what has to be written there: address and bytes."""
        self.rip, self.orig_rax, self.rsp = function, _ALL_64, below - 8
        self._set(("rdi", "rsi", "rdx"), arguments)
        return below - 8, return_to.to_bytes(8, "little")

    def _set(self, names: tuple[str, ...], values: tuple[int, ...]) -> None:
        for name, value in zip(names, values, strict=False):
            setattr(self, name, value & _ALL_64)


class RegistersArm64(ctypes.Structure):
    """struct user_pt_regs of ARM64."""

    _fields_: ClassVar = [
        ("x", ctypes.c_ulonglong * 31),
        ("sp", ctypes.c_ulonglong),
        ("pc", ctypes.c_ulonglong),
        ("pstate", ctypes.c_ulonglong),
    ]
    _BTYPE = (
        3 << 10
    )  # set by an indirect branch that was just taken: the next instruction would have to be a landing pad

    @property
    def at(self) -> int:
        """The address of the next instruction."""
        return int(self.pc)

    @property
    def stack_pointer(self) -> int:
        """Where its stack ends."""
        return int(self.sp)

    @property
    def result(self) -> int:
        """What a function or a system call answered."""
        return ctypes.c_longlong(self.x[0]).value

    def aim_at_system_call(self, gadget: int, number: int, arguments: tuple[int, ...]) -> None:
        """The next instruction, at `gadget`, does this system call."""
        self._go_to(gadget, arguments)
        self.x[8] = number

    def aim_at_function(
        self, function: int, return_to: int, below: int, arguments: tuple[int, ...]
    ) -> tuple[int, bytes]:
        """The next instruction is the first of `function`, which returns to `return_to`; the stack
        is free under `below`. Returns what has to be written there: nothing."""
        self._go_to(function, arguments)
        self.x[30], self.sp = return_to, below & ~0xF
        return below, b""

    def _go_to(self, address: int, arguments: tuple[int, ...]) -> None:
        self.pc = address
        self.pstate &= ~self._BTYPE
        for place, value in enumerate(arguments):
            self.x[place] = value & _ALL_64


Registers = RegistersX86 | RegistersArm64


def registers_here() -> type[RegistersX86 | RegistersArm64]:
    """Those of this machine."""
    return RegistersArm64 if platform.machine() == "aarch64" else RegistersX86
