"""Timelines as values: some faults one after another, drawn by Hypothesis.

The falsifier searches among them, and tests of users draw them
(`meshwake.testing.timelines()`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from meshwake.checks.format import lasting
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.extras import require

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

DEFAULT_KINDS = (
    "suspend",
    "pause",
    "step",
    "drift",
    "freeze",
    "ca_outage",
    "token_expired",
    "restart",
)
KINDS = (*DEFAULT_KINDS, "ca_hang")
MOVES_MAX = 8
MINUTE_NS = 60 * NS_PER_S


@dataclass(frozen=True)
class Move:
    """One fault, `after` minutes after the end of the move before. `lasts` and `by` are minutes,
    `rate_off` thousandths by which a drift is off, `corrected_s` how long after a pause the wall
    clock stays behind. Zero: does not apply. `backward`: a step or a drift the other way."""

    kind: str
    after: int
    lasts: int = 0
    by: int = 0
    rate_off: int = 0
    corrected_s: int = 0
    backward: bool = False

    @property
    def takes(self) -> int:
        """Minutes until the next move may begin: a fault of the authority overlaps what
        follows it."""
        if self.kind in ("ca_outage", "ca_hang", "token_expired"):
            return 0
        # Rounded up to whole minutes: the next move must not begin before the correction.
        return self.lasts + -(-self.corrected_s // 60)

    @property
    def rate(self) -> float:
        """How fast the wall clock runs in a drift: 1.013, or 0.987 backward."""
        off = self.rate_off / 1_000
        return 1 - off if self.backward else 1 + off


Timeline = tuple[Move, ...]


def _move(kind: str) -> SearchStrategy[Move]:
    from hypothesis import strategies as st  # here and below: no other command needs it

    after = st.integers(1, 1_440)  # minutes: up to a day
    hours = st.integers(1, 1_500)  # minutes: up to 25 h, more than a certificate of 24 h lasts

    more: dict[str, dict[str, SearchStrategy[Any]]] = {
        "pause": {
            "lasts": hours,
            # Seconds, up to ten minutes: 25 s were measured in istio/ztunnel#1481.
            "corrected_s": st.integers(1, 600),
        },
        "step": {
            "by": hours,
            "backward": st.booleans(),
        },
        "drift": {
            # A drift shows only after long: minutes, up to five days, off by 0.1 to 10 %.
            "lasts": st.integers(1, 7_200),
            "rate_off": st.integers(1, 100),
            "backward": st.booleans(),
        },
        "restart": {},
    }
    of_kind = more.get(kind, {"lasts": hours})
    return st.builds(Move, kind=st.just(kind), after=after, **of_kind)


def timelines(
    kinds: Sequence[str] = DEFAULT_KINDS, moves_max: int = MOVES_MAX
) -> SearchStrategy[Timeline]:
    """Timelines of one to `moves_max` moves of these kinds. Raises LabUnavailable without the extra
    `search`."""
    require("search")
    from hypothesis import strategies as st

    moves = st.one_of([_move(kind) for kind in kinds])
    return st.lists(moves, min_size=1, max_size=moves_max).map(tuple)


def ends_ns(timeline: Timeline) -> int:
    """When the last fault has ended; 0 for no move."""
    return max(_placed_end_ns(timeline), default=0)


def _placed_end_ns(timeline: Timeline) -> Iterator[int]:
    now = 0  # minutes
    for move in timeline:
        now += move.after
        # A fault of the authority takes no time of the timeline, and lasts all the same.
        yield (now + max(move.takes, move.lasts)) * MINUTE_NS
        now += move.takes


def faults_of(timeline: Timeline, from_ns: int = 0) -> Iterator[dict[str, Any]]:
    """The [[fault]] tables of a scenario in which `timeline` begins at `from_ns`."""
    now = 0
    for move in timeline:
        now += move.after
        at_ns = from_ns + now * MINUTE_NS
        fault: dict[str, Any] = {"kind": move.kind, "at": format_duration(at_ns)}
        if move.lasts:
            fault["lasts"] = format_duration(move.lasts * MINUTE_NS)
        if move.corrected_s:
            fault["corrected_after"] = format_duration(move.corrected_s * NS_PER_S)
        if move.by:
            by_ns = move.by * MINUTE_NS
            fault["by"] = format_duration(-by_ns if move.backward else by_ns)
        if move.rate_off:
            fault["rate"] = f"{move.rate:.3f}"
        yield fault
        now += move.takes


def describe(timeline: Timeline) -> str:
    """A timeline in words: 'suspend 12 h 1 m'."""
    parts = []
    for words, alike in groupby(map(_words, timeline)):
        times = len(list(alike))
        parts.append(words if times == 1 else f"{times} x {words}")
    return ", then ".join(parts)


def _words(move: Move) -> str:
    if move.kind == "step":
        direction = "-" if move.backward else "+"
        return f"step {direction}{lasting(move.by * MINUTE_NS)}"

    # As people write it: "ca outage 2 h", "drift 5 h at 1.013".
    words = move.kind.replace("_", " ")
    if move.lasts:
        words += f" {lasting(move.lasts * MINUTE_NS)}"
    if move.rate_off:
        words += f" at {move.rate:.3f}"
    return words
