"""A month of a machine as the text of a scenario that `meshwake run` takes.

The expectations are what one hopes for: that nothing broke. A month in which something did comes out as a surprise
(exit code 1), and its findings tell what, when and for how long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from harness.durations import NS_PER_S, format_duration
from harness.journals.month import Happened, Month

HOPES = {
    "no_expired_certificate_served": "a mesh that survived this month served no expired certificate",
    "traffic_flows": "and refused nobody",
    "recovers_within": "or at least worked again five waking minutes after each wake",
}


@dataclass(frozen=True)
class Writing:
    """What to write beside the month. `corrected_after_ns`: how long after a pause the wall clock is put right;
    `every_sleep_as`: "suspend" or "pause" instead of what the journals say."""

    sources: Sequence[str]
    node: str = "laptop"
    corrected_after_ns: int = 0
    every_sleep_as: str | None = None


def scenario_text(month: Month, writing: Writing) -> str:
    """The scenario, as TOML."""
    starts = datetime.fromtimestamp(month.starts_wall_s, UTC).isoformat().replace("+00:00", "Z")
    sleeps, days = month.count("suspend", "pause"), month.duration_ns / (86_400 * NS_PER_S)
    lines = [
        *(f"# Made by meshwake import-sleep from {_plain(source)}" for source in writing.sources),
        "# Change what you like: the lifetime of certificates, the traffic, or add a [fix] (scenarios/README.md).",
        f"title    = {_quoted(f'A machine that slept {sleeps} times in {days:.1f} days')}",
        'labs     = ["model", "process"]',
        f"duration = {_quoted(format_duration(month.duration_ns))}",
        f"starts   = {starts}",
        "",
        "[[node]]",
        f"name       = {_quoted(writing.node)}",
        'identities = ["default/client", "default/server"]',
        "",
        "[traffic]",
        'pairs = [["default/client", "default/server"]]',
        f'every = "{"10m" if days < 400 else "1h"}"',
    ]
    for check, because in HOPES.items():
        lines += ["", "[[expect]]", f'check   = "{check}"', 'verdict = "holds"', f"because = {_quoted(because)}"]
    for each, after_ns in _with_room(month.happened):
        lines += ["", *_fault(each, after_ns, writing)]
    return "\n".join(lines) + "\n"


def _with_room(happened: Sequence[Happened]) -> Iterator[tuple[Happened, int | None]]:
    """Each with the time until the next; None after the last."""
    for each, after in pairwise((*happened, None)):
        if each is not None:
            room_ns = None if after is None else after.at_world_ns - each.at_world_ns - each.lasts_ns
            yield each, room_ns


def _fault(each: Happened, room_ns: int | None, writing: Writing) -> Iterator[str]:
    """One [[fault]], or two: a time switched off is a sleep at whose end everything is started anew."""
    at = f"at    = {_quoted(format_duration(each.at_world_ns))}"
    if each.kind == "step":
        yield from ("[[fault]]", 'kind  = "step"', at, f"by    = {_quoted(format_duration(each.by_ns))}")
        return
    if each.kind == "off":
        yield from ("[[fault]]  # switched on", 'kind  = "restart"', at)
        if each.lasts_ns <= 0:
            return
        yield from ("", "[[fault]]  # switched off")
        kind = "suspend"
    else:
        yield "[[fault]]"
        kind = writing.every_sleep_as or each.kind
    yield from (f'kind  = "{kind}"', at, f"lasts = {_quoted(format_duration(each.lasts_ns))}")
    if kind == "pause":
        after_ns = (
            writing.corrected_after_ns if room_ns is None else min(writing.corrected_after_ns, max(room_ns - 1, 0))
        )
        yield f"corrected_after = {_quoted(format_duration(after_ns))}"


def _plain(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _quoted(text: str) -> str:
    return json.dumps(_plain(text), ensure_ascii=False)
