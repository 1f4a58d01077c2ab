"""The authority as a process: over TLS and HTTP/2, with the requests of ztunnel and every fault."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpclib.client
import pytest
from cryptography import x509
from grpclib import GRPCError
from meshwake.authority.proto.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse
from meshwake.authority.server import METHOD, SERIALS_PER_IDENTITY, AuthorityProcess, spawn
from meshwake.core.authority_state import AuthorityState
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import SubjectFailed
from meshwake.system.deadline import Deadline

from tests.unit.authority.test_ca import STARTS_WALL_S, request_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="clock pages are for Linux"),
    # grpclib's client closes its TLS connection without waiting for the end of it; its server does
    # not matter here.
    pytest.mark.filterwarnings(
        "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
    ),
]
ANSWER_WITHIN_S = 20.0


class Running:
    """An authority and the page of its clocks."""

    def __init__(self, directory: Path) -> None:
        from meshwake.clocks.vdso.page import ClockPage

        self.page = ClockPage("fixed")
        self.set_wall_s(STARTS_WALL_S)
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            self.process: AuthorityProcess = spawn(
                self.page.file,
                listener,
                "127.0.0.1",
                directory,
                120,
                ("default/client", "default/server"),
            )

    def set_wall_s(self, wall_s: int) -> None:
        self.page.set(ClockReading(wall_s * 10**9, 0, 0))

    def ask(
        self,
        identity: str = "default/client",
        lifetime_s: int = 600,
        within_s: float = ANSWER_WITHIN_S,
    ) -> Any:
        """CreateCertificate over a new connection, verified against the root it wrote."""
        return asyncio.run(asyncio.wait_for(self._ask(identity, lifetime_s), within_s))

    async def _ask(self, identity: str, lifetime_s: int) -> Any:
        context = ssl.create_default_context(cafile=str(self.process.root_file))
        # The machine's own clock says nothing about certificates of the scenario's time.
        context.verify_flags |= ssl.VerifyFlags(0x200000)  # X509_V_FLAG_NO_CHECK_TIME
        context.set_alpn_protocols(["h2"])
        async with grpclib.client.Channel("127.0.0.1", self.port, ssl=context) as channel:
            method = grpclib.client.UnaryUnaryMethod(
                channel, METHOD, IstioCertificateRequest, IstioCertificateResponse
            )
            return await method(
                IstioCertificateRequest(csr=request_for(identity), validity_duration=lifetime_s)
            )


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Running]:
    """An authority on loopback, ended after the test."""
    running = Running(tmp_path)
    yield running
    running.process.close()
    running.page.close()
    gc.collect()  # the client's leftovers are noticed here, where they are known, and not in another test


def test_it_signs_by_the_clock_of_its_page(authority: Running) -> None:
    """A certificate is dated by the wall clock of the node that the authority shares, also after
    that has moved."""
    authority.ask()
    authority.set_wall_s(STARTS_WALL_S + 28_800)
    answer = authority.ask()
    first, second = authority.process.requests()
    assert len(answer.cert_chain) == 2
    assert (first["not_before_wall_s"], first["not_after_wall_s"]) == (
        STARTS_WALL_S - 120,
        STARTS_WALL_S + 600,
    )
    assert first["not_after_wall_s"] is not None
    assert second["not_after_wall_s"] == first["not_after_wall_s"] + 28_800


def test_serial_numbers_do_not_depend_on_the_order_of_requests(authority: Running) -> None:
    """A serial number encodes the identity and its issue count."""
    for identity in ("default/server", "default/client", "default/server"):
        authority.ask(identity)
    serials = [int(request["serial"] or "") for request in authority.process.requests()]
    assert serials == [
        2 * SERIALS_PER_IDENTITY + 1,
        SERIALS_PER_IDENTITY + 1,
        2 * SERIALS_PER_IDENTITY + 2,
    ]


@pytest.mark.parametrize(
    ("mode", "status", "outcome"),
    [
        ("ca_outage", "UNAVAILABLE", "refused"),
        ("token_expired", "UNAUTHENTICATED", "unauthenticated"),
    ],
)
def test_it_refuses_on_command(authority: Running, mode: Any, status: str, outcome: str) -> None:
    """A refusal has the status that ztunnel would see, is reported, and ends when the mode does."""
    authority.process.set_mode(mode)
    with pytest.raises(GRPCError) as refused:
        authority.ask()
    assert refused.value.status.name == status
    authority.process.set_mode("up")
    authority.ask()
    assert [request["outcome"] for request in authority.process.requests()] == [outcome, "issued"]


def test_a_hung_request_is_never_answered(authority: Running) -> None:
    """In mode ca_hang a request is taken, reported, and left; others are answered once the mode is
    over."""
    authority.process.set_mode("ca_hang")
    with pytest.raises(TimeoutError):
        authority.ask(within_s=1.0)
    authority.process.set_mode("up")
    authority.ask()
    assert [request["outcome"] for request in authority.process.requests()] == ["hung", "issued"]


def test_a_slow_answer_is_dated_and_given_on_command(authority: Running) -> None:
    """In mode ca_slow a request is taken and reported; it is answered on command, in any
    mode."""
    authority.process.set_mode("ca_slow")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(authority.ask)
        deadline = Deadline("the request", ANSWER_WITHIN_S)
        while not (taken := authority.process.requests()):
            deadline.pause(0.01)
        assert taken == [{"identity": "default/client", "taken": 0}]
        authority.process.set_mode("ca_outage")
        authority.set_wall_s(STARTS_WALL_S + 40)
        authority.process.answer([0])
        answer.result(ANSWER_WITHIN_S)
    (issued,) = authority.process.requests()
    assert issued["outcome"] == "issued" and issued["not_before_wall_s"] == STARTS_WALL_S + 40 - 120


def test_it_dates_and_signs_as_configured(authority: Running) -> None:
    """A clock that is behind, a lifetime of its own, another root; and back."""
    first = authority.ask().cert_chain
    authority.process.set_state(AuthorityState(ahead_wall_ns=-3600 * 10**9, lifetime_s=90, root=1))
    second = authority.ask().cert_chain
    authority.process.set_state(AuthorityState(root=1))
    third = authority.ask().cert_chain
    authority.process.set_state(AuthorityState())
    fourth = authority.ask().cert_chain
    requests = authority.process.requests()
    assert requests[1]["not_before_wall_s"] == STARTS_WALL_S - 3600 - 120
    assert requests[1]["not_after_wall_s"] == STARTS_WALL_S - 3600 + 90
    assert requests[0]["not_after_wall_s"] == requests[3]["not_after_wall_s"] == STARTS_WALL_S + 600
    assert first[1] == fourth[1] != second[1] == third[1]
    leaf, root = (x509.load_pem_x509_certificate(pem.encode()) for pem in second)
    leaf.verify_directly_issued_by(root)


def test_its_key_stays_in_its_memory(authority: Running) -> None:
    """The directory of a run gets the root certificate and no private key."""
    authority.ask()
    assert not [
        path for path in authority.directory.iterdir() if b"PRIVATE KEY" in path.read_bytes()
    ]


def test_its_end_is_noticed(authority: Running) -> None:
    """An authority that died is an error, not silence."""
    os.kill(authority.process.pid, signal.SIGKILL)
    authority.process._process.wait()
    with pytest.raises(SubjectFailed, match="the authority ended"):
        authority.process.requests()
