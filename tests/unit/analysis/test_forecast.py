from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.analysis.forecast import (
    HeldCertificate,
    ObservedClocks,
    ObservedNode,
    ProcessStart,
    drift_of,
    exit_code_of,
    forecast_node,
)
from meshwake.analysis.forecast_cluster import LOOK, observe_ztunnels
from meshwake.analysis.forecast_files import (
    clocks_in,
    drift_in_journal,
    drift_in_metrics,
    started_in,
    starttime_ns,
)
from meshwake.cli.app import run_command
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, ExitCode, LabUnavailable
from meshwake.kubernetes.api import Executed, Pod, Unreachable

from tests.support.paths import DOCS

H = 3_600 * NS_PER_S
NOW = 1_800_000_000 * NS_PER_S
DAY = (NOW - 120 * NS_PER_S, NOW + 24 * H)  # a certificate issued at NOW


def node(drift_ns: int, at_ns: int = 0, validity: tuple[int, int] = DAY) -> ObservedNode:
    held = HeldCertificate("default/client", "Available", *validity)
    return ObservedNode(
        "laptop",
        "ztunnel-1",
        ObservedClocks(ClockReading(NOW + at_ns, 0, 0), measured_drift_ns=drift_ns),
        (held,),
    )


# --- Clock drift, from what is shown --------------------------------------------------------------


def shown(suspended_s: int, paused_s: int, slept_before_s: int = 0, **about: Any) -> ObservedClocks:
    """A process that started an hour after boot and has run three hours, with sleep of both kinds
    since."""
    started = ProcessStart(NOW, NOW + NS_PER_S, H + slept_before_s * NS_PER_S)
    monotonic_ns = 4 * H
    boottime_ns = monotonic_ns + (suspended_s + slept_before_s) * NS_PER_S
    now = ClockReading(
        NOW + 3 * H + (suspended_s + paused_s) * NS_PER_S + NS_PER_S // 2, monotonic_ns, boottime_ns
    )
    return ObservedClocks(now=now, started=started, **about)


def test_a_pause_shows_in_the_start_times() -> None:
    """Wall went on and boottime did not: exact to the second that Kubernetes cuts off."""
    drift = drift_of(shown(0, 30_000))
    assert drift is not None and drift.is_exact and drift.known_from == "start"
    assert abs(drift.best_ns - 30_000 * NS_PER_S) <= NS_PER_S // 2


def test_a_suspend_shows_as_a_bound() -> None:
    """Boottime counts it as well: it is at most what the node slept since boot, at least what
    cannot have been before."""
    drift = drift_of(shown(9_000, 0, slept_before_s=600))
    assert drift is not None and drift.most_ns is not None and not drift.is_exact
    assert drift.least_ns <= 9_000 * NS_PER_S <= drift.most_ns
    assert drift.most_ns - drift.least_ns <= 9_601 * NS_PER_S
    assert drift.best_ns == drift.most_ns


def test_without_a_monotonic_clock_no_upper_bound_is_given() -> None:
    """And that is reported, not hidden."""
    drift = drift_of(shown(9_000, 100, knows_monotonic=False))
    assert drift is not None and drift.most_ns is None
    unsure = ObservedNode("laptop", "z", shown(9_000, 100, knows_monotonic=False), node(0).held)
    assert forecast_node(unsure).prospect == "unknown"


def test_the_better_way_is_taken() -> None:
    """Measured before journal, before elapsed, before the start times; nothing where nothing is
    known."""
    every: dict[str, Any] = {
        "measured_drift_ns": 1,
        "apart_since_start_ns": (2, 2),
        "elapsed_monotonic_ns": 3 * H,
    }
    for way in ("measured", "journal", "elapsed", "start"):
        drift = drift_of(shown(9_000, 100, **every))
        assert drift is not None and drift.known_from == way
        if every:
            del every[next(iter(every))]
    assert drift_of(ObservedClocks(ClockReading(NOW, 0, 0))) is None


def test_elapsed_knows_both_kinds_of_sleep() -> None:
    """Three hours by the monotonic clock, whatever the others say."""
    drift = drift_of(shown(9_000, 100, elapsed_monotonic_ns=3 * H))
    assert drift is not None and abs(drift.best_ns - 9_100 * NS_PER_S) <= NS_PER_S // 2


def test_a_journal_and_proc_agree_on_this_very_kernel(tmp_path: Path) -> None:
    """What a real kernel shows of a process that has just started: its clock drift is nothing, by
    /proc and to the second."""
    proc = Path("/proc/self/stat")
    if not proc.exists():
        pytest.skip("no /proc here")
    started_boottime_ns = starttime_ns(proc.read_text())
    lived_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_boottime_ns
    assert 0 <= lived_ns < 3_600 * NS_PER_S
    wall_ns = time.time_ns() - lived_ns
    now = ClockReading(
        time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    )
    drift = drift_of(
        ObservedClocks(
            now,
            started=ProcessStart(
                wall_ns - NS_PER_S // 2, wall_ns + NS_PER_S // 2, started_boottime_ns
            ),
        )
    )
    assert drift is not None and abs(drift.least_ns) < NS_PER_S


def test_taskstats_knows_the_monotonic_age_of_a_process() -> None:
    """The command of docs/forecast.md, on this very kernel: a process's age by CLOCK_MONOTONIC, and
    so its clock drift."""
    page = (DOCS / "forecast.md").read_text(encoding="utf-8")
    code = page.split("python3 -c 'import sys; from pyroute2")[1].split("' $(pgrep")[0]
    command = [sys.executable, "-c", f"import sys; from pyroute2{code}"]
    begun_wall_ns, begun_ns = time.time_ns(), time.monotonic_ns()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            completed = subprocess.run(
                [*command, str(process.pid)], capture_output=True, text=True, check=False
            )
        finally:
            process.kill()
    if completed.returncode:
        pytest.skip(f"no taskstats here: {completed.stderr.strip().splitlines()[-1]}")
    elapsed_ns = clocks_in(f"wall 0\n{completed.stdout}").elapsed_monotonic_ns
    lived_ns = time.monotonic_ns() - begun_ns
    assert elapsed_ns is not None and 0 < elapsed_ns <= lived_ns
    started = ProcessStart(begun_wall_ns, begun_wall_ns + lived_ns - elapsed_ns)
    now = ClockReading(begun_wall_ns + lived_ns, 0, 0)
    drift = drift_of(ObservedClocks(now, started=started, elapsed_monotonic_ns=elapsed_ns))
    assert drift is not None and drift.least_ns <= NS_PER_S and drift.known_from == "elapsed"


# --- The future -----------------------------------------------------------------------------------


def test_a_night_that_is_too_much() -> None:
    """J of 8 h and nine more: renewed 16 h 59 m too late, after the expiry by 4 h 59 m."""
    seen = forecast_node(node(8 * H), sleep_ns=9 * H)
    only = seen.identities[0]
    assert seen.prospect == "outage" and exit_code_of([seen]) is ExitCode.SURPRISE
    assert only.outage_from_wall_ns == DAY[1] + NS_PER_S
    assert only.renews_wall_ns == only.outage_to_wall_ns == NOW + 28 * H + 59 * 60 * NS_PER_S
    assert only.room_ns == -(4 * H + 59 * 60 * NS_PER_S)


def test_one_night_does_no_harm() -> None:
    """J of nothing and nine hours: renewed within its life; three hours and a minute of room are
    left."""
    seen = forecast_node(node(0), sleep_ns=9 * H)
    assert seen.prospect == "none" and exit_code_of([seen]) is ExitCode.AS_EXPECTED
    assert seen.room_ns == 3 * H + 60 * NS_PER_S


def test_an_outage_begins_at_the_wake_at_the_earliest() -> None:
    """What runs out in the sleep is not missed until then."""
    seen = forecast_node(node(4 * H, at_ns=15 * H), sleep_ns=12 * H)
    assert seen.identities[0].outage_from_wall_ns == NOW + 27 * H


def test_an_outage_under_way() -> None:
    """Expired and not renewed: from now on, until it is."""
    seen = forecast_node(node(20 * H, at_ns=25 * H))
    assert seen.identities[0].outage_from_wall_ns == NOW + 25 * H
    assert seen.prospect == "outage"


def test_a_clock_set_back_is_seen() -> None:
    """From half a life on, certificates are renewed without end."""
    seen = forecast_node(node(-13 * H))
    assert seen.identities[0].renews_without_end


def test_nothing_held_is_unknown() -> None:
    """An identity without a certificate has no future that could be forecast."""
    empty = ObservedNode(
        "laptop",
        "z",
        node(0).shown,
        (HeldCertificate("default/client", "Unavailable: x", None, None),),
    )
    assert exit_code_of([forecast_node(empty)]) is ExitCode.UNKNOWN
    assert exit_code_of([]) is ExitCode.UNKNOWN


# --- Files ----------------------------------------------------------------------------------------


def save(folder: Path, drift_s: int = 0, now_s: int = 3_600) -> Path:
    """A node whose ztunnel started at NOW, saved later; all its clock drift is a pause."""
    place = folder / "laptop"
    place.mkdir(parents=True)
    starts = "2027-01-15T08:00:00Z"
    assert int(datetime.fromisoformat(starts).timestamp()) * NS_PER_S == NOW
    leaf = {
        "serialNumber": "1",
        "validFrom": "2027-01-15T07:58:00Z",
        "expirationTime": "2027-01-16T08:00:00Z",
    }
    certificate = {
        "identity": "spiffe://cluster.local/ns/default/sa/client",
        "state": "Available",
        "certChain": [leaf],
    }
    (place / "config_dump.json").write_text(json.dumps({"certificates": [certificate]}))
    status = {
        "containerStatuses": [{"name": "istio-proxy", "state": {"running": {"startedAt": starts}}}]
    }
    pod = {"metadata": {"name": "ztunnel-x"}, "spec": {"nodeName": "laptop"}, "status": status}
    (place / "pod.json").write_text(json.dumps(pod))
    (place / "clocks.txt").write_text(
        f"wall {NOW // NS_PER_S + now_s + drift_s}.5\nuptime {1000 + now_s}.00 9.9\n"
        f"monotonic {1000 + now_s}.01\nstat 1 (ztun (n) el) S {'0 ' * 18}100000 0\n"
    )
    return folder


def forecast(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = run_command(["forecast", *arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_files_are_read_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Eight hours late, nine hours of sleep ahead: the JSON of the issue, and the exit code for
    scripts."""
    save(tmp_path, drift_s=8 * 3_600)
    code, out, _ = forecast(["--from", str(tmp_path), "--sleep", "9h", "--json"], capsys)
    result = json.loads(out)
    assert code == result["exit_code"] == 1
    (only,) = result["nodes"]
    assert (
        only["node"] == "laptop"
        and only["process"] == "ztunnel-x"
        and only["drift_s"] == pytest.approx(28_800, abs=0.6)
    )
    (identity,) = only["identities"]
    assert (
        identity["identity"] == "default/client"
        and identity["not_after"] == "2027-01-16T08:00:00.000Z"
    )
    assert identity["outage_from"] == "2027-01-16T08:00:01.000Z"
    assert identity["renews_at"] == identity["outage_to"] and identity["renews_at"].startswith(
        "2027-01-16T12:59"
    )


def test_words_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What will be, and what to do before the lid is closed."""
    save(tmp_path, drift_s=8 * 3_600)
    code, out, _ = forecast(["--from", str(tmp_path)], capsys)
    assert code == 0 and "default/client: expires" in out and "no outage" in out
    assert "nothing to do; from 4h1m more of sleep on" in out
    code, out, _ = forecast(["--from", str(tmp_path), "--sleep", "9h"], capsys)
    assert code == 1 and "OUTAGE of 4h59m from 2027-01-16 08:00:01 UTC on" in out
    assert (
        "restart ztunnel after the wake: kubectl -n istio-system rollout restart daemonset/ztunnel"
        in out
    )


def test_a_guard_has_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its number is believed before any that is reckoned."""
    save(tmp_path)
    page = 'meshwake_guard_drift_seconds{node="laptop",process="istio-system/ztunnel-x"} 50000.25\n'
    (tmp_path / "laptop" / "metrics.txt").write_text(page)
    code, out, _ = forecast(["--from", str(tmp_path / "laptop"), "--json"], capsys)
    (only,) = json.loads(out)["nodes"]
    assert code == 1 and (only["drift_s"], only["drift_known_from"]) == (50000.25, "measured")
    assert drift_in_metrics(page, "another") is None


TOO_YOUNG = (
    '{"__REALTIME_TIMESTAMP":"4000000000000000","__MONOTONIC_TIMESTAMP":"5","_BOOT_ID":"a"}\n'
)
BREAK: dict[str, tuple[str, str, str]] = {
    "no json": ("config_dump.json", "x", "config_dump.json"),
    "not a dump": ("config_dump.json", "[1]", "config_dump.json"),
    "pods in a list": ("pod.json", '{"items": [{}, {}]}', "save one: kubectl get pod NAME -o json"),
    "no container": ("pod.json", "{}", "no running container"),
    "no wall": ("clocks.txt", "uptime 1 2", "echo wall"),
    "no number": ("clocks.txt", "wall soon", "expected seconds"),
    "no stat": ("clocks.txt", "wall 1\nstat x", "/proc/PID/stat"),
    "journal too young": ("journal.json", TOO_YOUNG, "earlier --since"),
    "no journal": ("journal.json", "{}", "journalctl -o json"),
    "endless drift": (
        "metrics.txt",
        'meshwake_guard_drift_seconds{process="x/ztunnel-x"} +Inf',
        "expected a length",
    ),
    "endless wall": ("clocks.txt", "wall 1e400", "expected seconds"),
    "spec is null": ("pod.json", '{"spec": null, "status": null}', "no running container"),
    "no metrics": ("metrics.txt", "{", "metrics.txt"),
}


@pytest.mark.parametrize("name", BREAK)
def test_what_is_wrong_with_a_file_is_reported(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 3, the file, what was expected."""
    file, text, message = BREAK[name]
    (save(tmp_path) / "laptop" / file).write_text(text)
    code, out, err = forecast(["--from", str(tmp_path)], capsys)
    assert code == ExitCode.BAD_INPUT and message in err and file in err and out == ""


def test_nothing_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder, none at all, no clocks, both ways at once."""
    assert "no config_dump.json" in forecast(["--from", str(tmp_path)], capsys)[2]
    assert "is not a directory" in forecast(["--from", str(tmp_path / "x")], capsys)[2]
    (save(tmp_path) / "laptop" / "clocks.txt").unlink()
    assert "neither clocks.txt" in forecast(["--from", str(tmp_path)], capsys)[2]
    assert "give one of the two" in forecast(["--from", "x", "--kubeconfig", "y"], capsys)[2]
    assert "not a kubeconfig" in forecast(["--kubeconfig", str(tmp_path / "none")], capsys)[2]
    assert forecast(["--from", str(tmp_path), "--sleep", "long"], capsys)[0] == ExitCode.BAD_INPUT
    assert forecast(["--from", str(tmp_path), "--sleep", "-9h"], capsys)[0] == ExitCode.BAD_INPUT


def test_a_boot_since_the_start_is_found(tmp_path: Path) -> None:
    """The journal of another boot says nothing of this process."""
    entry = '{{"__REALTIME_TIMESTAMP":"{}","__MONOTONIC_TIMESTAMP":"{}","_BOOT_ID":"{}"}}\n'
    path = tmp_path / "journal.json"
    path.write_text(
        entry.format(NOW // 1000, 5, "one") + entry.format(NOW // 1000 + 10_000_000, 1, "two")
    )
    with pytest.raises(BadInput, match="has booted since"):
        drift_in_journal(path, (NOW, NOW + NS_PER_S))


@pytest.mark.parametrize(
    ("gaps_s", "least_s", "most_s"),
    [
        # (seconds of wall, of which asleep) before the start, from it to the next entry, and after
        # that.
        (((60, 0), (60, 0), (60, 0)), 0, 0),
        (((60, 0), (60, 0), (9_000, 8_000)), 8_000, 8_000),
        (((32_760, 0), (240, 0), (60, 0)), 0, 0),
        # Asleep before the start: of nine hours at most the four minutes until the next entry lie
        # after it.
        (((32_760, 32_400), (240, 0), (60, 0)), 0, 241),
        # Asleep after it: nothing but the minute before can lie before.
        (((60, 0), (32_760, 32_400), (60, 0)), 32_400 - 61, 32_400),
    ],
)
def test_a_journal_shows_as_much_as_it_can(
    gaps_s: tuple[tuple[int, int], ...], least_s: int, most_s: int, tmp_path: Path
) -> None:
    """Entries far from ztunnel's start bound how much of a sleep lies after it; close ones are
    exact."""
    wall_s, monotonic_s = NOW // NS_PER_S - gaps_s[0][0], 1_000
    moments = [(wall_s, monotonic_s)]
    for wall, asleep in ((gaps_s[0][0] + gaps_s[1][0], gaps_s[0][1] + gaps_s[1][1]), gaps_s[2]):
        moments.append((moments[-1][0] + wall, moments[-1][1] + wall - asleep))
    path = tmp_path / "journal.json"
    path.write_text("".join(entry_of(*moment) for moment in moments))
    found = drift_in_journal(path, (NOW, NOW + NS_PER_S))
    assert found.least_ns == pytest.approx(least_s * NS_PER_S, abs=2 * NS_PER_S)
    assert found.most_ns == pytest.approx(most_s * NS_PER_S, abs=2 * NS_PER_S)


def entry_of(wall_s: int, monotonic_s: int, boot: str = "one") -> str:
    return (
        f'{{"__REALTIME_TIMESTAMP":"{wall_s}000000","__MONOTONIC_TIMESTAMP":"{monotonic_s}000000",'
        f'"_BOOT_ID":"{boot}"}}\n'
    )


@given(
    slept_s=st.lists(st.integers(0, 30_000), min_size=2, max_size=8),
    awake_s=st.lists(st.integers(1, 9_000), min_size=8, max_size=8),
    start_at=st.integers(0, 100),
)
def test_the_true_drift_lies_between_the_bounds(
    slept_s: list[int], awake_s: list[int], start_at: int
) -> None:
    """Whatever slept between two entries, and wherever in a gap ztunnel started: before the sleep
    or after it."""
    wall_s, monotonic_s, apart_at_start = 1_000_000_000, 50, None
    begins_in, entries = start_at % (len(slept_s) - 1), [entry_of(1_000_000_000, 50)]
    started_s = 0
    for number, (asleep, awake) in enumerate(zip(slept_s, awake_s, strict=False)):
        if (
            number == begins_in
        ):  # after the sleep of this gap, some of its awake time before the next entry
            started_s, apart_at_start = wall_s + asleep + awake // 2, wall_s + asleep - monotonic_s
        wall_s, monotonic_s = wall_s + asleep + awake, monotonic_s + awake
        entries.append(entry_of(wall_s, monotonic_s))
    assert apart_at_start is not None
    truth_ns = (wall_s - monotonic_s - apart_at_start) * NS_PER_S
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.json")
        path.write_text("".join(entries))
        found = drift_in_journal(path, (started_s * NS_PER_S, (started_s + 1) * NS_PER_S))
    assert found.least_ns <= truth_ns <= found.most_ns


def test_a_pod_that_waits_for_its_certificate_needs_no_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has saved the journal must not be advised to save it."""
    waiting = {
        "certificates": [{"identity": "spiffe://x/ns/default/sa/client", "state": "Initializing"}]
    }
    (save(tmp_path) / "laptop" / "config_dump.json").write_text(json.dumps(waiting))
    code, out, _ = forecast(["--from", str(tmp_path)], capsys)
    assert code == ExitCode.UNKNOWN
    assert "default/client" in out and "no certificate yet" in out


# --- A cluster ------------------------------------------------------------------------------------

ZTUNNEL_POD = Pod("istio-system", "ztunnel-x", "u", "laptop", ready=True)
DRIFT = b'meshwake_guard_drift_seconds{node="laptop",process="ztunnel-x"} 60000\n'


class Cluster:
    """Answers what a cluster would; `away` names what does not; `guards`: the metrics of each wake
    guard on the node."""

    def __init__(
        self,
        folder: Path,
        away: Callable[[str], bool] = lambda what: False,
        guards: Sequence[bytes] = (),
    ) -> None:
        self._place, self._away = folder / "laptop", away
        self._metrics = {f"wake-guard-{n}": metrics for n, metrics in enumerate(guards)}

    def pods(self, namespace: str | None, labels: dict[str, str]) -> list[Pod]:
        self._ask("pods")
        if namespace != "meshwake-guard":
            return [ZTUNNEL_POD]
        return [Pod("meshwake-guard", name, "v", "laptop", ready=True) for name in self._metrics]

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        self._ask(f"get {path} of {pod.name}")
        if path == "/metrics":
            return self._metrics[pod.name]
        return (self._place / "config_dump.json").read_bytes()

    def read(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        thing: dict[str, Any] = json.loads((self._place / "pod.json").read_text())
        return thing

    def execute(self, pod: Pod, container: str, command: list[str], within_s: float) -> Executed:
        self._ask("execute")
        assert command == ["sh", "-c", LOOK]
        return Executed(0, (self._place / "clocks.txt").read_text(), "")

    def _ask(self, what: str) -> None:
        if self._away(what):
            raise Unreachable(f"{what}: no answer")


def test_a_live_cluster(tmp_path: Path) -> None:
    """The same numbers as from files, read from the pods."""
    (only,) = observe_ztunnels(Cluster(save(tmp_path, drift_s=3_600)), 0)  # type: ignore[arg-type]
    seen = forecast_node(only)
    assert seen.drift is not None and abs(seen.drift.best_ns - H) <= NS_PER_S
    assert (only.name, only.process, seen.prospect) == ("laptop", "ztunnel-x", "none")


def test_a_distroless_ztunnel_has_no_shell(tmp_path: Path) -> None:
    """Then the clock drift is unknown, unless a wake guard exports it."""
    away = lambda what: what == "execute"  # noqa: E731
    (only,) = observe_ztunnels(Cluster(save(tmp_path), away), NOW)  # type: ignore[arg-type]
    assert forecast_node(only).prospect == "unknown"
    (only,) = observe_ztunnels(Cluster(tmp_path, away, [DRIFT]), NOW)  # type: ignore[arg-type]
    assert forecast_node(only).prospect == "outage"


@pytest.mark.parametrize("knows", [0, 1])
@pytest.mark.parametrize("other", ["starting", "not answering", "of another version"])
def test_one_of_two_guards_on_a_node_knows(tmp_path: Path, other: str, knows: int) -> None:
    """While a DaemonSet is rolled out there are two, in either order."""
    guards = [{"of another version": b"meshwake_guard_drift_seconds{"}.get(other, b"")] * 2
    guards[knows] = DRIFT
    silent = f"wake-guard-{1 - knows}" if other == "not answering" else "nothing"
    away = lambda what: what == "execute" or silent in what  # noqa: E731
    (only,) = observe_ztunnels(Cluster(save(tmp_path), away, guards), NOW)  # type: ignore[arg-type]
    assert forecast_node(only).prospect == "outage"


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    """Exit code 4's error, with something to try."""
    with pytest.raises(LabUnavailable, match="kubectl get pods -A"):
        list(observe_ztunnels(Cluster(save(tmp_path), lambda what: what == "pods"), 0))  # type: ignore[arg-type]
    with pytest.raises(LabUnavailable, match="config_dump of"):
        list(observe_ztunnels(Cluster(tmp_path, lambda what: "config_dump" in what), 0))  # type: ignore[arg-type]


def test_the_look_works_in_a_real_shell() -> None:
    """The command that is sent into the container prints what the reader takes."""
    if not Path("/proc/1/stat").exists():
        pytest.skip("no /proc here")
    completed = subprocess.run(
        ["sh", "-c", LOOK], capture_output=True, text=True, check=True
    ).stdout
    clocks = clocks_in(completed)
    assert abs(clocks.wall_ns - time.time_ns()) < 60 * NS_PER_S
    assert clocks.started_boottime_ns is not None and clocks.boottime_ns is not None
    assert 0 <= clocks.started_boottime_ns <= clocks.boottime_ns


def test_which_container_counts() -> None:
    """ztunnel's own, not a sidecar's."""
    running = {"running": {"startedAt": "2027-01-15T08:00:00Z"}}
    statuses = [{"name": "helper", "state": {}}, {"name": "istio-proxy", "state": running}]
    assert started_in({"status": {"containerStatuses": statuses}}) == (NOW, NOW + NS_PER_S)
