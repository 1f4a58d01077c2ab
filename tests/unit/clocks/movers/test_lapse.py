"""The mover by which time is skipped, against helpers that are simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from meshwake.clocks.movers.lapse import LapseMover
from meshwake.clocks.movers.process import ISTIOD, ZTUNNEL
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessFault, LabUnavailable, SubjectFailed

from tests.unit.clocks.movers.test_process import MS, NONE, Helpers, fault, plan

HOUR_NS = 3600 * 10**9


class StillHelpers(Helpers):
    """Helpers of three nodes; istiod runs on `istiod_on`. `busy` is what each still says before the
    last time."""

    def __init__(self) -> None:
        super().__init__()
        self.istiod_on = "c"
        self.busy: list[str] = []
        self.refused: dict[str, str] = {}

    def _take(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        assert request["ends"] is True
        taken = super()._take(node, request)
        more = [{"pid": 2, "executable": ISTIOD.executable}] if node == self.istiod_on else []
        return {**taken, "processes": [*(taken["processes"] if node != "c" else []), *more]}

    def _still(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        busy = self.busy.pop(0) if self.busy else ""
        return {
            "busy": busy,
            "refused": self.refused,
            "keeps_monotonic": [2] if node == self.istiod_on else [],
        }

    def _wake(self, node: str, request: Mapping[str, Any]) -> dict[str, Any]:
        return self._set(node, request)


def ready(helpers: StillHelpers) -> LapseMover:
    mover = LapseMover(plan(), helpers, others=("c",))
    mover.prepare()
    return mover


def all_ahead(by_ns: int) -> ClockReading:
    return ClockReading(by_ns, by_ns, by_ns)


def test_all_who_are_awake_are_taken_ahead_where_istiod_is_first() -> None:
    """Also on a node that is none of the plan's; and each is woken."""
    helpers = StillHelpers()
    mover = ready(helpers)
    mover.await_still()
    mover.skip(HOUR_NS)
    mover.skip(HOUR_NS)
    assert helpers.offsets == dict.fromkeys("abc", all_ahead(2 * HOUR_NS))
    sets = [(node, request) for node, request in helpers.requests if request["do"] == "set"]
    assert [node for node, _ in sets][0::3] == ["c", "c"] and all(
        request["kick"] for _, request in sets
    )


def test_istiod_is_followed_to_the_node_it_moves_to() -> None:
    """It is queried again at every poll."""
    helpers = StillHelpers()
    mover = ready(helpers)
    helpers.istiod_on = "b"
    mover.await_still()
    mover.skip(HOUR_NS)
    assert next(node for node, request in helpers.requests if request["do"] == "set") == "b"


def test_istiod_keeps_its_monotonic_clock_and_others_do_not() -> None:
    """So that its leases, keepalives and resyncs do not fire all at once."""
    helpers = StillHelpers()
    ready(helpers)
    rules = next(request["rules"] for _, request in helpers.requests if request["do"] == "take")
    kept = {rule["executable"] for rule in rules if rule["keeps_monotonic"]}
    assert kept == {ISTIOD.executable} and rules[0]["executable"] == ZTUNNEL.executable


@pytest.mark.parametrize(
    ("kind", "shift"),
    [
        ("suspend", ClockReading(0, -8 * HOUR_NS, 0)),
        ("pause", all_ahead(-8 * HOUR_NS)),
        ("freeze", NONE),
    ],
)
def test_a_node_that_slept_while_the_others_lived_on(kind: str, shift: ClockReading) -> None:
    """Whatever was skipped meanwhile, and before."""
    helpers = StillHelpers()
    mover = ready(helpers)
    mover.skip(HOUR_NS)
    mover.fall_asleep(["a"])
    mover.await_still()
    mover.skip(8 * HOUR_NS)
    assert helpers.offsets["a"] == all_ahead(HOUR_NS) and helpers.offsets["b"] == all_ahead(
        9 * HOUR_NS
    )
    mover.wake(["a"], kind, 8 * HOUR_NS)
    assert helpers.offsets["a"] == ClockReading(*(9 * HOUR_NS + each for each in shift))
    mover.skip(HOUR_NS)
    assert helpers.offsets["a"] == ClockReading(*(10 * HOUR_NS + each for each in shift))
    still = [node for node, request in helpers.requests if request["do"] == "still"]
    assert still == ["b", "c"] or sorted(still) == ["b", "c"]


def test_a_wall_clock_that_was_set_stays_set() -> None:
    """A step, or the correction of a pause: every skip comes on top of it."""
    helpers = StillHelpers()
    mover = ready(helpers)
    mover.skip(HOUR_NS)
    mover.set_wall("a", -17 * MS)
    mover.skip(HOUR_NS)
    assert helpers.offsets["a"] == ClockReading(2 * HOUR_NS - 17 * MS, 2 * HOUR_NS, 2 * HOUR_NS)
    assert mover.read("a").wall_ns - mover.read("b").wall_ns == pytest.approx(-17 * MS, abs=5 * MS)


def test_a_mesh_that_is_busy_is_waited_for() -> None:
    """Until no program works any more; never for ever."""
    helpers = StillHelpers()
    mover = ready(helpers)
    helpers.busy = ["ztunnel (7)"] * 4
    mover.await_still()
    assert helpers.busy == []


def test_a_mesh_that_is_never_quiet_ends_the_run_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a bound."""
    monkeypatch.setattr("meshwake.clocks.movers.lapse.STILL_WITHIN_S", 0.05)
    helpers = StillHelpers()
    mover = ready(helpers)
    helpers.busy = ["ztunnel (7)"] * 100_000
    with pytest.raises(SubjectFailed, match=r"not quiet within 0 s.*busy: node a: ztunnel \(7\)"):
        mover.await_still()


def test_a_program_that_began_on_other_clocks_ends_the_run() -> None:
    """It was not caught at its start."""
    helpers = StillHelpers()
    mover = ready(helpers)
    helpers.refused = {"9": "it was not caught at its start"}
    with pytest.raises(SubjectFailed, match="node a: process 9: it was not caught"):
        mover.await_still()


def test_where_nothing_can_be_caught_nothing_is_skipped() -> None:
    """A restart in the middle would begin on the kernel's clocks: refused before anything moves."""
    helpers = StillHelpers()
    helpers.take_answer = {"watch": {"launchers": []}, "unwatched_because": "no runc"}
    with pytest.raises(LabUnavailable, match="no runc.*--real-time"):
        ready(helpers)
    assert helpers.words().count("release") == helpers.words().count("take")


def test_what_is_ended_is_reported_and_istiods_node_comes_first() -> None:
    """What is restarted must not get a certificate of one that is ahead."""
    helpers = StillHelpers()
    mover = ready(helpers)
    helpers.release_answer |= {
        "ended": [{"pid": 2, "executable": ISTIOD.executable, "cgroup": "0::/pod"}]
    }
    mover.release()
    assert [node for node, request in helpers.requests if request["do"] == "release"] == [
        "c",
        "a",
        "b",
    ]
    assert mover.begun_moved[0]["pid"] == 2


def test_no_fault_is_made_whole() -> None:
    """The world goes on meanwhile."""
    slept = fault(0, "suspend", lasts_ns=5)
    with pytest.raises(HarnessFault, match="made of its beginning and its end"):
        ready(StillHelpers()).move(slept)
