"""The TCP sockets of a network namespace, as the kernel sees them: what lies in them, unread or
unsent, and what is on its way between them.

Read by netlink sock_diag (sock_diag(7)), many thousand times a run. Why a parser of our own, where
pyroute2 has one: a dump of a small namespace takes the kernel 0.02 ms, so that reading the answer
is most of the cost, and eight fields of each socket are all that is needed.

Sources of the layouts: include/uapi/linux/netlink.h, inet_diag.h and tcp.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from meshwake.clocks.quiescence.traffic import observe_packets
from meshwake.core.errors import LabUnavailable

# --- States of a TCP socket: include/net/tcp_states.h ---------------------------------------------

_ESTABLISHED = 1
# TIME_WAIT is left to itself: it lasts 60 s of the kernel's time (TCP_TIMEWAIT_LEN,
# include/net/tcp.h), so to wait for it would cost a minute after each connection.
_TIME_WAIT = 6
_CLOSE = 7
LISTEN = 10
# A handshake or a goodbye that waits for a packet of the other end. FIN_WAIT2 (5) and CLOSE_WAIT
# (8) are not here: they wait for a *program* to close its end, and that may be never.
_HALF_OPEN_OR_CLOSED = {2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1", 9: "LAST_ACK", 11: "CLOSING"}
# One bit a state. Sockets that only remember a connection that has ended carry nothing any more.
_REQUESTED_STATES = 0xFFF & ~(1 << _TIME_WAIT | 1 << _CLOSE)

# --- netlink: include/uapi/linux/netlink.h --------------------------------------------------------

# The netlink family: NETLINK_SOCK_DIAG, once NETLINK_INET_DIAG.
_NETLINK_SOCK_DIAG = 4
# struct nlmsghdr: length (with this header), type, flags, sequence number, port of the sender.
_MESSAGE_HEADER = struct.Struct("<IHHII")
_MESSAGE_HEADER_BYTES = _MESSAGE_HEADER.size  # 16
# The first two fields of it are all that is read in answers.
_LENGTH_AND_TYPE = struct.Struct("<IH")
_REQUEST = 0x001
_DUMP = 0x300  # NLM_F_ROOT | NLM_F_MATCH: all that there are
# NLMSG_ERROR and NLMSG_DONE: instead of an answer, and behind the last of a dump.
_TYPE_ERROR = 2
_TYPE_DONE = 3
# Messages and attributes begin at multiples of this (NLMSG_ALIGNTO, NLA_ALIGNTO).
_ALIGNMENT = 4
# struct nlattr: length (with these four bytes), type.
_ATTRIBUTE_HEADER = struct.Struct("<HH")
_ATTRIBUTE_HEADER_BYTES = _ATTRIBUTE_HEADER.size  # 4
_ERROR_CODE = struct.Struct("<i")  # struct nlmsgerr begins with it: 0, or a negative errno

# --- sock_diag: include/uapi/linux/inet_diag.h ----------------------------------------------------

# The older of two requests (the newer is SOCK_DIAG_BY_FAMILY, 20): it walks the kernel's table of
# sockets once for IPv4 and IPv6, where the newer one must be sent, and the table walked, twice.
_TCPDIAG_GETSOCK = 18
# struct inet_diag_req: family, two lengths of prefixes, a bit for each attribute wanted; struct
# inet_diag_sockid (48 bytes, all zero: any socket); states wanted; a field that is not used.
_SOCKETS_REQUEST = struct.Struct("<BBBB48xII")
_INET_DIAG_INFO = 2  # the attribute that holds struct tcp_info; as a bit it is 1 << (2 - 1)
# struct inet_diag_msg, behind the header of the message. Fields: family at 0, state at 1; the
# socket's id from 4 on: source port at 4, destination port at 6 (both big-endian), source address
# at 8, destination address at 24 (16 bytes each, an IPv4 address in the first four); after the id,
# which ends at 52, the timer; receive queue at 56, send queue at 60, user at 64, inode at 68.
_STATE_AT = _MESSAGE_HEADER_BYTES + 1
_SOURCE_PORT_AT = _MESSAGE_HEADER_BYTES + 4
_DESTINATION_PORT_AT = _MESSAGE_HEADER_BYTES + 6
_SOURCE_ADDRESS_AT = _MESSAGE_HEADER_BYTES + 8
_DESTINATION_ADDRESS_AT = _MESSAGE_HEADER_BYTES + 24
_ADDRESSES_END_AT = _MESSAGE_HEADER_BYTES + 40
_RECEIVE_QUEUE_AT = _MESSAGE_HEADER_BYTES + 56
_ATTRIBUTES_AT = _MESSAGE_HEADER_BYTES + 72
_UNSIGNED_32 = struct.Struct("<I")

# --- struct tcp_info: include/uapi/linux/tcp.h ----------------------------------------------------

# Where in it these fields are. The kernel only ever appends to it.
_UNACKED_AT = 24  # tcpi_unacked, u32: packets sent and not yet acknowledged
_BYTES_RECEIVED_AT = 128  # tcpi_bytes_received, u64
_NOTSENT_BYTES_AT = 144  # tcpi_notsent_bytes, u32
_BYTES_SENT_AT = 200  # tcpi_bytes_sent, u64, since Linux 4.19; behind it tcpi_bytes_retrans, u64
_SENT_AND_RETRANSMITTED = struct.Struct("<QQ")
_UNSIGNED_64 = struct.Struct("<Q")
_TCP_INFO_LEAST_BYTES = 216  # to the end of tcpi_bytes_retrans

# --- Our own bounds -------------------------------------------------------------------------------

_ANSWERS_WITHIN_S = 10.0
# A dump comes in pieces of at most 32 KiB (NLMSG_GOODSIZE and max_recvmsg_len in af_netlink.c).
_ANSWER_BYTES = 1 << 18

# Ends of a connection are a port and an address, one after the other.
_ADDRESS_OF_END = slice(2, 18)
_IPV6_LOOPBACK = bytes(15) + b"\x01"
_IPV4_LOOPBACK_NET = b"\x7f"  # 127.0.0.0/8


@dataclass(frozen=True)
class TcpSocket:
    """One socket. `unread`: bytes, or for a listening one connections not yet accepted."""

    namespace: str
    ends: tuple[bytes, bytes]  # port and address of this end and of the other
    state: int
    unread: int
    unsent_bytes: int
    sent_bytes: int
    received_bytes: int
    # A closed socket that the kernel only remembers has none; its state may read FIN_WAIT2.
    has_info: bool
    unacknowledged: int = 0  # packets

    @property
    def name(self) -> str:
        """The ports, for a message."""
        here, there = (struct.unpack(">H", end[:2])[0] for end in self.ends)
        return f"{self.namespace}: socket {here} to {there}"

    @property
    def connection(self) -> tuple[str, bytes, bytes]:
        """Names this end of the connection among all namespaces; loopback is another network in
        each of them."""
        address = self.ends[0][_ADDRESS_OF_END]
        is_loopback = address[:1] == _IPV4_LOOPBACK_NET or address == _IPV6_LOOPBACK
        return (self.namespace if is_loopback else "", *self.ends)


class SocketsOfNamespace:
    """The TCP sockets of one network namespace. To be made while the thread is inside it: a netlink
    socket stays in the namespace that it was opened in."""

    def __init__(self, name: str) -> None:
        self.name = name
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._netlink = socket.socket(socket.AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        self._netlink.settimeout(_ANSWERS_WITHIN_S)
        self.packets = observe_packets()

    def all(self) -> list[TcpSocket]:
        """Every socket that is not closed. Raises LabUnavailable when this kernel cannot list
        them."""
        self._netlink.send(_dump_request())
        found: list[TcpSocket] = []
        while not self._read_answer(found):
            pass
        return found

    def close(self) -> None:
        """Closes the files, which lets the namespace go."""
        self._netlink.close()
        self.packets.close()

    def _read_answer(self, found: list[TcpSocket]) -> bool:
        """Adds one piece of the answer to `found`; says whether it was the last one."""
        data = self._netlink.recv(_ANSWER_BYTES)
        position = 0
        while position < len(data):
            length, kind = _LENGTH_AND_TYPE.unpack_from(data, position)
            message = data[position : position + length]
            if kind in (_TYPE_ERROR, _TYPE_DONE):
                _check_end(message)
                return True
            if kind == _TCPDIAG_GETSOCK:
                found.append(_parse_socket(self.name, message))
            position += _aligned(length)
        return False


def _dump_request() -> bytes:
    """One netlink message: all TCP sockets, with struct tcp_info of each."""
    wanted = 1 << (_INET_DIAG_INFO - 1)
    # The family is looked at only by the newer request; here any valid one does.
    body = _SOCKETS_REQUEST.pack(socket.AF_INET, 0, 0, wanted, _REQUESTED_STATES, 0)
    length = _MESSAGE_HEADER_BYTES + len(body)
    return _MESSAGE_HEADER.pack(length, _TCPDIAG_GETSOCK, _REQUEST | _DUMP, 0, 0) + body


def _check_end(message: bytes) -> None:
    """An error, or the end of a list, carries a negative errno when the kernel cannot list them:
    then nothing is known about sockets, and an empty list must not be taken for quiescence."""
    if len(message) < _MESSAGE_HEADER_BYTES + _ERROR_CODE.size:
        return
    (code,) = _ERROR_CODE.unpack_from(message, _MESSAGE_HEADER_BYTES)
    if code < 0:
        raise LabUnavailable(
            f"this kernel does not list its TCP sockets ({os.strerror(-code)}); "
            "load its modules: sudo modprobe inet_diag tcp_diag"
        )


def _parse_socket(namespace: str, message: bytes) -> TcpSocket:
    """One message of type TCPDIAG_GETSOCK: nlmsghdr, inet_diag_msg, attributes."""
    source_port = message[_SOURCE_PORT_AT:_DESTINATION_PORT_AT]
    destination_port = message[_DESTINATION_PORT_AT:_SOURCE_ADDRESS_AT]
    source = message[_SOURCE_ADDRESS_AT:_DESTINATION_ADDRESS_AT]
    destination = message[_DESTINATION_ADDRESS_AT:_ADDRESSES_END_AT]
    (unread,) = _UNSIGNED_32.unpack_from(message, _RECEIVE_QUEUE_AT)
    ends = (source_port + source, destination_port + destination)
    info_at = _find_tcp_info(message)
    if info_at is None:
        return TcpSocket(namespace, ends, message[_STATE_AT], unread, 0, 0, 0, has_info=False)
    sent, retransmitted = _SENT_AND_RETRANSMITTED.unpack_from(message, info_at + _BYTES_SENT_AT)
    return TcpSocket(
        namespace,
        ends,
        message[_STATE_AT],
        unread,
        unsent_bytes=_UNSIGNED_32.unpack_from(message, info_at + _NOTSENT_BYTES_AT)[0],
        # What was sent twice is received once.
        sent_bytes=sent - retransmitted,
        received_bytes=_UNSIGNED_64.unpack_from(message, info_at + _BYTES_RECEIVED_AT)[0],
        has_info=True,
        unacknowledged=_UNSIGNED_32.unpack_from(message, info_at + _UNACKED_AT)[0],
    )


def _find_tcp_info(message: bytes) -> int | None:
    """Where struct tcp_info begins among the attributes; None when it is not there, or one of a
    kernel before 4.19, which did not count what was sent."""
    position = _ATTRIBUTES_AT
    while position + _ATTRIBUTE_HEADER_BYTES <= len(message):
        length, kind = _ATTRIBUTE_HEADER.unpack_from(message, position)
        enough = length >= _ATTRIBUTE_HEADER_BYTES + _TCP_INFO_LEAST_BYTES
        if kind == _INET_DIAG_INFO and enough:
            return position + _ATTRIBUTE_HEADER_BYTES
        # A length of zero would keep us here for ever.
        position += max(_aligned(length), _ALIGNMENT)
    return None


def _aligned(length: int) -> int:
    return (length + _ALIGNMENT - 1) & ~(_ALIGNMENT - 1)


# --- What is on its way ---------------------------------------------------------------------------


def first_on_its_way(sockets: Iterable[TcpSocket]) -> str | None:
    """A connection of one namespace that is half open or half closed, or bytes that have not left
    it; None when there is none."""
    for one in sockets:
        if one.state in _HALF_OPEN_OR_CLOSED:
            return f"{one.name} is in state {_HALF_OPEN_OR_CLOSED[one.state]}"
        if one.unsent_bytes:
            return f"{one.name} has {one.unsent_bytes} bytes unsent"
    return None


def unread(sockets: Iterable[TcpSocket]) -> set[str]:
    """What lies in the sockets of one namespace and has not been read, a description for each."""
    found = set()
    for one in sockets:
        # The end of a stream counts as one unread byte until the program closes the socket.
        end_of_stream = 0 if one.state in (_ESTABLISHED, LISTEN) else 1
        if one.unread > end_of_stream:
            what = "connections to accept" if one.state == LISTEN else "bytes unread"
            found.add(f"{one.name} has {one.unread} {what}")
    return found


def first_under_way(sockets: Iterable[TcpSocket]) -> str | None:
    """A connection of which one end has sent what the other has not received; None when there is
    none. Both ends of every connection are ours, so both can be compared. (Acknowledgements would
    not do: they may be delayed by 40 ms of real time.)"""
    by_connection = {}
    for one in sockets:
        if one.has_info and one.state != LISTEN:
            by_connection[one.connection] = one
    for (namespace, here, there), one in by_connection.items():
        other = by_connection.get((namespace, there, here))
        if found := _compare_ends(one, other):
            return found
    return None


def _compare_ends(one: TcpSocket, other: TcpSocket | None) -> str | None:
    if other is None:
        if one.state == _ESTABLISHED:
            return f"{one.name} does not know yet that its other end has gone"
        return None
    if one.sent_bytes == other.received_bytes:
        return None
    return (
        f"{one.name} has sent {one.sent_bytes} bytes, of which {other.received_bytes} have arrived"
    )
