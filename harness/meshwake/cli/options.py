"""Options that several commands have in common, declared once.

The options of a run are declared in harness/meshwake/runner/options.py, because pytest has them
too; a command that takes only some of those takes them from here, in the same words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from meshwake.checks import CHECKS
from meshwake.core.errors import BadInput
from meshwake.core.refusal import invalid_choice
from meshwake.runner.flags import RunFlags, declared_in


def _declared(field: str, **changed: Any) -> Any:
    """The option of a run that is stored in `field`."""
    flag = next(each.flag for each in declared_in(RunFlags) if each.field == field)
    settings: dict[str, Any] = {
        "metavar": flag.metavar,
        "help": flag.help,
        "min": flag.minimum,
        "envvar": flag.variable,
    }
    return typer.Option(flag.name, **settings | changed)


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show all evidence.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be done, and change nothing.")
]
LabOption = Annotated[str, _declared("lab")]
ClusterNameOption = Annotated[str | None, _declared("name")]
KubeconfigOption = Annotated[Path | None, _declared("kubeconfig")]
ContextOption = Annotated[
    str | None, _declared("context", help="Its context; without it the current one.")
]
ZtunnelNamespaceOption = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAME", help="Where ztunnel is; found without it."),
]
SeedOption = Annotated[int, _declared("seed")]
ZtunnelOption = Annotated[Path | None, _declared("ztunnel")]
OneVersionOption = Annotated[
    str | None, _declared("istio", help="The release under test; without: the newest known.")
]


def check_name(check: str | None) -> str:
    """The value of --check. Raises BadInput where it is missing or is not a check."""
    if check is None:
        raise BadInput(f"--check is missing: expected one of {', '.join(CHECKS)}")
    if check not in CHECKS:
        raise invalid_choice("--check", check, CHECKS)
    return check
