"""A QEMU guest whose kernel is really suspended, or paused from outside: clock faults with nothing
faked inside.

No KVM, no root and no network are needed. Two things make it quick:

* a sleep of eight hours takes no time: QEMU itself runs with its vDSO rewritten (vdso.py), and
  while the guest sleeps the clock that QEMU reads, and with it the guest's battery-backed clock, is
  moved by eight hours; then it is woken;
* idle time is skipped: with -icount and sleep=off QEMU goes to the guest's next timer when the
  guest has nothing to do.

The guest runs its request by itself (init.py); the host only answers what a machine cannot do
to itself.

    channel       a serial port of its own, one JSON object a line; the guest speaks first
    guest sends   {"hello": 1, "kernel": ..., "sleeps": ...}    which version of this protocol it
                                                                speaks, and its kernel
                  {"ask": "suspend", "number": n, "lasts_ns": ...}   and then {"awake": n}; likewise
                                                                     s2idle
                  {"ask": "pause", "number": n, "lasts_ns": ...}     to be answered {"answer": n}
                                                                     when it runs again
                  {"done": {...}} or {"failed": {"exit_code": ..., "message": ...}}, its last words
                  anything else: passed on to the caller of run_guest

Limits: x86-64; the battery-backed clock shows whole seconds, so a kernel knows the length of its
sleep to a second. Hibernation is declined: a guest has no disk to be written to, and its kernel
would boot again.

The guest dies with the thread that runs it, also by kill -9 of the process; it leaves nothing
behind but the files `console.log` and `qemu.log`.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from qemu.qmp import ExecuteError, QMPClient, QMPError

from meshwake.clocks.guest.init import PROTOCOL
from meshwake.clocks.vdso.page import ClockPage, Launched, launch, unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject, MutableJsonObject, int_at
from meshwake.system.deadline import Deadline
from meshwake.system.process_stat import read_stat

QEMU = "qemu-system-x86_64"
CONSOLE_FILE, QEMU_LOG = "console.log", "qemu.log"
# Real time. A machine that emulates, and has others to do work for, is slow:
# each bound is some ten times what was seen.
BOOTS_WITHIN_S = float(os.environ.get("MESHWAKE_GUEST_BOOTS_WITHIN_S", "240"))
SLEEPS_WITHIN_S = 60.0
WAKES_WITHIN_S = 60.0
SPEAKS_WITHIN_S = float(os.environ.get("MESHWAKE_GUEST_SPEAKS_WITHIN_S", "300"))
_LAST_WORDS_WITHIN_S = 10.0
_S2IDLE_ENTERED_AFTER_S = 2.0
# /dev/kvm alone shows little: whether it works is tried (docs/adr/0006-no-kvm.md).
_KVM_TRIED_FOR_S = 10
# A guest that fills its console must not fill the disk.
_FILE_BYTES_MAX = 64 << 20
_CONSOLE_TAIL_LINES = 12
_CONSOLE_LOOKED_AT_BYTES = 32768
_TRANSLATED_MB = 128
_LEAST_WAIT_S = 0.001

Accelerator = Literal["tcg", "kvm"]


@dataclass(frozen=True)
class Machine:
    """What a guest is made of. `skip_idle`: idle time passes at once (only in emulation); else in
    real time. `s3`: the machine can suspend to RAM; without, its kernel has s2idle only."""

    kernel: Path
    initrd: Path
    memory_mb: int = 768
    skip_idle: bool = True
    s3: bool = True
    accelerator: Accelerator = "tcg"
    append: str = ""
    # Its time is one that we move while it runs (fleet.py): then no clock of it may be the
    # processor's own counter.
    moved_time: bool = False
    mac: str = ""  # of its network card, when it has one


@dataclass
class GuestCost:
    """What a guest cost: seconds of real time until it spoke and until it was gone, CPU seconds and
    memory of QEMU, and the real time of each fault from the question to the answer."""

    boot_s: float = 0.0
    real_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    faults_s: tuple[float, ...] = ()


def unavailable_here() -> list[str]:
    """Why no guest can be run on this machine."""
    reasons = []
    if reason := unsupported_here():
        reasons.append(reason)
    if shutil.which(QEMU) is None:
        reasons.append(
            f"{QEMU} is not on PATH; install it (Debian, Ubuntu: apt install "
            "--no-install-recommends qemu-system-x86)"
        )
    return reasons


@cache
def kvm_unavailable() -> str | None:
    """Why KVM cannot be used, or None. Tried, not assumed: a device file says little (containers,
    nested machines)."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened"
    command = [
        QEMU,
        "-M",
        "pc,accel=kvm",
        "-cpu",
        "host",
        "-nodefaults",
        "-display",
        "none",
        "-S",
        "-qmp",
        "stdio",
    ]
    quits = '{"execute":"qmp_capabilities"}{"execute":"query-kvm"}{"execute":"quit"}'
    try:
        tried = subprocess.run(
            command,
            input=quits,
            capture_output=True,
            text=True,
            timeout=_KVM_TRIED_FOR_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"QEMU does not start with it ({error})"
    if tried.returncode or '"enabled": true' not in tried.stdout:
        return f"QEMU does not start with it: {tried.stderr.strip()[-200:]}"
    return None


def run_guest(
    machine: Machine, directory: Path, take: Callable[[MutableJsonObject], None]
) -> GuestCost:
    """Runs a guest to its end. `take` gets each message of the guest that is not a request, `done`
    and `failed` included.

    `directory` gets its console and QEMU's complaints. Raises LabUnavailable when QEMU cannot be
    started, SubjectFailed when the guest panics, hangs, or ends without last words: with the tail
    of its console.
    """
    directory.mkdir(parents=True, exist_ok=True)
    host = Host(machine, directory, take)
    try:
        asyncio.run(host.run())
    finally:
        host.close()
    return host.cost


def command_line(
    machine: Machine, monitor: int, channel: int, cable: int | None = None
) -> list[str]:
    """QEMU with these sockets, which it inherits; `cable`: where its network card's frames go
    (hub.py)."""
    kvm = machine.accelerator == "kvm"
    accelerator = ["-accel", "kvm"] if kvm else ["-accel", f"tcg,tb-size={_TRANSLATED_MB}"]

    # With KVM the kernel would take its wall clock from the host's kernel, which is not moved: so
    # kvmclock is left out.
    processor = "host,-kvmclock,-kvmclock-stable-bit" if kvm else "max"
    skipping = ["-icount", "shift=2,sleep=off"] if machine.skip_idle and not kvm else []
    return [
        str(shutil.which(QEMU)),
        *("-M", "pc", "-cpu", processor, *accelerator, *skipping),
        *("-m", str(machine.memory_mb), "-smp", "1", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot"),
        *_network(machine, cable),
        # The battery-backed clock follows the wall clock that QEMU reads, which is ours.
        *("-rtc", "base=utc,clock=host"),
        # Without ACPI S3 the kernel offers s2idle only.
        *("-global", f"PIIX4_PM.disable_s3={int(not machine.s3)}"),
        *("-chardev", f"file,id=console,path={CONSOLE_FILE}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=channel,fd={channel}", "-serial", "chardev:channel"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-kernel", str(machine.kernel), "-initrd", str(machine.initrd)),
        *("-append", f"console=ttyS0 quiet no_console_suspend loglevel=4 panic=-1 rootfstype=ramfs "
          f"{_clocksource(machine)} {machine.append}".strip()),
    ]  # fmt: skip


def _network(machine: Machine, cable: int | None) -> list[str]:
    if cable is None:
        return ["-nic", "none"]
    card = f"virtio-net-pci,netdev=cable,mac={machine.mac},romfile="
    return ["-netdev", f"socket,id=cable,fd={cable}", "-device", card]


def _clocksource(machine: Machine) -> str:
    if machine.accelerator == "kvm":
        return "no-kvmclock"
    # QEMU takes the processor's counter from the real processor's, and every other clock from the
    # one that it reads.
    return "tsc=unstable clocksource=hpet" if machine.moved_time else "tsc=reliable"


class Host:
    """The host's side of one guest. `page`: the clocks that QEMU reads, when they are not its own
    alone."""

    def __init__(
        self,
        machine: Machine,
        directory: Path,
        take: Callable[[MutableJsonObject], None],
        page: ClockPage | None = None,
    ) -> None:
        self._machine, self._directory, self._take = machine, directory, take
        self._page = page or ClockPage("offset")
        self._cable: socket.socket | None = None
        self._moved_ns = 0
        self._process: Launched | None = None
        self._received: asyncio.Queue[MutableJsonObject] = asyncio.Queue()
        self._began_s = time.monotonic()
        self._ended = False
        self.cost = GuestCost()

    async def run(self) -> None:
        """From its start to its last message, and off."""
        monitor, channel = self._start()
        self._qmp = QMPClient("guest")
        reader, self._writer = await asyncio.open_connection(sock=channel)
        hearing = [
            asyncio.create_task(self._receive_channel(reader)),
            asyncio.create_task(self._receive_monitor(monitor)),
        ]
        try:
            await self._boot()
            await self._serve()
        except (QMPError, EOFError, OSError) as error:
            raise self._failure(
                f"could not be driven: QEMU's monitor has gone ({error})"
            ) from error
        finally:
            self._note_cost()
            self._kill()
            await self._hang_up(hearing)

    async def _hang_up(self, hearing: list[asyncio.Task[None]]) -> None:
        for task in hearing:
            task.cancel()
        await asyncio.gather(*hearing, return_exceptions=True)
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
        with suppress(QMPError, EOFError, OSError, TimeoutError):
            await asyncio.wait_for(self._qmp.disconnect(), _LAST_WORDS_WITHIN_S)

    def close(self) -> None:
        """Whatever happened, it is gone."""
        self._kill()
        self._page.close()

    # Starting

    def _start(self) -> tuple[socket.socket, socket.socket]:
        ours_monitor, monitor = socket.socketpair()
        ours_channel, channel = socket.socketpair()
        with monitor, channel:
            files = [
                monitor.fileno(),
                channel.fileno(),
                *([self._cable.fileno()] if self._cable else []),
            ]

            def prepare() -> None:
                for file in files:
                    os.set_inheritable(file, True)
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES_MAX, _FILE_BYTES_MAX))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

            self._process = launch(
                command_line(self._machine, *files),
                self._page,
                environment={"PATH": os.environ.get("PATH", ""), "HOME": str(self._directory)},
                directory=self._directory,
                log=self._directory / QEMU_LOG,
                before_exec=prepare,
            )
        ours_monitor.setblocking(False)
        ours_channel.setblocking(False)
        return ours_monitor, ours_channel

    async def _receive_channel(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                if line.endswith(b"\n"):
                    try:
                        self._received.put_nowait(json.loads(line))
                    except ValueError:
                        self._received.put_nowait({"garbled": line.decode(errors="replace")[:300]})
        self._received.put_nowait({"gone": "channel"})

    async def _receive_monitor(self, monitor: socket.socket) -> None:
        try:
            await self._qmp.connect(monitor)
            async for event in self._qmp.events:
                self._received.put_nowait({"monitor": event["event"], "data": event.get("data")})
        except (QMPError, EOFError, OSError):
            self._received.put_nowait({"gone": "monitor"})

    async def _boot(self) -> None:
        hello = await self._next(BOOTS_WITHIN_S, "did not say that it has started")
        if "hello" not in hello:
            raise self._failure(f"first sent {hello}, not hello")
        if hello["hello"] != PROTOCOL:
            raise HarnessFault(
                f"the guest speaks protocol {hello['hello']}, this host {PROTOCOL}; is the "
                "image old?"
            )
        self.cost.boot_s = time.monotonic() - self._began_s
        self._take(hello)

    # Serving

    async def _serve(self) -> None:
        while True:
            message = await self._next(SPEAKS_WITHIN_S, "sent nothing")
            if "ask" in message:
                began_s = time.monotonic()
                await self._do(message)
                self.cost.faults_s += (time.monotonic() - began_s,)
            else:
                self._take(message)
            if "done" in message or "failed" in message:
                self._ended = True
                return

    async def _do(self, request: JsonObject) -> None:
        lasts_ns = int_at(request, "lasts_ns")
        if request["ask"] == "suspend":
            await self._suspend(lasts_ns)
        elif request["ask"] == "s2idle":
            await self._suspend_to_idle(lasts_ns)
        elif request["ask"] == "pause":
            await self._pause(int_at(request, "number"), lasts_ns)
        else:
            raise LabUnavailable(
                f"a guest cannot {request['ask']}: it has suspend, s2idle and pause; "
                "hibernation needs a disk"
            )

    async def _suspend(self, lasts_ns: int) -> None:
        await self._await_monitor("SUSPEND", SLEEPS_WITHIN_S, "hangs on its way into suspend")
        self._move(lasts_ns)
        with suppress(ExecuteError):  # an alarm of its own has woken it when its clock moved
            await self._qmp.execute("system_wakeup")
        await self._await_awake("suspend")

    async def _suspend_to_idle(self, lasts_ns: int) -> None:
        """Nothing reports that the kernel sleeps so; a byte wakes it."""
        await asyncio.sleep(_S2IDLE_ENTERED_AFTER_S)
        self._move(lasts_ns)
        self._writer.write(b"\n")
        await self._await_awake("s2idle")

    async def _pause(self, number: int, lasts_ns: int) -> None:
        await self._qmp.execute("stop")
        self._move(lasts_ns)
        await self._qmp.execute("cont")
        self._writer.write(json.dumps({"answer": number}).encode() + b"\n")
        await self._writer.drain()

    def _move(self, by_ns: int) -> None:
        """The clock that QEMU reads is moved; its own waits (monotonic) are not."""
        self._moved_ns += by_ns
        self._page.set(ClockReading(self._moved_ns, 0, self._moved_ns))

    async def _await_monitor(self, event: str, within_s: float, otherwise: str) -> None:
        await self._await(
            lambda message: message.get("monitor") == event,
            within_s,
            f"{otherwise}; awaited was {event}",
        )

    async def _await_awake(self, sleep: str) -> None:
        await self._await(
            lambda message: "awake" in message, WAKES_WITHIN_S, f"does not wake from {sleep}"
        )

    async def _await(
        self, wanted: Callable[[MutableJsonObject], bool], within_s: float, otherwise: str
    ) -> None:
        deadline = Deadline(otherwise, within_s)
        # At least a moment: wait_for looks into the queue only when it may wait.
        while not wanted(await self._next(max(deadline.remaining_s, _LEAST_WAIT_S), otherwise)):
            pass

    async def _next(self, within_s: float, otherwise: str) -> MutableJsonObject:
        """The next message of the guest that matters. What it sent before it went off comes
        first."""
        try:
            while True:
                message = await asyncio.wait_for(self._received.get(), within_s)
                if message.get("gone") == "channel":
                    raise self._failure("ended without last words")
                if message.get("monitor") == "SHUTDOWN" or message.get("gone") == "monitor":
                    within_s, otherwise = _LAST_WORDS_WITHIN_S, "went off, and QEMU did not end"
                elif message.get("monitor") in (None, "SUSPEND"):
                    return message
        except TimeoutError as error:
            raise self._failure(f"{otherwise} (within {within_s:.0f} s)") from error

    # Ending

    def _failure(self, what: str) -> SubjectFailed:
        lines = self._last_lines(CONSOLE_FILE)
        console = "\n".join(lines)
        named = "its kernel panicked: " if "Kernel panic" in console else ""
        if "out of memory" in console.lower():
            named = f"it ran out of its {self._machine.memory_mb} MB of memory: "
        decisive = [line for line in lines[:-_CONSOLE_TAIL_LINES] if "Kernel panic" in line]
        shown = [*decisive, *lines[-_CONSOLE_TAIL_LINES:]] or self._last_lines(QEMU_LOG)
        output = "\n".join(shown) or "nothing"
        place = self._directory / CONSOLE_FILE
        return SubjectFailed(
            f"the guest {what}; {named}the end of its console ({place}):\n{output}"
        )

    def _last_lines(self, name: str) -> list[str]:
        path = self._directory / name
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _CONSOLE_LOOKED_AT_BYTES, 0))
            return file.read().decode(errors="replace").replace("\r", "").strip().splitlines()

    def _note_cost(self) -> None:
        self.cost.real_s = time.monotonic() - self._began_s
        if self._process is None:
            return
        stat = read_stat(self._process.pid)
        if stat is not None:
            ticks = stat.user_ticks + stat.system_ticks
            self.cost.cpu_s = ticks / os.sysconf("SC_CLK_TCK")
        with suppress(OSError, IndexError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            self.cost.memory_mb = int(status.partition("VmHWM:")[2].split()[0]) / 1024

    def _kill(self) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._process.pid, 0)
        self._process = None
