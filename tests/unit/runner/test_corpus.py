from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.errors import BadInput
from meshwake.runner.corpus import corpus, scenario_file, scenario_files

from tests.support.paths import SCENARIOS
from tests.support.scenarios import write


@pytest.mark.parametrize(
    "word",
    [
        "nightly_sleep",
        "nightly_sleep.toml",
        "scenarios/nightly_sleep",
        "scenarios/nightly_sleep.toml",
    ],
)
def test_a_name_is_found_from_everywhere(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is written, whatever the directory."""
    monkeypatch.chdir(tmp_path)
    assert scenario_file(word) == SCENARIOS / "nightly_sleep.toml"


def test_one_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With or without its folder; a folder of the corpus is all of its files."""
    monkeypatch.chdir(tmp_path)
    canary = SCENARIOS / "canary" / "always_broken.toml"
    assert scenario_file("canary/always_broken") == scenario_file("always_broken") == canary
    assert scenario_files([Path("scenarios/canary")]) == [canary]
    assert scenario_files([Path("scenarios")]) == corpus()


def test_a_file_of_ones_own_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of the corpus never hides it."""
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path, name="nightly_sleep")
    assert scenario_file("nightly_sleep.toml").samefile(own)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("nightly_slep", "did you mean 'nightly_sleep'?"),
        ("scenarios/nightly_sleeps.toml", "did you mean 'nightly_sleep'?"),
        ("zzz", "meshwake list shows the names"),
        ("../etc", "meshwake list shows the names"),
    ],
)
def test_what_is_neither(word: str, hint: str) -> None:
    """Is refused, with the nearest name."""
    with pytest.raises(BadInput, match="no such scenario") as refused:
        scenario_file(word)
    assert str(refused.value).endswith(hint)


def test_a_directory_is_not_one_scenario(tmp_path: Path) -> None:
    """Where one is expected; and an empty one is refused everywhere."""
    with pytest.raises(BadInput, match="is a directory"):
        scenario_file(tmp_path)
    with pytest.raises(BadInput, match="contains no scenario"):
        scenario_files([tmp_path])


def names_of(folder: Path, expression: str) -> list[str]:
    found = scenario_files([folder], expression)
    return [path.relative_to(folder).as_posix().removesuffix(".toml") for path in found]


@pytest.mark.parametrize(
    ("expression", "selected"),
    [
        ("", ["laptop/nights", "laptop/weekly_nights", "vm_pause"]),
        ("NIGHTS", ["laptop/nights", "laptop/weekly_nights"]),
        ("nights and not weekly", ["laptop/nights"]),
        ("laptop", ["laptop/nights", "laptop/weekly_nights"]),
        ("laptop/nights or vm", ["laptop/nights", "vm_pause"]),
        # Of the folder that was named and of those above it, nothing is searched.
        ("not mine and not tmp", ["laptop/nights", "laptop/weekly_nights", "vm_pause"]),
    ],
)
def test_an_expression_selects_by_name_and_folder(
    expression: str, selected: list[str], tmp_path: Path
) -> None:
    """Of the files that were named; the titles are not searched."""
    mine = tmp_path / "mine"
    (mine / "laptop").mkdir(parents=True)
    for name in ("laptop/nights", "laptop/weekly_nights", "vm_pause"):
        write(mine, name=name)
    assert names_of(mine, expression) == selected


SOME_NAMES = ("nightly_sleep", "weekly_restart_nightly_sleep", "always_broken")


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("wekly", "did you mean 'weekly'"),
        ("nightly_slep or vm", "did you mean 'nightly_sleep' or"),
        ("zzz and sleep", "no name contains 'zzz'"),
        ("always and weekly", "no name fits the whole expression"),
    ],
)
def test_an_expression_that_selects_nothing_is_refused(expression: str, hint: str) -> None:
    """With the words that were probably meant."""
    with pytest.raises(BadInput, match=r"-k '.*': selects none of 3 scenarios; ") as refused:
        scenario_files([Path(name) for name in SOME_NAMES], expression)
    assert hint in str(refused.value)


def test_a_file_of_ones_own_without_its_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Is not guessed, but named: among those of the directory and of the corpus."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, name="Mein Monat")
    for word in ("Mein Monat", "mein_monat.toml", str(tmp_path / "Mein Monat")):
        with pytest.raises(BadInput, match="did you mean 'Mein Monat.toml'"):
            scenario_file(word)


def test_a_directory_that_is_called_as_a_file(tmp_path: Path) -> None:
    """Is not a scenario; those in it are found."""
    inside = write(tmp_path / "old.toml", name="small")
    assert scenario_files([tmp_path]) == [inside]
