"""A unit of systemd that is started when the machine goes to sleep, and what it does before and
after the sleep.

systemd starts `suspend.target` after systemd-suspend.service, which ends when the machine has
woken; and `sleep.target` before it. So a unit runs

    after the sleep    with After=suspend.target (or systemd-suspend.service), wanted by a target of the sleep
    before it          with Before=sleep.target; and its ExecStop after the sleep, when it remains and is
    stopped with the
                       target (RemainAfterExit= with StopWhenUnneeded= or PartOf=)

What it does is ExecStartPre, ExecStart and ExecStartPost one after another, until one fails; and
ExecStop as soon as that is over, unless it remains. One that remains and that nothing stops is
started by the first sleep only.

With neither it starts together with the sleep, and which is first is unknown.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from meshwake.core.errors import BadInput
from meshwake.fixes.shell.memory import Memory, Unknown
from meshwake.fixes.shell.shell import check_characters, run_words

_OF_SUSPEND = {"suspend.target", "sleep.target", "systemd-suspend.service"}
_AFTER_SUSPEND = {"suspend.target", "systemd-suspend.service"}
_OTHER_SLEEPS = {
    f"{begins}{name}{ends}"
    for name in ("hibernate", "hybrid-sleep", "suspend-then-hibernate")
    for begins, ends in (("", ".target"), ("systemd-", ".service"))
}
_CLUSTER_PATH = re.compile(r"k3s|k0s|rke2|kube|microk8s|crictl")


@dataclass(frozen=True)
class UnitFile:
    """The settings of a unit: for each section and key the values, in order; an empty one takes
    back those before."""

    settings: dict[tuple[str, str], tuple[str, ...]]

    def words(self, section: str, key: str) -> set[str]:
        """The words of a list."""
        return set(" ".join(self.lines(section, key)).split())

    def lines(self, section: str, key: str) -> tuple[str, ...]:
        """The values, one for each time that the key is written."""
        return self.settings.get((section, key), ())

    def is_on(self, section: str, key: str) -> bool:
        """Whether a switch is on."""
        # Of several values the last counts.
        *_, last = ("no", *self.lines(section, key))
        # systemd.syntax(7): a boolean is written in one of these ways.
        return last.lower() in ("yes", "true", "on", "1")


def is_unit(text: str) -> bool:
    """Whether `text` looks like a unit, and not like a script."""
    # A script may write a unit in a here-document.
    if text.startswith("#!"):
        return False
    return re.search(r"^\[(Unit|Service|Install|Timer)\]\s*$", text, re.MULTILINE) is not None


def read_unit(text: str) -> UnitFile:
    """The settings in a unit file."""
    settings: dict[tuple[str, str], tuple[str, ...]] = {}
    section = ""

    # systemd.syntax(7): a backslash at the end of a line joins the next to it.
    joined_lines = re.sub(r"\\\n[ \t]*", " ", text)
    for line in joined_lines.splitlines():
        stripped = line.strip()
        is_comment = stripped.startswith(("#", ";"))
        if not stripped or is_comment:
            continue

        header = re.fullmatch(r"\[(\S+)\]", stripped)
        if header is not None:
            section = header[1]
            continue

        key, equals, value = map(str.strip, stripped.partition("="))
        if equals:
            # systemd.syntax(7): a setting adds to those before it, and an empty one clears them.
            before = settings.get((section, key), ())
            settings[section, key] = (*before, value) if value else ()
    return UnitFile(settings)


def run_unit(unit: UnitFile, moment: str) -> Memory:
    """What the unit does at `moment` ("pre" or "post") of a suspend. Raises BadInput when that is
    unknown, and NotRead."""
    for values in unit.settings.values():
        check_characters(" ".join(values))

    memory = Memory()
    keys = _keys_at(unit, moment)

    # A unit that does nothing then may have any condition.
    if not keys:
        return memory
    _check_conditions(unit)

    variables = _environment(unit)

    # A file of the node that is not read here may set any variable.
    is_open = bool(unit.lines("Service", "EnvironmentFile"))
    failed, after_s = False, 0.0
    for line in _lines_of(unit, keys):
        for words in _commands(line.text, variables, memory):
            if failed and not line.runs_after_failure:
                continue

            # One after another: what one of them sleeps, the next one waits.
            ended = run_words(words, variables, memory, unset_is_unknown=is_open, after_s=after_s)
            after_s = ended.after_s
            if ended.status is False and not line.may_fail:
                failed = True
    return memory


class _Line(NamedTuple):
    """A line of commands, such as ExecStart."""

    text: str
    may_fail: bool
    runs_after_failure: bool


def _lines_of(unit: UnitFile, keys: tuple[str, ...]) -> Iterator[_Line]:
    """The lines with these keys, key by key."""
    for key in keys:
        for text in unit.lines("Service", key):
            yield _Line(
                text,
                # systemd.service(5): a command with the prefix "-" may fail.
                may_fail=re.match(r"[@:+!|]*-", text) is not None,
                # systemd.service(5): ExecStopPost runs also after a start that failed.
                runs_after_failure=key == "ExecStopPost",
            )


_START = ("ExecStartPre", "ExecStart", "ExecStartPost")
_STOP = ("ExecStop", "ExecStopPost")


def _keys_at(unit: UnitFile, moment: str) -> tuple[str, ...]:
    """Which of its commands run then. Raises BadInput where no suspend starts it as it should."""
    wanted = unit.words("Install", "WantedBy") | unit.words("Install", "RequiredBy")
    if not wanted & (_OF_SUSPEND | _OTHER_SLEEPS):
        wanted_by = ", ".join(sorted(wanted)) or "nothing"
        raise BadInput(
            f"fix.manifest: the unit is wanted by {wanted_by}, which no sleep starts; expected "
            "WantedBy=suspend.target with After=suspend.target"
        )

    # Started by a hibernation only, which is another sleep than a suspend.
    if not wanted & _OF_SUSPEND:
        return ()

    is_after = bool(unit.words("Unit", "After") & _AFTER_SUSPEND)
    is_before = bool(unit.words("Unit", "Before") & _OF_SUSPEND)
    if not is_after and not is_before:
        raise BadInput(
            "fix.manifest: the unit starts together with the sleep, and whether it acts before or "
            "after it is not known; expected After=suspend.target"
        )

    remains = unit.is_on("Service", "RemainAfterExit")
    if remains and not _is_stopped(unit):
        raise BadInput(
            "fix.manifest: the unit has RemainAfterExit=, and nothing stops it: so it is started "
            "by the first sleep and never again; leave RemainAfterExit= out, or add "
            "StopWhenUnneeded=yes"
        )

    # Without RemainAfterExit= a oneshot is stopped as soon as its last command has ended.
    starts = _START if remains else _START + _STOP
    if is_after:
        return starts if moment == "post" else ()
    if moment == "pre":
        return starts

    # It stops when suspend.target does, at the wake.
    return _STOP if remains else ()


def _is_stopped(unit: UnitFile) -> bool:
    """Whether a unit that remains active is stopped by the end of the sleep."""
    if unit.is_on("Unit", "StopWhenUnneeded"):
        return True
    return bool(unit.words("Unit", "PartOf") & _OF_SUSPEND)


def _check_conditions(unit: UnitFile) -> None:
    """Raises BadInput for a condition of the unit that may keep it from starting."""
    for (section, key), values in unit.settings.items():
        # systemd.unit(5) and systemd.service(5): the one kind is in [Unit], the other in [Service].
        if section not in ("Unit", "Service"):
            continue
        if not key.startswith(("Condition", "Assert", "ExecCondition")):
            continue

        # On a node of a cluster the files of Kubernetes are there.
        are_known = all(_CLUSTER_PATH.search(value) for value in values)
        if not are_known:
            raise BadInput(
                f"fix.manifest: the unit has {key}={values[-1]}, and whether that is so "
                "cannot be known here"
            )


def _environment(unit: UnitFile) -> dict[str, str]:
    found = {}
    # systemd.exec(5): several assignments in a line, each of which may be quoted.
    for line in unit.lines("Service", "Environment"):
        for word in _split(line):
            name, _, value = word.partition("=")
            found[name] = value
    return found


def _commands(line: str, variables: dict[str, str], memory: Memory) -> list[list[str]]:
    """The commands of one ExecStart: systemd starts them without a shell."""
    commands: list[list[str]] = [[]]
    without_prefixes = re.sub(r"^[-@:+!|]+", "", line)
    for word in _split(without_prefixes):
        if word == ";":
            commands.append([])
            continue

        # systemd.service(5): $FOO as a word of its own is split at its blanks, ${FOO} never is.
        name = re.fullmatch(r"\$([A-Za-z_]\w*)", word)
        if name is not None:
            commands[-1] += variables.get(name[1], "").split()
            continue

        expanded = _expanded(word, variables)
        # systemd.unit(5), specifiers: %H is the host's name, %l the short form of it.
        host = memory.char_of(Unknown("$(hostname)"))
        commands[-1].append(re.sub(r"%[Hl]", host, expanded.replace("%%", "%")))
    return [words for words in commands if words]


def _expanded(word: str, variables: dict[str, str]) -> str:
    """`${NAME}` as systemd puts it in, and `$$` as `$`."""

    def value_of(reference: re.Match[str]) -> str:
        if reference[0] == "$$":
            return "$"
        # One that is not set is empty.
        return variables.get(reference[1], "")

    return re.sub(r"\$\$|\$\{([A-Za-z_]\w*)\}", value_of, word)


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise BadInput(
            f"fix.manifest: the unit's line {line[:80]!r} is not understood: {error}"
        ) from error
