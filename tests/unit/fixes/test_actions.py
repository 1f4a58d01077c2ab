# ruff: noqa: E501  scripts, rules and manifests in tables stay in one piece
"""What scripts do to ztunnel: found out by following them, never by looking for words."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from meshwake.fixes.actions import Action, CommandContext, Reading, read_actions
from meshwake.fixes.shell.shell import run
from meshwake.fixes.shell.tree import NotRead

MACHINE = CommandContext("default", False, "istio-system")
POD = CommandContext("istio-system", True, "istio-system", sees_processes=False)


def reading(
    script: str, place: CommandContext = MACHINE, arguments: tuple[str, ...] = ("post", "suspend")
) -> Reading:
    return read_actions(run(script, arguments), place)


def sure(script: str, place: CommandContext = MACHINE) -> list[Action]:
    """The ztunnels that are restarted whatever is found."""
    return [
        each
        for each in reading(script, place).of("ztunnel")
        if not each.conditions and not each.background
    ]


RESTARTS = [
    "kubectl rollout restart daemonset/ztunnel -n istio-system",
    "kubectl rollout restart ds ztunnel -n istio-system",
    "kubectl -n istio-system rollout restart daemonsets ztunnel istio-cni-node",
    "kubectl rollout restart daemonset.apps/ztunnel --namespace=istio-system",
    "kubectl rollout -nistio-system restart ds/ztunnel",
    "kubectl rollout restart ds -n istio-system",
    "kubectl rollout restart ds,deploy -n istio-system",
    "kubectl rollout restart ds -l app=ztunnel -n istio-system",
    "kubectl rollout restart ds -l 'app in (ztunnel, other)' -n istio-system",
    "kubectl rollout restart ds -l app.kubernetes.io/name=ztunnel -n istio-system",
    "kubectl --kubeconfig /etc/rancher/k3s/k3s.yaml -n istio-system rollout restart ds/ztunnel",
    "kubectl --request-timeout=30s -v=4 -n istio-system rollout restart ds/ztunnel >/dev/null 2>&1",
    "KUBECONFIG=/etc/kubernetes/admin.conf kubectl rollout restart ds/ztunnel -n istio-system",
    "/usr/local/bin/k3s kubectl rollout restart ds/ztunnel -n istio-system",
    "microk8s kubectl rollout restart ds/ztunnel -n istio-system",
    "microk8s.kubectl rollout restart ds/ztunnel -n istio-system",
    "minikube kubectl -- rollout restart ds/ztunnel -n istio-system",
    "sudo k0s kubectl -n istio-system rollout restart ds/ztunnel",
    "oc rollout restart daemonset/ztunnel -n istio-system",
    "k3s kubectl -n istio-system rollout restart $(k3s kubectl get ds -n istio-system -o name)",
    "kubectl delete pod -l app=ztunnel -n istio-system",
    "kubectl delete pods -n istio-system -l app=ztunnel --force --grace-period=0",
    "kubectl delete po -lapp=ztunnel -A",
    "kubectl delete pods --all -n istio-system",
    "kubectl delete pod -n istio-system -l app=ztunnel --field-selector spec.nodeName=$(hostname) --wait=false",
    "kubectl delete pod -n istio-system -l app==ztunnel --field-selector=spec.nodeName=$HOSTNAME,status.phase=Running",
    "kubectl get pods -n istio-system -l app=ztunnel -o name | xargs kubectl delete -n istio-system",
    "kubectl get po -n istio-system --no-headers | grep ztunnel | awk '{print $1}' | xargs -r kubectl delete pod -n istio-system",
    "kubectl get pods -n istio-system -o name | grep '^pod/ztunnel-' | xargs -I{} kubectl -n istio-system delete {}",
    "kubectl get pods -A | awk '/ztunnel/{print $2}' | xargs kubectl delete pod -n istio-system",
    "for p in $(kubectl get pods -n istio-system -l app=ztunnel -o name); do kubectl delete -n istio-system $p; done",
    "kubectl get pods -n istio-system | grep ztunnel | while read p rest; do kubectl delete pod -n istio-system $p; done",
    "kubectl -n istio-system delete pod $(kubectl -n istio-system get pod -l app=ztunnel -o jsonpath='{.items[*].metadata.name}')",
    "kubectl rollout restart -n istio-system $(kubectl get ds -n istio-system -l app=ztunnel -o name)",
    """kubectl -n istio-system patch ds ztunnel -p '{"spec":{"template":{"metadata":{"annotations":{"at":"'$(date +%s)'"}}}}}'""",
    """kubectl -n istio-system patch ds/ztunnel --type=merge -p "spec: {template: {metadata: {annotations: {at: '$(date)'}}}}" """,
    """kubectl -n istio-system patch ds ztunnel --type json -p "[{\\"op\\":\\"add\\",\\"path\\":\\"/spec/template/metadata/annotations/at\\",\\"value\\":\\"$(date)\\"}]" """,
    "kubectl -n istio-system set env ds/ztunnel RESTARTED_AT=$(date +%s)",
    "crictl stop $(crictl ps -q --name istio-proxy)",
    "crictl pods --name ztunnel -q | xargs crictl stopp",
    "crictl rmp -f $(crictl pods -q --label app=ztunnel)",
    "k3s crictl ps | grep ztunnel | awk '{print $1}' | xargs k3s crictl stop",
    "crictl stop $(crictl ps -q --pod $(crictl pods -q --name ztunnel))",
    "docker restart $(docker ps -q --filter name=ztunnel)",
    "pkill ztunnel",
    "pkill -TERM -x ztunnel",
    "killall -9 ztunnel",
    "kill $(pidof ztunnel)",
    "DS=ztunnel NS=istio-system; kubectl rollout restart ds/$DS -n ${NS}",
    'DS=ztunnel; NS="istio-system"\nkubectl rollout restart "ds/${DS}" -n "$NS"',
    'K="kubectl -n istio-system"; $K rollout restart ds/ztunnel',
    'kc() { kubectl -n istio-system "$@"; }; kc rollout restart ds/ztunnel',
    'kubectl() { /usr/bin/kubectl -n istio-system "$@"; }; kubectl rollout restart ds/ztunnel',
    'kubectl() { command kubectl -n istio-system "$@"; }; kubectl rollout restart ds/ztunnel',
    "kubectl config set-context --current --namespace istio-system && kubectl rollout restart ds/ztunnel",
    "kubectl config set-context here --cluster=c --user=u --namespace=istio-system\nkubectl config use-context here\nkubectl rollout restart ds/ztunnel",
    "kubectl config use-context here; kubectl config set-context here --namespace istio-system; kubectl rollout restart ds/ztunnel",
    "kubectl config use-context here; kubectl config set contexts.here.namespace istio-system; kubectl rollout restart ds/ztunnel",
    "kubens istio-system; kubectl rollout restart ds/ztunnel",
    "kubectl ns istio-system; kubectl rollout restart ds/ztunnel",
    "oc project istio-system; oc rollout restart ds/ztunnel",
    "function again { kubectl -n istio-system rollout restart ds/${1:-ztunnel}; }\nagain",
    "kubectl version && kubectl -n istio-system rollout restart ds/ztunnel || echo failed",
    "set -euo pipefail; kubectl -n istio-system rollout restart ds/ztunnel; kubectl -n istio-system rollout status ds/ztunnel",
    "sh -c 'kubectl -n istio-system rollout restart ds/ztunnel'",
    "bash -ec 'kubectl -n $1 rollout restart ds/$0' ztunnel istio-system",
    "bash -euo pipefail -c 'kubectl -n $1 rollout restart ds/$0' ztunnel istio-system",
    "bash --norc -O extglob -c -e 'kubectl -n istio-system rollout restart ds/ztunnel'",
    "bash --rcfile /dev/null -c 'kubectl -n istio-system rollout restart ds/ztunnel'",
    "sh -oe errexit -c -- 'kubectl -n istio-system rollout restart ds/ztunnel'",
    "timeout 60 nice -n 5 kubectl -n istio-system rollout restart ds/ztunnel",
    "nohup env FOO=1 kubectl -n istio-system rollout restart ds/ztunnel",
    "sudo -u admin -E kubectl -n istio-system rollout restart ds/ztunnel",
    "su - admin -c 'kubectl -n istio-system rollout restart ds/ztunnel'",
    'eval "kubectl -n istio-system rollout restart ds/ztunnel"',
    "exec kubectl -n istio-system rollout restart ds/ztunnel",
    "docker exec -e A=1 kind-control-plane kubectl -n istio-system rollout restart ds/ztunnel",
    "systemd-run --on-active=10 --unit=again kubectl -n istio-system rollout restart ds/ztunnel",
    "bash <<EOF\nkubectl -n istio-system rollout restart ds/ztunnel\nEOF\n",
    "until kubectl get nodes >/dev/null 2>&1; do sleep 2; done\nkubectl -n istio-system rollout restart ds/ztunnel",
    "while ! curl -sk https://127.0.0.1:6443/readyz; do sleep 1; done; kubectl -n istio-system rollout restart ds/ztunnel",
    "for i in 1 2 3; do kubectl -n istio-system rollout restart ds/ztunnel && break; sleep 5; done",
    "for i in $(seq 1 30); do kubectl -n istio-system rollout restart ds/ztunnel && exit 0; sleep 5; done",
    "while true; do kubectl -n istio-system rollout restart ds/ztunnel && break; sleep 3; done",
    "command -v kubectl >/dev/null || exit 0; kubectl -n istio-system rollout restart ds/ztunnel",
    "[ -x /usr/local/bin/kubectl ] && kubectl -n istio-system rollout restart ds/ztunnel",
    "systemctl is-active --quiet k3s || exit 0\nkubectl -n istio-system rollout restart ds/ztunnel",
    '[ "$1" = post ] && kubectl -n istio-system rollout restart ds/ztunnel',
    'test "$1" = "post" -a "$2" != hibernate || exit 0; kubectl -n istio-system rollout restart ds/ztunnel',
    "if [[ $1 == post* && -n $2 ]]; then kubectl -n istio-system rollout restart ds/ztunnel; fi",
    'if [ "${1:-}" != pre ]; then\n  kubectl -n istio-system rollout restart ds/ztunnel\nfi',
    'case "$1/$2" in\n  pre/*) ;;\n  post/suspend|post/hybrid-sleep) kubectl -n istio-system rollout restart ds/ztunnel ;;\nesac',
    "case $1 in (post) kubectl -n istio-system rollout restart ds/ztunnel;; esac",
    "# waits for the network\nsleep 5 # seconds\nkubectl \\\n  -n istio-system \\\n  rollout restart ds/ztunnel",
    "{ kubectl -n istio-system rollout restart ds/ztunnel; } 2>&1 | logger -t hook",
    "(cd /tmp && kubectl -n istio-system rollout restart ds/ztunnel)",
    "kubectl -n istio-system rollout restart ds/ztunnel &\nwait",
    "alias k='kubectl -n istio-system'\nk rollout restart ds/ztunnel",
    "bash <<< 'kubectl -n istio-system rollout restart ds/ztunnel'",
    "echo 'kubectl -n istio-system rollout restart ds/ztunnel' | sh",
    "printf 'kubectl -n %s rollout restart ds/%s\\n' istio-system ztunnel | bash -x",
    "echo ztunnel | xargs kubectl -n istio-system rollout restart ds",
    "echo -n kubectl -n istio-system rollout restart ds/ztunnel | sh",
    "echo istio-cni-node ztunnel | xargs -n 1 kubectl -n istio-system rollout restart ds",
    "printf 'istio-cni-node\\nztunnel\\n' | xargs -I% kubectl -n istio-system rollout restart ds/%",
    "echo ztunnel | xargs --replace kubectl -n istio-system rollout restart ds/{}",
    "echo ztunnel | xargs --replace=% kubectl -n istio-system rollout restart ds/%",
    "echo ztunnel | xargs -i kubectl -n istio-system rollout restart ds/{}",
    "bash -c 'kubectl -n istio-system rollout restart ds/{istio-cni-node,ztunnel}'",
    "bash -c 'for ds in {ztunnel,istio-cni-node}; do kubectl -n istio-system rollout restart ds/$ds; done'",
    "trap 'kubectl -n istio-system rollout restart ds/ztunnel' EXIT\nexit 1",
    "trap 'rm -f /tmp/x' EXIT\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set +e\nfalse\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set -e\nfalse || true\n! true\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set -e\nif false; then exit; fi\nwhile false; do :; done\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set -e\nfalse && true\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set -e\ncheck() { false; return 0; }\nif check; then kubectl -n istio-system rollout restart ds/ztunnel; fi",
    "set -euo pipefail\ncurl -fsSLO https://dl.k8s.io/release/v1.34.0/bin/linux/amd64/kubectl\nchmod +x kubectl\n./kubectl -n istio-system rollout restart ds/ztunnel",
    "(set -e; false; true)\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set -e\nsh -c 'false; kubectl -n istio-system rollout restart ds/ztunnel'",
]  # fmt: skip


@pytest.mark.parametrize("script", RESTARTS)
def test_what_restarts_ztunnel(script: str) -> None:
    assert sure(script), reading(script)


NOTHING = [
    "set -e\nfalse\nkubectl rollout restart ds/ztunnel -n istio-system",
    "set -euo pipefail; false; kubectl rollout restart ds/ztunnel -n istio-system",
    "set -o errexit\ntrue && false\nkubectl rollout restart ds/ztunnel -n istio-system",
    "sh -ec 'false; kubectl rollout restart ds/ztunnel -n istio-system'",
    "#!/bin/sh -e\n[ -z x ]\nkubectl rollout restart ds/ztunnel -n istio-system",
    "#!/bin/bash\nset -e\n(exit 1)\nkubectl rollout restart ds/ztunnel -n istio-system",
    "set -e\nstep() { false; true; }\nstep\nkubectl rollout restart ds/ztunnel -n istio-system",
    "sleep infinity; kubectl rollout restart ds/ztunnel -n istio-system",
    "trap 'kubectl rollout restart ds/ztunnel -n istio-system' TERM\nsleep 5",
    "trap 'kubectl rollout restart ds/ztunnel -n istio-system' EXIT\ntrap - EXIT",
    "sh -c 'kubectl -n istio-system rollout restart ds/{istio-cni-node,ztunnel}'",
    "echo istio-cni-node | xargs kubectl -n istio-system rollout restart ds",
    "echo 'kubectl rollout restart ds/ztunnel -n istio-system' | cat",
    "# kubectl rollout restart ds/ztunnel -n istio-system",
    "echo kubectl rollout restart ds/ztunnel -n istio-system",
    "echo 'kubectl rollout restart ds/ztunnel -n istio-system' | tee /tmp/log",
    ": kubectl rollout restart ds/ztunnel -n istio-system",
    "false && kubectl rollout restart ds/ztunnel -n istio-system",
    "exit 0\nkubectl rollout restart ds/ztunnel -n istio-system",
    "if false; then kubectl rollout restart ds/ztunnel -n istio-system; fi",
    "restart() { kubectl rollout restart ds/ztunnel -n istio-system; }",
    "cat <<EOF\nkubectl rollout restart ds/ztunnel -n istio-system\nEOF\n",
    '[ "$1" = pre ] && kubectl rollout restart ds/ztunnel -n istio-system',
    '[ "$2" = hibernate ] || exit 0; kubectl rollout restart ds/ztunnel -n istio-system',
    "kubectl rollout restart ds/ztunnel",
    "kubectl rollout restart ds/ztunnel -n kube-system",
    "kubectl rollout restart ds/istio-cni-node -n istio-system # ztunnel",
    "kubectl rollout restart deploy/ztunnel -n istio-system",
    "kubectl rollout restart deployment/istiod -n istio-system && kubectl rollout status ds/ztunnel -n istio-system",
    "kubectl rollout status ds/ztunnel -n istio-system",
    "kubectl rollout restart ds ztunnel -A",
    "kubectl rollout restart ds/ztunnel ztunnel -n istio-system",
    "kubectl rollout restart ds -l app=istio-cni -n istio-system",
    "kubectl rollout restart ds -l app!=ztunnel -n istio-system",
    "kubectl rollout restart ds/ztunnel -n istio-system --dry-run=server",
    "kubectl delete pod -l app=ztunnel -n istio-system --dry-run=client",
    "kubectl delete pod -l app=ztunnel -n istio-system --dry-run",
    "kubectl delete pod ztunnel -n istio-system",
    "kubectl delete pod ztunnel-abcde -n istio-system",
    "kubectl delete pod -l app=ztunnel -n default",
    "kubectl delete pod -n istio-system",
    "kubectl delete pod -n istio-system -l app=ztunnel --field-selector=status.phase=Failed",
    "kubectl get pods -n istio-system | grep -v ztunnel | awk '{print $1}' | xargs kubectl delete pod -n istio-system",
    "kubectl get pods -n istio-system | grep istiod | awk '{print $1}' | xargs kubectl delete pod -n istio-system",
    "kubectl get pods -n kube-system -l app=ztunnel -o name | xargs kubectl delete -n istio-system",
    "kubectl annotate ds/ztunnel -n istio-system restartedAt=$(date +%s) --overwrite",
    "kubectl label pods -l app=ztunnel -n istio-system a=$(date +%s)",
    """kubectl -n istio-system patch ds ztunnel -p '{"metadata":{"annotations":{"at":"'$(date +%s)'"}}}'""",
    "kubectl logs ds/ztunnel -n istio-system",
    "kubectl describe ds ztunnel -n istio-system; kubectl top pod -n istio-system",
    "kubectl rollout restart ds/ztunnel -n istio-system --help",
    "kubens istio-system; kubens default; kubectl rollout restart ds/ztunnel",
    "kubectl config set-context --current --namespace=; kubectl rollout restart ds/ztunnel",
    "kubectl config use-context a; kubectl config set-context --current --namespace default; kubectl config set-context b --namespace istio-system; kubectl rollout restart ds/ztunnel",
    "systemctl restart k3s",
    "service k3s restart",
    "systemctl restart kubelet containerd",
    "crictl stop $(crictl ps -q --name ztunnel)",
    "crictl rm $(crictl ps -q --name istio-proxy)",
    "crictl stop 3f2504e04f89",
    "pkill -f istiod",
    "curl -s localhost:15000/config_dump | grep ztunnel",
    "sh -c kubectl -n istio-system rollout restart ds/ztunnel",
    "'kubectl rollout restart ds/ztunnel -n istio-system'",
]  # fmt: skip


@pytest.mark.parametrize("script", NOTHING)
def test_what_restarts_nothing_though_it_says_ztunnel(script: str) -> None:
    """The controls; each is answered with a reason, where a command is there at all."""
    found = reading(script)
    assert found.of("ztunnel") == [] and found.unclear == []


UNCLEAR = [
    "/usr/local/bin/restart-ztunnel.sh",
    "ssh node kubectl rollout restart ds/ztunnel -n istio-system",
    "kubectl --context home rollout restart ds/ztunnel -n istio-system",
    "kubectl -s https://10.0.0.1:6443 rollout restart ds/ztunnel -n istio-system",
    "kubectl replace --force -f ztunnel.yaml",
    "kubectl delete -f ztunnel.yaml",
    "kubectl rollout restart -f ztunnel.yaml -n istio-system",
    "kubectl exec -n istio-system ds/ztunnel -- kill 1",
    "kubectl exec -n tools deploy/kubectl -- kubectl rollout restart ds/ztunnel -n istio-system",
    "kubectl rollout restart ds/ztunnel -n istio-system --frobnicate",
    "kubectl config use-context other; kubectl rollout restart ds/ztunnel",
    "kubectl config set-context other --namespace istio-system; kubectl rollout restart ds/ztunnel",
    "[ -e /etc/here ] && kubens istio-system; kubectl rollout restart ds/ztunnel",
    "kubens -; kubectl rollout restart ds/ztunnel",
    "kubectx home; kubectl rollout restart ds/ztunnel",
    "kubectl rollout restart ds/$(cat /etc/which) -n istio-system",
    "kubectl rollout restart ds/ztunnel -n $(cat /etc/where)",
    "kubectl rollout restart $(kubectl get) -n istio-system",
    "kubectl rollout undo ds/ztunnel -n istio-system",
    "kubectl delete pod -l k8s-app=ztunnel -n istio-system",
    "kubectl delete pod -n istio-system -l app=ztunnel --field-selector spec.nodeName=$(cat /etc/node)",
    """kubectl -n istio-system patch ds ztunnel -p '{"spec":{"template":{"metadata":{"annotations":{"at":"1"}}}}}'""",
    "kubectl -n istio-system set env ds/ztunnel A=b",
    "kubectl -n istio-system patch ds ztunnel --patch-file /etc/patch.yaml",
    "helm upgrade ztunnel istio/ztunnel -n istio-system",
    "istioctl install -y",
    "curl -X DELETE https://kubernetes.default/api/v1/namespaces/istio-system/pods?labelSelector=app=ztunnel",
    "systemctl restart docker",
    "reboot",
    "python3 restart.py",
    "pkill -HUP ztunnel",
]  # fmt: skip


@pytest.mark.parametrize("script", UNCLEAR)
def test_what_is_not_understood_is_reported(script: str) -> None:
    found = reading(script)
    assert found.of("ztunnel") == [] and found.unclear, found


def test_a_pod_has_no_current_context() -> None:
    """kubectl refuses --current there, unless a kubeconfig is mounted; one that is made is known."""
    pod = CommandContext("default", in_pod=True, ztunnel_namespace="istio-system")
    current = "kubectl config set-context --current --namespace istio-system"
    restart = "kubectl rollout restart ds/ztunnel"
    assert reading(f"{current}; {restart}", pod).unclear
    assert sure(f"kubectl config use-context here; {current}; {restart}", pod)


PATCH = 'kubectl -n istio-system patch ds ztunnel -p \'{"spec":{"template":{"metadata":{"annotations":{"at":"\'"%s"\'"}}}}}\''
DAY_S = 86_400
CHANGES = {
    "$(date)": 0,
    "$(date +%s)": 0,
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)": 0,
    "$(date -Iseconds)": 0,
    "$(date +%s | sha256sum | cut -c1-8)": 0,
    "$(cat /proc/sys/kernel/random/uuid)": 0,
    "$(date +%Y%m%d%H%M)": 60,
    "$(date +%F-%H)": 3_600,
    "$(date +%F)": DAY_S,
    "$(date -I)": DAY_S,
    "$(($(date +%s) / 604800))": 7 * DAY_S,
    "1": None,
    "$(date +%Y-%m)": None,
    "$(date +%H)": None,
    "$(date +%u)": None,
    "$(date -d yesterday)": None,
    "$(date +%s | cut -c1-5)": None,
    "$(hostname)": None,
    "$(kubectl get ds ztunnel -n istio-system -o jsonpath={.metadata.generation})": None,
}  # fmt: skip


@pytest.mark.parametrize("value", CHANGES)
def test_a_patch_restarts_as_often_as_its_value_is_another_one(value: str) -> None:
    """By a script that runs that often it restarts each time; by one that runs more often it does
    not, and the reason is there. What may be the same again restarts nothing for sure."""
    least_s = CHANGES[value]
    for comes_every_s in (0, 60, 3_600, DAY_S, 7 * DAY_S):
        found = reading(PATCH % value, replace(MACHINE, comes_every_s=comes_every_s))
        restarts = least_s is not None and least_s <= comes_every_s
        assert bool(found.of("ztunnel")) == restarts and bool(found.unclear) != restarts


def test_the_name_of_a_pod_is_another_one_for_each_job() -> None:
    assert reading(PATCH % "$(hostname)", POD).of("ztunnel")


RESTART = "kubectl -n istio-system rollout restart ds/ztunnel"
OTHER_PROCESSES = [
    ("NS=istio-system; sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", False),
    ("export NS=istio-system; sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("NS=istio-system; export NS; timeout 60 bash -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("set -a; NS=istio-system; sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("NS=istio-system sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("NS=istio-system true; sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", False),
    ("env NS=istio-system sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("NS=istio-system; (kubectl -n $NS rollout restart ds/ztunnel)", True),
    (f"f() {{ {RESTART}; }}; f", True),
    (f"f() {{ {RESTART}; }}; sh -c f", False),
    (f"f() {{ {RESTART}; }}; timeout 20 f", False),
    (f"f() {{ {RESTART}; }}; echo a | xargs f", False),
    (f"#!/bin/sh\nalias k='{RESTART}'\nk", True),
    (f'f() {{ {RESTART} "$@"; }}; f', True),
    (f"#!/bin/bash\nalias k='{RESTART}'\nk", False),
    ("export NS=istio-system; sudo sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", False),
    ("export NS=istio-system; doas sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", False),
    ("export NS=istio-system; env -i sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", False),
    ("export NS=istio-system; env sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("export NS=istio-system; sudo kubectl -n $NS rollout restart ds/ztunnel", True),
    ("export NS=istio-system; sudo -nE sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    ("sudo NS=istio-system sh -c 'kubectl -n $NS rollout restart ds/ztunnel'", True),
    (
        "export A=1 NS=istio-system; "
        "sudo --preserve-env=A,NS bash -c 'kubectl -n $NS rollout restart ds/ztunnel'",
        True,
    ),
    (
        "export A=1 NS=istio-system; "
        "sudo --preserve-env=A bash -c 'kubectl -n $NS rollout restart ds/ztunnel'",
        False,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("script", "restarts"), OTHER_PROCESSES)
def test_another_process_has_what_is_exported_and_no_functions(script: str, restarts: bool) -> None:
    """And no script of bash looks at aliases."""
    assert bool(sure(script)) == restarts


@pytest.mark.parametrize(
    ("expression", "number"),
    [
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("7 / -2", "-3"),
        ("7 % 3", "1"),
        ("-7 % 3", "-1"),
        ("7 % -3", "1"),
        ("999999999999999999 / 1", "999999999999999999"),
    ],
)
def test_a_division_drops_its_rest_as_that_of_c_does(expression: str, number: str) -> None:
    """Towards 0, where Python's goes down."""
    memory = run(f"echo $(({expression}))")
    assert [each.words for each in memory.ran] == [("echo", number)]


@pytest.mark.parametrize(
    ("set_up", "word", "count"),
    [
        ("set --", '"$@"', "0"),
        ("set --", '""$@', "1"),
        ("set --", '"$*"', "1"),
        ("set -- ''", '"$@"', "1"),
        ("set -- '' ''", '"$@"', "2"),
        ("set -- '' ''", "$@", "0"),
        ("set -- 'a b' c", "$@", "3"),
        ("set -- 'a b' c", '"$@"', "2"),
        ("set -- 'a b' c", "x$*y", "3"),
        ("set a b", '"$@"', "2"),
        ("set a -b --", '"$@"', "3"),
        ("set -eo pipefail a b", '"$@"', "2"),
        ("set +e a", '"$@"', "1"),
        ("set - a b", '"$@"', "2"),
        ("set -- a b; set -e; set -", '"$@"', "2"),
        ("set -- a b; set -oe pipefail", '"$@"', "2"),
        ("set -e -- -e --", '"$@"', "2"),
    ],
)
def test_an_empty_argument_is_one_and_none_is_none(set_up: str, word: str, count: str) -> None:
    """As dash and bash count them; outside of quotes they are split once more."""
    memory = run(f"{set_up}; count() {{ echo $#; }}; count {word}")
    assert [each.words for each in memory.ran] == [("echo", count)]


@pytest.mark.parametrize(
    ("script", "restarts"),
    [
        (f"set -u; echo $NOT_SET; {RESTART}", False),
        (f"set -euo pipefail; n=$((NOT_SET + 1)); {RESTART}", False),
        (f"#!/bin/sh -u\necho ${{#NOT_SET}}; {RESTART}", False),
        (f"set -o nounset; echo ${{NOT_SET:-}} $HOME $# $1; {RESTART}", True),
        (f"set -u; set +u; echo $NOT_SET; {RESTART}", True),
        (f"set -u; sh -c 'echo $NOT_SET; {RESTART}'", True),
        (f"set -u; echo $KUBERNETES_SERVICE_HOST; {RESTART}", True),
        (f"echo $NOT_SET; {RESTART}", True),
    ],
)
def test_a_variable_that_is_not_set_ends_a_script_that_says_so(script: str, restarts: bool) -> None:
    if restarts:
        assert sure(script)
        return
    with pytest.raises(NotRead, match=r"`set -u` ends it at \$NOT_SET"):
        run(script, ("post", "suspend"))


CONDITIONAL = [
    "[ -e /etc/restart-it ] && kubectl -n istio-system rollout restart ds/ztunnel",
    '[ "$(date +%u)" = 7 ] && kubectl -n istio-system rollout restart ds/ztunnel',
    "if grep -q yes /etc/answer; then kubectl -n istio-system rollout restart ds/ztunnel; fi",
    "grep -q no /etc/answer && exit 0\nkubectl -n istio-system rollout restart ds/ztunnel",
    "case $(cat /etc/answer) in yes) kubectl -n istio-system rollout restart ds/ztunnel;; esac",
    "now=$(date +%s); was=$(cat /run/slept); [ $((now - was)) -gt 3600 ] && kubectl -n istio-system rollout restart ds/ztunnel",
    "on_ac_power && kubectl -n istio-system rollout restart ds/ztunnel",
    "set -e\ngrep -q yes /etc/answer\nkubectl -n istio-system rollout restart ds/ztunnel",
    "set -euo pipefail\n[ -e /etc/restart-it ]\nkubectl -n istio-system rollout restart ds/ztunnel",
]  # fmt: skip


@pytest.mark.parametrize("script", CONDITIONAL)
def test_what_hangs_on_something_has_that_as_its_condition(script: str) -> None:
    (action,) = reading(script).of("ztunnel")
    assert action.conditions and action.conditions[0].text


def test_both_ways_of_a_condition_are_followed_and_meet_again() -> None:
    """What comes behind is on no condition; where one way ends, the rest is on the other."""
    script = (
        "if grep -q a b; then A=1; else A=2; fi; kubectl -n istio-system rollout restart ds/ztunnel"
    )
    assert sure(script)
    script = "if grep -q a b; then exit; fi; kubectl -n istio-system rollout restart ds/ztunnel"
    (action,) = reading(script).of("ztunnel")
    assert [each.is_true for each in action.conditions] == [False]


def test_deleting_the_daemon_set_is_harm() -> None:
    assert reading("kubectl delete ds ztunnel -n istio-system").harmful
    assert reading("kubectl delete ds ztunnel -n default").harmful == []


def test_a_restart_is_waited_for_by_rollout_status_and_comes_after_what_is_slept() -> None:
    (action,) = sure(
        "sleep 1m; kubectl -n istio-system rollout restart ds/ztunnel; kubectl -n istio-system rollout status ds/ztunnel"
    )
    assert action.waited and action.after_s == 60
    (action,) = sure("kubectl -n istio-system rollout restart ds/ztunnel")
    assert not action.waited and action.after_s == 0


def test_which_nodes_it_concerns() -> None:
    """All one by one, all at once, the own one, or one by name."""
    assert sure("kubectl -n istio-system rollout restart ds/ztunnel")[0].how == "rollout"
    assert sure("kubectl -n istio-system delete pod -l app=ztunnel")[0].how == "at once"
    own = "kubectl -n istio-system delete pod -l app=ztunnel --field-selector spec.nodeName="
    assert sure(f"{own}$(hostname)")[0].how == "own node"
    assert sure(f"{own}east")[0].node == "east"
    assert (
        sure(
            "kubectl -n istio-system get pod -l app=ztunnel -o name | head -1 | xargs kubectl delete -n istio-system"
        )[0].how
        == "one of them"
    )
    assert sure("pkill ztunnel")[0].how == "own node"


def test_a_pod_has_a_namespace_of_its_own_and_neither_host_name_nor_processes() -> None:
    assert sure("kubectl rollout restart ds/ztunnel", POD)
    own = "kubectl delete pod -l app=ztunnel --field-selector spec.nodeName=$(hostname)"
    assert "hostname is the pod's name" in reading(own, POD).idle[0]
    assert "hostPID" in reading("pkill ztunnel", POD).idle[0]
    assert (
        "-n istio-system"
        in reading(
            "kubectl rollout restart ds/ztunnel", CommandContext(None, True, "istio-system")
        ).unclear[0]
    )


def test_ztunnel_may_live_elsewhere() -> None:
    place = CommandContext("default", False, "ztunnel")
    assert sure("kubectl -n ztunnel rollout restart ds/ztunnel", place)
    assert (
        "ztunnel_namespace"
        in reading("kubectl -n istio-system rollout restart ds/ztunnel", place).idle[0]
    )


def test_applications_are_those_of_other_namespaces() -> None:
    found = reading("kubectl -n shop rollout restart deploy/a deploy/b sts/c").of("applications")
    assert [(each.namespace, each.names) for each in found] == [("shop", ("a", "b", "c"))]
    found = reading("kubectl delete pods --all -n shop").of("applications")
    assert [(each.namespace, each.names) for each in found] == [("shop", None)]
    assert reading("kubectl -n istio-system rollout restart deploy/istiod").actions == []


@pytest.mark.parametrize(
    "script",
    ["if true; then", "echo 'a", "for x in", "a=(1 2)", "diff <(a) <(b)", "case x in", "f() {", "$(", "((", "`", "a |", "((((((" * 50, "{ " * 200],
)  # fmt: skip
def test_what_is_not_a_script_is_refused(script: str) -> None:
    with pytest.raises(NotRead):
        run(script)


@pytest.mark.parametrize(
    "script",
    [
        "f() { f; }; f",
        "while true; do for i in $(seq 9); do :; done; done",
        "eval 'eval \"$0\"'",
        "f() { f & f; }; f",
    ],
)
def test_what_never_ends_is_not_followed_for_ever(script: str) -> None:
    with suppress(NotRead):
        run(script)
