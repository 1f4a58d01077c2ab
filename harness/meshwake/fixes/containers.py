"""Other programs than kubectl: those that end containers or processes of a node, and those that do
nothing to ztunnel."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from meshwake.fixes.effects import (
    LABELS,
    POD,
    Action,
    CommandContext,
    DoesNothing,
    NotUnderstood,
    without_prefix,
)
from meshwake.fixes.pipelines import lines_left
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import Memory, Ran, Unknown, is_known
from meshwake.ztunnel.names import PROXY_CONTAINER

IDLE = names(
    "echo printf date sleep logger cat grep egrep fgrep sed awk gawk jq yq tee cut tr sort "
    "uniq head tail wc sync touch mkdir rm cp mv chmod chown ls stat df free uptime hostname "
    "uname id whoami env which type command expr seq test ping nc ntpdate chronyc "
    "timedatectl hwclock ntpd journalctl dmesg modprobe rmmod ip ifconfig nmcli iw rfkill "
    "ethtool mount umount swapon swapoff notify-send mail sendmail pgrep pidof ps readlink "
    "realpath dirname basename find xxd base64 openssl true false iptables nft sysctl beep "
    "aplay loginctl udevadm tput clear install apk apt-get yum dnf pip"
)


# A node's programs see what runs on their own node only.
_RESTARTS_OWN = Action("ztunnel", "", "own node")


def _systemctl(ran: Ran, memory: Memory, place: CommandContext) -> list[Action]:
    verb, units = _split_verb(_without_options(ran.words[1:]))
    # It does restart it in the end, but every other process of the node with it: no such fault is
    # modelled.
    if verb in _SYSTEMCTL_ENDS_NODE:
        raise NotUnderstood(f"systemctl {verb} does not restart ztunnel")
    if verb not in _SYSTEMCTL_ACTS:
        raise DoesNothing(f"systemctl {verb} restarts nothing")

    for unit in units:
        if not is_known(unit):
            raise NotUnderstood("which unit it names is not known")

        # All others leave containers alone: kubelet, and runtimes whose containers have a shim
        # each (containerd, crio, k3s).
        name = unit.removesuffix(".service")
        ends_containers = name.startswith(_UNITS_THAT_END_CONTAINERS)
        if ends_containers or "ztunnel" in name:
            raise NotUnderstood(f"what restarting the unit {unit!r} does is not known")

    raise DoesNothing("it leaves ztunnel's container running")


_SYSTEMCTL_ENDS_NODE = names("reboot poweroff halt kexec soft-reboot")
_SYSTEMCTL_ACTS = names("restart start stop try-restart reload-or-restart reload kill")
# dockerd ends its containers (without live-restore); the others are snaps or whole machines.
_UNITS_THAT_END_CONTAINERS = ("docker", "microk8s", "podman", "snap", "minikube")


def _split_verb(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The first word, "" where there is none, and the others."""
    if not words:
        return "", ()
    return words[0], words[1:]


def _service(ran: Ran, memory: Memory, place: CommandContext) -> list[Action]:
    # `service UNIT VERB`, the other way round.
    words = ("systemctl", *ran.words[2:3], *ran.words[1:2])
    return _systemctl(replace(ran, words=words), memory, place)


def _crictl(ran: Ran, memory: Memory, place: CommandContext) -> list[Action]:
    """crictl stops containers or pods by what `crictl ps` and `crictl pods` print; kubelet starts
    them again."""
    if place.in_pod:
        raise NotUnderstood("crictl in a pod: which runtime it reaches is not known")

    # k3s crictl, and its like.
    words = without_prefix(ran.program, list(ran.words))
    options = set(words)
    verb, ids = _split_verb(_operands(words[1:], _CRICTL_VALUES))
    _check_verb(f"crictl {verb}", verb, read_only=_CRICTL_READ_ONLY, ends=_CRICTL_ENDS)

    is_forced = bool(options & {"-f", "--force", "-fa", "-af"})
    if verb in ("rm", "rmp") and not is_forced:
        raise DoesNothing(f"crictl {verb} removes nothing that runs, without --force")

    # All containers of the node, and ztunnel's among them.
    takes_all = bool(options & {"-a", "--all"})
    if takes_all and not ids:
        return [_RESTARTS_OWN]

    return _of_container_ids(ids, memory)


_CRICTL_READ_ONLY = names("ps pods images logs inspect inspectp stats info version statsp")
# stop and rm take containers, stopp and rmp the sandboxes of pods.
_CRICTL_ENDS = names("stop rm stopp rmp")
_CRICTL_VALUES = names(
    "-r --runtime-endpoint -i --image-endpoint -t --timeout --config -c --name --label "
    "--state -s --pod -p --id --namespace -o --output --last -n --image --filter"
)


def _check_verb(
    command: str,
    verb: str,
    *,
    read_only: frozenset[str],
    ends: frozenset[str],
) -> None:
    """Raises DoesNothing or NotUnderstood unless `verb` is one that ends containers."""
    if verb in read_only:
        raise DoesNothing(f"{command} restarts nothing")
    if verb not in ends:
        raise NotUnderstood(f"{command} is not understood here")


def _operands(words: Sequence[str], takes_value: frozenset[str]) -> list[str]:
    """What is left of `words` without options and their values."""
    found = []
    rest = deque(words)
    while rest:
        word = rest.popleft()
        if not word.startswith("-"):
            found.append(word)
        elif word in takes_value and rest:
            # --timeout 10: the next word is its value; --timeout=10 has it inside.
            rest.popleft()
    return found


def _of_container_ids(ids: Sequence[str], memory: Memory) -> list[Action]:
    """The restart of ztunnel, where `ids` are printed by commands that list its container."""
    # All of them in one text: an unknown is one character of it.
    unknowns = memory.unknowns_in(" ".join(ids))

    # An id that is written out was ztunnel's once at most.
    if not unknowns:
        raise DoesNothing("a container has another id after each restart")

    for unknown in unknowns:
        if not _ids_of_ztunnel(unknown, memory):
            raise DoesNothing(
                f"{unknown.text} names no container of ztunnel: the pod is ztunnel-..., its "
                "container istio-proxy"
            )
    return [_RESTARTS_OWN]


def _ids_of_ztunnel(unknown: Unknown, memory: Memory) -> bool:
    """Whether the ids that some commands print have ztunnel's among them."""
    if not unknown.runs:
        raise NotUnderstood(f"the value of {unknown.text} is not known")

    # The first command lists containers, by what its options choose.
    first, *filters = unknown.runs
    words = without_prefix(first.program, list(first.words))
    own_name, lists_pods = _listed_as(words, unknown)
    if not _options_select(words[1:], own_name, lists_pods, memory):
        return False

    # The others choose among its lines, and cut the id out. A line as `crictl ps` prints it, with
    # all that a filter may look for.
    line = f"4f1c2a7d image 26 hours ago Running {own_name} 0 77aa {POD} istio-system"
    return bool(lines_left(filters, [line]))


def _listed_as(words: list[str], unknown: Unknown) -> tuple[str, bool]:
    """The name of ztunnel in the list that a command prints, and whether it is a list of pods."""
    program, rest = words[0].rsplit("/", 1)[-1], words[1:]
    if program == "crictl":
        verb, _ = _split_verb(_operands(rest, _CRICTL_VALUES))
        if verb == "pods":
            return POD, True
        if verb == "ps":
            return PROXY_CONTAINER, False

    # cri-dockerd calls a container k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT.
    if program in _ENGINES and "ps" in rest:
        name = f"k8s_{PROXY_CONTAINER}_{POD}_istio-system_uid_0"
        return name, False

    raise NotUnderstood(f"what {unknown.text} prints is not understood")


def _options_select(rest: list[str], own_name: str, lists_pods: bool, memory: Memory) -> bool:
    """Whether the options of a list leave ztunnel in it."""
    for name, value in _options_of(rest):
        # Others, such as --state or -q, choose among containers in a way that leaves ztunnel's in.
        selects = True
        if name == "--name":
            selects = _found(value, own_name)
        elif name == "--label":
            selects = _has_label(value, lists_pods)
        elif name in ("--pod", "-p"):
            # The pod's id, printed by another crictl: crictl ps --pod $(crictl pods ...).
            pods = memory.unknowns_in(value)
            selects = all(_ids_of_ztunnel(pod, memory) for pod in pods)

        if not selects:
            return False
    return True


def _options_of(words: list[str]) -> Iterator[tuple[str, str]]:
    """Every option with its value: NAME=VALUE, NAME VALUE, and --filter NAME=VALUE as --NAME."""
    # Behind the last word nothing follows that could be its value.
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if not equals:
            value = following
        if name in ("--filter", "-f"):
            # --filter name=VALUE is --name VALUE.
            filtered, _, value = value.partition("=")
            name = f"--{filtered}"
        yield name, value


def _has_label(label: str, lists_pods: bool) -> bool:
    """Whether ztunnel's container, or its pod, has the label `key=value`."""
    key, _, wanted = label.partition("=")
    own = {"io.kubernetes.container.name": PROXY_CONTAINER}

    # Labels of the pod itself are on its sandbox; its containers have those of kubelet only.
    if lists_pods:
        own |= LABELS
    if key not in own:
        raise NotUnderstood(f"whether ztunnel's container has the label {key!r} is not known")
    return wanted == own[key]


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error as error:
        raise NotUnderstood(f"the pattern {pattern!r} is not understood") from error


_ENGINES = ("docker", "nerdctl", "podman")
_DOCKER_READ_ONLY = names("ps logs inspect images info stats version")
_DOCKER_ENDS = names("restart stop kill rm")
_DOCKER_VALUES = frozenset(
    {"-t", "--time", "-s", "--signal", "--namespace", "-n", "-H", "-f", "--filter"}
)


def _containers(ran: Ran, memory: Memory, place: CommandContext) -> list[Action]:
    """docker, nerdctl and podman: containers by what `ps` prints."""
    verb, containers = _split_verb(_operands(ran.words[1:], _DOCKER_VALUES))
    command = f"{ran.program} {verb}"
    _check_verb(command, verb, read_only=_DOCKER_READ_ONLY, ends=_DOCKER_ENDS)

    # A container has another name and id after each restart, so one that is written out is not
    # ztunnel's.
    printed = [name for name in containers if not is_known(name)]
    are_printed = bool(printed) and len(printed) == len(containers)

    # The engine of a pod is not that of its node, if it has one at all.
    if place.in_pod or not are_printed:
        raise NotUnderstood(f"which container {' '.join(containers)!r} names is not known")

    return _of_container_ids(containers, memory)


def _kill(ran: Ran, memory: Memory, place: CommandContext) -> list[Action]:
    """pkill, killall and kill: kubelet restarts a container whose process has ended."""
    words = ran.words[1:]
    # A signal that a process ignores, or by which it only reads its files again, ends nothing.
    _check_signal(words)

    # pkill and killall take names; kill takes numbers, which other programs print.
    patterns = _without_options(words)
    if ran.program == "kill":
        patterns = _patterns_of_pids(patterns, memory)

    # With -f the pattern is matched against the whole command line.
    process = _COMMAND_LINE if "-f" in words else "ztunnel"
    ends_ztunnel = any(_found(pattern, process) for pattern in patterns)
    if not ends_ztunnel:
        raise DoesNothing("it ends another process")

    if not place.sees_processes:
        raise DoesNothing("a pod sees its own processes only, without hostPID")
    return [_RESTARTS_OWN]


_COMMAND_LINE = "/usr/local/bin/ztunnel proxy ztunnel"
# Signals on which ztunnel ends, by name and by number.
_ENDS_ZTUNNEL = ("TERM", "KILL", "INT", "QUIT", "9", "15", "2", "3")


_SIGNAL = re.compile(r"-(s|-signal.*|\d+|[A-Z][A-Z0-9]*)")


def _check_signal(words: Sequence[str]) -> None:
    """Raises NotUnderstood for a signal on which ztunnel may not end."""
    for word in words:
        if not _SIGNAL.fullmatch(word):
            continue
        # -9, -TERM and -SIGTERM. With `-s TERM` and `--signal TERM` the name is a word of its own,
        # which is not followed here.
        name = word.removeprefix("-").removeprefix("SIG")
        if name not in _ENDS_ZTUNNEL:
            raise NotUnderstood(f"whether ztunnel ends on {word} is not known")
        return


def _patterns_of_pids(operands: Sequence[str], memory: Memory) -> list[str]:
    """`kill $(pidof ztunnel)`: the names of the processes whose numbers are printed."""
    programs: list[Ran] = []
    for unknown in memory.unknowns_in(" ".join(operands)):
        programs += unknown.runs

    # In a pipeline the first finds the process, and the others choose among the numbers.
    first = programs[0] if programs else None
    if first is None or first.program not in ("pidof", "pgrep"):
        raise NotUnderstood("which process it ends is not known")
    return _without_options(first.words[1:])


def _without_options(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith("-")]


def _curl(ran: Ran, memory: Memory, place: CommandContext) -> list[Action]:
    request = memory.shown(ran.words)
    if _CHANGES_SOMETHING.search(request):
        raise NotUnderstood("what this request changes is not understood; kubectl is")
    raise DoesNothing("it only asks")


# Another method than GET, a body, or the path of the admin interface at which a proxy ends.
_CHANGES_SOMETHING = re.compile(
    r"\s-X\s*'?(?!GET)\w|--request|\s-d\b|--data|--method|quitquitquit|\s-XDELETE|\s-XPATCH"
)


OTHERS: dict[str, Callable[[Ran, Memory, CommandContext], list[Action]]] = {
    "systemctl": _systemctl,
    "service": _service,
    "rc-service": _service,
    "crictl": _crictl,
    **dict.fromkeys(_ENGINES, _containers),
    **dict.fromkeys(["pkill", "killall", "kill"], _kill),
    **dict.fromkeys(["curl", "wget"], _curl),
}
