"""Every option of a run is declared once: all commands and pytest take it in the same words."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import meshwake.cli.app
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from meshwake.core.errors import BadInput
from meshwake.core.plan import PlannedCluster
from meshwake.runner.flags import (
    CaseFlags,
    ClusterFlags,
    Flags,
    LabFlags,
    RunCommandFlags,
    RunFlags,
    SelectFlags,
    add_to_pytest,
    as_typed_to_pytest,
    declared_in,
    from_pytest,
    variables_behind,
    with_flags,
)
from meshwake.runner.options import Options, command_line_of, options_from, planned_cluster
from typer.testing import CliRunner

# Which command takes which options; those of run are those of pytest, which has its own -k.
COMMANDS_WITH: dict[str, type[Flags]] = {
    "run": RunCommandFlags,
    "list": SelectFlags,
    "nightly": SelectFlags,
    "bisect": LabFlags,
    "plan": CaseFlags,
    "up": ClusterFlags,
    "down": ClusterFlags,
    "status": ClusterFlags,
}
# What a command line has, and pytest has in another way (its own -v, its own report formats).
ONLY_ON_THE_COMMAND_LINE = {"--json", "-v", "--verbose", "--help", "-k"}
MESHWAKE: Any = typer.main.get_command(meshwake.cli.app.app)


class Group:
    """pytest's group of options, as far as it is used; `parse` is what pytest does with a command
    line."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)

    def addoption(self, *names: str, **settings: Any) -> None:
        self.parser.add_argument(*names, **settings)

    def parse(self, arguments: Sequence[str]) -> dict[str, Any]:
        return vars(self.parser.parse_args(list(arguments)))


def pytest_group() -> Group:
    group = Group()
    add_to_pytest(group, "--")
    return group


def by_pytest(arguments: Sequence[str]) -> RunFlags:
    return from_pytest(pytest_group().parse(arguments).__getitem__)


def by_typer(arguments: Sequence[str]) -> RunFlags:
    app, got = typer.Typer(), []

    @app.command()
    @with_flags(RunFlags)
    def command(*, flags: RunFlags) -> None:
        got.append(flags)

    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return got[0]


def options_of(command: str) -> dict[str, Any]:
    """Every option of a command, by each of its names."""
    options = (
        each
        for each in MESHWAKE.get_command(None, command).params
        if each.param_type_name == "option"
    )
    return {name: option for option in options for name in option.opts}


@pytest.mark.parametrize(("command", "flags"), COMMANDS_WITH.items())
def test_every_command_takes_every_option_of_its_class(command: str, flags: type[Flags]) -> None:
    """With the help of its declaration; and none of another class."""
    taken = options_of(command)
    declared = {each.flag.name: each.flag.help for each in declared_in(flags)}
    assert {name: taken[name].help for name in declared} == declared
    others = {each.flag.name for each in declared_in(RunCommandFlags)} - declared.keys()
    # bisect, up, down, status and nightly mean something else by these.
    own_words = {"--seed", "--istio"}
    assert not (others - own_words) & taken.keys()


def test_pytest_and_the_command_line_have_the_same_options() -> None:
    """With the same words: neither has an option, or a help, that the other has not."""
    actions = pytest_group().parser._actions
    in_pytest = {name: action.help for action in actions for name in action.option_strings}
    on_command_line = {name: option.help for name, option in options_of("run").items()}
    for name in ONLY_ON_THE_COMMAND_LINE & on_command_line.keys():
        del on_command_line[name]
    assert in_pytest == on_command_line


def test_pytest_sends_only_plain_values_to_its_workers() -> None:
    """pytest-xdist sends the options to other processes, and can send only what Python has built
    in."""
    arguments = ["--ztunnel", "z", "--folder", "f", "--seed", "3", "--istio", "1.30", "--keep-run"]
    values = pytest_group().parse(arguments).values()
    assert {type(value) for value in values} <= {str, int, bool, list, type(None)}


def test_what_is_planned_is_what_was_given() -> None:
    """Every option of a cluster has its field in the plan, and every field its option. --lab and
    --real-time are about the run."""
    given, planned = {each.name for each in fields(LabFlags)}, set(PlannedCluster.model_fields)
    assert given - planned == {"lab", "real_time"} and planned - given == {"lapse"}


def test_options_are_those_that_were_given() -> None:
    """Each of them arrives where the rest of the program reads it."""
    flags = RunFlags(
        lab="process",
        istio=("1.30.1",),
        ztunnel=Path("z"),
        seed=7,
        keep_run=True,
        real_time=True,
        as_class="A0",
    )
    assert options_from(flags) == Options(
        lab="process",
        istio=("1.30.1",),
        ztunnel=Path("z"),
        seed=7,
        keep_run=True,
        real_time=True,
        cluster=PlannedCluster(),
        as_class="A0",
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MESHWAKE_LAB", "model"),
        ("MESHWAKE_ISTIO", "1.28.0"),
        ("MESHWAKE_ISTIO", "1.28.0 1.30"),
        ("MESHWAKE_KEEP_RUN", "true"),
        ("MESHWAKE_KEEP_RUN", "off"),
        ("MESHWAKE_REPORT", "pages"),
    ],
)
def test_a_default_in_the_environment_means_the_same_to_both(
    variable: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by typer on the command line, and by us for pytest."""
    assert variable in {each.flag.variable for each in declared_in(RunFlags)}
    monkeypatch.setenv(variable, text)
    assert by_pytest([]) == by_typer([])
    assert (by_typer([]) == RunFlags()) is (text == "off")


def test_the_command_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the environment over pytest's settings."""
    monkeypatch.setenv("MESHWAKE_LAB", "process")
    monkeypatch.setenv("MESHWAKE_ISTIO", "1.28.0 1.29.0")
    typed = ["--lab", "model", "--istio", "1.30.0"]
    assert by_typer(typed) == by_pytest(typed) == RunFlags(lab="model", istio=("1.30.0",))
    settings = {f"meshwake_{each.field}": each.default for each in declared_in(RunFlags)}
    settings |= {"meshwake_lab": "model", "meshwake_as_class": "E"}
    got = from_pytest(pytest_group().parse([]).__getitem__, settings.__getitem__)
    assert (got.lab, got.as_class) == ("process", "E")


def test_a_wrong_default_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was typed may be right."""
    monkeypatch.setenv("MESHWAKE_KEEP_RUN", "maybe")
    with pytest.raises(BadInput, match="MESHWAKE_KEEP_RUN=maybe: expected true or false"):
        by_pytest([])
    with pytest.raises(AssertionError, match="MESHWAKE_KEEP_RUN"):
        by_typer([])
    monkeypatch.setenv("MESHWAKE_LAB", "modle")
    (line,) = variables_behind("invalid value 'modle' for --lab: expected one of auto, model")
    assert line == "MESHWAKE_LAB=modle is set, the default of --lab"
    assert variables_behind("--labs: names no lab") == []


def test_messages_name_options_as_pytest_has_them() -> None:
    """Whole names only."""
    assert as_typed_to_pytest("--lab x: use --istio, not --labs or --meshwake-lab") == (
        "--meshwake-lab x: use --meshwake-istio, not --labs or --meshwake-lab"
    )


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "one"], ["--nodes", "two"]])
def test_a_number_that_cannot_be_is_refused_by_both(arguments: list[str]) -> None:
    """With the usage error of each."""
    with pytest.raises(SystemExit):
        by_pytest(arguments)
    with pytest.raises(AssertionError, match="Invalid value"):
        by_typer(arguments)


@pytest.mark.parametrize(
    ("flags", "lapse"),
    [
        (LabFlags(lab="kind", clock="process"), True),
        (LabFlags(lab="kind", clock="process", real_time=True), False),
        (LabFlags(lab="kind", clock="engine"), False),
        (LabFlags(lab="kind"), True),
        (LabFlags(lab="kind", real_time=True), False),
        (LabFlags(lab="kind", allow_own_clock=True), False),
        (LabFlags(lab="kind", suspend_command="systemctl suspend"), False),
    ],
)
def test_idle_time_is_skipped_where_programs_clocks_are_moved(flags: LabFlags, lapse: bool) -> None:
    """Unless real time was requested; the clock of a whole machine cannot be taken ahead of it."""
    assert planned_cluster(flags).lapse is lapse


def test_the_numbers_of_real_time_are_for_every_lab() -> None:
    """The option is not about a cluster."""
    assert planned_cluster(LabFlags(lab="model", real_time=True)).lapse is False


def value_of(type_: Any) -> st.SearchStrategy[Any]:
    text = st.text("abc-.18", min_size=1, max_size=8).filter(lambda text: not text.startswith("-"))
    if type_ is bool:
        return st.booleans()
    if type_ == tuple[str, ...]:
        return st.lists(text, max_size=3).map(tuple)
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(0, 99),
        int | None: st.integers(0, 99) | st.none(),
        str: text,
        Path | None: text.map(Path) | st.none(),
    }
    return kinds.get(type_, text | st.none())


ANY_FLAGS = st.builds(
    RunFlags, **{each.field: value_of(each.type) for each in declared_in(RunFlags)}
)


def typed(flags: RunFlags) -> list[str]:
    arguments: list[str] = []
    for each in declared_in(RunFlags):
        value, name = getattr(flags, each.field), each.flag.name
        if value is True:
            arguments.append(name)
        elif value != each.default:
            for one in value if isinstance(value, tuple) else (value,):
                arguments += [name, str(one)]
    return arguments


@pytest.mark.slow(reason="a hundred drawn command lines")
@given(ANY_FLAGS)
def test_the_same_line_means_the_same_to_both(flags: RunFlags) -> None:
    """Whatever is typed, `meshwake run` and pytest get the same values from it."""
    assert by_typer(typed(flags)) == by_pytest(typed(flags)) == flags


def test_what_is_planned_can_be_typed_again(tmp_path: Path) -> None:
    """The command that repeats a run makes the same plan."""
    flags = LabFlags(
        lab="kind",
        name="mine",
        profile="full",
        kubernetes="1.34",
        workers=3,
        with_parts=("hubble",),
        without_parts=("waypoint", "gateway"),
        mirror="mirror.test:5000",
        folder=tmp_path,
        suspend_command="rtcwake -m mem -s {seconds}",
    )
    elsewhere = LabFlags(lab="kind", kubeconfig=tmp_path / "config", context="a b", known_as="a b")
    for each in (flags, elsewhere):
        planned = planned_cluster(each)
        again = by_typer(["--lab", "kind", *shlex.split(" ".join(command_line_of(planned)))])
        assert planned_cluster(again) == planned


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            LabFlags(lab="model", name="x", with_parts=("hubble",)),
            "--name, --with: only for a cluster",
        ),
        (
            LabFlags(lab="kind", folder=Path("/nowhere/at/all")),
            "invalid value '/nowhere/at/all' for --folder: expected a directory",
        ),
        (
            LabFlags(lab="kind", kubeconfig=Path("x"), name="y"),
            "--name: only for a cluster that meshwake makes",
        ),
        (
            LabFlags(lab="kind", kubeconfig=Path("x"), name="y", workers=3),
            "--name, --nodes: only for .*leave out",
        ),
        (LabFlags(lab="kind", clock="proces"), "'proces' for --clock: .*did you mean 'process'"),
        (LabFlags(lab="kind", context="c"), "needs --kubeconfig PATH"),
        (LabFlags(lab="kind", clock="command"), "go together"),
        (
            LabFlags(lab="kind", allow_own_clock=True, clock="process"),
            "never sets this machine's clock",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: LabFlags, message: str) -> None:
    """By the names of the options, and with what to do."""
    with pytest.raises(BadInput, match=message):
        planned_cluster(flags)


def test_a_plan_made_before_there_were_more_options_keeps_its_name() -> None:
    """Its hash is how kept runs are found again."""
    from tests.unit.labs.kind.runs import plan

    of = plan().model_copy(update={"cluster": PlannedCluster(profile="core")})
    assert of.sha256 == "d08499c5713ae836259b3f9bfe0c29ee5aacf0a60eb1b9c820995b43a9598832"
    named = of.model_copy(update={"cluster": PlannedCluster(profile="core", name="x")})
    assert named.sha256 != of.sha256
