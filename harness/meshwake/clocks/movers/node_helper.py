"""The helper on a node: takes over the clocks of chosen programs, of those that run and of those
started later.

    python -m meshwake.clocks.movers.node_helper serve --socket S --state F
        in a privileged container that sees all processes of the node
    python -m meshwake.clocks.movers.node_helper send --socket S '{"version": 3, "do": "list"}'
        one request (- : each line of standard input), by `kubectl exec` into that container

One request is one line of JSON and gets one line back: {"version": 3, "ok": true, "result": {...}}
or {"version": 3, "ok": false, "error": {"kind": "LabUnavailable", "message": "..."}}.

    hello                                   what this system allows
    take     rules, launchers, lease_s,     from now on every program that fits a rule is under this node's clock page,
             ends                           and the node belongs to the `owner` of the request
    renew    -                              the owner is still there
    set      wall_ns, monotonic_ns,         what is added to the kernel's clocks, absolute, all at once; `kick`: then
             boottime_ns, kick              every program is made to look at its clocks
    still    within_s                       waits until every program waits for something to happen
    read     pid, executable (or all)       the clocks of each program, measured inside it, and the kernel's around them
    sleep    lasts_ns, at_wake (or null)    stops the programs; then sets `at_wake` and lets them run on
    wake     wall_ns, monotonic_ns,         ends a sleep before `lasts_ns` are over, with these offsets
             boottime_ns
    list     -                              programs, offsets, watch, refusals, owner, what was given up
    release  rules                          the kernel's clocks for all, rules forgotten; programs that fit `rules`
                                            are let go of too whoever took them: a helper whose state is lost

Every request may name its `owner`. take, renew, set, still, sleep, wake and release of a node that
has an owner must name that one; hello, list and read are answered to everybody. Only what the owner
asks keeps the lease: a kubelet that asks whether we are ready says nothing about the owner.

Rules: {"executable": "/usr/local/bin/ztunnel", "cgroup": "part of the cgroup's path, or null",
"keeps_monotonic": false, "idles_in_epoll": false, "streams_to_port": 0}; an executable without a
slash is compared with the last part. `keeps_monotonic`: such a program gets wall and boottime
moved, and its monotonic clock is left alone. `idles_in_epoll`: when its first thread waits in
anything but epoll, it is at work (a Python that waits for an answer). `streams_to_port`: where it
keeps connections open; one that it has lost is waited for, within a bound, before the node is
still. Launchers are paths on the node; null means those that are usual. The node's files are found
at --node-root, the root of process 1.

How clocks are kept from going back for a program that runs: an offset of the monotonic clock goes
down only at the end of a `sleep`, by no more than that sleep has lasted, and what is ahead is never
let go of. Without `ends` no monotonic clock may be ahead, so letting go moves it forward. With
`ends` clocks may be ahead by days, and at the release a program that is ahead is ended (SIGKILL),
those that keep their monotonic clock first; kubelet starts them anew, and nobody catches them any
more. So nobody who is right asks istiod while it is ahead: where no such program runs, a release
that nobody asked for (a lease that ran out) waits for those of the other nodes.

When the helper ends:
    killed     programs keep running with the clocks that they have; execs that wait go on; a `sleep` is brought to its
               end by a child of its own. Started again, it finds page, rules and lease again (state file, /proc).
    SIGTERM    everything is released.
    stuck      an alarm ends it after 30 s, because an exec may be waiting for its answer.
    forgotten  without a word of the owner for `lease_s` it releases everything, and tells in `list` (`given_up`) of
               whom, how far clocks were moved, and which programs began on moved clocks, until somebody takes the node.
               Only time counts in which it was awake to hear: neither that of a machine that slept nor its own.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from meshwake.clocks.injectors.unreachable_waits import kick, waits_in_epoll
from meshwake.clocks.quiescence.threads import WatchedProcess
from meshwake.clocks.vdso.attach import attach, detach, install_stopped, page_inside, read_attached
from meshwake.clocks.vdso.exec_watch import ExecWatch
from meshwake.clocks.vdso.page import ClockPage, Launched, attaching_unsupported_here
from meshwake.clocks.vdso.ptrace import Tracee
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, HarnessError, HarnessFault, LabUnavailable, SubjectFailed

PROTOCOL_VERSION = 3
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
# Of the time between two looks at the lease, so much counts: what is longer, we did not get to hear
# anybody in.
_SILENT_AT_MOST_S = 1.0
_OWNER_AT_MOST = 300
# So much later than where istiod is a node gives up that is ahead.
_GIVES_UP_LATER_S = 10.0
_ENDED_WITHIN_S = 5.0
_CAUGHT_WITHIN_S = 3.0
_STILL_AT_MOST_S = 20.0
_STILL_LOOK_S = 0.002
# A stream that was lost is back after a second at the latest, unless whoever it leads to is away.
_STREAM_BACK_WITHIN_S = 2.0
_ESTABLISHED = "01"
_ATTACHED_WITHIN_S = 2.0
_ALL_STOPPED_WITHIN_S = 2.0
NODE_ROOT = Path("/proc/1/root")


class Rule(NamedTuple):
    """Which programs are meant, and what is particular about them; see the module."""

    executable: str
    cgroup: str | None = None
    keeps_monotonic: bool = False
    idles_in_epoll: bool = False
    streams_to_port: int = 0

    def fits(self, pid: int) -> bool:
        """Whether process `pid` is meant by this rule."""
        path = _executable(pid)
        if (
            path is None
            or (path if "/" in self.executable else path.rpartition("/")[2]) != self.executable
        ):
            return False
        return self.cgroup is None or self.cgroup in _text(pid, "cgroup")


@dataclass
class Known:
    """A program whose clocks are ours, and how it came to be: "attached" while it ran, when its
    rule was taken; "caught" at its exec; "inherited" from a parent by fork; "late": found running
    after its start had been missed, so that its time base is that of the kernel's clocks; "found":
    attached by a helper before us."""

    launched: Launched
    started_ticks: int
    executable: str
    how: str


class _Streams:
    """How many connections a program keeps open, and since when there are fewer."""

    def __init__(self) -> None:
        self._expected, self._lost_since_s = 0, 0.0

    def is_one_lost(self, count: int) -> bool:
        """Whether one is missing that may come back; one that does not is no longer expected."""
        if count >= self._expected:
            self._expected, self._lost_since_s = count, 0.0
            return False
        self._lost_since_s = self._lost_since_s or time.monotonic()
        if time.monotonic() - self._lost_since_s > _STREAM_BACK_WITHIN_S:
            self._expected = count
            return False
        return True


def count_streams(pid: int, port: int) -> int:
    """How many connections from the network of process `pid` to `port` are open."""
    lines = [
        line.split()
        for table in ("net/tcp", "net/tcp6")
        for line in _text(pid, table).splitlines()[1:]
    ]
    return sum(words[2].endswith(f":{port:04X}") and words[3] == _ESTABLISHED for words in lines)


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
    """Together with the number this names a process; None when it is not there or only its status
    is left."""
    fields = _text(pid, "stat").rpartition(")")[2].split()
    return int(fields[19]) if fields and fields[0] not in {"Z", "X"} else None


def _about(pid: int) -> dict[str, Any]:
    """Names a process for whoever knows pods: they stand in its control group."""
    return {"pid": pid, "executable": _executable(pid), "cgroup": _text(pid, "cgroup").strip()}


def _age_s(started_ticks: int) -> float:
    """How long ago a process started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")


def _kernel_clocks() -> ClockReading:
    return ClockReading(
        time.time_ns(), time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    )


class Node:
    """The programs of one node under one clock page. Lives in one thread; `serve` must be called
    often."""

    def __init__(
        self,
        state_file: Path,
        node_root: Path = NODE_ROOT,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._state_file, self._node_root, self._alive = state_file, node_root, alive
        self.rules: tuple[Rule, ...] = ()
        self.launchers: tuple[str, ...] = ()
        self.lease_s = 0.0
        self.owner: str | None = None
        self.given_up: dict[str, Any] | None = None
        self._silent_s, self._listened_monotonic_s = 0.0, time.monotonic()
        self._begun_moved: dict[
            int, int
        ] = {}  # programs that began on moved clocks, and when they were started
        self.known: dict[int, Known] = {}
        self.refused: dict[tuple[int, int], str] = {}
        self._watch: ExecWatch | None = None
        self._unwatched_because: str | None = None
        self._launchers_found: list[str] = []
        self._asleep: dict[str, Any] | None = None
        self._scan_due = 0.0
        self.ends = False
        self._watched: dict[int, WatchedProcess] = {}
        self._streams: dict[int, _Streams] = {}
        # The second is for programs that keep their monotonic clock.
        self.page, self.kept_page = ClockPage("offset"), ClockPage("offset")
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
            raise BadInput(
                f"protocol version {request.get('version')!r}; this helper speaks "
                f"{PROTOCOL_VERSION}"
            )
        requests: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "hello": self._hello,
            "take": self._take,
            "renew": self._renew,
            "set": self._set,
            "still": self._still,
            "read": self._read,
            "sleep": self._sleep,
            "wake": self._wake,
            "list": self._list,
            "release": self._release,
        }
        do = requests.get(str(request.get("do")))
        if do is None:
            raise BadInput(f"request {request.get('do')!r}; known are {', '.join(requests)}")
        owner = request.get("owner")
        self._check_owner(do, owner)
        self._look_at_sleep()
        try:
            return do(request)
        finally:
            # At its end: what the owner asks for may last longer than its lease, and nobody is
            # heard meanwhile.
            if owner is not None and owner == self.owner:
                self._silent_s, self._listened_monotonic_s = 0.0, time.monotonic()

    def serve(self) -> None:
        """What is to be done between requests; bounded, and short when nothing has happened."""
        self._meanwhile()
        self._look_at_sleep()
        if time.monotonic() >= self._scan_due:
            self._scan_due = time.monotonic() + _SCAN_EVERY_S
            if self.rules:
                self._scan("late")
                self._look_at_lease()

    def close(self) -> None:
        """Releases everything."""
        self._give_up("the helper was ended")
        self.page.close()
        self.kept_page.close()

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
        owner = _owner(request.get("owner"))
        self.lease_s = _number(request.get("lease_s", 20), "lease_s", 1, LEASE_MAX_S)
        self.rules, self.launchers, self.owner, self.given_up = rules, paths, owner, None
        self.ends = request.get("ends") is True
        self._silent_s, self._listened_monotonic_s = 0.0, time.monotonic()
        self.refused.clear()
        self._save()
        self._begin_watch()
        self._scan("attached")
        return self._list(request)

    def _renew(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"lease_s": self.lease_s}

    def _set(self, request: Mapping[str, Any]) -> dict[str, Any]:
        offsets = self._offsets(request)
        if self._asleep is not None:
            raise SubjectFailed(
                "the programs of this node are asleep; offsets can be set when they have woken"
            )
        if offsets.monotonic_ns < self.page.get().monotonic_ns:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns} is less than the "
                f"{self.page.get().monotonic_ns} it is: the clock "
                "would go back; use sleep, which stops the programs for as long"
            )
        self._set_pages(offsets)
        if request.get("kick") is True:
            self._kick()
        self._save()
        return {"offsets": offsets._asdict()}

    def _offsets(self, request: Any) -> ClockReading:
        offsets = _offsets(request)
        if offsets.monotonic_ns > 0 and not self.ends:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns}: at most 0, because letting go of it "
                "would turn the clock back; "
                "a take with `ends` allows it, and ends at the release what is ahead"
            )
        return offsets

    def _set_pages(self, offsets: ClockReading) -> None:
        """Those first who keep their monotonic clock, and are asked by the others: nobody asks one
        who is behind."""
        self.kept_page.set(offsets._replace(monotonic_ns=0))
        self.page.set(offsets)

    def _kick(self) -> None:
        kick(
            *(
                pid
                for pid in self.known
                if (rule := self._rule_of(pid)) is not None and not rule.keeps_monotonic
            )
        )

    def _still(self, request: Mapping[str, Any]) -> dict[str, Any]:
        within_s = _number(request.get("within_s"), "within_s", 0, _STILL_AT_MOST_S)
        if self._asleep is not None:
            return self._about_stillness("")
        give_up = time.monotonic() + within_s
        self._scan("late")
        while (busy := self._busy()) and time.monotonic() < give_up:
            self._meanwhile()
            time.sleep(_STILL_LOOK_S)
        return self._about_stillness(busy)

    def _about_stillness(self, busy: str) -> dict[str, Any]:
        kept = [
            pid
            for pid in self.known
            if (rule := self._rule_of(pid)) is not None and rule.keeps_monotonic
        ]
        refused = {str(pid): why for (pid, _), why in self.refused.items()}
        return {
            "busy": busy,
            "refused": refused,
            "keeps_monotonic": kept,
            "programs": sorted(self.known),
        }

    def _busy(self) -> str:
        """A program that does something; "" when all wait. Between two looks at the first of them
        none has run."""
        if self._watch is not None and self._watch.is_starting:
            return "a program that is just being started"
        for pid in self._watched.keys() - self.known.keys():
            self._watched.pop(pid).close()
            self._streams.pop(pid, None)
        for pid, known in self.known.items():
            watched = self._watched.setdefault(
                pid, WatchedProcess(pid, known.executable, waits_virtually=False)
            )
            rule = self._rule_of(pid)
            works = rule is not None and rule.idles_in_epoll and not waits_in_epoll(pid)
            if works or not watched.asleep(0):
                return f"{known.executable} ({pid})"
            if rule is not None and rule.streams_to_port:
                streams = self._streams.setdefault(pid, _Streams())
                if streams.is_one_lost(count_streams(pid, rule.streams_to_port)):
                    return (
                        f"{known.executable} ({pid}), which has lost a connection to port "
                        f"{rule.streams_to_port}"
                    )
        ran = [
            known.executable
            for pid, known in self.known.items()
            if not self._watched[pid].still_asleep()
        ]
        return ran[0] if ran else ""

    def _read(self, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted, executable = request.get("pid"), request.get("executable")
        self._scan("late")
        readings, failed = [], {}
        for pid, known in list(self.known.items()):
            if wanted not in {None, pid} or (
                executable is not None and not Rule(executable).fits(pid)
            ):
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
        refused = {
            str(pid): why
            for (pid, _), why in self.refused.items()
            if wanted in {None, pid} and (executable is None or Rule(executable).fits(pid))
        }
        return {
            "readings": readings,
            "failed": failed | refused,
            "offsets": self.page.get()._asdict(),
        }

    def _sleep(self, request: Mapping[str, Any]) -> dict[str, Any]:
        lasts_ns = int(_number(request.get("lasts_ns"), "lasts_ns", 0, SLEEP_MAX_S * NS_PER_S))
        at_wake = None if request.get("at_wake") is None else self._offsets(request["at_wake"])
        if self._asleep is not None:
            raise SubjectFailed("the programs of this node are asleep already")
        now = self.page.get()
        if at_wake is not None and now.monotonic_ns - at_wake.monotonic_ns > lasts_ns:
            raise BadInput(
                f"at_wake.monotonic_ns {at_wake.monotonic_ns} lies more than the sleep of "
                f"{lasts_ns} ns below the "
                f"{now.monotonic_ns} it is: the clock would go back"
            )
        self._scan("late")
        if not self.known:
            raise SubjectFailed(
                "no program fits the rules on this node, so there is nothing that could "
                "sleep; see list"
            )
        sleepers = {pid: known.started_ticks for pid, known in self.known.items()}
        until_ns = _kernel_clocks().boottime_ns + lasts_ns + int(_ALL_STOPPED_WITHIN_S * NS_PER_S)
        set_at_wake = None if at_wake is None else partial(self._set_pages, at_wake)
        guardian = _begin_sleep(sleepers, lasts_ns, set_at_wake)
        self._asleep = {
            "guardian": [guardian, _started_ticks(guardian)],
            "sleepers": [[pid, ticks] for pid, ticks in sleepers.items()],
            "until_boottime_ns": until_ns,
            "at_wake": None if at_wake is None else list(at_wake),
            "stopped_monotonic_ns": None,
        }
        self._save()
        self._note_stop(sleepers)
        return {"sleepers": sorted(sleepers), "lasts_ns": lasts_ns}

    def _note_stop(self, sleepers: Iterable[int]) -> None:
        """When all stood still: from then on their clocks may go back at the wake by as much as it
        lasted."""
        give_up = time.monotonic() + _ALL_STOPPED_WITHIN_S
        while any(_runs(pid) for pid in sleepers):
            if time.monotonic() > give_up:
                return
            self._meanwhile()
            time.sleep(0.001)
        if self._asleep is not None:
            self._asleep["stopped_monotonic_ns"] = time.monotonic_ns()
            self._save()

    def _wake(self, request: Mapping[str, Any]) -> dict[str, Any]:
        offsets = self._offsets(request)
        if self._asleep is None:
            raise SubjectFailed("the programs of this node are awake already")
        stopped_ns = self._asleep["stopped_monotonic_ns"]
        slept_ns = 0 if stopped_ns is None else time.monotonic_ns() - stopped_ns
        back_ns = self.page.get().monotonic_ns - offsets.monotonic_ns
        if back_ns > slept_ns:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns} lies {back_ns} ns below what it is, "
                "and the programs have stood "
                f"still for {slept_ns} ns: the clock would go back"
            )
        self._end_guardian(self._asleep["guardian"])
        sleepers, self._asleep = dict(self._asleep["sleepers"]), None
        _wake(sleepers, partial(self._set_pages, offsets))
        self._save()
        return {"offsets": offsets._asdict()}

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self._forget_the_dead()
        watch = self._watch
        return {
            "rules": [rule._asdict() for rule in self.rules],
            "processes": [
                {
                    "pid": pid,
                    "executable": known.executable,
                    "started_ticks": known.started_ticks,
                    "how": known.how,
                }
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
            "owner": self.owner,
            "ends": self.ends,
            "silent_s": round(self._silent_s, 1),
            "given_up": self.given_up,
        }

    def _release(self, request: Mapping[str, Any]) -> dict[str, Any]:
        others = () if request.get("rules") is None else _rules(request["rules"])
        self._wake_now()
        self._end_watch()
        offsets, begun_moved = self.page.get(), self._began_moved()
        released, ended, failed = [], [], {}
        for pid in self._in_order(
            pid for pid in _processes() if self._is_to_be_let_go(pid, others)
        ):
            about = _about(pid)
            try:
                if self._is_ahead(pid):
                    self._end(pid)
                    ended.append(about)
                else:
                    detach(pid, _ATTACHED_WITHIN_S, self._alive)
            except SubjectFailed as error:
                if self._is_to_be_let_go(pid, others):
                    failed[str(pid)] = str(error)
                    continue
            released.append(pid)
        self.known = {pid: known for pid, known in self.known.items() if str(pid) in failed}
        told = {
            "released": released,
            "ended": ended,
            "failed": failed,
            "offsets": offsets._asdict(),
            "begun_moved": begun_moved,
        }
        if not failed:
            self.rules, self.owner, self.given_up, self._begun_moved = (), None, None, {}
            self.ends = False
            self._set_pages(ClockReading(0, 0, 0))
        self.refused.clear()
        self._save()
        return told

    def _is_to_be_let_go(self, pid: int, others: Sequence[Rule]) -> bool:
        """One of ours; or one that fits a rule of `others` and is on the page of a helper that
        nobody remembers."""
        if self._is_ours(pid):
            return True
        if not any(rule.fits(pid) for rule in others):
            return False
        with suppress(HarnessError):
            inside = page_inside(pid)
            return inside is not None and inside.in_use
        return False

    def _in_order(self, pids: Iterable[int]) -> list[int]:
        """Those first who are asked by the others."""

        def is_asked(pid: int) -> bool:
            rule = self._rule_of(pid)
            return rule is not None and rule.keeps_monotonic

        return sorted(pids, key=lambda pid: (not is_asked(pid), pid))

    def _is_ahead(self, pid: int) -> bool:
        """Whether a clock of it would go back if it were let go of. A wall clock may, where nobody
        asked for `ends`: that is a step, as time services make them."""
        with suppress(HarnessError, OSError):
            inside = page_inside(pid)
            if inside is None or not inside.in_use:
                return False
            page = ClockPage.of_file(os.open(inside.map_file(pid), os.O_RDWR | os.O_CLOEXEC))
            try:
                offsets = page.get()
            finally:
                page.close()
            return offsets.monotonic_ns > 0 or (self.ends and max(offsets) > 0)
        return False

    def _end(self, pid: int) -> None:
        """Raises SubjectFailed when it outlives that."""
        ticks = _started_ticks(pid)
        if ticks is None:
            return
        _signal(pid, ticks, signal.SIGKILL)
        give_up = time.monotonic() + _ENDED_WITHIN_S
        while _started_ticks(pid) == ticks:
            if time.monotonic() > give_up:
                raise SubjectFailed(
                    f"it is ahead and was ended, and is still there {_ENDED_WITHIN_S:.0f} s later"
                )
            self._alive()
            time.sleep(0.001)

    def _began_moved(self) -> list[dict[str, Any]]:
        """The programs that took their time base while clocks were moved: it is wrong when they are
        put back."""
        return [
            _about(pid)
            for pid, ticks in sorted(self._begun_moved.items())
            if _started_ticks(pid) == ticks
        ]

    # whose it is

    def _check_owner(self, do: Callable[[Mapping[str, Any]], Any], owner: Any) -> None:
        if do in {self._hello, self._read, self._list} or owner == self.owner is not None:
            return
        if self.owner is None:
            if do in {self._take, self._release}:
                return
            raise SubjectFailed(self._nobodys())
        raise LabUnavailable(
            f"the clocks of this node are moved by {self.owner}, last heard "
            f"{self._silent_s:.0f} s ago; wait for its "
            f"end, or end it: {self.lease_s:.0f} s later they are put back"
        )

    def _look_at_lease(self) -> None:
        now_monotonic_s = time.monotonic()
        self._silent_s += min(now_monotonic_s - self._listened_monotonic_s, _SILENT_AT_MOST_S)
        self._listened_monotonic_s = now_monotonic_s
        if self._silent_s > self.lease_s + self._gives_up_later_s():
            self._give_up(f"it was not heard for {self.lease_s:.0f} s")

    def _gives_up_later_s(self) -> float:
        """What is started anew here must not ask one that is ahead: where such a one runs is the
        first to give up."""
        asked = any(
            (rule := self._rule_of(pid)) is not None and rule.keeps_monotonic for pid in self.known
        )
        return 0.0 if asked or not self.ends else _GIVES_UP_LATER_S

    def _give_up(self, why: str) -> None:
        """Releases, and keeps in mind for whoever asks next; what fails is tried again by the next
        look."""
        owner = self.owner
        told = self._release({})
        if owner is not None and not told["failed"]:
            self.given_up = {"owner": owner, "why": why, **told}
            self._save()

    def _nobodys(self) -> str:
        if self.given_up is None:
            return "no clocks of this node are taken; take comes first"
        return (
            f"the clocks of this node were moved by {self.given_up['owner']} and have been "
            "put back, because "
            f"{self.given_up['why']}; was it stopped, or was the API server too slow to "
            "carry a word in that time?"
        )

    # finding programs

    def _scan(self, how: str) -> None:
        """Every program that fits is under our page afterwards, or stands in `refused`."""
        self._forget_the_dead()
        for pid in _processes():
            ticks = _started_ticks(pid)
            if ticks is None or pid in self.known or (pid, ticks) in self.refused:
                continue
            if (rule := self._rule_of(pid)) is not None:
                self._attach(pid, ticks, how, self._page_of(rule))

    def _rule_of(self, pid: int) -> Rule | None:
        return next((rule for rule in self.rules if rule.fits(pid)), None)

    def _page_of(self, rule: Rule) -> ClockPage:
        return self.kept_page if rule.keeps_monotonic else self.page

    def _attach(self, pid: int, ticks: int, how: str, page: ClockPage) -> None:
        if self._watch is not None and self._watch.follows(pid):
            return  # it has just been executed, and is caught in a moment
        try:
            ours_already = self._is_ours(pid)
            if not ours_already and (why := self._why_too_late(page)):
                if (
                    _age_s(ticks) > _CAUGHT_WITHIN_S
                ):  # else it may be on its way to be caught, between two stops
                    self.refused[pid, ticks] = (
                        f"{_executable(pid)} was not caught at its start, {why}"
                    )
                return
            launched = attach(pid, page, _ATTACHED_WITHIN_S, self._meanwhile)
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

    def _why_too_late(self, page: ClockPage) -> str:
        """Why a program that has run on the kernel's clocks cannot be put on `page` any more; "":
        it can."""
        if page.get().monotonic_ns < 0:
            return "and now its monotonic clock would go back"
        return (
            "so its time base is not of these clocks" if self.ends and max(page.get()) > 0 else ""
        )

    def _forget_the_dead(self) -> None:
        for pid, known in list(self.known.items()):
            gone = (
                _started_ticks(pid) != known.started_ticks or _executable(pid) != known.executable
            )
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
        return (
            inside is not None
            and inside.in_use
            and inside.inode in {self.page.inode, self.kept_page.inode}
        )

    # watching execs

    def _begin_watch(self) -> None:
        self._end_watch()
        self._unwatched_because, self._launchers_found = None, []
        try:
            watch = self._watch = ExecWatch(self._wanted, self._caught, self._not_caught)
            self._launchers_found = [
                path for path in self.launchers if watch.mark_launcher(self._on_node(path))
            ]
        except (LabUnavailable, OSError) as error:
            self._end_watch()
            self._unwatched_because = str(error)
            return
        if self.launchers and not self._launchers_found:
            self._unwatched_because = (
                f"new containers: no container runtime at {', '.join(self.launchers)} below "
                f"{self._node_root}"
            )
        elif not watch.holds:
            self._unwatched_because = (
                "programs started again within a container: that needs Linux 6.8"
            )
        for pid in list(self.known):
            self._mark_programs(pid)

    def _on_node(self, path: str) -> Path:
        return self._node_root / path.lstrip("/")

    def _end_watch(self) -> None:
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.close()

    def _wanted(self, pid: int) -> bool:
        """A process has just exec'ed. Whatever it is: in its container one of ours may be started
        next."""
        self._mark_programs(pid)
        return self._rule_of(pid) is not None

    def _caught(self, tracee: Tracee) -> None:
        pid = tracee.pid
        rule = self._rule_of(pid)
        page = self.page if rule is None else self._page_of(rule)
        launched = install_stopped(tracee, page)
        self.known[pid] = Known(
            launched, _started_ticks(pid) or 0, _executable(pid) or "", "caught"
        )
        self.refused.pop((pid, self.known[pid].started_ticks), None)
        if page.get() != ClockReading(0, 0, 0):
            self._begun_moved[pid] = self.known[pid].started_ticks
            self._save()
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
        paths = [
            Path(f"/proc/{pid}/root{rule.executable}")
            for rule in self.rules
            if rule.executable.startswith("/")
        ]
        if pid in self.known:
            paths.append(Path(f"/proc/{pid}/exe"))
        for path in paths:
            with suppress(
                LabUnavailable
            ):  # a file system that cannot be watched: its programs are found late
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
        at_wake = _reading(asleep["at_wake"]) if is_over else None
        _wake(
            dict(asleep["sleepers"]), None if at_wake is None else partial(self._set_pages, at_wake)
        )
        self._save()

    def _wake_now(self) -> None:
        """Ends a sleep before its time; the offsets stay as they were, so it was a freeze."""
        if self._asleep is not None:
            self._end_guardian(self._asleep["guardian"])
            self._look_at_sleep()

    def _end_guardian(self, named: Sequence[int]) -> None:
        guardian, ticks = named
        if _started_ticks(guardian) != ticks or ticks is None:
            return
        os.kill(guardian, signal.SIGKILL)
        give_up = time.monotonic() + _ALL_STOPPED_WITHIN_S
        while _started_ticks(guardian) == ticks and time.monotonic() < give_up:
            time.sleep(0.001)

    # state that outlives us

    def _save(self) -> None:
        state = {
            "format": PROTOCOL_VERSION,
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "rules": [list(rule) for rule in self.rules],
            "launchers": list(self.launchers),
            "lease_s": self.lease_s,
            "owner": self.owner,
            "given_up": self.given_up,
            "begun_moved": list(self._begun_moved.items()),
            "offsets": list(self.page.get()),
            "ends": self.ends,
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
            state = {"format": f"unreadable: {error}"}
        if state.get("format") != PROTOCOL_VERSION:
            # Not to be there for that would be worse: what it moved is found by the rules of a take
            # or a release.
            sys.stderr.write(
                f"{self._state_file}: not that of this version ({state.get('format')}); forgotten\n"
            )
            return
        if state["boot_id"] != Path("/proc/sys/kernel/random/boot_id").read_text().strip():
            return
        self.rules = tuple(Rule(*rule) for rule in state["rules"])
        self.launchers = tuple(state["launchers"])
        self.lease_s, self.owner, self.given_up = (
            state["lease_s"],
            state["owner"],
            state["given_up"],
        )
        self._begun_moved = dict(state["begun_moved"])
        self._find_pages(ClockReading(*state["offsets"]))
        self.ends, self._asleep = state["ends"], state["asleep"]
        self._look_at_sleep()
        if self.rules:
            self._begin_watch()
            self._scan("found")

    def _find_pages(self, saved: ClockReading) -> None:
        """The pages of a helper before us live on in the programs that have them, and tell more
        than what was `saved`: it may have been killed between the two."""
        found: dict[bool, ClockPage] = {}
        for pid in _processes():
            with suppress(HarnessError, OSError):
                rule = self._rule_of(pid)
                if rule is None or rule.keeps_monotonic in found:
                    continue
                inside = page_inside(pid)
                if inside is not None and inside.in_use:
                    file = os.open(inside.map_file(pid), os.O_RDWR | os.O_CLOEXEC)
                    found[rule.keeps_monotonic] = ClockPage.of_file(file)
        if True in found:
            self.kept_page.close()
            self.kept_page = found[True]
            kept = found[True].get()
            saved = ClockReading(kept.wall_ns, saved.monotonic_ns, kept.boottime_ns)
        if False in found:
            self.page.close()
            self.page = found[False]
            saved = self.page.get()
        self._set_pages(saved)


def _processes() -> list[int]:
    """All processes but us and our children."""
    own = os.getpid()
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return sorted(pid for pid in found if pid != own and _parent(pid) != own)


def _parent(pid: int) -> int | None:
    fields = _text(pid, "stat").rpartition(")")[2].split()
    return int(fields[1]) if fields else None


def _begin_sleep(
    sleepers: Mapping[int, int], lasts_ns: int, set_at_wake: Callable[[], None] | None
) -> int:
    """Stops the processes; a child of ours wakes them, whatever becomes of us. Returns its number.
    The time is counted from when all have stopped: what ran on until then must not see its clock go
    back at the wake."""
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
        began_ns = time.monotonic_ns()
        while (left_ns := began_ns + lasts_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / NS_PER_S)
        _wake(sleepers, set_at_wake)
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


def _wake(sleepers: Mapping[int, int], set_at_wake: Callable[[], None] | None) -> None:
    if set_at_wake is not None:
        set_at_wake()
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
    if not isinstance(entry, dict) or not set(entry) <= set(Rule._fields):
        raise BadInput(f"rule {entry!r}: expected are {', '.join(Rule._fields)}")
    executable, cgroup = entry.get("executable"), entry.get("cgroup")
    if not isinstance(executable, str) or not executable or not isinstance(cgroup, str | None):
        raise BadInput(
            f"rule {entry!r}: executable is a path or a name, cgroup a part of a path or null"
        )
    keeps_monotonic, idles_in_epoll = (
        entry.get("keeps_monotonic", False),
        entry.get("idles_in_epoll", False),
    )
    if not isinstance(keeps_monotonic, bool) or not isinstance(idles_in_epoll, bool):
        raise BadInput(f"rule {entry!r}: keeps_monotonic and idles_in_epoll are true or false")
    port = int(_number(entry.get("streams_to_port", 0), "streams_to_port", 0, 65535))
    return Rule(executable, cgroup, keeps_monotonic, idles_in_epoll, port)


def _strings(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise BadInput(f"{name} {value!r}: a list of paths is expected")
    return value


def _owner(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _OWNER_AT_MOST:
        raise BadInput(f"owner {value!r}: a text of 1 to {_OWNER_AT_MOST} characters is expected")
    return value


def _number(value: Any, name: str, least: float, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise BadInput(f"{name} {value!r}: a number from {least:g} to {most:g} is expected")
    return value


def _offsets(request: Any) -> ClockReading:
    values = (
        [request.get(name) for name in ClockReading._fields] if isinstance(request, dict) else []
    )
    whole = [value for value in values if isinstance(value, int) and abs(value) < 2**61]
    if len(whole) != len(ClockReading._fields):
        raise BadInput(
            f"offsets {request!r}: whole numbers {', '.join(ClockReading._fields)} are expected"
        )
    return ClockReading(*whole)


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
            answer = (
                json.dumps(_answer(self._node, bytes(line).partition(b"\n")[0])).encode() + b"\n"
            )
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
    """One request to the helper behind the socket at `path`; its whole answer. Raises
    LabUnavailable when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        try:
            connection.connect(str(path))
            connection.sendall(line.strip().encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n") and (piece := connection.recv(65536)):
                answer += piece
        except OSError as error:
            raise LabUnavailable(
                f"no helper answers at {path} ({error}); is its container running?"
            ) from error
    if not answer:
        raise LabUnavailable(f"the helper at {path} ended while it was asked; see its log")
    told: dict[str, Any] = json.loads(answer)
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code (harness/meshwake/core/errors.py)."""
    parser = argparse.ArgumentParser(
        prog="python -m meshwake.clocks.movers.node_helper", description="clocks of one node"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="the helper itself; until SIGTERM")
    serve.add_argument(
        "--state", type=Path, required=True, help="file that outlives the helper, on the node"
    )
    serve.add_argument(
        "--node-root", type=Path, default=NODE_ROOT, help="where the node's own files are found"
    )
    ask = commands.add_parser("send", help="one request")
    ask.add_argument("request", help="JSON, or - for each line of standard input, to its end")
    for command in (serve, ask):
        command.add_argument("--socket", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "serve":
            _keep_alive()
            _Server(chosen.socket, chosen.state, chosen.node_root).run()
            return 0
        for line in iter(sys.stdin.readline, "") if chosen.request == "-" else (chosen.request,):
            sys.stdout.write(json.dumps(send(chosen.socket, line)) + "\n")
            sys.stdout.flush()
    except HarnessError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
