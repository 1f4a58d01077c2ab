"""The order of a journal's entries is taken from what is sure (boots and their monotonic clock,
cursors, rows, record numbers), never from a wall clock, which is what jumps.
"""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.importers import systemd
from meshwake.importers.entries import JournalEntry
from meshwake.importers.formats import read_journal, read_systemd
from meshwake.importers.items import PowerEvent, Tally
from meshwake.importers.placement import EntryPlacer, PlacedJournal, Stretch, place_stretches
from meshwake.importers.sleep_history import SleepHistory, sleep_history_of
from meshwake.importers.windows_csv import JournalOptions

from tests.unit.importers.test_journals import AS_IT_IS, imported

STARTS_S = 1_795_420_800
HOUR_S = 3_600
YEAR_S = 365 * 86_400


def entry(
    wall_s: int, monotonic_s: int, boot: str = "a", message: str = "tick", **fields: Any
) -> str:
    known = {
        "__REALTIME_TIMESTAMP": str(wall_s * 1_000_000),
        "__MONOTONIC_TIMESTAMP": str(monotonic_s * 1_000_000),
        "_BOOT_ID": boot * 32,
        "MESSAGE": message,
    }
    return json.dumps(known | fields)


def read(tmp_path: Path, *files: list[str], writing: JournalOptions = AS_IT_IS) -> SleepHistory:
    names = []
    for number, lines in enumerate(files):
        (tmp_path / f"{number}.json").write_text("\n".join(lines) + "\n")
        names.append(f"{number}.json")
    return imported(*names, writing=writing, folder=tmp_path)[0]


def events_in(month: SleepHistory) -> list[tuple[str, float, float, float]]:
    """Kind, when since the first entry, for how long, and by how much the clock was set: in hours."""
    return [
        (
            each.kind,
            round((each.at_world_ns / NS_PER_S - 60) / HOUR_S, 2),
            round(each.lasts_ns / NS_PER_S / HOUR_S, 2),
            round(each.by_ns / NS_PER_S / HOUR_S, 2),
        )
        for each in month.events
    ]


def two_boots(behind_s: int, set_at_s: int = 300, **fields: Any) -> list[str]:
    """A night of nine hours, and after a reboot of ten minutes a clock that is behind until it is
    set."""
    ends, again = STARTS_S + 30 * HOUR_S, STARTS_S + 30 * HOUR_S + 600
    return [
        entry(STARTS_S, 600, "a", **fields),
        entry(STARTS_S + 10 * HOUR_S, 600 + 10 * HOUR_S, "a", **fields),
        entry(STARTS_S + 19 * HOUR_S, 600 + 10 * HOUR_S, "a", **fields),
        entry(ends, 600 + 21 * HOUR_S, "a", **fields),
        entry(again + 3 - behind_s, 3, "b", **fields),
        entry(again + set_at_s - 5 - behind_s, set_at_s - 5, "b", **fields),
        entry(again + set_at_s, set_at_s, "b", **fields),
        entry(again + 20 * HOUR_S, 20 * HOUR_S, "b", **fields),
    ]


@pytest.mark.parametrize("behind_s", [0, 50, HOUR_S, 3 * 86_400, 2 * YEAR_S, STARTS_S - 7])
def test_a_boot_whose_clock_is_behind_comes_after_the_one_before_it(
    tmp_path: Path, behind_s: int
) -> None:
    """The night lies in the first boot, the reboot after it; the clock is set as far as it was
    behind."""
    happened = events_in(read(tmp_path, two_boots(behind_s)))
    assert happened[:2][0] == ("pause", 10.0, 9.0, 0.0)
    assert happened[1][:3] == ("off", 30.0, 0.17)
    assert [round(step[3] * HOUR_S) for step in happened[2:]] == pytest.approx(
        [behind_s] if behind_s else [], abs=40
    )
    assert happened[1][3] * HOUR_S == pytest.approx(-behind_s, abs=40)


def test_a_clock_that_was_set_in_the_first_two_minutes_does_no_harm(tmp_path: Path) -> None:
    """Nothing of a cluster runs yet: the boot is there, and no step."""
    assert events_in(read(tmp_path, two_boots(2 * YEAR_S, set_at_s=60)))[1:] == [
        ("off", 30.0, 0.17, 0.0)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_entries_in_any_order_are_read_the_same(tmp_path: Path, seed: int) -> None:
    """journalctl merges files by the wall clock where boots differ; cursors say which boot was
    first."""
    lines = two_boots(2 * YEAR_S)
    numbered = [
        json.dumps(json.loads(line) | {"__CURSOR": f"s={'5' * 32};i={number:x};b=0"})
        for number, line in enumerate(lines, start=9)
    ]
    expected = events_in(read(tmp_path, lines))
    random.Random(seed).shuffle(numbered)
    assert events_in(read(tmp_path, numbered)) == expected
    by_wall = sorted(lines, key=lambda line: int(json.loads(line)["__REALTIME_TIMESTAMP"]))
    assert events_in(read(tmp_path, by_wall)) == expected
    assert events_in(read(tmp_path, lines[::-1])) == expected


def test_a_step_back_below_the_beginning(tmp_path: Path) -> None:
    """Five hours ahead at the start; world time is that of the monotonic clock all the same."""
    lines = [
        entry(STARTS_S, 3),
        entry(STARTS_S + 355, 358),
        entry(STARTS_S + 360 - 5 * HOUR_S, 363),
    ]
    month = read(tmp_path, [*lines, entry(STARTS_S + 5 * HOUR_S, 3 + 10 * HOUR_S)])
    assert events_in(month) == [("step", 0.1, 0.0, -5.0)]
    assert month.starts_wall_s == STARTS_S - 60
    assert month.duration_ns == (10 * HOUR_S + 60) * NS_PER_S


def test_pieces_of_one_journal_are_one(tmp_path: Path) -> None:
    """The night lies between two files; in whichever order they are given, and with entries in
    both."""
    lines = two_boots(0)
    whole = events_in(read(tmp_path, lines))
    assert events_in(read(tmp_path, lines[2:], lines[:2])) == whole
    assert events_in(read(tmp_path, lines[:5], lines[3:])) == whole
    assert events_in(read(tmp_path, lines[:4], lines[4:])) == whole  # boot by boot


def test_entries_that_two_pieces_have_are_no_damage(tmp_path: Path) -> None:
    """Each is there once, with journald's numbers and without."""
    for fields in ({}, {"cursors": True}):
        lines = []
        for number, line in enumerate(two_boots(0)):
            cursor = {"__CURSOR": f"s={'5' * 32};i={number + 1:x}"} if fields else {}
            lines.append(json.dumps(json.loads(line) | cursor))
        whole = events_in(read(tmp_path, lines))
        for pieces in ((lines[:3], lines[1:]), (lines[1:], lines[:3]), (lines[:3] + lines[1:],)):
            tallies = [Tally(str(tmp_path / f"{number}.json")) for number in range(len(pieces))]
            for tally, piece in zip(tallies, pieces, strict=True):
                Path(tally.path).write_text("\n".join(piece) + "\n")
            logs = [read_systemd(Path(tally.path), tally) for tally in tallies]
            (log,) = systemd.joined([log for log in logs if log is not None])
            placed = systemd.place_boots(log)
            assert placed is not None and events_in(sleep_history_of([placed])) == whole
            assert [tally.not_understood for tally in tallies] == [0] * len(tallies)


def test_a_suspend_just_after_a_boot_counts_where_a_message_announces_it(tmp_path: Path) -> None:
    """A lid that is closed a minute after the start: nine hours of sleep. The same jump without a
    word is the clock being set at the start."""
    for message, happened in (
        ("PM: suspend entry (deep)", [("suspend", 0.02, 9.0, 0.0)]),
        ("tick", []),
    ):
        lines = [
            entry(STARTS_S, 5),
            entry(STARTS_S + 60, 65, message=message, _TRANSPORT="kernel"),
            entry(STARTS_S + 60 + 9 * HOUR_S, 66),
            entry(STARTS_S + 12 * HOUR_S, 6 + 3 * HOUR_S),
        ]
        assert events_in(read(tmp_path, lines)) == happened


HOSTS = {
    "one": {"_MACHINE_ID": "1" * 32, "_HOSTNAME": "one"},
    "two": {"_MACHINE_ID": "2" * 32, "_HOSTNAME": "two"},
}


def merged(**named: dict[str, Any]) -> list[str]:
    """Two machines in one file, as journalctl --merge prints them; only the first slept."""
    first = [
        entry(STARTS_S + h * HOUR_S, (h if h < 5 else h - 9) * HOUR_S, "a", **named.get("one", {}))
        for h in (1, 3, 15, 17)
    ]
    second = [
        entry(STARTS_S + h * HOUR_S, h * HOUR_S, "b", **named.get("two", {}))
        for h in (2, 4, 16, 18)
    ]
    return [line for pair in zip(first, second, strict=True) for line in pair]


@pytest.mark.parametrize(
    "named",
    [
        HOSTS,
        {name: {"_HOSTNAME": name} for name in HOSTS},
        {name: {"_MACHINE_ID": HOSTS[name]["_MACHINE_ID"]} for name in HOSTS},
    ],
    ids=["both", "host names", "machine ids"],
)
def test_several_machines_are_distinguished(
    tmp_path: Path, named: dict[str, dict[str, Any]]
) -> None:
    """They are refused with their names, and each can be chosen."""
    with pytest.raises(BadInput, match="journals of 2 machines.*--machine NAME"):
        read(tmp_path, merged(**named))
    for name, sleeps in (("one", 1), ("two", 0)):
        chosen = named[name].get("_HOSTNAME") or named[name]["_MACHINE_ID"]
        assert (
            read(tmp_path, merged(**named), writing=JournalOptions(machine=chosen)).count("pause")
            == sleeps
        )
    with pytest.raises(BadInput, match="--machine three: not in"):
        read(tmp_path, merged(**named), writing=JournalOptions(machine="three"))


def test_machines_without_names_are_distinguished_by_running_at_one_time(tmp_path: Path) -> None:
    """So are clones, which share a machine id."""
    with pytest.raises(BadInput, match="ran at one time.*several machines.*choose"):
        read(tmp_path, merged())
    clone = {"_MACHINE_ID": "1" * 32}
    with pytest.raises(BadInput, match="--machine NAME, one of one, two"):
        read(tmp_path, merged(one=clone | {"_HOSTNAME": "one"}, two=clone | {"_HOSTNAME": "two"}))


def test_one_machine_may_change_its_name(tmp_path: Path) -> None:
    """Within a boot, by its machine id, and from localhost."""
    lines = two_boots(0, _MACHINE_ID="1" * 32)
    renamed = [line[:-1] + f', "_HOSTNAME": "h{number}"}}' for number, line in enumerate(lines)]
    assert events_in(read(tmp_path, renamed)) == events_in(read(tmp_path, lines))


def test_a_guest_whose_clock_stayed_behind(tmp_path: Path) -> None:
    """Its host slept three nights; its own clock was corrected after the third only, by all
    three."""
    nights = [(14, 23), (38, 47), (62, 71)]
    lines, host = [], EntryPlacer(Tally("host"))
    for minutes in range(0, 80 * 60, 10):
        at_s, hours = STARTS_S + minutes * 60, minutes / 60
        slept_s = sum(9 * HOUR_S for _, ends in nights if ends <= hours)
        if not any(begins < hours < ends for begins, ends in nights):
            lines.append(
                entry(at_s - (slept_s if hours < 71.2 else 0), HOUR_S + minutes * 60 - slept_s)
            )
    for begins, ends in nights:
        for hour, says in ((begins, "asleep"), (ends, "awake")):
            mark = PowerEvent(0, says, "pause", says)  # type: ignore[arg-type]
            host.add((STARTS_S + hour * HOUR_S) * NS_PER_S, "", mark)
    (tmp_path / "0.json").write_text("\n".join(lines))
    guest = read_journal(tmp_path / "0.json", Tally("0.json"))
    assert isinstance(guest, systemd.SystemdJournal)
    placed = [each for each in (host.placed(), systemd.place_boots(guest)) if each is not None]
    month = sleep_history_of(placed)
    assert [each[0] for each in events_in(month)] == ["pause", "pause", "pause", "step"]
    assert [each.corrected for each in month.events] == [False, False, False, True]
    assert events_in(month)[-1][3] == 27.0
    assert month.largest_drift_ns == 27 * HOUR_S * NS_PER_S


def test_a_host_and_its_guest_have_one_night(tmp_path: Path) -> None:
    """Both systemd journals: the host says that it slept, the guest shows a jump, ten minutes after
    its last entry."""
    slept = {"_TRANSPORT": "kernel"}
    host = [
        entry(STARTS_S, 1000, "c"),
        entry(STARTS_S + 14 * HOUR_S, 1000 + 14 * HOUR_S, "c", "PM: suspend entry (deep)", **slept),
        entry(STARTS_S + 24 * HOUR_S, 1000 + 14 * HOUR_S, "c", "PM: suspend exit", **slept),
        entry(STARTS_S + 30 * HOUR_S, 1000 + 20 * HOUR_S, "c"),
    ]
    guest = [
        entry(STARTS_S + 60, 9000, "d"),
        entry(STARTS_S + 14 * HOUR_S - 540, 9000 + 14 * HOUR_S - 600, "d"),
        entry(STARTS_S + 24 * HOUR_S + 60, 9000 + 14 * HOUR_S, "d"),
        entry(STARTS_S + 30 * HOUR_S, 9000 + 20 * HOUR_S - 60, "d"),
    ]
    assert events_in(read(tmp_path, host, guest)) == [("suspend", 14.0, 10.0, 0.0)]
    assert events_in(read(tmp_path, guest, host)) == [("suspend", 14.0, 10.0, 0.0)]


def test_one_damaged_entry_is_counted_and_costs_nothing_else(tmp_path: Path) -> None:
    """The largest number of 64 bits, a wall clock of another century, a monotonic time out of its
    order."""
    lines = two_boots(0)
    whole = events_in(read(tmp_path, lines))
    for damaged in (
        entry(2**64 // 1_000_000, 5000),
        entry(STARTS_S + 120 * YEAR_S, 1200),
        entry(STARTS_S + 1200, 10**9),
        entry(STARTS_S + 1200, 7),
        '{"__REALTIME_TIMESTAMP": 1e400, "__MONOTONIC_TIMESTAMP": "1", "_BOOT_ID": "a"}',
    ):
        (tmp_path / "0.json").write_text(
            "\n".join([lines[0], entry(STARTS_S + 60, 660), damaged, *lines[1:]])
        )
        month, tally = imported("0.json", folder=tmp_path)
        assert events_in(month) == whole
        assert tally.not_understood == 1


# --- Entries that have nothing but a wall clock, and their order ----------------------------------


def rows(*walls_s: int) -> tuple[PlacedJournal, Tally]:
    tally = Tally("x")
    found = EntryPlacer(tally)
    for wall_s in walls_s:
        found.add(wall_s * NS_PER_S, str(wall_s))
    placed = found.placed()
    assert placed is not None
    return placed, tally


def test_rows_that_go_back_show_a_step() -> None:
    """Everything stays in the order of the rows."""
    placed, tally = rows(
        STARTS_S,
        STARTS_S + HOUR_S,
        STARTS_S - HOUR_S,
        *range(STARTS_S, STARTS_S + 9 * HOUR_S, HOUR_S),
    )
    assert [
        (item.by_ns // NS_PER_S) for item in placed.items if not isinstance(item, PowerEvent)
    ] == [-2 * HOUR_S]
    assert tally.not_understood == 0


@pytest.mark.parametrize("absurd_s", [0, 978_307_200, STARTS_S + 70 * YEAR_S])
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_row_by_no_clock_is_not_understood(absurd_s: int, place: int) -> None:
    """Years off from all around it."""
    walls = [STARTS_S + hour * HOUR_S for hour in range(4)]
    walls.insert(place, absurd_s)
    placed, tally = rows(*walls)
    assert tally.not_understood == 1 and not placed.items
    assert placed.last_ns - placed.first_ns == 3 * HOUR_S * NS_PER_S


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(
        st.tuples(
            st.integers(0, 10**6), st.integers(0, 4 * 10**9), st.integers(1, 50), st.booleans()
        ),
        min_size=1,
        max_size=12,
    )
)
def test_stretches_never_overlap_and_keep_their_order(
    pieces: list[tuple[int, int, int, bool]],
) -> None:
    """Whatever the clocks showed, time does not go back."""
    stretches = [
        Stretch(
            lasts * NS_PER_S,
            0,
            ends * NS_PER_S,
            entries,
            [PowerEvent(0, "awake", "pause", str(number))],
            booted,
        )
        for number, (lasts, ends, entries, booted) in enumerate(pieces)
    ]
    placed = place_stretches(stretches)
    assert placed is not None
    marks = [item for item in placed.items if isinstance(item, PowerEvent)]
    assert [mark.code for mark in marks] == [str(number) for number in range(len(pieces))]
    for (one, two), stretch in zip(pairwise(marks), stretches, strict=False):
        assert two.wall_ns >= one.wall_ns + stretch.lasts_ns


@settings(max_examples=100, deadline=None)
@given(
    sleeps=st.lists(
        st.tuples(st.integers(1_000, 90_000), st.integers(60, 90_000), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    behind_s=st.integers(-YEAR_S, YEAR_S),
)
def test_steps_and_sleeps_of_one_boot_are_measured_whatever_the_clock_shows(
    sleeps: list[tuple[int, int, bool]], behind_s: int
) -> None:
    """Each sleep as long as it was, each step as large, and world time passes as it did."""
    wall_s, monotonic_s, world_s = STARTS_S + behind_s, 2_000, 0
    entries = [
        JournalEntry(wall_s * NS_PER_S, monotonic_s * NS_PER_S, "a", False, False, None, "", "")
    ]
    for awake_s, by_s, back in sleeps:
        wall_s, monotonic_s, world_s = wall_s + awake_s, monotonic_s + awake_s, world_s + awake_s
        entries.append(
            JournalEntry(wall_s * NS_PER_S, monotonic_s * NS_PER_S, "a", False, False, None, "", "")
        )
        wall_s, monotonic_s = wall_s + (-by_s if back else by_s), monotonic_s + 1
        world_s += 1 + (0 if back else by_s)
        wall_s += 1
        entries.append(
            JournalEntry(wall_s * NS_PER_S, monotonic_s * NS_PER_S, "a", False, False, None, "", "")
        )
    placed = systemd.place_boots(systemd.read(entries, Tally("x")))
    assert placed is not None
    month = sleep_history_of([placed])
    assert [each.by_ns // NS_PER_S for each in month.events if each.kind == "step"] == [
        -by for _, by, back in sleeps if back
    ]
    assert [each.lasts_ns // NS_PER_S for each in month.events if each.kind == "pause"] == [
        by for _, by, back in sleeps if not back
    ]
    assert placed.last_ns - placed.first_ns == world_s * NS_PER_S
