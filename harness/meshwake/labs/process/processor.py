"""One processor for one run: the runner, its authority and its ztunnels take turns there.

Hardly anything of a run happens at the same time: the runner waits for a ztunnel, or a ztunnel for
it. Where each wake-up goes to another processor, that one has to be woken first, which in a virtual
machine costs more than what is then done (measured: 1270 jumps a second on two processors, 2350 on
one of them). And a thread that is being woken from another processor is, for a moment, neither
asleep nor running in what the kernel shows; here there is no such moment.

Two runs at once should not share one while another is idle: who has taken a processor says so by
the name of a socket, which goes when he does. When all are taken, a run is bound to none.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple


class Processor(NamedTuple):
    """One that no other run has, as long as `sign` is open."""

    number: int
    sign: socket.socket

    def bind(self, pid: int = 0) -> None:
        """A process (of one thread; 0: this one), and what it starts from now on, runs there only."""
        os.sched_setaffinity(pid, {self.number})

    def close(self) -> None:
        """Others may have it; who is bound to it stays so."""
        self.sign.close()


def take_processor() -> Processor | None:
    """One that is free, or None. To be called in the network namespace that runs have in common."""
    mine = sorted(os.sched_getaffinity(0))
    for turn in range(len(mine)):
        processor = mine[(os.getpid() + turn) % len(mine)]
        sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sign.bind(f"\0meshwake-processor-{processor}")
        except OSError:
            sign.close()
            continue
        return Processor(processor, sign)
    return None
