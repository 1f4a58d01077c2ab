"""The two modes in which ztunnels run, behind one interface."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from meshwake.core.plan import Plan
from meshwake.labs.process.dedicated import Dedicated
from meshwake.labs.process.inpod import InPod
from meshwake.labs.process.namespaces import Network
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import ZtunnelProcess


class Mode(Protocol):
    """Which workloads and ztunnels there are, and how a ztunnel is configured."""

    @property
    def workloads(self) -> dict[str, Workload]:
        """By identity."""

    @property
    def specs(self) -> Sequence[ZtunnelSpec]:
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

    def environment(self, spec: ZtunnelSpec, root_file: Path) -> Mapping[str, str]:
        """The environment variables of the ztunnel of `spec`."""

    def prime(self, ztunnel: ZtunnelProcess) -> list[socket.socket]:
        """A ztunnel has just opened its ports: does what makes it request its certificates. Returns
        connections whose answers are not needed, to be read and closed by the caller."""

    def close(self) -> None:
        """Releases what is not a process or a namespace."""


def mode_of(plan: Plan, network: Network, directory: Path) -> Mode:
    """The mode that `plan` asks for, with its namespaces made."""
    if plan.ztunnel_mode == "in-pod":
        return InPod(plan, network, directory)
    return Dedicated(plan, network, directory)
