# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
"""Sleep hooks and units: when a suspend really restarts ztunnel, and when it does not."""

from __future__ import annotations

import pytest
from meshwake.core.errors import BadInput
from meshwake.core.history import History
from meshwake.core.plan import PlannedFix
from meshwake.fixes.sleep_hook import read_hook

from tests.support.plans import NIGHTS, TWO_NODES, plan, run

HOUR_S = 3_600
RESTART = "kubectl -n istio-system rollout restart ds/ztunnel"
WAIT = "kubectl -n istio-system rollout status ds/ztunnel"


def nights(hook: str, nodes: str | None = None, body: str = NIGHTS) -> History:
    of = (
        plan(body, duration="2d", every="1h")
        if nodes is None
        else plan(body, duration="2d", every="1h", nodes=nodes)
    )
    return run(of.model_copy(update={"fix": PlannedFix(name="sleep-hook", manifest=hook)}))


def restarts_s(hook: str, **world: str) -> list[float]:
    return [
        each.world_ns / 1e9
        for each in nights(hook, **world).of("ztunnel_started", cause="sleep-hook")
    ]


def script(*lines: str) -> str:
    return "#!/bin/sh\n" + "\n".join(lines) + "\n"


def unit(
    unit_lines: str = "After=suspend.target",
    service: str = f"ExecStart={RESTART}",
    wanted: str = "suspend.target",
) -> str:
    return f"[Unit]\nDescription=x\n{unit_lines}\n[Service]\nType=oneshot\n{service}\n[Install]\nWantedBy={wanted}\n"


AFTER = [
    script(f'[ "$1" = post ] && {RESTART}'),
    script(f'case "$1" in post) {RESTART};; esac'),
    script("# every time", RESTART),
    script(f"if [ $1 = pre ]; then {RESTART}; else {RESTART}; fi"),
    "#!/usr/bin/env bash\n" + f'[[ "$1" == "post" && $2 != hibernate ]] && {RESTART}\n',
    "#!/bin/bash -e\n" + f"{RESTART}\n",
    unit(),
    unit(service=f"ExecStart=/bin/sh -c 'sleep 0; {RESTART}'"),
    unit("After=systemd-suspend.service", wanted="sleep.target"),
    unit(service="Environment=NS=istio-system DS=ztunnel\nExecStart=-/usr/local/bin/kubectl -n ${NS} rollout restart ds/${DS}"),
    script(f'[ "$1" == post ] && {RESTART}').replace("#!/bin/sh", "#!/bin/bash"),
    script(f"[[ $1 == post ]] && {RESTART}").replace("#!/bin/sh", "#!/usr/bin/env bash"),
    unit(service=f"ExecStart=/bin/true\nExecStart=\nExecStart={RESTART}"),
    unit(service=f"ExecStartPre=-/bin/false\nExecStart={RESTART}"),
    unit(service=f"ExecStart=/bin/true\nExecStartPost={RESTART}"),
    unit(service=f"ExecStart=/bin/true\nExecStop={RESTART}"),
    unit(service=f"ExecStart=/bin/false\nExecStopPost={RESTART}"),
    unit("After=suspend.target\nStopWhenUnneeded=yes", f"RemainAfterExit=yes\nExecStart={RESTART}"),
    unit().replace("\n", "\r\n"),
    unit(
        "Before=sleep.target\nStopWhenUnneeded=yes",
        f"RemainAfterExit=yes\nExecStart=/bin/true\nExecStop={RESTART}",
        "sleep.target",
    ),
]  # fmt: skip


@pytest.mark.parametrize("hook", AFTER)
def test_a_restart_after_each_sleep(hook: str) -> None:
    """At the wake and five seconds; what is restarted before the sleep besides changes nothing of
    that."""
    assert {23 * HOUR_S + 5, 47 * HOUR_S + 5} <= set(restarts_s(hook))


def test_what_a_hook_sleeps_comes_on_top() -> None:
    assert (
        restarts_s(script('[ "$1" = post ] || exit 0', "sleep 30", RESTART))[0] == 23 * HOUR_S + 35
    )
    assert (
        restarts_s(script(f'[ "$1" = post ] && systemd-run --on-active=60 {RESTART}'))[0]
        == 23 * HOUR_S + 65
    )


def test_what_a_unit_runs_before_it_sleeps_too() -> None:
    """And where that fails, it comes to nothing."""
    assert (
        restarts_s(unit(service=f"ExecStartPre=/bin/sleep 10\nExecStart={RESTART}"))[0]
        == 23 * HOUR_S + 15
    )
    assert restarts_s(unit(service=f"ExecStartPre=/bin/sh -c 'exit 1'\nExecStart={RESTART}")) == []


def test_a_restart_before_the_sleep_is_one_before_the_sleep() -> None:
    """Waited for, or the order is not known."""
    assert restarts_s(script(f'[ "$1" = pre ] && {RESTART} && {WAIT}')) == [
        15 * HOUR_S - 1,
        39 * HOUR_S - 1,
    ]
    with pytest.raises(BadInput, match="whether the machine sleeps first is not known"):
        read_hook(script(f'[ "$1" = pre ] && {RESTART}'), "istio-system")


@pytest.mark.parametrize(
    "hook",
    [
        script(f'[ "$1/$2" = post/hibernate ] && {RESTART}'),
        script(f"case $2 in hibernate|hybrid-sleep) [ $1 = post ] && {RESTART};; esac"),
        unit("After=hibernate.target", wanted="hibernate.target"),
    ],
)  # fmt: skip
def test_after_a_hibernation_only_is_never_after_a_suspend(hook: str) -> None:
    """It is a fix, and does nothing here: the run shows it."""
    assert restarts_s(hook) == []


def test_a_rollout_restarts_all_nodes_and_pods_of_the_node_only_its_own() -> None:
    body = NIGHTS + 'node = "west"\n'
    own = script(
        '[ "$1" = post ] && kubectl delete pod -n istio-system -l app=ztunnel --field-selector spec.nodeName=$(hostname)'
    )
    assert {
        each.node for each in nights(own, TWO_NODES, body).of("ztunnel_started", cause="sleep-hook")
    } == {"west"}
    everywhere = script(f'[ "$1" = post ] && {RESTART}')
    assert {
        each.node
        for each in nights(everywhere, TWO_NODES, body).of("ztunnel_started", cause="sleep-hook")
    } == {
        "east",
        "west",
    }


@pytest.mark.parametrize(
    ("hook", "says"),
    [
        (script(f"# post: {RESTART}"), "does not restart ztunnel on 'post'.*nothing"),
        (script('[ "$1" = post ] && systemctl restart k3s'), "leaves ztunnel's container running"),
        (script('[ "$1" = post ] && kubectl -n kube-system rollout restart ds/ztunnel'), "'kube-system'"),
        (script(f'[ "$1" = post ] && {RESTART} --dry-run'), "--dry-run changes nothing"),
        (script(f'[ "$1" = post ] && {RESTART} &'), "systemd ends what a hook leaves behind"),
        (script(f'[ "$1" = post ] && (sleep 30; {RESTART}) &'), "in the background"),
        (script(f'[ "$1" = post ] && [ -e /run/long ] && {RESTART}'), "only when .*/run/long"),
        (script('[ "$1" = post ] && /opt/restart.sh'), "/opt/restart.sh.*not known"),
        (script(f'case "$1" in resume|thaw) {RESTART};; esac'), "pm-utils"),
        (script(f'[ "$2" = up ] && {RESTART}'), "NetworkManager"),
        (script('[ "$1" = post ] && kubectl -n istio-system delete ds ztunnel'), "nothing creates it again"),
        (script("if true; then"), "line"),
        ("#!/usr/bin/env python3\nimport os\n", "a program for 'python3'"),
        (f"#!/bin/sh\r\n{RESTART}\r\n", "CR LF"),
        (f"#!/bin/sh\n{RESTART}\r\n", "CR LF"),
        (f"\ufeff#!/bin/sh\n{RESTART}\n", "byte order mark"),
        (RESTART, "does not begin with '#!'"),
        ("", "does not begin with '#!'"),
        (script(f'[ "$1" == post ] && {RESTART}'), "== in a test is unknown to dash"),
        (script(f'if test "$1" == post; then {RESTART}; fi'), "write =, or let bash run it"),
        (script(f"if [[ $1 = post ]]; then {RESTART}; fi"), "unknown to dash"),
        (script(f"function again {{\n{RESTART}\n}}\n[ $1 = post ] && again"), "function again is unknown to dash"),
        (script(f'[ "$1" = post ] && {RESTART} &> /dev/null'), "&> is unknown to dash"),
        (script(f'if [ "$1" = post ]; then {RESTART}; fi &>> /tmp/log'), "&>> is unknown to dash"),
        (script(f'bash <<< "{RESTART}"'), "<<< is unknown to dash"),
        (script(f"source /etc/default/mesh\n{RESTART}"), "source is unknown to dash"),
        (unit(service=f"ExecStart=/bin/sh -c '[[ -n x ]] && {RESTART}'"), "unknown to dash"),
        (unit(""), "together with the sleep"),
        (unit(service=f"RemainAfterExit=yes\nExecStart={RESTART}"), "by the first sleep and never again"),
        (unit("After=sleep.target"), "together with the sleep"),
        (unit(wanted="multi-user.target"), "which no sleep starts"),
        (unit("Before=sleep.target", wanted="sleep.target"), "whether the machine sleeps first is not known"),
        (unit("After=suspend.target\nConditionACPower=true"), "ConditionACPower=true"),
        (unit(service="ExecStart=/opt/restart"), "/opt/restart"),
        (unit(service="ExecStart=/bin/sh -c 'unclosed"), "is not understood"),
    ],
)  # fmt: skip
def test_what_is_not_a_hook_is_refused_with_the_reason(hook: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_hook(hook, "istio-system")
