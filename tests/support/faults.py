"""A planned fault of every kind."""

from __future__ import annotations

from meshwake.core.planned_faults import PlannedFault, read_planned_fault

# What each kind needs besides its time and place.
FAULT_FIELDS: dict[str, dict[str, object]] = {
    "suspend": {"lasts_ns": 7},
    "pause": {"lasts_ns": 7, "corrected_after_ns": 3, "corrected": False},
    "step": {"by_wall_ns": -5},
    "drift": {"lasts_ns": 9, "rate_numerator": 3, "rate_denominator": 2},
    "freeze": {"lasts_ns": 7},
    "ca_outage": {"lasts_ns": 7},
    "ca_hang": {"lasts_ns": 7},
    "ca_slow": {"lasts_ns": 7, "answers_after_ns": 2},
    "token_expired": {"lasts_ns": 7},
    "ca_clock": {"lasts_ns": 7, "by_wall_ns": 5},
    "ca_lifetime": {"lasts_ns": 7, "lifetime_s": 60},
    "ca_root": {"lasts_ns": 7},
    "ca_root_change": {},
    "restart": {},
    "pod_restart": {"identity": "default/client"},
}


def planned_fault(kind: str, **changed: object) -> PlannedFault:
    """The fault of this kind with the values above, after 100 ns on node a."""
    begins = {"index": 3, "kind": kind, "node": "a", "at_world_ns": 100}
    return read_planned_fault(begins | FAULT_FIELDS[kind] | changed)
