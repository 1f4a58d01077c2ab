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
from dataclasses import dataclass

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
        return {word for value in self.settings.get((section, key), ()) for word in value.split()}

    def lines(self, section: str, key: str) -> tuple[str, ...]:
        """The values, one for each time that the key is written."""
        return self.settings.get((section, key), ())

    def is_on(self, section: str, key: str) -> bool:
        """Whether a switch is on."""
        return (self.lines(section, key) or ("no",))[-1].lower() in ("yes", "true", "on", "1")


def is_unit(text: str) -> bool:
    """Whether `text` looks like a unit, and not like a script."""
    return (
        not text.startswith("#!")
        and re.search(r"^\[(Unit|Service|Install|Timer)\]\s*$", text, re.MULTILINE) is not None
    )


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
        if header := re.fullmatch(r"\[(\S+)\]", stripped):
            section = header[1]
            continue
        key, equals, value = (part.strip() for part in stripped.partition("="))
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
    if not keys:
        return memory
    _check_conditions(unit)
    variables = _environment(unit)
    # A file of the node that is not read here may set any variable.
    is_open = bool(unit.lines("Service", "EnvironmentFile"))
    failed, after_s = False, 0.0
    lines = [(key, line) for key in keys for line in unit.lines("Service", key)]
    for key, line in lines:
        # systemd.service(5): a command with the prefix "-" may fail.
        may_fail = re.match(r"[@:+!|]*-", line) is not None
        for words in _commands(line, variables, memory):
            # systemd.service(5): ExecStopPost runs also after a start that failed.
            if failed and key != "ExecStopPost":
                continue
            ended = run_words(words, variables, memory, unset_is_unknown=is_open, after_s=after_s)
            after_s = ended.after_s
            failed = failed or (ended.status is False and not may_fail)
    return memory


_START = ("ExecStartPre", "ExecStart", "ExecStartPost")
_STOP = ("ExecStop", "ExecStopPost")


def _keys_at(unit: UnitFile, moment: str) -> tuple[str, ...]:
    """Which of its commands run then."""
    remains = unit.is_on("Service", "RemainAfterExit")
    stops = unit.is_on("Unit", "StopWhenUnneeded") or bool(
        unit.words("Unit", "PartOf") & _OF_SUSPEND
    )
    wanted = unit.words("Install", "WantedBy") | unit.words("Install", "RequiredBy")
    if not wanted & (_OF_SUSPEND | _OTHER_SLEEPS):
        raise BadInput(
            f"fix.manifest: the unit is wanted by {', '.join(sorted(wanted)) or 'nothing'}, "
            "which no "
            "sleep starts; expected "
            "WantedBy=suspend.target with After=suspend.target"
        )
    # Started by a hibernation only, which is another sleep than a suspend.
    if not wanted & _OF_SUSPEND:
        return ()
    after, before = unit.words("Unit", "After"), unit.words("Unit", "Before")
    if (after & _AFTER_SUSPEND or before & _OF_SUSPEND) and remains and not stops:
        raise BadInput(
            "fix.manifest: the unit has RemainAfterExit=, and nothing stops it: so it is "
            "started by the first sleep "
            "and never again; leave RemainAfterExit= out, or add StopWhenUnneeded=yes"
        )
    # Without RemainAfterExit= a oneshot is stopped as soon as its last command has ended.
    starts = _START if remains else _START + _STOP
    if after & _AFTER_SUSPEND:
        return starts if moment == "post" else ()
    if before & _OF_SUSPEND:
        if moment == "pre":
            return starts
        return _STOP if remains else ()
    raise BadInput(
        "fix.manifest: the unit starts together with the sleep, and whether it acts before "
        "or after it is not known; "
        "expected After=suspend.target"
    )


def _check_conditions(unit: UnitFile) -> None:
    for (section, key), values in unit.settings.items():
        decides = key.startswith(("Condition", "Assert")) or key == "ExecCondition"
        if (
            decides
            and section in ("Unit", "Service")
            and not all(_CLUSTER_PATH.search(value) for value in values)
        ):
            raise BadInput(
                f"fix.manifest: the unit has {key}={values[-1]}, and whether that is so "
                "cannot be known here"
            )


def _environment(unit: UnitFile) -> dict[str, str]:
    found = {}
    for line in unit.lines("Service", "Environment"):
        for word in _split(line):
            name, _, value = word.partition("=")
            found[name] = value
    return found


def _commands(line: str, variables: dict[str, str], memory: Memory) -> list[list[str]]:
    """The commands of one ExecStart: systemd starts them without a shell."""
    commands: list[list[str]] = [[]]
    for word in _split(re.sub(r"^[-@:+!|]+", "", line)):
        if word == ";":
            commands.append([])
            continue
        name = re.fullmatch(r"\$([A-Za-z_]\w*)", word)
        if name is not None:
            commands[-1] += variables.get(name[1], "").split()
            continue
        expanded = re.sub(
            r"\$\$|\$\{([A-Za-z_]\w*)\}",
            lambda found: "$" if found[0] == "$$" else variables.get(found[1], ""),
            word,
        )
        host = memory.char_of(Unknown("$(hostname)"))
        commands[-1].append(re.sub(r"%[Hl]", host, expanded.replace("%%", "%")))
    return [each for each in commands if each]


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise BadInput(
            f"fix.manifest: the unit's line {line[:80]!r} is not understood: {error}"
        ) from error
