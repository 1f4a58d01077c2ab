"""The values of a scenario file, one by one: durations with a unit, times of the world, rates,
identities, versions.

Each reader refuses what it cannot be with a message that says what was expected;
scenario_errors.py puts the file, the key and the value before it.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from meshwake.core.durations import NS_PER_S, parse_duration_ns
from meshwake.core.zones import zone_of

NEVER = "never"
# Beyond them it is a typing error: the drift that was reported is 1.025 (wsl_drift.toml).
_RATE_LEAST, _RATE_MOST = Decimal("0.1"), Decimal(10)


class Strict(BaseModel):
    """Base of all tables: an unknown key is refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _refused(kind: str, expected: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{why}", {"why": f"expected {expected}"})


def _duration(value: Any) -> int:
    # TOML has numbers, which have no unit.
    if not isinstance(value, str):
        raise _refused("duration", "a duration with a unit, such as '90s' or '1h30m'")
    try:
        return parse_duration_ns(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{why}", {"why": str(error)}) from error


def _positive(value: int) -> int:
    if value <= 0:
        raise _refused("positive", "more than 0")
    return value


def _not_negative(value: int) -> int:
    if value < 0:
        raise _refused("not_negative", "0 or more: world time starts at 0")
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise _refused("not_zero", "anything but 0: a step by 0 changes nothing")
    return value


def _whole_seconds(value: int) -> int:
    if value % NS_PER_S:
        raise _refused("whole_seconds", "whole seconds: X.509 times have no finer unit")
    return value


def _rate(value: Any) -> Decimal:
    try:
        # By its text: the float 1.025 is not 1.025, and the plan keeps the rate as an exact
        # fraction. The texts of other types, such as 'True', are not numbers.
        rate = Decimal(str(value))
    except InvalidOperation as error:
        raise _refused("rate", "a number such as 1.025") from error

    # Decimal reads 'nan' and 'inf', too, and nan cannot be compared.
    is_within = rate.is_finite() and _RATE_LEAST <= rate <= _RATE_MOST
    if not is_within:
        raise _refused(
            "rate", f"between {_RATE_LEAST} and {_RATE_MOST} seconds of wall clock a second"
        )
    return rate


def _identity(value: str) -> str:
    # Two names around one slash, without blanks of any kind.
    if not re.fullmatch(r"[^/\s]+/[^/\s]+", value):
        raise _refused("identity", "namespace/serviceaccount, such as 'default/client'")
    return value


def _versions(value: str) -> str:
    # As a text: core/versions.py reads it again where it is used.
    try:
        SpecifierSet(value)
    except InvalidSpecifier as error:
        expected = "a version range such as '>=1.18', '<1.28' or '>=1.24,<1.28'"
        raise _refused("versions", expected) from error
    return value


def _version(value: str) -> str:
    try:
        Version(value)
    except InvalidVersion as error:
        raise _refused("version", "a version such as '1.32.0'") from error
    return value


def _zone(value: str) -> str:
    try:
        zone_of(value)
    except ValueError as error:
        raise PydanticCustomError("zone", "{why}", {"why": str(error)}) from error
    return value


def _corrected_after(value: Any) -> int | None:
    # A word and not a missing key: a wall clock that stays behind is meant, not forgotten.
    if value == NEVER:
        return None
    if not isinstance(value, str):
        raise _refused("duration", f"a duration with a unit, such as '25s', or '{NEVER}'")
    return _not_negative(_duration(value))


# The types of fields: nanoseconds, as read from a text, with what is refused.
Duration = Annotated[int, BeforeValidator(_duration)]
Length = Annotated[Duration, AfterValidator(_positive)]
WorldTime = Annotated[Duration, AfterValidator(_not_negative)]
StepBy = Annotated[Duration, AfterValidator(_not_zero)]
Seconds = Annotated[Length, AfterValidator(_whole_seconds)]
Backdate = Annotated[Duration, AfterValidator(_not_negative), AfterValidator(_whole_seconds)]
CorrectedAfter = Annotated[int | None, BeforeValidator(_corrected_after)]
Rate = Annotated[Decimal, BeforeValidator(_rate)]
IdentityName = Annotated[str, AfterValidator(_identity)]
VersionRange = Annotated[str, AfterValidator(_versions)]
VersionText = Annotated[str, AfterValidator(_version)]
ZoneText = Annotated[str, AfterValidator(_zone)]
