"""In-pod mode, as clusters run it, gives what dedicated mode and the model give; and gives it again
and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from meshwake.core.history import History
from meshwake.core.run import Run
from meshwake.core.scenario import parse_scenario
from meshwake.report.result import result
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case

from tests.agreement.conftest import VERSIONS, binary_of, run_text, verdicts
from tests.agreement.timelines import random_scenario

TEN_MINUTES_OF_LIFE = """
title = "Two nodes, three pods, one sleeps"
duration = "90m"
[certificate]
lifetime = "10m"
[[node]]
name = "east"
identities = ["default/client", "default/other"]
[[node]]
name = "west"
identities = ["default/server"]
[authority]
node = "apart"
[traffic]
pairs = [["default/client", "default/server"], ["default/other", "default/client"], ["default/server", "default/other"]]
every = "5m"
[[fault]]
kind = "suspend"
node = "east"
at = "15m"
lasts = "7m"
[[fault]]
kind = "restart"
node = "west"
at = "40m"
[[expect]]
check = "traffic_flows"
verdict = "broken"
because = "seven minutes of sleep are more than half of what a certificate has left"
"""
IN_POD = TEN_MINUTES_OF_LIFE + '[ztunnel]\nmode = "in-pod"\n'
WITH_DISCOVERY = IN_POD + 'workloads = "discovery"\n'


def on_process(text: str, version: str) -> Run:
    options = Options(lab="process", istio=(version,))
    return run_case(choose(parse_scenario(text, "inpod.toml", "inpod"), options)[0], options)


def issued(saved: Run) -> list[tuple[Any, ...]]:
    """Every certificate: when, for whom, which one, and how long it is valid."""
    keys = ("identity", "outcome", "serial", "not_before_wall_s", "not_after_wall_s")
    return sorted(
        (event.world_ns, *(event[key] for key in keys))
        for event in saved.history.of("csr_answered")
    )


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_in_pod_dedicated_and_model_agree_to_the_nanosecond(version: str) -> None:
    """The same certificates at the same moments, the same outages, the same verdicts."""
    binary_of(version)
    dedicated, (model, inpod) = (
        on_process(TEN_MINUTES_OF_LIFE, version),
        run_text(IN_POD, "inpod", version),
    )
    assert issued(inpod) == issued(dedicated)
    assert issued_times(inpod) == issued_times(model)
    assert result(inpod)["outages"] == result(dedicated)["outages"] == result(model)["outages"]
    assert result(inpod)["outages"]
    assert verdicts(inpod) == verdicts(dedicated) == verdicts(model)


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_the_same_plan_in_pod_gives_the_same_history(version: str) -> None:
    """Twice, all but the words of a failure: whether ztunnel sees first that its certificate has
    expired, or that the connection is gone, is decided between the threads of two ztunnels
    (docs/time-skipping.md)."""
    binary_of(version)
    first, second = (on_process(IN_POD, version).history for _ in range(2))
    assert without_words(first) == without_words(second)


def without_words(history: History) -> list[Any]:
    return [
        replace(event, data=event.data | {"error": event.data["error"] is not None})
        if "error" in event.data
        else event
        for event in history.events
    ]


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_workloads_by_discovery_change_nothing(version: str) -> None:
    """With the stream to the authority open, and its pings every thirty seconds: the same
    certificates and outages."""
    binary_of(version)
    by_file, discovered = on_process(IN_POD, version), on_process(WITH_DISCOVERY, version)
    assert issued(discovered) == issued(by_file)
    assert result(discovered)["outages"] == result(by_file)["outages"]


@pytest.mark.parametrize("version", VERSIONS)
def test_one_ztunnel_serves_all_pods_of_a_node(version: str) -> None:
    """One process a node, an ordinary client redirected into it, in every release that is here."""
    binary_of(version)
    history = on_process(IN_POD, version).history
    started = [
        (event["process"], event["identities"])
        for event in history.of("ztunnel_started", cause="start")
    ]
    assert started == [("east", ["default/client", "default/other"]), ("west", ["default/server"])]
    assert history.of("run_started")[0]["subject"]["mode"] == "in-pod"
    assert history.of("connection_attempted", ok=True)


POD_RESTARTS = (
    WITH_DISCOVERY
    + """
[[fault]]
kind = "pod_restart"
identity = "default/other"
at = "32m"
[[fault]]
kind = "pod_restart"
identity = "default/server"
at = "50m30s"
every = "20m10s"
"""
)


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_a_pod_restart_gives_a_fresh_certificate_and_no_fresh_time_base(version: str) -> None:
    """A new certificate at that moment; after a sleep its renewals are as late as those of the pod
    before it."""
    binary_of(version)
    model, real = run_text(POD_RESTARTS, "pods", version)
    assert issued_times(real) == issued_times(model)
    assert result(real)["outages"] == result(model)["outages"]
    assert verdicts(real) == verdicts(model)
    others = [at_s for identity, at_s in issued_times(real) if identity == "default/other"]
    after = others[others.index(32 * 60.0) + 1]
    # Ten minutes of life, dated back by two: the middle is four minutes after the issue. Seven were
    # slept before.
    assert after == (32 + 4 + 7) * 60.0


def issued_times(saved: Run) -> list[tuple[str, float]]:
    return sorted(
        (event["identity"], event.world_ns / 1e9) for event in saved.history.of("csr_answered")
    )


NINE = """
title = "Nine pods of one node, and a slow authority"
duration = "2h"
[certificate]
lifetime = "2h"
backdate = "2m"
[[node]]
name = "east"
identities = [IDENTITIES]
[authority]
node = "apart"
[ztunnel]
mode = "in-pod"
workloads = "discovery"
[traffic]
pairs = [["default/p0", "default/p8"]]
every = "30m"
[[fault]]
kind = "pod_restart"
identity = "default/p8"
at = "1m"
[[fault]]
kind = "ca_slow"
at = "50m"
lasts = "30m"
answers_after = "5m"
[[expect]]
check = "renewals_on_time"
verdict = "broken"
because = "the ninth waits for one of eight places, and then for its own answer"
""".replace("IDENTITIES", ", ".join(f'"default/p{number}"' for number in range(9)))


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_eight_slow_answers_hold_back_the_ninth(version: str) -> None:
    """Due at 60 minutes, when eight calls that began at 59 are under way: requested at 64, answered
    at 69; as modelled."""
    binary_of(version)
    model, real = run_text(NINE, "nine", version)
    assert issued_times(real) == issued_times(model)
    taken = {event["identity"]: event.world_ns / 60e9 for event in real.history.of("csr_taken")}
    assert taken == {f"default/p{number}": 64.0 if number == 8 else 59.0 for number in range(9)}
    assert [at_s / 60 for name, at_s in issued_times(real) if name == "default/p8"][:3] == [
        0.0,
        1.0,
        69.0,
    ]
    assert verdicts(real) == verdicts(model)


@pytest.mark.parametrize("version", VERSIONS[-1:])
def test_pings_on_two_connections_at_once_are_answered_at_their_time(version: str) -> None:
    """Both pods of a ztunnel ask at the same moment, often over two connections, and wait two hours
    for the answer: in most runs both were once given up after forty seconds
    (docs/time-skipping.md)."""
    binary_of(version)
    model, real = run_text(random_scenario(19) + '[ztunnel]\nmode = "in-pod"\n', "pings", version)
    assert issued_times(real) == issued_times(model)
    assert len(real.history.of("csr_taken")) == 2
