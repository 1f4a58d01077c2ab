"""What people deploy, on the model and around a real ztunnel: the same restarts at the same times,
same verdicts."""

from __future__ import annotations

import pytest
from meshwake.core.run import Run

from tests.agreement.conftest import VERSIONS, binary_of, renewal_rows, run_text, verdicts

TEXT = """
title = "Naps of forty minutes, certificates of an hour"
duration = "5h"
[certificate]
lifetime = "1h"
[[node]]
name = "laptop"
identities = ["default/client", "default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "5m"
[[fault]]
kind = "KIND"
at = "50m"
lasts = "40m"
every = "2h"
[fix]
name = "FIX"
[[expect]]
check = "recovers_within"
verdict = "holds"
because = "no test of this judges"
"""


def restarts_world_s(saved: Run) -> list[tuple[float, str]]:
    """When the fix restarted which node; a lab may have a ztunnel for each identity."""
    started = saved.history.of("ztunnel_started")
    return sorted(
        {(event.world_ns / 1e9, str(event.node)) for event in started if event["cause"] != "start"}
    )


@pytest.mark.parametrize("version", VERSIONS[-1:])
@pytest.mark.parametrize(
    ("fix", "kind"),
    [
        ("wake-guard", 'pause"\ncorrected_after = "25s'),
        ("log-watchdog", "suspend"),
        ("sleep-hook", "suspend"),
        ("secret-ttl-720h", "suspend"),
    ],
)
def test_a_fix_does_the_same_to_a_real_ztunnel(fix: str, kind: str, version: str) -> None:
    """The guard's looks, drifts and certificates there are those of real processes."""
    binary_of(version)
    model, real = run_text(TEXT.replace("FIX", fix).replace("KIND", kind), fix, version)
    assert restarts_world_s(model) == restarts_world_s(real)
    assert (fix == "secret-ttl-720h") == (restarts_world_s(real) == [])
    assert verdicts(model) == verdicts(real)
    ours, theirs = renewal_rows(model), renewal_rows(real)
    assert [row["done_world_s"] for row in ours] == pytest.approx(
        [row["done_world_s"] for row in theirs], abs=2.0
    )
