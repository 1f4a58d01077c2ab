"""What a line of ztunnel's log is evidence of, by recorded logs and the examples."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.ztunnel.logs import (
    EXAMPLES_OF_EXPIRED,
    EXAMPLES_OF_OTHER_LINES,
    EXPIRED,
    connection_error,
    failed_renewals,
    kind_of_line,
)

from tests.support.paths import REPOSITORY

RECORDED = sorted((REPOSITORY / "tests" / "data" / "ztunnel_logs").glob("*.log"))
RENEWAL = (
    'WARN ztunnel::identity::manager certificate fetch failed id="spiffe://cluster.local/ns/a/sa/b"'
)


@pytest.mark.parametrize("file", RECORDED, ids=[file.stem for file in RECORDED])
def test_recorded_logs_show_expired_certificates(file: Path) -> None:
    """Each was recorded while certificates were served expired."""
    lines = file.read_text().splitlines()
    assert any(EXPIRED.search(line) for line in lines)
    assert {kind_of_line(line) for line in lines} & {
        "peer certificate expired",
        "own certificate refused",
    }


def test_examples_are_what_they_are_named() -> None:
    """A watchdog's pattern is tried on them, so they have to be distinguished."""
    assert all(EXPIRED.search(line) for line in EXAMPLES_OF_EXPIRED)
    assert not any(EXPIRED.search(line) for line in EXAMPLES_OF_OTHER_LINES)


def test_failed_renewals_of_the_identities_requested() -> None:
    """By the identity in the line; a line about something else does not count."""
    other = RENEWAL.replace("sa/b", "sa/c")
    fetched = RENEWAL.replace("fetch failed", "fetched")
    assert failed_renewals([RENEWAL, other, fetched], ["a/b"]) == [("a/b", RENEWAL)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"error": "io error", "direction": "outbound"}', ("io error", "outbound")),
        (b'{"error": "io error"}', ("io error", "None")),
        (b'{"message": "connection complete"}', None),
        (b"[1]", None),
        (b"2026-11-30T08:00:00Z info", None),
    ],
)
def test_errors_of_connections(line: bytes, expected: tuple[str, str] | None) -> None:
    """Only a JSON object with an error reports one."""
    assert connection_error(line) == expected
