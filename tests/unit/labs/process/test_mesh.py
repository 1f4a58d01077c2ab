"""The order of things within one moment, where a busy machine once showed that it matters."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the process lab is for Linux")


def test_the_authority_is_awake_before_the_ztunnels_of_its_node() -> None:
    """A ztunnel requests what is overdue the moment it runs; an authority still set to refuse would
    refuse it."""
    from meshwake.labs.process.mesh import ProcessMesh

    order: list[str] = []
    watched = SimpleNamespace(resume=lambda: order.append("ztunnel"))
    mesh: Any = SimpleNamespace(
        _stopped_nodes={"vm"},
        set_authority_mode=lambda: order.append("authority"),
        _ztunnels_on=lambda node: [SimpleNamespace(watched=watched)],
        recording=SimpleNamespace(settle=lambda: order.append("settled")),
    )
    ProcessMesh.resume_node(mesh, "vm")
    assert order == ["authority", "ztunnel", "settled"]
    assert mesh._stopped_nodes == set()
