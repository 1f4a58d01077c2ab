"""Addresses for load balancers, worked out from the network that the container engine made for
kind.

MetalLB answers for addresses by ARP, so they must lie in the nodes' own network and be
unused: the engine gives its containers addresses from the low end, so ours are taken from the high
end. Engines list a network's ranges in any order and IPv6 may come first; the pool is IPv4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    NetmaskValueError,
    ip_address,
)
from typing import Any

from meshwake.core.errors import LabUnavailable
from meshwake.core.json_types import JsonObject

POOL_MAX = 50
POOL_MIN = 4
# For containers that come later: nodes of this cluster and of others on the same network.
KEPT_FOR_CONTAINERS = 32


def pool_of(ipam_config: Sequence[JsonObject], used: Iterable[str] = ()) -> str:
    """A range of 4 to 50 addresses near the end of the first usable IPv4 range, as
    "172.18.255.204-172.18.255.253".

    `ipam_config` is the engine's IPAM.Config (entries with Subnet, perhaps Gateway and IPRange);
    `used` are addresses that are taken, with or without a prefix length; those of other networks
    are nothing to us. Raises LabUnavailable when no IPv4 range has room.
    """
    taken = {address for text in used if (address := _address(text)) is not None}
    seen = []
    for entry in ipam_config:
        network = _ipv4_network(entry.get("Subnet"))
        if network is None:
            seen.append(str(entry.get("Subnet")))
            continue
        found = _pool_in(network, taken | _kept(entry))
        if found:
            return found
        seen.append(f"{network}, too small or too full")
    raise LabUnavailable(
        "the network of kind has no room for load balancer addresses: found "
        f"{'; '.join(seen) or 'no range at all'}; "
        f"expected an IPv4 range with {POOL_MIN} free addresses in a row above its first "
        f"{KEPT_FOR_CONTAINERS}; "
        "remove the network when no cluster uses it (docker network rm kind), and it is "
        "created again with the engine's "
        "default size"
    )


def addresses_in(words: str) -> Iterator[str]:
    """Every IPv4 address of a range as MetalLB writes it, FIRST-LAST or a network; nothing of what
    is neither."""
    first, dash, last = words.partition("-")
    try:
        if dash:
            begins, ends = IPv4Address(first), IPv4Address(last)
        else:
            network = IPv4Network(words, strict=False)
            begins, ends = network[0], network[-1]
    except ValueError:
        return
    for number in range(int(begins), int(ends) + 1):
        yield str(IPv4Address(number))


def _pool_in(network: IPv4Network, taken: set[IPv4Address]) -> str | None:
    """The highest stretch of free addresses that is long enough, at most POOL_MAX of it."""
    lowest = int(network.network_address) + 1 + KEPT_FOR_CONTAINERS

    # The last address is that of the broadcast, and the one before it is often a router's.
    last = int(network.broadcast_address) - 2
    while last - POOL_MIN + 1 >= lowest:
        first = _first_of_stretch(last, lowest, taken)
        if last - first + 1 >= POOL_MIN:
            return f"{IPv4Address(first)}-{IPv4Address(last)}"
        # Below the stretch that was too short lies a taken address.
        last = first - 2
    return None


def _first_of_stretch(last: int, lowest: int, taken: set[IPv4Address]) -> int:
    """The lowest address such that it and all up to `last` are free; `last` + 1 when that one is
    taken."""
    # More than POOL_MAX are never needed.
    lowest = max(lowest, last + 1 - POOL_MAX)
    first = last + 1
    while first > lowest and IPv4Address(first - 1) not in taken:
        first -= 1
    return first


def _kept(entry: JsonObject) -> set[IPv4Address]:
    """The gateway, and the low end of the range that containers get addresses from, where there is
    one."""
    kept: set[IPv4Address] = set()
    gateway = _address(str(entry.get("Gateway") or ""))
    if gateway is not None:
        kept.add(gateway)

    given = _ipv4_network(entry.get("IPRange"))
    if given is not None:
        lowest = int(given.network_address)
        low_end = range(lowest, lowest + KEPT_FOR_CONTAINERS)
        kept.update(IPv4Address(number) for number in low_end)
    return kept


def _ipv4_network(subnet: Any) -> IPv4Network | None:
    try:
        return IPv4Network(str(subnet), strict=False)
    except (AddressValueError, NetmaskValueError, ValueError):
        return None


def _address(text: str) -> IPv4Address | None:
    """`text` without its prefix length, when it is an IPv4 address."""
    without_prefix = text.partition("/")[0]
    try:
        address: IPv4Address | IPv6Address = ip_address(without_prefix)
    except ValueError:
        return None
    if not isinstance(address, IPv4Address):
        return None
    return address
