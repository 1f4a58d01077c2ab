"""What a run that happens in another process, or in a guest, sends to the lab that started it.

One JSON object a line:

    {"event": {...}}      something that happened, as in the history
    {"progress": n}       world time in ns, a few times a second
    {"done": {...}}       the run is over: what it cost
    {"failed": {...}}     the run could not go on: `exit_code` and `message`
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from meshwake.core.errors import (
    ExitCode,
    HarnessError,
    HarnessFault,
    LabUnavailable,
    SubjectFailed,
)
from meshwake.core.events import Event
from meshwake.core.history import Recorder
from meshwake.core.json_types import JsonObject, MutableJsonObject, int_at, object_at, text_at
from meshwake.labs import Toolbox

_PROGRESS_EVERY_S = 0.2
# Which error it is again on the side of the lab; every other code is a fault of the harness.
_ERRORS: dict[int, type[HarnessError]] = {
    ExitCode.LAB_UNAVAILABLE: LabUnavailable,
    ExitCode.HARNESS_FAULT: SubjectFailed,
}


class RunSender:
    """The side of the run. `send` sends one message; `exit_code` is what the program of the run
    should end with."""

    def __init__(self, send: Callable[[JsonObject], None]) -> None:
        self._send, self._next_progress_s = send, 0.0
        self.exit_code = 0

    def event(self, event: Event) -> None:
        """Something happened."""
        self._send({"event": json.loads(event.to_line())})

    def progress(self, world_ns: int) -> None:
        """World time went on; may be called often."""
        # The model passes thousands of world times a second; a terminal shows five.
        if time.monotonic() >= self._next_progress_s:
            self._next_progress_s = time.monotonic() + _PROGRESS_EVERY_S
            self._send({"progress": world_ns})

    def done(self, cost: JsonObject) -> None:
        """The run is over."""
        self._send({"done": cost})

    @contextmanager
    def reporting_failure(self, before: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Whatever is raised in the block ends it, and is sent as `failed` after `before()`."""
        try:
            yield
        # With its exit code: who must act is decided where it happened, and the type is lost on the
        # way.
        except HarnessError as error:
            before()
            self._fail(int(error.exit_code), str(error))
        except BaseException:  # noqa: BLE001  # whatever it was, the starter must get to know it
            before()
            self._fail(int(ExitCode.HARNESS_FAULT), traceback.format_exc())

    def _fail(self, exit_code: int, message: str) -> None:
        self.exit_code = exit_code
        self._send({"failed": {"exit_code": exit_code, "message": message}})


class RunReceiver:
    """The side of the lab. `done` is what the run cost, None until it is over; `where` begins the
    message of a failure."""

    def __init__(self, toolbox: Toolbox, recorder: Recorder, where: str = "") -> None:
        self._toolbox, self._recorder, self._where = toolbox, recorder, where
        self._failed: JsonObject | None = None
        self.done: MutableJsonObject | None = None

    def receive(self, message: JsonObject) -> None:
        """Takes one message; ignores those of other kinds."""
        # Events are recorded as they come: a run that is killed leaves what it had until then.
        if "event" in message:
            line = json.dumps(message["event"])
            self._recorder.append(Event.from_line(line))
        elif "progress" in message:
            world_ns = int_at(message, "progress")
            self._toolbox.progress(world_ns)
        elif "done" in message:
            self.done = dict(object_at(message, "done"))
        elif "failed" in message:
            self._failed = object_at(message, "failed")

    def raise_failure(self) -> None:
        """Raises what the run reported as the reason why it could not go on, if it did."""
        if self._failed is not None:
            error = _ERRORS.get(int_at(self._failed, "exit_code"), HarnessFault)
            raise error(self._where + text_at(self._failed, "message"))
