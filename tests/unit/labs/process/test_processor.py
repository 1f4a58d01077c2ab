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


def test_no_processor_is_given_twice_and_a_released_one_is_given_again() -> None:
    """As many as there are, those of other runs not counted; then none; and when one ends, that
    one."""
    from meshwake.labs.process.processor import claim_processor

    everywhere = os.sched_getaffinity(0)
    taken = []
    while (processor := claim_processor()) is not None:
        taken.append(processor)
    numbers = [processor.number for processor in taken]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= everywhere
    if not taken:
        pytest.skip("other runs have all processors")
    last = taken.pop()
    last.close()
    again = claim_processor()
    for processor in taken:
        processor.close()
    if again is not None:  # else another run was quicker
        assert again.number == last.number
        again.bind()
        assert os.sched_getaffinity(0) == {again.number}
        again.close()
