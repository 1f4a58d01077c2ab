"""The arguments of QEMU, and the message of a failure; no guest is started here
(tests/conformance/test_guest.py does)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from meshwake.clocks.guest import qemu as guest
from meshwake.clocks.guest.qemu import (
    CONSOLE_FILE,
    Machine,
    command_line,
    kvm_unavailable,
    unavailable_here,
)
from meshwake.clocks.vdso.page import unsupported_here
from meshwake.core.errors import SubjectFailed

pytestmark = pytest.mark.skipif(bool(unsupported_here()), reason=str(unsupported_here()))
MACHINE = Machine(Path("/k/vmlinuz"), Path("/k/initrd"))


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something on PATH that bears its name."""
    program = tmp_path / "bin" / guest.QEMU
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


def arguments(machine: Machine) -> str:
    return " ".join(command_line(machine, 3, 4))


def host(directory: Path) -> Any:
    made = guest.Host(MACHINE, directory, lambda message: None)
    made._page.close()
    return made


def test_a_guest_has_no_network_and_no_disk(qemu: Path) -> None:
    """Nothing that it does can reach out."""
    assert "-nic none" in arguments(MACHINE)
    assert "-drive" not in arguments(MACHINE)


def test_idle_time_is_skipped_in_emulation_only(qemu: Path) -> None:
    """KVM cannot."""
    assert "-icount" in arguments(MACHINE)
    assert "-icount" not in arguments(Machine(MACHINE.kernel, MACHINE.initrd, skip_idle=False))
    assert "-icount" not in arguments(Machine(MACHINE.kernel, MACHINE.initrd, accelerator="kvm"))


def test_with_kvm_the_guest_has_no_clock_of_the_hosts_kernel(qemu: Path) -> None:
    """It would show a time that was not moved."""
    line = arguments(Machine(MACHINE.kernel, MACHINE.initrd, accelerator="kvm"))
    assert "-kvmclock" in line
    assert "no-kvmclock" in line


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that brings it."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert "apt install --no-install-recommends qemu-system-x86" in unavailable_here()[0]


def test_kvm_is_tried_not_assumed(qemu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device file alone is not enough."""
    monkeypatch.setattr("meshwake.clocks.guest.qemu.os.access", lambda *_: True)
    kvm_unavailable.cache_clear()
    try:
        assert str(kvm_unavailable()).startswith("QEMU does not start with it")
    finally:
        kvm_unavailable.cache_clear()


@pytest.mark.parametrize(
    ("console", "named"),
    [
        ("Kernel panic - not syncing: sysrq triggered crash", "its kernel panicked: "),
        (
            "Kernel panic - not syncing: Out of memory: compulsory panic_on_oom",
            "it ran out of its 768 MB of memory: ",
        ),
    ],
)
def test_a_failure_says_what_decided_it(tmp_path: Path, console: str, named: str) -> None:
    """Also when many lines came after it."""
    trace = "\n".join(f"line {number}" for number in range(40))
    (tmp_path / CONSOLE_FILE).write_text(f"{console}\n{trace}\n")
    message = str(host(tmp_path)._failure("ended without last words"))
    assert named in message
    assert console in message
    assert "line 39" in message


def test_messages_before_the_end_are_read(tmp_path: Path) -> None:
    """QEMU's monitor may report the end first."""
    made = host(tmp_path)

    async def receive() -> dict[str, Any]:
        received: list[dict[str, Any]] = [
            {"monitor": "SHUTDOWN"},
            {"gone": "monitor"},
            {"measured": {}},
        ]
        for message in [*received, {"gone": "channel"}]:
            made._received.put_nowait(message)
        first: dict[str, Any] = await made._next(5, "sent nothing")
        with pytest.raises(SubjectFailed, match="ended without last words"):
            await made._next(5, "sent nothing")
        return first

    assert asyncio.run(receive()) == {"measured": {}}


def test_a_silent_guest_is_named_within_its_bound(tmp_path: Path) -> None:
    """With what was awaited."""
    made = host(tmp_path)
    with pytest.raises(SubjectFailed, match=r"the guest sent nothing \(within 0 s\)"):
        asyncio.run(made._next(0.01, "sent nothing"))
