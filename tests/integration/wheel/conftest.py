from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.integration.wheel.installed import Installed, build_wheel, install


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once for all tests."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("no hatchling to build the wheel with: make develop")
    if sys.platform == "win32":
        pytest.skip("packages are linked into the new environment, which Windows does not allow")
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """`pip install meshwake`."""
    return install(wheel, tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """`pip install 'meshwake[pytest]'` in a user's project."""
    return install(wheel, tmp_path_factory.mktemp("project"), extras=["pytest"])


@pytest.fixture(scope="session")
def everything(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """With every extra that is installed here."""
    from meshwake.core.extras import EXTRAS, lacking_of

    here = [extra for extra in EXTRAS if lacking_of(extra) is None]
    return install(wheel, tmp_path_factory.mktemp("everything"), extras=here)
