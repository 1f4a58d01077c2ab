"""Lab `kind`: the whole stack on kind, or on a cluster that exists, in real time."""
