"""Workloads in namespaces of their own, and the ztunnels that serve them.

dedicated    a ztunnel for each identity, in the identity's own namespace
in-pod       a ztunnel for each node, in the node's namespace; the pods of its identities are in
namespaces of their own
"""

from __future__ import annotations

from dataclasses import dataclass


def process_name(identity: str) -> str:
    """The name of the workload of `identity`, and of its ztunnel in dedicated mode, in logs and
    messages."""
    return identity.replace("/", ".")


@dataclass(frozen=True)
class Workload:
    """The pod of an identity: its node, its network namespace (an open file) and its address.
    `life` counts the pods that the identity had before this one."""

    identity: str
    node: str
    namespace: int
    address: str
    life: int = 0

    @property
    def name(self) -> str:
        """See `process_name`."""
        return process_name(self.identity)

    @property
    def uid(self) -> str:
        """Names the pod; another one of the same identity has another."""
        return f"uid/{self.name}" + (f"/{self.life}" if self.life else "")


@dataclass(frozen=True)
class ZtunnelSpec:
    """Where one ztunnel runs, and which identities it serves. `name` is that of the process in logs
    and messages."""

    name: str
    node: str
    namespace: int
    address: str
    identities: tuple[str, ...]
