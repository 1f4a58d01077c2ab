"""Which lab can run on this machine, why another cannot, and what to install. It only examines, and
changes nothing."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from meshwake.core import versions
from meshwake.core.json_types import MutableJsonObject
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
    """What `meshwake doctor` found."""

    python: str
    system: str
    cache: str
    ztunnels: tuple[tuple[str, str], ...]
    misplaced: tuple[str, ...]
    labs: tuple[LabHealth, ...]
    auto: str

    def to_json(self) -> MutableJsonObject:
        """As `meshwake doctor --json` prints it."""
        found = asdict(self)
        # By name, so that a reader of the JSON need not know their order.
        found["ztunnels"] = [{"version": version, "path": path} for version, path in self.ztunnels]
        return found


def examine() -> Health:
    """Examines this machine. Never raises: a probe that fails is itself a finding."""
    found = binaries.cached()
    labs = tuple(_examine_lab(name, found) for name in LAB_MODULES)
    ready = {lab.lab for lab in labs if lab.can_run}
    return Health(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cache=str(binaries.cache_dir()),
        ztunnels=tuple((binary.version, str(binary.path)) for binary in found),
        misplaced=tuple(map(str, binaries.misplaced())),
        labs=labs,
        # As --lab auto chooses (runner/choose.py), unless a scenario does not fit the lab.
        auto="process" if "process" in ready else "model",
    )


def _examine_lab(name: str, found: tuple[binaries.CachedBinary, ...]) -> LabHealth:
    if name not in WITH_BINARY:
        return _health(name, _missing(name, None))

    if not sys.platform.startswith("linux"):
        return _health(name, ["needs Linux; --lab model runs here"])

    # The newest binary, which is what a run without --istio would use.
    if found:
        return _health(name, _missing(name, found[-1].path))

    # How to get a binary helps more than that there is none.
    others = [reason for reason in _missing(name, None) if reason != NO_BINARY]
    return _health(name, [_how_to_get_a_binary(), *others])


def _health(name: str, reasons: list[str]) -> LabHealth:
    """`reasons` why the lab cannot run here; some may be given twice, by two of its parts."""
    return LabHealth(name, not reasons, tuple(dict.fromkeys(reasons)))


def _how_to_get_a_binary() -> str:
    newest = versions.newest().version
    return (
        f"no ztunnel binary in the cache; put one at {binaries.place_of(newest)} "
        f"(meshwake fetch {newest}), or pass --ztunnel PATH"
    )


def _missing(name: str, ztunnel: Path | None) -> list[str]:
    try:
        return load_lab(name).missing(ztunnel)
    except Exception as error:  # noqa: BLE001  report a probe that failed instead of raising
        return [f"could not be examined: {type(error).__name__}: {error}"]
