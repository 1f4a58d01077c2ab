"""One command at a time on a cluster, also on one that is not ours.

A Lease in the cluster (istio-system/meshwake) names its holder, so that commands on other machines
see it too. It is renewed while it is held, and free when it has not been renewed for LEASE_S. That
time is measured on our own monotonic clock, because runs move wall clocks and machines disagree
about them. A holder on this machine is checked by its process instead, so that after a kill -9 the
next command need not wait. For our own clusters `up` and `down` also take a file lock (state.py):
they run while there is no cluster yet, or no longer, that could have a Lease.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from meshwake.cluster.real_time import HostTime
from meshwake.core.durations import NS_PER_S
from meshwake.core.errors import HarnessError, LabUnavailable, SubjectFailed
from meshwake.core.json_types import JsonObject, MutableJsonObject, text_at, texts_at, value_at
from meshwake.kubernetes.api import Kubernetes, Unreachable
from meshwake.kubernetes.labels import OUR_LABELS, is_ours
from meshwake.system.process_stat import started_ticks

# istio-system exists in every cluster that can be used, also in one that is not ours.
LEASE_KIND, LEASE_NAMESPACE, LEASE_NAME = "Lease.coordination.k8s.io", "istio-system", "meshwake"
HOLDER = "meshwake.dev/holder"
UNDER_WAY = "meshwake.dev/under-way"
# Seven renewals may be lost before another command takes the cluster over.
LEASE_S, RENEW_EVERY_S, LOOK_EVERY_S = 40, 5.0, 1.0


@dataclass(frozen=True)
class Holder:
    """A command that uses a cluster. `machine`: host, boot and process namespace, the scope of
    `pid`; `started` distinguishes that process from a later one of the same number ("" where the
    system does not expose it)."""

    doing: str
    pid: int
    machine: str
    started: str
    since: str

    @classmethod
    def here(cls, doing: str) -> Holder:
        """This process, from now on."""
        return cls(doing, os.getpid(), _machine(), _started(os.getpid()), _now())

    @classmethod
    def read(cls, text: str) -> Holder | None:
        """Parse `to_text`; None for anything else."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def to_text(self) -> str:
        """The text that `read` parses."""
        return json.dumps(asdict(self))

    @property
    def lives_here(self) -> bool | None:
        """Whether its process still runs; None when it is on another machine."""
        if self.machine != _machine():
            return None
        try:
            # Signal 0 is not sent; only whether it could be is checked (kill(2)).
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it is another user's, and runs

        # The number may have been given to another process since.
        return self.started == _started(self.pid)

    def __str__(self) -> str:
        """For messages."""
        return f"{self.doing} (process {self.pid} on {self.machine.split()[0]}, since {self.since})"


class InUse(LabUnavailable):
    """Another command uses the cluster; `holder` None: it is not known which."""

    def __init__(self, cluster: str, holder: Holder | None) -> None:
        who = str(holder) if holder is not None else "an unknown command"
        super().__init__(f"{cluster} is in use: {who}; wait for its end, or end that process")
        self.holder = holder


class Hold:
    """A Lease that is held; renewed by a thread until `release`."""

    def __init__(self, kubernetes: Kubernetes, holder: Holder) -> None:
        self._kubernetes, self._holder = kubernetes, holder
        self._under_way = ""
        self._ends = threading.Event()
        self._lost_to: Holder | None = None
        self._renewer = threading.Thread(target=self._renew_until_end, name="hold", daemon=True)
        self._renewer.start()

    @property
    def lost(self) -> bool:
        """Whether another command has taken the cluster over."""
        return self._lost_to is not None

    def check(self) -> None:
        """Raises SubjectFailed when another command has taken the cluster over, because the Lease
        was not renewed in time."""
        if self._lost_to is not None:
            raise SubjectFailed(
                f"the cluster was taken over by {self._lost_to}: this command had not "
                "renewed its Lease "
                f"{LEASE_NAMESPACE}/{LEASE_NAME} for {LEASE_S} s (did this machine sleep?)"
            )

    def report(self, under_way: str) -> None:
        """Publish what is under way, for `status` and the refusals of other commands."""
        self._under_way = under_way
        # For information only: an API server that does not answer now gets it with a renewal.
        with suppress(HarnessError):
            self._renew()

    def release(self) -> None:
        """Stop renewing and delete the Lease, if it is still this holder's."""
        self._ends.set()
        self._renewer.join(timeout=LEASE_S)
        with suppress(Unreachable, HarnessError):
            lease = _read(self._kubernetes)
            # Another command may have taken it over while this one was stopped.
            if lease is not None and holder_in(lease) == self._holder:
                self._kubernetes.delete_ours(LEASE_KIND, LEASE_NAMESPACE, LEASE_NAME)

    def _renew_until_end(self) -> None:
        while self._lost_to is None and not self._ends.wait(RENEW_EVERY_S):
            # An API server may be unavailable for a while; the next renewal is tried as usual.
            with suppress(Unreachable, HarnessError):
                self._renew()

    def _renew(self) -> None:
        lease = _read(self._kubernetes)
        holder = None if lease is None else holder_in(lease)

        # Without a holder it is still ours: another command writes its own name.
        if holder is not None and holder != self._holder:
            self._lost_to = holder
            return
        self._kubernetes.replace(_lease(self._holder, lease, self._under_way))


@contextmanager
def hold(kubernetes: Kubernetes, real: HostTime, cluster: str, doing: str) -> Iterator[Hold]:
    """Hold the cluster for the length of the block. Raises InUse when another command has it."""
    holder = Holder.here(doing)
    _take(kubernetes, real, cluster, holder)
    held = Hold(kubernetes, holder)
    try:
        yield held
    finally:
        held.release()


def at_work(kubernetes: Kubernetes) -> str | None:
    """Which command holds the cluster, and what is under way; None: none, or one that has ended.
    Raises Unreachable."""
    lease = _read(kubernetes)
    if lease is None:
        return None
    holder = holder_in(lease)

    # Of one elsewhere it is not known whether it lives.
    if holder is None or holder.lives_here is False:
        return None

    under_way = text_at(lease, "metadata", "annotations", UNDER_WAY)
    if not under_way:
        return str(holder)
    return f"{holder}; under way: {under_way}"


def is_marked(kubernetes: Kubernetes) -> bool:
    """Whether a command uses the cluster, or was killed while it did. Raises Unreachable."""
    return _read(kubernetes) is not None


def _take(kubernetes: Kubernetes, real: HostTime, cluster: str, holder: Holder) -> None:
    """Waits while a Lease exists whose holder may have ended elsewhere; at most LEASE_S."""
    seen_version, since_ns = "", real.monotonic_ns()
    while True:
        lease = _read(kubernetes)
        is_free = (
            lease is None
            or _holder_has_ended(lease)
            or _is_stale(lease, seen_version, since_ns, real)
        )
        if is_free:
            # Written with the version that was read: of two that find it free, one is refused.
            if kubernetes.replace(_lease(holder, lease)):
                return
            continue  # another command was faster: read again

        assert lease is not None
        _check_is_ours(lease)
        found = holder_in(lease)
        version = _version_of(lease)
        if found is not None and found.lives_here:
            raise InUse(f"cluster {cluster}", found)
        # Its holder is elsewhere, and alive: between two looks the Lease was written again.
        if seen_version not in ("", version):
            raise InUse(f"cluster {cluster}", found)

        if not seen_version:
            seen_version, since_ns = version, real.monotonic_ns()
        real.sleep(LOOK_EVERY_S)


def _version_of(lease: JsonObject) -> str:
    """Changes with every write of a Lease."""
    return str(value_at(lease, "metadata", "resourceVersion"))


def _holder_has_ended(lease: JsonObject) -> bool:
    holder = holder_in(lease)
    if holder is None:
        return False
    # None: it is on another machine, and may well live.
    return holder.lives_here is False


def _is_stale(lease: JsonObject, seen_version: str, since_ns: int, real: HostTime) -> bool:
    if _version_of(lease) != seen_version:
        return False
    unchanged_for_ns = real.monotonic_ns() - since_ns
    return unchanged_for_ns > LEASE_S * NS_PER_S


def _check_is_ours(lease: JsonObject) -> None:
    if not is_ours(texts_at(lease, "metadata", "labels")):
        raise LabUnavailable(
            f"Lease {LEASE_NAMESPACE}/{LEASE_NAME} exists without our label, so it is left alone; "
            "runs need a Lease of that name to keep each other out: rename it, or use another "
            "cluster"
        )


def holder_in(lease: JsonObject) -> Holder | None:
    """The holder that `lease` names; None when it names none."""
    return Holder.read(text_at(lease, "metadata", "annotations", HOLDER))


def _read(kubernetes: Kubernetes) -> JsonObject | None:
    return kubernetes.read(LEASE_KIND, LEASE_NAMESPACE, LEASE_NAME)


def _lease(holder: Holder, before: JsonObject | None, under_way: str = "") -> JsonObject:
    """`before`: the version that it replaces."""
    metadata: MutableJsonObject = {
        "namespace": LEASE_NAMESPACE,
        "name": LEASE_NAME,
        "labels": dict(OUR_LABELS),
        "annotations": {HOLDER: holder.to_text(), UNDER_WAY: under_way},
    }
    if before is not None:
        # The server refuses the write when the Lease has changed since it was read.
        metadata["resourceVersion"] = value_at(before, "metadata", "resourceVersion")
    spec = {
        "holderIdentity": f"{holder.machine.split()[0]}/{holder.pid}",
        "leaseDurationSeconds": LEASE_S,
        "renewTime": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": spec,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _machine() -> str:
    """Host name first; then what makes a process id unique: boot and process namespace (Linux)."""
    parts = [socket.gethostname() or "unknown"]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; "" where the system does not say."""
    ticks = started_ticks(pid)
    if ticks is None:
        return ""
    return str(ticks)
