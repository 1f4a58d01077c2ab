"""Whatever happened to a machine, each system's journal of it is read as that again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.core.durations import NS_PER_S
from meshwake.core.scenario import DEFAULT_STARTS, parse_scenario
from meshwake.importers import entries, libvirt, pmset, systemd, windows_xml
from meshwake.importers.items import Tally
from meshwake.importers.placement import PlacedJournal
from meshwake.importers.scenario_writer import WEEK_S, ScenarioOptions, scenario_text
from meshwake.importers.sleep_history import sleep_history_of

STARTS = datetime(2026, 11, 1, 8, 0, tzinfo=UTC)
# (seconds awake, seconds asleep) in turns. Systemd notices jumps from 30 s on.
TURNS = st.lists(
    st.tuples(st.integers(600, 90_000), st.integers(30, 300_000)), min_size=1, max_size=12
)


def nights(turns: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(begins, lasts) of each sleep, in seconds since the start."""
    ends = list(accumulate(awake + asleep for awake, asleep in turns))
    return [(end - asleep, asleep) for end, (_, asleep) in zip(ends, turns, strict=True)]


def as_systemd(turns: list[tuple[int, int]]) -> str:
    lines, slept = [], 0
    for begins, lasts in [(0, 0), *nights(turns)]:
        for wall, monotonic, words in (
            (begins, begins - slept, "PM: suspend entry (deep)" if lasts else "Linux version 6.8"),
            (begins + lasts, begins - slept, "PM: suspend exit" if lasts else "Started k3s"),
        ):
            entry = {
                "__REALTIME_TIMESTAMP": str((int(STARTS.timestamp()) + wall) * 1_000_000),
                "__MONOTONIC_TIMESTAMP": str((monotonic + 600) * 1_000_000),
                "_BOOT_ID": "one",
                "_TRANSPORT": "kernel",
                "MESSAGE": words,
            }
            lines.append(json.dumps(entry))
        slept += lasts
    return "\n".join(lines)


def as_pmset(turns: list[tuple[int, int]]) -> str:
    lines = [f"{_local(0)} Start               \tpowerd process is started"]
    for begins, lasts in nights(turns):
        lines.append(
            f"{_local(begins)} Sleep               \tEntering Sleep state due to 'Idle "
            "Sleep':x Using AC"
        )
        lines.append(
            f"{_local(begins + lasts)} Wake                \tWake from Deep Idle [CDNVA] : "
            "due to lid"
        )
    return "\n".join(lines)


def _local(second: int) -> str:
    zone = datetime.fromisoformat("2026-01-01T00:00:00-07:00").tzinfo
    return (STARTS + timedelta(seconds=second)).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %z")


def as_windows(turns: list[tuple[int, int]]) -> str:
    events = [(0, 7036)]
    for begins, lasts in nights(turns):
        events += [(begins, 42), (begins + lasts, 107)]
    return "".join(_windows_event(number, second) for second, number in reversed(events))


def _windows_event(number: int, second: int) -> str:
    when = (STARTS + timedelta(seconds=second)).isoformat()
    return (
        "<Event xmlns='x'><System><Provider Name='Microsoft-Windows-Kernel-Power'/>"
        f"<EventID>{number}</EventID><TimeCreated SystemTime='{when}'/></System></Event>"
    )


def as_virsh(turns: list[tuple[int, int]]) -> str:
    lines = []
    for begins, lasts in nights(turns):
        for second, what in ((begins, "Suspended Paused"), (begins + lasts, "Resumed Unpaused")):
            when = (STARTS + timedelta(seconds=second)).strftime("%Y-%m-%d %H:%M:%S.000+0000")
            lines.append(f"{when}: event 'lifecycle' for domain 'k3s': {what}")
    return "\n".join(lines)


def systemd_laid(stream: StringIO, tally: Tally) -> PlacedJournal | None:
    return systemd.place_boots(systemd.read(entries.json_entries(stream, tally), tally))


READERS: list[Callable[[StringIO, Tally], PlacedJournal | None]] = [
    systemd_laid,
    pmset.read,
    windows_xml.read,
    libvirt.read,
]


@pytest.mark.parametrize(
    ("write", "read", "kind"),
    [
        (as_systemd, systemd_laid, "suspend"),
        (as_pmset, pmset.read, "pause"),
        (as_windows, windows_xml.read, "pause"),
        (as_virsh, libvirt.read, "pause"),
    ],
    ids=["systemd", "pmset", "windows", "virsh"],
)
@settings(max_examples=30, deadline=None)
@given(turns=TURNS)
def test_sleeps_written_are_sleeps_read(
    write: Callable[[list[tuple[int, int]]], str],
    read: Callable[[StringIO, Tally], PlacedJournal | None],
    kind: str,
    turns: list[tuple[int, int]],
) -> None:
    """Every sleep, to the second, no other, and the scenario of it is one that `run` takes."""
    tally = Tally("x")
    placed = read(StringIO(write(turns)), tally)
    assert placed is not None and tally.not_understood == 0
    month = sleep_history_of([placed])
    starts_s = int(STARTS.timestamp())
    found = [
        (
            each.kind,
            month.starts_wall_s + each.at_world_ns / NS_PER_S - starts_s,
            each.lasts_ns / NS_PER_S,
        )
        for each in month.events
        if each.kind != "off"
    ]
    assert found == [(kind, begins, lasts) for begins, lasts in nights(turns)]
    scenario = parse_scenario(
        scenario_text(month, ScenarioOptions(["x"], corrected_after_ns=25 * NS_PER_S)), "x", "x"
    )
    assert sum(fault.kind == kind for fault in scenario.fault) == len(turns)
    moved_s = int(scenario.starts.timestamp()) - month.starts_wall_s
    assert scenario.starts >= DEFAULT_STARTS and moved_s % WEEK_S == 0


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=400), read=st.sampled_from(READERS))
def test_no_text_is_too_broken(
    text: str, read: Callable[[StringIO, Tally], PlacedJournal | None]
) -> None:
    """Whatever a file contains, reading it ends, and raises only errors with a message for the
    user."""
    tally = Tally("x")
    read(StringIO(text), tally)
    assert tally.used == 0


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, cut=st.integers(0, 2000), system=st.integers(0, 3))
def test_a_journal_that_was_cut_has_no_other_sleeps(
    turns: list[tuple[int, int]], cut: int, system: int
) -> None:
    """What is read of a journal whose end is lost is part of what is read of the whole."""
    write, read = [
        (as_systemd, systemd_laid),
        (as_pmset, pmset.read),
        (as_virsh, libvirt.read),
        (as_windows, windows_xml.read),
    ][system]
    text = write(turns)
    placed = read(StringIO(text[: len(text) - min(cut, len(text) // 2)]), Tally("x"))
    if placed is None:
        return
    begins_s, starts_s = {begins for begins, _ in nights(turns)}, int(STARTS.timestamp())
    month = sleep_history_of([placed])
    for each in month.events:
        if each.kind != "off":
            assert month.starts_wall_s + each.at_world_ns / NS_PER_S - starts_s in begins_s
