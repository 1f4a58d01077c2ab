"""By what our objects are known in a cluster. Everything we make carries `OUR_LABELS`; nothing else
is ever deleted."""

from __future__ import annotations

from collections.abc import Mapping

FIELD_MANAGER = "meshwake"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
OUR_LABELS: Mapping[str, str] = {MANAGED_BY_LABEL: "meshwake"}
# What belongs to one run, and goes with it.
RUN_LABELS: Mapping[str, str] = {"meshwake.dev/run": "true"}


def is_ours(labels: Mapping[str, str] | None) -> bool:
    """Whether an object with these labels was made here."""
    return OUR_LABELS.items() <= (labels or {}).items()
