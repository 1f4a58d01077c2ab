"""Redirection as a node has it: what a pod sends goes into its ztunnel, what comes for it from
elsewhere does too.

A cluster's node agent writes these rules into each pod's network namespace, so that an ordinary
client and an ordinary server know nothing of ztunnel. Here they are nftables, spoken over netlink,
so no program has to be installed:

    output      TCP, not to the loopback, not sent by ztunnel (its packets carry a mark)    -> port 15001
    prerouting  TCP, not to the loopback, not to the HBONE port, not sent by ztunnel        -> port 15006

Limits: IPv4 and TCP only; names are not looked up in the mesh.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Meta
from pyroute2.nftables.expressions import genex
from pyroute2.nftables.main import NFTables

from meshwake.ztunnel.ports import HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT

ZTUNNEL_MARK = 0x539
_TABLE = "meshwake"
_IPV4 = 2
_TCP = 6
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_BEFORE_OTHERS = -100
_ACCEPT = 1
_RULES = 2
_Expressions = list[dict[str, Any]]


def redirected_here() -> bool:
    """Writes the rules into the network namespace of this thread; False where the kernel has none
    (load its modules: nf_tables, nft_chain_nat, nft_redir)."""
    try:
        with NFTables(nfgen_family=_IPV4) as rules:
            _write(rules)
            return (
                len(rules.get_rules()) == _RULES
            )  # a refused transaction is not reported by itself
    except (NetlinkError, OSError):
        return False


def _write(rules: NFTables) -> None:
    rules.begin()
    rules.table("add", name=_TABLE)
    for chain, hook, conditions, port in (
        ("out", "output", (), OUTBOUND_PORT),
        ("in", "prerouting", _port_is_not(HBONE_PORT), INBOUND_PLAINTEXT_PORT),
    ):
        rules.chain(
            "add",
            table=_TABLE,
            name=chain,
            hook=hook,
            type="nat",
            priority=_BEFORE_OTHERS,
            policy=_ACCEPT,
        )
        expressions = (
            _tcp_to_elsewhere(),
            conditions,
            _mark_is_not(ZTUNNEL_MARK),
            _redirect_to(port),
        )
        rules.rule("add", table=_TABLE, chain=chain, expressions=expressions)
    rules.commit()


def _tcp_to_elsewhere() -> _Expressions:
    destination = {"dreg": 1, "base": _NETWORK_HEADER, "offset": 16, "len": 4}
    return [
        genex("meta", {"dreg": 1, "key": Meta.NFT_META_L4PROTO}),
        _compare(Cmp.NFT_CMP_EQ, bytes([_TCP])),
        genex("payload", destination),
        _compare(Cmp.NFT_CMP_NEQ, socket.inet_aton("127.0.0.1")),
    ]


def _port_is_not(port: int) -> _Expressions:
    destination = {"dreg": 1, "base": _TRANSPORT_HEADER, "offset": 2, "len": 2}
    return [genex("payload", destination), _compare(Cmp.NFT_CMP_NEQ, struct.pack(">H", port))]


def _mark_is_not(mark: int) -> _Expressions:
    return [
        genex("meta", {"dreg": 1, "key": Meta.NFT_META_MARK}),
        _compare(Cmp.NFT_CMP_NEQ, struct.pack("=I", mark)),
    ]


def _redirect_to(port: int) -> _Expressions:
    return [
        genex("immediate", {"dreg": 1, "data": _value(struct.pack(">H", port))}),
        genex("redir", {"reg_proto_min": 1}),
    ]


def _compare(how: Cmp, value: bytes) -> dict[str, Any]:
    compared: dict[str, Any] = genex("cmp", {"sreg": 1, "op": how, "data": _value(value)})
    return compared


def _value(value: bytes) -> dict[str, Sequence[tuple[str, bytes]]]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}
