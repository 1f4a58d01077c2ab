# ruff: noqa: E501  scripts in tables stay in one piece
"""CronJobs that look before they restart: what they look at, as people write it, and what is
refused."""

from __future__ import annotations

import textwrap

import pytest
from meshwake.clocks.virtual import clocks_of
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan, PlannedFix
from meshwake.fixes.looking import _ExpiryWatcher, _LogWatcher, expiry_watchers, log_watchers

from tests.support.plans import plan

LOGS = "kubectl logs -n istio-system -l app=ztunnel --since=10m --tail=-1"
EXPIRED = "grep -E 'certificate expired|CertificateExpired'"
RESTART = "kubectl rollout restart daemonset/ztunnel -n istio-system"


def job(script: str, env: str = "") -> str:
    body = textwrap.indent(script, " " * 16)
    return (
        "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: look, namespace: istio-system}\nspec:\n"
        "  schedule: '*/10 * * * *'\n  jobTemplate:\n    spec:\n      template:\n        spec:\n"
        f"          restartPolicy: Never\n          containers:\n            - name: a\n              image: alpine/k8s\n"
        f"{env}              command: [/bin/bash, -c]\n              args:\n              - |\n{body}\n"
    )


def deployed(name: str, manifest: str) -> Plan:
    fix = PlannedFix.model_validate({"name": name, "manifest": manifest})
    return plan("", duration="1d", every="12h").model_copy(update={"fix": fix})


def since_s(script: str, env: str = "") -> float | None:
    of = deployed("log-watchdog", job(script, env))
    (watcher,) = log_watchers(of, clocks_of(of))
    assert isinstance(watcher, _LogWatcher)
    return None if watcher.since_ns is None else watcher.since_ns / 1e9


def threshold_s(script: str, env: str = "") -> int:
    of = deployed("near-expiry", job(script, env))
    (watcher,) = expiry_watchers(of, clocks_of(of))
    assert isinstance(watcher, _ExpiryWatcher)
    return watcher.threshold_ns // 10**9


def found(condition: str) -> str:
    return f"if {condition}; then {RESTART}; fi"


# --- The log --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        found(f"{LOGS} | {EXPIRED}"),
        f"{LOGS} | {EXPIRED} >/dev/null && {RESTART}",
        f"set -e\n{LOGS} | {EXPIRED}\n{RESTART}",
        f"{LOGS} | {EXPIRED} || exit 0\n{RESTART}",
        f"if ! {LOGS} | {EXPIRED}; then exit 0; fi\n{RESTART}",
        f"N=$({LOGS} | {EXPIRED} -c || true)\n" + found('[ "${N:-0}" -gt 0 ]'),
        f"N=$({LOGS} | {EXPIRED} | wc -l)\n" + found("(( N > 0 ))"),
        f"OUT=$({LOGS} | {EXPIRED})\n" + found('[ -n "$OUT" ]'),
        f'OUT=$({LOGS} | {EXPIRED})\n[[ -z "$OUT" ]] && exit 0\n{RESTART}',
        f"OUT=$({LOGS})\n" + found(f'echo "$OUT" | {EXPIRED} -q'),
        f"OUT=$({LOGS})\n" + found(f'printf "%s" "$OUT" | {EXPIRED} -q'),
        f"OUT=$({LOGS})\n" + found(f'{EXPIRED} -q <<< "$OUT"'),
        found(f"{LOGS} | grep -i expired"),
        found(f"{LOGS} | grep -qie EXPIRED"),
        found(f"{LOGS} | grep -qeexpired -A3 --color=never"),
        found(f"{LOGS} | grep -F 'certificate expired'"),
        found(f"{LOGS} | grep 'certificate expired\\|CertificateExpired'"),
        found(f"{LOGS} -c istio-proxy --timestamps --max-log-requests=20 | {EXPIRED}"),
        found(f"{LOGS.replace('=10m', '=600s')} | {EXPIRED}"),
        found(f"{LOGS.replace('=10m', ' 10m')} | {EXPIRED}"),
        found(f"{LOGS.replace('10m', '${WINDOW:-10m}')} | {EXPIRED}"),
        "WINDOW=10m\n# WINDOW=1m\n" + found(f"{LOGS.replace('10m', '$WINDOW')} | {EXPIRED}"),
        found(f"{LOGS.replace('--since=10m', '--since-time=$(date -u -d -10min +%FT%TZ)')} | {EXPIRED}"),
        found(f"{LOGS.replace('--since=10m', '--since-time=$(date -u -d @$(( $(date +%s) - 600 )) +%FT%TZ)')} | {EXPIRED}"),
        found(f"kubectl -n istio-system logs ds/ztunnel --since=10m | {EXPIRED}"),
        "for p in $(kubectl get pods -n istio-system -l app=ztunnel -o name); do\n"
        + found(f"kubectl -n istio-system logs $p --since=10m | {EXPIRED}")
        + "\ndone",
    ],
)  # fmt: skip
def test_what_a_watchdog_reads_of_the_log(script: str) -> None:
    """Ten minutes of it, in every spelling."""
    assert since_s(script) == 600


def test_a_watchdogs_numbers_come_from_its_environment_too() -> None:
    env = "              env: [{name: WINDOW, value: 3m}]\n"
    assert since_s(found(f"{LOGS.replace('10m', '$(WINDOW)')} | {EXPIRED}"), env) == 180
    assert since_s(found(f"{LOGS.replace('10m', '$WINDOW')} | {EXPIRED}"), env) == 180
    assert since_s(found(f"{LOGS.replace('--since=10m', '')} | {EXPIRED}")) is None


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (found(f"{LOGS.replace('--tail=-1', '')} | {EXPIRED}"), "the last ten lines"),
        (found(f"{LOGS.replace('--tail=-1', '--tail=100')} | {EXPIRED}"), "--tail=100 shows the last lines only"),
        (found(f"{LOGS} --limit-bytes=1000 | {EXPIRED}"), "--limit-bytes shows the beginning only"),
        (found(f"{LOGS} -f | {EXPIRED}"), "waits for more without end"),
        (found(f"{LOGS} --previous | {EXPIRED}"), "--previous"),
        (found(f"{LOGS} -c ztunnel | {EXPIRED}"), "container is istio-proxy"),
        (found(f"{LOGS.replace('10m', '10')} | {EXPIRED}"), "'10' is not a duration"),
        (found(f"{LOGS.replace('10m', '$SINCE')} | {EXPIRED}"), "--since"),
        (found(f"{LOGS.replace('istio-system', 'default')} | {EXPIRED}"), "it is about namespace 'default'"),
        (found(f"{LOGS.replace('app=ztunnel', 'app=istiod')} | {EXPIRED}"), "leaves ztunnel out"),
        (found(f"kubectl logs -n istio-system deploy/istiod --since=10m | {EXPIRED}"), "is not ztunnel"),
        (found(f"journalctl -u k3s --since=-10m | {EXPIRED}"), "is not kubectl logs"),
        (found(f"{LOGS} | grep -E 'tls: bad certificate'"), "finds nothing that ztunnel writes"),
        (found(f"{LOGS} | grep 'certificate expired|CertificateExpired'"), "finds nothing that ztunnel writes"),
        (found(f"{LOGS} | grep -i error"), "finds also what ztunnel writes while"),
        (found(f"{LOGS} | grep -v 'certificate expired'"), "finds also what ztunnel writes while"),
        (found(f"{LOGS} | grep --expired 'certificate expired'"), "grep does not start: option --expired"),
        (f"OUT=$({LOGS} | {EXPIRED})\n" + found('[ -z "$OUT" ]'), "when nothing was found"),
        (f"N=$({LOGS} | {EXPIRED} | wc -l)\n" + found("[ $N -ge 3 ]"), "more than one"),
        (RESTART, "take fix daily-restart"),
    ],
)  # fmt: skip
def test_what_a_watchdog_does_not_see_is_reported(script: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        since_s(script)


def test_the_log_of_one_pod_has_no_line_of_another_node() -> None:
    """kubectl logs ds/ztunnel takes one pod of the DaemonSet."""
    one_pod = LOGS.replace("-l app=ztunnel", "ds/ztunnel")
    assert since_s(found(f"{one_pod} | {EXPIRED}")) == 600
    for logs, is_refused in ((one_pod, True), (f"{one_pod} --all-pods", False), (LOGS, False)):
        of = deployed("log-watchdog", job(found(f"{logs} | {EXPIRED}")))
        (node,) = of.nodes
        of = of.model_copy(update={"nodes": (node, node.model_copy(update={"name": "b"}))})
        if is_refused:
            with pytest.raises(BadInput, match="the log of one pod, and there are 2 nodes"):
                log_watchers(of, clocks_of(of))
        else:
            assert log_watchers(of, clocks_of(of))


# --- Certificates about to expire -----------------------------------------------------------------

SOONEST = "jq -r '[.certificates[].certChain[0].expirationTime | fromdateiso8601] | min'"


def asks(
    condition: str,
    before: str = "",
    reads: str = f"curl -s localhost:15000/config_dump | {SOONEST}",
) -> str:
    return f"{before}\nsoonest=$({reads})\n{found(condition)}"


@pytest.mark.parametrize(
    "script",
    [
        asks('[ "$((soonest - $(date +%s)))" -lt 3600 ]'),
        asks('[ "$((soonest - $(date +%s)))" -lt "$T" ]', "T=3600\n# T=60"),
        asks('[ "$((soonest - $(date +%s)))" -lt "${T:-3600}" ]'),
        asks('[ "$((soonest - $(date +%s)))" -lt $((H * 60 * 60)) ]', "H=1"),
        asks("(( soonest - $(date +%s) < 3600 ))"),
        asks("(( soonest < now + 3600 ))", "now=$(date +%s)"),
        asks("[[ $((soonest - $(date +%s))) -lt 3600 ]]"),
        asks("[ 3600 -gt $((soonest - $(date +%s))) ]"),
        asks("! [ $((soonest - $(date +%s))) -ge 3600 ]"),
        asks('[ "$soonest" -lt "$(date -d "+1 hour" +%s)" ]'),
        asks("[ $(( (soonest - $(date +%s)) / 60 )) -lt 60 ]"),
        asks("[ $((soonest - $(date +%s))) -lt 3600 ]", reads=f"istioctl ztunnel-config certificates -o json | {SOONEST}"),
    ],
)  # fmt: skip
def test_how_little_of_its_life_is_taken_for_trouble(script: str) -> None:
    """An hour, in every spelling."""
    assert threshold_s(script) == 3_600


LEAVES = "jq -r '.certificates[].certChain[0].expirationTime | fromdateiso8601'"
OF_A_LIST = "jq -r '[.certificates[].certChain[0].expirationTime | fromdateiso8601] | %s'"


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        (f"{LEAVES} | sort -n | head -1", None),
        (OF_A_LIST % "sort | .[0]", None),
        (OF_A_LIST % "sort | first", None),
        ("jq -r '.certificates | min_by(.certChain[0].expirationTime) | .certChain[0].expirationTime | fromdateiso8601'", None),
        (f"{LEAVES} | sort -nr | head -1", "expires last"),
        (f"{LEAVES} | sort --reverse -n | head -n 1", "expires last"),
        (OF_A_LIST % "sort | reverse | .[0]", "expires last"),
        (OF_A_LIST % "sort | .[-1]", "expires first"),
        (f"{LEAVES} | head -1", "not sorted"),
        (OF_A_LIST % "first", "not sorted"),
        (LEAVES.replace("certificates[]", "certificates[0]"), "expires first"),
        (LEAVES.replace("certChain[0]", "certChain[-1]"), "expires first"),
        (LEAVES.replace("certChain", "rootCerts"), "root certificates"),
        (LEAVES.replace("[].", '[] | select(.identity | endswith("sa/a")) | .') + " | sort | head -1", "some identities"),
    ],
)  # fmt: skip
def test_which_certificate_such_a_check_takes(filters: str, says: str | None) -> None:
    """The leaf that expires first, of all; any other one says nothing."""
    script = asks(
        "[ $((soonest - $(date +%s))) -lt 3600 ]",
        reads=f"curl -s localhost:15000/config_dump | {filters}",
    )
    if says is None:
        assert threshold_s(script) == 3_600
    else:
        with pytest.raises(BadInput, match=says):
            threshold_s(script)


def test_a_checks_numbers_come_from_its_environment_too() -> None:
    script = asks('[ "$((soonest - $(date +%s)))" -lt "$THRESHOLD_SECONDS" ]')
    assert (
        threshold_s(script, '              env: [{name: THRESHOLD_SECONDS, value: "60"}]\n') == 60
    )
    with pytest.raises(BadInput, match="is THRESHOLD_SECONDS set"):
        threshold_s(script)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (asks("[ $((soonest - $(date +%s))) -gt 3600 ]"), "much of its life left"),
        (asks("[ $((soonest - $(date +%s))) -lt 3600 ]").replace("| min", "| max"), "expires last, not first"),
        (asks("[ $soonest -lt 3600 ]"), "how long a certificate has left"),
        (asks("[ $((soonest - $(date +%s))) -lt 3600 ]", reads="date -d tomorrow +%s"), "near-expiry|compare|expirationTime"),
        (RESTART, "take fix daily-restart"),
    ],
)  # fmt: skip
def test_what_such_a_check_does_not_see_is_reported(script: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        threshold_s(script)
