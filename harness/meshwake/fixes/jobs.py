"""The CronJobs of a manifest: when they run, and what their containers do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

from meshwake.core.errors import BadInput
from meshwake.core.json_types import (
    JsonObject,
    int_at,
    object_at,
    objects_at,
    text_at,
    texts_at,
)
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
_REASONS_SHOWN = 4


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
    cron_jobs = _of_kind(objects, "CronJob")
    if not cron_jobs:
        raise BadInput(f"fix.manifest: has no CronJob ({kinds_of(objects)}); expected at least one")

    # A container may run a script that the same manifest has in a ConfigMap.
    config_maps: dict[str, Mapping[str, str]] = {}
    for config_map in _of_kind(objects, "ConfigMap"):
        name = text_at(config_map, "metadata", "name")
        config_maps[name] = texts_at(config_map, "data")

    return tuple(
        _task(valid_cron_job(cron_job), ztunnel_namespace, config_maps) for cron_job in cron_jobs
    )


def _of_kind(objects: Sequence[object], kind: str) -> list[JsonObject]:
    # What is not an object at all is left to the message that nothing was found.
    things = objects_at(objects)
    return [thing for thing in things if thing.get("kind") == kind]


def acting(
    tasks: Sequence[Task], what: Literal["ztunnel", "applications"], needed: str
) -> list[Task]:
    """Those of `tasks` that restart it. Raises BadInput, with what they do instead, when none
    does."""
    # One job that takes ztunnel away makes the others useless, whatever they restart.
    for task in tasks:
        if task.reading.harmful:
            raise BadInput(f"fix.manifest: CronJob {task.name}: {task.reading.harmful[0]}")

    found = [task for task in tasks if task.reading.of(what)]
    if found:
        return found

    # All of them: which one was meant to do it is not known.
    instead = " | ".join(_shown_instead(task) for task in tasks)
    raise BadInput(f"fix.manifest: {instead}; expected {needed}")


def without_conditions(task: Task, actions: Sequence[Action]) -> list[Action]:
    """Those of `actions` that happen whenever the task runs. Raises BadInput when each depends on a
    condition."""
    always = [action for action in actions if not action.conditions and not action.background]
    if always:
        return always

    # One is named, the first: a person mends one line at a time.
    first = actions[0]
    where = f"fix.manifest: CronJob {task.name}: {first.command!r}"
    if first.background:
        raise BadInput(
            f"{where} runs in the background, and the container ends with its script; leave the "
            "'&' out, or end the script with 'wait'"
        )
    condition = first.conditions[0]
    raise BadInput(
        f"{where} runs only when {shown(condition, task.memory)}, and whether it is so cannot be "
        "known here; a restart without a condition is understood"
    )


def shown(condition: Doubt, memory: Memory) -> str:
    """A condition, as a person reads it."""
    # A condition of several lines on one.
    text = " ".join(memory.shown(condition.text).split())
    return f"`{text}`" if condition.is_true else f"not `{text}`"


def _shown_instead(task: Task) -> str:
    """What a CronJob does that does not do what was expected."""
    reading = task.reading
    restarts = [f"{action.command!r} restarts {action.what}" for action in reading.actions]

    # Four of a script of a hundred commands: what it restarts first, then what is not understood,
    # and last what does nothing.
    reasons = [*restarts, *reading.unclear, *reading.idle]
    found = "; ".join(reasons[:_REASONS_SHOWN])
    return f"CronJob {task.name}: {found or 'it runs nothing'}"


def _task(valid: CronJobManifest, ztunnel_namespace: str, config_maps: ConfigMaps) -> Task:
    name = valid.metadata.name or valid.metadata.generate_name or ""
    where = f"fix.manifest: CronJob {name}"
    spec, job = valid.spec, valid.spec.job_template.spec

    # A Job of none is complete at once, and no pod of it ever runs.
    has_no_pods = job.parallelism == 0 or job.completions == 0
    cron_job = CronJob(
        schedule=_schedule(spec.schedule, where),
        zone=_zone(spec.time_zone, where),
        starting_deadline_s=spec.starting_deadline_seconds,
        # Either may be suspended: the CronJob starts no Jobs, or each Job starts no pods.
        suspended=bool(spec.suspend or job.suspend or has_no_pods),
    )

    pod = job.template.spec
    place = CommandContext(
        namespace=valid.metadata.namespace,
        in_pod=True,
        ztunnel_namespace=ztunnel_namespace,
        sees_processes=bool(pod.host_pid),
        comes_every_s=shortest_gap_s(cron_job.parsed, cron_job.zone),
    )

    memory, reading = Memory(), Reading()
    try:
        _run_containers(pod, config_maps, place, memory, reading)
    except NotRead as error:
        raise BadInput(f"{where}: {error}") from error

    # The Job may have a deadline, and its pod one of its own; the earlier ends it.
    both = (job.active_deadline_seconds, pod.active_deadline_seconds)
    deadlines_s = [deadline_s for deadline_s in both if deadline_s is not None]
    if deadlines_s:
        _end_at_deadline(reading, min(deadlines_s))
    return Task(name, cron_job, reading, memory, place)


def _run_containers(
    pod: PodSpec, config_maps: ConfigMaps, place: CommandContext, memory: Memory, reading: Reading
) -> None:
    """Follows the init containers one after another, and then the others. `memory` and `reading`
    take what they do. Raises NotRead."""
    init_containers = pod.init_containers or []
    after_s = 0.0
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


def _end_at_deadline(reading: Reading, deadline_s: int) -> None:
    """A job that lasts longer is ended, whatever it is doing."""
    in_time = []
    for action in reading.actions:
        if action.after_s < deadline_s:
            in_time.append(action)
            continue

        # The Job controller deletes the pod, and what the script has not come to never happens.
        reading.idle.append(
            f"{action.command!r}: comes after {action.after_s:g} s of sleep, and "
            f"activeDeadlineSeconds: {deadline_s} ends the job before"
        )
    reading.actions = in_time


def _schedule(text: str, where: str) -> str:
    """`text`, when it is a schedule that comes at all. Raises BadInput."""
    try:
        parsed = parse_schedule(text)
        if isinstance(parsed, Calendar):
            first_wall_ns = next(calendar_times_ns(parsed, UTC, 0), None)
            # "0 0 30 2 *" is a valid schedule that an API server takes.
            if first_wall_ns is None:
                raise ValueError("it never comes")
    except ValueError as error:
        raise BadInput(
            f"{where}: spec.schedule: read {text!r} ({error}); allowed are five fields: minute, "
            "hour, day of the month, month, day of the week from 0 (Sunday) to 6, for example "
            "'0 3 * * 0'"
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
    # Volumes of other kinds (secrets, folders of the node) hold what is not in the manifest.
    sources: dict[str, JsonObject] = {}
    for volume in objects_at(pod.model_extra, "volumes"):
        sources[text_at(volume, "name")] = object_at(volume, "configMap")

    found: dict[str, File] = {}
    for mount in objects_at(container.model_extra, "volumeMounts"):
        # Empty where the volume is of another kind, or its ConfigMap in another manifest.
        source = sources.get(text_at(mount, "name"), {})
        data = config_maps.get(text_at(source, "name"), {})
        found |= _mounted(mount, source, data)
    return found


def _mounted(mount: JsonObject, source: JsonObject, data: Mapping[str, str]) -> dict[str, File]:
    """The files of one ConfigMap, as `source` (a volume) chooses them and `mount` places them."""
    mount_path, only = text_at(mount, "mountPath"), text_at(mount, "subPath")
    # No API server takes a mount without a path.
    if not mount_path:
        return {}
    folder = mount_path.rstrip("/")

    found: dict[str, File] = {}
    for item in _items(source, data):
        text = data.get(text_at(item, "key"))
        if text is None:
            continue

        # The mode of the item counts before that of the volume.
        mode = int_at(item, "mode") or int_at(source, "defaultMode") or _DEFAULT_MODE
        file = File(text, may_run=bool(mode & _ANY_EXECUTE_BIT))
        path = text_at(item, "path")
        if not only:
            found[f"{folder}/{path}"] = file
        elif only == path:
            # With subPath the mount is one file, and mountPath its name.
            found[folder] = file
    return found


def _items(source: JsonObject, data: Mapping[str, str]) -> list[JsonObject]:
    """Key, path and mode of each file of a volume: all of the ConfigMap, unless some are named."""
    named = objects_at(source, "items")
    if named:
        return named

    # Each is a file of the name of its key.
    return [{"key": key, "path": key} for key in data]


# --- Containers -----------------------------------------------------------------------------------


def _follow(
    container: ContainerSpec, namespace: str | None, memory: Memory, after_s: float
) -> Ended:
    """Follows what a container runs, which is started so long after the job."""
    memory.sh_is_not_dash = _SH_IS_NOT_DASH.search(container.image) is not None

    # In their order: a value may use those before it, as $(NAME); kubelet goes through them once.
    variables: dict[str, str] = {}
    for variable in container.env or []:
        variables[variable.name] = _value(variable, variables, namespace, memory)

    words = [_expanded(word, variables) for word in _entry(container)]
    return run_words(
        words,
        variables,
        memory,
        # What envFrom takes out of ConfigMaps and Secrets may be any variable.
        unset_is_unknown=bool(container.env_from),
        after_s=after_s,
    )


_SH_IS_NOT_DASH = re.compile(
    r"alpine|busybox|k8s-kubectl|helm-kubectl|(?:^|/)kubectl-shell"
    r"|(?:ose|origin|openshift)[\w-]*cli|/ubi\d|rhel|fedora|centos|rocky|almalinux"
    r"|amazonlinux|suse|archlinux"
)

_WITHOUT_ENTRY_POINT = ("busybox", "alpine", "k8s", "bash", "ubuntu", "debian", "kubectl-shell")


def _entry(container: ContainerSpec) -> list[str]:
    """The program and its arguments."""
    arguments = container.args or []
    if container.command:
        return [*container.command, *arguments]

    # Without a command the image's own entry point runs. REGISTRY/NAME:TAG or @DIGEST: the name.
    without_tag = re.sub(r"[:@][^/]*$", "", container.image)
    image = without_tag.rsplit("/", 1)[-1]

    # bitnami/kubectl, rancher/kubectl and their kin have kubectl as their entry point.
    is_kubectl = image == "kubectl" or image.endswith("-kubectl")
    if is_kubectl:
        return ["kubectl", *arguments]

    # These run their arguments as a command: they have no entry point, or one that passes them on.
    if image in _WITHOUT_ENTRY_POINT and arguments:
        return arguments
    raise NotRead(
        f"there is no command, and what the image {container.image!r} runs is not known; "
        "name the command"
    )


def _value(variable: EnvVar, before: dict[str, str], namespace: str | None, memory: Memory) -> str:
    """What a variable is set to; `before` are those written before it."""
    if variable.value_from is None:
        return _expanded(variable.value or "", before)

    # Of what the downward API offers, the manifest itself says the namespace only.
    field = text_at(variable.value_from, "fieldRef", "fieldPath")
    if field == "metadata.namespace" and namespace:
        return namespace

    # A Secret, a ConfigMap, or what only the pod knows.
    unknown = f"${variable.name}"

    # Named, so that a selector of pods by that variable is understood (kubectl/command.py).
    if field == "spec.nodeName":
        unknown = "the node's name"
    return memory.char_of(Unknown(unknown))


def _expanded(text: str, variables: dict[str, str]) -> str:
    """`$(NAME)` as kubelet puts it in: only names of the container's own environment; `$$` is a
    `$`."""

    def value_of(reference: re.Match[str]) -> str:
        written, name = reference[0], reference[1]
        if written == "$$":
            return "$"
        # A name that is not there stays as it is written.
        return variables.get(name, written)

    return re.sub(r"\$\$|\$\(([A-Za-z_][\w.-]*)\)", value_of, text)
