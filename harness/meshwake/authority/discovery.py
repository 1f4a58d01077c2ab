"""Workloads as istiod serves them: delta discovery over one stream, which ztunnel keeps open.

ztunnel subscribes to two types when it connects, and does nothing before it has had an answer to
both: addresses (what lives where) and authorisation policies (there are none here). From then on it
receives what has changed. It pings the open stream every thirty seconds of its time; a run with
discovery therefore costs more than one with a file of workloads.

Limits: no services, no policies, one stream for each ztunnel, and every ztunnel receives
everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import grpclib.const
import grpclib.server

from meshwake.authority.proto.discovery_pb2 import (
    Address,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    Resource,
    Workload,
)
from meshwake.ztunnel.spiffe import TRUST_DOMAIN

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
ADDRESS_TYPE = "type.googleapis.com/istio.workload.Address"
# TunnelProtocol.HBONE of istio pkg/workloadapi/workload.proto.
_HBONE = 1


class DiscoveryService:
    """Sends the workloads to every ztunnel that subscribes. A workload is a mapping with uid,
    name, namespace, account, node and address (4 bytes as text)."""

    def __init__(self) -> None:
        self._workloads: dict[str, Mapping[str, str]] = {}
        self._version = 0
        self._changed: set[asyncio.Event] = set()
        self.refusals: list[str] = []  # why ztunnels rejected an answer

    def set_workloads(self, workloads: list[Mapping[str, str]]) -> None:
        """From now on there are these, and no others; every ztunnel receives the difference."""
        self._workloads = {workload["uid"]: workload for workload in workloads}
        self._version += 1
        for changed in self._changed:
            changed.set()

    async def delta_aggregated_resources(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        """DeltaAggregatedResources: one ztunnel, for as long as it stays."""
        # One event for each stream: each is behind by what it has not been sent yet.
        changed = asyncio.Event()
        self._changed.add(changed)
        conversation = _Conversation(stream, self)
        pushing = asyncio.create_task(conversation.push(changed))
        try:
            while (request := await stream.recv_message()) is not None:
                await conversation.received(request)
        finally:
            pushing.cancel()
            self._changed.discard(changed)

    def difference(self, known: dict[str, str]) -> DeltaDiscoveryResponse:
        """What a ztunnel that has `known` (uid to version) must still receive; `known` is brought up
        to date."""
        difference = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce=str(self._version))
        for uid, workload in self._workloads.items():
            # Any text that is another when the workload is; ztunnel only hands it back.
            version = repr(sorted(workload.items()))
            if known.get(uid) != version:
                difference.resources.append(_resource(workload, version))
                known[uid] = version
        for gone in known.keys() - self._workloads.keys():
            difference.removed_resources.append(gone)
            del known[gone]
        return difference

    def __mapping__(self) -> Mapping[str, grpclib.const.Handler]:
        cardinality = grpclib.const.Cardinality.STREAM_STREAM
        handler = grpclib.const.Handler(
            self.delta_aggregated_resources,
            cardinality,
            DeltaDiscoveryRequest,
            DeltaDiscoveryResponse,
        )
        return {METHOD: handler}


class _Conversation:
    """One open stream, and what its ztunnel has been sent."""

    def __init__(self, stream: grpclib.server.Stream[Any, Any], service: DiscoveryService) -> None:
        self._stream, self._service = stream, service
        self._known: dict[str, str] = {}
        self._subscribed = False
        self._sending = asyncio.Lock()

    async def received(self, request: DeltaDiscoveryRequest) -> None:
        """A subscription has no nonce; with one it is the acknowledgement of an answer of ours, or
        its rejection."""
        if request.error_detail.message:
            self._service.refusals.append(request.error_detail.message)
        if request.response_nonce:
            return

        # There are no authorisation policies, and ztunnel waits until it knows that.
        if request.type_url != ADDRESS_TYPE:
            await self._send(DeltaDiscoveryResponse(type_url=request.type_url, nonce="none"))
            return
        self._subscribed = True

        # A ztunnel that reconnects lists what it had; it receives everything again, and what has
        # gone meanwhile.
        self._known = dict.fromkeys(request.initial_resource_versions, "")
        await self._send(self._service.difference(self._known))

    async def push(self, changed: asyncio.Event) -> None:
        """Sends changes as they happen."""
        while True:
            await changed.wait()
            changed.clear()
            if not self._subscribed:
                continue
            difference = self._service.difference(self._known)
            if difference.resources or difference.removed_resources:
                await self._send(difference)

    async def _send(self, response: DeltaDiscoveryResponse) -> None:
        # An answer and a push may meet, and a stream takes one message at a time.
        async with self._sending:
            await self._stream.send_message(response)


def _resource(workload: Mapping[str, str], version: str) -> Resource:
    resource = Resource(name=workload["uid"], version=version)
    resource.resource.type_url = ADDRESS_TYPE
    resource.resource.value = Address(workload=_workload(workload)).SerializeToString()
    return resource


def _workload(workload: Mapping[str, str]) -> Workload:
    return Workload(
        uid=workload["uid"],
        name=workload["name"],
        namespace=workload["namespace"],
        service_account=workload["account"],
        addresses=[bytes(int(part) for part in workload["address"].split("."))],
        tunnel_protocol=_HBONE,
        trust_domain=TRUST_DOMAIN,
        node=workload["node"],
        cluster_id="Kubernetes",
    )
