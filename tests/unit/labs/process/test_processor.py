"""Each run has a processor of its own while there are enough."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="binding to a processor is Linux's")


@pytest.fixture(autouse=True)
def _unbound_afterwards() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_no_processor_is_given_twice_and_one_let_go_is_given_again() -> None:
    """As many as there are, those of other runs not counted; then none; and when one ends, that one."""
    from harness.labs.process.processor import take_processor

    everywhere = os.sched_getaffinity(0)
    taken, bound = [], set[int]()
    while (sign := take_processor()) is not None:
        taken.append(sign)
        assert len(os.sched_getaffinity(0)) == 1
        assert not os.sched_getaffinity(0) & bound
        bound |= os.sched_getaffinity(0)
        os.sched_setaffinity(0, everywhere)
    assert len(taken) <= len(everywhere)
    assert os.sched_getaffinity(0) == everywhere
    if not taken:
        pytest.skip("other runs have all processors")
    last = taken.pop()
    last.close()
    again = take_processor()
    for sign in taken:
        sign.close()
    if again is not None:  # else another run was quicker
        assert os.sched_getaffinity(0) <= everywhere
        again.close()
