"""When do timers of other programs end, if the machine sleeps while they wait? Facts that everybody
guesses about.

`meshwake timers` writes docs/timers.md from it. A guest runs them all at once: each begins a wait
of ten minutes, a minute later the kernel is suspended for an hour (or stopped, or its wall clock
set), and what is left is counted on the guest's own monotonic clock. Programs of languages that are
not on this machine are left out, and the page says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meshwake.clocks.guest.init import GuestRequest
from meshwake.core.durations import NS_PER_S
from meshwake.core.json_types import JsonObject, int_at, text_at
from meshwake.labs.machine.image import GUEST_DIRECTORY, binary_part, guest_python, tree_part
from meshwake.labs.machine.measure import needed_kernel, reading_in, run_request

WAIT_S = 600
_H = 3600 * NS_PER_S
_MEMORY_MB = 1280
_BUILT_WITHIN_S = 600
_PROGRAMS = "/meshwake/programs"
FAULTS: dict[str, list[JsonObject]] = {
    "suspend to RAM for 1 h": [{"do": "suspend", "lasts_ns": _H}],
    "stopped for 1 h, then the wall clock corrected": [
        {"do": "pause", "lasts_ns": _H},
        {"do": "step", "by_wall_ns": _H},
    ],
    "wall clock stepped by +1 h": [{"do": "step", "by_wall_ns": _H}],
}
_SAYS = "import os, sys\nsay = lambda: os.write(1, b'.\\n')\n"
_TIMERFD = (
    _SAYS
    + """
import time
sys.path.insert(0, "SITE")
from meshwake.system.libc import TFD_TIMER_ABSTIME, timerfd_create, timerfd_settime
clock, absolute = int(sys.argv[1]), sys.argv[2] == "absolute"
file = timerfd_create(clock)
base_s = int(time.clock_gettime(clock)) if absolute else 0
say()
timerfd_settime(file, TFD_TIMER_ABSTIME if absolute else 0, base_s + WAIT)
os.read(file, 8)
say()
""".replace("SITE", f"{GUEST_DIRECTORY}/site")
)
_PYTHON = {
    "Python time.sleep": "import time; say(); time.sleep(WAIT); say()",
    "Python asyncio.sleep": "import asyncio; say(); asyncio.run(asyncio.sleep(WAIT)); say()",
    "Python threading.Event.wait(timeout)": "import threading; say(); "
    "threading.Event().wait(WAIT); say()",
    "Python select.select(timeout)": "import select; say(); select.select([], [], [], WAIT); say()",
}
# Not the ALARM clocks: they would wake the machine, and spoil the sleep for all others.
_CLOCKS = {"CLOCK_REALTIME": 0, "CLOCK_MONOTONIC": 1, "CLOCK_BOOTTIME": 7}
_GO = """package main
import ("os"; "time")
func say() { os.Stdout.WriteString(".\\n") }
func main() {
    d := WAIT * time.Second
    say()
    if os.Args[1] == "sleep" { time.Sleep(d) } else { <-time.NewTimer(d).C }
    say()
}
"""
_TOKIO = """use std::io::Write;
fn say() { let mut o = std::io::stdout(); o.write_all(b".\\n").unwrap(); o.flush().unwrap(); }
fn main() {
    let d = std::time::Duration::from_secs(WAIT);
    if std::env::args().nth(1).unwrap() == "thread" { say(); std::thread::sleep(d); say(); return; }
    let r = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    r.block_on(async { say(); tokio::time::sleep(d).await; say(); });
}
"""
_CARGO = """[package]
name = "waits"
version = "0.1.0"
edition = "2021"
[dependencies]
tokio = { version = "1", features = ["rt", "time", "net"] }
"""
_NODE = 'const say = () => require("fs").writeSync(1, ".\\n"); say(); setTimeout(say, WAIT * 1000)'
_JAVA = """public class Waits {
    static void say() { System.out.print(".\\n"); System.out.flush(); }
    public static void main(String[] a) throws Exception {
        say();
        if (a[0].equals("sleep")) Thread.sleep(WAIT * 1000L);
        else java.util.concurrent.Executors.newSingleThreadScheduledExecutor()
            .schedule(() -> 0, WAIT, java.util.concurrent.TimeUnit.SECONDS).get();
        say();
        System.exit(0);
    }
}
"""


@dataclass(frozen=True)
class GuestProgram:
    """What is started in the guest; `parts` bring what it is made of."""

    argv: list[str]
    parts: tuple[Path, ...] = ()


@dataclass
class Found:
    """The programs that can be measured here, and why others cannot."""

    programs: dict[str, GuestProgram]
    left_out: list[str]


def find_programs(directory: Path) -> Found:
    """All that this machine has the languages for; what must be built is built in `directory`."""
    # Everything that is built is built before the guest boots, which has no compilers.
    found = Found({}, ["systemd timers: the guest has no systemd"])
    for name, clock in _CLOCKS.items():
        for how in ("relative", "absolute"):
            argv = [guest_python(), "-SEc", _TIMERFD.replace("WAIT", str(WAIT_S)), str(clock), how]
            found.programs[f"timerfd on {name}, {how}"] = GuestProgram(argv)
    for name, code in _PYTHON.items():
        found.programs[name] = GuestProgram(
            [guest_python(), "-SEc", (_SAYS + code).replace("WAIT", str(WAIT_S))]
        )
    for find in (_find_go, _find_tokio, _find_node, _find_java):
        find(directory, found)
    return found


def _find_go(directory: Path, found: Found) -> None:
    source = directory / "go" / "main.go"
    source.parent.mkdir()
    source.write_text(_GO.replace("WAIT", str(WAIT_S)))
    command = ["go", "build", "-o", "waits", "main.go"]
    if _built(command, source.parent, found, "Go", {"CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}):
        part = binary_part(source.parent / "waits", f"{_PROGRAMS}/go")
        for how, name in (("sleep", "Go time.Sleep"), ("timer", "Go time.NewTimer")):
            found.programs[name] = GuestProgram([f"{_PROGRAMS}/go", how], (part,))


def _find_tokio(directory: Path, found: Found) -> None:
    source = directory / "tokio" / "src" / "main.rs"
    source.parent.mkdir(parents=True)
    source.write_text(_TOKIO.replace("WAIT", str(WAIT_S)))
    (directory / "tokio" / "Cargo.toml").write_text(_CARGO)
    if _built(["cargo", "build", "--quiet"], directory / "tokio", found, "Rust with tokio", {}):
        part = binary_part(directory / "tokio/target/debug/waits", f"{_PROGRAMS}/tokio")
        for how, name in (("tokio", "tokio time::sleep"), ("thread", "Rust std thread::sleep")):
            found.programs[name] = GuestProgram([f"{_PROGRAMS}/tokio", how], (part,))


def _find_node(directory: Path, found: Found) -> None:
    node = shutil.which("node")
    if node is None:
        found.left_out.append("Node: node is not on PATH")
        return
    part = binary_part(Path(node).resolve(), f"{_PROGRAMS}/node")
    found.programs["Node setTimeout"] = GuestProgram(
        [f"{_PROGRAMS}/node", "-e", _NODE.replace("WAIT", str(WAIT_S))], (part,)
    )


def _find_java(directory: Path, found: Found) -> None:
    (directory / "java").mkdir()
    (directory / "java" / "Waits.java").write_text(_JAVA.replace("WAIT", str(WAIT_S)))
    java = shutil.which("java")
    if not _built(["javac", "Waits.java"], directory / "java", found, "Java", {}) or java is None:
        return
    home = Path(java).resolve().parent.parent
    binary = home / "bin/java"
    parts = (
        binary_part(binary, str(binary)),
        tree_part(
            "java",
            home / "lib",
            str(home / "lib"),
            # Large, and of no use to a program that only waits.
            ("src.zip", "ct.sym", "classes.jsa", "classes_nocoops.jsa"),
        ),
        tree_part("java-conf", (home / "conf").resolve(), str(home / "conf"), ()),
        tree_part("waits", directory / "java", f"{_PROGRAMS}/java", ()),
    )

    # Little memory and no compiler threads: the guest is emulated.
    flags = ["-Xmx64m", "-Xint", "-XX:+UseSerialGC", "-cp", f"{_PROGRAMS}/java", "Waits"]
    for how, name in (
        ("sleep", "Java Thread.sleep"),
        ("schedule", "Java ScheduledExecutorService"),
    ):
        found.programs[name] = GuestProgram([str(binary), *flags, how], parts)


def _built(
    command: list[str], directory: Path, found: Found, name: str, more: dict[str, str]
) -> bool:
    if shutil.which(command[0]) is None:
        found.left_out.append(f"{name}: {command[0]} is not on PATH")
        return False
    try:
        made = subprocess.run(
            command,
            cwd=directory,
            env=os.environ | more,
            capture_output=True,
            text=True,
            timeout=_BUILT_WITHIN_S,
            check=False,
        )
        why = made.stderr.strip()[-200:] if made.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"not built within {_BUILT_WITHIN_S} s"
    if why:
        found.left_out.append(f"{name}: {why}")
    return not why


# --- Measuring ------------------------------------------------------------------------------------


def measure_timers(found: Found, directory: Path) -> dict[tuple[str, str], str]:
    """(program, fault) to what its timer did."""
    names = list(FAULTS)
    results: dict[tuple[str, str], str] = {}

    def take(message: JsonObject) -> None:
        if "timer" in message:
            name, fault = text_at(message, "timer"), names[int_at(message, "fault")]
            results[name, fault] = describe_end(message)

    request: GuestRequest = {
        "do": "timers",
        "programs": {name: program.argv for name, program in found.programs.items()},
        "faults": list(FAULTS.values()),
    }
    parts = tuple(
        dict.fromkeys(part for program in found.programs.values() for part in program.parts)
    )
    run_request(request, directory, take, parts, memory_mb=_MEMORY_MB)
    return results


def describe_end(message: JsonObject) -> str:
    """When a timer ended: counted in time awake, which is what monotonic shows."""
    if message["armed"] is None:
        return "did not start"
    if message["ended"] is None:
        return "did not end"
    armed, before, after, ended = (
        reading_in(message, key) for key in ("armed", "before", "after", "ended")
    )
    awake_s = (ended.monotonic_ns - armed.monotonic_ns) / NS_PER_S

    # Five seconds for a busy emulated machine; the fault is of an hour.
    since_fault_s = (ended.monotonic_ns - after.monotonic_ns) / NS_PER_S
    if before.monotonic_ns > ended.monotonic_ns:
        return f"before the fault, after {awake_s:.0f} s"
    if since_fault_s < 5:
        return "at once after it"
    if abs(awake_s - WAIT_S) < 5:
        return f"after {WAIT_S} s awake"
    return f"after {awake_s:.0f} s awake"


# --- The page -------------------------------------------------------------------------------------

_HEAD = f"""\
# Measured: timers of other programs around a suspend

Written by `meshwake timers`; do not edit. Each program begins a wait of {WAIT_S} s in a QEMU
guest; a minute later comes the fault. *After {WAIT_S} s awake*: the timer counts what
CLOCK_MONOTONIC counts, so by the wall clock it is an hour late after a suspend (and after a stop).
*At once after it*: the timer counts the hour.

"""
_TAIL = """
So the ordinary timer of each of these languages is one of CLOCK_MONOTONIC, and sleeps with the
machine. What ends at the wake of a suspend is a timer on CLOCK_BOOTTIME, or one set for an absolute
time of CLOCK_REALTIME; and only the latter notices that a machine was stopped, or a clock was set.
"""


def timers_page(found: Found, results: dict[tuple[str, str], str], kernel_release: str) -> str:
    """docs/timers.md."""
    series = ".".join(kernel_release.split(".")[:2])
    lines = [
        _HEAD,
        f"Kernel of the guest: {series}.\n\n",
        f"| timer | {' | '.join(FAULTS)} |\n",
        "|---|---|---|---|\n",
    ]
    for name in found.programs:
        cells = [results.get((name, fault), "not measured") for fault in FAULTS]
        lines.append(f"| {name} | {' | '.join(cells)} |\n")
    if found.left_out:
        lines += ["\nNot measured here:\n\n", *(f"* {why}\n" for why in found.left_out)]
    return "".join(lines) + _TAIL


def write_timers_page(output: Path, find: Callable[[Path], Found] = find_programs) -> int:
    """Measures, and writes the page; returns how many programs there were."""
    with tempfile.TemporaryDirectory(prefix="meshwake-timers-") as name:
        directory = Path(name)
        found = find(directory)
        results = measure_timers(found, directory / "run")
    output.write_text(timers_page(found, results, needed_kernel().release), encoding="utf-8")
    return len(found.programs)
