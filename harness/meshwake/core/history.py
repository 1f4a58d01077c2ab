"""What happened: the only thing that checks may read.

A history is a list of events in order of world time. Each event says what kind it is, on which
node, what the three clocks of that node showed, and the data that its kind promises (`KINDS`). On
disk it is JSON lines, one event a line, so that a run which was killed still leaves everything up
to its last moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, HarnessFault

HISTORY_FORMAT = 1

# kind of event -> the data each event of this kind carries. One table, for labs that write and
# checks that read.
KINDS: dict[str, tuple[str, ...]] = {
    # The run. `subject` describes what was tested (a model's class; a binary's digest and its own
    # version).
    "run_started": ("format", "lab", "version", "subject"),
    "run_ended": (
        "reason",
    ),  # "duration", or "csr_flood": stopped after a bounded number of requests
    # A ztunnel process; `process` names it, `cause` is "start", "restart" or the fix that did it.
    "ztunnel_started": ("process", "identities", "cause"),
    "ztunnel_stopped": ("process", "cause"),
    # The same of a gateway or waypoint, and of all application pods of a node.
    "proxy_started": ("process", "identities", "cause"),
    "proxy_stopped": ("process", "cause"),
    "applications_restarted": ("cause",),
    "pod_replaced": ("identity",),  # its ztunnel forgets its certificate, and asks for another
    # A slow authority has taken a request; what came of it stands in the csr_answered that follows.
    "csr_taken": ("identity",),
    # The authority's side of a request. `outcome`: "issued", "refused", "hung", "unauthenticated".
    # issued: `serial`, `not_before_wall_s`, `not_after_wall_s`; else None in all three.
    "csr_answered": ("identity", "outcome", "serial", "not_before_wall_s", "not_after_wall_s"),
    # What ztunnel says of a certificate (admin interface), recorded when it has changed. `state`:
    # "Initializing", "Available", "Unavailable: ..."; `serial` and `not_after_wall_s` of the
    # certificate it holds, or None.
    "certificate_state": ("identity", "state", "serial", "not_after_wall_s"),
    # One new connection through the mesh. `node` is the source's. `error` is None when it worked.
    "connection_attempted": ("source", "destination", "ok", "error"),
    # Faults. Clocks are measured inside the subject. `wall_before_ns`: the wall clock just before
    # the lab stepped it at this event (step, and the late correction of a pause), None where
    # nothing was stepped.
    "fault_began": ("fault", "fault_kind"),
    "node_woke": (
        "fault",
        "fault_kind",
    ),  # pause only: processes run again, the wall clock is still behind
    "fault_ended": ("fault", "fault_kind", "wall_before_ns"),
    # Alerting, for scenarios that deploy it. `alerts_received`: what Alertmanager has been handed.
    "alerts_evaluated": ("rules",),
    "alert_fired": ("alert",),
    "alerts_received": ("alerts",),
    # Of a whole cluster (lab kind); evidence, which no check reads. Nobody knocked, so nobody was
    # refused:
    "connection_not_attempted": ("source", "destination", "error"),
    # One new connection by way of a waypoint or a Gateway; `via` names which.
    "route_attempted": ("source", "destination", "via", "ok", "error"),
    # Something that is looked at now and then could not be reached, told once until it can be
    # again.
    "observation_failed": ("what", "error"),
    "istiod_seen": (
        "kubernetes_node",
    ),  # where istiod runs, when that is new; `node` is the plan's, if it is one
    "proxy_certificate": (
        "proxy",
        "subject",
        "serial",
        "not_after_wall_s",
    ),  # of an Envoy: a gateway, a waypoint
    "token_seen": (
        "pod",
        "expires_wall_s",
    ),  # the token with which a ztunnel asks istiod, when kubelet changed it
    "log_line": (
        "process",
        "match",
        "line",
    ),  # of ztunnel's log; `match` says what it tells of certificates
    "flows_seen": (
        "agent",
        "forwarded",
        "dropped",
        "drop_reasons",
    ),  # by Hubble, since the last such event
}


@dataclass(frozen=True)
class Event:
    """One thing that happened; `node` and `clocks` are None for what happened on no node (an
    authority apart has clocks of its own and node None)."""

    world_ns: int
    kind: str
    node: str | None
    clocks: ClockReading | None
    data: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.data[key]

    def to_line(self) -> str:
        """The event as one line of JSON, keys always in the same order."""
        line: dict[str, Any] = {"world_ns": self.world_ns, "kind": self.kind, "node": self.node}
        line |= self.clocks._asdict() if self.clocks else dict.fromkeys(ClockReading._fields)
        return json.dumps(line | self.data, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str) -> Event:
        """Raises ValueError, KeyError, TypeError or AttributeError when the line is no event."""
        raw = json.loads(line)
        world_ns, kind, node = _whole(raw.pop("world_ns")), raw.pop("kind"), raw.pop("node")
        readings = [raw.pop(name) for name in ClockReading._fields]
        clocks = (
            None if readings == [None] * len(readings) else ClockReading(*map(_whole, readings))
        )
        if not isinstance(node, str | None):
            raise TypeError(f"node is {node!r}, not a name")
        missing = [key for key in KINDS[kind] if key not in raw]
        if missing:
            raise KeyError(f"{kind} without {', '.join(missing)}")
        return cls(world_ns, kind, node, clocks, raw)


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number of nanoseconds")
    return value


class History:
    """The events of one run, in order of world time."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = tuple(events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def of(self, *kinds: str, **data: Any) -> list[Event]:
        """The events of these kinds whose data has these values, in order."""
        return [
            event
            for event in self.events
            if event.kind in kinds
            and all(event.data.get(key) == value for key, value in data.items())
        ]

    @property
    def end_world_ns(self) -> int:
        """World time of the last event."""
        return self.events[-1].world_ns if self.events else 0

    def to_text(self) -> str:
        """The whole history as JSON lines."""
        return "".join(event.to_line() + "\n" for event in self.events)

    @classmethod
    def from_text(cls, text: str, path: str = "history") -> History:
        """Raises BadInput naming the line that is no event, or a format of another version."""
        events: list[Event] = []
        # Not splitlines(): an error message may hold one of the other ten characters that Unicode
        # calls a line end.
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), start=1):
            try:
                event = Event.from_line(line)
                if events and event.world_ns < events[-1].world_ns:
                    raise ValueError(
                        f"world time goes back from {events[-1].world_ns} ns to {event.world_ns} ns"
                    )
                events.append(event)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise BadInput(
                    f"{path}:{number}: is no event of a history ({error}); the lines before "
                    "it are whole: "
                    "was the run killed? cut the file there to judge what it has"
                ) from error
        if not events or events[0].kind != "run_started":
            raise BadInput(
                f"{path}: is empty or does not begin with run_started; give the directory of a run"
            )
        if events[0]["format"] != HISTORY_FORMAT:
            raise BadInput(
                f"{path}: was written in format {events[0]['format']}, this meshwake reads "
                f"format {HISTORY_FORMAT}; "
                "judge it with the version that made it"
            )
        return cls(events)

    @classmethod
    def read(cls, path: Path) -> History:
        """The history saved at `path`. Raises BadInput."""
        try:
            return cls.from_text(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise BadInput(
                f"{path}: cannot be read ({error.strerror}); give the directory of a run"
            ) from error
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}: is not UTF-8 text (byte {error.start}); give the directory of a run"
            ) from error


class Recorder:
    """Takes events from a lab, checks that they keep the promise of `KINDS`, and writes each at
    once if asked."""

    def __init__(self, path: Path | None = None) -> None:
        self._events: list[Event] = []
        self._file = path.open("w", encoding="utf-8", buffering=1) if path else None

    def record(
        self, world_ns: int, kind: str, node: str | None, clocks: ClockReading | None, **data: Any
    ) -> None:
        """Raises HarnessFault when the event is of no known kind, lacks data, or lies before the
        last one."""
        self.append(Event(world_ns, kind, node, clocks, data))

    def append(self, event: Event) -> None:
        """As `record`, for an event that exists."""
        missing = [key for key in KINDS.get(event.kind, ("a known kind",)) if key not in event.data]
        if missing:
            raise HarnessFault(
                f"event {event.kind!r} lacks {', '.join(missing)}; see "
                "harness/meshwake/core/history.py KINDS"
            )
        if self._events and event.world_ns < self._events[-1].world_ns:
            last = self._events[-1]
            raise HarnessFault(
                f"event {event.kind!r} at {event.world_ns} ns lies before {last.kind!r}"
            )
        self._events.append(event)
        if self._file:
            self._file.write(event.to_line() + "\n")

    def close(self) -> None:
        """Ends the file; what was recorded stays."""
        if self._file:
            self._file.close()
            self._file = None

    @property
    def history(self) -> History:
        """What has been recorded so far."""
        return History(self._events)
