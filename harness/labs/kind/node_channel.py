"""The way to the helper of each node (clusters/helper/), which moves the clocks of programs there.

The helper is a privileged pod on every node. Its image is built from this repository and loaded into the nodes: no
registry has it. It is put in when a run asks for --clock process, and stays in a cluster of ours; from one that is not
it is taken away again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from harness.clocks.process_mover import ProcessMover
from harness.errors import LabUnavailable, SubjectFailed
from harness.kubernetes.api import Kubernetes, Unreachable
from harness.labs.kind.clocks import RealTime
from harness.labs.kind.helper_image import DOCKERFILE, helper_image
from harness.labs.kind.reset import wait_for
from harness.plan import Plan
from harness.stack.pieces import read_objects

NAMESPACE, LABELS, CONTAINER = "meshwake-helper", {"app.kubernetes.io/name": "node-helper"}, "helper"
SOCKET = "/run/meshwake/clocks.sock"
# Longer than the 120 s within which the helper's own `send` gives up.
ANSWERS_WITHIN_S = 135.0
HELPER_WITHIN_S = 90.0


class PodChannel:
    """A NodeChannel (clocks/process_mover.py) by exec into the helper's pod. `node_names`: plan node -> Kubernetes'."""

    def __init__(self, kubernetes: Kubernetes, node_names: Mapping[str, str]) -> None:
        self._kubernetes, self._node_names = kubernetes, node_names

    def send(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """See NodeChannel."""
        try:
            pods = self._kubernetes.pods(NAMESPACE, LABELS)
            pod = next((pod for pod in pods if pod.node == self._node_names[node]), None)
            if pod is None:
                raise LabUnavailable(f"node {node}: no helper runs on {self._node_names[node]}; see {NAMESPACE}")
            command = ["python3", "-m", "harness.clocks.node_helper", "send", "--socket", SOCKET, json.dumps(request)]
            ended = self._kubernetes.execute(pod, CONTAINER, command, ANSWERS_WITHIN_S)
        except Unreachable as error:
            raise LabUnavailable(f"node {node}: its helper cannot be reached: {error}") from error
        try:
            answer: dict[str, Any] = json.loads(ended.stdout)
        except ValueError as error:
            said = (ended.stdout + ended.stderr).strip()[-300:]
            raise LabUnavailable(f"node {node}: the helper gave no answer (exit code {ended.code}): {said}") from error
        return answer


def install_helper(kubernetes: Kubernetes, real: RealTime, nodes: set[str], cluster: str) -> None:
    """Puts the helper in, and waits for it on `nodes` (Kubernetes'). Raises LabUnavailable with what to do."""
    image = helper_image()
    kubernetes.apply(read_objects("helper", "daemonset.yaml"))

    def look() -> tuple[bool | None, str]:
        ready = {pod.node for pod in kubernetes.pods(NAMESPACE, LABELS) if pod.ready}
        return (True if nodes <= ready else None), f"ready on {', '.join(sorted(ready)) or 'none'}"

    try:
        wait_for("the helpers that move clocks", real, HELPER_WITHIN_S, look)
    except SubjectFailed as error:
        raise LabUnavailable(
            f"{error}; its image is in no registry: build it and bring it onto the nodes of {cluster}, from the root "
            f"of this repository: docker build --file {DOCKERFILE} --tag {image} ."
        ) from error


class HelpedMover(ProcessMover):
    """A ProcessMover that does `before` it prepares (the helpers are put in) and `after` it has let go."""

    def __init__(self, plan: Plan, channel: PodChannel, before: Callable[[], None], after: Callable[[], None]) -> None:
        super().__init__(plan, channel)
        self._before, self._after = before, after

    def prepare(self) -> None:
        """See Mover."""
        self._before()
        super().prepare()

    def release(self) -> None:
        """See Mover."""
        try:
            super().release()
        finally:
            self._after()
