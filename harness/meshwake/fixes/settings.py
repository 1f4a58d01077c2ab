"""Fixes that change a setting, and nothing while the mesh runs: two lifetimes, and how a wall clock
is corrected.

    istiod-default-ttl   istiod's DEFAULT_WORKLOAD_CERT_TTL counts only where a request names no lifetime. ztunnel
                         always names one, SECRET_TTL or 24 h (istio/ztunnel src/config.rs), so
                         nothing changes.
    secret-ttl-720h      ztunnel's own SECRET_TTL: certificates live longer, and so does the patience for drift. istiod
                         refuses every request for more than its MAX_WORKLOAD_CERT_TTL (90 days
                         unless set): who asks for more has no certificate at all.
    chrony-makestep      steps the wall clock whenever it is off, not only after start. It puts a paused VM's clock
                         right soon after the wake. The step is the jump: ztunnel's monotonic clock
                         does not get it.

In a suspend the kernel puts the wall clock right by itself, and in a drift or a step as scenarios
mean it the wall clock is the right one: there chrony finds nothing to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from meshwake.core.durations import NS_PER_S, parse_go_duration_ns
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.core.yaml_text import read_documents, read_objects
from meshwake.fixes.deploy import manifest_of
from meshwake.fixes.shell import names
from meshwake.ztunnel.names import PROXY_CONTAINER

# istio security/pkg/cmd/constants.go: the most that istiod gives unless it is configured otherwise.
MAX_LIFETIME_NS = 90 * 86_400 * NS_PER_S
# chrony's: 2^6 s between two looks at a server, 2^4 s between two at a reference clock.
DEFAULT_MINPOLL, DEFAULT_REFCLOCK_POLL = 6, 4


def with_istiod_default(plan: Plan) -> Plan:
    """What ztunnel gets when istiod has another default: what it requested, as long as it requests
    anything."""
    # Read also where it has no effect: a manifest that is wrong is refused all the same.
    default_ns = _istiods_default_ns(manifest_of(plan))
    if plan.lifetime_s > 0:
        return plan
    return plan.model_copy(update={"lifetime_s": default_ns // NS_PER_S})


def with_secret_ttl(plan: Plan) -> Plan:
    """ztunnel asks for what SECRET_TTL says. Gateways have another of their own, which stays as it
    is."""
    return plan.model_copy(update={"lifetime_s": _secret_ttl_ns(manifest_of(plan)) // NS_PER_S})


def with_makestep(plan: Plan) -> Plan:
    """The wall clock of a paused node is right after chrony's next look, if chrony steps it and
    nothing does before."""
    chrony = read_chrony(manifest_of(plan))
    return plan.model_copy(
        update={"faults": tuple(_corrected(fault, chrony) for fault in plan.faults)}
    )


def _corrected(fault: PlannedFault, chrony: Chrony) -> PlannedFault:
    if fault.kind != "pause" or not chrony.steps(fault.lasts_ns, fault.at_world_ns):
        return fault
    # A clock that nothing else corrects is corrected by chrony, however late.
    within_ns = chrony.looks_within_ns
    if fault.corrected:
        within_ns = min(within_ns, fault.corrected_after_ns)
    return fault.model_copy(update={"corrected": True, "corrected_after_ns": within_ns})


# --- Lifetimes ------------------------------------------------------------------------------------


class _Setting(NamedTuple):
    """A value, and where it is set."""

    place: tuple[str, ...]
    value: Any


OTHER_CONTAINER = "another container than ztunnel's"
_OF_VARIABLES = "ConfigMap"
# Where the environment of others than ztunnel is written.
_OF_OTHERS = frozenset(
    [
        "pilot",
        "istiod",
        "cni",
        "istio-cni",
        "gateway",
        "gateways",
        "ingressGateways",
        "egressGateways",
        "istio-ingressgateway",
        "istio-egressgateway",
        "sidecarInjectorWebhook",
        "proxy",
        "base",
        "kiali",
        "prometheus",
        "grafana",
        "global",
        _OF_VARIABLES,
        OTHER_CONTAINER,
    ]
)


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def _secret_ttl_ns(manifest: str) -> int:
    """What ztunnel asks for. Raises BadInput when istiod would refuse it."""
    objects = read_objects(manifest, "fix.manifest")
    found = [each for document in objects for each in _settings_of(document, "SECRET_TTL")]
    own = [each for each in found if not _OF_OTHERS & set(each.place)]
    if found and not own:
        raise BadInput(
            f"fix.manifest: SECRET_TTL is set in {'.'.join(found[0].place)}, which is not "
            "ztunnel's "
            "environment; values of "
            "the chart ztunnel have it in env, for example env: {SECRET_TTL: 720h}"
        )
    lifetime_ns = _one(own, "SECRET_TTL", _rust_duration_ns)
    # A limit in the same file is istiod's, wherever in it.
    limits = [
        each for document in objects for each in _settings_of(document, "MAX_WORKLOAD_CERT_TTL")
    ]
    limit_ns = (
        _one(limits, "MAX_WORKLOAD_CERT_TTL", parse_go_duration_ns) if limits else MAX_LIFETIME_NS
    )
    if lifetime_ns > limit_ns:
        raise BadInput(
            f"fix.manifest: SECRET_TTL: {own[0].value} is more than istiod gives "
            "(MAX_WORKLOAD_CERT_TTL, "
            f"{'2160h unless set' if not limits else limits[0].value}): it refuses every "
            "request, and ztunnel has no "
            "certificate at all. Ask for less, or set MAX_WORKLOAD_CERT_TTL for istiod "
            "too, in the same file"
        )
    return lifetime_ns


@lru_cache(maxsize=16)
def _istiods_default_ns(manifest: str) -> int:
    documents = read_objects(manifest, "fix.manifest")
    found = [
        each
        for document in documents
        for each in _settings_of(document, "DEFAULT_WORKLOAD_CERT_TTL")
    ]
    return _one(found, "DEFAULT_WORKLOAD_CERT_TTL", parse_go_duration_ns)


def _one(found: list[_Setting], variable: str, read: Callable[[str], int]) -> int:
    """The value that all places agree on. Raises BadInput."""
    if not found:
        raise BadInput(
            f"fix.manifest: sets {variable} nowhere; expected it once, for example {variable}: 720h"
        )
    values = {_length_ns(each.value, variable, read): each for each in found}
    if len(values) > 1:
        shown = " and ".join(f"{each.value} in {'.'.join(each.place)}" for each in values.values())
        raise BadInput(
            f"fix.manifest: {variable} has several values: {shown}; which one counts is not known"
        )
    (only,) = values
    return only


def _length_ns(value: object, variable: str, read: Callable[[str], int]) -> int:
    """The duration that a setting is. Raises BadInput."""
    where = f"fix.manifest: {variable}"
    # An int is read below by its text, as a chart passes it on: 720 is 720 s to ztunnel.
    if isinstance(value, (dict, list, bool, float)) or value is None:
        raise BadInput(f"{where}: read {str(value)[:60]!r}, expected a duration such as 720h")
    if "{{" in str(value):
        raise BadInput(
            f"{where}: {value!r} is a template of helm; render it first: helm template CHART > FILE"
        )
    try:
        length_ns = read(str(value).strip())
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from error
    if not NS_PER_S <= length_ns < _LONGEST_NS:
        raise BadInput(f"{where}: read {value!r}, expected at least a second")
    return length_ns


# Longer ones do not fit into a Duration of Go.
_LONGEST_NS = 1 << 62

_RUST_UNITS_NS = {
    spelling: length_ns
    for spellings, length_ns in (
        ("y year years", 365 * 86_400 * NS_PER_S),
        ("mon month months", 30 * 86_400 * NS_PER_S),
        ("w week weeks", 7 * 86_400 * NS_PER_S),
        ("d day days", 86_400 * NS_PER_S),
        ("h hr hour hours", 3_600 * NS_PER_S),
        ("m min minute minutes", 60 * NS_PER_S),
        ("s sec second seconds", NS_PER_S),
        ("ms msec millisecond milliseconds", 1_000_000),
        ("us usec usecond microsecond microseconds µs µsec µsecond", 1_000),
        ("ns nsec nanosecond nanoseconds", 1),
    )
    for spelling in spellings.split(" ")
}
_RUST_PART = re.compile(r"\s*([+*]?)\s*([0-9]{1,20})\s*([^\W\d_]*)\s*")


def _rust_duration_ns(text: str) -> int:
    """As ztunnel reads it (duration-str): whole numbers with a unit, joined by nothing, `+` or `*`;
    the last, or one before an operator, needs no unit and is seconds then. Raises ValueError."""
    parts = _rust_parts(text)
    operators = {operator for operator, _ in parts[1:]}
    # Sums and products cannot be mixed.
    if not parts or len(operators) > 1:
        raise ValueError(
            f"read {text[:60]!r}, with which ztunnel does not start; expected a duration such "
            "as 720h or 30d"
        )
    return _joined_ns(parts)


def _rust_parts(text: str) -> list[tuple[str, int]]:
    """The operator and length of each part; nothing when a part is not understood."""
    parts: list[tuple[str, int]] = []
    position = 0
    while position < len(text):
        match = _RUST_PART.match(text, position)
        if match is None:
            return []
        position = match.end()
        operator, number, unit = match.groups()
        # An operator in front has nothing to add to, or to multiply.
        if operator and not parts:
            return []
        # A number without a unit is seconds, but in the middle it is an error: 1 30m.
        may_lack_unit = position == len(text) or text[position] in "+*"
        length_ns = _RUST_UNITS_NS.get(unit.lower())
        if not unit and may_lack_unit:
            length_ns = NS_PER_S
        if length_ns is None:
            return []
        parts.append((operator or "+", int(number) * length_ns))
    return parts


def _joined_ns(parts: list[tuple[str, int]]) -> int:
    total_ns = parts[0][1]
    for operator, length_ns in parts[1:]:
        if operator == "+":
            total_ns += length_ns
        else:
            # Of two lengths as numbers of seconds: 2m*60 is 7,200 s.
            total_ns = total_ns * length_ns // NS_PER_S
    return total_ns


# Texts of YAML in texts of YAML.
_DEEPEST = 20
_OTHER_CHARTS = frozenset({"istiod", "cni", "base", "gateway", "istio-discovery", "istio-control"})


def _settings_of(document: Any, variable: str) -> Iterator[_Setting]:
    """Where a document sets a variable: in values of a chart, in a container's environment, in
    values within text."""
    owner = _whose(document)
    for place, value in _found(document, variable, ()):
        # A ConfigMap of variables is of use only to who asks for it; values of a chart in it are
        # what they are.
        counts = owner == _OF_VARIABLES and place[:-1] not in (("data",), ("stringData",))
        yield _Setting(place if counts or not owner else (owner, *place), value)


def _whose(document: Any) -> str:
    """Whose settings an object holds: "istiod" for all that is not ztunnel's; "" where the object
    does not show whose."""
    kind = document.get("kind") if isinstance(document, dict) else None
    match kind:
        case "Deployment" | "StatefulSet":
            return "istiod"
        case "DaemonSet":
            is_ztunnel = "ztunnel" in _name_of(document)
            return "" if is_ztunnel else "istiod"
        case "HelmRelease" | "Application" | "HelmChart":
            # Of Flux, Argo CD and k3s: each installs a chart, and has its values.
            installs_another = bool(_charts_in(document) & _OTHER_CHARTS)
            return "istiod" if installs_another else ""
        case "ConfigMap" | "Secret":
            return _OF_VARIABLES
    return ""


def _name_of(document: Mapping[str, object]) -> str:
    metadata = document.get("metadata")
    return str(metadata.get("name", "")) if isinstance(metadata, dict) else ""


def _charts_in(value: Any) -> set[str]:
    """The charts that an object of Flux or Argo CD installs."""
    found: set[str] = set()
    if isinstance(value, dict):
        own = value.get("chart")
        if isinstance(own, str):
            found.add(own.rsplit("/", 1)[-1])
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        found |= _charts_in(each)
    return found


def _found(
    value: object, variable: str, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every place below `value` that sets the variable, with what it is set to."""
    if isinstance(value, dict):
        yield from _found_in_mapping(value, variable, place)
    elif isinstance(value, list):
        for each in value:
            yield from _found(each, variable, _place_of_item(each, place))
    elif isinstance(value, str):
        yield from _found_in_text(value, variable, place)


def _found_in_text(
    text: str, variable: str, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Flux and Argo CD take the values of a chart as a text of YAML, which may hold another."""
    if _may_be_values(text, variable) and len(place) < _DEEPEST:
        for document in read_documents(text, f"fix.manifest: {'.'.join(place)}"):
            yield from _found(document, variable, place)


def _place_of_item(item: object, place: tuple[str, ...]) -> tuple[str, ...]:
    """Items of a list have the place of the list; other containers than ztunnel's say so."""
    runs_before = place[-1:] == ("initContainers",)
    if runs_before or (place[-1:] == ("containers",) and _is_another_container(item)):
        return (*place, OTHER_CONTAINER)
    return place


def _found_in_mapping(
    value: Mapping[object, object], variable: str, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    path = str(value.get("name")).split(".")
    if path[-1] == variable and ("value" in value or "valueFrom" in value):
        # An entry of a container's env; or a parameter of Argo CD, whose name is a whole path.
        yield (*place, *path), value.get("value", value.get("valueFrom"))
        return
    for key, each in value.items():
        if key == variable:
            yield (*place, variable), each
        else:
            yield from _found(each, variable, (*place, str(key)))


def _may_be_values(text: str, variable: str) -> bool:
    """Whether a text may be YAML that sets the variable, as `values: |` has it."""
    return variable in text and "\n" in text


def _is_another_container(container: object) -> bool:
    if not isinstance(container, dict):
        return False
    return container.get("name") not in (PROXY_CONTAINER, None, "discovery")


# --- chrony ---------------------------------------------------------------------------------------


class Chrony(NamedTuple):
    """What of its configuration decides whether it steps a clock. `limit` None: at any time; else
    only in so many updates after its start. `leaves_alone_above_ns`: an offset of more it never
    corrects, once it had `checks_after` updates, whether it gives up then or ignores it
    (maxchange)."""

    threshold_ns: int
    limit: int | None
    looks_within_ns: int
    leaves_alone_above_ns: int | None
    checks_after: int = 0

    def steps(self, offset_ns: int, at_world_ns: int) -> bool:
        """Whether it steps a clock that is off by so much, at that time after its start."""
        # So many updates it can have had since it started.
        updates = at_world_ns // self.looks_within_ns
        # chrony.conf(5), makestep: "if the adjustment is larger than a threshold value".
        if abs(offset_ns) <= self.threshold_ns:
            return False
        most_ns = self.leaves_alone_above_ns
        if most_ns is not None and abs(offset_ns) > most_ns and updates >= self.checks_after:
            return False
        return self.limit is None or self.limit > updates


_ARGUMENTS = {"makestep": 2, "maxchange": 3}
_SOURCES = ("server", "pool", "peer")
# All that chronyd 4 knows (conf.c): at any other word it does not start.
_DIRECTIVES = names(
    "acquisitionport allow authselectmode bindacqaddress bindacqdevice bindaddress "
    "bindcmdaddress bindcmddevice "
    "binddevice broadcast clientloglimit clockprecision cmdallow cmddeny cmdport "
    "cmdratelimit combinelimit commandkey "
    "confdir corrtimeratio deny driftfile dscp dumpdir dumponexit fallbackdrift "
    "generatecommandkey hwclockfile "
    "hwtimestamp hwtstimeout include initstepslew keyfile leapsecmode leapseclist "
    "leapsectz linux_freq_scale linux_hz "
    "local lock_all log logbanner logchange logdir mailonchange makestep manual maxchange "
    "maxclockerror maxdistance "
    "maxdrift maxjitter maxntsconnections maxsamples maxslewrate maxstratum maxtxbuffers "
    "maxupdateskew minsamples "
    "minsources minstratum nocerttimecheck noclientlog nosystemcert ntpsigndsocket "
    "ntsaeads ntscachedir ntsdumpdir "
    "ntsntpserver ntsport ntsprocesses ntsratelimit ntsrefresh ntsrotate ntsservercert "
    "ntsserverkey ntstrustedcerts "
    "opencommands peer pidfile pool port ptpdomain ptpport ratelimit refclock refresh "
    "reselectdist rtcautotrim "
    "rtcdevice rtcfile rtconutc rtcsync sched_priority server smoothtime sourcedir "
    "stratumweight tempcomp user"
)


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def read_chrony(conf: str) -> Chrony:
    """Reads a chrony.conf as chronyd does: of several directives the last counts. Raises BadInput
    where chronyd would not start, and when nothing in it says how a clock is stepped."""
    found: dict[str, list[float]] = {}
    polls = []
    for number, line in enumerate(conf.splitlines(), 1):
        words = line.split()
        # chrony.conf(5): comments begin with one of these four.
        if not words or words[0][0] in "!;#%":
            continue
        name = words[0].lower()
        if name in _ARGUMENTS:
            found[name] = _numbers(words, number)
        elif name in _SOURCES:
            polls.append(_after(words, "minpoll", DEFAULT_MINPOLL))
        elif name == "refclock":
            polls.append(_after(words, "poll", DEFAULT_REFCLOCK_POLL))
        elif name not in _DIRECTIVES:
            raise BadInput(
                f"fix.manifest: chrony: line {number}: read {line.strip()[:60]!r}, which is "
                "no directive of chrony: "
                "chronyd does not start with it, and makestep steps nothing"
            )
    if "makestep" not in found:
        raise BadInput(
            "fix.manifest: chrony: no makestep in it; only 'makestep SECONDS -1' steps a "
            "clock long "
            "after start, without it "
            "chrony slews for hours"
        )
    threshold_s, limit = found["makestep"]
    # chrony.conf(5): a negative limit of makestep means that it steps at any time.
    most = found.get("maxchange")
    return Chrony(
        threshold_ns=int(threshold_s * NS_PER_S),
        limit=None if limit < 0 else int(limit),
        looks_within_ns=int(NS_PER_S * 2.0 ** min(polls, default=DEFAULT_MINPOLL)),
        leaves_alone_above_ns=int(most[0] * NS_PER_S) if most and most[1] >= 0 else None,
        checks_after=int(most[1]) if most else 0,
    )


def _numbers(words: list[str], number: int) -> list[float]:
    name, arguments = words[0], words[1:]
    try:
        numbers = [float(each) for each in arguments]
    except ValueError:
        numbers = []
    if len(numbers) != _ARGUMENTS[name.lower()] or any(not abs(each) < 1e12 for each in numbers):
        needed = {"makestep": "makestep SECONDS LIMIT, for example makestep 1 -1"}.get(
            name.lower(), f"{name} OFFSET START IGNORE"
        )
        raise BadInput(
            f"fix.manifest: chrony: line {number}: read {' '.join(words)!r}, with which "
            "chronyd does "
            "not start; expected "
            f"{needed}, and a comment on a line of its own"
        )
    return numbers


def _after(words: list[str], option: str, default: int) -> int:
    at = words.index(option) + 1 if option in words else len(words)
    if at >= len(words) or not re.fullmatch(r"-?[0-9]{1,2}", words[at]):
        return default
    # chrony.conf(5): from -7, 1/128 s, to 24, half a year.
    return max(-7, min(int(words[at]), 24))
