"""What is wrong with a scenario file, as a sentence for the person who wrote it.

pydantic knows the place, the value and the kind of mistake; a person needs the key as it is written
in TOML, what was expected there, and the nearest right word.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from meshwake.core.faults import CLOCK_FAULTS, SERVICE_FAULTS, Fault
from meshwake.core.json_types import JsonObject
from meshwake.system.hints import did_you_mean, invalid_value, one_of

Place = tuple[str | int, ...]  # the keys and positions that lead to a value of the document
FAULT_KINDS = (*CLOCK_FAULTS, *SERVICE_FAULTS)
# Filled in by the reader from the file's name; they are not keys of a file.
_NOT_WRITTEN = ("name", "path")
_DURATIONS = (
    "duration",
    "at",
    "lasts",
    "corrected_after",
    "answers_after",
    "by",
    "every",
    "lifetime",
)
# By the kind of the mistake, in pydantic's words for it.
_EXPECTED = {
    "too_short": "at least one entry",
    "list_type": "a list, in brackets",
    "string_type": "a text, in quotes",
    "string_too_short": "a text that is not empty",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "model_type": "a table",
}


class ImpossibleScenario(ValueError):
    """A scenario whose parts are right and whose whole is not; the message is a whole sentence."""


def impossible(place: Place, read: object, why: str) -> ImpossibleScenario:
    """The value `read` cannot be at `place`, because of the rest of the scenario."""
    return ImpossibleScenario(f"invalid value {read!r} for {text_of(place)}: {why}")


def impossible_choice(place: Place, read: object, allowed: list[str]) -> ImpossibleScenario:
    """The value `read` at `place` names something that the scenario does not have."""
    return ImpossibleScenario(invalid_value(text_of(place), read, one_of(read, allowed)))


def missing(place: Place, expected: str) -> ImpossibleScenario:
    """A key that may be left out elsewhere is needed here."""
    return ImpossibleScenario(f"{text_of(place)} is missing: expected {expected}")


def text_of(place: Place) -> str:
    """A place as a person would write it: fault[0].at."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}"

    # Every key has a dot before it, and the first needs none.
    return text.removeprefix(".")


def explain(detail: ErrorDetails, document: JsonObject, root: type[BaseModel]) -> str:
    """One mistake that pydantic found in `document`, which was read as `root`."""
    cause = detail.get("ctx", {}).get("error")
    # A check of the whole: its message is a sentence already, place and value included.
    if isinstance(cause, ImpossibleScenario):
        return str(cause)

    place = _as_written(detail["loc"])
    match detail["type"]:
        case "extra_forbidden":
            return _unknown_key(place, document, root)
        case "missing":
            return f"{text_of(place)} is missing{_hint(place)}"
        case "union_tag_not_found" | "union_tag_invalid":
            return _no_kind_of_fault((*place, "kind"), detail)
        case "literal_error":
            return _not_one_of(place, detail)
    return _of_another_kind(place, detail)


def _of_another_kind(place: Place, detail: ErrorDetails) -> str:
    """A value that its key cannot have."""
    read = detail["input"]
    if detail["type"] == "list_type" and isinstance(read, dict):
        name = text_of(place)
        return f"{name} is one table: expected a list of them; write [[{name}]], with two brackets"

    # A date of TOML as it is written there, and not as Python names it.
    shown = read.isoformat() if isinstance(read, date) else repr(read)
    return f"invalid value {shown} for {text_of(place)}: {_reason(detail)}"


def _reason(detail: ErrorDetails) -> str:
    """What was expected; of rarer mistakes pydantic's sentence, as the end of ours."""
    if detail["type"].startswith("datetime"):
        return "expected a date with time and zone, such as 2026-11-21T09:00:00+01:00"
    if detail["type"] in _EXPECTED:
        return f"expected {_EXPECTED[detail['type']]}"
    message = detail["msg"]
    return message[0].lower() + message[1:]


def _not_one_of(place: Place, detail: ErrorDetails) -> str:
    # pydantic has the allowed words only as a text: "'holds', 'broken' or 'unknown'".
    listed = detail["ctx"]["expected"].replace("'", "").replace(" or ", ", ")
    read = detail["input"]
    return invalid_value(text_of(place), read, one_of(read, listed.split(", ")))


def _no_kind_of_fault(place: Place, detail: ErrorDetails) -> str:
    # Without a `kind`, there is nothing that it could be near to.
    if detail["type"] == "union_tag_not_found":
        return f"{text_of(place)} is missing: expected {one_of('', FAULT_KINDS)}"
    read = detail["ctx"]["tag"]
    return invalid_value(text_of(place), read, one_of(read, FAULT_KINDS))


def _unknown_key(place: Place, document: JsonObject, root: type[BaseModel]) -> str:
    table, key = place[:-1], str(place[-1])
    allowed = _keys_of(table, document, root)
    where = text_of(table) or "the top level"
    hint = did_you_mean(key, allowed)
    return f"unknown key {key!r} in {where}: expected one of {', '.join(allowed)}{hint}"


def _as_written(place: Place) -> Place:
    """pydantic puts the kind of a fault into its place, after the position; the author of the file
    never wrote it there."""
    written = list(place[:1])
    for before, part in pairwise(place):
        # ("fault", 0, "suspend", "at") is fault[0].at in the file. A key that is called like a kind
        # follows a name, not a position, and stays.
        follows_position = isinstance(before, int)
        if follows_position and part in FAULT_KINDS:
            continue
        written.append(part)
    return tuple(written)


def _hint(place: Place) -> str:
    if place == ("expect",):
        return (
            ": a scenario without [[expect]] judges nothing; write what should hold, or break, "
            "and because of what"
        )
    # In any table: a key of this name is a duration everywhere.
    if place[-1] in _DURATIONS:
        return ": expected a duration such as '8h' or '1h30m'"
    return ""


# --- Which keys a table may have ------------------------------------------------------------------


def _keys_of(table: Place, document: JsonObject, root: type[BaseModel]) -> list[str]:
    """The keys that are allowed in `table`."""
    # Also within [real_time], which has faults of its own.
    if "fault" in table:
        return _keys_of_fault(table, document)

    model = _model_at(table, root)
    keys = list(model.model_fields)
    if model is not root:
        return keys
    return [key for key in keys if key not in _NOT_WRITTEN]


def _model_at(table: Place, root: type[BaseModel]) -> type[BaseModel]:
    """The class as which `table` is read; positions in a list change nothing."""
    model = root
    for part in table:
        # All tables of a list are of one class.
        if isinstance(part, int):
            continue
        field = model.model_fields[part]
        model = _model_in(field.annotation)
    return model


def _keys_of_fault(table: Place, document: JsonObject) -> list[str]:
    """Those of the kind that was written."""
    written: Any = document
    for part in table:
        written = written[part]
    kind = written.get("kind")

    # Fault is Annotated[A | B | ..., discriminator]: the first argument is the union.
    union = get_args(Fault)[0]
    for model in get_args(union):
        # kind: Literal["suspend"], whose arguments are its words.
        kinds = get_args(model.model_fields["kind"].annotation)
        if kind in kinds:
            return sorted(model.model_fields)

    # pydantic has refused any other kind, before it looks at keys.
    return []


def _model_in(annotation: Any) -> type[BaseModel]:
    """The table in an annotation such as list[Node] or RealTime | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation

    # RealTime | None has None for an argument, too.
    for argument in get_args(annotation):
        found = _model_in(argument)
        if found is not BaseModel:
            return found

    # The bare class, which has no fields.
    return BaseModel
