"""What a command can do to ztunnel and to applications, and what is known of where it runs.

What is known here about ztunnel is what its chart says: a DaemonSet `ztunnel` whose pods have the
labels of `LABELS` and one container, `istio-proxy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshwake.fixes.shell.memory import Doubt
from meshwake.ztunnel.names import ZTUNNEL_LABELS

DAEMON_SET = "ztunnel"
LABELS = {
    **ZTUNNEL_LABELS,
    "app.kubernetes.io/name": "ztunnel",
    "sidecar.istio.io/inject": "false",
    "istio.io/dataplane-mode": "none",
}
# A name as the DaemonSet gives it: five characters that no script can know beforehand. What a
# pattern must find, and a written-out name never is.
POD = "ztunnel-x7k2p"
How = Literal["rollout", "at once", "own node", "one of them"]


@dataclass(frozen=True)
class CommandContext:
    """Where commands run, and where ztunnel lives."""

    # What kubectl takes when no namespace is named; None: not known.
    namespace: str | None
    # In a pod hostname is the pod's name, and not its node's.
    in_pod: bool
    ztunnel_namespace: str
    # Those of its node; a pod only with hostPID.
    sees_processes: bool = True
    # No two runs are closer to one another.
    comes_every_s: float = 0


@dataclass(frozen=True)
class Action:
    """What is restarted."""

    what: Literal["ztunnel", "applications"]
    command: str
    how: How
    namespace: str = ""
    # Of deployments; None: all that `namespace` has.
    names: tuple[str, ...] | None = None
    # None: all nodes, or the own one (see `how`).
    node: str | None = None
    conditions: tuple[Doubt, ...] = ()
    # So long after the job began, by what its script slept.
    after_s: float = 0
    # Put there with `&`: it may be cut off when the script ends.
    background: bool = False
    # A later command of the script waits until it is over.
    waited: bool = False


class NotUnderstood(Exception):
    """The command is not understood; the text says what of it."""


class DoesNothing(Exception):
    """The command restarts nothing; the text says why."""


class Harms(Exception):
    """The command takes ztunnel away."""


class Waits(Exception):
    """The command waits until ztunnel is there."""


_WITH_KUBECTL_INSIDE = ("k3s", "k0s", "microk8s", "minikube", "hyperkube", "rke2")


def without_prefix(program: str, words: list[str]) -> list[str]:
    """`k3s kubectl ...` and its like as `kubectl ...`."""
    if program not in _WITH_KUBECTL_INSIDE:
        return words
    _, *rest = words

    # minikube kubectl -- get pods: what is behind the dashes is kubectl's.
    if program == "minikube" and rest[:2] == ["kubectl", "--"]:
        rest = ["kubectl", *rest[2:]]

    # k3s server, minikube start: commands of its own.
    if rest[:1] not in (["kubectl"], ["crictl"], ["ctr"]):
        return words
    return rest
