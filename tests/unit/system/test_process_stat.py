"""/proc/PID/stat: the numbers of its fields, and names that look like fields."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.system.deadline import wait_until
from meshwake.system.process_stat import (
    ProcessStat,
    is_ending,
    parse_stat,
    read_stat,
    started_ticks,
)

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
WITHIN_S = 20.0
# proc(5): from the state (3) to starttime (22), and two fields more.
FIELDS = "{state} 7 8 9 0 -1 {flags} 10 11 12 13 140 150 16 17 20 0 1 0 {started} 23 24"


def line(name: str, state: str = "S", flags: int = 0, started: int = 4018) -> str:
    return f"41 ({name}) " + FIELDS.format(state=state, flags=flags, started=started)


@given(st.text(st.characters(blacklist_characters="\n\0", codec="utf-8"), max_size=64))
def test_a_name_may_hold_anything(name: str) -> None:
    assert parse_stat(line(name)) == ProcessStat("S", 7, 0, 140, 150, 4018)


@pytest.mark.parametrize("text", ["", "41 (sleep)", "41 (sleep) S 7", line("x").replace("7", "x")])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fields, expected|invalid literal"):
        parse_stat(text)


@pytest.mark.parametrize(
    ("state", "flags", "ended", "ending", "stopped"),
    [
        ("S", 0x40_0000, False, False, False),
        ("R", 0x40_0004, False, True, False),
        ("Z", 0x40_000C, True, True, False),
        ("X", 0, True, True, False),
        ("T", 0, False, False, True),
        ("t", 0, False, False, True),
    ],
)
def test_states(state: str, flags: int, ended: bool, ending: bool, stopped: bool) -> None:
    stat = parse_stat(line("sleep", state, flags))
    assert (stat.has_ended, stat.is_ending, stat.is_stopped) == (ended, ending, stopped)


def test_a_process_that_exits_is_ending_before_its_status_is_there(tmp_path: Path) -> None:
    """The state in which a program was once reported to be on other clocks: its memory had gone,
    and it was not a zombie yet."""
    (tmp_path / "41").mkdir()
    (tmp_path / "41" / "stat").write_text(line("sleep", "R", 0x40_0004))
    stat = read_stat(41, proc=tmp_path)
    assert stat is not None
    assert stat.is_ending
    assert not stat.has_ended
    assert read_stat(42, proc=tmp_path) is None


@on_linux
def test_a_real_process_from_its_start_to_its_end() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        stat = read_stat(child.pid)
        assert stat is not None
        assert stat.parent == os.getpid()
        assert started_ticks(child.pid) == stat.started_ticks > 0
        assert read_stat(child.pid, child.pid) is not None
        assert not is_ending(child.pid)
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.close()
        # Not waited for yet, so its status is left.
        wait_until(lambda: started_ticks(child.pid) is None, "its end", WITHIN_S)
        assert is_ending(child.pid)
    assert read_stat(child.pid) is None
