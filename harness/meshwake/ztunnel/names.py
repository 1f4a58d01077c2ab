"""What Istio calls its parts in a cluster: namespaces, labels, containers.

Sources: the charts ztunnel, istiod and gateway of istio/istio at 1.22.0 to 1.31.0-rc.0. OpenShift
Service Mesh 3 puts ztunnel into a namespace `ztunnel`, and a split installation puts it anywhere, so
a reader of clusters that are not ours goes by the label (kubernetes/ztunnels.py).
"""

from __future__ import annotations

from collections.abc import Mapping

ISTIO_NAMESPACE = "istio-system"
# Where ztunnel is looked for by a user who may not list the pods of all namespaces.
USUAL_ZTUNNEL_NAMESPACES = (ISTIO_NAMESPACE, "ztunnel")

ZTUNNEL_NAME, ISTIOD_NAME = "ztunnel", "istiod"
ZTUNNEL_LABELS: Mapping[str, str] = {"app": ZTUNNEL_NAME}
ISTIOD_LABELS: Mapping[str, str] = {"app": ISTIOD_NAME}
# On every Envoy that istiod makes for a Gateway; a waypoint is one.
GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
# By this label istiod marks the pods that it makes for a Gateway, by its controller: of a gateway,
# and of a waypoint.
MANAGED_LABEL = "gateway.istio.io/managed"
GATEWAY_CONTROLLERS = ("istio.io-gateway-controller", "istio.io-mesh-controller")

# The container with ztunnel, and the one with Envoy and its agent in a gateway or waypoint.
PROXY_CONTAINER = "istio-proxy"


def selector(labels: Mapping[str, str]) -> str:
    """`labels` as the API server and kubectl read them: app=ztunnel."""
    return ",".join(f"{key}={value}" for key, value in labels.items())
