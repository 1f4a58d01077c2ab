"""The timelines of a run for a terminal: one ASCII strip a node.

    laptop          asleep 8 h in 1 sleep, clock drift 8 h at the end, connections always worked
                    day 0 00:00                                                       day 2 00:00
    asleep          ..............zzzzzzzz..............................................
    default/client  ------------============---------------------------------------------

A column is a stretch of world time, and shows the worst that happened in it, so that no outage is
too short to be seen. Colour repeats what the character says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from meshwake.checks.format import dated, moment
from meshwake.core.history import History
from meshwake.core.plan import Plan
from meshwake.report.html.content import describe_node
from meshwake.report.tracks import (
    ALERTED,
    DROPPED,
    EXPIRED,
    EXPIRED_ASLEEP,
    FAILED,
    FAILS,
    FAULT,
    FRESH,
    OVERDUE,
    REFUSED,
    RENEWED,
    RESTARTED,
    STEPPED,
    WORKS,
    NodeTracks,
    Track,
    node_tracks,
)

LABEL_COLUMNS = 24
# What a column shows, the worst first: a character, and the colour that repeats it.
_WORST_FIRST: dict[str, tuple[str, str]] = {
    ALERTED: ("!", "bold red"),
    RESTARTED: ("R", "bold green"),
    STEPPED: ("S", "magenta"),
    FAILED: ("x", "red"),
    FAILS: ("x", "red"),
    EXPIRED: ("#", "red"),
    DROPPED: ("0", "red"),
    REFUSED: ("?", "yellow"),
    RENEWED: ("+", "cyan"),
    EXPIRED_ASLEEP: ("%", "dim red"),
    OVERDUE: ("=", "yellow"),
    FRESH: ("-", "cyan"),
    WORKS: ("-", "green"),
    FAULT: ("~", "magenta"),
    "asleep": ("z", "blue"),
}
LEGEND = (
    "z asleep   - good   + renewed   = renewal overdue   # expired and still served   % "
    "expired, asleep",
    "x connections fail   ? request not answered   0 certificate dropped   ~ fault   S "
    "step   R restart   ! alert",
)


def ascii_timelines(plan: Plan, history: History, columns: int) -> RenderableType:
    """One strip a node of the plan, `columns` wide at most."""
    nodes = node_tracks(plan, history)
    if not nodes:
        return Text("no event of this history holds the clocks of a node: there is nothing to draw")
    width = max(columns - LABEL_COLUMNS, 20)
    begins = dated(moment(0), plan.dates)
    ends = dated(moment(history.end_world_ns), plan.dates)
    # The end at the right margin.
    scale = " " * LABEL_COLUMNS + begins + ends.rjust(width - len(begins))

    parts: list[RenderableType] = []
    for node in nodes:
        parts += _strip(node, history.end_world_ns, width, scale)
    for line in LEGEND:
        parts.append(Text(line, style="dim"))
    return Group(*parts)


def _strip(node: NodeTracks, end_world_ns: int, width: int, scale: str) -> Iterator[Text]:
    """The lines of one node; `scale`: the times at both ends."""
    yield Text.assemble((f"{node.node}: ", "bold"), describe_node(node), overflow="fold")
    yield Text(scale, style="dim")
    asleep = [(*span, "asleep") for span in node.asleep]
    yield _line("asleep", _painted(asleep, end_world_ns, width), ".")
    for track in node.tracks:
        yield _line(track.label, _painted(_things(track), end_world_ns, width), " ")
    yield Text()


def _things(track: Track) -> Iterator[tuple[int, int, str]]:
    """Bars and marks of a track, a mark being a bar of no length."""
    for bar in track.bars:
        yield bar.from_world_ns, bar.to_world_ns, bar.state
    # Marks without a character of their own are shown on pages only.
    for mark in track.marks:
        if mark.kind in _WORST_FIRST:
            yield mark.world_ns, mark.world_ns, mark.kind


def _painted(
    things: Iterable[tuple[int, int, str]], end_world_ns: int, width: int
) -> list[str | None]:
    """For each column the worst of what lies in it."""
    ranks = {state: rank for rank, state in enumerate(_WORST_FIRST)}
    columns: list[str | None] = [None] * width
    # A history of no length is drawn, too.
    whole_ns = max(end_world_ns, 1)
    for from_ns, to_ns, state in things:
        first = min(from_ns * width // whole_ns, width - 1)
        # The last column that [from, to) reaches into: rounded up, less one; a mark has one column.
        last = min(max(-(-to_ns * width // whole_ns) - 1, first), width - 1)
        for column in range(first, last + 1):
            there = columns[column]
            if there is None or ranks[state] < ranks[there]:
                columns[column] = state
    return columns


def _line(label: str, columns: list[str | None], nothing: str) -> Text:
    text = Text(_fitting(label))
    for state in columns:
        if state is None:
            text.append(nothing, "dim")
        else:
            character, colour = _WORST_FIRST[state]
            text.append(character, colour)
    return text


def _fitting(label: str) -> str:
    room = LABEL_COLUMNS - 2
    shown = label
    if len(label) > room:
        # Both ends stay: the namespace, and the end of the name, by which names differ.
        front = room // 2 - 1
        shown = f"{label[:front]}..{label[-(room - front - 2) :]}"
    return shown.replace("\N{RIGHTWARDS ARROW}", ">").ljust(LABEL_COLUMNS)
