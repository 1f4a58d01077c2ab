"""One kubectl command: its verb, what it names, its namespace, and its options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

from meshwake.fixes.effects import CommandContext, DoesNothing, How, NotUnderstood
from meshwake.fixes.kubectl.selectors import selects_ztunnel
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import Memory, Unknown, is_known

PROGRAMS = ("kubectl", "oc", "microk8s.kubectl")
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
# Switches of `kubectl logs` that take a value in other verbs.
_SWITCHES_OF_LOGS = ("-f", "-p")

KINDS = {
    "daemonset": ("daemonset", "daemonsets", "ds"),
    "deployment": ("deployment", "deployments", "deploy"),
    "statefulset": ("statefulset", "statefulsets", "sts"),
    "pod": ("pod", "pods", "po"),
}


KIND_OF = {spelling: kind for kind, spellings in KINDS.items() for spelling in spellings}

# How scripts write the name of the machine that they run on.
_HOST_NAMES = (
    "$(hostname)",
    "$HOSTNAME",
    "$(uname -n)",
    "$(hostname -s)",
    "$(hostname -f)",
    "$(cat /etc/hostname)",
)
_FIELDS_OF_SELECTORS = ("spec.nodeName", "metadata.namespace", "status.phase")


# Objects in files, which are not part of the manifest.
_FILES = names("-f --filename -k --kustomize")


class Kubectl:
    """One kubectl command. Its parts raise NotUnderstood where they are not known, and DoesNothing
    where kubectl would refuse them."""

    def __init__(self, words: Sequence[str], memory: Memory, place: CommandContext) -> None:
        self.memory, self.place = memory, place
        self.operands: list[str] = []
        self.options: dict[str, list[str]] = {}
        self._read(list(words[1:]))
        self.verb = self.operands[0] if self.operands else ""

    def _read(self, rest: list[str]) -> None:
        while rest:
            word = rest.pop(0)
            # What is behind it belongs to a program in a pod: kubectl exec POD -- COMMAND.
            if word == "--":
                self.operands += ["--", *rest]
                return
            if word.startswith("-") and word != "-":
                self._read_option(word, rest)
            else:
                self.operands.append(word)

    def _read_option(self, word: str, rest: list[str]) -> None:
        name, equals, value = word.partition("=")
        is_short = not word.startswith("--")
        if is_short and len(name) > 2 and f"-{name[1]}" in _TAKES_VALUE:
            # The value in the same word: -nistio-system, -n=istio-system.
            name, value, equals = name[:2], word[2:].removeprefix("="), "="
        # -f and -p are switches of `kubectl logs`, and take a value everywhere else.
        is_switch = self.operands[:1] in (["logs"], ["log"]) and name in _SWITCHES_OF_LOGS
        if not equals and not is_switch:
            value = self._value_behind(name, rest)
        self.options.setdefault(name, []).append(value)

    def _value_behind(self, name: str, rest: list[str]) -> str:
        """The next word, for an option that takes one; "" for a switch."""
        # An unknown option cannot be passed over: whether the next word is its value decides what
        # the command is about.
        if name in _TAKES_VALUE:
            if not rest:
                raise DoesNothing(f"kubectl needs a value behind {name}")
            return rest.pop(0)
        if name not in _SWITCHES:
            raise NotUnderstood(f"the option {name} of kubectl is not known here")
        return ""

    def option(self, *names: str) -> str | None:
        """The last value of an option, or None."""
        found = [value for name in names for value in self.options.get(name, [])]
        # pflag, which kubectl uses: a flag that is given twice has the last value.
        return found[-1] if found else None

    def is_on(self, *names: str) -> bool:
        """Whether a switch is on."""
        return any(value != "false" for name in names for value in self.options.get(name, []))

    # --- Where ---

    @property
    def namespace(self) -> str:
        """The namespace that it is about. Raises NotUnderstood where that cannot be known."""
        given = self.option("-n", "--namespace")
        if not given:
            if self.place.namespace is None:
                raise NotUnderstood(
                    "neither kubectl (-n) nor metadata.namespace says in which namespace; write -n "
                    f"{self.place.ztunnel_namespace}"
                )
            return self.place.namespace
        if not is_known(given):
            raise NotUnderstood(f"its namespace is {self.memory.shown(given)}, which is not known")
        return given

    @property
    def is_everywhere(self) -> bool:
        """Whether it is about all namespaces."""
        return self.is_on("-A", "--all-namespaces")

    def here(self) -> bool:
        """Whether it is about ztunnel's namespace."""
        return self.is_everywhere or self.namespace == self.place.ztunnel_namespace

    def elsewhere(self) -> DoesNothing:
        """Says that it is about another namespace than that of ztunnel."""
        return DoesNothing(
            f"it is about namespace {self.namespace!r}, and ztunnel lives in "
            f"{self.place.ztunnel_namespace!r} (in a scenario [fix] ztunnel_namespace says where)"
        )

    # --- Names and selectors ---

    def named(self, operands: list[str]) -> list[tuple[str, str | None]]:
        """TYPE/NAME..., or TYPE[,TYPE] [NAME...]: pairs of kind and name (None: all of them)."""
        if not _FILES.isdisjoint(self.options):
            raise NotUnderstood(
                "kubectl -f and -k: what is in that file is not known here; name the objects"
            )
        if not operands:
            raise DoesNothing("kubectl needs the type of what is meant")
        if any("/" in each for each in operands):
            return self._named_with_types(operands)
        # `ds,deploy a b` means both names in both kinds.
        kinds = map(self.kind, operands[0].split(","))
        names: list[str | None] = [*operands[1:]] or [None]
        return list(product(kinds, names))

    def _named_with_types(self, operands: list[str]) -> list[tuple[str, str | None]]:
        if not all("/" in each for each in operands):
            raise DoesNothing("kubectl takes TYPE/NAME or TYPE NAME, and not both in one command")
        pairs = [each.split("/", 1) for each in operands]
        return [(self.kind(kind), name) for kind, name in pairs]

    def kind(self, written: str) -> str:
        """The kind that a type names, in any spelling."""
        if not is_known(written):
            raise NotUnderstood(f"the type {self.memory.shown(written)} is not known")
        name = written.lower()
        short, _, group = name.partition(".")
        # daemonset.apps and daemonset.v1.apps are the one of Kubernetes; a kind of the same name in
        # another group is another kind.
        if group and not re.fullmatch(r"(v\d\w*\.)?(apps)?|v1\.?", group):
            return name
        return KIND_OF.get(short, short)

    def selects_ztunnel(self) -> bool | None:
        """Whether the selector matches ztunnel's labels; None without one."""
        selector = self.option("-l", "--selector")
        if not selector:
            return None
        return selects_ztunnel(selector, self.memory)

    def nodes(self) -> tuple[How, str | None]:
        """Which nodes a field selector leaves."""
        fields = self.option("--field-selector")
        how: How = "at once"
        node = None
        for term in fields.split(",") if fields else ():
            # Only equality: `!=` leaves several nodes, and which those are depends on the cluster.
            match = re.fullmatch(r"([\w.]+)(==?)(.*)", term)
            if match is None or match[1] not in _FIELDS_OF_SELECTORS:
                shown = self.memory.shown(term)
                raise NotUnderstood(f"the field selector {shown!r} is not understood")
            field, value = match[1], match[3]
            if field == "status.phase" and value != "Running":
                raise DoesNothing(
                    f"a ztunnel that serves is Running, and {term!r} leaves only others"
                )
            if field == "spec.nodeName":
                how, node = self._node_named(value)
        return how, node

    def _node_named(self, name: str) -> tuple[How, str | None]:
        if is_known(name):
            if not name:
                raise DoesNothing("spec.nodeName= leaves pods of no node")
            return "at once", name
        (unknown, *_) = self.memory.unknowns_in(name)
        # Of an environment variable with fieldRef: spec.nodeName (jobs.py).
        if unknown.text == "the node's name":
            return "own node", None
        if unknown.text in _HOST_NAMES or unknown.text.startswith("${HOSTNAME"):
            if self.place.in_pod:
                raise DoesNothing("in a pod hostname is the pod's name, and no node is called so")
            return "own node", None
        raise not_known(unknown)


def not_known(unknown: Unknown) -> NotUnderstood:
    """Says that what a script computes there cannot be known."""
    return NotUnderstood(f"the value of {unknown.text} is not known")
