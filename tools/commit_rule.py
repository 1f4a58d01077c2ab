"""The rule of commit subjects: `area: what`, at most 72 characters.

    python tools/commit_rule.py FILE     the message in FILE, as git's hook commit-msg passes it
    python tools/commit_rule.py A..B     every commit of a range but merges; exit code 1 names those that break it

The area is a package or folder (`checks`, `labs/kind`, `docs`), so that a log can be searched by what changed. The
rule holds for commits since the package got its layout; older subjects were written without one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 72
# One or more areas, as in "kubernetes, guard: ..." or "docs/adr: ..."; then what, in plain words.
RULE = re.compile(r"^[\w./-]+(?:, [\w./-]+)*: \S.*[^.\s]$")
# What git writes by itself.
BY_GIT = re.compile(r"^(Merge |Revert \"|fixup! |squash! )")


def fault_of(subject: str) -> str | None:
    """What is wrong with a subject, or None."""
    if BY_GIT.match(subject):
        return None
    if len(subject) > LONGEST:
        return f"{len(subject)} characters, expected at most {LONGEST}"
    if not RULE.match(subject):
        return "expected 'area: what', without a full stop at the end"
    return None


def subjects_of(commits: str, repository: Path = ROOT) -> list[tuple[str, str]]:
    """(short id, subject) of every commit of a range but merges."""
    command = ["git", "log", "--no-merges", "--format=%h %s", commits]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in done.stdout.splitlines()]


def main(argument: str) -> int:
    """See the module."""
    if ".." in argument:
        named = subjects_of(argument)
    else:
        named = [("", Path(argument).read_text(encoding="utf-8").partition("\n")[0])]
    faults = [
        f"{commit} {subject!r}: {fault}".strip()
        for commit, subject in named
        if (fault := fault_of(subject)) is not None
    ]
    for line in faults:
        print(line, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/commit_rule.py FILE | A..B")
    sys.exit(main(sys.argv[1]))
