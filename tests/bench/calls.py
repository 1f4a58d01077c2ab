"""What a call of clock_gettime costs in this process: counted by a loop in machine code, for ctypes
would cost ten times as much as what is to be measured.

The loop is run around the vDSO's own function, around a raw system call, and around a function that
does nothing; what the last one takes is the cost of looping and calling, and is taken off the
others. The stopwatch is the CPU time of this process: no table of ours holds that clock, so it runs
even where the other clocks are fixed.

    python -m tests.bench.calls      one JSON object: nanoseconds of CPU time for each call
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from meshwake.clocks.vdso.code_x86_64 import CLOCK_MONOTONIC
from meshwake.clocks.vdso.image import vdso_of

CALLS, ROUNDS = 200_000, 15

# long loop(function, count, clock_id, timespec): calls function(clock_id, timespec) `count` times.
_LOOP = bytes.fromhex(
    "53 4154 4155 4156"  # push rbx, r12, r13, r14
    "4883ec08"  # sub rsp, 8            the stack is a multiple of 16 at a call
    "4989fc 4889f3"  # mov r12, rdi; mov rbx, rsi
    "4989d5 4989ce"  # mov r13, rdx; mov r14, rcx
    "4489ef 4c89f6"  # again: mov edi, r13d; mov rsi, r14
    "41ffd4"  # call r12
    "48ffcb 75f2"  # dec rbx; jnz again
    "4883c408"  # add rsp, 8
    "415e 415d 415c 5b c3"  # pop r14, r13, r12, rbx; ret
)
_EMPTY = bytes.fromhex("31c0 c3")  # xor eax, eax; ret
_SYSTEM_CALL = bytes.fromhex("b8e4000000 0f05 c3")  # mov eax, SYS_clock_gettime; syscall; ret


class Loop:
    """The loop and its functions on an executable page of our own."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for offset, code in ((0, _LOOP), (256, _EMPTY), (512, _SYSTEM_CALL)):
            self._memory[offset : offset + len(code)] = code
        self.empty, self.system_call = base + 256, base + 512
        kinds: tuple[Any, ...] = (ctypes.c_void_p, ctypes.c_long, ctypes.c_long, ctypes.c_void_p)
        self._run: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_long, *kinds)(base)
        self._timespec = (ctypes.c_longlong * 2)()

    def ns_per_call(self, function: int) -> float:
        """CPU time of one call of the function at this address, and of going round."""
        began_ns = time.process_time_ns()
        self._run(function, CALLS, CLOCK_MONOTONIC, ctypes.addressof(self._timespec))
        return (time.process_time_ns() - began_ns) / CALLS

    def read_s(self) -> int:
        """The whole seconds of the clock, as the last call left them."""
        return int(self._timespec[0])


def vdso_clock_gettime() -> int:
    """Where this process's clock_gettime begins, whatever is there now."""
    return vdso_of(os.getpid()).clock_gettime


def measure() -> dict[str, float]:
    """The best of some rounds in which the three take turns; nothing makes a call faster than it
    is."""
    loop = Loop()
    functions = {"empty": loop.empty, "vdso": vdso_clock_gettime(), "system_call": loop.system_call}
    rounds = [
        {name: loop.ns_per_call(function) for name, function in functions.items()}
        for _ in range(ROUNDS)
    ]
    best = {name: min(each[name] for each in rounds) for name in functions}
    return {
        "empty": best["empty"],
        **{name: best[name] - best["empty"] for name in ("vdso", "system_call")},
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure()) + "\n")
