"""Whose a node is, and when its owner counts as gone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from meshwake.clocks.movers.node_helper import lease as module
from meshwake.clocks.movers.node_helper.lease import Lease
from meshwake.core.errors import LabUnavailable, SubjectFailed


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The monotonic clock of the machine, set by the test."""
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def lease_of(owner: str, clock: SimpleNamespace, lease_s: float = 20.0) -> Lease:
    lease = Lease(_counted_monotonic_s=clock.now_s)
    lease.begin(owner, lease_s)
    return lease


def test_a_free_node_can_be_taken_and_nothing_else(real: SimpleNamespace) -> None:
    lease = Lease(_counted_monotonic_s=real.now_s)
    lease.check("run 1", may_begin=True)
    with pytest.raises(SubjectFailed, match="take comes first"):
        lease.check("run 1", may_begin=False)


def test_only_the_owner_changes_a_node(real: SimpleNamespace) -> None:
    lease = lease_of("run 1", real)
    lease.check("run 1", may_begin=False)
    for other in ("run 2", None):
        with pytest.raises(LabUnavailable, match="moved by run 1"):
            lease.check(other, may_begin=True)


def test_what_was_given_up_is_explained_until_the_next_take(real: SimpleNamespace) -> None:
    lease = lease_of("run 1", real)
    lease.owner = None
    lease.given_up = {
        "owner": "run 1",
        "why": "its lease was not renewed for 20 s",
        "released": [],
        "ended": [],
        "failed": {},
        "offsets": {},
        "begun_moved": [],
    }
    with pytest.raises(SubjectFailed, match="moved by run 1 and have been restored"):
        lease.check("run 2", may_begin=False)
    lease.begin("run 2", 20.0)
    assert lease.given_up is None


def test_silence_is_counted_second_by_second(real: SimpleNamespace) -> None:
    lease = lease_of("run 1", real)
    for _ in range(20):
        real.now_s += 1.0
        lease.count_silence()
    assert not lease.has_run_out(0.0)
    real.now_s += 0.5
    lease.count_silence()
    assert lease.has_run_out(0.0) and not lease.has_run_out(10.0)
    lease.note_renewal()
    assert not lease.has_run_out(0.0)


def test_time_in_which_nothing_could_be_received_does_not_count(real: SimpleNamespace) -> None:
    """An hour of a machine that slept, or of a helper that was stopped, is one second."""
    lease = lease_of("run 1", real)
    real.now_s += 3600.0
    lease.count_silence()
    assert lease.silent_s == 1.0
