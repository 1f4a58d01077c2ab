"""meshwake sweep: thousands of machines per fix, or many nodes that wake at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from meshwake.analysis import sweep as sweeps
from meshwake.analysis import thundering_herd as herds
from meshwake.analysis import workers
from meshwake.analysis.imported import recorded_machines
from meshwake.analysis.populations import IMPORTED, POPULATIONS
from meshwake.checks.format import lasting
from meshwake.cli.options import JsonOption, SeedOption
from meshwake.cli.output import print_json, print_text, say
from meshwake.core import versions
from meshwake.core.durations import NS_PER_S, parse_positive_ns
from meshwake.core.errors import BadInput
from meshwake.core.refusal import invalid
from meshwake.report.progress import ProgressLine
from meshwake.report.terminal import show

FIXES_SWEPT = (
    "none",
    "weekly-restart",
    "daily-restart",
    "secret-ttl-720h",
    "sleep-hook",
    "boottime",
    "wall-polling",
    "wake-guard",
)
_GROUP_NUMBERS = (
    "recover",
    "unknown",
    "outage a week, p50",
    "p90",
    "p99",
    "longest",
    "restarts",
)
_FIX_COLUMN, _LOAD_COLUMN = "fix", "load in the hour after the wake"
_HERD_COLUMNS = (
    "nodes",
    _FIX_COLUMN,
    "requests at most in 1 s",
    "in 10 s",
    "in all",
    "good again at once",
    "in 5 min",
    "in 1 h",
    _LOAD_COLUMN,
)


def add_commands(app: typer.Typer) -> None:
    """Adds sweep to `app`."""
    app.command("sweep")(sweep)


def sweep(
    population: Annotated[
        list[str] | None, typer.Option("--population", help="May be repeated; without: all.")
    ] = None,
    imported: Annotated[
        list[Path] | None,
        typer.Option(
            "--imported",
            metavar="SCENARIO",
            help="A file of import-sleep, or a folder; may be repeated.",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option("--fix", help="May be repeated; without: eight of them.")
    ] = None,
    lifetime: Annotated[
        list[str] | None, typer.Option("--lifetime", help="Of certificates; may be repeated.")
    ] = None,
    istio: Annotated[
        list[str] | None, typer.Option("--istio", metavar="VERSION", help="May be repeated.")
    ] = None,
    machines: Annotated[int, typer.Option("--machines", min=1, help="Of each population.")] = 100,
    days: Annotated[
        int, typer.Option("--days", min=1, max=366, help="How long each machine is simulated.")
    ] = 7,
    herd: Annotated[
        str | None,
        typer.Option(
            "--herd", metavar="N,N...", help="Instead: this many nodes that wake together."
        ),
    ] = None,
    turns: Annotated[
        int,
        typer.Option(
            "--turns", min=1, help="With --herd: how many wake guards may restart at a time."
        ),
    ] = 1,
    seed: SeedOption = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Processes; 0: one per core.")] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786."
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="DIR", help="Results; a sweep that was interrupted goes on there."
        ),
    ] = Path("sweep"),
    as_json: JsonOption = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="With --herd: print the table of docs/sweeps.md.")
    ] = False,
) -> None:
    """Simulate thousands of machines per fix, or the load on istiod when many nodes wake at
    once."""
    if herd is not None:
        _show_herds(_herds(herd, fix, turns, seed), as_json, as_markdown)
        return
    if turns != 1 or as_markdown:
        option = "--markdown" if as_markdown else f"--turns {turns}"
        raise BadInput(f"{option}: only with --herd N; leave it out, or give that too")
    spec = sweeps.spec_of(
        _populations(population, imported),
        fix or FIXES_SWEPT,
        [round(parse_positive_ns(text, "--lifetime") / NS_PER_S) for text in lifetime or ["24h"]],
        istio or [versions.newest().version],
        machines,
        days,
        seed,
        recorded_machines(imported or []),
    )
    summary = _sweep(spec, output, jobs, scheduler, quiet=as_json)
    if as_json:
        print_json(summary | {"output": str(output)})
        return
    show(Console(), _groups_table(summary["groups"]))
    print_text(f"{summary['rows']} rows in {output}, sha256 {summary['sha256'][:16]}")


# --- Populations ----------------------------------------------------------------------------------


def _populations(named: list[str] | None, imported: list[Path] | None) -> list[str]:
    """All, where none was named; only the imported one where there are files and no names."""
    if imported:
        return [*(named or []), IMPORTED]
    return named or list(POPULATIONS)


def _sweep(
    spec: sweeps.SweepSpec, output: Path, jobs: int, scheduler: str | None, *, quiet: bool
) -> dict[str, Any]:
    store = sweeps.open_result_store(output, spec)
    line = ProgressLine(shown=not quiet)
    watch: list[Callable[[int], None]] = []

    def report(done: int, of: int) -> None:
        # How many there are is known only when the first is done.
        if not watch:
            watch.append(line.watch(f"{spec.machines * len(spec.fixes)} machines by fixes", of))
        watch[0](done)

    # A Dask client is closed at the end of the block; processes of this machine end by themselves.
    local = nullcontext(workers.on_this_machine(jobs or workers.cores()))
    try:
        with workers.on_dask(scheduler) if scheduler else local as answers:
            return sweeps.sweep(spec, store, answers, report)
    finally:
        line.end()


def _groups_table(groups: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("population")
    table.add_column("fix", no_wrap=True)
    for heading in _GROUP_NUMBERS:
        table.add_column(heading, justify="right")
    before = ""
    for group in groups:
        lifetime = lasting(group["lifetime_s"] * NS_PER_S)
        title = f"{group['population']} {group['version']} {lifetime}"
        # The population is written once for all its fixes.
        outage = group["outage_s_per_week"]
        table.add_row(
            title if title != before else "",
            group["fix"],
            _percent(group["recover"] / group["machines"]),
            _percent(group["unknown"] / group["machines"]),
            _length(outage["p50"]),
            _length(outage["p90"]),
            _length(outage["p99"]),
            _length(group["worst_s"]),
            f"{group['restarts_per_week']:g}",
        )
        before = title
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _length(length_s: float) -> str:
    return lasting(round(length_s * NS_PER_S)) if length_s else "none"


# --- Many nodes that wake at once -----------------------------------------------------------------


def _herds(sizes: str, fixes: list[str] | None, turns: int, seed: int) -> list[herds.HerdResult]:
    # With turns only the guard is of interest: nothing else takes any.
    default_fixes = herds.FIXES_SHOWN if turns == 1 else herds.FIXES_WITH_TURNS
    found = []
    for nodes in _sizes(sizes):
        for name in fixes or default_fixes:
            say(f"{nodes} nodes, {name}")
            found.append(herds.simulate_herd(nodes, name, seed, turns))
    return found


def _sizes(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        expected = "whole numbers joined by commas, such as 10,100,1000"
        raise invalid("--herd", text, expected) from error


def _show_herds(found: list[herds.HerdResult], as_json: bool, as_markdown: bool) -> None:
    if as_json:
        print_json([asdict(one) for one in found])
    elif as_markdown:
        print_text(herds.markdown(found).rstrip("\n"))
    else:
        show(Console(), _herds_table(found))
        print_text(
            f"istiod admits {herds.ISTIOD_STREAMS_A_SECOND} new streams a second by default "
            "(docs/sweeps.md)"
        )


def _herds_table(found: list[herds.HerdResult]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in _HERD_COLUMNS:
        is_text = heading in (_FIX_COLUMN, _LOAD_COLUMN)
        table.add_column(heading, justify="left" if is_text else "right")
    for one in found:
        table.add_row(
            str(one.nodes),
            one.fix if one.turns == 1 else f"{one.fix}, {one.turns} turns",
            str(one.most_in_1_s),
            str(one.most_in_10_s),
            str(one.requests),
            _percent(one.good_at_once),
            _percent(one.good_in_5_min),
            _percent(one.good_in_1_h),
            herds.bar_line(one.per_minute),
        )
    return table
