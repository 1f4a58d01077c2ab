"""What the guard tells Prometheus. The names are a promise: alerts and dashboards are written against them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from harness.clocks.reading import ClockReading
from harness.durations import NS_PER_S
from harness.fixes.watch import Seen

TARGETS = ("ztunnel", "proxy")
REASONS = ("settling", "cooldown", "authority-away", "another-node")


class PrometheusMetrics:
    """See guard.Metrics; everything is in `registry`, and of node `node`."""

    def __init__(self, node: str, registry: CollectorRegistry) -> None:
        self._node = node
        of_process = ("node", "process")
        self._drift = Gauge(
            "meshwake_guard_drift_seconds",
            "By how much wall and monotonic clock parted since the process started",
            of_process,
            registry=registry,
        )
        self._late = Gauge(
            "meshwake_guard_renewal_late_seconds",
            "By how much the certificate renewals of the process will come late",
            of_process,
            registry=registry,
        )
        self._not_after = Gauge(
            "meshwake_guard_certificate_not_after_timestamp_seconds",
            "When a certificate that the process serves expires, in Unix time",
            (*of_process, "identity"),
            registry=registry,
        )
        self._restarts = Counter("meshwake_guard_restarts", "Restarts done", ("node", "target"), registry=registry)
        self._held_back = Counter(
            "meshwake_guard_restarts_held_back",
            "Restarts that were due and had to wait",
            ("node", "reason"),
            registry=registry,
        )
        self._last_look = Gauge(
            "meshwake_guard_last_look_timestamp_seconds",
            "When the guard last looked, in Unix time",
            ("node",),
            registry=registry,
        )
        # From the beginning at zero, so that an increase is one for whoever scrapes.
        for target in TARGETS:
            self._restarts.labels(node, target)
        for reason in REASONS:
            self._held_back.labels(node, reason)

    def looked(self, now: ClockReading) -> None:
        """See guard.Metrics."""
        self._last_look.labels(self._node).set(now.wall_ns / NS_PER_S)
        for of_processes in (self._drift, self._late, self._not_after):
            of_processes.clear()

    def seen(self, process: Seen, drift_ns: int) -> None:
        """See guard.Metrics. Of a process with no sleep behind it, renewals are late by nothing; of one whose clock was
        set back they come early, which is less than nothing."""
        self._drift.labels(self._node, process.name).set(drift_ns / NS_PER_S)
        self._late.labels(self._node, process.name).set(drift_ns / NS_PER_S)
        for held in process.certificates:
            self._not_after.labels(self._node, process.name, held.identity).set(held.not_after_wall_ns / NS_PER_S)

    def restarted(self, target: str) -> None:
        """See guard.Metrics."""
        self._restarts.labels(self._node, target).inc()

    def held_back(self, reason: str) -> None:
        """See guard.Metrics."""
        self._held_back.labels(self._node, reason).inc()
