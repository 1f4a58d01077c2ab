"""Runs the parts of a sweep: in this process, on all cores of this machine, or on an existing Dask
cluster.

Each runner takes parts and yields them with their rows as they come, in any order. None of them
keeps anything: the sweep writes down what was yielded, and runs the rest again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

from meshwake.analysis.sweep import MachineResult, PartRunner, SweepPart, simulate_part
from meshwake.core.errors import HarnessFault, LabUnavailable
from meshwake.core.extras import require

ANSWERS_WITHIN_S = 10
# A part whose worker has died is given to another one; a part that no worker survives must end the
# sweep.
DEATHS_OF_WORKERS_MAX = 10


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_this_machine(jobs: int) -> PartRunner:
    """`jobs` processes of this machine; with one, this very process."""

    def one(todo: list[SweepPart]) -> Iterator[tuple[SweepPart, list[MachineResult]]]:
        yield from ((part, simulate_part(part)) for part in todo)

    def several(todo: list[SweepPart]) -> Iterator[tuple[SweepPart, list[MachineResult]]]:
        if not todo:
            return
        # Not forked: a fork inherits the locks of the caller's threads.
        pool = ProcessPoolExecutor(jobs, get_context("spawn"), _leave_interrupts_to_the_parent)
        try:
            submitted = {pool.submit(simulate_part, part): part for part in todo}
            for future in as_completed(submitted):
                yield submitted[future], future.result()
        except BrokenProcessPool as error:
            raise HarnessFault(
                "a worker of the sweep died (out of memory, or killed); finished parts are kept: "
                "give the same command again, perhaps with fewer --jobs"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    return one if jobs == 1 else several


def _leave_interrupts_to_the_parent() -> None:
    # ^C goes to the whole process group; the parent ends its workers itself and keeps the results.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def on_dask(scheduler: str) -> Iterator[PartRunner]:
    """The workers of the Dask cluster at `scheduler`, which must be able to import `harness`.
    Workers may die: Dask gives their parts to others. Raises LabUnavailable where none answers."""
    require("sweep")
    from distributed import Client

    try:
        make: Any = Client  # it is typed only in part
        client = make(scheduler, timeout=ANSWERS_WITHIN_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise LabUnavailable(
            f"--scheduler {scheduler}: no Dask scheduler answers there within "
            f"{ANSWERS_WITHIN_S} s ({_words(error)}); "
            "start one (dask scheduler, dask worker ADDRESS) or leave --scheduler out to "
            "use this machine"
        ) from error
    try:
        yield lambda todo: _through(client, todo)
    finally:
        client.close()


def _through(client: Any, todo: list[SweepPart]) -> Iterator[tuple[SweepPart, list[MachineResult]]]:
    import distributed

    as_they_come: Any = distributed.as_completed

    if not client.scheduler_info()["workers"]:
        raise LabUnavailable("the Dask scheduler has no worker; start one: dask worker ADDRESS")

    # By a key of its own for each part: a part that was lost with its worker is submitted again
    # under the same name.
    submitted = {
        client.submit(
            simulate_part, part, key=_key(part), retries=DEATHS_OF_WORKERS_MAX, pure=True
        ): part
        for part in todo
    }
    try:
        for future in as_they_come(list(submitted), loop=client.loop):
            try:
                rows = future.result()
            except Exception as error:
                raise HarnessFault(
                    f"part {submitted[future].number} of the sweep failed on the Dask cluster "
                    f"({_words(error)}); finished "
                    "parts are kept: give the same command again"
                ) from error
            yield submitted[future], rows
            # Its rows are on disk now; the scheduler need not keep them.
            future.release()
    finally:
        client.cancel([future for future in submitted if not future.done()])


def _key(part: SweepPart) -> str:
    spec = part.spec
    machines = f"{part.first}-{part.last}"
    return f"meshwake-{part.population}-{part.version}-{part.lifetime_s}-{machines}-{hash_of(spec)}"


def hash_of(spec: Any) -> str:
    """Names a question, the same on every machine."""
    import hashlib
    import json

    return hashlib.sha256(json.dumps(spec.to_json(), sort_keys=True).encode()).hexdigest()[:12]


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
