"""What the engine's machine allows: limits of its kernel that nodes share, and whether they
suffice.

They are the machine's, not a container's: all nodes together, and every other container of that
machine, draw on them. Measured by one shell script in a throwaway container of the machines' own
image, or on this machine itself as long as the engine has no image yet and runs here. What cannot
be measured is None, and refuses nothing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from meshwake.cluster.docker import Engine, is_on_this_machine

ANSWER_WITHIN_S = 20

# Counted in nodes of kind 0.33 with Istio, MetalLB and the workloads of a run (2026-11-30): 30
# inotify instances on a control plane and 17 on a worker, 300 to 430 watches, 180 to 330 tasks, at
# most 194 files open in one process (containerd). Cilium's agent and the programs of profile full
# come on top, so twice that and more:
INSTANCES_OF_NODE = 45
WATCHES_OF_NODE = 2048
TASKS_OF_NODE = 1000
# kubelet asks for a million and goes on with less; with 1024, the limit of a login shell, a busy
# node runs out.
OPEN_FILES_AT_LEAST = 4096
# What cures inotify, as kind's own known issues write it; twice as many instances, for a second
# cluster.
INOTIFY_CURE = "sudo sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288"

# Profiles that AppArmor attaches by path go for programs inside nodes too (kind's known issues):
# that of Debian's bind9 lets named read nothing of what we mount. Swap does not matter: kind sets
# kubelet's failSwapOn to false.
CONFINED_PROGRAMS = ("named",)

# One line "name value" each; what is not there says nothing. `find` sees all processes of the
# machine, since the container shares its process namespace and is privileged. (`read` would take
# one byte of a sysctl, and then nothing.)
SCRIPT = r"""
say() { if [ -r "$2" ]; then echo "$1 $(cat "$2")"; fi; }
say instances /proc/sys/fs/inotify/max_user_instances
say watches /proc/sys/fs/inotify/max_user_watches
say threads /proc/sys/kernel/threads-max
say pids /proc/sys/kernel/pid_max
say tasks /sys/fs/cgroup/pids.max
say tasks /sys/fs/cgroup/pids/pids.max
echo "files $(ulimit -Hn)"
echo "instances_used $(find /proc/[0-9]*/fd -lname 'anon_inode:inotify' 2>/dev/null | wc -l)"
profiles=/proc/1/root/sys/kernel/security/apparmor/profiles
if [ -r $profiles ]; then while read -r name mode; do echo "profile $name $mode"; done <$profiles; fi
"""
_OF_A_CONTAINER = ("tasks", "files")


@dataclass(frozen=True)
class Limits:
    """What was measured; None: not known. `confined`: programs of ours that AppArmor confines by
    their path."""

    instances: int | None = None
    instances_used: int | None = None
    watches: int | None = None
    open_files: int | None = None
    tasks: int | None = None
    confined: tuple[str, ...] = ()


def measure_limits(engine: Engine, image: str | None) -> Limits:
    """The limits of the engine's machine. `image`: one that the engine has; None: only what this
    machine can say."""
    if image is not None:
        return limits_of(engine.ask(image, ["sh", "-c", SCRIPT], of_machine=True))
    if not is_on_this_machine(engine.facts()):
        return Limits()
    try:
        output = subprocess.run(
            ["sh", "-c", SCRIPT],
            capture_output=True,
            text=True,
            timeout=ANSWER_WITHIN_S,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return Limits()

    # Ours are not those that the engine gives its containers.
    return limits_of(
        "\n".join(line for line in output.splitlines() if not line.startswith(_OF_A_CONTAINER))
    )


def limits_of(output: str) -> Limits:
    """What `SCRIPT` printed. A limit that is not a number (max, unlimited) is None."""
    numbers: dict[str, int] = {}
    confined = []
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        # As the kernel lists them: "/usr/sbin/named (enforce)".
        if name == "profile":
            profile, _, mode = value.rpartition(" ")
            program = profile.rpartition("/")[2]
            if program in CONFINED_PROGRAMS and mode == "(enforce)":
                confined.append(profile)
        elif value.isdecimal():
            numbers[name] = int(value)

    # Three limits of the same thing; the smallest is the one that is met.
    tasks = [numbers[name] for name in ("threads", "pids", "tasks") if name in numbers]
    return Limits(
        instances=numbers.get("instances"),
        instances_used=numbers.get("instances_used"),
        watches=numbers.get("watches"),
        open_files=numbers.get("files"),
        tasks=min(tasks, default=None),
        confined=tuple(confined),
    )


def limit_problems(limits: Limits, nodes: int) -> Iterator[str]:
    """What does not suffice for `nodes` more nodes, one sentence each, with the line that cures it
    on that machine."""
    yield from _inotify_problems(limits, nodes)
    if limits.open_files is not None and limits.open_files < OPEN_FILES_AT_LEAST:
        yield (
            f"a container of the engine may open {limits.open_files} files, and "
            f"{OPEN_FILES_AT_LEAST} are needed; in "
            '/etc/docker/daemon.json write {"default-ulimits": {"nofile": {"Name": '
            '"nofile", "Soft": 1048576, "Hard": '
            "1048576}}}, and restart the engine"
        )
    if limits.tasks is not None and limits.tasks < TASKS_OF_NODE * nodes:
        yield (
            f"the engine's machine allows {limits.tasks} tasks (processes and threads), and "
            f"{nodes} nodes need "
            f"{TASKS_OF_NODE * nodes}; on that machine: sudo sysctl "
            "kernel.threads-max=131072 kernel.pid_max=131072, "
            "and no pids limit for the engine's containers"
        )
    for profile in limits.confined:
        yield (
            f"AppArmor of the engine's machine confines {profile}, inside nodes too, where "
            "it may read nothing of "
            f"ours; on that machine: sudo aa-disable {profile}"
        )


def _inotify_problems(limits: Limits, nodes: int) -> Iterator[str]:
    wanted = INSTANCES_OF_NODE * nodes
    used = limits.instances_used or 0
    if limits.instances is not None and limits.instances - used < wanted:
        yield (
            f"fs.inotify.max_user_instances of the engine's machine is {limits.instances}, "
            f"of which {used} are taken, "
            f"and {nodes} nodes need {wanted}: kubelet and kube-proxy would end with 'too "
            "many open files'; on that "
            f"machine: {INOTIFY_CURE}"
        )
    if limits.watches is not None and limits.watches < WATCHES_OF_NODE * nodes:
        yield (
            f"fs.inotify.max_user_watches of the engine's machine is {limits.watches}, and "
            f"{nodes} nodes need "
            f"{WATCHES_OF_NODE * nodes}; on that machine: {INOTIFY_CURE}"
        )
