"""A kernel that is really suspended, in a QEMU guest: what it does to the clocks is what the
virtual node says.

One guest is measured, and each way in which one can fail is met once. They need QEMU and a kernel
(docs/machine.md).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.guest import qemu as guest
from meshwake.clocks.guest.init import PROTOCOL
from meshwake.clocks.guest.qemu import Machine, run_guest, unavailable_here
from meshwake.clocks.virtual import NodeClock
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import SubjectFailed
from meshwake.labs.machine.image import assemble, base_part
from meshwake.labs.machine.kernel import find_kernel
from meshwake.system.deadline import Deadline
from meshwake.ztunnel.binaries import cache_dir

H, M, S = 3600 * 10**9, 60 * 10**9, 10**9
# A kernel reads the length of its sleep from a clock of whole seconds; the rest is the time that
# the step itself took.
NEAR_NS = 3 * S // 2
START = ClockReading(10**18, 0, 0)


def _why_not() -> str | None:
    if reasons := unavailable_here():
        return reasons[0]
    return (
        None if find_kernel() else f"no kernel for guests in {cache_dir()} (meshwake fetch-kernel)"
    )


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=str(_why_not()))

STEPS: dict[str, dict[str, Any]] = {
    "an hour awake": {"do": "idle", "lasts_ns": H},
    "a suspend": {"do": "suspend", "lasts_ns": 8 * H},
    "another suspend": {"do": "suspend", "lasts_ns": 90 * S},
    "a correction": {"do": "step", "by_wall_ns": 17 * M},
    "a step back": {"do": "step", "by_wall_ns": -13 * H},
}
# Each is reported in a line of more than a hundred bytes; a socket holds fewer than three hundred.
CHATTER: list[dict[str, Any]] = [{"do": "step", "by_wall_ns": 0}] * 6
SLOW_TO_READ_S = 2.0


def image(directory: Path, steps: list[dict[str, Any]]) -> Path:
    kernel = find_kernel()
    assert kernel is not None
    directory.mkdir(parents=True, exist_ok=True)
    output = directory / "guest.cpio"
    assemble([base_part(kernel, with_lab=False)], {"do": "clocks", "steps": steps}, output)
    return output


def run(
    directory: Path, steps: list[dict[str, Any]], take: Any = lambda message: None, **options: Any
) -> None:
    kernel = find_kernel()
    assert kernel is not None
    initrd = image(directory, steps)
    try:
        run_guest(Machine(kernel.image, initrd, **({"memory_mb": 384} | options)), directory, take)
    finally:
        initrd.unlink()


STOP: dict[str, Any] = {"do": "pause", "lasts_ns": 17 * M}


@dataclass(frozen=True)
class Seen:
    """What the measured guest reported, what it cost, and how it ended."""

    hello: dict[str, Any]
    moved: dict[str, ClockReading]
    stop: ClockReading
    failure: str


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One guest: all steps, a stop by a host that is slow to read, and then its kernel panics."""
    messages: list[dict[str, Any]] = []
    directory = tmp_path_factory.mktemp("guest")

    def take(message: dict[str, Any]) -> None:
        messages.append(message)
        if message.get("measured") == CHATTER[0]:
            time.sleep(SLOW_TO_READ_S / len(CHATTER))

    with pytest.raises(SubjectFailed) as failed:
        run(directory, [*STEPS.values(), *CHATTER, STOP, {"do": "panic"}], take)
    assert messages, str(failed.value)
    moved = [
        ClockReading(*message["after"]).since(ClockReading(*message["before"]))
        for message in messages
        if "measured" in message
    ]
    assert len(moved) == len(STEPS) + len(CHATTER) + 1, str(failed.value)
    return Seen(messages[0], dict(zip(STEPS, moved, strict=False)), moved[-1], str(failed.value))


def near(moved: ClockReading, expected: ClockReading) -> bool:
    return all(abs(one - other) < NEAR_NS for one, other in zip(moved, expected, strict=True))


def virtually(step: dict[str, Any]) -> ClockReading:
    """What the node of the model says of the same step."""
    clock = NodeClock(START)
    if step["do"] == "idle":
        clock.advance_to(step["lasts_ns"])
    elif step["do"] == "suspend":
        clock.suspend(step["lasts_ns"])
    elif step["do"] == "step":
        clock.step(step["by_wall_ns"])
    return clock.now.since(START)


@pytest.mark.parametrize("name", STEPS)
def test_a_real_kernel_does_what_the_virtual_node_says(seen: Seen, name: str) -> None:
    """Wall, monotonic and boottime move by the same."""
    assert near(seen.moved[name], virtually(STEPS[name])), seen.moved[name]


def test_a_suspend_is_seen_by_wall_and_boottime_alike(seen: Seen) -> None:
    """To the millisecond, however long it was; monotonic knows nothing of it."""
    moved = seen.moved["a suspend"]
    assert abs(moved.wall_ns - moved.boottime_ns) < S // 1000
    assert moved.monotonic_ns < 2 * S


def test_a_host_that_is_slow_to_read_costs_the_guest_what_it_took(seen: Seen) -> None:
    """Its idle time is skipped, so it must not be idle while it waits: it once was, and lost 366 s."""
    assert max(seen.stop) < 60 * S


def test_the_guest_says_who_it_is(seen: Seen) -> None:
    """Version of the protocol, kernel, and that it can suspend to RAM."""
    assert seen.hello["hello"] == PROTOCOL
    assert "deep" in seen.hello["sleeps"]


def test_a_panic_is_named_with_the_end_of_the_console(seen: Seen) -> None:
    """And not waited for until a bound."""
    assert "its kernel panicked" in seen.failure
    assert "sysrq triggered crash" in seen.failure


def test_a_stop_is_seen_by_no_clock_and_memory_that_ran_out_is_named(tmp_path: Path) -> None:
    """In real time: the clocks moved by what the guest waited for its host, all three by the same,
    and by no seventeen minutes. Then it runs out of memory, and its kernel panics rather than kill
    this or that."""
    messages: list[dict[str, Any]] = []
    with pytest.raises(SubjectFailed, match="it ran out of its 256 MB of memory"):
        run(
            tmp_path, [STOP, {"do": "fill_memory"}], messages.append, memory_mb=256, skip_idle=False
        )
    [stop] = [message for message in messages if "measured" in message]
    moved = ClockReading(*stop["after"]).since(ClockReading(*stop["before"]))
    assert max(moved) - min(moved) < S // 100
    assert max(moved) < 5 * M


def test_a_hang_in_suspend_is_named_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was awaited, and for how long."""
    monkeypatch.setattr(guest, "SLEEPS_WITHIN_S", 3.0)
    steps = [{"do": "hang_in_suspend"}]
    with pytest.raises(
        SubjectFailed, match=r"hangs on its way into suspend; awaited was SUSPEND \(within 3 s\)"
    ):
        run(tmp_path, steps, skip_idle=False)


def test_a_guest_that_never_boots_is_named_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it has no time to."""
    monkeypatch.setattr(guest, "BOOTS_WITHIN_S", 0.5)
    with pytest.raises(SubjectFailed, match=r"did not say that it has started \(within 0 s\)"):
        run(tmp_path, [])


def test_a_file_that_is_not_a_kernel_is_named(tmp_path: Path) -> None:
    """QEMU's own words, those of a refusal, are in the message."""
    nothing = tmp_path / "vmlinuz-none"
    nothing.write_bytes(bytes(1 << 16))
    initrd = tmp_path / "initrd"
    initrd.write_bytes(b"")
    with pytest.raises(SubjectFailed, match=r"(?s)ended without last words.*kernel too old"):
        run_guest(Machine(nothing, initrd), tmp_path, lambda message: None)


_STARTS_A_GUEST = """
import sys
from pathlib import Path
from meshwake.clocks.guest.qemu import Machine, run_guest
kernel, image, directory = map(Path, sys.argv[1:])
run_guest(Machine(kernel, image), directory, lambda message: None)
"""


@pytest.fixture
def starter(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    kernel = find_kernel()
    assert kernel is not None
    argv = [
        sys.executable,
        "-c",
        _STARTS_A_GUEST,
        str(kernel.image),
        str(image(tmp_path, [])),
        str(tmp_path),
    ]
    with subprocess.Popen(argv) as process:
        yield process
        process.kill()
    (tmp_path / "guest.cpio").unlink()


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def awaited(what: str, there: Any) -> Any:
    deadline = Deadline(what, 60)
    while not (found := there()):
        deadline.pause(0.02)
    return found


def runs_qemu(pid: int) -> bool:
    try:
        return b"qemu-system" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_harness_that_is_killed_leaves_no_guest(
    tmp_path: Path, starter: subprocess.Popen[bytes]
) -> None:
    """kill -9 of the process that started it: QEMU is gone."""
    qemu = awaited("QEMU runs", lambda: next(filter(runs_qemu, children(starter.pid)), None))
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    awaited("QEMU has gone", lambda: not runs_qemu(qemu))
