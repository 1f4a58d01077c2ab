"""The logs of ztunnel that a `kubectl logs` reads."""

from __future__ import annotations

from dataclasses import dataclass

from meshwake.fixes.effects import (
    DAEMON_SET,
    CommandContext,
    DoesNothing,
    Harms,
    NotUnderstood,
    Waits,
)
from meshwake.fixes.kubectl.command import KIND_OF, Kubectl
from meshwake.fixes.kubectl.printed import kubectl_words, printed_pods
from meshwake.fixes.kubectl.selectors import selects_ztunnel
from meshwake.fixes.shell.memory import Memory, Ran, is_known
from meshwake.ztunnel.names import PROXY_CONTAINER


@dataclass(frozen=True)
class PodLogs:
    """`kubectl logs` of ztunnel: its options as they are written. `of_one_pod`: kubectl takes one
    of the DaemonSet's pods, and not all."""

    since: str | None
    since_time: str | None
    tail: str | None
    by_selector: bool
    of_one_pod: bool


def pod_logs(ran: Ran, memory: Memory, place: CommandContext) -> PodLogs | str:
    """The logs of ztunnel that a command reads, or why it reads none."""
    words = kubectl_words(ran)
    if words is None:
        shown = memory.shown(ran.words)[:60]
        return f"{shown!r} is not kubectl logs"

    try:
        command = Kubectl(words, memory, place)
        if command.verb not in ("logs", "log"):
            return f"kubectl {command.verb} reads no log"

        # A reason of one of the first two, or else the logs.
        return _shows_less(command) or _target(command) or _options(command)
    except (NotUnderstood, DoesNothing, Harms, Waits) as why:
        return str(why)


def _shows_less(command: Kubectl) -> str | None:
    """Why it does not show the whole log of ztunnel, if it does not."""
    container = command.option("-c", "--container")
    if container not in (None, PROXY_CONTAINER):
        return f"ztunnel's container is {PROXY_CONTAINER}, and not {container!r}"

    if command.is_on("-p", "--previous"):
        return "--previous reads the log of the container before"

    # A job that looks at the log would never come to its end.
    if command.is_on("-f", "--follow"):
        return "-f waits for more without end"

    # kubectl logs --help: 0, the default, means without a limit.
    if command.option("--limit-bytes") not in (None, "0"):
        return "--limit-bytes shows the beginning only"

    return None


def _target(command: Kubectl) -> str | None:
    """Why what it names is not ztunnel, if it is not."""
    command.check_is_here()

    selector = command.option("-l", "--selector")
    if selector is not None:
        is_selected = selects_ztunnel(selector, command.memory)
        return None if is_selected else "its selector leaves ztunnel out"

    # A pod by a name that another command prints; one that is written out is gone after a restart.
    target = "".join(command.operands[1:2])
    unknowns = command.memory.unknowns_in(target)
    if unknowns:
        printed_pods(unknowns[0], command.memory, command.place)
        return None

    kind, _, name = target.rpartition("/")
    if (KIND_OF.get(kind), name) != ("daemonset", DAEMON_SET):
        return f"{target!r} is not ztunnel: write -l app=ztunnel"
    return None


def _options(command: Kubectl) -> PodLogs:
    # `kubectl logs ds/ztunnel` prints "Found 2 pods, using pod/...", and reads that one only.
    target = "".join(command.operands[1:2])
    names_daemon_set = target != "" and is_known(target)
    return PodLogs(
        since=command.option("--since"),
        since_time=command.option("--since-time"),
        tail=command.option("--tail"),
        by_selector=command.option("-l", "--selector") is not None,
        of_one_pod=names_daemon_set and not command.is_on("--all-pods"),
    )
