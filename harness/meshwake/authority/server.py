"""The authority as a process of its own: `istio.v1.auth.IstioCertificateService` over TLS, on one
thread.

One thread and no timers, because the process lab moves time only when every thread is asleep: a
server that wakes up by itself could not be distinguished from one that has something to do.
(grpclib on asyncio; the C core of grpcio keeps a dozen threads with timers of their own.)

It is started by `spawn`. Its starter and it exchange JSON over a socket, one object a line:
commands such as a mode, which it acknowledges by their number; and a report of every request, sent
before the request is answered.
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
from typing import Any, Literal, NamedTuple, TypedDict

import grpclib.const
import grpclib.server
from grpclib import GRPCError, Status

from meshwake.authority.begin import LOG, Begun, begin
from meshwake.authority.ca import CertificateAuthority, requested_identity
from meshwake.authority.discovery import DiscoveryService
from meshwake.core.authority_state import AuthorityState
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import SubjectFailed
from meshwake.core.events import Outcome
from meshwake.system.deadline import Deadline

Mode = Literal["up", "ca_outage", "ca_hang", "ca_slow", "token_expired"]
OUTCOMES: dict[Mode, Outcome] = {
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
# The serial number encodes the identity and its issue count, so that it does not depend on the
# order in which requests arrive: the third certificate of the second identity is 2000003.
SERIALS_PER_IDENTITY = 1_000_000


@dataclass(frozen=True)
class AuthoritySettings:
    """What an authority gets when it is spawned. `serials_from`: how many numbers of each identity
    an authority before this one may have used."""

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


class RequestReport(TypedDict, total=False):
    """What the authority reports of a request. Of one that is held (mode ca_slow) first `identity`
    and `taken`, a number for `answer`; of one that is decided `identity`, `outcome`, the serial and
    the dates, which are None unless it was issued."""

    identity: str
    taken: int
    outcome: Outcome
    serial: str | None
    not_before_wall_s: int | None
    not_after_wall_s: int | None


class CertificateService:
    """Answers requests as the current mode says, and reports each."""

    def __init__(
        self,
        authority: CertificateAuthority,
        identities: tuple[str, ...],
        now_wall_ns: Callable[[], int],
        report: Callable[[RequestReport], None],
    ) -> None:
        self.mode: Mode = "up"
        self.state = AuthorityState()
        self._authority, self._now_wall_ns, self._report = authority, now_wall_ns, report
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

        # Of the mode in which the request came: a slow answer is issued whatever the mode is then.
        outcome = OUTCOMES[self.mode]
        if outcome != "issued":
            self._report(
                {
                    "identity": identity,
                    "outcome": outcome,
                    "serial": None,
                    "not_before_wall_s": None,
                    "not_after_wall_s": None,
                }
            )
            await self._decline(outcome)
        if self.mode == "ca_slow":
            await self._hold(identity)
        serial = self._next_serial(identity)
        now_wall_s = (self._now_wall_ns() + self.state.ahead_wall_ns) // NS_PER_S
        lifetime_s = self.state.lifetime_s or request.validity_duration
        signed = self._signer().sign(request.csr, lifetime_s, now_wall_s, serial)
        self._report(
            {
                "identity": identity,
                "outcome": outcome,
                "serial": str(serial),
                "not_before_wall_s": signed.not_before_wall_s,
                "not_after_wall_s": signed.not_after_wall_s,
            }
        )
        await stream.send_message(IstioCertificateResponse(cert_chain=list(signed.chain)))

    async def _hold(self, identity: str) -> None:
        self._taken.append(asyncio.Event())
        self._report({"identity": identity, "taken": len(self._taken) - 1})
        await self._taken[-1].wait()

    def answer(self, taken: list[int]) -> None:
        """Answers requests that were taken in mode ca_slow. One whose sender has given up gets no
        answer."""
        for number in taken:
            self._taken[number].set()

    def _signer(self) -> CertificateAuthority:
        """Another root is made when it is first needed, and kept."""
        if self.state.root not in self._roots:
            self._roots[self.state.root] = CertificateAuthority(self._authority.backdate_s)
        return self._roots[self.state.root]

    async def _decline(self, outcome: str) -> None:
        # Nothing ever sets it.
        if outcome == "hung":
            await asyncio.Event().wait()
        if outcome == "refused":
            raise GRPCError(Status.UNAVAILABLE, "the authority is unavailable")
        raise GRPCError(Status.UNAUTHENTICATED, "the token has expired")

    def leave_out(self, serials: int) -> None:
        """The next certificate of each identity has a number this much further on."""
        self._serials = {name: serial + serials for name, serial in self._serials.items()}

    def _next_serial(self, identity: str) -> int:
        # One that the scenario does not name: behind all that it does.
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


def tls_context(authority: CertificateAuthority, address: str, directory: Path) -> ssl.SSLContext:
    """Server side of TLS as ztunnel wants it: HTTP/2 by ALPN, a certificate for the address; leaves
    no key behind."""
    # ssl loads a key from a file only: one that no other user may read, for as long as it takes.
    credentials = directory / "server.pem"
    credentials.touch(mode=0o600)
    credentials.write_text(authority.server_credentials(address))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(credentials)
    credentials.unlink()
    context.set_alpn_protocols(["h2"])
    return context


class _Acknowledgement(TypedDict):
    """The number of the last command that has been carried out; 0: it is up."""

    acknowledged: int


async def _serve(
    settings: AuthoritySettings,
    files: Files,
    authority: CertificateAuthority,
    context: ssl.SSLContext,
) -> None:
    from meshwake.authority.proto import citadel_pb2  # noqa: F401  # loaded here, and not at the first request

    files.control.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=files.control)

    def send(message: RequestReport | _Acknowledgement) -> None:
        writer.write((json.dumps(message) + "\n").encode())

    service = CertificateService(authority, settings.identities, _wall_clock(files.page), send)
    service.leave_out(settings.serials_from)
    discovery = DiscoveryService()
    server = grpclib.server.Server([service, discovery])
    await server.start(sock=socket.socket(fileno=files.listener), ssl=context)
    send({"acknowledged": 0})
    while line := await reader.readline():
        command = json.loads(line)
        if "mode" in command:
            service.mode = command["mode"]
        if "state" in command:
            service.state = AuthorityState(**command["state"])
        if "answer" in command:
            service.answer(command["answer"])
        if "workloads" in command:
            discovery.set_workloads(command["workloads"])
        send({"acknowledged": command["number"]})
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
        self._reports: list[RequestReport] = []
        self._commands, self._acknowledged = 0, -1
        self._await_acknowledgement("that it is up")

    def set_mode(self, mode: Mode) -> None:
        """From now on requests are answered so; returns when the authority has it."""
        self._command(f"that it is in mode {mode!r}", mode=mode)

    def set_state(self, state: AuthorityState) -> None:
        """From now on it dates and signs so."""
        self._command("how it dates and signs now", state=state._asdict())

    def set_workloads(self, workloads: list[dict[str, str]]) -> None:
        """From now on these are the workloads that discovery serves (see discovery.py)."""
        self._command("that it has the workloads", workloads=workloads)

    def answer(self, taken: list[int]) -> None:
        """Answers these requests (`taken` of what `requests` returned); `requests` will report the
        outcome."""
        self._command("that it answers what it had taken", answer=taken)

    def _command(self, expected: str, **command: object) -> None:
        self._commands += 1
        self._control.settimeout(_START_WITHIN_S)
        self._control.sendall((json.dumps(command | {"number": self._commands}) + "\n").encode())
        self._await_acknowledgement(expected)

    def fileno(self) -> int:
        """A file descriptor that becomes readable when there is something to receive."""
        return self._control.fileno()

    def requests(self) -> list[RequestReport]:
        """The requests that it received or answered since the last call, in order."""
        # Called whenever the lab looks whether all is quiescent: to read a non-blocking socket that
        # is empty, and to catch what that raises, would cost ten times as much.
        while self._poll.poll(0):
            self._take(self._receive())
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        self._control.close()

    def _await_acknowledgement(self, expected: str) -> None:
        deadline = Deadline(f"the authority to say {expected}", _START_WITHIN_S, SubjectFailed)
        try:
            while self._acknowledged != self._commands:
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
        # The last piece is a line that has not come whole, or empty.
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "acknowledged" in message:
                self._acknowledged = message["acknowledged"]
            else:
                self._reports.append(message)


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
    """Starts an authority, or sets up one that has `begun`: it listens on `listener`, reads the
    wall clock from the clock page `page` (a file descriptor), and writes its root certificate and
    its log into `directory`. Raises SubjectFailed."""
    process, control = begun or begin(directory)
    settings = AuthoritySettings(address, str(directory), backdate_s, identities, serials_from)
    line = json.dumps(asdict(settings)).encode() + b"\n"

    # Where it has ended already, AuthorityProcess raises with what its log has.
    with suppress(BrokenPipeError):
        socket.send_fds(control, [line], [file for file in (listener.fileno(), page) if file >= 0])
    return AuthorityProcess(process, control, directory)


def _await_settings(control: socket.socket) -> tuple[AuthoritySettings, Files] | None:
    """The settings and open files that `spawn` sends; None when its starter does not need it any
    more."""
    # Files come with the first bytes; the rest of a long line may come later.
    data, files, _, _ = socket.recv_fds(control, 1 << 16, 2)
    while data and not data.endswith(b"\n"):
        more = control.recv(1 << 16)
        data = data + more if more else b""
    if not data:
        return None
    raw = json.loads(data)
    listener, *page = files
    return AuthoritySettings(**raw | {"identities": tuple(raw["identities"])}), Files(
        control, listener, *(page or [-1])
    )


def main() -> None:
    """Entry point of the process that `begin` starts."""
    from meshwake.system.libc import die_with_parent

    die_with_parent(int(sys.argv[1]))
    received = _await_settings(socket.socket(fileno=int(sys.argv[2])))
    if received is None:
        return
    settings, files = received
    authority = CertificateAuthority(settings.backdate_s)
    Path(settings.directory, ROOT_FILE).write_text(authority.root_pem)
    context = tls_context(authority, settings.address, Path(settings.directory))
    asyncio.run(_serve(settings, files, authority, context))


if __name__ == "__main__":
    main()
