"""Where things are in a run: workloads in namespaces of their own, and the ztunnels that serve
them.

dedicated    a ztunnel for each identity, in the identity's own namespace
in-pod       a ztunnel for each node, in the node's namespace; its identities' pods are in namespaces of their own
"""

from __future__ import annotations

from dataclasses import dataclass


def process_name(identity: str) -> str:
    """What the ztunnel and the workload of `identity` are called in logs and messages."""
    return identity.replace("/", ".")


@dataclass(frozen=True)
class Place:
    """Where an identity lives: its node, its network namespace (an open file) and its address.
    `life` counts the pods it has had before this one."""

    identity: str
    node: str
    namespace: int
    address: str
    life: int = 0

    @property
    def name(self) -> str:
        """The service account: also the name of the workload, and of its ztunnel in logs and
        messages."""
        return process_name(self.identity)

    @property
    def uid(self) -> str:
        """Names the pod; another one of the same identity has another."""
        return f"uid/{self.name}" + (f"/{self.life}" if self.life else "")


@dataclass(frozen=True)
class Home:
    """Where one ztunnel lives, and whom it serves. `name` is that of the process in logs and
    messages."""

    name: str
    node: str
    namespace: int
    address: str
    identities: tuple[str, ...]
