"""What a request may say: every value is checked, and the answer names what was wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from meshwake.clocks.movers.node_helper.protocol import (
    PROTOCOL_VERSION,
    USUAL_LAUNCHERS,
    answer_line,
    read_launchers,
    read_number,
    read_offsets,
    read_owner,
    read_rules,
)
from meshwake.clocks.movers.node_helper.rules import Rule
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import BadInput, LabUnavailable


def test_a_rule_is_read_whole() -> None:
    entry = {
        "executable": "/usr/local/bin/ztunnel",
        "cgroup": "pod1",
        "keeps_monotonic": True,
        "idles_in_epoll": True,
        "streams_to_port": 15012,
    }
    assert read_rules([entry, {"executable": "envoy"}]) == (
        Rule("/usr/local/bin/ztunnel", "pod1", True, True, 15012),
        Rule("envoy"),
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        ["ztunnel"],
        [{"executable": ""}],
        [{"executable": "a", "cgroup": 1}],
        [{"executable": "a", "keeps_monotonic": 1}],
        [{"executable": "a", "streams_to_port": 65536}],
        [{"executable": "a", "exe": "b"}],
    ],
)
def test_invalid_rules_are_refused(value: Any) -> None:
    with pytest.raises(BadInput, match=r"rule|streams_to_port"):
        read_rules(value)


def test_without_launchers_the_usual_ones_are_meant() -> None:
    assert read_launchers(None) == USUAL_LAUNCHERS and read_launchers([]) == ()
    with pytest.raises(BadInput, match="launchers"):
        read_launchers(["/usr/bin/runc", 1])


@pytest.mark.parametrize("value", [True, "1", None, -1, 11, float("nan")])
def test_a_number_out_of_bounds_is_refused(value: Any) -> None:
    """True is an int in Python, and not a number of a request."""
    with pytest.raises(BadInput, match="within_s"):
        read_number(value, "within_s", 0, 10)


@pytest.mark.parametrize(
    "value", [None, {"wall_ns": 1}, {"wall_ns": 2**61, "monotonic_ns": 0, "boottime_ns": 0}]
)
def test_offsets_are_three_whole_numbers_that_fit(value: Any) -> None:
    """A sum with the kernel's time must not overflow 64 bits."""
    with pytest.raises(BadInput, match="offsets"):
        read_offsets(value)
    assert read_offsets({"wall_ns": 3, "monotonic_ns": -2, "boottime_ns": 1}) == ClockReading(
        3, -2, 1
    )


@pytest.mark.parametrize("value", ["", "x" * 301, 7, None])
def test_an_owner_has_a_name(value: Any) -> None:
    with pytest.raises(BadInput, match="owner"):
        read_owner(value)


def raising(error: Exception) -> Any:
    def answer(request: Any) -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    ("line", "error", "kind"),
    [
        (b"{}", LabUnavailable("no"), "LabUnavailable"),
        (b"{}", RuntimeError("a bug"), "HarnessFault"),
        (b"[]", RuntimeError("not reached"), "BadInput"),
        (b"not JSON", RuntimeError("not reached"), "BadInput"),
    ],
)
def test_every_error_is_an_answer(line: bytes, error: Exception, kind: str) -> None:
    """The helper must live, whatever a request does."""
    answer = json.loads(answer_line(line, raising(error)))
    assert answer["version"] == PROTOCOL_VERSION and answer["ok"] is False
    assert answer["error"]["kind"] == kind and answer["error"]["message"]


def test_a_result_is_one_line() -> None:
    line = answer_line(b'{"do": "hello"}', lambda request: {"did": request["do"]})
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert json.loads(line) == {"version": PROTOCOL_VERSION, "ok": True, "result": {"did": "hello"}}
