"""The way to the helper of each node (clusters/helper/), which moves the clocks of programs there.

The helper is a privileged pod on every node. Its image is built from this repository and loaded
into the nodes: no registry has it. It is put in when a run asks for --clock process, and stays in a
cluster of ours; from one that is not it is taken away again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meshwake.clocks.movers.lapse import LapseMover
from meshwake.clocks.movers.process import ANSWERED_WITHIN_S, ProcessMover
from meshwake.cluster.real_time import RealTime, wait_for
from meshwake.cluster.stack.own_images import HELPER, with_own_images
from meshwake.cluster.stack.pieces import read_objects
from meshwake.core.errors import LabUnavailable
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import Conversation, Kubernetes, Unreachable
from meshwake.kubernetes.rollouts import unmet

NAMESPACE, LABELS, CONTAINER = (
    "meshwake-helper",
    {"app.kubernetes.io/name": "node-helper"},
    "helper",
)
DAEMON_SET = "node-helper"
# On the DaemonSet while clocks may be moved: by whom, and whether the cluster is ours (moved.py).
MARK = "meshwake.dev/moved-by"
# On the helper's namespace where it goes with the run: from a cluster that is not ours.
GOES_LABELS: Mapping[str, str] = {"meshwake.dev/goes": "true"}
SOCKET = "/run/meshwake/clocks.sock"
HELPER_WITHIN_S = 180.0


class PodChannel:
    """A NodeChannel (clocks/movers/process.py) by an exec into the helper's pod that stays open,
    one for each node; a helper that was started anew is spoken to anew. `node_names`: plan node ->
    Kubernetes'."""

    def __init__(self, kubernetes: Kubernetes, node_names: Mapping[str, str]) -> None:
        self._kubernetes, self._node_names = kubernetes, node_names
        self._talks: dict[str, Conversation] = {}
        self._lock = threading.Lock()

    def send(
        self, node: str, request: Mapping[str, Any], within_s: float = ANSWERED_WITHIN_S
    ) -> dict[str, Any]:
        """See NodeChannel."""
        line = json.dumps(request)
        was_open = node in self._talks
        try:
            try:
                said = self._talk(node).ask(line, within_s)
            except Unreachable:
                self._hang_up(node)
                if not was_open:
                    raise
                said = self._talk(node).ask(line, within_s)
        except Unreachable as error:
            self._hang_up(node)
            raise LabUnavailable(f"node {node}: its helper cannot be reached: {error}") from error
        try:
            answer: dict[str, Any] = json.loads(said)
        except ValueError as error:
            raise LabUnavailable(
                f"node {node}: the helper gave no answer that is understood: {said[-300:]}"
            ) from error
        return answer

    def _talk(self, node: str) -> Conversation:
        with self._lock:  # renewals of the lease come from threads of their own
            if node not in self._talks:
                pods = self._kubernetes.pods(NAMESPACE, LABELS)
                pod = next((pod for pod in pods if pod.node == self._node_names[node]), None)
                if pod is None:
                    raise LabUnavailable(
                        f"node {node}: no helper runs on {self._node_names[node]}; see {NAMESPACE}"
                    )
                command = [
                    "python3",
                    "-m",
                    "meshwake.clocks.movers.node_helper",
                    "send",
                    "--socket",
                    SOCKET,
                    "-",
                ]
                self._talks[node] = self._kubernetes.converse(pod, CONTAINER, command)
            return self._talks[node]

    def close(self) -> None:
        """Ends what is open."""
        for node in list(self._talks):
            self._hang_up(node)

    def _hang_up(self, node: str) -> None:
        talk = self._talks.pop(node, None)
        if talk is not None:
            talk.close()


def install_helper(
    kubernetes: Kubernetes,
    real: RealTime,
    nodes: set[str],
    cluster: str,
    mark: Mapping[str, Any] | None = None,
    *,
    stays: bool = True,
) -> None:
    """Puts the helper in, and waits for it on `nodes` (Kubernetes'). `mark` stays on it until
    nothing is moved any more; one that does not stay in the cluster carries GOES_LABELS. Raises
    LabUnavailable with what to do."""
    objects = with_own_images(read_objects("helper", "daemonset.yaml"))
    for thing in objects:
        if not stays and thing["kind"] == "Namespace":
            thing["metadata"]["labels"].update(GOES_LABELS)
        if mark is not None and thing["kind"] == "DaemonSet":
            thing["metadata"]["annotations"] = {MARK: json.dumps(mark)}
    kubernetes.apply(objects)

    def look() -> str | None:
        # Ready ones of an older image do not count: each gives back what it has when the new one
        # takes its place.
        seen = unmet(kubernetes.read("DaemonSet.apps", NAMESPACE, DAEMON_SET))
        ready = {pod.node for pod in kubernetes.pods(NAMESPACE, LABELS) if pod.ready}
        done = seen is None and nodes <= ready
        return (
            None
            if done
            else f"ready on {', '.join(sorted(ready)) or 'none'}; {seen or 'rolled out'}"
        )

    try:
        wait_for("the helpers that move clocks", real, HELPER_WITHIN_S, look, failed=LabUnavailable)
    except LabUnavailable as error:
        raise LabUnavailable(
            f"{error}; its image is in no registry: build it and bring it onto the nodes of "
            f"{cluster}, from the root "
            f"of this repository: {HELPER.build}"
        ) from error


@dataclass(frozen=True)
class Help:
    """What is done about the helpers: `before` a mover prepares (they are put in, marked with its
    owner), `when_released` (what began on moved clocks is started anew) and `after` all, however it
    ended."""

    before: Callable[[str], None]
    when_released: Callable[[list[dict[str, Any]]], None]
    after: Callable[[], None]

    def release(self, mover: ProcessMover, release: Callable[[], None]) -> None:
        """`release` of `mover`, and what belongs around it."""
        try:
            release()
            self.when_released(mover.begun_moved)
        finally:
            self.after()


class _Helped(ProcessMover):
    """What a mover does about helpers that are put in for it, around what it does itself."""

    _help: Help

    def prepare(self) -> None:
        """See Mover."""
        self._help.before(self.owner)
        super().prepare()

    def release(self) -> None:
        """See Mover."""
        self._help.release(self, super().release)


class HelpedMover(_Helped):
    """A ProcessMover by way of helpers that are put in for it."""

    def __init__(self, plan: Plan, channel: PodChannel, help_: Help) -> None:
        super().__init__(plan, channel)
        self._help = help_


class HelpedLapse(_Helped, LapseMover):
    """A LapseMover by way of helpers that are put in for it."""

    def __init__(self, plan: Plan, channel: PodChannel, help_: Help, others: Sequence[str]) -> None:
        LapseMover.__init__(self, plan, channel, others)
        self._help = help_
