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
from meshwake.fixes.kubectl.printed import kubectl_words, printed_pods
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
    # Wherever it is among the words, kubectl does nothing else.
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

    # apply, replace, scale, drain and others: what they do hangs on files or on the cluster.
    if verb not in _VERBS:
        raise NotUnderstood(f"kubectl {verb} is not understood here")
    return _VERBS[verb](command)


def _read_only(command: Kubectl) -> NoReturn:
    if command.verb == "wait":
        # By its name, or by a label that has it.
        selector = command.option("-l", "--selector") or ""
        names = [*command.operands, selector]
        if "ztunnel" in " ".join(names):
            raise Waits

    raise DoesNothing(f"kubectl {command.verb} restarts nothing")


def _check_cluster(command: Kubectl) -> None:
    """Raises NotUnderstood where it may be about another cluster than this one."""
    # --kubeconfig is not among them: it is how a machine finds its own cluster.
    for name in _ANOTHER_CLUSTER:
        if name in command.options:
            raise NotUnderstood(
                f"kubectl {name}: which cluster that is cannot be known here; leave it out"
            )


# --- rollout ---


def _rollout(command: Kubectl) -> list[Action]:
    # Its own verb, and what that is about.
    verb = "".join(command.operands[1:2])
    operands = command.operands[2:]

    if verb == "restart":
        return _rollout_restart(command, operands)

    if verb == "status":
        if _names_ztunnel(operands) and command.here():
            raise Waits
        raise DoesNothing("kubectl rollout status only waits")

    if verb in ("history", "pause", "resume"):
        raise DoesNothing(f"kubectl rollout {verb} restarts nothing")

    # undo replaces the pods where the template before was another one, which is not known.
    raise NotUnderstood(f"kubectl rollout {verb} is not understood here")


def _rollout_restart(command: Kubectl, operands: list[str]) -> list[Action]:
    # An unknown flag is an error, at which kubectl does nothing.
    if command.is_everywhere:
        raise DoesNothing("kubectl rollout restart knows no --all-namespaces")

    if "--dry-run" in command.options:
        raise DoesNothing("kubectl rollout restart knows no --dry-run")

    # One substitution alone: what it prints has kinds and names.
    if len(operands) == 1 and not is_known(operands[0]):
        return _restart_printed(command, operands[0])

    return _restarted(command, command.named(operands))


def _names_ztunnel(operands: list[str]) -> bool:
    """Whether it waits for ztunnel, by name or as one of all DaemonSets."""
    # A kind without a name means all of its objects.
    is_all = not KINDS["daemonset"].isdisjoint(operands)
    return is_all or "ztunnel" in " ".join(operands)


def _restart_printed(command: Kubectl, operand: str) -> list[Action]:
    """`kubectl rollout restart $(kubectl get ds -o name ...)`."""
    # Of several substitutions in one word the first decides.
    unknown = command.memory.unknowns_in(operand)[0]
    if not unknown.runs:
        raise not_known(unknown)

    first, *filters = unknown.runs
    words = kubectl_words(first)
    if words is None:
        raise not_known(unknown)

    # What it prints is known only of `kubectl get daemonset`, as kind/name.
    get = Kubectl(words, command.memory, command.place)
    kinds = list(map(get.kind, get.operands[1:2]))
    if get.verb != "get" or kinds != ["daemonset"]:
        raise not_known(unknown)

    if not lines_left(filters, [f"daemonset.apps/{DAEMON_SET}"]):
        raise DoesNothing("what it restarts is not ztunnel")

    # Both must be about its namespace: what is printed has none, and `rollout restart` looks for
    # the name in its own.
    for each in (get, command):
        if not each.here():
            raise DoesNothing("what it restarts is not ztunnel")

    if get.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")
    return [Action("ztunnel", "", "rollout")]


def _restarted(command: Kubectl, named: list[tuple[str, str | None]]) -> list[Action]:
    """What is restarted of `named`. Raises DoesNothing where that is nothing, with all reasons."""
    found: list[Action] = []
    idle: list[str] = []

    # kubectl goes on after an object that it cannot restart, and so does this.
    for kind, name in named:
        try:
            found.append(_restart_of(command, kind, name))
        except DoesNothing as why:
            idle.append(str(why))

    if not found:
        # The same reason of several objects is given once.
        reasons = dict.fromkeys(idle)
        raise DoesNothing("; ".join(reasons))
    return _merged(found)


def _restart_of(command: Kubectl, kind: str, name: str | None) -> Action:
    if kind == "daemonset":
        return _restart_of_daemon_set(command, name)
    if kind in ("deployment", "statefulset"):
        return _restart_of_workload(command, kind, name)

    # `kubectl rollout restart pod/x` is an error: only what has a pod template can be restarted.
    raise DoesNothing(f"kubectl rollout restart knows no {kind!r}")


def _restart_of_daemon_set(command: Kubectl, name: str | None) -> Action:
    _check_known(command, name)
    if name not in (None, DAEMON_SET):
        raise DoesNothing(f"the DaemonSet {name!r} is not ztunnel's")

    command.check_is_here()

    # A selector counts only where no name is given: kubectl takes one of the two.
    if name is None and command.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")
    return Action("ztunnel", "", "rollout")


def _restart_of_workload(command: Kubectl, kind: str, name: str | None) -> Action:
    # The labels of applications are not in any file that is read here.
    selector = command.option("-l", "--selector")
    if name is None and selector:
        raise NotUnderstood(f"which {kind}s have the label {selector!r} is not known")

    _check_known(command, name)
    if command.here():
        shown = name or "of any name"
        raise DoesNothing(
            f"the {kind} {shown!r} in {command.namespace} is neither ztunnel nor an application"
        )

    names = None if name is None else (name,)
    return Action("applications", "", "at once", namespace=command.namespace, names=names)


def _check_known(command: Kubectl, name: str | None) -> None:
    """Raises NotUnderstood for a name that only a run of the script knows."""
    # None is known: all objects of the kind.
    if name is None or is_known(name):
        return

    shown = command.memory.shown(name)
    raise NotUnderstood(f"the value of {shown} is not known")


# --- delete ---


def _delete(command: Kubectl) -> list[Action]:
    operands = command.operands[1:]
    if operands and all(map(_is_printed, operands)):
        unknowns = command.memory.unknowns_in("".join(operands))
        return _delete_printed(command, unknowns)

    named = command.named(operands)
    # The DaemonSet by its name, or with all others of the namespace.
    deletes_daemon_set = not {("daemonset", None), ("daemonset", DAEMON_SET)}.isdisjoint(named)
    if deletes_daemon_set and command.here():
        raise Harms("it deletes ztunnel's DaemonSet, and nothing creates it again")

    pod_names = _only_pods(named)
    if pod_names:
        return _delete_names(command, pod_names)
    return _delete_selected(command)


def _is_printed(operand: str) -> bool:
    """What other commands print, as TYPE/NAME: `kubectl delete $(kubectl get pods -o name)`."""
    # `pod/$NAME` has a type that is known.
    if "/" in operand:
        return False
    return not is_known(operand)


def _only_pods(named: list[tuple[str, str | None]]) -> list[str]:
    """The names of pods; none where they are chosen by labels. Raises where a kind is another."""
    kinds: set[str] = set()
    names: list[str] = []
    for kind, name in named:
        kinds.add(kind)
        if name is not None:
            names.append(name)

    # A Service or a ConfigMap may be deleted without an effect on ztunnel.
    if kinds != {"pod"}:
        shown = ", ".join(sorted(kinds))
        raise DoesNothing(f"deleting {shown} does not restart ztunnel")
    return names


def _delete_names(command: Kubectl, names: list[str]) -> list[Action]:
    """Pods by names that other commands print."""
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
    # `kubectl delete` has a namespace of its own, whatever that of `kubectl get` is.
    for unknown in unknowns:
        found += printed_pods(unknown, command.memory, command.place)
        command.check_is_here()
    return _merged(found)


def _delete_selected(command: Kubectl) -> list[Action]:
    """Pods by their labels, or all of them."""
    selects = command.selects_ztunnel()
    how, node = command.nodes()
    if selects is False:
        raise DoesNothing("its selector leaves ztunnel out")

    if selects:
        command.check_is_here()
        return [Action("ztunnel", "", how, node=node)]

    # Of several flags that choose pods one is enough.
    chooses = command.is_on("--all") or command.option("--field-selector")
    if not chooses:
        raise DoesNothing("kubectl deletes no pods without a name, -l or --all")
    return _delete_all(command, how, node)


def _delete_all(command: Kubectl, how: How, node: str | None) -> list[Action]:
    """Every pod of a namespace, or of all: ztunnel, applications, or both."""
    ztunnel = Action("ztunnel", "", how, node=node)
    # No namespace of applications: those of all.
    if command.is_everywhere:
        applications = Action("applications", "", how, namespace="", node=node)
        return [ztunnel, applications]

    # No application runs in ztunnel's namespace.
    if command.here():
        return [ztunnel]

    return [Action("applications", "", how, namespace=command.namespace, node=node)]


# --- patch, set ---


def _patch(command: Kubectl) -> list[Action]:
    """A patch of the DaemonSet's pod template replaces its pods, when the template becomes another
    one."""
    named = command.named(command.operands[1:])
    _check_is_ztunnel(command, named)

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
    """`kubectl set env ds/ztunnel NAME=VALUE` replaces the pods as a patch does."""
    what, rest = command.operands[1:2], command.operands[2:]
    if what != ["env"]:
        raise NotUnderstood(f"kubectl set {' '.join(what)} is not understood here")

    # -e and --env are other spellings of NAME=VALUE.
    values = [*command.options.get("-e", []), *command.options.get("--env", [])]
    objects = []
    for operand in rest:
        if "=" in operand:
            values.append(operand)
        # kubectl set env --help: NAME- removes a variable, which is not there the next time.
        elif not operand.endswith("-"):
            objects.append(operand)

    _check_is_ztunnel(command, command.named(objects))
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


def _check_is_ztunnel(command: Kubectl, named: list[tuple[str, str | None]]) -> None:
    """Raises DoesNothing where something else is changed, also besides ztunnel's DaemonSet."""
    for kind, name in named:
        if (kind, name) == ("daemonset", DAEMON_SET):
            continue

        # Without a name it is about every object of the kind.
        shown = command.memory.shown(name or "")
        raise DoesNothing(f"{kind} {shown!r} is not ztunnel's DaemonSet")

    command.check_is_here()


def _template_of(patch: str) -> str | None:
    """What a patch writes below spec.template, as text; None when it writes nothing there."""
    # kubectl takes YAML as well as JSON, of which every text is YAML, too.
    try:
        content = yaml.safe_load(patch)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        shown = " ".join(patch.split())[:80]
        raise NotUnderstood(f"its patch is not understood: {shown}") from error

    if isinstance(content, list):
        template: object = _values_below_template(content)
    elif isinstance(content, dict):
        spec = content.get("spec")
        template = spec.get("template") if isinstance(spec, dict) else None
    else:
        raise NotUnderstood("its patch is not an object")

    if not template:
        return None
    return json.dumps(template, default=str, ensure_ascii=False)


def _values_below_template(operations: list[object]) -> list[object]:
    """What a JSON patch (RFC 6902) writes there: a list of operations, each with its path."""
    values: list[object] = []
    for operation in operations:
        # RFC 6902: each operation is an object.
        if not isinstance(operation, dict):
            continue

        path = str(operation.get("path", ""))
        if path.startswith("/spec/template"):
            values.append(operation.get("value"))
    return values


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
        before = merged.setdefault(key, action)

        # The first of its kind, or one that is about all of them already.
        is_first = before is action
        if is_first or before.names is None:
            continue

        names = None if action.names is None else (*before.names, *action.names)
        merged[key] = replace(before, names=names)
    return list(merged.values())
