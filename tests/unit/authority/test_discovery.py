"""Discovery of workloads over TLS and HTTP/2, with the requests of ztunnel."""

from __future__ import annotations

import asyncio
import ssl
import sys
from typing import Any

import grpclib.client
import pytest
from meshwake.authority.discovery import ADDRESS_TYPE, METHOD, DiscoveryService
from meshwake.authority.proto.discovery_pb2 import (
    Address,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)

from tests.unit.authority.test_server import Running, authority

__all__ = ["authority"]
pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="clock pages are for Linux"),
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
    ),
]
POLICY_TYPE = "type.googleapis.com/istio.security.Authorization"
WITHIN_S = 20.0


def workload(name: str, uid: str = "") -> dict[str, str]:
    named = {"uid": uid or f"uid/{name}", "name": name, "namespace": "default", "account": name}
    return named | {"node": "laptop", "address": "10.77.0.11"}


def test_it_answers_both_requests_and_sends_what_changes(authority: Running) -> None:
    """Every workload first; policies: none; then what has come and what has gone, each once."""
    authority.process.set_workloads([workload("client"), workload("server")])
    first, policies, later = asyncio.run(asyncio.wait_for(converse(authority), WITHIN_S))
    assert sorted(resource.name for resource in first.resources) == ["uid/client", "uid/server"]
    client = Address.FromString(first.resources[0].resource.value).workload
    assert (client.namespace, client.tunnel_protocol, client.trust_domain) == (
        "default",
        1,
        "cluster.local",
    )
    assert (client.node, client.addresses[0]) == ("laptop", bytes([10, 77, 0, 11]))
    assert (policies.type_url, len(policies.resources)) == (POLICY_TYPE, 0)
    assert policies.nonce and first.nonce
    assert [resource.name for resource in later.resources] == ["uid/client/1"]
    assert list(later.removed_resources) == ["uid/client"]


async def converse(authority: Running) -> tuple[Any, Any, Any]:
    context = ssl.create_default_context(cafile=str(authority.process.root_file))
    context.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
    context.set_alpn_protocols(["h2"])
    async with grpclib.client.Channel("127.0.0.1", authority.port, ssl=context) as channel:
        method = grpclib.client.StreamStreamMethod(
            channel, METHOD, DeltaDiscoveryRequest, DeltaDiscoveryResponse
        )
        async with method.open() as stream:
            await stream.send_message(DeltaDiscoveryRequest(type_url=ADDRESS_TYPE))
            first = await stream.recv_message()
            await stream.send_message(DeltaDiscoveryRequest(type_url=POLICY_TYPE))
            policies = await stream.recv_message()
            authority.process.set_workloads(
                [workload("server"), workload("client", "uid/client/1")]
            )
            later = await stream.recv_message()
            await stream.cancel()
    return first, policies, later


def test_a_client_that_reconnects_receives_what_has_gone() -> None:
    """What it had and is gone is sent as removed; what is there, again."""
    service = DiscoveryService()
    service.set_workloads([workload("client")])
    known = {"uid/client": "", "uid/gone": ""}
    news = service.difference(known)
    assert [resource.name for resource in news.resources] == ["uid/client"]
    assert list(news.removed_resources) == ["uid/gone"]
    assert not service.difference(known).resources
