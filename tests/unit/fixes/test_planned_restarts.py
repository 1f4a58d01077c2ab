from __future__ import annotations

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.errors import BadInput
from meshwake.core.plan import PlannedFix
from meshwake.fixes import deploy

from tests.support.plans import plan


def test_nothing_deployed_restarts_nothing() -> None:
    """No fix, and the fix called none."""
    of = plan()
    assert deploy(of, clocks_of(of)) == ((), ())
    none = of.model_copy(update={"fix": PlannedFix(name="none")})
    assert deploy(none, clocks_of(none)) == ((), ())


def test_a_fix_that_does_not_exist_is_refused_by_name() -> None:
    """A plan from elsewhere may name one."""
    of = plan().model_copy(update={"fix": PlannedFix(name="prayer")})
    with pytest.raises(BadInput, match="read 'prayer', allowed: none, weekly-restart, daily"):
        deploy(of, clocks_of(of))
