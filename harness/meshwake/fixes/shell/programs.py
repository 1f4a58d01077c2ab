"""What is known of programs: which start another, how long they sleep, what they answer, what they
print."""

from __future__ import annotations

import re
from itertools import dropwhile

from meshwake.fixes.shell import names
from meshwake.fixes.shell.linear import Linear
from meshwake.fixes.shell.memory import Doubt, Memory, Ran, Status, is_known

UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_CLUSTER_SERVICES = ("k3s", "kubelet", "k0s", "rke2", "microk8s", "containerd", "docker", "crio")


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
    name = words[0].rsplit("/", 1)[-1]
    # `command -v kubectl` prints where the command is, and starts nothing.
    if name == "command" and words[1:2] in (["-v"], ["-V"]):
        return None
    if name in _CONTAINER_RUNTIMES and words[1:2] == ["exec"]:
        container_and_command = after_options(words[2:], _EXEC_WITH_ARGUMENT)
        return container_and_command[1:] or None
    if name not in _STARTERS:
        return None
    rest = after_options(words[1:], _STARTERS[name])
    return _without_operands(name, rest[_POSITIONAL.get(name, 0) :])


def _without_operands(name: str, rest: list[str]) -> list[str]:
    """Without what a starter takes before its command."""
    if name in ("env", "sudo", "doas"):
        return list(dropwhile(re.compile(r"[A-Za-z_]\w*=").match, rest))
    if name == "flock" and rest[:1] == ["-c"]:
        return ["sh", *rest]
    return rest


# What sudo and doas keep of the environment by default (sudoers(5), env_reset; doas.conf(5)). PATH
# and HOME get other values, which no fix depends on.
_KEPT_BY_SUDO = names("PATH HOME TERM DISPLAY LANG")
_CLEARED = re.compile(r"-[A-Za-z]*i[A-Za-z]*|--ignore-environment|-")


def kept_variables(words: list[str], started: list[str]) -> frozenset[str] | None:
    """The names of the exported variables that `words` leaves to what it starts; None: all."""
    name = words[0].rsplit("/", 1)[-1]
    options = words[1 : len(words) - len(started)]
    if name == "env":
        return frozenset() if any(map(_CLEARED.fullmatch, options)) else None
    if name == "doas":
        return _KEPT_BY_SUDO
    return _kept_by_sudo(options) if name == "sudo" else None


def _kept_by_sudo(options: list[str]) -> frozenset[str] | None:
    kept = _KEPT_BY_SUDO
    for option in options:
        if option == "--preserve-env" or re.fullmatch(r"-[A-Za-z]*E[A-Za-z]*", option):
            return None
        if option.startswith("--preserve-env="):
            kept |= frozenset(option.partition("=")[2].split(","))
    return kept


def after_options(words: list[str], with_argument: frozenset[str]) -> list[str]:
    """What comes after the options; those in `with_argument` take the next word."""
    position = 0
    while position < len(words) and words[position].startswith("-") and words[position] != "-":
        option = words[position]
        position += 1
        if option == "--":
            break
        if option in with_argument:
            position += 1
    return words[position:]


def slept_s(words: list[str]) -> float:
    """How long `sleep WORDS` takes; nothing where that is unknown."""
    # sleep(1) of coreutils: several arguments are added up.
    found = [_DURATION.fullmatch(word) for word in words]
    return sum(min(float(each[1]), 1e9) * UNIT_S[each[2]] for each in found if each)


# Programs whose status is an answer: a script that looks at it means both ways.
_DECIDES = names(
    "grep egrep fgrep zgrep rg diff cmp pgrep pidof ping nc ncat awk gawk jq yq "
    "on_ac_power expr find ip nmcli"
)


# Whether the API server, istiod or ztunnel answers: yes, where the fix is of use.
_READINESS = re.compile(r"readyz|livez|healthz|6443|15021|15020")
_UNIT_QUESTIONS = (("is-active",), ("is-enabled",), ("is-failed",))


def status_of(ran: Ran, memory: Memory) -> Status:
    """Whether a program succeeds: True, or a doubt where the program is a question."""
    text = memory.shown(ran.words)
    if _is_yes_where_of_use(ran, text):
        return True
    asks_a_server = ran.program in ("curl", "wget")
    asks_systemd = ran.program == "systemctl" and ran.words[1:2] in _UNIT_QUESTIONS
    if asks_a_server or asks_systemd:
        return Doubt(text, (ran,))
    # Of a program that is not known here, too, nothing is known of how it ends.
    if ran.program in _DECIDES or _is_unknown_program(ran.words[0]):
        return Doubt(text, (*ran.piped, ran))
    # What only does something (kubectl, sleep, echo) is taken to succeed; see shell.py.
    return True


def _is_yes_where_of_use(ran: Ran, text: str) -> bool:
    """Whether a question must be answered by yes for any fix to be of use."""
    # The API server, istiod and ztunnel answer.
    if ran.program in ("curl", "wget"):
        return _READINESS.search(text) is not None
    if ran.program == "systemctl" and ran.words[1:2] in _UNIT_QUESTIONS:
        return _is_cluster_service(ran, text)
    return False


def _is_cluster_service(ran: Ran, text: str) -> bool:
    """Whether systemctl asks for a service that runs wherever the fix is of use."""
    if ran.words[1] == "is-failed":
        return False
    return any(name in text for name in _CLUSTER_SERVICES)


def _is_unknown_program(program: str) -> bool:
    """A program of the script's own folder, or one whose name is computed."""
    return program.startswith("./") or not is_known(program)


def is_download(doubt: Doubt) -> bool:
    """Whether what may fail only fetches something, as a script does that needs it to do its work
    at all."""
    return bool(doubt.runs) and doubt.runs[-1].program in ("curl", "wget") and not doubt.test


def printed(runs: tuple[Ran, ...]) -> str | None:
    """What commands print, where that is known: only echo and printf of known words."""
    if not runs:
        return ""
    first, *others = runs
    if others or first.conditions:
        return None
    if first.program == "printf":
        return _formatted(first.words[1:])
    if first.program == "echo":
        return " ".join(_without_switches(first.words[1:]))
    return None


def _without_switches(words: tuple[str, ...]) -> list[str]:
    return [word for word in words if word not in ("-n", "-e")]


def _formatted(words: tuple[str, ...]) -> str | None:
    """What printf makes of a format of words and lines; None for all else."""
    words = words[1:] if words[:1] == ("--",) else words
    # Widths, other conversions and octal escapes are left out: what they print is an unknown.
    if not words or re.search(r"%[^sd%]|\\[^nt\\]", words[0]):
        return None
    form, values = words[0], list(words[1:])
    takes_values = re.search(r"%[sd]", form) is not None
    found = _formatted_once(form, values)
    # The format is used again as long as there are values for it.
    while takes_values and values:
        found += _formatted_once(form, values)
    return found.rstrip("\n")


_ESCAPES = {"%%": "%", "\\n": "\n", "\\t": "\t", "\\\\": "\\"}


def _formatted_once(form: str, values: list[str]) -> str:
    """The format with the first of `values` in it, which are taken from the list."""
    found = ""
    for piece in re.findall(r"%[sd%]|\\[nt\\]|[^%\\]+", form):
        if piece in ("%s", "%d"):
            found += values.pop(0) if values else ""
        else:
            found += _ESCAPES.get(piece, piece)
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
    r"(?:now\s*)?(?P<sign>[-+]?)\s*(?P<number>\d{1,9})\s*(?P<unit>[a-z]+?)s?(?:\s+(?P<ago>ago))?"
)


def date_offset_s(words: tuple[str, ...], memory: Memory) -> int | None:
    """By how many seconds what `date` prints lies after now (before, when negative), or None when
    that is not known."""
    written = _date_argument(words)
    if written is None or written in ("now", "today"):
        return 0
    # @SECONDS, where the seconds are an unknown, which is one character in a text.
    if written.startswith("@") and len(written) == 2:
        return _offset_of_unknown(written, memory)
    match = _RELATIVE_DATE.fullmatch(written.strip().lower())
    unit_s = _UNITS_S.get(match["unit"]) if match is not None else None
    if match is None or unit_s is None:
        return None
    offset_s = int(match["number"]) * unit_s
    # Both at once is legal: "-5 minutes ago" lies ahead.
    is_before = (match["sign"] == "-") != (match["ago"] is not None)
    return -offset_s if is_before else offset_s


def _offset_of_unknown(written: str, memory: Memory) -> int | None:
    """Of `date -d @$seconds`, where the seconds are known as a sum of now and a number."""
    value = next((each.value for each in memory.unknowns_in(written)), None)
    return None if value is None else (value - Linear.of_now(0)).as_int()


def _date_argument(words: tuple[str, ...]) -> str | None:
    for position, word in enumerate(words[1:], 1):
        if word in ("-d", "--date") and position + 1 < len(words):
            return words[position + 1]
        if word.startswith("--date="):
            return word.removeprefix("--date=")
        if re.match(r"-u?d.", word):
            return word[word.index("d") + 1 :]
    return None


def date_of(runs: tuple[Ran, ...], memory: Memory) -> Linear | None:
    """The time that `date +%s` prints, as a sum of now and seconds."""
    if len(runs) != 1 or runs[0].program != "date":
        return None
    words = runs[0].words
    # Another format is not a number of seconds.
    if "+%s" not in words:
        return None
    written = _date_argument(words) or ""
    is_seconds = written.startswith("@")
    if not (is_known(written) or is_seconds):
        return _moment_of_unknown(written, memory)
    offset_s = date_offset_s(words, memory)
    return None if offset_s is None else Linear.of_now(offset_s)


def _moment_of_unknown(written: str, memory: Memory) -> Linear | None:
    """`date -d "$expiry" +%s`: the same moment, as a number."""
    if len(written) != 1:
        return None
    (unknown,) = memory.unknowns_in(written)
    return unknown.value or Linear.of_name(written)
