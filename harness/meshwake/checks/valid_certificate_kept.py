"""When the authority is away, a ztunnel goes on serving the certificate it has for as long as that
is valid.

Up to 1.27 a failed renewal threw the old certificate away with half its life left, and the workload
was cut off at once (istio/ztunnel#1567 mends it in 1.28).
"""

from __future__ import annotations

from collections.abc import Iterator

from meshwake.checks.derive import Certificate, certificates, timeline
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.words import count, lasting, moment, moment_exactly
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.events import Event
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "valid_certificate_kept"
REFUSALS = ("refused", "unauthenticated")
# A drop at the very instant of expiry is no fault; whole seconds are all that a certificate can
# say.
TOLERATED_NS = NS_PER_S


def check(plan: Plan, history: History) -> Finding:
    """Unknown when no renewal was refused while a valid certificate was held, or nobody recorded
    what ztunnel held."""
    refused = list(_refused_with_valid(history))
    if not refused:
        return unknown(
            NAME,
            "the authority refused no renewal of an identity that still held a valid certificate",
        )
    told = {event["identity"] for event in history.of("certificate_state")}
    dropped = [
        (event, held)
        for event, held in refused
        if held.until == "dropped" and _left_ns(history, held) > 0
    ]
    if dropped:
        places = [_place(history, *entry) for entry in dropped]
        first = dropped[0][1]
        because = (
            f"{first.identity} dropped a certificate that was good for another "
            f"{lasting(_left_ns(history, first))} "
            f"at {moment(first.until_world_ns)}, when its renewal was refused"
        )
        return broken(
            NAME, because + (f"; {len(dropped)} were dropped" if len(dropped) > 1 else ""), places
        )
    silent = sorted({held.identity for _, held in refused} - told)
    if silent:
        return unknown(NAME, f"what the ztunnel of {silent[0]} held was not recorded")
    return holds(
        NAME,
        f"{count(len(refused), 'certificate')} kept while valid, though the renewal was refused",
    )


def _refused_with_valid(history: History) -> Iterator[tuple[Event, Certificate]]:
    """Each certificate that was valid when a request of its holder was refused, with the first such
    refusal."""
    known, position, seen = certificates(history), dict[str, int](), set[tuple[str, str]]()
    for event in history.of("csr_answered"):
        identity = event["identity"]
        if event["outcome"] not in REFUSALS or identity not in known:
            continue
        own, at = known[identity], position.get(identity, 0)
        while at + 1 < len(own) and own[at + 1].issued_world_ns <= event.world_ns:
            at += 1
        position[identity] = at
        held = own[at]
        if (
            not held.issued_world_ns <= event.world_ns <= held.until_world_ns
            or (identity, held.serial) in seen
        ):
            continue
        clock = timeline(history, held.life.node)
        if clock.wall_ns(event.world_ns) <= held.not_after_wall_s * NS_PER_S - TOLERATED_NS:
            seen.add((identity, held.serial))
            yield event, held


def _left_ns(history: History, held: Certificate) -> int:
    """How much longer `held` would have been valid when it was held no more, less what is
    tolerated."""
    wall_ns = timeline(history, held.life.node).wall_ns(held.until_world_ns)
    left_ns = held.not_after_wall_s * NS_PER_S - wall_ns
    return left_ns if left_ns >= TOLERATED_NS else 0


def _place(history: History, event: Event, held: Certificate) -> Evidence:
    left_ns = _left_ns(history, held)
    text = (
        f"{held.identity}: renewal {event['outcome']} at {moment_exactly(event.world_ns)}, "
        "certificate dropped "
        f"at {moment_exactly(held.until_world_ns)}, {lasting(left_ns)} before its notAfter"
    )
    return place(
        held.until_world_ns,
        text,
        identity=held.identity,
        serial=held.serial,
        left_s=seconds(left_ns),
    )
