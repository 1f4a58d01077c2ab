"""meshwake clock exec | attach, as a person types it (Linux)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from meshwake.cli import clock as cli_clock
from meshwake.cli.app import run_command
from meshwake.clocks.injectors.faketime import library
from meshwake.clocks.vdso.page import unsupported_here
from meshwake.core.errors import ExitCode
from meshwake.system.deadline import wait_until

pytestmark = pytest.mark.skipif(unsupported_here() is not None, reason=str(unsupported_here()))
PYTHON = os.path.realpath(sys.executable)
H = 3600
WITHIN_S = 20.0
PRINTS_CLOCKS = "import time; print(time.time(), time.monotonic(), time.clock_gettime(7))"
WAITS = """
import select, time
poller, began, due = select.epoll(), (time.time(), time.monotonic()), time.monotonic() + 7200
while time.monotonic() < due:
    print(time.time() - began[0], time.monotonic() - began[1], flush=True)
    poller.poll(max(due - time.monotonic(), 0))
print("over", flush=True)
"""
# Behind a shell without job control interrupts are ignored, and a program that the tests start
# inherits that.
ON_INTERRUPT = "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
needs_faketime = pytest.mark.skipif(library() is None, reason="needs python-libfaketime")


@dataclass(frozen=True)
class Done:
    """What a command printed, its program included, and how it ended."""

    stdout: str
    stderr: str
    code: int


Meshwake = Callable[..., Done]


@pytest.fixture
def meshwake(capfd: pytest.CaptureFixture[str]) -> Meshwake:
    """Runs `meshwake clock ARGUMENTS`; a program writes to the files that are captured."""

    def run(*arguments: str) -> Done:
        code = run_command(["clock", *arguments])
        return Done(*capfd.readouterr(), code)

    return run


@pytest.mark.parametrize(
    ("options", "ahead"),
    [
        (("--suspend", "8h"), (8 * H, 0, 8 * H)),
        (("--step=-13h",), (-13 * H, 0, 0)),
        (("--awake", "1h30m"), (1.5 * H, 1.5 * H, 1.5 * H)),
        pytest.param(
            ("--step", "30d", "--injector", "faketime"), (720 * H, 0, 0), marks=needs_faketime
        ),
    ],
)
def test_a_program_sees_moved_clocks_from_its_start(
    options: tuple[str, ...], ahead: tuple[float, ...], meshwake: Meshwake
) -> None:
    """Its output is all that stdout has; our messages go to stderr."""
    done = meshwake("exec", *options, "--", PYTHON, "-S", "-c", PRINTS_CLOCKS)
    own = (time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME))
    shown = [float(word) for word in done.stdout.split()]
    assert [a - b for a, b in zip(shown, own, strict=True)] == pytest.approx(ahead, abs=WITHIN_S)
    assert re.fullmatch(
        r"meshwake: injector (vdso|faketime): process \d+ \(python.*\)\n", done.stderr
    )
    assert done.code == 0


def test_a_jump_while_it_runs(meshwake: Meshwake) -> None:
    """Two hours awake end a wait of two hours; the program's exit code is ours."""
    program = WAITS + "raise SystemExit(7)"
    done = meshwake("exec", "--awake", "2h", "--after", "300ms", "--", PYTHON, "-S", "-c", program)
    assert done.stdout.splitlines()[-1] == "over"
    assert "moved by wall +7200.000 s, monotonic +7200.000 s, boottime +7200.000 s" in done.stderr
    assert done.code == 7


@pytest.mark.parametrize("injector", ["vdso", pytest.param("faketime", marks=needs_faketime)])
def test_a_sleep_that_would_take_hours_by_our_doing_does_not_hang(
    injector: str, meshwake: Meshwake
) -> None:
    """It began after the move and hands the kernel a time of the moved clock: the program is ended,
    and it is reported."""
    program = "import time; time.sleep(0.5)"
    done = meshwake(
        "exec", "--awake", "1h", "--injector", injector, "--", PYTHON, "-S", "-c", program
    )
    assert done.code == ExitCode.LAB_UNAVAILABLE
    assert re.search(
        r"began to wait in clock_nanosleep for \d+ s on moved clocks: .*it was ended", done.stderr
    )


def test_a_thread_that_sleeps_too_long_is_named_and_the_others_go_on(meshwake: Meshwake) -> None:
    """A background thread that hangs need not matter."""
    program = (
        "import os, select, threading, time; threading.Thread(target=time.sleep, "
        "args=(1,), daemon=True).start(); "
        "due = time.monotonic() + 1.5; poller = select.epoll()\n"
        "while time.monotonic() < due: poller.poll(due - time.monotonic())\n"
        "os._exit(3)"
    )
    done = meshwake("exec", "--awake", "1h", "--", PYTHON, "-S", "-c", program)
    assert done.code == 3
    assert (
        len(
            re.findall(
                r"meshwake: thread \d+ began to wait in clock_nanosleep for 36\d\d s", done.stderr
            )
        )
        == 1
    )


def test_a_signal_that_ends_it_gives_the_exit_code_of_shells(meshwake: Meshwake) -> None:
    """128 + N."""
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert (
        meshwake("exec", "--step", "1h", "--", PYTHON, "-S", "-c", program).code
        == 128 + signal.SIGKILL
    )


def test_an_interrupt_reaches_the_program() -> None:
    """It may end in order; we end with 130, and nothing is left."""
    program = (
        f"{ON_INTERRUPT}try: time.sleep(600)\nexcept KeyboardInterrupt: print('in order', "
        "flush=True)"
    )
    command = [
        sys.executable,
        "-m",
        "meshwake",
        "clock",
        "exec",
        "--step",
        "1h",
        "--",
        PYTHON,
        "-S",
        "-c",
        program,
    ]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert running.stderr is not None
        pid = int(running.stderr.readline().split("process ")[1].split()[0])
        # clock_nanosleep: 230 on x86_64, 115 on aarch64
        syscall = Path(f"/proc/{pid}/syscall")
        wait_until(
            lambda: syscall.read_text().split()[0] in {"230", "115"}, "it to sleep", WITHIN_S
        )
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=WITHIN_S)
    finally:
        running.kill()
        running.wait()
    assert (out, running.returncode) == ("in order\n", 130)
    assert not Path(f"/proc/{pid}").exists()


def test_an_interrupt_at_the_first_word_reaches_it_too(
    meshwake: Meshwake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Just after it was started, the program was killed instead now and then."""
    waits = (
        "try: open('ready', 'w'); time.sleep(600)\nexcept KeyboardInterrupt: print('in order', "
        "flush=True)"
    )
    program = f"{ON_INTERRUPT}{waits}"
    monkeypatch.chdir(tmp_path)

    def interrupted(_: str) -> None:
        wait_until((tmp_path / "ready").exists, "the program to start", WITHIN_S)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_clock, "_say", interrupted)
    done = meshwake("exec", "--step", "1h", "--", PYTHON, "-S", "-c", program)
    assert (done.stdout, done.code) == ("in order\n", 130)


@needs_faketime
def test_what_executes_others_is_given_to_faketime(meshwake: Meshwake) -> None:
    """And it says so; what cannot be shown so either is refused before anything is started, with
    both reasons."""
    done = meshwake("exec", "--step", "30d", "--", "sh", "-c", "date +%s")
    assert int(done.stdout) - time.time() == pytest.approx(720 * H, abs=WITHIN_S)
    assert done.stderr.startswith("meshwake: vdso is not used: a vDSO lasts until the next exec")
    refused = meshwake("exec", "--suspend", "8h", "--", "sh", "-c", "echo started")
    assert (refused.code, refused.stdout) == (ExitCode.LAB_UNAVAILABLE, "")
    assert re.search(
        r"injector auto: .*sh: vdso: a vDSO lasts .*, and faketime: the wall clock is moved",
        refused.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["exec", "--", "true"], 3, "no movement of the clocks was given"),
        (["exec", "--step", "1h", "--suspend", "1h", "--", "true"], 3, "one movement at a time"),
        (["exec", "--suspend", "-1h", "--", "true"], 3, "only the wall clock can be set back"),
        (
            ["exec", "--step", "8", "--", "true"],
            3,
            "invalid value '8' for --step: expected a duration such as",
        ),
        (
            ["exec", "--step", "1h", "--after", "soon", "--", "true"],
            3,
            "invalid value 'soon' for --after",
        ),
        (
            ["exec", "--step", "1h", "--injector", "ntp", "--", "true"],
            3,
            "expected one of auto, vdso, attach, faketime",
        ),
        (
            ["exec", "--step", "1h", "--", "no-such-program"],
            3,
            "there is no program 'no-such-program' on PATH",
        ),
        (["exec", "--step", "1h", "--injector", "vdso", "--", "sh"], 4, "the next exec"),
        (
            ["exec", "--step", "1h", "--injector", "attach", "--", sys.executable],
            4,
            "use --injector vdso",
        ),
        (["attach", "4194303", "--step", "1h"], 3, "there is no process 4194303"),
        (
            ["attach", str(os.getpid()), "--step", "1h", "--give-back"],
            3,
            "--give-back: goes with no movement",
        ),
    ],
)
def test_mistakes(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Are reported with what to do; nothing is started, no traceback."""
    assert run_command(["clock", *arguments]) == code
    out, err = capsys.readouterr()
    assert message in err and out == "" and "Traceback" not in err


@pytest.fixture
def waiter(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process that waits two hours, and its output."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([PYTHON, "-S", "-c", WAITS], stdout=output)
    wait_until(lambda: log.read_text().endswith("\n"), "its first line", WITHIN_S)
    yield process, log
    process.kill()
    process.wait()


def test_a_running_process_from_one_command_to_the_next(
    waiter: tuple[subprocess.Popen[bytes], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each goes on from where the last one left its clocks; the readings were taken in it."""
    process, log = waiter
    pid = str(process.pid)
    outputs = []
    for options in ([], ["--suspend", "8h"], ["--step=-1h"], [], ["--awake", "2h"]):
        assert run_command(["clock", "attach", pid, *options]) == 0
        outputs.append(capsys.readouterr().out)
    assert "moved by wall +0.000 s, monotonic +0.000 s, boottime +0.000 s" in outputs[0]
    assert (
        "moved by wall +28800.000 s, monotonic +0.000 s, boottime +28800.000 s (measured in it"
        in outputs[1]
    )
    assert "moved by wall +25200.000 s, monotonic +0.000 s, boottime +28800.000 s" in outputs[2]
    assert (
        outputs[3]
        == f"process {pid}: moved by wall +25200.000 s, monotonic +0.000 s, boottime +28800.000 s\n"
    )
    assert process.wait(WITHIN_S) == 0
    assert log.read_text().endswith("over\n")


def test_clocks_are_given_back(
    waiter: tuple[subprocess.Popen[bytes], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """And the process lives."""
    process, _ = waiter
    pid = str(process.pid)
    for options in (["--step", "8h"], ["--give-back"], []):
        assert run_command(["clock", "attach", pid, *options]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"process {pid} ({Path(f'/proc/{pid}/comm').read_text().strip()}): the kernel's clocks",
        f"process {pid}: moved by wall +0.000 s, monotonic +0.000 s, boottime +0.000 s",
    ]
    assert process.poll() is None
