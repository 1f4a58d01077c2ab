"""What a command does to ztunnel and to applications: the one place where that is decided, for
every kind of fix.

A command that a script comes to (shell/) is an action, or does nothing to them for a reason that
is known, or is not understood. kubectl/ reads kubectl, containers.py the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from meshwake.fixes.containers import IDLE, OTHERS
from meshwake.fixes.effects import (
    Action,
    CommandContext,
    DoesNothing,
    Harms,
    NotUnderstood,
    Waits,
    without_prefix,
)
from meshwake.fixes.kubectl.command import PROGRAMS, Kubectl
from meshwake.fixes.kubectl.contexts import SWITCH_CONTEXT, Contexts
from meshwake.fixes.kubectl.logs import PodLogs, pod_logs
from meshwake.fixes.kubectl.restarts import actions_of
from meshwake.fixes.shell.memory import Memory, Ran, is_known

__all__ = ["Action", "CommandContext", "PodLogs", "Reading", "pod_logs", "read_actions"]

# Of a command in a message; scripts may be of any length.
_SHOWN_MOST = 160


@dataclass
class Reading:
    """What was found in all commands of a script. `idle` and `unclear` say of commands why they
    restart nothing, or that they are not understood; `harmful` ends ztunnel for good."""

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


def read_actions(memory: Memory, place: CommandContext) -> Reading:
    """What the commands of a script do."""
    reading = Reading()
    contexts = Contexts(place.namespace, place.in_pod)
    for ran in memory.ran:
        command = memory.shown(ran.words)
        if ran.program == "wait":
            # The shell goes on when all that it put into the background has ended, so nothing of it
            # is cut off by the end of the container any more.
            reading.actions = [replace(action, background=False) for action in reading.actions]
            continue

        try:
            found = _command(ran, memory, place, contexts)
        except NotUnderstood as why:
            reading.unclear.append(f"{_short(command)!r}: {why}")
        except DoesNothing as why:
            reading.idle.append(f"{_short(command)!r}: {why}")
        except Harms as why:
            reading.harmful.append(f"{_short(command)!r}: {why}")
        except Waits:
            # `kubectl rollout status` and the like: what was begun before it is over behind it.
            reading.actions = [replace(action, waited=True) for action in reading.actions]
        else:
            for action in found:
                as_run = replace(
                    action,
                    command=_short(command),
                    conditions=ran.conditions,
                    after_s=ran.after_s,
                    background=ran.background,
                )
                reading.actions.append(as_run)
    return reading


def _short(command: str) -> str:
    """A command on one line, for a message."""
    text = " ".join(command.split())
    if len(text) <= _SHOWN_MOST:
        return text
    return f"{text[: _SHOWN_MOST - 3]}..."


def _command(ran: Ran, memory: Memory, place: CommandContext, contexts: Contexts) -> list[Action]:
    """What one command restarts; `contexts` learns from it. Raises what effects.py has for commands
    that restart nothing."""
    first = ran.words[0]
    if not is_known(first):
        raise NotUnderstood("which program it runs is not known")

    # command: ["kubectl rollout restart ..."] in a manifest: no shell splits it into words.
    if " " in first:
        raise DoesNothing(
            "no program has such a name; its arguments belong into words of their own"
        )

    # kubectl.exe of Windows is on the PATH of WSL, too.
    words = without_prefix(ran.program.removesuffix(".exe"), list(ran.words))
    program = words[0].rsplit("/", 1)[-1].removesuffix(".exe")
    if program in PROGRAMS or program in SWITCH_CONTEXT:
        command = Kubectl(words, memory, replace(place, namespace=contexts.namespace))
        contexts.follow(program, command, is_certain=not ran.conditions)
        if program in PROGRAMS:
            return actions_of(command)

    # Programs that end containers or processes of a node.
    reader = OTHERS.get(program)
    if reader is not None:
        return reader(ran, memory, place)

    # A mounted script that may be executed is followed by the shell and never comes here.
    if first in memory.files:
        raise DoesNothing("may not be executed: its ConfigMap is mounted without defaultMode: 0755")
    if program in IDLE or program in SWITCH_CONTEXT:
        raise DoesNothing("restarts nothing")
    raise NotUnderstood("what this program does is not known")
