"""What every lab promises (meshwake.testing.conformance): on the model, on the process lab around a
fake ztunnel, and on the machine lab with a real one, where QEMU, a kernel and a ztunnel are
there."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.labs import IN_REAL_TIME, LAB_MODULES, Toolbox, load_lab
from meshwake.testing.conformance import LabConformance, RunningLab
from meshwake.ztunnel import binaries

from tests.support.fake_ztunnel import write_fake_ztunnel

# How far a time may be from the plan. Model and process lab move clocks to the nanosecond. In a
# guest everything takes its time, and its kernel reads how long it slept from a clock of whole
# seconds.
NEAR_NS = {"model": 0, "process": 0, "machine": 3 * NS_PER_S}
STARTS_WITHIN_NS = {"model": 0, "process": 0, "machine": 60 * NS_PER_S}


def subject_for(lab: str, directory: Path) -> Path | None:
    """The ztunnel to run in `lab`: a fake one, the newest real one in the cache, or none."""
    if lab == "process":
        return write_fake_ztunnel(directory, at_tick="pass")
    if lab == "machine":
        return next((binary.path for binary in reversed(binaries.cached())), None)
    return None


class TestLabs(LabConformance):
    @pytest.fixture(params=sorted(set(LAB_MODULES) - set(IN_REAL_TIME)))
    def running(self, request: pytest.FixtureRequest, tmp_path: Path) -> RunningLab:
        """Every lab that can skip time; tests/unit/labs/kind holds the other to the same promises,
        on a cluster that is simulated."""
        name = request.param
        return RunningLab(
            name=name,
            lab=load_lab(name),
            toolbox=Toolbox(subject_for(name, tmp_path), tmp_path / "logs"),
            near_ns=NEAR_NS[name],
            starts_within_ns=STARTS_WITHIN_NS[name],
        ).skip_where_missing()
