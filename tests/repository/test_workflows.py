"""The workflows: well-formed by actionlint, thin, and their scripts do what they say, with a gh of
the test's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.cli.app import app
from meshwake.ztunnel.binaries import cache_dir
from typer.testing import CliRunner

from tests.support.paths import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
SCRIPTS = tuple(
    REPOSITORY / ".github" / name
    for name in (
        "nightly-issue",
        "nightly-binaries",
        "nightly-machine",
        "nightly-engine",
        "release-guard",
        "release-wheel",
        "release-notes",
    )
)
# What a job of a workflow may have beyond reading the repository.
MAY_HAVE = {
    "ci": {"contents"},
    "nightly": {"contents", "issues"},
    "release": {"contents", "packages", "id-token", "attestations"},
}


def actionlint() -> str | None:
    """On PATH, or where `go install` puts it."""
    return shutil.which("actionlint") or shutil.which(
        "actionlint", path=str(Path.home() / "go" / "bin")
    )


def read(name: str) -> dict[Any, Any]:
    """A workflow, by the name of its file."""
    path = REPOSITORY / ".github" / "workflows" / f"{name}.yml"
    workflow: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return workflow


def needs_of(job: dict[str, Any]) -> set[str]:
    """The jobs that it waits for; YAML allows one name or a list."""
    needs = job.get("needs", [])
    return {needs} if isinstance(needs, str) else set(needs)


def runs_of(job: dict[str, Any]) -> list[str]:
    """What its steps run."""
    return [step["run"] for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_has_nothing_to_say(path: Path) -> None:
    """Keys, expressions, shell."""
    program = actionlint()
    if program is None:
        pytest.skip("no actionlint (go install github.com/rhysd/actionlint/cmd/actionlint@latest)")
    done = subprocess.run(
        [program, "-no-color", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_yaml_that_says_when_and_what(path: Path) -> None:
    """Also without actionlint: every job has a bound and few rights, every action has a
    version, and a job waits for jobs that exist."""
    workflow = read(path.stem)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] > 0
        assert set(job.get("permissions", {})) <= MAY_HAVE[path.stem]
        assert needs_of(job) <= set(workflow["jobs"])
        for step in job["steps"]:
            assert "uses" in step or "run" in step
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", step.get("uses", "x/y@v1"))


def test_an_action_has_one_version_everywhere() -> None:
    """Also in action.yml and in the workflow that users copy: one that is raised in a single place
    runs on a Node that GitHub removes elsewhere."""
    places = [*WORKFLOWS, REPOSITORY / "action.yml", REPOSITORY / "docs" / "ci.md"]
    versions: dict[str, set[str]] = {}
    for place in places:
        for name, version in re.findall(r"uses: ([\w./-]+)@(\S+)", place.read_text("utf-8")):
            versions.setdefault(name, set()).add(version)
    assert {"actions/checkout", "actions/setup-python", "actions/upload-artifact"} <= set(versions)
    assert {name for name, found in versions.items() if len(found) > 1} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_script_that_a_workflow_runs_exists(path: Path) -> None:
    """Below .github or .ci, and executable or named after bash."""
    for job in read(path.stem)["jobs"].values():
        for run in runs_of(job):
            for script in re.findall(r"\.(?:github|ci)/[\w-]+", run):
                assert (REPOSITORY / script).is_file(), script


def test_a_release_is_published_only_after_everything_was_tried() -> None:
    """Only a tag begins one; each job that publishes waits, in the end, for the trials of the
    wheel; and only those jobs may write."""
    workflow = read("release")
    # YAML 1.1 reads `on` as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    jobs = workflow["jobs"]

    def waits_for(name: str) -> set[str]:
        direct = needs_of(jobs[name])
        return direct.union(*(waits_for(each) for each in direct))

    writing = {
        name
        for name, job in jobs.items()
        if any(right == "write" for right in job.get("permissions", {}).values())
    }
    assert writing == {"images", "pypi", "page"}
    for name in writing:
        assert {"build", "try"} <= waits_for(name)


def test_a_release_is_attested_and_has_no_token() -> None:
    """What is published has a record of where it was built; PyPI is reached by trusted
    publishing."""
    jobs = read("release")["jobs"]
    for name in ("images", "pypi"):
        uses = [step.get("uses", "").partition("@")[0] for step in jobs[name]["steps"]]
        assert "actions/attest-build-provenance" in uses
        assert jobs[name]["permissions"]["id-token"] == "write"
    (publish,) = [step for step in jobs["pypi"]["steps"] if "pypi-publish" in step.get("uses", "")]
    assert "with" not in publish  # neither user nor password
    text = (REPOSITORY / ".github/workflows/release.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"secrets\.(\w+)", text)) <= {"GITHUB_TOKEN"}


def test_images_of_a_release_are_built_as_their_files_say() -> None:
    """Each Dockerfile exists, and names the context that the workflow builds it in."""
    for image in read("release")["jobs"]["images"]["strategy"]["matrix"]["include"]:
        text = (REPOSITORY / image["file"]).read_text(encoding="utf-8")
        assert re.search(
            rf"docker build -f {re.escape(image['file'])} .* {re.escape(image['context'])}$",
            text,
            re.MULTILINE,
        )


def test_a_release_names_the_image_of_the_guard_by_its_digest(tmp_path: Path) -> None:
    """In the manifest that users apply, and so in the chart and in the wheel; what is not an image
    with a digest is refused."""
    helm = shutil.which("helm", path=f"{cache_dir() / 'tools' / 'bin'}:{os.environ['PATH']}")
    if helm is None:
        pytest.skip("no helm (make tools)")
    for name in (".github", "clusters/fixes/wake-guard"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    image = f"ghcr.io/owner/meshwake/wake-guard:v7.0.0@sha256:{'a' * 64}"
    environment = {**os.environ, "PATH": f"{Path(helm).parent}:{os.environ['PATH']}"}

    def released(image: str) -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / ".github" / "release-guard"), "out", image]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    refused = released(image.partition("@")[0])
    assert (
        refused.returncode == 1
        and "expected an image with its tag and its digest" in refused.stderr
    )
    assert released(image).returncode == 0
    *_, daemon_set = yaml.safe_load_all((tmp_path / "out" / "wake-guard.yaml").read_text())
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    assert container["image"] == image
    (chart,) = (tmp_path / "out").glob("wake-guard-*.tgz")
    rendered = subprocess.run(
        [helm, "template", "x", str(chart), "--kube-version=1.34.0"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"image: {image}" in rendered.stdout


def release_notes(version: str) -> subprocess.CompletedProcess[str]:
    """What .github/release-notes prints about a version."""
    return subprocess.run(
        [str(REPOSITORY / ".github" / "release-notes"), version],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    """And a version without one is not released."""
    done = release_notes("0.1.0")
    assert done.returncode == 0 and "fixes" in done.stdout and "## " not in done.stdout
    done = release_notes("9.9.9")
    assert done.returncode == 1 and "no section" in done.stderr


def test_a_wheel_is_built_for_the_tag_it_is_of(tmp_path: Path) -> None:
    """A tag that does not say what pyproject.toml says ends before anything is built."""
    done = subprocess.run(
        [str(REPOSITORY / ".github" / "release-wheel"), str(tmp_path / "dist"), "9.9.9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the tag is of 9.9.9" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_the_nightly_workflow_only_calls_make() -> None:
    """What it runs anybody can run at home, on the labs that `meshwake nightly` knows."""
    text = (REPOSITORY / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    job = workflow["jobs"]["night"]
    runs = runs_of(job)
    assert sum("make nightly" in run for run in runs) == 1
    assert sum("meshwake" in run for run in runs) == 0
    assert job["strategy"]["matrix"]["lab"] == ["model", "process", "machine", "kind"]
    assert 'exit "$(cat night/exit_code)"' in text


def test_the_nightly_cluster_is_what_make_brings_up_and_tries() -> None:
    """By the words of `meshwake up` and of pytest, read as they read them; its histories are
    uploaded."""
    workflow = yaml.safe_load(
        (REPOSITORY / ".github" / "workflows" / "nightly.yml").read_text(encoding="utf-8")
    )
    job = workflow["jobs"]["cluster"]
    (line,) = [run for run in runs_of(job) if run.startswith("make cluster")]
    completed = subprocess.run(
        [*shlex.split(line), "--dry-run", "-o", ".venv/.set-up-develop"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    up, tried = (line for line in completed.stdout.splitlines() if "/bin/" in line)
    ended = CliRunner().invoke(app, [*shlex.split(up)[1:], "--dry-run"])
    assert ended.exit_code == 0 and ended.output.startswith("up meshwake-night"), ended.output
    settings = [word for word in shlex.split(tried) if word.startswith("MESHWAKE_")]
    assert settings == ["MESHWAKE_TEST_CLUSTER=night", "MESHWAKE_TEST_RUNS=night/runs"]
    (upload,) = [
        step["with"]["path"] for step in job["steps"] if "upload-artifact" in step.get("uses", "")
    ]
    assert upload == "night"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_and_executable(script: Path) -> None:
    """bash reads them without complaint."""
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


GH = """\
#!/bin/sh
echo "$@" >>"$GH_CALLS"
case "$1 $2" in "issue list") printf '%s' "$GH_OPEN";; esac
"""


@pytest.mark.parametrize(
    ("action", "open_issue", "calls"),
    [
        ("open", "", ["label create nightly", "issue create --label nightly --title Two findings"]),
        ("open", "7", ["issue edit 7 --title Two findings"]),
        ("close", "7", ["issue close 7"]),
        ("close", "", []),
        ("leave", "7", []),
        ("leave", "", []),
    ],
)
def test_the_issue_is_opened_updated_and_closed(
    action: str, open_issue: str, calls: list[str], tmp_path: Path
) -> None:
    """One issue a lab: opened by the first surprise, edited while there is one, closed when all was
    seen to be well."""
    (tmp_path / "issue").mkdir()
    for name, text in (("action", action), ("title", "Two findings"), ("body.md", "The page.")):
        (tmp_path / "issue" / name).write_text(f"{text}\n")
    gh, log = tmp_path / "gh", tmp_path / "calls"
    gh.write_text(GH)
    gh.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "GH_CALLS": str(log),
        "GH_OPEN": open_issue,
    }
    subprocess.run(
        [str(SCRIPTS[0]), str(tmp_path), "nightly"],
        check=True,
        env=environment,
        capture_output=True,
    )
    first, *others = log.read_text().splitlines()
    assert first.startswith("issue list --label nightly --state open")
    assert len(others) == len(calls)
    for call, wanted in zip(others, calls, strict=True):
        assert call.startswith(wanted)


def test_a_night_that_left_nothing_opens_nothing(tmp_path: Path) -> None:
    """It failed before it could say anything; its log says why."""
    done = subprocess.run(
        [str(SCRIPTS[0]), str(tmp_path), "nightly"], capture_output=True, text=True, check=True
    )
    assert "nothing is known of this night" in done.stderr
