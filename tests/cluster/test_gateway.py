"""The Gateway at the address that MetalLB gave it, requested from a node; across a fault too."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest
from meshwake.cluster.stack.certificates import GATEWAY_HOST
from meshwake.cluster.stack.pieces import ACME_NAMESPACE, DEMO_NAMESPACE
from meshwake.core.errors import ExitCode
from meshwake.core.json_types import objects_at, text_at
from meshwake.system.deadline import Deadline

from tests.cluster.trial import ENDS_WITHIN_S, TWO_NODES, Trial, write_scenario

SLEEP = f"""
title    = "Everything sleeps for a minute"
labs     = ["kind"]
duration = "4m"
[certificate]
lifetime = "6m"
{TWO_NODES}every = "10s"
[[fault]]
kind  = "suspend"
node  = "*"
at    = "1m"
lasts = "1m"
[[expect]]
check   = "no_expired_certificate_served"
verdict = "holds"
because = "a minute late is early enough"
[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "no connection is attempted while both ends sleep"
"""
# On the node's machine, which is ours.
ROOT = "/run/root-of-pebble.pem"
ANSWERS = "200"
# The minute of sleep, and as long again to wake.
SILENT_AT_MOST_S = 120.0


def address_of(trial: Trial) -> str:
    with trial.cluster.opened() as kubernetes:
        gateway = kubernetes.read("Gateway.gateway.networking.k8s.io", DEMO_NAMESPACE, "gateway")
    (first, *_) = objects_at(gateway, "status", "addresses")
    return text_at(first, "value")


def requested(trial: Trial, scheme: str, address: str, *more: str) -> str:
    """The answer to curl on the last node's machine: its status, or why there is none."""
    port = {"http": 80, "https": 443}[scheme]
    where = ["--resolve", f"{GATEWAY_HOST}:{port}:{address}", f"{scheme}://{GATEWAY_HOST}/"]
    options = ["-sS", "--max-time", "5", "-o", "/dev/null", "-w", "%{http_code}"]
    ended = trial.execute(trial.cluster.nodes[-1], "curl", *options, *more, *where)
    return (ended.stdout if ended.code == 0 else ended.stderr).strip()


@pytest.mark.needs("gateway", "metallb")
def test_it_answers_before_and_after_a_sleep(trial: Trial, tmp_path: Path) -> None:
    scenario, log = write_scenario(tmp_path / "sleep_of_a_minute.toml", SLEEP), tmp_path / "run.log"
    address, answers = address_of(trial), list[tuple[float, str]]()
    with trial.running(scenario, log) as run:
        deadline = Deadline("the end of the run", ENDS_WITHIN_S)
        while run.poll() is None:
            answers.append((time.monotonic(), requested(trial, "http", address)))
            deadline.pause(1)
        assert run.returncode == ExitCode.AS_EXPECTED, log.read_text()
    good = [at for at, output in answers if output == ANSWERS]
    assert answers[-1][1] == ANSWERS, answers[-1]
    silent = max(after - before for before, after in pairwise(good))
    assert silent <= SILENT_AT_MOST_S, [each for each in answers if each[1] != ANSWERS][:5]


@pytest.mark.needs("gateway", "metallb", "cert-manager")
def test_https_by_the_certificate_of_our_acme_server(trial: Trial, tmp_path: Path) -> None:
    """Verified against the root that this pebble made when it was started, and by nothing else."""
    node, address = trial.cluster.nodes[-1], address_of(trial)
    with trial.cluster.opened() as kubernetes:
        service = kubernetes.read("Service", ACME_NAMESPACE, "pebble")
    root = f"https://{text_at(service, 'spec', 'clusterIP')}:15000/roots/0"
    fetch = f"curl -sSk --max-time 10 {root} -o {ROOT} && cat {ROOT}"
    fetched = trial.execute(node, "sh", "-c", fetch)
    assert "BEGIN CERTIFICATE" in fetched.stdout, fetched
    assert requested(trial, "https", address, "--cacert", ROOT) == ANSWERS
    assert "SSL certificate problem" in requested(trial, "https", address)
    assert json.loads(trial.meshwake("status", "--json").stdout)["clusters"][0]["drift"] == []
