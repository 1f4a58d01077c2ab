"""For tests of other projects: timelines for Hypothesis, and meshes that no fixture makes.

    from hypothesis import given
    from meshwake.testing import Timeline, new_mesh, timelines

    @given(timelines(kinds=("suspend", "pause")))
    def test_the_guard_recovers(timeline: Timeline) -> None:
        mesh = new_mesh(fix="wake-guard")
        mesh.run("1h")
        mesh.play(timeline)
        mesh.run("2d")
        mesh.assert_holds("recovers_within")

pytest's fixture `new_mesh` is the same with the lab and the version of the command line. Hypothesis
is imported when `timelines` is called: `pip install 'meshwake[pytest,search]'`.
meshwake.testing.conformance has the promises of a lab, for people who write one.
"""

from __future__ import annotations

from typing import Any, NoReturn

from meshwake.core.errors import LabUnavailable
from meshwake.runner import mesh
from meshwake.runner.mesh import Mesh
from meshwake.runner.options import Options
from meshwake.runner.timelines import Move, Timeline, timelines

__all__ = ["Mesh", "Move", "Timeline", "new_mesh", "timelines"]


def new_mesh(lab: str = "model", istio: str | None = None, **world: Any) -> Mesh:
    """A mesh to make a timeline of, on `lab` with the release `istio` (without: the newest known).
    `world`: lifetime, backdate, every and fix. Raises BadInput; the first answer raises
    LabUnavailable where the lab cannot run it."""
    options = Options(lab=lab, istio=() if istio is None else (istio,))
    return mesh.new_mesh(options, _refuse, **world)


def _refuse(reason: str) -> NoReturn:
    raise LabUnavailable(reason)
