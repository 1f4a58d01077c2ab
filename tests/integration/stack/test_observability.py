"""What Prometheus, Alertmanager and Grafana run from, read by their own checkers and schemas, and
run for real.

The files are those of the ConfigMaps, for a choice with everything and for one with little.
"""

from __future__ import annotations

import json
import re
import tomllib
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # comes with kubernetes-validate, without types
import pytest
import yaml
from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.observability import (
    DASHBOARDS,
    FOLDER,
    PARTS_OF_JOB,
    RULE_FILES,
    configuration_maps,
)
from meshwake.cluster.stack.pins import read_pins
from meshwake.core.clock_reading import ClockReading
from meshwake.guard.certificates import of_ztunnel
from meshwake.guard.metrics import HELP, PrometheusMetrics, serve
from meshwake.guard.watch import ObservedProcess
from meshwake.ztunnel.binaries import cache_dir

from tests.integration.ground.programs import Deadline
from tests.integration.stack.programs import listens, program, run, running
from tests.integration.stack.queries import labels_in_text, labels_of, series_of
from tests.support.paths import CLUSTERS
from tests.support.ports import free_port

HERE = CLUSTERS / FOLDER
PROMETHEUS = "Debian, Ubuntu: apt install prometheus"
ALERTMANAGER = "Debian, Ubuntu: apt install prometheus-alertmanager"
SERIES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("series.toml").read_text(encoding="utf-8")
)
OURS, REPORTED = RULE_FILES
# By the scrape (prometheus.yml), and by the guard (harness/meshwake/guard/metrics.py).
SCRAPED = {"job", "instance", "namespace", "pod", "node"}
EXPORTED = {"process", "identity", "reason", "target"}


def everything() -> Choice:
    return choose_stack(read_pins(), profile="full")


def little() -> Choice:
    return choose_stack(
        read_pins(), without_parts=["gateway", "waypoint"], with_parts=["observability"]
    )


def files(choice: Choice) -> dict[str, str]:
    """Every file of every ConfigMap, by name."""
    return {
        name: text for thing in configuration_maps(choice) for name, text in thing["data"].items()
    }


def written(choice: Choice, folder: Path) -> Path:
    for name, text in files(choice).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("choice", [everything(), little()], ids=["everything", "little"])
def test_promtool_takes_configuration_and_rules(choice: Choice, tmp_path: Path) -> None:
    """A Prometheus that was built without Kubernetes, as Debian's is, reads the configuration
    without those lines."""
    promtool, folder = program("promtool", PROMETHEUS), written(choice, tmp_path)
    completed = run(promtool, "check", "config", str(folder / "prometheus.yml"))
    if "kubernetes_sd_configs not found" in completed.stdout:
        config = yaml.safe_load(files(choice)["prometheus.yml"])
        for job in config["scrape_configs"]:
            job.pop("kubernetes_sd_configs", None)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        completed = run(promtool, "check", "config", str(folder / "prometheus.yml"))
    assert completed.returncode == 0, completed.stdout
    assert completed.stdout.count("rules found") == 2


# What
# https://prometheus.io/docs/prometheus/latest/configuration/configuration/#kubernetes_sd_config
# documents: for a promtool that was built without it.
_FOUND_BY = {"role": str, "namespaces": {"names": list}, "selectors": [{"role": str, "label": str}]}


def test_pods_are_found_by_what_prometheus_knows() -> None:
    """Each job finds pods by labels that pods of the stack have; keys as documented, nothing
    else."""
    for job in read("prometheus.yml")["scrape_configs"]:
        for found_by in job.get("kubernetes_sd_configs", ()):
            check_shape(found_by, _FOUND_BY, job["job_name"])
            assert found_by["role"] == "pod"
            assert all(selector["role"] == "pod" for selector in found_by["selectors"])


def check_shape(thing: Any, shape: Any, place: str) -> None:
    """Every key of `thing` is one of `shape`, and of its type."""
    if isinstance(shape, dict):
        assert set(thing) <= set(shape), place
        for key, value in thing.items():
            check_shape(value, shape[key], f"{place}.{key}")
    elif isinstance(shape, list):
        for entry in thing:
            check_shape(entry, shape[0], place)
    else:
        assert isinstance(thing, shape), place


def test_amtool_takes_the_configuration(tmp_path: Path) -> None:
    amtool, folder = program("amtool", ALERTMANAGER), written(everything(), tmp_path)
    completed = run(amtool, "check-config", str(folder / "alertmanager.yml"))
    assert completed.returncode == 0, completed.stdout


def test_what_a_choice_may_leave_out_is_there_in_full() -> None:
    """A typing error in this table would leave nothing out."""
    jobs = {job["job_name"] for job in read("prometheus.yml")["scrape_configs"]}
    assert set(PARTS_OF_JOB) <= jobs


def read(name: str) -> Any:
    return yaml.safe_load((HERE / name).read_text(encoding="utf-8"))


def rules(name: str) -> list[dict[str, Any]]:
    return [rule for group in read(name)["groups"] for rule in group["rules"]]


def dashboard(name: str) -> dict[str, Any]:
    return dict(json.loads((HERE / "dashboards" / name).read_text(encoding="utf-8")))


def queries() -> Iterator[tuple[str, str, str]]:
    """Where an expression is, the expression, and the text that is filled in from its result."""
    for name in DASHBOARDS:
        for panel in dashboard(name)["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"], target.get("legendFormat", "")
        for annotation in dashboard(name)["annotations"]["list"]:
            yield f"{name}: annotations", annotation["expr"], annotation["titleFormat"]
    for rule in rules(OURS):
        yield rule["alert"], rule["expr"], json.dumps(rule["annotations"])


def test_every_series_that_is_shown_or_watched_exists() -> None:
    """Each is in series.toml with its source, or is the guard's; and nothing is listed that is not
    used."""
    used = {series for _, expression, _ in queries() for series in series_of(expression)}
    assert used - set(HELP) == set(SERIES)
    assert all(entry["source"] for entry in SERIES.values())


def test_labels_that_are_used_are_labels_of_their_series() -> None:
    """A sum by a label that no series has is one nameless line."""
    for place, expression, text in queries():
        series = series_of(expression)
        own = {label for name in series if name in SERIES for label in SERIES[name]["labels"]}
        own |= EXPORTED if series & set(HELP) else set()
        assert (labels_of(expression) | labels_in_text(text)) - {"value"} <= SCRAPED | own, place


def test_what_is_filled_in_survives_the_sum() -> None:
    """A legend that names a label which its expression has summed away shows nothing."""
    for place, expression, text in queries():
        grouped = re.match(r"\w+\s*by \(([^)]*)\)|(?:abs|sum|min|max|count)\(", expression)
        if grouped and grouped[1]:
            assert labels_in_text(text) - {"value"} <= {
                label.strip() for label in grouped[1].split(",")
            }, place


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_as_grafana_defines_them(name: str) -> None:
    """By the JSON schemas that Grafana publishes (grafana-foundation-sdk); panels and queries by
    their plugins' own."""
    check_against("dashboard", "Dashboard", dashboard(name))
    for panel in dashboard(name)["panels"]:
        assert panel["type"] in {"timeseries", "stat"}
        if "options" in panel:  # without them, Grafana takes its own
            check_against(panel["type"], "Options", panel["options"])
        for target in panel["targets"]:
            check_against("prometheus", "Dataquery", target)


def test_a_field_that_grafana_does_not_have_would_be_seen() -> None:
    wrong = {**dashboard(DASHBOARDS[0]), "tittle": "Certificates"}
    schema = grafana_schema("dashboard", "Dashboard")
    with pytest.raises(jsonschema.ValidationError, match="tittle"):
        jsonschema.Draft202012Validator(schema).validate(wrong)


def check_against(file: str, definition: str, thing: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(grafana_schema(file, definition)).validate(thing)


def grafana_schema(file: str, definition: str) -> dict[str, Any]:
    releases = sorted((cache_dir() / "schemas" / "grafana").glob("*/"))
    if not releases:
        pytest.skip(
            "needs jsonschema/*.json of grafana-foundation-sdk in "
            f"{cache_dir() / 'schemas/grafana'}/VERSION/"
        )
    schema = json.loads((releases[-1] / f"{file}.jsonschema.json").read_text(encoding="utf-8"))
    return {**schema, "$ref": f"#/definitions/{definition}"}


def test_dashboards_lie_on_their_grid_without_overlap() -> None:
    """Twenty-four columns; Grafana would push an overlapping panel away, and the page would not be
    as it was drawn."""
    for name in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in dashboard(name)["panels"]:
            place = panel["gridPos"]
            cells = {
                (place["x"] + right, place["y"] + down)
                for right in range(place["w"])
                for down in range(place["h"])
            }
            assert place["x"] + place["w"] <= 24 and not cells & taken, f"{name}: {panel['title']}"
            taken |= cells
        ids = [panel["id"] for panel in dashboard(name)["panels"]]
        assert len(set(ids)) == len(ids)


# What https://grafana.com/docs/grafana/latest/administration/provisioning/ documents; its files
# have no schema.
_SOURCE_KEYS = {
    *(
        "name",
        "type",
        "access",
        "orgId",
        "uid",
        "url",
        "user",
        "database",
        "basicAuth",
        "basicAuthUser",
    ),
    *("withCredentials", "isDefault", "jsonData", "secureJsonData", "version", "editable"),
}
_PROVIDER_KEYS = {
    *(
        "name",
        "orgId",
        "folder",
        "folderUid",
        "type",
        "disableDeletion",
        "updateIntervalSeconds",
        "allowUiUpdates",
    ),
    "options",
}


def test_grafana_is_configured_with_every_source() -> None:
    """Keys as documented; the data source that panels name; the folder that is mounted; the Service
    that there is."""
    (source,) = read("datasources.yml")["datasources"]
    (provider,) = read("dashboards.yml")["providers"]
    assert read("datasources.yml")["apiVersion"] == read("dashboards.yml")["apiVersion"] == 1
    assert set(source) <= _SOURCE_KEYS and set(provider) <= _PROVIDER_KEYS
    sources = {
        target["datasource"]["uid"]
        for name in DASHBOARDS
        for panel in dashboard(name)["panels"]
        for target in panel["targets"]
    }
    assert sources == {source["uid"]}
    things = {
        (thing["kind"], thing["metadata"]["name"]): thing for thing in read_all("objects.yaml")
    }
    (grafana,) = things["Deployment", "grafana"]["spec"]["template"]["spec"]["containers"]
    assert provider["options"]["path"] in {mount["mountPath"] for mount in grafana["volumeMounts"]}
    service = things["Service", "prometheus"]
    namespace, port = service["metadata"]["namespace"], service["spec"]["ports"][0]["port"]
    assert source["url"] == f"http://prometheus.{namespace}.svc:{port}"


def read_all(name: str) -> list[dict[str, Any]]:
    return [
        thing for thing in yaml.safe_load_all((HERE / name).read_text(encoding="utf-8")) if thing
    ]


def test_an_expired_certificate_is_an_alert_that_alertmanager_keeps(tmp_path: Path) -> None:
    """The whole way, with the programs of the cluster and its very files: what ztunnel printed, the
    guard's metrics, Prometheus, its rules, Alertmanager. Only addresses are others, and targets are
    named instead of found."""
    prometheus = program("prometheus", PROMETHEUS)
    alertmanager = program("prometheus-alertmanager", ALERTMANAGER)
    folder = written(everything(), tmp_path)
    held = of_ztunnel(Path("tests/data/config_dumps/1.31.0-rc.0-available.json").read_bytes())
    metrics = PrometheusMetrics("n")
    ztunnel = ObservedProcess("istio-system/ztunnel-x", "ztunnel", ClockReading(0, 0, 0), held)
    metrics.looked(ClockReading(wall_ns=4 * 10**18, monotonic_ns=0, boottime_ns=0), [(ztunnel, 0)])
    prometheus_port, alertmanager_port, guard_port = free_port(), free_port(), free_port()
    with serve(metrics, guard_port) as serving:
        config = yaml.safe_load(files(everything())["prometheus.yml"])
        config["scrape_configs"] = [
            {"job_name": "guard", "static_configs": [{"targets": [f"127.0.0.1:{guard_port}"]}]}
        ]
        for settings, key in (("global", "scrape_interval"), ("global", "scrape_timeout")):
            config[settings][key] = "1s"
        config["global"]["evaluation_interval"] = "1s"
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
            f"127.0.0.1:{alertmanager_port}"
        ]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with (
            running(
                [
                    *(
                        alertmanager,
                        "--config.file=alertmanager.yml",
                        f"--storage.path={folder / 'kept'}",
                    ),
                    *(
                        f"--web.listen-address=127.0.0.1:{alertmanager_port}",
                        "--cluster.listen-address=",
                    ),
                ],
                folder=folder,
                log=folder / "alertmanager.log",
                ready=lambda: listens(alertmanager_port),
            ),
            running(
                [
                    *(
                        prometheus,
                        "--config.file=prometheus.yml",
                        f"--storage.tsdb.path={folder / 'data'}",
                    ),
                    f"--web.listen-address=127.0.0.1:{prometheus_port}",
                ],
                folder=folder,
                log=folder / "prometheus.log",
                ready=lambda: listens(prometheus_port),
            ),
        ):
            kept = kept_alerts(alertmanager_port, "ZtunnelCertificateExpired")
            assert kept == {
                ("istio-system/ztunnel-x", "spiffe://cluster.local/ns/default/sa/server")
            }
            loaded = answer(f"http://127.0.0.1:{prometheus_port}/api/v1/rules")["data"]["groups"]
            serving.shutdown()
    assert {rule["health"] for group in loaded for rule in group["rules"]} == {"ok"}
    assert "as reported" in {group["name"] for group in loaded}


def kept_alerts(port: int, name: str) -> set[tuple[str, str]]:
    """Process and identity of the alerts of this name, once Alertmanager has some."""
    query = urllib.parse.urlencode({"filter": f"alertname={name}"})
    deadline = Deadline(f"Alertmanager keeps {name}", 60)
    while not (alerts := answer(f"http://127.0.0.1:{port}/api/v2/alerts?{query}")):
        deadline.pause(alerts)
    return {(alert["labels"]["process"], alert["labels"]["identity"]) for alert in alerts}


def answer(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - a loopback address
        return json.load(answer)
