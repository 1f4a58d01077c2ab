"""A scenario: a world, a timeline of faults, what is deployed against them, and what is expected.

Read from TOML, strictly: an unknown key, a wrong unit or an impossible timeline is refused with the
file, the key, what was read, what is allowed and the nearest right word. docs: scenarios/README.md.

Its parts: values in scenario_values.py, kinds of faults in faults.py, what a whole scenario must
keep in scenario_checks.py, the messages in scenario_errors.py.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.faults import Fault
from meshwake.core.json_types import JsonObject
from meshwake.core.scenario_checks import check_scenario
from meshwake.core.scenario_errors import explain
from meshwake.core.scenario_values import (
    Backdate,
    IdentityName,
    Length,
    Seconds,
    Strict,
    VersionRange,
    VersionText,
    ZoneText,
)
from meshwake.core.text_files import read_text

LabName = Literal["model", "process", "machine", "kind"]
CheckName = Literal[
    "no_expired_certificate_served",
    "renewals_on_time",
    "traffic_flows",
    "recovers_within",
    "ca_not_flooded",
    "valid_certificate_kept",
    "alert_before_outage",
]
FixName = Literal[
    "none",
    "weekly-restart",
    "daily-restart",
    "log-watchdog",
    "near-expiry",
    "istiod-default-ttl",
    "secret-ttl-720h",
    "sleep-hook",
    "restart-applications",
    "chrony-makestep",
    "fresh-time-base",
    "boottime",
    "wall-polling",
    "wake-guard",
]
# A Monday morning: a person opens the lid, and the CronJobs of a week lie ahead.
DEFAULT_STARTS = datetime(2027, 1, 4, 8, 0, tzinfo=UTC)


class Certificate(Strict):
    """What ztunnel asks for (SECRET_TTL), and how far istiod dates notBefore back."""

    lifetime: Seconds = 86_400 * NS_PER_S
    backdate: Backdate = 120 * NS_PER_S


class Node(Strict):
    """Something with clocks of its own: a machine, a VM; and the workloads on it."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)
    identities: Annotated[list[IdentityName], Field(min_length=1)]


class Gateway(Strict):
    """A gateway or waypoint: an Envoy whose certificate a pilot-agent renews, on a node."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)
    node: str
    identity: IdentityName


class Authority(Strict):
    """istiod, and the token with which ztunnel authenticates to it."""

    # The node whose clocks it shares and with which it sleeps, or "apart".
    node: str
    # Lifetime of the token, which kubelet renews; absent: tokens never expire.
    token: Seconds | None = None


class Ztunnel(Strict):
    """How ztunnels run where they are real."""

    # One process for each identity, which is light; or one for each node, as on a cluster.
    mode: Literal["dedicated", "in-pod"] = "dedicated"
    # How an in-pod ztunnel learns of workloads: from a file, or by discovery from the authority,
    # with a ping every 30 s that ends an idle time which would be skipped.
    workloads: Literal["file", "discovery"] = "file"


class Traffic(Strict):
    """Who connects to whom; every attempt is a new connection, since expiry is checked at the
    handshake only."""

    pairs: Annotated[
        list[Annotated[list[IdentityName], Field(min_length=2, max_length=2)]], Field(min_length=1)
    ]
    every: Length


class Fix(Strict):
    """What is deployed against the fault, read from the manifest that a user would apply."""

    name: FixName
    manifest: str | None = None
    # Where ztunnel is in the user's cluster; None: istio-system.
    ztunnel_namespace: str | None = None


class Expect(Strict):
    """What a check is expected to find, for which versions, and why."""

    check: CheckName
    verdict: Literal["holds", "broken", "unknown"]
    because: str = Field(min_length=1)
    versions: VersionRange = ">=0"
    # Before this version; a range alone cannot end before a release and keep its pre-releases.
    until: VersionText | None = None
    # The run that it was learned from, written by `meshwake accept`.
    evidence: Annotated[str, Field(min_length=1)] | None = None


class RealTime(Strict):
    """The numbers for labs that cannot skip time: a short certificate and a timeline of minutes."""

    lifetime: Seconds
    backdate: Backdate = 120 * NS_PER_S
    duration: Length
    every: Length | None = None
    fault: list[Fault] | None = None


class Scenario(Strict):
    """One scenario file, checked; durations are nanoseconds."""

    # Filled in by the reader: the file's name without `.toml`, and its path for messages.
    name: str = ""
    path: str = ""
    title: str = Field(min_length=1)
    source: Annotated[str, Field(min_length=1)] | None = None
    # Leaves out those on which it would prove nothing; what a lab cannot do it refuses by itself.
    labs: list[LabName] = Field(default=list(get_args(LabName)), min_length=1)
    duration: Length
    starts: datetime = DEFAULT_STARTS
    # The date of world time 0 in a history that really happened and that `starts` moves to later
    # years; dates are shown by it, and nothing else changes.
    recorded_from: datetime | None = None
    # The zone in which they are shown (core/zones.py); None: UTC.
    recorded_zone: ZoneText | None = None
    certificate: Certificate = Certificate()
    node: Annotated[list[Node], Field(min_length=1)]
    gateway: list[Gateway] = Field(default=[])
    authority: Authority | None = None
    ztunnel: Ztunnel = Ztunnel()
    traffic: Traffic
    fault: list[Fault] = Field(default=[])
    fix: Fix | None = None
    real_time: RealTime | None = None
    expect: Annotated[list[Expect], Field(min_length=1)]

    @model_validator(mode="after")
    def _can_happen(self) -> Scenario:
        check_scenario(self)
        return self


def read_scenario(path: Path) -> Scenario:
    """The scenario in the TOML file at `path`. Raises BadInput with every mistake found, one a line."""
    try:
        text = read_text(path)
    except BadInput as error:
        raise BadInput(f"{error}; give the path of a scenario, which is a TOML file") from error
    try:
        path.stem.encode()
    except UnicodeEncodeError as error:
        # The name goes into plans and histories, which are JSON. Archives from old systems have
        # such names.
        raise BadInput(f"{path}: the file's name is not UTF-8; rename the file") from error
    return parse_scenario(text, str(path), path.stem)


def parse_scenario(text: str, path: str, name: str) -> Scenario:
    """The scenario written in `text`; `path` is only for messages. Raises BadInput."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: is not TOML: {error}; see scenarios/README.md") from error
    for reserved in ("name", "path"):
        if reserved in document:
            raise BadInput(
                f"{path}: {reserved}: is not written in the file; a scenario is named for its file"
            )
    return scenario_of(document, path, name)


def scenario_of(document: JsonObject, path: str, name: str) -> Scenario:
    """The scenario that a TOML document, or a test, describes. Raises BadInput with every mistake
    found, one a line."""
    try:
        return Scenario.model_validate({**document, "name": name, "path": path})
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            mistake = explain(detail, document, Scenario)
            lines.append(f"{path}: {mistake}")
        raise BadInput("\n".join(lines)) from error
