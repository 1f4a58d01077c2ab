from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from meshwake.cli.app import run_command
from meshwake.runner import doctor

from tests.unit.ztunnel.test_binaries import put


def healthy(monkeypatch: pytest.MonkeyPatch, reasons: list[str]) -> None:
    """Makes every lab say `reasons`, on a system that is Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(doctor, "_missing", lambda _name, _ztunnel: list(reasons))


def lab_of(health: doctor.Health, name: str) -> doctor.LabHealth:
    return next(lab for lab in health.labs if lab.lab == name)


@pytest.mark.usefixtures("empty_cache")
def test_without_a_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model runs; the process lab says where to put a binary, before what else is missing."""
    healthy(monkeypatch, [])
    health = doctor.examine()
    assert lab_of(health, "model").can_run
    assert "no ztunnel binary in the cache; put one at" in lab_of(health, "process").reasons[0]
    assert health.auto == "model"


def test_with_a_binary(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    """Then the process lab is what auto chooses."""
    healthy(monkeypatch, [])
    path = put(empty_cache, "1.28.0")
    health = doctor.examine()
    assert health.ztunnels == (("1.28.0", str(path)),)
    assert health.auto == "process"


@pytest.mark.usefixtures("empty_cache")
def test_elsewhere_than_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process lab is not imported, only named."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert lab_of(doctor.examine(), "process").reasons == ("needs Linux; --lab model runs here",)


def test_a_lab_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a finding, not an error."""

    def fail(_: str) -> None:
        raise ImportError("no such library")

    monkeypatch.setattr(doctor, "load_lab", fail)
    assert lab_of(doctor.examine(), "model").reasons == (
        "could not be examined: ImportError: no such library",
    )


def test_never_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Exit 0, whatever is missing on this machine, for people and for programs."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    assert run_command(["doctor"]) == 0
    assert "--lab auto would choose" in capsys.readouterr().out
    assert run_command(["doctor", "--json"]) == 0
    labs = {lab["lab"]: lab["can_run"] for lab in json.loads(capsys.readouterr().out)["labs"]}
    assert labs["model"] is True
    assert labs["kind"] is False
