"""The cluster that MESHWAKE_TEST_CLUSTER names, one of ours that `meshwake up` made; without it
every test is skipped.

    meshwake up --name trial ...
    MESHWAKE_TEST_CLUSTER=trial pytest tests/cluster                  (everything; hours)
    MESHWAKE_TEST_CLUSTER=trial pytest tests/cluster -m "not slow"    (about an hour)

MESHWAKE_TEST_RUNS: a directory that keeps the histories of the runs. Tests that need a part of the
stack are marked with it, @pytest.mark.needs("observability"), and skipped on a cluster without it.
One at a time, never with -n.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from meshwake.cluster.cluster import find_cluster
from meshwake.cluster.docker import open_engine

from tests.cluster.trial import Trial

VARIABLE, RUNS_VARIABLE = "MESHWAKE_TEST_CLUSTER", "MESHWAKE_TEST_RUNS"


def pytest_configure(config: pytest.Config) -> None:
    """The marks of this suite."""
    config.addinivalue_line(
        "markers", "needs(part, ...): parts of the stack that the cluster must have"
    )
    config.addinivalue_line("markers", "slow: a run of more than ten minutes, or many of them")


@pytest.fixture(scope="session")
def whole_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """See the module; use `trial`."""
    name = os.environ.get(VARIABLE)
    if not name:
        pytest.skip(f"needs {VARIABLE}: the name of a cluster by meshwake up")
    cluster = find_cluster(name if name.startswith("meshwake-") else f"meshwake-{name}")
    assert cluster is not None, (
        f"{VARIABLE}={name}: no such cluster was brought up here; see meshwake status"
    )
    directory = tmp_path_factory.mktemp("trial")
    runs = Path(os.environ.get(RUNS_VARIABLE) or directory / "runs").resolve()
    engine = open_engine()
    try:
        trial = Trial(cluster, engine, directory, runs)
        trial.bring_up_to_date()
        yield trial
    finally:
        engine.close()


@pytest.fixture
def trial(whole_session: Trial, request: pytest.FixtureRequest) -> Trial:
    """The cluster, without what an earlier test may have left; skips what it has not the parts for."""
    needed = {str(part) for mark in request.node.iter_markers("needs") for part in mark.args}
    if lacking := sorted(needed - whole_session.parts):
        pytest.skip(
            f"needs a cluster with {', '.join(lacking)}; {whole_session.name} was made without"
        )
    return whole_session
