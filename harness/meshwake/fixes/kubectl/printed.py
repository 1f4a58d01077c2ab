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
from meshwake.fixes.shell import program_name
from meshwake.fixes.shell.memory import Memory, Ran, Unknown
from meshwake.ztunnel.names import ISTIO_NAMESPACE

# What `kubectl get pods` prints of ztunnel, in its wide table and with -o name.
_TABLE_LINE = f"{ISTIO_NAMESPACE} {POD} 1/1 Running 0 26h 10.0.0.7 node"
_NAME_LINE = f"pod/{POD}"


def printed_pods(unknown: Unknown, memory: Memory, place: CommandContext) -> list[Action]:
    """What is restarted when the pods are deleted whose names `unknown` is. Raises NotUnderstood
    and DoesNothing."""
    # What a file or a variable of the machine has is not known.
    if not unknown.runs:
        raise not_known(unknown)

    first, *filters = unknown.runs
    words = kubectl_words(first)
    if words is None:
        raise not_known(unknown)

    get = Kubectl(words, memory, place)
    _check_gets_ztunnel(get, unknown)
    how, node = get.nodes()

    # Other formats (jsonpath, custom columns) are lines with the name in them, as the table is.
    output = get.option("-o", "--output") or ""
    line = _NAME_LINE if output == "name" else _TABLE_LINE
    if not lines_left(filters, [line]):
        raise DoesNothing("its filter leaves ztunnel out")

    # Of several pods only one is printed: jsonpath='{.items[0]...}', or by a filter.
    if "[0]" in output or any(map(_takes_one, filters)):
        how = "one of them"
    return [Action("ztunnel", "", how, node=node)]


def kubectl_words(ran: Ran) -> list[str] | None:
    """The words of a kubectl command, `k3s kubectl` and `/usr/bin/oc` as well; None for any other
    program."""
    words = without_prefix(ran.program, list(ran.words))
    program = program_name("".join(words[:1]))
    if program not in ("kubectl", "oc"):
        return None
    return words


def _check_gets_ztunnel(get: Kubectl, unknown: Unknown) -> None:
    """Raises where `kubectl get` prints no ztunnel, or something else than pods."""
    operands = get.operands[1:]
    # With a name it prints one pod, whose name is another after each restart.
    gets_pods = get.verb == "get" and len(operands) == 1 and get.kind(operands[0]) == "pod"
    if not gets_pods:
        raise NotUnderstood(f"what {unknown.text} prints is not understood")

    get.check_is_here()

    # None: without a selector it prints all pods of the namespace.
    if get.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")


def _takes_one(ran: Ran) -> bool:
    """head -1, tail -n 1."""
    if ran.program not in ("head", "tail"):
        return False

    # The number alone is the value of -n or --lines.
    is_one = re.compile(r"-n?1|1").fullmatch
    return any(map(is_one, ran.words[1:]))
