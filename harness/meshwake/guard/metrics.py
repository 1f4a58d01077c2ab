"""What the guard exports to Prometheus. The names are a promise: alerts and dashboards are written
against them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock, Thread

from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.guard.watch import ObservedProcess

TARGETS = ("ztunnel", "proxy")
REASONS = ("settling", "cooldown", "authority-away", "another-node")
DRIFT, LATE = "meshwake_guard_drift_seconds", "meshwake_guard_renewal_late_seconds"
NOT_BEFORE = "meshwake_guard_certificate_not_before_timestamp_seconds"
NOT_AFTER = "meshwake_guard_certificate_not_after_timestamp_seconds"
RESTARTS, HELD_BACK = "meshwake_guard_restarts_total", "meshwake_guard_restarts_held_back_total"
LAST_LOOK = "meshwake_guard_last_look_timestamp_seconds"
HELP = {
    DRIFT: "By how much wall and monotonic clock parted since the process started",
    LATE: "By how much the certificate renewals of the process will come late",
    NOT_BEFORE: "When a certificate that the process serves begins to be valid, in Unix time",
    NOT_AFTER: "When a certificate that the process serves expires, in Unix time",
    RESTARTS: "Restarts done",
    HELD_BACK: "Restarts that were due and had to wait",
    LAST_LOOK: "When the guard last looked, in Unix time",
}
_Labels = tuple[tuple[str, str], ...]


class PrometheusMetrics:
    """See guard.Metrics; of node `node`, in Prometheus' text format. It may be read from
    another thread."""

    def __init__(self, node: str) -> None:
        self._node = node

        # The page is read by a thread of its own.
        self._lock = RLock()
        self._values: dict[str, dict[_Labels, float]] = {name: {} for name in HELP}

        # From the beginning at zero, so that an increase shows at the first scrape.
        self._set(LAST_LOOK, 0)
        for target in TARGETS:
            self._set(RESTARTS, 0, target=target)
        for reason in REASONS:
            self._set(HELD_BACK, 0, reason=reason)

    def text(self) -> str:
        """All of it, as `GET /metrics` answers."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines())

    def looked(self, now: ClockReading, seen: Sequence[tuple[ObservedProcess, int]]) -> None:
        """See guard.Metrics. At once: asking takes seconds, and a scrape meanwhile must not find
        half of it. Of a process with no sleep behind it, renewals are late by nothing; of one whose
        clock was set back they come early, which is less than nothing."""
        with self._lock:
            for name in (DRIFT, LATE, NOT_BEFORE, NOT_AFTER):
                self._values[name].clear()
            self._set(LAST_LOOK, now.wall_ns / NS_PER_S)
            for process, drift_ns in seen:
                self._set(DRIFT, drift_ns / NS_PER_S, process=process.name)
                self._set(LATE, drift_ns / NS_PER_S, process=process.name)
                for held in process.certificates:
                    for name, wall_ns in (
                        (NOT_BEFORE, held.not_before_wall_ns),
                        (NOT_AFTER, held.not_after_wall_ns),
                    ):
                        self._set(
                            name, wall_ns / NS_PER_S, process=process.name, identity=held.identity
                        )

    def restarted(self, target: str) -> None:
        """See guard.Metrics."""
        self._set(RESTARTS, 1, plus=True, target=target)

    def held_back(self, reason: str) -> None:
        """See guard.Metrics."""
        self._set(HELD_BACK, 1, plus=True, reason=reason)

    def _set(self, name: str, value: float, *, plus: bool = False, **labels: str) -> None:
        key = (("node", self._node), *labels.items())
        with self._lock:
            self._values[name][key] = value + (self._values[name].get(key, 0) if plus else 0)

    def _lines(self) -> Iterator[str]:
        for name, values in self._values.items():
            # The suffix is the rule of Prometheus for the names of counters.
            kind = "counter" if name.endswith("_total") else "gauge"
            yield f"# HELP {name} {HELP[name]}"
            yield f"# TYPE {name} {kind}"

            for labels, value in values.items():
                words = [f'{label}="{_escaped(text)}"' for label, text in labels]
                yield f"{name}{{{','.join(words)}}} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def serve(metrics: PrometheusMetrics, port: int) -> ThreadingHTTPServer:
    """Answers `GET /metrics` on `port`, on a thread of its own, until `shutdown`. Raises OSError."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = metrics.text().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as above
            """Scrapes are nothing to write down."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """The client did not wait for the answer."""

    server = Server(("", port), Handler)
    Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
