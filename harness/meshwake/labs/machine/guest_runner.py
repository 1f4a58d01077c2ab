"""The guest's side of a run: the plan comes with the image, events go to the host, as from the
process lab's runner."""

from __future__ import annotations

import json
import os
import time
import traceback
from pathlib import Path
from typing import Any

from meshwake.clocks.guest.init import CHANNEL_VARIABLE, REQUEST, Channel
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessError
from meshwake.core.events import Event
from meshwake.core.plan import Plan
from meshwake.labs.process.namespaces import enter_own_namespaces

DIRECTORY = Path("/run/lab")
LOG_BYTES_MAX = 32_768
_PROGRESS_EVERY_S = 0.2


class _Output:
    """What is sent to the host."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self._next_progress_s = channel, 0.0

    def event(self, event: Event) -> None:
        self._channel.tell(event=json.loads(event.to_line()))

    def progress(self, world_ns: int) -> None:
        if time.monotonic() >= self._next_progress_s:
            self._next_progress_s = time.monotonic() + _PROGRESS_EVERY_S
            self._channel.tell(progress=world_ns)


def send_logs(channel: Channel) -> None:
    """Sends the end of every log to the host."""
    for log in sorted(DIRECTORY.glob("*.log")):
        text = log.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace")
        channel.tell(log=log.name, text=text)


def main() -> None:
    """Entry point; the first program of the guest starts it."""
    channel = Channel(int(os.environ[CHANNEL_VARIABLE]))
    output = _Output(channel)
    try:
        _carry_out(json.loads(REQUEST.read_text()), channel, output)
    except HarnessError as error:
        send_logs(channel)
        channel.tell(failed={"exit_code": int(error.exit_code), "message": str(error)})
    except BaseException:  # noqa: BLE001  # whatever it was, the host must get to know it
        send_logs(channel)
        channel.tell(failed={"exit_code": 5, "message": traceback.format_exc()})


def _carry_out(request: dict[str, Any], channel: Channel, output: _Output) -> None:
    enter_own_namespaces()
    # Only now: this brings libraries which may start threads, and a namespace is entered by a
    # process with one.
    from meshwake.labs.driver import Driver
    from meshwake.labs.machine.backend import GuestBackend

    DIRECTORY.mkdir(parents=True, exist_ok=True)
    plan = Plan.model_validate_json(json.dumps(request["plan"]))
    time.clock_settime_ns(time.CLOCK_REALTIME, plan.starts_wall_s * NS_PER_S)
    backend = GuestBackend(plan, Path(request["ztunnel"]), DIRECTORY, channel)
    Driver(plan, backend, output.event, output.progress).run(request["subject"])
    send_logs(channel)
    channel.tell(done={"jumps": backend.jumps, "looks": backend.looks})


if __name__ == "__main__":
    main()
