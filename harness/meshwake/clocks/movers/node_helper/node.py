"""What each request does: the programs of one node under its clock pages."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from meshwake.clocks.injectors.unreachable_waits import wake_epoll_waits
from meshwake.clocks.movers.node_helper.answers import (
    Hello,
    ListedProcess,
    Listing,
    Readings,
    ReadProcess,
    RefusedProcess,
    Released,
    StillResult,
)
from meshwake.clocks.movers.node_helper.idleness import Idleness
from meshwake.clocks.movers.node_helper.lease import Lease
from meshwake.clocks.movers.node_helper.pages import (
    NOT_MOVED,
    NodePages,
    is_on_a_page,
    offsets_inside,
)
from meshwake.clocks.movers.node_helper.processes import (
    describe,
    other_processes,
    send_signal,
)
from meshwake.clocks.movers.node_helper.programs import ATTACHED_WITHIN_S, Programs
from meshwake.clocks.movers.node_helper.protocol import (
    LEASE_MAX_S,
    PROTOCOL_VERSION,
    SLEEP_MAX_S,
    read_launchers,
    read_number,
    read_offsets,
    read_owner,
    read_rules,
)
from meshwake.clocks.movers.node_helper.rules import Rule, first_rule
from meshwake.clocks.movers.node_helper.sleep import (
    ALL_STOPPED_WITHIN_S,
    Sleep,
    begin_sleep,
    wake_sleepers,
)
from meshwake.clocks.movers.node_helper.state import boot_id, load_state, save_state
from meshwake.clocks.vdso.attach import detach, read_attached
from meshwake.clocks.vdso.exec_watch import ExecWatch
from meshwake.clocks.vdso.page import attaching_unsupported_here
from meshwake.core.clock_reading import ClockReading
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import BadInput, HarnessError, LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject
from meshwake.system.deadline import Deadline
from meshwake.system.process_stat import started_ticks

NODE_ROOT = Path("/proc/1/root")
_SCAN_EVERY_S = 1.0
# A node that is ahead gives up so much later than the one on which istiod runs.
_GIVES_UP_LATER_S = 10.0
_ENDED_WITHIN_S = 5.0
_STILL_AT_MOST_S = 20.0
_STILL_POLL_S = 0.002
_POLL_EVERY_S = 0.001
_DEFAULT_LEASE_S = 20

Request = JsonObject
Result = Mapping[str, object]


def _kernel_clocks() -> ClockReading:
    boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return ClockReading(time.time_ns(), time.monotonic_ns(), boottime_ns)


def _is_wanted(pid: Any, rule: Rule | None, known: int) -> bool:
    """Whether a request means the program `known`: by its number, its executable, both or none."""
    if pid is not None and pid != known:
        return False
    return rule is None or rule.fits(known)


class HelperNode:
    """Lives in one thread; `serve` must be called often."""

    def __init__(
        self,
        state_file: Path,
        node_root: Path = NODE_ROOT,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._state_file, self._alive = state_file, alive
        self._lease = Lease()
        self._pages = NodePages()
        self._programs = Programs(self._pages, node_root, alive, self._note_caught)
        self._idleness = Idleness(self._programs)
        self._asleep: Sleep | None = None
        self._next_scan = Deadline("the next scan", 0.0)
        self._restore_state()

    @property
    def watch(self) -> ExecWatch | None:
        """The watch over execs, while rules are taken and the system allows it."""
        return self._programs.watch

    @property
    def tick_s(self) -> float:
        """How soon `serve` is to be called again."""
        return self._programs.tick_s

    def answer(self, request: Request) -> Result:
        """Does what one request says. Raises BadInput, LabUnavailable, SubjectFailed."""
        if request.get("version") != PROTOCOL_VERSION:
            raise BadInput(
                f"protocol version {request.get('version')!r}; this helper speaks "
                f"{PROTOCOL_VERSION}"
            )
        handlers = self._handlers()
        handler = handlers.get(str(request.get("do")))
        if handler is None:
            raise BadInput(f"request {request.get('do')!r}; known are {', '.join(handlers)}")
        owner = request.get("owner")
        self._check_owner(str(request.get("do")), owner)
        self._end_sleep_without_guardian()
        try:
            return handler(request)
        finally:
            # At its end: a request may last longer than the lease, and nothing is received
            # meanwhile.
            if owner is not None and owner == self._lease.owner:
                self._lease.note_renewal()

    def serve(self) -> None:
        """What is to be done between requests; bounded, and short when nothing has happened."""
        self._programs.meanwhile()
        self._end_sleep_without_guardian()
        if self._next_scan.has_passed:
            self._next_scan = Deadline("the next scan", _SCAN_EVERY_S)
            if self._programs.rules:
                self._programs.scan("late")
                self._check_lease()

    def close(self) -> None:
        """Releases everything."""
        self._give_up("the helper was ended")
        self._pages.close()

    def _handlers(self) -> dict[str, Callable[[Request], Result]]:
        return {
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

    # Taking a node

    def _hello(self, request: Request) -> Hello:
        return {
            "kernel": platform.release(),
            "unsupported": attaching_unsupported_here(),
            "boot_id": boot_id(),
        }

    def _take(self, request: Request) -> Listing:
        reason = attaching_unsupported_here()
        if reason is not None:
            raise LabUnavailable(reason)

        # All values are read before the first is used: a request is refused whole.
        rules = read_rules(request.get("rules"))
        launchers = read_launchers(request.get("launchers"))
        owner = read_owner(request.get("owner"))
        lease_s = read_number(request.get("lease_s", _DEFAULT_LEASE_S), "lease_s", 1, LEASE_MAX_S)
        self._lease.begin(owner, lease_s)
        self._programs.rules, self._programs.launchers = rules, launchers
        self._programs.ends = request.get("ends") is True
        self._programs.refused.clear()
        self._save()
        self._programs.begin_watch()
        self._programs.scan("attached")
        return self._list(request)

    def _renew(self, request: Request) -> Result:
        return {"lease_s": self._lease.lease_s}

    def _check_owner(self, do: str, owner: Any) -> None:
        if do not in {"hello", "read", "list"}:
            self._lease.check(owner, may_begin=do in {"take", "release"})

    # Moving clocks

    def _set(self, request: Request) -> Result:
        offsets = self._read_offsets(request)
        if self._asleep is not None:
            raise SubjectFailed(
                "the programs of this node are asleep; offsets can be set when they have woken"
            )
        now = self._pages.offsets
        if offsets.monotonic_ns < now.monotonic_ns:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns} is less than the {now.monotonic_ns} it is: "
                "the clock would go back; use sleep, which stops the programs for as long"
            )
        self._pages.set(offsets)
        if request.get("kick") is True:
            wake_epoll_waits(*self._programs.moved_monotonic())
        self._save()
        return {"offsets": offsets._asdict()}

    def _read_offsets(self, request: Any) -> ClockReading:
        offsets = read_offsets(request)
        if offsets.monotonic_ns > 0 and not self._programs.ends:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns}: at most 0, because letting go of it "
                "would turn the clock back; "
                "a take with `ends` allows it, and ends at the release what is ahead"
            )
        return offsets

    # Waiting for idleness, and reading clocks

    def _still(self, request: Request) -> Result:
        within_s = read_number(request.get("within_s"), "within_s", 0, _STILL_AT_MOST_S)
        if self._asleep is not None:
            return self._described_idleness("")
        deadline = Deadline("every program to be idle", within_s)
        self._programs.scan("late")
        while (busy := self._idleness.first_busy()) and not deadline.has_passed:
            self._programs.meanwhile()
            deadline.sleep(_STILL_POLL_S)
        return self._described_idleness(busy)

    def _described_idleness(self, busy: str) -> StillResult:
        programs = self._programs
        return {
            "busy": busy,
            "refused": {str(pid): why for (pid, _), why in programs.refused.items()},
            "keeps_monotonic": [pid for pid in programs.known if programs.keeps_monotonic(pid)],
            "programs": sorted(programs.known),
        }

    def _read(self, request: Request) -> Readings:
        pid = request.get("pid")
        executable = request.get("executable")
        rule = None if executable is None else Rule(str(executable))
        is_wanted = partial(_is_wanted, pid, rule)

        self._programs.scan("late")
        readings: list[ReadProcess] = []
        failed: dict[str, str] = {}
        wanted = [known for known in self._programs.known if is_wanted(known)]
        for known in wanted:
            try:
                readings.append(self._read_one(known))
            except HarnessError as error:
                failed[str(known)] = str(error)
        if pid is not None and not readings and not failed:
            raise SubjectFailed(f"process {pid} is not under this node's clocks; see list")

        for (refused, _), why in self._programs.refused.items():
            if is_wanted(refused):
                failed[str(refused)] = why
        return {
            "readings": readings,
            "failed": failed,
            "offsets": self._pages.offsets._asdict(),
        }

    def _read_one(self, pid: int) -> ReadProcess:
        program = self._programs.known[pid]
        before = _kernel_clocks()
        inside = read_attached(program.launched, ATTACHED_WITHIN_S, self._programs.meanwhile)
        return {
            "pid": pid,
            "executable": program.executable,
            "how": program.how,
            "clocks": inside._asdict(),
            "kernel_before": before._asdict(),
            "kernel_after": _kernel_clocks()._asdict(),
        }

    # Sleeping and waking

    def _sleep(self, request: Request) -> Result:
        longest_ns = SLEEP_MAX_S * NS_PER_S
        lasts_ns = int(read_number(request.get("lasts_ns"), "lasts_ns", 0, longest_ns))
        at_wake = None
        if request.get("at_wake") is not None:
            at_wake = self._read_offsets(request["at_wake"])
        if self._asleep is not None:
            raise SubjectFailed("the programs of this node are asleep already")
        self._check_at_wake(at_wake, lasts_ns)
        self._programs.scan("late")
        known = self._programs.known
        if not known:
            raise SubjectFailed(
                "no program fits the rules on this node, so there is nothing that could "
                "sleep; see list"
            )
        sleepers = {pid: program.started_ticks for pid, program in known.items()}
        self._asleep = self._begin_sleep(sleepers, lasts_ns, at_wake)
        self._save()
        self._note_stop(self._asleep)
        return {"sleepers": sorted(sleepers), "lasts_ns": lasts_ns}

    def _check_at_wake(self, at_wake: ClockReading | None, lasts_ns: int) -> None:
        now = self._pages.offsets
        if at_wake is not None and now.monotonic_ns - at_wake.monotonic_ns > lasts_ns:
            raise BadInput(
                f"at_wake.monotonic_ns {at_wake.monotonic_ns} lies more than the sleep of "
                f"{lasts_ns} ns below the "
                f"{now.monotonic_ns} it is: the clock would go back"
            )

    def _begin_sleep(
        self, sleepers: dict[int, int], lasts_ns: int, at_wake: ClockReading | None
    ) -> Sleep:
        spare_ns = int(ALL_STOPPED_WITHIN_S * NS_PER_S)
        until_ns = _kernel_clocks().boottime_ns + lasts_ns + spare_ns
        set_at_wake = None if at_wake is None else partial(self._pages.set, at_wake)
        guardian = begin_sleep(sleepers, lasts_ns, set_at_wake)
        return Sleep(guardian, started_ticks(guardian), dict(sleepers), until_ns, at_wake)

    def _note_stop(self, sleep: Sleep) -> None:
        """When all were stopped: from then on their clocks may go back at the wake by as much as it
        lasted."""
        deadline = Deadline("all sleepers to stop", ALL_STOPPED_WITHIN_S)
        while not sleep.are_all_stopped():
            if deadline.has_passed:
                return
            self._programs.meanwhile()
            deadline.sleep(_POLL_EVERY_S)
        sleep.stopped_monotonic_ns = time.monotonic_ns()
        self._save()

    def _wake(self, request: Request) -> Result:
        offsets = self._read_offsets(request)
        if self._asleep is None:
            raise SubjectFailed("the programs of this node are awake already")
        slept_ns = self._asleep.slept_ns()
        back_ns = self._pages.offsets.monotonic_ns - offsets.monotonic_ns
        if back_ns > slept_ns:
            raise BadInput(
                f"monotonic_ns {offsets.monotonic_ns} lies {back_ns} ns below what it is, "
                f"and the programs have been stopped for {slept_ns} ns: the clock would go back"
            )
        self._asleep.end_guardian()
        sleepers, self._asleep = self._asleep.sleepers, None
        wake_sleepers(sleepers, partial(self._pages.set, offsets))
        self._save()
        return {"offsets": offsets._asdict()}

    def _end_sleep_without_guardian(self) -> None:
        """A sleep ends when its guardian has ended; one whose guardian was killed is ended here."""
        asleep = self._asleep
        if asleep is None or asleep.is_guarded():
            return

        self._asleep = None
        set_at_wake = None

        # Before its time, the clocks of its end would go back.
        is_over = _kernel_clocks().boottime_ns >= asleep.until_boottime_ns
        if is_over and asleep.at_wake is not None:
            set_at_wake = partial(self._pages.set, asleep.at_wake)
        wake_sleepers(asleep.sleepers, set_at_wake)
        self._save()

    def _wake_now(self) -> None:
        """Ends a sleep before its time; the offsets stay as they were, so it was a freeze."""
        if self._asleep is not None:
            self._asleep.end_guardian()
            self._end_sleep_without_guardian()

    def _note_caught(self, pid: int, ticks: int) -> None:
        """A program that starts while the others sleep sleeps too."""
        asleep = self._asleep
        if asleep is not None:
            os.kill(pid, signal.SIGSTOP)
            asleep.sleepers[pid] = ticks

        # What the next helper needs to know if this one is killed.
        if asleep is not None or pid in self._programs.begun_moved:
            self._save()

    # Listing and releasing

    def _list(self, request: Request) -> Listing:
        programs = self._programs
        programs.forget_the_ended()
        processes: list[ListedProcess] = [
            {
                "pid": pid,
                "executable": program.executable,
                "started_ticks": program.started_ticks,
                "how": program.how,
            }
            for pid, program in sorted(programs.known.items())
        ]
        refused: list[RefusedProcess] = [
            {"pid": pid, "why": why} for (pid, _), why in sorted(programs.refused.items())
        ]
        return {
            "rules": [rule._asdict() for rule in programs.rules],
            "processes": processes,
            "refused": refused,
            "offsets": self._pages.offsets._asdict(),
            "asleep": self._asleep is not None,
            **programs.described_watch(),
            "lease_s": self._lease.lease_s,
            "owner": self._lease.owner,
            "ends": programs.ends,
            "silent_s": round(self._lease.silent_s, 1),
            "given_up": self._lease.given_up,
        }

    def _release(self, request: Request) -> Released:
        others = () if request.get("rules") is None else read_rules(request["rules"])
        self._wake_now()
        self._programs.end_watch()
        result: Released = {
            "released": [],
            "ended": [],
            "failed": {},
            "offsets": self._pages.offsets._asdict(),
            "begun_moved": self._programs.described_begun_moved(),
        }
        to_release = [pid for pid in other_processes() if self._is_to_be_released(pid, others)]
        for pid in self._programs.in_order_of_release(to_release):
            self._release_one(pid, others, result)
        failed = result["failed"]
        known = self._programs.known.items()
        self._programs.known = {pid: one for pid, one in known if str(pid) in failed}
        if not failed:
            self._forget_everything()
        self._programs.refused.clear()
        self._save()
        return result

    def _release_one(self, pid: int, others: Sequence[Rule], result: Released) -> None:
        description = describe(pid)
        try:
            if self._is_ahead(pid):
                self._end(pid)
                result["ended"].append(description)
            else:
                detach(pid, ATTACHED_WITHIN_S, self._alive)
        except SubjectFailed as error:
            # One that has ended meanwhile needs nothing.
            if self._is_to_be_released(pid, others):
                result["failed"][str(pid)] = str(error)
                return
        result["released"].append(pid)

    def _forget_everything(self) -> None:
        self._lease.owner, self._lease.given_up = None, None
        self._programs.rules, self._programs.ends = (), False
        self._programs.begun_moved = {}
        self._pages.set(NOT_MOVED)

    def _is_to_be_released(self, pid: int, others: Sequence[Rule]) -> bool:
        """One of ours; or one that fits a rule of `others` and is on the page of a helper whose
        state is lost."""
        if self._pages.has(pid):
            return True
        if first_rule(others, pid) is None:
            return False
        return is_on_a_page(pid)

    def _is_ahead(self, pid: int) -> bool:
        """Whether a clock of it would go back if it were detached. A wall clock may, unless the
        take had `ends`: that is a step, as time services make them."""
        offsets = offsets_inside(pid)
        if offsets is None:
            return False
        if self._programs.ends:
            return max(offsets) > 0
        return offsets.monotonic_ns > 0

    def _end(self, pid: int) -> None:
        """Raises SubjectFailed when it outlives that."""
        ticks = started_ticks(pid)
        if ticks is None:
            return
        send_signal(pid, ticks, signal.SIGKILL)
        deadline = Deadline(f"process {pid} to end", _ENDED_WITHIN_S)
        while started_ticks(pid) == ticks:
            if deadline.has_passed:
                raise SubjectFailed(
                    f"it is ahead and was ended, and is still there {_ENDED_WITHIN_S:.0f} s later"
                )
            self._alive()
            deadline.sleep(_POLL_EVERY_S)

    # Giving up

    def _check_lease(self) -> None:
        self._lease.count_silence()
        if self._lease.has_run_out(self._gives_up_later_s()):
            self._give_up(f"its lease was not renewed for {self._lease.lease_s:.0f} s")

    def _gives_up_later_s(self) -> float:
        """A program that is started again here must not ask one that is ahead: the node that runs
        such a one is the first to give up."""
        programs = self._programs
        if not programs.ends:
            return 0.0
        runs_istiod = any(programs.keeps_monotonic(pid) for pid in programs.known)
        return 0.0 if runs_istiod else _GIVES_UP_LATER_S

    def _give_up(self, why: str) -> None:
        """Releases, and notes it for the next client; what fails is tried again a second later."""
        owner = self._lease.owner
        released = self._release({})
        if owner is not None and not released["failed"]:
            self._lease.given_up = {"owner": owner, "why": why, **released}
            self._save()

    # What outlives us

    def _save(self) -> None:
        programs, lease = self._programs, self._lease
        save_state(
            self._state_file,
            {
                "rules": list(programs.rules),
                "launchers": list(programs.launchers),
                "lease_s": lease.lease_s,
                "owner": lease.owner,
                "given_up": lease.given_up,
                "begun_moved": list(programs.begun_moved.items()),
                "offsets": self._pages.offsets,
                "ends": programs.ends,
                "asleep": None if self._asleep is None else self._asleep.saved(),
            },
        )

    def _restore_state(self) -> None:
        """What a helper before us had taken on this boot of the machine is ours now."""
        state = load_state(self._state_file)
        if state is None:
            return
        programs, lease = self._programs, self._lease
        programs.rules = tuple(Rule(*rule) for rule in state["rules"])
        programs.launchers = tuple(state["launchers"])
        programs.begun_moved = dict(state["begun_moved"])
        lease.lease_s, lease.owner = state["lease_s"], state["owner"]
        lease.given_up = state["given_up"]
        self._pages.adopt(other_processes(), programs.rule_of, ClockReading(*state["offsets"]))
        programs.ends = state["ends"]
        self._asleep = None if state["asleep"] is None else Sleep.restored(state["asleep"])
        self._end_sleep_without_guardian()
        if programs.rules:
            programs.begin_watch()
            programs.scan("found")
