"""A Gateway whose status istiod does not compute again.

istiod computes the status of its Gateways when a Service changes, and not when an endpoint does
(`updateContext` in pilot/pkg/model/push_context.go at 1.31.0-rc.0). If that falls into the seconds
in which a Gateway has no pod that is ready (its node is restarted), the status stays as it was then:
Programmed is False, "no instances found for hostname", although requests are answered since. Seen on
a real cluster for the six minutes until its Service was changed by hand; changing the Gateway itself
does not help. So `up` changes the Service: a label, which is removed again at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshwake.core.json_types import JsonObject, text_at
from meshwake.kubernetes.api import Kubernetes, condition, identity_of, namespace_and_name
from meshwake.kubernetes.rollouts import unmet
from meshwake.ztunnel.names import GATEWAY_LABEL

# On the Service for a moment. istiod looks at labels, not at annotations.
RECOMPUTE = "meshwake.dev/recompute-status"
_NO_POD_WAS_READY = "no instances found"


def recompute_stale(kube: Kubernetes, gateways: Iterable[JsonObject]) -> Iterator[str]:
    """Has istiod compute the status of those of `gateways` whose pods are ready and whose status
    says that there are none; their names."""
    for gateway in gateways:
        if not _is_stale(kube, gateway):
            continue

        for service in _of(kube, "Service", gateway):
            _touch(kube, service)
        yield identity_of(gateway)


def _is_stale(kube: Kubernetes, gateway: JsonObject) -> bool:
    programmed = condition(gateway, "Programmed")
    if programmed.get("status") != "False":
        return False

    # Of the reasons for which a Gateway is not programmed, only this one can be out of date.
    message = text_at(programmed, "message")
    if _NO_POD_WAS_READY not in message:
        return False

    deployments = _of(kube, "Deployment.apps", gateway)
    if not deployments:
        return False
    return not any(unmet(each) for each in deployments)


def _of(kube: Kubernetes, kind: str, gateway: JsonObject) -> list[JsonObject]:
    """What its controller made for a Gateway."""
    namespace, name = namespace_and_name(gateway)
    return [*kube.all(kind, namespace, {GATEWAY_LABEL: name})]


def _touch(kube: Kubernetes, service: JsonObject) -> None:
    namespace, name = namespace_and_name(service)
    # Two changes of the Service; after the second it is as it was.
    for value in ("now", None):
        labels = {RECOMPUTE: value}
        kube.patch("Service", namespace, name, {"metadata": {"labels": labels}})
