"""Fixes that look before they act, and what they can observe: the same contract in every lab.

A `Watcher` wakes at times of its own, on the clock of the machine it lives on, is shown a `View`,
and answers with what is to be restarted. Labs carry looks out as they carry out faults, by the
schedule (labs/schedule.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from meshwake.core.clock_reading import ClockReading

Target = Literal["ztunnel", "applications", "proxies"]


@dataclass(frozen=True, order=True)
class PlannedRestart:
    """A deployed fix ends and starts the `what` of `node` at `world_ns`, when that node runs: its
    ztunnel; the pods of its applications, whose certificates its ztunnel then drops and fetches
    again; or its gateways and waypoints."""

    world_ns: int
    node: str
    cause: str
    what: Target = "ztunnel"


class CertificateValidity(NamedTuple):
    """A certificate that a process serves."""

    identity: str
    not_before_wall_ns: int
    not_after_wall_ns: int


class ObservedProcess(NamedTuple):
    """A process that serves certificates, as its node sees it. `started`: the clocks when it
    started; `target` is "proxy" for a gateway or waypoint, whose agent counts from every issue;
    `owner` names what starts another under another name, where there is such a thing."""

    name: str
    target: Literal["ztunnel", "proxy"]
    started: ClockReading
    certificates: tuple[CertificateValidity, ...]
    owner: str = ""

    @property
    def lasting_name(self) -> str:
        """The name that outlives a restart."""
        return self.owner or self.name


class View(Protocol):
    """The world at the moment of a look."""

    @property
    def world_ns(self) -> int:
        """Now, for the times in answers."""

    def clocks(self, node: str) -> ClockReading:
        """What the clocks of `node` show."""

    def seen(self, node: str) -> Sequence[ObservedProcess]:
        """The ztunnels of `node`, then its gateways and waypoints."""

    def authority_answers(self) -> bool:
        """Whether istiod is there and says that it is ready."""

    def expiry_logged(self, node: str, since_wall_ns: int) -> bool:
        """Whether a ztunnel of `node` logged a certificate refused as expired at or after
        `since_wall_ns`."""


class Watcher(Protocol):
    """Something deployed that looks and acts."""

    def next_look_world_ns(self, after_world_ns: int) -> int | None:
        """World time of its first look after `after_world_ns` (-1: of its very first); None when it
        never looks again. Called after every look."""

    def look(self, view: View) -> list[PlannedRestart]:
        """What is to be restarted, now or later."""
