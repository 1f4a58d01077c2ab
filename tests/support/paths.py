"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "harness" / "meshwake"
SCENARIOS = REPOSITORY / "scenarios"
CLUSTERS = REPOSITORY / "clusters"
DOCS = REPOSITORY / "docs"
DATA = REPOSITORY / "tests" / "data"
