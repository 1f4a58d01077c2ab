"""Every command: its line in `meshwake --help`, and the module that is imported when it is used.

Importing all of them takes ten times as long as showing the help, so the help is written from this
table. tests/unit/cli/test_commands.py compares it with what the modules really add.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CommandEntry:
    """One command. `section` is its heading in the help; "" lists it by name only."""

    name: str
    module: str
    section: str
    summary: str


_RUN, _ASK, _REAL = "Run and read", "Ask more", "Clusters and real binaries"
_ALL = (
    CommandEntry("run", "run", _RUN, "Run scenarios and judge what happened."),
    CommandEntry("list", "scenarios", _RUN, "List the scenarios that come with meshwake."),
    CommandEntry("new", "scenarios", _RUN, "Write a scenario of your own to begin with."),
    CommandEntry("matrix", "matrix", _RUN, "Run every fix against every clock fault: which holds?"),
    CommandEntry(
        "import-sleep", "import_sleep", _RUN, "Make a scenario of a machine's sleep journal."
    ),
    CommandEntry(
        "forecast", "forecast", _RUN, "When will a cluster break next, and what to do before?"
    ),
    CommandEntry("report", "report", _RUN, "Show kept runs, in the terminal or as pages."),
    CommandEntry("runs", "report", _RUN, "List kept runs, the newest first."),
    CommandEntry(
        "bisect", "bisect", _ASK, "Find the release since which a check has another verdict."
    ),
    CommandEntry("clock", "clock", _ASK, "Run any program on clocks that jump."),
    CommandEntry("up", "cluster", _REAL, "Bring a cluster up on kind."),
    CommandEntry("status", "cluster", _REAL, "Show our clusters and what is still moved."),
    CommandEntry("down", "cluster", _REAL, "Delete our clusters."),
    CommandEntry("guard", "guard", _REAL, "Install the wake guard, look after it, remove it."),
    CommandEntry("fetch", "fetch", _REAL, "Fetch real ztunnels into the cache, checked by digest."),
    CommandEntry("doctor", "run", _REAL, "Which lab can run here, and what others need."),
    CommandEntry(
        "accept", "accept", "", "Update a scenario's expectations from an unexpected run."
    ),
    CommandEntry("alerts", "alerts", "", "Which alerts would have fired in a kept run, and when?"),
    CommandEntry("check", "run", "", "Judge a kept run again, with today's checks."),
    CommandEntry("clocks", "kernel", "", "Measure what clock faults do in a real kernel."),
    CommandEntry("dashboard", "versions", "", "Write docs/versions.md."),
    CommandEntry("falsify", "falsify", "", "Search for the smallest timeline that breaks a fix."),
    CommandEntry(
        "fetch-kernel", "kernel", "", "Fetch a Linux kernel for the guests of lab machine."
    ),
    CommandEntry("guard-trial", "matrix", "", "Run the wake guard for months."),
    CommandEntry(
        "nightly", "nightly", "", "Run all scenarios on all versions, and report what is new."
    ),
    CommandEntry("plan", "run", "", "Print the plan of a scenario as JSON."),
    CommandEntry("probe", "probe", "", "Judge a binary; for git bisect run."),
    CommandEntry("sweep", "sweep", "", "Simulate thousands of machines per fix."),
    CommandEntry(
        "timers", "kernel", "", "Measure when timers of other programs end around a suspend."
    ),
    CommandEntry("versions", "versions", "", "List the releases that are known."),
)
COMMANDS: dict[str, CommandEntry] = {entry.name: entry for entry in _ALL}
