"""The registers of a stopped thread, as ptrace shows them, and what calling something takes: x86-64
and ARM64.

    x86-64   System V ABI: arguments in rdi, rsi, rdx; the return address is on the stack; a system
             call has its number in rax and arguments in rdi, rsi, rdx, r10, r8, r9, and its result
             in rax
    ARM64    AAPCS64: arguments in x0 and on, the return address in x30 (lr); a system call has its
             number in x8, arguments in x0 to x5, its result in x0

Both are read and written as the register set NT_PRSTATUS (include/uapi/linux/elf.h), in one piece.
"""

from __future__ import annotations

import ctypes
import os
from typing import ClassVar

_ALL_64 = 2**64 - 1
# struct user_regs_struct, arch/x86/include/uapi/asm/ptrace.h, in this order: 27 words of 64 bits.
_X86_NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss "
    "fs_base gs_base ds es fs gs"
)
# Where the kernel looks for the arguments of a system call (entry_SYSCALL_64, entry_64.S): the
# fourth is in r10, because the instruction itself overwrites rcx with the return address.
_X86_SYSTEM_CALL_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
# The first three integer arguments of a function; no function that is called here has more.
_X86_FUNCTION_ARGUMENTS = ("rdi", "rsi", "rdx")
# What `call` pushes: rip, 64 bits.
_RETURN_ADDRESS_BYTES = 8


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
        """What a function or a system call returned; an error of the kernel is -errno."""
        return ctypes.c_longlong(self.rax).value

    def aim_at_system_call(self, gadget: int, number: int, arguments: tuple[int, ...]) -> None:
        """The next instruction, at `gadget`, does this system call."""
        self.rip = gadget
        self.rax = number
        self._interrupt_nothing()
        self._set(_X86_SYSTEM_CALL_ARGUMENTS, arguments)

    def aim_at_function(
        self, function: int, return_to: int, below: int, arguments: tuple[int, ...]
    ) -> tuple[int, bytes]:
        """The next instruction is the first of `function`, which returns to `return_to`; the stack
        is free under `below`, an address that is a multiple of 16. Returns what has to be written
        there: address and bytes."""
        self.rip = function
        self._interrupt_nothing()

        # As a call instruction leaves it: the return address is pushed, and the stack pointer is 8
        # off a multiple of 16 at the first instruction of a function (System V ABI, 3.2.2).
        self.rsp = below - _RETURN_ADDRESS_BYTES
        self._set(_X86_FUNCTION_ARGUMENTS, arguments)
        return below - _RETURN_ADDRESS_BYTES, return_to.to_bytes(_RETURN_ADDRESS_BYTES, "little")

    def _interrupt_nothing(self) -> None:
        # orig_rax is the number of the system call that the thread was interrupted in. With a
        # number there the kernel would begin that call again, with registers that are ours
        # (arch/x86/kernel/signal.c, arch_do_signal_or_restart); -1: it was in none.
        self.orig_rax = _ALL_64

    def _set(self, names: tuple[str, ...], values: tuple[int, ...]) -> None:
        for name, value in zip(names, values, strict=False):
            setattr(self, name, value & _ALL_64)


class RegistersArm64(ctypes.Structure):
    """struct user_pt_regs of ARM64 (arch/arm64/include/uapi/asm/ptrace.h)."""

    _fields_: ClassVar = [
        ("x", ctypes.c_ulonglong * 31),
        ("sp", ctypes.c_ulonglong),
        ("pc", ctypes.c_ulonglong),
        ("pstate", ctypes.c_ulonglong),
    ]
    # PSR_BTYPE_MASK, bits 10 and 11: set by an indirect branch that was just taken. The next
    # instruction would have to be a landing pad then, and what we aim at is not one.
    _BTYPE = 3 << 10
    _LINK_REGISTER = 30
    _SYSTEM_CALL_REGISTER = 8

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
        """What a function or a system call returned; an error of the kernel is -errno."""
        return ctypes.c_longlong(self.x[0]).value

    def aim_at_system_call(self, gadget: int, number: int, arguments: tuple[int, ...]) -> None:
        """The next instruction, at `gadget`, does this system call."""
        self._go_to(gadget, arguments)
        self.x[self._SYSTEM_CALL_REGISTER] = number

    def aim_at_function(
        self, function: int, return_to: int, below: int, arguments: tuple[int, ...]
    ) -> tuple[int, bytes]:
        """The next instruction is the first of `function`, which returns to `return_to`; the stack
        is free under `below`. Returns what has to be written there: nothing."""
        self._go_to(function, arguments)
        self.x[self._LINK_REGISTER] = return_to

        # The processor itself faults where a stack pointer is not a multiple of 16.
        self.sp = below & ~0xF
        return below, b""

    def _go_to(self, address: int, arguments: tuple[int, ...]) -> None:
        # The kernel begins an interrupted call again only where the program counter is as it left
        # it (arch/arm64/kernel/signal.c, do_signal), so nothing like orig_rax needs care here.
        self.pc = address
        self.pstate &= ~self._BTYPE
        for place, value in enumerate(arguments):
            self.x[place] = value & _ALL_64


Registers = RegistersX86 | RegistersArm64


def registers_here() -> type[RegistersX86 | RegistersArm64]:
    """Those of this machine."""
    return RegistersArm64 if os.uname().machine == "aarch64" else RegistersX86
