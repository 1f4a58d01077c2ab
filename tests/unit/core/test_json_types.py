"""JSON of other programs is read along a path, and what is absent, null or of another type is
empty."""

from __future__ import annotations

import pytest
from meshwake.core.json_types import (
    int_at,
    list_at,
    object_at,
    objects_at,
    text_at,
    texts_at,
    value_at,
)

POD: dict[str, object] = {
    "metadata": {"name": "p", "labels": {"app": "x", "count": 3}, "annotations": None},
    "status": {"containerStatuses": [{"restartCount": 2}, "odd"], "phase": 7, "ready": True},
    "conditions": ({"type": "Ready"},),
}


def test_a_value_is_read_along_its_path() -> None:
    """Also from a tuple, as objects that are built here have them."""
    assert text_at(POD, "metadata", "name") == "p"
    assert object_at(POD, "metadata", "labels") == {"app": "x", "count": 3}
    assert texts_at(POD, "metadata", "labels") == {"app": "x"}
    assert objects_at(POD, "status", "containerStatuses") == [{"restartCount": 2}]
    assert objects_at(POD, "conditions") == [{"type": "Ready"}]
    assert int_at(objects_at(POD, "status", "containerStatuses")[0], "restartCount") == 2
    assert value_at(POD, "status", "ready") is True


@pytest.mark.parametrize("path", [("none",), ("metadata", "annotations", "a"), ("status", "phase")])
def test_what_is_not_there_is_empty(path: tuple[str, ...]) -> None:
    """Absent, null, or of another type, at the end of the path or on the way; and of no object at
    all, as `read` returns it."""
    for thing in (POD, None):
        assert text_at(thing, *path) == ""
        assert object_at(thing, *path) == {}
        assert list_at(thing, *path) == []
    assert int_at(POD, "status", "ready") == 0
