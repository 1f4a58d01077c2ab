"""The time zone in which a journal was written, as far as its lines show it.

No journal names its zone. Some show how far local time was from UTC then: pmset in every line,
`journalctl -o verbose` in every heading, Windows where its clock was set (TimeZoneBias of
Kernel-General 1), a CSV whose times have an offset. Of each offset the first and the last moment
are kept; one begins to hold with the first line that has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from meshwake.core.durations import NS_PER_S
from meshwake.core.zones import OFFSET_S_MAX, OffsetChange, Zone, zone_of_offsets


@dataclass
class _Span:
    """Lines one after the other that have the same offset."""

    offset_s: int
    first_wall_ns: int
    last_wall_ns: int


@dataclass
class OffsetsSeen:
    """The offsets from UTC that the lines of one journal show, in whichever order they come."""

    spans: list[_Span] = field(default_factory=list)

    def add(self, wall_ns: int, offset_s: int) -> None:
        """A line of the moment `wall_ns` was written `offset_s` ahead of UTC. An offset that no
        zone has is ignored: the line is damaged, or it was a clock that was not set."""
        if offset_s % 60 or abs(offset_s) > OFFSET_S_MAX:
            return
        if not self.spans or self.spans[-1].offset_s != offset_s:
            self.spans.append(_Span(offset_s, wall_ns, wall_ns))
            return
        last = self.spans[-1]

        # Of a log that is newest first, the later lines are the earlier ones.
        last.first_wall_ns = min(last.first_wall_ns, wall_ns)
        last.last_wall_ns = max(last.last_wall_ns, wall_ns)


class OffsetsContradict(ValueError):
    """Two journals show different offsets at one time."""


def zone_shown(journals: Iterable[OffsetsSeen]) -> Zone | None:
    """The zone that fits all lines; None where none shows its offset. Raises OffsetsContradict."""
    spans: list[_Span] = []
    for journal in journals:
        spans += journal.spans
    spans.sort(key=lambda span: (span.first_wall_ns, span.last_wall_ns))

    for one, two in pairwise(spans):
        if one.offset_s == two.offset_s:
            continue
        if two.first_wall_ns < one.last_wall_ns:
            raise OffsetsContradict
    changes = [OffsetChange(span.first_wall_ns // NS_PER_S, span.offset_s) for span in spans]
    return zone_of_offsets(changes)
