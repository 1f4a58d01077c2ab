from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.cluster.stack.pool import KEPT_FOR_CONTAINERS, POOL_MAX, POOL_MIN, pool_of
from meshwake.core.errors import LabUnavailable

# As the engine prints them: docker network inspect kind, IPAM.Config.
IPV6_FIRST = [
    {"Subnet": "fc00:f853:ccd:e793::/64"},
    {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"},
]


def _ends(pool: str) -> tuple[IPv4Address, IPv4Address]:
    first, last = pool.split("-")
    return IPv4Address(first), IPv4Address(last)


def test_ipv4_is_chosen_though_ipv6_comes_first() -> None:
    """The whole answer for the network that kind makes."""
    assert pool_of(IPV6_FIRST) == "172.18.255.204-172.18.255.253"


def test_addresses_in_use_are_left_alone() -> None:
    """With a prefix length, as the engine prints those of containers; those of IPv6 and nonsense
    are nothing to us."""
    assert (
        pool_of(IPV6_FIRST, ["172.18.255.253/16", "fc00::1/64", ""])
        == "172.18.255.203-172.18.255.252"
    )
    assert pool_of(IPV6_FIRST, ["172.18.255.251"]) == "172.18.255.201-172.18.255.250"


def test_a_second_cluster_gets_the_addresses_below() -> None:
    """Those of the first are reported as used."""
    first, last = _ends(pool_of(IPV6_FIRST))
    used = [str(IPv4Address(number)) for number in range(int(first), int(last) + 1)]
    assert pool_of(IPV6_FIRST, used) == "172.18.255.154-172.18.255.203"


def test_the_gateway_is_nobodys() -> None:
    """Also when it is at the end of its network."""
    assert pool_of([{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.253"}]) == "10.0.0.203-10.0.0.252"


def test_the_range_that_containers_get_addresses_from_is_kept_clear() -> None:
    """An engine with a configured range within the network assigns from its low end."""
    config = [{"Subnet": "10.0.0.0/16", "IPRange": "10.0.255.208/28", "Gateway": "10.0.0.1"}]
    assert pool_of(config) == "10.0.255.240-10.0.255.253"


def test_a_small_network_gives_what_it_has() -> None:
    """62 hosts less 32 for containers, less the two at the end."""
    assert pool_of([{"Subnet": "10.0.0.0/26"}]) == "10.0.0.33-10.0.0.61"


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ([], "no range at all"),
        ([{"Subnet": "fc00::/64"}], "fc00::/64"),
        ([{"Subnet": "10.0.0.0/27"}], "10.0.0.0/27, too small or too full"),
        ([{"Subnet": "10.0.0.0/31"}], "10.0.0.0/31, too small or too full"),
        ([{}], "None"),
    ],
)
def test_a_network_without_room_is_refused(config: list[dict[str, Any]], found: str) -> None:
    """Found, expected, what to do."""
    with pytest.raises(
        LabUnavailable, match=f"found {found}; expected an IPv4 range .*docker network rm kind"
    ):
        pool_of(config)


def test_the_next_range_is_tried_when_one_is_too_small() -> None:
    """Engines may have several."""
    assert pool_of([{"Subnet": "10.0.0.0/29"}, *IPV6_FIRST]) == "172.18.255.204-172.18.255.253"


@st.composite
def _networks(draw: st.DrawFn) -> tuple[IPv4Network, list[IPv4Address]]:
    prefix = draw(st.integers(min_value=8, max_value=30))
    network = IPv4Network((draw(st.integers(0, 2**32 - 1)), prefix), strict=False)
    lowest, highest = int(network.network_address), int(network.broadcast_address)
    near_the_end = st.integers(max(lowest, highest - 120), highest)
    used = draw(st.lists(st.one_of(st.integers(lowest, highest), near_the_end), max_size=60))
    return network, [IPv4Address(number) for number in used]


@given(_networks(), st.integers(0, 2))
def test_a_pool_is_inside_free_and_clear_of_containers(
    drawn: tuple[IPv4Network, list[IPv4Address]], ipv6_at: int
) -> None:
    """Whatever the network: 4 to 50 addresses of it, none used, none of the low ones, none at the
    very end."""
    network, used = drawn
    config = [{"Subnet": str(network), "Gateway": str(network.network_address + 1)}]
    config.insert(ipv6_at, {"Subnet": "fd00::/64"})
    try:
        first, last = _ends(pool_of(config, map(str, used)))
    except LabUnavailable:
        assert not _has_room(network, set(used))
        return
    assert POOL_MIN <= int(last) - int(first) + 1 <= POOL_MAX
    assert (
        network.network_address + KEPT_FOR_CONTAINERS
        < first
        <= last
        < network.broadcast_address - 1
    )
    assert not [address for address in used if first <= address <= last]


def _has_room(network: IPv4Network, used: set[IPv4Address]) -> bool:
    """The other way round: looks at every address, which small networks allow; large ones have room
    here."""
    if network.num_addresses > 1024:
        return True
    run = 0
    for number in range(
        int(network.network_address) + 1 + KEPT_FOR_CONTAINERS, int(network.broadcast_address) - 1
    ):
        run = 0 if IPv4Address(number) in used else run + 1
        if run >= POOL_MIN:
            return True
    return False
