"""What moving a process's clocks needs to know of the processor: its code, its system calls, its
jump.

Names of machines are the kernel's (`uname -m`).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass

from meshwake.clocks.vdso.code_arm64 import SVC, assemble_arm64
from meshwake.clocks.vdso.code_arm64 import jump_to as arm64_jump_to
from meshwake.clocks.vdso.code_x86_64 import SYSCALL, ClockCode, Mode, assemble_x86_64, near_jump


@dataclass(frozen=True)
class Architecture:
    """`system_call`: the instruction, `alignment`: at what addresses one may be. `jump`: the bytes
    that, at the first address, send the processor on to the second. `user_space_ends`: what every
    kernel gives to a program at least, and nothing of ours is put above; 0: nor above the vDSO (on
    ARM64 that is near an end that is the kernel's choice)."""

    name: str
    assemble: Callable[[Mode], ClockCode]
    system_call: bytes
    alignment: int
    jump: Callable[[int, int], bytes]
    user_space_ends: int

    def find_system_call(self, image: bytes, begin: int) -> int:
        """Where in `image`, from `begin` on, the next such instruction is. Raises ValueError when
        there is none."""
        place = image.index(self.system_call, begin)
        while place % self.alignment:  # the same bytes, across the border of two instructions
            place = image.index(self.system_call, place + 1)
        return place


X86_64 = Architecture(
    "x86_64",
    assemble_x86_64,
    SYSCALL,
    alignment=1,  # instructions have any length
    jump=near_jump,
    # Documentation/arch/x86/x86_64/mm.rst: with four levels of page tables 47 bits are the
    # program's.
    user_space_ends=2**47,
)
ARM64 = Architecture(
    "aarch64",
    assemble_arm64,
    SVC,
    alignment=4,  # every instruction is one word
    jump=lambda entry, target: arm64_jump_to(target),
    # Documentation/arch/arm64/memory.rst: 39, 42, 47, 48 or 52 bits, as the kernel was built.
    user_space_ends=0,
)
_KNOWN = {one.name: one for one in (X86_64, ARM64)}


def architecture_here() -> Architecture | None:
    """That of this machine, if it is one of ours."""
    return _KNOWN.get(platform.machine())
