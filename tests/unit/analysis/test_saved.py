"""Saved folders as they come back from people: written by other shells, cut, emptied, of other
years. Each is read, or refused by the name of the file; and ztunnel in whatever namespace it lives.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from meshwake.analysis.forecast_cluster import observe_ztunnels
from meshwake.cli.app import run_command
from meshwake.core.errors import BadInput, ExitCode, LabUnavailable
from meshwake.kubernetes.api import Pod, Refused
from meshwake.kubernetes.ztunnels import find_ztunnels

from tests.support.api_server import VERSION, api
from tests.support.paths import DATA
from tests.unit.analysis.test_forecast import NOW, Cluster, forecast, save
from tests.unit.mutations import TOKENS, chance, many, mutated, reshaped

Says = pytest.CaptureFixture[str]


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# --- Where ztunnel lives --------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["ztunnel", "istio-system", "mesh-a"])
def test_advice_names_the_namespace_of_the_pod(
    namespace: str, tmp_path: Path, capsys: Says
) -> None:
    """kubectl finds no DaemonSet in another: for a restart after a sleep, and after a step back."""
    place = save(tmp_path, drift_s=8 * 3_600) / "laptop"
    change(place / "pod.json", lambda pod: pod["metadata"].update(namespace=namespace))
    restart = f"kubectl -n {namespace} rollout restart daemonset/ztunnel"
    code, out, _ = forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys)
    assert code == ExitCode.SURPRISE and f"restart ztunnel after the wake: {restart}" in out
    (place / "metrics.txt").write_text('meshwake_guard_drift_seconds{process="ztunnel-x"} -90000\n')
    assert (
        f"the clock was set back: restart ztunnel: {restart}"
        in forecast(["--from", str(tmp_path)], capsys)[1]
    )
    result = json.loads(forecast(["--from", str(tmp_path), "--json"], capsys)[1])
    assert result["nodes"][0]["namespace"] == namespace


class Pods:
    """The pods that may be listed, by namespace; all of them (None) only if they may."""

    def __init__(self, may_list_all: bool, **pods: int) -> None:
        self._all, self._pods = may_list_all, pods

    def pods(self, namespace: str | None, labels: Mapping[str, str]) -> list[Pod]:
        assert labels == {"app": "ztunnel"}
        if namespace is None and not self._all:
            raise Refused("may not list pods of the cluster", 403)
        if namespace is not None and namespace.replace("-", "_") not in self._pods:
            raise Refused(f"may not list pods of {namespace}", 403)
        return [
            Pod(each.replace("_", "-"), f"ztunnel-{number}", "u", "n", ready=True)
            for each, count in self._pods.items()
            for number in range(count)
            if namespace in {None, each.replace("_", "-")}
        ]


@pytest.mark.parametrize(
    ("pods", "namespace", "found"),
    [
        (Pods(True, ztunnel=2), None, "ztunnel"),
        (Pods(True, mesh_a=1), None, "mesh-a"),
        (Pods(True, mesh_a=1, istio_system=1), "mesh-a", "mesh-a"),
        (Pods(False, istio_system=1), None, "istio-system"),
        (Pods(False, istio_system=0, ztunnel=1), None, "ztunnel"),
        (Pods(False, ztunnel=1), None, "ztunnel"),
        (Pods(False, mesh_a=1), "mesh-a", "mesh-a"),
    ],
)
def test_ztunnels_are_found_by_their_label(pods: Pods, namespace: str | None, found: str) -> None:
    """In all namespaces; for who may not list those, in the usual ones or where the user says."""
    assert {pod.namespace for pod in find_ztunnels(pods, namespace)} == {found}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pods", "namespace", "error", "message"),
    [
        (
            Pods(True, a=1, b=2),
            None,
            BadInput,
            "in 2 namespaces: a, b; say which: --namespace NAME",
        ),
        (Pods(True, a=0), None, LabUnavailable, "no ztunnel in any namespace"),
        (Pods(True, a=1, b=0), "b", LabUnavailable, "no ztunnel in b .*leave --namespace out"),
        (Pods(False, istio_system=0), None, LabUnavailable, "say where it is: --namespace NAME"),
        (Pods(False, a=1), None, Refused, "may not list pods of the cluster"),
    ],
)
def test_where_ztunnel_is_not_to_be_found(
    pods: Pods, namespace: str | None, error: type[Exception], message: str
) -> None:
    """Each says what was looked for, and what to do."""
    with pytest.raises(error, match=message):
        find_ztunnels(pods, namespace)  # type: ignore[arg-type]


def test_a_live_ztunnel_in_its_own_namespace(tmp_path: Path, capsys: Says) -> None:
    """By the whole command: the pod is found, and the forward to it fails by its name."""
    pod = {
        "metadata": {
            "name": "ztunnel-x",
            "namespace": "ztunnel",
            "uid": "u",
            "labels": {"app": "ztunnel"},
        },
        "spec": {"nodeName": "laptop", "containers": [{"name": "istio-proxy"}]},
        "status": {"conditions": []},
    }
    answers = VERSION | {"/api/v1/pods": (200, {"items": [pod]})}
    with api(answers, tmp_path) as kubeconfig:
        assert (
            run_command(["forecast", "--kubeconfig", str(kubeconfig)]) == ExitCode.LAB_UNAVAILABLE
        )
    assert "config_dump of ztunnel/ztunnel-x" in capsys.readouterr().err


@pytest.mark.parametrize("dump", [b"", b"<html>", b"[1]", b'{"certificates": 1}', b"\xff"])
def test_a_live_dump_that_is_none_is_named(dump: bytes, tmp_path: Path) -> None:
    """A proxy between may answer in ztunnel's place."""

    class Odd(Cluster):
        def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
            return dump

    with pytest.raises(LabUnavailable, match="config_dump of istio-system/ztunnel-x"):
        list(observe_ztunnels(Odd(save(tmp_path)), NOW))  # type: ignore[arg-type]


# --- Damaged folders ------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_what_another_shell_wrote_is_read(encoding: str, tmp_path: Path, capsys: Says) -> None:
    """PowerShell's `>` makes UTF-16 of all: the answer is the same."""
    place = save(tmp_path / "a", drift_s=8 * 3_600) / "laptop"
    shutil.copytree(DATA / "saved" / "laptop", tmp_path / "b" / "laptop")
    (place / "metrics.txt").write_text("# nothing of this process\nup 1\n")
    for folder in "ab":
        before = forecast(["--from", str(tmp_path / folder), "--sleep", "9h"], capsys)
        for path in (tmp_path / folder / "laptop").iterdir():
            path.write_bytes(
                path.read_text(encoding="utf-8").replace("\n", "\r\n").encode(encoding)
            )
        assert forecast(["--from", str(tmp_path / folder), "--sleep", "9h"], capsys) == before
        assert before[0] == ExitCode.SURPRISE


@pytest.mark.parametrize(
    "name", ["config_dump.json", "pod.json", "clocks.txt", "journal.json", "metrics.txt"]
)
@pytest.mark.parametrize(
    "kind", ["empty", "spaces", "directory", "binary", "half of UTF-16", "cut"]
)
def test_a_damaged_file_is_named(name: str, kind: str, tmp_path: Path, capsys: Says) -> None:
    """Exit code 3 and its name: a command that failed leaves such a file, and its absence must not
    be taken for no."""
    path = save(tmp_path) / "laptop" / name
    path.unlink(missing_ok=True)
    if kind == "directory":
        path.mkdir()
    else:
        damages = {"empty": b"", "spaces": b" \n", "binary": b"\x80\x81\xfe", "cut": b'{"a": '}
        path.write_bytes(damages.get(kind, b"\xff\xfea"))
    code, out, err = forecast(["--from", str(tmp_path)], capsys)
    assert code == ExitCode.BAD_INPUT and name in err and out == "", err


def test_a_list_with_the_pod_is_read(tmp_path: Path, capsys: Says) -> None:
    """Of all ztunnels, by their label: the only one, or that of the node which the folder is named
    after."""
    place = save(tmp_path, drift_s=3_600) / "laptop"
    before = forecast(["--from", str(tmp_path)], capsys)
    pod = json.loads((place / "pod.json").read_text())
    other = {**pod, "spec": {"nodeName": "another"}}
    for pods in ([pod], [other, pod]):
        (place / "pod.json").write_text(json.dumps({"kind": "List", "items": pods}))
        assert forecast(["--from", str(tmp_path)], capsys) == before
    for pods in ([], [other, other], [pod, pod], [1]):
        (place / "pod.json").write_text(json.dumps({"kind": "List", "items": pods}))
        code, _, err = forecast(["--from", str(tmp_path)], capsys)
        assert code == ExitCode.BAD_INPUT and "pod.json: a list of " in err


def test_the_end_of_time(tmp_path: Path, capsys: Says) -> None:
    """Certificates for ever, nodes whose clock is at its end, sleeps of a century: written down, no
    crash."""
    place = save(tmp_path) / "laptop"
    leaf = {
        "serialNumber": "1",
        "validFrom": "9999-12-30T23:59:59Z",
        "expirationTime": "9999-12-31T23:59:59Z",
    }
    change(
        place / "config_dump.json", lambda dump: dump["certificates"][0].update(certChain=[leaf])
    )
    (place / "metrics.txt").write_text('meshwake_guard_drift_seconds{process="ztunnel-x"} 60000\n')
    code, out, _ = forecast(["--from", str(tmp_path)], capsys)
    assert code == ExitCode.SURPRISE and "from after the year 9999 on" in out
    result = json.loads(forecast(["--from", str(tmp_path), "--json"], capsys)[1])
    assert result["nodes"][0]["identities"][0]["renews_at"] == "9999-12-31T23:59:59.999Z"
    assert forecast(["--from", str(tmp_path), "--sleep", "36500d"], capsys)[0] == ExitCode.SURPRISE
    (place / "clocks.txt").write_text("wall 253402300799")
    assert (
        "9999-12-31 23:59:59 UTC"
        in forecast(["--from", str(tmp_path), "--sleep", "36500d"], capsys)[1]
    )
    (place / "metrics.txt").write_text(
        'meshwake_guard_drift_seconds{process="ztunnel-x"} -253402300799\n'
    )
    (place / "clocks.txt").write_text("wall 0")
    assert forecast(["--from", str(tmp_path), "--json"], capsys)[0] in {0, 1}


@pytest.mark.parametrize("sleep", ["36501d", "9" * 40 + "h", "9" * 5_000 + "h", "1e9h", "", "h"])
def test_impossible_sleeps(sleep: str, tmp_path: Path, capsys: Says) -> None:
    """Refused by the option's name."""
    code, _, err = forecast(["--from", str(save(tmp_path)), "--sleep", sleep], capsys)
    assert code == ExitCode.BAD_INPUT and "--sleep" in err


@pytest.mark.parametrize("folder", ["x" * 5_000, "none", "pod.json"])
def test_a_folder_that_is_none(folder: str, tmp_path: Path, capsys: Says) -> None:
    """Also where the kernel itself refuses the name."""
    place = save(tmp_path) / "laptop"
    code, _, err = forecast(["--from", str(place / folder)], capsys)
    assert code == ExitCode.BAD_INPUT and "is not a directory" in err


def test_names_that_cannot_be_written(tmp_path: Path, capsys: Says) -> None:
    """Half of a character in JSON is not a reason to fail."""
    place = save(tmp_path) / "laptop"
    change(place / "pod.json", lambda pod: pod["spec"].update(nodeName="\ud800"))
    assert run_command(["forecast", "--from", str(tmp_path)]) == ExitCode.AS_EXPECTED
    assert capsys.readouterr().out.startswith("\\ud800 (ztunnel-x)")


def forms_of_journals() -> dict[str, bytes]:
    lines = (DATA / "saved" / "laptop" / "journal.json").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    other = [{**entry, "_BOOT_ID": "f" * 32, "_HOSTNAME": "another"} for entry in entries]
    own = [{**entry, "_HOSTNAME": "laptop"} for entry in entries]
    export = "\n\n".join(
        "\n".join(f"{name}={value}" for name, value in entry.items()) for entry in entries
    )
    return {
        "newest first": "\n".join(reversed(lines)).encode(),
        "json-pretty": "\n".join(json.dumps(entry, indent="\t") for entry in entries).encode(),
        "an array": json.dumps(entries).encode(),
        "export": f"{export}\n\n".encode(),
        "json-sse": "".join(f"data: {line}\n\n" for line in lines).encode(),
        "of two machines": "\n".join(json.dumps(entry) for entry in [*other, *own]).encode(),
    }


@pytest.mark.parametrize("form", forms_of_journals())
def test_a_journal_in_any_form_is_read_the_same(form: str, tmp_path: Path, capsys: Says) -> None:
    """The readers are those of import-sleep."""
    shutil.copytree(DATA / "saved" / "laptop", tmp_path / "laptop")
    before = forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys)
    (tmp_path / "laptop" / "journal.json").write_bytes(forms_of_journals()[form])
    assert forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys) == before
    assert before[0] == ExitCode.SURPRISE and "known from: journal" in before[1]


def test_a_journal_of_other_machines_is_not_this_nodes(tmp_path: Path, capsys: Says) -> None:
    shutil.copytree(DATA / "saved" / "laptop", tmp_path / "laptop")
    journal = tmp_path / "laptop" / "journal.json"
    journal.write_bytes(forms_of_journals()["of two machines"].replace(b'"laptop"', b'"desk"'))
    code, _, err = forecast(["--from", str(tmp_path)], capsys)
    assert code == ExitCode.BAD_INPUT and "of another, desk, and the node is called laptop" in err


@pytest.mark.parametrize("name", ["config_dump.json", "pod.json"])
def test_what_kubectl_and_istioctl_print_as_yaml_is_read(
    name: str, tmp_path: Path, capsys: Says
) -> None:
    """And what curl -i prints before its answer is left out."""
    place = save(tmp_path, drift_s=8 * 3_600) / "laptop"
    before = forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys)
    content = (place / name).read_text()
    for text in (
        yaml.safe_dump(json.loads(content)),
        f"HTTP/1.1 200 OK\r\ncontent-type: text\r\n\r\n{content}",
    ):
        (place / name).write_bytes(text.encode())
        assert forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys) == before
    (place / name).write_text("NAME            READY   STATUS\nztunnel-7x2kp   1/1     Running\n")
    code, _, err = forecast(["--from", str(tmp_path)], capsys)
    assert code == ExitCode.BAD_INPUT and f"{name}: expected" in err and "-o json" in err


@pytest.mark.parametrize("ends", [",25", ".%N", ".N", ".", ""])
def test_clocks_of_other_locales_and_of_a_date_without_nanoseconds(
    ends: str, tmp_path: Path, capsys: Says
) -> None:
    place = save(tmp_path) / "laptop"
    (place / "clocks.txt").write_text(f"wall 1795640592{ends}\r\nuptime\t120000,5\t3\r\n")
    assert "at 2026-11-25 21:03:12 UTC" in forecast(["--from", str(tmp_path)], capsys)[1]


def test_certificates_with_an_unknown_delay_are_there(tmp_path: Path, capsys: Says) -> None:
    """A drift that is not known does not hide the workloads of its node."""
    place = save(tmp_path) / "laptop"
    (place / "clocks.txt").write_text("wall 1795640592\n")
    code, out, _ = forecast(["--from", str(tmp_path)], capsys)
    assert (
        code == ExitCode.UNKNOWN
        and "how late its renewals are is unknown" in out
        and "no workload" not in out
    )
    change(place / "config_dump.json", lambda dump: dump.update(certificates=[]))
    assert "no workload of the mesh runs here" in forecast(["--from", str(tmp_path)], capsys)[1]


@pytest.mark.parametrize(
    ("ended_ago_s", "code", "says"),
    [
        (6 * 3_600, ExitCode.SURPRISE, "OUTAGE since then"),
        (-3_600, ExitCode.UNKNOWN, "whether in time is unknown"),
    ],
)
def test_a_renewal_that_should_have_been_and_was_not(
    ended_ago_s: int, code: ExitCode, says: str, tmp_path: Path, capsys: Says
) -> None:
    """The certificate is still held hours after its renewal was due: with the clock drift known,
    something else is wrong."""
    place = save(tmp_path, drift_s=0) / "laptop"
    now_s = 1_795_640_592
    (place / "clocks.txt").write_text(f"wall {now_s}\n")
    (place / "metrics.txt").write_text('meshwake_guard_drift_seconds{process="ztunnel-x"} 0\n')
    begins, ends = (
        f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
        for at_s in (now_s - ended_ago_s - 86_400, now_s - ended_ago_s)
    )
    leaf = {"serialNumber": "1", "validFrom": begins, "expirationTime": ends}
    change(
        place / "config_dump.json",
        lambda dump: [each.update(certChain=[leaf]) for each in dump["certificates"]],
    )
    found, out, err = forecast(["--from", str(tmp_path)], capsys)
    assert found == code and "should have been renewed" in out and says in out, err
    assert "look whether istiod answers" in out
    result = json.loads(forecast(["--from", str(tmp_path), "--json"], capsys)[1])["nodes"][0][
        "identities"
    ][0]
    assert (
        result["overdue_since"]
        and result["outage_to"] is None
        and (result["outage_from"] is None) == (ended_ago_s < 0)
    )
    # An outage is one whatever the options; and what was due a minute ago may be on its way.
    assert forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys)[0] == code
    (place / "metrics.txt").write_text(
        f'meshwake_guard_drift_seconds{{process="ztunnel-x"}} {43_200 + ended_ago_s - 60}\n'
    )
    assert "should have been" not in forecast(["--from", str(tmp_path)], capsys)[1]


# --- Anything at all ------------------------------------------------------------------------------

MORE = [
    *(
        b"wall ",
        b"uptime ",
        b"monotonic ",
        b"elapsed ",
        b"stat ",
        b"+Inf",
        b"Infinity",
        b'{process="ztunnel-7x2kp"} 1e30',
    ),
    *(
        b'"startedAt":',
        b'"certChain":',
        b'"state":',
        b"\\ud800",
        b"true",
        b"[[[[",
        b"9" * 5_000,
        b'"items":[',
        b"spiffe://",
    ),
]
CLOCKS = (
    b"wall 1795642800.5\nuptime 120000.11 9.9\nmonotonic 91140.01\nstat 1 (ztunnel) S "
    + b"0 " * 18
    + b"100 0\n"
)
METRICS = (
    b"# HELP meshwake_guard_drift_seconds By how much\n# TYPE meshwake_guard_drift_seconds gauge\n"
    b'meshwake_guard_drift_seconds{node="laptop",process="istio-system/ztunnel-7x2kp"} 28860.25\n'
)
OTHERS = sorted((DATA / "config_dumps").iterdir())
FILES: dict[str, list[bytes]] = {
    "config_dump.json": [
        (DATA / "saved" / "laptop" / "config_dump.json").read_bytes(),
        *(path.read_bytes() for path in OTHERS),
    ],
    "pod.json": [(DATA / "saved" / "laptop" / "pod.json").read_bytes()],
    "journal.json": [(DATA / "saved" / "laptop" / "journal.json").read_bytes()],
    "clocks.txt": [CLOCKS],
    "metrics.txt": [METRICS],
}


def judged(folder: Path, name: str, capsys: Says, *more: str) -> None:
    """An answer, or a sentence that names the file or its folder; whatever else comes out is a
    fault of ours."""
    code, _, err = forecast(["--from", str(folder), *more], capsys)
    assert code in {0, 1, 2, 3} and "Traceback" not in err
    if code == ExitCode.BAD_INPUT:
        assert str(folder) in err, (name, err)


@pytest.mark.parametrize("name", FILES)
def test_a_mutated_file_is_judged_or_named(name: str, tmp_path: Path, capsys: Says) -> None:
    """Real samples, changed; the other files are whole."""
    random = chance(f"saved {name}")
    for number in range(many(25)):
        place = tmp_path / "laptop"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(DATA / "saved" / "laptop", place)
        if number % 2:
            (place / "clocks.txt").write_bytes(CLOCKS)
        (place / name).write_bytes(
            mutated(random.choice(FILES[name]), random, OTHERS, TOKENS + MORE)
        )
        judged(tmp_path, name, capsys, *random.choice([(), ("--json",), ("--sleep", "9h")]))


def test_half_of_a_character_pair_in_a_name(tmp_path: Path, capsys: Says) -> None:
    """JSON can spell what no encoding has; the answer spells it the same way."""
    place = tmp_path / "laptop"
    shutil.copytree(DATA / "saved" / "laptop", place)
    dump = (place / "config_dump.json").read_text()
    assert "/sa/" in dump
    (place / "config_dump.json").write_text(dump.replace("/sa/", "/sa/\\ud800"))
    code, out, _ = forecast(["--from", str(tmp_path), "--json"], capsys)
    assert code in {0, 1, 2} and "/\\ud800" in out


@pytest.mark.parametrize("name", ["config_dump.json", "pod.json", "journal.json"])
def test_a_file_of_another_shape_is_judged_or_named(
    name: str, tmp_path: Path, capsys: Says
) -> None:
    """Well formed, with other values than it should have."""
    random = chance(f"shape of {name}")
    shutil.copytree(DATA / "saved" / "laptop", tmp_path / "laptop")
    for _ in range(many(40)):
        sample = random.choice(FILES[name]).decode()
        if name == "journal.json":
            entries = reshaped([json.loads(line) for line in sample.splitlines()], random)
            text = (
                "\n".join(map(json.dumps, entries))
                if isinstance(entries, list)
                else json.dumps(entries)
            )
        else:
            text = json.dumps(reshaped(json.loads(sample), random))
        (tmp_path / "laptop" / name).write_text(text)
        judged(tmp_path, name, capsys, *random.choice([(), ("--json",), ("--sleep", "9h")]))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.dates().map(str),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=6,
)
TIMES = st.datetimes().map(lambda moment: moment.isoformat() + "Z") | VALUES
PODS_OF_ALL = st.fixed_dictionaries(
    {},
    optional={
        "metadata": VALUES
        | st.fixed_dictionaries({}, optional={"name": VALUES, "namespace": VALUES}),
        "spec": VALUES | st.fixed_dictionaries({"nodeName": VALUES}),
        "items": VALUES,
        "status": VALUES
        | TIMES.map(
            lambda at: {
                "containerStatuses": [
                    {"name": "istio-proxy", "state": {"running": {"startedAt": at}}}
                ]
            }
        ),
    },
)
DUMPS = (
    st.lists(
        st.fixed_dictionaries(
            {"identity": st.just("spiffe://c/ns/a/sa/b") | VALUES},
            optional={
                "state": VALUES,
                "certChain": VALUES
                | st.lists(
                    st.fixed_dictionaries(
                        {"serialNumber": VALUES, "validFrom": TIMES, "expirationTime": TIMES}
                    ),
                    max_size=2,
                ),
            },
        ),
        max_size=2,
    )
    | VALUES
)
NUMBERS = (
    st.integers().map(str)
    | st.floats().map(str)
    | st.text(max_size=6)
    | st.integers(0, 4 * 10**9).map(str)
)
LINES = st.dictionaries(
    st.sampled_from(["wall", "uptime", "monotonic", "elapsed", "stat"]), NUMBERS
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "__REALTIME_TIMESTAMP": NUMBERS | VALUES | st.just("1795420800000000"),
            "__MONOTONIC_TIMESTAMP": NUMBERS | VALUES,
            "_BOOT_ID": st.sampled_from("ab"),
        }
    ),
    max_size=3,
)


@settings(max_examples=many(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    dump=DUMPS,
    pod=PODS_OF_ALL | VALUES,
    lines=LINES,
    entries=ENTRIES,
    drift=NUMBERS,
    sleep_s=st.integers(0, 3_153_600_000),
)
@example(
    dump={"certificates": []},
    pod={
        "status": {
            "containerStatuses": [{"state": {"running": {"startedAt": "2026-11-23T08:00:00Z"}}}]
        }
    },
    lines={"wall": "1"},
    entries=[{"__REALTIME_TIMESTAMP": float("inf"), "__MONOTONIC_TIMESTAMP": 1, "_BOOT_ID": "a"}],
    drift="1",
    sleep_s=0,
)
@pytest.mark.slow(reason="hundreds of drawn files")
def test_any_content_is_judged_or_named(
    dump: Any,
    pod: Any,
    lines: dict[str, str],
    entries: list[Any],
    drift: str,
    sleep_s: int,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: Says,
) -> None:
    """Values of every type in every place."""
    folder = tmp_path_factory.getbasetemp() / "any-saved"
    place = folder / "laptop"
    place.mkdir(parents=True, exist_ok=True)
    (place / "config_dump.json").write_text(json.dumps(dump))
    (place / "pod.json").write_text(json.dumps(pod))
    (place / "clocks.txt").write_text(
        "\n".join(" ".join(line) for line in lines.items()), encoding="utf-8"
    )
    (place / "journal.json").write_text("\n".join(map(json.dumps, entries)))
    (place / "metrics.txt").write_text(
        f'meshwake_guard_drift_seconds{{process="ztunnel"}} {drift}\n', encoding="utf-8"
    )
    for left_out in ("journal.json", "metrics.txt", None):
        judged(folder, "any", capsys, "--sleep", f"{sleep_s}s")
        if left_out is not None:
            (place / left_out).unlink()
