"""The alert rules that go by the guard's metrics, and its scrape configuration, as objects of the
Prometheus Operator. Without an operator the rule file itself is what Prometheus reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from meshwake.core.resources import CLUSTERS
from meshwake.guard import names

RULES: Path = CLUSTERS / "observability" / "alerts" / "mesh.yml"
_OPERATOR = "monitoring.coreos.com/v1"


def alert_objects(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """A PodMonitor and a PrometheusRule, in the guard's namespace. `labels` are those by which
    your Prometheus chooses them, such as release=kube-prometheus-stack."""
    metadata = {
        "name": names.NAME,
        "namespace": names.NAMESPACE,
        "labels": {**names.OBJECT_LABELS, **labels},
    }
    monitor = {
        "selector": {"matchLabels": dict(names.LABELS)},
        "podMetricsEndpoints": [{"port": "metrics", "path": "/metrics", "interval": "30s"}],
    }
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [
        {"apiVersion": _OPERATOR, "kind": "PodMonitor", "metadata": metadata, "spec": monitor},
        {
            "apiVersion": _OPERATOR,
            "kind": "PrometheusRule",
            "metadata": metadata,
            "spec": {"groups": groups},
        },
    ]
