"""kubectl and oc: verbs, objects, namespaces, selectors and options, and what comes of them for
ztunnel."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import yaml

from meshwake.fixes.effects import (
    DAEMON_SET,
    LABELS,
    POD,
    Action,
    DoesNothing,
    Harms,
    How,
    NotUnderstood,
    Place,
    Waits,
    without_prefix,
)
from meshwake.fixes.patterns import PatternNotRead, grep_lets_through
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import UNKNOWN, Memory, Ran, Unknown, is_known
from meshwake.ztunnel.names import PROXY_CONTAINER

_TAKES_VALUE = names(
    "-n --namespace --context --cluster --kubeconfig --user --server -s --token --as "
    "--as-group --as-uid --request-timeout --certificate-authority --client-certificate "
    "--client-key --tls-server-name --cache-dir --profile --profile-output --v -v --vmodule "
    "--password --username --kuberc -l --selector --field-selector -f --filename -k "
    "--kustomize -o --output --template --field-manager --grace-period --timeout -p --patch "
    "--type --patch-file --subresource -c --container --since --since-time --tail "
    "--limit-bytes --max-log-requests --pod-running-timeout --for --revision --replicas "
    "--raw --sort-by -e --env --from --resource-version --chunk-size -L --label-columns "
    "--current-replicas --containers --image --keys --prefix-name"
)


_SWITCHES = names(
    "-A --all-namespaces --all --force --now --wait --ignore-not-found -R --recursive "
    "--insecure-skip-tls-verify -q --quiet -w --watch --no-headers --show-labels -h --help "
    "--overwrite --local --follow --prefix --timestamps --previous --all-containers "
    "--all-pods --ignore-errors --match-server-version --warnings-as-errors "
    "--disable-compression --show-managed-fields --allow-missing-template-keys -i -t -it -ti "
    "--stdin --tty --output-watch-events --interactive --list --record --server-print "
    "--ignore-daemonsets --delete-emptydir-data --dry-run --cascade --watch-only --show-kind "
    "--logtostderr --alsologtostderr --stderr --warnings --insecure-skip-tls-verify-backend"
)


_ANOTHER_CLUSTER = ("--context", "--cluster", "--server", "-s", "--user")


_LOOKS = names(
    "get describe logs log top version wait auth config api-resources api-versions "
    "cluster-info explain events diff completion options plugin whoami project status "
    "annotate label cordon uncordon certificate kustomize taint"
)


_KINDS = {
    "daemonset": ("daemonset", "daemonsets", "ds"),
    "deployment": ("deployment", "deployments", "deploy"),
    "statefulset": ("statefulset", "statefulsets", "sts"),
    "pod": ("pod", "pods", "po"),
}


_KIND_OF = {spelling: kind for kind, spellings in _KINDS.items() for spelling in spellings}


class Kubectl:
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
                    raise DoesNothing(f"kubectl needs a value behind {name}")
                value = rest.pop(0)
            elif not equals and name not in _SWITCHES and not (is_logs and name in ("-f", "-p")):
                raise NotUnderstood(f"the option {name} of kubectl is not known here")
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
        """The namespace that it is about. Raises NotUnderstood when nobody can say."""
        said = self.option("-n", "--namespace")
        if said is None or said == "":
            if self._place.namespace is None:
                raise NotUnderstood(
                    "neither kubectl (-n) nor metadata.namespace says in which namespace; write -n "
                    f"{self._place.ztunnel_namespace}"
                )
            return self._place.namespace
        if not is_known(said):
            raise NotUnderstood(f"its namespace is {self._memory.shown(said)}, which is not known")
        return said

    def actions(self) -> list[Action]:
        """What it ends and starts anew. Raises NotUnderstood, DoesNothing, Harms and Waits."""
        if self.is_on("-h", "--help") or not self.verb:
            raise DoesNothing("kubectl prints its help")
        if not is_known(self.verb):
            raise NotUnderstood("its verb is not known")
        for name in _ANOTHER_CLUSTER:
            if name in self.options and self.verb not in _LOOKS:
                raise NotUnderstood(
                    f"kubectl {name}: which cluster that is cannot be known here; leave it out"
                )
        dry = self.option("--dry-run")
        if dry is not None and dry not in ("none", "false"):
            raise DoesNothing("--dry-run changes nothing")
        if self.verb == "rollout":
            return self._rollout()
        if self.verb in _LOOKS:
            if self.verb == "wait" and self._selects_ztunnel_pods_or_name():
                raise Waits
            raise DoesNothing(f"kubectl {self.verb} restarts nothing")
        readers = {"delete": self._delete, "patch": self._patch, "set": self._set}
        if self.verb in readers:
            return readers[self.verb]()
        raise NotUnderstood(f"kubectl {self.verb} is not understood here")

    def _selects_ztunnel_pods_or_name(self) -> bool:
        return any(
            "ztunnel" in each for each in [*self.operands, self.option("-l", "--selector") or ""]
        )

    # --- Names and selectors ---

    def _named(self, operands: list[str]) -> list[tuple[str, str | None]]:
        """TYPE/NAME..., or TYPE[,TYPE] [NAME...]: pairs of kind and name (None: all of them)."""
        if any(name in self.options for name in ("-f", "--filename", "-k", "--kustomize")):
            raise NotUnderstood(
                "kubectl -f and -k: what is in that file is not known here; name the objects"
            )
        if not operands:
            raise DoesNothing("kubectl needs the type of what is meant")
        if any("/" in each for each in operands):
            if not all("/" in each for each in operands):
                raise DoesNothing(
                    "kubectl takes TYPE/NAME or TYPE NAME, and not both in one command"
                )
            pairs = [each.split("/", 1) for each in operands]
            return [(self.kind(kind), name) for kind, name in pairs]
        kinds = [self.kind(each) for each in operands[0].split(",")]
        names: list[str | None] = [*operands[1:]] or [None]
        return [(kind, name) for kind in kinds for name in names]

    def kind(self, written: str) -> str:
        """The kind that a type names, in any spelling."""
        if not is_known(written):
            raise NotUnderstood(f"the type {self._memory.shown(written)} is not known")
        name = written.lower()
        short, _, group = name.partition(".")
        if group and not re.fullmatch(r"(v\d\w*\.)?(apps)?|v1\.?", group):
            return name
        return _KIND_OF.get(short, short)

    def selects_ztunnel(self) -> bool | None:
        """Whether the selector matches ztunnel's labels; None without one."""
        selector = self.option("-l", "--selector")
        if selector is None or selector == "":
            return None
        return selects_ztunnel(selector, self._memory)

    def nodes(self) -> tuple[How, str | None]:
        """Which nodes a field selector leaves."""
        fields = self.option("--field-selector")
        if not fields:
            return "at once", None
        how: How = "at once"
        node = None
        for term in fields.split(","):
            match = re.fullmatch(r"([\w.]+)(==?)(.*)", term)
            if match is None or match[1] not in (
                "spec.nodeName",
                "metadata.namespace",
                "status.phase",
            ):
                raise NotUnderstood(
                    f"the field selector {self._memory.shown(term)!r} is not understood"
                )
            if match[1] == "status.phase" and match[3] != "Running":
                raise DoesNothing(
                    f"a ztunnel that serves is Running, and {term!r} leaves only others"
                )
            if match[1] == "spec.nodeName":
                how, node = self._node_named(match[3])
        return how, node

    def _node_named(self, name: str) -> tuple[How, str | None]:
        if is_known(name):
            if not name:
                raise DoesNothing("spec.nodeName= leaves pods of no node")
            return "at once", name
        (unknown, *_) = self._memory.unknowns_in(name)
        if unknown.text == "the node's name":
            return "own node", None
        hosts = (
            "$(hostname)",
            "$HOSTNAME",
            "$(uname -n)",
            "$(hostname -s)",
            "$(hostname -f)",
            "$(cat /etc/hostname)",
        )
        if unknown.text in hosts or unknown.text.startswith("${HOSTNAME"):
            if self._place.in_pod:
                raise DoesNothing("in a pod hostname is the pod's name, and no node is called so")
            return "own node", None
        raise NotUnderstood(f"which node {unknown.text} is is not known")

    def here(self) -> bool:
        """Whether it is about ztunnel's namespace."""
        return (
            self.is_on("-A", "--all-namespaces") or self.namespace == self._place.ztunnel_namespace
        )

    def elsewhere(self) -> DoesNothing:
        """Says that it is about another namespace than that of ztunnel."""
        return DoesNothing(
            f"it is about namespace {self.namespace!r}, and ztunnel lives in "
            f"{self._place.ztunnel_namespace!r} (in a "
            "scenario [fix] ztunnel_namespace says where)"
        )

    # --- Verbs ---

    def _rollout(self) -> list[Action]:
        sub, operands = (self.operands[1] if len(self.operands) > 1 else ""), self.operands[2:]
        if sub == "status":
            if (
                any("ztunnel" in each or each in _KINDS["daemonset"] for each in operands)
                and self.here()
            ):
                raise Waits
            raise DoesNothing("kubectl rollout status only waits")
        if sub in ("history", "pause", "resume"):
            raise DoesNothing(f"kubectl rollout {sub} restarts nothing")
        if sub != "restart":
            raise NotUnderstood(f"kubectl rollout {sub} is not understood here")
        if self.is_on("-A", "--all-namespaces"):
            raise DoesNothing("kubectl rollout restart knows no --all-namespaces")
        if "--dry-run" in self.options:
            raise DoesNothing("kubectl rollout restart knows no --dry-run")
        if len(operands) == 1 and not is_known(operands[0]):
            return self._restart_printed(operands[0])
        return self._restarted(self._named(operands))

    def _restart_printed(self, operand: str) -> list[Action]:
        """`kubectl rollout restart $(kubectl get ds -o name ...)`."""
        (unknown, *_) = self._memory.unknowns_in(operand)
        first = unknown.runs[0] if unknown.runs else None
        if first is not None and first.program in ("kubectl", "oc"):
            looked = Kubectl(first.words, self._memory, self._place)
            if looked.verb == "get" and looked.kind(looked.operands[1]) == "daemonset":
                if (
                    lines_left(unknown.runs[1:], [f"daemonset.apps/{DAEMON_SET}"])
                    and looked.here()
                    and self.here()
                ):
                    if looked.selects_ztunnel() is False:
                        raise DoesNothing("its selector leaves ztunnel out")
                    return [Action("ztunnel", "", "rollout")]
                raise DoesNothing("what it restarts is not ztunnel")
        raise NotUnderstood(f"what {unknown.text} is is not known")

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
            raise DoesNothing("; ".join(dict.fromkeys(idle)))
        return _merged(found)

    def _daemon_set(self, name: str | None, idle: list[str]) -> list[Action]:
        if name is not None and not is_known(name):
            raise NotUnderstood(f"what {self._memory.shown(name)} is is not known")
        if name is not None and name != DAEMON_SET:
            idle.append(f"the DaemonSet {name!r} is not ztunnel's")
        elif not self.here():
            idle.append(str(self.elsewhere()))
        elif name is None and self.selects_ztunnel() is False:
            idle.append("its selector leaves ztunnel out")
        else:
            return [Action("ztunnel", "", "rollout")]
        return []

    def _workload(self, kind: str, name: str | None, idle: list[str]) -> list[Action]:
        if name is None and self.option("-l", "--selector"):
            raise NotUnderstood(
                f"which {kind}s have the label {self.option('-l', '--selector')!r} is not known"
            )
        if name is not None and not is_known(name):
            raise NotUnderstood(f"what {self._memory.shown(name)} is is not known")
        if self.here():
            idle.append(
                f"the {kind} {name or 'of any name'!r} in {self.namespace} is neither "
                "ztunnel nor an application"
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
        takes_it_away = any(
            kind == "daemonset" and name in (None, DAEMON_SET) for kind, name in named
        )
        if takes_it_away and self.here():
            raise Harms("it deletes ztunnel's DaemonSet, and nothing makes it anew")
        if kinds != {"pod"}:
            raise DoesNothing(f"deleting {', '.join(sorted(kinds))} is no restart of ztunnel")
        names = [name for _, name in named if name is not None]
        if names:
            return self._delete_names(names)
        return self._delete_selected()

    def _delete_printed(self, operands: list[str]) -> list[Action]:
        found = [
            self._pods_of(unknown)
            for each in operands
            for unknown in self._memory.unknowns_in(each)
        ]
        return _merged([each for one in found for each in one])

    def _delete_names(self, names: list[str]) -> list[Action]:
        found: list[Action] = []
        for name in names:
            unknowns = self._memory.unknowns_in(name)
            if not unknowns:
                raise DoesNothing(
                    f"{name!r}: a pod has another name after each restart; delete pods by "
                    "-l app=ztunnel"
                )
            found += [each for unknown in unknowns for each in self._pods_of(unknown)]
        return _merged(found)

    def _pods_of(self, unknown: Unknown) -> list[Action]:
        """The pods whose names are printed by the commands of `unknown`."""
        found = printed_pods(unknown, self._memory, self._place)
        if not self.here():
            raise self.elsewhere()
        return found

    def _delete_selected(self) -> list[Action]:
        selects = self.selects_ztunnel()
        how, node = self.nodes()
        if selects is None and not self.is_on("--all") and not self.option("--field-selector"):
            raise DoesNothing("kubectl deletes no pods without a name, -l or --all")
        if selects:
            if not self.here():
                raise self.elsewhere()
            return [Action("ztunnel", "", how, node=node)]
        if selects is False:
            raise DoesNothing("its selector leaves ztunnel out")
        found = []
        if self.here():
            found.append(Action("ztunnel", "", how, node=node))
        if self.is_on("-A", "--all-namespaces") or not self.here():
            everywhere = self.is_on("-A", "--all-namespaces")
            namespace = "" if everywhere else self.namespace
            found.append(Action("applications", "", how, namespace=namespace, node=node))
        return found

    def _patch(self) -> list[Action]:
        """A patch of the DaemonSet's pod template replaces its pods, when the template becomes
        another one."""
        self._must_be_ztunnel(self._named(self.operands[1:]))
        patch = self.option("-p", "--patch")
        if patch is None:
            raise NotUnderstood("kubectl patch without -p: what is in the file is not known here")
        template = _template_of(UNKNOWN.sub("UNKNOWN", patch))
        if template is None:
            raise DoesNothing(
                "it does not touch the pod template (spec.template), so no pod is replaced"
            )
        return self._changed(template)

    def _set(self) -> list[Action]:
        if self.operands[1:2] != ["env"]:
            raise NotUnderstood(
                f"kubectl set {' '.join(self.operands[1:2])} is not understood here"
            )
        objects = [each for each in self.operands[2:] if "=" not in each and not each.endswith("-")]
        values = [each for each in self.operands[2:] if "=" in each] + self.options.get("-e", [])
        values += self.options.get("--env", [])
        self._must_be_ztunnel(self._named(objects))
        if self.is_on("--list") or not values:
            raise DoesNothing("it sets nothing")
        return self._changed(UNKNOWN.sub("UNKNOWN", " ".join(values)))

    def _changed(self, text: str) -> list[Action]:
        if "UNKNOWN" not in text:
            raise NotUnderstood(
                "it writes the same value each time: pods are replaced the first time "
                "only; write the time, $(date +%s)"
            )
        return [Action("ztunnel", "", "rollout")]

    def _must_be_ztunnel(self, named: list[tuple[str, str | None]]) -> None:
        for kind, name in named:
            if kind != "daemonset" or name != DAEMON_SET:
                raise DoesNothing(
                    f"{kind} {self._memory.shown(name or '')!r} is not ztunnel's DaemonSet"
                )
        if not self.here():
            raise self.elsewhere()


def _template_of(patch: str) -> str | None:
    """What a patch writes below spec.template, as text; None when it writes nothing there."""
    try:
        content = yaml.safe_load(patch)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotUnderstood(
            f"its patch is not understood: {' '.join(patch.split())[:80]}"
        ) from error
    if isinstance(content, list):
        below = [
            each.get("value")
            for each in content
            if isinstance(each, dict) and str(each.get("path", "")).startswith("/spec/template")
        ]
        return json.dumps(below, default=str) if below else None
    if not isinstance(content, dict):
        raise NotUnderstood("its patch is no object")
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
    """Whether a label selector matches ztunnel's pods. Raises NotUnderstood."""
    if not is_known(selector):
        raise NotUnderstood(f"the selector {memory.shown(selector)!r} is not known")
    for term in re.split(r",(?![^(]*\))", selector):
        match = re.fullmatch(
            r"\s*(!?)\s*([\w./-]+)\s*(?:(==?|!=)\s*([\w.-]*)|\s(in|notin)\s*\(([^)]*)\))?\s*", term
        )
        if match is None:
            raise NotUnderstood(f"the selector {term!r} is not understood")
        absent, key, operator, value, within, values = match.groups()
        if key not in LABELS:
            raise NotUnderstood(
                f"whether ztunnel has the label {key!r} is not known here; take app=ztunnel"
            )
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
        raise NotUnderstood(f"what {unknown.text} is is not known")
    looked = Kubectl(without_prefix(first.program, list(first.words)), memory, place)
    operands = looked.operands[1:]
    if (
        looked.verb != "get"
        or not operands
        or looked.kind(operands[0]) != "pod"
        or len(operands) > 1
    ):
        raise NotUnderstood(f"what {unknown.text} prints is not understood")
    if not looked.here():
        raise looked.elsewhere()
    if looked.selects_ztunnel() is False:
        raise DoesNothing("its selector leaves ztunnel out")
    how, node = looked.nodes()
    output = looked.option("-o", "--output") or ""
    line = (
        f"pod/{POD}" if output == "name" else f"istio-system {POD} 1/1 Running 0 26h 10.0.0.7 node"
    )
    if not lines_left(filters, [line]):
        raise DoesNothing("its filter leaves ztunnel out")
    if "[0]" in output or any(_takes_one(each) for each in filters):
        how = "one of them"
    return [Action("ztunnel", "", how, node=node)]


def _program(ran: Ran) -> str:
    words = without_prefix(ran.program, list(ran.words))
    return words[0].rsplit("/", 1)[-1] if words else ""


def _takes_one(ran: Ran) -> bool:
    return ran.program in ("head", "tail") and any(
        re.fullmatch(r"-n?1|1", word) for word in ran.words[1:]
    )


def lines_left(filters: Iterable[Ran], lines: list[str]) -> list[str]:
    """What of `lines` goes through the filters of a pipeline. Raises NotUnderstood."""
    for ran in filters:
        if ran.program in ("grep", "egrep", "fgrep"):
            try:
                lines = [line for line in lines if grep_lets_through(ran.words, line)]
            except PatternNotRead as error:
                raise NotUnderstood(f"{' '.join(ran.words)!r} {error}") from error
        elif ran.program in ("awk", "gawk"):
            lines = [line for line in lines if _awk_lets_through(ran.words, line)]
        elif ran.program not in _SHAPE_LINES:
            raise NotUnderstood(f"what {' '.join(ran.words)!r} lets through is not understood")
    return lines


_SHAPE_LINES = names("cut tr sed sort uniq head tail tee cat xargs column jq")


def _awk_lets_through(words: tuple[str, ...], line: str) -> bool:
    script = next((word for word in words[1:] if "{" in word or "/" in word), "")
    match = re.match(r"\s*(?:\$\d+\s*~\s*)?/([^/]*)/", script)
    if match:
        try:
            return re.search(match[1], line) is not None
        except re.error as error:
            raise NotUnderstood(f"{script!r} is not understood") from error
    if re.match(r"\s*(NR\s*>\s*1\s*)?\{\s*print[^{}]*\}\s*$", script):
        return True
    raise NotUnderstood(f"what awk {script!r} lets through is not understood")


@dataclass(frozen=True)
class PodLogs:
    """`kubectl logs` of ztunnel: its options as they are written."""

    since: str | None
    since_time: str | None
    tail: str | None
    by_selector: bool


def pod_logs(ran: Ran, memory: Memory, place: Place) -> PodLogs | str:
    """The logs of ztunnel that a command reads, or why it reads none."""
    words = without_prefix(ran.program, list(ran.words))
    if not words or words[0].rsplit("/", 1)[-1] not in ("kubectl", "oc"):
        return f"{memory.shown(ran.words)[:60]!r} is no kubectl logs"
    try:
        read = Kubectl(words, memory, place)
        if read.verb not in ("logs", "log"):
            return f"kubectl {read.verb} reads no log"
        return _logs_of_ztunnel(read, memory, place)
    except (NotUnderstood, DoesNothing, Harms, Waits) as why:
        return str(why)


def _logs_of_ztunnel(read: Kubectl, memory: Memory, place: Place) -> PodLogs | str:
    container = read.option("-c", "--container")
    if container not in (None, PROXY_CONTAINER):
        return f"ztunnel's container is {PROXY_CONTAINER}, and not {container!r}"
    for shows_less, why in (
        (read.is_on("-p", "--previous"), "--previous reads the log of the container before"),
        (read.is_on("-f", "--follow"), "-f waits for more without end"),
        (read.option("--limit-bytes") not in (None, "0"), "--limit-bytes shows the beginning only"),
    ):
        if shows_less:
            return why
    if not read.here():
        raise read.elsewhere()
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
