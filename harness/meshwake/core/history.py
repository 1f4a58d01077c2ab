"""What happened: the only thing that checks may read.

A history is a list of events in order of world time. Each event says what kind it is, on which
node, what the three clocks of that node showed, and the data of its kind (events.py). On disk
it is JSON lines, one event a line, so that a run which was killed still leaves everything up to its
last moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, overload

from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.events import Event, RunStarted
from meshwake.core.refusal import unreadable

HISTORY_FORMAT = 1
E = TypeVar("E", bound=Event)


class History:
    """The events of one run, in order of world time."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = tuple(events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    @overload
    def of(self, *kinds: type[E], **data: object) -> list[E]: ...

    @overload
    def of(self, *kinds: str, **data: object) -> list[Event]: ...

    def of(self, *kinds: Any, **data: object) -> list[Any]:
        """The events of these kinds, by their class (events.py) or by name, whose data have these
        values; in order."""
        # By name and not by isinstance, so that both ways of naming a kind mean the same.
        names = set()
        for kind in kinds:
            name = kind if isinstance(kind, str) else kind.kind
            names.add(name)

        # First by kind: most events are of another, and their data need not be looked at.
        found = [event for event in self.events if event.kind in names]
        for key, value in data.items():
            found = [event for event in found if event.data.get(key) == value]
        return found

    @property
    def end_world_ns(self) -> int:
        """World time of the last event."""
        if not self.events:
            return 0
        return self.events[-1].world_ns

    def to_text(self) -> str:
        """The whole history as JSON lines."""
        lines = [event.to_line() for event in self.events]
        # Each line has its end, the last one too; a history of no event has none.
        lines.append("")
        return "\n".join(lines)

    @classmethod
    def from_text(cls, text: str, path: str = "history") -> History:
        """Raises BadInput naming the line that is not an event, or a format of another version."""
        # Not splitlines(): an error message may have one of the other ten characters that Unicode
        # calls a line end.
        lines = text.removesuffix("\n").split("\n") if text else []
        events: list[Event] = []
        for number, line in enumerate(lines, start=1):
            # RecursionError: a line of brackets, nested by the thousand.
            try:
                event = _event_in(line, previous=events[-1] if events else None)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise BadInput(
                    f"{path}:{number}: is not an event of a history ({error}); the lines before it "
                    "are whole: was the run killed? cut the file there to judge what it has"
                ) from error
            events.append(event)

        started = events[0] if events else None
        if not isinstance(started, RunStarted):
            raise BadInput(
                f"{path}: is empty or does not begin with run_started; give the directory of a run"
            )
        if started.format != HISTORY_FORMAT:
            raise BadInput(
                f"{path}: was written in format {started.format}, this meshwake reads format "
                f"{HISTORY_FORMAT}; judge it with the version that made it"
            )
        return cls(events)

    @classmethod
    def read(cls, path: Path) -> History:
        """The history saved at `path`. Raises BadInput."""
        try:
            return cls.from_text(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise unreadable(path, error, "give the directory of a run") from error
        except UnicodeDecodeError as error:
            raise BadInput(
                f"{path}: is not UTF-8 text (byte {error.start}); give the directory of a run"
            ) from error


def _event_in(line: str, previous: Event | None) -> Event:
    """The event in `line`, which must not be before the previous one."""
    event = Event.from_line(line)
    if previous is None:
        return event
    if event.world_ns < previous.world_ns:
        raise ValueError(f"world time goes back from {previous.world_ns} ns to {event.world_ns} ns")
    return event


class Recorder:
    """Takes events from a lab, checks that they have the data of their kind, and writes each at
    once if requested."""

    def __init__(self, path: Path | None = None) -> None:
        self._events: list[Event] = []
        self._file = None
        if path is not None:
            # One line at a time reaches the file: what was recorded survives a kill of this
            # process.
            self._file = path.open("w", encoding="utf-8", buffering=1)

    def record(
        self, world_ns: int, kind: str, node: str | None, clocks: ClockReading | None, **data: Any
    ) -> None:
        """Raises HarnessFault when the event is of no known kind, lacks data, or is before the
        last one."""
        self.append(Event.of_kind(world_ns, kind, node, clocks, data))

    def append(self, event: Event) -> None:
        """As `record`, for an event that exists."""
        last = self._events[-1] if self._events else event
        # A lab that records out of order has a defect: checks read a history in order of time.
        if event.world_ns < last.world_ns:
            raise HarnessFault(
                f"event {event.kind!r} at {event.world_ns} ns is before {last.kind!r}"
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
