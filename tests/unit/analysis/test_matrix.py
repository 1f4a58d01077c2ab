"""Which fix holds against which fault: what is claimed of them, and the pages that show it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from meshwake.analysis.confirmed import (
    DIRECTORY,
    Confirmation,
    confirmations,
    read_confirmation,
    save,
)
from meshwake.analysis.fault_catalogue import FAULTS, scenario_for
from meshwake.analysis.matrix import MatrixRow, plan_for, world_sha256
from meshwake.analysis.matrix_table import END, long_table, replace_between, short_table
from meshwake.checks.facts.traffic import failures
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput
from meshwake.core.versions import newest
from meshwake.fixes import FIXES
from meshwake.runner.execution import execute

from tests.support.paths import REPOSITORY
from tests.unit.analysis.conftest import Matrix

# Every fix against every fault, on the model: `whole_matrix` runs it once.
pytestmark = pytest.mark.slow(reason="runs the whole matrix")

CLOCK_FAULTS = (
    "suspend",
    "pause",
    "many-short-sleeps",
    "backward-step",
    "drift",
    "freeze",
    "restart",
)


# What is claimed


def test_every_fix_meets_every_fault(whole_matrix: Matrix) -> None:
    assert set(whole_matrix) == {(fix, fault) for fix in FIXES for fault in FAULTS}
    assert set(CLOCK_FAULTS) < set(FAULTS)
    assert {row.verdict for row in whole_matrix.values()} == {"HOLDS", "BROKEN"}


@pytest.mark.parametrize("fix", ["wall-polling", "wake-guard"])
@pytest.mark.parametrize("fault", CLOCK_FAULTS)
def test_what_holds_on_every_clock_fault(whole_matrix: Matrix, fix: str, fault: str) -> None:
    """And within five minutes from the wake."""
    row = whole_matrix[fix, fault]
    assert row.verdict == "HOLDS", row.because
    assert row.recovery_s_worst <= 300


def test_the_placebo_is_as_bad_as_nothing(whole_matrix: Matrix) -> None:
    for fault in FAULTS:
        nothing, placebo = whole_matrix["none", fault], whole_matrix["istiod-default-ttl", fault]
        assert (placebo.verdict, placebo.outage_s_per_week) == (
            nothing.verdict,
            nothing.outage_s_per_week,
        )


def test_chrony_does_not_help_against_a_pause(whole_matrix: Matrix) -> None:
    nothing, chrony = whole_matrix["none", "pause"], whole_matrix["chrony-makestep", "pause"]
    assert (chrony.verdict, chrony.outage_s_per_week) == (
        nothing.verdict,
        nothing.outage_s_per_week,
    )


def test_boottime_passes_on_a_laptop_and_fails_in_a_vm(whole_matrix: Matrix) -> None:
    assert whole_matrix["boottime", "suspend"].verdict == "HOLDS"
    assert whole_matrix["boottime", "pause"].verdict == "BROKEN"
    assert whole_matrix["sleep-hook", "pause"].verdict == "BROKEN"


def test_only_the_guard_remembers_gateways(whole_matrix: Matrix) -> None:
    """The world with a gateway and tokens: everything else is broken there."""
    holds = {fix for fix in FIXES if whole_matrix[fix, "weekend"].verdict == "HOLDS"}
    assert holds == {"wake-guard"}


def test_nothing_is_restarted_where_nothing_sleeps(whole_matrix: Matrix) -> None:
    """Except by those that restart by the calendar."""
    restarts = {fix for fix in FIXES if whole_matrix[fix, "nothing"].restarts}
    assert restarts == {"weekly-restart", "daily-restart"}


def test_the_weekly_restart_is_broken_from_the_third_day_of_each_week() -> None:
    """World time begins on a Monday; Sunday is day 6, and the job comes on that day, when the
    machine is awake."""
    plan = plan_for(FIXES["weekly-restart"], scenario_for(FAULTS["suspend"]), newest())
    history = execute(plan).history
    days = sorted({each.from_world_ns // (86_400 * 10**9) for each in failures(plan, history)})
    restarts = [
        event.world_ns // (86_400 * 10**9)
        for event in history.of("ztunnel_started", cause="weekly-restart")
    ]
    assert days[0] == 2
    assert all(
        any(restart < day <= restart + 3 for day in days)
        for restart in restarts
        if restart + 3 < 14
    )
    assert restarts[0] == 6


# Confirmed on a real ztunnel

A_ROW = Confirmation(
    "none", "pause", "BROKEN", 1.5, 2.5, 0, 14, "1.31.0-rc.0", "ab", "2026-11-25", "cd", 7.0
)


def test_real_runs_agree_with_the_model(whole_matrix: Matrix) -> None:
    """Every recorded run has the verdict of its row, and an outage that differs by less than a
    hundredth."""
    found = [read_confirmation(path) for path in DIRECTORY.glob("*.json")]
    assert found
    for each in found:
        row = whole_matrix[each.fix, each.fault]
        assert each.verdict == row.verdict, each.file_name
        # In a cluster a connection that is due during a restart comes a minute later.
        rel, abs_s = (0.01, 60) if each.lab == "process" else (0.02, 600)
        assert each.outage_s_per_week == pytest.approx(row.outage_s_per_week, rel=rel, abs=abs_s), (
            each.file_name
        )


def test_a_recorded_run_counts_for_its_own_world_only(whole_matrix: Matrix) -> None:
    """Else a row would stay confirmed when what it says has changed."""
    confirmed = [row for row in whole_matrix.values() if row.confirmed_on]
    assert confirmed
    plan = plan_for(FIXES["wake-guard"], scenario_for(FAULTS["suspend"]), newest())
    other = plan.model_copy(update={"lifetime_s": 3_600})
    assert world_sha256(plan) != world_sha256(other)
    assert plan.fix is not None and plan.fix.manifest is not None
    commented = plan.fix.model_copy(update={"manifest": "# a remark\n" + plan.fix.manifest})
    assert world_sha256(plan.model_copy(update={"fix": commented})) == world_sha256(plan)


def test_a_recorded_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    one = A_ROW
    assert read_confirmation(save(one, tmp_path)) == one
    in_cluster = replace(one, lab="kind", certificates=15)
    save(in_cluster, tmp_path)
    assert confirmations(tmp_path) == {("process", "cd"): one, ("kind", "cd"): in_cluster}


def test_a_file_from_before_clusters_were_tried_is_of_lab_process(tmp_path: Path) -> None:
    """It names no lab."""
    path = save(A_ROW, tmp_path)
    old = {name: value for name, value in vars(A_ROW).items() if name != "lab"}
    path.write_text(json.dumps(old))
    assert read_confirmation(path) == A_ROW


@pytest.mark.parametrize(
    ("seen", "short", "long"),
    [
        ({}, "| `none` | **BROKEN** 60 h |", "| model |"),
        ({"confirmed_on": "1.31.0"}, "| `none` | **BROKEN** 60 h ● |", "| 1.31.0 |"),
        (
            {"seen_in_cluster": "1.31.0"},
            "| `none` | **BROKEN** 60 h ◆ |",
            "| 1.31.0 in a cluster |",
        ),
        (
            {"confirmed_on": "1.31.0", "seen_in_cluster": "1.30.1"},
            "| `none` | **BROKEN** 60 h ●◆ |",
            "| 1.31.0, 1.30.1 in a cluster |",
        ),
    ],
)
def test_where_a_verdict_was_seen_is_marked(
    whole_matrix: Matrix, seen: dict[str, str], short: str, long: str
) -> None:
    """On a ztunnel alone, and in a whole cluster, which says more."""
    unseen: dict[str, str | None] = {"confirmed_on": None, "seen_in_cluster": None}
    row = MatrixRow(**vars(whole_matrix["none", "suspend"]) | unseen | seen)
    assert short_table([row]).splitlines()[-1] == short
    assert long_table([row]).splitlines()[-1].endswith(long)


def test_a_damaged_recorded_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"fix": "none"}')
    with pytest.raises(BadInput, match=r"x\.json.*--confirm"):
        confirmations(tmp_path)


# Pages


@pytest.mark.parametrize(
    ("page", "which", "table"),
    [("README.md", "short", short_table), ("docs/fixes.md", "long", long_table)],
)
def test_the_page_shows_what_the_program_says(
    whole_matrix: Matrix, page: str, which: str, table: object
) -> None:
    """Stale? meshwake matrix --write README.md --write docs/fixes.md"""
    assert callable(table)
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    assert replace_between(text, which, table(list(whole_matrix.values())), page) == text


def test_a_page_without_a_place_for_it_is_refused() -> None:
    with pytest.raises(BadInput, match="has no place"):
        replace_between("# A page\n" + END, "short", "", "page.md")


# The command


def test_the_command_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run_command(
            ["matrix", "--fix", "boottime", "--fault", "suspend", "--fault", "pause", "--json"]
        )
        == 0
    )
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["fix"], row["fault"], row["verdict"]) for row in rows] == [
        ("boottime", "suspend", "HOLDS"),
        ("boottime", "pause", "BROKEN"),
    ]
    promised = {
        "fix",
        "fault",
        "verdict",
        "outage_s_per_week",
        "recovery_s_worst",
        "restarts",
        "confirmed_on",
    }
    assert promised <= set(rows[0])


def test_the_command_on_a_scenario_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    path = REPOSITORY / "scenarios" / "nightly_sleep.toml"
    assert run_command(["matrix", "--fix", "none", "--scenario", str(path)]) == 0
    assert "nightly_sleep" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fix", "boot-time"], "did you mean 'boottime'"),
        (["--fault", "sleep"], "invalid value 'sleep' for --fault: expected one of suspend"),
        (["--ztunnel", "x"], "use --confirm"),
        (["--lab", "kind"], "--lab: the matrix runs on the model; use --confirm"),
        (["--confirm", "--lab", "machine"], "expected one of process, kind"),
        (["--confirm", "--name", "x"], "--name: only for a cluster"),
        (["--confirm", "--lab", "kind", "--ztunnel", "x"], "lab kind runs no binary"),
        (["--write", "README.md", "--fix", "none"], "the whole matrix"),
    ],
)
def test_a_wrong_word_is_answered(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["matrix", *words]) == 3
    assert message in capsys.readouterr().err
