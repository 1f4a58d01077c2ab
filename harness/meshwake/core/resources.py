"""Where the data of the product lies: what a cluster is made of, the releases, the scenarios.

In a checkout they are `clusters/` and `scenarios/` at the top of the repository, next to
`harness/`. In an installed wheel they lie within the package, below the same names (pyproject.toml
says so).
"""

from __future__ import annotations

from pathlib import Path

from meshwake.core.errors import BadInput

PACKAGE = Path(__file__).resolve().parents[1]
# What must be on Python's path to import the package: harness/ of a checkout, or site-packages.
SOURCES = PACKAGE.parent


def _data(name: str) -> Path:
    installed = PACKAGE / name
    if installed.is_dir():
        return installed
    return SOURCES.parent / name


CLUSTERS = _data("clusters")
SCENARIOS = _data("scenarios")
# What holds both; a path such as clusters/fixes/weekly-restart/cronjob.yaml in a scenario is below
# it.
ROOT = CLUSTERS.parent


def is_checkout() -> bool:
    """Whether this program runs from a checkout, and not from an installed package."""
    return (SOURCES.parent / "pyproject.toml").is_file()


def repository() -> Path:
    """The checkout that this program runs from. Raises BadInput in an installed one, which has
    none."""
    if not is_checkout():
        raise BadInput(
            "this writes pages of the project's own repository, and meshwake runs from an "
            "installed package; "
            "run it from a checkout"
        )
    return SOURCES.parent
