from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.movers.base import Meanwhile, Moved, sleep_meanwhile
from meshwake.cluster.guard_deployment.manifest import guard_objects
from meshwake.cluster.stack.own_images import GUARD
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.core.history import History, Recorder
from meshwake.core.json_types import text_at
from meshwake.core.outcome import Verdict
from meshwake.core.plan import Plan, PlannedCluster, PlannedFix
from meshwake.core.planned_faults import PlannedFault
from meshwake.guard.cluster import Places
from meshwake.kubernetes.api import Kubernetes, Pod
from meshwake.kubernetes.labels import OUR_LABELS, RUN_LABELS
from meshwake.labs import Toolbox
from meshwake.labs.kind.environment import LookedAt, RunningCluster
from meshwake.labs.kind.fix import objects_of_fix, objects_to_apply
from meshwake.labs.kind.lab import KindLab
from meshwake.labs.kind.refusals import with_installed_guard as conflicts_with_guard

from tests.support.paths import CLUSTERS
from tests.unit.cluster.simulated import Inline, SimulatedCluster, SimulatedMover
from tests.unit.labs.kind.runs import (
    node_names,
    plan,
    plan_of,
    setting_of,
    sleeping_gateway,
    verdicts,
)

PAUSE = '[[fault]]\nkind = "pause"\nat = "6m"\nlasts = "17m"\ncorrected_after = "25s"\n'


@dataclass
class SimulatedEnvironment:
    """See environment.Environment: everything on one simulated cluster."""

    of: Plan
    real: SimulatedCluster
    ours: bool = True
    mover_made: Any = None  # a SimulatedMover, unless a test gives another
    nodes: tuple[str, ...] = ("worker0", "worker1", "control-plane")
    refused: list[str] = field(default_factory=list)

    def missing(self) -> list[str]:
        return ["no kind on PATH; run: make tools"]

    def refusals(self, plan: Plan) -> list[str]:
        return self.refused

    @contextmanager
    def place(self, plan: Plan, report: Callable[[str], None]) -> Iterator[RunningCluster]:
        yield RunningCluster(
            "meshwake-test",
            Path("kubeconfig"),
            None,
            self.ours,
            self.nodes,
            about={"istio": plan.version},
        )

    def connect(self, place: RunningCluster) -> Kubernetes:
        return self.real

    def mover(
        self,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        node_names: Mapping[str, str],
    ) -> Any:
        self.mover_made = self.mover_made or SimulatedMover(self.real)
        return self.mover_made

    def executor(self) -> Executor:
        return Inline()

    def objects(self, plan: Plan, node_names: Mapping[str, str]) -> tuple[Mapping[str, Any], ...]:
        identities = [identity for node in plan.nodes for identity in node.identities]
        return tuple(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"namespace": identity.split("/")[0], "name": identity.split("/")[1]},
            }
            for identity in identities
        )

    def awaited(self, plan: Plan) -> tuple[tuple[str, Mapping[str, str]], ...]:
        return tuple(
            (identity.split("/")[0], {"app": identity.split("/")[1]})
            for node in plan.nodes
            for identity in node.identities
        )

    def gateways(self, plan: Plan, node_names: Mapping[str, str]) -> tuple[Any, Any]:
        return (), ()

    def looked_at(
        self,
        plan: Plan,
        place: RunningCluster,
        kubernetes: Kubernetes,
        node_names: Mapping[str, str],
    ) -> LookedAt:
        setting = setting_of(plan, self.real)
        return LookedAt(setting.routes, setting.clients)


def environment_of(of: Plan, **about: Any) -> SimulatedEnvironment:
    cluster = SimulatedCluster(of, node_names(of))
    return SimulatedEnvironment(of, cluster, **about)


def run(environment: SimulatedEnvironment) -> History:
    recorder = Recorder()
    KindLab(environment).run(environment.of, Toolbox(ztunnel=None, work_dir=Path()), recorder)
    return recorder.history


def deployments(cluster: SimulatedCluster) -> list[str]:
    ours = [
        (kind, name) for kind, namespace, name in cluster.objects if namespace != "istio-system"
    ]
    return sorted(name for kind, name in ours if kind == "Deployment")


def test_a_whole_run_breaks_where_the_model_breaks() -> None:
    """From a cluster with certificates of a day to a judged history: ten minutes of life are set,
    the pause is made."""
    environment = environment_of(plan_of("regressions/ztunnel_1481.toml"))
    found = verdicts(environment.of, run(environment))
    assert found["clock_fault_happened"] is Verdict.HOLDS
    assert found["no_expired_certificate_served"] is found["recovers_within"] is Verdict.BROKEN


def test_a_whole_run_holds_where_nothing_happens() -> None:
    """No fault: clocks are only read (movers.py makes a Reader), and the reader is released."""
    environment = environment_of(plan(duration="20m"))
    found = verdicts(environment.of, run(environment))
    assert found["traffic_flows"] is found["renewals_on_time"] is Verdict.HOLDS
    assert (
        environment.mover_made is not None
        and environment.mover_made.prepared
        and environment.mover_made.released
    )


def test_the_first_event_says_what_was_tested() -> None:
    """Cluster, versions, and on which node of it each node of the plan lies."""
    (started,) = run(environment_of(plan(duration="1m"))).of("run_started")
    assert started["lab"] == "kind"
    assert started["subject"]["cluster"] == "meshwake-test"
    assert started["subject"]["nodes"] == {"vm": "worker0"}


def test_what_a_run_put_in_is_gone_after_it() -> None:
    """Workloads first, then the clocks are restored, then ztunnels restart on those."""
    environment = environment_of(plan(PAUSE))
    run(environment)
    cluster, mover = environment.real, environment.mover_made
    assert mover is not None and mover.prepared and mover.released
    assert deployments(cluster) == []
    calls = cluster.calls
    restarts = [at for at, call in enumerate(calls) if call == "patch DaemonSet.apps ztunnel"]
    assert calls.index("apply Deployment") < restarts[0]
    assert mover.released_after <= restarts[1], "ztunnels restart on clocks that are right again"
    assert cluster.closed


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SubjectFailed("the clocks did not move")])
def test_a_run_that_is_broken_off_leaves_nothing(error: BaseException) -> None:
    """^C in the middle of a fault: the workloads go and the clocks are restored all the same."""

    class Stuck(SimulatedMover):
        def move(self, fault: PlannedFault, meanwhile: Meanwhile = sleep_meanwhile) -> Moved:
            raise error

    environment = environment_of(plan(PAUSE))
    environment.mover_made = Stuck(environment.real)
    with pytest.raises(type(error)):
        run(environment)
    assert deployments(environment.real) == []
    assert environment.mover_made.released and environment.real.closed


def test_a_mover_that_refuses_to_prepare_leaves_nothing() -> None:
    """The guard says no: nothing was moved, and the workloads go again."""

    class Guarded(SimulatedMover):
        def prepare(self) -> None:
            raise LabUnavailable("the engine's kernel is this machine's own")

    environment = environment_of(plan(PAUSE))
    environment.mover_made = Guarded(environment.real)
    with pytest.raises(LabUnavailable, match="this machine's own"):
        run(environment)
    assert deployments(environment.real) == []


def test_what_the_last_run_left_is_taken_away_first() -> None:
    """A run that was killed left its workloads; foreign objects stay."""
    environment = environment_of(plan(duration="2m"))
    left = {"metadata": {"labels": {**OUR_LABELS, **RUN_LABELS}}}
    environment.real.objects["Deployment", "other", "left-behind"] = left
    environment.real.objects["Deployment", "other", "foreign"] = {
        "metadata": {"labels": dict(RUN_LABELS)}
    }
    run(environment)
    assert deployments(environment.real) == ["foreign"]


def test_a_name_that_is_in_use_elsewhere_is_left_alone() -> None:
    """A Deployment default/client that is not ours: refused before anything is changed."""
    environment = environment_of(plan(duration="2m"))
    theirs = {"metadata": {"labels": {"app": "theirs"}}}
    environment.real.objects["Deployment", "default", "client"] = theirs
    with pytest.raises(
        LabUnavailable, match="Deployment default/client exists and does not carry our label"
    ):
        run(environment)
    assert environment.real.objects["Deployment", "default", "client"] is theirs
    assert not [call for call in environment.real.calls if call.startswith(("apply", "patch"))]


def test_a_cluster_that_is_not_ours_is_not_reconfigured() -> None:
    """Its ztunnels live by other numbers than the plan: reported, with the command that would
    change it."""
    environment = environment_of(plan(duration="2m"), ours=False)
    with pytest.raises(LabUnavailable, match="SECRET_TTL=86400s.*helm upgrade ztunnel"):
        run(environment)
    assert not [call for call in environment.real.calls if call.startswith("patch")]
    assert deployments(environment.real) == []


def test_a_cluster_with_too_few_nodes_is_reported() -> None:
    """Two nodes of the plan, one of the cluster."""
    from tests.unit.labs.kind.runs import TWO_NODES

    environment = environment_of(plan(nodes=TWO_NODES, duration="2m"), nodes=("worker0",))
    with pytest.raises(
        LabUnavailable, match="too few nodes for workloads: 1, and the scenario needs 2"
    ):
        run(environment)


def test_a_cluster_without_gateways_is_refused_before_anything_is_changed() -> None:
    """Its nodes have no image of a gateway, and perhaps no such kind of object."""
    environment = environment_of(sleeping_gateway())
    with pytest.raises(LabUnavailable, match="without part gateway.*up --with gateway"):
        run(environment)
    assert not [call for call in environment.real.calls if call.startswith(("apply", "patch"))]


def test_an_api_server_that_is_unavailable_at_the_beginning() -> None:
    """The subject failed, in words; whatever was opened is closed."""
    environment = environment_of(plan(duration="2m"))
    environment.real.unreachable = lambda what: what.startswith("list")
    with pytest.raises(SubjectFailed, match="meshwake-test: .*no answer"):
        run(environment)
    assert environment.real.closed


# What it refuses


def refusals(of: Plan, **about: Any) -> str:
    return "\n".join(KindLab(environment_of(of, **about)).refusals(of))


def test_nothing_is_refused_that_can_be_done() -> None:
    """Pause, step, restart and an istiod that goes away."""
    step, restart = (
        '[[fault]]\nkind = "step"\nat = "1m"\nby = "7m"\n',
        '[[fault]]\nkind = "restart"\nat = "2m"\n',
    )
    away = '[[fault]]\nkind = "ca_outage"\nat = "3m"\nlasts = "1m"\n'
    assert refusals(plan(step + restart + away + PAUSE)) == ""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            'kind = "drift"\nat = "1m"\nlasts = "5m"\nrate = 1.5',
            r"\[fault 0\] drift: .*use --lab process",
        ),
        (
            'kind = "freeze"\nat = "1m"\nlasts = "5m"',
            r"\[fault 0\] freeze: .*evicted.*--clock process",
        ),
        ('kind = "ca_hang"\nat = "1m"\nlasts = "5m"', r"\[fault 0\] ca_hang: "),
        ('kind = "token_expired"\nat = "1m"\nlasts = "5m"', r"\[fault 0\] token_expired: "),
        (
            'kind = "step"\nat = "1m"\nby = "-5m"',
            r"\[fault 0\] step by -5m: .*renews without a pause",
        ),
    ],
)
def test_what_a_cluster_cannot_do_is_refused_by_name(fault: str, words: str) -> None:
    """Each with its reason and what to do instead."""
    import re

    assert re.search(words, refusals(plan(f"[[fault]]\n{fault}")))


def test_programs_can_be_frozen_where_their_clocks_are_moved() -> None:
    """--clock process stops only the programs that are judged, and Kubernetes notices nothing."""
    of = plan('[[fault]]\nkind = "freeze"\nat = "1m"\nlasts = "5m"')
    assert refusals(of.model_copy(update={"cluster": PlannedCluster(clock="process")})) == ""


@pytest.mark.parametrize("kind", ['kind = "restart"', 'kind = "ca_outage"\nlasts = "1m"'])
def test_in_a_cluster_that_exists_nothing_of_others_is_ended(kind: str) -> None:
    """ztunnel's pods and istiod belong to the user who installed them."""
    of = plan(f'[[fault]]\n{kind}\nat = "2m"')
    of = of.model_copy(update={"cluster": PlannedCluster(kubeconfig="/somewhere", clock="engine")})
    assert "not ours" in refusals(of)


def test_numbers_that_istiod_does_not_know_are_refused() -> None:
    """Its backdate is built in, and a life of seconds cannot be seen from outside."""
    of = plan(duration="30m").model_copy(
        update={"backdate_s": 0, "lifetime_s": 30, "duration_ns": 9 * 10**15}
    )
    message = refusals(of)
    assert "backdate 0 s" in message and "lifetime 30 s" in message and "at most 2 h" in message


def test_an_authority_apart_cannot_stay_awake_on_a_machine_that_sleeps() -> None:
    """istiod shares the engine's clock; with --clock process it may be left alone."""
    of = plan(PAUSE).model_copy(update={"authority_node": None})
    assert "authority apart" in refusals(of)
    assert "authority apart" not in refusals(
        of.model_copy(update={"cluster": PlannedCluster(clock="process")})
    )


@pytest.mark.parametrize(
    ("fix", "refused"),
    [
        ("log-watchdog", False),
        ("wake-guard", False),
        ("none", False),
        ("secret-ttl-720h", True),
        ("sleep-hook", True),
        ("boottime", True),
    ],
)
def test_only_what_can_be_applied_to_a_cluster_is(fix: str, refused: bool) -> None:
    """A chart's value, a hook of a machine or another ztunnel is not an object: it would be left out
    without a word."""
    message = refusals(plan(PAUSE).model_copy(update={"fix": PlannedFix(name=fix)}))
    assert (f"fix {fix}: not an object to apply" in message) is refused


SUSPEND = '[[fault]]\nkind = "suspend"\nat = "6m"\nlasts = "7m"\n'


@pytest.mark.parametrize(
    ("fix", "faults", "clock", "words"),
    [
        ("wake-guard", SUSPEND, "process", None),
        (
            "wake-guard",
            PAUSE,
            "process",
            r"\[fault 0\] pause together with fix wake-guard: .*kubelet and /proc",
        ),
        ("wake-guard", PAUSE, "engine", None),
        (
            "log-watchdog",
            SUSPEND,
            "process",
            "fix log-watchdog: .*kube-controller-manager.*authority.node vm",
        ),
        ("log-watchdog", PAUSE, "engine", None),
        ("log-watchdog", '[[fault]]\nkind = "restart"\nat = "6m"\n', "process", None),
    ],
)
def test_a_fix_whose_actor_would_live_by_other_clocks_is_refused(
    fix: str, faults: str, clock: Any, words: str | None
) -> None:
    """It would be judged by what it cannot have seen."""
    import re

    changed = {"fix": PlannedFix(name=fix), "cluster": PlannedCluster(clock=clock)}
    message = refusals(plan(faults).model_copy(update=changed))
    assert message == "" if words is None else re.search(words, message)


def test_a_fix_whose_actor_stays_awake_has_the_right_clock_as_it_is() -> None:
    """The control plane is another node than the one that sleeps."""
    of = plan(SUSPEND).model_copy(update={"authority_node": None})
    changed = {"fix": PlannedFix(name="log-watchdog"), "cluster": PlannedCluster(clock="process")}
    assert refusals(of.model_copy(update=changed)) == ""


def test_a_fix_that_would_not_act_within_the_run_is_refused() -> None:
    """A weekly CronJob in half an hour shows nothing; one of every five minutes does."""
    manifest = Path("clusters/fixes/weekly-restart/cronjob.yaml").read_text(encoding="utf-8")
    weekly = replace_fix(plan(PAUSE), manifest)
    often = replace_fix(plan(PAUSE), manifest.replace("0 3 * * 0", "*/5 * * * *"))
    assert "fix weekly-restart: its CronJob '0 3 * * 0' runs every 7d" in refusals(weekly)
    assert refusals(often) == ""


def test_a_fix_for_another_namespace_than_that_of_a_run_is_refused() -> None:
    """Applied to a cluster it would restart nothing, and be judged by that."""
    text = Path("clusters/fixes/daily-restart/cronjob.yaml").read_text(encoding="utf-8")
    often = text.replace("0 3 * * *", "*/5 * * * *")
    elsewhere = often.replace("istio-system", "ztunnel")
    for manifest, namespace, refused in ((elsewhere, "ztunnel", True), (often, None, False)):
        fix = PlannedFix(name="daily-restart", manifest=manifest, ztunnel_namespace=namespace)
        message = refusals(plan(PAUSE).model_copy(update={"fix": fix}))
        assert (
            "fix.ztunnel_namespace ztunnel: ztunnel of a run lives in istio-system" in message
        ) is refused


def replace_fix(of: Plan, manifest: str) -> Plan:
    return of.model_copy(update={"fix": PlannedFix(name="weekly-restart", manifest=manifest)})


def test_a_fix_is_applied_unchanged_and_goes_with_the_run() -> None:
    """Its objects carry our labels while they are there."""
    manifest = Path("clusters/fixes/weekly-restart/cronjob.yaml").read_text(encoding="utf-8")
    of = replace_fix(plan(duration="12m"), manifest.replace("0 3 * * 0", "*/5 * * * *"))
    environment = environment_of(of)
    run(environment)
    assert {"apply CronJob", "apply Role", "apply RoleBinding", "apply ServiceAccount"} <= set(
        environment.real.calls
    )
    assert not [
        key for key in environment.real.objects if key[0] in {"CronJob", "Role", "RoleBinding"}
    ]


def test_the_guard_is_applied_with_the_image_that_was_built_awaited_and_taken_away() -> None:
    """From the manifest as a user has it; an image of their own would keep its name."""
    manifest = CLUSTERS.joinpath(*GUARD.manifest).read_text(encoding="utf-8")
    of = plan(duration="3m").model_copy(
        update={"fix": PlannedFix(name="wake-guard", manifest=manifest)}
    )
    environment = environment_of(of)
    seen: list[Any] = []
    apply, pods = environment.real.apply, environment.real.pods

    def keep(objects: Any) -> None:
        seen.extend(objects)
        apply(seen)

    def ready(namespace: str | None, labels: Any) -> list[Pod]:
        if namespace == "meshwake-guard":
            environment.real.calls.append("guard awaited")
            return [Pod(namespace, "wake-guard-x", "u", "worker0", ready=True)]
        return pods(namespace, labels)

    environment.real.apply, environment.real.pods = keep, ready  # type: ignore[method-assign]
    run(environment)
    (daemon_set,) = [
        thing
        for thing in seen
        if thing["metadata"]["name"] == "wake-guard" and thing["kind"] == "DaemonSet"
    ]
    assert (
        daemon_set["spec"]["template"]["spec"]["containers"][0]["image"]
        == GUARD.reference
        != GUARD.named
    )
    calls = environment.real.calls
    assert (
        calls.index("apply DaemonSet")
        < calls.index("guard awaited")
        < calls.index("patch DaemonSet.apps ztunnel")
    )
    assert not [key for key in environment.real.objects if "guard" in f"{key[1]} {key[2]}"]


def with_installed_guard(of: Plan) -> SimulatedEnvironment:
    """As `meshwake guard install` leaves a cluster."""
    environment = environment_of(of)
    (daemon_set,) = [each for each in guard_objects(Places()) if each["kind"] == "DaemonSet"]
    environment.real.objects["DaemonSet", "meshwake-guard", "wake-guard"] = daemon_set
    return environment


def test_an_installed_guard_is_part_of_what_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    """The run reports it, names its image, and leaves it in the cluster."""
    environment = with_installed_guard(plan(duration="20m"))
    history = run(environment)
    assert history.events[0].data["subject"]["guard"] == GUARD.named
    assert f"a wake guard is installed ({GUARD.named})" in capsys.readouterr().err
    assert ("DaemonSet", "meshwake-guard", "wake-guard") in environment.real.objects
    without = run(environment_of(plan(duration="20m")))
    assert "guard" not in without.events[0].data["subject"]


def test_the_fix_is_refused_where_a_guard_is_installed() -> None:
    """The run would take its objects over, and delete them at its end."""
    fix = PlannedFix(name="wake-guard", manifest="")
    environment = with_installed_guard(plan(duration="3m").model_copy(update={"fix": fix}))
    before = set(environment.real.objects)
    with pytest.raises(LabUnavailable, match="meshwake guard uninstall"):
        run(environment)
    assert set(environment.real.objects) == before


def test_a_pause_with_an_installed_guard_is_refused_where_kubelet_does_not_pause() -> None:
    """As with the fix: a new ztunnel would look old to it."""
    moved = plan(PAUSE).model_copy(update={"cluster": PlannedCluster(clock="process")})
    with pytest.raises(LabUnavailable, match=r"\[fault 0\] pause together with a wake guard"):
        run(with_installed_guard(moved))
    with_suspend = plan(SUSPEND).model_copy(update={"cluster": PlannedCluster(clock="process")})
    assert conflicts_with_guard(with_suspend) == []


def test_the_guard_of_a_run_looks_after_the_gateways_of_its_cluster() -> None:
    """As a user would have it with --gateway-namespace; a guard of another image is left alone."""
    manifest = CLUSTERS.joinpath(*GUARD.manifest).read_text(encoding="utf-8")
    fix = PlannedFix(name="wake-guard", manifest=manifest)
    of = plan(duration="3m").model_copy(update={"fix": fix})
    roles = {
        text_at(thing, "metadata", "namespace")
        for thing in objects_to_apply(of, ["meshwake-demo"])
        if thing["kind"] == "Role"
    }
    assert roles == {"istio-system", "meshwake-guard", "meshwake-demo"}
    theirs = PlannedFix(name="wake-guard", manifest=manifest.replace(GUARD.named, "theirs:1"))
    of = plan(duration="3m").model_copy(update={"fix": theirs})
    assert objects_to_apply(of, ["meshwake-demo"]) == objects_of_fix(of)


def test_what_is_missing_and_what_the_mover_refuses_are_passed_on() -> None:
    """The lab adds its own reasons to those of the machine and of the mover."""
    environment = environment_of(
        plan(), refused=["[fault 1] suspend of one node alone: kind nodes share one kernel clock"]
    )
    assert KindLab(environment).missing(None) == ["no kind on PATH; run: make tools"]
    assert KindLab(environment).refusals(environment.of) == environment.refused


def test_a_cluster_is_used_again_by_the_next_scenario() -> None:
    """Drift, certificates and objects of the first run are no part of the second."""
    first = environment_of(plan(PAUSE))
    assert verdicts(first.of, run(first))["traffic_flows"] is Verdict.BROKEN
    quiet = plan(duration="20m")
    second = replace(first, of=quiet, mover_made=None)
    second.real.plan = quiet
    assert verdicts(quiet, run(second))["traffic_flows"] is Verdict.HOLDS
