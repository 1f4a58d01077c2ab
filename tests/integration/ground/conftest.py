"""The real API server: started when the first test asks for it, once per test process, gone with
it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.ground.api import RealApi, start_api
from tests.integration.ground.programs import FOR_WORKLOADS, control_plane_or_skip

NODES = ("meshwake-ground-worker", "meshwake-ground-worker2", "meshwake-ground-control-plane")


@pytest.fixture(scope="session")
def real_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApi]:
    """etcd and kube-apiserver; shared by all tests of a process, so each takes its own namespace or
    dry-runs."""
    api = start_api(control_plane_or_skip(), tmp_path_factory.mktemp("real-api"))
    yield api
    api.end()


@pytest.fixture
def real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApi]:
    """An API server of this test's own, with controllers and three simulated nodes, named as kind
    names them."""
    api = start_api(control_plane_or_skip(*FOR_WORKLOADS), tmp_path_factory.mktemp("real-cluster"))
    try:
        api.start_controllers()
        api.start_nodes(NODES)
        yield api
    finally:
        api.end()
