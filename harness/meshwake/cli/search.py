"""meshwake falsify | sweep: questions asked of many runs.

Results go to stdout, progress to stderr. Errors are raised as HarnessError;
harness/meshwake/cli/app.py says them and ends with their exit code.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from meshwake.analysis import falsify as search
from meshwake.analysis import sweep as sweeps
from meshwake.analysis import thundering_herd as herds
from meshwake.analysis import workers
from meshwake.analysis.imported import recorded_machines
from meshwake.analysis.populations import IMPORTED, POPULATIONS
from meshwake.checks.format import lasting
from meshwake.cli.ending import Ended
from meshwake.core import versions
from meshwake.core.durations import NS_PER_S, parse_positive_ns
from meshwake.core.errors import BadInput, ExitCode, HarnessError, LabUnavailable
from meshwake.core.outcome import Verdict
from meshwake.core.refusal import invalid, invalid_choice
from meshwake.fixes import adapted
from meshwake.labs import load_lab
from meshwake.report.progress import ProgressLine
from meshwake.report.terminal import show
from meshwake.ztunnel import binaries

LABS = ("model", "process")
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

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Same seed, same answer.")]
IstioOption = Annotated[
    str | None, typer.Option("--istio", metavar="VERSION", help="The release; else the newest.")
]


def add_commands(app: typer.Typer) -> None:
    """Adds falsify and sweep to `app`."""
    app.command("falsify")(falsify)
    app.command("sweep")(sweep)


# --- falsify --------------------------------------------------------------------------------------


def falsify(
    fix: Annotated[
        str,
        typer.Option("--fix", metavar="NAME", help="What is deployed; none: ztunnel as released."),
    ],
    check: Annotated[
        str, typer.Option("--property", metavar="CHECK", help="What should hold.")
    ] = "recovers_within",
    lab: Annotated[
        str, typer.Option("--lab", help="Where to search: model (default) or process.")
    ] = "model",
    istio: IstioOption = None,
    ztunnel: Annotated[
        Path | None, typer.Option("--ztunnel", metavar="PATH", help="The binary; needs --istio.")
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", help="How long to search, such as 60s.")
    ] = "60s",
    faults: Annotated[
        str, typer.Option("--faults", help="Which kinds, joined by commas.")
    ] = ",".join(search.DEFAULT_KINDS),
    seed: SeedOption = 0,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where the scenario goes.")
    ] = Path("found"),
    as_json: JsonOption = False,
) -> None:
    """Search for the smallest timeline that breaks a fix, and write it down as a scenario. Exit 1:
    one was found; 2: of every timeline the check says UNKNOWN."""
    budget_s = _seconds("--budget", budget)
    if lab not in LABS:
        raise invalid_choice("--lab", lab, LABS)
    kinds = tuple(word.strip() for word in faults.split(",") if word.strip())
    release, binary = _subject(lab, istio, ztunnel)
    question = search.make_target(fix, check, release, lab, seed, kinds)
    with (
        tempfile.TemporaryDirectory(prefix="meshwake-falsify-") as work,
        _counter("timelines tried") as tell,
    ):
        question = replace(question, ztunnel=binary, work_dir=Path(work))
        _refuse_where_it_cannot_run(question)
        found = search.falsify(question, budget_s, report=tell)
        path = search.save(found, output) if found.timeline is not None else None
        confirmed, why_not = (
            _replayed(found, Path(work)) if found.timeline is not None else (None, "")
        )
    if as_json:
        typer.echo(
            json.dumps(_found_json(found, path, confirmed, why_not), indent=2, ensure_ascii=False)
        )
    else:
        _show_found(found, path, confirmed, why_not)
    if found.timeline is not None:
        raise Ended(ExitCode.SURPRISE)
    if found.unknown == found.tried:
        raise Ended(ExitCode.UNKNOWN)


def _seconds(option: str, text: str) -> float:
    return parse_positive_ns(text, option) / NS_PER_S


def _subject(
    lab: str, istio: str | None, ztunnel: Path | None
) -> tuple[versions.Release, Path | None]:
    if lab == "model":
        if ztunnel is not None:
            raise BadInput(
                f"--ztunnel {ztunnel}: lab model runs no binary; leave it out, or say --lab process"
            )
        return (versions.find(istio) if istio else versions.newest()), None
    if ztunnel is not None:
        if istio is None:
            raise BadInput(
                f"--ztunnel {ztunnel}: say which release it was built from: --istio VERSION"
            )
        return versions.find(istio), ztunnel
    known = {release.version: release for release in versions.releases()}
    for binary in reversed(binaries.cached()):
        if binary.version in known and istio in (None, binary.version):
            return known[binary.version], binary.path
    raise LabUnavailable(
        "no ztunnel binary in the cache (see meshwake doctor); pass --ztunnel PATH --istio VERSION"
    )


def _refuse_where_it_cannot_run(question: search.FalsifyTarget) -> None:
    lab = load_lab(question.lab)
    plan = question.plan((search.Move("restart", 1),))
    if reasons := lab.missing(question.ztunnel) or lab.refusals(adapted(plan)):
        raise LabUnavailable(f"--lab {question.lab}: {'; '.join(reasons)}")


def _replayed(found: search.FalsifyResult, work: Path) -> tuple[str | None, str]:
    """The release on whose real binary the timeline breaks the property too; or None, and why it is
    not known to."""
    assert found.timeline is not None
    question = found.question
    if question.lab == "process":
        return question.release.version, ""
    try:
        release, binary = _subject("process", None, None)
    except LabUnavailable as error:
        return None, str(error)
    real = replace(question, lab="process", release=release, ztunnel=binary, work_dir=work)
    lab = load_lab("process")
    if reasons := lab.missing(binary) or lab.refusals(adapted(real.plan(found.timeline))):
        return None, "; ".join(reasons)
    try:
        finding = real.finding(found.timeline)
    except HarnessError as error:
        return None, f"the run on ztunnel {release.version} failed: {error}"
    if finding.verdict is Verdict.BROKEN:
        return release.version, ""
    return None, f"on ztunnel {release.version} it is {finding.verdict}: {finding.because}"


def _found_json(
    found: search.FalsifyResult, path: Path | None, confirmed: str | None, why_not: str
) -> dict[str, Any]:
    events = [asdict(move) for move in found.timeline or ()]
    return {
        "fix": found.question.fix,
        "property": found.question.check,
        "found": found.timeline is not None,
        "scenario_file": str(path) if path else None,
        "events": events,
        "tried": found.tried,
        "unknown": found.unknown,
        "told": search.describe(found.timeline) if found.timeline else None,
        "minimal": found.minimal,
        "because": found.because,
        "confirmed_on": confirmed,
        "not_confirmed_because": why_not or None,
        "lab": found.question.lab,
        "version": found.question.release.version,
        "seed": found.question.seed,
        "real_s": round(found.real_s, 1),
    }


def _show_found(
    found: search.FalsifyResult, path: Path | None, confirmed: str | None, why_not: str
) -> None:
    question = found.question
    unknown = f", {found.unknown} of them UNKNOWN" if found.unknown else ""
    spent = f"{found.tried} timelines in {lasting(round(found.real_s * NS_PER_S))}{unknown}"
    typer.echo(
        f"{question.fix}, {question.check}, ztunnel {question.release.version} on {question.lab}: ",
        nl=False,
    )
    if found.timeline is None:
        typer.echo(f"nothing found ({spent})")
        return
    typer.echo(f"BROKEN by {search.describe(found.timeline)} ({spent})")
    typer.echo(f"  {found.because}")
    words = (
        "nothing can be left out, and nothing made a quarter shorter"
        if found.minimal
        else "not the smallest: time ran out"
    )
    typer.echo(f"  {words}")
    typer.echo(f"  scenario: {path}")
    typer.echo(
        f"  confirmed on ztunnel {confirmed}"
        if confirmed
        else f"  not confirmed on a real ztunnel: {why_not}"
    )


@contextmanager
def _counter(what: str) -> Iterator[Callable[[int], None]]:
    """A line on stderr for a person who waits."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda number: None
        return
    with console.status("") as status:
        yield lambda number: status.update(f"{number} {what}")


# --- sweep ----------------------------------------------------------------------------------------


def sweep(
    population: Annotated[
        list[str] | None, typer.Option("--population", help="May be repeated; else all.")
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
        list[str] | None, typer.Option("--fix", help="May be repeated; else eight of them.")
    ] = None,
    lifetime: Annotated[
        list[str] | None, typer.Option("--lifetime", help="Of certificates; may be repeated.")
    ] = None,
    istio: Annotated[
        list[str] | None, typer.Option("--istio", metavar="VERSION", help="May be repeated.")
    ] = None,
    machines: Annotated[int, typer.Option("--machines", min=1, help="Of each population.")] = 100,
    days: Annotated[
        int, typer.Option("--days", min=1, max=366, help="How long each machine is watched.")
    ] = 7,
    herd: Annotated[
        str | None,
        typer.Option("--herd", metavar="N,N...", help="Instead: so many nodes that wake together."),
    ] = None,
    turns: Annotated[
        int,
        typer.Option(
            "--turns", min=1, help="With --herd: so many wake guards may restart at a time."
        ),
    ] = 1,
    seed: SeedOption = 0,
    jobs: Annotated[int, typer.Option("--jobs", min=0, help="Processes; 0: one a core.")] = 0,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="A Dask scheduler, such as tcp://host:8786."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Results; begun again, it goes on.")
    ] = Path("sweep"),
    as_json: JsonOption = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="With --herd: print the table of docs/sweeps.md.")
    ] = False,
) -> None:
    """Ask over thousands of machines which fix holds, or what a herd of waking nodes does to
    istiod."""
    if herd is not None:
        answers_of_herd = _herd(herd, fix, turns, seed)
        if as_json:
            typer.echo(json.dumps([asdict(one) for one in answers_of_herd], indent=1))
        elif as_markdown:
            typer.echo(herds.markdown(answers_of_herd), nl=False)
        else:
            _show_herd(answers_of_herd)
        return
    if turns != 1 or as_markdown:
        option = "--markdown" if as_markdown else f"--turns {turns}"
        raise BadInput(f"{option}: is about a herd; give --herd N too")
    spec = sweeps.spec_of(
        [*(population or []), IMPORTED] if imported else population or list(POPULATIONS),
        fix or FIXES_SWEPT,
        [round(_seconds("--lifetime", text)) for text in lifetime or ["24h"]],
        istio or [versions.newest().version],
        machines,
        days,
        seed,
        recorded_machines(imported or []),
    )
    store = sweeps.open_result_store(output, spec)
    line = ProgressLine(shown=not as_json)
    try:
        watch: list[Callable[[int], None]] = []

        def tell(done: int, of: int) -> None:
            if not watch:
                watch.append(line.watch(f"{spec.machines * len(spec.fixes)} machines by fixes", of))
            watch[0](done)

        with (
            workers.on_dask(scheduler)
            if scheduler
            else nullcontext(workers.on_this_machine(jobs or workers.cores())) as answers
        ):
            summary = sweeps.sweep(spec, store, answers, tell)
    finally:
        line.end()
    if as_json:
        typer.echo(json.dumps(summary | {"output": str(output)}, indent=1))
        return
    show(Console(), _groups_table(summary["groups"]))
    typer.echo(f"{summary['rows']} rows in {output}, sha256 {summary['sha256'][:16]}")


def _groups_table(groups: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("population")
    table.add_column("fix", no_wrap=True)
    for heading in (
        "recover",
        "unknown",
        "outage a week, p50",
        "p90",
        "p99",
        "longest",
        "restarts",
    ):
        table.add_column(heading, justify="right")
    before = ""
    for group in groups:
        title = (
            f"{group['population']} {group['version']} {lasting(group['lifetime_s'] * NS_PER_S)}"
        )
        outage = group["outage_s_per_week"]
        table.add_row(
            title if title != before else "",
            group["fix"],
            *(
                f"{100 * group[share] / group['machines']:.0f} %"
                for share in ("recover", "unknown")
            ),
            *(_length(outage[key]) for key in ("p50", "p90", "p99")),
            _length(group["worst_s"]),
            f"{group['restarts_per_week']:g}",
        )
        before = title
    return table


def _length(length_s: float) -> str:
    return lasting(round(length_s * NS_PER_S)) if length_s else "none"


def _herd(sizes: str, fixes: list[str] | None, turns: int, seed: int) -> list[herds.HerdResult]:
    try:
        numbers = [int(word) for word in sizes.split(",")]
    except ValueError as error:
        expected = "whole numbers joined by commas, such as 10,100,1000"
        raise invalid("--herd", sizes, expected) from error
    answers = []
    for nodes in numbers:
        for name in fixes or (herds.FIXES_SHOWN if turns == 1 else herds.FIXES_WITH_TURNS):
            typer.echo(f"{nodes} nodes, {name}", err=True)
            answers.append(herds.simulate_herd(nodes, name, seed, turns))
    return answers


def _show_herd(answers: list[herds.HerdResult]) -> None:
    table = Table(box=None, pad_edge=False)
    for heading in (
        "nodes",
        "fix",
        "requests at most in 1 s",
        "in 10 s",
        "in all",
        "good again at once",
        "in 5 min",
        "in 1 h",
        "load in the hour after the wake",
    ):
        table.add_column(
            heading,
            justify="left" if heading in ("fix", "load in the hour after the wake") else "right",
        )
    for one in answers:
        table.add_row(
            str(one.nodes),
            one.fix if one.turns == 1 else f"{one.fix}, {one.turns} turns",
            str(one.most_in_1_s),
            str(one.most_in_10_s),
            str(one.requests),
            *(
                f"{100 * share:.0f} %"
                for share in (one.good_at_once, one.good_in_5_min, one.good_in_1_h)
            ),
            herds.bar_line(one.per_minute),
        )
    show(Console(), table)
    typer.echo(
        f"istiod admits {herds.ISTIOD_STREAMS_A_SECOND} new streams a second by default "
        "(docs/sweeps.md)"
    )
