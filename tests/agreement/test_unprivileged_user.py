"""Lab process needs no right of the machine: it runs as a user who has none, also where the tests
are run by root."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.agreement.conftest import VERSIONS, binary_of
from tests.conformance.injectors import needs_vdso
from tests.support.paths import REPOSITORY
from tests.support.unprivileged_user import NOBODY, refusal, run_as_unprivileged_user, run_scenarios

pytestmark = [needs_vdso, pytest.mark.skipif(refusal() is not None, reason=str(refusal()))]
WITHIN_S = 300
WHO = """
import os, re, sys
rights = re.search(r"^CapEff:\\s*(\\S+)$", open("/proc/self/status").read(), re.MULTILINE)[1]
print(os.geteuid(), int(rights, 16), os.getcwd() == os.environ["HOME"], os.access(os.getcwd(), os.W_OK))
"""


def test_the_user_has_no_rights(tmp_path: Path) -> None:
    """In a home of its own; the interpreter and the checkout are there, and nothing else of what
    root hides."""
    who = run_as_unprivileged_user([sys.executable, "-c", WHO], tmp_path / "home", WITHIN_S)
    assert who.stdout.split() == [
        str(NOBODY if os.geteuid() == 0 else os.geteuid()),
        "0",
        "True",
        "True",
    ], who.stderr
    hidden = tmp_path / "hidden"
    hidden.write_text("")
    sees = "import os, sys; print(*map(os.path.exists, sys.argv[1:]))"
    command = [sys.executable, "-c", sees, str(hidden), str(REPOSITORY / "pyproject.toml")]
    seen = run_as_unprivileged_user(command, tmp_path / "home", WITHIN_S)
    assert seen.stdout.split()[1:] == ["True"], seen.stderr
    if os.geteuid() == 0 and not tmp_path.parent.stat().st_mode & 1:
        assert seen.stdout.split()[0] == "False"
    assert hidden.exists()


def skip_if_forbidden(home: Path) -> None:
    """The system may forbid namespaces to such a user; then the refusal has its reason."""
    made = run_as_unprivileged_user(
        [sys.executable, "-m", "meshwake.labs.process.namespaces"], home, WITHIN_S
    )
    assert made.returncode == 0, made.stderr
    if made.stdout:
        pytest.skip(made.stdout.strip())


def test_it_makes_namespaces(tmp_path: Path) -> None:
    """Network, bridge and moved clocks."""
    skip_if_forbidden(tmp_path / "home")


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_a_real_ztunnel_breaks_for_it_too(version: str, tmp_path: Path) -> None:
    """The scenario of the issue, from start to verdict."""
    skip_if_forbidden(tmp_path / "home")
    issue = REPOSITORY / "scenarios/regressions/ztunnel_1481.toml"
    ended = run_scenarios(issue, binary_of(version), version, tmp_path / "home", WITHIN_S)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["outcome"] == "as expected" and answer["outages"]
