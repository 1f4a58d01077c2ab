"""A script of systemd-sleep, or a unit that a sleep starts, that restarts ztunnel when the machine
has slept.

systemd runs what lies in /usr/lib/systemd/system-sleep with the arguments `pre` or `post` and
`suspend` (or hibernate, hybrid-sleep): on the machine that goes to sleep by itself, and nowhere
else. A VM whose host slept, which was paused or migrated, was never notified, and neither does it
run when a clock is stepped or drifts.

What it does is found out by following it with the arguments of a suspend. So a restart on `pre` is
one before the sleep, and one after a hibernation only is none at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from meshwake.clocks.virtual import Clocks
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.core.text_files import MARK
from meshwake.fixes.actions import Action, CommandContext, Reading, read_actions
from meshwake.fixes.cron import carried_out, namespace_of
from meshwake.fixes.deploy import manifest_of
from meshwake.fixes.jobs import shown
from meshwake.fixes.shell.memory import Memory
from meshwake.fixes.shell.shell import run
from meshwake.fixes.shell.tree import NotRead
from meshwake.fixes.units import is_unit, read_unit, run_unit
from meshwake.guard.watch import PlannedRestart

NAME = "sleep-hook"
# systemd thaws user space, runs the hooks one after another, and the API server must answer.
ACTS_AFTER_NS = 5 * NS_PER_S
ACTS_BEFORE_NS = NS_PER_S
_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh")
_OTHER_SLEEPS = ("hibernate", "hybrid-sleep", "suspend-then-hibernate")


@dataclass(frozen=True)
class Hook:
    """What it restarts before and after a suspend."""

    before: tuple[Action, ...]
    after: tuple[Action, ...]


def restarts(plan: Plan, clocks: Clocks) -> list[PlannedRestart]:
    """What the hook restarts around each sleep of a node, when its control plane is there. Raises
    BadInput when it is none."""
    hook = read_hook(manifest_of(plan), namespace_of(plan))
    found: set[PlannedRestart] = set()
    for fault in plan.faults:
        # A VM that is paused is never notified, and no hook of it runs.
        if fault.kind == "suspend" and fault.node is not None:
            found.update(_around(plan, clocks, fault, fault.node, hook))
    return list(found)


def _around(
    plan: Plan, clocks: Clocks, fault: PlannedFault, node: str, hook: Hook
) -> list[PlannedRestart]:
    # A sleep in the first second of the world: its hook runs as the world begins.
    before_ns = max(fault.at_world_ns - ACTS_BEFORE_NS, 0)
    after_ns = fault.ends_world_ns + ACTS_AFTER_NS
    found: list[PlannedRestart] = []
    for world_ns, actions in ((before_ns, hook.before), (after_ns, hook.after)):
        for action in actions:
            found += carried_out(plan, clocks, world_ns, action, NAME, own_node=node)
    return found


@lru_cache(maxsize=16)  # a sweep needs the same for every run
def read_hook(text: str, ztunnel_namespace: str) -> Hook:
    """What a script or unit restarts around a suspend. Raises BadInput when it is neither, or
    restarts ztunnel never."""
    place = CommandContext("default", False, ztunnel_namespace)
    # systemd-sleep(8): started with "pre" or "post", and with what the machine does.
    before = _at(text, ("pre", "suspend"), place)
    after = _at(text, ("post", "suspend"), place)

    # What takes ztunnel away for good cures nothing, whatever else the hook restarts.
    harms = [*before[1].harmful, *after[1].harmful]
    if harms:
        raise BadInput(f"fix.manifest: the sleep hook: {harms[0]}")

    ztunnels_after = _sure(after, "post")

    # What is not waited for may still be going on when the machine sleeps.
    ztunnels_before = [action for action in _sure(before, "pre") if action.waited]

    if not ztunnels_before and not ztunnels_after:
        _explain(text, place, before[1], after[1])
    return Hook(tuple(ztunnels_before), tuple(ztunnels_after))


def _at(text: str, arguments: tuple[str, ...], place: CommandContext) -> tuple[Memory, Reading]:
    """What a hook does when systemd-sleep calls it with `arguments`. Raises BadInput."""
    try:
        if is_unit(text):
            memory = run_unit(read_unit(text), arguments[0])
        else:
            _check_interpreter(text)
            # systemd-sleep(8): the variable has what the second argument has, and in a
            # suspend-then-hibernate which half of it.
            memory = run(text, arguments, {"SYSTEMD_SLEEP_ACTION": arguments[-1]})
    except NotRead as error:
        raise BadInput(f"fix.manifest: the sleep hook: {error}") from error
    return memory, read_actions(memory, place)


# systemd-sleep executes it as a program: what the kernel does not start never runs.
def _check_interpreter(text: str) -> None:
    if text.startswith(MARK):
        raise BadInput(
            "fix.manifest: the sleep hook begins with a byte order mark, and no kernel starts "
            "such a script; save it as UTF-8 without one (dos2unix does)"
        )
    if "\r\n" in text:
        raise BadInput(
            "fix.manifest: the sleep hook: its lines end as on Windows (CR LF), and no shell runs "
            "such a script; dos2unix mends it"
        )
    if not text.startswith("#!"):
        raise BadInput(
            "fix.manifest: the sleep hook does not begin with '#!' and is not a unit either; "
            "systemd-sleep runs programs only, for example a script that begins with #!/bin/sh"
        )
    program = _interpreter_of(text)
    if program not in _SHELLS:
        raise BadInput(
            f"fix.manifest: the sleep hook is a program for {program!r}; understood are scripts "
            f"for {', '.join(_SHELLS)}"
        )


def _interpreter_of(text: str) -> str:
    """The program that `#!` names, also by way of env; "" where it names none."""
    first_line, _, _ = text.removeprefix("#!").partition("\n")
    program = ""
    for word in first_line.split():
        # Options do not count: #!/usr/bin/env -S bash -e.
        if word.startswith("-"):
            continue
        program = word.rsplit("/", 1)[-1]
        # env is only the way to what comes after it.
        if program != "env":
            return program
    return program


def _sure(found: tuple[Memory, Reading], moment: str) -> list[Action]:
    """The restarts of ztunnel that happen whenever it is called. Raises BadInput when all hang on
    something."""
    memory, reading = found
    actions = reading.of("ztunnel")
    sure = [action for action in actions if not action.conditions and not action.background]
    if sure or not actions:
        return sure

    # One is named, the first: a person mends one line at a time.
    first = actions[0]
    if first.background:
        raise BadInput(
            f"fix.manifest: the sleep hook leaves {first.command!r} in the background on "
            f"{moment!r}, and systemd ends what a hook leaves behind; leave the '&' out, or use "
            "systemd-run"
        )
    condition = shown(first.conditions[0], memory)
    raise BadInput(
        f"fix.manifest: the sleep hook runs {first.command!r} on {moment!r} only when {condition}, "
        "and whether it is so cannot be known here; a restart without a condition is understood"
    )


def _explain(text: str, place: CommandContext, before: Reading, after: Reading) -> None:
    """Raises BadInput that says why no suspend restarts ztunnel; returns when a hibernation does,
    which is not a suspend."""
    not_waited = before.of("ztunnel")
    if not_waited:
        raise BadInput(
            f"fix.manifest: the sleep hook runs {not_waited[0].command!r} on 'pre' and does not "
            "wait for it, so whether the machine sleeps first is not known; restart on 'post', or "
            "wait: kubectl rollout status ds/ztunnel"
        )

    reasons = [*after.unclear, *after.idle, *before.unclear, *before.idle]
    if is_unit(text):
        # Nothing of it runs, so it is started by a hibernation only.
        if not reasons:
            return
    elif _restarts_at_hibernation(text, place):
        return
    else:
        _check_other_callers(text, place)

    # Each once, where both calls give it.
    runs = "; ".join(dict.fromkeys(reasons)) or "nothing"
    raise BadInput(
        "fix.manifest: the sleep hook does not restart ztunnel on 'post'; systemd-sleep calls it "
        f"with 'pre' before and 'post' after the sleep. It runs {runs}"
    )


def _restarts_at_hibernation(text: str, place: CommandContext) -> bool:
    for sleep in _OTHER_SLEEPS:
        _, reading = _at(text, ("post", sleep), place)
        if reading.of("ztunnel"):
            return True
    return False


def _check_other_callers(text: str, place: CommandContext) -> None:
    """Raises BadInput for a hook that was written for another program than systemd-sleep: copied to
    it, it never acts."""
    for word in ("resume", "thaw", "up", "wake"):
        # Hooks of pm-utils get "resume" and "thaw", those of NetworkManager an interface and "up".
        for arguments in ((word, "suspend"), ("eth0", word)):
            _, reading = _at(text, arguments, place)
            if not reading.of("ztunnel"):
                continue
            raise BadInput(
                f"fix.manifest: the sleep hook restarts ztunnel on {word!r}, which another program "
                "may call it with (pm-utils, NetworkManager); systemd-sleep calls it with 'pre' "
                "before and 'post' after the sleep"
            )
