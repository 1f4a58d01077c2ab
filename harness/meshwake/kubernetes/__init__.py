"""The one adapter to a cluster's API.

labels.py         by what our objects are known
api.py            the requests to a cluster: `Kubernetes`, and its errors
kubeconfig.py     how a cluster is reached: the one reader of kubeconfigs
ztunnels.py       where a cluster's ztunnels are
through_kr8s.py   `Kubernetes` kept by kr8s
ported.py         HTTP to a port inside a pod, without a port of our own
"""
