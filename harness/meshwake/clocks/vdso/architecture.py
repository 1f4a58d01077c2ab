"""What moving a process's clocks needs to know of the processor: its code, its system calls, its
jump.

Names of machines are the kernel's (`uname -m`).
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass

from meshwake.clocks.vdso.code_arm64 import assemble_arm64
from meshwake.clocks.vdso.code_arm64 import jump_to as arm64_jump_to
from meshwake.clocks.vdso.code_x86_64 import ClockCode, Mode, assemble_x86_64


@dataclass(frozen=True)
class Architecture:
    """`system_call`: the instruction, `alignment`: at what addresses one may stand. `jump`: the
    bytes that send who comes to the first address on to the second. `user_space_ends`: what every
    kernel gives to a program at least, and nothing of ours is put above; 0: nor above the vDSO (on
    ARM64 it stands near an end that is the kernel's choice)."""

    name: str
    assemble: Callable[[Mode], ClockCode]
    system_call: bytes
    alignment: int
    jump: Callable[[int, int], bytes]
    user_space_ends: int

    def find_system_call(self, image: bytes, begin: int) -> int:
        """Where in `image`, from `begin` on, the next such instruction stands. Raises ValueError
        when none does."""
        place = image.index(self.system_call, begin)
        while place % self.alignment:
            place = image.index(self.system_call, place + 1)
        return place


def _x86_64_jump(entry: int, target: int) -> bytes:
    return b"\xe9" + struct.pack("<i", target - (entry + 5))


X86_64 = Architecture("x86_64", assemble_x86_64, b"\x0f\x05", 1, _x86_64_jump, 2**47)
ARM64 = Architecture(
    "aarch64",
    assemble_arm64,
    bytes.fromhex("010000d4"),
    4,
    lambda entry, target: arm64_jump_to(target),
    0,
)
_KNOWN = {one.name: one for one in (X86_64, ARM64)}


def architecture_here() -> Architecture | None:
    """That of this machine, if it is one of ours."""
    return _KNOWN.get(platform.machine())
