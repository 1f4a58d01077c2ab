"""When the authority does not answer, a ztunnel goes on serving the certificate it has for as long
as that is valid.

Up to 1.27 a failed renewal dropped the old certificate with half its life left, and the workload
was cut off at once (istio/ztunnel#1567 fixes it in 1.28).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from meshwake.checks.facts.certificates import CertificateInUse, certificates
from meshwake.checks.facts.clocks import timeline
from meshwake.checks.finding import broken, holds, place, unknown
from meshwake.checks.format import count, lasting, moment, moment_exactly
from meshwake.core.durations import NS_PER_S, seconds
from meshwake.core.events import CertificateState, CsrAnswered
from meshwake.core.history import History
from meshwake.core.outcome import Evidence, Finding
from meshwake.core.plan import Plan

NAME = "valid_certificate_kept"
TITLE = "A certificate that is still valid is kept"
REFUSALS = ("refused", "unauthenticated")
# A drop at the very instant of expiry is in order; whole seconds are all that a certificate has.
TOLERATED_NS = NS_PER_S


class _Refused(NamedTuple):
    """A refused renewal, and the valid certificate that was held at that moment."""

    event: CsrAnswered
    held: CertificateInUse


def check(plan: Plan, history: History) -> Finding:
    """Unknown when no renewal was refused while a valid certificate was held, or what ztunnel held
    was not recorded."""
    refused = list(_refused_with_valid(history))
    if not refused:
        return unknown(
            NAME,
            "the authority refused no renewal of an identity that still held a valid certificate",
        )
    dropped = [one for one in refused if _was_dropped(history, one.held)]
    if dropped:
        first = dropped[0].held
        because = (
            f"{first.identity} dropped a certificate that was good for another "
            f"{lasting(_left_ns(history, first))} at {moment(first.until_world_ns)}, when its "
            "renewal was refused"
        )
        if len(dropped) > 1:
            because += f"; {len(dropped)} were dropped"
        return broken(NAME, because, [_place(history, one) for one in dropped])

    # "Not dropped" is known only of a ztunnel whose states were read.
    reported = {event.identity for event in history.of(CertificateState)}
    silent = sorted({one.held.identity for one in refused} - reported)
    if silent:
        return unknown(NAME, f"what the ztunnel of {silent[0]} held was not recorded")
    kept = count(len(refused), "certificate")
    return holds(NAME, f"{kept} kept while valid, though the renewal was refused")


def _refused_with_valid(history: History) -> Iterator[_Refused]:
    """Each certificate that was valid when a request of its holder was refused, with the first such
    refusal."""
    known = certificates(history)

    # Of each identity the place of the certificate it holds: events come in order of world time.
    positions: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for event in history.of(CsrAnswered):
        identity = event.identity
        if event.outcome not in REFUSALS or identity not in known:
            continue
        own = known[identity]
        position = _position_at(own, positions.get(identity, 0), event.world_ns)
        positions[identity] = position
        held = own[position]
        # Its ztunnel retries, and is refused again and again; the certificate counts once.
        if (identity, held.serial) not in seen and _is_valid(history, held, event.world_ns):
            seen.add((identity, held.serial))
            yield _Refused(event, held)


def _position_at(own: tuple[CertificateInUse, ...], position: int, world_ns: int) -> int:
    """The last certificate of `own`, from `position` on, that had been issued at `world_ns`."""
    while position + 1 < len(own) and own[position + 1].issued_world_ns <= world_ns:
        position += 1
    return position


def _is_valid(history: History, held: CertificateInUse, world_ns: int) -> bool:
    """Whether `held` was held and valid at `world_ns`, by the clock of its node."""
    if not held.issued_world_ns <= world_ns <= held.until_world_ns:
        return False
    wall_ns = timeline(history, held.life.node).wall_ns(world_ns)
    return wall_ns <= held.not_after_wall_s * NS_PER_S - TOLERATED_NS


def _was_dropped(history: History, held: CertificateInUse) -> bool:
    return held.until == "dropped" and _left_ns(history, held) > 0


def _left_ns(history: History, held: CertificateInUse) -> int:
    """How much longer `held` would have been valid when it was no longer held; 0 for less than what
    is tolerated."""
    wall_ns = timeline(history, held.life.node).wall_ns(held.until_world_ns)
    left_ns = held.not_after_wall_s * NS_PER_S - wall_ns
    return left_ns if left_ns >= TOLERATED_NS else 0


def _place(history: History, refused: _Refused) -> Evidence:
    event, held = refused
    left_ns = _left_ns(history, held)
    text = (
        f"{held.identity}: renewal {event.outcome} at {moment_exactly(event.world_ns)}, "
        f"certificate dropped at {moment_exactly(held.until_world_ns)}, {lasting(left_ns)} before "
        "its notAfter"
    )
    return place(
        held.until_world_ns,
        text,
        identity=held.identity,
        serial=held.serial,
        left_s=seconds(left_ns),
    )
