"""meshwake import-sleep: what a machine remembers of its sleep, as a scenario.

The scenario goes to stdout, or with --output to a file; what was understood and what was not is
reported on stderr. Errors are raised as HarnessError; harness/meshwake/cli/app.py prints them and
ends with their exit code.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from meshwake.analysis.outlook import outlook
from meshwake.cli.output import print_text, say, write_text
from meshwake.core import versions
from meshwake.core.dates import Dates
from meshwake.core.durations import NS_PER_S, format_duration, parse_option_ns
from meshwake.core.errors import BadInput
from meshwake.core.outputs import try_file
from meshwake.core.refusal import invalid, invalid_choice
from meshwake.core.scenario import parse_scenario
from meshwake.core.zones import EXPECTED, UTC_ZONE, Zone, zone_of
from meshwake.importers import systemd
from meshwake.importers.formats import JOURNALCTL, read_journal
from meshwake.importers.items import Tally
from meshwake.importers.local_times import DateOrder
from meshwake.importers.offsets import OffsetsContradict, zone_shown
from meshwake.importers.placement import PlacedJournal
from meshwake.importers.scenario_writer import ScenarioOptions, scenario_text
from meshwake.importers.sleep_history import SleepHistory, sleep_history_of
from meshwake.importers.windows_csv import JournalOptions

# Measured on a laptop's VM in istio/ztunnel#1481: the wall clock was corrected some 25 s after the
# wake.
CORRECTED_AFTER = "25s"
LEFT_OUT_SHOWN = 5


def add_commands(app: typer.Typer) -> None:
    """Adds import-sleep to `app`."""
    app.command("import-sleep")(import_sleep)


def import_sleep(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Saved journals of one machine.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="SCENARIO", help="Write the scenario here."),
    ] = None,
    zone: Annotated[
        str | None,
        typer.Option("--zone", help="Of the dates, and of local times of CSV: Europe/Berlin."),
    ] = None,
    date_order: Annotated[
        str | None,
        typer.Option(
            "--date-order",
            metavar="ORDER",
            help="Of a CSV's local times: day-first or month-first.",
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine", metavar="NAME", help="Which VM of a host's log, or machine of a journal."
        ),
    ] = None,
    every_sleep_as: Annotated[
        str | None,
        typer.Option("--as", metavar="KIND", help="Take every sleep for suspend, or for pause."),
    ] = None,
    corrected_after: Annotated[
        str | None,
        typer.Option(
            "--corrected-after",
            help="How long after a pause the wall clock is corrected, or never.",
        ),
    ] = None,
    node: Annotated[
        str, typer.Option("--node", help="The name of the machine in the scenario.")
    ] = "laptop",
) -> None:
    """Make a scenario of the sleep that a machine's journals record."""
    _check_choice("--as", every_sleep_as, "suspend", "pause")
    _check_choice("--date-order", date_order, *get_args(DateOrder))
    if output is not None:
        try_file(output, "--output")
    tallies = [Tally(str(path)) for path in files]
    given = None if zone is None else _zone(zone)
    options = JournalOptions(
        UTC if given is None or given.tzinfo is None else given.tzinfo,
        cast(DateOrder | None, date_order),
        machine,
        zone_given=given is not None,
    )
    month = _month(_placed(files, tallies, options), tallies)
    dates_zone = given or _zone_of_journals(tallies)

    # Only now: the default depends on which systems the journals turned out to be of.
    after_ns = _corrected_after_ns(corrected_after, tallies)
    sources = [
        f"{Path(tally.path).name} ({tally.system}, {tally.entries} entries)" for tally in tallies
    ]
    text = scenario_text(
        month, ScenarioOptions(sources, node, after_ns, every_sleep_as, dates_zone)
    )

    # Never hand out what `run` would refuse.
    scenario = parse_scenario(text, str(output or "the scenario"), "imported")
    for line in _summary(month, tallies, dates_zone):
        say(line)
    say(f"without mTLS while awake: {outlook(scenario, versions.newest())}")
    file = shlex.quote(str(output or "SCENARIO"))
    say(f"when: meshwake run {file}; with every fix: meshwake matrix --scenario {file}")
    _hand_out(text, output)


def _check_choice(option: str, read: str | None, *allowed: str) -> None:
    if read is not None and read not in allowed:
        raise invalid_choice(option, read, allowed)


def _zone(text: str) -> Zone:
    try:
        zone = zone_of(text)
    except ValueError as error:
        raise BadInput(f"invalid value {text!r} for --zone: {error}") from error
    if zone.tzinfo is None:
        raise invalid("--zone", text, EXPECTED)
    return zone


def _zone_of_journals(tallies: Sequence[Tally]) -> Zone | None:
    """The one that all journals show, None where none does."""
    try:
        return zone_shown(tally.offsets for tally in tallies)
    except OffsetsContradict:
        return None


def _placed(
    files: Sequence[Path], tallies: Sequence[Tally], options: JournalOptions
) -> list[PlacedJournal]:
    """What each journal contains; files that are pieces of one journal are one."""
    read = [read_journal(path, tally, options) for path, tally in zip(files, tallies, strict=True)]
    # A journal may have been saved in pieces, and a boot begins in one and ends in the next.
    pieces = [each for each in read if isinstance(each, systemd.SystemdJournal)]
    joined = systemd.joined(pieces)
    with_boots = [systemd.place_boots(journal, options.machine) for journal in joined]
    return [each for each in [*with_boots, *read] if isinstance(each, PlacedJournal)]


def _month(placed: Sequence[PlacedJournal], tallies: list[Tally]) -> SleepHistory:
    if not placed:
        systems = {tally.system for tally in tallies}
        advice = f"; print it with: {JOURNALCTL}" if systems == {systemd.SYSTEM} else ""
        raise BadInput(
            "\n".join([f"no entry with a time was found{advice}", *_tally_lines(tallies)])
        )

    # Journals may overlap, and a host's log and its guest's own record the same sleep.
    month = sleep_history_of(placed)
    if not month.events:
        raise _nothing_to_import(placed, month, tallies)
    return month


def _nothing_to_import(
    placed: Sequence[PlacedJournal], month: SleepHistory, tallies: list[Tally]
) -> BadInput:
    first_ns = min(each.first_ns for each in placed)
    last_ns = max(each.last_ns for each in placed)
    days = (last_ns - first_ns) / (86_400 * NS_PER_S)
    lines = [
        f"no sleep, boot or jump in {days:.1f} days: nothing to import",
        *_tally_lines(tallies),
    ]
    lines += [f"left out: {text}" for text in month.dropped[:LEFT_OUT_SHOWN]]
    return BadInput("\n".join(lines))


def _corrected_after_ns(text: str | None, tallies: list[Tally]) -> int | None:
    """A guest's own journal shows the jump in the moment in which its clock was corrected."""
    if text == "never":
        return None
    own_journals_only = all(tally.system == systemd.SYSTEM for tally in tallies)
    default = "0s" if own_journals_only else CORRECTED_AFTER
    after_ns = parse_option_ns(text or default, "--corrected-after")
    if after_ns < 0:
        raise BadInput(f"--corrected-after {text}: must not be negative")
    return after_ns


def _summary(month: SleepHistory, tallies: list[Tally], zone: Zone | None) -> list[str]:
    dates = Dates(month.starts_wall_s, zone or UTC_ZONE)
    lines = _tally_lines(tallies)
    lines += [f"left out: {text}" for text in month.dropped[:LEFT_OUT_SHOWN]]
    if len(month.dropped) > LEFT_OUT_SHOWN:
        lines.append(f"left out: {len(month.dropped) - LEFT_OUT_SHOWN} more of the kind")
    parts = {"suspend": "asleep", "pause": "paused", "off": "switched off"}
    counts = []
    for kind, word in parts.items():
        if month.count(kind):
            counts.append(f"{word} {_times(month, kind)} ({_short(month.total_ns(kind))})")
    if month.count("step"):
        counts.append(f"wall clock set {_times(month, 'step')}")
    lines.append(
        f"from {dates.to_the_minute(0)} {dates.zone.label}, {_short(month.duration_ns)}: "
        f"{', '.join(counts)}"
    )
    if zone is None:
        lines.append("dates are UTC; for those of your own clocks add --zone, as Europe/Berlin")
    lines.append(
        f"without a restart a ztunnel would be late by up to {_short(month.largest_drift_ns)}"
    )
    return lines


def _times(month: SleepHistory, kind: str) -> str:
    return "once" if month.count(kind) == 1 else f"{month.count(kind)} times"


def _tally_lines(tallies: list[Tally]) -> list[str]:
    lines = []
    for tally in tallies:
        lines.append(
            f"{tally.path}: {tally.system}: {tally.entries} entries: {tally.used} are of "
            f"sleep, {tally.other} of "
            f"something else, {tally.not_understood} not understood"
        )
        lines += [f"  {example}" for example in tally.examples]
        if tally.not_understood > len(tally.examples):
            lines.append(f"  and {tally.not_understood - len(tally.examples)} more")
        lines += [f"  {note}" for note in tally.notes]
    return lines


def _short(length_ns: int) -> str:
    """To the second; to the minute from an hour on."""
    unit_ns = NS_PER_S if abs(length_ns) < 3_600 * NS_PER_S else 60 * NS_PER_S
    return format_duration(round(length_ns / unit_ns) * unit_ns)


def _hand_out(text: str, output: Path | None) -> None:
    if output is None:
        sys.stdout.write(text)
        return
    write_text(output, text, "--output")
    print_text(str(output))
