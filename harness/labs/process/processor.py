"""One processor for one run: the runner, its authority and its ztunnels take turns there.

Hardly anything of a run happens at the same time: the runner waits for a ztunnel, or a ztunnel for it. Where each
wake-up goes to another processor, that one has to be woken first, which in a virtual machine costs more than what is
then done (measured: 1270 jumps a second on two processors, 2350 on one of them). And a thread that is being woken from
another processor is, for a moment, neither asleep nor running in what the kernel shows; here there is no such moment.

Two runs at once should not share one while another is idle: who has taken a processor says so by the name of a socket,
which goes when he does. When all are taken, a run is bound to none.
"""

from __future__ import annotations

import os
import socket


def take_processor() -> socket.socket | None:
    """Binds this process, and what it starts from now on, to a processor that no other run has. It stays taken
    as long as the answer is open. To be called in the network namespace that runs have in common. None: none free."""
    mine = sorted(os.sched_getaffinity(0))
    for turn in range(len(mine)):
        processor = mine[(os.getpid() + turn) % len(mine)]
        sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            sign.bind(f"\0meshwake-processor-{processor}")
        except OSError:
            sign.close()
            continue
        os.sched_setaffinity(0, {processor})
        return sign
    return None
