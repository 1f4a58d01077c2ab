"""One browser for all tests of pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from tests.support.browser import missing_browser, start_browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One for all tests; skipped with the reason where there is none."""
    if reason := missing_browser():
        pytest.skip(reason)
    started = start_browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.quit()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a report goes: not next to the runs that tests make."""
    return tmp_path / "report"
