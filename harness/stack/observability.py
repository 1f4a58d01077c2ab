"""Who watches the cluster: Prometheus, Alertmanager, Grafana, and the exporter that tells what ztunnel does not.

Everything runs from the files in clusters/observability/, which their own checkers read (promtool, amtool: see
tests/stack/test_observability.py). What a choice leaves out is left out of them too: a job that scrapes what was never
installed is down for ever, and an alert for data that cannot come fires for ever; both would teach people to look away.

The exporter (harness/stack/exporter.py) is mounted into a plain Python image, so that no image of ours must be built.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.stack.choice import Choice
from harness.stack.config import config_map, with_digest, with_images
from harness.stack.pieces import (
    CLUSTERS_DIR,
    OBSERVABILITY_NAMESPACE,
    Stage,
    labelled_objects,
    read_objects,
    read_values,
)
from harness.stack.pins import Pins

FOLDER = "observability"
RULE_FILES = ("rules.yml", "as_reported.yml")
DASHBOARDS = ("certificates.json", "istio.json", "hubble.json")
EXPORTER = Path(__file__).with_name("exporter.py")
# What a job scrapes, a rule awaits or a dashboard shows is there when one of these parts is on; those not named here
# are always there.
PARTS_OF_JOB: Mapping[str, frozenset[str]] = {
    "ztunnel": frozenset({"istio"}),
    "istiod": frozenset({"istio"}),
    "istio-cni": frozenset({"istio"}),
    "proxies": frozenset({"gateway", "waypoint"}),
    "cilium": frozenset({"cilium"}),
    "hubble": frozenset({"hubble"}),
    "cert-manager": frozenset({"cert-manager"}),
}
PARTS_OF_ALERT: Mapping[str, frozenset[str]] = {
    "ZtunnelCertificatesUnseen": frozenset({"istio"}),
    "ProxyCertificatesUnseen": frozenset({"gateway", "waypoint"}),
}
PARTS_OF_DASHBOARD: Mapping[str, frozenset[str]] = {
    "istio.json": frozenset({"istio"}),
    "hubble.json": frozenset({"cilium"}),
}
_ROLLED_OUT_WITHIN_S = 300


def observability_stages(choice: Choice, pins: Pins) -> tuple[Stage, ...]:
    """The step that puts the watchers in; none if the part "observability" is off."""
    if "observability" not in choice.parts:
        return ()
    namespace, *rest = read_objects(FOLDER, "objects.yaml")
    configuration = configuration_maps(choice)
    programs = with_digest(with_images(rest, pins.images), configuration)
    return (
        Stage(
            name="observability",
            title="Prometheus, Alertmanager, Grafana, exporter",
            pieces=(labelled_objects("observability", [namespace, *configuration, *programs]),),
            within_s=2 * _ROLLED_OUT_WITHIN_S,
        ),
    )


def configuration_maps(choice: Choice) -> list[dict[str, Any]]:
    """The ConfigMaps that the watchers run from."""
    contents: dict[str, dict[str, str]] = {
        "prometheus": {"prometheus.yml": prometheus_yml(choice)}
        | {name: rules_yml(name, choice) for name in RULE_FILES},
        "alertmanager": {"alertmanager.yml": _text("alertmanager.yml")},
        "grafana-datasources": {"datasources.yml": _text("datasources.yml")},
        "grafana-providers": {"dashboards.yml": _text("dashboards.yml")},
        "grafana-dashboards": {
            name: dashboard(name) for name in DASHBOARDS if _there(name, PARTS_OF_DASHBOARD, choice)
        },
        "exporter": {EXPORTER.name: EXPORTER.read_text(encoding="utf-8")},
    }
    return [config_map(OBSERVABILITY_NAMESPACE, name, content) for name, content in contents.items()]


def prometheus_yml(choice: Choice) -> str:
    """prometheus.yml without the jobs that would find nothing in a cluster of this choice."""
    config = read_values(FOLDER, "prometheus.yml")
    config["scrape_configs"] = [
        job for job in config["scrape_configs"] if _there(job["job_name"], PARTS_OF_JOB, choice)
    ]
    return _yaml(config)


def rules_yml(name: str, choice: Choice) -> str:
    """A file of rules without the alerts for what a cluster of this choice can never tell."""
    rules = read_values(FOLDER, name)
    for group in rules["groups"]:
        group["rules"] = [rule for rule in group["rules"] if _there(rule["alert"], PARTS_OF_ALERT, choice)]
    return _yaml(rules)


def dashboard(name: str) -> str:
    """A dashboard as Grafana reads it, on one line: all of them must fit into one ConfigMap."""
    return json.dumps(json.loads(_text("dashboards", name)), separators=(",", ":"))


def _there(name: str, needs: Mapping[str, Iterable[str]], choice: Choice) -> bool:
    return name not in needs or not choice.parts.isdisjoint(needs[name])


def _text(*parts: str) -> str:
    return CLUSTERS_DIR.joinpath(FOLDER, *parts).read_text(encoding="utf-8")


class _Plain(yaml.SafeDumper):
    """Writes what is repeated out in full, as a person reads it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(dict(content), Dumper=_Plain, sort_keys=False, width=1000)
