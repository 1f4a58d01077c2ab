"""What a kubectl command ends and starts again, by its verb."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NoReturn

import yaml

from meshwake.fixes.effects import DAEMON_SET, Action, DoesNothing, Harms, How, NotUnderstood, Waits
from meshwake.fixes.kubectl.changing import changes_every_s
from meshwake.fixes.kubectl.command import KINDS, Kubectl, not_known
from meshwake.fixes.kubectl.printed import printed_pods
from meshwake.fixes.pipelines import lines_left
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import Unknown, is_known

_ANOTHER_CLUSTER = ("--context", "--cluster", "--server", "-s", "--user")
_READ_ONLY = names(
    "get describe logs log top version wait auth config api-resources api-versions "
    "cluster-info explain events diff completion options plugin whoami project status "
    "annotate label cordon uncordon certificate kustomize taint"
)


def actions_of(command: Kubectl) -> list[Action]:
    """What `command` ends and starts again. Raises NotUnderstood, DoesNothing, Harms and Waits."""
    verb = command.verb
    if command.is_on("-h", "--help") or not verb:
        raise DoesNothing("kubectl prints its help")
    if not is_known(verb):
        raise NotUnderstood("its verb is not known")
    # Of commands that read only another cluster makes no difference.
    if verb not in _READ_ONLY:
        _check_cluster(command)
    if command.option("--dry-run") not in (None, "none", "false"):
        raise DoesNothing("--dry-run changes nothing")
    if verb in _READ_ONLY:
        return _read_only(command)
    if verb not in _VERBS:
        raise NotUnderstood(f"kubectl {verb} is not understood here")
    return _VERBS[verb](command)


def _read_only(command: Kubectl) -> NoReturn:
    if command.verb == "wait" and _mentions_ztunnel(command):
        raise Waits
    raise DoesNothing(f"kubectl {command.verb} restarts nothing")


def _check_cluster(command: Kubectl) -> None:
    for name in _ANOTHER_CLUSTER:
        if name in command.options:
            raise NotUnderstood(
                f"kubectl {name}: which cluster that is cannot be known here; leave it out"
            )


def _mentions_ztunnel(command: Kubectl) -> bool:
    selector = command.option("-l", "--selector") or ""
    return any("ztunnel" in each for each in (*command.operands, selector))


# --- rollout ---


def _rollout(command: Kubectl) -> list[Action]:
    verb = command.operands[1] if len(command.operands) > 1 else ""
    operands = command.operands[2:]
    if verb == "status":
        if _names_ztunnel(operands) and command.here():
            raise Waits
        raise DoesNothing("kubectl rollout status only waits")
    if verb in ("history", "pause", "resume"):
        raise DoesNothing(f"kubectl rollout {verb} restarts nothing")
    if verb != "restart":
        raise NotUnderstood(f"kubectl rollout {verb} is not understood here")
    return _rollout_restart(command, operands)


def _rollout_restart(command: Kubectl, operands: list[str]) -> list[Action]:
    if command.is_everywhere:
        raise DoesNothing("kubectl rollout restart knows no --all-namespaces")
    if "--dry-run" in command.options:
        raise DoesNothing("kubectl rollout restart knows no --dry-run")
    if len(operands) == 1 and not is_known(operands[0]):
        return _restart_printed(command, operands[0])
    return _restarted(command, command.named(operands))


def _names_ztunnel(operands: list[str]) -> bool:
    return any("ztunnel" in each or each in KINDS["daemonset"] for each in operands)


def _restart_printed(command: Kubectl, operand: str) -> list[Action]:
    """`kubectl rollout restart $(kubectl get ds -o name ...)`."""
    (unknown, *_) = command.memory.unknowns_in(operand)
    first, *filters = unknown.runs or (None,)
    if first is None or first.program not in ("kubectl", "oc"):
        raise not_known(unknown)
    inner = Kubectl(first.words, command.memory, command.place)
    if inner.verb != "get" or inner.kind(inner.operands[1]) != "daemonset":
        raise not_known(unknown)
    is_printed = bool(lines_left(filters, [f"daemonset.apps/{DAEMON_SET}"]))
    # Both must be about its namespace: what is printed has none, and `rollout restart` looks for
    # the name in its own.
    are_here = inner.here() and command.here()
    if not is_printed or not are_here:
        raise DoesNothing("what it restarts is not ztunnel")
    if inner.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")
    return [Action("ztunnel", "", "rollout")]


def _restarted(command: Kubectl, named: list[tuple[str, str | None]]) -> list[Action]:
    found: list[Action] = []
    # kubectl goes on after an object that it cannot restart, and so does this.
    idle: list[str] = []
    for kind, name in named:
        try:
            found.append(_restart_of(command, kind, name))
        except DoesNothing as why:
            idle.append(str(why))
    if not found:
        raise DoesNothing("; ".join(dict.fromkeys(idle)))
    return _merged(found)


def _restart_of(command: Kubectl, kind: str, name: str | None) -> Action:
    if kind == "daemonset":
        return _restart_of_daemon_set(command, name)
    if kind in ("deployment", "statefulset"):
        return _restart_of_workload(command, kind, name)
    raise DoesNothing(f"kubectl rollout restart knows no {kind!r}")


def _restart_of_daemon_set(command: Kubectl, name: str | None) -> Action:
    _check_known(command, name)
    if name is not None and name != DAEMON_SET:
        raise DoesNothing(f"the DaemonSet {name!r} is not ztunnel's")
    if not command.here():
        raise command.elsewhere()
    if name is None and command.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")
    return Action("ztunnel", "", "rollout")


def _restart_of_workload(command: Kubectl, kind: str, name: str | None) -> Action:
    selector = command.option("-l", "--selector")
    if name is None and selector:
        raise NotUnderstood(f"which {kind}s have the label {selector!r} is not known")
    _check_known(command, name)
    if command.here():
        raise DoesNothing(
            f"the {kind} {name or 'of any name'!r} in {command.namespace} is neither ztunnel nor "
            "an application"
        )
    names = None if name is None else (name,)
    return Action("applications", "", "at once", namespace=command.namespace, names=names)


def _check_known(command: Kubectl, name: str | None) -> None:
    if name is not None and not is_known(name):
        raise NotUnderstood(f"the value of {command.memory.shown(name)} is not known")


# --- delete ---


def _delete(command: Kubectl) -> list[Action]:
    operands = command.operands[1:]
    if operands and all(_is_printed(each) for each in operands):
        return _delete_printed(command, command.memory.unknowns_in("".join(operands)))
    named = command.named(operands)
    if _deletes_daemon_set(named) and command.here():
        raise Harms("it deletes ztunnel's DaemonSet, and nothing creates it again")
    pod_names = _only_pods(named)
    return _delete_names(command, pod_names) if pod_names else _delete_selected(command)


def _only_pods(named: list[tuple[str, str | None]]) -> list[str]:
    """The names of pods; none where they are chosen by labels. Raises where a kind is another."""
    kinds = {kind for kind, _ in named}
    if kinds != {"pod"}:
        raise DoesNothing(f"deleting {', '.join(sorted(kinds))} does not restart ztunnel")
    return [name for _, name in named if name is not None]


def _is_printed(operand: str) -> bool:
    """What other commands print, as TYPE/NAME: `kubectl delete $(kubectl get pods -o name)`."""
    return not is_known(operand) and "/" not in operand


def _deletes_daemon_set(named: list[tuple[str, str | None]]) -> bool:
    return any(kind == "daemonset" and name in (None, DAEMON_SET) for kind, name in named)


def _delete_names(command: Kubectl, names: list[str]) -> list[Action]:
    printed: list[Unknown] = []
    for name in names:
        unknowns = command.memory.unknowns_in(name)
        if not unknowns:
            raise DoesNothing(
                f"{name!r}: a pod has another name after each restart; delete pods by "
                "-l app=ztunnel"
            )
        printed += unknowns
    return _delete_printed(command, printed)


def _delete_printed(command: Kubectl, unknowns: Iterable[Unknown]) -> list[Action]:
    """The pods whose names are printed by the commands of `unknowns`."""
    found: list[Action] = []
    for unknown in unknowns:
        found += printed_pods(unknown, command.memory, command.place)
        if not command.here():
            raise command.elsewhere()
    return _merged(found)


def _delete_selected(command: Kubectl) -> list[Action]:
    """Pods by their labels, or all of them."""
    selects = command.selects_ztunnel()
    how, node = command.nodes()
    if selects is False:
        raise DoesNothing("its selector leaves ztunnel out")
    if selects:
        if not command.here():
            raise command.elsewhere()
        return [Action("ztunnel", "", how, node=node)]
    if not (command.is_on("--all") or command.option("--field-selector")):
        raise DoesNothing("kubectl deletes no pods without a name, -l or --all")
    return _delete_all(command, how, node)


def _delete_all(command: Kubectl, how: How, node: str | None) -> list[Action]:
    """Every pod of a namespace, or of all: ztunnel, applications, or both."""
    ztunnel = Action("ztunnel", "", how, node=node)
    if command.is_everywhere:
        return [ztunnel, Action("applications", "", how, namespace="", node=node)]
    if command.here():
        return [ztunnel]
    return [Action("applications", "", how, namespace=command.namespace, node=node)]


# --- patch, set ---


def _patch(command: Kubectl) -> list[Action]:
    """A patch of the DaemonSet's pod template replaces its pods, when the template becomes another
    one."""
    _must_be_ztunnel(command, command.named(command.operands[1:]))
    patch = command.option("-p", "--patch")
    if patch is None:
        raise NotUnderstood("kubectl patch without -p: what is in the file is not known here")
    template = _template_of(patch)
    if template is None:
        raise DoesNothing(
            "it does not change the pod template (spec.template), so no pod is replaced"
        )
    return _changed(command, template)


def _set(command: Kubectl) -> list[Action]:
    what, rest = command.operands[1:2], command.operands[2:]
    if what != ["env"]:
        raise NotUnderstood(f"kubectl set {' '.join(what)} is not understood here")
    values = [*command.options.get("-e", []), *command.options.get("--env", [])]
    objects = []
    for operand in rest:
        if "=" in operand:
            values.append(operand)
        # NAME- removes a variable, which is not there any more the next time.
        elif not operand.endswith("-"):
            objects.append(operand)
    _must_be_ztunnel(command, command.named(objects))
    if command.is_on("--list") or not values:
        raise DoesNothing("it sets nothing")
    return _changed(command, " ".join(values))


def _changed(command: Kubectl, text: str) -> list[Action]:
    """The pods are replaced whenever the text is another one."""
    after_s = changes_every_s(text, command.memory, command.place)
    if after_s > command.place.comes_every_s:
        raise NotUnderstood(
            f"it writes another value every {after_s / 3_600:g} h only, and comes more often: pods "
            "are not replaced each time; write the time, $(date +%s)"
        )
    return [Action("ztunnel", "", "rollout")]


def _must_be_ztunnel(command: Kubectl, named: list[tuple[str, str | None]]) -> None:
    for kind, name in named:
        if kind != "daemonset" or name != DAEMON_SET:
            shown = command.memory.shown(name or "")
            raise DoesNothing(f"{kind} {shown!r} is not ztunnel's DaemonSet")
    if not command.here():
        raise command.elsewhere()


def _template_of(patch: str) -> str | None:
    """What a patch writes below spec.template, as text; None when it writes nothing there."""
    try:
        content = yaml.safe_load(patch)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotUnderstood(
            f"its patch is not understood: {' '.join(patch.split())[:80]}"
        ) from error
    if isinstance(content, list):
        # A JSON patch (RFC 6902): a list of operations, each with its path.
        below = [
            each.get("value")
            for each in content
            if isinstance(each, dict) and str(each.get("path", "")).startswith("/spec/template")
        ]
        return json.dumps(below, default=str, ensure_ascii=False) if below else None
    if not isinstance(content, dict):
        raise NotUnderstood("its patch is not an object")
    spec = content.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    return json.dumps(template, default=str, ensure_ascii=False) if template else None


_VERBS: dict[str, Callable[[Kubectl], list[Action]]] = {
    "rollout": _rollout,
    "delete": _delete,
    "patch": _patch,
    "set": _set,
}


def _merged(found: list[Action]) -> list[Action]:
    """Several deployments of a namespace in one action."""
    merged: dict[tuple[str, str, str], Action] = {}
    for action in found:
        key = (action.what, action.namespace, action.how)
        before = merged.get(key)
        if before is None:
            merged[key] = action
        # names None is all of them already.
        elif before.names is not None:
            names = None if action.names is None else (*before.names, *action.names)
            merged[key] = replace(before, names=names)
    return list(merged.values())
