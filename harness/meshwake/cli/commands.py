"""Every command: its line in `meshwake --help`, and the module that is imported when it is used.

Importing all of them takes ten times as long as showing the help, so the help is written from this
table. tests/unit/cli/test_commands.py compares it with what the modules really add.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One command. `section` is its heading in the help; "" lists it by name only."""

    name: str
    module: str
    section: str
    summary: str


_RUN, _ASK, _REAL = "Run and read", "Ask more", "Clusters and real binaries"
_ALL = (
    Entry("run", "run", _RUN, "Run scenarios and judge what happened."),
    Entry("list", "scenarios", _RUN, "List the scenarios that come with meshwake."),
    Entry("matrix", "matrix", _RUN, "Run every fix against every clock fault: which holds?"),
    Entry("import-sleep", "import_sleep", _RUN, "Make a scenario of a machine's sleep journal."),
    Entry("forecast", "forecast", _RUN, "When will a cluster break next, and what to do before?"),
    Entry("report", "report", _RUN, "Show kept runs, in the terminal or as pages."),
    Entry("runs", "report", _RUN, "List kept runs, the newest first."),
    Entry("bisect", "bisect", _ASK, "Find the release since which a check has another verdict."),
    Entry("falsify", "falsify", _ASK, "Search for the smallest timeline that breaks a fix."),
    Entry("clock", "clock", _ASK, "Run any program on clocks that jump."),
    Entry("up", "cluster", _REAL, "Bring a cluster up on kind."),
    Entry("status", "cluster", _REAL, "Show our clusters and what is still moved."),
    Entry("down", "cluster", _REAL, "Delete our clusters."),
    Entry("guard", "guard", _REAL, "Install the wake guard, look after it, remove it."),
    Entry("fetch", "fetch", _REAL, "Fetch real ztunnels into the cache, checked by digest."),
    Entry("doctor", "run", _REAL, "Which lab can run here, and what others need."),
    Entry("accept", "accept", "", "Update a scenario's expectations from an unexpected run."),
    Entry("alerts", "alerts", "", "Which alerts would have fired in a kept run, and when?"),
    Entry("check", "run", "", "Judge a kept run again, with today's checks."),
    Entry("clocks", "kernel", "", "Measure what clock faults do in a real kernel."),
    Entry("dashboard", "versions", "", "Write docs/versions.md."),
    Entry("fetch-kernel", "kernel", "", "Fetch a Linux kernel for the guests of lab machine."),
    Entry("guard-trial", "matrix", "", "Run the wake guard for months."),
    Entry("nightly", "nightly", "", "Run all scenarios on all versions, and report what is new."),
    Entry("plan", "run", "", "Print the plan of a scenario as JSON."),
    Entry("probe", "probe", "", "Judge a binary; for git bisect run."),
    Entry("sweep", "sweep", "", "Simulate thousands of machines per fix."),
    Entry("timers", "kernel", "", "Measure when timers of other programs end around a suspend."),
    Entry("versions", "versions", "", "List the releases that are known."),
)
COMMANDS: dict[str, Entry] = {entry.name: entry for entry in _ALL}
