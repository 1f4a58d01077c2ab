"""Network namespaces of our own: one for each ztunnel (its ports cannot be chosen), one for the
authority between them.

    authority 10.77.0.1 --- bridge --- 10.77.0.11 first identity
                              |  '---- 10.77.0.12 second identity ...

They have no names: each lives as long as something holds its file, so a harness that is killed
leaves none behind. Where we are not root everything happens in a user namespace of our own, and no
right of this machine is needed.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshwake.clocks.quiescence.sockets import SocketsOfNamespace
from meshwake.clocks.vdso.page import ClockPage, launch, read_inside
from meshwake.core.clock_reading import ClockReading
from meshwake.core.errors import LabUnavailable, SubjectFailed
from meshwake.system.libc import (
    CAP_NET_ADMIN,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    setns,
    unshare,
)

AUTHORITY_ADDRESS = "10.77.0.1"
_PREFIX_BITS = 16
_BRIDGE = "mesh0"


def enter_own_world() -> None:
    """Puts this process (which must have one thread) into network and mount namespaces of its own,
    and into a user namespace where it has no right to make them otherwise. Raises LabUnavailable
    with the reason and the way out."""
    if not _may_build_networks() or _unshare(CLONE_NEWNET | CLONE_NEWNS):
        _enter_own_world_as_user(os.geteuid(), os.getegid())
    _use_small_socket_tables()


def _enter_own_world_as_user(user: int, group: int) -> None:
    if number := _unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS):
        raise LabUnavailable(
            f"no right to make namespaces ({os.strerror(number)}){_why_forbidden()}"
        )
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _may_build_networks() -> bool:
    """Root in a container may make namespaces (CAP_SYS_ADMIN) and not set them up; in a user
    namespace of its own it may do both."""
    found = re.search(
        r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    return found is not None and bool(int(found[1], 16) >> CAP_NET_ADMIN & 1)


def _use_small_socket_tables() -> None:
    """Namespaces made from here on get a socket table of their own (Linux 6.1): looking through the
    machine's table of hundreds of thousands of places takes 0.4 ms, through this 0.02 ms. Without
    it everything works, slower."""
    with suppress(OSError):
        switch = Path("/proc/sys/net/ipv4/tcp_child_ehash_entries")
        switch.write_text("64")
        # The namespace we are in was made before: one more, and we live there. The switch is not
        # inherited.
        _unshare(CLONE_NEWNET)
        switch.write_text("64")


def _unshare(flags: int) -> int:
    """0, or the errno."""
    try:
        unshare(flags)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


_SWITCHES = {
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "AppArmor restricts user namespaces here (Ubuntu 24.04 and newer): "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root",
    ),
    "/proc/sys/kernel/unprivileged_userns_clone": (
        "0",
        "user namespaces are for root only here: sudo sysctl "
        "kernel.unprivileged_userns_clone=1, or run as root",
    ),
    "/proc/sys/user/max_user_namespaces": (
        "0",
        "this system allows no user namespaces: sudo sysctl "
        "user.max_user_namespaces=10000, or run as root",
    ),
}


def _why_forbidden() -> str:
    for path, (forbidding, advice) in _SWITCHES.items():
        switch = Path(path)
        if switch.exists() and switch.read_text().strip() == forbidding:
            return f"; {advice}"
    return (
        "; run as root; in a container add --security-opt seccomp=unconfined, or else "
        "--cap-add SYS_ADMIN --cap-add NET_ADMIN (docs/containers.md)"
    )


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread is in the network namespace of the open file `namespace` for the length of the
    block; sockets made there stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        join(namespace)
        yield
    finally:
        join(home)
        os.close(home)


def join(namespace: int) -> None:
    """This thread moves into the network namespace of the open file `namespace`."""
    setns(namespace, CLONE_NEWNET)


class Network:
    """The bridge and the namespaces on it; made inside `enter_own_world`."""

    def __init__(self) -> None:
        self._home = IPRoute()
        self._namespaces: dict[str, int] = {}
        self._made = 0
        self._up("lo")
        try:
            self._home.link("add", ifname=_BRIDGE, kind="bridge")
        except OSError as error:
            raise LabUnavailable(
                f"this kernel makes no bridge ({error}); load its module: sudo modprobe bridge"
            ) from error
        self._home.addr(
            "add", index=self._index(_BRIDGE), address=AUTHORITY_ADDRESS, prefixlen=_PREFIX_BITS
        )
        self._up(_BRIDGE)

    def add(self, name: str) -> tuple[int, str]:
        """A new namespace on the bridge: an open file of it, and its address."""
        number = self._made
        self._made += 1
        address = f"10.77.{number // 200}.{11 + number % 200}"
        namespace = _new_network_namespace()
        ours, theirs = f"m{number}", "eth0"
        self._home.link(
            "add", ifname=ours, kind="veth", peer={"ifname": theirs, "net_ns_fd": namespace}
        )
        self._home.link("set", index=self._index(ours), master=self._index(_BRIDGE), state="up")
        with inside(namespace), IPRoute() as there:
            there.link("set", index=there.link_lookup(ifname="lo")[0], state="up")
            index = there.link_lookup(ifname=theirs)[0]
            there.addr("add", index=index, address=address, prefixlen=_PREFIX_BITS)
            there.link("set", index=index, state="up")
            there.route("add", dst="default", gateway=AUTHORITY_ADDRESS)
        self._namespaces[name] = namespace
        return namespace, address

    def remove(self, name: str) -> None:
        """Lets go of a namespace: the kernel takes it away when nobody lives in it any more."""
        os.close(self._namespaces.pop(name))

    def close(self) -> None:
        """Lets go of everything; the kernel takes it away when the processes in it have ended."""
        self._home.close()
        for namespace in self._namespaces.values():
            os.close(namespace)

    def _index(self, name: str) -> int:
        return int(self._home.link_lookup(ifname=name)[0])

    def _up(self, name: str) -> None:
        self._home.link("set", index=self._index(name), state="up")


def _new_network_namespace() -> int:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if number := _unshare(CLONE_NEWNET):
            raise LabUnavailable(
                f"no further network namespace can be made ({os.strerror(number)})"
            )
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        join(home)
        os.close(home)


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket in the namespace of this thread."""
    return socket.create_server((address, port), backlog=128)


def _see_a_socket() -> None:
    """Raises LabUnavailable where the kernel does not tell about sockets."""
    with listen(AUTHORITY_ADDRESS, 0):
        if not SocketsOfNamespace("probe").all():
            raise LabUnavailable(
                "this kernel does not tell about its TCP sockets; sudo modprobe inet_diag tcp_diag"
            )


def _move_a_clock() -> None:
    """Raises LabUnavailable where a child process may not be traced, or its vDSO not be written."""
    page, shown = ClockPage("fixed"), ClockReading(10**18, 10**18, 10**18)
    page.set(shown)
    with tempfile.TemporaryDirectory(prefix="meshwake-") as directory:
        place = Path(directory)
        waits = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
        child = launch(waits, page, environment={}, directory=place, log=place / "log")
        if (seen := read_inside(child)) != shown:
            raise LabUnavailable(f"a child process whose clocks were set to {shown} saw {seen}")


if __name__ == "__main__":
    # `python -m meshwake.labs.process.namespaces`: can this user make what the lab needs? Prints
    # why not.
    try:
        enter_own_world()
        Network().add("probe")
        _see_a_socket()
        _move_a_clock()
    except (LabUnavailable, SubjectFailed) as unavailable:
        sys.stdout.write(f"{unavailable}\n")
    except (OSError, NetlinkError) as failure:
        sys.stdout.write(f"a network of namespaces cannot be made here: {failure}\n")
