"""The GitHub Action of this repository: every `run` step of action.yml is executed by bash, as GitHub
executes it, against a repository of three files.

What other actions do (setup-python, upload-artifact) is left out. The install step installs the
wheel with pip; what it depends on is linked, since nothing is downloaded here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.wheel.installed import link_packages
from tests.support.paths import REPOSITORY
from tests.support.scenarios import SURPRISING, small, write

WITHIN_S = 300
ACTION: dict[str, Any] = yaml.safe_load((REPOSITORY / "action.yml").read_text(encoding="utf-8"))
OPTIONS = ("--noprofile", "--norc", "-eo", "pipefail", "-c")  # as `shell: bash` has them


@dataclass
class Job:
    """A job on a machine of GitHub, as far as a composite action sees it."""

    root: Path
    dependencies: Path
    inputs: Mapping[str, str]
    # As setup-python says it.
    outputs: dict[str, dict[str, str]] = field(
        default_factory=lambda: {"python": {"python-path": sys.executable}}
    )
    log: str = ""

    def execute(self, only: str | None = None) -> int:
        """All steps in order until one fails; its exit code, or 0. `only`: the step of that id."""
        for name in ("path", "env", "summary"):
            self.file(name).touch()
        for step in ACTION["runs"]["steps"]:
            if "run" in step and only in (None, step.get("id")):
                code = self._step(step)
                if code != 0:
                    return code
        return 0

    def file(self, name: str) -> Path:
        """One of the files by which steps pass something to the job."""
        return self.root / f"github-{name}"

    def _step(self, step: dict[str, Any]) -> int:
        output = self.file("output")
        output.write_text("")
        variables = {name: self._expand(value) for name, value in step.get("env", {}).items()}
        done = subprocess.run(
            ["bash", *OPTIONS, step["run"]],
            cwd=self.root / "repository",
            env=self._environment(output) | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=WITHIN_S,
        )
        self.log += done.stdout + done.stderr
        pairs = (line.partition("=")[::2] for line in output.read_text().splitlines())
        self.outputs[step.get("id", "")] = dict(pairs)
        return done.returncode

    def _environment(self, output: Path) -> dict[str, str]:
        added = self.file("path").read_text().split()
        programs = [*reversed(added), os.environ["PATH"]]
        return {
            "PATH": ":".join(programs),
            "HOME": str(self.root),
            "RUNNER_TEMP": str(self.root),
            "GITHUB_ACTIONS": "true",
            "GITHUB_PATH": str(self.file("path")),
            "GITHUB_ENV": str(self.file("env")),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(self.file("summary")),
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PYTHONPATH": str(self.dependencies),
        }

    def _expand(self, value: str) -> str:
        """The expressions that the action uses."""

        def replaced(found: re.Match[str]) -> str:
            kind, _, rest = found[1].partition(".")
            if kind == "inputs":
                return self.inputs.get(rest, ACTION["inputs"][rest]["default"])
            if kind == "steps":
                step, _, output = rest.partition(".outputs.")
                return self.outputs[step][output]
            assert found[1] == "github.action_path"
            return str(REPOSITORY)

        return re.sub(r"\$\{\{ (.+?) \}\}", replaced, value)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A workflow, and two scenarios: one holds, one comes out otherwise than expected."""
    root = tmp_path / "repository"
    write(root / "scenarios", small(), name="holds")
    write(root / "scenarios", SURPRISING, name="breaks")
    workflow = root / ".github" / "workflows" / "mesh.yml"
    workflow.parent.mkdir(parents=True)
    page = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    workflow.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    return root


def added_programs(job: Job) -> list[Path]:
    """What a later step of the job finds in PATH and did not before."""
    directories = job.file("path").read_text().split()
    return [program for each in directories for program in Path(each).iterdir()]


@pytest.mark.slow(reason="pip installs the wheel into an environment that the action makes")
def test_the_steps_of_the_action(wheel: Path, tmp_path: Path, repository: Path) -> None:
    """Installed, run, reported, and failed at the end because one scenario surprised."""
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    link_packages(wheel, dependencies, ["report"])
    job = Job(tmp_path, dependencies, {"requirement": str(wheel), "lab": "model"})
    code = job.execute()
    assert code == 1, job.log
    assert job.outputs["run"] == {"artifact": "meshwake-report", "exit-code": "1"}
    assert [each.name for each in added_programs(job)] == ["meshwake"]
    names = {file.name for file in (repository / "meshwake-report").iterdir()}
    assert {"index.html", "compare.html", "junit.xml", "summary.md"} <= names
    summary = job.file("summary").read_text()
    assert summary.startswith("### meshwake: 2 runs: 1 as expected, 1 not as expected")
    (annotation,) = [line for line in job.log.splitlines() if line.startswith("::error ")]
    assert "file=scenarios/breaks.toml" in annotation
    (run,) = (repository / "meshwake-report" / "meshwake-runs").glob("*/*")
    assert f"evidence: {run.relative_to(repository / 'meshwake-report')}" in job.log
    assert (run / "history.jsonl").is_file()


@pytest.mark.parametrize(
    ("report", "name"),
    [
        ("out/mesh", "out-mesh"),
        ("./out/mesh/", "out-mesh"),
        ("/tmp/mesh", "tmp-mesh"),  # noqa: S108 # nothing is written there
        (".mesh", ".mesh"),
        ('out\\a "b":<c>|*?', "out-a -b---c----"),
    ],
)
def test_an_artifact_is_named_after_the_directory(tmp_path: Path, report: str, name: str) -> None:
    """upload-artifact refuses names with any of these characters."""
    (tmp_path / "repository").mkdir()
    job = Job(tmp_path, tmp_path, {"report": report})
    program = tmp_path / "meshwake"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    job.file("path").write_text(f"{tmp_path}\n")
    assert job.execute("run") == 0, job.log
    assert job.outputs["run"]["artifact"] == name


def test_the_workflow_of_the_documents_uses_what_the_action_has(repository: Path) -> None:
    """Every input is one of action.yml, and every input of action.yml is in the table."""
    workflow = yaml.safe_load((repository / ".github/workflows/mesh.yml").read_text())
    (step,) = [
        each
        for each in workflow["jobs"]["time-jumps"]["steps"]
        if "/meshwake@" in each.get("uses", "")
    ]
    assert set(step["with"]) <= set(ACTION["inputs"])
    page = (REPOSITORY / "docs" / "ci.md").read_text(encoding="utf-8")
    for name, described in ACTION["inputs"].items():
        assert f"| `{name}` |" in page
        assert described["description"] and "default" in described


def test_the_python_of_the_job_stays_its_own() -> None:
    """Else later steps of the job would run on the Python of meshwake, and install into it."""
    (setup,) = [step for step in ACTION["runs"]["steps"] if "setup-python" in step.get("uses", "")]
    assert setup["with"]["update-environment"] is False


def test_actions_that_it_uses_have_a_version() -> None:
    """As in the workflows of this repository."""
    uses = [step["uses"] for step in ACTION["runs"]["steps"] if "uses" in step]
    assert uses
    for each in uses:
        assert re.fullmatch(r"actions/[\w-]+@v\d+", each)
