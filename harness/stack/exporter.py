"""What ztunnel has no metric for, as metrics: certificates' time left, renewals late, how far its clocks have parted.

No release of ztunnel exports a certificate's expiry (istio/ztunnel#1748), and `istio_agent_cert_expiry_seconds` is
pilot-agent's. What ztunnel does have is /config_dump, on its own localhost. So one of these runs on every node: finds
the node's ztunnel processes in /proc, asks each from within its network namespace, and tells Prometheus.

It goes by the node and not by the API server on purpose: after a jump of hours a token that was handed to a pod has
expired, and a watcher that needs one goes blind when there is something to see. It holds no state on disk, needs
nothing but Python's own library (it is mounted into a plain Python image from a ConfigMap), and changes nothing.

Times are told by the node's own wall clock at the moment of the scrape. Two limits: drift counts from when this
program first saw a ztunnel process; and where single processes are given other clocks (`--clock process`), the node's
are not what those processes see: there the run's own history tells.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PORT = 9464
ADMIN_PORT = 15000
ANSWER_WITHIN_S = 3.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METRICS: Mapping[str, str] = {
    "meshwake_ztunnel_up": "1: its config_dump was read; 0: it was not",
    "meshwake_ztunnel_certificate_not_before_timestamp_seconds": "notBefore of the certificate it serves",
    "meshwake_ztunnel_certificate_not_after_timestamp_seconds": "notAfter of the certificate it serves",
    "meshwake_ztunnel_certificate_left_seconds": "notAfter minus the node's wall clock; negative: expired",
    "meshwake_ztunnel_certificate_left_ratio": "the same as a part of its whole life; 0.5 when renewal is due",
    "meshwake_ztunnel_renewal_late_seconds": "how long renewal has been due (half of the life); 0: not due yet",
    "meshwake_ztunnel_certificate_unavailable": "1: it holds no certificate for this identity, for an error it names",
    "meshwake_ztunnel_clock_drift_seconds": "by how much wall ran ahead of monotonic since its process was first seen",
    "meshwake_node_wall_minus_monotonic_seconds": "CLOCK_REALTIME minus CLOCK_MONOTONIC; moves with every time jump",
}
_CLONE_NEWNET = 0x40000000
_SPIFFE = re.compile(r"spiffe://[^/]+/ns/([^/]+)/sa/(.+)")
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Clocks:
    """The node's clocks at one moment."""

    wall_s: float
    monotonic_s: float

    @property
    def apart_s(self) -> float:
        """Wall minus monotonic: what every jump adds to."""
        return self.wall_s - self.monotonic_s


@dataclass(frozen=True)
class Process:
    """One ztunnel process: its pid, when it started (in ticks, so that a pid used again is another), its pod."""

    pid: int
    started_ticks: int
    pod: str


@dataclass(frozen=True)
class Answer:
    """What one ztunnel said; `certificates` None: nothing that could be understood."""

    process: Process
    certificates: list[dict[str, Any]] | None


def find_ztunnels(proc: Path = Path("/proc")) -> list[Process]:
    """Every ztunnel process that `proc` shows, by pid."""
    found = []
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            if (folder / "comm").read_text().strip() == "ztunnel":
                started = int((folder / "stat").read_text().rpartition(")")[2].split()[19])
                found.append(Process(int(folder.name), started, _pod_name(folder)))
        except OSError:
            continue  # it has just ended
    return found


def _pod_name(folder: Path) -> str:
    entries = (folder / "environ").read_bytes().split(b"\0")
    names = [entry.removeprefix(b"POD_NAME=") for entry in entries if entry.startswith(b"POD_NAME=")]
    return names[0].decode(errors="replace") if names else f"pid-{folder.name}"


def ask(process: Process) -> Answer:
    """Reads /config_dump from within the process's network namespace: its admin port listens on its localhost only."""
    answers: list[list[dict[str, Any]]] = []

    def within() -> None:
        # A thread of its own: it moves to the namespace, and ends there.
        try:
            _enter_network_of(process.pid)
            with closing(http.client.HTTPConnection("127.0.0.1", ADMIN_PORT, timeout=ANSWER_WITHIN_S)) as connection:
                connection.request("GET", "/config_dump")
                answers.append(list(json.loads(connection.getresponse().read())["certificates"]))
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return

    thread = threading.Thread(target=within, daemon=True)
    thread.start()
    thread.join(2 * ANSWER_WITHIN_S)
    return Answer(process, answers[0] if answers else None)


def _enter_network_of(pid: int) -> None:
    descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


class Exporter:
    """Remembers how far the clocks were apart when each process was first seen."""

    def __init__(self) -> None:
        self._apart_at_first_s: dict[Process, float] = {}
        self._lock = threading.Lock()

    def page(self, answers: list[Answer], clocks: Clocks) -> str:
        """Everything, in Prometheus' text format."""
        with self._lock:
            self._apart_at_first_s = {
                answer.process: self._apart_at_first_s.get(answer.process, clocks.apart_s) for answer in answers
            }
            drifts = dict(self._apart_at_first_s)
        samples: list[_Sample] = [("meshwake_node_wall_minus_monotonic_seconds", {}, clocks.apart_s)]
        for answer in answers:
            who = {"ztunnel": answer.process.pod}
            samples += [
                ("meshwake_ztunnel_up", who, float(answer.certificates is not None)),
                ("meshwake_ztunnel_clock_drift_seconds", who, clocks.apart_s - drifts[answer.process]),
            ]
            for entry in answer.certificates or ():
                samples += _of_certificate(entry, who, clocks.wall_s)
        return "".join(_family(name, about, samples) for name, about in METRICS.items())


_Sample = tuple[str, dict[str, str], float]


def _of_certificate(entry: Mapping[str, Any], who: Mapping[str, str], wall_s: float) -> Iterator[_Sample]:
    labels = {**who, "identity": _identity(str(entry.get("identity", "")))}
    state = entry.get("state")
    # A state is a word, or, where it carries an error, a text that begins with it or a mapping from it.
    unavailable = not isinstance(state, str) or state.startswith("Unavailable")
    yield "meshwake_ztunnel_certificate_unavailable", labels, float(unavailable)
    chain = [entry["cert"]] if "cert" in entry else entry.get("certChain") or []
    if not chain:
        return
    not_before_s, not_after_s = (_wall_s(chain[0][key]) for key in ("validFrom", "expirationTime"))
    left_s, life_s = not_after_s - wall_s, not_after_s - not_before_s
    yield "meshwake_ztunnel_certificate_not_before_timestamp_seconds", labels, not_before_s
    yield "meshwake_ztunnel_certificate_not_after_timestamp_seconds", labels, not_after_s
    yield "meshwake_ztunnel_certificate_left_seconds", labels, left_s
    yield "meshwake_ztunnel_certificate_left_ratio", labels, left_s / life_s if life_s > 0 else 0.0
    yield "meshwake_ztunnel_renewal_late_seconds", labels, max(0.0, wall_s - (not_before_s + life_s / 2))


def _identity(spiffe: str) -> str:
    match = _SPIFFE.fullmatch(spiffe)
    return f"{match[1]}/{match[2]}" if match else spiffe


def _wall_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _family(name: str, about: str, samples: list[_Sample]) -> str:
    own = [(labels, value) for sample, labels, value in samples if sample == name]
    if not own:
        return ""
    lines = [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
    lines += [f"{name}{_labels(labels)} {value!r}" for labels, value in own]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def read_clocks() -> Clocks:
    """The node's clocks now: in a container they are the kernel's."""
    return Clocks(time.clock_gettime(time.CLOCK_REALTIME), time.clock_gettime(time.CLOCK_MONOTONIC))


def server(address: str, port: int, proc: Path = Path("/proc")) -> ThreadingHTTPServer:
    """Serves /metrics; looks anew at each scrape."""
    exporter = Exporter()

    class _Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(HTTPStatus.NOT_FOUND, "only /metrics is here")
                return
            answers = [ask(process) for process in find_ztunnels(proc)]
            body = exporter.page(answers, read_clocks()).encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            """A line for each scrape would say nothing."""

    return ThreadingHTTPServer((address, port), _Handler)


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description="certificates of this node's ztunnels, for Prometheus")
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args()
    with server(options.address, options.port) as serving:
        serving.serve_forever()


if __name__ == "__main__":
    main()
