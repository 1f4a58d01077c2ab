"""Several scenario files at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.errors import (
    BadInput,
    ExitCode,
)
from meshwake.core.store import runs_dir
from meshwake.runner.options import Options
from meshwake.runner.suite import Ending, Suite, most_serious, run_suite

from tests.support.scenarios import SURPRISING, small, write
from tests.unit.runner.conftest import case_of


def test_a_suite_reads_everything_before_it_runs_anything(tmp_path: Path) -> None:
    """A bad file among good ones: all bad ones are named, and nothing has run."""
    write(tmp_path, name="good")
    for name in ("bad", "worse"):
        write(tmp_path, "title = 1", name)
    with pytest.raises(BadInput) as refused:
        run_suite(Suite((tmp_path,), Options(lab="model", keep_run=True)))
    assert "bad.toml" in str(refused.value)
    assert "worse.toml" in str(refused.value)
    assert not runs_dir().exists()


def test_an_error_ends_its_own_case_only(tmp_path: Path) -> None:
    """A refused case does not keep the others from running; the most serious decides."""
    write(tmp_path, small(('["model"]', '["process"]')), "elsewhere")
    write(tmp_path, SURPRISING, "surprising")
    suite = run_suite(Suite((tmp_path,), Options(lab="model")))
    codes = [ending.exit_code for ending in suite.endings]
    assert codes == [ExitCode.LAB_UNAVAILABLE, ExitCode.SURPRISE]
    assert most_serious(codes) is ExitCode.LAB_UNAVAILABLE


def test_the_most_serious_of_all() -> None:
    """5 before 3, 4, 1, 2 and 0."""
    codes = list(ExitCode)
    order = []
    while codes:
        order.append(most_serious(codes))
        codes.remove(order[-1])
    assert [int(code) for code in order] == [5, 3, 4, 1, 2, 0]
    assert Ending(case_of()).exit_code is ExitCode.HARNESS_FAULT


def test_a_directory_without_scenarios_is_refused(tmp_path: Path) -> None:
    """Nothing judged is not a pass."""
    with pytest.raises(BadInput, match="contains no scenario"):
        run_suite(Suite((tmp_path,), Options()))
