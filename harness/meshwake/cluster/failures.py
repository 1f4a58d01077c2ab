"""What is collected when a step fails, and the reason that is found in it (causes.py)."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from meshwake.cluster.bring_up_context import LOGS, BringUpContext
from meshwake.cluster.causes import first_cause, read_evidence
from meshwake.cluster.docker import Container
from meshwake.cluster.preflight import PREFLIGHT
from meshwake.cluster.steps import BringUpStep, Collected
from meshwake.core.errors import HarnessError, LabUnavailable

EXPORT_LOGS_WITHIN_S = 180


def collect(
    bringup: BringUpContext, step: BringUpStep[BringUpContext], error: HarnessError
) -> Collected:
    """Whatever can explain a failure, in a directory of its own; nothing before there was anything
    to collect from."""
    if step.name == PREFLIGHT:
        return Collected(None)  # nothing was done yet, and machines of that name may not be ours
    machines: tuple[Container, ...] = ()
    with suppress(LabUnavailable):
        machines = bringup.containers()
    if not machines:
        return Collected(
            bringup.state.directory if (bringup.state.directory / LOGS).is_dir() else None
        )
    place = _fresh_directory(bringup.state.directory / "failures", step.name)
    (place / "error.txt").write_text(f"{error}\n", encoding="utf-8")

    # Each by itself: a cluster whose API does not answer still has logs.
    for work in (_collect_objects, _collect_logs):
        try:
            work(bringup, place)
        except HarnessError as second:
            (place / f"not-collected{work.__name__}.txt").write_text(
                f"{second}\n", encoding="utf-8"
            )
    cause = first_cause(read_evidence(place), str(error))
    return Collected(place, None if cause is None else str(cause))


def _fresh_directory(parent: Path, name: str) -> Path:
    # An earlier failure of the same step stays: what differs between two may be the reason.
    number = 1
    while (place := parent / f"{name}-{number}").exists():
        number += 1
    place.mkdir(parents=True)
    return place


def _collect_objects(bringup: BringUpContext, place: Path) -> None:
    if not bringup.state.kubeconfig.is_file():
        return
    for kind in ("Node", "Pod", "Event", "Deployment.apps", "DaemonSet.apps", "Service"):
        found = bringup.kube().all(kind)
        (place / f"{kind.partition('.')[0].lower()}s.json").write_text(
            json.dumps(found, indent=1), encoding="utf-8"
        )


def _collect_logs(bringup: BringUpContext, place: Path) -> None:
    target = str(place / "kind")
    bringup.tools.run(
        "kind", "export", "logs", target, "--name", bringup.name, within_s=EXPORT_LOGS_WITHIN_S
    )
