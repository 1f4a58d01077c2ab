"""The wake guard: a small program for one node, that restarts a ztunnel whose certificates would be
served expired.

guard.py     what it does at each look, on a `Node`: the same code on a real node and in the labs
settings.py  how often, how early, how patiently
metrics.py   what it exports to Prometheus
names.py     what its objects in a cluster are called
cluster.py   a node of a real cluster, through its API server
__main__.py  the program: python -m meshwake.guard
"""
