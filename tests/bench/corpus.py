"""The scenarios that we ship, on real ztunnels, by a user who has no right on this machine.

python -m tests.bench.corpus VERSION

Root runs them as a user without rights (tests/support/unprivileged_user.py), any other user as
itself. What the lab never does, and what asks for a ztunnel that was patched, is declined: that is
an answer too, and counted apart."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from meshwake.core.errors import ExitCode
from meshwake.ztunnel import binaries

from tests.bench.numbers import Number, hand_over, seconds_of
from tests.support.paths import REPOSITORY
from tests.support.unprivileged_user import refusal, run_scenarios

WITHIN_S = 1800


def measure(version: str, ztunnel: Path) -> list[Number]:
    """How many scenarios came out as expected, of those that the lab does; how many it declines;
    real time."""
    ends: Counter[int] = Counter()

    def run() -> None:
        ends.update(exit_codes(version, ztunnel))

    real_s = seconds_of(run)
    declined, passed = float(ends[ExitCode.LAB_UNAVAILABLE]), float(ends[ExitCode.AS_EXPECTED])
    done = ends.total() - declined
    part = f"corpus {version}"
    return [
        Number(
            part,
            "as_expected_without_rights",
            passed,
            "",
            passed / done,
            "scenarios that the lab does",
        ),
        Number(part, "declined", declined, "", declined / ends.total(), "scenarios"),
        Number(part, "seconds_a_scenario", real_s / done, "s"),
    ]


def exit_codes(version: str, ztunnel: Path) -> list[int]:
    """Of every scenario below scenarios/, in lab process."""
    with tempfile.TemporaryDirectory(prefix="meshwake-bench-") as directory:
        ended = run_scenarios(
            REPOSITORY / "scenarios", ztunnel, version, Path(directory) / "home", WITHIN_S
        )
    try:
        return [each["exit_code"] for each in json.loads(ended.stdout)]
    except ValueError:
        raise SystemExit(
            f"meshwake run ended with {ended.returncode}: {ended.stderr.strip()[-300:]}"
        ) from None


def main() -> None:
    """One release."""
    (version,) = sys.argv[1:]
    found = binaries.find(version)
    if found is None:
        raise SystemExit(f"no ztunnel {version} in the cache")
    if why_not := refusal():
        raise SystemExit(why_not)
    hand_over(measure(version, found.path))


if __name__ == "__main__":
    main()
