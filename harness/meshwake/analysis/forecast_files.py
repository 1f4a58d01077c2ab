"""Reads what was saved from a cluster for a forecast; docs/forecast.md has the commands that save
it. One folder a node:

    config_dump.json   of ztunnel, GET localhost:15000/config_dump
    pod.json           kubectl get pod -o json: when the container started, and on which node
    clocks.txt         the node's clocks and ztunnel's start: lines "wall ...", "uptime ...", "stat ...", and where
                       they are known "monotonic ...", "elapsed ..."
    journal.json       instead or in addition: journalctl -o json from before the container's start until now
    metrics.txt        instead or in addition: the metrics of the wake guard

Times in pods and config_dump are RFC 3339. /proc/PID/stat counts in ticks of a hundredth of a
second, on every architecture that Istio has images for.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from meshwake.analysis.forecast import (
    ALIKE_NS,
    HeldCertificate,
    ObservedClocks,
    ObservedNode,
    ProcessStart,
)
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, SubjectFailed
from meshwake.core.json_types import objects_at, text_at, value_at
from meshwake.core.text_files import is_there, read_text
from meshwake.core.yaml_text import read_documents
from meshwake.importers import systemd
from meshwake.importers.formats import read_systemd
from meshwake.importers.items import Tally
from meshwake.system.process_stat import parse_stat
from meshwake.ztunnel.config_dump import parse_config_dump
from meshwake.ztunnel.names import PROXY_CONTAINER

# Times in /proc/PID/stat are in clock ticks (proc_pid_stat(5)). To programs these are hundredths of
# a second on every architecture that ztunnel is built for, whatever the kernel's own HZ (USER_HZ,
# include/asm-generic/param.h).
TICK_NS = 10_000_000
DRIFT_METRIC = "meshwake_guard_drift_seconds"
# The last second of the year 9999: no clock and no certificate of X.509 shows a later one.
LATEST_WALL_S = 253_402_300_799
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class SavedClocks:
    """The lines of clocks.txt; None: a line that is not there."""

    wall_ns: int
    boottime_ns: int | None = None
    monotonic_ns: int | None = None
    started_boottime_ns: int | None = None
    elapsed_monotonic_ns: int | None = None


def read_nodes(folder: Path) -> list[ObservedNode]:
    """Every node saved in `folder`: one in each of its folders, or one in itself. Raises
    BadInput."""
    if not _is_directory(folder):
        raise BadInput(
            f"{folder}: is not a directory; expected one with config_dump.json in it, or with "
            "one folder a node"
        )

    # A folder of nodes, a folder of one, or both: what is there is read.
    places = sorted(path.parent for path in folder.glob("*/config_dump.json"))
    if is_there(folder / "config_dump.json"):
        places.append(folder)

    if not places:
        raise BadInput(
            f"{folder}: no config_dump.json in it or in one of its folders; "
            "docs/forecast.md says how to save one"
        )
    return [read_node(place) for place in places]


def _is_directory(folder: Path) -> bool:
    try:
        return folder.is_dir()
    except (OSError, ValueError):
        # A name that is too long, or with a NUL byte in it.
        return False


def read_node(place: Path) -> ObservedNode:
    """The node saved in folder `place`. Raises BadInput."""
    held = _read(place / "config_dump.json", held_in)
    clocks = _read_if_there(place / "clocks.txt", clocks_in)
    pod = _read_if_there(place / "pod.json", partial(_pod, place.name))
    origin = Origin(
        node=str(value_at(pod, "spec", "nodeName") or place.name),
        process=str(value_at(pod, "metadata", "name") or "ztunnel"),
        namespace=text_at(pod, "metadata", "namespace") or None,
    )

    # The start bounds the drift from one side; with a journal from before it, from both.
    started = journal = None
    if pod is not None:
        started = _in_file(place / "pod.json", lambda: started_in(pod))
    if is_there(place / "journal.json") and started is not None:
        journal = drift_in_journal(place / "journal.json", started, origin.node)

    # A guard has measured the drift itself; its page has every process of the node.
    measure = partial(drift_in_metrics, process=origin.process)
    measured = _read_if_there(place / "metrics.txt", measure)

    if clocks is None and journal is None:
        raise BadInput(
            f"{place}: neither clocks.txt nor a journal.json with a pod.json; docs/forecast.md "
            "says how to save them"
        )
    return node_of(origin, held, clocks, started, journal, measured)


def _read_if_there(path: Path, parse: Callable[[str], _Value]) -> _Value | None:
    if not is_there(path):
        return None
    return _read(path, parse)


class Origin(NamedTuple):
    """Of which node, pod and namespace something was found; None: a namespace that is not known."""

    node: str
    process: str
    namespace: str | None


def node_of(
    place: Origin,
    held: tuple[HeldCertificate, ...],
    clocks: SavedClocks | None,
    started: tuple[int, int] | None,
    journal: JournalDrift | None = None,
    measured_ns: int | None = None,
) -> ObservedNode:
    """One node, from what was found of it. `started`: between which two moments of its wall clock
    ztunnel started; `journal`: the drift since then, by its journal."""
    if clocks is None:
        # The end of its journal is then the moment of the observation.
        clocks = SavedClocks(0 if journal is None else journal.last_wall_ns)

    start = None
    if started is not None:
        # Without the uptime there is nothing to compare a start since boot with.
        has_uptime = clocks.boottime_ns is not None
        start = ProcessStart(*started, clocks.started_boottime_ns if has_uptime else None)

    observed = ObservedClocks(
        now=ClockReading(clocks.wall_ns, clocks.monotonic_ns or 0, clocks.boottime_ns or 0),
        knows_monotonic=clocks.monotonic_ns is not None,
        started=start,
        measured_drift_ns=measured_ns,
        apart_since_start_ns=None if journal is None else (journal.least_ns, journal.most_ns),
        elapsed_monotonic_ns=clocks.elapsed_monotonic_ns,
    )
    return ObservedNode(place.node, place.process, observed, held, place.namespace)


# --- Each file ------------------------------------------------------------------------------------


def held_in(text: str) -> tuple[HeldCertificate, ...]:
    """The certificates of a config_dump, by identity. Raises ValueError."""
    dump = _json_or_yaml(
        text,
        "expected ztunnel's /config_dump, or what istioctl ztunnel-config certificates -o "
        "json prints",
    )
    entries = sorted(
        parse_config_dump(json.dumps(dump)), key=lambda entry: (entry.identity, entry.spiffe)
    )

    # One service account in two trust domains is two certificates: then the domain
    # distinguishes them.
    certificates_of = Counter(entry.identity for entry in entries)

    held = []
    for entry in entries:
        name = entry.identity if certificates_of[entry.identity] == 1 else entry.spiffe
        begins_ns, ends_ns = _ns(entry.not_before_wall_s), _ns(entry.not_after_wall_s)
        held.append(HeldCertificate(name, entry.state, begins_ns, ends_ns))
    return tuple(held)


def _ns(seconds: int | None) -> int | None:
    if seconds is None:
        return None
    return seconds * NS_PER_S


def started_in(pod: dict[str, Any]) -> tuple[int, int]:
    """Between which two moments (ns) ztunnel's container started: Kubernetes has whole seconds, cut
    off. Raises ValueError."""
    containers = objects_at(pod, "status", "containerStatuses")
    # By its name, among sidecars that a cluster may inject; else the first, as in a pod of one.
    own = [each for each in containers if each.get("name") == PROXY_CONTAINER] or containers
    started = value_at(own[0], "state", "running", "startedAt") if own else None
    if started is None:
        raise ValueError(
            "no running container in status.containerStatuses; is it the pod of a running ztunnel?"
        )

    moment = datetime.fromisoformat(str(started))
    if moment.tzinfo is None:
        raise ValueError(
            "startedAt: expected a time with its zone, such as 2026-11-30T08:00:00Z, found "
            f"{started!r}"
        )

    # Cut off, not rounded: it started within the second that begins there.
    begins_ns = int(moment.timestamp()) * NS_PER_S
    return begins_ns, begins_ns + NS_PER_S


def clocks_in(text: str) -> SavedClocks:
    """The lines of clocks.txt. Raises ValueError."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        # A name, and the rest of the line: the text of /proc/PID/stat has spaces in it.
        name, *rest = line.split(maxsplit=1) or [""]
        found[name] = rest[0] if rest else ""

    if "wall" not in found:
        raise ValueError("no line 'wall SECONDS', as 'echo wall $(date +%s.%N)' prints it")
    if "uptime" in found:
        # The second number is the idle time of all cores.
        since_boot, *_ = found["uptime"].split() or [""]
        found["uptime"] = since_boot

    return SavedClocks(
        wall_ns=_seconds_ns(found["wall"], "wall"),
        boottime_ns=_line_ns(found, "uptime"),
        monotonic_ns=_line_ns(found, "monotonic"),
        started_boottime_ns=starttime_ns(found["stat"]) if "stat" in found else None,
        elapsed_monotonic_ns=_line_ns(found, "elapsed"),
    )


def _line_ns(found: dict[str, str], line: str) -> int | None:
    """The time on a line; None where the line is not there."""
    if line not in found:
        return None
    return _seconds_ns(found[line], line)


def _seconds_ns(text: str, line: str) -> int:
    # A date without %N prints it or nothing, and some locales write a comma: what is before is
    # right to the second.
    without_letters = re.sub(r"\.(?:%?N)?$", "", text.strip())
    try:
        length_s = Decimal(without_letters.replace(",", "."))
    except InvalidOperation as error:
        raise ValueError(
            f"line {line!r}: read {text!r}, expected seconds such as 1795640592.123"
        ) from error

    # Compared before it is multiplied: 1e400 and Infinity are numbers to Decimal.
    if length_s.is_nan() or not 0 <= length_s <= LATEST_WALL_S:
        raise ValueError(
            f"line {line!r}: read {text!r}, expected seconds from 0 to {LATEST_WALL_S}"
        )
    return int(length_s * NS_PER_S)


def starttime_ns(stat: str) -> int:
    """When a process started, since boot by CLOCK_BOOTTIME, from the text of /proc/PID/stat. Raises
    ValueError."""
    try:
        ticks = parse_stat(stat).started_ticks
        if not 0 <= ticks * TICK_NS <= LATEST_WALL_S * NS_PER_S:
            raise ValueError("no such time")
        return ticks * TICK_NS
    except ValueError as error:
        raise ValueError(
            f"line 'stat': read {stat[:40]!r}, expected the text of /proc/PID/stat"
        ) from error


class JournalDrift(NamedTuple):
    """The clock drift since a container started, between two bounds (ns), and the wall clock at the
    end of the journal."""

    least_ns: int
    most_ns: int
    last_wall_ns: int


class _Entry(NamedTuple):
    """One entry of a journal. `apart_ns`: wall minus monotonic."""

    wall_ns: int
    apart_ns: int
    boot: str


def drift_in_journal(path: Path, started: tuple[int, int], node: str | None = None) -> JournalDrift:
    """The clock drift since the container started, which was between two moments of the wall clock,
    by the journal at `path`. `node`: whose entries, where it holds several. Raises BadInput when
    the journal does not reach back to that start, or the node has booted since."""
    last: _Entry | None = None

    # What wall minus monotonic may have been at the start; more than one, where the wall clock was
    # set back over it.
    bounds: list[tuple[int, int]] = []
    reached_back = False

    for entry in _entries(path, node):
        reached_back = reached_back or entry.wall_ns <= started[1]

        # The monotonic clock begins again with each boot, and no process outlives one.
        if last is not None and entry.boot != last.boot:
            bounds, last = [], None

        # A clock that was set back shows the moment of the start twice: it may have been either.
        if last is not None and last.wall_ns <= started[1] < entry.wall_ns:
            bounds.append(_apart_at_start(last, entry, started))
        last = entry

    if last is None:
        raise BadInput(f"{path}: holds no entry of a journal; print it with journalctl -o json")

    # The journal ends before the start was over: no entry after it shows another drift.
    if last.wall_ns <= started[1]:
        bounds.append((last.apart_ns, last.apart_ns))

    if not bounds:
        raise _start_not_in(path, reached_back)
    least_ns = min(least for least, _ in bounds)
    most_ns = max(most for _, most in bounds)
    return JournalDrift(last.apart_ns - most_ns, last.apart_ns - least_ns, last.wall_ns)


def _start_not_in(path: Path, reached_back: bool) -> BadInput:
    """The error where the container's start is not in the journal of the present boot.
    `reached_back`: that of an earlier boot has its time."""
    if reached_back:
        return BadInput(
            f"{path}: the node has booted since the container of pod.json started; save "
            "pod.json again"
        )
    return BadInput(
        f"{path}: does not reach back to the container's start; print it with an earlier --since"
    )


def _apart_at_start(before: _Entry, after: _Entry, started: tuple[int, int]) -> tuple[int, int]:
    """Between which two values wall minus monotonic was when the container started. It can grow by
    no more than the wall clock does, since the monotonic clock never goes back; over a gap at whose
    ends it is the same it is taken for constant."""
    # An entry close before the start has the value of the start.
    if started[1] - before.wall_ns <= ALIKE_NS:
        return before.apart_ns, before.apart_ns

    lower, upper = sorted((before.apart_ns, after.apart_ns))
    # All of what it grew over the gap may have come after the start, or all of it before.
    least_ns = max(lower, after.apart_ns - abs(after.wall_ns - started[0]))
    most_ns = min(upper, before.apart_ns + abs(started[1] - before.wall_ns))

    # Where the clock was set back within the gap, the two may be the other way round.
    return min(least_ns, most_ns), max(least_ns, most_ns)


def _entries(path: Path, node: str | None) -> Iterator[_Entry]:
    """The entries of one node, as they were written. Raises BadInput where it is not clear which
    they are."""
    log = read_systemd(path, Tally(str(path)))
    if log is None:
        return

    if node is not None and not _has_entries_of(log, node):
        _refuse_several_hosts(path, log, node)
        # One host, by another name than Kubernetes gives its node: all entries are its own.
        node = None

    for boot, wall_ns, monotonic_ns in systemd.in_order(log, node):
        yield _Entry(wall_ns, wall_ns - monotonic_ns, boot)


def _has_entries_of(log: systemd.SystemdJournal, node: str) -> bool:
    return any(boot.is_of(node) for boot in log.boots.values())


def _refuse_several_hosts(path: Path, log: systemd.SystemdJournal, node: str) -> None:
    """A journal of one host is taken for that of the node, whatever its name."""
    hosts = {host for boot in log.boots.values() for host in boot.hosts}
    if len(hosts) > 1:
        raise BadInput(
            f"{path}: holds the journals of {', '.join(sorted(hosts))}, and the node is called "
            f"{node}; print it with journalctl -o json _HOSTNAME=NAME"
        )


def drift_in_metrics(text: str, process: str) -> int | None:
    """The clock drift (ns) that the wake guard measured of `process`; None when it has none of it.
    Raises ValueError."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name != DRIFT_METRIC or not _is_of(sample.labels, process):
                continue

            if not abs(sample.value) <= LATEST_WALL_S:  # NaN compares as false
                raise ValueError(
                    f"{DRIFT_METRIC} of {process} is {sample.value}, expected a length in seconds"
                )
            return int(Decimal(sample.value) * NS_PER_S)

    # A guard that started a moment ago has not looked at every process yet.
    return None


def _is_of(labels: dict[str, str], process: str) -> bool:
    """The guard names a process with its namespace before it."""
    name = labels.get("process", "").rpartition("/")[2]
    return name == process


def _pod(folder: str, text: str) -> dict[str, Any]:
    """The pod in `text`: itself, or the one of a list that runs on node `folder`, or the only one.
    Raises ValueError."""
    expected = "expected a pod as kubectl get pod NAME -o json prints it"
    value = _json_or_yaml(text, expected)

    is_list = isinstance(value, dict) and "items" in value
    listed = value["items"] if is_list else value
    if isinstance(listed, list):
        return _of_list(listed, folder)

    if not isinstance(value, dict):
        raise ValueError(  # noqa: TRY004  as for every other file that is not what it should be
            f"{expected}, found {text[:40]!r}"
        )
    return value


def _of_list(listed: list[Any], folder: str) -> dict[str, Any]:
    """The one pod of a list that is meant. Raises ValueError where several may be."""
    pods = [each for each in listed if isinstance(each, dict)]

    # `kubectl get pods -o json` of the whole cluster may be saved in the folder of each node.
    on_node = [each for each in pods if text_at(each, "spec", "nodeName") == folder]
    if len(on_node) == 1:
        return on_node[0]
    if len(pods) == 1:
        return pods[0]
    raise ValueError(f"a list of {len(pods)} pods; save one: kubectl get pod NAME -o json")


def _json_or_yaml(text: str, expected: str) -> Any:
    """What -o json or -o yaml printed. Raises ValueError for what is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        documents = _yaml_in(text)
        # A sentence is YAML too: only what has keys or entries is taken for it.
        if len(documents) == 1 and isinstance(documents[0], (dict, list)):
            return documents[0]
        raise ValueError(f"{expected}, found no JSON ({error})") from error


def _yaml_in(text: str) -> list[Any]:
    """The documents in `text`; none where it is not YAML."""
    try:
        return read_documents(text, "")
    except BadInput:
        return []


def _read(path: Path, parse: Callable[[str], _Value]) -> _Value:
    text = read_text(path)
    # curl -i prints the headers of the answer before it.
    if text.startswith("HTTP/"):
        text = text.partition("\r\n\r\n")[2]

    if not text.strip():
        raise BadInput(f"{path}: it is empty; save it again (docs/forecast.md)")
    return _in_file(path, lambda: parse(text))


def _in_file(path: Path, parse: Callable[[], _Value]) -> _Value:
    # A saved file may be any: half a download, another tool's output, an HTML page of a proxy.
    try:
        return parse()
    except SubjectFailed as error:
        raise BadInput(f"{path}: {error}") from error
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise BadInput(f"{path}: {error}") from error
