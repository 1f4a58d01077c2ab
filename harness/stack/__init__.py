"""What a cluster is made of, as data: pins, charts, objects, and the order they go in. Nothing here does anything, but
for `exporter`, a program that goes into the cluster as a file and is never imported by the harness."""
