"""What a run in another process sends arrives as it was sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import HarnessError, HarnessFault, LabUnavailable, SubjectFailed
from meshwake.core.events import Event
from meshwake.core.history import Recorder
from meshwake.labs import Toolbox
from meshwake.labs.messages import RunReceiver, RunSender

WOKE = Event.of_kind(7, "node_woke", "vm", ClockReading(1, 2, 3), {"fault": 0, "fault_kind": "x"})


def test_events_progress_and_cost_arrive() -> None:
    times: list[int] = []
    recorder = Recorder()
    receiver = RunReceiver(Toolbox(None, Path(), times.append), recorder)
    sender = RunSender(receiver.receive)
    sender.event(WOKE)
    sender.progress(7)
    sender.progress(8)  # too soon after the one before: not sent
    assert receiver.done is None
    sender.done({"jumps": 3})
    assert list(recorder.history) == [WOKE]
    assert times == [7]
    assert receiver.done == {"jumps": 3}
    assert sender.exit_code == 0


@pytest.mark.parametrize(
    ("raised", "arrives"),
    [
        (LabUnavailable("no QEMU"), LabUnavailable),
        (SubjectFailed("it ended"), SubjectFailed),
        (ZeroDivisionError("a fault of ours"), SubjectFailed),
    ],
)
def test_a_failure_arrives_with_its_kind(raised: Exception, arrives: type[HarnessError]) -> None:
    """After what was to be sent before it, such as logs."""
    sent: list[Mapping[str, Any]] = []
    sender = RunSender(sent.append)
    with sender.reporting_failure(before=lambda: sent.append({"log": "x"})):
        raise raised
    assert [next(iter(message)) for message in sent] == ["log", "failed"]
    assert sender.exit_code == sent[-1]["failed"]["exit_code"] != 0
    receiver = RunReceiver(Toolbox(None, Path()), Recorder(), where="there: ")
    receiver.receive(sent[-1])
    with pytest.raises(arrives, match=f"(?s)^there: .*{raised}"):
        receiver.raise_failure()


def test_an_unknown_exit_code_is_a_fault_of_ours() -> None:
    receiver = RunReceiver(Toolbox(None, Path()), Recorder())
    receiver.receive({"failed": {"exit_code": 77, "message": "?"}})
    with pytest.raises(HarnessFault):
        receiver.raise_failure()
