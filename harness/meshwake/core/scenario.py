"""A scenario: a world, a timeline of faults, what is deployed against them, and what is expected.

Read from TOML, strictly: an unknown key, a wrong unit or an impossible timeline is refused with the
file, the key, what was read, what is allowed and the nearest right word. docs: scenarios/README.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import accumulate, pairwise, product
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from meshwake.core.durations import NS_PER_S, format_duration, parse_duration_ns
from meshwake.core.errors import BadInput
from meshwake.core.text_files import read_text
from meshwake.system.hints import did_you_mean

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
CLOCK_FAULTS = ("suspend", "pause", "step", "drift", "freeze")
SERVICE_FAULTS = (
    "ca_outage",
    "ca_hang",
    "ca_slow",
    "token_expired",
    "ca_clock",
    "ca_lifetime",
    "ca_root",
    "ca_root_change",
    "restart",
    "pod_restart",
)
Place = tuple[str | int, ...]  # the keys and positions that lead to a value of the document
EVERY_NODE = "*"
APART = "apart"
NEVER = "never"
# A typing error such as every = "1ms" must be refused, not expanded until the memory is gone.
FAULTS_MAX = 20_000
_WALL_S_MIN = int(datetime(1971, 1, 1, tzinfo=UTC).timestamp())
_WALL_S_MAX = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp())
ATTEMPTS_MAX = 1_000_000
# A Monday morning: a person opens the lid, and the CronJobs of a week lie ahead.
DEFAULT_STARTS = datetime(2027, 1, 4, 8, 0, tzinfo=UTC)


def _duration(value: Any) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError(
            "duration", "a duration needs a unit, for example '90s' or '1h30m'"
        )
    try:
        return parse_duration_ns(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{why}", {"why": str(error)}) from error


def _positive(value: int) -> int:
    if value <= 0:
        raise PydanticCustomError("positive", "must be longer than nothing")
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise PydanticCustomError("not_negative", "must not be negative; world time starts at 0")
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise PydanticCustomError("not_zero", "a step by nothing is no fault")
    return value


def _whole_seconds(value: int) -> int:
    if value % NS_PER_S:
        raise PydanticCustomError(
            "whole_seconds", "must be whole seconds: X.509 times have no finer unit"
        )
    return value


def _rate(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise PydanticCustomError("rate", "must be a number such as 1.025")
    try:
        rate = Decimal(str(value))
    except InvalidOperation as error:
        raise PydanticCustomError("rate", "must be a number such as 1.025") from error
    if not rate.is_finite() or not Decimal("0.1") <= rate <= 10:
        raise PydanticCustomError(
            "rate", "must lie between 0.1 and 10 seconds of wall clock a second"
        )
    return rate


def _identity(value: str) -> str:
    namespace, slash, account = value.partition("/")
    if not (slash and namespace and account) or "/" in account or any(c.isspace() for c in value):
        raise PydanticCustomError(
            "identity", "must be namespace/serviceaccount, for example 'default/client'"
        )
    return value


def _versions(value: str) -> str:
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        raise PydanticCustomError(
            "versions",
            "is no version range; allowed is for example '>=1.18', '<1.28', '>=1.24,<1.28'",
        ) from error
    return value


def _version(value: str) -> str:
    try:
        Version(value)
    except InvalidVersion as error:
        raise PydanticCustomError(
            "version", "is no version; a release is written as in '1.32.0'"
        ) from error
    return value


def _corrected_after(value: Any) -> int | None:
    if value == NEVER:
        return None
    if not isinstance(value, str):
        raise PydanticCustomError(
            "duration", "a duration needs a unit, for example '25s', or is 'never'"
        )
    return _not_negative(_duration(value))


Duration = Annotated[int, BeforeValidator(_duration)]
Length = Annotated[Duration, AfterValidator(_positive)]
WorldTime = Annotated[Duration, AfterValidator(_not_negative)]
StepBy = Annotated[Duration, AfterValidator(_not_zero)]
Seconds = Annotated[Length, AfterValidator(_whole_seconds)]
Backdate = Annotated[Duration, AfterValidator(_not_negative), AfterValidator(_whole_seconds)]
Rate = Annotated[Decimal, BeforeValidator(_rate)]
IdentityName = Annotated[str, AfterValidator(_identity)]
VersionRange = Annotated[str, AfterValidator(_versions)]
VersionText = Annotated[str, AfterValidator(_version)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Certificate(_Strict):
    """What ztunnel asks for (SECRET_TTL), and how far istiod dates notBefore back."""

    lifetime: Seconds = 86_400 * NS_PER_S
    backdate: Backdate = 120 * NS_PER_S


class Node(_Strict):
    """Something with clocks of its own: a machine, a VM; and the workloads on it."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)
    identities: Annotated[list[IdentityName], Field(min_length=1)]


class Gateway(_Strict):
    """A gateway or waypoint: an Envoy whose certificate a pilot-agent renews, on a node."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=40)
    node: str
    identity: IdentityName


class Authority(_Strict):
    """istiod: whose clocks it shares and with whom it sleeps. `token`: how long the token lives
    with which ztunnel asks it, and which kubelet renews; absent: every token is good for ever."""

    node: str
    token: Seconds | None = None


class Ztunnel(_Strict):
    """How ztunnels run where they are real: one for each identity (light), or one for each node as
    on a cluster; and where an in-pod one hears of workloads: from a file, or by discovery from the
    authority (a ping every 30 s)."""

    mode: Literal["dedicated", "in-pod"] = "dedicated"
    workloads: Literal["file", "discovery"] = "file"


class Traffic(_Strict):
    """Who connects to whom; every attempt is a new connection, since expiry is checked at the
    handshake only."""

    pairs: Annotated[
        list[Annotated[list[IdentityName], Field(min_length=2, max_length=2)]], Field(min_length=1)
    ]
    every: Length


class _Fault(_Strict):
    at: WorldTime
    every: Length | None = None

    @property
    def lasts_world_ns(self) -> int:
        """How long the fault lies on the timeline, in world time; 0 for a moment."""
        lasts_ns: int = getattr(self, "lasts", 0)
        corrected_after_ns: int = getattr(self, "corrected_after", 0) or 0
        return lasts_ns + corrected_after_ns


class _NodeFault(_Fault):
    node: str | None = None


class Suspend(_NodeFault):
    """The kernel sleeps: wall and boottime jump at the wake, monotonic does not."""

    kind: Literal["suspend"]
    lasts: Length


class Pause(_NodeFault):
    """The whole VM stops, all clocks with it; the wall clock is corrected some time after, or stays
    behind (None)."""

    kind: Literal["pause"]
    lasts: Length
    corrected_after: Annotated[int | None, BeforeValidator(_corrected_after)]


class Step(_NodeFault):
    """The wall clock is set, forward or back; nothing else moves."""

    kind: Literal["step"]
    by: StepBy


class Drift(_NodeFault):
    """The wall clock runs at another rate than the monotonic one."""

    kind: Literal["drift"]
    lasts: Length
    rate: Rate


class Freeze(_NodeFault):
    """The processes are stopped (docker pause, SIGSTOP); all clocks go on."""

    kind: Literal["freeze"]
    lasts: Length


class CaOutage(_Fault):
    """The authority answers every request with UNAVAILABLE."""

    kind: Literal["ca_outage"]
    lasts: Length


class CaHang(_Fault):
    """The authority accepts requests and never answers those, not even after the fault has ended."""

    kind: Literal["ca_hang"]
    lasts: Length


class CaSlow(_Fault):
    """The authority signs, and answers, a request that it takes meanwhile this long after it came,
    by its own clock."""

    kind: Literal["ca_slow"]
    lasts: Length
    answers_after: Length


class TokenExpired(_Fault):
    """The authority answers every request with UNAUTHENTICATED."""

    kind: Literal["token_expired"]
    lasts: Length


class CaRootChange(_Fault):
    """The authority shows a certificate of a new root from now on, and the root file of every node
    has the new one. Connections to it that were open are closed."""

    kind: Literal["ca_root_change"]


class CaClock(_Fault):
    """The authority's own wall clock is ahead, or behind with a negative `by`: certificates are
    dated by it."""

    kind: Literal["ca_clock"]
    lasts: Length
    by: StepBy


class CaLifetime(_Fault):
    """The authority gives certificates of this lifetime, whatever it is asked for."""

    kind: Literal["ca_lifetime"]
    lasts: Length
    lifetime: Seconds


class CaRoot(_Fault):
    """The authority signs with another root, of which those with older certificates know nothing.
    To the end of the scenario: a root change without a common bundle; for a while: a wrong chain.
    """

    kind: Literal["ca_root"]
    lasts: Length


class Restart(_NodeFault):
    """Every ztunnel of the node is ended and started anew."""

    kind: Literal["restart"]


class PodRestart(_Fault):
    """The pod of an identity goes, and another one comes: a fresh certificate, by the same ztunnel."""

    kind: Literal["pod_restart"]
    identity: IdentityName


Fault = Annotated[
    Suspend
    | Pause
    | Step
    | Drift
    | Freeze
    | CaOutage
    | CaHang
    | CaSlow
    | TokenExpired
    | CaClock
    | CaLifetime
    | CaRoot
    | CaRootChange
    | Restart
    | PodRestart,
    Field(discriminator="kind"),
]


class Fix(_Strict):
    """What somebody deploys against the fault, read from the manifest they would apply.
    `ztunnel_namespace`: where ztunnel lives in their cluster; istio-system unless they say another.
    """

    name: FixName
    manifest: str | None = None
    ztunnel_namespace: str | None = None


class Expect(_Strict):
    """What a check is expected to find, for which versions (`until`: before this one), and why.
    `evidence`: the run that it was learned from, written by `meshwake accept`."""

    check: CheckName
    verdict: Literal["holds", "broken", "unknown"]
    because: str = Field(min_length=1)
    versions: VersionRange = ">=0"
    until: VersionText | None = None
    evidence: Annotated[str, Field(min_length=1)] | None = None


class RealTime(_Strict):
    """The numbers for labs that cannot skip time: a short certificate and a timeline of minutes."""

    lifetime: Seconds
    backdate: Backdate = 120 * NS_PER_S
    duration: Length
    every: Length | None = None
    fault: list[Fault] | None = None


class Scenario(_Strict):
    """One scenario file, checked; durations are nanoseconds. `name` is the file's name without
    `.toml`."""

    name: str = ""
    path: str = ""
    title: str = Field(min_length=1)
    source: Annotated[str, Field(min_length=1)] | None = None
    labs: Annotated[list[LabName], Field(min_length=1)] = ["model", "process"]
    duration: Length
    starts: datetime = DEFAULT_STARTS
    certificate: Certificate = Certificate()
    node: Annotated[list[Node], Field(min_length=1)]
    gateway: list[Gateway] = []
    authority: Authority | None = None
    ztunnel: Ztunnel = Ztunnel()
    traffic: Traffic
    fault: list[Fault] = []
    fix: Fix | None = None
    real_time: RealTime | None = None
    expect: Annotated[list[Expect], Field(min_length=1)]

    @model_validator(mode="after")
    def _timeline_is_possible(self) -> Scenario:
        if self.starts.tzinfo is None:
            _refuse(("starts",), self.starts.isoformat(), "needs a zone: '2027-01-04T08:00:00Z'")
        if self.duration // self.traffic.every > ATTEMPTS_MAX:
            _refuse(
                ("traffic", "every"),
                format_duration(self.traffic.every),
                f"makes over {ATTEMPTS_MAX} attempts",
            )
        _check_names(self)
        _check_faults(self, self.fault, self.duration, ("fault",))
        if self.real_time is not None:
            faults = self.fault if self.real_time.fault is None else self.real_time.fault
            _check_faults(self, faults, self.real_time.duration, ("real_time", "fault"))
        return self


class _Impossible(ValueError):
    """A scenario whose parts are right and whose whole is not; carries the place for the message."""

    def __init__(self, location: Place, read: object, why: str) -> None:
        super().__init__(why)
        self.location, self.read, self.why = location, read, why


def _refuse(location: Place, read: object, why: str) -> None:
    raise _Impossible(location, read, why)


def _check_names(scenario: Scenario) -> None:
    names = [node.name for node in scenario.node]
    identities = [identity for node in scenario.node for identity in node.identities]
    identities += [gateway.identity for gateway in scenario.gateway]
    _check_gateways(scenario, names)
    _check_nodes(scenario, names, identities)
    if scenario.ztunnel.mode == "dedicated" and scenario.ztunnel.workloads == "discovery":
        _refuse(
            ("ztunnel", "workloads"),
            "discovery",
            "needs mode = 'in-pod'; a dedicated ztunnel reads a file",
        )
    if scenario.authority is not None and scenario.authority.node not in [*names, APART]:
        word = scenario.authority.node
        allowed = [*names, APART]
        _refuse(
            ("authority", "node"),
            word,
            f"is no node; allowed: {', '.join(allowed)}{did_you_mean(word, allowed)}",
        )
    for position, pair in enumerate(scenario.traffic.pairs):
        for identity in pair:
            if identity not in identities:
                why = (
                    "lives on no node; allowed: "
                    f"{', '.join(identities)}{did_you_mean(identity, identities)}"
                )
                _refuse(("traffic", "pairs", position), identity, why)
        if pair[0] == pair[1]:
            _refuse(("traffic", "pairs", position), pair, "connects an identity to itself")


def _check_gateways(scenario: Scenario, names: list[str]) -> None:
    known: set[str] = {*names}
    for position, gateway in enumerate(scenario.gateway):
        if gateway.node not in names:
            why = f"is no node; allowed: {', '.join(names)}{did_you_mean(gateway.node, names)}"
            _refuse(("gateway", position, "node"), gateway.node, why)
        if gateway.name in known:
            _refuse(
                ("gateway", position, "name"),
                gateway.name,
                "stands twice; a process needs a name of its own",
            )
        known.add(gateway.name)


def _check_nodes(scenario: Scenario, names: list[str], identities: list[str]) -> None:
    for position, node in enumerate(scenario.node):
        if node.name == APART:
            _refuse(
                ("node", position, "name"),
                APART,
                "means an authority on no node; give the node another name",
            )
        if names.index(node.name) != position:
            _refuse(
                ("node", position, "name"),
                node.name,
                "stands twice; every node needs a name of its own",
            )
        for place, identity in enumerate(node.identities):
            if identities.count(identity) > 1:
                where = ("node", position, "identities", place)
                _refuse(where, identity, "stands twice; an identity lives on one node only")


def _check_faults(scenario: Scenario, faults: list[Any], duration_ns: int, place: Place) -> None:
    names = [node.name for node in scenario.node]
    for position, fault in enumerate(faults):
        where = (*place, position)
        if fault.at >= duration_ns:
            why = f"begins after the end; the scenario lasts {format_duration(duration_ns)}"
            _refuse((*where, "at"), format_duration(fault.at), why)
        if fault.every is not None and fault.every <= fault.lasts_world_ns:
            why = (
                "comes again before it has ended (it takes "
                f"{format_duration(fault.lasts_world_ns)})"
            )
            _refuse((*where, "every"), format_duration(fault.every), why)
        if len(fault_times_ns(fault, duration_ns)) > FAULTS_MAX:
            _refuse(
                (*where, "every"),
                format_duration(fault.every),
                f"makes more than {FAULTS_MAX} faults",
            )
        if isinstance(fault, PodRestart):
            _check_pod_restart(scenario, fault, where)
        if not isinstance(fault, _NodeFault):
            continue
        if fault.at == 0 and not isinstance(fault, Drift):
            why = (
                "is the moment at which every ztunnel starts and gets its certificates; let it "
                "begin later, at '1s'"
            )
            _refuse((*where, "at"), format_duration(fault.at), why)
        if fault.node is None and len(names) > 1:
            _refuse((*where, "node"), None, f"is missing; allowed: {', '.join(names)}, '*'")
        if fault.node not in (None, EVERY_NODE, *names):
            why = f"is no node; allowed: {', '.join(names)}, '*'{did_you_mean(str(fault.node), names)}"
            _refuse((*where, "node"), fault.node, why)
    _check_overlaps(names, faults, duration_ns, place)
    _check_wall_clocks(scenario, faults, duration_ns, place)


def _check_pod_restart(scenario: Scenario, fault: PodRestart, where: Place) -> None:
    identities = [identity for node in scenario.node for identity in node.identities]
    if fault.identity not in identities:
        why = (
            "lives on no node; allowed: "
            f"{', '.join(identities)}{did_you_mean(fault.identity, identities)}"
        )
        _refuse((*where, "identity"), fault.identity, why)
    if fault.at == 0:
        _refuse(
            (*where, "at"),
            "0s",
            "is the moment at which its first pod starts; let it begin later, at '1s'",
        )
    if scenario.ztunnel != Ztunnel(mode="in-pod", workloads="discovery"):
        why = (
            "needs [ztunnel] mode = 'in-pod', workloads = 'discovery': else no ztunnel hears "
            "that a pod has gone"
        )
        _refuse((*where, "kind"), "pod_restart", why)


def _check_wall_clocks(
    scenario: Scenario, faults: list[Any], duration_ns: int, place: Place
) -> None:
    """No wall clock may leave the years that programs, and X.509 in nanoseconds, can be trusted
    with."""
    steps = sorted(
        (at, fault.by)
        for fault in faults
        if isinstance(fault, Step)
        for at in fault_times_ns(fault, duration_ns)
    )
    ahead_ns = [0, *accumulate(by for _, by in steps)]
    fastest = max([Decimal(1), *(fault.rate for fault in faults if isinstance(fault, Drift))])
    starts_s = int(scenario.starts.timestamp())
    earliest_s = starts_s + min(ahead_ns) // NS_PER_S
    latest_s = starts_s + (max(ahead_ns) + int(duration_ns * fastest)) // NS_PER_S
    if earliest_s < _WALL_S_MIN or latest_s > _WALL_S_MAX:
        _refuse(
            ("starts",) if starts_s < _WALL_S_MIN or starts_s > _WALL_S_MAX else place,
            str(scenario.starts),
            "takes a wall clock out of the years 1971 to 2200",
        )


def fault_times_ns(fault: Any, duration_ns: int) -> range:
    """World times at which `fault` begins, repeats included, all before the end."""
    return range(fault.at, duration_ns if fault.every else fault.at + 1, fault.every or 1)


class _Span(NamedTuple):
    """Where one clock fault lies on the timeline of one node; sorts by time."""

    node: str
    begins_ns: int
    ends_ns: int
    position: int
    kind: str


def _check_overlaps(names: list[str], faults: list[Any], duration_ns: int, place: Place) -> None:
    """One clock fault at a time on one node; only a drift may have others within it."""
    spans = sorted(_spans(names, faults, duration_ns))
    for node in names:
        drifts = [span for span in spans if span.node == node and span.kind == "drift"]
        others = [span for span in spans if span.node == node and span.kind != "drift"]
        for one, two in [*pairwise(others), *pairwise(drifts)]:
            if two.begins_ns < one.ends_ns or two.begins_ns == one.begins_ns:
                why = (
                    f"overlaps fault {one.position} ({one.kind}) on node {node!r}; one clock "
                    "fault at a time on a node"
                )
                _refuse((*place, two.position, "at"), format_duration(two.begins_ns), why)
        for drift, other in product(drifts, others):
            if any(
                other.begins_ns < end_ns < other.ends_ns
                for end_ns in (drift.begins_ns, drift.ends_ns)
            ):
                why = (
                    f"lies across an end of fault {drift.position} (drift) on node {node!r}; "
                    "put it within or outside"
                )
                _refuse((*place, other.position, "at"), format_duration(other.begins_ns), why)


def _spans(names: list[str], faults: list[Any], duration_ns: int) -> Iterator[_Span]:
    for position, fault in enumerate(faults):
        if fault.kind not in CLOCK_FAULTS:
            continue
        nodes = names if fault.node in (None, EVERY_NODE) else [fault.node]
        for at in fault_times_ns(fault, duration_ns):
            yield from (
                _Span(node, at, at + fault.lasts_world_ns, position, fault.kind) for node in nodes
            )


def read_scenario(path: Path) -> Scenario:
    """The scenario in the TOML file at `path`. Raises BadInput with every fault found, one a line."""
    try:
        text = read_text(path)
    except BadInput as error:
        raise BadInput(f"{error}; give the path of a scenario, which is a TOML file") from error
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


def scenario_of(document: dict[str, Any], path: str, name: str) -> Scenario:
    """The scenario that a TOML document, or a test, describes. Raises BadInput with every fault
    found, one a line."""
    try:
        return Scenario.model_validate(document | {"name": name, "path": path})
    except ValidationError as error:
        lines = [_explain(detail, path, document) for detail in error.errors()]
        raise BadInput("\n".join(lines)) from error


def _explain(detail: ErrorDetails, path: str, document: dict[str, Any]) -> str:
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, _Impossible):
        return f"{path}: {_place(cause.location)}: read {cause.read!r}, which {cause.why}"
    kind = detail["type"]
    location = _without_tags(detail["loc"])
    place = _place(location)
    if kind == "extra_forbidden":
        allowed = _allowed_keys(location[:-1], document)
        return (
            f"{path}: unknown key {str(location[-1])!r} in "
            f"{_place(location[:-1]) or 'the top level'}"
            f"{did_you_mean(str(location[-1]), allowed)} (allowed: {', '.join(allowed)})"
        )
    if kind == "missing":
        return f"{path}: {place}: is missing{_hint(location)}"
    if kind in ("literal_error", "union_tag_invalid"):
        where, read, allowed = _choice(detail, location)
        return (
            f"{path}: {where}: read {read!r}, allowed: "
            f"{', '.join(allowed)}{did_you_mean(str(read), allowed)}"
        )
    if kind == "union_tag_not_found":
        return (
            f"{path}: {place}.kind: is missing, allowed: "
            f"{', '.join((*CLOCK_FAULTS, *SERVICE_FAULTS))}"
        )
    message = detail["msg"][0].lower() + detail["msg"][1:]
    if kind == "too_short":
        message = "is empty; at least one is needed"
    return f"{path}: {place}: read {detail['input']!r}: {message}"


def _without_tags(location: Place) -> Place:
    """pydantic puts the chosen fault kind into the place; the author of the file never wrote it
    there."""
    kinds = {*CLOCK_FAULTS, *SERVICE_FAULTS}
    return tuple(
        part
        for position, part in enumerate(location)
        if not (part in kinds and position > 0 and isinstance(location[position - 1], int))
    )


def _choice(detail: ErrorDetails, location: Place) -> tuple[str, object, list[str]]:
    if detail["type"] == "union_tag_invalid":
        return _place((*location, "kind")), detail["ctx"]["tag"], [*CLOCK_FAULTS, *SERVICE_FAULTS]
    words = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    return _place(location), detail["input"], words


def _hint(location: Place) -> str:
    if location == ("expect",):
        return (
            "; a scenario without [[expect]] judges nothing: write what should hold, or break, "
            "and because of what"
        )
    if location[-1] in (
        "duration",
        "at",
        "lasts",
        "corrected_after",
        "answers_after",
        "by",
        "every",
        "lifetime",
    ):
        return "; allowed is a duration such as '8h' or '1h30m'"
    return ""


def _place(location: Place) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


_TABLES: dict[str, type[_Strict]] = {
    "certificate": Certificate,
    "node": Node,
    "gateway": Gateway,
    "authority": Authority,
    "ztunnel": Ztunnel,
    "traffic": Traffic,
    "fix": Fix,
    "real_time": RealTime,
    "expect": Expect,
}


def _allowed_keys(location: Place, document: dict[str, Any]) -> list[str]:
    names = [part for part in location if isinstance(part, str)]
    if not names:
        return [key for key in Scenario.model_fields if key not in ("name", "path")]
    if names[-1] == "fault":
        table: Any = document
        for part in location:
            table = table[part]
        kinds = {
            model.model_fields["kind"].annotation: model for model in get_args(get_args(Fault)[0])
        }
        for annotation, model in kinds.items():
            if table.get("kind") in get_args(annotation):
                return sorted(model.model_fields)
    return list(_TABLES[names[-1]].model_fields) if names[-1] in _TABLES else []
