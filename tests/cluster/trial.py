"""A cluster of ours while it is tried on: the commands that a person types, and what is in it
before and after."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.clocks.movers.process import EVERY_RULE
from meshwake.cluster.cluster import Cluster
from meshwake.cluster.docker import DockerEngine
from meshwake.cluster.node_channel import DAEMON_SET, LABELS, MARK, NAMESPACE, PodChannel
from meshwake.cluster.reset import KINDS_OF_A_RUN
from meshwake.cluster.stack.choice import PROFILES
from meshwake.cluster.stack.own_images import GUARD
from meshwake.cluster.stack.pieces import OBSERVABILITY_NAMESPACE
from meshwake.core.errors import HarnessError
from meshwake.core.json_types import JsonObject, int_at, object_at, objects_at, text_at, texts_at
from meshwake.core.store import SavedRun, read_run
from meshwake.kubernetes.api import Executed, Kubernetes, identity_of
from meshwake.kubernetes.kubeconfig import read_access
from meshwake.kubernetes.labels import RUN_LABELS
from meshwake.kubernetes.rollouts import WORKLOADS, unmet
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.environment import MAX_STREAMS, SECRET_TTL
from meshwake.ztunnel.names import ISTIO_NAMESPACE, PROXY_CONTAINER, ZTUNNEL_NAME

from tests.support.paths import REPOSITORY

Seen = TypeVar("Seen")
MESHWAKE = (sys.executable, "-c", "import sys; from meshwake.cli.app import main; sys.exit(main())")
SCENARIOS = REPOSITORY / "scenarios" / "kind"
OF_EVERY_LAB = REPOSITORY / "scenarios"
ENDS_WITHIN_S = 900.0
# In addition to the time of the scenario itself: workloads, two restarts of every ztunnel, the
# helper's image the first time.
AROUND_A_RUN_S = 1200.0
LOOK_EVERY_S = 2.0
# A client and a server, each on a node of its own; how often they connect follows.
TWO_NODES = """[[node]]
name       = "here"
identities = ["default/client"]
[[node]]
name       = "there"
identities = ["default/server"]
[traffic]
pairs = [["default/client", "default/server"]]
"""
# Which must come out as on a cluster that was just made.
QUIET = f"""
title    = "Nothing happens for a minute"
labs     = ["kind"]
duration = "1m"
[certificate]
lifetime = "6m"
{TWO_NODES}every = "10s"
[[fault]]
kind = "step"
node = "there"
at   = "20s"
by   = "1s"
[[expect]]
check   = "traffic_flows"
verdict = "holds"
because = "a second is nothing"
"""
# What a run can change, or put in. The helper's namespace stays in a cluster of ours: what it does
# is checked instead.
_KINDS = (
    *("Namespace", "Node", "ServiceAccount", "ConfigMap", "Secret", "Service"),
    *(f"{kind}.apps" for kind in WORKLOADS),
    *("CronJob.batch", "PodDisruptionBudget.policy", "NetworkPolicy.networking.k8s.io"),
    *(
        f"{kind}.rbac.authorization.k8s.io"
        for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
    ),
    *(
        f"{kind}.admissionregistration.k8s.io"
        for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
    ),
    *("PriorityClass.scheduling.k8s.io", "CustomResourceDefinition.apiextensions.k8s.io"),
    *(
        "Gateway.gateway.networking.k8s.io",
        "HTTPRoute.gateway.networking.k8s.io",
        "IPAddressPool.metallb.io",
    ),
)
# Counted or renewed by controllers, whatever a run does.
_VOLATILE = (
    "deprecated.daemonset.template.generation",
    "deployment.kubernetes.io/revision",
    "control-plane.alpha.kubernetes.io/leader",
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        """All of it."""
        return self.stdout + self.stderr


class Trial:
    """The cluster, and the commands that are used on it. `runs` is where histories are kept."""

    def __init__(self, cluster: Cluster, engine: DockerEngine, directory: Path, runs: Path) -> None:
        self.cluster, self.engine, self.directory = cluster, engine, directory
        self.environment = {**os.environ, "MESHWAKE_RUNS": str(runs)}
        self.runs, self._ran = runs, dict[tuple[Path, bool], Ran]()

    @property
    def name(self) -> str:
        """As it is given to --name."""
        return self.cluster.name

    @property
    def istio(self) -> str:
        """The release that runs there."""
        assert self.cluster.choice is not None
        return self.cluster.choice.istio

    @property
    def context(self) -> str:
        """Its name in its kubeconfig: the only one there."""
        return read_access(self.cluster.kubeconfig, None).context

    @property
    def parts(self) -> frozenset[str]:
        """What it was made of."""
        assert self.cluster.choice is not None
        return self.cluster.choice.parts

    # Commands

    def meshwake(self, *words: str, within_s: float = ENDS_WITHIN_S) -> Ended:
        """A command on this cluster, awaited."""
        command = [*MESHWAKE, *words, "--name", self.name]
        ended = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=within_s,
            env=self.environment,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def command(self, *words: str, within_s: float = ENDS_WITHIN_S) -> str:
        """What a command says that succeeds."""
        ended = self.meshwake(*words, within_s=within_s)
        assert ended.code == 0, ended.output
        return ended.output

    def up(self) -> str:
        """`meshwake up` with the words that the cluster was made by."""
        choice = self.cluster.choice
        assert choice is not None
        profile = set(PROFILES[choice.profile])
        words = [
            "--profile",
            choice.profile,
            "--istio",
            choice.istio,
            "--kubernetes",
            choice.kubernetes,
        ]
        words += ["--nodes", str(choice.workers), "--lifetime", f"{choice.lifetime_s}s"]
        words += [word for part in sorted(choice.parts - profile) for word in ("--with", part)]
        words += [word for part in sorted(profile - choice.parts) for word in ("--without", part)]
        words += ["--mirror", choice.mirror] if choice.mirror is not None else []
        return self.command("up", *words, within_s=2 * ENDS_WITHIN_S)

    def bring_up_to_date(self) -> None:
        """`up`, if the cluster's guard is of other sources than ours. Any run replaces it; the
        first one would be blamed for a cluster that differs afterwards."""
        if "observability" not in self.parts:
            return
        with self.cluster.opened() as kubernetes:
            guard = kubernetes.read("DaemonSet.apps", OBSERVABILITY_NAMESPACE, "guard")
        (container,) = objects_at(guard, "spec", "template", "spec", "containers")
        if text_at(container, "image") != GUARD.reference:
            self.up()

    @contextmanager
    def set_for(self, lifetime_s: int) -> Iterator[None]:
        """ztunnel as the owner of another cluster sets it, by what the refusal of a run asks for;
        `up` reverts it at the end."""
        settings = {SECRET_TTL: f"{lifetime_s}s", MAX_STREAMS: "1"}
        environment = [{"name": name, "value": value} for name, value in settings.items()]
        container = {"name": PROXY_CONTAINER, "env": environment}
        template = {"spec": {"containers": [container]}}
        try:
            with self.cluster.opened() as kubernetes:
                kubernetes.patch(
                    "DaemonSet.apps",
                    ISTIO_NAMESPACE,
                    ZTUNNEL_NAME,
                    {"spec": {"template": template}},
                )
            self.is_ready()
            yield
        finally:
            self.up()

    @contextmanager
    def running(
        self,
        scenario: Path,
        log: Path,
        *,
        real_time: bool = True,
        cluster: Sequence[str] | None = None,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A run by --clock process, so that nothing but programs in the cluster is moved; ended if
        it still is at work at the end of the block. Without `real_time` idle time is skipped.
        `cluster`: the options that say which one, instead of its name."""
        command = [
            *MESHWAKE,
            "run",
            str(scenario),
            "--lab",
            "kind",
            *(("--name", self.name) if cluster is None else cluster),
            "--clock",
            "process",
        ]
        command += ["--real-time"] if real_time else []
        with log.open("wb") as words:
            run = subprocess.Popen(
                [*command, "--keep-run"],
                stdout=words,
                stderr=words,
                env=self.environment,
                start_new_session=True,
            )
        try:
            yield run
        finally:
            if run.poll() is None:
                run.terminate()
                run.wait(ENDS_WITHIN_S)

    def ran(self, scenario: Path, *, real_time: bool = True) -> Ran:
        """A whole run of `scenario`, with the cluster before and after it; each is run once in a
        session."""
        key = (scenario, real_time)
        if key not in self._ran:
            self._ran[key] = self.run(scenario, real_time=real_time)
        return self._ran[key]

    def run(self, scenario: Path, *, real_time: bool) -> Ran:
        """As `ran`, again each time."""
        log = self.directory / f"{scenario.stem}{'-real-time' if real_time else ''}.log"
        before = self.objects()
        with self.running(scenario, log, real_time=real_time) as run:
            code = wait_until(
                f"the end of the run of {scenario.name}", 3600 + AROUND_A_RUN_S, run.poll
            )
        latest = (self.runs / scenario.stem / "latest").resolve()
        return Ran(code, log.read_text(), latest, before, self.objects())

    def histories(self, scenario: Path) -> set[Path]:
        """Of every run of `scenario` that was kept or is under way."""
        found = self.runs.glob(f"{scenario.stem}/*/history.jsonl")
        return {path for path in found if path.parent.name != "latest"}  # that is one of the others

    # What is in the cluster

    def objects(self) -> dict[str, Any]:
        """Everything that a run could change, without what controllers write by themselves."""
        with self.cluster.opened() as kubernetes:
            return dict(_objects(kubernetes))

    def settings(self) -> Any:
        """What a run changes in objects that are not its own."""
        with self.cluster.opened() as kubernetes:
            ztunnel = kubernetes.read("DaemonSet.apps", "istio-system", "ztunnel")
            istiod = kubernetes.read("Deployment.apps", "istio-system", "istiod")
        annotations = {
            key: text
            for key, text in texts_at(ztunnel, "metadata", "annotations").items()
            if "meshwake" in key
        }
        pod_spec = object_at(ztunnel, "spec", "template", "spec")
        return pod_spec, annotations, int_at(istiod, "spec", "replicas")

    def has_nothing_of_a_run(self) -> None:
        """Nothing left, nothing moved, nothing stopped, no command at work."""
        with self.cluster.opened() as kubernetes:
            left = [
                (kind, *thing)
                for kind in KINDS_OF_A_RUN
                for thing in kubernetes.ours(kind, RUN_LABELS)
            ]
            assert left == []
            assert kubernetes.read("Lease.coordination.k8s.io", "istio-system", "meshwake") is None
            helper = kubernetes.read("DaemonSet.apps", NAMESPACE, DAEMON_SET)
            if helper is None:
                return  # the run was killed before it was put in
            assert MARK not in texts_at(helper, "metadata", "annotations")
            nodes = {pod.node: pod.node for pod in kubernetes.pods(NAMESPACE, LABELS)}
            channel = PodChannel(kubernetes, nodes)
            for node in nodes:
                _is_not_moved(channel, node)

    def is_as_before(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """A run has ended, and the cluster's objects around it are the same; nothing of the run is
        left, and everything is ready."""
        assert differences(before, after) == []
        self.has_nothing_of_a_run()
        self.is_ready()

    def has_no_helper(self) -> None:
        """The helpers' namespace is gone, before a bound: what is deleted takes its seconds."""
        with self.cluster.opened() as kubernetes:
            wait_until(
                "the helpers to go",
                120,
                lambda: kubernetes.read("Namespace", None, NAMESPACE) is None or None,
            )

    def is_ready(self) -> None:
        """Every workload is rolled out, before a bound."""
        with self.cluster.opened() as kubernetes:
            wait_until("every workload to be rolled out", 300, lambda: _all_ready(kubernetes))

    def execute(self, node: str, *command: str) -> Executed:
        """How a command ended in a node's machine."""
        return self.engine.execute(node, command)


@dataclass(frozen=True)
class Ran:
    """A run that ended: its exit code and words, where it was kept, and the cluster's objects
    around it."""

    code: int
    log: str
    directory: Path
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    def saved(self) -> SavedRun:
        """Plan, history and result."""
        return read_run(self.directory)


def write_scenario(path: Path, text: str) -> Path:
    """A scenario of `text`, whose numbers are those of real time; lab kind requires that table."""
    read, faults = tomllib.loads(text), text[text.index("[[fault]]") : text.index("[[expect]]")]
    numbers = (read["certificate"]["lifetime"], read["duration"], read["traffic"]["every"])
    table = '[real_time]\nlifetime = "{}"\nduration = "{}"\nevery = "{}"\n'.format(*numbers)
    in_real_time = f"{table}{faults.replace('[[fault]]', '[[real_time.fault]]')}"
    path.write_text(text.replace(faults, f"{faults}{in_real_time}"))
    return path


def wait_until(what: str, within_s: float, look: Callable[[], Seen | None]) -> Seen:
    """The first answer of `look` that is not None; an AssertionError past the bound."""
    deadline = Deadline(what, within_s)
    while (seen := look()) is None:
        deadline.pause(LOOK_EVERY_S)
    return seen


def _all_ready(kubernetes: Kubernetes) -> bool | None:
    with suppress(HarnessError):
        things = [thing for kind in WORKLOADS for thing in kubernetes.all(f"{kind}.apps")]
        return None if any(unmet(thing) is not None for thing in things) else True
    return None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What was made, removed and changed between two looks, one line each."""
    made = [f"made: {name}" for name in sorted(after.keys() - before.keys())]
    gone = [f"removed: {name}" for name in sorted(before.keys() - after.keys())]
    both = sorted(before.keys() & after.keys())
    return [
        *made,
        *gone,
        *(line for name in both for line in _changed(name, before[name], after[name])),
    ]


def _changed(place: str, before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            yield from _changed(f"{place}.{key}", before.get(key), after.get(key))
    elif before != after:
        yield f"{place} is {after!r}, was {before!r}"


def _objects(kubernetes: Kubernetes) -> Iterator[tuple[str, Any]]:
    for kind in _KINDS:
        for thing in kubernetes.all(kind):
            metadata = object_at(thing, "metadata")
            if NAMESPACE in {metadata.get("namespace"), metadata["name"]} or _is_renewed(thing):
                continue
            content = {
                key: part for key, part in thing.items() if key not in {"metadata", "status"}
            }
            yield (
                identity_of({"kind": kind, "metadata": metadata}),
                {
                    **content,
                    "labels": texts_at(metadata, "labels"),
                    "annotations": {
                        key: text
                        for key, text in texts_at(metadata, "annotations").items()
                        if key not in _VOLATILE
                    },
                },
            )


def _is_renewed(thing: JsonObject) -> bool:
    """Whether cert-manager writes it in its own time: it labels all Secrets of its certificates, the
    private key of a renewal that is under way too."""
    return "controller.cert-manager.io/fao" in texts_at(thing, "metadata", "labels")


def _is_not_moved(channel: PodChannel, node: str) -> None:
    helper = object_at(channel.send(node, {"version": PROTOCOL_VERSION, "do": "list"}), "result")
    assert (helper["owner"], helper["processes"], helper["asleep"], helper["watch"]) == (
        None,
        [],
        False,
        None,
    )
    rules = [rule._asdict() for rule in EVERY_RULE]
    request = {"version": PROTOCOL_VERSION, "do": "release", "rules": rules}
    released = object_at(channel.send(node, request), "result")
    assert released["released"] == [] and released["failed"] == {}
