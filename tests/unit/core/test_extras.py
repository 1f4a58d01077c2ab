from __future__ import annotations

import sys
import tomllib

import pytest
from meshwake.core import extras
from meshwake.core.errors import ExitCode, LabUnavailable
from meshwake.core.extras import EXTRAS, lacking_of, missing_extra, require
from meshwake.labs import load_lab

from tests.support.paths import REPOSITORY


def test_the_extras_are_those_of_the_package() -> None:
    """A message never names one that pip does not know."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"])


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_missing_is_one_sentence(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it, and exit code 4."""
    purpose, modules = EXTRAS[extra]
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LabUnavailable) as refused:
        require(extra)
    assert refused.value.exit_code is ExitCode.LAB_UNAVAILABLE
    assert str(refused.value).startswith(
        f"the Python module {modules[0]} is not installed, and needed for {purpose}: "
    )
    assert f"pip install 'meshwake[{extra}]'" in str(refused.value)


def test_in_a_checkout_the_target_of_make_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """There pip would install another meshwake."""
    assert "make develop" in extras.how_to_install("kind")
    monkeypatch.setattr(extras, "is_checkout", lambda: False)
    assert extras.how_to_install("kind") == "pip install 'meshwake[kind]'"


def test_a_module_of_no_extra_is_a_defect() -> None:
    """No message hides it."""
    assert missing_extra(ModuleNotFoundError(name="meshwake.nowhere")) is None
    assert missing_extra(ImportError()) is None
    assert "meshwake[machine]" in str(missing_extra(ModuleNotFoundError(name="qemu.qmp")))


def test_a_lab_without_its_extra_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As any lab says why it cannot run here; `doctor` and a refused case show it."""
    monkeypatch.setitem(sys.modules, "qemu", None)
    (reason,) = load_lab("machine").missing(None)
    assert reason == lacking_of("machine")
