"""Commands about many versions: bisect, probe, versions, nightly, accept.

Results go to stdout, everything else to stderr, as with the other commands; what is asked and how
stands in docs/bisect.md.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from meshwake.analysis import dashboard
from meshwake.analysis.accept import acceptance
from meshwake.analysis.bisect import Bisect, Found, Question, Witness, check_question
from meshwake.analysis.bisect_log import BisectLog, begin_log, check_scenario, mend_end, read_log
from meshwake.analysis.classify import TELLING, Portrait, portray
from meshwake.analysis.nightly import RESULTS_FILE, Request, Row, open_keeper, run_night
from meshwake.analysis.nightly_report import page, summary
from meshwake.analysis.probe import (
    ABORT_GIT_BISECT,
    CommitAnswer,
    CommitQuestion,
    GitVerdict,
    build,
    probe_commit,
)
from meshwake.analysis.refresh_versions import CachedFetch, Sources, fetch
from meshwake.analysis.refresh_versions import refresh as renew
from meshwake.analysis.trial import ScenarioAsker, Trial, ask_once
from meshwake.checks import CHECKS
from meshwake.cli.ending import Ended
from meshwake.core import versions
from meshwake.core.durations import NS_PER_S, parse_option_ns
from meshwake.core.errors import BadInput, ExitCode, HarnessError, LabUnavailable
from meshwake.core.outcome import OutcomeKind
from meshwake.core.refusal import invalid_choice
from meshwake.core.resources import SCENARIOS, repository
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.core.store import RunDirectory, read_run
from meshwake.labs import IN_REAL_TIME, load_lab
from meshwake.report.terminal import show
from meshwake.runner.choose import Chooser
from meshwake.runner.corpus import scenario_file
from meshwake.runner.options import AUTO, LabWords, Options, planned_cluster, with_words
from meshwake.ztunnel import binaries

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
LabOption = Annotated[str, typer.Option("--lab", help="auto, model, process or kind.")]


# How often each side of a boundary is run, where nobody says; in real time once.
_REPEATS = {"model": 3, "process": 2, "machine": 2}


def add_commands(app: typer.Typer) -> None:
    """Makes the commands of this module known to `app`."""
    app.command()(bisect)
    app.command()(probe)
    app.command()(nightly)
    app.command()(accept)
    app.command("dashboard")(make_dashboard)
    table = typer.Typer(
        help="List the releases that are known; renew the table.", invoke_without_command=True
    )
    table.callback()(list_versions)
    table.command()(refresh)
    app.add_typer(table, name="versions")


@with_words(LabWords)
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
    lab: LabOption = AUTO,
    repeat: Annotated[
        int | None,
        typer.Option(
            "--repeat", min=1, help="Runs of each side of the boundary: 3, with binaries 2."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Versions asked at a time.")
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
    words: LabWords,
) -> None:
    """Find the first version where a check of a scenario answers otherwise."""
    if resume is not None or replay is not None:
        log, asker = _from_log(resume, replay, [scenario, check, good, bad])
    else:
        path, found = _read(scenario)
        options = Options(real_time=words.real_time, cluster=planned_cluster(lab, words))
        question = _question(found, check, good, bad, lab, repeat, seed, options)
        asker = ScenarioAsker(found, question.check, question.lab, options)
        log = begin_log(question, path)
    found_first = _carry_out(log, asker, jobs, as_json)
    if as_json:
        print_json(found_first.to_json() | {"log": str(log.path)})
    else:
        _show(found_first, log)
    raise Ended(found_first.exit_code)


def _read(word: str | None) -> tuple[Path, Scenario]:
    if word is None:
        raise BadInput(
            "SCENARIO is missing: give a scenario file, or --resume LOG, or --replay LOG"
        )
    path = scenario_file(word)
    return path, read_scenario(path)


def check_name(check: str | None) -> str:
    """`check`, if it is one. Raises BadInput with the nearest."""
    if check in CHECKS:
        return check
    if check is None:
        raise BadInput(f"--check is missing: expected one of {', '.join(CHECKS)}")
    raise invalid_choice("--check", check, CHECKS)


def _question(
    scenario: Scenario,
    check: str | None,
    good: str | None,
    bad: str | None,
    lab: str,
    repeat: int | None,
    seed: int,
    options: Options,
) -> Question:
    named = check_name(check)
    if (good is None) != (bad is None):
        missing = "--good" if good is None else "--bad"
        raise BadInput(
            f"{missing} is missing: give both ends, or neither to search the whole table"
        )
    claimed = good is not None
    rows = (
        ("", "")
        if claimed
        else _ends_here(scenario, replace(options, lab="model" if lab == AUTO else lab))
    )
    question = Question(
        scenario.name, named, lab, good or rows[-1], bad or rows[0], claimed, seed=seed
    )
    check_question(question)
    question = replace(
        question,
        good=versions.find(question.good).version,
        bad=versions.find(question.bad).version,
        lab=_lab(lab, scenario, question),
    )
    _refuse_ends(question, scenario, options)
    return replace(question, repeat=repeat or _REPEATS.get(question.lab, 1))


def _lab(lab: str, scenario: Scenario, question: Question) -> str:
    """What `auto` means here: the binaries, when both ends have one that can run this; else the
    model."""
    if lab != AUTO:
        return lab
    cases = Chooser(Options("process", (question.good, question.bad))).cases(scenario)
    refusals = [case.refusal for case in cases if case.refusal is not None]
    said = f"model: {refusals[0]}" if refusals else "process: both ends have a binary in the cache"
    say(f"lab {said}")
    return "model" if refusals else "process"


def _refuse_ends(question: Question, scenario: Scenario, options: Options) -> None:
    """Raises LabUnavailable when an end that a person named cannot run at all."""
    for version in (question.good, question.bad):
        if question.lab == "model" and (assumed := versions.find(version).assumption) is not None:
            raise LabUnavailable(
                f"{assumed}; a bisect needs an end whose class is known, or its binary"
            )
    cases = Chooser(replace(options, lab=question.lab, istio=(question.good, question.bad))).cases(
        scenario
    )
    for case in cases:
        if case.refusal is not None:
            raise LabUnavailable(f"{case.id}: {case.refusal}")


def _ends_here(scenario: Scenario, options: Options) -> tuple[str, str]:
    """The oldest and the newest release that can run on this lab and machine. Raises LabUnavailable
    without two."""
    every = tuple(row.version for row in versions.releases() if row.classified)
    cases = Chooser(replace(options, istio=every)).cases(scenario)
    possible = [case.version for case in cases if case.refusal is None]
    if len(possible) < 2:
        refusal = next(case.refusal for case in reversed(cases) if case.refusal is not None)
        raise LabUnavailable(
            f"{options.lab}: fewer than two releases can run here ({refusal}); use --lab model"
        )
    return possible[0], possible[-1]


def _from_log(
    resume: Path | None, replay: Path | None, also: Sequence[str | None]
) -> tuple[BisectLog, ScenarioAsker | None]:
    if resume is not None and replay is not None:
        raise BadInput(
            "--resume and --replay: one goes on with a log, the other runs nothing; give "
            "one of them"
        )
    if any(word is not None for word in also):
        raise BadInput(
            "SCENARIO, --check, --good, --bad: stand in the log; leave them out with "
            "--resume and --replay"
        )
    path = resume or replay
    assert path is not None
    log = read_log(path)
    if log.broken_off:
        say(
            f"{path}: its last line was cut in half and is asked again; {len(log.trials)} "
            "answers are whole"
        )
    if replay is not None:
        return log, None
    check_scenario(log)
    mend_end(log)
    scenario = read_scenario(Path(log.scenario_file))
    return log, ScenarioAsker(scenario, log.question.check, log.question.lab)


def _carry_out(
    log: BisectLog, asker: ScenarioAsker | None, jobs: int | None, as_json: bool
) -> Found:
    def tell(witness: Witness) -> None:
        if not as_json:
            say(_cut(f"  {witness.version:<12} {witness.verdict:<8} {witness.because}"))

    question = log.question
    search = Bisect(
        question,
        log.asking(asker, None if asker is None else asker.subject),
        jobs or _jobs(question.lab),
        tell,
        (lambda version: None) if asker is None else asker.impossible,
    )
    try:
        found = search.run()
    except BaseException as error:
        # Where the question itself was wrong there is nothing to go on with.
        if asker is not None and not isinstance(error, BadInput):
            say(f"what was heard so far is kept: meshwake bisect --resume {log.path}")
        raise
    if asker is not None:
        _drop_runs(found)
    return found


def _jobs(lab: str) -> int:
    """How many versions at a time: the model is quick, and a cluster is one."""
    return 1 if lab in ("model", *IN_REAL_TIME) else os.cpu_count() or 1


def _drop_runs(found: Found) -> None:
    """Keeps the first run of each side of a boundary and of whatever said nothing; the others go."""
    sides = {side for each in found.boundaries for side in (each.last_old, each.first_new)}
    if not sides and found.tested:
        sides = {found.tested[0].version, found.tested[-1].version}
    for witness in found.tested:
        keep = (
            witness.version in sides
            or witness.flaky
            or any(trial.failed for trial in witness.trials)
        )
        for trial in witness.trials[
            1 if keep and not witness.flaky else 0 if not keep else len(witness.trials) :
        ]:
            if trial.run is not None and not trial.failed:
                RunDirectory(Path(trial.run)).remove()


def _show(found: Found, log: BisectLog) -> None:
    question = found.question
    out = [
        f"{question.scenario}, {question.check}, lab {question.lab}, {' to '.join(question.ends)}",
        found.why,
    ]
    heard = {witness.version: witness for witness in found.tested}
    for boundary in found.boundaries:
        for side in (boundary.last_old, boundary.first_new):
            out += _side(heard[side])
    out += [
        f"flaky: {witness.version}: {witness.because}" for witness in found.tested if witness.flaky
    ]
    out += [_how_sure(found), f"log: {log.path} (meshwake bisect --replay {log.path})"]
    sys.stdout.write("\n".join(line for line in out if line) + "\n")


def _side(witness: Witness) -> list[str]:
    shown = witness.trials[0]
    kept = shown.run is not None and Path(shown.run).is_dir()
    lines = [f"  {witness.version} {witness.verdict}: {witness.because}"]
    return [*lines, f"    evidence: {shown.run}"] if kept else lines


def _how_sure(found: Found) -> str:
    asked = [witness for witness in found.tested if witness.trials[0].possible]
    count = (
        f"asked {len(asked)} of "
        f"{len(found.tested) if not found.boundaries else _in_range(found)} releases"
    )
    if not found.boundaries:
        return f"{count} in the range"
    if not found.exact:
        return f"not sure: {count}; put the missing binaries into the cache, or use --lab model"
    sides = [
        w
        for w in found.tested
        if w.version in (found.boundaries[0].last_old, found.boundaries[0].first_new)
    ]
    runs = min(len(witness.trials) for witness in sides)
    return (
        f"sure: no release lies between the two, and each side said the same in {runs} runs; "
        f"{count}"
    )


def _in_range(found: Found) -> int:
    return len(versions.between(*found.question.ends))


def _cut(line: str, width: int = 100) -> str:
    return line if len(line) <= width else f"{line[: width - 3]}..."


# --- probe ----------------------------------------------------------------------------------------


def probe(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="[SCENARIO]", help="With --check: what is asked; without: name the class."
        ),
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", metavar="NAME", help="The check that decides.")
    ] = None,
    ztunnel: Annotated[
        Path | None, typer.Option("--ztunnel", metavar="PATH", help="The binary to probe.")
    ] = None,
    command: Annotated[
        str | None, typer.Option("--command", help="Builds the binary, in this directory.")
    ] = None,
    binary: Annotated[
        Path | None, typer.Option("--binary", metavar="PATH", help="What --command builds.")
    ] = None,
    istio: Annotated[
        str | None,
        typer.Option("--istio", metavar="VERSION", help="The release it is, or was built from."),
    ] = None,
    lab: LabOption = AUTO,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Runs that must agree.")] = 2,
    build_within: Annotated[
        str, typer.Option("--build-within", help="How long a build may take.")
    ] = "1h",
    first_good: Annotated[
        bool,
        typer.Option(
            "--first-good", help="Look for the commit that mends: 0 is bad then, and 1 good."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Name a ztunnel's behaviour class; or, for git bisect run, say whether one check holds (0, 1,
    125)."""
    if scenario is None:
        if check is not None:
            raise BadInput(
                "SCENARIO is missing: --check is about one; leave it out to name the class"
            )
        _name_class(_probed(ztunnel, binary, command, build_within), istio, lab, as_json)
    try:
        answer = _probe_commit(
            scenario or "", check, ztunnel or binary, command, istio, repeat, build_within
        )
    except HarnessError as error:
        # git bisect takes 1 to 127 for "bad": what is wrong with the question must not be taken for
        # an answer.
        say(f"{error}")
        raise Ended(ABORT_GIT_BISECT + error.exit_code) from error
    if as_json:
        print_json(answer.to_json() | {"exit_code": _code_for_git(answer.verdict, first_good)})
    else:
        words = {
            GitVerdict.GOOD: "good",
            GitVerdict.BAD: "bad",
            GitVerdict.CANNOT_SAY: "cannot say",
        }
        cached = " (kept from before)" if answer.from_cache else ""
        sys.stdout.write(
            f"{answer.commit[:12] or 'work tree'}: {words[answer.verdict]}{cached}: "
            f"{answer.because}\n"
        )
    raise Ended(_code_for_git(answer.verdict, first_good))


def _code_for_git(verdict: GitVerdict, first_good: bool) -> int:
    """git calls what comes first good, and what comes later bad, whichever of them is broken."""
    swapped = {GitVerdict.GOOD: 1, GitVerdict.BAD: 0}
    return swapped.get(verdict, int(verdict)) if first_good else int(verdict)


def _probe_commit(
    word: str,
    check: str | None,
    path: Path | None,
    command: str | None,
    istio: str | None,
    repeat: int,
    within: str,
) -> CommitAnswer:
    named, file = check_name(check), scenario_file(word)
    if path is None:
        raise BadInput(
            "--binary PATH is missing: where --command leaves the ztunnel that it builds"
        )
    version = versions.find(istio).version if istio else versions.newest().version
    found = read_scenario(file)
    question = CommitQuestion(
        Path.cwd(),
        file,
        named,
        path,
        command,
        version,
        repeat,
        _duration_s("--build-within", within),
    )
    _refuse_probe(found, version)

    def ask(built: Path, seed: int) -> Trial:
        # A commit may be that of a release, and then it is judged as that one, whatever the others
        # are nearest to.
        release = binaries.identify(built).own_version or version
        return ask_once(
            found, named, Options("process", (release,), built, seed, keep_run=True), release
        )

    return probe_commit(question, ask, say)


def _refuse_probe(scenario: Scenario, version: str) -> None:
    """Raises LabUnavailable where no binary whatever could be asked here."""
    if "process" not in scenario.labs:
        labs = ", ".join(scenario.labs)
        raise LabUnavailable(
            f"{scenario.name}: names only {labs} in 'labs', and a binary runs on process"
        )
    reasons = load_lab("process").missing(Path(sys.executable))
    if reasons:
        raise LabUnavailable(f"process: {'; '.join(reasons)}")


def _duration_s(option: str, text: str) -> float:
    return parse_option_ns(text, option) / NS_PER_S


def _probed(
    ztunnel: Path | None, binary: Path | None, command: str | None, within: str
) -> Path | None:
    """The binary whose class is asked for, built first where there is a command; None: the
    release's own."""
    if command is None:
        return ztunnel or binary
    path = ztunnel or binary
    if path is None:
        raise BadInput(
            "--binary PATH is missing: where --command leaves the ztunnel that it builds"
        )
    failed = build(command, Path.cwd(), path, _duration_s("--build-within", within))
    if failed is not None:
        raise BadInput(f"--command: {failed}")
    return path


def _name_class(path: Path | None, istio: str | None, lab: str, as_json: bool) -> None:
    release = versions.find(istio) if istio else None
    version = (release or versions.newest()).version
    if release is not None and release.assumption is not None and path is None:
        say(release.assumption)
    if release is None and path is None:
        raise BadInput("--ztunnel PATH or --istio VERSION is missing: whose class is asked for?")
    where = _probe_lab(path, version, lab)
    options = Options(where, (version,), path)
    say(f"probing {path or version} on lab {where}, with {len(TELLING)} scenarios")

    def ask(name: str, check: str, seed: int) -> Trial:
        trial = ask_once(
            read_scenario(scenario_file(name)),
            check,
            replace(options, seed=seed, keep_run=True),
            version,
            keep=False,
        )
        say(_cut(f"  {name:<24} {trial.verdict:<8} {trial.because}"))
        return trial

    portrait = portray(ask)
    known = None if release is None or path is not None else release.behaviour_class
    code, words = _against_table(portrait, known)
    if as_json:
        print_json(
            portrait.to_json()
            | {"version": version, "lab": where, "table_says": known, "exit_code": int(code)}
        )
    else:
        sys.stdout.write(f"{path or version}: {words}\n")
    raise Ended(code)


def _probe_lab(path: Path | None, version: str, lab: str) -> str:
    if lab != AUTO:
        return lab
    return "process" if path is not None or binaries.find(version) is not None else "model"


def _against_table(portrait: Portrait, known: str | None) -> tuple[ExitCode, str]:
    """The exit code and the sentence: what a release does, beside what the table says of it."""
    if known is None or known == versions.UNCLASSIFIED:
        return portrait.exit_code, portrait.words
    if known not in portrait.classes:
        return ExitCode.SURPRISE, f"{portrait.words}; clusters/versions.toml says {known}"
    return portrait.exit_code, f"{portrait.words} (clusters/versions.toml says {known})"


# --- nightly --------------------------------------------------------------------------------------


def nightly(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE...]", help="Scenarios; without: the whole corpus."),
    ] = None,
    labs: Annotated[str, typer.Option("--labs", help="Separated by commas.")] = "model,process",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIRECTORY", help="Where the night is kept.")
    ] = Path("nightly"),
    istio: Annotated[
        list[str] | None,
        typer.Option("--istio", metavar="VERSION", help="Only this release; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="As with run.")] = 0,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Binaries run at a time.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a night that was broken off.")
    ] = False,
    previous: Annotated[
        Path | None,
        typer.Option("--previous", metavar="SUMMARY", help="The summary.json of the night before."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run all scenarios on all versions and tell what is news."""
    before = _previous(previous)
    keeper = open_keeper(out, resume, say)
    os.environ.setdefault("MESHWAKE_RUNS", str(out / "runs"))
    request = Request(
        tuple(lab.strip() for lab in labs.split(",") if lab.strip()),
        tuple(files or [SCENARIOS]),
        tuple(istio or ()),
        seed,
        jobs or os.cpu_count() or 1,
    )
    if not request.labs:
        raise BadInput("--labs: names no lab; for example --labs model,process")
    night = run_night(request, keeper, datetime.now(UTC).date(), _tell_row)
    told = summary(
        night.day,
        [asdict(row) for row in night.rows],
        night.missing,
        night.versions,
        night.unclassified,
        night.real_s,
        night.exit_code,
        before,
    )
    _write_night(out, told)
    if as_json:
        print_json(told)
    else:
        sys.stdout.write(page(told))
        say(f"kept in {out}: summary.md, summary.json, {RESULTS_FILE}")
    raise Ended(night.exit_code)


def _tell_row(row: Row) -> None:
    if row.lab != "model" or row.outcome != OutcomeKind.AS_EXPECTED:
        say(_cut(f"  {row.lab:<8} {row.version:<12} {row.scenario:<30} {row.outcome}"))


def _previous(path: Path | None) -> dict[str, Any] | None:
    """The night before; one that is not there, or cannot be read, is none."""
    if path is None or not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        say(f"--previous {path}: cannot be read ({error}); everything unexpected counts as new")
        return None


def _write_night(out: Path, told: dict[str, Any]) -> None:
    """What people and the workflow read. The issue's parts are files of their own, for a shell
    script without JSON."""
    body = page(told)
    (out / "summary.json").write_text(
        json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (out / "summary.md").write_text(body, encoding="utf-8")
    (out / "exit_code").write_text(f"{told['exit_code']}\n", encoding="utf-8")
    issue = out / "issue"
    issue.mkdir(exist_ok=True)
    for name, text in (
        ("action", told["issue"]["action"]),
        ("title", told["issue"]["title"]),
        ("body.md", body),
    ):
        (issue / name).write_text(f"{text.rstrip()}\n", encoding="utf-8")


# --- accept ---------------------------------------------------------------------------------------


def accept(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run that surprised, or a 'latest'.")
    ],
    because: Annotated[
        str | None, typer.Option("--because", help="Why it is so; without: what the check found.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="FILE", help="Its file; without: the one of that name."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the change, write nothing.")
    ] = False,
) -> None:
    """Write what surprised into the scenario file, with its evidence, as what is expected from now
    on."""
    saved = read_run(run)
    file = Path(scenario) if scenario is not None else scenario_file(saved.plan.scenario)
    change = acceptance(run, file, datetime.now(UTC).date().isoformat(), because)
    sys.stdout.write(change.diff)
    for sentence in change.sentences:
        say(sentence)
    if dry_run:
        say("nothing was written")
        return
    try:
        change.path.write_text(change.new, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{change.path}: cannot be written ({error.strerror})") from error
    say(f"written: {change.path}; look at the difference before you commit it")


# --- dashboard ------------------------------------------------------------------------------------


def make_dashboard(
    night: Annotated[
        Path | None,
        typer.Option("--record", metavar="NIGHT", help="Take in what this night saw on binaries."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 when the page is stale.")
    ] = False,
) -> None:
    """Write docs/versions.md: what is true of which release on which lab."""
    repository()  # the page and what was seen are files of the project, not of the package
    if check and night is not None:
        raise BadInput("--check writes nothing, --record does; give one of them")
    if night is not None:
        say(f"recorded {dashboard.record(night)} results of {night} in {dashboard.SEEN}")
    page_text = dashboard.make_page()
    stale = not dashboard.PAGE.is_file() or dashboard.PAGE.read_text(encoding="utf-8") != page_text
    if check and stale:
        say(f"{dashboard.PAGE} is stale; run: meshwake dashboard")
        raise Ended(ExitCode.SURPRISE)
    if stale:
        dashboard.PAGE.write_text(page_text, encoding="utf-8")
    say(f"{dashboard.PAGE}: {'written' if stale else 'is up to date'}")


# --- versions -------------------------------------------------------------------------------------


def list_versions(
    context: typer.Context,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="VERSION", help="Only this release and newer ones."),
    ] = None,
    newest_of_each_minor: Annotated[
        bool, typer.Option("--newest-of-each-minor", help="One a minor.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Version and image, one a line, for scripts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the releases that are known, their class and what goes with them."""
    if context.invoked_subcommand is not None:
        return
    rows = versions.releases()
    if since is not None:
        oldest = versions.parse_version(since, "--since")
        rows = tuple(row for row in rows if versions.parse_version(row.version) >= oldest)
    if newest_of_each_minor:
        rows = versions.newest_of_each_minor(rows)
    here = {binary.version for binary in binaries.cached()}
    if as_json:
        print_json([asdict(row) | {"cached": row.version in here} for row in rows])
    elif plain:
        for row in rows:
            sys.stdout.write(f"{row.version} {row.image}{f'@{row.digest}' if row.digest else ''}\n")
    else:
        show(Console(), _versions_table(rows, here))


def _versions_table(rows: Sequence[versions.Release], here: set[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in (
        "version",
        "class",
        "ztunnel",
        "Kubernetes",
        "kind node",
        "Gateway API",
        "end of life",
        "here",
    ):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(
            row.version,
            row.behaviour_class,
            row.commit[:8],
            row.kubernetes,
            row.node_image,
            row.gateway_api,
            row.end_of_life,
            "yes" if row.version in here else "",
        )
    return table


def refresh(
    write: Annotated[
        bool, typer.Option("--write", help="Change the table; without: only show how.")
    ] = False,
    images: Annotated[
        str, typer.Option("--images", metavar="URL", help="The image's tags.")
    ] = Sources.images,
    releases: Annotated[
        str, typer.Option("--releases", metavar="URL", help="The releases.")
    ] = Sources.releases,
    deps: Annotated[
        str, typer.Option("--deps", metavar="URL", help="istio.deps of a {version}.")
    ] = Sources.deps,
    table: Annotated[
        Path, typer.Option("--table", metavar="FILE", help="The table.")
    ] = versions.VERSIONS_FILE,
) -> None:
    """Renew the table from public sources, as a difference to look at; a new release is
    unclassified."""
    try:
        text = table.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--table {table}: cannot be read ({error})") from error
    get = CachedFetch(fetch, binaries.cache_dir() / "refresh", time.time, say)
    renewed = renew(text, str(table), get, Sources(images, releases, deps))
    sys.stdout.write(renewed.diff)
    for note in renewed.notes:
        say(note)
    if not renewed.diff:
        say("nothing is new")
    elif write:
        table.write_text(renewed.new, encoding="utf-8")
        say(f"written: {table}")
    else:
        say("nothing was written; --write does")


def say(text: str) -> None:
    """To the person who waits, not to whoever reads the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def print_json(content: Any) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
