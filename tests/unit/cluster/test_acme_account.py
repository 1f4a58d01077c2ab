"""When the authority of the lab has forgotten cert-manager's account, and what is done then."""

from __future__ import annotations

from typing import Any

import pytest
from meshwake.cluster.acme_account import ISSUER_ANNOTATION, forget, is_forgotten
from meshwake.kubernetes.labels import OUR_LABELS

from tests.support.fake_kubernetes import FakeKubernetes, Key

ISSUER: Key = ("ClusterIssuer", None, "meshwake-acme")
ACCOUNT: Key = ("Secret", "cert-manager", "meshwake-acme-account")
CERTIFICATE: Key = ("Certificate", "meshwake-demo", "demo-tls")
SERVED: Key = ("Secret", "meshwake-demo", "demo-tls")
MADE, STARTED_BEFORE, STARTED_AFTER = (
    "2026-11-30T17:34:10Z",
    "2026-11-30T17:33:02Z",
    "2026-11-30T17:55:41Z",
)


class Cluster(FakeKubernetes):
    """One with an account, whose pebble was started at `started` ("": it does not run)."""

    def __init__(self, started: str) -> None:
        state = {"running": {"startedAt": started}} if started else {"waiting": {}}
        self.objects: dict[Key, Any] = {
            ISSUER: {
                "metadata": {"name": ISSUER[2]},
                "status": {"acme": {"lastPrivateKeyHash": "of the first key"}},
            },
            ACCOUNT: {"metadata": {"name": ACCOUNT[2], "creationTimestamp": MADE}},
            CERTIFICATE: {
                "metadata": {
                    "namespace": CERTIFICATE[1],
                    "name": CERTIFICATE[2],
                    "labels": dict(OUR_LABELS),
                },
                "spec": {"secretName": "demo-tls"},
            },
            SERVED: {"metadata": {"name": SERVED[2]}},
            ("Pod", "meshwake-acme", "pebble-1"): {
                "metadata": {"name": "pebble-1", "labels": {"app": "pebble"}},
                "status": {"containerStatuses": [{"state": state}]},
            },
        }
        self.deleted: list[str] = []

    def patch(self, kind: str, namespace: str, name: str, patch: Any) -> None:
        self.objects[kind, namespace, name]["metadata"].update(patch["metadata"])

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        self.deleted.append(name)
        return super().delete_ours(kind, namespace, name)


@pytest.mark.parametrize(
    ("started", "forgotten"), [(STARTED_BEFORE, False), (STARTED_AFTER, True), ("", False)]
)
def test_a_pebble_that_was_started_later_has_no_account(started: str, forgotten: bool) -> None:
    assert is_forgotten(Cluster(started)) == forgotten


def test_without_an_account_nothing_is_forgotten() -> None:
    """The first `up`."""
    cluster = Cluster(STARTED_AFTER)
    del cluster.objects[ACCOUNT]
    assert not is_forgotten(cluster)


def test_the_certificates_go_first_and_come_back_with_a_new_account() -> None:
    """One that is applied while the old account is used would fail, and wait for an hour."""
    cluster = Cluster(STARTED_AFTER)
    unregistered = forget(cluster, [cluster.objects[CERTIFICATE]])
    assert cluster.deleted == ["demo-tls", "meshwake-acme-account"]
    assert not cluster.objects.keys() & {ACCOUNT, CERTIFICATE}
    # What is served stays, and is of another issuer: pebble has another root now.
    assert cluster.objects[SERVED]["metadata"]["annotations"][ISSUER_ANNOTATION] != ISSUER[2]
    assert unregistered() == "ClusterIssuer meshwake-acme has its old account"
    cluster.objects[ISSUER]["status"]["acme"]["lastPrivateKeyHash"] = "of the second key"
    assert unregistered() is None
