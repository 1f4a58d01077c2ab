"""Lab `kind`: the whole stack (Cilium, Istio ambient, MetalLB, gateway, waypoint) in real time, certificates short.

    refusals.py                      what it cannot do
    up.py, steps.py, cluster.py ...  the cluster: brought up once, used by all scenarios of a version
    reset.py                         a known state before each run, and nothing of ours after it
    session.py, faults.py            the run: faults by a mover (clocks/mover.py), connections, looks
    observe.py, traffic.py, watchers.py   what is looked at
    ways.py, real_ways.py            where all of it comes from on this machine

The cluster stays up for the next run; `meshwake down` puts it away.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from harness.clocks.mover import Mover
from harness.errors import LabUnavailable, SubjectFailed
from harness.history import Recorder
from harness.labs import Toolbox
from harness.labs.kind.faults import Faults
from harness.labs.kind.kubernetes import Kubernetes, Unreachable
from harness.labs.kind.observe import ZTUNNEL_NAMESPACE
from harness.labs.kind.refusals import refusals
from harness.labs.kind.reset import await_ztunnels, put_in, restart_ztunnels, take_away
from harness.labs.kind.session import Session, Setting
from harness.labs.kind.ways import Place, Ways
from harness.plan import Plan
from harness.scenario import CLOCK_FAULTS


class KindLab:
    """See harness.labs.Lab. `ways`: how it comes by a cluster and its clocks; tests give their own."""

    def __init__(self, ways: Ways | None = None) -> None:
        self._given = ways

    @property
    def _ways(self) -> Ways:
        """This machine's, unless a test gave others; imported when used, for they bring docker and kr8s with them."""
        if self._given is None:
            from harness.labs.kind.real_ways import RealWays

            self._given = RealWays()
        return self._given

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Why no cluster can be brought up here. Bounded: an engine that hangs is given up after seconds."""
        return self._ways.missing()

    def refusals(self, plan: Plan) -> list[str]:
        """What of the plan it cannot do."""
        return [*refusals(plan), *self._ways.refusals(plan)]

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See harness.labs.Lab.run. The cluster itself stays, for the next run."""
        place = self._ways.place(plan, _tell)
        kubernetes = self._ways.connect(place)
        try:
            _Run(self._ways, plan, place, kubernetes).run(toolbox, recorder)
        except Unreachable as error:
            raise SubjectFailed(f"cluster {place.name}: {error}") from error
        finally:
            kubernetes.close()


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a cluster takes minutes to come up; a person waits


class _Run:
    """One run on one cluster."""

    def __init__(self, ways: Ways, plan: Plan, place: Place, kubernetes: Kubernetes) -> None:
        self._ways, self._plan, self._place, self._kubernetes = ways, plan, place, kubernetes
        if len(place.nodes) < len(plan.nodes):
            raise LabUnavailable(
                f"cluster {place.name} has {len(place.nodes)} nodes for workloads, the scenario needs "
                f"{len(plan.nodes)}; bring it up with --nodes {len(plan.nodes)}"
            )
        self._node_names = {node.name: name for node, name in zip(plan.nodes, place.nodes, strict=False)}

    def run(self, toolbox: Toolbox, recorder: Recorder) -> None:
        self._say()
        with self._workloads(), self._mover() as mover, self._ways.executor() as executor:
            looked_at = self._ways.looked_at(self._plan, self._place, self._kubernetes, self._node_names)
            setting = Setting(
                plan=self._plan,
                kubernetes=self._kubernetes,
                real=self._ways.real,
                executor=executor,
                node_names=self._node_names,
                routes=looked_at.routes,
                clients=looked_at.clients,
                watchers=looked_at.watchers,
                subject=self._subject(),
                progress=toolbox.progress,
            )
            session = Session(setting, mover, recorder)
            faults = Faults(session, mover, self._kubernetes)
            try:
                session.run(faults)
            finally:
                faults.undo()

    def _say(self) -> None:
        """What is going to happen, before anything is changed."""
        where = f"cluster {self._place.name}" + ("" if self._place.ours else " (not ours)")
        _tell(f"{where}: workloads of {self._plan.scenario} are applied, every ztunnel is restarted")
        if not self._place.ours:
            _tell(f"{where}: only what carries our label is deleted afterwards; ztunnel's configuration is not changed")

    @contextmanager
    def _workloads(self) -> Iterator[None]:
        """What the run puts into the cluster. They go before clocks are put back: an identity that has left the mesh
        has no certificate that a backward step could send into endless renewal."""
        real, stamp = self._ways.real, f"{self._plan.sha256[:12]}-{self._ways.real.monotonic_ns()}"
        take_away(self._kubernetes, real)
        try:
            objects = [*self._ways.objects(self._plan, self._node_names), *_objects_of_fix(self._plan)]
            put_in(self._kubernetes, real, objects, self._ways.awaited(self._plan))
            restart_ztunnels(self._kubernetes, real, self._plan.lifetime_s, stamp, self._place.ours)
            yield
        finally:
            take_away(self._kubernetes, real)

    @contextmanager
    def _mover(self) -> Iterator[Mover]:
        """The mover, guarded and ready; its clocks are put back afterwards, and ztunnels begin anew on those."""
        mover = self._ways.mover(self._plan, self._place, self._kubernetes, self._node_names)
        mover.prepare()
        try:
            yield mover
        finally:
            if any(fault.kind in CLOCK_FAULTS for fault in self._plan.faults):
                self._put_clocks_back(mover)
            else:
                mover.release()

    def _put_clocks_back(self, mover: Mover) -> None:
        try:
            take_away(self._kubernetes, self._ways.real)
        finally:
            mover.release()
        if self._place.ours:
            for pod in self._kubernetes.pods(ZTUNNEL_NAMESPACE, {"app": "ztunnel"}):
                self._kubernetes.end_pod(pod)
            await_ztunnels(self._kubernetes, self._ways.real)

    def _subject(self) -> Mapping[str, Any]:
        """What was tested, for run_started."""
        found = self._kubernetes.read("DaemonSet.apps", ZTUNNEL_NAMESPACE, "ztunnel") or {}
        containers = found.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
        images = [container.get("image") for container in containers]
        about = {"kind": "cluster", "cluster": self._place.name, "ours": self._place.ours, "ztunnel_images": images}
        return {**about, **self._place.about, "nodes": dict(self._node_names)}


def _objects_of_fix(plan: Plan) -> list[dict[str, Any]]:
    """The manifest that the user would apply, as it stands."""
    if plan.fix is None or plan.fix.manifest is None:
        return []
    return [thing for thing in yaml.safe_load_all(plan.fix.manifest) if isinstance(thing, dict)]


LAB = KindLab()
