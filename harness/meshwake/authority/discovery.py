"""Workloads as istiod tells of them: delta discovery over one stream, which ztunnel keeps open.

ztunnel asks for two types when it connects, and does nothing before it has had an answer to both:
addresses (what lives where) and authorisation policies (there are none here). From then on it is
told of what has changed. It pings the open stream every thirty seconds of its time; a run with
discovery therefore costs more than one with a file of workloads.

Limits: no services, no policies, one stream for each ztunnel, and every ztunnel is told of
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
_HBONE = 1


class DiscoveryService:
    """Tells every ztunnel that asks which workloads there are. A workload is a mapping with uid,
    name, namespace, account, node and address (4 bytes as text)."""

    def __init__(self) -> None:
        self._workloads: dict[str, Mapping[str, str]] = {}
        self._version = 0
        self._changed: set[asyncio.Event] = set()
        self.refusals: list[str] = []  # what ztunnels said that they cannot use

    def set_workloads(self, workloads: list[Mapping[str, str]]) -> None:
        """From now on there are these, and no others; everybody is told of what is new and what has
        gone."""
        self._workloads = {workload["uid"]: workload for workload in workloads}
        self._version += 1
        for changed in self._changed:
            changed.set()

    async def delta_aggregated_resources(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        """DeltaAggregatedResources: one ztunnel, for as long as it stays."""
        changed = asyncio.Event()
        self._changed.add(changed)
        conversation = _Conversation(stream, self)
        pushing = asyncio.create_task(conversation.push(changed))
        try:
            while (request := await stream.recv_message()) is not None:
                await conversation.heard(request)
        finally:
            pushing.cancel()
            self._changed.discard(changed)

    def news(self, known: dict[str, str]) -> DeltaDiscoveryResponse:
        """What somebody must be told who has heard of `known` (uid to version); `known` is brought
        up to date."""
        news = DeltaDiscoveryResponse(type_url=ADDRESS_TYPE, nonce=str(self._version))
        for uid, workload in self._workloads.items():
            version = repr(sorted(workload.items()))
            if known.get(uid) != version:
                news.resources.append(_resource(workload, version))
                known[uid] = version
        for gone in known.keys() - self._workloads.keys():
            news.removed_resources.append(gone)
            del known[gone]
        return news

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
    """One open stream: what the other side has been told."""

    def __init__(self, stream: grpclib.server.Stream[Any, Any], service: DiscoveryService) -> None:
        self._stream, self._service = stream, service
        self._known: dict[str, str] = {}
        self._asked = False
        self._sending = asyncio.Lock()

    async def heard(self, request: DeltaDiscoveryRequest) -> None:
        """A question has no nonce; with one it is the receipt for an answer of ours, or a complaint
        about it."""
        if request.error_detail.message:
            self._service.refusals.append(request.error_detail.message)
        if request.response_nonce:
            return
        if request.type_url != ADDRESS_TYPE:
            await self._send(DeltaDiscoveryResponse(type_url=request.type_url, nonce="none"))
            return
        self._asked = True
        # A ztunnel that comes back says what it knew; it is told of everything anew, and of what
        # has gone meanwhile.
        self._known = dict.fromkeys(request.initial_resource_versions, "")
        await self._send(self._service.news(self._known))

    async def push(self, changed: asyncio.Event) -> None:
        """Tells of changes as they happen."""
        while True:
            await changed.wait()
            changed.clear()
            news = self._service.news(self._known) if self._asked else None
            if news is not None and (news.resources or news.removed_resources):
                await self._send(news)

    async def _send(self, response: DeltaDiscoveryResponse) -> None:
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
