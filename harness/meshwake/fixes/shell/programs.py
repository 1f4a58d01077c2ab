"""What is known of programs: which start another, how long they sleep, what they answer, what they
print."""

from __future__ import annotations

import re
from itertools import dropwhile, pairwise

from meshwake.fixes.shell import names, program_name
from meshwake.fixes.shell.linear import Linear
from meshwake.fixes.shell.memory import Doubt, Memory, Ran, Status, is_known

UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
# More than a script waits, in any unit: digits without end are no infinity.
_LONGEST_SLEEP = 1e9

# The options of programs that start another which take an argument of their own.
_STARTERS: dict[str, frozenset[str]] = {
    "sudo": names("-u -g -h -p -C -D -R -T --user --group"),
    "doas": frozenset({"-u", "-C"}),
    "env": frozenset({"-u", "-C", "-S", "--unset", "--chdir"}),
    "nohup": frozenset(),
    "setsid": frozenset(),
    "nice": frozenset({"-n", "--adjustment"}),
    "ionice": frozenset({"-c", "-n", "-p"}),
    "chrt": frozenset(),
    "stdbuf": frozenset({"-i", "-o", "-e"}),
    "timeout": frozenset({"-k", "-s", "--kill-after", "--signal"}),
    "flock": frozenset({"-w", "-E", "--timeout"}),
    "chronic": frozenset(),
    "command": frozenset(),
    "builtin": frozenset(),
    "time": frozenset({"-f", "-o"}),
    "exec": frozenset({"-a"}),
    "unbuffer": frozenset(),
    "tini": frozenset({"-p", "-e"}),
    "dumb-init": frozenset({"-r", "--rewrite"}),
    "catatonit": frozenset(),
    "systemd-cat": frozenset({"-t", "-p", "--identifier", "--priority"}),
    "systemd-inhibit": frozenset(),
    "busybox": frozenset(),
}


# The operands before the command: a duration, a file, a priority.
_POSITIONAL = {"timeout": 1, "flock": 1, "chrt": 1}


_CONTAINER_RUNTIMES = ("docker", "podman", "nerdctl")
_EXEC_WITH_ARGUMENT = names("-e --env -u --user -w --workdir")


def started_by(words: list[str]) -> list[str] | None:
    """The command that a command starts, or None when it starts none."""
    name = program_name(words[0])

    # `command -v kubectl` prints where the command is, and starts nothing.
    if name == "command" and words[1:2] in (["-v"], ["-V"]):
        return None

    # docker exec [OPTIONS] CONTAINER COMMAND. Its other verbs start nothing that is followed here.
    if name in _CONTAINER_RUNTIMES and words[1:2] == ["exec"]:
        container_and_command = after_options(words[2:], _EXEC_WITH_ARGUMENT)
        return container_and_command[1:] or None

    if name not in _STARTERS:
        return None

    operands = after_options(words[1:], _STARTERS[name])
    own_operands = _POSITIONAL.get(name, 0)
    return _without_operands(name, operands[own_operands:])


def _without_operands(name: str, rest: list[str]) -> list[str]:
    """Without what a starter takes before its command."""
    # env(1), sudo(8): NAME=VALUE in front of the command are variables for it.
    if name in ("env", "sudo", "doas"):
        is_assignment = re.compile(r"[A-Za-z_]\w*=").match
        return list(dropwhile(is_assignment, rest))

    # flock(1): FILE -c SCRIPT runs the script with a shell.
    if name == "flock" and rest[:1] == ["-c"]:
        return ["sh", *rest]

    return rest


# What sudo and doas keep of the environment by default (sudoers(5), env_reset; doas.conf(5)). PATH
# and HOME get other values, which no fix depends on.
_KEPT_BY_SUDO = names("PATH HOME TERM DISPLAY LANG")
# Letters of switches may be joined: `sudo -nE`, `env -iv`.
_KEEPS_ALL = re.compile(r"--preserve-env|-[A-Za-z]*E[A-Za-z]*")
_CLEARED = re.compile(r"-[A-Za-z]*i[A-Za-z]*|--ignore-environment|-")


def kept_variables(words: list[str], started: list[str]) -> frozenset[str] | None:
    """The names of the exported variables that `words` leaves to what it starts; None: all."""
    # `export NS=...; sudo sh -c "kubectl -n $NS ..."` was followed as if sudo passed NS on.
    name = program_name(words[0])
    options = words[1 : len(words) - len(started)]

    if name == "env":
        is_cleared = any(map(_CLEARED.fullmatch, options))
        return frozenset() if is_cleared else None
    if name == "doas":
        return _KEPT_BY_SUDO
    if name == "sudo":
        return _kept_by_sudo(options)

    # Every other starter hands its environment on as it is.
    return None


def _kept_by_sudo(options: list[str]) -> frozenset[str] | None:
    """The same of sudo with these options."""
    kept = _KEPT_BY_SUDO
    for option in options:
        if _KEEPS_ALL.fullmatch(option):
            return None

        # sudo(8): the list adds to what the policy keeps anyway.
        if option.startswith("--preserve-env="):
            _, _, listed = option.partition("=")
            kept |= frozenset(listed.split(","))
    return kept


# A dash alone is an operand: the standard input.
_OPTION = re.compile(r"-.", re.DOTALL)


def after_options(words: list[str], with_argument: frozenset[str]) -> list[str]:
    """What comes after the options; those in `with_argument` take the next word."""
    rest = list(words)
    while rest and _OPTION.match(rest[0]):
        option = rest.pop(0)

        # POSIX, utility syntax guideline 10: it ends the options, and is none itself.
        if option == "--":
            break

        # Its argument, where it is a word of its own.
        if option in with_argument:
            del rest[:1]
    return rest


def take_option(rest: list[str], with_value: frozenset[str]) -> tuple[str, str]:
    """Takes one option from `rest`: its name and its value, "" where it has none. Those in
    `with_value` take the next word, unless the value is in the same one: --name=value."""
    name, equals, value = rest.pop(0).partition("=")
    if equals or name not in with_value:
        return name, value

    # At the end of the words it has none: an error, at which the program does nothing.
    following = rest[:1]
    del rest[:1]
    return name, "".join(following)


def slept_s(words: list[str]) -> float:
    """How long `sleep WORDS` takes; nothing where that is unknown."""
    # sleep(1) of coreutils: several arguments are added up.
    total_s: float = 0
    for word in words:
        duration = _DURATION.fullmatch(word)
        if duration is None:
            continue
        number, unit = duration.groups()
        total_s += min(float(number), _LONGEST_SLEEP) * UNIT_S[unit]
    return total_s


# Programs whose status is an answer: a script that looks at it means both ways.
_DECIDES = names(
    "grep egrep fgrep zgrep rg diff cmp pgrep pidof ping nc ncat awk gawk jq yq "
    "on_ac_power expr find ip nmcli"
)


_FETCHERS = ("curl", "wget")
# Whether the API server, istiod or ztunnel answers: yes, where the fix is of use.
_READINESS = re.compile(r"readyz|livez|healthz|6443|15021|15020")
_UNIT_QUESTIONS = (["is-active"], ["is-enabled"], ["is-failed"])
# What runs wherever the fix is of use.
_CLUSTER_SERVICE = re.compile(r"k3s|kubelet|k0s|rke2|microk8s|containerd|docker|crio")


def status_of(ran: Ran, memory: Memory) -> Status:
    """Whether a program succeeds: True, or a doubt where the program is a question."""
    text = memory.shown(ran.words)

    # Where the answer is yes wherever the fix is of use, it is taken to be yes.
    if ran.program in _FETCHERS:
        is_readiness = _READINESS.search(text) is not None
        return is_readiness or Doubt(text, (ran,))

    question = list(ran.words[1:2])
    if ran.program == "systemctl" and question in _UNIT_QUESTIONS:
        is_of_cluster = _CLUSTER_SERVICE.search(text) is not None
        runs_for_sure = is_of_cluster and question != ["is-failed"]
        return runs_for_sure or Doubt(text, (ran,))

    # What it answers hangs on what it reads, too.
    if ran.program in _DECIDES:
        return Doubt(text, (*ran.piped, ran))

    # Nothing is known of how a program of the script's own folder ends, or one whose name is
    # computed.
    path = ran.words[0]
    if path.startswith("./") or not is_known(path):
        return Doubt(text, (*ran.piped, ran))

    # What only does something (kubectl, sleep, echo) is taken to succeed; see shell.py.
    return True


def is_download(doubt: Doubt) -> bool:
    """Whether what may fail only fetches something, as a script does that needs it to do its work
    at all."""
    # A comparison of what was fetched is a question again, and so is a filter behind it.
    if doubt.test or not doubt.runs:
        return False

    last = doubt.runs[-1]
    return last.program in _FETCHERS


def printed(runs: tuple[Ran, ...]) -> str | None:
    """What commands print, where that is known: only echo and printf of known words."""
    if not runs:
        return ""

    first, *others = runs
    # Filters change it, and a command that is under a condition may print nothing.
    if others or first.conditions:
        return None

    arguments = list(first.words[1:])
    if first.program == "printf":
        return _formatted(arguments)
    if first.program != "echo":
        return None

    # Only in front of the text they are switches; -n makes no difference to `$(...)`.
    while arguments[:1] in (["-n"], ["-e"]):
        del arguments[0]
    return " ".join(arguments)


_TAKES_VALUE = re.compile(r"%[sd]")
# Widths, other conversions and octal escapes are left out: what they print is an unknown.
_UNREAD_IN_FORMAT = re.compile(r"%[^sd%]|\\[^nt\\]")


def _formatted(words: list[str]) -> str | None:
    """What printf makes of a format of words and lines; None for all else."""
    if words[:1] == ["--"]:
        words = words[1:]

    if not words or _UNREAD_IN_FORMAT.search(words[0]):
        return None

    form, *values = words
    found = _formatted_once(form, values)

    # POSIX, printf: the format is used again as long as there are values for it. One that takes
    # none would be used without end.
    if _TAKES_VALUE.search(form):
        while values:
            found += _formatted_once(form, values)

    # As `$(...)` drops them.
    return found.rstrip("\n")


_ESCAPES = {"%%": "%", "\\n": "\n", "\\t": "\t", "\\\\": "\\"}


def _formatted_once(form: str, values: list[str]) -> str:
    """The format with the first of `values` in it, which are taken from the list."""
    found = ""
    for piece in re.findall(r"%[sd%]|\\[nt\\]|[^%\\]+", form):
        if not _TAKES_VALUE.fullmatch(piece):
            found += _ESCAPES.get(piece, piece)

        # POSIX, printf: without values left a conversion prints as if it had an empty one.
        elif values:
            found += values.pop(0)
    return found


_UNITS_S = {
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
}


_RELATIVE_DATE = re.compile(
    rf"(?:now\s*)?(?P<sign>[-+]?)\s*(?P<number>\d{{1,9}})\s*(?P<unit>{'|'.join(_UNITS_S)})s?"
    r"(?:\s+(?P<ago>ago))?"
)


def date_offset_s(words: tuple[str, ...], memory: Memory) -> int | None:
    """By how many seconds what `date` prints lies after now (before, when negative), or None when
    that is not known."""
    written = _date_argument(words)
    if written in ("now", "today"):
        return 0

    # @SECONDS, where the seconds are an unknown, which is one character in a text.
    if written.startswith("@") and len(written) == 2:
        return _offset_of_unknown(written, memory)

    match = _RELATIVE_DATE.fullmatch(written.strip().lower())
    if match is None:
        return None

    offset_s = int(match["number"]) * _UNITS_S[match["unit"]]

    # Both at once is legal: "-5 minutes ago" lies ahead.
    is_before = (match["sign"] == "-") != (match["ago"] is not None)
    return -offset_s if is_before else offset_s


def _offset_of_unknown(written: str, memory: Memory) -> int | None:
    """Of `date -d @$seconds`, where the seconds are known as a sum of now and a number."""
    for unknown in memory.unknowns_in(written):
        # It lies that long after now.
        if unknown.value is not None:
            offset = unknown.value - Linear.of_now(0)
            return offset.as_int()

    # Seconds of which nothing is known: those of a file, or of another clock.
    return None


def _date_argument(words: tuple[str, ...]) -> str:
    """The moment that `date` shows, in any spelling of -d; "now" where it names none."""
    # Each with the one behind it, and an empty one behind the last.
    for word, following in pairwise([*words[1:], ""]):
        if word in ("-d", "--date") and following:
            return following

        joined = _DATE_JOINED.match(word)
        if joined is not None:
            return word[joined.end() :]

    return "now"


# In the same word, with -u in front of it or without: -d@0, -ud@0.
_DATE_JOINED = re.compile(r"--date=|-u?d(?=.)")


def date_of(runs: tuple[Ran, ...], memory: Memory) -> Linear | None:
    """The time that `date +%s` prints, as a sum of now and seconds."""
    # A filter behind it (cut, head) makes another number of it.
    if len(runs) != 1 or runs[0].program != "date":
        return None

    words = runs[0].words
    # Another format is not a number of seconds.
    if "+%s" not in words:
        return None

    # Of @SECONDS the offset may be known although the seconds are not.
    written = _date_argument(words)
    is_seconds = written.startswith("@")
    if not is_seconds and not is_known(written):
        return _moment_of_unknown(written, memory)

    offset_s = date_offset_s(words, memory)
    if offset_s is None:
        return None
    return Linear.of_now(offset_s)


def _moment_of_unknown(written: str, memory: Memory) -> Linear | None:
    """`date -d "$expiry" +%s`: the same moment, as a number."""
    # Text around the unknown makes another moment of it: "$expiry - 1 hour".
    if len(written) != 1:
        return None

    (unknown,) = memory.unknowns_in(written)
    return unknown.value or Linear.of_name(written)
