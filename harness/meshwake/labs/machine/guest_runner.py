"""The guest's side of a run: the plan comes with the image, events go to the host, as from the
process lab's runner."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from meshwake.clocks.guest.init import CHANNEL_VARIABLE, REQUEST, Channel
from meshwake.core.durations import NS_PER_S
from meshwake.core.json_types import JsonObject, object_at, text_at
from meshwake.core.plan import Plan
from meshwake.labs.messages import RunSender
from meshwake.labs.process.namespaces import enter_own_namespaces

DIRECTORY = Path("/run/lab")
LOG_BYTES_MAX = 32_768


def send_logs(channel: Channel) -> None:
    """Sends the end of every log to the host."""
    for log in sorted(DIRECTORY.glob("*.log")):
        text = log.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace")
        channel.send(log=log.name, text=text)


def main() -> None:
    """Entry point; the first program of the guest starts it."""
    channel = Channel(int(os.environ[CHANNEL_VARIABLE]))
    sender = RunSender(lambda message: channel.send(**message))
    with sender.reporting_failure(before=lambda: send_logs(channel)):
        _carry_out(json.loads(REQUEST.read_text()), channel, sender)


def _carry_out(request: JsonObject, channel: Channel, sender: RunSender) -> None:
    enter_own_namespaces()

    # Only now: this brings libraries which may start threads, and a namespace is entered by a
    # process with one.
    from meshwake.labs.driver import Driver
    from meshwake.labs.machine.backend import GuestBackend

    DIRECTORY.mkdir(parents=True, exist_ok=True)
    plan = Plan.model_validate_json(json.dumps(request["plan"]))
    time.clock_settime_ns(time.CLOCK_REALTIME, plan.starts_wall_s * NS_PER_S)
    backend = GuestBackend(plan, Path(text_at(request, "ztunnel")), DIRECTORY, channel)
    Driver(plan, backend, sender.event, sender.progress).run(object_at(request, "subject"))
    send_logs(channel)
    sender.done({"jumps": backend.jumps, "looks": backend.looks})


if __name__ == "__main__":
    main()
