"""In-pod (shared) mode, as clusters run it: a ztunnel for each node, which opens its ports inside
its pods' namespaces.

Each node has a namespace for its ztunnel, each identity one for its pod. A node agent of ours sends
it the pods (node_agent.py), rules like a node's send what a pod sends into its ztunnel
(redirect.py), so the clients and servers of a run are ordinary ones. Where the kernel has no such
rules, clients go through ztunnel's SOCKS5 port, and the history says so (run_started: `way_in`).
ztunnel requests the certificates of its node's pods by itself.

Where its workloads come from is the plan's choice: a file, read once, which is light; or discovery
from the authority (authority/discovery.py), as on a cluster, without which no pod can be added or
removed.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from meshwake.core.plan import Plan
from meshwake.labs.process.namespaces import AUTHORITY_ADDRESS, Network, in_namespace
from meshwake.labs.process.node_agent import NodeAgent
from meshwake.labs.process.redirect import redirected_here
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import ZtunnelProcess, common_environment, local_xds
from meshwake.ztunnel.ports import ADMIN_PORT, ISTIOD_PORT


class InPod:
    """See modes.Mode."""

    ports = (ADMIN_PORT,)

    def __init__(self, plan: Plan, network: Network, directory: Path) -> None:
        self._plan, self._network, self._directory = plan, network, directory
        self.workloads: dict[str, Workload] = {}
        self.specs: list[ZtunnelSpec] = []
        self._agents: dict[str, NodeAgent] = {}
        self.redirects = True
        for node in plan.nodes:
            namespace, address = network.add(node.name)
            self.specs.append(
                ZtunnelSpec(node.name, node.name, namespace, address, node.identities)
            )
            self._agents[node.name] = NodeAgent(node.name, directory / f"zds-{node.name}.sock")
            for identity in node.identities:
                self.workloads[identity] = self._make_pod(identity, node.name, 0)
        if not plan.discovery:
            text = local_xds(self.workloads.values(), lambda workload: workload.node)
            (directory / "workloads.yaml").write_text(text)

    @property
    def way_in(self) -> str:
        """See modes.Mode."""
        return "redirection" if self.redirects else "socks5"

    def environment(self, spec: ZtunnelSpec, root_file: Path) -> Mapping[str, str]:
        """See modes.Mode."""
        environment = common_environment(spec.node, root_file, self._plan.lifetime_s) | {
            "PROXY_MODE": "shared",
            "INPOD_UDS": self._agents[
                spec.node
            ].path.name,  # relative: the path of a Unix socket must be short
            "ISTIO_META_DNS_CAPTURE": "false",  # names are not looked up in the mesh
        }
        if not self._plan.discovery:
            return environment | {
                "XDS_ADDRESS": "",
                "LOCAL_XDS_PATH": str(self._directory / "workloads.yaml"),
            }
        return environment | {
            "XDS_ADDRESS": f"https://{AUTHORITY_ADDRESS}:{ISTIOD_PORT}",
            "XDS_ROOT_CA": str(root_file),
        }

    def prime(self, ztunnel: ZtunnelProcess) -> list[socket.socket]:
        """See modes.Mode: the node agent sends it the pods of its node."""
        pods = [self.workloads[identity] for identity in ztunnel.spec.identities]
        self._agents[ztunnel.spec.node].send_pods(pods)
        return []

    def remove_pod(self, identity: str) -> Workload:
        """Removes the pod of `identity` and its namespace; returns where it was."""
        workload = self.workloads.pop(identity)
        self._agents[workload.node].remove(workload)
        self._network.remove(_pod_name(workload))
        return workload

    def add_pod(self, identity: str, node: str, life: int) -> Workload:
        """Adds another pod of `identity`, in a namespace of its own."""
        workload = self.workloads[identity] = self._make_pod(identity, node, life)
        self._agents[node].add(workload)
        return workload

    def close(self) -> None:
        """See modes.Mode."""
        for agent in self._agents.values():
            agent.close()

    def _make_pod(self, identity: str, node: str, life: int) -> Workload:
        namespace, address = self._network.add(f"{identity} {life}")
        workload = Workload(identity, node, namespace, address, life)
        if self.redirects:
            with in_namespace(namespace):
                self.redirects = redirected_here()
        return workload


def _pod_name(workload: Workload) -> str:
    return f"{workload.identity} {workload.life}"
