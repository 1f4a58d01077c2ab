"""A choice with everything in it, and the pins of the repository."""

from __future__ import annotations

from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.pins import Pins, read_pins


def pins() -> Pins:
    """Those of clusters/stack.toml."""
    return read_pins()


def full_choice(*without: str) -> Choice:
    """The profile "full", parts left out as named."""
    return choose_stack(pins(), profile="full", without_parts=without)
