"""Where the ztunnels of a cluster are. Istio's charts put them into istio-system, OpenShift Service
Mesh into ztunnel, and a split installation into any namespace: they are known by their label, in
all namespaces.
"""

from __future__ import annotations

from meshwake.core.errors import BadInput, LabUnavailable
from meshwake.kubernetes.api import Kubernetes, Pod, Refused
from meshwake.ztunnel.names import USUAL_ZTUNNEL_NAMESPACES, ZTUNNEL_LABELS, selector

_SELECTED = f"label {selector(ZTUNNEL_LABELS)}"


def find_ztunnels(kubernetes: Kubernetes, namespace: str | None = None) -> list[Pod]:
    """The pods of every ztunnel, all in one namespace: in `namespace`, or else wherever they are.
    LabUnavailable when there are none; BadInput when several namespaces have some, and which one is
    meant is unknown."""
    if namespace is not None:
        pods = kubernetes.pods(namespace, ZTUNNEL_LABELS)
        if not pods:
            raise LabUnavailable(
                f"no ztunnel in {namespace} ({_SELECTED}); leave --namespace out to look everywhere"
            )
        return pods

    try:
        pods = kubernetes.pods(None, ZTUNNEL_LABELS)
    except Refused as refused:
        pods = _in_usual_places(kubernetes, refused)

    found = sorted({pod.namespace for pod in pods})
    if len(found) > 1:
        raise BadInput(
            f"ztunnels run in {len(found)} namespaces: {', '.join(found)}; say which: "
            "--namespace NAME"
        )
    if not pods:
        raise LabUnavailable(
            f"no ztunnel in any namespace ({_SELECTED}); is Istio in ambient mode here?"
        )
    return pods


def _in_usual_places(kubernetes: Kubernetes, refused: Refused) -> list[Pod]:
    """For who may not list the pods of all namespaces."""
    seen = False
    for namespace in USUAL_ZTUNNEL_NAMESPACES:
        try:
            pods = kubernetes.pods(namespace, ZTUNNEL_LABELS)
        except Refused:
            continue
        if pods:
            return pods
        seen = True

    # None of them may be seen: the first refusal says more than that nothing was found.
    if not seen:
        raise refused

    places = " and ".join(USUAL_ZTUNNEL_NAMESPACES)
    raise LabUnavailable(
        f"no ztunnel in {places} that may be seen ({_SELECTED}), and all namespaces may not "
        f"be listed ({refused}); "
        "say where it is: --namespace NAME"
    )
