# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
from __future__ import annotations

import json

import pytest
import yaml
from meshwake.clocks.virtual import clocks_of
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.fixes import PlannedRestart, deploy
from meshwake.fixes.cron import RESYNC_MIN_NS, job_times_ns, read_cron_job
from meshwake.fixes.jobs import CronJob
from meshwake.fixes.schedule import Times

from tests.support.paths import CLUSTERS
from tests.support.plans import NIGHTS, TWO_NODES, issued_world_s, plan, run

MANIFEST = (CLUSTERS / "fixes" / "weekly-restart" / "cronjob.yaml").read_text(encoding="utf-8")
FIX = '[fix]\nname = "weekly-restart"\nmanifest = "cronjob.yaml"\n'
HOUR_S = 3_600
# Scenarios start on a Monday at 08:00 UTC.
SUNDAY_3H_S = 6 * 24 * HOUR_S - 5 * HOUR_S
NEVER_NS = 10**18


def with_fix(
    body: str = "", manifest: str | None = MANIFEST, nodes: str | None = None, duration: str = "14d"
) -> Plan:
    if nodes is None:
        return plan(body + FIX, duration=duration, manifest=manifest)
    return plan(body + FIX, duration=duration, manifest=manifest, nodes=nodes)


def restarts(of: Plan) -> tuple[PlannedRestart, ...]:
    return deploy(of, clocks_of(of)).restarts


def restarts_world_s(of: Plan) -> list[float]:
    return [restart.world_ns / 1e9 for restart in restarts(of)]


def job_times_s(
    body: str, cron_job: CronJob, resync_ns: int = NEVER_NS, days: int = 14
) -> list[float]:
    of = plan(body, duration=f"{days}d")
    return [
        world_ns / 1e9
        for world_ns in job_times_ns(cron_job, clocks_of(of)["laptop"], resync_ns, of.duration_ns)
    ]


def edited(old: str, new: str) -> str:
    assert old in MANIFEST
    return MANIFEST.replace(old, new)


def more(line: str) -> str:
    """The manifest with one more line in the CronJob's spec."""
    return edited("  concurrencyPolicy: Forbid", f"  {line}")


WEEKLY = read_cron_job(MANIFEST)


def test_the_manifest_is_what_a_user_would_apply() -> None:
    """The original report's schedule, command and image, with the rights that the job needs, in
    istio-system."""
    objects = {each["kind"]: each for each in yaml.safe_load_all(MANIFEST)}
    assert set(objects) == {"ServiceAccount", "Role", "RoleBinding", "CronJob"}
    assert {each["metadata"]["namespace"] for each in objects.values()} == {"istio-system"}
    assert objects["Role"]["rules"][0]["verbs"] == ["get", "patch"]
    pod = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert pod["containers"][0]["image"] == "bitnami/kubectl:latest"
    assert CronJob("0 3 * * 0") == WEEKLY


def test_a_machine_that_never_sleeps_restarts_on_sunday_at_three() -> None:
    """A tenth of a second after: the controller adds it on purpose."""
    assert restarts_world_s(with_fix()) == [SUNDAY_3H_S + 0.1, SUNDAY_3H_S + 7 * 24 * HOUR_S + 0.1]


def test_a_job_due_in_the_night_is_late_by_all_nights_until_it_starts() -> None:
    """Without a resync the controller waits for Sunday 03:00 in awake hours, 16 a day: until
    Tuesday evening."""
    awake_days, rest_s = divmod(SUNDAY_3H_S, 16 * HOUR_S)
    (first,) = job_times_s(NIGHTS, WEEKLY, days=9)
    assert first == pytest.approx(awake_days * 24 * HOUR_S + rest_s + 0.1, abs=1e-6)
    assert first - SUNDAY_3H_S > 60 * HOUR_S


def test_a_resync_finds_a_job_overdue_and_starts_it() -> None:
    """Every 12 awake hours: the first look after Sunday's 03:00 is at the wake or soon after."""
    (first,) = job_times_s(NIGHTS, WEEKLY, resync_ns=RESYNC_MIN_NS, days=9)
    wake_s = 6 * 24 * HOUR_S - HOUR_S
    assert wake_s <= first <= wake_s + 12 * HOUR_S


def test_a_resync_without_a_job_due_starts_nothing() -> None:
    """A look is not a job: one restart a week, however often the controller looks."""
    assert len(job_times_s("", WEEKLY, resync_ns=RESYNC_MIN_NS, days=12)) == 1


def test_the_interval_of_resyncs_comes_from_the_seed() -> None:
    """The controller draws it once when it starts."""
    of = with_fix(NIGHTS)
    first, other = (restarts(of.model_copy(update={"seed": seed})) for seed in (1, 0))
    assert first == restarts(of.model_copy(update={"seed": 1}))
    assert first != other


def test_a_job_missed_for_longer_than_its_deadline_is_skipped() -> None:
    """startingDeadlineSeconds of an hour, and the machine slept through it: that week has no
    restart."""
    strict = CronJob("0 3 * * 0", starting_deadline_s=HOUR_S)
    assert job_times_s(NIGHTS, strict, days=9) == []
    patient = CronJob("0 3 * * 0", starting_deadline_s=7 * 24 * HOUR_S)
    assert len(job_times_s(NIGHTS, patient, days=9)) == 1


def test_of_many_missed_times_only_the_latest_makes_a_job() -> None:
    """An hourly job on a machine that sleeps eight hours: one job in the morning, not eight."""
    one_night = NIGHTS.replace('every = "24h"\n', "")
    times = job_times_s(one_night, CronJob("0 * * * *"), days=2)
    assert not [at for at in times if 15 * HOUR_S + 1 < at < 23 * HOUR_S]
    # Every hour from the first to the 47th, but those of 15 h to 23 h, which are served by one.
    assert len(times) == 47 - 9 + 1
    assert len(set(times)) == len(times)


def test_a_step_back_does_not_start_a_job_twice() -> None:
    """Served is served: 03:00 comes a second time, the job does not."""
    step = f'[[fault]]\nkind = "step"\nat = "{SUNDAY_3H_S + 1_800}s"\nby = "-1h"\n'
    assert len(job_times_s(step, WEEKLY, resync_ns=RESYNC_MIN_NS, days=8)) == 1


def test_a_time_zone_shifts_the_schedule() -> None:
    """03:00 in Berlin is 02:00 UTC in January."""
    assert (
        restarts_world_s(with_fix(manifest=more("timeZone: Europe/Berlin")))[0]
        == SUNDAY_3H_S - HOUR_S + 0.1
    )


def test_a_suspended_cron_job_restarts_nothing() -> None:
    """Switched off is not a fix."""
    assert restarts(with_fix(manifest=more("suspend: true"))) == ()


def test_a_rollout_takes_one_node_after_the_other() -> None:
    """Half a minute apart, in the order of the plan."""
    found = restarts(with_fix(nodes=TWO_NODES, duration="7d"))
    assert [(restart.node, restart.world_ns / 1e9) for restart in found] == [
        ("east", SUNDAY_3H_S + 0.1),
        ("west", SUNDAY_3H_S + 30.1),
    ]


def test_a_node_that_sleeps_is_restarted_when_it_wakes() -> None:
    """The control plane in the east is awake; the west sleeps until 07:00."""
    night = NIGHTS + 'node = "west"\n'
    found = restarts(with_fix(night, nodes=TWO_NODES, duration="7d"))
    assert [(restart.node, restart.world_ns / 1e9) for restart in found] == [
        ("east", SUNDAY_3H_S + 0.1),
        ("west", SUNDAY_3H_S + 4 * HOUR_S),
    ]


def test_the_control_plane_may_be_apart() -> None:
    """Then the job is on time, and only the nodes are late."""
    night = NIGHTS + '[authority]\nnode = "apart"\n'
    assert restarts_world_s(with_fix(night, duration="7d")) == [SUNDAY_3H_S + 4 * HOUR_S]


def test_a_lab_carries_the_restarts_out() -> None:
    """On the model: ended and started for that cause, with certificates at that moment and half a
    life later."""
    history = run(with_fix(duration="7d"))
    (stopped,) = history.of("ztunnel_stopped")
    assert (stopped["cause"], stopped.world_ns / 1e9) == ("weekly-restart", SUNDAY_3H_S + 0.1)
    assert SUNDAY_3H_S + 0.1 in issued_world_s(history)


def test_the_fix_does_not_help_a_machine_that_sleeps_every_night() -> None:
    """Outages before the first Sunday, and again after the restart."""
    of = with_fix(NIGHTS)
    history = run(of)
    (first, *_) = restarts(of)
    failed_ns = [event.world_ns for event in history.of("connection_attempted", ok=False)]
    assert min(failed_ns) < first.world_ns < max(failed_ns)


@pytest.mark.parametrize(
    "schedule",
    [
        "",
        "3 * *",
        "0 3 * * 7",
        "0 3 * * 5-7",
        "0 25 * * 0",
        "0 0 3 * * 0",
        "0 3 L * *",
        "0 3 * * 5#2",
        "0 3 30 2 *",
        "never",
    ],
)
def test_a_schedule_that_kubernetes_refuses_is_refused(schedule: str) -> None:
    """With what was read, and an example."""
    with pytest.raises(BadInput, match=r"spec\.schedule: read .*'0 3 \* \* 0'"):
        read_cron_job(edited('"0 3 * * 0"', f'"{schedule}"'))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("", "has no CronJob .nothing at all."),
        ("kind: Deployment", "has no CronJob .Deployment."),
        ("just words", "has no CronJob"),
        ("a: [1", "is not YAML"),
        (MANIFEST + "\n---\nkind: CronJob\n", "apiVersion: read None"),
        ("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: x}", "CronJob x: spec: is missing"),
        (edited("          containers:", "          sidecars:"), "spec.jobTemplate.spec.template.spec.containers: is missing"),
        (edited('schedule: "0 3 * * 0"', "schedule: 3"), "spec.schedule: read 3"),
        (edited('  schedule: "0 3 * * 0"', ""), "spec.schedule: is missing"),
        (edited('"daemonset/ztunnel"', '"deployment/istiod"'), "is neither ztunnel nor an application; expected one that restarts ztunnel"),
        (more("timeZone: Mars/Olympus"), "'Mars/Olympus' is not a known zone"),
        (more("startingDeadlineSeconds: soon"), "startingDeadlineSeconds: read 'soon'"),
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_such_a_fix_is_refused(manifest: str, message: str) -> None:
    """Each says what is there and what is needed."""
    with pytest.raises(BadInput, match=message):
        read_cron_job(manifest)


def test_a_fix_without_a_manifest_is_refused() -> None:
    """Nothing is retyped from memory."""
    with pytest.raises(BadInput, match="needs manifest"):
        restarts(with_fix(manifest=None))


def test_a_moment_of_the_schedule_is_found_from_both_sides() -> None:
    """Next is after, latest is at or before: the scheduled second itself belongs to the latter."""
    sunday_ns = (plan().starts_wall_s + SUNDAY_3H_S) * NS_PER_S
    assert WEEKLY.next_wall_ns(sunday_ns - 1) == sunday_ns
    assert WEEKLY.next_wall_ns(sunday_ns) == sunday_ns + 7 * 24 * HOUR_S * NS_PER_S
    times = Times(WEEKLY.parsed, WEEKLY.zone, 0)
    assert times.latest_wall_ns(0, sunday_ns, None) == sunday_ns
    assert times.latest_wall_ns(sunday_ns, sunday_ns + 1, None) is None
    assert times.latest_wall_ns(0, sunday_ns + 6 * NS_PER_S, 5) is None


# What CronJobs are made of


def job(
    command: str,
    schedule: str = "0 12 * * *",
    *,
    name: str = "restart",
    namespace: str | None = "istio-system",
) -> str:
    """A CronJob that runs `command` (YAML), with nothing that is not needed."""
    where = f", namespace: {namespace}" if namespace else ""
    return (
        f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: {name}{where}}}\nspec:\n  schedule: '{schedule}'\n"
        "  jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          containers:\n"
        f"            - {{name: a, image: bitnami/kubectl, {command}}}\n"
    )


RESTART = 'command: ["kubectl", "rollout", "restart", "ds/ztunnel"]'


def many(manifest: str, body: str = "", days: int = 8) -> int:
    return len(restarts(with_fix(body, manifest, duration=f"{days}d")))


def test_a_job_needs_no_more_than_kubernetes_does() -> None:
    assert many(job(RESTART)) == 8


def test_lists_and_several_jobs_are_read_and_those_that_touch_ztunnel_are_taken() -> None:
    items = "".join(
        f"  - {line}\n" if number == 0 else f"    {line}\n"
        for number, line in enumerate(job(RESTART).splitlines())
    )
    assert many(f"apiVersion: v1\nkind: List\nitems:\n{items}") == 8
    assert many(f"apiVersion: batch/v1\nkind: CronJobList\nitems:\n{items}") == 8
    other = job(
        'command: ["kubectl", "rollout", "restart", "deploy/istiod"]', "0 4 * * *", name="other"
    )
    assert many(job(RESTART) + "---\n" + other) == 8
    assert many(job(RESTART) + "---\n" + job(RESTART, "0 18 * * *", name="evening")) == 16


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ('command: ["kubectl rollout restart ds/ztunnel"]', "no program has such a name"),
        ('command: ["sh", "-c", "kubectl", "rollout", "restart", "ds/ztunnel"]', "prints its help"),
        ('command: ["sh", "-c", "kubectl rollout restart ds/ztunnel &"]', "in the background"),
        ('command: ["sh", "-c", "[ $(date +%u) = 7 ] && kubectl rollout restart ds/ztunnel"]', "runs only when"),
        ('command: ["sh", "-c", "kubectl rollout restart ds/$DS"], envFrom: [{configMapRef: {name: a}}]', "is not known"),
        ('args: ["sh", "-c", "kubectl rollout restart ds/ztunnel"]', "kubectl sh is not understood"),
        ('command: ["sh", "-c", "kubectl delete ds ztunnel"]', "nothing creates it again"),
        ('command: ["sh", "-c", "if true; kubectl"]', "the script of container a: line 1"),
        ("command: kubectl rollout restart ds/ztunnel", "should be a valid list"),
        ("imagePullPolicy: Always", "kubectl prints its help"),
    ],
)  # fmt: skip
def test_a_job_that_restarts_nothing_is_refused_with_the_reason(command: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_cron_job(job(command))


@pytest.mark.parametrize(
    "command",
    [
        'args: ["rollout", "restart", "ds/ztunnel"]',
        'command: ["sh", "-c", "kubectl rollout restart ds/$DS"], env: [{name: DS, value: ztunnel}]',
        'command: ["kubectl", "rollout", "restart", "ds/$(DS)"], env: [{name: DS, value: ztunnel}]',
        'command: ["kubectl"], args: ["rollout", "restart", "ds/ztunnel", "-n", "$(NS)"], '
        "env: [{name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]",
        'command: ["sh", "-c", "kubectl delete pod -l app=ztunnel --field-selector spec.nodeName=$NODE"], '
        "env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]",
        'command: ["sh", "-c", "kubectl rollout restart ds/ztunnel -n ${NS:-istio-system} & wait"]',
    ],
)  # fmt: skip
def test_what_a_container_runs_is_put_together_as_kubelet_does(command: str) -> None:
    assert many(job(command)) == 8


def test_without_any_namespace_it_is_ambiguous() -> None:
    with pytest.raises(BadInput, match="write -n istio-system"):
        read_cron_job(job(RESTART, namespace=None))
    with pytest.raises(BadInput, match="lives in 'istio-system'"):
        read_cron_job(job(RESTART, namespace="default"))
    assert read_cron_job(job(RESTART, namespace="ztunnel"), "ztunnel").schedule == "0 12 * * *"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("batch/v1", "batch/v1beta1", "since Kubernetes 1.25 batch/v1"),
        ("schedule:", "timezone: UTC\n  schedule:", "spec.timezone: is not a key that Kubernetes knows"),
        ("schedule:", "suspend: 'true'\n  schedule:", "spec.suspend: read 'true'"),
        ("schedule:", "concurrencyPolicy: forbid\n  schedule:", "concurrencyPolicy: read 'forbid'"),
        ("schedule:", "startingDeadlineSeconds: -1\n  schedule:", "startingDeadlineSeconds: read -1"),
        ("schedule:", "timeZone: Local\n  schedule:", "'Local' is not a known zone"),
        ("schedule:", "timeZone: ''\n  schedule:", "'' is not a known zone"),
        ("schedule:", "timeZone: europe/berlin\n  schedule:", "is not a known zone"),
        ("restartPolicy: Never", "restartPolicy: Always", "restartPolicy: read 'Always'"),
        ("          restartPolicy: Never\n", "", "restartPolicy: is missing"),
        ("image: bitnami/kubectl, ", "", "image: is missing"),
        ("name: restart,", "", "metadata.name: is missing"),
        ("name: restart,", f"name: {'a' * 53},", "52 characters"),
        ("0 12 * * *", "CRON_TZ=Europe/Berlin 0 12 * * *", "spec.timeZone is for that"),
        ("apiVersion: batch/v1", "{{ if true }}\napiVersion: batch/v1", "helm template"),
        ("kind: CronJob", "kind: CronJob\nkind: CronJob", "is there twice"),
        ("restartPolicy: Never", "restartPolicy: Never\n          serviceAcountName: a", "spec.serviceAcountName: is not a key"),
        ("image: bitnami/kubectl", "image: bitnami/kubectl, imagepullPolicy: Always", "containers.0.imagepullPolicy: is not a key"),
        ("name: restart,", "name: restart, label: {a: b},", "metadata.label: is not a key"),
        ("name: restart,", "name: Restart_ztunnel,", "metadata.name: invalid value 'Restart_ztunnel'"),
        ("0 12 * * *", "{{ .Values.schedule }}", "helm template"),
        ("bitnami/kubectl", "'{{ .Values.image }}'", "helm template"),
    ],
)  # fmt: skip
def test_what_an_api_server_refuses_is_refused(old: str, new: str, says: str) -> None:
    manifest = job(RESTART)
    assert old in manifest
    with pytest.raises(BadInput, match=says):
        read_cron_job(manifest.replace(old, new, 1))


def test_what_kubernetes_itself_wrote_is_taken_back() -> None:
    """`kubectl get cronjob -o yaml` and -o json, with tabs too, and every key that pods may
    have."""
    more_of_pod = "serviceAccountName: a, tolerations: [{operator: Exists}], hostNetwork: true, dnsPolicy: ClusterFirst"
    written = yaml.safe_load(job(RESTART))
    written["metadata"] |= {
        "uid": "a",
        "resourceVersion": "1",
        "generation": 2,
        "managedFields": [],
        "labels": {"a": "b"},
    }
    written["status"] = {"lastScheduleTime": "2026-11-29T12:00:00Z"}
    pod = written["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    pod |= yaml.safe_load(f"{{{more_of_pod}}}")
    pod["containers"][0] |= {
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "securityContext": {},
    }
    for text in (yaml.safe_dump(written), json.dumps(written), json.dumps(written, indent="\t")):
        assert read_cron_job(text) == read_cron_job(job(RESTART))
    twice = json.dumps(written, indent="\t").replace('"kind"', '"kind": "CronJob", "kind"', 1)
    with pytest.raises(BadInput, match="'kind' is there twice"):
        read_cron_job(twice)


def test_a_container_before_that_fails_keeps_the_others_from_running() -> None:
    for script, restarted in (
        ("exit 1", False),
        ("set -e; false; true", False),
        ("false; true", True),
    ):
        before = f"initContainers: [{{name: first, image: busybox, command: [sh, -c, '{script}']}}]"
        manifest = job(RESTART).replace(
            "          containers:", f"          {before}\n          containers:", 1
        )
        if restarted:
            assert many(manifest) == 8
        else:
            with pytest.raises(
                BadInput, match="init container first fails, and no other container is started"
            ):
                read_cron_job(manifest)


def test_a_job_that_is_made_suspended_or_without_pods_restarts_nothing() -> None:
    for line in ("suspend: true", "parallelism: 0", "completions: 0"):
        assert (
            many(
                job(RESTART).replace(
                    "    spec:\n      template", f"    spec:\n      {line}\n      template", 1
                )
            )
            == 0
        )


def test_every_so_often_is_counted_from_the_last_time() -> None:
    """Twice a day; and never with a deadline that is shorter, since the count restarts at each
    look."""
    assert many(job(RESTART, "@every 12h"), days=2) == 3
    short = job(RESTART, "@every 12h").replace(
        "  jobTemplate", "  startingDeadlineSeconds: 60\n  jobTemplate", 1
    )
    assert many(short, days=2) == 0


def test_a_job_that_sleeps_first_restarts_later() -> None:
    (first, *_) = restarts_world_s(
        with_fix(
            manifest=job('command: ["sh", "-c", "sleep 90; kubectl rollout restart ds/ztunnel"]')
        )
    )
    (other, *_) = restarts_world_s(with_fix(manifest=job(RESTART)))
    assert first == other + 90


SCRIPT = """#!/bin/sh
set -e
. /scripts/settings
kubectl rollout restart "ds/${1:-$DS}"
"""


def with_script(
    command: str, mode: str = "", script: str = SCRIPT, mount: str = "mountPath: /scripts"
) -> str:
    """A CronJob whose script lies in a ConfigMap of the same manifest."""
    pod = f"volumes: [{{name: s, configMap: {{name: ours{mode}}}}}]"
    manifest = job(f"command: {command}, volumeMounts: [{{name: s, {mount}}}]")
    manifest = manifest.replace(
        "          containers:", f"          {pod}\n          containers:", 1
    )
    texts = yaml.safe_dump({"restart.sh": script, "settings": "DS=ztunnel\n"})
    data = "".join(f"  {line}\n" for line in texts.splitlines())
    return (
        f"{manifest}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ours}}\ndata:\n{data}"
    )


@pytest.mark.parametrize(
    "manifest",
    [
        with_script("[/bin/sh, /scripts/restart.sh]"),
        with_script("[bash, -x, /scripts/restart.sh, ztunnel]"),
        with_script("[/scripts/restart.sh]", ", defaultMode: 0755"),
        with_script("[/scripts/restart.sh]", ", items: [{key: restart.sh, path: restart.sh, mode: 0555}, {key: settings, path: settings}]"),
        with_script("[/bin/again]", ", defaultMode: 0777", SCRIPT.replace(". /scripts/settings", "DS=ztunnel"), "mountPath: /bin/again, subPath: restart.sh"),
        with_script('[sh, -c, "for f in /scripts/restart.sh; do sh $f; done"]'),
    ],
)  # fmt: skip
def test_a_script_of_a_config_map_is_followed(manifest: str) -> None:
    assert read_cron_job(manifest).schedule == "0 12 * * *"


@pytest.mark.parametrize("name", ["[]", "{a: b}", "7"])
@pytest.mark.parametrize("place", ["volumes: [{name: s", "volumeMounts: [{name: s"])
def test_a_volume_whose_name_is_not_text_mounts_nothing(name: str, place: str) -> None:
    """No API server takes it, so such a script does not exist."""
    manifest = with_script("[sh, /scripts/restart.sh]")
    with pytest.raises(BadInput, match="/scripts/restart.sh"):
        read_cron_job(manifest.replace(place, place.replace("name: s", f"name: {name}")))


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        (with_script("[/scripts/restart.sh]"), "mounted without defaultMode: 0755"),
        (with_script("[sh, /scripts/restart.sh, istio-cni-node]"), "'istio-cni-node' is not ztunnel's"),
        (with_script("[sh, /scripts/other.sh]"), "'sh /scripts/other.sh': what this program does is not known"),
        (with_script("[sh, /scripts/restart.sh]", script="exit 0\n" + SCRIPT), "it runs nothing"),
        (with_script("[sh, /scripts/restart.sh]").replace("name: ours}\ndata", "name: theirs}\ndata"), "is not known"),
    ],
)  # fmt: skip
def test_a_script_of_a_config_map_that_restarts_nothing_is_refused(
    manifest: str, says: str
) -> None:
    with pytest.raises(BadInput, match=says):
        read_cron_job(manifest)


def test_what_only_some_shells_know_counts_where_they_are_sh() -> None:
    """Debian's sh is dash; that of Alpine and of Red Hat is not."""
    tests = 'command: ["{}", "-c", "if [ a == a ] && [[ b = b ]]; then kubectl rollout restart ds/ztunnel; fi"]'
    with pytest.raises(BadInput, match="unknown to dash, which is sh in Debian"):
        read_cron_job(job(tests.format("sh")))
    assert many(job(tests.format("/bin/bash"))) == 8
    for image in (
        "alpine/k8s:1.34.1",
        "registry.redhat.io/openshift4/ose-cli",
        "quay.io/openshift/origin-cli:4.20",
    ):
        assert many(job(tests.format("/bin/sh")).replace("bitnami/kubectl", image)) == 8


def test_a_job_is_ended_at_its_deadline() -> None:
    """What it would do behind a longer sleep never happens."""
    slow = job('command: ["sh", "-c", "sleep 90; kubectl rollout restart ds/ztunnel"]')
    for deadline_s, restarted in ((90, False), (91, True)):
        line = f"    spec:\n      activeDeadlineSeconds: {deadline_s}\n      template"
        manifest = slow.replace("    spec:\n      template", line, 1)
        if restarted:
            assert many(manifest) == 8
        else:
            with pytest.raises(BadInput, match="activeDeadlineSeconds: 90 ends the job before"):
                restarts(with_fix(manifest=manifest))


def test_which_of_several_nodes_a_job_runs_on_is_not_known() -> None:
    own = 'command: ["sh", "-c", "kubectl get pods -l app=ztunnel -o name | head -n1 | xargs kubectl delete"]'
    assert many(job(own)) == 8
    with pytest.raises(BadInput, match="restarts one ztunnel"):
        restarts(with_fix(manifest=job(own), nodes=TWO_NODES))
    named = 'command: ["sh", "-c", "kubectl delete pod -l app=ztunnel --field-selector spec.nodeName=west"]'
    assert {each.node for each in restarts(with_fix(manifest=job(named), nodes=TWO_NODES))} == {
        "west"
    }
    with pytest.raises(BadInput, match="has no node 'west'"):
        restarts(with_fix(manifest=job(named)))
