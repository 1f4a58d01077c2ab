"""The process lab around a fake for ztunnel: everything but ztunnel itself is real, so it runs
without a binary."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from meshwake.core.errors import HarnessError, LabUnavailable, SubjectFailed
from meshwake.core.history import History, Recorder
from meshwake.core.plan import Plan
from meshwake.labs import Toolbox, load_lab
from meshwake.system.deadline import wait_until

from tests.support import plans
from tests.support.fake_ztunnel import write_fake_ztunnel, write_program

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the process lab is for Linux")
WITHIN_S = 60.0

NIGHT = """
[[fault]]
kind = "suspend"
at = "30m"
lasts = "8h"
"""


@pytest.fixture(autouse=True)
def lab_can_run() -> None:
    """Skips with the lab's own reason where namespaces are forbidden."""
    reasons = load_lab("process").missing(Path(sys.executable))
    if reasons:
        pytest.skip(reasons[0])


def plan() -> Plan:
    return plans.plan(NIGHT, duration="9h", every="1h", lab="process")


def run(ztunnel: Path, directory: Path) -> History:
    """One run in `directory`."""
    recorder = Recorder()
    load_lab("process").run(plan(), Toolbox(ztunnel, directory / "logs"), recorder)
    return recorder.history


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_a_program_lives_through_nine_hours_with_a_night_in_them(tmp_path: Path) -> None:
    """Its timer ticks every ten minutes in which it runs, at the very nanosecond, and not in the
    night."""
    history = run(write_fake_ztunnel(tmp_path), tmp_path)
    ticks = [
        line.split()[1:]
        for line in (tmp_path / "logs" / "default.client.log").read_text().splitlines()
    ]
    starts_ns, minute_ns = plan().starts_wall_s * 10**9, 60 * 10**9
    awake = [(int(wall) - starts_ns) // minute_ns for wall, _ in ticks]
    assert awake == [10, 20, 510, 520, 530][: len(awake)] and len(awake) >= 4
    assert all((int(wall) - starts_ns) % minute_ns == 0 for wall, _ in ticks)
    assert history.events[-1].kind == "run_ended"


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_the_fault_is_measured_inside_the_program(tmp_path: Path) -> None:
    """Read in the subject: the suspend moved wall and boottime by eight hours, monotonic by
    nothing."""
    history = run(write_fake_ztunnel(tmp_path), tmp_path)
    began, ended = history.of("fault_began")[0].clocks, history.of("fault_ended")[0].clocks
    assert began is not None and ended is not None
    assert ended.since(began) == (8 * 3600 * 10**9, 0, 8 * 3600 * 10**9)


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_connections_without_a_server_fail_and_end(tmp_path: Path) -> None:
    """An attempt ends as failed, with a reason; it does not hang."""
    attempts = run(write_fake_ztunnel(tmp_path), tmp_path).of("connection_attempted")
    assert attempts
    assert not any(event["ok"] for event in attempts)
    assert all(event["error"].startswith("closed without an answer") for event in attempts)


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_a_subject_that_dies_at_its_start_is_named_with_its_last_words(tmp_path: Path) -> None:
    """Exit code and the end of its log are in the message."""
    program = 'import sys; print("address already in use", flush=True); sys.exit(3)'
    with pytest.raises(
        SubjectFailed, match=r"default\.\w+ ended by itself \(exit code 3\).*address already in use"
    ):
        run(write_program(tmp_path, program), tmp_path)
    assert not leftovers(tmp_path)


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_a_subject_that_dies_on_the_way_is_named(tmp_path: Path) -> None:
    """Also when it is killed by a signal in the middle of the run."""
    ztunnel = write_fake_ztunnel(tmp_path, at_tick="import os; os.kill(os.getpid(), 11)")
    with pytest.raises(SubjectFailed, match=r"default\.\w+ ended by itself \(killed by SIGSEGV\)"):
        run(ztunnel, tmp_path)
    assert not leftovers(tmp_path)


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_a_subject_that_spins_is_named_within_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that never sleeps never lets time pass; the error has its name."""
    monkeypatch.setenv("MESHWAKE_QUIET_WITHIN_S", "2")
    with pytest.raises(
        HarnessError,
        match=r"not quiescent within 2 s; last seen busy: process ztunnel default\.\w+ runs",
    ):
        run(write_fake_ztunnel(tmp_path, at_tick="while True: pass"), tmp_path)
    assert not leftovers(tmp_path)


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_what_is_not_a_program_is_named(tmp_path: Path) -> None:
    """A file that cannot be executed gives the system's reason."""
    path = tmp_path / "fake-ztunnel"
    path.write_text("no program")
    path.chmod(0o755)
    with pytest.raises(SubjectFailed, match="could not be started.*(Exec format|No such file)"):
        run(path, tmp_path)


def test_an_old_version_is_refused_by_name() -> None:
    """ztunnel before 1.24 cannot run in dedicated mode."""
    old = plan().model_copy(update={"version": "1.23.6"})
    assert "1.23.6" in load_lab("process").refusals(old)[0]
    assert load_lab("process").refusals(plan()) == []


def test_forbidden_namespaces_are_a_refusal_with_a_way_out(tmp_path: Path) -> None:
    """Where no namespace can be made, the error says so and what to do (here: by a limit of
    none)."""
    script = textwrap.dedent(
        """
        import ctypes
        from meshwake.labs.process import namespaces
        namespaces._unshare = lambda flags: 1
        try:
            namespaces.enter_own_namespaces()
        except Exception as error:
            print(type(error).__name__, error)
        """
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith(
        "LabUnavailable no right to make namespaces (Operation not permitted)"
    )
    assert "root" in printed
    assert LabUnavailable.exit_code == 4


@pytest.mark.skipif(
    sys.platform == "linux" and os.geteuid() != 0, reason="only root has a right to give away"
)
def test_root_that_may_not_build_networks_does_it_in_a_user_namespace() -> None:
    """As in a container with --cap-add SYS_ADMIN alone: no right is missing, or it is named."""
    # prctl(2): PR_CAPBSET_DROP is 24. What this process executes cannot have the right any more.
    drop = textwrap.dedent(
        """
        import ctypes, os, sys
        from meshwake.system.libc import CAP_NET_ADMIN
        assert ctypes.CDLL(None).prctl(24, CAP_NET_ADMIN, 0, 0, 0) == 0
        os.execv(sys.executable, [sys.executable, "-m", "meshwake.labs.process.namespaces"])
        """
    )
    tried = subprocess.run(
        [sys.executable, "-c", drop], capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout == "" or "no right to make namespaces" in tried.stdout


# --- Nothing left behind --------------------------------------------------------------------------


def leftovers(directory: Path) -> list[str]:
    """Processes that were started for the run in `directory`: they live there or carry its name."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (
                (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            home = str((process / "cwd").resolve())
        except OSError:
            continue
        if str(directory) in command or home.startswith(str(directory)):
            found.append(f"{process.name}: {command}")
    return found


def namespace_held(file: int) -> str:
    """The name of the network namespace that is held open as `file`."""
    return f"net:[{os.fstat(file).st_ino}]"


def namespaces_in_use() -> Iterator[str]:
    """Every network namespace that any process lives in."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            yield str((process / "ns" / "net").readlink())
        except OSError:
            continue


RUN_FOR_EVER = """
import sys
from pathlib import Path
from meshwake.core.history import Recorder
from meshwake.labs import Toolbox, load_lab
from meshwake.core.plan import Plan
plan = Plan.model_validate_json(sys.argv[1])
load_lab("process").run(plan, Toolbox(Path(sys.argv[2]), Path(sys.argv[3])), Recorder())
"""


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_kill_9_leaves_nothing_behind(tmp_path: Path) -> None:
    """The harness is killed in the middle of a run: no process, no namespace, no mount of it is
    left."""
    mounts_before = Path("/proc/self/mountinfo").read_text()
    endless = plan().model_copy(
        update={"duration_ns": 10**18, "attempt_every_ns": 60 * 10**9, "faults": ()}
    )
    command = [
        sys.executable,
        "-c",
        RUN_FOR_EVER,
        endless.model_dump_json(),
        str(write_fake_ztunnel(tmp_path)),
        str(tmp_path / "logs"),
    ]
    harness = subprocess.Popen(command)
    try:
        wait_until(
            lambda: len(leftovers(tmp_path)) >= 5, "two fakes and an authority to run", WITHIN_S
        )
        ticking = tmp_path / "logs" / "default.client.log"
        wait_until(
            lambda: ticking.exists() and ticking.read_text().count("tick") > 3,
            "virtual time to pass",
            WITHIN_S,
        )
        # Held open: the number of one that is gone may be given to another, of a test that runs
        # next to this one.
        held = [
            os.open(f"/proc/{line.split(':')[0]}/ns/net", os.O_RDONLY)
            for line in leftovers(tmp_path)
        ]
        namespaces = {namespace_held(one) for one in held} - {
            str(Path("/proc/self/ns/net").readlink())
        }
        assert len(namespaces) >= 3
    finally:
        os.kill(harness.pid, signal.SIGKILL)
        harness.wait()
    wait_until(lambda: not leftovers(tmp_path), "everything to end", WITHIN_S)
    # A process on its way out gives up its command line, by which it was found, before its
    # namespaces.
    wait_until(
        lambda: not namespaces & set(namespaces_in_use()),
        "its namespaces to be empty",
        WITHIN_S,
    )
    for namespace in held:
        os.close(namespace)
    assert Path("/proc/self/mountinfo").read_text() == mounts_before


@pytest.mark.slow(reason="runs the lab in a process of its own")
def test_the_runner_killed_alone_is_a_fault_that_is_named(tmp_path: Path) -> None:
    """When only the runner dies, its starter says so, and everything it had started is gone."""
    endless = plan().model_copy(update={"duration_ns": 10**18, "faults": ()})
    command = [
        sys.executable,
        "-c",
        RUN_FOR_EVER,
        endless.model_dump_json(),
        str(write_fake_ztunnel(tmp_path)),
        str(tmp_path / "logs"),
    ]
    harness = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(leftovers(tmp_path)) >= 5, "it to run", WITHIN_S)
    runner = next(
        line.split(":")[0]
        for line in (processes_below(harness.pid))
        if "meshwake.labs.process.runner" in line
    )
    os.kill(int(runner), signal.SIGKILL)
    _, complaint = harness.communicate(timeout=WITHIN_S)
    assert "the runner of the process lab ended" in complaint
    wait_until(lambda: not leftovers(tmp_path), "everything to end", WITHIN_S)


def processes_below(parent: int) -> list[str]:
    """The children of a process, as pid: command."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [
        f"{pid}: " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        for pid in children
    ]
