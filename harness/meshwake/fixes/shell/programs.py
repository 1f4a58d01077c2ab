"""What is known of programs: which start another, how long they sleep, what they answer, what they
print."""

from __future__ import annotations

import re

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


_POSITIONAL = {"timeout": 1, "flock": 1, "chrt": 1}


_CONTAINER_RUNTIMES = ("docker", "podman", "nerdctl")


def started_by(words: list[str]) -> list[str] | None:
    """The command that a command starts, or None when it starts none."""
    name = words[0].rsplit("/", 1)[-1]
    if name == "command" and words[1:2] and words[1] in ("-v", "-V"):
        return None
    if name in _CONTAINER_RUNTIMES and words[1:2] == ["exec"]:
        rest = after_options(
            words[2:], frozenset({"-e", "--env", "-u", "--user", "-w", "--workdir"})
        )
        return rest[1:] if len(rest) > 1 else None
    if name not in _STARTERS:
        return None
    rest = after_options(words[1:], _STARTERS[name])
    rest = rest[_POSITIONAL.get(name, 0) :]
    if name in ("env", "sudo", "doas"):
        while rest and re.match(r"[A-Za-z_]\w*=", rest[0]):
            rest = rest[1:]
    if name == "flock" and rest[:1] == ["-c"]:
        return ["sh", *rest]
    return rest


def after_options(words: list[str], with_argument: frozenset[str]) -> list[str]:
    """What stands behind the options; those in `with_argument` take the next word."""
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
    found = [_DURATION.fullmatch(word) for word in words]
    return sum(min(float(each[1]), 1e9) * UNIT_S[each[2]] for each in found if each)


_DECIDES = names(
    "grep egrep fgrep zgrep rg diff cmp pgrep pidof ping nc ncat awk gawk jq yq "
    "on_ac_power expr find ip nmcli"
)


def status_of(ran: Ran, memory: Memory) -> Status:
    """Whether a program succeeds: True, or a doubt where that is what it is asked for."""
    text = memory.shown(ran.words)
    if ran.program in ("curl", "wget") and not re.search(
        r"readyz|livez|healthz|6443|15021|15020", text
    ):
        return Doubt(text, (ran,))
    if ran.program == "systemctl" and ran.words[1:2] in (
        ("is-active",),
        ("is-enabled",),
        ("is-failed",),
    ):
        is_of_cluster = (
            any(name in text for name in _CLUSTER_SERVICES) and ran.words[1] != "is-failed"
        )
        return is_of_cluster or Doubt(text, (ran,))
    if ran.program in _DECIDES or ran.words[0].startswith("./") or not is_known(ran.words[0]):
        return Doubt(text, (*ran.piped, ran))
    return True


def is_download(doubt: Doubt) -> bool:
    """Whether what may fail only fetches something, as a script does that needs it to do its work
    at all."""
    return bool(doubt.runs) and doubt.runs[-1].program in ("curl", "wget") and not doubt.test


def printed(runs: tuple[Ran, ...]) -> str | None:
    """What commands print, where that is known: only echo and printf of known words."""
    if not runs or any(each.program not in ("echo", "printf") or each.conditions for each in runs):
        return "" if not runs else None
    if len(runs) != 1:
        return None
    if runs[0].program == "printf":
        return _formatted(runs[0].words[1:])
    return " ".join(word for word in runs[0].words[1:] if word not in ("-n", "-e"))


def _formatted(words: tuple[str, ...]) -> str | None:
    """What printf makes of a format of words and lines; None for all else."""
    words = words[1:] if words[:1] == ("--",) else words
    if not words or re.search(r"%[^sd%]|\\[^nt\\]", words[0]):
        return None
    form, values = words[0], list(words[1:])
    takes = bool(re.search(r"%[sd]", form))
    found = ""
    for _ in range(len(values) + 1):
        for piece in re.findall(r"%[sd%]|\\[nt\\]|[^%\\]+", form):
            if piece in ("%s", "%d"):
                found += values.pop(0) if values else ""
            else:
                found += {"%%": "%", "\\n": "\n", "\\t": "\t", "\\\\": "\\"}.get(piece, piece)
        if not takes or not values:
            break
    return found.rstrip("\n")


_UNITS_S = {
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
}


def date_offset_s(words: tuple[str, ...], memory: Memory) -> int | None:
    """By how many seconds what `date` prints lies after now (before, when negative), or None when
    it cannot be said."""
    asked = _date_argument(words)
    if asked is None or asked in ("now", "today"):
        return 0
    if asked.startswith("@") and len(asked) == 2:
        value = next((each.value for each in memory.unknowns_in(asked)), None)
        shift = value - Linear.of_now(0) if value is not None else None
        return shift.as_int() if shift is not None else None
    signs = {"ago": -1, "": 1}
    match = re.fullmatch(
        r"(?:now\s*)?([-+]?)\s*(\d{1,9})\s*([a-z]+?)s?(?:\s+(ago))?", asked.strip().lower()
    )
    if match is None or match[3] not in _UNITS_S:
        return None
    sign = -1 if match[1] == "-" else 1
    return sign * signs[match[4] or ""] * int(match[2]) * _UNITS_S[match[3]]


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
    if len(runs) != 1 or runs[0].program != "date" or "+%s" not in runs[0].words:
        return None
    asked = _date_argument(runs[0].words)
    if asked is not None and not is_known(asked) and not asked.startswith("@"):
        # date -d "$expiry" +%s: the same moment, as a number.
        (first, *_) = memory.unknowns_in(asked)
        if len(asked) == 1:
            return first.value or Linear.of_name(asked)
        return None
    offset_s = date_offset_s(runs[0].words, memory)
    return None if offset_s is None else Linear.of_now(offset_s)
