"""An option of lab kind is declared once: every door that takes it takes it in the same words, to
the same end."""

from __future__ import annotations

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
from meshwake.runner.options import (
    ClusterWords,
    LabWords,
    add_to_pytest,
    as_typed,
    from_pytest,
    options_of,
    planned_cluster,
    with_words,
)
from typer.testing import CliRunner

DOORS = {
    "run": LabWords,
    "bisect": LabWords,
    "up": ClusterWords,
    "down": ClusterWords,
    "status": ClusterWords,
}
MESHWAKE: Any = typer.main.get_command(meshwake.cli.app.app)


class Group:
    """pytest's group of options, as far as it is used; `parse` is what pytest does with a command
    line."""

    def __init__(self) -> None:
        import argparse

        self.parser = argparse.ArgumentParser(allow_abbrev=False)

    def addoption(self, *names: str, **about: Any) -> None:
        self.parser.add_argument(*names, **about)


def by_pytest(arguments: Sequence[str]) -> LabWords:
    group = Group()
    add_to_pytest(group)
    said = vars(group.parser.parse_args(list(arguments)))
    return from_pytest(said.__getitem__)


def by_typer(arguments: Sequence[str]) -> LabWords:
    app, got = typer.Typer(), []

    @app.command()
    @with_words(LabWords)
    def command(*, words: LabWords) -> None:
        got.append(words)

    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return got[0]


@pytest.mark.parametrize(("door", "words"), DOORS.items())
def test_every_door_takes_every_option_of_its_kind(door: str, words: type[ClusterWords]) -> None:
    """With the help that stands at its declaration, and no other default."""
    declared = {option.flag: (option.help, default) for _, _, option, default in options_of(words)}
    taken = {each.opts[0]: each for each in MESHWAKE.get_command(None, door).params}
    assert declared.keys() <= taken.keys()
    assert {flag: taken[flag].help for flag in declared} == {
        flag: help_ for flag, (help_, _) in declared.items()
    }
    more = {option.flag for _, _, option, _ in options_of(LabWords)} - declared.keys()
    assert not more & taken.keys()


def test_pytest_takes_every_option() -> None:
    """No flag is left out, and none is pytest's own."""
    group = Group()
    add_to_pytest(group)
    flags = {name for action in group.parser._actions for name in action.option_strings} - {
        "-h",
        "--help",
    }
    assert flags == {option.flag for _, _, option, _ in options_of(LabWords)}


def test_what_is_said_is_what_is_planned() -> None:
    """Every word has its place in the plan, and nothing in the plan has no word. --real-time is
    said of the run."""
    said, planned = {each.name for each in fields(LabWords)}, set(PlannedCluster.model_fields)
    assert said - planned == {"real_time"} and planned - said == {"lapse"}


@pytest.mark.parametrize(
    ("words", "lapse"),
    [
        (LabWords(clock="process"), True),
        (LabWords(clock="process", real_time=True), False),
        (LabWords(clock="engine"), False),
        (LabWords(), False),
    ],
)
def test_idle_time_is_skipped_where_programs_clocks_are_moved(words: LabWords, lapse: bool) -> None:
    """Unless real time was asked for; the clock of a whole machine cannot be taken ahead of it."""
    assert planned_cluster("kind", words).lapse is lapse


def test_the_numbers_of_real_time_are_for_every_lab() -> None:
    """The word is not about a cluster."""
    assert planned_cluster("model", LabWords(real_time=True)).lapse is False


def value_of(type_: Any) -> st.SearchStrategy[Any]:
    text = st.text("abc-.18", min_size=1, max_size=8).filter(lambda text: not text.startswith("-"))
    if type_ is bool:
        return st.booleans()
    if type_ == tuple[str, ...]:
        return st.lists(text, max_size=3).map(tuple)
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        int | None: st.integers(0, 99) | st.none(),
        Path | None: text.map(Path) | st.none(),
    }
    return kinds.get(type_, text | st.none())


ANY_WORDS = st.builds(
    LabWords, **{name: value_of(type_) for name, type_, _, _ in options_of(LabWords)}
)


def typed(words: LabWords) -> list[str]:
    arguments: list[str] = []
    for name, _, option, default in options_of(LabWords):
        value = getattr(words, name)
        if value is True:
            arguments.append(option.flag)
        elif value != default:
            for each in value if isinstance(value, tuple) else (value,):
                arguments += [option.flag, str(each)]
    return arguments


@given(ANY_WORDS)
def test_the_same_line_means_the_same_to_both_doors(words: LabWords) -> None:
    """Whatever is typed, `meshwake run` and pytest get the same words from it."""
    assert by_typer(typed(words)) == by_pytest(typed(words)) == words


def test_what_is_planned_can_be_typed_again(tmp_path: Path) -> None:
    """The command that repeats a run makes the same plan."""
    words = LabWords(
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
    planned = planned_cluster("kind", words)
    again = by_typer(shlex.split(" ".join(as_typed(planned))))
    assert planned_cluster("kind", again) == planned
    elsewhere = planned_cluster(
        "kind", LabWords(kubeconfig=tmp_path / "config", context="a b", known_as="a b")
    )
    assert (
        planned_cluster("kind", by_typer(shlex.split(" ".join(as_typed(elsewhere))))) == elsewhere
    )


@pytest.mark.parametrize(
    ("lab", "words", "said"),
    [
        ("model", LabWords(name="x", with_parts=("hubble",)), "--name, --with: is about a cluster"),
        (
            "kind",
            LabWords(folder=Path("/nowhere/at/all")),
            "invalid value '/nowhere/at/all' for --folder: expected a directory",
        ),
        (
            "kind",
            LabWords(kubeconfig=Path("x"), name="y"),
            "--name: says what a cluster of ours is made of",
        ),
        (
            "kind",
            LabWords(kubeconfig=Path("x"), name="y", workers=3),
            "--name, --nodes: say what .*leave them out",
        ),
        ("kind", LabWords(clock="proces"), "'proces' for --clock: .*did you mean 'process'"),
        ("kind", LabWords(context="c"), "of which file"),
        ("kind", LabWords(clock="command"), "go together"),
        (
            "kind",
            LabWords(allow_own_clock=True, clock="process"),
            "never sets this machine's clock",
        ),
    ],
)
def test_words_that_do_not_fit_together_are_refused(lab: str, words: LabWords, said: str) -> None:
    """By the names of the options, and with what to do."""
    with pytest.raises(BadInput, match=said):
        planned_cluster(lab, words)


def test_a_plan_made_before_there_were_more_words_keeps_its_name() -> None:
    """Its hash is how kept runs are found again."""
    from tests.unit.labs.kind.runs import plan

    of = plan().model_copy(update={"cluster": PlannedCluster(profile="core")})
    assert of.sha256 == "d08499c5713ae836259b3f9bfe0c29ee5aacf0a60eb1b9c820995b43a9598832"
    named = of.model_copy(update={"cluster": PlannedCluster(profile="core", name="x")})
    assert named.sha256 != of.sha256
