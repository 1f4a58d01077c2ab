"""Rows of the matrix that a real ztunnel confirmed, by itself or in a whole cluster: what ran, on
which binary, when, and with what result.

One small JSON file a row in confirmed_rows/ in this directory, written by `meshwake matrix
--confirm` from the run itself. A file counts for the world that it was made in (`world_sha256`):
when the world of a row changes, it is no longer confirmed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from meshwake.core.errors import BadInput
from meshwake.core.resources import PACKAGE

DIRECTORY = PACKAGE / "analysis" / "confirmed_rows"


@dataclass(frozen=True)
class Confirmation:
    """One row as a real ztunnel showed it. `binary_sha256` names the binary, or the image in a
    cluster, `date` is that of the run, `lab` process or kind."""

    fix: str
    fault: str
    verdict: str
    outage_s_per_week: float
    recovery_s_worst: float
    restarts: int
    certificates: int
    version: str
    binary_sha256: str
    date: str
    world_sha256: str
    real_s: float
    lab: str = "process"

    @property
    def file_name(self) -> str:
        """One file a row and lab: a newer run takes the place of an older one."""
        lab = "" if self.lab == "process" else f"-on-{self.lab}"
        return f"{self.fix}-{self.fault}{lab}.json"


_NEEDED = [field.name for field in fields(Confirmation) if field.name != "lab"]


def confirmations(directory: Path = DIRECTORY) -> dict[tuple[str, str], Confirmation]:
    """All of them, by lab and the world they were made in. Raises BadInput when a file is
    damaged."""
    found = {}
    for path in sorted(directory.glob("*.json")):
        row = read_confirmation(path)
        found[row.lab, row.world_sha256] = row
    return found


def read_confirmation(path: Path) -> Confirmation:
    """Raises BadInput when `path` is not such a file."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Files from before clusters were tried name no lab.
        lab = raw.pop("lab", "process")
        # A key that is missing is an error; one more, of a later meshwake, is not.
        return Confirmation(lab=lab, **{name: raw[name] for name in _NEEDED})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path}: is not a confirmed row ({error!r}); write it again with meshwake matrix "
            "--confirm"
        ) from error


def save(confirmation: Confirmation, directory: Path = DIRECTORY) -> Path:
    """Writes it where `confirmations` finds it."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / confirmation.file_name
    path.write_text(json.dumps(vars(confirmation), indent=2) + "\n", encoding="utf-8")
    return path
