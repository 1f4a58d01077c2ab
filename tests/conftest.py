"""Every test keeps its runs to itself and starts from an empty cache of binaries, whatever the
machine has."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from meshwake.runner.flags import RunFlags, declared_in

# pytest explains a failed assertion (`assert differences == []`: which ones) in tests and conftests
# alone, unless others are registered here. A run of minutes on a cluster once failed with
# "AssertionError" and nothing else, in a helper of its test.
pytest.register_assert_rewrite(
    *(f"tests.{folder.name}" for folder in Path(__file__).parent.iterdir() if folder.is_dir())
)

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("meshwake", deadline=None)
settings.load_profile("meshwake")


# Once for all tests: to read the annotations takes a millisecond; for each test it was a tenth of `make check`.
_VARIABLES = [each.flag.variable for each in declared_in(RunFlags) if each.flag.variable]


@pytest.fixture(autouse=True)
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHWAKE_RUNS", str(tmp_path / "runs"))
    # Defaults of the person who runs the tests.
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without a binary: `auto` is the model then, on every machine."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("MESHWAKE_CACHE", str(cache))
    return cache


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test says why it cannot be quicker; else `make check` would only ever lose tests."""
    without = {
        item.nodeid
        for item in items
        for mark in item.iter_markers("slow")
        if not mark.kwargs.get("reason")
    }
    if without:
        raise pytest.UsageError(f"slow without reason=...: {', '.join(sorted(without))}")
