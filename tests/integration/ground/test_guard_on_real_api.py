"""The wake guard's objects on a real API server: taken strictly, and its rights as the server's own
authorizer sees them."""

from __future__ import annotations

import pytest
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.guard.cluster import Places

from tests.integration.ground.api import RealApi
from tests.integration.ground.programs import Deadline

GUARD = "system:serviceaccount:meshwake-guard:wake-guard"
PLACES = Places("guarded-ztunnel", "guarded-istiod", ("guarded-web",))
OF_PROXIES = {
    ("list", "pods", ""),
    ("get", "pods", "portforward"),
    ("create", "pods", "portforward"),
    ("create", "pods", "eviction"),
    ("create", "events", ""),
}
OF_LEASES = {(verb, "leases", "") for verb in ("create", "get", "update")}
ALLOWED = {
    "guarded-ztunnel": OF_PROXIES,
    "guarded-web": OF_PROXIES,
    "guarded-istiod": {("list", "pods", "")},
    "meshwake-guard": OF_LEASES,
    "default": set(),
    "kube-system": set(),
    "": set(),  # all namespaces at once
}
TRIED = (
    OF_PROXIES
    | OF_LEASES
    | {(verb, "pods", "") for verb in ("get", "delete", "create", "patch", "watch")}
    | {(verb, "secrets", "") for verb in ("get", "list")}
    | {("create", "pods", "exec"), ("get", "nodes", ""), ("create", "serviceaccounts", "token")}
)
IN_FORCE_WITHIN_S = 30


def may(api: RealApi, namespace: str, verb: str, resource: str, subresource: str) -> bool:
    """What the server's authorizer says of the guard's service account."""
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "resource": resource,
        "subresource": subresource,
        "group": "coordination.k8s.io" if resource == "leases" else "",
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "metadata": {"name": ""},
        "spec": {"user": GUARD, "resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool(api.request("POST", path, review)["status"].get("allowed"))


@pytest.fixture
def with_guard(real_api: RealApi) -> RealApi:
    """A server with the guard's objects; they are in force once its Leases may be read."""
    for name in (PLACES.ztunnel, PLACES.istiod, *PLACES.gateways):
        real_api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    real_api.apply_all(guard_objects(PLACES))
    deadline = Deadline("the guard's roles are in force", IN_FORCE_WITHIN_S, real_api._running())
    while not all(
        may(real_api, namespace, *right)
        for namespace, rights in ALLOWED.items()
        for right in rights
    ):
        deadline.pause("a right is still missing")
    return real_api


def test_the_guard_may_what_it_needs_and_nothing_else(with_guard: RealApi) -> None:
    """Above all nothing in a namespace that was not named, and nothing in all of them."""
    found = {
        namespace: {right for right in TRIED if may(with_guard, namespace, *right)}
        for namespace in ALLOWED
    }
    assert found == ALLOWED
