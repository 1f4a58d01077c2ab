"""The process in which a run lives: it enters namespaces of its own, carries out the plan, and
writes what happens.

In: one JSON object on standard input (`plan`, `ztunnel`, `work_dir`). Out: messages
(labs/messages.py) on standard output.

It is a process of its own because namespaces can be entered only by a process with one thread, and
because the kernel then cleans up: when its starter dies, even by kill -9, it is killed, and with
it all that it started.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

from meshwake.authority.begin import begin
from meshwake.core.json_types import JsonObject, text_at
from meshwake.core.plan import Plan
from meshwake.labs.messages import RunSender
from meshwake.labs.process.namespaces import enter_own_namespaces
from meshwake.labs.process.processor import claim_processor
from meshwake.system.libc import die_with_parent
from meshwake.ztunnel.binaries import describe


def _send(message: JsonObject) -> None:
    """One line on standard output; events are flushed with the message that follows them."""
    sys.stdout.write(json.dumps(message, ensure_ascii=False) + "\n")
    if "event" not in message:
        sys.stdout.flush()


def main() -> None:
    """Entry point; the first argument is the process id of the starter, the second names the
    run."""
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is for our starter, which then ends us
    sender = RunSender(_send)
    with sender.reporting_failure():
        _carry_out(json.loads(sys.stdin.read()), sender)
    sys.exit(sender.exit_code)


def _carry_out(request: JsonObject, sender: RunSender) -> None:
    processor = claim_processor()
    enter_own_namespaces()

    # It loads its libraries while we load ours.
    begun = begin(Path(text_at(request, "work_dir")))

    # Only now: this brings libraries which may start threads, and a namespace is entered by a
    # process with one.
    from meshwake.labs.driver import Driver
    from meshwake.labs.process.backend import ProcessBackend

    ztunnel = Path(text_at(request, "ztunnel"))
    plan = Plan.model_validate_json(json.dumps(request["plan"]))
    backend = ProcessBackend(plan, ztunnel, Path(text_at(request, "work_dir")), begun, processor)
    Driver(plan, backend, sender.event, sender.progress).run(describe(ztunnel))
    sender.done({"jumps": backend.jumps, "looks": backend.looks})


if __name__ == "__main__":
    main()
