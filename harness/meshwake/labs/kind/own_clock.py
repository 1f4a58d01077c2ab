"""Checks, before anything is created, whether `--clock engine` would set this machine's clock."""

from __future__ import annotations

from meshwake.clocks.movers.engine import refuse_own_kernel
from meshwake.clocks.movers.node_access import NoAnswer, Way, measure
from meshwake.clocks.movers.own_clock import Own, OwnMachine
from meshwake.cluster.bring_up_context import BringUpContext
from meshwake.cluster.images import fetch_images, machine_image
from meshwake.cluster.stack.render import node_image
from meshwake.cluster.steps import BringUpStep, Watch
from meshwake.core.errors import LabUnavailable
from meshwake.labs.kind.movers import engine_ways

WITHIN_S = 1800


def own_clock_step(own: Own | None = None) -> BringUpStep[BringUpContext]:
    """The step. It needs one image in the engine, the nodes', which the cluster needs anyway."""

    def look(bringup: BringUpContext, watch: Watch) -> None:
        machine = node_image(bringup.choice, bringup.pins)
        fetch_images(bringup, watch, (machine,))
        found = machine_image(bringup.engine, bringup.choice, bringup.pins)
        ways = engine_ways(machine if found is None else found.name)
        try:
            measured = measure(Way(ways.nodes[-1], ways.environment), bringup.name)
        except NoAnswer as error:
            raise LabUnavailable(f"--clock engine: {error}") from error
        refuse_own_kernel(own or OwnMachine(), measured)

    return BringUpStep(
        "own-clock",
        "whose clock --clock engine would set",
        WITHIN_S,
        look,
        ("boot id and monotonic clock of the engine's machine are not those of this one",),
    )
