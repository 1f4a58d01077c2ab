"""Evaluates alerting rules over a recorded run, with a real Prometheus.

A history becomes the samples that Prometheus would have scraped, and Prometheus answers for each
rule when its expression was true. Names and arithmetic of the samples are those of the wake guard's
metrics, here of one that only observes, and of ztunnel's own counter of failed connections
(releases from 1.29 on):

    meshwake_guard_drift_seconds, meshwake_guard_renewal_late_seconds     clock drift of each process
    meshwake_guard_certificate_not_{before,after}_timestamp_seconds       of what each identity holds
    meshwake_guard_last_look_timestamp_seconds                            the node's wall clock
    istio_tcp_connections_failed_total                                    failed attempts of each pair, at their source

A node is not scraped while it sleeps: there the data has a gap. Prometheus itself runs on a machine
that never sleeps; its time is world time.

Recording rules are evaluated first, in the order in which they need one another. A rule that needs
anything else cannot be judged, and is named with what it needs (`RuleResults.unclear`). A rule that
was true before anything had happened, or that selects no series at all, warns of nothing
(`RuleResults.noisy`).

The limits: a rule is evaluated once in `STEP_S`, or as often as its group says; and a series that
ends is visible for five minutes more.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from packaging.version import Version

from meshwake.analysis.alert_rules import AlertRule, RecordingRule, RuleSet, read_rules
from meshwake.analysis.promql import Query, Selector, absent_in, evaluated_at_each_step, parse_query
from meshwake.checks import CHECKS
from meshwake.checks.facts.certificates import (
    CertificateInUse,
    Life,
    certificates,
    life_drift_ns,
    lives,
)
from meshwake.checks.facts.clocks import timeline
from meshwake.checks.format import moment
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, HarnessFault, LabUnavailable
from meshwake.core.events import AlertFired, AlertsEvaluated, ConnectionAttempted, RunEnded
from meshwake.core.history import History
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.plan import Plan
from meshwake.system.deadline import Deadline
from meshwake.system.supervised import release, start_guarded
from meshwake.ztunnel.spiffe import spiffe_id

__all__ = [
    "AlertRule",
    "FiredAlert",
    "RuleResults",
    "evaluate_rules",
    "firing_alerts",
    "prometheus_with",
    "read_rules",
    "replay",
    "with_alerts",
]

# Prometheus' own defaults: global.scrape_interval and global.evaluation_interval are a minute each.
# (That of clusters/observability is 5 s; a month of that would be half a million samples of each
# series.)
SCRAPE_S = STEP_S = 60
# A group may ask for a shorter interval. The metrics are there once a minute only, so more
# evaluations would cost more and find nothing else.
LEAST_STEP_S = 15
# From this release on ztunnel counts failed connections; "a0" covers its alphas too.
COUNTS_FAILURES = Version("1.29.0a0")
# Prometheus answers /-/ready with 503 until its blocks are loaded and its log is replayed.
READY_WITHIN_S = 60.0
ANSWER_WITHIN_S = 300.0
# The most points of one series in a response: Prometheus refuses more than 11,000.
_POINTS_MAX = 10_000
_HOW = "Debian, Ubuntu: apt install prometheus"


@dataclass(frozen=True)
class FiredAlert:
    """A rule began to fire at this world time."""

    rule: str
    world_ns: int


@dataclass(frozen=True)
class RuleResults:
    """When rules would have fired. `noisy`: those that fired before anything had happened, each
    with its first time; `unclear`: those that need series that are not replayed, which are
    named."""

    fired: tuple[FiredAlert, ...]
    noisy: tuple[FiredAlert, ...] = ()
    unclear: tuple[tuple[str, tuple[str, ...]], ...] = ()


# --- Samples --------------------------------------------------------------------------------------


def open_metrics(plan: Plan, history: History, scrape_s: int = SCRAPE_S) -> Iterator[str]:
    """What would have been scraped, in the OpenMetrics text format, each metric as one family."""
    samples: dict[str, list[str]] = {name: [] for name in _FAMILIES}
    for node in plan.nodes:
        _scrape_node(plan, history, node.name, scrape_s, samples)

    for name, kind in _FAMILIES.items():
        yield f"# TYPE {name} {kind}\n"
        yield from samples[name]

    # promtool refuses a text without it: it may have been cut off.
    yield "# EOF\n"


# Family -> type. OpenMetrics wants the samples of a family together, and a counter's family without
# the "_total" of its samples.
_FAMILIES = {
    "meshwake_guard_drift_seconds": "gauge",
    "meshwake_guard_renewal_late_seconds": "gauge",
    "meshwake_guard_certificate_not_before_timestamp_seconds": "gauge",
    "meshwake_guard_certificate_not_after_timestamp_seconds": "gauge",
    "meshwake_guard_last_look_timestamp_seconds": "gauge",
    "istio_tcp_connections_failed": "counter",
}


def _scrape_node(
    plan: Plan, history: History, node: str, scrape_s: int, samples: dict[str, list[str]]
) -> None:
    """Adds what is scraped of `node` to `samples`, by metric."""
    scrapes = _Scrapes(plan, history, node, scrape_s)
    clock = timeline(history, node)
    look = f'meshwake_guard_last_look_timestamp_seconds{{node="{node}"}}'
    samples["meshwake_guard_last_look_timestamp_seconds"] += scrapes.of(
        look,
        0,
        history.end_world_ns + 1,  # the end itself is scraped too
        lambda world_ns: f"{clock.wall_ns(world_ns) / NS_PER_S:.3f}",
    )

    for life in lives(history):
        if life.node == node:
            _scrape_drift(history, node, life, scrapes, samples)

    for held in chain.from_iterable(certificates(history).values()):
        if held.life.node == node:
            _scrape_certificate(node, held, scrapes, samples)

    # An older ztunnel has no such counter, and a rule about it finds no series.
    if Version(plan.version) >= COUNTS_FAILURES:
        for source, destination in plan.pairs:
            if plan.node_of(source) == node:
                _scrape_failures(history, node, source, destination, scrapes, samples)


def _scrape_drift(
    history: History,
    node: str,
    life: Life,
    scrapes: _Scrapes,
    samples: dict[str, list[str]],
) -> None:
    """How late a process is: the clock drift since it started."""
    # Two metrics, and on an unpatched ztunnel one number; rules use the one or the other.
    for name in ("meshwake_guard_drift_seconds", "meshwake_guard_renewal_late_seconds"):
        series = f'{name}{{node="{node}",process="{_process(life)}"}}'
        samples[name] += scrapes.of(
            series, life.started.world_ns, life.until_world_ns, _drift_of(history, life)
        )


def _scrape_certificate(
    node: str, held: CertificateInUse, scrapes: _Scrapes, samples: dict[str, list[str]]
) -> None:
    """From when and until when a certificate is valid, for as long as it is held."""
    process = _process(held.life)
    for end, wall_s in (("before", held.not_before_wall_s), ("after", held.not_after_wall_s)):
        name = f"meshwake_guard_certificate_not_{end}_timestamp_seconds"
        series = f'{name}{{node="{node}",process="{process}",identity="{held.identity}"}}'
        samples[name] += scrapes.of(
            series, held.issued_world_ns, held.until_world_ns, partial(_constant, wall_s)
        )


def _scrape_failures(
    history: History,
    node: str,
    source: str,
    destination: str,
    scrapes: _Scrapes,
    samples: dict[str, list[str]],
) -> None:
    """ztunnel's counter of failed connections of one pair."""
    failed_ns = _failures_of(history, source, destination)
    labels = _traffic_labels(node, source, destination)
    samples["istio_tcp_connections_failed"] += scrapes.of(
        f"istio_tcp_connections_failed_total{{{labels}}}",
        0,
        history.end_world_ns + 1,
        lambda world_ns: str(bisect_right(failed_ns, world_ns)),
    )


def _constant(value: int, world_ns: int) -> str:
    """A sample that is the same at every scrape."""
    return str(value)


def _traffic_labels(node: str, source: str, destination: str) -> str:
    """As ztunnel labels what fails at its source, of those labels that follow from an identity."""
    labels = {"node": node, "response_flags": "CONNECT", "reporter": "source"}
    for end, identity in (("source", source), ("destination", destination)):
        namespace = identity.partition("/")[0]
        labels[f"{end}_principal"] = spiffe_id(identity)
        labels[f"{end}_workload_namespace"] = namespace
    return ",".join(f'{name}="{value}"' for name, value in labels.items())


def _process(life: Life) -> str:
    """A name for one process: a pod that was replaced has another name, too."""
    return f"{life.process}-{life.number}"


def _drift_of(history: History, life: Life) -> Callable[[int], str]:
    """The sample of a drift at each scrape."""

    def at(world_ns: int) -> str:
        # A guard has a sample of each process: 0 where no clocks were recorded.
        drift_ns = life_drift_ns(history, life, world_ns) or 0
        return f"{drift_ns / NS_PER_S:.3f}"

    return at


class _Scrapes:
    """The moments at which a node is scraped: at fixed intervals, while it is awake."""

    def __init__(self, plan: Plan, history: History, node: str, every_s: int) -> None:
        clock = timeline(history, node)
        moments = range(0, history.end_world_ns + 1, every_s * NS_PER_S)
        self._worlds = [world_ns for world_ns in moments if clock.awake_ns(world_ns, world_ns + 1)]
        self._starts_s = plan.starts_wall_s

    def of(
        self, about: str, from_ns: int, to_ns: int, value: Callable[[int], str]
    ) -> Iterator[str]:
        """The lines of one series within [from, to)."""
        first = bisect_left(self._worlds, from_ns)
        behind = bisect_left(self._worlds, to_ns)
        for world_ns in self._worlds[first:behind]:
            # OpenMetrics has seconds of Unix time; the scrapes lie on whole ones.
            yield f"{about} {value(world_ns)} {self._starts_s + world_ns // NS_PER_S}\n"


def _failures_of(history: History, source: str, destination: str) -> list[int]:
    """World times of the failed attempts of a pair."""
    failed = history.of(ConnectionAttempted, ok=False, source=source, destination=destination)
    return [event.world_ns for event in failed]


# --- What can be judged ---------------------------------------------------------------------------

_GUARD = frozenset({"node", "process"})
_FAILED = "istio_tcp_connections_failed_total"
# The labels that rules may go by: of each series that is replayed, those whose values are known.
_LABELS = {
    "meshwake_guard_drift_seconds": _GUARD,
    "meshwake_guard_renewal_late_seconds": _GUARD,
    "meshwake_guard_certificate_not_before_timestamp_seconds": _GUARD | {"identity"},
    "meshwake_guard_certificate_not_after_timestamp_seconds": _GUARD | {"identity"},
    "meshwake_guard_last_look_timestamp_seconds": frozenset({"node"}),
    _FAILED: frozenset(
        ["node", "response_flags", "reporter"]
        + [
            f"{end}_{what}"
            for end in ("source", "destination")
            for what in ("principal", "workload_namespace")
        ]
    ),
}
# Labels of a scraped target: one value for each node.
_OF_TARGETS = frozenset(
    {"instance", "job", "pod", "namespace", "container", "endpoint", "service", "app", "cluster"}
)
# pilot-agent's: nothing but a gateway, a waypoint or a sidecar exports it, and no ztunnel ever did.
_OF_PROXIES = "istio_agent_cert_expiry_seconds"


def missing_for(
    expression: str, plan: Plan, recorded: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """The series and labels that an expression needs and that are not replayed, by name; () when it
    can be judged. `recorded`: for each recorded series what is missing for it."""
    query = parse_query(expression)
    found: list[str] = []
    for selector in query.selectors:
        # What is missing for a record is missing for every rule that uses it.
        if selector.name in recorded:
            found += recorded[selector.name]
        elif selector.name in _LABELS:
            found += _unknown_labels(selector)
        elif not _is_known_to_be_absent(selector, plan):
            found.append(str(selector))

    # absent() of a series that is always there would never fire, though it may in a real mesh.
    if _FAILED in absent_in(expression):
        found.append(
            f"{_FAILED} (a counter is absent until it counts, and here it counts from the "
            "beginning)"
        )

    for selector in query.selectors:
        if selector.name in _LABELS:
            labels = _labels_that_matter(query, selector.name, plan)
            found += [f"{selector.name}{{{label}}}" for label in labels]

    # Each once, in this order.
    return tuple(dict.fromkeys(found))


def _unknown_labels(selector: Selector) -> list[str]:
    """Those of its labels that a replayed series does not have."""
    known = _LABELS[selector.name]
    unknown = [each.label for each in selector.matchers if each.label not in known]
    return [f"{selector.name}{{{label}}}" for label in unknown]


def _is_known_to_be_absent(selector: Selector, plan: Plan) -> bool:
    """Whether the real mesh has no such series either, so that there is nothing to replay."""
    if selector.name != _OF_PROXIES:
        return False

    # Of ztunnels no release has it; of anything at all a mesh without a gateway has none.
    matchers = [(each.label, each.operator, each.value) for each in selector.matchers]
    return ("app", "=", "ztunnel") in matchers or not plan.gateways


def _labels_that_matter(query: Query, name: str, plan: Plan) -> list[str]:
    """Labels by which it groups that are not replayed and would make more than one group."""
    unknown = query.labels - frozenset().union(*_LABELS.values())

    # Of one node there is one target, so grouping by the target's labels changes nothing.
    if len(plan.nodes) == 1:
        unknown -= _OF_TARGETS
        # And of one pair, or of a node's own metrics, there is one series in each group.
        if len(plan.pairs) <= 1 or not name.startswith("istio_"):
            return []
    return sorted(unknown)


# --- Prometheus -----------------------------------------------------------------------------------


def missing_tools() -> list[str]:
    """Why nothing can be evaluated here; [] when it can."""
    return [
        f"no {name} on PATH ({_HOW})"
        for name in ("prometheus", "promtool")
        if shutil.which(name) is None
    ]


@contextmanager
def prometheus_with(
    plan: Plan, history: History, scrape_s: int = SCRAPE_S, recorded: Sequence[str] = ()
) -> Iterator[str]:
    """The address of a Prometheus on loopback that knows what was scraped, and the lines of what
    was recorded; it ends with the block. Raises LabUnavailable where it is not installed."""
    reasons = missing_tools()
    if reasons:
        raise LabUnavailable("; ".join(reasons))

    with tempfile.TemporaryDirectory(prefix="meshwake-prometheus-") as folder:
        base = Path(folder)
        # As lines, one after the other: a month of a large mesh need not be in memory twice.
        with (base / "samples").open("w", encoding="utf-8") as file:
            file.writelines(_with_lines(open_metrics(plan, history, scrape_s), recorded))

        _backfill(base)
        with _running(base) as address:
            yield address


def _with_lines(samples: Iterator[str], more: Sequence[str]) -> Iterator[str]:
    """Samples with other families behind them; the end mark stays last."""
    for line in samples:
        if line == "# EOF\n":
            yield from more
        yield line


def _backfill(base: Path) -> None:
    done = subprocess.run(
        [
            "promtool",
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            # A year: a month of samples in blocks of the default two hours would be 360 of them.
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
                # The run may lie years in the past or the future, and is not to be deleted.
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{port}",
                # Four times the default, for a month of many nodes at once.
                "--query.max-samples=200000000",
            ],
            out=log,
            error=log,
        )
        try:
            _await_ready(f"http://127.0.0.1:{port}", process, base / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            release(process)


def _free_port() -> int:
    # Free when it was looked for; where another program takes it first, Prometheus does not start.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _await_ready(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = Deadline("Prometheus to be ready", READY_WITHIN_S, HarnessFault)
    # One that has ended already will never be ready; its output says why.
    while process.poll() is None and not deadline.has_passed:
        try:
            with urllib.request.urlopen(f"{address}/-/ready", timeout=5):  # noqa: S310  loopback, by http
                return
        except OSError:
            deadline.sleep(0.05)

    printed = log.read_text(errors="replace").strip()[-500:]
    raise deadline.error(f"its output {printed!r}")


def firing_alerts(
    address: str,
    plan: Plan,
    history: History,
    rules: Iterable[AlertRule],
    step_s: int | None = None,
) -> list[FiredAlert]:
    """When each rule began to fire, each time that it did, in order of world time."""
    found = []
    for rule in rules:
        times_ns = _times(address, plan, history, rule, step_s)
        found += [FiredAlert(rule.name, at_ns) for at_ns in times_ns]
    return sorted(found, key=lambda each: each.world_ns)


def _times(
    address: str, plan: Plan, history: History, rule: AlertRule, step_s: int | None
) -> list[int]:
    every_s = step_s or max(int(rule.every_s or STEP_S), LEAST_STEP_S)
    about = f"{rule.file}: {rule.name}"

    # Each series of the answer is an alert of its own; the rule fires while one of them does.
    times: set[int] = set()
    for true_at in _true_at(address, plan, history, about, rule.expression, every_s).values():
        times |= _firing(sorted(true_at), every_s, rule.for_s)

    # It begins to fire where it did not at the evaluation before.
    begins = [at for at in sorted(times) if at - every_s not in times]
    return [at * NS_PER_S for at in begins]


def _firing(true_at: list[int], every_s: int, for_s: float) -> set[int]:
    """When a rule with `for` fires: where it was true at every evaluation for that long."""
    found, since, before = set(), 0, None
    for at in true_at:
        # After a gap, with an evaluation at which it was not true, `for` begins again.
        if before is None or at - before > every_s:
            since = at
        if at - since >= for_s:
            found.add(at)
        before = at
    return found


def _true_at(
    address: str, plan: Plan, history: History, about: str, expression: str, every_s: int
) -> dict[str, dict[int, str]]:
    """For each series of the answer (by its labels, as JSON) its values in time, in seconds of
    world time."""
    found: dict[str, dict[int, str]] = {}
    last_s = history.end_world_ns // NS_PER_S

    # In pieces, none of which has more points than Prometheus answers with.
    for begins_s in range(0, last_s + 1, _POINTS_MAX * every_s):
        ends_s = min(begins_s + (_POINTS_MAX - 1) * every_s, last_s)
        times = (plan.starts_wall_s + begins_s, plan.starts_wall_s + ends_s, every_s)

        for series in _query(address, about, expression, times):
            labels = {name: value for name, value in series["metric"].items() if name != "__name__"}
            own = found.setdefault(json.dumps(labels, sort_keys=True), {})
            own |= {int(at) - plan.starts_wall_s: value for at, value in series["values"]}
    return found


def _query(
    address: str, about: str, expression: str, times: tuple[int, int, int]
) -> list[dict[str, Any]]:
    start_s, end_s, step_s = times
    query = urllib.parse.urlencode(
        {
            "query": evaluated_at_each_step(expression),
            "start": start_s,
            "end": end_s,
            "step": step_s,
        }
    )
    url = f"{address}/api/v1/query_range"

    # As a body: an expression may be longer than an address may be.
    try:
        with urllib.request.urlopen(url, query.encode(), ANSWER_WITHIN_S) as answer:  # noqa: S310  as above
            return list(json.loads(answer.read())["data"]["result"])
    except urllib.error.HTTPError as error:
        why = error.read().decode(errors="replace")[:300]
        raise BadInput(f"{about}: Prometheus refuses its expression: {why}") from error


# --- Recording rules ------------------------------------------------------------------------------


def _levels(
    records: Sequence[RecordingRule],
) -> tuple[list[list[RecordingRule]], dict[str, tuple[str, ...]]]:
    """Records in the order in which they need one another; and those that need themselves, as what
    is missing."""
    needs = _needs(records)
    levels: list[list[RecordingRule]] = []
    done: set[str] = set()

    # A level needs only those before it. What is never ready needs itself, in a circle.
    ready = _ready(needs, done)
    while ready:
        levels.append([each for each in records if each.name in ready])
        done |= ready
        ready = _ready(needs, done)

    circular: dict[str, tuple[str, ...]] = {}
    for name in needs.keys() - done:
        circular[name] = (f"{name} (which is recorded from itself)",)
    return levels, circular


def _ready(needs: dict[str, set[str]], done: set[str]) -> set[str]:
    """The series that are not recorded yet and need nothing but what is."""
    return {name for name in needs.keys() - done if needs[name] <= done}


def _needs(records: Sequence[RecordingRule]) -> dict[str, set[str]]:
    """For each recorded series the recorded series that it is made from."""
    needs: dict[str, set[str]] = {each.name: set() for each in records}
    for each in records:
        selected = {selector.name for selector in parse_query(each.expression).selectors}
        needs[each.name] |= selected & needs.keys()
    return needs


def _recorded(
    plan: Plan, history: History, records: Sequence[RecordingRule], scrape_s: int
) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The samples of recording rules, as lines of OpenMetrics; and for each recorded series what is
    missing for it."""
    levels, missing_of = _levels(records)
    lines: list[str] = []
    for level in levels:
        for record in level:
            own = missing_for(record.expression, plan, missing_of)
            # Several rules may record one series, each with labels of its own.
            known = missing_of.get(record.name, ())
            missing_of[record.name] = tuple(dict.fromkeys((*known, *own)))

        clear = [record for record in level if not missing_of[record.name]]
        # One Prometheus a level: its samples are loaded before it starts.
        if clear:
            lines += _samples_of_level(plan, history, clear, scrape_s, lines)
    return lines, missing_of


def _samples_of_level(
    plan: Plan,
    history: History,
    records: Sequence[RecordingRule],
    scrape_s: int,
    earlier: Sequence[str],
) -> list[str]:
    """The samples of records that need those of `earlier` levels only, each series as one
    family."""
    families: dict[str, list[str]] = {}
    with prometheus_with(plan, history, scrape_s, earlier) as address:
        for record in records:
            family = families.setdefault(record.name, [f"# TYPE {record.name} unknown\n"])
            family += _samples_of(address, plan, history, record, scrape_s)
    return list(chain.from_iterable(families.values()))


def _samples_of(
    address: str, plan: Plan, history: History, record: RecordingRule, step_s: int
) -> list[str]:
    """The samples of one recording rule, as lines of OpenMetrics. A series ends with NaN, of which
    no comparison is true."""
    lines = []
    last_s = history.end_world_ns // NS_PER_S
    about = f"{record.file}: {record.name}"
    found = _true_at(address, plan, history, about, record.expression, step_s)

    for labels, values in found.items():
        series = _series_of(record, json.loads(labels))
        for at, value in sorted(values.items()):
            lines.append(f"{series} {value} {plan.starts_wall_s + at}\n")
            next_s = at + step_s
            # Without the NaN Prometheus would show the last value for five minutes more.
            if next_s not in values and next_s <= last_s:
                lines.append(f"{series} NaN {plan.starts_wall_s + next_s}\n")
    return lines


def _series_of(record: RecordingRule, labels: dict[str, str]) -> str:
    """`name{label="value"}`; the labels of the record win, and an empty value removes one."""
    own = {**labels, **dict(record.labels)}
    written = [f"{name}={json.dumps(value)}" for name, value in sorted(own.items()) if value]
    return f"{record.name}{{{','.join(written)}}}"


# --- Results ---------------------------------------------------------------------------------


def evaluate_rules(
    plan: Plan, history: History, rules: RuleSet, step_s: int = STEP_S
) -> RuleResults:
    """When `rules` would have fired in a run. Raises LabUnavailable without a Prometheus, and
    BadInput."""
    lines, missing_of = _recorded(plan, history, rules.records, step_s)
    unclear: list[tuple[str, tuple[str, ...]]] = []
    good: list[FiredAlert] = []
    noisy: list[FiredAlert] = []

    # By default each rule is evaluated as often as its group says.
    every_s = None if step_s == STEP_S else step_s
    with prometheus_with(plan, history, step_s, lines) as address:
        for rule in rules.alerts:
            # Prometheus evaluates it in any case: it may refuse the expression.
            own = firing_alerts(address, plan, history, [rule], every_s)
            needs = missing_for(rule.expression, plan, missing_of)

            if needs:
                unclear.append((rule.name, needs))
            elif _is_noisy(rule, plan, own):
                noisy += own[:1]
            else:
                good += own

    good.sort(key=lambda each: each.world_ns)
    return RuleResults(tuple(good), tuple(noisy), tuple(unclear))


def _is_noisy(rule: AlertRule, plan: Plan, fired: Sequence[FiredAlert]) -> bool:
    """Whether it fired before anything had happened, or whatever happens."""
    if not fired:
        return False

    # An expression without a series, such as vector(1), fires whatever happens.
    if not parse_query(rule.expression).selectors:
        return True

    # In a run without a fault there is nothing that an alert could have been early for.
    first_ns = min((fault.at_world_ns for fault in plan.faults), default=None)
    return first_ns is not None and fired[0].world_ns < first_ns


def judge_alerts(plan: Plan, history: History, rules: RuleSet, results: RuleResults) -> Finding:
    """Whether an alert fired in time. UNKNOWN where that depends on a rule that cannot be
    judged."""
    finding = CHECKS["alert_before_outage"](plan, with_alerts(history, rules.alerts, results.fired))
    holds = finding.verdict is Verdict.HOLDS

    about_mesh = _about_mesh(rules)
    unclear = [each for each in results.unclear if each[0] in about_mesh]
    none_is_clear = len(unclear) + len(results.noisy) >= len(about_mesh)

    # Where a clear rule fired in time, those that cannot be judged change nothing.
    if unclear and (none_is_clear or not holds):
        return _unknown(finding, unclear)

    if results.noisy:
        return _with_noise(finding, _noise(results.noisy), none_is_clear)
    return finding


def _about_mesh(rules: RuleSet) -> set[str]:
    """The names of alerts that are about the mesh and not about the monitoring."""
    return {rule.name for rule in rules.alerts if not rule.watches}


def _unknown(finding: Finding, unclear: Sequence[tuple[str, tuple[str, ...]]]) -> Finding:
    named = "; ".join(f"{name} needs {', '.join(needs)}" for name, needs in unclear)
    because = f"{finding.because}; but what is not in a saved run is not known: {named}"
    return replace(finding, verdict=Verdict.UNKNOWN, because=because)


def _with_noise(finding: Finding, noise: str, all_are_noisy: bool) -> Finding:
    """What rules that fire anyway mean for a finding: where there are no others, an alert in time
    is worth nothing; and they are named where none came in time."""
    if finding.verdict is not Verdict.HOLDS:
        return replace(finding, because=f"{finding.because} ({noise})")
    if not all_are_noisy:
        return finding
    because = f"no alert waits for something: {noise}"
    return replace(finding, verdict=Verdict.BROKEN, because=because)


def _noise(noisy: Iterable[FiredAlert]) -> str:
    return "; ".join(
        f"{each.rule} fires already at {moment(each.world_ns)}, before anything happened"
        for each in noisy
    )


def with_alerts(
    history: History, rules: Sequence[AlertRule], alerts: Sequence[FiredAlert]
) -> History:
    """`history` with what an alerting Prometheus would have added to it, for the checks to read."""
    evaluated = AlertsEvaluated(0, None, None, {"rules": [rule.name for rule in rules]})
    ends = history.of(RunEnded)
    first, *middle = (event for event in history if not isinstance(event, RunEnded))

    middle += _alert_events(rules, alerts)

    # Sorted stably: what was recorded at the same moment stays before its alert.
    middle.sort(key=lambda event: event.world_ns)
    return History([first, evaluated, *middle, *ends])


def _alert_events(rules: Sequence[AlertRule], alerts: Sequence[FiredAlert]) -> Iterator[AlertFired]:
    """Alerts about the monitoring are left out: they do not warn of an outage."""
    watching = {rule.name for rule in rules if rule.watches}
    for each in alerts:
        if each.rule not in watching:
            yield AlertFired(each.world_ns, None, None, {"alert": each.rule})


def replay(
    plan: Plan, history: History, rules: Sequence[AlertRule], step_s: int = STEP_S
) -> History:
    """`history` as it would have been had `rules` been deployed. Raises LabUnavailable without a
    Prometheus."""
    with prometheus_with(plan, history, step_s) as address:
        return with_alerts(history, rules, firing_alerts(address, plan, history, rules, step_s))
