"""How often the guard looks, how early it acts, how patient it is; read from its command line,
that of its own process or of a manifest."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, fields

from meshwake.core.durations import NS_PER_S, parse_positive_ns
from meshwake.core.errors import BadInput

# A Lease each; a cluster of Kubernetes has 5,000 nodes at most.
TURNS_MAX = 5_000


@dataclass(frozen=True)
class Settings:
    """Together they must fit into the five waking minutes in which a machine should recover."""

    # Between two looks, on the monotonic clock.
    period_ns: int = 30 * NS_PER_S
    # How long before an outage it acts: time for an authority that is down to return.
    lead_ns: int = 1800 * NS_PER_S
    # How long it waits after clocks jumped: kubelet renews tokens meanwhile, and time services
    # correct the wall clock.
    settle_ns: int = 45 * NS_PER_S
    # Between two restarts of one process, on the monotonic clock.
    cooldown_ns: int = 120 * NS_PER_S
    # How long one node's restart keeps the others waiting.
    turn_ns: int = 45 * NS_PER_S
    # So many nodes of a cluster may restart at a time.
    turns: int = 1

    def turn_of(self, node: str) -> int:
        """Which of the turns `node` waits for, from 0: by its name, so no node needs to ask
        another."""
        return zlib.crc32(node.encode()) % self.turns

    def first_look_after_ns(self, node: str) -> int:
        """How long `node` waits before it looks for the first time. The looks of each turn lie
        apart from those of the others by an equal share of the period: all of a fleet that wakes at
        once would else restart its first of every turn in one second (seen in a herd: 242 of 500).
        """
        return self.period_ns * self.turn_of(node) // self.turns


def parse_settings(words: Iterable[str]) -> Settings:
    """Settings from words such as `--period=30s` and `--turns=5`; others are not its business.
    Raises BadInput."""
    known = {field.name.removesuffix("_ns"): field.name for field in fields(Settings)}
    read: dict[str, int] = {}
    for word in words:
        if not word.startswith("--"):
            continue
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals or name not in known:
            continue

        # A field whose name has no unit is a number, every other one a length of time.
        if known[name] == name:
            read[name] = _count(name, value)
        else:
            read[known[name]] = parse_positive_ns(value, f"--{name}")
    return Settings(**read)


def _count(name: str, value: str) -> int:
    # isdecimal: int() would take "+1", " 1 " and "1_0" too.
    number = int(value) if value.isdecimal() else 0
    if not 1 <= number <= TURNS_MAX:
        raise BadInput(f"--{name}: read {value!r}, expected a number from 1 to {TURNS_MAX}")
    return number
