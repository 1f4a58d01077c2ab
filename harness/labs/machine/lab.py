"""Lab `machine`: the process lab on a kernel that really sleeps, in a QEMU guest. No KVM, no root, no network.

    kernel.py   a distribution's kernel, found or fetched        image.py, cpio.py   the guest's file system
    lab.py      starts the guest and takes in what it tells      inside.py           what runs in the guest
    world.py    the process lab's world, on the kernel's clocks  clocks/guest.py     QEMU, suspended and paused for real

Time: idle time is skipped by the emulator, so an hour of two ztunnels costs seconds. MESHWAKE_MACHINE_TIME=real makes
time pass as it does, with KVM where that works.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.clocks.guest import Accelerator, Machine, kvm_unavailable, run_guest, unavailable_here
from harness.durations import NS_PER_S, format_duration
from harness.errors import BadInput, ExitCode, HarnessError, HarnessFault, LabUnavailable, SubjectFailed
from harness.history import Event, Recorder
from harness.labs import Toolbox
from harness.labs.machine.image import SUBJECT, assemble, base_part, binary_part, guest_python
from harness.labs.machine.kernel import find_kernel
from harness.labs.process.lab import LAB as PROCESS_LAB
from harness.plan import Plan
from harness.scenario import CLOCK_FAULTS

IDENTITIES_MAX = 8
SHORTEST_SLEEP_NS = 5 * NS_PER_S
MEMORY_MB = 768
TIME_VARIABLE = "MESHWAKE_MACHINE_TIME"
IMAGE_FILE = "guest.cpio"
_TIMES = ("skipped", "real")
_ERRORS: dict[int, type[HarnessError]] = {
    ExitCode.LAB_UNAVAILABLE: LabUnavailable,
    ExitCode.HARNESS_FAULT: SubjectFailed,
}


class MachineLab:
    """See harness.labs.Lab. `last_cost`: what the last run's guest cost, as clocks.guest.GuestCost, and its looks."""

    last_cost: dict[str, Any] | None = None

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Why it cannot run here."""
        reasons = unavailable_here()
        try:
            if find_kernel() is None:
                reasons.append(
                    "no Linux kernel for guests; run meshwake fetch-kernel (takes Debian's package, needs no root)"
                )
        except BadInput as error:
            reasons.append(str(error))
        if ztunnel is None:
            reasons.append("no ztunnel binary; pass --ztunnel PATH, or put one into the cache (see meshwake doctor)")
        return reasons

    def refusals(self, plan: Plan) -> list[str]:
        """What of the plan it cannot do."""
        refused = list(PROCESS_LAB.refusals(plan))  # it is the process lab that runs in the guest
        if plan.ztunnel_mode != "dedicated":
            refused.append("ztunnel in in-pod mode: the guest has no node agent; use --lab process")
        if len(plan.nodes) > 1:
            refused.append(f"{len(plan.nodes)} nodes: one guest is one machine; use --lab process")
        count = sum(len(node.identities) for node in plan.nodes)
        if count > IDENTITIES_MAX:
            refused.append(f"{count} identities: at most {IDENTITIES_MAX} ztunnels fit into a guest; use --lab process")
        if plan.authority_node is None and any(fault.kind in CLOCK_FAULTS for fault in plan.faults):
            refused.append("an authority apart: it would sleep with the one machine there is; use --lab process")
        refused += [
            f"fault {fault.index + 1}: {fault.kind}: no ztunnel in a guest was seen to watch its root file; "
            "use --lab process"
            for fault in plan.faults
            if fault.kind == "ca_root_change"
        ]
        refused += [
            f"fault {fault.index + 1}: ca_slow: nobody in a guest tells the authority when to answer; use --lab process"
            for fault in plan.faults
            if fault.kind == "ca_slow"
        ]
        refused += [
            f"fault {fault.index + 1}: a {fault.kind} of {format_duration(fault.lasts_ns)}: a machine's own clock "
            f"shows whole seconds, so a sleep lasts {format_duration(SHORTEST_SLEEP_NS)} at least"
            for fault in plan.faults
            if fault.kind == "suspend" and fault.lasts_ns < SHORTEST_SLEEP_NS
        ]
        return refused

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See harness.labs.Lab.run."""
        assert toolbox.ztunnel is not None
        directory = toolbox.work_dir.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        machine = _machine(plan, toolbox.ztunnel, directory)
        told = _Told(toolbox, recorder, directory)
        try:
            cost = run_guest(machine, directory, told.take)
        finally:
            machine.initrd.unlink(missing_ok=True)
        told.raise_failure()
        self.last_cost = asdict(cost) | told.done
        (directory / "cost.json").write_text(json.dumps(self.last_cost, indent=2) + "\n")


class _Told:
    """Takes in what the guest tells."""

    def __init__(self, toolbox: Toolbox, recorder: Recorder, directory: Path) -> None:
        self._toolbox, self._recorder, self._directory = toolbox, recorder, directory
        self._failed: dict[str, Any] | None = None
        self.done: dict[str, Any] = {}

    def take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._recorder.append(Event.from_line(json.dumps(message["event"])))
        elif "progress" in message:
            self._toolbox.progress(message["progress"])
        elif "log" in message:
            (self._directory / Path(message["log"]).name).write_text(message["text"])
        elif "done" in message:
            self.done = message["done"]
        elif "failed" in message:
            self._failed = message["failed"]
        elif "garbled" in message:
            raise HarnessFault(f"the guest said what is no JSON: {message['garbled']!r}")

    def raise_failure(self) -> None:
        """The guest's own account of why it could not go on."""
        if self._failed is not None:
            raise _ERRORS.get(self._failed["exit_code"], HarnessFault)(f"in the guest: {self._failed['message']}")


def _machine(plan: Plan, ztunnel: Path, directory: Path) -> Machine:
    kernel = find_kernel()
    assert kernel is not None
    initrd = directory / IMAGE_FILE
    content = ztunnel.read_bytes()
    subject = {
        "kind": "ztunnel",
        "file": ztunnel.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "kernel": kernel.release,
    }
    request = {
        "do": "program",
        "argv": [guest_python(), "-m", "harness.labs.machine.inside"],
        "environment": {"PYTHONPATH": "/meshwake/site", "PYTHONDONTWRITEBYTECODE": "1"},
        "plan": plan.model_dump(mode="json"),
        "ztunnel": SUBJECT,
        "subject": subject,
    }
    assemble([base_part(kernel, with_lab=True), binary_part(ztunnel)], request, initrd)
    real = time_passes_really()
    accelerator: Accelerator = "kvm" if real and kvm_unavailable() is None else "tcg"
    return Machine(kernel.image, initrd, MEMORY_MB, skip_idle=not real, accelerator=accelerator)


def time_passes_really() -> bool:
    """Whether the user wants no time skipped. Raises BadInput for a word that is none."""
    said = os.environ.get(TIME_VARIABLE, _TIMES[0])
    if said not in _TIMES:
        raise BadInput(f"{TIME_VARIABLE}={said}: allowed: {', '.join(_TIMES)}")
    return said == "real"


LAB = MachineLab()
