"""Fixes that change a setting, and nothing while the mesh runs: two lifetimes, and how a wall clock is put right.

    istiod-default-ttl   istiod's DEFAULT_WORKLOAD_CERT_TTL counts only where a request names no lifetime. ztunnel
                         always names one, SECRET_TTL or 24 h (istio/ztunnel src/config.rs), so nothing changes.
    secret-ttl-720h      ztunnel's own SECRET_TTL: certificates live longer, and so does the patience for drift.
    chrony-makestep      steps the wall clock whenever it is off, not only after start. It puts a paused VM's clock
                         right soon after the wake. The step is the jump: ztunnel's monotonic clock does not get it.

In a suspend the kernel puts the wall clock right by itself, and in a drift or a step as scenarios mean it the wall
clock is the right one: there chrony finds nothing to do.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import yaml

from harness.durations import NS_PER_S, said_ns
from harness.errors import BadInput
from harness.fixes.deploy import manifest_of
from harness.plan import Plan, PlannedFault

DEFAULT_MINPOLL = 6  # chrony's: 2^6 s between two looks at a server


def with_istiod_default(plan: Plan) -> Plan:
    """What ztunnel gets when istiod has another default: what it asked for, as long as it asks."""
    default_s = _env_s(manifest_of(plan), "DEFAULT_WORKLOAD_CERT_TTL")
    return plan if plan.lifetime_s > 0 else plan.model_copy(update={"lifetime_s": default_s})


def with_secret_ttl(plan: Plan) -> Plan:
    """ztunnel asks for what SECRET_TTL says. Gateways have another of their own, which stays as it is."""
    return plan.model_copy(update={"lifetime_s": _env_s(manifest_of(plan), "SECRET_TTL")})


def with_makestep(plan: Plan) -> Plan:
    """The wall clock of a paused node is right after chrony's next look, if not before."""
    corrected_ns = _steps_within_ns(manifest_of(plan))
    return plan.model_copy(
        update={
            "faults": tuple(
                fault.model_copy(update=_corrected(fault, corrected_ns))
                for fault in plan.faults
            )
        }
    )


def _corrected(fault: PlannedFault, within_ns: int) -> dict[str, Any]:
    """A pause as it is with chrony: put right within that, also where nothing else would put it right."""
    if fault.kind == "pause" and not fault.corrected:
        return {"corrected": True, "corrected_after_ns": within_ns}
    return {"corrected_after_ns": min(fault.corrected_after_ns, within_ns)}


@lru_cache(maxsize=16)  # a sweep asks the same of every run
def _env_s(manifest: str, variable: str) -> int:
    """The value of an environment variable, wherever in the values of a chart it stands."""
    try:
        found = [value for document in yaml.safe_load_all(manifest) for value in _values_of(document, variable)]
    except yaml.YAMLError as error:
        raise BadInput(f"fix.manifest: is no YAML: {' '.join(str(error).split())}") from error
    if len(found) != 1:
        raise BadInput(
            f"fix.manifest: sets {variable} {len(found)} times; needed is once, for example {variable}: 720h"
        )
    lifetime_ns = said_ns(str(found[0]), f"fix.manifest: {variable}")
    if lifetime_ns < NS_PER_S:
        raise BadInput(f"fix.manifest: {variable}: read {found[0]!r}, needed is at least a second")
    return lifetime_ns // NS_PER_S


def _values_of(document: Any, variable: str) -> list[Any]:
    if isinstance(document, dict):
        if document.get("name") == variable and "value" in document:
            return [document["value"]]
        own = [document[variable]] if variable in document else []
        return own + [value for each in document.values() for value in _values_of(each, variable)]
    if isinstance(document, list):
        return [value for each in document for value in _values_of(each, variable)]
    return []


def _steps_within_ns(conf: str) -> int:
    """How long chrony takes to step a wrong clock, by its configuration."""
    makestep = re.search(r"^\s*makestep\s+(\S+)\s+(-?\d+)", conf, re.MULTILINE)
    if makestep is None or int(makestep[2]) >= 0:
        read = makestep[0].strip() if makestep else "no makestep"
        raise BadInput(
            f"fix.manifest: chrony: read {read!r}; only 'makestep SECONDS -1' steps a clock long after start, any "
            "other limit slews it for hours"
        )
    minpoll = re.search(r"\bminpoll\s+(-?\d+)", conf)
    return int(NS_PER_S * 2.0 ** (int(minpoll[1]) if minpoll else DEFAULT_MINPOLL))
