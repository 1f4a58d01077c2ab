"""A node that tests move by hand, as the guard sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from meshwake.core.clock_reading import ClockReading
from meshwake.guard.guard import Guard
from meshwake.guard.settings import Settings
from meshwake.guard.watch import CertificateValidity, ObservedProcess

NS = 10**9
HOUR, MINUTE = 3_600, 60
WALL_S = 1_800_000_000
LIFE_S, BACKDATE_S = 24 * HOUR, 2 * MINUTE


@dataclass
class HandNode:
    """Its clocks move on command; a restarted process gets a certificate of now, as a new process
    would."""

    name: str = "laptop"
    now: ClockReading = field(default_factory=lambda: ClockReading(WALL_S * NS, 0, 0))
    processes: list[ObservedProcess] = field(default_factory=list)
    authority: bool = True
    turn: bool = True
    restarted: list[tuple[str, str]] = field(default_factory=list)
    waited: list[str] = field(default_factory=list)

    def awake(self, seconds: float) -> None:
        moved = round(seconds * NS)
        self.now = ClockReading(
            self.now.wall_ns + moved, self.now.monotonic_ns + moved, self.now.boottime_ns + moved
        )

    def asleep(self, seconds: float) -> None:
        self.now = self.now._replace(wall_ns=self.now.wall_ns + round(seconds * NS))

    def ztunnel(self, name: str = "ztunnel", age_s: float = 0) -> None:
        self.processes.append(
            ObservedProcess(name, "ztunnel", self.now, (self.certificate(age_s),))
        )

    def proxy(self, name: str = "gateway") -> None:
        self.processes.append(ObservedProcess(name, "proxy", self.now, (self.certificate(0),)))

    def certificate(self, age_s: float) -> CertificateValidity:
        issued_ns = self.now.wall_ns - round(age_s * NS)
        return CertificateValidity(
            "spiffe://x", issued_ns - BACKDATE_S * NS, issued_ns + LIFE_S * NS
        )

    def clocks(self) -> ClockReading:
        return self.now

    def seen(self) -> list[ObservedProcess]:
        return list(self.processes)

    def authority_answers(self) -> bool:
        return self.authority

    def take_turn(self, holds_ns: int) -> bool:
        return self.turn

    def restart(self, process: ObservedProcess, why: str) -> None:
        self.restarted.append((process.name, why))
        fresh = ObservedProcess(process.name, process.target, self.now, (self.certificate(0),))
        self.processes = [fresh if each.name == process.name else each for each in self.processes]

    def held_back(self, process: ObservedProcess, why: str) -> None:
        self.waited.append(why.partition(":")[0])


def guard_of(node: HandNode) -> Guard:
    return Guard(node, Settings())


def look_for(guard: Guard, node: HandNode, seconds: float) -> None:
    """Looks as the program does, every half minute, for so long."""
    for _ in range(int(seconds // 30)):
        guard.look()
        node.awake(30)
