"""A CronJob as an API server takes it: only what is valid is read.

An API server refuses the rest, and a fix that is refused does nothing. The keys are those of
Kubernetes 1.29 to 1.35; what is of no interest here is known by name only.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from meshwake.core.errors import BadInput
from meshwake.core.json_types import JsonObject, text_at
from meshwake.core.yaml_text import children_of
from meshwake.fixes.shell import names

# A name of at most 52 characters: the controller appends 11 for each Job.
_NAME_MOST = 52
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# What programs expand themselves: braces in it need not be a template of helm.
_NOT_TEMPLATES = ("command", "args", "env", "annotations")
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
        extra = self.model_extra or {}
        unknown = sorted(extra.keys() - self.known)
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


class EnvVar(_Object):
    """An environment variable of a container."""

    name: str
    value: str | None = None
    value_from: dict[str, object] | None = None


class ContainerSpec(_Open):
    """A container or init container of a pod."""

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
    env: list[EnvVar] | None = None
    env_from: list[object] | None = None
    restart_policy: str | None = None

    @property
    def restarts(self) -> bool:
        """An init container that the others do not wait for."""
        return self.restart_policy == "Always"


class PodSpec(_Open):
    """What the pods of a job are made of."""

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
    containers: Annotated[list[ContainerSpec], Field(min_length=1)]
    init_containers: list[ContainerSpec] | None = None
    restart_policy: Literal["OnFailure", "Never"]
    host_pid: Annotated[bool | None, Field(alias="hostPID")] = None


class _Template(_Object):
    metadata: dict[str, object] | None = None
    spec: PodSpec


class _JobSpec(_Object):
    parallelism: _Count | None = None
    completions: _Count | None = None
    active_deadline_seconds: int | None = None
    pod_failure_policy: dict[str, object] | None = None
    success_policy: dict[str, object] | None = None
    backoff_limit: _Count | None = None
    backoff_limit_per_index: _Count | None = None
    max_failed_indexes: _Count | None = None
    selector: dict[str, object] | None = None
    manual_selector: bool | None = None
    template: _Template
    ttl_seconds_after_finished: Annotated[int | None, Field(alias="ttlSecondsAfterFinished")] = None
    completion_mode: str | None = None
    suspend: bool | None = None
    pod_replacement_policy: str | None = None
    managed_by: str | None = None


class _JobTemplate(_Object):
    metadata: dict[str, object] | None = None
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


class CronJobManifest(_Object):
    """A CronJob as it is written."""

    api_version: str
    kind: Literal["CronJob"]
    metadata: _Metadata
    spec: _Spec
    status: object = None


def valid_cron_job(found: JsonObject) -> CronJobManifest:
    """`found` as an API server reads it. Raises BadInput where it would be refused."""
    written_name = text_at(found, "metadata", "name") or "(without a name)"
    where = f"fix.manifest: CronJob {written_name}"

    # Before the types: `parallelism: {{ .Values.n }}` is a wrong type, too, and the way out of it
    # is another.
    template = _template_in(found)
    if template is not None:
        raise BadInput(
            f"{where}: {template!r} is a template of helm; render it first: helm template "
            "CHART > FILE"
        )

    # Before the keys, which were others in batch/v1beta1.
    version = found.get("apiVersion")
    if version != "batch/v1":
        raise BadInput(
            f"{where}: apiVersion: read {version!r}; since Kubernetes 1.25 batch/v1 is the "
            "only one that is served"
        )

    try:
        valid = CronJobManifest.model_validate(found)
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_error(error)}") from error
    _check_name(valid.metadata, where)
    return valid


def _check_name(metadata: _Metadata, where: str) -> None:
    """Raises BadInput for a name that a CronJob may not have."""
    name = metadata.name
    if not name:
        # An API server makes a valid name out of generateName.
        if not metadata.generate_name:
            raise BadInput(f"{where}: metadata.name: is missing")
        return

    if len(name) > _NAME_MOST:
        raise BadInput(
            f"{where}: metadata.name: is longer than {_NAME_MOST} characters, the most that a "
            "CronJob may have"
        )
    if not _NAME.fullmatch(name):
        raise BadInput(
            f"{where}: metadata.name: invalid value {name!r}: expected a-z, 0-9, '-' and '.'"
        )


def _template_in(value: object) -> str | None:
    """What helm would still fill in: the first text with `{{`, but for what programs expand
    themselves."""
    if isinstance(value, str):
        return value if "{{" in value else None

    if isinstance(value, dict):
        # A shell has braces of its own, and so have annotations of other programs.
        value = {key: inner for key, inner in value.items() if key not in _NOT_TEMPLATES}

    for child in children_of(value):
        found = _template_in(child)
        if found is not None:
            return found
    return None


def _first_error(error: ValidationError) -> str:
    # One at a time, as a person mends them; the rest may follow from the first.
    first = error.errors(include_url=False)[0]
    kind, message = first["type"], first["msg"]
    place = ".".join(str(part) for part in first["loc"])

    if kind == "missing":
        return f"{place}: is missing"
    if kind == "extra_forbidden":
        return f"{place}: is not a key that Kubernetes knows here"

    # Ours: pydantic's place is that of the object, and the message has the key (_Open).
    if kind == "unknown_key":
        return f"{place}.{message}: is not a key that Kubernetes knows here"

    read = repr(first["input"])[:60]
    # pydantic's sentence, as the end of ours.
    return f"{place}: read {read}; {message[0].lower()}{message[1:]}"
