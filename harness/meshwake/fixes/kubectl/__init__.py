"""kubectl and oc: what a command does to ztunnel and to applications, read from its words.

command     verb, objects, namespace, selectors and options of one command
selectors   label selectors, matched against ztunnel's labels
restarts    what each verb ends and starts again
printed     the pods whose names a command prints
logs        the logs of ztunnel that a command reads
"""
