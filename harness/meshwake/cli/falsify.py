"""meshwake falsify: the smallest timeline that breaks a fix."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from meshwake.analysis import falsify as search
from meshwake.checks.format import lasting
from meshwake.cli.options import JsonOption, OneVersionOption, SeedOption
from meshwake.cli.output import CommandExit, print_json, print_text
from meshwake.core import versions
from meshwake.core.durations import NS_PER_S, parse_positive_ns
from meshwake.core.errors import BadInput, ExitCode, HarnessError, LabUnavailable
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Verdict
from meshwake.core.outputs import try_folder
from meshwake.core.refusal import invalid_choice
from meshwake.fixes import adapted
from meshwake.labs import load_lab
from meshwake.runner import timelines
from meshwake.ztunnel import binaries

LABS = ("model", "process")
_MINIMAL = "nothing can be left out, and nothing made a quarter shorter"
_NOT_MINIMAL = "not the smallest: time ran out"


def add_commands(app: typer.Typer) -> None:
    """Adds falsify to `app`."""
    app.command("falsify")(falsify)


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
    istio: OneVersionOption = None,
    ztunnel: Annotated[
        Path | None, typer.Option("--ztunnel", metavar="PATH", help="The binary; needs --istio.")
    ] = None,
    budget: Annotated[
        str, typer.Option("--budget", help="How long to search, such as 60s.")
    ] = "60s",
    faults: Annotated[
        str, typer.Option("--faults", help="Which kinds, joined by commas.")
    ] = ",".join(timelines.DEFAULT_KINDS),
    seed: SeedOption = 0,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where the scenario goes.")
    ] = Path("found"),
    as_json: JsonOption = False,
) -> None:
    """Search for the smallest timeline that breaks a fix, and save it as a scenario. Exit 1: one was
    found; 2: the check is UNKNOWN on every timeline."""
    budget_s = parse_positive_ns(budget, "--budget") / NS_PER_S
    if lab not in LABS:
        raise invalid_choice("--lab", lab, LABS)
    kinds = tuple(word.strip() for word in faults.split(",") if word.strip())
    release, binary = _subject(lab, istio, ztunnel)
    question = search.make_target(fix, check, release, lab, seed, kinds)
    try_folder(output, "--output")
    with (
        tempfile.TemporaryDirectory(prefix="meshwake-falsify-") as work,
        _counter("timelines tried") as report,
    ):
        # The logs of thousands of runs go with the block; what is found is run again.
        question = replace(question, ztunnel=binary, work_dir=Path(work))
        _refuse_where_it_cannot_run(question)
        found = search.falsify(question, budget_s, report=report)
        answer = _Answer(found)
        if found.timeline is not None:
            path = search.save(found, output)
            answer = _Answer(found, path, *_replayed(found, Path(work)))
    if as_json:
        print_json(answer.to_json())
    else:
        print_text("\n".join(answer.lines()))
    if found.timeline is not None:
        raise CommandExit(ExitCode.SURPRISE)

    # "Nothing found" among timelines that could all not be judged is not an answer.
    if found.unknown == found.tried:
        raise CommandExit(ExitCode.UNKNOWN)


def _subject(
    lab: str, istio: str | None, ztunnel: Path | None
) -> tuple[versions.Release, Path | None]:
    if lab == "model":
        if ztunnel is not None:
            raise BadInput(
                f"--ztunnel {ztunnel}: lab model runs no binary; leave it out, or use --lab process"
            )
        return (versions.find(istio) if istio else versions.newest()), None
    if ztunnel is not None:
        if istio is None:
            raise BadInput(
                f"--ztunnel {ztunnel}: name the release it was built from: --istio VERSION"
            )
        return versions.find(istio), ztunnel

    # The newest binary of the cache, or the one of --istio.
    known = {release.version: release for release in versions.releases()}
    for binary in reversed(binaries.cached()):
        if binary.version in known and istio in (None, binary.version):
            return known[binary.version], binary.path
    raise LabUnavailable(
        "no ztunnel binary in the cache (see meshwake doctor); pass --ztunnel PATH --istio VERSION"
    )


def _refuse_where_it_cannot_run(question: search.FalsifyTarget) -> None:
    lab = load_lab(question.lab)

    # Any timeline will do for the question; a restart is the shortest.
    plan = question.plan((timelines.Move("restart", 1),))
    reasons = lab.missing(question.ztunnel) or lab.refusals(adapted(plan))
    if reasons:
        raise LabUnavailable(f"--lab {question.lab}: {'; '.join(reasons)}")


def _replayed(found: search.FalsifyResult, work: Path) -> tuple[str | None, str]:
    """The release on whose real binary the timeline breaks the property too; or None, and why that
    was not seen."""
    assert found.timeline is not None
    question = found.question
    if question.lab == "process":
        return question.release.version, ""
    try:
        release, binary = _subject("process", None, None)
    except LabUnavailable as error:
        return None, str(error)

    # The model may be wrong: what it found is worth more once a real binary has shown it too.
    real = replace(question, lab="process", release=release, ztunnel=binary, work_dir=work)
    lab = load_lab("process")
    reasons = lab.missing(binary) or lab.refusals(adapted(real.plan(found.timeline)))
    if reasons:
        return None, "; ".join(reasons)
    try:
        finding = real.finding(found.timeline)
    except HarnessError as error:
        return None, f"the run on ztunnel {release.version} failed: {error}"
    if finding.verdict is Verdict.BROKEN:
        return release.version, ""
    return None, f"on ztunnel {release.version} it is {finding.verdict}: {finding.because}"


@dataclass(frozen=True)
class _Answer:
    """What was found, the scenario that it was written to, and the release on whose real binary it
    was seen too, or why it was not."""

    found: search.FalsifyResult
    path: Path | None = None
    confirmed_on: str | None = None
    not_confirmed_because: str = ""

    def to_json(self) -> MutableJsonObject:
        """The object of docs/falsifier.md."""
        found, question = self.found, self.found.question
        return {
            "fix": question.fix,
            "property": question.check,
            "found": found.timeline is not None,
            "scenario_file": str(self.path) if self.path else None,
            "events": [asdict(move) for move in found.timeline or ()],
            "tried": found.tried,
            "unknown": found.unknown,
            "told": timelines.describe(found.timeline) if found.timeline else None,
            "minimal": found.minimal,
            "because": found.because,
            "confirmed_on": self.confirmed_on,
            "not_confirmed_because": self.not_confirmed_because or None,
            "lab": question.lab,
            "version": question.release.version,
            "seed": question.seed,
            "real_s": round(found.real_s, 1),
        }

    def lines(self) -> list[str]:
        """The same for a person."""
        found, question = self.found, self.found.question
        where = f"ztunnel {question.release.version} on {question.lab}"
        subject = f"{question.fix}, {question.check}, {where}"
        unknown = f", {found.unknown} of them UNKNOWN" if found.unknown else ""
        spent = f"{found.tried} timelines in {lasting(round(found.real_s * NS_PER_S))}{unknown}"
        if found.timeline is None:
            return [f"{subject}: nothing found ({spent})"]
        return [
            f"{subject}: BROKEN by {timelines.describe(found.timeline)} ({spent})",
            f"  {found.because}",
            f"  {_MINIMAL if found.minimal else _NOT_MINIMAL}",
            f"  scenario: {self.path}",
            f"  {self._confirmation()}",
        ]

    def _confirmation(self) -> str:
        if self.confirmed_on:
            return f"confirmed on ztunnel {self.confirmed_on}"
        return f"not confirmed on a real ztunnel: {self.not_confirmed_because}"


@contextmanager
def _counter(what: str) -> Iterator[Callable[[int], None]]:
    """A count on stderr, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda number: None
        return
    with console.status("") as status:
        yield lambda number: status.update(f"{number} {what}")
