"""The ztunnels whose names some commands print: kubectl get pods, and what filters its lines."""

from __future__ import annotations

import re

from meshwake.fixes.effects import (
    POD,
    Action,
    CommandContext,
    DoesNothing,
    NotUnderstood,
    without_prefix,
)
from meshwake.fixes.kubectl.command import Kubectl, not_known
from meshwake.fixes.pipelines import lines_left
from meshwake.fixes.shell.memory import Memory, Ran, Unknown
from meshwake.ztunnel.names import ISTIO_NAMESPACE

# What `kubectl get pods` prints of ztunnel, in its wide table and with -o name.
_TABLE_LINE = f"{ISTIO_NAMESPACE} {POD} 1/1 Running 0 26h 10.0.0.7 node"
_NAME_LINE = f"pod/{POD}"


def printed_pods(unknown: Unknown, memory: Memory, place: CommandContext) -> list[Action]:
    """What is restarted when the pods are deleted whose names `unknown` is. Raises NotUnderstood
    and DoesNothing."""
    first, *filters = unknown.runs or (None,)
    if first is None or _program(first) not in ("kubectl", "oc"):
        raise not_known(unknown)
    get = Kubectl(without_prefix(first.program, list(first.words)), memory, place)
    _check_gets_ztunnel(get, unknown)
    how, node = get.nodes()
    output = get.option("-o", "--output") or ""
    line = _NAME_LINE if output == "name" else _TABLE_LINE
    if not lines_left(filters, [line]):
        raise DoesNothing("its filter leaves ztunnel out")
    if _takes_first(output, filters):
        how = "one of them"
    return [Action("ztunnel", "", how, node=node)]


def _takes_first(output: str, filters: list[Ran]) -> bool:
    """Whether of several pods only one is printed: jsonpath='{.items[0]...}', or by a filter."""
    return "[0]" in output or any(map(_takes_one, filters))


def _check_gets_ztunnel(get: Kubectl, unknown: Unknown) -> None:
    """Raises where `kubectl get` prints no ztunnel, or something else than pods."""
    if not _gets_pods(get):
        raise NotUnderstood(f"what {unknown.text} prints is not understood")
    if not get.here():
        raise get.elsewhere()
    if get.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")


def _gets_pods(command: Kubectl) -> bool:
    """Whether it is `kubectl get pods`, of no name."""
    # With a name it prints one pod, whose name is another after each restart.
    operands = command.operands[1:]
    return command.verb == "get" and len(operands) == 1 and command.kind(operands[0]) == "pod"


def _program(ran: Ran) -> str:
    words = without_prefix(ran.program, list(ran.words))
    return words[0].rsplit("/", 1)[-1] if words else ""


def _takes_one(ran: Ran) -> bool:
    """head -1, tail -n 1."""
    if ran.program not in ("head", "tail"):
        return False
    return any(re.fullmatch(r"-n?1|1", word) for word in ran.words[1:])
