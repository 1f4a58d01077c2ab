"""`kill -9` of a run at twenty of its moments, on a real cluster: the next command finds what it left and puts it back.

    meshwake up --name trial ...
    MESHWAKE_TEST_CLUSTER=trial pytest tests/cluster/test_kills.py      (about an hour; -k "moment7" for one)

The cluster is one of ours; every run goes by --clock process, so nothing but programs in it is moved. Twenty moments
lie `APART_S` apart, from before the first object is applied to within the last fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.clocks.node_helper import PROTOCOL_VERSION
from harness.clocks.process_mover import EVERY_RULE
from harness.kubernetes.labels import RUN_LABELS
from harness.labs.kind.cluster import Cluster, find_cluster
from harness.labs.kind.node_channel import DAEMON_SET, LABELS, MARK, NAMESPACE, PodChannel
from harness.labs.kind.reset import KINDS_OF_A_RUN

NAME = os.environ.get("MESHWAKE_TEST_CLUSTER")
pytestmark = pytest.mark.skipif(not NAME, reason="needs MESHWAKE_TEST_CLUSTER: the name of a cluster by meshwake up")
MESHWAKE = (sys.executable, "-c", "import sys; from harness.cli import main; sys.exit(main())")
MOMENTS, APART_S = range(20), 14.0
ENDS_WITHIN_S = 900.0
LEFT = "left by a run that was killed"
WORLD = """
title    = "A run that is killed"
labs     = ["kind"]
duration = "{duration}"
[certificate]
lifetime = "4m"
[[node]]
name       = "here"
identities = ["default/client"]
[[node]]
name       = "there"
identities = ["default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
every = "10s"
{faults}
[real_time]
lifetime = "4m"
duration = "{duration}"
every    = "10s"
{faults_in_real_time}
[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "of the run without faults: nothing of the one before is left; of the other nobody waits for the end"
"""
# Everything that can be moved, and a restart on moved clocks.
FAULTS = (
    'kind = "suspend"\nnode = "*"\nat = "5s"\nlasts = "30s"\n',
    'kind = "pause"\nnode = "here"\nat = "45s"\nlasts = "15s"\ncorrected_after = "10s"\n',
    'kind = "step"\nnode = "there"\nat = "80s"\nby = "1m"\n',
    'kind = "restart"\nnode = "here"\nat = "100s"\n',
    'kind = "suspend"\nnode = "there"\nat = "140s"\nlasts = "90s"\n',
)


def scenario(duration: str, faults: tuple[str, ...] = ()) -> str:
    """A scenario in the numbers of a real cluster."""
    once = "".join(f"[[fault]]\n{fault}" for fault in faults)
    again = "".join(f"[[real_time.fault]]\n{fault}" for fault in faults)
    return WORLD.format(duration=duration, faults=once, faults_in_real_time=again)


class Trial:
    """The cluster, and the commands that are used on it."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster, self._directory = cluster, directory
        self.command("status")  # whatever an earlier test left
        self.made = self.settings()

    def start(self, text: str, log: Path) -> subprocess.Popen[bytes]:
        """A run, by --clock process."""
        file = self._directory / "scenario.toml"
        file.write_text(text)
        with log.open("wb") as words:
            command = [*MESHWAKE, "run", str(file), "--lab", "kind", "--name", self.cluster.name, "--clock", "process"]
            return subprocess.Popen(command, stdout=words, stderr=words, start_new_session=True)

    def command(self, *words: str) -> str:
        """What another command says, all of it."""
        ended = subprocess.run(
            [*MESHWAKE, *words, "--name", self.cluster.name],
            check=False,
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN_S,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def settings(self) -> Any:
        """What a run changes in objects that are not its own."""
        with self.cluster.opened() as kubernetes:
            ztunnel = kubernetes.read("DaemonSet.apps", "istio-system", "ztunnel") or {}
            istiod = kubernetes.read("Deployment.apps", "istio-system", "istiod") or {}
        annotations = {key: text for key, text in ztunnel["metadata"]["annotations"].items() if "meshwake" in key}
        return ztunnel["spec"]["template"]["spec"], annotations, istiod["spec"]["replicas"]

    def is_as_up_made_it(self) -> None:
        """Nothing moved, nobody stopped, nothing left."""
        assert self.settings() == self.made
        with self.cluster.opened() as kubernetes:
            left = [(kind, *thing) for kind in KINDS_OF_A_RUN for thing in kubernetes.ours(kind, RUN_LABELS)]
            assert left == []
            helper = kubernetes.read("DaemonSet.apps", NAMESPACE, DAEMON_SET)
            if helper is None:
                return  # the run was killed before it was put in
            assert MARK not in (helper["metadata"].get("annotations") or {})
            nodes = {pod.node: pod.node for pod in kubernetes.pods(NAMESPACE, LABELS)}
            channel = PodChannel(kubernetes, nodes)
            for node in nodes:
                self._is_not_moved(channel, node)

    def _is_not_moved(self, channel: PodChannel, node: str) -> None:
        told = channel.send(node, {"version": PROTOCOL_VERSION, "do": "list"})["result"]
        assert (told["owner"], told["processes"], told["asleep"], told["watch"]) == (None, [], False, None)
        rules = [rule._asdict() for rule in EVERY_RULE]
        released = channel.send(node, {"version": PROTOCOL_VERSION, "do": "release", "rules": rules})["result"]
        assert released["released"] == [] and released["failed"] == {}


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """See Trial."""
    name = str(NAME)
    cluster = find_cluster(name if name.startswith("meshwake-") else f"meshwake-{name}")
    assert cluster is not None, f"no cluster {name} that was brought up here; see meshwake status"
    return Trial(cluster, tmp_path)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"moment{moment}")
def test_the_next_command_puts_back_what_a_killed_run_left(trial: Trial, moment: int, tmp_path: Path) -> None:
    """Mostly `status`; every fifth time another run, which must come out as on a cluster that was just made."""
    log = tmp_path / "killed.log"
    run = trial.start(scenario("5m", FAULTS), log)
    time.sleep(1 + moment * APART_S)
    assert run.poll() is None, log.read_text()
    run.kill()
    run.wait()
    if moment % 5 == 4:
        following = tmp_path / "following.log"
        assert trial.start(scenario("1m"), following).wait(ENDS_WITHIN_S) == 0, following.read_text()
    else:
        said = trial.command("status")
        assert "could not be undone" not in said
    trial.is_as_up_made_it()
    assert LEFT not in trial.command("status"), "the second command still found something"
