"""What a command does to ztunnel and to applications: the one place where that is decided, for every kind of fix.

A command that a script comes to (shell/) is an action, or does nothing to them for a reason that can be said, or is not
understood. What is known here about ztunnel is what its chart says: a DaemonSet `ztunnel` whose pods have the labels of
`LABELS` and one container, `istio-proxy`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import yaml

from harness.fixes.patterns import PatternNotRead, grep_lets_through
from harness.fixes.shell.shell import Doubt, Memory, Ran, Unknown, is_known

DAEMON_SET = "ztunnel"
CONTAINER = "istio-proxy"
LABELS = {
    "app": "ztunnel",
    "app.kubernetes.io/name": "ztunnel",
    "sidecar.istio.io/inject": "false",
    "istio.io/dataplane-mode": "none",
}
POD = "ztunnel-x7k2p"
How = Literal["rollout", "at once", "own node", "one of them"]


@dataclass(frozen=True)
class Place:
    """Where commands run: the namespace that kubectl takes when none is named (None: not known), whether that is a pod
    (then hostname is the pod's), whether it sees the processes of its node, and where ztunnel lives."""

    namespace: str | None
    in_pod: bool
    ztunnel_namespace: str
    sees_processes: bool = True


@dataclass(frozen=True)
class Action:
    """What is ended and started anew. `node` None: all nodes, or the own one (see `how`). `names`: of deployments, None
    for all that `namespace` has. `done_at_once`: not before somebody waited for it is it sure to be over."""

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


@dataclass
class Reading:
    """What was found in all commands of a script. `idle` and `unclear` say of commands why they restart nothing, or that
    they are not understood; `harmful` ends ztunnel for good."""

    actions: list[Action] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    harmful: list[str] = field(default_factory=list)

    def of(self, what: str) -> list[Action]:
        """The actions on one kind of thing."""
        return [each for each in self.actions if each.what == what]

    def add(self, other: Reading) -> None:
        """Takes over what another script does."""
        self.actions += other.actions
        self.idle += other.idle
        self.unclear += other.unclear
        self.harmful += other.harmful


class _NotUnderstood(Exception):
    """The command is not understood; the text says what of it."""


class _DoesNothing(Exception):
    """The command restarts nothing; the text says why."""


class _Harms(Exception):
    """The command takes ztunnel away."""


class _Waits(Exception):
    """The command waits until ztunnel is there."""


def read_actions(memory: Memory, place: Place) -> Reading:
    """What the commands of a script do."""
    reading = Reading()
    for ran in memory.ran:
        command = memory.shown(ran.words)
        if ran.program == "wait":
            reading.actions = [replace(each, background=False) for each in reading.actions]
            continue
        try:
            found = _command(ran, memory, place)
        except _NotUnderstood as why:
            reading.unclear.append(f"{_short(command)!r}: {why}")
        except _DoesNothing as why:
            reading.idle.append(f"{_short(command)!r}: {why}")
        except _Harms as why:
            reading.harmful.append(f"{_short(command)!r}: {why}")
        except _Waits:
            reading.actions = [replace(each, waited=True) for each in reading.actions]
        else:
            about = {"conditions": ran.conditions, "after_s": ran.after_s, "background": ran.background}
            reading.actions += [replace(each, command=_short(command), **about) for each in found]
    return reading


def _short(command: str) -> str:
    text = " ".join(command.split())
    return text if len(text) <= 160 else f"{text[:157]}..."


def _command(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    words = list(ran.words)
    if words and not is_known(words[0]):
        raise _NotUnderstood("which program it is is not known")
    program = ran.program.removesuffix(".exe")
    if " " in words[0]:
        raise _DoesNothing("no program has such a name; its arguments belong into words of their own")
    words = _without_prefix(program, words)
    program = words[0].rsplit("/", 1)[-1].removesuffix(".exe") if words else program
    if program in ("kubectl", "oc", "microk8s.kubectl"):
        return _Kubectl(words, memory, place).actions()
    reader = _OTHERS.get(program)
    if reader is not None:
        return reader(ran, memory, place)
    if program in _IDLE:
        raise _DoesNothing("restarts nothing")
    raise _NotUnderstood("what this program does is not known")


def _without_prefix(program: str, words: list[str]) -> list[str]:
    """`k3s kubectl ...` and its like as `kubectl ...`."""
    if program in ("k3s", "k0s", "microk8s", "minikube", "hyperkube", "rke2") and len(words) > 1:
        rest = words[1:]
        if program == "minikube" and rest[0] == "kubectl":
            rest = [rest[0], *(rest[2:] if rest[1:2] == ["--"] else rest[1:])]
        if rest[0] in ("kubectl", "crictl", "ctr"):
            return rest
    return words


# --- kubectl ---------------------------------------------------------------------------------------------------------

_TAKES_VALUE = frozenset(
    [
        "-n",
        "--namespace",
        "--context",
        "--cluster",
        "--kubeconfig",
        "--user",
        "--server",
        "-s",
        "--token",
        "--as",
        "--as-group",
        "--as-uid",
        "--request-timeout",
        "--certificate-authority",
        "--client-certificate",
        "--client-key",
        "--tls-server-name",
        "--cache-dir",
        "--profile",
        "--profile-output",
        "--v",
        "-v",
        "--vmodule",
        "--password",
        "--username",
        "--kuberc",
        "-l",
        "--selector",
        "--field-selector",
        "-f",
        "--filename",
        "-k",
        "--kustomize",
        "-o",
        "--output",
        "--template",
        "--field-manager",
        "--grace-period",
        "--timeout",
        "-p",
        "--patch",
        "--type",
        "--patch-file",
        "--subresource",
        "-c",
        "--container",
        "--since",
        "--since-time",
        "--tail",
        "--limit-bytes",
        "--max-log-requests",
        "--pod-running-timeout",
        "--for",
        "--revision",
        "--replicas",
        "--raw",
        "--sort-by",
        "-e",
        "--env",
        "--from",
        "--resource-version",
        "--chunk-size",
        "-L",
        "--label-columns",
        "--current-replicas",
        "--containers",
        "--image",
        "--keys",
        "--prefix-name",
    ]
)
_SWITCHES = frozenset(
    [
        "-A",
        "--all-namespaces",
        "--all",
        "--force",
        "--now",
        "--wait",
        "--ignore-not-found",
        "-R",
        "--recursive",
        "--insecure-skip-tls-verify",
        "-q",
        "--quiet",
        "-w",
        "--watch",
        "--no-headers",
        "--show-labels",
        "-h",
        "--help",
        "--overwrite",
        "--local",
        "--follow",
        "--prefix",
        "--timestamps",
        "--previous",
        "--all-containers",
        "--all-pods",
        "--ignore-errors",
        "--match-server-version",
        "--warnings-as-errors",
        "--disable-compression",
        "--show-managed-fields",
        "--allow-missing-template-keys",
        "-i",
        "-t",
        "-it",
        "-ti",
        "--stdin",
        "--tty",
        "--output-watch-events",
        "--interactive",
        "--list",
        "--record",
        "--server-print",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--dry-run",
        "--cascade",
        "--watch-only",
        "--show-kind",
        "--logtostderr",
        "--alsologtostderr",
        "--stderr",
        "--warnings",
        "--insecure-skip-tls-verify-backend",
    ]
)
_ANOTHER_CLUSTER = ("--context", "--cluster", "--server", "-s", "--user")
_LOOKS = frozenset(
    [
        "get",
        "describe",
        "logs",
        "log",
        "top",
        "version",
        "wait",
        "auth",
        "config",
        "api-resources",
        "api-versions",
        "cluster-info",
        "explain",
        "events",
        "diff",
        "completion",
        "options",
        "plugin",
        "whoami",
        "project",
        "status",
        "annotate",
        "label",
        "cordon",
        "uncordon",
        "certificate",
        "kustomize",
        "taint",
    ]
)
_KINDS = {
    "daemonset": ("daemonset", "daemonsets", "ds"),
    "deployment": ("deployment", "deployments", "deploy"),
    "statefulset": ("statefulset", "statefulsets", "sts"),
    "pod": ("pod", "pods", "po"),
}
_KIND_OF = {spelling: kind for kind, spellings in _KINDS.items() for spelling in spellings}


class _Kubectl:
    """One kubectl command: its verb, what it names, and its options."""

    def __init__(self, words: Sequence[str], memory: Memory, place: Place) -> None:
        self._memory, self._place = memory, place
        self.operands: list[str] = []
        self.options: dict[str, list[str]] = {}
        self._read(list(words[1:]))
        self.verb = self.operands[0] if self.operands else ""

    def _read(self, rest: list[str]) -> None:
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.operands += ["--", *rest]
                return
            if not word.startswith("-") or word == "-":
                self.operands.append(word)
                continue
            name, equals, value = word.partition("=")
            is_logs = self.operands[:1] in (["logs"], ["log"])
            if not word.startswith("--") and len(name) > 2 and f"-{name[1]}" in _TAKES_VALUE:
                name, value, equals = name[:2], word[2:].removeprefix("="), "="
            if not equals and name in _TAKES_VALUE and not (is_logs and name in ("-f", "-p")):
                if not rest:
                    raise _DoesNothing(f"kubectl needs a value behind {name}")
                value = rest.pop(0)
            elif not equals and name not in _SWITCHES and not (is_logs and name in ("-f", "-p")):
                raise _NotUnderstood(f"the option {name} of kubectl is not known here")
            self.options.setdefault(name, []).append(value if equals or value else "")

    def option(self, *names: str) -> str | None:
        """The last value of an option, or None."""
        found = [value for name in names for value in self.options.get(name, [])]
        return found[-1] if found else None

    def is_on(self, *names: str) -> bool:
        """Whether a switch is on."""
        return any(value != "false" for name in names for value in self.options.get(name, []))

    @property
    def namespace(self) -> str:
        """The namespace that it is about. Raises _NotUnderstood when nobody can say."""
        said = self.option("-n", "--namespace")
        if said is None or said == "":
            if self._place.namespace is None:
                raise _NotUnderstood(
                    "neither kubectl (-n) nor metadata.namespace says in which namespace; write -n "
                    f"{self._place.ztunnel_namespace}"
                )
            return self._place.namespace
        if not is_known(said):
            raise _NotUnderstood(f"its namespace is {self._memory.shown(said)}, which is not known")
        return said

    def actions(self) -> list[Action]:
        """What it ends and starts anew. Raises _NotUnderstood, _DoesNothing, _Harms and _Waits."""
        if self.is_on("-h", "--help") or not self.verb:
            raise _DoesNothing("kubectl prints its help")
        if not is_known(self.verb):
            raise _NotUnderstood("its verb is not known")
        for name in _ANOTHER_CLUSTER:
            if name in self.options and self.verb not in _LOOKS:
                raise _NotUnderstood(f"kubectl {name}: which cluster that is cannot be known here; leave it out")
        dry = self.option("--dry-run")
        if dry is not None and dry not in ("none", "false"):
            raise _DoesNothing("--dry-run changes nothing")
        if self.verb == "rollout":
            return self._rollout()
        if self.verb in _LOOKS:
            if self.verb == "wait" and self._selects_ztunnel_pods_or_name():
                raise _Waits
            raise _DoesNothing(f"kubectl {self.verb} restarts nothing")
        readers = {"delete": self._delete, "patch": self._patch, "set": self._set}
        if self.verb in readers:
            return readers[self.verb]()
        raise _NotUnderstood(f"kubectl {self.verb} is not understood here")

    def _selects_ztunnel_pods_or_name(self) -> bool:
        return any("ztunnel" in each for each in [*self.operands, self.option("-l", "--selector") or ""])

    # --- Names and selectors ---

    def _named(self, operands: list[str]) -> list[tuple[str, str | None]]:
        """TYPE/NAME..., or TYPE[,TYPE] [NAME...]: pairs of kind and name (None: all of them)."""
        if any(name in self.options for name in ("-f", "--filename", "-k", "--kustomize")):
            raise _NotUnderstood("kubectl -f and -k: what is in that file is not known here; name the objects")
        if not operands:
            raise _DoesNothing("kubectl needs the type of what is meant")
        if any("/" in each for each in operands):
            if not all("/" in each for each in operands):
                raise _DoesNothing("kubectl takes TYPE/NAME or TYPE NAME, and not both in one command")
            pairs = [each.split("/", 1) for each in operands]
            return [(self._kind(kind), name) for kind, name in pairs]
        kinds = [self._kind(each) for each in operands[0].split(",")]
        names: list[str | None] = [*operands[1:]] or [None]
        return [(kind, name) for kind in kinds for name in names]

    def _kind(self, written: str) -> str:
        if not is_known(written):
            raise _NotUnderstood(f"the type {self._memory.shown(written)} is not known")
        name = written.lower()
        short, _, group = name.partition(".")
        if group and not re.fullmatch(r"(v\d\w*\.)?(apps)?|v1\.?", group):
            return name
        return _KIND_OF.get(short, short)

    def _selects_ztunnel(self) -> bool | None:
        """Whether the selector matches ztunnel's labels; None without one."""
        selector = self.option("-l", "--selector")
        if selector is None or selector == "":
            return None
        return selects_ztunnel(selector, self._memory)

    def _node(self) -> tuple[How, str | None]:
        """Which nodes a field selector leaves."""
        fields = self.option("--field-selector")
        if not fields:
            return "at once", None
        how: How = "at once"
        node = None
        for term in fields.split(","):
            match = re.fullmatch(r"([\w.]+)(==?)(.*)", term)
            if match is None or match[1] not in ("spec.nodeName", "metadata.namespace", "status.phase"):
                raise _NotUnderstood(f"the field selector {self._memory.shown(term)!r} is not understood")
            if match[1] == "status.phase" and match[3] != "Running":
                raise _DoesNothing(f"a ztunnel that serves is Running, and {term!r} leaves only others")
            if match[1] == "spec.nodeName":
                how, node = self._node_named(match[3])
        return how, node

    def _node_named(self, name: str) -> tuple[How, str | None]:
        if is_known(name):
            if not name:
                raise _DoesNothing("spec.nodeName= leaves pods of no node")
            return "at once", name
        (unknown, *_) = self._memory.unknowns_in(name)
        if unknown.text == "the node's name":
            return "own node", None
        hosts = ("$(hostname)", "$HOSTNAME", "$(uname -n)", "$(hostname -s)", "$(hostname -f)", "$(cat /etc/hostname)")
        if unknown.text in hosts or unknown.text.startswith("${HOSTNAME"):
            if self._place.in_pod:
                raise _DoesNothing("in a pod hostname is the pod's name, and no node is called so")
            return "own node", None
        raise _NotUnderstood(f"which node {unknown.text} is is not known")

    def _here(self) -> bool:
        """Whether it is about ztunnel's namespace."""
        return self.is_on("-A", "--all-namespaces") or self.namespace == self._place.ztunnel_namespace

    def _elsewhere(self) -> _DoesNothing:
        return _DoesNothing(
            f"it is about namespace {self.namespace!r}, and ztunnel lives in {self._place.ztunnel_namespace!r} (in a "
            "scenario [fix] ztunnel_namespace says where)"
        )

    # --- Verbs ---

    def _rollout(self) -> list[Action]:
        sub, operands = (self.operands[1] if len(self.operands) > 1 else ""), self.operands[2:]
        if sub == "status":
            if any("ztunnel" in each or each in _KINDS["daemonset"] for each in operands) and self._here():
                raise _Waits
            raise _DoesNothing("kubectl rollout status only waits")
        if sub in ("history", "pause", "resume"):
            raise _DoesNothing(f"kubectl rollout {sub} restarts nothing")
        if sub != "restart":
            raise _NotUnderstood(f"kubectl rollout {sub} is not understood here")
        if self.is_on("-A", "--all-namespaces"):
            raise _DoesNothing("kubectl rollout restart knows no --all-namespaces")
        if "--dry-run" in self.options:
            raise _DoesNothing("kubectl rollout restart knows no --dry-run")
        if len(operands) == 1 and not is_known(operands[0]):
            return self._restart_printed(operands[0])
        return self._restarted(self._named(operands))

    def _restart_printed(self, operand: str) -> list[Action]:
        """`kubectl rollout restart $(kubectl get ds -o name ...)`."""
        (unknown, *_) = self._memory.unknowns_in(operand)
        first = unknown.runs[0] if unknown.runs else None
        if first is not None and first.program in ("kubectl", "oc"):
            looked = _Kubectl(first.words, self._memory, self._place)
            if looked.verb == "get" and looked._kind(looked.operands[1]) == "daemonset":
                if _lines_left(unknown.runs[1:], [f"daemonset.apps/{DAEMON_SET}"]) and looked._here() and self._here():
                    if looked._selects_ztunnel() is False:
                        raise _DoesNothing("its selector leaves ztunnel out")
                    return [Action("ztunnel", "", "rollout")]
                raise _DoesNothing("what it restarts is not ztunnel")
        raise _NotUnderstood(f"what {unknown.text} is is not known")

    def _restarted(self, named: list[tuple[str, str | None]]) -> list[Action]:
        found: list[Action] = []
        idle: list[str] = []
        for kind, name in named:
            if kind == "daemonset":
                found += self._daemon_set(name, idle)
            elif kind in ("deployment", "statefulset"):
                found += self._workload(kind, name, idle)
            else:
                idle.append(f"kubectl rollout restart knows no {kind!r}")
        if not found:
            raise _DoesNothing("; ".join(dict.fromkeys(idle)))
        return _merged(found)

    def _daemon_set(self, name: str | None, idle: list[str]) -> list[Action]:
        if name is not None and not is_known(name):
            raise _NotUnderstood(f"what {self._memory.shown(name)} is is not known")
        if name is not None and name != DAEMON_SET:
            idle.append(f"the DaemonSet {name!r} is not ztunnel's")
        elif not self._here():
            idle.append(str(self._elsewhere()))
        elif name is None and self._selects_ztunnel() is False:
            idle.append("its selector leaves ztunnel out")
        else:
            return [Action("ztunnel", "", "rollout")]
        return []

    def _workload(self, kind: str, name: str | None, idle: list[str]) -> list[Action]:
        if name is None and self.option("-l", "--selector"):
            raise _NotUnderstood(f"which {kind}s have the label {self.option('-l', '--selector')!r} is not known")
        if name is not None and not is_known(name):
            raise _NotUnderstood(f"what {self._memory.shown(name)} is is not known")
        if self._here():
            idle.append(
                f"the {kind} {name or 'of any name'!r} in {self.namespace} is neither ztunnel nor an application"
            )
            return []
        names = None if name is None else (name,)
        return [Action("applications", "", "at once", namespace=self.namespace, names=names)]

    def _delete(self) -> list[Action]:
        operands = self.operands[1:]
        if operands and all(not is_known(each) and "/" not in each for each in operands):
            return self._delete_printed(operands)
        named = self._named(operands)
        kinds = {kind for kind, _ in named}
        if "daemonset" in kinds and self._here():
            if any(kind == "daemonset" and name in (None, DAEMON_SET) for kind, name in named):
                raise _Harms("it deletes ztunnel's DaemonSet, and nothing makes it anew")
        if kinds != {"pod"}:
            raise _DoesNothing(f"deleting {', '.join(sorted(kinds))} is no restart of ztunnel")
        names = [name for _, name in named if name is not None]
        if names:
            return self._delete_names(names)
        return self._delete_selected()

    def _delete_printed(self, operands: list[str]) -> list[Action]:
        found = [self._pods_of(unknown) for each in operands for unknown in self._memory.unknowns_in(each)]
        return _merged([each for one in found for each in one])

    def _delete_names(self, names: list[str]) -> list[Action]:
        found: list[Action] = []
        for name in names:
            unknowns = self._memory.unknowns_in(name)
            if not unknowns:
                raise _DoesNothing(
                    f"{name!r}: a pod has another name after each restart; delete pods by -l app=ztunnel"
                )
            found += [each for unknown in unknowns for each in self._pods_of(unknown)]
        return _merged(found)

    def _pods_of(self, unknown: Unknown) -> list[Action]:
        """The pods whose names are printed by the commands of `unknown`."""
        found = printed_pods(unknown, self._memory, self._place)
        if not self._here():
            raise self._elsewhere()
        return found

    def _delete_selected(self) -> list[Action]:
        selects = self._selects_ztunnel()
        how, node = self._node()
        if selects is None and not self.is_on("--all") and not self.option("--field-selector"):
            raise _DoesNothing("kubectl deletes no pods without a name, -l or --all")
        if selects:
            if not self._here():
                raise self._elsewhere()
            return [Action("ztunnel", "", how, node=node)]
        if selects is False:
            raise _DoesNothing("its selector leaves ztunnel out")
        found = []
        if self._here():
            found.append(Action("ztunnel", "", how, node=node))
        if self.is_on("-A", "--all-namespaces") or not self._here():
            everywhere = self.is_on("-A", "--all-namespaces")
            namespace = "" if everywhere else self.namespace
            found.append(Action("applications", "", how, namespace=namespace, node=node))
        return found

    def _patch(self) -> list[Action]:
        """A patch of the DaemonSet's pod template replaces its pods, when the template becomes another one."""
        self._must_be_ztunnel(self._named(self.operands[1:]))
        patch = self.option("-p", "--patch")
        if patch is None:
            raise _NotUnderstood("kubectl patch without -p: what is in the file is not known here")
        template = _template_of(_UNKNOWN_CHAR.sub("UNKNOWN", patch))
        if template is None:
            raise _DoesNothing("it does not touch the pod template (spec.template), so no pod is replaced")
        return self._changed(template)

    def _set(self) -> list[Action]:
        if self.operands[1:2] != ["env"]:
            raise _NotUnderstood(f"kubectl set {' '.join(self.operands[1:2])} is not understood here")
        objects = [each for each in self.operands[2:] if "=" not in each and not each.endswith("-")]
        values = [each for each in self.operands[2:] if "=" in each] + self.options.get("-e", [])
        values += self.options.get("--env", [])
        self._must_be_ztunnel(self._named(objects))
        if self.is_on("--list") or not values:
            raise _DoesNothing("it sets nothing")
        return self._changed(_UNKNOWN_CHAR.sub("UNKNOWN", " ".join(values)))

    def _changed(self, text: str) -> list[Action]:
        if "UNKNOWN" not in text:
            raise _NotUnderstood(
                "it writes the same value each time: pods are replaced the first time only; write the time, $(date +%s)"
            )
        return [Action("ztunnel", "", "rollout")]

    def _must_be_ztunnel(self, named: list[tuple[str, str | None]]) -> None:
        for kind, name in named:
            if kind != "daemonset" or name != DAEMON_SET:
                raise _DoesNothing(f"{kind} {self._memory.shown(name or '')!r} is not ztunnel's DaemonSet")
        if not self._here():
            raise self._elsewhere()


_UNKNOWN_CHAR = re.compile("[\U000f0000-\U000ffffd]")


def _template_of(patch: str) -> str | None:
    """What a patch writes below spec.template, as text; None when it writes nothing there."""
    try:
        content = yaml.safe_load(patch)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _NotUnderstood(f"its patch is not understood: {' '.join(patch.split())[:80]}") from error
    if isinstance(content, list):
        below = [
            each.get("value")
            for each in content
            if isinstance(each, dict) and str(each.get("path", "")).startswith("/spec/template")
        ]
        return json.dumps(below, default=str) if below else None
    if not isinstance(content, dict):
        raise _NotUnderstood("its patch is no object")
    spec = content.get("spec")
    template = spec.get("template") if isinstance(spec, dict) else None
    return json.dumps(template, default=str) if template else None


def _merged(found: list[Action]) -> list[Action]:
    """Several deployments of a namespace in one action."""
    whole: list[Action] = []
    for each in found:
        at = next(
            (
                i
                for i, one in enumerate(whole)
                if (one.what, one.namespace, one.how) == (each.what, each.namespace, each.how)
            ),
            None,
        )
        if at is None:
            whole.append(each)
        elif whole[at].names is not None:
            names = None if each.names is None else (*(whole[at].names or ()), *each.names)
            whole[at] = replace(whole[at], names=names)
    return whole


def selects_ztunnel(selector: str, memory: Memory) -> bool:
    """Whether a label selector matches ztunnel's pods. Raises _NotUnderstood."""
    if not is_known(selector):
        raise _NotUnderstood(f"the selector {memory.shown(selector)!r} is not known")
    for term in re.split(r",(?![^(]*\))", selector):
        match = re.fullmatch(r"\s*(!?)\s*([\w./-]+)\s*(?:(==?|!=)\s*([\w.-]*)|\s(in|notin)\s*\(([^)]*)\))?\s*", term)
        if match is None:
            raise _NotUnderstood(f"the selector {term!r} is not understood")
        absent, key, operator, value, within, values = match.groups()
        if key not in LABELS:
            raise _NotUnderstood(f"whether ztunnel has the label {key!r} is not known here; take app=ztunnel")
        own = LABELS[key]
        if absent:
            return False
        if operator and (own == value) == (operator == "!="):
            return False
        if within and (own in [each.strip() for each in values.split(",")]) == (within == "notin"):
            return False
    return True


def printed_pods(unknown: Unknown, memory: Memory, place: Place) -> list[Action]:
    """The ztunnels whose names some commands print: kubectl get pods, and what filters its lines."""
    first, *filters = unknown.runs or (None,)
    if first is None or _program(first) not in ("kubectl", "oc"):
        raise _NotUnderstood(f"what {unknown.text} is is not known")
    looked = _Kubectl(_without_prefix(first.program, list(first.words)), memory, place)
    operands = looked.operands[1:]
    if looked.verb != "get" or not operands or looked._kind(operands[0]) != "pod" or len(operands) > 1:
        raise _NotUnderstood(f"what {unknown.text} prints is not understood")
    if not looked._here():
        raise looked._elsewhere()
    if looked._selects_ztunnel() is False:
        raise _DoesNothing("its selector leaves ztunnel out")
    how, node = looked._node()
    output = looked.option("-o", "--output") or ""
    line = f"pod/{POD}" if output == "name" else f"istio-system {POD} 1/1 Running 0 26h 10.0.0.7 node"
    if not _lines_left(filters, [line]):
        raise _DoesNothing("its filter leaves ztunnel out")
    if "[0]" in output or any(_takes_one(each) for each in filters):
        how = "one of them"
    return [Action("ztunnel", "", how, node=node)]


def _program(ran: Ran) -> str:
    words = _without_prefix(ran.program, list(ran.words))
    return words[0].rsplit("/", 1)[-1] if words else ""


def _takes_one(ran: Ran) -> bool:
    return ran.program in ("head", "tail") and any(re.fullmatch(r"-n?1|1", word) for word in ran.words[1:])


def _lines_left(filters: Iterable[Ran], lines: list[str]) -> list[str]:
    """What of `lines` goes through the filters of a pipeline. Raises _NotUnderstood."""
    for ran in filters:
        if ran.program in ("grep", "egrep", "fgrep"):
            try:
                lines = [line for line in lines if grep_lets_through(ran.words, line)]
            except PatternNotRead as error:
                raise _NotUnderstood(f"{' '.join(ran.words)!r} {error}") from error
        elif ran.program in ("awk", "gawk"):
            lines = [line for line in lines if _awk_lets_through(ran.words, line)]
        elif ran.program not in _SHAPE_LINES:
            raise _NotUnderstood(f"what {' '.join(ran.words)!r} lets through is not understood")
    return lines


_SHAPE_LINES = frozenset(["cut", "tr", "sed", "sort", "uniq", "head", "tail", "tee", "cat", "xargs", "column", "jq"])


def _awk_lets_through(words: tuple[str, ...], line: str) -> bool:
    script = next((word for word in words[1:] if "{" in word or "/" in word), "")
    match = re.match(r"\s*(?:\$\d+\s*~\s*)?/([^/]*)/", script)
    if match:
        try:
            return re.search(match[1], line) is not None
        except re.error as error:
            raise _NotUnderstood(f"{script!r} is not understood") from error
    if re.match(r"\s*(NR\s*>\s*1\s*)?\{\s*print[^{}]*\}\s*$", script):
        return True
    raise _NotUnderstood(f"what awk {script!r} lets through is not understood")


# --- Other programs --------------------------------------------------------------------------------------------------

_IDLE = frozenset(
    [
        "echo",
        "printf",
        "date",
        "sleep",
        "logger",
        "cat",
        "grep",
        "egrep",
        "fgrep",
        "sed",
        "awk",
        "gawk",
        "jq",
        "yq",
        "tee",
        "cut",
        "tr",
        "sort",
        "uniq",
        "head",
        "tail",
        "wc",
        "sync",
        "touch",
        "mkdir",
        "rm",
        "cp",
        "mv",
        "chmod",
        "chown",
        "ls",
        "stat",
        "df",
        "free",
        "uptime",
        "hostname",
        "uname",
        "id",
        "whoami",
        "env",
        "which",
        "type",
        "command",
        "expr",
        "seq",
        "test",
        "ping",
        "nc",
        "ntpdate",
        "chronyc",
        "timedatectl",
        "hwclock",
        "ntpd",
        "journalctl",
        "dmesg",
        "modprobe",
        "rmmod",
        "ip",
        "ifconfig",
        "nmcli",
        "iw",
        "rfkill",
        "ethtool",
        "mount",
        "umount",
        "swapon",
        "swapoff",
        "notify-send",
        "mail",
        "sendmail",
        "pgrep",
        "pidof",
        "ps",
        "readlink",
        "realpath",
        "dirname",
        "basename",
        "find",
        "xxd",
        "base64",
        "openssl",
        "true",
        "false",
        "iptables",
        "nft",
        "sysctl",
        "beep",
        "aplay",
        "loginctl",
        "udevadm",
        "tput",
        "clear",
        "install",
        "apk",
        "apt-get",
        "yum",
        "dnf",
        "pip",
    ]
)


def _systemctl(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    words = [word for word in ran.words[1:] if not word.startswith("-")]
    verb, units = (words[0] if words else ""), words[1:]
    if verb in ("reboot", "poweroff", "halt", "kexec", "soft-reboot"):
        raise _NotUnderstood(f"systemctl {verb} is no restart of ztunnel")
    if verb not in ("restart", "start", "stop", "try-restart", "reload-or-restart", "reload", "kill"):
        raise _DoesNothing(f"systemctl {verb} restarts nothing")
    for unit in units:
        name = unit.removesuffix(".service")
        if not is_known(unit):
            raise _NotUnderstood("which unit it is is not known")
        if re.match(r"(k3s|rke2|kubelet|k0s|containerd|crio)", name) and "killall" not in name:
            continue
        if "ztunnel" in name or re.match(r"docker|microk8s|podman|snap|minikube", name):
            raise _NotUnderstood(f"what restarting the unit {unit!r} does is not known")
    raise _DoesNothing("it leaves ztunnel's container running")


def _service(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    return _systemctl(replace(ran, words=("systemctl", *ran.words[2:3], *ran.words[1:2])), memory, place)


def _crictl(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    """crictl stops containers or pods by what `crictl ps` and `crictl pods` print; kubelet starts them anew."""
    if place.in_pod:
        raise _NotUnderstood("crictl in a pod: which runtime it reaches is not known")
    words = _without_prefix(ran.program, list(ran.words))
    operands = _operands(words[1:], _CRICTL_VALUES)
    verb, names = (operands[0] if operands else ""), operands[1:]
    if verb in ("ps", "pods", "images", "logs", "inspect", "inspectp", "stats", "info", "version", "statsp"):
        raise _DoesNothing(f"crictl {verb} restarts nothing")
    if verb not in ("stop", "rm", "stopp", "rmp"):
        raise _NotUnderstood(f"crictl {verb} is not understood here")
    if verb in ("rm", "rmp") and not {"-f", "--force", "-fa", "-af"} & set(words):
        raise _DoesNothing(f"crictl {verb} removes nothing that runs, without --force")
    if not names and {"-a", "--all"} & set(words):
        return [Action("ztunnel", "", "own node")]
    return _of_container_ids(names, verb, memory)


_CRICTL_VALUES = frozenset(
    [
        "-r",
        "--runtime-endpoint",
        "-i",
        "--image-endpoint",
        "-t",
        "--timeout",
        "--config",
        "-c",
        "--name",
        "--label",
        "--state",
        "-s",
        "--pod",
        "-p",
        "--id",
        "--namespace",
        "-o",
        "--output",
        "--last",
        "-n",
        "--image",
        "--filter",
    ]
)


def _operands(words: Sequence[str], takes_value: frozenset[str]) -> list[str]:
    found, rest = [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            found.append(word)
        elif word in takes_value and rest:
            rest.pop(0)
    return found


def _of_container_ids(names: list[str], verb: str, memory: Memory) -> list[Action]:
    unknowns = [unknown for name in names for unknown in memory.unknowns_in(name)]
    if not unknowns:
        raise _DoesNothing("a container has another id after each restart")
    for unknown in unknowns:
        if not _ids_of_ztunnel(unknown, memory):
            raise _DoesNothing(
                f"{unknown.text} names no container of ztunnel: the pod is ztunnel-..., its container istio-proxy"
            )
    return [Action("ztunnel", "", "own node")]


def _ids_of_ztunnel(unknown: Unknown, memory: Memory) -> bool:
    """Whether the ids that some commands print have ztunnel's among them."""
    first, *filters = unknown.runs or (None,)
    if first is None:
        raise _NotUnderstood(f"what {unknown.text} is is not known")
    words = _without_prefix(first.program, list(first.words))
    program = words[0].rsplit("/", 1)[-1]
    rest = words[1:]
    if program == "crictl":
        operands = _operands(rest, _CRICTL_VALUES)
        lists_pods = operands[:1] == ["pods"]
        if operands[:1] not in (["pods"], ["ps"]):
            raise _NotUnderstood(f"what {unknown.text} prints is not understood")
        own_name = POD if lists_pods else CONTAINER
    elif program in ("docker", "nerdctl", "podman"):
        if "ps" not in rest:
            raise _NotUnderstood(f"what {unknown.text} prints is not understood")
        own_name = f"k8s_{CONTAINER}_{POD}_istio-system_uid_0"
        lists_pods = False
    else:
        raise _NotUnderstood(f"what {unknown.text} prints is not understood")
    if not _options_select(rest, own_name, lists_pods, memory):
        return False
    line = f"4f1c2a7d image 26 hours ago Running {own_name} 0 77aa {POD} istio-system"
    return bool(_lines_left(filters, [line]))


def _options_select(rest: list[str], own_name: str, lists_pods: bool, memory: Memory) -> bool:
    for position, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if not equals and position + 1 < len(rest):
            value = rest[position + 1]
        if name in ("--filter", "-f"):
            name, _, value = value.partition("=")
            name = f"--{name}"
        if name == "--name" and not _found(value, own_name):
            return False
        if name == "--label":
            key, _, wanted = value.partition("=")
            own = {"io.kubernetes.container.name": CONTAINER, **(LABELS if lists_pods else {})}
            if key not in own:
                raise _NotUnderstood(f"whether ztunnel's container has the label {key!r} is not known")
            if wanted != own[key]:
                return False
        if name in ("--pod", "-p") and not is_known(value):
            if not all(_ids_of_ztunnel(each, memory) for each in memory.unknowns_in(value)):
                return False
    return True


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error as error:
        raise _NotUnderstood(f"the pattern {pattern!r} is not understood") from error


def _containers(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    """docker, nerdctl and podman: containers by what `ps` prints."""
    operands = _operands(
        ran.words[1:], frozenset({"-t", "--time", "-s", "--signal", "--namespace", "-n", "-H", "-f", "--filter"})
    )
    verb, names = (operands[0] if operands else ""), operands[1:]
    if verb in ("ps", "logs", "inspect", "images", "info", "stats", "version"):
        raise _DoesNothing(f"{ran.program} {verb} restarts nothing")
    if verb not in ("restart", "stop", "kill", "rm"):
        raise _NotUnderstood(f"{ran.program} {verb} is not understood here")
    if place.in_pod or any(is_known(name) for name in names) or not names:
        raise _NotUnderstood(f"what container {' '.join(names)!r} is is not known")
    return _of_container_ids(names, verb, memory)


def _kill(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    """pkill, killall and kill: kubelet starts a container anew whose process has ended."""
    words = list(ran.words[1:])
    signals = [word for word in words if re.fullmatch(r"-(s|-signal.*|\d+|[A-Z][A-Z0-9]*)", word)]
    operands = [word for word in words if not word.startswith("-")]
    if signals and signals[0].removeprefix("-").removeprefix("SIG") not in (
        "TERM",
        "KILL",
        "INT",
        "QUIT",
        "9",
        "15",
        "2",
        "3",
    ):
        raise _NotUnderstood(f"whether ztunnel ends on {signals[0]} is not known")
    if ran.program == "kill":
        programs = [each for name in operands for unknown in memory.unknowns_in(name) for each in unknown.runs]
        if not programs or programs[0].program not in ("pidof", "pgrep"):
            raise _NotUnderstood("which process it ends is not known")
        operands = [word for word in programs[0].words[1:] if not word.startswith("-")]
    if not any(
        _found(pattern, "/usr/local/bin/ztunnel proxy ztunnel" if "-f" in words else "ztunnel") for pattern in operands
    ):
        raise _DoesNothing("it ends another process")
    if not place.sees_processes:
        raise _DoesNothing("a pod sees its own processes only, without hostPID")
    return [Action("ztunnel", "", "own node")]


def _curl(ran: Ran, memory: Memory, place: Place) -> list[Action]:
    text = memory.shown(ran.words)
    if re.search(r"\s-X\s*'?(?!GET)\w|--request|\s-d\b|--data|--method|quitquitquit|\s-XDELETE|\s-XPATCH", text):
        raise _NotUnderstood("what this request changes is not understood; kubectl is")
    raise _DoesNothing("it only asks")


_OTHERS: dict[str, Callable[[Ran, Memory, Place], list[Action]]] = {
    "systemctl": _systemctl,
    "service": _service,
    "rc-service": _service,
    "crictl": _crictl,
    **dict.fromkeys(["docker", "nerdctl", "podman"], _containers),
    **dict.fromkeys(["pkill", "killall", "kill"], _kill),
    **dict.fromkeys(["curl", "wget"], _curl),
}


# --- What a job reads ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PodLogs:
    """`kubectl logs` of ztunnel: its options as they are written."""

    since: str | None
    since_time: str | None
    tail: str | None
    by_selector: bool


def pod_logs(ran: Ran, memory: Memory, place: Place) -> PodLogs | str:
    """The logs of ztunnel that a command reads, or why it reads none."""
    words = _without_prefix(ran.program, list(ran.words))
    if not words or words[0].rsplit("/", 1)[-1] not in ("kubectl", "oc"):
        return f"{memory.shown(ran.words)[:60]!r} is no kubectl logs"
    try:
        read = _Kubectl(words, memory, place)
        if read.verb not in ("logs", "log"):
            return f"kubectl {read.verb} reads no log"
        return _logs_of_ztunnel(read, memory, place)
    except (_NotUnderstood, _DoesNothing, _Harms, _Waits) as why:
        return str(why)


def _logs_of_ztunnel(read: _Kubectl, memory: Memory, place: Place) -> PodLogs | str:
    container = read.option("-c", "--container")
    if container not in (None, CONTAINER):
        return f"ztunnel's container is {CONTAINER}, and not {container!r}"
    if read.is_on("-p", "--previous"):
        return "--previous reads the log of the container before"
    if not read._here():
        raise read._elsewhere()
    selector = read.option("-l", "--selector")
    if selector is not None:
        if not selects_ztunnel(selector, memory):
            return "its selector leaves ztunnel out"
    else:
        target = read.operands[1] if len(read.operands) > 1 else ""
        kind, _, name = target.rpartition("/")
        if unknowns := memory.unknowns_in(target):
            printed_pods(unknowns[0], memory, place)
        elif name != DAEMON_SET or _KIND_OF.get(kind) != "daemonset":
            return f"{memory.shown(target)!r} is not ztunnel: write -l app=ztunnel"
    since, since_time = read.option("--since"), read.option("--since-time")
    return PodLogs(since, since_time, read.option("--tail"), selector is not None)
