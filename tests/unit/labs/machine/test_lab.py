"""What lab machine can do, what not, and what it says of that."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from meshwake.core.errors import BadInput, HarnessFault, SubjectFailed
from meshwake.core.history import Recorder
from meshwake.labs import Toolbox
from meshwake.labs.machine.lab import LAB, TIME_VARIABLE, _GuestOutput, time_passes_really

from tests.support.plans import NIGHTS, TWO_NODES, plan

APART = '[authority]\nnode = "apart"\n'


def test_nights_of_a_laptop_are_its_business() -> None:
    """Nothing is refused."""
    assert LAB.refusals(plan(NIGHTS)) == []


@pytest.mark.parametrize(
    ("body", "nodes", "words"),
    [
        ("", TWO_NODES, "5d of 2 guests that share one time: at most 2d, else it takes hours"),
        (
            APART + NIGHTS,
            None,
            "5d of 2 guests that share one time: at most 2d, else it takes hours",
        ),
        (
            '[[fault]]\nkind = "suspend"\nat = "1h"\nlasts = "2s"',
            None,
            "fault 1: a suspend of 2s: .* lasts 5s at least",
        ),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(body: str, nodes: str | None, words: str) -> None:
    """Before anything is started."""
    of = plan(body, nodes=nodes) if nodes else plan(body)
    [reason] = LAB.refusals(of)
    assert re.search(words, reason), reason


def test_nodes_are_guests_and_so_is_an_authority_apart() -> None:
    """As long as it does not take hours."""
    assert LAB.refusals(plan(nodes=TWO_NODES, duration="2d")) == []
    assert LAB.refusals(plan(APART + NIGHTS, duration="2d")) == []


def test_in_real_time_several_guests_have_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more."""
    monkeypatch.setenv(TIME_VARIABLE, "real")
    assert LAB.refusals(plan(nodes=TWO_NODES, duration="3h")) == []
    [reason] = LAB.refusals(plan(nodes=TWO_NODES, duration="2d"))
    assert "2d of 2 guests whose time passes as it does: at most 3h" in reason


def test_a_crowd_of_machines_is_refused() -> None:
    """Each takes a processor and a gigabyte."""
    crowd = "".join(
        f'[[node]]\nname = "n{n}"\nidentities = ["default/{n}"]\n'
        for n in ("client", "server", *"abc")
    )
    [reason] = LAB.refusals(plan(nodes=crowd, duration="1d"))
    assert "5 machines: at most 4 guests run side by side" in reason


def test_an_authority_apart_does_not_matter_where_no_clock_is_touched() -> None:
    """Then all clocks are the same."""
    assert LAB.refusals(plan(APART)) == []


def test_an_old_release_is_refused() -> None:
    """Before 1.24 there was no dedicated mode."""
    old = plan().model_copy(update={"version": "1.23.6"})
    assert "cannot run in dedicated mode" in LAB.refusals(old)[0]


@pytest.mark.usefixtures("empty_cache")
def test_what_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU, a kernel, a binary."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("meshwake.labs.machine.lab.find_kernel", lambda: None)
    reasons = " ".join(LAB.missing(None))
    assert "apt install --no-install-recommends qemu-system-x86" in reasons
    assert "meshwake fetch-kernel" in reasons
    assert "pass --ztunnel PATH" in reasons


def test_time_is_skipped_unless_configured_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """One word more, and no third one."""
    monkeypatch.delenv(TIME_VARIABLE, raising=False)
    assert not time_passes_really()
    monkeypatch.setenv(TIME_VARIABLE, "real")
    assert time_passes_really()
    monkeypatch.setenv(TIME_VARIABLE, "fast")
    with pytest.raises(
        BadInput, match=r"'fast' for MESHWAKE_MACHINE_TIME: expected one of skipped, real"
    ):
        time_passes_really()


def output(directory: Path) -> _GuestOutput:
    return _GuestOutput(Toolbox(None, directory), Recorder(), directory)


def test_the_guests_own_account_of_a_failure_is_passed_on(tmp_path: Path) -> None:
    """With the kind of error that it was there."""
    listener = output(tmp_path)
    listener.receive({"failed": {"exit_code": 5, "message": "ztunnel ended by itself"}})
    with pytest.raises(SubjectFailed, match="in the guest: ztunnel ended by itself"):
        listener.cost()


def test_logs_of_the_guest_stay_in_the_run(tmp_path: Path) -> None:
    """Whatever name the guest gives them."""
    output(tmp_path).receive({"log": "../../default.client.log", "text": "a line"})
    assert (tmp_path / "default.client.log").read_text() == "a line"


def test_a_garbled_line_is_a_fault_of_ours(tmp_path: Path) -> None:
    """It is not skipped."""
    with pytest.raises(HarnessFault, match="not JSON"):
        output(tmp_path).receive({"garbled": "{"})
