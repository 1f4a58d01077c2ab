"""Lab `machine`: the process lab on a kernel that really sleeps, in a QEMU guest. No KVM, no root,
no network.

    kernel.py              a distribution's kernel, found or fetched
    image.py, cpio.py      the guest's file system
    lab.py                 starts the guest and receives its events
    guest_runner.py        what runs in the guest
    backend.py             the process lab's mesh, on the kernel's clocks
    fleet_backend.py       several nodes: over several guests
    guest_agent.py, node.py      what runs in each of them
    clocks/guest/qemu.py   QEMU, suspended and paused for real

Time: idle time is skipped by the emulator, so an hour of two ztunnels costs seconds.
MESHWAKE_MACHINE_TIME=real makes time pass as it does, with KVM where that works.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from meshwake.clocks.guest.fleet import Fleet
from meshwake.clocks.guest.qemu import (
    Accelerator,
    Machine,
    kvm_unavailable,
    run_guest,
    unavailable_here,
)
from meshwake.core.durations import NS_PER_S, format_duration
from meshwake.core.errors import (
    BadInput,
    HarnessFault,
)
from meshwake.core.faults import CLOCK_FAULTS
from meshwake.core.history import Recorder
from meshwake.core.json_types import JsonObject, MutableJsonObject, text_at
from meshwake.core.plan import Plan
from meshwake.core.planned_faults import PlannedFault
from meshwake.core.refusal import invalid_choice
from meshwake.labs import NO_BINARY, Toolbox
from meshwake.labs.driver import Driver
from meshwake.labs.machine.fleet_backend import FleetBackend, guests_of, requests_of
from meshwake.labs.machine.image import SUBJECT, assemble, base_part, binary_part, guest_python
from meshwake.labs.machine.kernel import find_kernel
from meshwake.labs.messages import RunReceiver
from meshwake.labs.process.lab import LAB as PROCESS_LAB
from meshwake.ztunnel import binaries

IDENTITIES_MAX = 8  # in one guest
GUESTS_MAX = 4
# How long several guests may go on: those that share one time must be woken one by one, about 15
# times a second.
FLEET_SKIPPED_NS, FLEET_REAL_NS = 2 * 86400 * NS_PER_S, 3 * 3600 * NS_PER_S
# A kernel learns how long it slept from the battery-backed clock, which counts whole seconds.
SHORTEST_SLEEP_NS = 5 * NS_PER_S
MEMORY_MB = 768
TIME_VARIABLE = "MESHWAKE_MACHINE_TIME"
IMAGE_FILE = "guest.cpio"
_TIMES = ("skipped", "real")


class MachineLab:
    """See meshwake.labs.Lab. `last_cost`: what the last run's guest cost, as
    clocks.guest.GuestCost, and its looks."""

    last_cost: MutableJsonObject | None = None

    def missing(self, ztunnel: Path | None) -> list[str]:
        """Why it cannot run here."""
        reasons = unavailable_here()
        try:
            if find_kernel() is None:
                reasons.append(
                    "no Linux kernel for guests; run meshwake fetch-kernel (takes Debian's "
                    "package, needs no root)"
                )
        except BadInput as error:
            reasons.append(str(error))
        if ztunnel is None:
            reasons.append(NO_BINARY)
        elif reason := binaries.why_not_started(ztunnel):
            reasons.append(reason)
        return reasons

    def refusals(self, plan: Plan) -> list[str]:
        """What of the plan it cannot do."""
        refused = list(PROCESS_LAB.refusals(plan))  # it is the process lab that runs in the guest
        if plan.ztunnel_mode != "dedicated":
            refused.append("ztunnel in in-pod mode: the guest has no node agent; use --lab process")
        count = max(len(node.identities) for node in plan.nodes)
        if count > IDENTITIES_MAX:
            refused.append(
                f"{count} identities: at most {IDENTITIES_MAX} ztunnels fit into a guest; "
                "use --lab process"
            )
        if needs_fleet(plan):
            refused += _refusals_of_fleet(plan)
        for fault in plan.faults:
            reason = _refusal_of_fault(fault)
            if reason is not None:
                refused.append(f"fault {fault.index + 1}: {reason}")
        return refused

    def run(self, plan: Plan, toolbox: Toolbox, recorder: Recorder) -> None:
        """See meshwake.labs.Lab.run."""
        assert toolbox.ztunnel is not None
        directory = toolbox.work_dir.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        if needs_fleet(plan):
            self.last_cost = run_fleet(plan, toolbox, directory, recorder)
            _write_cost(directory, self.last_cost)
            return
        machine = _machine(plan, toolbox.ztunnel, directory)
        output = _GuestOutput(toolbox, recorder, directory)
        try:
            cost = run_guest(machine, directory, output.receive)
        finally:
            machine.initrd.unlink(missing_ok=True)
        self.last_cost = asdict(cost) | output.cost()
        _write_cost(directory, self.last_cost)


def _refusal_of_fault(fault: PlannedFault) -> str | None:
    if fault.kind == "ca_root_change":
        return f"{fault.kind}: ztunnels in a guest have no root file to watch; use --lab process"
    if fault.kind == "ca_slow":
        return (
            f"{fault.kind}: the host cannot have an authority in a guest answer at a planned "
            "time; use --lab process"
        )
    if fault.kind == "suspend" and fault.lasts_ns < SHORTEST_SLEEP_NS:
        return (
            f"a {fault.kind} of {format_duration(fault.lasts_ns)}: a machine's own clock shows "
            f"whole seconds, so a sleep lasts {format_duration(SHORTEST_SLEEP_NS)} at least"
        )
    return None


def _write_cost(directory: Path, cost: JsonObject) -> None:
    (directory / "cost.json").write_text(json.dumps(cost, indent=2) + "\n")


class _GuestOutput:
    """Receives what the guest sends."""

    def __init__(self, toolbox: Toolbox, recorder: Recorder, directory: Path) -> None:
        self._receiver = RunReceiver(toolbox, recorder, where="in the guest: ")
        self._directory = directory

    def receive(self, message: JsonObject) -> None:
        if "garbled" in message:
            raise HarnessFault(f"the guest sent a line that is not JSON: {message['garbled']!r}")
        # Only the last part of the name: a guest must not write outside of the directory.
        if "log" in message:
            (self._directory / Path(text_at(message, "log")).name).write_text(
                text_at(message, "text")
            )
        self._receiver.receive(message)

    def cost(self) -> MutableJsonObject:
        """What the run cost, as the guest reported it. Raises its failure."""
        self._receiver.raise_failure()
        return self._receiver.done or {}


def needs_fleet(plan: Plan) -> bool:
    """Whether one guest is not enough: several nodes, or an authority that goes on while the one
    node sleeps."""
    has_clock_faults = any(fault.kind in CLOCK_FAULTS for fault in plan.faults)
    # In one guest the authority would sleep with the node.
    apart = plan.authority_node is None and has_clock_faults
    return len(plan.nodes) > 1 or apart


def _refusals_of_fleet(plan: Plan) -> list[str]:
    refused = []
    if (count := len(guests_of(plan))) > GUESTS_MAX:
        refused.append(
            f"{count} machines: at most {GUESTS_MAX} guests run side by side; use --lab process"
        )
    longest_ns = FLEET_REAL_NS if time_passes_really() else FLEET_SKIPPED_NS
    if plan.duration_ns > longest_ns:
        how = "whose time passes as it does" if time_passes_really() else "that share one time"
        refused.append(
            f"{format_duration(plan.duration_ns)} of {count} guests {how}: at most "
            f"{format_duration(longest_ns)}, else it takes hours; use --lab process, or short "
            "certificates (--real-time takes a scenario's own)"
        )
    return refused


def run_fleet(
    plan: Plan, toolbox: Toolbox, directory: Path, recorder: Recorder
) -> MutableJsonObject:
    """Carries out a plan on several guests; returns what it cost."""
    assert toolbox.ztunnel is not None
    backend: FleetBackend | None = None

    def received(guest: str, message: JsonObject) -> None:
        if "log" in message:
            (directory / guest / Path(text_at(message, "log")).name).write_text(
                text_at(message, "text")
            )
        elif backend is not None:
            backend.received(guest, message)

    machines = _machines(plan, toolbox.ztunnel, directory)
    fleet = Fleet(machines, directory, received, skip=not time_passes_really())
    try:
        fleet.boot()
        backend = FleetBackend(plan, fleet)
        Driver(plan, backend, recorder.append, toolbox.progress).run(_subject(toolbox.ztunnel))
        # One that still sleeps at the end has no way to send its logs.
        for guest in machines:
            if not fleet.is_asleep(guest):
                fleet.order(guest, "logs")
    finally:
        fleet.close()
        for machine in machines.values():
            machine.initrd.unlink(missing_ok=True)
    return {"guests": fleet.costs(), "jumps": backend.jumps, "looks": backend.looks}


def _machines(plan: Plan, ztunnel: Path, directory: Path) -> dict[str, Machine]:
    kernel = find_kernel()
    assert kernel is not None
    real = time_passes_really()
    accelerator: Accelerator = "kvm" if real and kvm_unavailable() is None else "tcg"
    parts = [base_part(kernel, with_lab=True, with_card=True), binary_part(ztunnel)]
    machines = {}
    for number, (name, settings) in enumerate(requests_of(plan, SUBJECT).items()):
        initrd = directory / f"{number}-{IMAGE_FILE}"
        assemble(parts, _program("meshwake.labs.machine.guest_agent") | settings, initrd)
        mac = f"52:54:00:4d:57:{number + 1:02x}"
        machines[name] = Machine(
            kernel.image,
            initrd,
            MEMORY_MB,
            skip_idle=False,
            accelerator=accelerator,
            moved_time=not real,
            mac=mac,
        )
    return machines


def _program(module: str) -> MutableJsonObject:
    return {
        "do": "program",
        "argv": [guest_python(), "-m", module],
        "environment": {"PYTHONPATH": "/meshwake/site", "PYTHONDONTWRITEBYTECODE": "1"},
    }


def _subject(ztunnel: Path) -> MutableJsonObject:
    kernel = find_kernel()
    assert kernel is not None
    return binaries.describe(ztunnel) | {"kernel": kernel.release}


def _machine(plan: Plan, ztunnel: Path, directory: Path) -> Machine:
    kernel = find_kernel()
    assert kernel is not None
    initrd = directory / IMAGE_FILE
    settings = {
        "plan": plan.model_dump(mode="json"),
        "ztunnel": SUBJECT,
        "subject": _subject(ztunnel),
    }
    request = _program("meshwake.labs.machine.guest_runner") | settings
    assemble([base_part(kernel, with_lab=True), binary_part(ztunnel)], request, initrd)
    real = time_passes_really()
    accelerator: Accelerator = "kvm" if real and kvm_unavailable() is None else "tcg"
    return Machine(kernel.image, initrd, MEMORY_MB, skip_idle=not real, accelerator=accelerator)


def time_passes_really() -> bool:
    """Whether the user wants no time skipped. Raises BadInput for an invalid value."""
    value = os.environ.get(TIME_VARIABLE, _TIMES[0])
    if value not in _TIMES:
        raise invalid_choice(TIME_VARIABLE, value, _TIMES)
    return value == "real"


LAB = MachineLab()
