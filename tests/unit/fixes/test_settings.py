"""Fixes that change a setting: what becomes of the plan."""

from __future__ import annotations

import pytest

from harness.durations import NS_PER_S
from harness.errors import BadInput
from harness.fixes import adapted
from tests.unit.fixes.test_registry import with_fix

DAY_S = 86_400
PAUSE = '\n[[fault]]\nkind = "pause"\nat = "15h"\nlasts = "8h"\ncorrected_after = "17m"\n'


def test_istiods_default_is_a_placebo() -> None:
    """ztunnel always asks for a lifetime of its own."""
    assert adapted(with_fix("istiod-default-ttl")).lifetime_s == DAY_S


def test_secret_ttl_is_what_ztunnel_asks_for() -> None:
    assert adapted(with_fix("secret-ttl-720h")).lifetime_s == 30 * DAY_S


@pytest.mark.parametrize("text", ["env:\n  SECRET_TTL: soon\n", "env:\n  SECRET_TTL: 0s\n", "env: {}\n", "a: [\n"])
def test_a_lifetime_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"fix\.manifest"):
        adapted(with_fix("secret-ttl-720h", text))


def test_a_list_of_variables_is_understood_as_well() -> None:
    """A DaemonSet patched by hand has name and value."""
    assert adapted(with_fix("secret-ttl-720h", "env:\n- name: SECRET_TTL\n  value: 48h\n")).lifetime_s == 2 * DAY_S


def test_makestep_puts_the_clock_right_soon_and_moves_it_as_far() -> None:
    before = with_fix("chrony-makestep", body=PAUSE)
    after = adapted(before)
    assert after.faults[0].corrected_after_ns == 64 * NS_PER_S
    assert after.faults[0].expected_drift_ns == before.faults[0].expected_drift_ns


def test_a_makestep_for_the_start_only_is_refused() -> None:
    """The usual one of distributions slews from the fourth look on."""
    with pytest.raises(BadInput, match="makestep 1.0 3"):
        adapted(with_fix("chrony-makestep", "makestep 1.0 3\n"))
