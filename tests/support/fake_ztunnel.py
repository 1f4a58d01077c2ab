"""A program that the process lab takes for ztunnel: what is ours can then be tested on machines
without one.

It listens where ztunnel listens, answers its admin interface with nothing, and never asks for a
certificate.
"""

from __future__ import annotations

import sys
from pathlib import Path

_PROGRAM = """\
import select, socket, sys, time
servers = [socket.create_server(("0.0.0.0", port)) for port in (15000, 15008, 15080)]
poller, due = select.epoll(), time.monotonic() + {every_s}
for server in servers:
    poller.register(server, select.EPOLLIN)
while True:
    for number, _ in poller.poll(max(due - time.monotonic(), 0)):
        server = next(server for server in servers if server.fileno() == number)
        with server.accept()[0] as connection:
            if server is servers[0]:
                connection.recv(4096)
                head = b'HTTP/1.1 200 OK\\r\\ncontent-length: 20\\r\\nconnection: close\\r\\n\\r\\n'
                connection.sendall(head + b'{"certificates": []}')
    if time.monotonic() >= due:
        due += {every_s}
        {at_tick}
"""
PRINT_THE_TIME = 'print("tick", time.time_ns(), time.monotonic_ns(), flush=True)'


def write_program(directory: Path, program: str) -> Path:
    """`program` (Python) as an executable file in `directory`."""
    path = directory / "fake-ztunnel"
    path.write_text(f"#!{sys.executable} -S\n{program}")
    path.chmod(0o755)
    return path


def write_fake_ztunnel(directory: Path, every_s: int = 600, at_tick: str = PRINT_THE_TIME) -> Path:
    """A fake whose timer fires every `every_s` seconds of its monotonic clock, and then does
    `at_tick`."""
    return write_program(
        directory, _PROGRAM.replace("{every_s}", str(every_s)).replace("{at_tick}", at_tick)
    )
