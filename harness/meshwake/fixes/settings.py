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
from meshwake.core.json_types import text_at, value_at
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.core.yaml_text import children_of, read_documents, read_objects
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
    # After a suspend the kernel itself puts the wall clock right, and the clock that a step or a
    # drift leads to is the right one: chrony has something to do after a pause only.
    if fault.kind != "pause":
        return fault

    # In the wake the wall clock is behind by all of the pause.
    if not chrony.steps(fault.lasts_ns, fault.at_world_ns):
        return fault

    # A clock that nothing else corrects is corrected by chrony, however late.
    within_ns = chrony.looks_within_ns
    if fault.corrected:
        within_ns = min(within_ns, fault.corrected_after_ns)
    return fault.model_copy(
        update={
            "corrected": True,
            "corrected_after_ns": within_ns,
        }
    )


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
    own = _ztunnels_own(_settings_in(manifest, "SECRET_TTL"))
    lifetime_ns = _one(own, "SECRET_TTL", _rust_duration_ns)

    # A limit in the same file is istiod's, wherever in it: ztunnel knows no such variable.
    limits = _settings_in(manifest, "MAX_WORKLOAD_CERT_TTL")
    limit_ns, limit = MAX_LIFETIME_NS, "2160h unless set"
    if limits:
        limit_ns = _one(limits, "MAX_WORKLOAD_CERT_TTL", parse_go_duration_ns)
        limit = limits[0].value

    # istiod does not shorten what is too long, it refuses it (istio security/pkg/pki/ca/ca.go:
    # "requested TTL ... is greater than the max allowed TTL").
    if lifetime_ns > limit_ns:
        raise BadInput(
            f"fix.manifest: SECRET_TTL: {own[0].value} is more than istiod gives "
            f"(MAX_WORKLOAD_CERT_TTL, {limit}): it refuses every request, and ztunnel has no "
            "certificate at all. Ask for less, or set MAX_WORKLOAD_CERT_TTL for istiod too, in "
            "the same file"
        )
    return lifetime_ns


def _ztunnels_own(found: list[_Setting]) -> list[_Setting]:
    """Those of `found` that are in ztunnel's environment. Raises BadInput when there are only
    others, which change nothing of what ztunnel asks for."""
    own = []
    for setting in found:
        is_of_others = not _OF_OTHERS.isdisjoint(setting.place)
        if not is_of_others:
            own.append(setting)
    if found and not own:
        raise BadInput(
            f"fix.manifest: SECRET_TTL is set in {'.'.join(found[0].place)}, which is not "
            "ztunnel's environment; values of the chart ztunnel have it in env, for example "
            "env: {SECRET_TTL: 720h}"
        )
    return own


@lru_cache(maxsize=16)
def _istiods_default_ns(manifest: str) -> int:
    found = _settings_in(manifest, "DEFAULT_WORKLOAD_CERT_TTL")
    return _one(found, "DEFAULT_WORKLOAD_CERT_TTL", parse_go_duration_ns)


def _settings_in(manifest: str, variable: str) -> list[_Setting]:
    """Every place of a manifest that sets the variable, in order."""
    found: list[_Setting] = []
    for document in read_objects(manifest, "fix.manifest"):
        found += _settings_of(document, variable)
    return found


def _one(found: list[_Setting], variable: str, read: Callable[[str], int]) -> int:
    """The value that all places agree on. Raises BadInput."""
    if not found:
        raise BadInput(
            f"fix.manifest: sets {variable} nowhere; expected it once, for example {variable}: 720h"
        )

    # By length: "48h" in one place and "2d" in another are the same setting.
    by_length_ns = {_length_ns(setting.value, variable, read): setting for setting in found}
    if len(by_length_ns) > 1:
        shown = " and ".join(
            f"{setting.value} in {'.'.join(setting.place)}" for setting in by_length_ns.values()
        )
        raise BadInput(
            f"fix.manifest: {variable} has several values: {shown}; which one counts is not known"
        )
    (only_ns,) = by_length_ns
    return only_ns


def _length_ns(value: object, variable: str, read: Callable[[str], int]) -> int:
    """The duration that a setting is. Raises BadInput."""
    where = f"fix.manifest: {variable}"
    # An int is read below by its text, as a chart passes it on: 720 is 720 s to ztunnel. A bool
    # is an int to Python only.
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise BadInput(f"{where}: read {str(value)[:60]!r}, expected a duration such as 720h")
    text = str(value)
    if "{{" in text:
        raise BadInput(
            f"{where}: {value!r} is a template of helm; render it first: helm template CHART > FILE"
        )

    try:
        length_ns = read(text.strip())
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from error

    # istiod reads zero as "no lifetime requested", and gives its default then.
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
    # Sums and products cannot be mixed.
    operators = {part.operator for part in parts[1:]}
    mixes_operators = len(operators) > 1
    if not parts or mixes_operators:
        raise ValueError(
            f"read {text[:60]!r}, with which ztunnel does not start; expected a duration such as "
            "720h or 30d"
        )
    return _joined_ns(parts)


class _RustPart(NamedTuple):
    """A number with its unit, and the operator in front of it: "+" where there is none."""

    operator: str
    length_ns: int


def _rust_parts(text: str) -> list[_RustPart]:
    """The parts of a duration; none when one of them is not understood."""
    parts: list[_RustPart] = []
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
        following = text[position : position + 1]
        if not unit and following in ("", "+", "*"):
            unit = "s"
        unit_ns = _RUST_UNITS_NS.get(unit.lower())
        if unit_ns is None:
            return []

        # Parts without an operator between them are added: 1h 30m.
        part = _RustPart(operator or "+", int(number) * unit_ns)
        parts.append(part)
    return parts


def _joined_ns(parts: list[_RustPart]) -> int:
    """The sum, or the product, of all parts."""
    total_ns = parts[0].length_ns
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
        names_owner = bool(owner)
        # A variable of a ConfigMap sets nothing until a container names the ConfigMap. But a text
        # in it may be the values of a chart, as Flux takes them (`valuesFrom`), and then it is
        # as good as any other values.
        if owner == _OF_VARIABLES:
            names_owner = place[:-1] in (("data",), ("stringData",))
        owners = (owner,) if names_owner else ()
        yield _Setting((*owners, *place), value)


def _whose(document: Any) -> str:
    """Whose settings an object holds: "istiod" for all that is not ztunnel's; "" where the object
    does not show whose."""
    kind = value_at(document, "kind")
    if kind in ("ConfigMap", "Secret"):
        return _OF_VARIABLES

    is_of_others = False
    if kind in ("Deployment", "StatefulSet"):
        is_of_others = True
    elif kind == "DaemonSet":
        # ztunnel is one, and of istio's other workloads the CNI plugin.
        is_of_others = "ztunnel" not in text_at(document, "metadata", "name")
    elif kind in ("HelmRelease", "Application", "HelmChart"):
        # Of Flux, Argo CD and k3s: each installs a chart, and has its values.
        is_of_others = _installs_another(document)
    return "istiod" if is_of_others else ""


def _installs_another(value: object) -> bool:
    """Whether an object of Flux, Argo CD or k3s installs another chart of istio than ztunnel's."""
    # Where it is differs (spec.chart.spec.chart for Flux, spec.source or each of spec.sources for
    # Argo CD), and so does how: by its name, or by a path with the name at its end.
    chart = text_at(value, "chart").rsplit("/", 1)[-1]
    if chart in _OTHER_CHARTS:
        return True
    return any(_installs_another(each) for each in children_of(value))


def _found(
    value: object, variable: str, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every place below `value` that sets the variable, with what it is set to."""
    if isinstance(value, dict):
        yield from _found_in_mapping(value, variable, place)
    elif isinstance(value, list):
        for item in value:
            place_of_item = _place_of_item(item, place)
            yield from _found(item, variable, place_of_item)
    elif isinstance(value, str):
        yield from _found_in_text(value, variable, place)


def _found_in_text(
    text: str, variable: str, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Flux and Argo CD take the values of a chart as a text of YAML, which may hold another."""
    # Values of several keys have lines (`values: |`). One line that has the variable's name in it
    # is a command, or a sentence.
    may_be_values = variable in text and "\n" in text
    if not may_be_values or len(place) >= _DEEPEST:
        return

    where = f"fix.manifest: {'.'.join(place)}"
    for document in read_documents(text, where):
        yield from _found(document, variable, place)


def _place_of_item(item: object, place: tuple[str, ...]) -> tuple[str, ...]:
    """Items of a list have the place of the list; other containers than ztunnel's say so."""
    another = (*place, OTHER_CONTAINER)
    in_list = place[-1:]

    # What ztunnel needs to be set up runs before it, with an environment of its own.
    if in_list == ("initContainers",):
        return another
    if in_list != ("containers",):
        return place

    # istiod's own container is called discovery: what is set there is seen by the place of the
    # whole Deployment (_whose).
    name = value_at(item, "name")
    is_of_istio = name in (PROXY_CONTAINER, "discovery")
    return place if name is None or is_of_istio else another


def _found_in_mapping(
    value: Mapping[object, object], variable: str, place: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    # An entry of a container's env; or a parameter of Argo CD, whose name is a whole path
    # (pilot.env.SECRET_TTL).
    path = str(value.get("name")).split(".")
    if path[-1] == variable:
        for key in ("value", "valueFrom"):
            if key in value:
                yield (*place, *path), value[key]
                return

    for name, inner in value.items():
        if name == variable:
            yield (*place, variable), inner
        else:
            yield from _found(inner, variable, (*place, str(name)))


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
        size_ns = abs(offset_ns)

        # So many updates it can have had since it started.
        updates = at_world_ns // self.looks_within_ns

        # chrony.conf(5), makestep: "if the adjustment is larger than a threshold value".
        if size_ns <= self.threshold_ns:
            return False

        # chrony.conf(5), maxchange: the check begins after so many updates, because the first
        # ones may have much to correct.
        most_ns = self.leaves_alone_above_ns
        if most_ns is not None and updates >= self.checks_after and size_ns > most_ns:
            return False

        return self.limit is None or self.limit > updates


_ARGUMENTS = {"makestep": "SECONDS LIMIT", "maxchange": "OFFSET START IGNORE"}
# A check that begins after a negative number of updates never begins.
_MAXCHANGE_UNSET = [0.0, -1.0, 0.0]
# No clock is off by so many seconds, and no configuration means them.
_NUMBER_MOST = 1e12
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

        # chronyd compares directives without regard to case (conf.c, strcasecmp).
        name = words[0].lower()
        if name in _ARGUMENTS:
            found[name] = _numbers(words, number)
        elif name in _SOURCES:
            # The shortest it may be: while a clock is off, chronyd asks more often.
            polls.append(_after(words, "minpoll", DEFAULT_MINPOLL))
        elif name == "refclock":
            polls.append(_after(words, "poll", DEFAULT_REFCLOCK_POLL))
        elif name not in _DIRECTIVES:
            raise BadInput(
                f"fix.manifest: chrony: line {number}: read {line.strip()[:60]!r}, which is "
                "no directive of chrony: chronyd does not start with it, and makestep steps nothing"
            )

    if "makestep" not in found:
        raise BadInput(
            "fix.manifest: chrony: no makestep in it; only 'makestep SECONDS -1' steps a clock "
            "long after start, without it chrony slews for hours"
        )
    threshold_s, limit = found["makestep"]
    leaves_alone_above_s, checks_after, _ = found.get("maxchange", _MAXCHANGE_UNSET)

    # The source that is polled most often is the first to see that the clock is off.
    poll = min(polls, default=DEFAULT_MINPOLL)
    return Chrony(
        threshold_ns=int(threshold_s * NS_PER_S),
        # chrony.conf(5): a negative limit of makestep means that it steps at any time.
        limit=None if limit < 0 else int(limit),
        looks_within_ns=int(NS_PER_S * 2.0**poll),
        # And a negative start of maxchange, that nothing is checked.
        leaves_alone_above_ns=None if checks_after < 0 else int(leaves_alone_above_s * NS_PER_S),
        checks_after=int(checks_after),
    )


def _numbers(words: list[str], number: int) -> list[float]:
    """The arguments of a directive in line `number`. Raises BadInput when they are not numbers, or
    not as many as it takes."""
    written, *arguments = words
    name = written.lower()
    expected = _ARGUMENTS[name]
    try:
        numbers = [float(argument) for argument in arguments]
    except ValueError:
        # Refused below: no directive takes as few.
        numbers = []

    is_complete = len(numbers) == len(expected.split())

    # nan is not less than anything, so it is refused with those that are too large.
    are_in_range = all(abs(value) < _NUMBER_MOST for value in numbers)
    if not is_complete or not are_in_range:
        # As most people mean it: at any time, by a second or more.
        example = ", for example makestep 1 -1" if name == "makestep" else ""
        raise BadInput(
            f"fix.manifest: chrony: line {number}: read {' '.join(words)!r}, with which chronyd "
            f"does not start; expected {written} {expected}{example}, and a comment on a line of "
            "its own"
        )
    return numbers


def _after(words: list[str], option: str, default: int) -> int:
    """The number behind an option of a source, as a power of 2 s."""
    if option not in words:
        return default
    following = words[words.index(option) + 1 :]
    number = following[0] if following else ""
    if not re.fullmatch(r"-?[0-9]{1,2}", number):
        return default

    # chrony.conf(5): from -7, 1/128 s, to 24, half a year.
    return max(-7, min(int(number), 24))
