"""Which lab can run on this machine, why another cannot, and what to install. It looks, and changes
nothing."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meshwake.core import versions
from meshwake.labs import LAB_MODULES, NO_BINARY, WITH_BINARY, load_lab
from meshwake.ztunnel import binaries


@dataclass(frozen=True)
class LabHealth:
    """One lab: can it run here, and if not, each reason with what to do."""

    lab: str
    can_run: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Health:
    """What the doctor found."""

    python: str
    system: str
    cache: str
    ztunnels: tuple[tuple[str, str], ...]
    labs: tuple[LabHealth, ...]
    auto: str

    def to_json(self) -> dict[str, Any]:
        """As `meshwake doctor --json` prints it."""
        found = asdict(self)
        found["ztunnels"] = [{"version": version, "path": path} for version, path in self.ztunnels]
        return found


def examine() -> Health:
    """Looks at this machine. Never raises: what cannot be asked is itself a finding."""
    found = binaries.cached()
    labs = tuple(_examine_lab(name, found) for name in LAB_MODULES)
    process_runs = any(lab.lab == "process" and lab.can_run for lab in labs)
    return Health(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cache=str(binaries.cache_dir()),
        ztunnels=tuple((binary.version, str(binary.path)) for binary in found),
        labs=labs,
        auto="process" if process_runs else "model",
    )


def _examine_lab(name: str, found: tuple[binaries.CachedBinary, ...]) -> LabHealth:
    if name in WITH_BINARY and not sys.platform.startswith("linux"):
        return LabHealth(name, False, ("needs Linux; --lab model runs here",))
    reasons = _missing(name, found[-1].path if found else None)
    if name in WITH_BINARY and not found:
        place = binaries.place_of(versions.newest().version)
        others = [reason for reason in reasons if reason != NO_BINARY]
        fetch = f"meshwake fetch {versions.newest().version}"
        reasons = [
            f"no ztunnel binary in the cache; put one at {place} ({fetch}), or pass --ztunnel PATH",
            *others,
        ]
    return LabHealth(name, not reasons, tuple(dict.fromkeys(reasons)))


def _missing(name: str, ztunnel: Path | None) -> list[str]:
    try:
        return load_lab(name).missing(ztunnel)
    except Exception as error:  # noqa: BLE001  a doctor that falls over helps nobody
        return [f"could not be asked: {type(error).__name__}: {error}"]
