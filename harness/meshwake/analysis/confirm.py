"""Rows of the matrix run on a real ztunnel, and what it showed recorded (confirmed.py)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from meshwake.analysis.confirmed import DIRECTORY, Confirmation, save
from meshwake.analysis.matrix import plan_for, row_of, world_sha256
from meshwake.core import versions
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.scenario import Scenario
from meshwake.core.versions import Release
from meshwake.fixes import FIXES
from meshwake.labs import Toolbox, load_lab
from meshwake.runner.execution import execute
from meshwake.ztunnel import binaries


def confirm(
    fixes: Iterable[str],
    scenarios: dict[str, Scenario],
    ztunnel: Path | None,
    istio: str | None,
    seed: int,
    report: Callable[[str, str], None],
    directory: Path = DIRECTORY,
) -> list[Confirmation]:
    """Every pair that the process lab can run, on `ztunnel` or on the newest binary of the cache. A
    pair that it cannot run is reported and left out. Raises LabUnavailable when it can run nothing
    at all, BadInput."""
    path, release = find_subject(ztunnel, istio)
    lab = load_lab("process")
    if missing := lab.missing(path):
        raise LabUnavailable("; ".join(missing))
    done = []
    for name in fixes:
        for fault, scenario in scenarios.items():
            plan = plan_for(FIXES[name], scenario, release, "process", seed)
            if refusals := lab.refusals(plan):
                report(name, f"{fault}: not on lab process: {'; '.join(refusals)}")
                continue
            report(name, fault)
            with tempfile.TemporaryDirectory(prefix="meshwake-confirm-") as work:
                began_s = time.perf_counter()
                row = row_of(execute(plan, Toolbox(path, Path(work))), name, fault)
            confirmation = Confirmation(
                fix=name,
                fault=fault,
                verdict=row.verdict,
                outage_s_per_week=row.outage_s_per_week,
                recovery_s_worst=row.recovery_s_worst,
                restarts=row.restarts,
                certificates=row.certificates,
                version=release.version,
                binary_sha256=binaries.sha256_of(path),
                date=datetime.now(UTC).date().isoformat(),
                world_sha256=world_sha256(plan),
                real_s=round(time.perf_counter() - began_s, 1),
            )
            # One file a pair, at once: an interrupted hour keeps what it has shown.
            save(confirmation, directory)
            done.append(confirmation)
    return done


def find_subject(ztunnel: Path | None, istio: str | None) -> tuple[Path, Release]:
    """The binary that was given, or the newest of the cache, and its release. Raises BadInput,
    LabUnavailable."""
    if ztunnel is not None:
        if istio is None:
            raise BadInput(
                f"--ztunnel {ztunnel}: name the release it was built from: --istio VERSION"
            )
        return ztunnel, versions.find(istio)
    cached = {binary.version: binary.path for binary in binaries.cached()}
    wanted = versions.releases() if istio is None else (versions.find(istio),)
    found = [release for release in wanted if release.version in cached]
    if not found:
        raise LabUnavailable(
            "no ztunnel binary in the cache (see meshwake doctor); pass --ztunnel PATH --istio "
            "VERSION"
        )
    return cached[found[-1].version], found[-1]
