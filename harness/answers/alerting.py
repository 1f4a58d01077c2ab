"""Would anybody have been told? Alerting rules, evaluated by a real Prometheus over what a run recorded.

A history becomes the samples that Prometheus would have scraped, and Prometheus answers for each rule when its
expression was true. The names and the arithmetic of the samples are those of the wake guard's metrics, here of one
that may only look, and of ztunnel's own counter of failed connections (releases from 1.29 on):

    meshwake_guard_drift_seconds, meshwake_guard_renewal_late_seconds     J, of each process
    meshwake_guard_certificate_not_after_timestamp_seconds                of what each identity holds
    meshwake_guard_last_look_timestamp_seconds                            the node's wall clock
    istio_tcp_connections_failed_total                                    failed attempts of the identities of the node

Nobody is scraped while its node sleeps: there the data has a gap. Prometheus itself stands on a machine that never
sleeps; its time is world time.

The limits: rules with a `for` are judged as if it were nothing, which is generous to them; recording rules are not
evaluated, so rules must not need them; and a rule is looked at once in `STEP_S`.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version

from harness.checks.derive import Life, certificates, life_drift_ns, lives, timeline
from harness.durations import NS_PER_S
from harness.errors import BadInput, HarnessFault, LabUnavailable
from harness.guardian import let_go, start_guarded
from harness.history import Event, History
from harness.plan import Plan

SCRAPE_S = STEP_S = 60
COUNTS_FAILURES = Version("1.29.0a0")
READY_WITHIN_S = 60.0
ANSWER_WITHIN_S = 300.0
# Prometheus refuses more in one answer.
_POINTS_MAX = 10_000
_HOW = "Debian, Ubuntu: apt install prometheus"


@dataclass(frozen=True)
class Rule:
    """One alerting rule: its name, and the expression that makes it fire. `watches`: it tells of those who watch, not
    of the mesh (label `concerns: watchers`), so that it warns nobody of an outage."""

    name: str
    expression: str
    file: str
    watches: bool = False


@dataclass(frozen=True)
class Fired:
    """From when on a rule's expression was true, in world time."""

    rule: str
    world_ns: int


def read_rules(path: Path) -> list[Rule]:
    """The alerting rules of a rule file. Raises BadInput."""
    try:
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
        return [
            Rule(str(rule["alert"]), str(rule["expr"]), path.name, rule.get("labels", {}).get("concerns") == "watchers")
            for rule in rules
        ]
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); give a file of Prometheus rules") from error
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: is no file of Prometheus rules ({error}); try: promtool check rules {path}") from error


# --- Samples ---------------------------------------------------------------------------------------------------------


def open_metrics(plan: Plan, history: History, scrape_s: int = SCRAPE_S) -> Iterator[str]:
    """What would have been scraped, in the OpenMetrics text format, each metric as one family."""
    samples: dict[str, list[str]] = {name: [] for name in _FAMILIES}
    for node in plan.nodes:
        _scrape_node(plan, history, node.name, scrape_s, samples)
    for name, kind in _FAMILIES.items():
        yield f"# TYPE {name} {kind}\n"
        yield from samples[name]
    yield "# EOF\n"


_FAMILIES = {
    "meshwake_guard_drift_seconds": "gauge",
    "meshwake_guard_renewal_late_seconds": "gauge",
    "meshwake_guard_certificate_not_after_timestamp_seconds": "gauge",
    "meshwake_guard_last_look_timestamp_seconds": "gauge",
    "istio_tcp_connections_failed": "counter",
}


def _scrape_node(plan: Plan, history: History, node: str, scrape_s: int, samples: dict[str, list[str]]) -> None:
    scrapes = _Scrapes(plan, history, node, scrape_s)
    end_ns = history.end_world_ns + 1
    clock = timeline(history, node)
    look = f'meshwake_guard_last_look_timestamp_seconds{{node="{node}"}}'
    samples["meshwake_guard_last_look_timestamp_seconds"] += scrapes.of(
        look, 0, end_ns, lambda world_ns: f"{clock.wall_ns(world_ns) / NS_PER_S:.3f}"
    )
    for life in (each for each in lives(history) if each.node == node):
        for name in ("meshwake_guard_drift_seconds", "meshwake_guard_renewal_late_seconds"):
            about = f'{name}{{node="{node}",process="{_process(life)}"}}'
            samples[name] += scrapes.of(about, life.started.world_ns, life.until_world_ns, _drift_of(history, life))
    for held in (each for own in certificates(history).values() for each in own if each.life.node == node):
        name = "meshwake_guard_certificate_not_after_timestamp_seconds"
        about = f'{name}{{node="{node}",process="{_process(held.life)}",identity="{held.identity}"}}'
        expires = f"{held.not_after_wall_s}"
        samples[name] += scrapes.of(about, held.issued_world_ns, held.until_world_ns, lambda _, it=expires: it)  # type: ignore[misc]
    if Version(plan.version) >= COUNTS_FAILURES:
        failed = _failures_of(plan, history, node)
        about = f'istio_tcp_connections_failed_total{{node="{node}",response_flags="CONNECT"}}'
        samples["istio_tcp_connections_failed"] += scrapes.of(
            about, 0, end_ns, lambda world_ns: f"{bisect_right(failed, world_ns)}"
        )


def _process(life: Life) -> str:
    """As a pod that was made anew has another name."""
    return f"{life.process}-{life.number}"


def _drift_of(history: History, life: Life) -> Callable[[int], str]:
    return lambda world_ns: f"{(life_drift_ns(history, life, world_ns) or 0) / NS_PER_S:.3f}"


class _Scrapes:
    """The moments at which a node is scraped: at fixed intervals, while it is awake."""

    def __init__(self, plan: Plan, history: History, node: str, every_s: int) -> None:
        clock = timeline(history, node)
        moments = range(0, history.end_world_ns + 1, every_s * NS_PER_S)
        self._worlds = [world_ns for world_ns in moments if clock.awake_ns(world_ns, world_ns + 1)]
        self._starts_s = plan.starts_wall_s

    def of(self, about: str, from_ns: int, to_ns: int, value: Callable[[int], str]) -> Iterator[str]:
        """The lines of one series within [from, to)."""
        for world_ns in self._worlds[bisect_left(self._worlds, from_ns) : bisect_left(self._worlds, to_ns)]:
            yield f"{about} {value(world_ns)} {self._starts_s + world_ns // NS_PER_S}\n"


def _failures_of(plan: Plan, history: History, node: str) -> list[int]:
    """World times of the failed attempts that a ztunnel of `node` counted as their source."""
    attempts = history.of("connection_attempted", ok=False)
    return [event.world_ns for event in attempts if plan.node_of(event["source"]) == node]


# --- Prometheus ------------------------------------------------------------------------------------------------------


def missing() -> list[str]:
    """Why nothing can be evaluated here; [] when it can."""
    return [f"no {name} on PATH ({_HOW})" for name in ("prometheus", "promtool") if shutil.which(name) is None]


@contextmanager
def prometheus_with(plan: Plan, history: History, scrape_s: int = SCRAPE_S) -> Iterator[str]:
    """The address of a Prometheus on loopback that knows what was scraped; it ends with the block. Raises
    LabUnavailable where it is not installed."""
    if reasons := missing():
        raise LabUnavailable("; ".join(reasons))
    with tempfile.TemporaryDirectory(prefix="meshwake-prometheus-") as folder:
        base = Path(folder)
        with (base / "samples").open("w", encoding="utf-8") as file:
            file.writelines(open_metrics(plan, history, scrape_s))
        _backfill(base)
        with _running(base) as address:
            yield address


def _backfill(base: Path) -> None:
    done = subprocess.run(
        [
            "promtool",
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "--max-block-duration=8760h",
            str(base / "samples"),
            str(base / "data"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=ANSWER_WITHIN_S,
    )
    if done.returncode:
        raise HarnessFault(f"promtool could not take the samples: {done.stderr.strip()[-500:]}")


@contextmanager
def _running(base: Path) -> Iterator[str]:
    (base / "prometheus.yml").write_text("global: {}\n", encoding="utf-8")
    port = _free_port()
    with (base / "log").open("wb") as log:
        process = start_guarded(
            [
                "prometheus",
                f"--config.file={base / 'prometheus.yml'}",
                f"--storage.tsdb.path={base / 'data'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
                "--query.max-samples=200000000",
            ],
            out=log,
            error=log,
        )
        try:
            _await_ready(f"http://127.0.0.1:{port}", process, base / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            let_go(process)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=5):  # noqa: S310  loopback, by http
                return
        except OSError:
            time.sleep(0.05)
    words = log.read_text(errors="replace").strip()[-500:]
    raise HarnessFault(f"Prometheus was not ready within {READY_WITHIN_S:.0f} s; it said: {words}")


def fired(address: str, plan: Plan, history: History, rules: Iterable[Rule], step_s: int = STEP_S) -> list[Fired]:
    """When each rule began to fire, each time that it did, in order of world time."""
    found = [Fired(rule.name, at_ns) for rule in rules for at_ns in _times(address, plan, history, rule, step_s)]
    return sorted(found, key=lambda each: each.world_ns)


def _times(address: str, plan: Plan, history: History, rule: Rule, step_s: int) -> list[int]:
    times: set[int] = set()
    last_s = history.end_world_ns // NS_PER_S
    for begins_s in range(0, last_s + 1, _POINTS_MAX * step_s):
        ends_s = min(begins_s + (_POINTS_MAX - 1) * step_s, last_s)
        for series in _query(address, rule, plan.starts_wall_s + begins_s, plan.starts_wall_s + ends_s, step_s):
            times |= {int(at) - plan.starts_wall_s for at, _ in series["values"]}
    begins = [at for at in sorted(times) if at - step_s not in times]
    return [at * NS_PER_S for at in begins]


def _query(address: str, rule: Rule, start_s: int, end_s: int, step_s: int) -> list[dict[str, Any]]:
    asked = urllib.parse.urlencode({"query": rule.expression, "start": start_s, "end": end_s, "step": step_s})
    url = f"{address}/api/v1/query_range"
    try:
        with urllib.request.urlopen(url, asked.encode(), ANSWER_WITHIN_S) as answer:  # noqa: S310  as above
            return list(json.loads(answer.read())["data"]["result"])
    except urllib.error.HTTPError as error:
        why = error.read().decode(errors="replace")[:300]
        raise BadInput(f"{rule.file}: {rule.name}: Prometheus refuses its expression: {why}") from error


def with_alerts(history: History, rules: Sequence[Rule], alerts: Sequence[Fired]) -> History:
    """`history` with what an alerting Prometheus would have added to it, for the checks to read."""
    watching = {rule.name for rule in rules if rule.watches}
    evaluated = Event(0, "alerts_evaluated", None, None, {"rules": [rule.name for rule in rules]})
    told = [
        Event(each.world_ns, "alert_fired", None, None, {"alert": each.rule})
        for each in alerts
        if each.rule not in watching
    ]
    events = list(history)
    ends = [event for event in events if event.kind == "run_ended"]
    rest = [event for event in events if event.kind != "run_ended"]
    first, *others = rest
    return History([first, evaluated, *sorted([*others, *told], key=lambda event: event.world_ns), *ends])


def replay(plan: Plan, history: History, rules: Sequence[Rule], step_s: int = STEP_S) -> History:
    """`history` as it would have been had `rules` been deployed. Raises LabUnavailable without a Prometheus."""
    with prometheus_with(plan, history, step_s) as address:
        return with_alerts(history, rules, fired(address, plan, history, rules, step_s))
