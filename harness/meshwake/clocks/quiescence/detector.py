"""Idle time skipped: is everything quiet, and until when does nobody want to do anything?

A ztunnel that waits twelve hours for its next renewal does nothing in between. If its clocks are
moved by twelve hours and it is made to look at them, the twelve hours have passed for it. That is
exact only when nothing was under way, so time may move only when the world is *quiet*:

    every thread of every process watched is asleep in the kernel   /proc/PID/task/TID/syscall does not say "running"
    no byte lies unsent in any socket, none unread                  netlink sock_diag, in every network namespace
    that somebody has not been given a moment to read
    nothing waits to be accepted, no connection is half open        the same
    what one end of a connection has sent, the other has received   the same: a packet on its way is in no socket
    no thread has run since it was first looked at                  the CPU time of its process, read before the threads
                                                                    and again after the sockets

The last line makes one moment of many looks: threads are looked at one after the other, and one may
hand its work to another that has been looked at already. When none has run between the first pass
and the second, there was a moment at which all slept, and all still slept while the sockets were
read. (Three looks in a row, without that line, make a wrong answer rare, not impossible.)

It also makes looks cheap: a process whose CPU time is what it was when all its threads were last
seen asleep need not be looked at again, unless something may have woken a thread of it that has not
run yet: a kick of ours, or a packet. (What else wakes a thread is its own timeout in real time; it
then finds nothing due.) A clock of the kernel that counts nanoseconds, and one system call, take
the place of five for every thread.

The next deadline is the earliest timeout that a thread has handed to epoll_wait, counted from the
virtual time at which it went to sleep; the kernel shows its arguments. Waiting threads do not
notice that their clock has moved: a process whose deadline has come is *kicked*: by its runtime's
own event (wakers.py), or by SIGSTOP and SIGCONT, which end epoll_wait with EINTR; tokio and Go then
look at their clocks again (measured; docs/time-skipping.md says for which programs that is true).

Threads that sleep in a real-time loop (nanosleep) are asleep for this purpose; their timeouts are
the kernel's.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from meshwake.clocks.quiescence.packets import Moved, watch_packets
from meshwake.clocks.quiescence.wakers import find_waker, wake
from meshwake.core.durations import NS_PER_MS
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed
from meshwake.system.libc import signal_thread, system_call_numbers

# Real time in which a busy world must fall quiet; a slow machine may need more.
QUIET_WITHIN_S = float(os.environ.get("MESHWAKE_QUIET_WITHIN_S", "60"))
LEFT_LYING_AFTER_S = 0.25


def _as_shown(*names: str) -> frozenset[bytes]:
    """Numbers of system calls as /proc/PID/task/TID/syscall shows them."""
    return frozenset(str(number).encode() for number in system_call_numbers(*names))


# To sleep in these is to wait for something to happen: first those whose timeouts are read.
_EPOLL_WAITS = _as_shown("epoll_wait", "epoll_pwait")
# Waited in too, but with a timeout in memory, which is not read: see Watched._waits.
_EPOLL_PWAIT2 = _as_shown("epoll_pwait2")
_WAITS = _EPOLL_WAITS | _as_shown(
    "poll",
    "ppoll",
    "select",
    "pselect6",
    "pause",
    "nanosleep",
    "clock_nanosleep",
    "wait4",
    "rt_sigtimedwait",
    "rt_sigsuspend",
    "futex",
    "restart_syscall",
)
_NOT_IN_A_CALL = b"-1"
_TIMEOUT_ARGUMENT = 4
_PAUSE_S = 0.0002
_SCHEDULED = (
    2  # of the clocks of a process: nanoseconds on a CPU (linux/posix-timers.h, CPUCLOCK_SCHED)
)
_LOOKS_BEFORE_A_PAUSE = 8


@dataclass(eq=False)
class _Thread:
    """One thread: files kept open, and the wait it was last seen in."""

    syscall_file: int
    schedstat_file: int
    stat_file: int
    call: bytes = b""  # the line of `syscall_file` that `timeout_ns` was read from
    timeout_ns: int | None = None
    due_for: bytes = b""  # what schedstat said when `due_monotonic_ns` was worked out: it changes when it has run
    due_monotonic_ns: int | None = None
    awake: bool = True  # when it was looked at last, or kicked since

    def close(self) -> None:
        os.close(self.syscall_file)
        os.close(self.schedstat_file)
        os.close(self.stat_file)


@dataclass
class Watched:
    """A process whose threads must be asleep before time moves. `waits_virtually`: its clocks are
    ours, so its timeouts are deadlines (a subject); otherwise it only has to be idle (the
    authority)."""

    pid: int
    name: str
    waits_virtually: bool = True
    stopped: bool = False  # frozen or asleep by a fault: neither busy nor waiting
    _threads: dict[str, _Thread] = field(default_factory=dict)
    _wakers: dict[bytes, int] = field(
        default_factory=dict
    )  # by the epoll that a thread waits in: see wakers.py
    _due_ns: int | None = None
    _looked_at_cpu_ns: int = -1  # its CPU time just before its threads were last looked at
    _asleep_at_cpu_ns: int = (
        -2
    )  # its CPU time when all of them slept; -2: not known, or something may have woken one

    def asleep(self, monotonic_now_ns: int) -> bool:
        """Whether every thread sleeps in the kernel; notes what each waits for."""
        self._asleep_at_cpu_ns = -2
        self._looked_at_cpu_ns = self._cpu_ns()
        try:
            # Who was awake when looked at last is looked at first: most looks at a busy process end
            # there.
            first = [one for one in self._threads.values() if one.awake]
            if not all(self._thread_asleep(one, monotonic_now_ns) for one in first):
                return False
            self._find_threads()
            rest = [one for one in self._threads.values() if one not in first]
            if not all(self._thread_asleep(one, monotonic_now_ns) for one in rest):
                return False
        except (FileNotFoundError, ProcessLookupError):
            self._forget()
            return False
        self._due_ns = min(
            [
                one.due_monotonic_ns
                for one in self._threads.values()
                if one.due_monotonic_ns is not None
            ],
            default=None,
        )
        return True

    def still_asleep(self, *, packets_moved: bool = True) -> bool:
        """Whether no thread has run since the last `asleep`, which said that all slept. Where no
        packet has moved, nobody can have woken a thread but one that has run."""
        if self._cpu_ns() != self._looked_at_cpu_ns or (packets_moved and self._woken()):
            return False
        self._asleep_at_cpu_ns = self._looked_at_cpu_ns
        return True

    def not_woken(self) -> bool:
        """Whether it is known without a look that every thread still sleeps, if no packet has come
        for it since."""
        return self._asleep_at_cpu_ns == self._cpu_ns()

    def _woken(self) -> bool:
        # A thread that has been woken and waits for a processor has used none yet, but reads
        # "running".
        try:
            return any(
                os.pread(one.syscall_file, 8, 0).startswith(b"running")
                for one in self._threads.values()
            )
        except (FileNotFoundError, ProcessLookupError):
            self._forget()
            return True

    def _cpu_ns(self) -> int:
        """The CPU time of all its threads, those that have ended too; -1: it is no more."""
        try:
            return time.clock_gettime_ns(~self.pid << 3 | _SCHEDULED)
        except OSError:
            return -1

    def check_alive(self) -> None:
        """Raises SubjectFailed when it has ended. (A process that has ended looks asleep.)"""
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                raise SubjectFailed(f"{self.name} ended by itself ({describe_end(status)})")

    def due_monotonic_ns(self) -> int | None:
        """The earliest deadline of any thread on its monotonic clock, as of the last `asleep`;
        None: it waits for ever."""
        return self._due_ns

    def kick(self, monotonic_now_ns: int) -> None:
        """Makes every thread whose deadline has come look at its clock again.

        A runtime of Rust has an event of its own in each epoll, with which its threads wake one
        that waits there: so do we. Else a stop signal is sent to the thread, which ends its
        epoll_wait with EINTR, and the continue signal that follows takes it back, as a rule before
        it has happened: a tenth of what it costs to stop all threads and wait until they stand.
        """
        self._asleep_at_cpu_ns = -2
        stopped = False
        for tid, thread in self._threads.items():
            if thread.due_monotonic_ns is not None and thread.due_monotonic_ns <= monotonic_now_ns:
                thread.awake = True
                if not self._wake(thread):
                    with suppress(ProcessLookupError):
                        signal_thread(self.pid, int(tid), signal.SIGSTOP)
                    stopped = True
        if stopped:
            os.kill(self.pid, signal.SIGCONT)

    def _wake(self, thread: _Thread) -> bool:
        epoll = thread.call.split(None, 2)[1]
        if epoll not in self._wakers:
            self._wakers[epoll] = find_waker(self.pid, int(epoll, 16))
        return self._wakers[epoll] >= 0 and wake(self._wakers[epoll])

    def stop(self) -> None:
        """Stops it as a freezer does; clocks are not touched."""
        os.kill(self.pid, signal.SIGSTOP)
        self._await_stop()
        self.stopped = True

    def resume(self) -> None:
        """The reverse of `stop`; also makes it look at its clocks."""
        self.stopped, self._asleep_at_cpu_ns = False, -2
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Lets go of the files; the process is not touched."""
        self._forget()

    def _await_stop(self) -> None:
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            raise SubjectFailed(f"{self.name} ended by itself ({describe_end(status)})")

    def _find_threads(self) -> None:
        if self._thread_count() == len(self._threads):
            return
        directory = f"/proc/{self.pid}/task"
        present = set(os.listdir(directory))  # noqa: PTH208  # as above
        if not present:
            raise ProcessLookupError
        for tid in self._threads.keys() - present:
            self._threads.pop(tid).close()
        for tid in sorted(present - self._threads.keys()):
            syscall_file = os.open(f"{directory}/{tid}/syscall", os.O_RDONLY | os.O_CLOEXEC)
            schedstat_file = os.open(f"{directory}/{tid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
            stat_file = os.open(f"{directory}/{tid}/stat", os.O_RDONLY | os.O_CLOEXEC)
            self._threads[tid] = _Thread(syscall_file, schedstat_file, stat_file)

    def _thread_count(self) -> int:
        return os.stat(f"/proc/{self.pid}/task").st_nlink - 2  # noqa: PTH116  # at every look: a Path costs more than the call

    def _thread_asleep(self, thread: _Thread, monotonic_now_ns: int) -> bool:
        call = os.pread(thread.syscall_file, 256, 0)
        thread.awake = False
        if call != thread.call:
            if call.startswith(b"running") or not self._waits(call, thread):
                thread.call, thread.awake = b"", True
                return False
            thread.call, thread.due_for, thread.due_monotonic_ns = call, b"", None
            thread.timeout_ns = _timeout_ns(call) if self.waits_virtually else None
        if thread.timeout_ns is not None:
            # Whether it still waits as it did, or has run and waits for as long again: its deadline
            # is another then.
            ran = os.pread(thread.schedstat_file, 128, 0)
            if ran != thread.due_for:
                thread.due_for, thread.due_monotonic_ns = ran, monotonic_now_ns + thread.timeout_ns
        return True

    def _waits(self, call: bytes, thread: _Thread) -> bool:
        """Whether what a thread sleeps in is a wait, and not work: a page being read from a slow
        disk, for example."""
        number = call.split(maxsplit=1)[0]
        if number in _EPOLL_PWAIT2 and self.waits_virtually:
            raise SubjectFailed(
                f"{self.name} waits with epoll_pwait2, whose deadline meshwake cannot read "
                "yet; please report it"
            )
        if number in _WAITS or number in _EPOLL_PWAIT2:
            return True
        state = os.pread(thread.stat_file, 1024, 0).rsplit(b")", 1)[-1].split()[0]
        return number != _NOT_IN_A_CALL and state == b"S"

    def _forget(self) -> None:
        for thread in self._threads.values():
            thread.close()
        self._threads.clear()
        for waker in self._wakers.values():
            if waker >= 0:
                os.close(waker)
        self._wakers.clear()
        self._due_ns = None


def _timeout_ns(call: bytes) -> int | None:
    """How long the wait is that a line of /proc/PID/task/TID/syscall tells of: number, six
    arguments, sp, pc. None: for ever, or no wait of ours."""
    words = call.split()
    if words[0] not in _EPOLL_WAITS:
        return None
    timeout_ms = int(words[_TIMEOUT_ARGUMENT], 16) & 0xFFFFFFFF
    return None if timeout_ms >= 0x80000000 else timeout_ms * NS_PER_MS


def describe_end(status: int) -> str:
    """A wait status in words."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"


@dataclass(frozen=True)
class TcpSocket:
    """What the kernel tells of one socket. `unread`: bytes, or for a listening one connections not
    yet accepted."""

    namespace: str
    ends: tuple[bytes, bytes]  # port and address of this end and of the other
    state: int
    unread: int
    unsent_bytes: int
    sent_bytes: int
    received_bytes: int
    has_info: bool  # a closed socket that the kernel only remembers (its state may read FIN_WAIT2) has none
    unacknowledged: int = 0  # packets

    @property
    def name(self) -> str:
        """The ports, for a message."""
        here, there = (struct.unpack(">H", end[:2])[0] for end in self.ends)
        return f"{self.namespace}: socket {here} to {there}"

    @property
    def connection(self) -> tuple[str, bytes, bytes]:
        """Names this end of the connection in the whole world; loopback means another place in each
        namespace."""
        loopback = self.ends[0][2:3] == b"\x7f" or self.ends[0][2:18] == bytes(15) + b"\x01"
        return (self.namespace if loopback else "", *self.ends)


_ESTABLISHED, _LISTEN = 1, 10
_IN_BETWEEN = {2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 9: "LAST_ACK", 11: "CLOSING"}
_TIME_WAIT, _CLOSE = 6, 7


class SocketsOfNamespace:
    """The TCP sockets of one network namespace, by netlink sock_diag. Made while inside the
    namespace."""

    _SOCK_DIAG = 4
    _TCPDIAG_GETSOCK = 18  # the older request: it walks the kernel's table once for both families
    _ERROR, _DONE = 2, 3
    _ANSWERS_WITHIN_S = 10.0
    _INFO = 2  # attribute: struct tcp_info
    _STATES = 0xFFF & ~(1 << _TIME_WAIT | 1 << _CLOSE)

    def __init__(self, name: str) -> None:
        self.name = name
        self._netlink = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, self._SOCK_DIAG
        )
        self._netlink.settimeout(self._ANSWERS_WITHIN_S)
        self.packets = watch_packets()

    def all(self) -> list[TcpSocket]:
        """Every socket that is not closed."""
        request = struct.pack(
            "<BBBB48xII", socket.AF_INET, 0, 0, 1 << (self._INFO - 1), self._STATES, 0
        )
        header = struct.pack("<IHHII", 16 + len(request), self._TCPDIAG_GETSOCK, 0x301, 0, 0)
        self._netlink.send(header + request)
        found: list[TcpSocket] = []
        while True:
            data = self._netlink.recv(1 << 18)
            position = 0
            while position < len(data):
                length, kind = struct.unpack_from("<IH", data, position)
                if kind in (self._ERROR, self._DONE):
                    self._check_code(data[position : position + length])
                    return found
                if kind == self._TCPDIAG_GETSOCK:
                    found.append(self._parse(data[position : position + length]))
                position += (length + 3) & ~3

    def close(self) -> None:
        """Lets go of the namespace."""
        self._netlink.close()
        self.packets.close()

    def _check_code(self, message: bytes) -> None:
        """An error, or the end of a list, carries a negative errno when the kernel cannot tell:
        then nothing is known about sockets, and an empty list must not be taken for quiet."""
        code = struct.unpack_from("<i", message, 16)[0] if len(message) >= 20 else 0
        if code < 0:
            raise LabUnavailable(
                f"this kernel does not tell about its TCP sockets ({os.strerror(-code)}); "
                "load its modules: sudo modprobe inet_diag tcp_diag"
            )

    def _parse(self, message: bytes) -> TcpSocket:
        """nlmsghdr (16), inet_diag_msg (72), attributes; tcp_info: unacked at 24, bytes_received at
        128, notsent_bytes at 144, bytes_sent at 200, bytes_retrans at 208 (linux/tcp.h)."""
        source, destination = message[24:40], message[40:56]
        ends = (message[20:22] + source, message[22:24] + destination)
        unsent, sent, received, unacknowledged, has_info = 0, 0, 0, 0, False
        position = 16 + 72
        while position + 4 <= len(message):
            length, kind = struct.unpack_from("<HH", message, position)
            if kind == self._INFO and length >= 4 + 216:
                unacknowledged = struct.unpack_from("<I", message, position + 4 + 24)[0]
                received = struct.unpack_from("<Q", message, position + 4 + 128)[0]
                unsent = struct.unpack_from("<I", message, position + 4 + 144)[0]
                all_sent, again = struct.unpack_from("<QQ", message, position + 4 + 200)
                sent, has_info = all_sent - again, True
            position += max((length + 3) & ~3, 4)
        unread = struct.unpack_from("<I", message, 72)[0]
        return TcpSocket(
            self.name, ends, message[17], unread, unsent, sent, received, has_info, unacknowledged
        )


def _on_its_way(sockets: Iterable[TcpSocket]) -> str | None:
    """A connection of one namespace that is half open or half closed, or bytes that have not left
    it."""
    for one in sockets:
        if one.state in _IN_BETWEEN:
            return f"{one.name} is in state {_IN_BETWEEN[one.state]}"
        if one.unsent_bytes:
            return f"{one.name} has {one.unsent_bytes} bytes unsent"
    return None


def _unread(sockets: Iterable[TcpSocket]) -> set[str]:
    """What lies in sockets of one namespace and waits to be taken."""
    return {
        f"{one.name} has {one.unread} "
        f"{'connections to accept' if one.state == _LISTEN else 'bytes unread'}"
        for one in sockets
        # The end of a stream counts as one unread byte until the socket is closed.
        if one.unread > (0 if one.state in (_ESTABLISHED, _LISTEN) else 1)
    }


def _under_way(sockets: Iterable[TcpSocket]) -> str | None:
    """Both ends of every connection are ours: what one end has sent the other must have received.
    (Acknowledgements would not do: they may be delayed by 40 ms of real time.)"""
    by_connection = {
        one.connection: one for one in sockets if one.has_info and one.state != _LISTEN
    }
    for (place, here, there), one in by_connection.items():
        other = by_connection.get((place, there, here))
        if other is None and one.state == _ESTABLISHED:
            return f"{one.name} does not know yet that its other end has gone"
        if other is not None and one.sent_bytes != other.received_bytes:
            return (
                f"{one.name} has sent {one.sent_bytes} bytes, of which {other.received_bytes} "
                "have arrived"
            )
    return None


class Stillness:
    """Says when the world is quiet. `drain` is called at every look and takes in what helpers have
    to say (it returns whether there was anything, and may raise, for example when requests never
    end)."""

    def __init__(self, drain: Callable[[], bool]) -> None:
        self.processes: dict[str, Watched] = {}
        self.sockets: dict[str, SocketsOfNamespace] = {}
        self._reader_of: dict[
            str, str
        ] = {}  # namespace to the process that reads there, where they differ in name
        self.looks = 0
        self._looked_at: list[Watched] = []
        self._drain = drain
        # While no packet has moved since a look that found the sockets empty, and all that was sent
        # acknowledged, nothing can lie in them now.
        self._packets = Moved()
        self._sockets_empty = False
        self._lying: set[str] = set()
        self._lying_since_s = 0.0  # real time
        self._left: set[str] = set()

    def close(self) -> None:
        """Lets go of all files; no process is touched."""
        for process in self.processes.values():
            process.close()
        for sockets in self.sockets.values():
            sockets.close()
        self._packets.close()

    def watch_namespace(self, name: str, reader: str) -> None:
        """The sockets of the network namespace that this thread is in; `reader` names the process
        that serves it."""
        self.forget_namespace(name)
        self.watch_sockets(name, SocketsOfNamespace(name))
        self._reader_of[name] = reader

    def watch_sockets(self, name: str, sockets: SocketsOfNamespace) -> None:
        """These too; the process of that name serves them."""
        self.sockets[name] = sockets
        self._packets.add(sockets.packets)
        self._sockets_empty = False

    def forget_namespace(self, name: str) -> None:
        """Its sockets are no longer looked at."""
        if name in self.sockets:
            self._packets.remove(self.sockets[name].packets)
            self.sockets.pop(name).close()
        self._sockets_empty = False

    def await_quiet(self, monotonic_now_ns: Callable[[Watched], int]) -> None:
        """Returns when the world is quiet. Raises HarnessFault naming what was busy when it never
        is."""
        give_up, looks = time.monotonic() + QUIET_WITHIN_S, 0
        while busy := self._disturbance(monotonic_now_ns):
            looks += 1
            if looks < _LOOKS_BEFORE_A_PAUSE:  # most are busy for a tenth of a millisecond
                os.sched_yield()
                continue
            if time.monotonic() > give_up:
                raise HarnessFault(
                    f"the world was not quiet within {QUIET_WITHIN_S:.0f} s; last seen busy: {busy}"
                )
            time.sleep(_PAUSE_S)

    def is_quiet(self, monotonic_now_ns: Callable[[Watched], int]) -> bool:
        """Whether the world is quiet now; does not wait for it."""
        return self._disturbance(monotonic_now_ns) is None

    def _disturbance(self, monotonic_now_ns: Callable[[Watched], int]) -> str | None:
        """Who is busy; None when nobody is, all live, and none has anything to say."""
        self.looks += 1
        if found := self._busy(monotonic_now_ns):
            return found
        if found := self._not_taken_yet():
            return found
        for (
            process
        ) in self._looked_at:  # one that has ended has run to its end, so it is among these
            process.check_alive()
        return "somebody was heard" if self._drain() else None

    def _busy(self, monotonic_now_ns: Callable[[Watched], int]) -> str | None:
        """Who does something, or whose bytes are on their way."""
        if self._drain():
            return "somebody was heard"
        running = self._running()
        self._looked_at = [process for process in running if not process.not_woken()]
        if found := self._first_awake(self._looked_at, monotonic_now_ns):
            return found
        if packets_moved := self._packets.since_last_asked() or not self._sockets_empty:
            # They may have woken somebody who has not run yet.
            self._sockets_empty = False
            self._looked_at = running
            if found := self._first_awake(running, monotonic_now_ns) or self._sockets_busy():
                return found
        for process in running:
            looked_at = packets_moved or process in self._looked_at
            if not (
                process.still_asleep(packets_moved=packets_moved)
                if looked_at
                else process.not_woken()
            ):
                return f"process {process.name} has run meanwhile"
        return None

    def _first_awake(
        self, processes: Iterable[Watched], monotonic_now_ns: Callable[[Watched], int]
    ) -> str | None:
        for process in processes:
            if not process.asleep(monotonic_now_ns(process)):
                process.check_alive()
                return f"process {process.name} runs"
        return None

    def _sockets_busy(self) -> str | None:
        everywhere: list[TcpSocket] = []
        unread: set[str] = set()
        for name, sockets in self.sockets.items():
            here = sockets.all()
            everywhere += here
            if found := _on_its_way(here):
                return found
            if not self._stopped(name):  # else nobody runs to read
                unread |= _unread(here)
        if found := _under_way(everywhere):
            return found
        self._note_unread(unread)
        # What is written while something is unacknowledged may be held back until it is (Nagle),
        # which no packet tells.
        held_back = any(one.unacknowledged for one in everywhere if one.state != _LISTEN)
        self._sockets_empty = not self._lying and not held_back
        return None

    def _note_unread(self, unread: set[str]) -> None:
        self._left &= unread
        if unread - self._left != self._lying:
            self._lying, self._lying_since_s = unread - self._left, time.monotonic()

    def _not_taken_yet(self) -> str | None:
        """Bytes that lie unread are on their way to somebody who is about to be woken, or to
        nobody: a ztunnel that waits for its certificate reads nothing of a handshake. Whoever waits
        for bytes is woken in the moment in which they arrive, so what lies there a while, and
        everybody sleeps, is left lying."""
        if not self._lying:
            return None
        if time.monotonic() - self._lying_since_s < LEFT_LYING_AFTER_S:
            return min(self._lying)
        self._left |= self._lying
        self._lying = set()
        return None

    def _running(self) -> list[Watched]:
        return [process for process in self.processes.values() if not process.stopped]

    def _stopped(self, namespace: str) -> bool:
        process = self.processes.get(self._reader_of.get(namespace, namespace))
        return process is not None and process.stopped
