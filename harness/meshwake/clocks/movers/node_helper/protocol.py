"""What a request may say, and how an answer looks. Every value is checked here, once.

One request is one line of JSON and gets one line back: {"version": 3, "ok": true, "result": {...}}
or {"version": 3, "ok": false, "error": {"kind": "LabUnavailable", "message": "..."}}.

    hello                                   what this system allows
    take     rules, launchers, lease_s,     from now on every program that fits a rule is under this
             ends                           node's clock page, and the node belongs to the `owner`
                                            of the request
    renew    -                              the owner is still there
    set      wall_ns, monotonic_ns,         what is added to the kernel's clocks, absolute, all at
             boottime_ns, kick              once; `kick`: then every program is made to read its
                                            clocks
    still    within_s                       waits until every program waits for something to happen
    read     pid, executable (or all)       the clocks of each program, measured inside it, and the
                                            kernel's around them
    sleep    lasts_ns, at_wake (or null)    stops the programs; then sets `at_wake` and lets them
                                            run on
    wake     wall_ns, monotonic_ns,         ends a sleep before `lasts_ns` are over, with these
             boottime_ns                    offsets
    list     -                              programs, offsets, watch, refusals, owner, what was
                                            given up
    release  rules                          the kernel's clocks for all, rules forgotten; programs
                                            that fit `rules` are detached too, whichever helper
                                            attached them: one whose state is lost

Every request may name its `owner`. take, renew, set, still, sleep, wake and release of a node that
has an owner must name that one; hello, list and read are answered to everyone. Only what the owner
requests keeps the lease: a kubelet that probes whether we are ready says nothing about the owner.

A rule is an object of the fields of rules.Rule, for example
{"executable": "/usr/local/bin/ztunnel", "cgroup": null, "keeps_monotonic": false}. Launchers are
paths on the node; null means those that are usual. The node's files are found at --node-root, the
root of process 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, HarnessError, HarnessFault
from meshwake.core.json_types import JsonObject

# Raised when requests or answers change: the helper's image is built apart from the harness, and
# may be older.
PROTOCOL_VERSION = 3
# Where the binaries of container runtimes usually are on a node.
USUAL_LAUNCHERS = (
    "/usr/local/sbin/runc",
    "/usr/local/bin/runc",
    "/usr/sbin/runc",
    "/usr/bin/runc",
    "/usr/local/bin/crun",
    "/usr/sbin/crun",
    "/usr/bin/crun",
    "/var/lib/rancher/k3s/data/current/bin/runc",
)
# Typing mistakes end here: a node must not be stopped, or kept from its clocks, for a year.
LEASE_MAX_S = 7 * 24 * 3600.0
SLEEP_MAX_S = 24 * 3600.0
REQUEST_BYTES_MAX = 65536
_OWNER_LENGTH_MAX = 300
_PORT_MAX = 65535
# Three offsets and the kernel's own time must fit into 64 bits with their sign: 2**61 ns are 73
# years.
_OFFSET_NS_END = 2**61


def answer_line(line: bytes, answer: Callable[[JsonObject], JsonObject]) -> bytes:
    """The line that is sent back for a request; `answer` gets the request and may raise."""
    return json.dumps(_answer(line, answer)).encode() + b"\n"


def _answer(line: bytes, answer: Callable[[JsonObject], JsonObject]) -> JsonObject:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise BadInput("a request is a JSON object on one line")
        return {"version": PROTOCOL_VERSION, "ok": True, "result": answer(request)}
    except ValueError as invalid:
        error: HarnessError = BadInput(f"a request is a JSON object on one line: {invalid}")
    except HarnessError as expected:
        error = expected
    except Exception as unexpected:  # noqa: BLE001  # the helper must live, and the client must learn of it
        error = HarnessFault(f"{type(unexpected).__name__}: {unexpected}")
    return {
        "version": PROTOCOL_VERSION,
        "ok": False,
        "error": {"kind": type(error).__name__, "message": str(error)},
    }


# --- Values of a request; each of these raises BadInput -------------------------------------------


def read_rules(value: Any) -> tuple[Rule, ...]:
    """A list of at least one rule."""
    if not isinstance(value, list) or not value:
        raise BadInput(f"rules {value!r}: a list of at least one is expected")
    rules = [_read_rule(entry) for entry in value]
    return tuple(rules)


def _read_rule(entry: Any) -> Rule:
    if not isinstance(entry, dict) or not set(entry) <= set(Rule._fields):
        raise BadInput(f"rule {entry!r}: expected are {', '.join(Rule._fields)}")
    executable, cgroup = entry.get("executable"), entry.get("cgroup")
    if not isinstance(executable, str) or not executable or not isinstance(cgroup, str | None):
        raise BadInput(
            f"rule {entry!r}: executable is a path or a name, cgroup a part of a path or null"
        )
    return Rule(
        executable,
        cgroup,
        keeps_monotonic=_read_switch(entry, "keeps_monotonic"),
        idles_in_epoll=_read_switch(entry, "idles_in_epoll"),
        streams_to_port=int(
            read_number(entry.get("streams_to_port", 0), "streams_to_port", 0, _PORT_MAX)
        ),
    )


def _read_switch(entry: JsonObject, name: str) -> bool:
    value = entry.get(name, False)
    if not isinstance(value, bool):
        raise BadInput(f"rule {entry!r}: {name} is true or false")
    return value


def read_launchers(value: Any) -> tuple[str, ...]:
    """Paths on the node; None means those that are usual."""
    if value is None:
        return USUAL_LAUNCHERS

    is_of_texts = isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if not is_of_texts:
        raise BadInput(f"launchers {value!r}: a list of paths is expected")
    return tuple(value)


def read_owner(value: Any) -> str:
    """Any text that names it."""
    if not isinstance(value, str) or not 0 < len(value) <= _OWNER_LENGTH_MAX:
        raise BadInput(
            f"owner {value!r}: a text of 1 to {_OWNER_LENGTH_MAX} characters is expected"
        )
    return value


def read_number(value: Any, name: str, least: float, most: float) -> float:
    """A number within bounds; true and false are not numbers here."""
    wrong = BadInput(f"{name} {value!r}: a number from {least:g} to {most:g} is expected")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    if not least <= value <= most:
        raise wrong
    number: float = value
    return number


def read_offsets(request: Any) -> ClockReading:
    """Offsets of the three clocks, whole nanoseconds."""
    names = ClockReading._fields
    wrong = BadInput(f"offsets {request!r}: whole numbers {', '.join(names)} are expected")
    if not isinstance(request, dict):
        raise wrong

    offsets = []
    for name in names:
        offset_ns = request.get(name)
        # A page has 64 bits with a sign for each.
        if not isinstance(offset_ns, int) or abs(offset_ns) >= _OFFSET_NS_END:
            raise wrong
        offsets.append(offset_ns)
    return ClockReading(*offsets)
