from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.core.resolve import resolve
from meshwake.core.run import Run
from meshwake.core.scenario import parse_scenario
from meshwake.core.store import LATEST, PLAN_FILE, open_run, read_run, runs_dir
from meshwake.report.result import result
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.support.scenarios import SMALL


def plan_of() -> Plan:
    return resolve(choose(parse_scenario(SMALL, "small.toml", "small"), Options(lab="model"))[0])


def kept_run() -> Run:
    scenario = parse_scenario(SMALL, "small.toml", "small")
    options = Options(lab="model", keep_run=True)
    return run_case(choose(scenario, options)[0], options)


def test_a_kept_run_is_read_back() -> None:
    """Plan, history and result come back as they were, from the directory and from `latest`."""
    saved = kept_run()
    for path in (saved.kept_at, saved.kept_at.parent / LATEST):
        again = read_run(path)
        assert again.plan == saved.plan
        assert again.history.events == saved.history.events
        assert again.result == result(saved)


def test_latest_is_the_newest() -> None:
    """A second run of the same plan gets a directory of its own, and `latest` moves to it."""
    first, second = kept_run(), kept_run()
    assert second.kept_at.name == f"{first.kept_at.name}-2"
    assert (first.kept_at.parent / LATEST).resolve() == second.kept_at.resolve()


def test_latest_without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a system grants no links, `latest` is a file with the name, and is read the same."""

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    saved = kept_run()
    assert read_run(saved.kept_at.parent / LATEST).plan == saved.plan


def test_many_at_once_get_different_directories() -> None:
    """Several processes run the same plan at the same moment: none takes another's place."""
    plan = plan_of()
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: open_run(plan).path, range(24)))
    assert len(set(paths)) == 24


def test_a_removed_run_leaves_nothing() -> None:
    """The directories above it go too when they are empty, and stay when they are not."""
    one, two = open_run(plan_of()), open_run(plan_of())
    one.remove()
    assert two.path.is_dir()
    two.remove()
    assert not runs_dir().exists()


def test_what_is_not_a_run_is_refused(tmp_path: Path) -> None:
    """The message says what a run looks like."""
    with pytest.raises(BadInput, match=r"not a run \(it has no plan.json\)"):
        read_run(tmp_path)


def test_half_a_plan_is_refused() -> None:
    """A run that was killed while it began."""
    path = kept_run().kept_at
    text = (path / PLAN_FILE).read_text()
    (path / PLAN_FILE).write_text(text[: len(text) // 2])
    with pytest.raises(BadInput, match="half a file"):
        read_run(path)


def test_a_plan_that_lacks_something_is_refused() -> None:
    """The first thing that is missing is named."""
    path = kept_run().kept_at
    plan = json.loads((path / PLAN_FILE).read_text())
    del plan["duration_ns"]
    (path / PLAN_FILE).write_text(json.dumps(plan))
    with pytest.raises(BadInput, match="not a complete plan: duration_ns"):
        read_run(path)


def test_another_format_is_refused() -> None:
    """A run of a later meshwake is not misread."""
    path = kept_run().kept_at
    plan = json.loads((path / PLAN_FILE).read_text())
    (path / PLAN_FILE).write_text(json.dumps(plan | {"format": 2}))
    with pytest.raises(BadInput, match="written in format 2, this meshwake reads format 1"):
        read_run(path)


def test_a_place_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out is named: MESHWAKE_RUNS."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MESHWAKE_RUNS", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="MESHWAKE_RUNS"):
        open_run(plan_of())
