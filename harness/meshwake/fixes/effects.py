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
POD = "ztunnel-x7k2p"
How = Literal["rollout", "at once", "own node", "one of them"]


@dataclass(frozen=True)
class CommandContext:
    """Where commands run: the namespace that kubectl takes when none is named (None: not known),
    whether that is a pod (then hostname is the pod's), whether it sees the processes of its node,
    and where ztunnel lives. `comes_every_s`: no two runs are closer to one another."""

    namespace: str | None
    in_pod: bool
    ztunnel_namespace: str
    sees_processes: bool = True
    comes_every_s: float = 0


@dataclass(frozen=True)
class Action:
    """What is restarted. `node` None: all nodes, or the own one (see `how`). `names`:
    of deployments, None for all that `namespace` has. `done_at_once`: not before the job waited
    for it is it sure to be over."""

    what: Literal["ztunnel", "applications"]
    command: str
    how: How
    namespace: str = ""
    names: tuple[str, ...] | None = None
    node: str | None = None
    conditions: tuple[Doubt, ...] = ()
    after_s: float = 0
    background: bool = False
    waited: bool = False


class NotUnderstood(Exception):
    """The command is not understood; the text says what of it."""


class DoesNothing(Exception):
    """The command restarts nothing; the text says why."""


class Harms(Exception):
    """The command takes ztunnel away."""


class Waits(Exception):
    """The command waits until ztunnel is there."""


def without_prefix(program: str, words: list[str]) -> list[str]:
    """`k3s kubectl ...` and its like as `kubectl ...`."""
    if program in ("k3s", "k0s", "microk8s", "minikube", "hyperkube", "rke2") and len(words) > 1:
        rest = words[1:]
        if program == "minikube" and rest[0] == "kubectl":
            rest = [rest[0], *(rest[2:] if rest[1:2] == ["--"] else rest[1:])]
        if rest[0] in ("kubectl", "crictl", "ctr"):
            return rest
    return words
