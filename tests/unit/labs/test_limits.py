from __future__ import annotations

from meshwake.labs.limits import CSR_FLOOD_MAX, FloodGuard


def first_flood(guard: FloodGuard, every_ns: int, most: int = 10_000) -> int | None:
    """How many requests, one every so often, it takes until the guard speaks."""
    return next((count for count in range(1, most) if guard.is_flooded_by(count * every_ns)), None)


def test_one_request_too_many_at_one_moment_is_a_flood() -> None:
    """World time need not move."""
    assert first_flood(FloodGuard(2), every_ns=0) == CSR_FLOOD_MAX + 1


def test_requests_that_creep_forward_are_a_flood_all_the_same() -> None:
    """426 in five seconds were measured; here a thousand a second."""
    assert first_flood(FloodGuard(2), every_ns=1_000_000) == CSR_FLOOD_MAX + 1


def test_as_many_requests_in_more_than_a_second_are_none() -> None:
    """Two hundred a second, for ever."""
    assert first_flood(FloodGuard(2), every_ns=5_000_000) is None


def test_a_large_mesh_may_start_all_its_identities_twice_at_once() -> None:
    """300 identities ask at the start, and again when their ztunnels restart right then."""
    guard = FloodGuard(300)
    assert not any(guard.is_flooded_by(0) for _ in range(600))
