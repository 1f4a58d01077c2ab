"""The CronJobs of a manifest: when they run, and what their containers do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from meshwake.core.errors import BadInput
from meshwake.core.yaml_text import kinds_of, read_objects
from meshwake.fixes.actions import Action, CommandContext, Reading, read_actions
from meshwake.fixes.cron_job_manifest import (
    ContainerSpec,
    CronJobManifest,
    EnvVar,
    PodSpec,
    valid_cron_job,
)
from meshwake.fixes.schedule import (
    Calendar,
    Every,
    Times,
    calendar_times_ns,
    parse_schedule,
    shortest_gap_s,
)
from meshwake.fixes.shell.memory import Doubt, File, Memory, Unknown
from meshwake.fixes.shell.shell import Ended, check_characters, run_words
from meshwake.fixes.shell.tree import NotRead
from meshwake.ztunnel.names import ISTIO_NAMESPACE

# name -> its data: the ConfigMaps of a manifest.
ConfigMaps = Mapping[str, Mapping[str, str]]
# What a file of a ConfigMap may, unless its volume says otherwise.
_DEFAULT_MODE = 0o644
# stat(2): execute for owner, group and others.
_ANY_EXECUTE_BIT = 0o111


@dataclass(frozen=True)
class CronJob:
    """What of a CronJob decides when it runs; `schedule` as it is written."""

    schedule: str
    zone: tzinfo = UTC
    starting_deadline_s: int | None = None
    suspended: bool = False

    @property
    def parsed(self) -> Calendar | Every:
        """The schedule, read."""
        return parse_schedule(self.schedule)

    def next_wall_ns(self, after_wall_ns: int) -> int:
        """The first scheduled time after `after_wall_ns`."""
        return Times(self.parsed, self.zone, after_wall_ns).next_wall_ns(
            after_wall_ns, after_wall_ns
        )


@dataclass(frozen=True)
class Task:
    """One CronJob: when it comes, what it does, and what its commands depend on."""

    name: str
    cron_job: CronJob
    reading: Reading
    memory: Memory
    place: CommandContext


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def read_tasks(manifest: str, ztunnel_namespace: str = ISTIO_NAMESPACE) -> tuple[Task, ...]:
    """The CronJobs in `manifest` (YAML, lists, and other objects). Raises BadInput when
    there is none, or when an API server would refuse one."""
    try:
        check_characters(manifest)
    except NotRead as error:
        raise BadInput(f"fix.manifest: {error}") from error
    objects = read_objects(manifest, "fix.manifest")
    cron_jobs = list(_of_kind(objects, "CronJob"))
    if not cron_jobs:
        raise BadInput(f"fix.manifest: has no CronJob ({kinds_of(objects)}); expected at least one")
    config_maps = dict(_config_map(each) for each in _of_kind(objects, "ConfigMap"))
    return tuple(_task(valid_cron_job(each), ztunnel_namespace, config_maps) for each in cron_jobs)


def _of_kind(objects: Sequence[object], kind: str) -> Iterator[Mapping[object, object]]:
    for each in objects:
        if isinstance(each, dict) and each.get("kind") == kind:
            yield each


def _config_map(thing: Mapping[object, object]) -> tuple[str, Mapping[str, str]]:
    """Its name, and those of its data that are text."""
    metadata, data = thing.get("metadata"), thing.get("data")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(data, dict):
        return str(name), {}
    return str(name), {str(key): text for key, text in data.items() if isinstance(text, str)}


def acting(
    tasks: Sequence[Task], what: Literal["ztunnel", "applications"], needed: str
) -> list[Task]:
    """Those of `tasks` that restart it. Raises BadInput, with what they do instead, when none
    does."""
    # One job that takes ztunnel away makes the others useless, whatever they restart.
    for each in tasks:
        if each.reading.harmful:
            raise BadInput(f"fix.manifest: CronJob {each.name}: {each.reading.harmful[0]}")
    found = [each for each in tasks if each.reading.of(what)]
    if not found:
        raise BadInput(f"fix.manifest: {_instead(tasks)}; expected {needed}")
    return found


def without_conditions(task: Task, actions: Sequence[Action]) -> list[Action]:
    """Those of `actions` that happen whenever the task runs. Raises BadInput when each depends on a
    condition."""
    always = [each for each in actions if not each.conditions and not each.background]
    if not always:
        first = actions[0]
        if first.background:
            raise BadInput(
                f"fix.manifest: CronJob {task.name}: {first.command!r} runs in the "
                "background, and the container ends with its script; leave the '&' out, or end the script with 'wait'"
            )
        condition = first.conditions[0]
        raise BadInput(
            f"fix.manifest: CronJob {task.name}: {first.command!r} runs only when "
            f"{shown(condition, task.memory)}, and "
            "whether it is so cannot be known here; a restart without a condition is understood"
        )
    return always


def shown(condition: Doubt, memory: Memory) -> str:
    """A condition, as a person reads it."""
    text = " ".join(memory.shown(condition.text).split())
    return f"`{text}`" if condition.is_true else f"not `{text}`"


def _instead(tasks: Sequence[Task]) -> str:
    lines = []
    for each in tasks:
        reasons = [*each.reading.unclear, *each.reading.idle]
        others = [f"{action.command!r} restarts {action.what}" for action in each.reading.actions]
        # Four of a script of a hundred commands: what it restarts first, then what is not
        # understood, and last what does nothing.
        found = "; ".join([*others, *reasons][:4])
        lines.append(f"CronJob {each.name}: {found or 'it runs nothing'}")
    return " | ".join(lines)


def _task(valid: CronJobManifest, ztunnel_namespace: str, config_maps: ConfigMaps) -> Task:
    name = valid.metadata.name or valid.metadata.generate_name or ""
    where = f"fix.manifest: CronJob {name}"
    spec, job = valid.spec, valid.spec.job_template.spec
    # A Job of none is complete at once, and no pod of it ever runs.
    has_no_pods = job.parallelism == 0 or job.completions == 0
    cron_job = CronJob(
        _schedule(spec.schedule, where),
        _zone(spec.time_zone, where),
        spec.starting_deadline_seconds,
        bool(spec.suspend or job.suspend or has_no_pods),
    )
    pod = job.template.spec
    place = CommandContext(
        valid.metadata.namespace,
        True,
        ztunnel_namespace,
        bool(pod.host_pid),
        shortest_gap_s(cron_job.parsed, cron_job.zone),
    )
    memory, reading = Memory(), Reading()
    try:
        _run_containers(pod, config_maps, place, memory, reading)
    except NotRead as error:
        raise BadInput(f"{where}: {error}") from error
    # The Job may have a deadline, and its pod one of its own; the earlier ends it.
    deadlines = (job.active_deadline_seconds, pod.active_deadline_seconds)
    _end_at_deadline(reading, min((each for each in deadlines if each is not None), default=None))
    return Task(name, cron_job, reading, memory, place)


def _run_containers(
    pod: PodSpec, config_maps: ConfigMaps, place: CommandContext, memory: Memory, reading: Reading
) -> None:
    """Follows the init containers one after another, and then the others. `memory` and `reading`
    take what they do. Raises NotRead."""
    init_containers, after_s = pod.init_containers or [], 0.0
    for container in [*init_containers, *pod.containers]:
        begins = len(memory.ran)
        # Unknowns are shared by all containers; files are those that this one mounts.
        memory.files = _files(container, pod, config_maps)
        try:
            ended = _follow(container, place.namespace, memory, after_s)
        except NotRead as error:
            raise NotRead(f"the script of container {container.name}: {error}") from error
        own = Memory(memory.unknowns, memory.ran[begins:], files=memory.files)
        reading.add(read_actions(own, place))
        # Only an init container that ends is waited for; the others start together. One with
        # restartPolicy: Always is a sidecar, which the next does not wait for.
        if container not in init_containers or container.restarts:
            continue
        after_s = ended.after_s
        if ended.status is False:
            reading.idle.append(
                f"init container {container.name} fails, and no other container is started"
            )
            break


def _end_at_deadline(reading: Reading, deadline_s: int | None) -> None:
    """A job that lasts longer is ended, whatever it is doing."""
    if deadline_s is None:
        return
    for each in reading.actions:
        if each.after_s >= deadline_s:
            reading.idle.append(
                f"{each.command!r}: comes after {each.after_s:g} s of sleep, and "
                f"activeDeadlineSeconds: {deadline_s} "
                "ends the job before"
            )
    reading.actions = [each for each in reading.actions if each.after_s < deadline_s]


def _schedule(text: str, where: str) -> str:
    try:
        parsed = parse_schedule(text)
        # "0 0 30 2 *" is a valid schedule that an API server takes.
        if isinstance(parsed, Calendar) and next(calendar_times_ns(parsed, UTC, 0), None) is None:
            raise ValueError("it never comes")
    except ValueError as error:
        raise BadInput(
            f"{where}: spec.schedule: read {text!r} ({error}); allowed are five fields: "
            "minute, hour, day of the month, month, day of the week from 0 (Sunday) to 6, for example '0 3 * * 0'"
        ) from error
    return text


def _zone(name: str | None, where: str) -> tzinfo:
    """The zone of that name; UTC where none is given."""
    # kube-controller-manager takes its own zone then, which is UTC in every cluster that kind or
    # kubeadm makes.
    if name is None:
        return UTC
    # "Local" is refused by the API server (validation of spec.timeZone); the others are files of
    # tzdata that are no zones.
    if name not in available_timezones() or name in ("Local", "localtime", "Factory"):
        raise BadInput(
            f"{where}: spec.timeZone: {name!r} is not a known zone; expected for example "
            "'Europe/Berlin'"
        )
    return ZoneInfo(name)


def _files(container: ContainerSpec, pod: PodSpec, config_maps: ConfigMaps) -> dict[str, File]:
    """What is mounted into a container out of ConfigMaps of the same manifest, by its path."""
    volumes = {str(each.get("name")): each.get("configMap") for each in _objects(pod, "volumes")}
    found: dict[str, File] = {}
    for mount in _objects(container, "volumeMounts"):
        name = mount.get("name")
        # An API server takes only text for a name.
        source = volumes.get(name) if isinstance(name, str) else None
        if isinstance(source, dict):
            data = config_maps.get(str(source.get("name")), {})
            found |= _mounted(mount, source, data)
    return found


def _mounted(
    mount: Mapping[str, object], source: Mapping[str, object], data: Mapping[str, str]
) -> dict[str, File]:
    """The files of one ConfigMap, as `source` (a volume) chooses them and `mount` places them."""
    folder, only = mount.get("mountPath"), mount.get("subPath")
    if not isinstance(folder, str):
        return {}
    folder = folder.rstrip("/")
    found: dict[str, File] = {}
    for item in _items(source, data):
        text = data.get(str(item.get("key")))
        mode = item.get("mode") or source.get("defaultMode") or _DEFAULT_MODE
        if text is None or not isinstance(mode, int):
            continue
        may_run = bool(mode & _ANY_EXECUTE_BIT)
        if only is None:
            found[f"{folder}/{item.get('path')}"] = File(text, may_run=may_run)
        elif only == item.get("path"):
            # With subPath the mount is one file, and mountPath its name.
            found[folder] = File(text, may_run=may_run)
    return found


def _items(source: Mapping[str, object], data: Mapping[str, str]) -> list[Mapping[str, object]]:
    """Key, path and mode of each file of a volume: all of the ConfigMap, unless some are named."""
    named = source.get("items")
    if not named:
        return [{"key": key, "path": key} for key in data]
    return [each for each in named if isinstance(each, dict)] if isinstance(named, list) else []


def _objects(of: ContainerSpec | PodSpec, key: str) -> list[Mapping[str, object]]:
    found = (of.model_extra or {}).get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


# --- Containers -----------------------------------------------------------------------------------


def _follow(
    container: ContainerSpec, namespace: str | None, memory: Memory, after_s: float
) -> Ended:
    """Follows what a container runs, which is started so long after the job."""
    memory.sh_is_not_dash = _SH_IS_NOT_DASH.search(container.image) is not None
    # In their order: a value may use those before it, as $(NAME).
    variables: dict[str, str] = {}
    for each in container.env or []:
        variables[each.name] = _value(each, variables, namespace, memory)
    words = _entry(container)
    return run_words(
        [_expanded(word, variables) for word in words],
        variables,
        memory,
        unset_is_unknown=bool(container.env_from),
        after_s=after_s,
    )


_SH_IS_NOT_DASH = re.compile(
    r"alpine|busybox|k8s-kubectl|helm-kubectl|(?:^|/)kubectl-shell|(?:ose|origin|openshift)[\w-]*cli|/ubi\d|rhel|fedora"
    r"|centos|rocky|almalinux|amazonlinux|suse|archlinux"
)


_WITHOUT_ENTRY_POINT = ("busybox", "alpine", "k8s", "bash", "ubuntu", "debian", "kubectl-shell")


def _entry(container: ContainerSpec) -> list[str]:
    """The program and its arguments."""
    command, arguments = container.command or [], container.args or []
    if command:
        return [*command, *arguments]
    # Without a command the image's own entry point runs. REGISTRY/NAME:TAG or @DIGEST: the name.
    image = re.sub(r"[:@][^/]*$", "", container.image).rsplit("/", 1)[-1]
    # bitnami/kubectl, rancher/kubectl and their kin have kubectl as their entry point.
    if image == "kubectl" or image.endswith("-kubectl"):
        return ["kubectl", *arguments]
    # These run their arguments as a command: they have no entry point, or one that passes them on.
    if image in _WITHOUT_ENTRY_POINT and arguments:
        return arguments
    raise NotRead(
        f"there is no command, and what the image {container.image!r} runs is not known; "
        "name the command"
    )


def _value(variable: EnvVar, before: dict[str, str], namespace: str | None, memory: Memory) -> str:
    if variable.value_from is None:
        return _expanded(variable.value or "", before)
    reference = variable.value_from.get("fieldRef")
    path = reference.get("fieldPath") if isinstance(reference, dict) else None
    if path == "metadata.namespace" and namespace:
        return namespace
    # Named, so that a selector of pods by that variable is understood (kubectl/command.py).
    if path == "spec.nodeName":
        return memory.char_of(Unknown("the node's name"))
    return memory.char_of(Unknown(f"${variable.name}"))


def _expanded(text: str, variables: dict[str, str]) -> str:
    """`$(NAME)` as kubelet puts it in: only names of the container's own environment; `$$` is a
    `$`."""
    return re.sub(
        r"\$\$|\$\(([A-Za-z_][\w.-]*)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )
