"""History: what is written is read back, and what is damaged is refused with the line that is."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.events import KINDS, Event
from meshwake.core.history import HISTORY_FORMAT, History, Recorder

STARTED = {"format": HISTORY_FORMAT, "lab": "model", "version": "1.31.0", "subject": {}}
FIRST_LINE = Event.of_kind(0, "run_started", None, None, STARTED).to_line() + "\n"

whole = st.integers(min_value=-(2**62), max_value=2**62)
readings = st.none() | st.builds(ClockReading, whole, whole, whole)
# Lone surrogates are no text: no UTF-8 file can hold them.
words = st.text(st.characters(exclude_categories=["Cs"]))
values = st.none() | st.booleans() | whole | words | st.lists(words)


@st.composite
def events(draw: st.DrawFn) -> Event:
    kind = draw(st.sampled_from(sorted(set(KINDS) - {"run_started"})))
    data: dict[str, Any] = {key: draw(values) for key in KINDS[kind]}
    return Event.of_kind(
        draw(st.integers(0, 2**62)), kind, draw(st.none() | words), draw(readings), data
    )


@pytest.mark.slow(reason="hundreds of drawn examples")
@given(st.lists(events()))
def test_what_is_written_is_read_back(some: list[Event]) -> None:
    """A history survives text and back, whatever its error messages hold."""
    history = History(
        [
            Event.of_kind(0, "run_started", None, None, STARTED),
            *sorted(some, key=lambda e: e.world_ns),
        ]
    )
    assert History.from_text(history.to_text()).events == history.events


@pytest.mark.slow(reason="hundreds of drawn examples")
@given(st.lists(events(), min_size=1), st.data())
def test_damage_is_bad_input(some: list[Event], data: st.DataObject) -> None:
    """A history cut or overwritten anywhere is read or refused as BadInput, never a traceback."""
    text = FIRST_LINE + "".join(
        event.to_line() + "\n" for event in sorted(some, key=lambda e: e.world_ns)
    )
    at = data.draw(st.integers(0, len(text)))
    damage = data.draw(words | st.just(""))
    with suppress(BadInput):
        History.from_text(text[:at] + damage)


@pytest.mark.slow(reason="hundreds of drawn examples")
@given(st.recursive(st.none() | st.booleans() | whole | st.floats() | words, st.lists))
def test_any_value_in_any_place_is_bad_input_or_an_event(value: Any) -> None:
    """A line whose fields hold something else than times and names is refused as BadInput."""
    line = json.loads(
        Event.of_kind(
            0, "run_ended", "laptop", ClockReading(1, 2, 3), {"reason": "duration"}
        ).to_line()
    )
    for key in ("world_ns", "kind", "node", *ClockReading._fields):
        try:
            history = History.from_text(FIRST_LINE + json.dumps(line | {key: value}) + "\n")
        except BadInput:
            continue
        assert type(history.events[1].world_ns) is int
        assert isinstance(history.events[1].node, str | None)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "3",
        "null",
        "[]",
        "[" * 100_000,
        '{"world_ns":1}',
        '{"world_ns":1,"kind":"nonsense","node":null,"wall_ns":null,"monotonic_ns":null,"boottime_ns":null}',
        '{"world_ns":1.5,"kind":"run_ended","node":null,"wall_ns":null,"monotonic_ns":null,"boottime_ns":null,"reason":""}',
        '{"world_ns":1,"kind":"run_ended","node":null,"wall_ns":null,"monotonic_ns":2,"boottime_ns":null,"reason":""}',
        '{"world_ns":1,"kind":"run_ended","node":null,"wall_ns":null,"monotonic_ns":null,"boottime_ns":null}',
        '{"world_ns":-1,"kind":"run_ended","node":null,"wall_ns":null,"monotonic_ns":null,"boottime_ns":null,"reason":""}',
    ],
)
def test_a_line_that_is_not_an_event_is_named(line: str) -> None:
    """The message says file and line, and what to do with a killed run."""
    with pytest.raises(BadInput, match=r"^some/run:2: .*cut the file there"):
        History.from_text(FIRST_LINE + line + "\n", "some/run")


@pytest.mark.parametrize(
    "text", ["", Event.of_kind(0, "run_ended", None, None, {"reason": "duration"}).to_line() + "\n"]
)
def test_a_history_begins_with_its_run(text: str) -> None:
    """An empty file, or another's lines, is not a history."""
    with pytest.raises(BadInput, match="does not begin with run_started"):
        History.from_text(text)


def test_another_format_is_refused() -> None:
    """A history of a later program is not guessed at."""
    line = Event.of_kind(
        0, "run_started", None, None, STARTED | {"format": HISTORY_FORMAT + 1}
    ).to_line()
    with pytest.raises(
        BadInput, match=f"format {HISTORY_FORMAT + 1}, this meshwake reads format {HISTORY_FORMAT}"
    ):
        History.from_text(line + "\n")


def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path) -> None:
    """A missing file and one that is not text are named, not thrown."""
    with pytest.raises(BadInput, match="cannot be read"):
        History.read(tmp_path / "missing.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\x7fELF\xff")
    with pytest.raises(BadInput, match="is not UTF-8 text"):
        History.read(tmp_path / "binary.jsonl")


def test_every_event_is_on_disk_before_the_next(tmp_path: Path) -> None:
    """A run that is killed leaves everything up to its last moment."""
    recorder = Recorder(tmp_path / "history.jsonl")
    recorder.record(0, "run_started", None, None, **STARTED)
    recorder.record(7, "run_ended", None, None, reason="duration")
    assert History.read(tmp_path / "history.jsonl").events == recorder.history.events
    recorder.close()


def test_a_lab_that_breaks_its_promise_is_at_fault() -> None:
    """An unknown kind, missing data or time that goes back is a fault of the harness, seen when it
    is recorded."""
    recorder = Recorder()
    with pytest.raises(HarnessFault, match="unknown kind of event"):
        recorder.record(0, "nonsense", None, None)
    with pytest.raises(HarnessFault, match="lacks reason"):
        recorder.record(0, "run_ended", None, None)
    recorder.record(5, "run_ended", None, None, reason="duration")
    with pytest.raises(HarnessFault, match="is before"):
        recorder.record(4, "run_ended", None, None, reason="duration")
    assert len(recorder.history) == 1
