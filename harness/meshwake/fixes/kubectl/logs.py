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
    without_prefix,
)
from meshwake.fixes.kubectl.command import KIND_OF, Kubectl
from meshwake.fixes.kubectl.printed import printed_pods
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
    words = without_prefix(ran.program, list(ran.words))
    if not words or words[0].rsplit("/", 1)[-1] not in ("kubectl", "oc"):
        return f"{memory.shown(ran.words)[:60]!r} is not kubectl logs"
    try:
        command = Kubectl(words, memory, place)
        if command.verb not in ("logs", "log"):
            return f"kubectl {command.verb} reads no log"
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
    if command.is_on("-f", "--follow"):
        return "-f waits for more without end"
    if command.option("--limit-bytes") not in (None, "0"):
        return "--limit-bytes shows the beginning only"
    return None


def _target(command: Kubectl) -> str | None:
    """Why what it names is not ztunnel, if it is not."""
    if not command.here():
        raise command.elsewhere()
    selector = command.option("-l", "--selector")
    if selector is not None:
        if not selects_ztunnel(selector, command.memory):
            return "its selector leaves ztunnel out"
        return None
    target = command.operands[1] if len(command.operands) > 1 else ""
    unknowns = command.memory.unknowns_in(target)
    if unknowns:
        printed_pods(unknowns[0], command.memory, command.place)
        return None
    kind, _, name = target.rpartition("/")
    if name != DAEMON_SET or KIND_OF.get(kind) != "daemonset":
        return f"{command.memory.shown(target)!r} is not ztunnel: write -l app=ztunnel"
    return None


def _options(command: Kubectl) -> PodLogs:
    # `kubectl logs ds/ztunnel` prints "Found 2 pods, using pod/...", and reads that one only.
    names_daemon_set = is_known(" ".join(command.operands[1:2])) and len(command.operands) > 1
    return PodLogs(
        since=command.option("--since"),
        since_time=command.option("--since-time"),
        tail=command.option("--tail"),
        by_selector=command.option("-l", "--selector") is not None,
        of_one_pod=names_daemon_set and not command.is_on("--all-pods"),
    )
