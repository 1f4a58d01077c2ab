"""The first program in a guest: it makes a Linux of a bare kernel, and moves the guest's clocks for
real.

Imports nothing but the standard library, `clock_reading`, `deadline` and `libc`, so that it says
hello seconds after the kernel began. Then it does what the request in the initramfs says, by
itself: a question to the host costs time that may not be skipped.

    /meshwake/request.json   {"do": "clocks", "steps": [...]}   measure what clock faults do
                                                                (`Measuring`)
                             {"do": "timers", "programs": ...}  when the timers of programs end
                                                                (`Timers`)
                             {"do": "program", "argv": [...]}   run a program, which inherits the
                                                                channel (the lab)

The channel to the host is a serial port of its own: lines of JSON, as
clocks/guest/qemu.py describes. Suspending is requested of the host too, since a machine
that sleeps cannot wake itself at a time that is not its own.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import termios
import time
import traceback
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypedDict

from meshwake.core.clock_reading import ClockReading
from meshwake.core.json_types import JsonObject, text_at
from meshwake.system.deadline import Deadline
from meshwake.system.libc import (
    ADJ_FREQUENCY,
    ADJ_OFFSET_SINGLESHOT,
    ADJ_TICK,
    adjtimex,
    load_module,
    mount,
    power_off,
)

PROTOCOL = 1
# The second serial port; the first is the console.
CHANNEL = "/dev/ttyS1"
_TEMPORARY = "/tmp"  # noqa: S108  # of the guest, which has no other user
CHANNEL_VARIABLE = "MESHWAKE_CHANNEL"
REQUEST = Path("/meshwake/request.json")
_NS_PER_S = 1_000_000_000
# include/uapi/linux/sockios.h: sets the flags of a network device; netdevice(7).
_SIOCSIFFLAGS = 0x8914
# struct ifreq: the name of a device in 16 bytes, then its flags, padded to the 40 bytes of the
# union.
_DEVICE_FLAGS = struct.Struct("16sH22x")
# include/uapi/linux/if.h.
_IFF_UP = 1
# include/uapi/asm-generic/ioctls.h, include/uapi/linux/serial.h (TIOCSER_TEMT): whether the
# transmitter of a serial port is empty. TIOCOUTQ counts only what the driver still has.
_TIOCSERGETLSR = 0x5459
_TRANSMITTER_EMPTY = 1
_AN_INT = struct.Struct("i")
_STATE = Path("/sys/power/state")
# What "mem" in /sys/power/state means: "s2idle" or "deep", which is suspend to RAM
# (Documentation/admin-guide/pm/sleep-states.rst).
_MEM_SLEEP = Path("/sys/power/mem_sleep")
# A serial port wakes a machine only where that is switched on.
_SERIAL_WAKES = Path("/sys/class/tty/ttyS1/power/wakeup")
_RTC = Path("/sys/class/rtc/rtc0")

# What a kernel does by itself while no program does anything, several times a second: compacting
# memory, checking whether a page should be huge, counting, watching for hangs, writing to a disk
# that is not there. Nothing of it is about time, and in an idle hour of an emulated machine it is
# most of the work.
_HOUSEKEEPING_OFF = {
    "/proc/sys/vm/compaction_proactiveness": "0",
    "/sys/kernel/mm/transparent_hugepage/enabled": "never",
    "/proc/sys/vm/stat_interval": "86400",
    "/proc/sys/vm/dirty_writeback_centisecs": "0",
    "/proc/sys/kernel/watchdog": "0",
}


class GuestRequest(TypedDict, total=False):
    """What a guest is started for. `do` "clocks": `steps`; "timers": `programs` and `faults`, each a
    list of steps; anything else: the program `argv`."""

    do: str
    steps: list[JsonObject]
    programs: dict[str, list[str]]
    faults: list[list[JsonObject]]
    argv: list[str]
    environment: dict[str, str]


def kernel_clocks() -> ClockReading:
    """The three clocks of this kernel, now."""
    return ClockReading(
        time.clock_gettime_ns(time.CLOCK_REALTIME),
        time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    )


class Channel:
    """The guest's end of the line to the host.

    A program that waits for the host must not sleep: where idle time is skipped, the emulator then
    goes from timer to timer as fast as it can, and the wait seems to last for minutes. (A serial
    port writes byte after byte, and of single bytes a socket holds fewer than three hundred. A host
    that was slow to read, on a busy machine, once cost 366 s.)"""

    def __init__(self, file: int) -> None:
        self._file, self._requests = file, 0
        os.set_blocking(file, False)

    @classmethod
    def open(cls) -> Channel:
        """The serial port, set to carry bytes as they are."""
        file = os.open(CHANNEL, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(file)
        return cls(file)

    @property
    def file(self) -> int:
        """For a program that is to inherit it."""
        return self._file

    def send(self, **message: Any) -> None:
        """Sends a message; returns when it is on its way."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        while data:
            with suppress(BlockingIOError):
                data = data[os.write(self._file, data) :]

    def ask(self, what: str, **arguments: Any) -> None:
        """Requests something of the host, and returns when it is about to do it."""
        self._requests += 1
        self.send(ask=what, number=self._requests, **arguments)
        self.drain()

    def drain(self) -> None:
        """Returns when all that was sent has left the machine."""
        while (
            self._read_number(termios.TIOCOUTQ)
            or not self._read_number(_TIOCSERGETLSR) & _TRANSMITTER_EMPTY
        ):
            pass

    def _read_number(self, request: int) -> int:
        return int(_AN_INT.unpack(fcntl.ioctl(self._file, request, bytes(_AN_INT.size)))[0])

    def send_awake(self) -> None:
        """Reports that the sleep which was requested last is over. (The host cannot know it: what
        it sends before the serial port has been woken is lost.)"""
        self.send(awake=self._requests)

    def drop_what_has_come(self) -> None:
        """The byte that woke us is not an answer."""
        termios.tcflush(self._file, termios.TCIFLUSH)

    def await_answer(self) -> None:
        """Returns when the host reports that it has done what was requested last."""
        answer = b""
        while not answer.endswith(b"\n"):
            with suppress(BlockingIOError):
                answer += os.read(self._file, 4096)
        if json.loads(answer) != {"answer": self._requests}:
            raise RuntimeError(f"the host answered {answer!r} to request {self._requests}")


class GuestClocks:
    """Moves the clocks of the kernel that this runs on: the contract of clocks/virtual.py, for
    real."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @staticmethod
    def offered() -> str:
        """The ways of sleeping that the kernel offers, such as "s2idle [deep]"."""
        return _MEM_SLEEP.read_text().strip() if _MEM_SLEEP.exists() else ""

    def suspend(self, lasts_ns: int) -> None:
        """The kernel sleeps, to RAM; returns when it is awake."""
        self._choose_suspend_to_ram()
        self._channel.ask("suspend", lasts_ns=lasts_ns)
        _STATE.write_text("mem")
        self._channel.send_awake()

    def suspend_on_request(self) -> None:
        """The same where the host requested it, and wakes it when it likes."""
        self._choose_suspend_to_ram()
        _STATE.write_text("mem")
        self._channel.send_awake()

    def _choose_suspend_to_ram(self) -> None:
        if "deep" not in self.offered():
            raise RuntimeError(
                "this kernel offers no suspend to RAM (mem_sleep: "
                f"{self.offered() or 'nothing'}); its s2idle "
                "leaves the monotonic clock running where no idle driver stops it, which "
                "is not a suspend for a timer"
            )
        _MEM_SLEEP.write_text("deep")

    def suspend_to_idle(self, lasts_ns: int) -> None:
        """The other sleep (s2idle): processes are frozen and the machine idles until a byte comes
        from the host. What that does to the clocks depends on the idle driver; measure it."""
        _SERIAL_WAKES.write_text("enabled")
        self._channel.ask("s2idle", lasts_ns=lasts_ns)
        _STATE.write_text("freeze")
        self._channel.drop_what_has_come()
        self._channel.send_awake()

    def pause(self, lasts_ns: int) -> None:
        """The whole machine is paused from outside; none of its clocks has moved when this
        returns."""
        self._channel.ask("pause", lasts_ns=lasts_ns)
        self._channel.await_answer()

    @staticmethod
    def step(by_wall_ns: int) -> None:
        """The wall clock is set, as `date -s` or a guest agent does."""
        time.clock_settime_ns(
            time.CLOCK_REALTIME, time.clock_gettime_ns(time.CLOCK_REALTIME) + by_wall_ns
        )

    @staticmethod
    def set_from_rtc() -> None:
        """The wall clock is set to what the machine's own clock shows, as `hwclock --hctosys`
        does."""
        shown_s = int((_RTC / "since_epoch").read_text())
        time.clock_settime_ns(time.CLOCK_REALTIME, shown_s * _NS_PER_S)

    @staticmethod
    def set_tick(microseconds: int) -> None:
        """The length of a tick (10000 us is right): how chrony and ntpd make a clock run at another
        rate."""
        adjtimex(ADJ_TICK | ADJ_FREQUENCY, tick_us=microseconds)

    @staticmethod
    def slew(by_us: int) -> None:
        """The kernel's own slow correction of the wall clock (adjtime), at most 500 us a second."""
        adjtimex(ADJ_OFFSET_SINGLESHOT, offset_us=by_us)


class Measuring:
    """What a list of steps does to the clocks: each is reported with the readings before and
    after it."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._clocks = channel, GuestClocks(channel)

    def run(self, steps: list[JsonObject]) -> None:
        """A step: {"do": name, ...}; names are those of the methods below."""
        for step in steps:
            before = kernel_clocks()
            self.do(step)
            self._channel.send(measured=step, before=before, after=kernel_clocks())

    def do(self, step: JsonObject) -> None:
        """One step."""
        arguments = {key: value for key, value in step.items() if key != "do"}
        self._acts()[text_at(step, "do")](**arguments)

    def _acts(self) -> dict[str, Callable[..., None]]:
        clocks = self._clocks
        return {
            "idle": lambda lasts_ns: time.sleep(lasts_ns / _NS_PER_S),
            "suspend": clocks.suspend,
            "s2idle": clocks.suspend_to_idle,
            "pause": clocks.pause,
            "step": clocks.step,
            "set_from_rtc": clocks.set_from_rtc,
            "tick": clocks.set_tick,
            "slew": clocks.slew,
            "panic": self._panic,
            "fill_memory": _fill_memory,
            "hang_in_suspend": self._hang_in_suspend,
        }

    def _panic(self) -> None:
        self._channel.drain()
        _write("/proc/sysrq-trigger", "c")

    def _hang_in_suspend(self) -> None:
        """For tests of the host: announces a sleep, and then does not sleep."""
        self._channel.ask("suspend", lasts_ns=_NS_PER_S)
        while True:
            pass


class Timers:
    """When the timers of other programs end, if a fault of the clocks comes while they wait. Each
    program writes a line when it begins to wait and another when its wait has ended."""

    _ENDS_WITHIN_S = 4 * 3600
    _FAULT_AFTER_S = 60

    def __init__(self, channel: Channel, programs: dict[str, list[str]]) -> None:
        self._channel, self._programs, self._guest = channel, programs, GuestClocks(channel)

    def run(self, faults: list[list[JsonObject]]) -> None:
        """All programs at once, restarted for each fault; a fault is a list of steps as of
        `Measuring`."""
        for number, steps in enumerate(faults):
            lines = self._start()
            armed = self._next_line(lines)
            time.sleep(self._FAULT_AFTER_S)
            before = kernel_clocks()
            for step in steps:
                Measuring(self._channel).do(step)
            after = kernel_clocks()
            ended = self._next_line({name: lines[name] for name in armed})
            for name in self._programs:
                self._channel.send(
                    timer=name,
                    fault=number,
                    armed=armed.get(name),
                    before=before,
                    after=after,
                    ended=ended.get(name),
                )
            for program in self._running:
                program.kill()
                program.wait()

    def _start(self) -> dict[str, IO[bytes]]:
        self._running = []
        lines = {}
        for name, argv in self._programs.items():
            program = subprocess.Popen(
                argv,
                stdout=subprocess.PIPE,
                env={"PATH": "/usr/bin", "HOME": _TEMPORARY},
                cwd=_TEMPORARY,
            )
            self._running.append(program)
            assert program.stdout is not None
            lines[name] = program.stdout
        return lines

    def _next_line(self, lines: dict[str, IO[bytes]]) -> dict[str, ClockReading]:
        """When each of them wrote a line; those that ended without one are missing."""
        seen = {}
        with selectors.DefaultSelector() as selector:
            for name, file in lines.items():
                selector.register(file, selectors.EVENT_READ, name)
            deadline = Deadline("the programs' waits to end", self._ENDS_WITHIN_S)
            while selector.get_map() and not deadline.has_passed:
                for key, _ in selector.select(600):
                    if os.read(key.fd, 4096):
                        seen[key.data] = kernel_clocks()
                    selector.unregister(key.fileobj)
        return seen


def _fill_memory() -> None:
    held = []
    while True:
        held.append(b"." * (1 << 24))


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


# --- A Linux made of a bare kernel ----------------------------------------------------------------


def prepare() -> None:
    """File systems, loopback, modules, and a kernel that panics rather than linger when memory runs
    out."""
    for kind, place in (
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", _TEMPORARY),
        ("tmpfs", "/run"),
    ):
        Path(place).mkdir(exist_ok=True)
        try:
            mount(kind, place)
        except OSError as error:
            if error.errno != errno.EBUSY:  # the kernel has mounted it already
                raise
    _write("/proc/sys/vm/panic_on_oom", "1")
    for setting, value in _HOUSEKEEPING_OFF.items():
        if Path(setting).exists():  # not every kernel has all of them
            _write(setting, value)
    _loopback_up()
    for module in sorted(Path("/meshwake/modules").glob("*.ko")):
        _load(module)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _DEVICE_FLAGS.pack(b"lo", _IFF_UP))


def _load(module: Path) -> None:
    with module.open("rb") as file:
        try:
            load_module(file.fileno())
        except OSError as error:
            error.add_note(f"the kernel does not take its module {module.name}")
            raise


def main() -> None:
    """Process 1. Never returns: when all is done, the machine goes off."""
    try:
        prepare()
        channel = Channel.open()
    except BaseException:  # noqa: BLE001  # only the console can show it
        traceback.print_exc()
        _power_off()
    try:
        channel.send(
            hello=PROTOCOL,
            kernel=os.uname().release,
            sleeps=GuestClocks.offered(),
            booted_ns=kernel_clocks()[1],
        )
        _serve(json.loads(REQUEST.read_text()), channel)
    except BaseException:  # noqa: BLE001  # whatever it was, the host must learn of it
        channel.send(failed={"exit_code": 5, "message": traceback.format_exc()})
    channel.drain()
    _power_off()


def _serve(request: GuestRequest, channel: Channel) -> None:
    if request["do"] == "clocks":
        Measuring(channel).run(request["steps"])
        channel.send(done={})
        return
    if request["do"] == "timers":
        Timers(channel, request["programs"]).run(request["faults"])
        channel.send(done={})
        return
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": _TEMPORARY,
        CHANNEL_VARIABLE: str(channel.file),
        **request["environment"],
    }
    program = subprocess.Popen(
        request["argv"], env=environment, pass_fds=[channel.file], cwd=_TEMPORARY
    )
    while True:
        pid, status = os.wait()  # also the orphans that process 1 inherits
        if pid == program.pid:
            break
    if status:
        channel.send(
            failed={
                "exit_code": 5,
                "message": f"{request['argv'][0]} ended in the guest, status {status:#x}",
            }
        )


def _power_off() -> None:
    os.sync()
    power_off()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    if os.getpid() != 1:
        sys.exit("this is the first program of a guest; see harness/meshwake/clocks/guest/qemu.py")
    main()
