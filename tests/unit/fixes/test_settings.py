# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
"""Fixes that change a setting: what becomes of the plan."""

from __future__ import annotations

import pytest
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput
from meshwake.core.planned_faults import PlannedFault, PlannedPause
from meshwake.fixes import adapted

from tests.unit.fixes.test_registry import with_fix

DAY_S = 86_400
PAUSE = '\n[[fault]]\nkind = "pause"\nat = "15h"\nlasts = "8h"\ncorrected_after = "17m"\n'


def test_istiods_default_is_a_placebo() -> None:
    """ztunnel always asks for a lifetime of its own."""
    assert adapted(with_fix("istiod-default-ttl")).lifetime_s == DAY_S


def test_secret_ttl_is_what_ztunnel_asks_for() -> None:
    assert adapted(with_fix("secret-ttl-720h")).lifetime_s == 30 * DAY_S


@pytest.mark.parametrize(
    "text", ["env:\n  SECRET_TTL: soon\n", "env:\n  SECRET_TTL: 0s\n", "env: {}\n", "a: [\n"]
)
def test_a_lifetime_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"fix\.manifest"):
        adapted(with_fix("secret-ttl-720h", text))


def test_a_list_of_variables_is_understood_as_well() -> None:
    """A DaemonSet patched by hand has name and value."""
    assert (
        adapted(with_fix("secret-ttl-720h", "env:\n- name: SECRET_TTL\n  value: 48h\n")).lifetime_s
        == 2 * DAY_S
    )


def correction_ns(fault: PlannedFault) -> int:
    """How long after a pause its wall clock is corrected."""
    assert isinstance(fault, PlannedPause)
    return fault.corrected_after_ns


def test_makestep_puts_the_clock_right_soon_and_moves_it_as_far() -> None:
    before = with_fix("chrony-makestep", body=PAUSE)
    after = adapted(before)
    assert correction_ns(after.faults[0]) == 64 * NS_PER_S
    assert after.faults[0].expected_drift_ns == before.faults[0].expected_drift_ns


def corrected_s(conf: str) -> float:
    (fault,) = adapted(with_fix("chrony-makestep", conf, body=PAUSE)).faults
    return correction_ns(fault) / NS_PER_S


@pytest.mark.parametrize(
    ("conf", "seconds"),
    [
        ("makestep 1 -1\n", 64),
        ("pool a iburst\nmakestep 1.0 -1\n", 64),
        ("server a minpoll 4\nserver b\nmakestep 1.0 -1\n", 16),
        ("refclock PHC /dev/ptp0 poll 3\nmakestep 1.0 -1\n", 8),
        ("refclock PHC /dev/ptp0\nmakestep 1.0 -1\n", 16),
        ("makestep 1 3\nMakeStep 1 -1\n", 64),
        ("#makestep 1 3\n! makestep 1 3\nmakestep 1 -1\n; makestep 1 3\n% makestep 1 3\n", 64),
        ("makestep 1 -1\nmaxchange 100000 1 1\n", 64),
        # Chrony leaves the clock alone: what puts it right after 17 minutes still does.
        ("makestep 1 -1\nmakestep 1 3\n", 17 * 60),
        ("makestep 1 3\n", 17 * 60),
        ("makestep 1 0\n", 17 * 60),
        ("makestep 172800 -1\n", 17 * 60),
        ("makestep 1 -1\nmaxchange 1000 1 1\n", 17 * 60),
        ("makestep 1 -1\nmaxchange 1000 1 -1\n", 17 * 60),
        ("makestep 1 -1\nmaxchange 1000 -1 0\n", 64),
        ("makestep 1 -1\nmaxchange 1000 100000 0\n", 64),
        # So many updates it has not had in fifteen hours.
        ("makestep 1 100000\n", 64),
    ],
)  # fmt: skip
def test_which_makestep_counts(conf: str, seconds: float) -> None:
    """The last, if the clock is off by more than its threshold and its limit is not used up."""
    assert corrected_s(conf) == seconds


@pytest.mark.parametrize(
    ("conf", "line"),
    [
        ("servr a iburst\nmakestep 1 -1\n", "line 1: read 'servr a iburst'"),
        ("makestep 1 -1\nmake-step 1 3\n", "line 2: read 'make-step 1 3'"),
        ("# ours\n\nmakestep 1 -1  \n[Service]\n", r"line 4: read '\[Service\]'"),
        ("\ufeffpool a\nmakestep 1 -1\n", "line 1: read"),
        (
            "kind: ConfigMap\ndata:\n  chrony.conf: |\n    makestep 1 -1\n",
            "line 1: read 'kind: ConfigMap'",
        ),
    ],
)
def test_a_line_with_which_chronyd_does_not_start_is_refused(conf: str, line: str) -> None:
    """Whatever the rest says."""
    with pytest.raises(BadInput, match=line):
        adapted(with_fix("chrony-makestep", conf, body=PAUSE))


def test_what_distributions_ship_is_read() -> None:
    """Every word of these is known, in any case and behind blanks, with the line ends of Windows
    too."""
    conf = """confdir /etc/chrony/conf.d
pool 2.debian.pool.ntp.org iburst
sourcedir /run/chrony-dhcp
  KeyFile /etc/chrony/chrony.keys
driftfile /var/lib/chrony/chrony.drift
ntsdumpdir /var/lib/chrony
logdir /var/log/chrony
maxupdateskew 100.0
rtcsync
makestep 1 3
leapsectz right/UTC
makestep 1 -1
"""
    assert corrected_s(conf) == corrected_s(conf.replace("\n", "\r\n")) == 64


@pytest.mark.parametrize("conf", ["", "pool a\n", "makestep\n", "makestep 1\n", "makestep 1 -1 # always\n", "makestep one -1\n", "makestep nan -1\n"])  # fmt: skip
def test_a_configuration_with_which_chrony_steps_nothing_or_does_not_start_is_refused(
    conf: str,
) -> None:
    with pytest.raises(BadInput, match="makestep"):
        adapted(with_fix("chrony-makestep", conf, body=PAUSE))


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("env: {SECRET_TTL: 2160h}", 90),
        ("env: {SECRET_TTL: 86400}", 1),
        ("env: {SECRET_TTL: 48h0m0s}", 2),
        ("ztunnel: {env: {SECRET_TTL: 2d}}", 2),
        ("env: {SECRET_TTL: 48h}\nmeshConfig: {defaultConfig: {proxyMetadata: {SECRET_TTL: 2d}}}", 2),
        ("env: {SECRET_TTL: 48h}\npilot: {env: {SECRET_TTL: 9h}}", 2),
        ("env: {SECRET_TTL: 8760h}\n---\npilot: {env: {MAX_WORKLOAD_CERT_TTL: 87600h0m0s}}", 365),
        ("kind: DaemonSet\nmetadata: {name: ztunnel}\nspec: {template: {spec: {containers: [{name: istio-proxy, env: [{name: SECRET_TTL, value: 48h}]}]}}}", 2),
        ("kind: IstioOperator\nspec: {values: {ztunnel: {env: {SECRET_TTL: 48h}}}}", 2),
        ('kind: Application\nspec: {helm: {values: "env:\\n  SECRET_TTL: 48h\\n"}}', 2),
        ("env: {SECRET_TTL: 2 days}", 2),
        ("env: {SECRET_TTL: '24h+1440min'}", 2),
        ("env: {SECRET_TTL: '60 * 60*48'}", 2),
        ("env: {SECRET_TTL: '1H 23hr 24HOURS'}", 2),
        ("env: {SECRET_TTL: 1mon2w1d}", 45),
        ("kind: HelmRelease\nspec: {chart: {spec: {chart: ztunnel}}, values: {env: {SECRET_TTL: 48h}}}", 2),
        ("kind: Application\nspec: {source: {chart: ztunnel, helm: {parameters: [{name: env.SECRET_TTL, value: 48h}]}}}", 2),
        ('kind: ConfigMap\ndata: {values.yaml: "env:\\n  SECRET_TTL: 48h\\n"}', 2),
        ("kind: List\nitems: [{kind: ZTunnel, spec: {values: {ztunnel: {env: {SECRET_TTL: 48h}}}}}]", 2),
    ],
)  # fmt: skip
def test_where_ztunnels_lifetime_is_set(text: str, days: int) -> None:
    """The same value in two right places is not a conflict, and another's environment is not
    ztunnel's."""
    assert adapted(with_fix("secret-ttl-720h", text)).lifetime_s == days * DAY_S


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("env: {SECRET_TTL: 2161h}", "2160h unless set"),
        ("env: {SECRET_TTL: 3w}\n---\npilot: {env: {MAX_WORKLOAD_CERT_TTL: 240h}}", "MAX_WORKLOAD_CERT_TTL, 240h"),
        ("env: {SECRET_TTL: 48h}\nztunnel: {env: {SECRET_TTL: 49h}}", "48h in env.SECRET_TTL and 49h in ztunnel.env.SECRET_TTL"),
        ("pilot: {env: {SECRET_TTL: 48h}}", "not ztunnel's environment"),
        ("kind: DaemonSet\nmetadata: {name: other}\nspec: {env: [{name: SECRET_TTL, value: 48h}]}", "not ztunnel's environment"),
        ("env: [{name: SECRET_TTL, valueFrom: {configMapKeyRef: {}}}]", "expected a duration"),
        ("env: {SECRET_TTL: true}", "expected a duration"),
        ("# env: {SECRET_TTL: 48h}", "nowhere"),
        ("env: {SECRET_TTL: {{ .Values.ttl }}}\n  x", "helm template"),
        ("env: {SECRET_TTL: 99999999999d}", "at least a second"),
        ("env: {SECRET_TTL: 48.5h}", "'48.5h', with which ztunnel does not start"),
        ("env: {SECRET_TTL: -48h}", "with which ztunnel does not start"),
        ("env: {SECRET_TTL: 48 2h}", "with which ztunnel does not start"),
        ("env: {SECRET_TTL: '1h+2*3'}", "with which ztunnel does not start"),
        ("env: {SECRET_TTL: 48:00:00}", "'48:00:00', with which ztunnel does not start"),
        ("env: {SECRET_TTL: '{{ .Values.ttl }}'}", "helm template"),
        ("global: {env: {SECRET_TTL: 48h}}", "not ztunnel's environment"),
        ("kind: ConfigMap\nmetadata: {name: ztunnel}\ndata: {SECRET_TTL: 48h}", "not ztunnel's environment"),
        ("kind: HelmRelease\nspec: {chart: {spec: {chart: istiod}}, values: {env: {SECRET_TTL: 48h}}}", "not ztunnel's environment"),
        ("kind: DaemonSet\nmetadata: {name: ztunnel}\nspec: {containers: [{name: b, env: [{name: SECRET_TTL, value: 48h}]}]}", "another container than ztunnel's"),
        ("kind: DaemonSet\nmetadata: {name: ztunnel}\nspec: {initContainers: [{name: istio-proxy, env: [{name: SECRET_TTL, value: 48h}]}]}", "not ztunnel's environment"),
    ],
)  # fmt: skip
def test_a_lifetime_that_no_ztunnel_gets_is_refused(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        adapted(with_fix("secret-ttl-720h", text))
