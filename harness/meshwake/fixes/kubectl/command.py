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
    "--current --embed-certs --minify --flatten --set-raw-bytes "
    "--logtostderr --alsologtostderr --stderr --warnings --insecure-skip-tls-verify-backend"
)
# Switches of `kubectl logs` that take a value in other verbs.
_SWITCHES_OF_LOGS = ("-f", "-p")

KINDS = {
    "daemonset": names("daemonset daemonsets ds"),
    "deployment": names("deployment deployments deploy"),
    "statefulset": names("statefulset statefulsets sts"),
    "pod": names("pod pods po"),
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
# "" is the group of pods, and what kubectl looks for where none is given.
_OWN_GROUP = re.compile(r"(v\d\w*\.)?(apps)?|v1\.?")
_FIELD_TERM = re.compile(r"(spec\.nodeName|metadata\.namespace|status\.phase)==?(.*)")


# Objects in files, which are not part of the manifest.
_FILES = names("-f --filename -k --kustomize")


class Kubectl:
    """One kubectl command. Its parts raise NotUnderstood where they are not known, and DoesNothing
    where kubectl would refuse them."""

    def __init__(self, words: Sequence[str], memory: Memory, place: CommandContext) -> None:
        self.memory = memory
        self.place = place
        self.operands: list[str] = []

        # All values of each, in their order; "" of a switch.
        self.options: dict[str, list[str]] = {}
        self._read(list(words[1:]))
        self.verb = "".join(self.operands[:1])

    def _read(self, rest: list[str]) -> None:
        """Sorts the words into options and operands, which kubectl takes in any order."""
        while rest:
            word = rest.pop(0)
            # What is behind it belongs to a program in a pod: kubectl exec POD -- COMMAND.
            if word == "--":
                self.operands += ["--", *rest]
                return

            # A dash alone is the standard input: kubectl apply -f -.
            if word.startswith("-") and word != "-":
                name, value = self._option_in(word, rest)
                self.options.setdefault(name, []).append(value)
            else:
                self.operands.append(word)

    def _option_in(self, word: str, rest: list[str]) -> tuple[str, str]:
        """The name and the value of an option, which may be the next word."""
        name, equals, value = word.partition("=")
        # The value in the same word: -nistio-system. A word of two dashes has no such one: "--" is
        # the name of no option.
        short = name[:2]
        if len(name) > 2 and short in _TAKES_VALUE:
            return short, word.removeprefix(short).removeprefix("=")

        # -f and -p are switches of `kubectl logs`, and take a value everywhere else.
        is_of_logs = self.operands[:1] in (["logs"], ["log"])
        if equals or (is_of_logs and name in _SWITCHES_OF_LOGS):
            return name, value

        return name, self._value_behind(name, rest)

    def _value_behind(self, name: str, rest: list[str]) -> str:
        """The next word, for an option that takes one; "" for a switch."""
        if name in _SWITCHES:
            return ""

        # An unknown option cannot be passed over: whether the next word is its value decides what
        # the command is about.
        if name not in _TAKES_VALUE:
            raise NotUnderstood(f"the option {name} of kubectl is not known here")

        if not rest:
            raise DoesNothing(f"kubectl needs a value behind {name}")
        return rest.pop(0)

    def _values(self, names: tuple[str, ...]) -> list[str]:
        """The values of an option in all spellings of its name."""
        found: list[str] = []
        for name in names:
            found += self.options.get(name, [])
        return found

    def option(self, *names: str) -> str | None:
        """The last value of an option, or None."""
        values = self._values(names)
        if not values:
            return None

        # pflag, which kubectl uses: a flag that is given twice has the last value.
        return values[-1]

    def is_on(self, *names: str) -> bool:
        """Whether a switch is on."""
        # --wait=false turns it off; without a value it is "" here.
        values = set(self._values(names))
        return bool(values - {"false"})

    # --- Where ---

    @property
    def namespace(self) -> str:
        """The namespace that it is about. Raises NotUnderstood where that cannot be known."""
        # kubectl takes an empty one for none: -n "$NAMESPACE" of a variable that is not set.
        given = self.option("-n", "--namespace") or self.place.namespace
        if given is None:
            raise NotUnderstood(
                "neither kubectl (-n) nor metadata.namespace says in which namespace; write -n "
                f"{self.place.ztunnel_namespace}"
            )

        if not is_known(given):
            shown = self.memory.shown(given)
            raise NotUnderstood(f"its namespace is {shown}, which is not known")
        return given

    @property
    def is_everywhere(self) -> bool:
        """Whether it is about all namespaces."""
        return self.is_on("-A", "--all-namespaces")

    def here(self) -> bool:
        """Whether it is about ztunnel's namespace."""
        # With -A it has no namespace of its own, also where -n is given.
        if self.is_everywhere:
            return True
        return self.namespace == self.place.ztunnel_namespace

    def check_is_here(self) -> None:
        """Raises DoesNothing where it is about another namespace than that of ztunnel."""
        if self.here():
            return

        raise DoesNothing(
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

        if "/" in "".join(operands):
            return self._named_with_types(operands)

        # `ds,deploy a b` means both names in both kinds.
        kinds = map(self.kind, operands[0].split(","))
        names: list[str | None] = [*operands[1:]] or [None]
        return list(product(kinds, names))

    def _named_with_types(self, operands: list[str]) -> list[tuple[str, str | None]]:
        """TYPE/NAME..., each with its own type."""
        named: list[tuple[str, str | None]] = []
        for operand in operands:
            kind, slash, name = operand.partition("/")
            if not slash:
                raise DoesNothing(
                    "kubectl takes TYPE/NAME or TYPE NAME, and not both in one command"
                )
            named.append((self.kind(kind), name))
        return named

    def kind(self, written: str) -> str:
        """The kind that a type names, in any spelling."""
        if not is_known(written):
            raise NotUnderstood(f"the type {self.memory.shown(written)} is not known")

        # kubectl takes types in any case, with their version and group or without.
        name = written.lower()
        short, _, group = name.partition(".")

        # daemonset.apps and daemonset.v1.apps are the one of Kubernetes; a kind of the same name in
        # another group is another kind.
        if not _OWN_GROUP.fullmatch(group):
            return name
        return KIND_OF.get(short, short)

    def selects_ztunnel(self) -> bool | None:
        """Whether the selector matches ztunnel's labels; None without one."""
        selector = self.option("-l", "--selector")
        # An empty one selects everything, as none does.
        if not selector:
            return None
        return selects_ztunnel(selector, self.memory)

    def nodes(self) -> tuple[How, str | None]:
        """Which nodes a field selector leaves."""
        fields = self.option("--field-selector") or ""
        how: How = "at once"
        node = None

        # Terms are separated by commas, and all of them must match.
        for term in filter(None, fields.split(",")):
            # Only equality: `!=` leaves several nodes, and which those are depends on the cluster.
            match = _FIELD_TERM.fullmatch(term)
            if match is None:
                shown = self.memory.shown(term)
                raise NotUnderstood(f"the field selector {shown!r} is not understood")

            field, value = match.groups()
            # A pod that has ended is not restarted, and one that is Pending serves nothing.
            if field == "status.phase" and value != "Running":
                raise DoesNothing(
                    f"a ztunnel that serves is Running, and {term!r} leaves only others"
                )

            if field == "spec.nodeName":
                how, node = self._node_named(value)

        return how, node

    def _node_named(self, name: str) -> tuple[How, str | None]:
        """The node that `spec.nodeName=name` leaves."""
        # A pod without a node is not scheduled yet.
        if not name:
            raise DoesNothing("spec.nodeName= leaves pods of no node")
        if is_known(name):
            return "at once", name

        unknown = self.memory.unknowns_in(name)[0]
        # Of an environment variable with fieldRef: spec.nodeName (jobs.py).
        if unknown.text == "the node's name":
            return "own node", None

        # ${HOSTNAME%%.*}, too: a node may be registered without its domain.
        is_host_name = unknown.text in _HOST_NAMES or unknown.text.startswith("${HOSTNAME")
        if not is_host_name:
            raise not_known(unknown)

        if self.place.in_pod:
            raise DoesNothing("in a pod hostname is the pod's name, and no node is called so")
        return "own node", None


def not_known(unknown: Unknown) -> NotUnderstood:
    """Says that what a script computes there cannot be known."""
    return NotUnderstood(f"the value of {unknown.text} is not known")
