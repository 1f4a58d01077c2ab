"""What a cluster is made of, as data: pins, charts, objects, and the order they go in. Nothing here
does anything."""
