"""The order of things within one moment, where a busy machine once showed that it matters."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the process lab is for Linux")


def test_the_authority_is_awake_before_the_ztunnels_of_its_node() -> None:
    """A ztunnel asks for what is overdue the moment it runs; an authority still told to be away
    would refuse it."""
    from meshwake.labs.process.world import World

    order: list[str] = []
    watched = SimpleNamespace(resume=lambda: order.append("ztunnel"))
    world: Any = SimpleNamespace(
        _stopped_nodes={"vm"},
        _set_authority_mode=lambda: order.append("authority"),
        _ztunnels_on=lambda node: [SimpleNamespace(watched=watched)],
        _settle=lambda: order.append("settled"),
    )
    World._resume_node(world, "vm")
    assert order == ["authority", "ztunnel", "settled"]
    assert world._stopped_nodes == set()
