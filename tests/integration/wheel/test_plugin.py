"""The plugin from the wheel, in a user's project: found by its entry point, without side
effects."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest

from tests.integration.wheel.installed import Installed
from tests.support.paths import DOCS
from tests.support.scenarios import SURPRISING, small, write

PAGE = (DOCS / "pytest.md").read_text(encoding="utf-8")


@pytest.fixture
def own(project: Installed) -> Iterator[Installed]:
    """An empty project each time."""
    yield project
    for path in project.work.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_the_examples_of_the_page_run(own: Installed) -> None:
    """Those of the fixture, with the settings that the page shows, and no conftest. Those that need
    Hypothesis, which is another extra, run in tests/unit/test_pytest_plugin.py."""
    code, with_hypothesis = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "hypothesis" in with_hypothesis
    (settings,) = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    (own.work / "test_mesh.py").write_text(code)
    (own.work / "pytest.ini").write_text(settings)
    done = own.run("pytest", "-q")
    assert f"{code.count('def test_')} passed" in done.stdout, done.stdout


def test_a_lab_of_their_own_is_held_to_the_promises(own: Installed) -> None:
    """The lab and the tests of the page, with the suite from the wheel."""
    _, lab, tests = re.findall(
        r"```python\n(.*?)```", (DOCS / "labs.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (own.work / "my_lab.py").write_text(lab)
    (own.work / "test_my_lab.py").write_text(tests)
    (own.work / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = own.run("pytest", "-q")
    assert "12 passed, 1 skipped" in done.stdout, done.stdout


def test_scenarios_are_collected(own: Installed) -> None:
    """With the option, and the rest of a surprise."""
    write(own.work / "scenarios", small(), "good")
    write(own.work / "scenarios", SURPRISING, "bad")
    done = own.run("pytest", "scenarios", "--meshwake-lab", "model")
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "repeat:   meshwake run scenarios/bad.toml" in done.stdout


def test_other_projects_keep_their_options_and_files(own: Installed) -> None:
    """No option without a prefix, no pytest-kubernetes, no TOML that is not a scenario."""
    (own.work / "scenarios").mkdir()
    (own.work / "scenarios" / "theirs.toml").write_text("title = 'a game'\n")
    (own.work / "conftest.py").write_text(
        "def pytest_addoption(parser):\n"
        "    for name in ('--profile', '--lab', '--name', '--context', '--seed'):\n"
        "        parser.addoption(name, dest=name.strip('-'))\n"
    )
    (own.work / "test_theirs.py").write_text("def test_theirs(): pass\n")
    done = own.run("pytest")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    helped = own.run("pytest", "--help").stdout
    assert "--meshwake-kubernetes" in helped
    assert not re.search(r"^ +--(k8s|kubeconfig|report|clock)", helped, re.MULTILINE)


def test_naming_it_in_a_conftest_as_well(own: Installed) -> None:
    """As before there was an entry point; then the short options are there, too."""
    (own.work / "conftest.py").write_text(
        'pytest_plugins = ["meshwake.pytest_plugin", "meshwake.pytest_plugin.short_options"]\n'
    )
    write(own.work / "scenarios", small(), "good")
    done = own.run("pytest", "scenarios", "--lab", "model")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("@pytest.mark.mesh(lifetme='10m')\ndef test(mesh): pass", "did you mean 'lifetime'?"),
        ("def test(mesh): mesh.run([8])", "expected '8h', seconds, or hours=8"),
        (
            "def test(mesh):\n mesh.run('1h')\n mesh.assert_holds('trafic_flows')",
            "did you mean 'traffic_flows'?",
        ),
        (
            "def test(mesh):\n mesh.run('1h')\n mesh.assert_broken('traffic_flows')",
            "traffic_flows is HOLDS, expected BROKEN",
        ),
    ],
)
def test_mistakes(own: Installed, body: str, message: str) -> None:
    """Each fails its test with the words that are allowed."""
    (own.work / "test_own.py").write_text(f"import pytest\n{body}\n")
    done = own.run("pytest", "--meshwake-lab", "model")
    assert done.returncode == 1
    assert message in done.stdout, done.stdout


def test_a_wrong_setting_is_refused_once(own: Installed) -> None:
    """Before anything is collected."""
    (own.work / "pytest.ini").write_text("[pytest]\nmeshwake_lab = modle\n")
    done = own.run("pytest")
    assert done.returncode == 4
    assert "did you mean 'model'?" in done.stderr
