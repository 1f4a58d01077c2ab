"""What outlives the helper, and what of it counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from meshwake.clocks.movers.node_helper.answers import SavedState
from meshwake.clocks.movers.node_helper.sleep import Sleep
from meshwake.clocks.movers.node_helper.state import load_state, save_state
from meshwake.core.clock_reading import ClockReading

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the boot id is Linux's")


SAVED: SavedState = {
    "rules": [],
    "launchers": [],
    "lease_s": 20.0,
    "owner": "run 1",
    "given_up": None,
    "begun_moved": [],
    "offsets": ClockReading(0, 0, 0),
    "ends": False,
    "asleep": None,
}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "clocks.json"
    assert load_state(file) is None
    save_state(file, SAVED)
    state = load_state(file)
    assert state is not None and state["owner"] == "run 1"
    assert [path.name for path in tmp_path.iterdir()] == ["clocks.json"]


def test_of_another_boot_nothing_counts(tmp_path: Path) -> None:
    file = tmp_path / "clocks.json"
    save_state(file, SAVED)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"boot_id": "another"}))
    assert load_state(file) is None


@pytest.mark.parametrize("text", ['{"format": 2}', "{}", "not JSON"])
def test_of_another_version_nothing_counts_and_that_is_reported(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A helper that refused to start would be worse."""
    file = tmp_path / "clocks.json"
    file.write_text(text)
    assert load_state(file) is None
    assert "not that of this version" in capsys.readouterr().err


@pytest.mark.parametrize("at_wake", [None, ClockReading(3, -2, 1)])
def test_a_sleep_survives_the_state_file(at_wake: ClockReading | None) -> None:
    sleep = Sleep(7, 70, {1: 10, 2: 20}, 10**12, at_wake, 5)
    assert Sleep.restored(json.loads(json.dumps(sleep.saved()))) == sleep
