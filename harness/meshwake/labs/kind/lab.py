"""Lab `kind`: the whole stack (Cilium, Istio ambient, MetalLB, gateway, waypoint) in a real
cluster, in time lapse or in real time.

    refusals.py                  what it cannot do
    session.py, pace.py          the run: what is due is done and observed; how time passes
    faults.py, lapsed.py         faults, by a clock mover (clocks/movers/base.py)
    traffic.py, watchers.py      what is observed in addition to ztunnel (cluster/observe.py)
    environment.py, local_environment.py   what the lab depends on; the same on this machine

The cluster itself is ../../cluster: it is created once and used by all scenarios of a version
(up.py), one command at a time has it (hold.py), and a run leaves it as it found it (reset.py).
`meshwake down` deletes it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meshwake.clocks.movers.base import Mover
from meshwake.clocks.movers.lapse import LapseMover
from meshwake.cluster.guard_deployment.install import installed_image
from meshwake.cluster.hold import Hold, hold
from meshwake.cluster.observe import check_versions, node_names, running_versions
from meshwake.cluster.reset import (
    apply_run_objects,
    check_ambient,
    delete_run_objects,
    restart_ztunnels,
    restore_cluster,
)
from meshwake.cluster.stack.pieces import DEMO_NAMESPACE
from meshwake.cluster.stack.workloads import split_identity
from meshwake.core.durations import format_duration
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.history import Recorder
from meshwake.core.json_types import JsonObject
from meshwake.core.plan import Plan
from meshwake.kubernetes.api import Kubernetes, Unreachable
from meshwake.labs import Toolbox
from meshwake.labs.kind.cron_jobs import FixJobs, WithJobs
from meshwake.labs.kind.environment import Environment, RunningCluster
from meshwake.labs.kind.faults import Faults
from meshwake.labs.kind.fix import awaited_of_fix, due_jobs_of, objects_to_apply
from meshwake.labs.kind.lapsed import LapsedFaults
from meshwake.labs.kind.pace import LapsePace
from meshwake.labs.kind.refusals import refusals, with_installed_guard
from meshwake.labs.kind.session import ClusterSession, FaultsOfRun, Setting


class KindLab:
    """See meshwake.labs.Lab. `environment`: cluster, API client and clock mover; tests pass a
    simulated one."""

    def __init__(self, environment: Environment | None = None) -> None:
        self._given = environment

    @property
    def _environment(self) -> Environment:
        """This machine's unless a test passed another; imported lazily, because it imports docker
        and kr8s."""
        if self._given is None:
            from meshwake.labs.kind.local_environment import LocalEnvironment

            self._given = LocalEnvironment()
        return self._given

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Why no cluster can be created here. Bounded: an engine that hangs is given up on after
        seconds."""
        return self._environment.missing()

    def refusals(self, plan: Plan) -> list[str]:
        """What the plan requires that this lab cannot do."""
        return [*refusals(plan), *self._environment.refusals(plan)]

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See meshwake.labs.Lab.run. The cluster stays for the next run; no other command can use
        it meanwhile."""
        with self._environment.place(plan, _report) as place:
            kubernetes = self._environment.connect(place)
            try:
                check_ambient(kubernetes)
                with hold(
                    kubernetes, self._environment.real, place.name, f"run of {plan.scenario}"
                ) as held:
                    _Run(self._environment, plan, place, kubernetes, held).run(toolbox, recorder)
            except Unreachable as error:
                raise SubjectFailed(f"cluster {place.name}: {error}") from error
            finally:
                kubernetes.close()


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a cluster takes minutes to come up; a person waits


class _Run:
    """One run on one cluster."""

    def __init__(
        self,
        environment: Environment,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        held: Hold,
    ) -> None:
        self._environment, self._plan, self._place, self._kubernetes = (
            environment,
            plan,
            place,
            kubernetes,
        )
        self._held = held
        if len(place.nodes) < len(plan.nodes):
            raise LabUnavailable(
                f"cluster {place.name} has too few nodes for workloads: "
                f"{len(place.nodes)}, and the scenario needs "
                f"{len(plan.nodes)}; bring it up with --nodes {len(plan.nodes)}"
            )
        self._guard = installed_image(kubernetes)
        if self._guard is not None and (conflicts := with_installed_guard(plan)):
            raise LabUnavailable(f"cluster {place.name}: {'; '.join(conflicts)}")
        if plan.gateways and place.ours and "gateway" not in place.parts:
            raise LabUnavailable(
                f"cluster {place.name} was made without part gateway, which [[gateway]] needs; use "
                "a cluster by meshwake up --with gateway, or --lab model"
            )
        self._running = running_versions(kubernetes, place.nodes)
        self._node_names = node_names(plan, place.nodes, self._running.istiod_nodes)

    def run(self, toolbox: Toolbox, recorder: Recorder) -> None:
        check_versions(self._plan, self._place.name, self._running)
        with self._changed(), self._mover() as mover, self._environment.executor() as executor:
            # Read again: a restart may bring another image than the one that ran.
            self._running = running_versions(self._kubernetes, self._place.nodes)
            check_versions(self._plan, self._place.name, self._running)
            looked_at = self._environment.looked_at(
                self._plan, self._place, self._kubernetes, self._node_names
            )
            setting = Setting(
                plan=self._plan,
                kubernetes=self._kubernetes,
                real=self._environment.real,
                executor=executor,
                node_names=self._node_names,
                routes=looked_at.routes,
                clients=looked_at.clients,
                watchers=looked_at.watchers,
                subject=self._subject(),
                progress=toolbox.progress,
                check_held=self._held.check,
                skips=mover if isinstance(mover, LapseMover) else None,
                guard_installed=self._guard is not None,
                # In parallel to the run: a fault must not wait for an API server that is slow.
                report_under_way=lambda under_way: executor.submit(self._held.report, under_way),
            )
            session = ClusterSession(setting, mover, recorder)
            session.run(self._faults(session, mover))

    def _faults(self, session: ClusterSession, mover: Mover) -> FaultsOfRun:
        # In time lapse both are of that kind; both are looked at for the sake of their types.
        if not isinstance(mover, LapseMover) or not isinstance(session.pace, LapsePace):
            return Faults(session, mover, self._kubernetes)

        faults = LapsedFaults(session, mover, self._kubernetes, session.pace)
        jobs = FixJobs(session, self._kubernetes, due_jobs_of(self._plan))
        return WithJobs(faults, jobs)

    def _say(self) -> None:
        """Print what is about to happen, before anything is changed."""
        where = f"cluster {self._place.name}" + ("" if self._place.ours else " (not ours)")
        _report(
            f"{where}: workloads of {self._plan.scenario} are applied, every ztunnel is restarted"
        )
        if self._guard is not None:
            _report(
                f"{where}: a wake guard is installed ({self._guard}), and is part of what is judged"
            )
        if self._plan.is_in_time_lapse:
            _report(
                f"{where}: idle time is skipped: the clocks of istiod, ztunnels and proxies "
                "are taken ahead by up to "
                f"{format_duration(self._plan.duration_ns)}, and those programs are started "
                "again at the end"
            )
        if not self._place.ours:
            _report(
                f"{where}: only what carries our label is deleted afterwards; ztunnel's "
                "configuration is not changed"
            )

    @property
    def _namespaces_of_gateways(self) -> tuple[str, ...]:
        """Of the stack's gateway and waypoint, and of the plan's gateways."""
        namespaces = []
        if self._place.parts & {"gateway", "waypoint"}:
            namespaces.append(DEMO_NAMESPACE)
        for gateway in self._plan.gateways:
            namespace, _ = split_identity(gateway.identity)
            namespaces.append(namespace)
        return tuple(namespaces)

    @contextmanager
    def _changed(self) -> Iterator[None]:
        """The cluster as the plan needs it: workloads applied, every ztunnel restarted. On exit all
        of that is undone."""
        real, stamp = (
            self._environment.real,
            f"{self._plan.sha256[:12]}-{self._environment.real.monotonic_ns()}",
        )
        for line in restore_cluster(self._kubernetes, real):
            _report(f"cluster {self._place.name}: left by a run that was killed: {line}")
        try:
            self._say()
            objects = [
                *self._environment.objects(self._plan, self._node_names),
                *objects_to_apply(self._plan, self._namespaces_of_gateways),
            ]
            awaited = [*self._environment.awaited(self._plan), *awaited_of_fix(self._plan)]
            apply_run_objects(self._kubernetes, real, objects, awaited)
            restart_ztunnels(self._kubernetes, real, self._plan.lifetime_s, stamp, self._place.ours)
            # After the ztunnels: world time begins with their first certificates, and a gateway's
            # must not be older.
            gateways = self._environment.gateways(self._plan, self._node_names)
            apply_run_objects(self._kubernetes, real, *gateways)
            yield
        finally:
            if not self._held.lost:  # the command that took it over restores it
                restore_cluster(self._kubernetes, real)

    @contextmanager
    def _mover(self) -> Iterator[Mover]:
        """The mover, prepared; on exit its clocks are restored. Workloads are deleted before that:
        an identity that has left the mesh has no certificate that a backward step could send into
        endless renewal."""
        mover = self._environment.mover(self._plan, self._place, self._kubernetes, self._node_names)
        mover.prepare()
        try:
            yield mover
        finally:
            try:
                if isinstance(mover, LapseMover) or any(
                    fault.kind in CLOCK_FAULTS for fault in self._plan.faults
                ):
                    delete_run_objects(self._kubernetes, self._environment.real)
            finally:
                mover.release()

    def _subject(self) -> JsonObject:
        """The system under test, for run_started; key "asked" is what the cluster was to be made
        of, which may differ from what runs."""
        about = {"kind": "cluster", "cluster": self._place.name, "ours": self._place.ours}
        requested = {"asked": dict(self._place.about)} if self._place.about else {}
        guard = {} if self._guard is None else {"guard": self._guard}
        return {
            **about,
            **self._running.to_json(),
            **requested,
            **guard,
            "nodes": dict(self._node_names),
        }


LAB = KindLab()
