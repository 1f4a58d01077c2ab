from __future__ import annotations

from meshwake.report.ascii_timeline import LABEL_COLUMNS, ascii_timelines
from meshwake.report.terminal import plain
from rich.text import Text

from tests.unit.report.runs import ISSUE_1481, NIGHTS, modelled, recorded


def lines(name: str, columns: int = 100) -> dict[str, str]:
    """Each line of the strip by its label."""
    run = recorded(name)
    text = plain(ascii_timelines(run.plan, run.history, columns), columns)
    return {line[:LABEL_COLUMNS].strip(): line[LABEL_COLUMNS:] for line in text.splitlines()}


def test_every_night_and_every_outage_is_seen() -> None:
    """Seven nights; red from the third day on, while awake only."""
    drawn = lines(NIGHTS)
    assert drawn["asleep"].count(".z") == 7
    assert "#" in drawn["default/client"]
    assert drawn["default/cl..ult/server"].index("x") * 7 / 76 > 2


def test_the_shortest_outage_is_not_lost() -> None:
    """A column shows the worst in it: 95 seconds of three hours."""
    narrow = lines(ISSUE_1481, 64)
    assert narrow["default/client"].count("#") >= 7


def test_no_line_is_wider_than_requested() -> None:
    """In a terminal of eighty columns nothing wraps that should not."""
    run = recorded(NIGHTS)
    assert all(
        len(line) <= 80
        for line in plain(ascii_timelines(run.plan, run.history, 80), 80).splitlines()
    )


def test_it_is_ascii() -> None:
    """For logs whose encoding was not chosen."""
    run = modelled()
    plain(ascii_timelines(run.plan, run.history, 100)).encode("ascii")
    assert isinstance(Text("z"), Text)
