"""What of a fix, or of what is around ztunnel, the process lab cannot do: refused by name, before
anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.errors import LabUnavailable
from meshwake.core.history import Recorder
from meshwake.core.plan import Plan, PlannedFix
from meshwake.fixes import FIXES, patch_of
from meshwake.fixes.patched import PATCH_MARK
from meshwake.labs import Toolbox, load_lab

from tests.support.plans import NIGHTS, plan

GATEWAY = '\n[[gateway]]\nname = "ingress"\nnode = "laptop"\nidentity = "ingress/gateway"\n'
PATCHED = [fix.name for fix in FIXES.values() if fix.patch]


def deployed(name: str) -> Plan:
    of = plan(NIGHTS, lab="process")
    return of.model_copy(
        update={"fix": PlannedFix(name=name, manifest=FIXES[name].read_manifest())}
    )


@pytest.mark.parametrize(
    ("of", "named"),
    [
        (lambda: plan(GATEWAY, lab="process"), "gateway"),
        (
            lambda: plan('\n[authority]\nnode = "laptop"\ntoken = "12h"\n', lab="process"),
            "authority.token",
        ),
        (lambda: deployed("restart-applications"), "restart-applications"),
    ],
)
def test_what_is_not_there_is_refused(of: object, named: str) -> None:
    assert callable(of)
    (reason,) = load_lab("process").refusals(of())
    assert named in reason and "--lab model" in reason


@pytest.mark.parametrize("name", [name for name in FIXES if name != "restart-applications"])
def test_every_other_fix_can_be_run_there(name: str) -> None:
    assert load_lab("process").refusals(deployed(name)) == []


def test_there_are_patches() -> None:
    assert PATCHED == ["fresh-time-base", "boottime", "wall-polling"]
    assert [patch_of(deployed(name)) for name in PATCHED] == PATCHED


@pytest.mark.parametrize("name", PATCHED)
def test_no_other_binary_is_taken_for_a_patched_one(name: str, tmp_path: Path) -> None:
    """Neither one as released, nor one with another patch."""
    binary = tmp_path / "ztunnel"
    for other in ("", *(patch for patch in PATCHED if patch != name)):
        binary.write_bytes(b"\x7fELF" + f"{PATCH_MARK}{other}".encode())
        with pytest.raises(LabUnavailable, match=f"meshwake-patch:{name}"):
            load_lab("process").run(deployed(name), Toolbox(binary, tmp_path / "logs"), Recorder())
