"""Ports and paths at which ztunnel, Envoy and istiod answer, the same at every release.

Sources: istio/ztunnel src/config.rs (its ports), istio pkg/config/constants and the charts (istiod).
The admin interfaces listen on the localhost of their pod only.
"""

from __future__ import annotations

# ztunnel's admin interface, and the one of every Envoy.
ADMIN_PORT = 15000
CONFIG_DUMP_PATH = "/config_dump"
# Envoy only: the certificates that it serves.
ENVOY_CERTIFICATES_PATH = "/certs"

# Where the redirection rules of a pod send connections: outbound, and inbound that is not HBONE.
OUTBOUND_PORT = 15001
INBOUND_PLAINTEXT_PORT = 15006
# mTLS between ztunnels: HTTP CONNECT over TLS.
HBONE_PORT = 15008
# A way in for outbound traffic without redirection rules (UNSTABLE_ENABLE_SOCKS5).
SOCKS_PORT = 15080

# Prometheus metrics: `METRICS_PATH` of ztunnel, `ENVOY_METRICS_PATH` of an Envoy with its agent.
METRICS_PORT = 15020
METRICS_PATH = "/metrics"
ENVOY_METRICS_PATH = "/stats/prometheus"

# istiod: certificates and configuration over TLS; metrics and its version.
ISTIOD_PORT = 15012
ISTIOD_MONITORING_PORT = 15014
