"""The exporter, asked about a real ztunnel in a network namespace of its own, as on a node of the cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.binaries import cache_dir
from harness.stack.exporter import Answer, Exporter, ask, find_ztunnels, read_clocks
from tests.conformance.injectors import needs_vdso
from tests.ground.programs import Deadline

LIFETIME_S, BACKDATE_S = 600, 120
WITHIN_S = 60

pytestmark = [needs_vdso, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it enters another's namespace")]


@contextmanager
def real_ztunnel(folder: Path) -> Iterator[int]:
    """The pid of a ztunnel that has asked for its certificate, of the newest binary in the cache."""
    binaries = sorted((cache_dir() / "ztunnel").glob("*/x86_64/ztunnel"))
    if not binaries:
        pytest.skip("needs a ztunnel in the cache")
    said = folder / "world"
    command = [sys.executable, "-m", "tests.conformance.ztunnels_apart", str(folder), str(binaries[-1])]
    with said.open("w") as output, (folder / "errors").open("w") as errors:
        world = subprocess.Popen(
            [*command, str(LIFETIME_S), str(BACKDATE_S)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=errors,
            text=True,
        )
    assert world.stdin is not None
    try:
        world.stdin.write("start a\n")
        world.stdin.flush()
        deadline = Deadline("ztunnel a asks for its certificate", WITHIN_S)
        while not (asked := whole_lines(said, "asked mesh/a ")):
            assert world.poll() is None, (folder / "errors").read_text()[-600:]
            deadline.pause(asked)
        yield int(whole_lines(said, "started a ")[0].split()[2])
    finally:
        world.stdin.close()
        try:
            world.wait(WITHIN_S)
        finally:
            world.kill()
            world.wait()


def whole_lines(file: Path, beginning: str) -> list[str]:
    """A line that is still being written is none."""
    return [
        line for line in file.read_text().splitlines(keepends=True) if line.startswith(beginning) and line[-1] == "\n"
    ]


def test_a_real_ztunnel_is_found_asked_and_told_of(tmp_path: Path) -> None:
    """Its identity, and what is left of the certificate that it was given a moment ago: ten minutes of twelve."""
    with real_ztunnel(tmp_path) as pid:
        (process,) = [found for found in find_ztunnels() if found.pid == pid]
        assert process.pod
        deadline = Deadline("ztunnel a has its certificate", WITHIN_S)
        while not (answer := ask(process)).certificates or not answer.certificates[0].get("certChain"):
            deadline.pause(answer)
        told = page_of(answer)
    assert told["meshwake_ztunnel_up"] == {"": 1.0}
    assert told["meshwake_ztunnel_certificate_unavailable"] == {"mesh/a": 0.0}
    left_s = told["meshwake_ztunnel_certificate_left_seconds"]["mesh/a"]
    assert LIFETIME_S - WITHIN_S < left_s <= LIFETIME_S
    assert told["meshwake_ztunnel_certificate_left_ratio"]["mesh/a"] == pytest.approx(
        left_s / (LIFETIME_S + BACKDATE_S)
    )
    assert told["meshwake_ztunnel_renewal_late_seconds"] == {"mesh/a": 0.0}


def page_of(answer: Answer) -> dict[str, dict[str, float]]:
    """Values by series and identity."""
    told: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(Exporter().page([answer], read_clocks())):
        for sample in family.samples:
            told.setdefault(sample.name, {})[sample.labels.get("identity", "")] = sample.value
    return told
