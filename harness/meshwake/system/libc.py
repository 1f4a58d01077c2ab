"""The C library of this process, by ctypes: what Python 3.11 has no function for, and the numbers
it takes.

Problem: eleven modules each opened libc, and each had its own copy of the numbers of setns, tgkill
or prctl. A wrong one is not an error but another system call. Here every call is a function with
Python's arguments that raises OSError, and every number is here once, with the header that it is
from.

Paths of headers are those of the Linux sources: `include/uapi/linux/prctl.h` is installed as
`<linux/prctl.h>`. A manual page is named with its section: setns(2).

Limits: Linux only, though the module can be imported anywhere. It imports nothing but the standard
library, because it also runs where nothing else is: as part of the first program of a guest
(clocks/guest/init.py), and in the image of the helper of a node (clusters/helper/Dockerfile).
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

# None: the libc that this very process has loaded, whatever its file is called (glibc, musl).
# use_errno: ctypes keeps a copy of errno for each thread, which no Python code in between can
# change.
_libc = ctypes.CDLL(None, use_errno=True)


# --- Numbers of system calls ----------------------------------------------------------------------

# Name: (x86_64, aarch64). From arch/x86/entry/syscalls/syscall_64.tbl, and from
# include/uapi/asm-generic/unistd.h, which ARM64 uses as it is. None: the architecture does not have
# this call; ARM64 came late, and was given only the newest of each family.
_NUMBERS: dict[str, tuple[int, int | None]] = {
    # made by us, or injected into a stopped process
    "close": (3, 57),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "recvmsg": (47, 212),
    "socketpair": (53, 199),
    "clock_gettime": (228, 113),
    "tgkill": (234, 131),
    "finit_module": (313, 273),
    "pidfd_getfd": (438, 438),  # since 424 all architectures share the numbers of new calls
    # waits for events, whose timeout can be read from outside
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    # other calls in which a thread sleeps until something happens
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "wait4": (61, 260),
    "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133),
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    # what the kernel lets a thread call that goes on with a wait which a signal interrupted
    "restart_syscall": (219, 128),
}


def system_call_number(name: str, machine: str = "") -> int | None:
    """The number of a system call on `machine` (as `uname -m` names it; "": this one), None when
    that architecture does not have it. An architecture that is not in the table counts as x86_64:
    moving clocks is refused before any number is used."""
    x86_64, aarch64 = _NUMBERS[name]
    machine = machine or os.uname().machine
    if machine == "aarch64":
        return aarch64
    return x86_64


def system_call_numbers(*names: str) -> dict[int, str]:
    """Number to name on this machine, of those of `names` that it has."""
    found: dict[int, str] = {}
    for name in names:
        number = system_call_number(name)
        # arm64 began without the calls that newer ones replace, such as poll.
        if number is None:
            continue
        found[number] = name
    return found


def _system_call(name: str, *arguments: Any) -> int:
    """By syscall(2), for calls that an older libc has no function for."""
    number = system_call_number(name)
    assert number is not None, name
    return _checked(name, _libc.syscall(ctypes.c_long(number), *arguments))


def _checked(name: str, result: int) -> int:
    """Functions of libc answer -1 and leave the reason in errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


# --- Processes and threads ------------------------------------------------------------------------

# From include/uapi/linux/prctl.h; see prctl(2).
_PR_SET_PDEATHSIG = 1
# From include/uapi/linux/capability.h; see capabilities(7).
CAP_NET_ADMIN = 12


def die_with_parent(parent_pid: int) -> None:
    """The kernel kills this process when the *thread* that started it ends (prctl(2)), also when
    that has happened already: the parent may have died before prctl was called, and then no signal
    is ever sent. Hence `parent_pid`, which the caller has noted before its fork."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def signal_thread(pid: int, tid: int, number: int) -> None:
    """Sends a signal to one thread of a process. Raises ProcessLookupError when there is none of
    that number in it (any more): unlike kill(2), tgkill(2) is not fooled by a number used again."""
    _system_call("tgkill", pid, tid, int(number))


def duplicate_file_of(process: int, number: int) -> int:
    """A file of ours that is the same open file as `number` of the process behind the pidfd
    `process` (pidfd_getfd(2), Linux 5.6). Needs the right to trace it."""
    return _system_call("pidfd_getfd", process, number, 0)  # no flag is defined yet


# --- Namespaces -----------------------------------------------------------------------------------

# include/uapi/linux/sched.h; namespaces(7). Flags of unshare(2), kinds of setns(2).
CLONE_NEWNS = 0x0002_0000  # mounts: it was the first kind, hence the name
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWNET = 0x4000_0000


def unshare(flags: int) -> None:
    """Moves this thread into new namespaces of these kinds; for CLONE_NEWUSER the process must have
    no other thread."""
    _checked("unshare", _libc.unshare(flags))


def setns(namespace: int, kind: int) -> None:
    """Moves this thread into the namespace of the open file `namespace`, which must be of this
    kind."""
    _checked("setns", _libc.setns(namespace, kind))


# --- ptrace ---------------------------------------------------------------------------------------


def ptrace(request: int, pid: int, address: int = 0, data: Any = None) -> None:
    """One request that answers nothing but success. `data` is a number, or ctypes.byref of what the
    kernel reads or fills. Numbers of requests are in clocks/vdso/ptrace.py."""
    # Each argument is a whole register in the kernel; without a type ctypes would pass an int of 32
    # bits and leave the upper half as it happens to be.
    word = ctypes.c_void_p(data) if data is None or isinstance(data, int) else data
    arguments = (ctypes.c_long(request), ctypes.c_long(pid), ctypes.c_void_p(address), word)
    if _libc.ptrace(*arguments) < 0:
        number = ctypes.get_errno()
        reason = f"ptrace request {request:#x} on process {pid}: {os.strerror(number)}"
        raise OSError(number, reason)


# --- fanotify -------------------------------------------------------------------------------------

# include/uapi/linux/fcntl.h: paths are relative to the working directory, as everywhere
_AT_FDCWD = -100


def fanotify_init(flags: int, event_flags: int) -> int:
    """A fanotify file; flags as in the manual page, `event_flags` those of the files that come with
    events."""
    return _checked("fanotify_init", _libc.fanotify_init(flags, event_flags))


def fanotify_mark(file: int, flags: int, mask: int, path: str | os.PathLike[str]) -> None:
    """Changes what is watched at `path`; flags and mask as in the manual page."""
    # The mask is the one argument of 64 bits, and ctypes would cut it to 32.
    wide = ctypes.c_uint64(mask)
    result = _libc.fanotify_mark(file, ctypes.c_uint(flags), wide, _AT_FDCWD, os.fsencode(path))
    _checked("fanotify_mark", result)


# --- Clocks and timers ----------------------------------------------------------------------------

# From include/uapi/linux/timerfd.h and timerfd_create(2).
TFD_TIMER_ABSTIME = 1
# include/uapi/linux/timex.h; adjtimex(2): which fields of struct timex are to be set
ADJ_FREQUENCY = 0x0002
ADJ_TICK = 0x4000
ADJ_OFFSET_SINGLESHOT = 0x8001  # adjtime(3): the old slow correction


class _Timespec(ctypes.Structure):
    """struct timespec of a 64-bit machine."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: zero as interval means that it ends once."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def timerfd_create(clock: int) -> int:
    """A file that can be read when its timer on `clock` (a CLOCK_ number) has ended."""
    return _checked("timerfd_create", _libc.timerfd_create(clock, 0))


def timerfd_settime(file: int, flags: int, value_s: int) -> None:
    """Starts it: it ends once, after `value_s`, or at that time with TFD_TIMER_ABSTIME."""
    timer = _TimerSpec(_Timespec(0, 0), _Timespec(value_s, 0))
    _checked("timerfd_settime", _libc.timerfd_settime(file, flags, ctypes.byref(timer), None))


class _Timex(ctypes.Structure):
    """struct timex of a 64-bit machine (include/uapi/linux/timex.h, struct __kernel_timex). Only
    `modes`, `offset` and `tick` are used here; what follows them must have its full size, because
    the kernel writes the whole structure back."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),  # us, with ADJ_OFFSET_SINGLESHOT
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),  # struct timeval
        ("tick", ctypes.c_long),  # us between two ticks of USER_HZ
        ("rest", ctypes.c_char * 128),  # 8 fields more of PPS, `tai`, and room that is kept free
    )


def adjtimex(modes: int, *, tick_us: int = 0, offset_us: int = 0) -> None:
    """Changes how the wall clock is corrected; `modes` says which of the values count."""
    values = _Timex(modes=modes, tick=tick_us, offset=offset_us)
    # The answer is the state of the clock (TIME_OK, TIME_ERROR ...), and -1 for an error.
    _checked("adjtimex", _libc.adjtimex(ctypes.byref(values)))


# --- The first program of a machine ---------------------------------------------------------------

# include/uapi/linux/reboot.h, LINUX_REBOOT_CMD_POWER_OFF; glibc adds the two magic numbers itself
_RB_POWER_OFF = 0x4321_FEDC


def mount(kind: str, place: str) -> None:
    """Mounts a file system that has no device, such as proc or tmpfs."""
    name = kind.encode()
    _checked(f"mount {place}", _libc.mount(name, place.encode(), name, ctypes.c_ulong(0), None))


def load_module(file: int) -> None:
    """Hands the kernel a module, from an open file; no parameters, no flags; finit_module(2)."""
    _system_call("finit_module", file, b"", 0)


def power_off() -> None:
    """Turns the machine off. Only for process 1 of a guest; returns when the kernel refuses."""
    _libc.reboot(ctypes.c_int(_RB_POWER_OFF))
