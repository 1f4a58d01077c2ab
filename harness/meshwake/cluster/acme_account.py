"""The ACME account that the lab's own authority has forgotten.

pebble keeps accounts in its memory. When its container is restarted (a node, a machine), the account
that cert-manager has registered is unknown to it, every renewal fails ("Key ID (kid) in JWS header
missing expected URL prefix"), and cert-manager tries again only an hour after each failure, with the
same account. The Gateway's certificate lives for 15 minutes. Seen on a real cluster.

So `up` compares when pebble was started and when the account was made. Without its Secret
cert-manager registers a new account, and a Certificate that is applied again has no failure from
which an hour is counted. It is issued again, since pebble has another root now: its Secret gets the
name of another issuer, which cert-manager does not accept, and serves until the new one is there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from meshwake.cluster.stack.certificates import ACCOUNT_SECRET, ISSUER
from meshwake.cluster.stack.pieces import ACME_NAMESPACE, CERT_MANAGER_NAMESPACE
from meshwake.core.json_types import JsonObject, text_at
from meshwake.kubernetes.api import Kubernetes, container_starts, namespace_and_name
from meshwake.kubernetes.labels import OUR_LABELS

# On the Secret of a certificate. cert-manager compares it with the Certificate's `issuerRef`
# (policy SecretIssuerAnnotationsMismatch of its controller).
ISSUER_ANNOTATION = "cert-manager.io/issuer-name"
_PEBBLE = {"app": "pebble"}


def is_forgotten(kube: Kubernetes) -> bool:
    """Whether pebble was started after cert-manager registered its account there."""
    secret = kube.read("Secret", CERT_MANAGER_NAMESPACE, ACCOUNT_SECRET)
    if secret is None:
        return False

    # Times of the API are UTC, of whole seconds and of one form: their order is that of the texts.
    made = text_at(secret, "metadata", "creationTimestamp")
    pods = kube.all("Pod", ACME_NAMESPACE, _PEBBLE)
    if not made:
        return False

    starts: list[str] = []
    for pod in pods:
        starts += container_starts(pod)
    return any(start > made for start in starts)


def forget(kube: Kubernetes, certificates: list[JsonObject]) -> Callable[[], str | None]:
    """Deletes `certificates`, which are to be applied again when cert-manager has a new account,
    and then the account. Returns what is missing to that: None when it is registered. Ended in
    between, it is begun again by the next `up`, which misses the certificates."""
    before = _registered_key(kube)

    # The certificates first: one that is missing brings the next `up` back here, if this one ends.
    for certificate in certificates:
        namespace, name = namespace_and_name(certificate)
        kube.delete_ours("Certificate.cert-manager.io", namespace, name)
        _disown(kube, namespace, text_at(certificate, "spec", "secretName"))

    # It is cert-manager's: with our labels it is deleted like an object of ours.
    labels = {"metadata": {"labels": dict(OUR_LABELS)}}
    kube.patch("Secret", CERT_MANAGER_NAMESPACE, ACCOUNT_SECRET, labels)
    kube.delete_ours("Secret", CERT_MANAGER_NAMESPACE, ACCOUNT_SECRET)
    return partial(_unregistered, kube, before)


def _disown(kube: Kubernetes, namespace: str, secret: str) -> None:
    if kube.read("Secret", namespace, secret) is not None:
        annotations = {ISSUER_ANNOTATION: "a-pebble-that-was-restarted"}
        kube.patch("Secret", namespace, secret, {"metadata": {"annotations": annotations}})


def _unregistered(kube: Kubernetes, before: str) -> str | None:
    if _registered_key(kube) == before:
        return f"ClusterIssuer {ISSUER} has its old account"
    return None


def _registered_key(kube: Kubernetes) -> str:
    """A hash of the account's key; cert-manager writes it when the account is registered."""
    issuer = kube.read("ClusterIssuer.cert-manager.io", None, ISSUER) or {}
    return text_at(issuer, "status", "acme", "lastPrivateKeyHash")
