"""Sweeps: the same rows wherever and however they were answered; nothing lost on the way."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from meshwake.analysis import sweep as sweeps
from meshwake.analysis import workers
from meshwake.analysis.sweep import (
    MachineResult,
    SweepPart,
    SweepSpec,
    open_result_store,
    parts,
    simulate_part,
    spec_of,
    sweep,
)
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.outcome import Finding, Verdict
from meshwake.core.versions import newest

from tests.support import scenarios
from tests.support.paths import DATA

JOURNALS = DATA / "journals"
WITHOUT_FAULT = ('[[fault]]\nkind  = "suspend"\nat    = "15h"\nlasts = "8h"\n', "")

pytest.importorskip("pyarrow", reason="a sweep needs pyarrow: pip install 'meshwake[sweep]'")


def test_what_could_not_be_judged_is_not_a_recovery() -> None:
    """Of sixty runners that wake and are stopped at once some runs end too early to show anything:
    that was counted as recovered, with nothing deployed."""
    spec = spec_of(
        ["ci-runner"], ["none"], [86_400], [newest().version], machines=60, days=7, seed=0
    )
    rows = [row for part in parts(spec) for row in simulate_part(part)]
    assert len(rows) == 60
    assert not any(row.recovers for row in rows)
    assert not any(row.recovers and row.unknown for row in rows)


def test_unknown_is_a_share_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an assumption fails nothing recovers, and nothing is broken either."""
    failing = {
        "clock_fault_happened": lambda plan, history: Finding("x", Verdict.BROKEN, "not measured")
    }
    monkeypatch.setattr("meshwake.checks.ASSUMPTIONS", failing)
    spec = small(machines=2, fixes=("wall-polling",), populations=("wsl",))
    rows = [row for part in parts(spec) for row in simulate_part(part)]
    assert [(row.recovers, row.unknown) for row in rows] == [(False, True)] * 2
    assert sweeps.summarise_results(spec, rows)["groups"][0]["unknown"] == 2


def small(**changes: Any) -> SweepSpec:
    options: dict[str, Any] = {
        "populations": ["office-laptop", "wsl"],
        "fixes": ["none", "secret-ttl-720h", "wall-polling"],
        "lifetimes_s": [86_400],
        "versions": [newest().version],
        "machines": 4,
        "days": 7,
        "seed": 1,
    }
    return replace(spec_of(**options | changes), machines_a_part=2)


IN_THIS_PROCESS = workers.on_this_machine(1)


def swept(
    spec: SweepSpec, path: Path, answers: sweeps.PartRunner = IN_THIS_PROCESS
) -> dict[str, Any]:
    return sweep(spec, open_result_store(path, spec), answers, lambda done, of: None)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process finds."""
    return swept(small(), tmp_path_factory.mktemp("alone"))


def test_every_machine_with_every_fix(alone: dict[str, Any]) -> None:
    """Two populations of four machines, three fixes."""
    assert alone["rows"] == 24
    by_fix = {(group["population"], group["fix"]): group for group in alone["groups"]}
    assert by_fix["office-laptop", "none"]["recover"] == 0
    assert by_fix["office-laptop", "wall-polling"]["recover"] == 4
    assert by_fix["office-laptop", "none"]["outage_s_per_week"]["p50"] > 3_600


@pytest.mark.slow(reason="starts processes")
def test_several_processes_find_the_same(alone: dict[str, Any], tmp_path: Path) -> None:
    """In whatever order they answer."""
    assert swept(small(), tmp_path, workers.on_this_machine(2))["sha256"] == alone["sha256"]


def test_another_seed_finds_something_else(alone: dict[str, Any], tmp_path: Path) -> None:
    """Chance comes from the seed, and only from there."""
    assert swept(small(seed=2), tmp_path)["sha256"] != alone["sha256"]


@pytest.mark.slow(reason="starts and kills a sweep")
def test_a_killed_sweep_goes_on_where_it_ended(alone: dict[str, Any], tmp_path: Path) -> None:
    """What was judged is not run again."""

    def killed(todo: list[SweepPart]) -> Iterator[tuple[SweepPart, list[MachineResult]]]:
        yield todo[1], simulate_part(todo[1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(small(), tmp_path, killed)
    ran: list[int] = []

    def watched(todo: list[SweepPart]) -> Iterator[tuple[SweepPart, list[MachineResult]]]:
        ran.extend(part.number for part in todo)
        yield from ((part, simulate_part(part)) for part in todo)

    assert swept(small(), tmp_path, watched)["sha256"] == alone["sha256"]
    assert ran == [0, 2, 3]


def test_another_question_is_not_mixed_in(tmp_path: Path) -> None:
    """It says which one lies there."""
    swept(small(machines=1, populations=["wsl"]), tmp_path)
    with pytest.raises(BadInput, match=r"another spec \(machines 1\)"):
        open_result_store(tmp_path, small(machines=2, populations=["wsl"]))
    question = json.loads((tmp_path / "sweep.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps(question | {"format": 9}))
    with pytest.raises(BadInput, match="a sweep of format 9"):
        open_result_store(tmp_path, small(machines=1, populations=["wsl"]))


def test_real_machines_are_a_population(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal imported, its scenario swept over: reported as `imported`, gone on with, and not
    mixed with another."""
    journal, month, out = (
        JOURNALS / "systemd_laptop.json",
        tmp_path / "month.toml",
        str(tmp_path / "out"),
    )
    assert (
        run_command(["import-sleep", str(journal), "--output", str(month)]) == ExitCode.AS_EXPECTED
    )
    command = [
        "sweep",
        "--imported",
        str(month),
        "--machines",
        "3",
        "--fix",
        "none",
        "--output",
        out,
        "--json",
    ]
    capsys.readouterr()
    for _ in range(2):
        assert run_command(command) == ExitCode.AS_EXPECTED
        result = json.loads(capsys.readouterr().out)
        assert [(group["population"], group["machines"]) for group in result["groups"]] == [
            ("imported", 3)
        ]
        assert result["spec"]["remembered"][0]["name"] == "month"
    (tmp_path / "month.toml").write_text(month.read_text().replace("8h17s", "7h17s"))
    assert run_command(command) == ExitCode.BAD_INPUT
    assert "another spec (remembered)" in capsys.readouterr().err


def test_a_machine_to_which_nothing_happens_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong file is refused with the one that is meant."""
    path = scenarios.write(tmp_path, scenarios.small(WITHOUT_FAULT))
    assert (
        run_command(["sweep", "--imported", str(path), "--output", str(tmp_path / "out")])
        == ExitCode.BAD_INPUT
    )
    assert "expected a scenario as `meshwake import-sleep` writes it" in capsys.readouterr().err


def test_half_a_part_is_named(tmp_path: Path) -> None:
    """A disk that lied: the file to remove, and what then."""
    spec = small(machines=1, populations=["wsl"])
    swept(spec, tmp_path)
    part = next((tmp_path / "parts").glob("*.parquet"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(BadInput, match="is not a whole part"):
        swept(spec, tmp_path)


def test_a_full_disk_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many parts are kept, and that the same command goes on."""
    import pyarrow.parquet as pq

    write, written = pq.write_table, 0

    def until_full(table: Any, place: Any) -> None:
        nonlocal written
        written += 1
        if written > 2:
            Path(place).write_bytes(b"PAR1")
            raise OSError(28, "No space left on device")
        write(table, place)

    monkeypatch.setattr(pq, "write_table", until_full)
    with pytest.raises(BadInput, match=r"No space left on device.*the 2 parts before it are kept"):
        swept(small(), tmp_path)
    monkeypatch.undo()
    assert sorted(file.name for file in (tmp_path / "parts").iterdir()) == [
        "000000.parquet",
        "000001.parquet",
    ]
    assert swept(small(), tmp_path)["rows"] == 24


@pytest.mark.slow(reason="starts workers")
def test_a_worker_that_dies_takes_nothing_with_it(
    alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is reported, and the same command goes on."""
    pool: Any = ProcessPoolExecutor

    class Deadly(pool):  # type: ignore[misc]
        def submit(self, *arguments: Any, **more: Any) -> Any:
            future = super().submit(*arguments, **more)
            for worker in list(self._processes.values()):
                os.kill(worker.pid, signal.SIGKILL)
            return future

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Deadly)
    words = [
        "sweep",
        "--population",
        "wsl",
        "--fix",
        "none",
        "--machines",
        "2",
        "--output",
        str(tmp_path / "out"),
    ]
    assert run_command([*words, "--jobs", "2"]) == ExitCode.HARNESS_FAULT
    assert "a worker of the sweep died" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_command([*words, "--jobs", "1"]) == ExitCode.AS_EXPECTED


@pytest.mark.slow(reason="starts a Dask cluster")
def test_a_dask_cluster_finds_the_same_though_a_worker_dies(
    alone: dict[str, Any], tmp_path: Path
) -> None:
    """Its part goes to another."""
    distributed = pytest.importorskip(
        "distributed", reason="no dask.distributed: pip install 'meshwake[sweep]'"
    )
    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "dashboard_address": None,
        "processes": True,
    }
    with (
        distributed.LocalCluster(**options) as cluster,
        workers.on_dask(cluster.scheduler_address) as answers,
    ):

        def deadly(todo: list[SweepPart]) -> Iterator[tuple[SweepPart, list[MachineResult]]]:
            for number, answered in enumerate(answers(todo)):
                if number == 0:
                    os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
                yield answered

        assert swept(small(), tmp_path, deadly)["sha256"] == alone["sha256"]


def test_a_missing_scheduler_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to start, and that this machine would do."""
    pytest.importorskip("distributed", reason="no dask.distributed: pip install 'meshwake[sweep]'")
    monkeypatch.setattr(workers, "ANSWERS_WITHIN_S", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        code = run_command(
            ["sweep", "--scheduler", address, "--output", str(tmp_path), "--machines", "1"]
        )
        assert code == ExitCode.LAB_UNAVAILABLE
        assert f"--scheduler {address}: no Dask scheduler answers" in capsys.readouterr().err


def test_without_pyarrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What to install; nothing is begun."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run_command(["sweep", "--output", str(tmp_path / "out")]) == ExitCode.LAB_UNAVAILABLE
    assert "pip install 'meshwake[sweep]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--population", "whales"],
            "invalid value 'whales' for --population: expected one of office-laptop",
        ),
        (["--fix", "prayer"], "invalid value 'prayer' for --fix"),
        (["--lifetime", "1m"], "four minutes or more"),
        (["--istio", "0.1"], "0.1"),
        (["--herd", "ten"], "expected whole numbers"),
        (["--herd", "0"], "expected 1 to"),
    ],
)
def test_bad_words(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused before anything runs."""
    assert (
        run_command(["sweep", *arguments, "--output", str(tmp_path / "out")]) == ExitCode.BAD_INPUT
    )
    assert words in capsys.readouterr().err


def test_parts_cover_every_machine_once() -> None:
    """Also the last one, which may be smaller."""
    spec = small(machines=5)
    covered = [
        (part.population, machine)
        for part in parts(spec)
        for machine in range(part.first, part.last)
    ]
    assert len(covered) == len(set(covered)) == 10
    assert [part.number for part in parts(spec)] == list(range(6))
