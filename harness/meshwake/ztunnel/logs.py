"""What ztunnel's log says about certificates at fault.

The patterns are of the words that istio/ztunnel 1.22 to 1.31 write (src/tls, src/proxy,
src/identity/manager.rs); recorded logs of three releases are in tests/data/ztunnel_logs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping

from meshwake.ztunnel.spiffe import identity_in

# What a line is evidence of -> the pattern that finds such lines.
LOG_LINES: Mapping[str, str] = {
    "peer certificate expired": (
        r"InvalidCertificate\(Expired"
        r"|certificate expired: verification time"
        r"|peer certificate: Expired"
    ),
    "own certificate refused": (
        r"AlertReceived\(CertificateExpired\)|received fatal alert: CertificateExpired"
    ),
    "certificate not valid yet": r"NotValidYet",
    "no certificate": r"identity error: |signing error: ",
    "renewal failed": r"certificate renewal failed|certificate fetch failed",
    "prefetch failed": r"unable to prefetch cert",
}
# A connection that failed because one of its two certificates had expired, at either end.
EXPIRED = re.compile(r"certificate expired|CertificateExpired|InvalidCertificate\(Expired")

# Lines as ztunnel writes them, to try the pattern of a log watchdog on. Of a certificate that was
# refused as expired, by either end:
EXAMPLES_OF_EXPIRED = (
    'error access connection complete error="io error: invalid peer certificate: certificate '
    "expired: verification time 1799276400 (UNIX), but certificate is not valid after 1799179140 "
    '(97260 seconds ago)"',
    'warn access connection failed error="tls handshake error: Custom { kind: InvalidData, error: '
    'AlertReceived(CertificateExpired) }"',
)
# Of a connection that worked, and of an authority that does not answer:
EXAMPLES_OF_OTHER_LINES = (
    'info access connection complete src.workload="client" dst.workload="server" '
    'direction="outbound" duration="3ms"',
    'error access connection complete error="identity error: signing gRPC error (The '
    'service is unavailable)"',
    "info ztunnel::identity::manager certificate renewal failed; retaining existing valid "
    "certificate until later",
)


def kind_of_line(line: str) -> str | None:
    """What a line of the log is evidence of, a key of `LOG_LINES`; None when it is of nothing."""
    for kind, pattern in LOG_LINES.items():
        if re.search(pattern, line):
            return kind
    return None


def failed_renewals(lines: Iterable[str], identities: Collection[str]) -> list[tuple[str, str]]:
    """(identity, the line) of every failed renewal of one of `identities`, JSON or not.

    Releases before 1.22.1 log nothing of the kind; up to 1.27 it takes `LOG_LEVEL` of
    environment.py.
    """
    found: list[tuple[str, str]] = []
    for line in lines:
        if not re.search(LOG_LINES["renewal failed"], line):
            continue

        # ztunnel logs about every identity that it manages, and not only about those of a plan.
        identity = identity_in(line)
        if identity is not None and identity in identities:
            found.append((identity, line))
    return found


def connection_error(line: bytes) -> tuple[str, str] | None:
    """(error, direction) of a line of JSON about a connection that failed; None of any other line.

    `direction` is "outbound" at the ztunnel of the source and "inbound" at the destination's.
    """
    # A panic is not JSON.
    try:
        entry = json.loads(line)
    except ValueError:
        return None

    # The line of a connection that succeeded has no error; a bare number is JSON, too.
    if not isinstance(entry, dict) or not entry.get("error"):
        return None

    return str(entry["error"]), str(entry.get("direction"))
