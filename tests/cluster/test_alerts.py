"""Which alerts fire, by a real Prometheus in the cluster: ours before an outage, the report's
never."""

from __future__ import annotations

from itertools import pairwise

import pytest
from meshwake.core.durations import NS_PER_S

from tests.cluster.trial import SCENARIOS, Trial

REPORTED = "ZtunnelCertificateExpiringAsReported"
OURS = "ZtunnelCertificatesWillExpire"
# Failures that lie closer than this are one outage: an attempt is made every 20 s.
APART_NS = 60 * NS_PER_S


@pytest.mark.slow(reason="Prometheus scrapes in real time")
@pytest.mark.needs("observability")
def test_our_alert_fires_before_the_outage_and_the_reports_never(trial: Trial) -> None:
    """After the wake each certificate runs out before it is renewed; an alert can come before the
    first of these outages."""
    ran = trial.ran(SCENARIOS / "short_sleep.toml")
    history = ran.saved().history
    evaluated = history.of("alerts_evaluated")
    assert evaluated, ran.log
    assert {OURS, REPORTED} <= set(evaluated[-1]["rules"])
    fired = [(event["alert"], event.world_ns) for event in history.of("alert_fired")]
    assert REPORTED not in {name for name, _ in fired}
    woke_ns = max(event.world_ns for event in history.of("fault_ended"))
    failed = [event.world_ns for event in history.of("connection_attempted") if not event["ok"]]
    begins = [
        after
        for before, after in pairwise([woke_ns, *failed])
        if after - before > APART_NS and after > woke_ns
    ]
    late = [world_ns for name, world_ns in fired if name == OURS]
    assert begins and late
    assert any(world_ns < begins[-1] for world_ns in late), (late, begins)
    assert history.of("alerts_received"), "Alertmanager was handed nothing"
