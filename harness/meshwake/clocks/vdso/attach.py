"""Attaches the clocks of a running process to a clock page, and detaches them (Linux, x86-64, root
or the same user).

Problem: the ztunnels, istiods and Envoys of a cluster were started by the kubelet, in containers
that see neither our files nor our processes, and must not be restarted: what is tested is what a
jump does to a program that has its time base already.

Idea: the same page and the same jumps as in page.py, written while every thread of the process is
stopped.

    the page       handed over by SCM_RIGHTS: the process is made to open a pair of sockets, we
                   fetch one of them by pidfd_getfd and send the page's file through it. No path is
                   needed that both can see, so it works across mount, network and process
                   namespaces, and all processes of a node share one page.
    the jumps      five bytes at the beginning of three functions of the vDSO. A thread that is
                   within them is stepped on; where a signal handler may return into them, all run
                   on for a moment and it is tried again. Elsewhere in the vDSO a thread finishes
                   its reading on the old code, and does no harm.
    our calls      run on a stack of ours in the process (goroutines have too little), with all
                   signals waiting.

`detach` restores the kernel's bytes; they are those of our own vDSO, which is the same code in
every process. The page stays where it is, unused, because a signal handler may still return into
it.

Every piece of work is done by a short-lived child of ours with a time limit (`_run_in_child`): when
it ends, for whatever reason, the kernel lets everything run on that it had stopped, and when *we*
are killed, it still finishes. Were it killed itself in the middle of an injected call, it would
leave that thread astray; a call takes some 100 us.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meshwake.clocks.vdso.code_x86_64 import JUMP_BYTES, KIND_OFFSET, KINDS
from meshwake.clocks.vdso.image import PAGE_BYTES, Vdso, vdso_of
from meshwake.clocks.vdso.page import (
    PAGE_NAME,
    ClockPage,
    Launched,
    attaching_unsupported_here,
    map_page,
    read_inside,
)
from meshwake.clocks.vdso.ptrace import Tracee, every_thread_stopped
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessError, HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.json_types import MutableJsonObject
from meshwake.system.deadline import Deadline
from meshwake.system.libc import duplicate_file_of

ATTACHED_WITHIN_S = 5.0
# The child's own time limit is so much later, and that of our wait for its answer twice as much: so
# that the error that names the reason comes first.
_CHILD_SPARE_S = 2.0
_RETRY_AFTER_S = 0.001
_POLL_EVERY_S = 0.002
# A signal's frame with all registers of the widest vector units (AVX-512 and AMX: some 11 KiB) is
# well within this much of the stack.
_SIGNAL_FRAMES_BYTES = 32768
# include/uapi/asm-generic/mman-common.h: MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE.
_MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE = 0x2 | 0x20 | 0x10_0000
# include/linux/socket.h: MSG_DONTWAIT (it must not hang in a call that is ours), MSG_CMSG_CLOEXEC.
_MSG_DONTWAIT_CMSG_CLOEXEC = 0x40 | 0x4000_0000
# Columns of /proc/PID/maps, proc(5): addresses, permissions, offset, device, inode, name.
_MAPS_ADDRESSES, _MAPS_INODE = 0, 4
# An instruction has at least one byte, so a thread within a jump's bytes has left them after as
# many steps.
_STEPS_OUT_MAX = JUMP_BYTES + 1
# What is written to the spare page for recvmsg, and where: recvmsg(2), cmsg(3). First two ints, the
# numbers of a pair of sockets.
_SOCKET_PAIR = struct.Struct("<ii")
# struct msghdr of a 64-bit machine: name and its length (with padding), iovec and how many, control
# data and its length, flags (with padding).
_MESSAGE = struct.Struct("<QIxxxxQQQQIxxxx")
_IOVEC = struct.Struct("<QQ")  # address and length
# struct cmsghdr with one file descriptor: length, level, type, descriptor.
_CONTROL = struct.Struct("<Qiii")
# Each begins well behind the end of the one before, at a multiple of eight, as the kernel's
# structures are aligned.
_MESSAGE_AT, _IOVEC_AT, _CONTROL_AT, _BYTE_AT = 64, 128, 192, 256
_DESCRIPTOR_BYTES = 4

Meanwhile = Callable[[], None]


@dataclass(frozen=True)
class PageInside:
    """A clock page found in a process: its inode, where it is mapped, and whether the process's
    clocks are sent to it (after `detach` it is there unused)."""

    inode: int
    base: int
    in_use: bool

    def map_file(self, pid: int) -> Path:
        """Opens as the page's file, for root: so a page outlives the process that made it."""
        return Path(f"/proc/{pid}/map_files/{self.base:x}-{self.base + PAGE_BYTES:x}")


def page_inside(pid: int) -> PageInside | None:
    """The clock page that process `pid` has, the one in use when it has several. Raises
    LabUnavailable for a process that has no vDSO, SubjectFailed when it is not there."""
    found = _pages_inside(pid)
    return next((page for page in found if page.in_use), found[0] if found else None)


def _pages_inside(pid: int) -> list[PageInside]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        spans = [line.split() for line in lines if f"/memfd:{PAGE_NAME}" in line]
        if not spans:
            return []
        target = vdso_of(pid).jumps_to()
    except (OSError, IndexError) as error:
        raise SubjectFailed(f"the memory of process {pid} cannot be read: {error}") from error
    pages = []
    for columns in spans:
        base = int(columns[_MAPS_ADDRESSES].split("-")[0], 16)
        in_use = target is not None and base <= target < base + PAGE_BYTES
        pages.append(PageInside(int(columns[_MAPS_INODE]), base, in_use))
    return pages


def attach(
    pid: int,
    page: ClockPage,
    within_s: float = ATTACHED_WITHIN_S,
    meanwhile: Meanwhile = lambda: None,
) -> Launched:
    """From now on all clocks of the running process `pid` are those of `page` (offset mode); done
    already, nothing is changed, and a page of an earlier helper is replaced.

    Raises LabUnavailable when this system or process does not allow it (then nothing was changed),
    SubjectFailed when its threads could not be stopped in time: try again. `meanwhile` is called
    again and again while it lasts.
    """
    reason = attaching_unsupported_here()
    if reason is not None:
        raise LabUnavailable(reason)
    if page.mode != "offset":
        raise HarnessFault(
            "a running process can only be attached to a page in offset mode: its clocks "
            "must not leap"
        )
    inside = page_inside(pid)
    if inside is not None and inside.in_use and inside.inode == page.inode:
        return _described(pid, page, inside.base)
    base = _run_in_child(
        lambda: _attach(pid, page, within_s), within_s, meanwhile, f"attaching process {pid}"
    )
    return _described(pid, page, base)


def detach(
    pid: int, within_s: float = ATTACHED_WITHIN_S, meanwhile: Meanwhile = lambda: None
) -> bool:
    """The clocks of process `pid` are the kernel's again; False when they were so already. Errors
    as for `attach`."""
    inside = page_inside(pid)
    if inside is None or not inside.in_use:
        return False
    _run_in_child(lambda: _detach(pid, within_s), within_s, meanwhile, f"detaching process {pid}")
    return True


def read_attached(
    process: Launched, within_s: float = ATTACHED_WITHIN_S, meanwhile: Meanwhile = lambda: None
) -> ClockReading:
    """The three clocks as the attached process sees them (`read_inside`), in bounded time."""
    read = _run_in_child(
        lambda: list(read_inside(process)),
        within_s,
        meanwhile,
        f"reading the clocks of process {process.pid}",
    )
    return ClockReading(*read)


def install_stopped(tracee: Tracee, page: ClockPage) -> Launched:
    """As `attach`, for a process that the caller traces and has stopped before its first
    instruction; it stays so."""
    return _described(tracee.pid, page, _install(tracee, page, _originals()))


def _described(pid: int, page: ClockPage, base: int) -> Launched:
    return Launched(
        pid,
        page,
        vdso_of(pid).clock_gettime,
        base + page.code.trap_offset,
        stack_address=base + 2 * PAGE_BYTES,
    )


def _originals() -> Vdso:
    """Our own vDSO, which is unchanged: the same code in every 64-bit process of this machine."""
    own = vdso_of(os.getpid())
    if own.jumps_to() is not None:
        raise LabUnavailable(
            "the clocks of the helper itself are moved; it must run under the kernel's own"
        )
    return own


def _attach(pid: int, page: ClockPage, within_s: float) -> int:
    originals = _originals()
    with _safe_to_patch(pid, originals, within_s) as tracee:
        return _install(tracee, page, originals)


def _detach(pid: int, within_s: float) -> None:
    originals = _originals()
    with every_thread_stopped(pid, within_s) as threads:
        for address, original in _entry_bytes(vdso_of(pid), originals).items():
            threads[0].write(address, original)


def _entry_bytes(vdso: Vdso, originals: Vdso) -> dict[int, bytes]:
    """Address in the process to the kernel's own bytes there, of all that is ever replaced."""
    names = [
        name for name in ("clock_gettime", "gettimeofday", "time") if name in originals.entries
    ]
    return {
        vdso.begin + originals.entries[name]: originals.image[originals.entries[name] :][
            :JUMP_BYTES
        ]
        for name in names
    }


@contextmanager
def _safe_to_patch(pid: int, originals: Vdso, within_s: float) -> Iterator[Tracee]:
    """A thread of the process, all of whose threads are stopped where no jump can be written under
    their feet."""
    deadline = Deadline(f"process {pid} to stop where it can be changed", within_s)
    while True:
        with every_thread_stopped(pid, deadline.remaining_s) as threads:
            within = _addresses_within(_entry_bytes(vdso_of(pid), originals))
            for thread in threads:
                _step_out(thread, within)
            if not any(_returns_into(thread, within) for thread in threads):
                yield threads[0]
                return
        if deadline.has_passed:
            raise SubjectFailed(
                f"a signal handler of process {pid} kept returning into its vDSO for {within_s} s"
            )
        deadline.sleep(_RETRY_AFTER_S)


def _addresses_within(entries: Mapping[int, bytes]) -> frozenset[int]:
    """Where a thread would find half a jump: at the first byte of an entry it finds a whole one."""
    return frozenset(entry + offset for entry in entries for offset in range(1, JUMP_BYTES))


def _step_out(thread: Tracee, within: frozenset[int]) -> None:
    for _ in range(_STEPS_OUT_MAX):
        if thread.at not in within:
            return
        thread.step()
    raise SubjectFailed(
        f"thread {thread.pid} could not be stepped out of the beginning of a vDSO function"
    )


def _returns_into(thread: Tracee, within: frozenset[int]) -> bool:
    """Whether the frame of a signal on its stack names one of these addresses."""
    stack = thread.stack(_SIGNAL_FRAMES_BYTES)
    return any(address.to_bytes(8, "little") in stack for address in within)


def _install(tracee: Tracee, page: ClockPage, originals: Vdso) -> int:
    vdso = vdso_of(tracee.pid)
    _refuse_a_strange_vdso(tracee, vdso, originals)
    base = _page_mapped_before(tracee.pid, page) or _hand_over(tracee, vdso, page)
    for address, jump in vdso.jumps(page.code, base).items():
        tracee.write(address, jump)
    return base


def _refuse_a_strange_vdso(tracee: Tracee, vdso: Vdso, originals: Vdso) -> None:
    """Only known bytes may be replaced: the kernel's own, or a jump to a page of an earlier
    helper."""
    entries = _entry_bytes(vdso, originals)
    image = bytearray(vdso.image)
    for address, original in entries.items():
        image[address - vdso.begin : address - vdso.begin + JUMP_BYTES] = original
    target = vdso.jumps_to()
    if bytes(image) != originals.image or (target is None and vdso.image != originals.image):
        raise LabUnavailable(
            f"the vDSO of process {tracee.pid} is not the kernel's: another tool has "
            "changed it; remove that first"
        )
    if target is None:
        return
    kind = tracee.read(target - target % PAGE_BYTES + KIND_OFFSET, len(KINDS["offset"]))
    if kind != KINDS["offset"]:
        raise LabUnavailable(
            f"the clocks of process {tracee.pid} are moved by another program (page of "
            f"kind {kind!r}); end that first"
        )


def _page_mapped_before(pid: int, page: ClockPage) -> int | None:
    return next((inside.base for inside in _pages_inside(pid) if inside.inode == page.inode), None)


def _hand_over(tracee: Tracee, vdso: Vdso, page: ClockPage) -> int:
    """Maps the page, and a page of memory of ours behind it, into the stopped process; returns
    where."""
    base = vdso.free_pages(2)
    spare = base + PAGE_BYTES
    _injected(
        tracee,
        vdso,
        "mmap",
        spare,
        PAGE_BYTES,
        mmap.PROT_READ | mmap.PROT_WRITE,
        _MAP_PRIVATE_ANONYMOUS_FIXED_NOREPLACE,
        -1,
        0,
    )
    try:
        file = _received(tracee, vdso, page, spare)
        try:
            return map_page(tracee, vdso, file, base)
        finally:
            tracee.system_call(vdso.gadget, "close", file)
    except BaseException:
        tracee.system_call(vdso.gadget, "munmap", spare, PAGE_BYTES)
        raise


def _received(tracee: Tracee, vdso: Vdso, page: ClockPage, spare: int) -> int:
    """The page's file, open in the stopped process for reading; `spare` is memory in it that we may
    write."""
    _injected(
        tracee,
        vdso,
        "socketpair",
        socket.AF_UNIX,
        socket.SOCK_DGRAM | socket.SOCK_CLOEXEC,
        0,
        spare,
    )
    ours, theirs = _SOCKET_PAIR.unpack(tracee.read(spare, _SOCKET_PAIR.size))
    try:
        _send_file(tracee.pid, ours, page)
        _write_message(tracee, spare)
        _injected(tracee, vdso, "recvmsg", theirs, spare + _MESSAGE_AT, _MSG_DONTWAIT_CMSG_CLOEXEC)
        control = tracee.read(spare + _CONTROL_AT, _CONTROL.size)
        length, level, kind, file = _CONTROL.unpack(control)
        expected = (socket.CMSG_LEN(_DESCRIPTOR_BYTES), socket.SOL_SOCKET, socket.SCM_RIGHTS)
        if (length, level, kind) != expected:
            raise LabUnavailable(
                f"process {tracee.pid} could not receive the page's file: has it reached its "
                "limit of open files, or does a security module forbid it?"
            )
        return int(file)
    finally:
        tracee.system_call(vdso.gadget, "close", ours)
        tracee.system_call(vdso.gadget, "close", theirs)


def _write_message(tracee: Tracee, spare: int) -> None:
    """For recvmsg: no name; one iovec of one byte; control data of one file descriptor."""
    control_bytes = socket.CMSG_SPACE(_DESCRIPTOR_BYTES)
    message = _MESSAGE.pack(0, 0, spare + _IOVEC_AT, 1, spare + _CONTROL_AT, control_bytes, 0)
    tracee.write(spare + _MESSAGE_AT, message)
    tracee.write(spare + _IOVEC_AT, _IOVEC.pack(spare + _BYTE_AT, 1))


def _send_file(pid: int, their_socket: int, page: ClockPage) -> None:
    process = os.pidfd_open(_process_of(pid))
    try:
        number = duplicate_file_of(process, their_socket)
    except OSError as error:
        raise LabUnavailable(
            f"a socket of process {pid} could not be fetched: {error.strerror}; "
            "pidfd_getfd needs Linux 5.6 and the right to trace (CAP_SYS_PTRACE)"
        ) from error
    finally:
        os.close(process)
    read_only = os.open(f"/proc/self/fd/{page.file}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with socket.socket(fileno=number) as ours:
            ours.sendmsg(
                [b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [read_only]))]
            )
    finally:
        os.close(read_only)


def _process_of(tid: int) -> int:
    """The process of a thread (its first thread may have ended)."""
    for line in Path(f"/proc/{tid}/status").read_text().splitlines():
        if line.startswith("Tgid:"):
            return int(line.split()[1])
    raise SubjectFailed(f"thread {tid} has ended")


def _injected(tracee: Tracee, vdso: Vdso, name: str, *arguments: int) -> int:
    result = tracee.system_call(vdso.gadget, name, *arguments)
    if result < 0:
        raise LabUnavailable(
            f"process {tracee.pid} may not call {name}: {os.strerror(-result)}; does its "
            "seccomp profile forbid it?"
        )
    return result


def _run_in_child(work: Callable[[], Any], within_s: float, meanwhile: Meanwhile, what: str) -> Any:
    """What `work` returns (JSON), done in a child of ours that is ended when it takes too long."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child_main(work, within_s + _CHILD_SPARE_S, writer)
    os.close(writer)
    child = os.pidfd_open(pid)
    try:
        answer = _collect(reader, Deadline(what, within_s + 2 * _CHILD_SPARE_S), meanwhile)
    finally:
        os.close(reader)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(child, signal.SIGKILL)
        os.close(child)
        with suppress(ChildProcessError):  # an ExecWatch waits for all that the caller has
            os.waitpid(pid, 0)
    if not answer:
        raise SubjectFailed(
            f"{what} did not end within {within_s + _CHILD_SPARE_S} s; everything runs on"
        )
    outcome = json.loads(answer)
    if "result" in outcome:
        return outcome["result"]
    raise _ERRORS.get(outcome["error"], HarnessFault)(outcome["message"])


_ERRORS: dict[str, type[HarnessError]] = {
    "LabUnavailable": LabUnavailable,
    "SubjectFailed": SubjectFailed,
}


def _child_main(work: Callable[[], Any], within_s: float, writer: int) -> None:
    """The child's side; never returns. The alarm ends it when it hangs, also when its parent
    has been killed."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, within_s)
        _close_watches()
        outcome: MutableJsonObject = {"result": work()}
    except (LabUnavailable, SubjectFailed) as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    except BaseException as error:  # noqa: BLE001  # a child that must not return, whatever happened
        outcome = {"error": "HarnessFault", "message": f"{type(error).__name__}: {error}"}
    try:
        os.write(writer, json.dumps(outcome).encode())
    finally:
        os._exit(0)


def _close_watches() -> None:
    """Should our parent be killed, an exec that waits for its answer must not wait for us."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(entry.readlink()) == "anon_inode:[fanotify]":
                os.close(int(entry.name))


def _collect(reader: int, deadline: Deadline, meanwhile: Meanwhile) -> bytes:
    answer = b""
    while not deadline.has_passed:
        if select.select([reader], [], [], _POLL_EVERY_S)[0]:
            piece = os.read(reader, 65536)
            if not piece:
                break
            answer += piece
        meanwhile()
    return answer
