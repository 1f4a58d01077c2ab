"""Real ztunnels to agree with: those in the cache of this machine. Without one these tests skip and say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import binaries
from harness.labs import load_lab
from harness.pipeline import Options, Saved, choose, run_case
from harness.plan import Case
from harness.scenario import read_scenario

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
NO_BINARY = "no ztunnel in the cache (meshwake doctor says where it belongs)"


def cached_versions() -> list[str]:
    """The releases that can be tested here, oldest first."""
    return [binary.version for binary in binaries.cached()]


def binary_of(version: str) -> Path:
    """The cached binary of `version`; skips the test when this machine has none or cannot run it."""
    found = binaries.find(version)
    if found is None:
        pytest.skip(f"no ztunnel {version} in the cache (meshwake doctor says where it belongs)")
    if reasons := load_lab("process").missing(found.path):
        pytest.skip(reasons[0])
    return found.path


def case_of(scenario: str, lab: str, version: str) -> Case:
    """A scenario of the corpus on one lab and version; skips when it is refused there."""
    options = Options(lab=lab, istio=(version,))
    case = choose(read_scenario(SCENARIOS / f"{scenario}.toml"), options)[0]
    if case.refusal:
        pytest.skip(case.refusal)
    return case


def run(scenario: str, lab: str, version: str) -> Saved:
    """The whole way from the file to the outcome."""
    return run_case(case_of(scenario, lab, version), Options(lab=lab, istio=(version,)))
