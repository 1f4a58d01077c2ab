"""The two modes in which ztunnels run, behind one face, so that the world need not know which."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from meshwake.core.plan import Plan
from meshwake.labs.process.dedicated import Dedicated
from meshwake.labs.process.inpod import InPod
from meshwake.labs.process.namespaces import Network
from meshwake.labs.process.places import Home, Place
from meshwake.labs.process.ztunnel import Ztunnel


class Mode(Protocol):
    """Who lives where, and what a ztunnel is told."""

    @property
    def places(self) -> dict[str, Place]:
        """Identity to where it lives."""

    @property
    def homes(self) -> Sequence[Home]:
        """One for each ztunnel."""

    @property
    def ports(self) -> tuple[int, ...]:
        """What a ztunnel opens in its own namespace by itself."""

    @property
    def redirects(self) -> bool:
        """Whether what a workload sends reaches its ztunnel by rules, so that clients are ordinary
        ones."""

    @property
    def way_in(self) -> str:
        """How a client's connection reaches its ztunnel, for run_started."""

    def environment(self, home: Home, root_file: Path) -> Mapping[str, str]:
        """What the ztunnel of `home` is told."""

    def welcome(self, ztunnel: Ztunnel) -> list[socket.socket]:
        """A ztunnel has just opened its ports: does what makes it ask for its certificates. Returns
        connections whose answers nobody needs, to be read and closed by the caller."""

    def close(self) -> None:
        """Lets go of what is not a process or a namespace."""


def mode_of(plan: Plan, network: Network, directory: Path) -> Mode:
    """The mode that `plan` asks for, with its namespaces made."""
    if plan.ztunnel_mode == "in-pod":
        return InPod(plan, network, directory)
    return Dedicated(plan, network, directory)
