"""Real ztunnels to agree with: those in the cache of this machine. Without one these tests skip and
say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from meshwake.core.run import Run
from meshwake.core.scenario import parse_scenario, read_scenario
from meshwake.labs import load_lab
from meshwake.report.result import RenewalRow, result
from meshwake.runner.choose import Case, choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from meshwake.ztunnel import binaries

from tests.support.paths import SCENARIOS

NO_BINARY = "no ztunnel in the cache (meshwake doctor says where it belongs)"


def cached_versions() -> list[str]:
    """The releases that can be tested here, oldest first."""
    return [binary.version for binary in binaries.cached()]


VERSIONS: list[Any] = cached_versions() or [
    pytest.param("none", marks=pytest.mark.skip(reason=NO_BINARY))
]


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


def run(scenario: str, lab: str, version: str) -> Run:
    """The whole way from the file to the outcome."""
    return run_case(case_of(scenario, lab, version), Options(lab=lab, istio=(version,)))


def run_text(text: str, name: str, version: str) -> tuple[Run, Run]:
    """A scenario written in a test, on the model and on the binary."""
    return run_text_on_model(text, name, version), run_text_on(text, name, version, "process")


def run_text_on_model(text: str, name: str, version: str, seed: int = 0) -> Run:
    """A scenario written in a test, on the model; `seed` draws its retries."""
    return run_text_on(text, name, version, "model", seed)


def run_text_on(text: str, name: str, version: str, lab: str, seed: int = 0) -> Run:
    """A scenario written in a test, on one lab."""
    scenario = parse_scenario(text, f"{name}.toml", name)
    options = Options(lab=lab, istio=(version,), seed=seed)
    return run_case(choose(scenario, options)[0], options)


def verdicts(saved: Run) -> dict[str, Any]:
    """What every check says."""
    return {row["check"]: row["verdict"] for row in result(saved)["findings"]}


def renewal_rows(saved: Run) -> list[RenewalRow]:
    """Every renewal of a run whose history is whole."""
    rows = result(saved)["renewals"]
    assert rows is not None
    return rows


def times_are_fixed(*runs: Run) -> bool:
    """Whether nothing was left to chance: retries after a refusal are random inside ztunnel, and a
    flood is cut off after a number of requests, in the model and in reality at another one of them.
    """
    refused = any(
        event["outcome"] != "issued" for saved in runs for event in saved.history.of("csr_answered")
    )
    flooded = any(saved.history.of("run_ended", reason="csr_flood") for saved in runs)
    return not refused and not flooded
