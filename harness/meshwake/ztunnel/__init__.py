"""Facts of the system under test, once each: ztunnel, and of istiod and Envoy what a run needs.

    ports                where each of them answers
    names                namespaces, labels and containers in a cluster
    spiffe               identities of workloads
    environment          variables that a run sets
    config_dump          certificates of a ztunnel
    envoy_certificates   certificates of a gateway or waypoint
    logs                 what ztunnel's log says about certificates at fault
    renewal              when a certificate is renewed, and when it is served expired
    binaries, fetch      real ztunnels: a cache, and getting them from their registry

The modules that the image of the wake guard carries import the standard library and `core` only.
"""
