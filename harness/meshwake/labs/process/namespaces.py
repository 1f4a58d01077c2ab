"""Network namespaces of our own: one for each ztunnel (its ports cannot be chosen), one for the
authority between them.

    authority 10.77.0.1 --- bridge --- 10.77.0.11 first identity
                              |  '---- 10.77.0.12 second identity ...

They have no names: the kernel removes each when no process is in it and no file of it is open, so a
harness that is killed leaves none behind. Where we are not root everything happens in a user
namespace of our own, and no right on this machine is needed.
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

# Addresses in a network of our own, 10.77.0.0/16: the authority is 10.77.0.1, namespaces begin at
# .11. 200 of them for each value of the third byte leave out .0 and .255, which some programs take
# for the network and for everybody.
AUTHORITY_ADDRESS = "10.77.0.1"
# Room for 250 blocks of 200: more than a run may have identities (lab.py).
_PREFIX_BITS = 16
_FIRST_HOST, _HOSTS_PER_BLOCK = 11, 200
_BRIDGE = "mesh0"
# The namespaces of the calling thread, not of the process: setns moves one thread only.
_OWN_NETWORK = "/proc/thread-self/ns/net"
# Slots in a namespace's table of TCP sockets; a power of two (Documentation/networking/
# ip-sysctl.rst, tcp_child_ehash_entries). A run has some dozens of sockets in each.
_SOCKET_SLOTS = "64"


def enter_own_namespaces() -> None:
    """Moves this process (which must have one thread: user_namespaces(7), unshare(2)) into network
    and mount namespaces of its own, and into a user namespace where it has no right to make them
    otherwise. Raises LabUnavailable with the reason and the way out."""
    # The system call may be refused all the same: by a seccomp profile, for example.
    is_done = _may_build_networks() and not _unshare(CLONE_NEWNET | CLONE_NEWNS)
    if not is_done:
        _enter_own_namespaces_as_user(os.geteuid(), os.getegid())
    _use_small_socket_tables()


def _enter_own_namespaces_as_user(user: int, group: int) -> None:
    if number := _unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS):
        raise LabUnavailable(
            f"no right to make namespaces ({os.strerror(number)}){_why_forbidden()}"
        )

    # Without this the kernel refuses a group map to a user without rights (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")

    # "0 USER 1": root in there is this user out here, and no other user exists in there.
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _may_build_networks() -> bool:
    """Root in a container may make namespaces (CAP_SYS_ADMIN) and not set them up; in a user
    namespace of its own it may do both."""
    # Effective capabilities, as a bit mask in hexadecimal (proc_pid_status(5)).
    status = Path("/proc/self/status").read_text()
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    if found is None:
        return False
    capabilities = int(found[1], 16)
    return bool(capabilities & (1 << CAP_NET_ADMIN))


def _use_small_socket_tables() -> None:
    """Namespaces made from here on get a socket table of their own (Linux 6.1): listing the sockets
    in the machine's table of hundreds of thousands of slots takes 0.4 ms, in this one 0.02 ms.
    Without it everything works, slower."""
    with suppress(OSError):
        switch = Path("/proc/sys/net/ipv4/tcp_child_ehash_entries")
        switch.write_text(_SOCKET_SLOTS)
        # The namespace we are in was made before: so we move into one more. The setting is not
        # inherited.
        _unshare(CLONE_NEWNET)
        switch.write_text(_SOCKET_SLOTS)


def _unshare(flags: int) -> int:
    """Returns 0, or the errno."""
    try:
        unshare(flags)
    except OSError as error:
        return error.errno or errno.EPERM
    return 0


# Settings with which a system forbids user namespaces: the value that does, and what to do about
# it.
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
def in_namespace(namespace: int) -> Iterator[None]:
    """This thread is in the network namespace of the open file `namespace` for the length of the
    block; sockets made there stay there."""
    home = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
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
    """The bridge and the namespaces on it; made inside `enter_own_namespaces`."""

    def __init__(self) -> None:
        self._netlink = IPRoute()
        self._namespaces: dict[str, int] = {}
        self._made = 0
        self._up("lo")
        try:
            self._netlink.link("add", ifname=_BRIDGE, kind="bridge")
        except OSError as error:
            raise LabUnavailable(
                f"this kernel makes no bridge ({error}); load its module: sudo modprobe bridge"
            ) from error
        self._netlink.addr(
            "add", index=self._index(_BRIDGE), address=AUTHORITY_ADDRESS, prefixlen=_PREFIX_BITS
        )
        self._up(_BRIDGE)

    def add(self, name: str) -> tuple[int, str]:
        """A new namespace on the bridge: an open file of it, and its address."""
        number = self._made
        self._made += 1
        block, host = divmod(number, _HOSTS_PER_BLOCK)
        address = f"10.77.{block}.{_FIRST_HOST + host}"
        namespace = _new_network_namespace()

        # A veth is a cable with two ends (veth(4)): one end on the bridge, the other is the
        # namespace's only card.
        our_end, their_end = f"m{number}", "eth0"
        self._netlink.link(
            "add", ifname=our_end, kind="veth", peer={"ifname": their_end, "net_ns_fd": namespace}
        )
        bridge = self._index(_BRIDGE)
        self._netlink.link("set", index=self._index(our_end), master=bridge, state="up")
        _set_up_card(namespace, their_end, address)
        self._namespaces[name] = namespace
        return namespace, address

    def remove(self, name: str) -> None:
        """Closes a namespace: the kernel removes it when no process is in it any more."""
        os.close(self._namespaces.pop(name))

    def close(self) -> None:
        """Closes everything; the kernel removes it when the processes in it have ended."""
        self._netlink.close()
        for namespace in self._namespaces.values():
            os.close(namespace)

    def _index(self, name: str) -> int:
        return int(self._netlink.link_lookup(ifname=name)[0])

    def _up(self, name: str) -> None:
        self._netlink.link("set", index=self._index(name), state="up")


def _set_up_card(namespace: int, card: str, address: str) -> None:
    """Gives a namespace its loopback, its address, and its route to everywhere else."""
    with in_namespace(namespace), IPRoute() as there:
        there.link("set", index=there.link_lookup(ifname="lo")[0], state="up")
        index = there.link_lookup(ifname=card)[0]
        there.addr("add", index=index, address=address, prefixlen=_PREFIX_BITS)
        there.link("set", index=index, state="up")
        # ztunnel resolves and binds as on a node, which has a default route.
        there.route("add", dst="default", gateway=AUTHORITY_ADDRESS)


def _new_network_namespace() -> int:
    """An open file of a new one. This thread visits it, because a new namespace is always that of
    the thread which made it, and returns."""
    home = os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if number := _unshare(CLONE_NEWNET):
            raise LabUnavailable(
                f"no further network namespace can be made ({os.strerror(number)})"
            )
        return os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)
    finally:
        join(home)
        os.close(home)


def listen(address: str, port: int) -> socket.socket:
    """A listening TCP socket in the namespace of this thread."""
    return socket.create_server((address, port), backlog=128)


def _try_to_list_sockets() -> None:
    """Raises LabUnavailable where the kernel does not list sockets over netlink (sock_diag(7))."""
    with listen(AUTHORITY_ADDRESS, 0):
        if not SocketsOfNamespace("probe").all():
            raise LabUnavailable(
                "this kernel does not list its TCP sockets; sudo modprobe inet_diag tcp_diag"
            )


def _try_to_move_a_clock() -> None:
    """Raises LabUnavailable where a child process may not be traced, or its vDSO not be written."""
    page, expected = ClockPage("fixed"), ClockReading(10**18, 10**18, 10**18)
    page.set(expected)
    with tempfile.TemporaryDirectory(prefix="meshwake-") as name:
        directory = Path(name)
        program = [sys.executable, "-S", "-c", "import signal; signal.pause()"]
        child = launch(program, page, environment={}, directory=directory, log=directory / "log")
        found = read_inside(child)
        if found != expected:
            raise LabUnavailable(
                f"a child process whose clocks were set to {expected} read {found}"
            )


if __name__ == "__main__":
    # `python -m meshwake.labs.process.namespaces`: can this user make what the lab needs? Prints
    # why not.
    try:
        enter_own_namespaces()
        Network().add("probe")
        _try_to_list_sockets()
        _try_to_move_a_clock()
    except (LabUnavailable, SubjectFailed) as unavailable:
        sys.stdout.write(f"{unavailable}\n")
    except (OSError, NetlinkError) as failure:
        sys.stdout.write(f"network namespaces cannot be made here: {failure}\n")
