"""The connection to the helper on each node (clusters/helper/), which moves the clocks of programs.

The helper is a privileged pod on every node. Its image is built from this package and loaded into
the nodes: it is in no registry. Runs with --clock process install it; in our own clusters it stays,
in others it is removed at the end of the run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from meshwake.clocks.movers.lapse import LapseMover
from meshwake.clocks.movers.node_helper.answers import DescribedProcess
from meshwake.clocks.movers.process import ANSWERED_WITHIN_S, ProcessMover
from meshwake.cluster.real_time import HostTime, wait_for
from meshwake.cluster.stack.own_images import HELPER, with_own_images
from meshwake.cluster.stack.pieces import read_objects
from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject, MutableJsonObject
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import Conversation, Kubernetes, Unreachable
from meshwake.kubernetes.rollouts import unmet

NAMESPACE, LABELS, CONTAINER = (
    "meshwake-helper",
    {"app.kubernetes.io/name": "node-helper"},
    "helper",
)
DAEMON_SET = "node-helper"
# Annotation of the DaemonSet while clocks may be moved: the owner, and whether the cluster is ours
# (moved.py).
MARK = "meshwake.dev/moved-by"
# Label of the helper's namespace where it is to be removed with the run: in a cluster that is not
# ours.
GOES_LABELS: Mapping[str, str] = {"meshwake.dev/goes": "true"}
SOCKET = "/run/meshwake/clocks.sock"
HELPER_WITHIN_S = 180.0


class PodChannel:
    """A NodeChannel (clocks/movers/process.py) by an exec into the helper's pod that stays open,
    one for each node; it is opened again when a helper was restarted. `node_names`: plan node ->
    Kubernetes node."""

    def __init__(self, kubernetes: Kubernetes, node_names: Mapping[str, str]) -> None:
        self._kubernetes, self._node_names = kubernetes, node_names
        self._conversations: dict[str, Conversation] = {}
        self._lock = threading.Lock()

    def send(
        self, node: str, request: JsonObject, within_s: float = ANSWERED_WITHIN_S
    ) -> JsonObject:
        """See NodeChannel."""
        line = json.dumps(request)
        was_open = node in self._conversations
        try:
            try:
                answered = self._conversation(node).ask(line, within_s)
            except Unreachable:
                self._close(node)
                if not was_open:
                    raise
                answered = self._conversation(node).ask(line, within_s)
        except Unreachable as error:
            self._close(node)
            raise LabUnavailable(f"node {node}: its helper cannot be reached: {error}") from error
        try:
            answer: MutableJsonObject = json.loads(answered)
        except ValueError as error:
            raise LabUnavailable(
                f"node {node}: invalid answer from the helper: {answered[-300:]}"
            ) from error
        return answer

    def _conversation(self, node: str) -> Conversation:
        with self._lock:  # renewals of the lease are sent by threads of their own
            if node not in self._conversations:
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
                self._conversations[node] = self._kubernetes.converse(pod, CONTAINER, command)
            return self._conversations[node]

    def close(self) -> None:
        """Close all open execs."""
        for node in list(self._conversations):
            self._close(node)

    def _close(self, node: str) -> None:
        conversation = self._conversations.pop(node, None)
        if conversation is not None:
            conversation.close()


def install_helper(
    kubernetes: Kubernetes,
    real: HostTime,
    nodes: set[str],
    cluster: str,
    mark: JsonObject | None = None,
    *,
    stays: bool = True,
) -> None:
    """Install the helper and wait until it is ready on `nodes` (Kubernetes names). `mark` is its
    annotation until all clocks are restored; one that does not stay in the cluster gets
    GOES_LABELS. Raises LabUnavailable with the next step."""
    objects = with_own_images(read_objects("helper", "daemonset.yaml"))
    for thing in objects:
        if not stays and thing["kind"] == "Namespace":
            thing["metadata"]["labels"].update(GOES_LABELS)
        if mark is not None and thing["kind"] == "DaemonSet":
            thing["metadata"]["annotations"] = {MARK: json.dumps(mark)}
    kubernetes.apply(objects)

    poll = partial(_helpers_missing, kubernetes, nodes)
    try:
        wait_for("the helpers that move clocks", real, HELPER_WITHIN_S, poll, failed=LabUnavailable)
    except LabUnavailable as error:
        raise LabUnavailable(
            f"{error}; its image is in no registry: build it and load it into the nodes of "
            f"{cluster}, from the root of this repository: {HELPER.build}"
        ) from error


def _helpers_missing(kubernetes: Kubernetes, nodes: set[str]) -> str | None:
    # Ready pods of an older image do not count: the rollout replaces them, and each restores
    # the clocks that it has moved when it ends.
    seen = unmet(kubernetes.read("DaemonSet.apps", NAMESPACE, DAEMON_SET))
    ready = {pod.node for pod in kubernetes.pods(NAMESPACE, LABELS) if pod.ready}
    if seen is None and nodes <= ready:
        return None

    ready_on = ", ".join(sorted(ready)) or "none"
    return f"ready on {ready_on}; {seen or 'rolled out'}"


@dataclass(frozen=True)
class Help:
    """Hooks around a mover: `before` it prepares (install the helpers, marked with its owner),
    `when_released` (restart what started on moved clocks), `after` it has ended, in any way."""

    before: Callable[[str], None]
    when_released: Callable[[list[DescribedProcess]], None]
    after: Callable[[], None]

    def release(self, mover: ProcessMover, release: Callable[[], None]) -> None:
        """Call `release`, which is that of `mover`, and the hooks that belong around it."""
        try:
            release()
            self.when_released(mover.begun_moved)
        finally:
            self.after()


class _Helped(ProcessMover):
    """A mover with the hooks that install and remove its helpers."""

    _help: Help

    def prepare(self) -> None:
        """See Mover."""
        self._help.before(self.owner)
        super().prepare()

    def release(self) -> None:
        """See Mover."""
        self._help.release(self, super().release)


class HelpedMover(_Helped):
    """A ProcessMover that installs its helpers."""

    def __init__(self, plan: Plan, channel: PodChannel, help_: Help) -> None:
        super().__init__(plan, channel)
        self._help = help_


class HelpedLapse(_Helped, LapseMover):
    """A LapseMover that installs its helpers."""

    def __init__(self, plan: Plan, channel: PodChannel, help_: Help, others: Sequence[str]) -> None:
        LapseMover.__init__(self, plan, channel, others)
        self._help = help_
