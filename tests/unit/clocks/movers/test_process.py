"""The mover by processes against helpers that are simulated: what it asks of them, and what it
believes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest
from meshwake.clocks.movers.base import Moment
from meshwake.clocks.movers.node_helper.protocol import PROTOCOL_VERSION
from meshwake.clocks.movers.process import ISTIOD, ZTUNNEL, ProcessMover, rules_for
from meshwake.core.clock_reading import ClockReading, drift_ns
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.core.plan import Plan, PlannedNode
from meshwake.core.planned_faults import PlannedFault, read_planned_fault
from meshwake.system.deadline import wait_until

MS = 10**6
NONE = ClockReading(0, 0, 0)


class Helpers:
    """A channel to helpers that exist only here: time passes by 1 ms a request, and by a whole
    sleep at once."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.offsets: dict[str, ClockReading] = {}
        self.kernel = ClockReading(10**18, 10**15, 10**15)
        self.extra = NONE  # what a program shows on top of its offsets: it is moved from outside
        self.take_answer: dict[str, Any] = {}
        self.hello_answer: dict[str, Any] = {"unsupported": None}
        self.release_answer: dict[str, Any] = {
            "released": [1],
            "ended": [],
            "failed": {},
            "begun_moved": [],
        }
        self.version = PROTOCOL_VERSION
        self.given_up = ""
        self._lock = threading.Lock()

    def send(self, node: str, request: Mapping[str, Any], within_s: float = 0.0) -> dict[str, Any]:
        with self._lock:
            assert request["version"] == PROTOCOL_VERSION
            self.requests.append((node, dict(request)))
            self.kernel = ClockReading(*(clock + MS for clock in self.kernel))
            try:
                result = getattr(self, "_" + request["do"])(node, request)
            except SubjectFailed as error:
                failure = {"kind": "SubjectFailed", "message": str(error)}
                return {"version": self.version, "ok": False, "error": failure}
            return {"version": self.version, "ok": True, "result": result}

    def words(self, node: str | None = None) -> list[str]:
        return [request["do"] for at, request in self.requests if node in {None, at}]

    def _hello(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return self.hello_answer

    def _take(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.offsets[node] = NONE
        processes = [{"pid": 1, "executable": ZTUNNEL.executable}]
        watch = {"launchers": ["/usr/sbin/runc"]}
        return {
            "processes": processes,
            "refused": [],
            "watch": watch,
            "unwatched_because": None,
            **self.take_answer,
        }

    def _set(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.offsets[node] = ClockReading(*(request[name] for name in ClockReading._fields))
        return {}

    def _sleep(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        self.kernel = ClockReading(*(clock + request["lasts_ns"] for clock in self.kernel))
        if request["at_wake"] is not None:
            self.offsets[node] = ClockReading(**request["at_wake"])
        return {}

    def _renew(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if self.given_up:
            raise SubjectFailed(self.given_up)
        return {}

    def _list(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"asleep": False}

    def _read(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        offsets = self.offsets[node]
        shown = ClockReading(*(map(sum, zip(self.kernel, offsets, self.extra, strict=True))))
        kernel = self.kernel._asdict()
        read = {
            "pid": 1,
            "clocks": shown._asdict(),
            "kernel_before": kernel,
            "kernel_after": kernel,
        }
        return {"readings": [read], "failed": {}, "offsets": offsets._asdict()}

    def _release(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return self.release_answer


def fault(index: int, kind: str, node: str = "a", **numbers: int) -> PlannedFault:
    return read_planned_fault(
        {"index": index, "kind": kind, "node": node, "at_world_ns": 0, **numbers}
    )


def plan(*faults: PlannedFault, authority_node: str | None = None) -> Plan:
    return Plan(
        scenario="s",
        title="t",
        lab="kind",
        version="1.31.0",
        behaviour_class="keeps",
        seed=0,
        starts_wall_s=1_800_000_000,
        duration_ns=600 * 10**9,
        lifetime_s=600,
        backdate_s=120,
        nodes=(
            PlannedNode(name="a", identities=("x/a",)),
            PlannedNode(name="b", identities=("x/b",)),
        ),
        authority_node=authority_node,
        pairs=(),
        attempt_every_ns=10**9,
        faults=faults,
    )


def ready(helpers: Helpers, *faults: PlannedFault) -> ProcessMover:
    mover = ProcessMover(plan(*faults), helpers)
    mover.prepare()
    return mover


def test_a_suspend_leaves_the_wall_right_and_monotonic_behind() -> None:
    """As a node that slept looks to the others; and it has slept in real time, so world time is not
    skipped."""
    helpers, asleep = Helpers(), fault(0, "suspend", lasts_ns=50 * MS)
    moved = ready(helpers, asleep).move(asleep)
    assert helpers.offsets == {"a": ClockReading(0, -50 * MS, 0), "b": NONE}
    assert drift_ns(moved.before.clocks, moved.after.clocks) == 50 * MS
    assert moved.clocks_moved.boottime_ns == moved.clocks_moved.wall_ns
    assert moved.skipped_world_ns == 0 and moved.wall_before_ns is None
    assert moved.real_ns >= 50 * MS


def test_a_pause_leaves_all_clocks_behind_until_the_wall_is_corrected() -> None:
    """What happens between is the caller's: it gets the time of the correction."""
    helpers, paused = Helpers(), fault(0, "pause", lasts_ns=50 * MS, corrected_after_ns=7 * MS)
    seen: list[tuple[Moment, int, int]] = []

    def meanwhile(woke: Moment, skipped_world_ns: int, until_monotonic_ns: int) -> None:
        seen.append((woke, skipped_world_ns, until_monotonic_ns))
        assert helpers.offsets["a"] == ClockReading(*([-50 * MS] * 3))

    moved = ready(helpers, paused).move(paused, meanwhile)
    assert helpers.offsets["a"] == ClockReading(0, -50 * MS, -50 * MS)
    (woke, skipped_world_ns, until_monotonic_ns) = seen[0]
    assert moved.woke == woke and skipped_world_ns == 0
    assert until_monotonic_ns == woke.real_monotonic_ns + 7 * MS
    assert moved.wall_before_ns == moved.after.clocks.wall_ns - 50 * MS
    assert drift_ns(moved.before.clocks, moved.after.clocks) == 50 * MS


def test_a_pause_that_nothing_corrects_leaves_all_clocks_behind() -> None:
    """They have not parted, and no correction is due."""
    helpers, paused = Helpers(), fault(0, "pause", lasts_ns=50 * MS, corrected=False)
    moved = ready(helpers, paused).move(paused, lambda *about: None)
    assert helpers.offsets["a"] == ClockReading(*([-50 * MS] * 3))
    assert abs(drift_ns(moved.before.clocks, moved.after.clocks)) < MS


@pytest.mark.parametrize("by_wall_ns", [3600 * 10**9, -3600 * 10**9])
def test_a_step_moves_the_wall_and_stops_no_program(by_wall_ns: int) -> None:
    """Either way, and on top of what was moved before."""
    helpers = Helpers()
    asleep, stepped = fault(0, "suspend", lasts_ns=MS), fault(1, "step", by_wall_ns=by_wall_ns)
    mover = ready(helpers, asleep, stepped)
    mover.move(asleep)
    moved = mover.move(stepped)
    assert helpers.offsets["a"] == ClockReading(by_wall_ns, -MS, 0)
    assert moved.wall_before_ns == moved.after.clocks.wall_ns - by_wall_ns
    assert helpers.words("a").count("sleep") == 1


def test_a_freeze_moves_nothing() -> None:
    """The trap: programs were stopped, no clock parted."""
    helpers, frozen = Helpers(), fault(0, "freeze", lasts_ns=50 * MS)
    moved = ready(helpers, frozen).move(frozen)
    assert helpers.offsets["a"] == NONE
    assert drift_ns(moved.before.clocks, moved.after.clocks) == 0


def test_nodes_that_fall_asleep_together_sleep_once() -> None:
    """With the first of them; the second only gets what was measured. A node alone does not move
    the other."""
    helpers = Helpers()
    both = [fault(0, "suspend", "a", lasts_ns=50 * MS), fault(1, "suspend", "b", lasts_ns=50 * MS)]
    mover = ready(helpers, *both)
    first = mover.move(both[0])
    before = len(helpers.requests)
    second = mover.move(both[1])
    assert len(helpers.requests) == before
    assert (first.fault, second.fault) == tuple(both)
    assert helpers.offsets == {name: ClockReading(0, -50 * MS, 0) for name in ("a", "b")}


def test_a_program_that_shows_other_clocks_is_not_believed() -> None:
    """It is moved from outside, or it missed its page."""
    helpers = Helpers()
    mover = ready(helpers)
    helpers.extra = ClockReading(5 * 10**9, 0, 0)
    with pytest.raises(SubjectFailed, match="something else has moved them"):
        mover.read("a")


def test_offsets_that_are_not_ours_are_not_believed() -> None:
    """Another harness has set them."""
    helpers = Helpers()
    mover = ready(helpers)
    helpers.offsets["a"] = ClockReading(1, 0, 0)
    with pytest.raises(SubjectFailed, match="something else has moved them"):
        mover.read("a")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"hello_answer": {"unsupported": "this is aarch64"}}, "node a: this is aarch64"),
        ({"take_answer": {"refused": [{"pid": 7, "why": "32-bit"}]}}, "node a: process 7: 32-bit"),
        ({"take_answer": {"processes": []}}, "no /usr/local/bin/ztunnel runs there"),
        ({"take_answer": {"watch": None, "unwatched_because": "no fanotify"}}, "no fanotify"),
        ({"take_answer": {"watch": {"launchers": []}, "unwatched_because": "no runc"}}, "no runc"),
        ({"version": 1}, "another protocol"),
    ],
)
def test_what_is_missing_is_refused_before_anything_moves(
    changed: dict[str, Any], words: str
) -> None:
    """By name, and what was taken until then is released."""
    helpers = Helpers()
    for name, value in changed.items():
        setattr(helpers, name, value)
    mover = ProcessMover(plan(fault(0, "restart")), helpers)
    with pytest.raises(LabUnavailable, match=words):
        mover.prepare()
    assert helpers.words().count("release") == helpers.words().count("take")
    assert not {"set", "sleep"} & set(helpers.words())


def test_a_helper_that_has_given_up_ends_the_run_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it moved is restored already: no fault after that would be one. Released is released all
    the same."""
    monkeypatch.setattr("meshwake.clocks.movers.process.RENEWED_EVERY_S", 0.01)
    helpers = Helpers()
    mover = ready(helpers)
    helpers.given_up = "its lease was not renewed for 20 s"
    wait_until(lambda: "renew" in helpers.words("a"), "a renewal", 20)
    time.sleep(0.1)
    with pytest.raises(LabUnavailable, match="node a: its lease was not renewed for 20 s"):
        mover.read("a")
    mover.release()
    assert helpers.words("a")[-1] == "release"


def test_every_request_names_its_owner_and_no_two_runs_have_one_name() -> None:
    """So that a helper knows whom to listen to."""
    helpers, others = Helpers(), Helpers()
    ready(helpers).release()
    ready(others).release()
    owners = [{request["owner"] for _, request in each.requests} for each in (helpers, others)]
    assert len(owners[0]) == len(owners[1]) == 1 and owners[0] != owners[1]
    assert "a run of s, process" in owners[0].pop()


def test_drift_is_refused_by_name() -> None:
    """The only fault of clocks that it cannot make."""
    faults = (fault(0, "suspend", lasts_ns=5), fault(1, "drift", lasts_ns=5, rate_numerator=2))
    mover = ProcessMover(plan(*faults), Helpers())
    assert [line.split(":")[0] for line in mover.refusals(plan(*faults))] == ["[fault 1] drift"]


def test_what_cannot_be_restored_is_named() -> None:
    """With the node, the process, and what a person can do; released nodes get no second
    request."""
    helpers = Helpers()
    mover = ready(helpers)
    helpers.release_answer |= {"released": [], "failed": {"7": "it hangs"}}
    with pytest.raises(SubjectFailed, match=r"node a: process 7: it hangs.*kubectl delete pod"):
        mover.release()
    helpers.release_answer |= {"released": [7], "failed": {}}
    mover.release()
    before = len(helpers.requests)
    mover.release()
    assert len(helpers.requests) == before


def test_istiod_is_moved_with_the_node_it_is_on() -> None:
    """On whichever node it runs, and it may move to another; only where it is apart it is left
    alone."""
    assert ISTIOD not in rules_for(plan(), "a")
    assert ISTIOD in rules_for(plan(authority_node="a"), "a")
    assert ISTIOD in rules_for(plan(authority_node="a"), "b")
