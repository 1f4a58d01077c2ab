"""How often the guard looks, how early it acts, how patient it is; read from its command line, wherever that stands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from harness.durations import NS_PER_S, parse_duration_ns
from harness.errors import BadInput


@dataclass(frozen=True)
class Settings:
    """All in nanoseconds. Together they must fit into the five waking minutes in which a machine should recover."""

    period_ns: int = 30 * NS_PER_S  # between two looks, on the monotonic clock
    lead_ns: int = 1800 * NS_PER_S  # how long before an outage it acts: time for an authority that is away to return
    settle_ns: int = 45 * NS_PER_S  # after clocks jumped: kubelet renews tokens, time services put the wall clock right
    cooldown_ns: int = 120 * NS_PER_S  # between two restarts of one process, on the monotonic clock
    turn_ns: int = 45 * NS_PER_S  # how long one node's restart keeps the others waiting


def parse_settings(words: Iterable[str]) -> Settings:
    """Settings from words such as `--period=30s`; others are not its business. Raises BadInput."""
    known = {field.name.removesuffix("_ns"): field.name for field in fields(Settings)}
    read: dict[str, int] = {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not equals or name not in known:
            continue
        try:
            read[known[name]] = parse_duration_ns(value)
        except ValueError as error:
            raise BadInput(f"--{name}: {error}") from error
        if read[known[name]] <= 0:
            raise BadInput(f"--{name}: read {value!r}, needed is longer than nothing")
    return Settings(**read)
