# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
"""Alerting rules as people keep them, against a run whose outage is known: which fire in time,
which do not, who cannot be judged.

Three nights of nine hours: nothing connects from day 2 08:58 on.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

import pytest
from meshwake.analysis import alert_replay as alerting
from meshwake.analysis.alert_replay import RuleResults, evaluate_rules, judge_alerts
from meshwake.analysis.alert_rules import read_rule_files, read_rules
from meshwake.core.errors import BadInput
from meshwake.core.history import History
from meshwake.core.outcome import Finding
from meshwake.core.plan import Plan

from tests.support import plans

NEEDS = pytest.mark.skipif(
    bool(alerting.missing_tools()),
    reason="; ".join(alerting.missing_tools()) or "Prometheus is here",
)
NIGHTS = '\n[[fault]]\nkind = "suspend"\nat = "14h"\nlasts = "9h"\nevery = "24h"\n'
OUTAGE_S = 205_081
COUNTS = "sum by (node) (increase(istio_tcp_connections_failed_total[10m])) >= 3"
WARNS = "max(meshwake_guard_renewal_late_seconds) > 43200"


@cache
def nights(body: str = NIGHTS) -> tuple[Plan, History]:
    plan = plans.plan(body, duration="3d", every="1m")
    return plan, plans.run(plan)


def group(*rules: str, name: str = "mesh", more: str = "") -> str:
    """A rule file of one group."""
    lines = "".join(f"      - {rule}\n" for rule in rules)
    return f"groups:\n  - name: {name}\n{more}    rules:\n{lines}"


def alert(expression: str, name: str = "Fails", more: str = "") -> str:
    return f"{{alert: {name}, expr: '{expression}'{more}}}"


def indented(text: str, by: int) -> str:
    return "".join(f"{' ' * by}{line}\n" for line in text.splitlines())


def judge(text: str, folder: Path, body: str = NIGHTS) -> tuple[Finding, RuleResults]:
    path = folder / "rules.yml"
    path.write_text(text, encoding="utf-8")
    plan, history = nights(body)
    rules = read_rule_files([path])
    evaluated = evaluate_rules(plan, history, rules)
    return judge_alerts(plan, history, rules, evaluated), evaluated


PLAIN = group(alert(COUNTS))
OBJECT = "apiVersion: x/v1\nkind: KIND\nmetadata: {name: a}\nspec:\n" + indented(PLAIN, 2)
KINDS = {
    "a rule file": PLAIN,
    **{kind: OBJECT.replace("KIND", kind) for kind in ("PrometheusRule", "VMRule", "Rules", "ClusterRules", "AlertingRule")},
    "a ConfigMap": "apiVersion: v1\nkind: ConfigMap\ndata:\n  note: hello\n  mesh.yml: |\n" + indented(PLAIN, 4),
    "a Secret": f"apiVersion: v1\nkind: Secret\ndata:\n  a.yml: {base64.b64encode(PLAIN.encode()).decode()}\n",
    "a List": "kind: List\nitems:\n  - kind: PrometheusRule\n    spec:\n" + indented(PLAIN, 6),
    "a list of its kind": "kind: PrometheusRuleList\nitems:\n  - spec:\n" + indented(PLAIN, 6),
    "several objects": "kind: ServiceMonitor\nspec: {}\n---\n" + OBJECT.replace("KIND", "PrometheusRule"),
    "values of the chart prometheus": "serverFiles:\n  alerting_rules.yml:\n" + indented(PLAIN, 4),
    "values of kube-prometheus-stack": "additionalPrometheusRulesMap:\n  mesh:\n" + indented(PLAIN, 4),
    "values of kube-prometheus-stack, a list": "additionalPrometheusRules:\n- name: mesh\n" + indented(PLAIN, 2),
    "with a namespace of Mimir": "namespace: mesh\n" + PLAIN,
    "with what Thanos and VictoriaMetrics add": group(
        alert(COUNTS), more="    interval: 60s\n    limit: 10\n    partial_response_strategy: warn\n    concurrency: 2\n"
    ),
    "over the end of a query": PLAIN.replace(COUNTS, COUNTS.replace("[10m]", "[10m] @ end()")),
    "JSON": '{"groups": [{"name": "a", "rules": [{"alert": "Fails", "expr": "' + COUNTS + '"}]}]}',
}  # fmt: skip


@NEEDS
@pytest.mark.parametrize("text", KINDS.values(), ids=KINDS)
def test_the_same_rule_is_the_same_wherever_it_is_kept(text: str, tmp_path: Path) -> None:
    """It counts failures, so it comes too late: within five minutes of the outage's begin, and not
    before."""
    finding, evaluated = judge(text, tmp_path)
    assert finding.verdict == "BROKEN"
    assert OUTAGE_S < evaluated.fired[0].world_ns / 1e9 <= OUTAGE_S + 300


@NEEDS
def test_a_rule_that_warns_holds(tmp_path: Path) -> None:
    """The control: the wake guard's own series says it an hour before."""
    finding, evaluated = judge(group(alert(WARNS)), tmp_path)
    assert finding.verdict == "HOLDS" and evaluated.fired[0].world_ns / 1e9 < OUTAGE_S


@NEEDS
@pytest.mark.parametrize(
    ("expression", "needs"),
    [
        ('absent(istio_requests_total{reporter="source"}) == 1', "istio_requests_total"),
        ('absent(up{job="ztunnel"} == 1)', "up{"),
        ("ztunnel_connected < 1", "ztunnel_connected"),
        ("min_over_time(node_timex_sync_status[5m]) == 0 and node_timex_maxerror_seconds >= 16", "node_timex_maxerror_seconds"),
        ('increase(istio_tcp_connections_failed_total{destination_workload="web"}[10m]) > 1', "{destination_workload}"),
        ('meshwake_guard_drift_seconds{cluster="home"} > 1', "{cluster}"),
        ('ALERTS{alertname="Other"} == 1', "ALERTS"),
        ('{job="ztunnel"} > 0', "{job="),
        (f"({COUNTS}) or absent(up)", "up"),
        ("absent(sum(istio_tcp_connections_failed_total))", "a counter is absent until it counts"),
        ("absent_over_time(istio_tcp_connections_failed_total[5m])", "a counter is absent until it counts"),
    ],
)  # fmt: skip
def test_a_rule_that_needs_what_is_not_replayed_is_unknown_and_says_what(
    expression: str, needs: str, tmp_path: Path
) -> None:
    finding, evaluated = judge(group(alert(expression)), tmp_path)
    assert finding.verdict == "UNKNOWN" and evaluated.fired == ()
    assert needs in finding.because and needs in " ".join(evaluated.unclear[0][1])


@NEEDS
def test_a_rule_that_can_be_judged_and_warns_outweighs_one_that_cannot(tmp_path: Path) -> None:
    """And one that comes too late does not."""
    unclear = alert("ztunnel_connected < 1", "Other")
    assert judge(group(alert(WARNS), unclear), tmp_path)[0].verdict == "HOLDS"
    assert judge(group(alert(COUNTS), unclear), tmp_path)[0].verdict == "UNKNOWN"


@NEEDS
@pytest.mark.parametrize(
    "expression",
    [
        "vector(1)",
        "vector(time()) > 0",
        "hour() == 3",
        "meshwake_guard_last_look_timestamp_seconds > 0",
        'absent(meshwake_guard_drift_seconds{node="elsewhere"})',
        "meshwake_guard_certificate_not_after_timestamp_seconds - time() < 86400",
    ],
)  # fmt: skip
def test_a_rule_that_fires_whatever_happens_does_not_pass(expression: str, tmp_path: Path) -> None:
    finding, evaluated = judge(group(alert(expression)), tmp_path)
    assert finding.verdict == "BROKEN" and evaluated.fired == () and len(evaluated.noisy) == 1
    assert "before anything happened" in finding.because
    assert (
        judge(
            group(alert(expression)),
            tmp_path,
            '\n[[fault]]\nkind="suspend"\nat="14h"\nlasts="1h"\n',
        )[0].verdict
        == "BROKEN"
    )


@NEEDS
def test_recorded_series_are_there_for_alerts_and_for_one_another(tmp_path: Path) -> None:
    """Also when the needed one is below; and what a record lacks is what its alerts
    lack."""
    text = group(
        alert('mesh:failed:twice >= 6 and mesh:failed:twice{team="a"}'),
        "{record: mesh:failed:twice, expr: '2 * mesh:failed:increase10m', labels: {team: a}}",
        "{record: mesh:failed:increase10m, expr: 'sum(increase(istio_tcp_connections_failed_total[10m]))'}",
    )
    finding, evaluated = judge(text, tmp_path)
    assert (
        finding.verdict == "BROKEN"
        and OUTAGE_S < evaluated.fired[0].world_ns / 1e9 <= OUTAGE_S + 300
    )
    text = group(alert("mesh:up == 0"), "{record: mesh:up, expr: 'min(up)'}")
    assert "needs up" in judge(text, tmp_path)[0].because
    text = group(alert("mesh:a > 0"), "{record: mesh:a, expr: 'mesh:a + 1'}")
    assert "recorded from itself" in judge(text, tmp_path)[0].because


@NEEDS
def test_a_rule_that_waits_fires_when_it_has_waited(tmp_path: Path) -> None:
    """`for` begins at the first look at which the expression is true; a wait longer than that is
    silence."""
    at = {
        wait: [
            each.world_ns / 1e9
            for each in judge(group(alert(WARNS, more=f", for: {wait}")), tmp_path)[1].fired
        ]
        for wait in ("0s", "1h", "3d")
    }
    assert at["1h"][0] == at["0s"][0] + 3_600 and at["3d"] == []


@NEEDS
def test_what_ztunnel_did_not_count_yet_is_not_there(tmp_path: Path) -> None:
    """Before 1.29 the rule is deaf, which is known: BROKEN, not unknown."""
    plan, history = nights()
    older = plan.model_copy(update={"version": "1.28.0"})
    (tmp_path / "r.yml").write_text(PLAIN)
    rules = read_rule_files([tmp_path / "r.yml"])
    assert (
        judge_alerts(older, history, rules, evaluate_rules(older, history, rules)).verdict
        == "BROKEN"
    )


REFUSED = {
    "no group": ("groups: []", "holds no alerting rule"),
    "no rules": ("groups: [{name: a}]", "holds no alerting rule"),
    "only records": (group("{record: 'a:b', expr: up}"), "holds no alerting rule"),
    "no expression": (group("{alert: X}"), "expr: read None"),
    "an empty expression": (group("{alert: X, expr: ' '}"), "expected an expression"),
    "neither": (group("{expr: up}"), "either alert or record"),
    "both": (group("{alert: X, record: 'a:b', expr: up}"), "either alert or record"),
    "an unknown key": (group("{alert: X, expr: up, summary: hello}"), "summary"),
    "an unknown key of a group": (group(alert("up"), more="    intervall: 30s\n"), "group mesh: intervall: Prometheus knows no such key"),
    "an unknown key of the file": ("rule_groups: []\n" + group(alert("up")), "rule_groups: Prometheus knows no such key next to groups"),
    "rules of Loki": ("kind: AlertingRule\napiVersion: loki.grafana.com/v1\nspec:\n" + indented(group(alert("a")), 2), "rules over logs"),
    "rules of VictoriaLogs": (group(alert("a"), more="    type: vlogs\n"), "rules over logs"),
    "a group without a name": ("groups: [{rules: []}]", "has no name"),
    "two groups of a name": ("groups: [{name: a}, {name: a}]", "two groups"),
    "a wrong wait": (group("{alert: X, expr: up, for: 5}"), "expected a duration"),
    "rules of Grafana": ("apiVersion: 1\ngroups: [{orgId: 1, name: a, rules: [{title: x, data: []}]}]", "Grafana"),
    "a template": ("{{- if .Values.a }}\n" + PLAIN + "{{- end }}\n", "helm template"),
    "an expression of a template": (group(alert("up > {{ .Values.x }}")), "helm template"),
    "two documents": (PLAIN + "---\n" + PLAIN, "2 documents"),
    "another object": ("kind: Deployment\nspec: {}", "Deployment"),
    "a list": ("- a", "not a file of Prometheus rules"),
    "a text": ("hello", "not a file of Prometheus rules"),
    "nothing": ("", "nothing at all"),
    "a key twice": ("groups: []\ngroups: []", "is there twice"),
    "much of little": ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)), "too large"),
    "a deep one": ("[" * 5_000, "YAML that cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_prometheus_would_not_load_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_rules(path)


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yml").write_bytes(b"groups\x80\x81")
    with pytest.raises(BadInput, match="is not UTF-8 text"):
        read_rules(tmp_path / "r.yml")
    (tmp_path / "r.yml").write_bytes(b"\xff\xfe\x00groups")
    with pytest.raises(BadInput, match="is not UTF-16 text|is not YAML"):
        read_rules(tmp_path / "r.yml")
    with pytest.raises(BadInput, match="is a directory"):
        read_rules(tmp_path)


@NEEDS
def test_an_expression_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    """Also where the rule could not be judged anyway."""
    for expression in ("sum by (", '{job=~"x"} |= "error"'):
        with pytest.raises(BadInput, match="Fails: Prometheus refuses its expression"):
            judge(group(alert(expression)), tmp_path)
