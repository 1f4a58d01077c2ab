"""Bringing a cluster up: the list of steps, in order, each of which may be taken again (steps.py).

    preflight      what can be known before anything is changed: all that is wrong is reported at once
    images         every image is in the engine: from a folder of archives, or pulled
    cluster        kind makes the machines; what is half made is made again
    nodes-images   the images are in every node, so that nothing is pulled three times
    statuses       what the cluster says is of now, not of before its machines were stopped or slept (fresh.py)
    helper, guard  images of ours, built and put into every node, where the stack or a run has use for them
    further-images what the fix of a run names, as far as it is at hand
    facts          addresses for load balancers, which no other cluster of kind on that network hands out; a seed
    leftovers      what a run left that was killed; a command that works on the cluster meanwhile is not disturbed
    STAGE...       harness/meshwake/cluster/stack says what goes in and what must be true before the next
    redirection    ambient pods that ztunnel does not see are replaced (redirection.py)
    health         the stack's own promises, checked on the stack (health.py)

What has been put in is written into the cluster itself, in a ConfigMap: a stage is done when that
says so for exactly these pieces, everything of it is ready, and nothing of it was changed since
(drift.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from meshwake.cluster.bring_up_context import BringUpContext
from meshwake.cluster.fresh import fresh_step
from meshwake.cluster.helper_image import own_image_step
from meshwake.cluster.images import further_images_step, images_step, nodes_images_step
from meshwake.cluster.machines import cluster_step, facts_step
from meshwake.cluster.preflight import preflight_step
from meshwake.cluster.redirection import redirection_step
from meshwake.cluster.stack.choice import Choice
from meshwake.cluster.stack.own_images import GUARD, OwnImage
from meshwake.cluster.stack.pieces import Facts
from meshwake.cluster.stack.pins import Pins
from meshwake.cluster.stack.render import stages
from meshwake.cluster.stages import stage_step
from meshwake.cluster.state import Record
from meshwake.cluster.steps import BringUpStep, Watch

# What a plan shows in the place of addresses that depend on the engine's network.
PLANNED_FACTS = Facts(pool="172.18.255.200-172.18.255.249")


def steps_of(
    choice: Choice,
    pins: Pins,
    before: tuple[BringUpStep[BringUpContext], ...] = (),
    own_images: Iterable[OwnImage] = (),
    further_images: tuple[str, ...] = (),
) -> tuple[BringUpStep[BringUpContext], ...]:
    """All steps of `up`, in order. `before`: further ones that are taken before anything is made;
    `own_images`: those that are wanted in every node in addition to what the stack itself needs;
    `further_images`: others, by name, which the nodes may pull where they are not at hand."""
    # Profile full has a guard that only looks.
    of_stack = [GUARD] if "observability" in choice.parts else []
    return (
        preflight_step(choice, pins),
        *before,
        images_step(choice, pins),
        cluster_step(choice, pins),
        fresh_step(),
        nodes_images_step(choice, pins),
        *map(own_image_step, dict.fromkeys([*of_stack, *own_images])),
        *([further_images_step(further_images)] if further_images else []),
        facts_step(),
        _leftovers_step(),
        *(stage_step(stage) for stage in stages(choice, pins, PLANNED_FACTS)),
        *([redirection_step()] if "istio" in choice.parts else []),
        _health_step(),
    )


# Leftovers and health


def _leftovers_step() -> BringUpStep[BringUpContext]:
    return BringUpStep(
        "leftovers",
        "what a run left that was killed is undone",
        900,
        _undo,
        (
            "workloads of runs are removed; settings of ztunnel and istiod that a run "
            "changed are restored",
        ),
    )


def _undo(bringup: BringUpContext, watch: Watch) -> None:
    for line in bringup.dependencies.undo(bringup):
        watch.say(line)


def _health_step() -> BringUpStep[BringUpContext]:
    return BringUpStep(
        "health",
        "the stack keeps its own promises",
        300,
        _look_at_health,
        (
            "the chained CNI file, Cilium's settings, HBONE, address, Gateway and waypoint "
            "are looked at",
        ),
    )


def _look_at_health(bringup: BringUpContext, watch: Watch) -> None:
    """Looked at again for a while: a route that is programmed answers a moment later."""
    watch.wait_for(
        "a healthy stack", lambda: "\n".join(bringup.dependencies.health(bringup)) or None
    )

    # From here on the cluster counts as up: find_cluster looks at this time.
    record = bringup.state.read()
    if record is not None:
        bringup.state.write(
            Record(
                record.name, record.choice, record.begun_wall_s, int(bringup.dependencies.wall_s())
            )
        )
