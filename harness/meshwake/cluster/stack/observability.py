"""Who watches the cluster: Prometheus, Alertmanager, Grafana, and a wake guard that reports what
ztunnel does not.

Everything runs from the files in clusters/observability/, which their own checkers read (promtool,
amtool: see tests/integration/stack/test_observability.py). A job that scrapes what a choice leaves
out is left out too: its targets would be down for ever, which teaches people to look away. The
rules are those that docs/alerts.md offers everybody.

The guard only looks, so that it is none of the fixes that are tried; its image is built
(own_images.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.config import config_map, with_digest, with_images
from meshwake.cluster.stack.own_images import GUARD
from meshwake.cluster.stack.pieces import (
    OBSERVABILITY_NAMESPACE,
    Stage,
    labelled_objects,
    read_objects,
    read_values,
)
from meshwake.cluster.stack.pins import Pins
from meshwake.core.resources import CLUSTERS
from meshwake.ztunnel.names import ISTIO_NAMESPACE

FOLDER = "observability"
# Prometheus finds them by their name alone.
RULE_FILES = ("alerts/mesh.yml", "as_reported.yml")
ALERTMANAGER_FILE = "alerts/alertmanager.yml"
DASHBOARDS = ("certificates.json", "istio.json", "hubble.json")
# What a job scrapes or a dashboard shows is there when one of these parts is on; those not named
# here are always there.
PARTS_OF_JOB: Mapping[str, frozenset[str]] = {
    "ztunnel": frozenset({"istio"}),
    "istiod": frozenset({"istio"}),
    "istio-cni": frozenset({"istio"}),
    "proxies": frozenset({"gateway", "waypoint"}),
    "cilium": frozenset({"cilium"}),
    "hubble": frozenset({"hubble"}),
    "cert-manager": frozenset({"cert-manager"}),
}
PARTS_OF_DASHBOARD: Mapping[str, frozenset[str]] = {
    "istio.json": frozenset({"istio"}),
    "hubble.json": frozenset({"cilium"}),
}


def observability_stages(choice: Choice, pins: Pins) -> tuple[Stage, ...]:
    """The step that puts the watchers in; none if the part "observability" is off."""
    if "observability" not in choice.parts:
        return ()
    namespace, *rest = read_objects(FOLDER, "objects.yaml")
    if "istio" not in choice.parts:  # that namespace, and ztunnel, are missing then
        rest = [each for each in rest if each["metadata"].get("namespace") != ISTIO_NAMESPACE]
    configuration = configuration_maps(choice)
    programs = with_digest(
        with_images(rest, {**pins.images, "wake-guard": GUARD.reference}), configuration
    )
    return (
        Stage(
            name="observability",
            title="Prometheus, Alertmanager, Grafana, a guard that looks",
            pieces=(labelled_objects("observability", [namespace, *configuration, *programs]),),
        ),
    )


def configuration_maps(choice: Choice) -> list[dict[str, Any]]:
    """The ConfigMaps that the watchers run from."""
    contents: dict[str, dict[str, str]] = {
        "prometheus": {"prometheus.yml": prometheus_yml(choice)}
        | {name.rpartition("/")[2]: _text(name) for name in RULE_FILES},
        "alertmanager": {"alertmanager.yml": _text(ALERTMANAGER_FILE)},
        "grafana-datasources": {"datasources.yml": _text("datasources.yml")},
        "grafana-providers": {"dashboards.yml": _text("dashboards.yml")},
        "grafana-dashboards": {
            name: dashboard(name) for name in DASHBOARDS if _there(name, PARTS_OF_DASHBOARD, choice)
        },
    }
    return [
        config_map(OBSERVABILITY_NAMESPACE, name, content) for name, content in contents.items()
    ]


def prometheus_yml(choice: Choice) -> str:
    """prometheus.yml without the jobs that would find nothing in a cluster of this choice."""
    config = read_values(FOLDER, "prometheus.yml")
    # A target that can never be up would raise an alert for ever.
    config["scrape_configs"] = [
        job for job in config["scrape_configs"] if _there(job["job_name"], PARTS_OF_JOB, choice)
    ]
    return yaml.safe_dump(config, sort_keys=False, width=1000)


def dashboard(name: str) -> str:
    """A dashboard as Grafana reads it, on one line: all of them must fit into one ConfigMap."""
    return json.dumps(json.loads(_text("dashboards", name)), separators=(",", ":"))


def _there(name: str, needs: Mapping[str, Iterable[str]], choice: Choice) -> bool:
    if name not in needs:
        return True
    return not choice.parts.isdisjoint(needs[name])


def _text(*parts: str) -> str:
    return CLUSTERS.joinpath(FOLDER, *parts).read_text(encoding="utf-8")
