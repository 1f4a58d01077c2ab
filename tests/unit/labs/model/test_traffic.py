from __future__ import annotations

import pytest
from meshwake.core.clock_reading import ClockReading
from meshwake.labs.model.authority import SignedCertificate
from meshwake.labs.model.traffic import connection_error
from meshwake.labs.model.ztunnel import INITIALIZING, IdentityState

VALID = IdentityState("Available", SignedCertificate("1", 1_000, 2_000))
LONG = IdentityState("Available", SignedCertificate("2", 0, 1_000_000))


def at(wall_s: float) -> ClockReading:
    return ClockReading(int(wall_s * 1_000_000_000), 0, 0)


def test_certificates_of_two_roots_do_not_know_each_other() -> None:
    """Valid both, and strangers; two of the new root are not."""
    other = IdentityState("Available", SignedCertificate("3", 1_000, 2_000, root=1))
    assert "does not know" in str(connection_error(VALID, at(1_500), other, at(1_500)))
    assert connection_error(other, at(1_500), other, at(1_500)) is None


@pytest.mark.parametrize("wall_s", [1_000, 1_500, 2_000, 2_000.999_999_999])
def test_a_certificate_is_valid_from_its_first_to_its_last_second(wall_s: float) -> None:
    """Both ends included, and the last second lasts as long as any other."""
    assert connection_error(VALID, at(wall_s), VALID, at(wall_s)) is None


def test_the_client_judges_the_server_by_its_own_clock() -> None:
    """A server whose clock shows noon presents what the client, in the evening, finds expired."""
    assert (
        connection_error(LONG, at(3_020), VALID, at(1_500))
        == "server certificate expired 1020 s ago"
    )


def test_the_server_judges_the_client_by_its_own_clock() -> None:
    """The other way round."""
    assert (
        connection_error(VALID, at(1_500), LONG, at(2_001)) == "client certificate expired 1 s ago"
    )


def test_a_certificate_of_the_future_is_refused_too() -> None:
    """The issuer's clock is ahead of the verifier's by more than the backdate."""
    error = connection_error(LONG, at(999.9), VALID, at(1_500))
    assert error == "server certificate is not valid for another 1 s"


def test_the_server_is_looked_at_first() -> None:
    """In TLS 1.3 the client has the server's certificate before it sends its own."""
    assert (
        connection_error(VALID, at(2_060), VALID, at(2_060))
        == "server certificate expired 60 s ago"
    )


def test_who_has_no_certificate_says_why() -> None:
    """What ztunnel's admin interface shows, so that a person can look there."""
    dropped = IdentityState("Unavailable: signing gRPC error")
    assert (
        connection_error(INITIALIZING, at(1), VALID, at(1))
        == "client has no certificate: Initializing"
    )
    error = connection_error(LONG, at(1), dropped, at(1))
    assert error == "server has no certificate: Unavailable: signing gRPC error"
