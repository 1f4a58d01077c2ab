"""Redirection as a node has it: what a pod sends goes into its ztunnel, and so does what comes for
it from elsewhere.

A cluster's node agent writes these rules into each pod's network namespace, so that an ordinary
client and an ordinary server know nothing of ztunnel. Here they are nftables, written over netlink,
so no program has to be installed:

    output      TCP, not to the loopback, not sent by ztunnel (its packets carry a mark)
                -> port 15001
    prerouting  TCP, not to the loopback, not to the HBONE port, not sent by ztunnel
                -> port 15006

Limits: IPv4 and TCP only; names are not resolved in the mesh.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Meta
from pyroute2.nftables.expressions import genex
from pyroute2.nftables.main import NFTables

from meshwake.core.json_types import MutableJsonObject
from meshwake.ztunnel.ports import HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT

# The mark on packets that ztunnel itself sends: istio/ztunnel src/config.rs, DEFAULT_INPOD_MARK.
ZTUNNEL_MARK = 0x539

# Numbers of the kernel, which pyroute2 has no names for.
_IPV4 = 2  # NFPROTO_IPV4 (uapi/linux/netfilter.h)
_TCP = 6  # IPPROTO_TCP (uapi/linux/in.h)
# Which header a payload is read from: NFT_PAYLOAD_NETWORK_HEADER and
# NFT_PAYLOAD_TRANSPORT_HEADER (uapi/linux/netfilter/nf_tables.h).
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
# NF_IP_PRI_NAT_DST (uapi/linux/netfilter_ipv4.h): the priority at which destinations are rewritten,
# before the routing decision.
_PRIORITY_OF_DNAT = -100
_ACCEPT = 1  # NF_ACCEPT (uapi/linux/netfilter.h): what no rule matches goes on unchanged

# Where things are in a packet: (offset, length) in bytes.
_IPV4_DESTINATION = (16, 4)  # RFC 791, 3.1: the last word of the fixed header
_TCP_DESTINATION_PORT = (2, 2)  # RFC 9293, 3.1: after the source port

# Registers in which a rule keeps what it has loaded until the next expression uses it. Register 0
# (NFT_REG_VERDICT) is the verdict; 1 (NFT_REG_1) is the first for data.
_REGISTER = 1

_TABLE = "meshwake"
_RULES = 2  # that `_write` writes
_Expressions = list[MutableJsonObject]


def redirected_here() -> bool:
    """Writes the rules into the network namespace of this thread; False where the kernel has none
    (load its modules: nf_tables, nft_chain_nat, nft_redir)."""
    try:
        with NFTables(nfgen_family=_IPV4) as rules:
            _write(rules)
            # The kernel takes a transaction as a whole or not at all, and pyroute2 does not report
            # that it was refused: so the rules are read back.
            return len(rules.get_rules()) == _RULES
    except (NetlinkError, OSError):
        return False


def _write(rules: NFTables) -> None:
    rules.begin()
    rules.table("add", name=_TABLE)
    _add_chain(rules, "out", "output", [], OUTBOUND_PORT)
    _add_chain(rules, "in", "prerouting", _unless_port(HBONE_PORT), INBOUND_PLAINTEXT_PORT)
    rules.commit()


def _add_chain(rules: NFTables, name: str, hook: str, conditions: _Expressions, port: int) -> None:
    """A chain of one rule, which sends to `port` what passes `hook` and fulfils `conditions`."""
    rules.chain(
        "add",
        table=_TABLE,
        name=name,
        hook=hook,
        type="nat",
        priority=_PRIORITY_OF_DNAT,
        policy=_ACCEPT,
    )

    # A rule is a list of expressions; the first comparison that fails ends it.
    expressions = (
        _if_tcp_to_elsewhere(),
        conditions,
        _unless_marked(ZTUNNEL_MARK),
        _redirect_to(port),
    )
    rules.rule("add", table=_TABLE, chain=name, expressions=expressions)


def _if_tcp_to_elsewhere() -> _Expressions:
    return [
        genex("meta", {"dreg": _REGISTER, "key": Meta.NFT_META_L4PROTO}),
        _compare(Cmp.NFT_CMP_EQ, bytes([_TCP])),
        _load(_NETWORK_HEADER, _IPV4_DESTINATION),
        _compare(Cmp.NFT_CMP_NEQ, socket.inet_aton("127.0.0.1")),
    ]


def _unless_port(port: int) -> _Expressions:
    return [
        _load(_TRANSPORT_HEADER, _TCP_DESTINATION_PORT),
        _compare(Cmp.NFT_CMP_NEQ, _port_bytes(port)),
    ]


def _unless_marked(mark: int) -> _Expressions:
    # A mark is a number of the kernel, not of the wire: in the byte order of the machine.
    return [
        genex("meta", {"dreg": _REGISTER, "key": Meta.NFT_META_MARK}),
        _compare(Cmp.NFT_CMP_NEQ, struct.pack("=I", mark)),
    ]


def _redirect_to(port: int) -> _Expressions:
    """The destination becomes an address of this namespace, at `port` (nft's "redirect to")."""
    return [
        genex("immediate", {"dreg": _REGISTER, "data": _value(_port_bytes(port))}),
        genex("redir", {"reg_proto_min": _REGISTER}),
    ]


def _load(header: int, field: tuple[int, int]) -> MutableJsonObject:
    """Loads a field of the packet into the register."""
    offset, length = field
    loaded: MutableJsonObject = genex(
        "payload", {"dreg": _REGISTER, "base": header, "offset": offset, "len": length}
    )
    return loaded


def _compare(how: Cmp, value: bytes) -> MutableJsonObject:
    """Compares the register with `value`."""
    compared: MutableJsonObject = genex(
        "cmp", {"sreg": _REGISTER, "op": how, "data": _value(value)}
    )
    return compared


def _value(value: bytes) -> dict[str, Sequence[tuple[str, bytes]]]:
    # NFTA_DATA_VALUE: a constant in a nested attribute, as bytes (nf_tables.h).
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _port_bytes(port: int) -> bytes:
    return struct.pack(">H", port)  # in network order, as in the packet
