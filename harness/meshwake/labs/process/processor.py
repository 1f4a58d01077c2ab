"""One processor for one run: the runner, its authority and its ztunnels take turns there.

Hardly anything of a run happens at the same time: the runner waits for a ztunnel, or a ztunnel for
it. Where each wake-up goes to another processor, that one has to be woken first, which in a virtual
machine costs more than what is then done (measured: 1270 jumps a second on two processors, 2350 on
one of them). And a thread that is being woken from another processor is, for a moment, neither
asleep nor running in what the kernel shows; here such a moment does not exist.

Two runs at once should not share one while another is idle: a run claims a processor by binding
a socket of its name, which the kernel removes when the run ends. When all are claimed, a run is
bound to none.
"""

from __future__ import annotations

import os
import socket
from typing import NamedTuple


class Processor(NamedTuple):
    """One that no other run has, as long as `claim` is open."""

    number: int
    claim: socket.socket

    def bind(self, pid: int = 0) -> None:
        """Binds a process (of one thread; 0: this one), and all that it starts from now on."""
        os.sched_setaffinity(pid, {self.number})

    def close(self) -> None:
        """Other runs may claim it; processes that are bound to it stay so."""
        self.claim.close()


def claim_processor() -> Processor | None:
    """One that is free, or None. To be called in the network namespace that runs have in common."""
    allowed = sorted(os.sched_getaffinity(0))
    for attempt in range(len(allowed)):
        # Begins at another one in every run, so that runs seldom try for the same one.
        processor = allowed[(os.getpid() + attempt) % len(allowed)]
        # A name that begins with a zero byte is not in the file system (unix(7), abstract): it is
        # free again when its socket is closed, also by kill -9.
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            claim.bind(f"\0meshwake-processor-{processor}")
        except OSError:
            claim.close()
            continue
        return Processor(processor, claim)
    return None
