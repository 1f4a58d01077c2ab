"""meshwake probe: a ztunnel's behaviour class, or one check for `git bisect run`.

The exit codes for git are git's own: 0 good, 1 bad, 125 cannot be tested (docs/bisect.md).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from meshwake.analysis.attempt import Attempt, run_attempt
from meshwake.analysis.classify import CLASSIFYING, BehaviourSignature, observe_signature
from meshwake.analysis.probe import (
    ABORT_GIT_BISECT,
    CommitProbe,
    GitVerdict,
    ProbeResult,
    build,
    probe_commit,
)
from meshwake.cli.options import JsonOption, LabOption, check_name
from meshwake.cli.output import CommandExit, cut, print_json, print_text, say
from meshwake.core import versions
from meshwake.core.durations import NS_PER_S, parse_option_ns
from meshwake.core.errors import BadInput, ExitCode, HarnessError, LabUnavailable
from meshwake.core.scenario import Scenario, read_scenario
from meshwake.labs import load_lab
from meshwake.runner.corpus import scenario_file
from meshwake.runner.flags import AUTO
from meshwake.runner.options import Options
from meshwake.ztunnel import binaries

_GIT_WORDS = {
    GitVerdict.GOOD: "good",
    GitVerdict.BAD: "bad",
    GitVerdict.CANNOT_SAY: "cannot say",
}


def add_commands(app: typer.Typer) -> None:
    """Adds probe to `app`."""
    app.command("probe")(probe)


def probe(
    scenario: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIO", help="What --check is tested on; without: name the class."
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
    path = ztunnel or binary
    # Without a scenario the question is another one: which class is it? That ends the command.
    if scenario is None:
        if check is not None:
            raise BadInput(
                "SCENARIO is missing: --check needs one; leave --check out to name the class"
            )
        if command is not None:
            _build(command, path, build_within)
        _name_class(path, istio, lab, as_json)
    try:
        answer = _probe_commit(scenario or "", check, path, command, istio, repeat, build_within)
    except HarnessError as error:
        # git bisect takes 1 to 127 for "bad": an error in the question must not be taken for an
        # answer.
        say(f"{error}")
        raise CommandExit(ABORT_GIT_BISECT + error.exit_code) from error

    # git reads the exit code only; the sentence is for the person at the terminal.
    code = _code_for_git(answer.verdict, first_good)
    if as_json:
        print_json(answer.to_json() | {"exit_code": code})
    else:
        _show(answer)
    raise CommandExit(code)


def _show(answer: ProbeResult) -> None:
    cached = " (kept from before)" if answer.from_cache else ""
    commit = answer.commit[:12] or "work tree"
    print_text(f"{commit}: {_GIT_WORDS[answer.verdict]}{cached}: {answer.because}")


def _code_for_git(verdict: GitVerdict, first_good: bool) -> int:
    """git calls what comes first good, and what comes later bad, whichever of them is broken."""
    swapped = {GitVerdict.GOOD: 1, GitVerdict.BAD: 0}
    return swapped.get(verdict, int(verdict)) if first_good else int(verdict)


# --- One check on one commit ----------------------------------------------------------------------


def _probe_commit(
    scenario: str,
    check: str | None,
    path: Path | None,
    command: str | None,
    istio: str | None,
    repeat: int,
    build_within: str,
) -> ProbeResult:
    named_check, file = check_name(check), scenario_file(scenario)
    if path is None:
        raise _no_binary()
    version = versions.find(istio).version if istio else versions.newest().version
    found = read_scenario(file)
    question = CommitProbe(
        Path.cwd(),
        file,
        named_check,
        path,
        command,
        version,
        repeat,
        _duration_s("--build-within", build_within),
    )
    _refuse_where_no_binary_runs(found)

    def ask(built: Path, seed: int) -> Attempt:
        # A commit may be that of a release, and is then judged as that one, whatever the others are
        # nearest to.
        release = binaries.identify(built).own_version or version
        options = Options("process", (release,), built, seed, keep_run=True)
        return run_attempt(found, named_check, options, release)

    return probe_commit(question, ask, say)


def _no_binary() -> BadInput:
    return BadInput("--binary PATH is missing: where --command leaves the ztunnel that it builds")


def _refuse_where_no_binary_runs(scenario: Scenario) -> None:
    """Raises LabUnavailable where no binary at all could be tested here."""
    if "process" not in scenario.labs:
        labs = ", ".join(scenario.labs)
        raise LabUnavailable(
            f"{scenario.name}: names only {labs} in 'labs', and a binary runs on process"
        )

    # Any program will do for the ztunnel: what is examined is the machine.
    reasons = load_lab("process").missing(Path(sys.executable))
    if reasons:
        raise LabUnavailable(f"process: {'; '.join(reasons)}")


def _duration_s(option: str, text: str) -> float:
    return parse_option_ns(text, option) / NS_PER_S


def _build(command: str, path: Path | None, within: str) -> None:
    """Builds the binary at `path`. Raises BadInput with the end of the build's output."""
    if path is None:
        raise _no_binary()
    failed = build(command, Path.cwd(), path, _duration_s("--build-within", within))
    if failed is not None:
        raise BadInput(f"--command: {failed}")


# --- The behaviour class --------------------------------------------------------------------------


def _name_class(path: Path | None, istio: str | None, lab: str, as_json: bool) -> None:
    """Names the class of the binary at `path`, or of a release. Ends the command."""
    if istio is None and path is None:
        raise BadInput("--ztunnel PATH or --istio VERSION is missing: whose class?")
    release = versions.find(istio) if istio else _release_of(path)

    # Only an official release has a class in the table; a binary is whatever was built.
    in_table = release.behaviour_class if istio and path is None else None
    if in_table is not None and release.assumption is not None:
        say(release.assumption)
    version = release.version
    where = _lab(path, version, lab)
    say(f"probing {path or version} on lab {where}, with {len(CLASSIFYING)} scenarios")
    signature = _signature(Options(where, (version,), path), version)
    code, words = _against_table(signature, in_table)
    if as_json:
        print_json(
            signature.to_json()
            | {"version": version, "lab": where, "table_says": in_table, "exit_code": int(code)}
        )
    else:
        print_text(f"{path or version}: {words}")
    raise CommandExit(code)


def _release_of(path: Path | None) -> versions.Release:
    """The release that the binary at `path` reports of itself, which may be an old one. A build of
    one's own reports none: then the newest, which it is probably nearest to."""
    own = None if path is None else binaries.identify(path).own_version
    return versions.newest() if own is None else versions.find(own)


def _signature(options: Options, version: str) -> BehaviourSignature:
    def ask(name: str, check: str, seed: int) -> Attempt:
        attempt = run_attempt(
            read_scenario(scenario_file(name)),
            check,
            replace(options, seed=seed, keep_run=True),
            version,
            keep=False,
        )
        say(cut(f"  {name:<24} {attempt.verdict:<8} {attempt.because}"))
        return attempt

    return observe_signature(ask)


def _lab(path: Path | None, version: str, lab: str) -> str:
    if lab != AUTO:
        return lab
    has_binary = path is not None or binaries.find(version) is not None
    return "process" if has_binary else "model"


def _against_table(signature: BehaviourSignature, in_table: str | None) -> tuple[ExitCode, str]:
    """The exit code and the sentence: what a release does, next to the class it has in the
    table."""
    if in_table is None or in_table == versions.UNCLASSIFIED:
        return signature.exit_code, signature.words
    if in_table not in signature.classes:
        return ExitCode.SURPRISE, f"{signature.words}; clusters/versions.toml says {in_table}"
    return signature.exit_code, f"{signature.words} (clusters/versions.toml says {in_table})"
