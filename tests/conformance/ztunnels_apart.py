"""Two real ztunnels and an authority in a world of their own, not started by the process that
moves clocks: as in a cluster.

`python -m tests.conformance.ztunnels_apart DIRECTORY ZTUNNEL LIFETIME_S BACKDATE_S` obeys lines on
standard input ("start a", "restart b", "wall 3600000000000": the authority's wall clock is ahead by
so many ns) and prints "requested IDENTITY MONOTONIC_NS" for every request of a certificate,
"started a PID" and "ready".
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

from meshwake.authority.server import spawn
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.labs.process.dedicated import dedicated_environment, trigger_handshake
from meshwake.labs.process.namespaces import (
    AUTHORITY_ADDRESS,
    Network,
    enter_own_namespaces,
    in_namespace,
    join,
    listen,
)
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import local_xds
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.ports import ADMIN_PORT, HBONE_PORT, ISTIOD_PORT

LISTENS_WITHIN_S = 20.0


class World:
    """See the module."""

    def __init__(self, directory: Path, ztunnel: Path, lifetime_s: int, backdate_s: int) -> None:
        self.directory, self.ztunnel, self.lifetime_s = directory, ztunnel, lifetime_s
        network = Network()
        self.page, self.ahead_ns = ClockPage("fixed"), 0
        self.set_wall()
        self.places = {
            name: Workload(f"mesh/{name}", name, *network.add(name)) for name in ("a", "b")
        }
        identities = tuple(place.identity for place in self.places.values())
        with listen(AUTHORITY_ADDRESS, ISTIOD_PORT) as listener:
            self.authority = spawn(
                self.page.file, listener, AUTHORITY_ADDRESS, directory, backdate_s, identities
            )
        (directory / "workloads.yaml").write_text(
            local_xds(self.places.values(), lambda place: place.name)
        )
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def set_wall(self) -> None:
        """The authority reads its wall clock from a page."""
        self.page.set(ClockReading(time.time_ns() + self.ahead_ns, 0, 0))

    def obey(self, line: str) -> None:
        """One line of standard input."""
        word, argument = line.split()
        if word == "wall":
            self.ahead_ns = int(argument)
            self.set_wall()
            return
        if word == "restart":
            self.running[argument].kill()
            self.running[argument].wait()
        self.start(argument)

    def start(self, name: str) -> None:
        """A ztunnel, and a handshake that makes it request its certificate."""
        place = self.places[name]
        home = ZtunnelSpec(place.name, name, place.namespace, place.address, (place.identity,))
        reported = dedicated_environment(
            home, self.directory, self.authority.root_file, self.lifetime_s
        )
        with (self.directory / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(self.ztunnel)],
                env=reported,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: join(place.namespace),  # noqa: PLW1509  # one thread, and nothing else enters it
            )
        say(f"started {name} {self.running[name].pid}")
        deadline = Deadline(f"ztunnel {name} to listen (see its log)", LISTENS_WITHIN_S, SystemExit)
        while not self.listens(place):
            self.look()
            deadline.check()
            if self.running[name].poll() is not None:
                raise SystemExit(f"ztunnel {name} has ended; see its log")
        trigger_handshake((place.address, HBONE_PORT), place.namespace).close()

    def listens(self, place: Workload) -> bool:
        """Whether its admin port is open."""
        import socket

        with in_namespace(place.namespace), socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", ADMIN_PORT)) == 0

    def look(self) -> None:
        """Prints the requests to the authority, and keeps its clock."""
        self.set_wall()
        for request in self.authority.requests():
            say(f"requested {request['identity']} {time.monotonic_ns()}")
        time.sleep(0.02)

    def close(self) -> None:
        """Ends all of it."""
        for process in self.running.values():
            process.kill()
            process.wait()
        self.authority.close()


def say(line: str) -> None:
    """To the process that started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Until standard input ends."""
    enter_own_namespaces()
    world = World(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    say("ready")
    try:
        while True:
            while select.select([0], [], [], 0)[0]:
                line = os.read(0, 4096).decode()
                if not line:
                    return
                for each in line.splitlines():
                    world.obey(each)
            world.look()
    finally:
        world.close()


if __name__ == "__main__":
    main()
