"""A fixture that is each way of moving clocks in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.injectors import AttachedVdso, Injector, RewrittenVdso, Virtual, needs_vdso


@pytest.fixture(
    params=[
        "virtual",
        pytest.param("vdso", marks=needs_vdso),
        pytest.param("attached", marks=needs_vdso),
    ]
)
def injector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Injector]:
    """Every way of moving clocks that this machine has."""
    if request.param == "virtual":
        yield Virtual()
        return
    vdso = RewrittenVdso(tmp_path) if request.param == "vdso" else AttachedVdso()
    yield vdso
    vdso.close()
