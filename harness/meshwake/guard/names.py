"""What the guard's own objects in a cluster are called, once for those who install it and for those
who read its metrics."""

from __future__ import annotations

from collections.abc import Mapping

NAMESPACE = "meshwake-guard"
# Of its DaemonSet, its service account, its roles and its first Lease.
NAME = "wake-guard"
LABELS: Mapping[str, str] = {"app": NAME}
# Of all objects, those that the guard makes itself too: by these they are removed.
OBJECT_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/name": NAME,
    "app.kubernetes.io/managed-by": "meshwake",
}
METRICS_PORT = 15099
