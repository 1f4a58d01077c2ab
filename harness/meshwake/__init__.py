"""meshwake: time jumps under a service mesh, with evidence of what breaks.

The map of the packages. Each imports those below it and itself, never one above or next to it;
`lint-imports` enforces that by the contracts in pyproject.toml.

    cli, pytest_plugin   what a person or pytest types
    analysis             questions about many runs, each with its own rendering
    runner               choosing cases, a plan's way to its findings, options, the mesh fixture
    labs                 act and record: model, process, machine, kind
    report, importers    show; read what machines remember of their sleep
    checks               one property a file: judge what was recorded
    cluster              what a cluster is made of; bringing it up and down; its health
    fixes, authority     what people deploy; a CA and xDS server that speak istiod's protocols
    guard                the wake guard, a program of its own
    clocks               reading clocks and moving them
    kubernetes           the one adapter to a cluster's API
    ztunnel              facts of the system under test, once each
    core                 values that all the others hand to one another
    system               one of each helper: deadlines, processes, libc, did-you-mean

`labs` never imports `checks`. No lab imports another, except that `machine` runs `process` inside a
guest. The guard imports neither scenarios nor plans: its image has only what it needs.
"""
