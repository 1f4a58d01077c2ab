"""Every plain object of ours, valid for every pinned Kubernetes, and for the definitions of its own
project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.pieces import Facts, Objects, read_objects
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import stages
from meshwake.cluster.stack.workloads import workload_objects
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import identity_of
from meshwake.ztunnel.binaries import cache_dir

from tests.integration.stack.definitions import NotAsDefined, check_defined, definitions
from tests.integration.stack.schemas import VERSIONS, check_known, crd_schemas
from tests.unit.cluster.stack.test_workloads import MACHINES, PLAN

# Kinds that Kubernetes does not have itself, and the project whose definitions the cache may have.
PROJECTS = {
    "gateway.networking.k8s.io": "gateway-api",
    "metallb.io": "metallb",
}
OTHERS_CHECK = {"cert-manager.io": "tests/integration/stack/test_cert_manager.py"}


def _objects() -> list[dict[str, Any]]:
    choice = choose_stack(read_pins(), profile="full")
    pieces = [
        piece
        for stage in stages(choice, read_pins(), Facts(pool="172.18.255.204-172.18.255.253"))
        for piece in stage.pieces
    ]
    return [thing for piece in pieces if isinstance(piece, Objects) for thing in piece.objects]


def _all_objects(plan: Plan = PLAN) -> list[Mapping[str, Any]]:
    return [*_objects(), *workload_objects(plan, MACHINES)]


def _foreign(group: str) -> Iterator[Mapping[str, Any]]:
    yield from (thing for thing in _all_objects() if thing["apiVersion"].partition("/")[0] == group)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_objects_are_valid_for_every_pinned_kubernetes(version: str) -> None:
    """Strictly: a field that Kubernetes does not know is an error, though a server would only drop
    it."""
    unknown = [thing for thing in _all_objects() if not check_known(thing, version)]
    groups = {thing["apiVersion"].partition("/")[0] for thing in unknown}
    assert groups == set(PROJECTS) | set(OTHERS_CHECK)


def test_an_unknown_field_is_found() -> None:
    """So the test above can fail."""
    (_, deployment, _) = read_objects("workloads", "identity.yaml")
    deployment["spec"]["replicaz"] = 2
    with pytest.raises(NotAsDefined, match="replicaz"):
        check_known(deployment, VERSIONS[0])


@pytest.mark.parametrize("group", sorted(PROJECTS))
def test_objects_of_others_are_as_they_define_them(group: str) -> None:
    """Against the newest definitions in the cache."""
    schemas = definitions(PROJECTS[group])
    things = list(_foreign(group))
    assert things
    for thing in things:
        check_defined(thing, schemas)


@pytest.mark.parametrize(
    "release", sorted({pin.gateway_api for pin in read_pins().istio.minor.values()})
)
def test_gateway_objects_are_valid_for_each_gateway_api(release: str) -> None:
    """One set of manifests for all Istio minors, whose Gateway API differs."""
    folder = cache_dir() / "crds" / "gateway-api" / release.removeprefix("v")
    if not folder.is_dir():
        pytest.skip(
            f"needs real definitions in {cache_dir() / 'crds'}/PROJECT/VERSION/ "
            "(docs/stack.md says whose)"
        )
    schemas = crd_schemas(folder)
    for thing in _foreign("gateway.networking.k8s.io"):
        assert (thing["apiVersion"], thing["kind"]) in schemas, identity_of(thing)
        check_defined(thing, schemas)
