"""The CronJobs of a manifest: what an API server would take, when they come, and what their
containers do.

Only what is valid is read. An API server refuses the rest, and a fix that is refused does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from meshwake.core.errors import BadInput
from meshwake.core.yaml_text import kinds_of, read_objects
from meshwake.fixes.actions import Action, Place, Reading, read_actions
from meshwake.fixes.schedule import Calendar, Every, Times, calendar_times_ns, parse_schedule
from meshwake.fixes.shell import names
from meshwake.fixes.shell.memory import Doubt, File, Memory, Unknown
from meshwake.fixes.shell.shell import Ended, check_characters, run_words
from meshwake.fixes.shell.tree import NotRead
from meshwake.ztunnel.names import ISTIO_NAMESPACE

_Count = Annotated[int, Field(ge=0)]


class _Object(BaseModel):
    """What Kubernetes reads strictly: an unknown key is an error, and so is another type."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Open(BaseModel):
    """What has more keys than are of interest here; `known` are all that Kubernetes knows."""

    model_config = ConfigDict(extra="allow", strict=True, alias_generator=to_camel)
    known: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _knows_all(self) -> Self:
        unknown = sorted(set(self.model_extra or ()) - self.known)
        if unknown:
            raise PydanticCustomError("unknown_key", "{key}", {"key": unknown[0]})
        return self


class _Metadata(_Open):
    known = names(
        "labels annotations uid resourceVersion creationTimestamp generation managedFields "
        "ownerReferences finalizers "
        "selfLink deletionTimestamp deletionGracePeriodSeconds"
    )
    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None


class _Variable(_Object):
    name: str
    value: str | None = None
    value_from: dict[str, Any] | None = None


class _Container(_Open):
    known = names(
        "workingDir ports resources resizePolicy restartPolicyRules volumeMounts volumeDevices "
        "livenessProbe readinessProbe startupProbe lifecycle terminationMessagePath "
        "terminationMessagePolicy "
        "imagePullPolicy securityContext stdin stdinOnce tty"
    )
    name: str
    image: Annotated[str, Field(min_length=1)]
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[_Variable] | None = None
    env_from: list[Any] | None = None
    restart_policy: str | None = None

    @property
    def restarts(self) -> bool:
        """An init container that the others do not wait for."""
        return self.restart_policy == "Always"


class _PodSpec(_Open):
    known = names(
        "volumes ephemeralContainers terminationGracePeriodSeconds dnsPolicy nodeSelector "
        "serviceAccountName "
        "serviceAccount automountServiceAccountToken nodeName hostNetwork hostIPC "
        "shareProcessNamespace "
        "securityContext imagePullSecrets hostname subdomain affinity schedulerName "
        "tolerations hostAliases "
        "priorityClassName priority "
        "dnsConfig readinessGates runtimeClassName enableServiceLinks preemptionPolicy overhead "
        "topologySpreadConstraints setHostnameAsFQDN os hostUsers schedulingGates "
        "resourceClaims resources "
        "hostnameOverride workloadRef"
    )
    active_deadline_seconds: int | None = None
    containers: Annotated[list[_Container], Field(min_length=1)]
    init_containers: list[_Container] | None = None
    restart_policy: Literal["OnFailure", "Never"]
    host_pid: Annotated[bool | None, Field(alias="hostPID")] = None


class _Template(_Object):
    metadata: dict[str, Any] | None = None
    spec: _PodSpec


class _JobSpec(_Object):
    parallelism: _Count | None = None
    completions: _Count | None = None
    active_deadline_seconds: int | None = None
    pod_failure_policy: dict[str, Any] | None = None
    success_policy: dict[str, Any] | None = None
    backoff_limit: _Count | None = None
    backoff_limit_per_index: _Count | None = None
    max_failed_indexes: _Count | None = None
    selector: dict[str, Any] | None = None
    manual_selector: bool | None = None
    template: _Template
    ttl_seconds_after_finished: Annotated[int | None, Field(alias="ttlSecondsAfterFinished")] = None
    completion_mode: str | None = None
    suspend: bool | None = None
    pod_replacement_policy: str | None = None
    managed_by: str | None = None


class _JobTemplate(_Object):
    metadata: dict[str, Any] | None = None
    spec: _JobSpec


class _Spec(_Object):
    schedule: str
    time_zone: str | None = None
    starting_deadline_seconds: _Count | None = None
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] | None = None
    suspend: bool | None = None
    job_template: _JobTemplate
    successful_jobs_history_limit: _Count | None = None
    failed_jobs_history_limit: _Count | None = None


class _CronJob(_Object):
    api_version: str
    kind: Literal["CronJob"]
    metadata: _Metadata
    spec: _Spec
    status: Any = None


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
    place: Place


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def read_tasks(manifest: str, ztunnel_namespace: str = ISTIO_NAMESPACE) -> tuple[Task, ...]:
    """The CronJobs in `manifest` (YAML, lists, other objects beside them). Raises BadInput when
    there is none, or when an API server would refuse one."""
    try:
        check_characters(manifest)
    except NotRead as error:
        raise BadInput(f"fix.manifest: {error}") from error
    objects = read_objects(manifest, "fix.manifest")
    found = [each for each in objects if isinstance(each, dict) and each.get("kind") == "CronJob"]
    if not found:
        raise BadInput(
            f"fix.manifest: holds no CronJob ({kinds_of(objects)}); needed is at least one"
        )
    mounted = {
        _name_of(each): each
        for each in objects
        if isinstance(each, dict) and each.get("kind") == "ConfigMap"
    }
    return tuple(_task(_valid(each), ztunnel_namespace, mounted) for each in found)


def _name_of(thing: dict[str, Any]) -> Any:
    metadata = thing.get("metadata")
    return metadata.get("name") if isinstance(metadata, dict) else None


def acting(
    tasks: Sequence[Task], what: Literal["ztunnel", "applications"], needed: str
) -> list[Task]:
    """Those of `tasks` that restart it. Raises BadInput, with what they do instead, when none does."""
    for each in tasks:
        if each.reading.harmful:
            raise BadInput(f"fix.manifest: CronJob {each.name}: {each.reading.harmful[0]}")
    found = [each for each in tasks if each.reading.of(what)]
    if not found:
        raise BadInput(f"fix.manifest: {_instead(tasks)}; needed is {needed}")
    return found


def without_conditions(task: Task, actions: Sequence[Action]) -> list[Action]:
    """Those of `actions` that happen whenever the task runs. Raises BadInput when all hang on
    something."""
    always = [each for each in actions if not each.conditions and not each.background]
    if not always:
        first = actions[0]
        if first.background:
            raise BadInput(
                f"fix.manifest: CronJob {task.name}: {first.command!r} runs in the "
                "background, and the container ends "
                "with its script; leave the '&' out, or end the script with 'wait'"
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
    said = []
    for each in tasks:
        reasons = [*each.reading.unclear, *each.reading.idle]
        others = [f"{action.command!r} restarts {action.what}" for action in each.reading.actions]
        said.append(
            f"CronJob {each.name}: {'; '.join([*others, *reasons][:4]) or 'it runs nothing'}"
        )
    return " | ".join(said)


# --- Valid or not ---------------------------------------------------------------------------------


def _valid(found: dict[str, Any]) -> _CronJob:
    metadata = found.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    where = f"fix.manifest: CronJob {name or '(without a name)'}"
    if template := _template_in(found):
        raise BadInput(
            f"{where}: {template!r} is a template of helm; render it first: helm template "
            "CHART > FILE"
        )
    version = found.get("apiVersion")
    if version != "batch/v1":
        raise BadInput(
            f"{where}: apiVersion: read {version!r}; since Kubernetes 1.25 batch/v1 is the "
            "only one that is served"
        )
    try:
        valid = _CronJob.model_validate(found)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_error(error)}") from error
    if not valid.metadata.name and not valid.metadata.generate_name:
        raise BadInput(f"{where}: metadata.name: is missing")
    if len(valid.metadata.name or "") > 52:
        raise BadInput(
            f"{where}: metadata.name: is longer than 52 characters, the most that a CronJob "
            "may have"
        )
    if valid.metadata.name and not _NAME.fullmatch(valid.metadata.name):
        raise BadInput(
            f"{where}: metadata.name: read {valid.metadata.name!r}; allowed are a-z, 0-9, "
            "'-' and '.'"
        )
    return valid


_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _template_in(value: Any) -> str | None:
    """What is left to be put in, but for what programs may put in themselves: their commands and
    arguments."""
    if isinstance(value, str):
        return value if "{{" in value else None
    inner = value if isinstance(value, list) else []
    if isinstance(value, dict):
        inner = [
            each
            for key, each in value.items()
            if key not in ("command", "args", "env", "annotations")
        ]
    return next((found for each in inner if (found := _template_in(each))), None)


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(each) for each in first["loc"])
    if first["type"] == "missing":
        return f"{place}: is missing"
    if first["type"] == "extra_forbidden":
        return f"{place}: is no key that Kubernetes knows here"
    if first["type"] == "unknown_key":
        return f"{place}.{first['msg']}: is no key that Kubernetes knows here"
    return f"{place}: read {repr(first['input'])[:60]}; {first['msg'][0].lower()}{first['msg'][1:]}"


def _task(valid: _CronJob, ztunnel_namespace: str, config_maps: dict[Any, dict[str, Any]]) -> Task:
    name = valid.metadata.name or valid.metadata.generate_name or ""
    where = f"fix.manifest: CronJob {name}"
    spec, job = valid.spec, valid.spec.job_template.spec
    idle = bool(spec.suspend or job.suspend or job.parallelism == 0 or job.completions == 0)
    cron_job = CronJob(
        _schedule(spec.schedule, where),
        _zone(spec.time_zone, where),
        spec.starting_deadline_seconds,
        idle,
    )
    pod = job.template.spec
    place = Place(valid.metadata.namespace, True, ztunnel_namespace, bool(pod.host_pid))
    memory, reading = Memory(), Reading()
    first, after_s = pod.init_containers or [], 0.0
    for container in [*first, *pod.containers]:
        begins = len(memory.ran)
        memory.files = _files(container, pod, config_maps)
        try:
            ended = _follow(container, valid.metadata.namespace, memory, after_s)
        except NotRead as error:
            raise BadInput(f"{where}: the script of container {container.name}: {error}") from error
        own = Memory(memory.unknowns, memory.ran[begins:], files=memory.files)
        reading.add(read_actions(own, place))
        if container not in first or container.restarts:
            continue
        after_s = ended.after_s
        if ended.status is False:
            reading.idle.append(
                f"init container {container.name} fails, and no other container is started"
            )
            break
    deadlines = [
        each
        for each in (job.active_deadline_seconds, pod.active_deadline_seconds)
        if each is not None
    ]
    _end_at_deadline(reading, min(deadlines, default=None))
    return Task(name, cron_job, reading, memory, place)


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
        if isinstance(parsed, Calendar) and next(calendar_times_ns(parsed, UTC, 0), None) is None:
            raise ValueError("it never comes")
    except ValueError as error:
        raise BadInput(
            f"{where}: spec.schedule: read {text!r} ({error}); allowed are five fields: "
            "minute, hour, "
            "day of the month, "
            "month, day of the week from 0 (Sunday) to 6, for example '0 3 * * 0'"
        ) from error
    return text


def _zone(name: str | None, where: str) -> tzinfo:
    """UTC unless given: kube-controller-manager runs in UTC in every cluster that kind or kubeadm
    makes."""
    if name is None:
        return UTC
    if name not in available_timezones() or name in ("Local", "localtime", "Factory"):
        raise BadInput(
            f"{where}: spec.timeZone: {name!r} is no known zone; allowed is for example "
            "'Europe/Berlin'"
        )
    return ZoneInfo(name)


def _files(
    container: _Container, pod: _PodSpec, config_maps: dict[Any, dict[str, Any]]
) -> dict[str, File]:
    """What is mounted into a container out of ConfigMaps that stand in the same manifest."""
    volumes = {each.get("name"): each.get("configMap") for each in _dicts(pod, "volumes")}
    found: dict[str, File] = {}
    for mount in _dicts(container, "volumeMounts"):
        source = volumes.get(mount.get("name"))
        data = (
            config_maps.get(source.get("name"), {}).get("data")
            if isinstance(source, dict)
            else None
        )
        if (
            not isinstance(source, dict)
            or not isinstance(data, dict)
            or not isinstance(mount.get("mountPath"), str)
        ):
            continue
        folder, only = mount["mountPath"].rstrip("/"), mount.get("subPath")
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        for item in (each for each in items if isinstance(each, dict)):
            text, mode = (
                data.get(item.get("key")),
                item.get("mode") or source.get("defaultMode") or 0o644,
            )
            if isinstance(text, str) and isinstance(mode, int) and only in (None, item.get("path")):
                path = folder if only else f"{folder}/{item.get('path')}"
                found[path] = File(text, bool(mode & 0o111))
    return found


def _dicts(of: _Open, key: str) -> list[dict[str, Any]]:
    found = (of.model_extra or {}).get(key)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


# --- Containers -----------------------------------------------------------------------------------


def _follow(container: _Container, namespace: str | None, memory: Memory, after_s: float) -> Ended:
    """Follows what a container runs, which is started so long after the job."""
    memory.sh_is_no_dash = _SH_IS_NO_DASH.search(container.image) is not None
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


_SH_IS_NO_DASH = re.compile(
    r"alpine|busybox|k8s-kubectl|helm-kubectl|(?:^|/)kubectl-shell|(?:ose|origin|openshift)[\w-]*cli|/ubi\d|rhel|fedora"
    r"|centos|rocky|almalinux|amazonlinux|suse|archlinux"
)


def _entry(container: _Container) -> list[str]:
    """The program and its arguments."""
    command, arguments = container.command or [], container.args or []
    if command:
        return [*command, *arguments]
    image = re.sub(r"[:@][^/]*$", "", container.image).rsplit("/", 1)[-1]
    if image == "kubectl" or image.endswith("-kubectl"):
        return ["kubectl", *arguments]
    if (
        image in ("busybox", "alpine", "k8s", "bash", "ubuntu", "debian", "kubectl-shell")
        and arguments
    ):
        return arguments
    raise NotRead(
        f"there is no command, and what the image {container.image!r} runs is not known; "
        "name the command"
    )


def _value(
    variable: _Variable, before: dict[str, str], namespace: str | None, memory: Memory
) -> str:
    if variable.value_from is None:
        return _expanded(variable.value or "", before)
    reference = variable.value_from.get("fieldRef")
    path = reference.get("fieldPath") if isinstance(reference, dict) else None
    if path == "metadata.namespace" and namespace:
        return namespace
    return memory.char_of(
        Unknown("the node's name" if path == "spec.nodeName" else f"${variable.name}")
    )


def _expanded(text: str, variables: dict[str, str]) -> str:
    """`$(NAME)` as kubelet puts it in: only names of the container's own environment; `$$` is a
    `$`."""
    return re.sub(
        r"\$\$|\$\(([A-Za-z_][\w.-]*)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )
