"""What a cluster is made of, bringing it up, taking it down, its health."""
