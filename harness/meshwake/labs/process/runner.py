"""The process in which a run lives: it enters namespaces of its own, carries out the plan, and
writes what happens.

In: one JSON object on standard input (`plan`, `ztunnel`, `work_dir`). Out: a line of JSON for each
event (`{"event": ...}`), now and then one for progress (`{"progress": world_ns}`), and last
`{"done": ...}` with what the run cost, or `{"failed": ...}` when it could not go on.

It is a process of its own because namespaces can be entered only by a process with one thread, and
because the kernel then cleans up: when its starter dies, even by kill -9, it is killed, and with
it all that it started.
"""

from __future__ import annotations

import json
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from meshwake.authority.begin import begin
from meshwake.core.errors import HarnessError
from meshwake.core.events import Event
from meshwake.core.plan import Plan
from meshwake.labs.process.namespaces import enter_own_namespaces
from meshwake.labs.process.processor import claim_processor
from meshwake.system.libc import die_with_parent
from meshwake.ztunnel.binaries import describe

_PROGRESS_EVERY_S = 0.2


class _Output:
    """Standard output, a line at a time; events are flushed with the next progress, failures at
    once."""

    def __init__(self) -> None:
        self._next_progress = 0.0

    def event(self, event: Event) -> None:
        sys.stdout.write('{"event":' + event.to_line() + "}\n")

    def progress(self, world_ns: int) -> None:
        if time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + _PROGRESS_EVERY_S
            self.line({"progress": world_ns})

    def line(self, message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Entry point; the first argument is the process id of the starter, the second names the
    run."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for our starter, which then ends us
    output = _Output()
    try:
        request = json.loads(sys.stdin.read())
        processor = claim_processor()
        enter_own_namespaces()
        # It loads its libraries while we load ours.
        begun = begin(Path(request["work_dir"]))
        # Only now: this brings libraries which may start threads, and a namespace is entered by a
        # process with one.
        from meshwake.labs.driver import Driver
        from meshwake.labs.process.backend import ProcessBackend

        ztunnel = Path(request["ztunnel"])
        plan = Plan.model_validate_json(json.dumps(request["plan"]))
        backend = ProcessBackend(plan, ztunnel, Path(request["work_dir"]), begun, processor)
        Driver(plan, backend, output.event, output.progress).run(describe(ztunnel))
        output.line({"done": {"jumps": backend.jumps, "looks": backend.looks}})
    except HarnessError as error:
        output.line({"failed": {"exit_code": int(error.exit_code), "message": str(error)}})
        sys.exit(int(error.exit_code))
    except BaseException:  # noqa: BLE001  # whatever it was, the starter must get to know it
        output.line({"failed": {"exit_code": 5, "message": traceback.format_exc()}})
        sys.exit(5)


if __name__ == "__main__":
    main()
