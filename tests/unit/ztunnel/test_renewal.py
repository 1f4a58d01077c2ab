"""The arithmetic of late renewals: against the table of measured outages, and against the model
step by step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.core.durations import NS_PER_S
from meshwake.ztunnel.renewal import (
    RenewalForecast,
    forecast_renewal,
    renewal_due_wall_ns,
    renews_without_end,
)

HOUR_NS = 3600 * NS_PER_S
MINUTE_NS = 60 * NS_PER_S
ISSUED_NS = 1_800_000_000 * NS_PER_S
BACKDATE_NS = 2 * MINUTE_NS


def of(life_ns: int, drift_ns: int, age_ns: int = 0) -> RenewalForecast:
    return forecast_renewal(
        ISSUED_NS - BACKDATE_NS, ISSUED_NS + life_ns, drift_ns, ISSUED_NS + age_ns
    )


def test_an_odd_validity_has_its_middle_at_half_a_second() -> None:
    """Nothing is rounded but the certificate's own dates."""
    assert renewal_due_wall_ns(10 * NS_PER_S, 13 * NS_PER_S) == 11_500_000_000


def test_a_certificate_that_ends_before_it_begins_is_due_at_its_end() -> None:
    """As src/tls/certificate.rs decides."""
    assert renewal_due_wall_ns(13 * NS_PER_S, 10 * NS_PER_S) == 10 * NS_PER_S


@pytest.mark.parametrize(
    ("life_ns", "drift_ns", "period_ns", "outage_ns"),
    [
        (24 * HOUR_NS, 0, 12 * HOUR_NS - MINUTE_NS, 0),
        (24 * HOUR_NS, 8 * HOUR_NS, 20 * HOUR_NS - MINUTE_NS, 0),
        (24 * HOUR_NS, 12 * HOUR_NS, 24 * HOUR_NS - MINUTE_NS, 0),
        (24 * HOUR_NS, 16 * HOUR_NS, 28 * HOUR_NS - MINUTE_NS, 4 * HOUR_NS - MINUTE_NS),
        (24 * HOUR_NS, 48 * HOUR_NS, 60 * HOUR_NS - MINUTE_NS, 36 * HOUR_NS - MINUTE_NS),
        (10 * MINUTE_NS, 17 * MINUTE_NS, 21 * MINUTE_NS, 11 * MINUTE_NS),
    ],
)
def test_table_of_measured_outages(
    life_ns: int, drift_ns: int, period_ns: int, outage_ns: int
) -> None:
    """The rows that real ztunnels were seen to follow; a peer notices a second after notAfter."""
    seen = of(life_ns, drift_ns)
    assert seen.renews_wall_ns == ISSUED_NS + period_ns
    if outage_ns:
        assert seen.outage_from_wall_ns == ISSUED_NS + life_ns + NS_PER_S
        assert seen.outage_to_wall_ns == ISSUED_NS + life_ns + outage_ns
    else:
        assert (seen.outage_from_wall_ns, seen.outage_to_wall_ns) == (None, None)


def test_what_is_overdue_is_done_at_once() -> None:
    """A clock set back makes renewals early, and none lies in the past."""
    assert (
        of(24 * HOUR_NS, -2 * HOUR_NS, age_ns=11 * HOUR_NS).renews_wall_ns
        == ISSUED_NS + 11 * HOUR_NS
    )


def test_expired_and_due_is_not_an_outage_ahead() -> None:
    """An expired certificate whose renewal is due is being renewed; one whose renewal is late is
    not."""
    assert of(24 * HOUR_NS, 8 * HOUR_NS, age_ns=30 * HOUR_NS).outage_from_wall_ns is None
    assert (
        of(24 * HOUR_NS, 30 * HOUR_NS, age_ns=30 * HOUR_NS).outage_from_wall_ns
        == ISSUED_NS + 24 * HOUR_NS + NS_PER_S
    )


@settings(derandomize=True, deadline=None)
@given(
    st.integers(60, 90 * 86_400).map(lambda s: s * NS_PER_S),
    st.integers(-100 * 86_400, 100 * 86_400).map(lambda s: s * NS_PER_S),
    st.integers(0, 90 * 86_400).map(lambda s: s * NS_PER_S),
)
def test_an_outage_lies_between_expiry_and_renewal(
    life_ns: int, drift_ns: int, age_ns: int
) -> None:
    """And there is one exactly when the renewal lies ahead and after the expiry."""
    seen = of(life_ns, drift_ns, age_ns)
    assert seen.renews_wall_ns >= ISSUED_NS + age_ns
    late = seen.renews_wall_ns > ISSUED_NS + max(life_ns + NS_PER_S, age_ns)
    assert (seen.outage_from_wall_ns is not None) == late
    if seen.outage_from_wall_ns is not None and seen.outage_to_wall_ns is not None:
        assert seen.outage_from_wall_ns < seen.outage_to_wall_ns == seen.renews_wall_ns


def test_storm_begins_at_half_a_life_back() -> None:
    """13 hours back were seen to start it, 11 hours not."""
    begins, ends = ISSUED_NS - BACKDATE_NS, ISSUED_NS + 24 * HOUR_NS
    assert renews_without_end(begins, ends, -13 * HOUR_NS)
    assert not renews_without_end(begins, ends, -11 * HOUR_NS)
