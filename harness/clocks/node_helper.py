"""The helper on a node: takes over the clocks of chosen programs, of those that run and of those started later.

    python -m harness.clocks.node_helper serve --socket S --state F
        in a privileged container that sees all processes of the node
    python -m harness.clocks.node_helper send --socket S '{"version": 1, "do": "list"}'
        one request (- : from standard input), by `kubectl exec` into that container

One request is one line of JSON and gets one line back: {"version": 1, "ok": true, "result": {...}} or
{"version": 1, "ok": false, "error": {"kind": "LabUnavailable", "message": "..."}}.

    hello                                   what this system allows
    take     rules, launchers, lease_s      from now on every program that fits a rule is under this node's clock page
    set      wall_ns, monotonic_ns, boottime_ns     what is added to the kernel's clocks, absolute, all at once
    read     pid, executable (or all)       the clocks of each program, measured inside it, and the kernel's around them
    sleep    lasts_ns, at_wake (or null)    stops the programs; then sets `at_wake` and lets them run on
    list     -                              programs, offsets, watch, refusals
    release  -                              the kernel's clocks for all, rules forgotten

Rules: {"executable": "/usr/local/bin/ztunnel", "cgroup": "part of the cgroup's path, or null"}; an executable without a
slash is compared with the last part. Launchers are paths on the node; null means those that are usual. The node's files
are found at --node-root, the root of process 1.

How the monotonic clock is kept honest: it may never go back for a program that runs. So an offset of it is at most 0
(letting go moves it forward), and goes further down only at the end of a `sleep`, by less than that sleep has lasted.

When the helper ends:
    killed     programs keep running with the clocks that they have; execs that wait go on; a `sleep` is brought to its
               end by a child of its own. Started again, it finds page, rules and lease again (state file, /proc).
    SIGTERM    everything is released.
    stuck      an alarm ends it after 30 s, because an exec may be waiting for its answer.
    forgotten  without a request for `lease_s` it releases everything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from harness.clocks.attach import attach, detach, install_stopped, page_inside, read_attached
from harness.clocks.exec_watch import ExecWatch
from harness.clocks.ptrace import Tracee
from harness.clocks.reading import ClockReading
from harness.clocks.vdso import ClockPage, Launched, attaching_unsupported_here
from harness.durations import NS_PER_S
from harness.errors import BadInput, HarnessError, HarnessFault, LabUnavailable, SubjectFailed

PROTOCOL_VERSION = 1
USUAL_LAUNCHERS = (
    "/usr/local/sbin/runc",
    "/usr/local/bin/runc",
    "/usr/sbin/runc",
    "/usr/bin/runc",
    "/usr/local/bin/crun",
    "/usr/sbin/crun",
    "/usr/bin/crun",
    "/var/lib/rancher/k3s/data/current/bin/runc",
)
LEASE_MAX_S = 7 * 24 * 3600.0
SLEEP_MAX_S = 24 * 3600.0
_REQUEST_BYTES_MAX = 65536
_REQUEST_WITHIN_S = 5.0
_ANSWER_WITHIN_S = 120.0
_STUCK_AFTER_S = 30.0
_SCAN_EVERY_S = 1.0
_TICK_S, _BUSY_TICK_S = 0.2, 0.001
_ATTACHED_WITHIN_S = 2.0
_ALL_STOPPED_WITHIN_S = 2.0
NODE_ROOT = Path("/proc/1/root")


class Rule(NamedTuple):
    """Which programs are meant."""

    executable: str
    cgroup: str | None = None

    def fits(self, pid: int) -> bool:
        """Whether process `pid` is meant by this rule."""
        path = _executable(pid)
        if path is None or (path if "/" in self.executable else path.rpartition("/")[2]) != self.executable:
            return False
        return self.cgroup is None or self.cgroup in _text(pid, "cgroup")


@dataclass
class Known:
    """A program whose clocks are ours, and how it came to be: "attached" while it ran, when its rule was taken;
    "caught" at its exec; "inherited" from a parent by fork; "late": found running after its start had been missed, so
    that its time base is that of the kernel's clocks; "found": attached by a helper before us."""

    launched: Launched
    started_ticks: int
    executable: str
    how: str


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""


def _executable(pid: int) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return None


def _started_ticks(pid: int) -> int | None:
    """Together with the number this names a process; None when it is not there or only its status is left."""
    fields = _text(pid, "stat").rpartition(")")[2].split()
    return int(fields[19]) if fields and fields[0] not in {"Z", "X"} else None


def _kernel_clocks() -> ClockReading:
    return ClockReading(time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))


class Node:
    """The programs of one node under one clock page. Lives in one thread; `serve` must be called often."""

    def __init__(self, state_file: Path, node_root: Path = NODE_ROOT, alive: Callable[[], None] = lambda: None) -> None:
        self._state_file, self._node_root, self._alive = state_file, node_root, alive
        self.rules: tuple[Rule, ...] = ()
        self.launchers: tuple[str, ...] = ()
        self.lease_s = 0.0
        self._lease_until_boottime_ns: int | None = None
        self.known: dict[int, Known] = {}
        self.refused: dict[tuple[int, int], str] = {}
        self._watch: ExecWatch | None = None
        self._unwatched_because: str | None = None
        self._launchers_found: list[str] = []
        self._asleep: dict[str, Any] | None = None
        self._scan_due = 0.0
        self.page = ClockPage("offset")
        self._take_up_state()

    @property
    def watch(self) -> ExecWatch | None:
        """The watch over execs, while rules are taken and the system allows it."""
        return self._watch

    @property
    def tick_s(self) -> float:
        """How soon `serve` is to be called again."""
        return _BUSY_TICK_S if self._watch is not None and self._watch.is_busy else _TICK_S

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Does what one request asks for. Raises BadInput, LabUnavailable, SubjectFailed."""
        if request.get("version") != PROTOCOL_VERSION:
            raise BadInput(f"protocol version {request.get('version')!r}; this helper speaks {PROTOCOL_VERSION}")
        requests: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "take": self._take,
            "set": self._set,
            "read": self._read,
            "sleep": self._sleep,
            "list": self._list,
            "release": self._release,
        }
        do = requests.get(str(request.get("do")))
        if do is None:
            raise BadInput(f"request {request.get('do')!r}; known are {', '.join(requests)}")
        self._renew_lease()
        self._look_at_sleep()
        return do(request)

    def serve(self) -> None:
        """What is to be done between requests; bounded, and short when nothing has happened."""
        self._meanwhile()
        self._look_at_sleep()
        if time.monotonic() >= self._scan_due:
            self._scan_due = time.monotonic() + _SCAN_EVERY_S
            if self.rules:
                self._scan("late")
            until_ns = self._lease_until_boottime_ns
            if until_ns is not None and _kernel_clocks().boottime_ns > until_ns:
                self._release({})

    def close(self) -> None:
        """Releases everything."""
        self._release({})
        self.page.close()

    # requests

    def _hello(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "kernel": platform.release(),
            "unsupported": attaching_unsupported_here(),
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        }

    def _take(self, request: Mapping[str, Any]) -> dict[str, Any]:
        reason = attaching_unsupported_here()
        if reason is not None:
            raise LabUnavailable(reason)
        rules, launchers = _rules(request.get("rules")), request.get("launchers")
        paths = USUAL_LAUNCHERS if launchers is None else tuple(_strings(launchers, "launchers"))
        self.lease_s = _number(request.get("lease_s", 3600), "lease_s", 1, LEASE_MAX_S)
        self.rules, self.launchers = rules, paths
        self._renew_lease()
        self.refused.clear()
        self._save()
        self._begin_watch()
        self._scan("attached")
        return self._list(request)

    def _set(self, request: Mapping[str, Any]) -> dict[str, Any]:
        offsets = _offsets(request)
        if self._asleep is not None:
            raise SubjectFailed("the programs of this node are asleep; offsets can be set when they have woken")
        if offsets.monotonic_ns < self.page.get().monotonic_ns:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns} is less than the {self.page.get().monotonic_ns} it is: the clock "
                "would go back; use sleep, which stops the programs for as long"
            )
        self.page.set(offsets)
        self._save()
        return {"offsets": offsets._asdict()}

    def _read(self, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted, executable = request.get("pid"), request.get("executable")
        self._scan("late")
        readings, failed = [], {}
        for pid, known in list(self.known.items()):
            if wanted not in {None, pid} or (executable is not None and not Rule(executable).fits(pid)):
                continue
            before = _kernel_clocks()
            try:
                inside = read_attached(known.launched, _ATTACHED_WITHIN_S, self._meanwhile)
            except HarnessError as error:
                failed[str(pid)] = str(error)
                continue
            readings.append(
                {
                    "pid": pid,
                    "executable": known.executable,
                    "how": known.how,
                    "clocks": inside._asdict(),
                    "kernel_before": before._asdict(),
                    "kernel_after": _kernel_clocks()._asdict(),
                }
            )
        if wanted is not None and not readings and not failed:
            raise SubjectFailed(f"process {wanted} is not under this node's clocks; see list")
        return {"readings": readings, "failed": failed, "offsets": self.page.get()._asdict()}

    def _sleep(self, request: Mapping[str, Any]) -> dict[str, Any]:
        lasts_ns = int(_number(request.get("lasts_ns"), "lasts_ns", 0, SLEEP_MAX_S * NS_PER_S))
        at_wake = None if request.get("at_wake") is None else _offsets(request["at_wake"])
        if self._asleep is not None:
            raise SubjectFailed("the programs of this node are asleep already")
        now = self.page.get()
        if at_wake is not None and now.monotonic_ns - at_wake.monotonic_ns > lasts_ns:
            raise BadInput(
                f"at_wake.monotonic_ns {at_wake.monotonic_ns} lies more than the sleep of {lasts_ns} ns below the "
                f"{now.monotonic_ns} it is: the clock would go back"
            )
        self._scan("late")
        if not self.known:
            raise SubjectFailed(
                "no program fits the rules on this node, so there is nothing that could sleep; see list"
            )
        sleepers = {pid: known.started_ticks for pid, known in self.known.items()}
        until_ns = _kernel_clocks().boottime_ns + lasts_ns
        guardian = _begin_sleep(sleepers, lasts_ns, self.page, at_wake)
        self._asleep = {
            "guardian": [guardian, _started_ticks(guardian)],
            "sleepers": [[pid, ticks] for pid, ticks in sleepers.items()],
            "until_boottime_ns": until_ns,
            "at_wake": None if at_wake is None else list(at_wake),
        }
        self._save()
        return {"sleepers": sorted(sleepers), "lasts_ns": lasts_ns}

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._forget_the_dead()
        watch = self._watch
        return {
            "rules": [rule._asdict() for rule in self.rules],
            "processes": [
                {"pid": pid, "executable": known.executable, "started_ticks": known.started_ticks, "how": known.how}
                for pid, known in sorted(self.known.items())
            ],
            "refused": [{"pid": pid, "why": why} for (pid, _), why in sorted(self.refused.items())],
            "offsets": self.page.get()._asdict(),
            "asleep": self._asleep is not None,
            "watch": None
            if watch is None
            else {
                "holds": watch.holds,
                "launchers": self._launchers_found,
                "marks": watch.marks,
                "asked": watch.counts.asked,
                "caught": watch.counts.caught,
                "passed": watch.counts.passed,
                "missed": watch.counts.missed,
            },
            "unwatched_because": self._unwatched_because,
            "lease_s": self.lease_s,
        }

    def _release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._wake_now()
        self._end_watch()
        released, failed = [], {}
        for pid in _processes():
            if not self._is_ours(pid):
                continue
            try:
                detach(pid, _ATTACHED_WITHIN_S, self._alive)
            except SubjectFailed as error:
                if self._is_ours(pid):
                    failed[str(pid)] = str(error)
                    continue
            released.append(pid)
        self.known = {pid: known for pid, known in self.known.items() if str(pid) in failed}
        if not failed:
            self.rules, self._lease_until_boottime_ns = (), None
            self.page.set(ClockReading(0, 0, 0))
        self.refused.clear()
        self._save()
        return {"released": released, "failed": failed}

    # finding programs

    def _scan(self, how: str) -> None:
        """Every program that fits is under our page afterwards, or stands in `refused`."""
        self._forget_the_dead()
        for pid in _processes():
            ticks = _started_ticks(pid)
            if ticks is None or pid in self.known or (pid, ticks) in self.refused:
                continue
            if any(rule.fits(pid) for rule in self.rules):
                self._attach(pid, ticks, how)

    def _attach(self, pid: int, ticks: int, how: str) -> None:
        try:
            ours_already = self._is_ours(pid)
            launched = attach(pid, self.page, _ATTACHED_WITHIN_S, self._meanwhile)
        except SubjectFailed:
            return  # it ends, or is in the middle of something: the next scan tries again
        except LabUnavailable as error:
            self.refused[pid, ticks] = str(error)
            return
        if ours_already:
            how = "found" if how == "found" else "inherited"
        elif how == "found":
            how = "late"
        self.known.setdefault(pid, Known(launched, ticks, _executable(pid) or "", how))
        self._mark_programs(pid)

    def _forget_the_dead(self) -> None:
        for pid, known in list(self.known.items()):
            gone = _started_ticks(pid) != known.started_ticks or _executable(pid) != known.executable
            if gone or not self._is_ours(pid):
                self.known.pop(pid, None)
        for pid, ticks in list(self.refused):
            if _started_ticks(pid) != ticks:
                del self.refused[pid, ticks]

    def _is_ours(self, pid: int) -> bool:
        """Whether the clocks of this process are on our page; not so after an exec that was missed."""
        try:
            inside = page_inside(pid)
        except HarnessError:
            return False
        return inside is not None and inside.in_use and inside.inode == self.page.inode

    # watching execs

    def _begin_watch(self) -> None:
        self._end_watch()
        self._unwatched_because, self._launchers_found = None, []
        try:
            watch = self._watch = ExecWatch(self._wanted, self._caught, self._not_caught)
            self._launchers_found = [path for path in self.launchers if watch.mark_launcher(self._on_node(path))]
        except (LabUnavailable, OSError) as error:
            self._end_watch()
            self._unwatched_because = str(error)
            return
        if self.launchers and not self._launchers_found:
            self._unwatched_because = (
                f"new containers: no container runtime at {', '.join(self.launchers)} below {self._node_root}"
            )
        elif not watch.holds:
            self._unwatched_because = "programs started again within a container: that needs Linux 6.8"
        for pid in list(self.known):
            self._mark_programs(pid)

    def _on_node(self, path: str) -> Path:
        return self._node_root / path.lstrip("/")

    def _end_watch(self) -> None:
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.close()

    def _wanted(self, pid: int) -> bool:
        """A process has just exec'ed. Whatever it is: in its container one of ours may be started next."""
        self._mark_programs(pid)
        return any(rule.fits(pid) for rule in self.rules)

    def _caught(self, tracee: Tracee) -> None:
        launched = install_stopped(tracee, self.page)
        pid = tracee.pid
        self.known[pid] = Known(launched, _started_ticks(pid) or 0, _executable(pid) or "", "caught")
        if self._asleep is not None:
            os.kill(pid, signal.SIGSTOP)
            self._asleep["sleepers"].append([pid, self.known[pid].started_ticks])
            self._save()

    def _not_caught(self, pid: int, why: str) -> None:
        self.refused[pid, _started_ticks(pid) or 0] = why

    def _mark_programs(self, pid: int) -> None:
        """Whatever fits a rule in the file system of this process."""
        if self._watch is None:
            return
        paths = [Path(f"/proc/{pid}/root{rule.executable}") for rule in self.rules if rule.executable.startswith("/")]
        if pid in self.known:
            paths.append(Path(f"/proc/{pid}/exe"))
        for path in paths:
            with suppress(LabUnavailable):  # a file system that cannot be watched: its programs are found late
                self._watch.mark_program(path)

    def _meanwhile(self) -> None:
        """While a surgeon is at work, execs do not wait for it."""
        self._alive()
        if self._watch is not None:
            self._watch.serve()

    # sleep

    def _look_at_sleep(self) -> None:
        """A sleep ends when its guardian has ended; one whose guardian was killed is ended here."""
        asleep = self._asleep
        if asleep is None:
            return
        guardian, ticks = asleep["guardian"]
        with suppress(ChildProcessError):
            os.waitpid(guardian, os.WNOHANG)
        if _started_ticks(guardian) == ticks is not None:
            return
        self._asleep = None
        # Before its time, the clocks of its end would go back.
        is_over = _kernel_clocks().boottime_ns >= asleep["until_boottime_ns"]
        _wake(dict(asleep["sleepers"]), self.page, _reading(asleep["at_wake"]) if is_over else None)
        self._save()

    def _wake_now(self) -> None:
        """Ends a sleep before its time; the offsets stay as they were, so it was a freeze."""
        if self._asleep is None:
            return
        guardian, ticks = self._asleep["guardian"]
        if _started_ticks(guardian) == ticks is not None:
            os.kill(guardian, signal.SIGKILL)
            give_up = time.monotonic() + _ALL_STOPPED_WITHIN_S
            while _started_ticks(guardian) == ticks and time.monotonic() < give_up:
                time.sleep(0.001)
        self._look_at_sleep()

    # state that outlives us

    def _renew_lease(self) -> None:
        if self.rules:
            self._lease_until_boottime_ns = _kernel_clocks().boottime_ns + int(self.lease_s * NS_PER_S)
            self._save()

    def _save(self) -> None:
        state = {
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "rules": [list(rule) for rule in self.rules],
            "launchers": list(self.launchers),
            "lease_s": self.lease_s,
            "lease_until_boottime_ns": self._lease_until_boottime_ns,
            "offsets": list(self.page.get()),
            "asleep": self._asleep,
        }
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state))
        fresh.replace(self._state_file)

    def _take_up_state(self) -> None:
        """What a helper before us had taken on this boot of the machine is ours now."""
        try:
            state = json.loads(self._state_file.read_text())
        except FileNotFoundError:
            return
        except ValueError as error:
            raise HarnessFault(
                f"{self._state_file} cannot be read ({error}); remove it and take the rules again"
            ) from error
        if state["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
            return
        self.rules = tuple(Rule(*rule) for rule in state["rules"])
        self.launchers = tuple(state["launchers"])
        self.lease_s, self._lease_until_boottime_ns = state["lease_s"], state["lease_until_boottime_ns"]
        if not self._find_page():
            self.page.set(ClockReading(*state["offsets"]))
        self._asleep = state["asleep"]
        self._look_at_sleep()
        if self.rules:
            self._begin_watch()
            self._scan("found")

    def _find_page(self) -> bool:
        """The page of a helper before us lives on in the programs that have it."""
        for pid in _processes():
            with suppress(HarnessError, OSError):
                inside = page_inside(pid) if any(rule.fits(pid) for rule in self.rules) else None
                if inside is not None and inside.in_use:
                    found = ClockPage.of_file(os.open(inside.map_file(pid), os.O_RDWR | os.O_CLOEXEC))
                    self.page.close()
                    self.page = found
                    return True
        return False


def _processes() -> list[int]:
    """All processes but us and our children."""
    own = os.getpid()
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in found if pid != own and _parent(pid) != own)


def _parent(pid: int) -> int | None:
    fields = _text(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else None


def _begin_sleep(sleepers: Mapping[int, int], lasts_ns: int, page: ClockPage, at_wake: ClockReading | None) -> int:
    """Stops the processes; a child of ours wakes them, whatever becomes of us. Returns its number."""
    began_ns = time.monotonic_ns()
    guardian = os.fork()
    if guardian:
        return guardian
    try:
        os.setsid()
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # nobody may wait for us as a watch of execs
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.SIG_IGN)
        _stop(sleepers)
        while (left_ns := began_ns + lasts_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / NS_PER_S)
        _wake(sleepers, page, at_wake)
    finally:
        os._exit(0)


def _stop(sleepers: Mapping[int, int]) -> None:
    give_up = time.monotonic() + _ALL_STOPPED_WITHIN_S
    for pid in sleepers:
        _signal(pid, sleepers[pid], signal.SIGSTOP)
    while time.monotonic() < give_up and any(_runs(pid) for pid in sleepers):
        time.sleep(0.001)


def _runs(pid: int) -> bool:
    state = _text(pid, "stat").rpartition(")")[2].split()[:1]
    return bool(state) and state[0] not in {"T", "t", "Z", "X"}


def _wake(sleepers: Mapping[int, int], page: ClockPage, at_wake: ClockReading | None) -> None:
    if at_wake is not None:
        page.set(at_wake)
    for pid, ticks in sleepers.items():
        _signal(pid, ticks, signal.SIGCONT)


def _signal(pid: int, ticks: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process = os.pidfd_open(pid)
        try:
            if _started_ticks(pid) == ticks:
                signal.pidfd_send_signal(process, number)
        finally:
            os.close(process)


# reading requests


def _rules(value: Any) -> tuple[Rule, ...]:
    if not isinstance(value, list) or not value:
        raise BadInput(f"rules {value!r}: a list of at least one is expected")
    return tuple(_rule(entry) for entry in value)


def _rule(entry: Any) -> Rule:
    if not isinstance(entry, dict) or not set(entry) <= {"executable", "cgroup"}:
        raise BadInput(f"rule {entry!r}: executable and cgroup are expected")
    executable, cgroup = entry.get("executable"), entry.get("cgroup")
    if not isinstance(executable, str) or not executable or not isinstance(cgroup, str | None):
        raise BadInput(f"rule {entry!r}: executable is a path or a name, cgroup a part of a path or null")
    return Rule(executable, cgroup)


def _strings(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadInput(f"{name} {value!r}: a list of paths is expected")
    return value


def _number(value: Any, name: str, least: float, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise BadInput(f"{name} {value!r}: a number from {least:g} to {most:g} is expected")
    return value


def _offsets(request: Any) -> ClockReading:
    values = [request.get(name) for name in ClockReading._fields] if isinstance(request, dict) else []
    whole = [value for value in values if isinstance(value, int) and abs(value) < 2**61]
    if len(whole) != len(ClockReading._fields):
        raise BadInput(f"offsets {request!r}: whole numbers {', '.join(ClockReading._fields)} are expected")
    offsets = ClockReading(*whole)
    if offsets.monotonic_ns > 0:
        raise BadInput(
            f"monotonic_ns {offsets.monotonic_ns}: at most 0, because letting go of it would turn the clock back"
        )
    return offsets


def _reading(values: Sequence[int] | None) -> ClockReading | None:
    return None if values is None else ClockReading(*values)


# the two ends of the socket


class _Server:
    def __init__(self, path: Path, state_file: Path, node_root: Path) -> None:
        self._stop = False
        path.parent.mkdir(parents=True, exist_ok=True)
        state_file.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._node = Node(state_file, node_root, _keep_alive)
        before = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(before)
        self._listener.listen(8)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._open: dict[socket.socket, tuple[bytearray, float]] = {}
        self._watched: int | None = None
        self._path = path

    def run(self) -> None:
        """Until SIGTERM."""
        wake_reader, wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        self._selector.register(wake_reader, selectors.EVENT_READ)
        while not self._stop:
            self._register_watch()
            for key, _ in self._selector.select(self._node.tick_s):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == wake_reader:
                    with suppress(BlockingIOError):
                        os.read(wake_reader, 4096)
                elif isinstance(key.fileobj, socket.socket):
                    self._receive(key.fileobj)
            self._node.serve()
            self._drop_late()
        self._node.close()
        self._path.unlink(missing_ok=True)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._stop = True

    def _register_watch(self) -> None:
        """Execs that wait wake us at once."""
        file = self._node.watch.file if self._node.watch is not None else None
        if file == self._watched and (file is None or file in self._selector.get_map()):
            return
        if self._watched is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(self._watched)
        if file is not None:
            self._selector.register(file, selectors.EVENT_READ)
        self._watched = file

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            self._open[connection] = (bytearray(), time.monotonic() + _REQUEST_WITHIN_S)
            self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        line, _ = self._open[connection]
        try:
            piece = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        line += piece
        if b"\n" in line:
            answer = json.dumps(_answer(self._node, bytes(line).partition(b"\n")[0])).encode() + b"\n"
            connection.settimeout(_REQUEST_WITHIN_S)
            with suppress(OSError):
                connection.sendall(answer)
        elif piece and len(line) <= _REQUEST_BYTES_MAX:
            return
        self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._open[connection]
        connection.close()

    def _drop_late(self) -> None:
        for connection, (_, give_up) in list(self._open.items()):
            if time.monotonic() > give_up:
                self._drop(connection)


def _answer(node: Node, line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise BadInput("a request is a JSON object on one line")
        return {"version": PROTOCOL_VERSION, "ok": True, "result": node.answer(request)}
    except ValueError as error:
        told: HarnessError = BadInput(f"a request is a JSON object on one line: {error}")
    except HarnessError as error:
        told = error
    except Exception as error:  # noqa: BLE001  # the helper must live, and whoever asked must know
        told = HarnessFault(f"{type(error).__name__}: {error}")
    return {
        "version": PROTOCOL_VERSION,
        "ok": False,
        "error": {"kind": type(told).__name__, "message": str(told)},
    }


def _nothing(number: int, frame: FrameType | None) -> None:
    """The wakeup file has been written to; that is enough."""


def _keep_alive() -> None:
    """Unless this is called again in time, the kernel ends us, and with us every exec's waiting."""
    signal.setitimer(signal.ITIMER_REAL, _STUCK_AFTER_S)


def send(path: Path, line: str) -> dict[str, Any]:
    """One request to the helper behind the socket at `path`; its whole answer. Raises LabUnavailable when nobody
    answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        try:
            connection.connect(str(path))
            connection.sendall(line.strip().encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n") and (piece := connection.recv(65536)):
                answer += piece
        except OSError as error:
            raise LabUnavailable(f"no helper answers at {path} ({error}); is its container running?") from error
    if not answer:
        raise LabUnavailable(f"the helper at {path} ended while it was asked; see its log")
    told: dict[str, Any] = json.loads(answer)
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code (harness/errors.py)."""
    parser = argparse.ArgumentParser(prog="python -m harness.clocks.node_helper", description="clocks of one node")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="the helper itself; until SIGTERM")
    serve.add_argument("--state", type=Path, required=True, help="file that outlives the helper, on the node")
    serve.add_argument("--node-root", type=Path, default=NODE_ROOT, help="where the node's own files are found")
    ask = commands.add_parser("send", help="one request")
    ask.add_argument("request", help="JSON, or - to read it from standard input")
    for command in (serve, ask):
        command.add_argument("--socket", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "serve":
            _keep_alive()
            _Server(chosen.socket, chosen.state, chosen.node_root).run()
            return 0
        answer = send(chosen.socket, sys.stdin.read() if chosen.request == "-" else chosen.request)
    except HarnessError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return int(error.exit_code)
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
