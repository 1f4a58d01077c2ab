"""meshwake: time jumps under a service mesh, with evidence of what breaks.

The map of the house. A room may import the rooms below it and itself, never one above or beside it; the test
tests/repository/test_import_rule.py reads `LAYERS` and enforces it.

    doors       cli, plugin, __main__       what a person or pytest types; cli_TOPIC: commands of one topic
    story       mesh                        a timeline told in Python, and questions asked of it
    questions   answers                     what is asked of many runs
    course      pipeline, doctor, options   the steps of a run, in order; what can run here; what is
                                            said of a cluster
    verdicts    execution                   from a plan to its findings, for everybody who asks
    makers      labs, report                do and record; show
    parts       authority, fixes, checks,   speak istiod's protocols; what people deploy; judge;
                stack, fetching, journals   what a cluster is made of; binaries from their image; what
                                            machines remember of their sleep
    clocks      clocks                      reading clocks and moving them
                kubernetes                  the one adapter to a cluster's API
    values      scenario, plan, history ... what all the others hand to one another

Within the values a module may import those that stand left of it. `labs` never imports `checks`; `checks` never imports
`labs`; no lab imports another, except that `machine` runs `process` inside a guest. `clocks.reading` is a value: it
imports nothing.
"""

# Lowest first. A name is a module or package directly in `harness`.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "config_dump",
        "guardian",
        "errors",
        "durations",
        "text_files",
        "yaml_text",
        "scenario",
        "plan",
        "history",
        "verdict",
        "versions",
        "binaries",
        "store",
    ),
    ("clocks", "kubernetes"),
    ("authority", "fixes", "checks", "stack", "fetching", "journals"),
    ("labs", "report"),
    ("execution",),
    ("pipeline", "doctor", "options"),
    ("answers",),
    ("mesh",),
    (
        "cli_cluster",
        "cli_fetch",
        "cli_forecast",
        "cli_journal",
        "cli_kernel",
        "cli_matrix",
        "cli_report",
        "cli_search",
        "cli_versions",
    ),
    ("cli_alerts", "cli_clock"),
    ("cli", "plugin"),
    ("__main__",),
)
