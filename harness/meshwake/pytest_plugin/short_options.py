"""The options of the plugin without their prefix: `pytest scenarios/ --lab model`.

Named in the conftest.py of a project whose tests are scenarios. It is not loaded elsewhere: other
plugins have options such as --profile, too.
"""

from __future__ import annotations

import pytest

from meshwake.runner.flags import add_to_pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """The same values as those with the prefix."""
    add_to_pytest(parser.getgroup("meshwake", "time jumps under a service mesh"), prefix="--")
