"""Where a scenario runs, and why."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from meshwake.core import versions
from meshwake.core.errors import (
    BadInput,
    LabUnavailable,
)
from meshwake.core.scenario import read_scenario
from meshwake.fixes.jobs import read_tasks
from meshwake.runner.choose import Case, Chooser, choose, read_manifest
from meshwake.runner.flags import RunFlags
from meshwake.runner.options import Options, options_from
from meshwake.runner.run import run_case
from meshwake.ztunnel import binaries

from tests.support.scenarios import SMALL, small, write
from tests.unit.runner.conftest import BOTH_LABS, FakeLab, case_of, scenario_of
from tests.unit.ztunnel.test_binaries import put


def test_auto_is_the_real_binary_when_there_is_one(
    empty_cache: Path, labs: Callable[[FakeLab], None]
) -> None:
    """The newest binary of the cache is taken, and the case says so."""
    labs(FakeLab())
    put(empty_cache, "1.28.0")
    path = put(empty_cache, "1.30.1")
    case = case_of(BOTH_LABS, Options())
    assert (case.id, case.ztunnel) == ("small[process-1.30.1]", path)
    assert case.chosen_because == "process: ztunnel 1.30.1 in the cache"


@pytest.mark.usefixtures("empty_cache")
def test_auto_is_the_model_without_a_binary(labs: Callable[[FakeLab], None]) -> None:
    """The newest release then, and how to get its binary."""
    labs(FakeLab())
    case = case_of(BOTH_LABS, Options())
    assert (case.lab, case.version) == ("model", versions.newest().version)
    assert case.chosen_because == (
        f"model: no ztunnel binary in the cache (meshwake fetch {case.version}, or --ztunnel PATH)"
    )


@pytest.mark.usefixtures("empty_cache")
def test_auto_with_a_version_that_is_not_in_the_cache(labs: Callable[[FakeLab], None]) -> None:
    """The model of the version requested, and the command that fetches its binary."""
    labs(FakeLab())
    case = case_of(BOTH_LABS, Options(istio=("1.27.9",)))
    assert (case.lab, case.version, case.behaviour_class) == ("model", "1.27.9", "C")
    assert "for 1.27.9 in the cache (meshwake fetch 1.27.9, or " in case.chosen_because


def test_auto_falls_back_with_the_reason(
    empty_cache: Path, labs: Callable[[FakeLab], None]
) -> None:
    """What the machine lacks, what the lab cannot do, what the scenario does not name: each is
    reported."""
    put(empty_cache, "1.30.1")
    labs(FakeLab(missing=["no right to make namespaces; run sysctl"]))
    assert (
        case_of(BOTH_LABS, Options()).chosen_because
        == "model: no right to make namespaces; run sysctl"
    )
    labs(FakeLab(refusals=["fault 0: no suspend here"]))
    assert case_of(BOTH_LABS, Options()).chosen_because == "model: fault 0: no suspend here"
    assert (
        case_of(SMALL, Options()).chosen_because == "model: the scenario names only model in 'labs'"
    )


def test_auto_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    """Elsewhere the process lab is not even imported."""
    put(empty_cache, "1.30.1")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert case_of(BOTH_LABS, Options()).chosen_because == "model: the process lab needs Linux"


def test_a_lab_that_was_requested_is_never_replaced(labs: Callable[[FakeLab], None]) -> None:
    """`--lab process` where it cannot run is a refusal, not a run on the model."""
    labs(FakeLab(missing=["no user namespaces"]))
    case = case_of(BOTH_LABS, Options(lab="process"))
    assert case.lab == "process"
    assert case.refusal is not None
    with pytest.raises(LabUnavailable):
        run_case(case, Options(lab="process"))


def test_one_case_per_version() -> None:
    """`--istio` twice makes two cases, the same version twice makes one."""
    cases = choose(scenario_of(), Options(lab="model", istio=("1.27.9", "1.28.0", "1.27.9")))
    assert [case.id for case in cases] == ["small[model-1.27.9]", "small[model-1.28.0]"]


def test_one_case_per_fix_that_was_named() -> None:
    """Each instead of the scenario's own; what was expected of that says nothing of them."""
    own = small() + '[fix]\nname = "daily-restart"\n'
    options = options_from(
        RunFlags(lab="model", fix=("none", "wake-guard"), istio=("1.31.0-rc.0",))
    )
    cases = choose(scenario_of(own), options)
    assert [case.id for case in cases] == [
        "small[model-1.31.0-rc.0-none]",
        "small[model-1.31.0-rc.0-wake-guard]",
    ]
    assert cases[0].plan.fix is None
    assert cases[1].plan.fix is not None and cases[1].plan.fix.name == "wake-guard"
    assert {case.plan.goal for case in cases} == {"holds"}
    assert not cases[0].plan.expectations


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (RunFlags(goal="hold"), "invalid value 'hold' for --goal: expected one of holds"),
        (RunFlags(fix=("wake-gard",)), "did you mean 'wake-guard'"),
    ],
)
def test_a_goal_or_a_fix_that_does_not_exist(flags: RunFlags, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        options_from(flags)


def test_expectations_are_those_of_the_version() -> None:
    """A row that does not cover the version is not in the plan."""
    text = small(('verdict = "holds"', 'verdict = "holds"\nversions = ">=1.28"'))
    assert case_of(text, Options(lab="model", istio=("1.27.9",))).expectations == ()
    assert len(case_of(text, Options(lab="model", istio=("1.28.0",))).expectations) == 1


def test_an_unknown_lab_has_a_nearest_word() -> None:
    """A typing error is bad input."""
    with pytest.raises(BadInput, match="did you mean 'process'"):
        choose(scenario_of(), Options(lab="proces"))


# --- A binary that is given


def given(monkeypatch: pytest.MonkeyPatch, own_version: str | None, **options: object) -> Case:
    path = Path("/some/ztunnel")
    identity = binaries.Identity(path, own_version, "version.BuildInfo{...}", "0" * 64)
    monkeypatch.setattr(binaries, "identify", lambda _: identity)
    return case_of(BOTH_LABS, Options(ztunnel=path, **options))  # type: ignore[arg-type]  # options of many types


def test_a_given_binary_runs_on_the_process_lab(
    monkeypatch: pytest.MonkeyPatch, labs: Callable[[FakeLab], None]
) -> None:
    """It names its own version; a binary is not given in order to run a model."""
    labs(FakeLab())
    case = given(monkeypatch, "1.28.0")
    assert (case.lab, case.version, case.refusal) == ("process", "1.28.0", None)
    assert case.chosen_because.endswith("ztunnel 1.28.0 given with --ztunnel /some/ztunnel")


def test_a_binary_that_does_not_know_itself(
    monkeypatch: pytest.MonkeyPatch, labs: Callable[[FakeLab], None]
) -> None:
    """Its owner must say which release it was built from."""
    labs(FakeLab())
    with pytest.raises(BadInput, match="name the release it was built from: --istio VERSION"):
        given(monkeypatch, None)
    assert given(monkeypatch, None, istio=("1.30.1",)).version == "1.30.1"


def test_a_binary_that_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, labs: Callable[[FakeLab], None]
) -> None:
    """A release that is called by another's name is refused; a development build may be called by
    the nearest."""
    labs(FakeLab())
    with pytest.raises(BadInput, match=r"reports version 1\.28\.0, --istio names 1\.27\.9"):
        given(monkeypatch, "1.28.0", istio=("1.27.9",))
    with pytest.raises(
        BadInput, match="has no row in clusters/versions.toml; name the release it is nearest to"
    ):
        given(monkeypatch, "1.30.99")
    assert given(monkeypatch, "1.30.99", istio=("1.31.0-rc.0",)).version == "1.31.0-rc.0"
    assert given(monkeypatch, "1.99.0").version == "1.99.0", (
        "newer than the table: it runs under its own name"
    )


def test_a_binary_and_the_model_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do one binary and two versions."""
    with pytest.raises(BadInput, match="lab model runs no binary"):
        given(monkeypatch, "1.28.0", lab="model")
    with pytest.raises(BadInput, match="cannot be 2 versions"):
        given(monkeypatch, "1.28.0", istio=("1.28.0", "1.27.9"))


# --- Manifests


def test_a_manifest_is_read_next_to_the_scenario_or_in_the_repository(tmp_path: Path) -> None:
    """The text of the user's own manifest is in the plan."""
    fix = '[fix]\nname     = "weekly-restart"\nmanifest = "{}"\n\n[[expect]]'
    (tmp_path / "mine.yaml").write_text("kind: CronJob")
    own = small(("[[expect]]", fix.format("mine.yaml")))
    chooser = Chooser(Options(lab="model"))
    assert read_manifest(scenario_of(own, str(tmp_path / "small.toml"))) == "kind: CronJob"
    in_repository = small(("[[expect]]", fix.format("clusters/fixes/weekly-restart/cronjob.yaml")))
    assert "CronJob" in str(chooser.cases(scenario_of(in_repository))[0].manifest)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_what_powershell_wrote_is_read(encoding: str, tmp_path: Path) -> None:
    """`meshwake import-sleep ... > mine.toml` and `kubectl get cronjob -o yaml > mine.yaml` make
    UTF-16 there."""
    text = (Path("clusters/fixes/daily-restart/cronjob.yaml")).read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_bytes(text.replace("\n", "\r\n").encode(encoding))
    fix = '[fix]\nname     = "daily-restart"\nmanifest = "mine.yaml"\n\n[[expect]]'
    scenario = SMALL.replace("[[expect]]", fix, 1)
    (tmp_path / "mine.toml").write_bytes(scenario.replace("\n", "\r\n").encode(encoding))
    read = read_scenario(tmp_path / "mine.toml")
    manifest = read_manifest(read)
    assert manifest is not None and read_tasks(manifest) == read_tasks(text)


@pytest.mark.parametrize("name", ["x" * 5_000, "folder", "nowhere.yaml", "\\0"])
def test_a_manifest_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    """Exit code 3, also where the kernel itself refuses the name."""
    (tmp_path / "folder").mkdir()
    fix = f'[fix]\nname     = "daily-restart"\nmanifest = "{name}"\n\n[[expect]]'
    with pytest.raises(BadInput):
        read_manifest(
            scenario_of(SMALL.replace("[[expect]]", fix, 1), str(tmp_path / "small.toml"))
        )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            'versions = ">=1.99"',
            "expect[0].versions: '>=1.99' covers no release of clusters/versions.toml",
        ),
        ('versions = ">=1.28"\nuntil = "1.20"', "'>=1.28' until 1.20 covers no release"),
        ('until = "next"', "invalid value 'next' for expect[0].until: expected a version"),
    ],
)
def test_an_expectation_about_no_release_is_refused(rows: str, words: str, tmp_path: Path) -> None:
    """A typing error in a range would never be noticed otherwise."""
    path = write(tmp_path, small(('because = "', f'{rows}\nbecause = "')))
    with pytest.raises(BadInput, match=re.escape(words)):
        choose(read_scenario(path), Options(lab="model"))


def test_an_expectation_ends_before_until(tmp_path: Path) -> None:
    """From that release on another row is the truth."""
    later = (
        '[[expect]]\ncheck = "traffic_flows"\nverdict = "broken"\nversions = '
        '">=1.28.0"\nbecause = "it is so"\n'
    )
    path = write(tmp_path, small(('because = "', 'until = "1.28.0"\nbecause = "')) + later)
    options = Options(lab="model", istio=("1.27.9", "1.28.0"))
    cases = choose(read_scenario(path), options)
    assert [[row.verdict for row in case.expectations] for case in cases] == [["holds"], ["broken"]]
