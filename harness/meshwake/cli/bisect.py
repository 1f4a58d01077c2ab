"""meshwake bisect: the first version where a check of a scenario has another verdict.

What it does, and how sure it can be: docs/bisect.md.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from meshwake.analysis.attempt import ScenarioExperiment
from meshwake.analysis.bisect import Bisect, BisectRequest, BisectResult, Observation, check_request
from meshwake.analysis.bisect_log import (
    BisectLog,
    begin_log,
    check_scenario,
    drop_partial_line,
    read_log,
)
from meshwake.cli.options import JsonOption, check_name
from meshwake.cli.output import CommandExit, cut, print_json, print_text, say
from meshwake.core import versions
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.core.store import RunDirectory
from meshwake.labs import IN_REAL_TIME
from meshwake.runner.choose import Chooser
from meshwake.runner.corpus import scenario_file
from meshwake.runner.flags import AUTO, LabFlags, with_flags
from meshwake.runner.options import Options, planned_cluster

# How often each side of a boundary is run by default; in real time once.
_REPEATS = {"model": 3, "process": 2, "machine": 2}


def add_commands(app: typer.Typer) -> None:
    """Adds bisect to `app`."""
    app.command("bisect")(bisect)


@with_flags(LabFlags)
def bisect(
    scenario: Annotated[
        str | None, typer.Argument(metavar="SCENARIO", help="A scenario file, or its name.")
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", metavar="NAME", help="The check that decides.")
    ] = None,
    good: Annotated[
        str | None, typer.Option("--good", metavar="VERSION", help="Where the check HOLDS.")
    ] = None,
    bad: Annotated[
        str | None, typer.Option("--bad", metavar="VERSION", help="Where it is BROKEN.")
    ] = None,
    repeat: Annotated[
        int | None,
        typer.Option(
            "--repeat", min=1, help="Runs of each side of the boundary: 3, with binaries 2."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Versions tested at a time.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="The first seed; repeats take the next ones.")
    ] = 0,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="LOG", help="Go on with this log.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="LOG", help="Answer from this log alone.")
    ] = None,
    as_json: JsonOption = False,
    *,
    flags: LabFlags,
) -> None:
    """Find the first version where a check of a scenario has another verdict."""
    if resume is not None or replay is not None:
        log, experiment = _from_log(resume, replay, [scenario, check, good, bad])
    else:
        path, found_scenario = _read(scenario)
        options = Options(
            lab=flags.lab, real_time=flags.real_time, seed=seed, cluster=planned_cluster(flags)
        )
        question = _question(found_scenario, check, good, bad, repeat, options)
        experiment = ScenarioExperiment(found_scenario, question.check, question.lab, options)
        log = begin_log(question, path)
    found = _search(log, experiment, jobs, as_json)
    if as_json:
        print_json(found.to_json() | {"log": str(log.path)})
    else:
        _show(found, log)
    raise CommandExit(found.exit_code)


# --- What is searched for -------------------------------------------------------------------------


def _read(name: str | None) -> tuple[Path, Scenario]:
    if name is None:
        raise BadInput(
            "SCENARIO is missing: give a scenario file, or --resume LOG, or --replay LOG"
        )
    path = scenario_file(name)
    return path, read_scenario(path)


def _question(
    scenario: Scenario,
    check: str | None,
    good: str | None,
    bad: str | None,
    repeat: int | None,
    options: Options,
) -> BisectRequest:
    """The question, with both ends of the range and a lab that can run them."""
    named_check = check_name(check)
    _refuse_one_end(good, bad)
    both_named = good is not None
    if not both_named:
        good, bad = _outermost_versions(scenario, options)
    assert good is not None
    assert bad is not None
    question = BisectRequest(
        scenario.name, named_check, options.lab, good, bad, both_named, seed=options.seed
    )
    check_request(question)
    question = replace(
        question,
        good=versions.find(good).version,
        bad=versions.find(bad).version,
        lab=_lab(scenario, question),
    )
    _refuse_ends(question, scenario, options)
    return replace(question, repeat=repeat or _REPEATS.get(question.lab, 1))


def _refuse_one_end(good: str | None, bad: str | None) -> None:
    if (good is None) != (bad is None):
        missing = "--good" if good is None else "--bad"
        raise BadInput(
            f"{missing} is missing: give both ends, or neither to search the whole table"
        )


def _lab(scenario: Scenario, question: BisectRequest) -> str:
    """What `auto` means here: the binaries, when both ends have one that can run this; else the
    model."""
    if question.lab != AUTO:
        return question.lab

    # Only the ends are looked for: a release between them without a binary is left out later.
    cases = Chooser(Options("process", (question.good, question.bad))).cases(scenario)
    refusals = [case.refusal for case in cases if case.refusal is not None]
    if refusals:
        say(f"lab model: {refusals[0]}")
        return "model"
    say("lab process: both ends have a binary in the cache")
    return "process"


def _refuse_ends(question: BisectRequest, scenario: Scenario, options: Options) -> None:
    """Raises LabUnavailable when an end that a person named cannot run at all."""
    ends = (question.good, question.bad)
    if question.lab == "model":
        for version in ends:
            assumed = versions.find(version).assumption
            if assumed is not None:
                raise LabUnavailable(
                    f"{assumed}; a bisect needs an end whose class is known, or its binary"
                )
    for case in Chooser(replace(options, lab=question.lab, istio=ends)).cases(scenario):
        case.require_runnable()


def _outermost_versions(scenario: Scenario, options: Options) -> tuple[str, str]:
    """The newest and the oldest release that can run on this lab and machine, as good and bad.
    Raises LabUnavailable without two."""
    lab = "model" if options.lab == AUTO else options.lab
    classified = tuple(row.version for row in versions.releases() if row.classified)
    cases = Chooser(replace(options, lab=lab, istio=classified)).cases(scenario)
    possible, refusal = [], None
    for case in cases:
        if case.refusal is None:
            possible.append(case.version)
        else:
            # In the end that of the newest release, the one that people most likely have.
            refusal = case.refusal
    if len(possible) < 2:
        raise LabUnavailable(
            f"{lab}: fewer than two releases can run here ({refusal}); use --lab model"
        )
    return possible[-1], possible[0]


def _from_log(
    resume: Path | None, replay: Path | None, also: Sequence[str | None]
) -> tuple[BisectLog, ScenarioExperiment | None]:
    """The log to go on with; without an experiment where only the log may answer."""
    if resume is not None and replay is not None:
        raise BadInput(
            "--resume and --replay: one goes on with a log, the other runs nothing; give "
            "one of them"
        )
    if any(word is not None for word in also):
        raise BadInput(
            "SCENARIO, --check, --good, --bad: are in the log; leave them out with --resume and "
            "--replay"
        )
    path = resume or replay
    assert path is not None
    log = read_log(path)
    if log.broken_off:
        say(
            f"{path}: its last line was cut in half and is tested again; {len(log.attempts)} "
            "answers are whole"
        )
    if replay is not None:
        return log, None

    # Before anything is written to the log: answers of two scenarios must not be mixed.
    check_scenario(log)
    drop_partial_line(log)
    scenario = read_scenario(Path(log.scenario_file))
    return log, ScenarioExperiment(scenario, log.question.check, log.question.lab)


# --- The search -----------------------------------------------------------------------------------


def _search(
    log: BisectLog, experiment: ScenarioExperiment | None, jobs: int | None, as_json: bool
) -> BisectResult:
    def report(observation: Observation) -> None:
        if not as_json:
            say(cut(f"  {observation.version:<12} {observation.verdict:<8} {observation.because}"))

    question = log.question
    search = Bisect(
        question,
        log.logged(experiment, None if experiment is None else experiment.subject),
        jobs or _default_jobs(question.lab),
        report,
        (lambda version: None) if experiment is None else experiment.impossible,
    )
    try:
        found = search.run()
    # ^C too: an hour of binaries is worth going on with.
    except BaseException as error:
        # Where the question itself was wrong there is nothing to go on with.
        if experiment is not None and not isinstance(error, BadInput):
            say(f"the answers so far are kept: meshwake bisect --resume {_quoted(log)}")
        raise
    if experiment is not None:
        _drop_runs(found)
    return found


def _quoted(log: BisectLog) -> str:
    return shlex.quote(str(log.path))


def _default_jobs(lab: str) -> int:
    """How many versions at a time: the model is quick, and there is one cluster."""
    return 1 if lab in ("model", *IN_REAL_TIME) else os.cpu_count() or 1


def _drop_runs(found: BisectResult) -> None:
    """Removes the runs that are no evidence of a boundary. Runs that failed stay in any case."""
    sides = _sides(found)
    for observation in found.tested:
        for attempt in observation.attempts[_evidence_count(observation, sides) :]:
            if attempt.run is not None and not attempt.failed:
                RunDirectory(Path(attempt.run)).remove()


def _sides(found: BisectResult) -> set[str]:
    """The versions on both sides of every boundary; where there is none, the ends of the range."""
    sides: set[str] = set()
    for boundary in found.boundaries:
        sides |= {boundary.last_old, boundary.first_new}
    if not sides and found.tested:
        sides = {found.tested[0].version, found.tested[-1].version}
    return sides


def _evidence_count(observation: Observation, sides: set[str]) -> int:
    """How many of the runs of a version are evidence: all where they contradict each other, the
    first where the version is a side of a boundary or a run failed, else none."""
    if observation.flaky:
        return len(observation.attempts)
    failed = any(attempt.failed for attempt in observation.attempts)
    return 1 if observation.version in sides or failed else 0


# --- What is shown --------------------------------------------------------------------------------


def _show(found: BisectResult, log: BisectLog) -> None:
    question = found.question
    lines = [
        f"{question.scenario}, {question.check}, lab {question.lab}, {' to '.join(question.ends)}",
        found.why,
    ]

    # Both sides of each boundary with their evidence; the others are in the log.
    by_version = {observation.version: observation for observation in found.tested}
    for boundary in found.boundaries:
        for side in (boundary.last_old, boundary.first_new):
            lines += _side(by_version[side])
    for observation in found.tested:
        if observation.flaky:
            lines.append(f"flaky: {observation.version}: {observation.because}")
    lines.append(_how_sure(found))
    lines.append(f"log: {log.path} (meshwake bisect --replay {_quoted(log)})")
    print_text("\n".join(line for line in lines if line))


def _side(observation: Observation) -> list[str]:
    shown = observation.attempts[0]
    lines = [f"  {observation.version} {observation.verdict}: {observation.because}"]
    if shown.run is not None and Path(shown.run).is_dir():
        lines.append(f"    evidence: {shown.run}")
    return lines


def _how_sure(found: BisectResult) -> str:
    # A version without a binary here was tried, and counts among those that are not tested.
    tested = sum(1 for observation in found.tested if observation.attempts[0].possible)

    # With a boundary halving left most releases out; without one all of the range were tried.
    of = len(versions.between(*found.question.ends)) if found.boundaries else len(found.tested)
    count = f"tested {tested} of {of} releases"
    if not found.boundaries:
        return f"{count} in the range"
    if not found.exact:
        return f"not sure: {count}; put the missing binaries into the cache, or use --lab model"
    boundary = found.boundaries[0]
    sides = (boundary.last_old, boundary.first_new)

    # The weaker side decides how sure it is.
    runs = min(len(each.attempts) for each in found.tested if each.version in sides)
    return (
        "sure: no release lies between the two, and each side had the same verdict in "
        f"{runs} runs; {count}"
    )
