"""A helper of the tests that finds something wrong says what."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.trial import Trial


def test_a_failed_assertion_in_a_helper_is_explained() -> None:
    """By pytest, as those of the tests themselves (tests/conftest.py)."""
    trial: Any = object.__new__(Trial)
    with pytest.raises(AssertionError, match="image is 'b', was 'a'"):
        trial.is_as_before({"guard": {"image": "a"}}, {"guard": {"image": "b"}})
