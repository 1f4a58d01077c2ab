"""The authority as a process of its own: `istio.v1.auth.IstioCertificateService` over TLS, on one
thread.

One thread and no timers, because the process lab moves time only when every thread is asleep: a
server that wakes up by itself would have to be told apart from one that has something to do.
(grpclib on asyncio; the C core of grpcio keeps a dozen threads with timers of their own.)

It is started by `spawn` and talks with us over a socket, one JSON object a line: it is told its
mode and says that it has it; it tells of every request, before it answers it.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import select
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import grpclib.const
import grpclib.server
from grpclib import GRPCError, Status

from meshwake.authority.begin import LOG, Begun, begin
from meshwake.authority.ca import CertificateAuthority, requested_identity
from meshwake.authority.discovery import DiscoveryService
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.system.deadline import Deadline

Mode = Literal["up", "ca_outage", "ca_hang", "ca_slow", "token_expired"]
OUTCOMES = {
    "up": "issued",
    "ca_outage": "refused",
    "ca_hang": "hung",
    "ca_slow": "issued",
    "token_expired": "unauthenticated",
}
METHOD = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
ROOT_FILE = "root.pem"
# On a machine that does much else, a Python that loads its libraries takes this long now and then.
_START_WITHIN_S = 60.0
# Serial numbers say which identity's how-manieth certificate it is, whatever the order in which
# requests arrive.
SERIALS_PER_IDENTITY = 1_000_000


@dataclass(frozen=True)
class Settings:
    """What an authority is told when it is spawned. `serials_from`: how many numbers of each
    identity an authority before this one may have used."""

    address: str
    directory: str
    backdate_s: int
    identities: tuple[str, ...]
    serials_from: int = 0


class Files(NamedTuple):
    """Open files of an authority. `page` is the clock page of the node whose clocks it shares (its
    first entry is the wall clock in ns), or -1 where it shares the kernel's own clocks (in a
    guest)."""

    control: socket.socket
    listener: int
    page: int


@dataclass(frozen=True)
class State:
    """How it dates and signs: see plan.AuthorityState, whose words these are."""

    ahead_wall_ns: int = 0
    lifetime_s: int | None = None
    root: int = 0


class CertificateService:
    """Answers requests as the mode of the moment says, and tells of each."""

    def __init__(
        self,
        authority: CertificateAuthority,
        identities: tuple[str, ...],
        now_wall_ns: Callable[[], int],
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        self.mode: Mode = "up"
        self.state = State()
        self._authority, self._now_wall_ns, self._tell = authority, now_wall_ns, tell
        self._roots = {0: authority}
        self._taken: list[asyncio.Event] = []
        self._serials = {
            name: (place + 1) * SERIALS_PER_IDENTITY for place, name in enumerate(identities)
        }

    async def create_certificate(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        """CreateCertificate. A request taken in mode ca_hang is never answered, whatever the mode
        becomes; one taken in mode ca_slow is signed and answered when `answer` says so."""
        from meshwake.authority.proto.citadel_pb2 import IstioCertificateResponse

        request = await stream.recv_message()
        assert request is not None
        identity = requested_identity(request.csr)
        outcome = OUTCOMES[self.mode]
        if outcome != "issued":
            self._tell({"identity": identity, "outcome": outcome} | dict.fromkeys(_ISSUED_KEYS))
            await self._decline(outcome)
        if self.mode == "ca_slow":
            await self._hold(identity)
        serial = self._next_serial(identity)
        now_wall_s = (self._now_wall_ns() + self.state.ahead_wall_ns) // NS_PER_S
        lifetime_s = self.state.lifetime_s or request.validity_duration
        signed = self._signer().sign(request.csr, lifetime_s, now_wall_s, serial)
        dates = {
            "not_before_wall_s": signed.not_before_wall_s,
            "not_after_wall_s": signed.not_after_wall_s,
        }
        self._tell({"identity": identity, "outcome": outcome, "serial": str(serial)} | dates)
        await stream.send_message(IstioCertificateResponse(cert_chain=list(signed.chain)))

    async def _hold(self, identity: str) -> None:
        self._taken.append(asyncio.Event())
        self._tell({"identity": identity, "taken": len(self._taken) - 1})
        await self._taken[-1].wait()

    def answer(self, taken: list[int]) -> None:
        """Requests that were taken in mode ca_slow are answered now; those of whom nobody waits any
        more are not."""
        for number in taken:
            self._taken[number].set()

    def _signer(self) -> CertificateAuthority:
        """Another root is made when it is first needed, and kept."""
        if self.state.root not in self._roots:
            self._roots[self.state.root] = CertificateAuthority(self._authority.backdate_s)
        return self._roots[self.state.root]

    async def _decline(self, outcome: str) -> None:
        if outcome == "hung":
            await asyncio.Event().wait()
        if outcome == "refused":
            raise GRPCError(Status.UNAVAILABLE, "the authority is away")
        raise GRPCError(Status.UNAUTHENTICATED, "the token has expired")

    def leave_out(self, serials: int) -> None:
        """The next certificate of each identity has a number this much further on."""
        self._serials = {name: serial + serials for name, serial in self._serials.items()}

    def _next_serial(self, identity: str) -> int:
        self._serials.setdefault(identity, (len(self._serials) + 1) * SERIALS_PER_IDENTITY)
        self._serials[identity] += 1
        return self._serials[identity]

    def __mapping__(self) -> Mapping[str, grpclib.const.Handler]:
        from meshwake.authority.proto.citadel_pb2 import (
            IstioCertificateRequest,
            IstioCertificateResponse,
        )

        cardinality = grpclib.const.Cardinality.UNARY_UNARY
        handler = grpclib.const.Handler(
            self.create_certificate, cardinality, IstioCertificateRequest, IstioCertificateResponse
        )
        return {METHOD: handler}


_ISSUED_KEYS = ("serial", "not_before_wall_s", "not_after_wall_s")


def tls_context(authority: CertificateAuthority, address: str, directory: Path) -> ssl.SSLContext:
    """Server side of TLS as ztunnel wants it: HTTP/2 by ALPN, a certificate for the address; leaves
    no key behind."""
    credentials = directory / "server.pem"
    credentials.touch(mode=0o600)
    credentials.write_text(authority.server_credentials(address))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials)
    credentials.unlink()
    context.set_alpn_protocols(["h2"])
    return context


async def _serve(
    settings: Settings, files: Files, authority: CertificateAuthority, context: ssl.SSLContext
) -> None:
    from meshwake.authority.proto import citadel_pb2  # noqa: F401  # loaded here, and not at the first request

    files.control.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=files.control)

    def tell(message: dict[str, Any]) -> None:
        writer.write((json.dumps(message) + "\n").encode())

    service = CertificateService(authority, settings.identities, _wall_clock(files.page), tell)
    service.leave_out(settings.serials_from)
    discovery = DiscoveryService()
    server = grpclib.server.Server([service, discovery])
    await server.start(sock=socket.socket(fileno=files.listener), ssl=context)
    tell({"heard": 0})
    while line := await reader.readline():
        order = json.loads(line)
        if "mode" in order:
            service.mode = order["mode"]
        if "state" in order:
            service.state = State(**order["state"])
        if "answer" in order:
            service.answer(order["answer"])
        if "workloads" in order:
            discovery.set_workloads(order["workloads"])
        tell({"heard": order["number"]})
    server.close()


def _wall_clock(page: int) -> Callable[[], int]:
    if page < 0:
        return time.time_ns
    shown = mmap.mmap(page, mmap.PAGESIZE, prot=mmap.PROT_READ)
    return lambda: int(struct.unpack_from("<q", shown, 0)[0])


class AuthorityProcess:
    """The authority as its starter sees it. Lives until `close` or until its starter dies."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, directory: Path
    ) -> None:
        self.pid, self._process, self._control = process.pid, process, control
        self.root_file = directory / ROOT_FILE
        self._log = directory / LOG
        self._received = b""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._requests: list[dict[str, Any]] = []
        self._orders, self._heard = 0, -1
        self._await_heard("that it is up")

    def set_mode(self, mode: Mode) -> None:
        """From now on requests are answered so; returns when the authority has it."""
        self._order(f"that it is in mode {mode!r}", mode=mode)

    def set_state(self, state: State) -> None:
        """From now on it dates and signs so."""
        self._order("that it dates and signs as told", state=asdict(state))

    def set_workloads(self, workloads: list[dict[str, str]]) -> None:
        """From now on these are the workloads that discovery tells of (see discovery.py)."""
        self._order("that it knows the workloads", workloads=workloads)

    def answer(self, taken: list[int]) -> None:
        """These requests (`taken` of what `requests` told) are answered now; what comes of it
        `requests` will tell."""
        self._order("that it answers what it had taken", answer=taken)

    def _order(self, expected: str, **order: Any) -> None:
        self._orders += 1
        self._control.settimeout(_START_WITHIN_S)
        self._control.sendall((json.dumps(order | {"number": self._orders}) + "\n").encode())
        self._await_heard(expected)

    def fileno(self) -> int:
        """What becomes readable when it has something to say."""
        return self._control.fileno()

    def requests(self) -> list[dict[str, Any]]:
        """What it has been asked since the last call: identity, outcome, serial and dates (see
        Settings); in mode ca_slow first identity and `taken`, a number for `answer`."""
        while self._poll.poll(
            0
        ):  # asked at every look whether all is quiet: an exception would cost ten times as much
            self._take(self._receive())
        requests, self._requests = self._requests, []
        return requests

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._control.close()

    def _await_heard(self, expected: str) -> None:
        deadline = Deadline(f"the authority to say {expected}", _START_WITHIN_S, SubjectFailed)
        try:
            while self._heard != self._orders:
                # 0 would make the socket non-blocking, which ends with another error.
                self._control.settimeout(max(deadline.remaining_s, 0.001))
                self._take(self._receive())
        except TimeoutError as error:
            raise deadline.error() from error

    def _receive(self) -> bytes:
        try:
            return self._control.recv(65536)
        except ConnectionResetError:
            return b""

    def _take(self, data: bytes) -> None:
        if not data:
            raise SubjectFailed(
                f"the authority ended: {self._log.read_text(errors='replace').strip()[-500:]}"
            )
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "heard" in message:
                self._heard = message["heard"]
            else:
                self._requests.append(message)


def spawn(
    page: int,
    listener: socket.socket,
    address: str,
    directory: Path,
    backdate_s: int,
    identities: tuple[str, ...],
    serials_from: int = 0,
    begun: Begun | None = None,
) -> AuthorityProcess:
    """Starts an authority, or tells one that has `begun`: it listens on `listener`, reads the wall
    clock from the clock page `page` (a file descriptor), and writes its root certificate and its
    log into `directory`. Raises SubjectFailed."""
    process, control = begun or begin(directory)
    settings = Settings(address, str(directory), backdate_s, identities, serials_from)
    told = json.dumps(asdict(settings)).encode() + b"\n"
    with suppress(BrokenPipeError):  # it has ended, and its log says why
        socket.send_fds(control, [told], [file for file in (listener.fileno(), page) if file >= 0])
    return AuthorityProcess(process, control, directory)


def _await_settings(control: socket.socket) -> tuple[Settings, Files] | None:
    """None: whoever let this process begin needs it no more."""
    data, files, _, _ = socket.recv_fds(control, 1 << 16, 2)
    while data and not data.endswith(b"\n"):
        more = control.recv(1 << 16)
        data = data + more if more else b""
    if not data:
        return None
    raw = json.loads(data)
    listener, *page = files
    return Settings(**raw | {"identities": tuple(raw["identities"])}), Files(
        control, listener, *(page or [-1])
    )


def main() -> None:
    """Entry point of the process that `begin` starts."""
    from meshwake.system.libc import die_with_parent

    die_with_parent(int(sys.argv[1]))
    told = _await_settings(socket.socket(fileno=int(sys.argv[2])))
    if told is None:
        return
    settings, files = told
    authority = CertificateAuthority(settings.backdate_s)
    Path(settings.directory, ROOT_FILE).write_text(authority.root_pem)
    context = tls_context(authority, settings.address, Path(settings.directory))
    asyncio.run(_serve(settings, files, authority, context))


if __name__ == "__main__":
    main()
