"""The namespace that kubectl takes where a command names none: commands before it may change it, in
the file that kubectl keeps its contexts in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from meshwake.fixes.kubectl.command import PROGRAMS, Kubectl

# They change the same file.
SWITCH_CONTEXT = ("kubens", "kubectx")
# What kubectl takes where a context has none.
_DEFAULT = "default"
# `kubectl config set` takes the path of a value: contexts.NAME.namespace.
_SET_NAMESPACE = re.compile(r"contexts\.(?P<context>.+)\.namespace")


@dataclass
class Contexts:
    """`namespace`: what a command without -n is about; None where that is not known. `in_pod`: there
    kubectl has no file, unless one is mounted, and so no current context."""

    namespace: str | None
    in_pod: bool
    _current: str | None = None
    _namespace_of: dict[str, str] = field(default_factory=dict)

    def follow(self, program: str, command: Kubectl, *, is_certain: bool) -> None:
        """Learns from one command of `program`; `is_certain`: whether it runs for sure."""
        before = self.namespace
        if program in PROGRAMS:
            self._follow_kubectl(command)
        elif program == "kubens":
            self._use_namespace(command.operands[:1])
        elif program == "kubectx":
            self._use_context(command.operands[:1])

        # Then either may be the one.
        if not is_certain and self.namespace != before:
            self.namespace = None

    def _follow_kubectl(self, command: Kubectl) -> None:
        verb, operands = command.verb, command.operands[1:]
        # `oc project` is OpenShift's, `kubectl ns` the plugin that is called kubens elsewhere.
        if verb in ("project", "ns"):
            self._use_namespace(operands[:1])
        if verb == "config":
            self._follow_config(command, operands)

    def _follow_config(self, command: Kubectl, operands: list[str]) -> None:
        what, rest = "".join(operands[:1]), operands[1:]
        if what in ("use-context", "use"):
            self._use_context(rest[:1])

        namespace = command.option("--namespace")
        if what == "set-context" and namespace is not None:
            name = self._current if command.is_on("--current") else "".join(rest[:1])
            self._set_namespace(name, namespace)

        path = _SET_NAMESPACE.fullmatch("".join(rest[:1])) if what == "set" else None
        if path is not None:
            self._set_namespace(path["context"], "".join(rest[1:2]))

    def _set_namespace(self, context: str | None, written: str) -> None:
        """`context`: None for --current where no command has named the current one."""
        namespace = written or _DEFAULT
        if context is not None:
            self._namespace_of[context] = namespace

        if self._current is not None:
            if context == self._current:
                self.namespace = namespace
            return

        # Whether that one is the current one is not known, and in a pod there may be none at all.
        is_current = context is None and not self.in_pod
        self.namespace = namespace if is_current else None

    def _use_context(self, named: list[str]) -> None:
        for name in named:
            self._current = name
            self.namespace = self._namespace_of.get(name)

    def _use_namespace(self, named: list[str]) -> None:
        for name in named:
            # kubens: the one before, which is not known.
            self.namespace = None if name == "-" else name
