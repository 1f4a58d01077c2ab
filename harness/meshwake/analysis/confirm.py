"""Rows of the matrix run on a real ztunnel, alone or in a cluster, and what it showed recorded (confirmed.py)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from meshwake.analysis.confirmed import DIRECTORY, Confirmation, save
from meshwake.analysis.matrix import plan_for, row_of, world_sha256
from meshwake.core import versions
from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.core.history import History
from meshwake.core.json_types import list_at
from meshwake.core.plan import Plan, PlannedCluster
from meshwake.core.scenario import Scenario
from meshwake.core.versions import Release
from meshwake.fixes import FIXES
from meshwake.labs import Toolbox, load_lab
from meshwake.runner.execution import execute
from meshwake.runner.options import Options
from meshwake.runner.subjects import find_subjects
from meshwake.ztunnel import binaries


class ConfirmingPlace(NamedTuple):
    """Where pairs are run: a lab, the release there, and the binary or the cluster."""

    lab: str
    release: Release
    ztunnel: Path | None = None
    cluster: PlannedCluster | None = None


def on_binary(ztunnel: Path | None, istio: str | None) -> ConfirmingPlace:
    """`ztunnel`, or the newest binary of the cache. Raises BadInput, LabUnavailable."""
    path, release = find_subject(ztunnel, istio)
    return ConfirmingPlace("process", release, ztunnel=path)


def on_cluster(cluster: PlannedCluster, istio: str | None) -> ConfirmingPlace:
    """The cluster that a run on lab kind would use. Raises BadInput, LabUnavailable."""
    options = Options(lab="kind", istio=() if istio is None else (istio,), cluster=cluster)
    (subject,) = find_subjects(options)
    return ConfirmingPlace("kind", versions.find(subject.version), cluster=cluster)


def confirm(
    fixes: Iterable[str],
    scenarios: dict[str, Scenario],
    place: ConfirmingPlace,
    seed: int,
    report: Callable[[str, str], None],
    directory: Path = DIRECTORY,
) -> list[Confirmation]:
    """Every pair that the lab of `place` can run. A pair that it cannot run is reported and left
    out. Raises LabUnavailable when it can run nothing at all, BadInput."""
    lab = load_lab(place.lab)
    if missing := lab.missing(place.ztunnel):
        raise LabUnavailable("; ".join(missing))
    done = []
    for name in fixes:
        for fault, scenario in scenarios.items():
            plan = plan_for(FIXES[name], scenario, place.release, place.lab, seed)
            plan = plan.model_copy(update={"cluster": place.cluster})
            if refusals := lab.refusals(plan):
                report(name, f"{fault}: not on lab {place.lab}: {'; '.join(refusals)}")
                continue
            report(name, fault)
            confirmation = _confirmed(plan, place, name, fault)
            # One file a pair, at once: an interrupted hour keeps what it has shown.
            save(confirmation, directory)
            done.append(confirmation)
    return done


def _confirmed(plan: Plan, place: ConfirmingPlace, fix: str, fault: str) -> Confirmation:
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="meshwake-confirm-") as work:
        run = execute(plan, Toolbox(place.ztunnel, Path(work)))
    row = row_of(run, fix, fault)
    return Confirmation(
        fix=fix,
        fault=fault,
        verdict=row.verdict,
        outage_s_per_week=row.outage_s_per_week,
        recovery_s_worst=row.recovery_s_worst,
        restarts=row.restarts,
        certificates=row.certificates,
        version=place.release.version,
        binary_sha256=_sha256_of(place.ztunnel, run.history),
        date=datetime.now(UTC).date().isoformat(),
        world_sha256=world_sha256(plan),
        real_s=round(time.perf_counter() - began_s, 1),
        lab=place.lab,
    )


def _sha256_of(ztunnel: Path | None, history: History) -> str:
    """Of the binary; in a cluster of the image that its ztunnels run."""
    if ztunnel is not None:
        return binaries.sha256_of(ztunnel)
    (started,) = history.of("run_started")
    image = str(list_at(started.data, "subject", "image_ids", "ztunnel")[0])
    return image.rpartition("sha256:")[2]


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
