"""Several guests, each a machine of its own that sleeps or is paused by itself, on one network
(hub.py) and in one time.

Problem: with idle time skipped by the emulator (-icount), each guest leaps over its own idle time,
and two of them have nothing left in common. Idea: QEMU is a program with timers. All clocks of a
guest but one (the processor's own counter, which its kernel is configured not to use) come from the
clock that QEMU reads, and that is on a page of ours (vdso/page.py). So all QEMUs share one page.
While any of them does something, time passes as it does, for all; when *all* are quiescent, the
page goes on, for all at once, to the earliest moment at which one of them has something to do:

    quiescent  every thread of every QEMU sleeps, so every guest is idle; no frame is in the hub,
               no message unread; and no thread has run meanwhile (polled as in
               quiescence/detector.py)
    deadline   the timeout that QEMU's main loop has handed to ppoll, counted from when it was
               first seen asleep
    wake       SIGALRM to the main loop, which has it in a signalfd and no use for it: it then
               reads its timers

A guest that is suspended or stopped is not polled. Its battery-backed clock goes on with the page,
as that of a real one does, so its kernel learns by itself how long it has slept. With `skip=False`
time passes as it does, and KVM will do.

Guests do what they are ordered over their channel (labs/machine/guest_agent.py says what):
{"order": n, "do": ..., ...} is answered by {"answer": n, "result": ...}; what else they send goes
to `receive`.

One thread: nothing moves, and no frame is passed on, but within a call of Fleet. Every wait has a
bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError

from meshwake.clocks.guest.hub import Hub
from meshwake.clocks.guest.qemu import SLEEPS_WITHIN_S, WAKES_WITHIN_S, Host, Machine
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.page import ClockPage
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_MS, NS_PER_S
from meshwake.core.errors import HarnessFault, SubjectFailed
from meshwake.core.json_types import JsonObject, MutableJsonObject, int_at, text_at
from meshwake.system.deadline import Deadline
from meshwake.system.libc import signal_thread, system_call_number

ANSWERS_WITHIN_S = float(os.environ.get("MESHWAKE_GUEST_SPEAKS_WITHIN_S", "300"))
QUIET_WITHIN_S = 120.0
_TIMERS_READ_WITHIN_S = 10.0
# How far the time that a guest counts may be from that of all: something for a busy machine, and
# for each sleep the second that a battery-backed clock does not show.
_APART_MAX_NS, _SLEEP_KNOWN_TO_NS = NS_PER_S, 3 * NS_PER_S // 2
_PAUSE_S = 0.0002
_REAL_PAUSE_S = 0.001
_LONGEST_WAIT_S = 0.2
_LEAP_MIN_NS = NS_PER_MS // 5
# As /proc/PID/task/TID/syscall shows them. QEMU of x86-64 guests runs on x86-64 only.
_POLL = str(system_call_number("poll", "x86_64")).encode()
_PPOLL = str(system_call_number("ppoll", "x86_64")).encode()
# poll(fds, nfds, timeout) and ppoll(fds, nfds, timespec, sigmask): behind the number of the call
# the third argument. That of poll is an int of milliseconds, below zero for ever; that of ppoll
# points to a struct timespec: seconds and nanoseconds, 64 bits each.
_TIMEOUT_ARGUMENT = 3
_INT_MASK = 0xFFFF_FFFF
_NEGATIVE_INT = 0x8000_0000
_TIMESPEC = struct.Struct("<qq")
# From a byte in a socket to a message in a queue: select, a reader woken, its task run.
_TURNS_OF_THE_LOOP = 3

_T = TypeVar("_T")


class Guest(Host):
    """One guest of a fleet."""

    def __init__(
        self, name: str, machine: Machine, directory: Path, page: ClockPage, hub: Hub | None
    ) -> None:
        super().__init__(machine, directory, lambda message: None, page)
        self.name, self.away = (
            name,
            False,
        )  # away: suspended or stopped, so it neither works nor waits
        self.answers: dict[int, MutableJsonObject] = {}
        self.suspended = self.awake = False
        self._cable = hub.add(name) if hub else None
        self._orders = 0
        self._hearing: list[asyncio.Task[None]] = []
        self._memory = -1
        self.due_ns: int | None = (
            None  # when QEMU wants to be woken, as of the last `sleeps`; None: by nothing
        )

        # What the kernel counts of its main loop (it changes when it has run), and when it was
        # first seen so.
        self._slept_since: tuple[bytes, int] = (b"", 0)
        self._ahead_ns: int | None = (
            None  # its boottime, of the time that all share, when it was first read
        )
        self._stopped_ns = self._sleeps = self._stopped_since_ns = 0
        self._woken_at: tuple[bytes, float] = (b"", 0.0)

    async def boot(self) -> None:
        """Starts it; returns at its first word."""
        try:
            monitor, channel = self._start()
        finally:
            if self._cable is not None:
                self._cable.close()
        assert self._process is not None
        self.watched = WatchedProcess(
            self._process.pid, f"guest {self.name}", waits_virtually=False
        )
        self._memory = os.open(f"/proc/{self._process.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._qmp = QMPClient(self.name)
        reader, self._writer = await asyncio.open_connection(sock=channel)
        self._hearing = [
            asyncio.create_task(self._receive_channel(reader)),
            asyncio.create_task(self._receive_monitor(monitor)),
        ]
        await self._boot()

    def send(self, do: str, arguments: JsonObject) -> int:
        """Orders something; returns the number that its answer will bear."""
        self._orders += 1
        order = {"order": self._orders, "do": do} | dict(arguments)
        self._writer.write(json.dumps(order, separators=(",", ":")).encode() + b"\n")
        return self._orders

    def take(self) -> list[MutableJsonObject]:
        """What has come that is neither an answer nor an event of the machine itself. Raises
        SubjectFailed when it has gone, or reports that it failed."""
        messages = []
        while not self._received.empty():
            message = self._received.get_nowait()
            if message.get("gone") == "channel":
                raise self._failure("ended without last words")
            if "failed" in message:
                raise SubjectFailed(
                    f"in guest {self.name}: {text_at(message, 'failed', 'message')}"
                )
            if "answer" in message:
                self.answers[int_at(message, "answer")] = message
            elif "awake" in message:
                self.awake = True
            elif message.get("monitor") == "SUSPEND":
                self.suspended = True
            elif "monitor" not in message and "gone" not in message:
                messages.append(message)
        return messages

    async def monitor(self, command: str) -> None:
        """Sends QEMU a command."""
        try:
            await self._qmp.execute(command)
        except ExecuteError:
            if command != "system_wakeup":  # an alarm of its own has woken it
                raise
        except (QMPError, EOFError, OSError) as error:
            raise self._failure(
                f"could not be driven: QEMU's monitor has gone ({error})"
            ) from error

    # Does its time go with that of the others?

    def note_sleep(self) -> None:
        """It has been suspended: of the length its kernel knows whole seconds."""
        self._sleeps += 1

    def note_stopped(self, now_ns: int) -> None:
        """It has been stopped: until it goes on, its clocks stop."""
        self._stopped_since_ns = now_ns

    def note_goes_on(self, now_ns: int) -> None:
        """See `note_stopped`."""
        self._stopped_ns += now_ns - self._stopped_since_ns

    def check_time(self, clocks: ClockReading, sent_at_ns: int, answered_at_ns: int) -> None:
        """Raises SubjectFailed when its kernel counts another time than all guests share: then what
        happens in it happens at a wrong moment, and no verdict may rest on it."""
        counted_ns = clocks.boottime_ns + self._stopped_ns
        if self._ahead_ns is None:
            self._ahead_ns = counted_ns - answered_at_ns
        allowed_ns = _APART_MAX_NS + self._sleeps * _SLEEP_KNOWN_TO_NS
        apart_ns = counted_ns - self._ahead_ns - answered_at_ns
        if not sent_at_ns - answered_at_ns - allowed_ns <= apart_ns <= allowed_ns:
            raise SubjectFailed(
                f"the clocks of guest {self.name} are {apart_ns / NS_PER_S:+.1f} s off the "
                "time that all guests share, "
                f"expected was at most {allowed_ns / NS_PER_S:.1f} s; run it again when "
                "this machine is less busy, or "
                "let no time be skipped (MESHWAKE_MACHINE_TIME=real)"
            )

    # Is it idle, and until when?

    def sleeps(self, now_ns: int) -> bool:
        """Whether every thread of QEMU sleeps, and its main loop has run since it was last woken;
        notes until when."""
        if not self.watched.asleep(0):  # also when it has ended: its channel reports that
            return False
        ran = self._main_loop("schedstat")
        if ran == self._woken_at[0]:
            if time.monotonic() > self._woken_at[1] + _TIMERS_READ_WITHIN_S:
                raise HarnessFault(
                    f"QEMU of guest {self.name} does not read its timers when it is woken"
                )
            return False
        if ran != self._slept_since[0]:
            self._slept_since = (ran, now_ns)
        return self._note_due()

    def _note_due(self) -> bool:
        """Notes when QEMU wants to be woken. Says whether it waits at all."""
        call = self._main_loop("syscall").split()
        if call[0] == _POLL:
            timeout_ms = int(call[_TIMEOUT_ARGUMENT], 16) & _INT_MASK
            timeout_ns = None if timeout_ms >= _NEGATIVE_INT else timeout_ms * NS_PER_MS
        elif call[0] == _PPOLL:
            timeout_ns = self._timespec_ns(int(call[_TIMEOUT_ARGUMENT], 16))
        else:
            return False
        self.due_ns = None if timeout_ns is None else self._slept_since[1] + timeout_ns
        return True

    def _timespec_ns(self, address: int) -> int | None:
        if not address:
            return None
        seconds, nanoseconds = _TIMESPEC.unpack(os.pread(self._memory, _TIMESPEC.size, address))
        return int(seconds * NS_PER_S + nanoseconds)

    def wake_timers(self) -> None:
        """Makes QEMU read its timers."""
        assert self._process is not None
        self._woken_at = (self._main_loop("schedstat"), time.monotonic())
        signal_thread(self._process.pid, self._process.pid, signal.SIGALRM)

    def _main_loop(self, file: str) -> bytes:
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/task/{self._process.pid}/{file}").read_bytes()

    # The end

    def _failure(self, what: str) -> SubjectFailed:
        return super()._failure(f"{self.name} {what}")

    async def hang_up(self) -> None:
        """Kills it, and stops reading from it."""
        self._note_cost()
        self._kill()
        if self._hearing:
            await self._hang_up(self._hearing)

    def close(self) -> None:
        """See Host. The page is not its own."""
        self._kill()
        if self._memory >= 0:
            self.watched.close()
            os.close(self._memory)
            self._memory = -1


class Fleet:
    """See above. `receive` takes what a guest sends by itself, with the guest's name. Without
    `cards` they have no network."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        directory: Path,
        receive: Callable[[str, MutableJsonObject], None],
        *,
        skip: bool = True,
        cards: bool = True,
    ) -> None:
        self._receive, self._skip = receive, skip
        self._page, self._moved_ns = ClockPage("offset"), 0
        self._hub = Hub()
        self.leaps = 0
        self._loop = asyncio.new_event_loop()
        self._guests: dict[str, Guest] = {}
        for name, machine in machines.items():
            place = directory / name
            place.mkdir(parents=True, exist_ok=True)
            self._guests[name] = Guest(
                name, machine, place, self._page, self._hub if cards else None
            )

    @property
    def now_ns(self) -> int:
        """The time that all guests share; only differences mean anything."""
        return time.monotonic_ns() + self._moved_ns

    def boot(self) -> None:
        """Starts all guests; returns when each has reported that it is there. Time is not skipped
        yet."""
        self._run(self._boot())

    def order(self, guest: str, do: str, /, **arguments: Any) -> Any:
        """Has a guest do something, and returns what it answers."""
        return self.order_each({guest: (do, arguments)})[guest]

    def order_each(self, orders: Mapping[str, tuple[str, JsonObject]]) -> MutableJsonObject:
        """The same of several guests at a time."""
        numbers = {name: self._guests[name].send(*order) for name, order in orders.items()}
        for name, number in numbers.items():
            self._run(self._answer(self._guests[name], number, orders[name][0]))
        return {
            name: self._guests[name].answers.pop(number).get("result")
            for name, number in numbers.items()
        }

    def clocks(self, name: str) -> ClockReading:
        """What the clocks of a guest show. Raises SubjectFailed when they do not go with those of
        the others."""
        sent_at_ns = self.now_ns
        shown = ClockReading(*self.order(name, "clocks"))
        self._guests[name].check_time(shown, sent_at_ns, self.now_ns)
        return shown

    def suspend(self, name: str) -> None:
        """The guest's kernel goes to sleep, to RAM; returns when it sleeps."""
        guest = self._guests[name]
        guest.suspended = guest.awake = False
        self.order(name, "suspend")
        failure = "hangs on its way into suspend; awaited was SUSPEND"
        self._run(self._until(lambda: guest.suspended, SLEEPS_WITHIN_S, guest, failure))
        guest.note_sleep()
        self._leave(guest)

    def wake(self, name: str) -> None:
        """It is woken; returns when it reports that it is awake."""
        guest = self._guests[name]
        self._come_back(guest)
        self._run(guest.monitor("system_wakeup"))
        self._run(
            self._until(lambda: guest.awake, WAKES_WITHIN_S, guest, "does not wake from suspend")
        )

    def stop(self, name: str) -> None:
        """Pauses the guest from outside; it does not notice."""
        guest = self._guests[name]
        self._run(guest.monitor("stop"))
        guest.note_stopped(self.now_ns)
        self._leave(guest)

    def go_on(self, name: str) -> None:
        """The reverse of `stop`."""
        guest = self._guests[name]
        self._come_back(guest)
        self._run(guest.monitor("cont"))
        guest.note_goes_on(self.now_ns)

    def is_asleep(self, name: str) -> bool:
        """Whether it is suspended or stopped."""
        return self._guests[name].away

    def pass_until(self, until_ns: int, unless: Callable[[], bool]) -> None:
        """Time passes until `now_ns` shows `until_ns`, or until `unless` returns True."""
        passed = lambda: self.now_ns >= until_ns or unless()  # noqa: E731
        self._run(self._until(passed, None, None, "", until_ns))

    def await_quiet(self) -> None:
        """Until no guest that is awake does anything. Nothing is skipped: what is under way comes
        to its end."""
        self._run(self._await_quiet())

    def costs(self) -> dict[str, MutableJsonObject]:
        """What each guest cost; known after `close`."""
        return {name: asdict(guest.cost) for name, guest in self._guests.items()}

    def close(self) -> None:
        """All guests are gone when this returns."""
        for guest in self._guests.values():
            with suppress(OSError, RuntimeError):
                self._run(guest.hang_up())
            guest.close()
        self._hub.close()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._page.close()

    # Inside

    def _run(self, what: Awaitable[_T]) -> _T:
        async def run() -> _T:
            return await what

        return self._loop.run_until_complete(run())

    async def _boot(self) -> None:
        booting = [asyncio.create_task(guest.boot()) for guest in self._guests.values()]
        try:
            await asyncio.gather(*booting)
        finally:
            for task in booting:
                task.cancel()

    async def _answer(self, guest: Guest, number: int, do: str) -> None:
        await self._until(
            lambda: number in guest.answers, ANSWERS_WITHIN_S, guest, f"did not answer to '{do}'"
        )

    async def _until(
        self,
        wanted: Callable[[], bool],
        within_s: float | None,
        guest: Guest | None,
        otherwise: str,
        until_ns: int | None = None,
    ) -> None:
        deadline = None if within_s is None else Deadline(otherwise, within_s)
        while not wanted():
            if deadline is not None and deadline.has_passed:
                assert guest is not None
                raise guest._failure(f"{otherwise} (within {within_s:.0f} s)")
            await self._go_on(until_ns)

    async def _go_on(self, until_ns: int | None) -> None:
        """One step: what has come is received; else time passes, or leaps when all is quiescent."""
        if await self._take_in():
            return
        if not self._skip:
            await asyncio.sleep(_REAL_PAUSE_S)
        elif await self._all_quiet():
            self._leap(until_ns)
        else:
            time.sleep(_PAUSE_S)  # noqa: ASYNC251  # the loop's own sleep is a millisecond at least

    async def _take_in(self) -> bool:
        moved = self._hub.carry()
        for _ in range(_TURNS_OF_THE_LOOP):
            await asyncio.sleep(0)
        for name, guest in self._guests.items():
            had = not guest._received.empty()
            for message in guest.take():
                self._receive(name, message)
            moved = moved or had
        return moved

    async def _all_quiet(self) -> bool:
        awake = [guest for guest in self._guests.values() if not guest.away]
        if not all(guest.sleeps(self.now_ns) for guest in awake):
            return False

        # What is carried between guests may wake one that slept when it was polled.
        received = await self._take_in()

        # Two passes make one moment of many polls: see quiescence/detector.py.
        return (
            not received
            and self._hub.is_idle
            and all(guest.watched.still_asleep() for guest in awake)
        )

    async def _await_quiet(self) -> None:
        deadline = Deadline("the guests to be quiescent", QUIET_WITHIN_S)
        while await self._take_in() or not await self._all_quiet():
            if deadline.has_passed:
                raise HarnessFault(f"the guests were not quiet within {QUIET_WITHIN_S:.0f} s")
            time.sleep(_PAUSE_S)  # noqa: ASYNC251  # as above

    def _leap(self, until_ns: int | None) -> None:
        dues = {
            guest: guest.due_ns
            for guest in self._guests.values()
            if not guest.away and guest.due_ns is not None
        }
        goals = [*dues.values(), *([until_ns] if until_ns is not None else [])]
        if not goals:
            time.sleep(_PAUSE_S)
            return
        if (by_ns := min(goals) - self.now_ns) > _LEAP_MIN_NS:
            self.leaps += 1
            self._moved_ns += by_ns
            self._page.set(ClockReading(self._moved_ns, self._moved_ns, self._moved_ns))
        now_ns = self.now_ns
        for guest, due_ns in dues.items():
            if due_ns <= now_ns:
                guest.wake_timers()

    def _leave(self, guest: Guest) -> None:
        guest.away = True
        self._hub.plug(guest.name, False)

    def _come_back(self, guest: Guest) -> None:
        guest.away = False
        self._hub.plug(guest.name, True)
