from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from meshwake.cluster.stack.choice import (
    LIFETIME_MIN_S,
    NEEDS,
    PARTS,
    PROFILES,
    Choice,
    choose_stack,
)
from meshwake.cluster.stack.pins import read_pins
from meshwake.core.errors import BadInput


def _choose(**words: Any) -> Choice:
    return choose_stack(read_pins(), **words)


def test_core_without_more_words() -> None:
    """What `meshwake up` makes."""
    choice = _choose()
    assert choice == Choice(
        name="meshwake-core-1-30-3",
        profile="core",
        parts=frozenset({"cilium", "metallb", "istio", "gateway", "waypoint"}),
        istio="1.30.3",
        kubernetes="1.34.11",
        workers=2,
        lifetime_s=600,
        mirror=None,
        pins=read_pins().sha256,
    )


@pytest.mark.parametrize(
    ("requested", "version", "kubernetes"),
    [
        ("1.22", "1.22.8", "1.30.13"),
        ("1.30.7", "1.30.7", "1.34.11"),
        ("1.31.0-rc.0", "1.31.0-rc.0", "1.34.11"),
    ],
)
def test_a_minor_means_its_pin_and_a_release_itself(
    requested: str, version: str, kubernetes: str
) -> None:
    """And each brings the Kubernetes that goes with it."""
    choice = _choose(istio=requested)
    assert (choice.istio, choice.kubernetes) == (version, kubernetes)


def test_parts_are_added_and_left_out() -> None:
    """Profile first, then the options next to it."""
    assert _choose(with_parts=["hubble"]).parts == frozenset({*PROFILES["core"], "hubble"})
    assert _choose(profile="full", without_parts=["observability"]).parts == frozenset(PARTS) - {
        "observability"
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"profile": "ful"},
            r"invalid value 'ful' for --profile: expected one of core, full; did you mean 'full'\?",
        ),
        (
            {"with_parts": ["huble"]},
            r"invalid value 'huble' for --with: expected one of .*; did you mean 'hubble'\?",
        ),
        (
            {"with_parts": ["hubble"], "without_parts": ["hubble"]},
            "'hubble' is requested and left out at once",
        ),
        (
            {"without_parts": ["istio"]},
            "'gateway' needs 'istio': istiod makes the Gateway's pods; add 'istio', or leave",
        ),
        ({"without_parts": ["metallb"]}, "'gateway' needs 'metallb'"),
        ({"with_parts": ["hubble"], "without_parts": ["cilium"]}, "'hubble' needs 'cilium'"),
        ({"istio": "newest"}, "invalid value 'newest' for --istio"),
        ({"istio": "1.19.3"}, r"--istio 1\.19\.3: minor 1\.19 has no pins"),
        ({"kubernetes": "1.29"}, r"invalid value '1\.29' for --kubernetes"),
        ({"workers": 0}, "--nodes 0: a cluster has 1 to 9 workers"),
        (
            {"lifetime_s": LIFETIME_MIN_S - 1},
            "lifetime 179 s: istiod dates certificates back by 120 s",
        ),
        ({"name": "My_Cluster"}, "--name 'My_Cluster': a cluster's name has small letters"),
        ({"name": "x" * 40}, "at most 40 characters"),
        (
            {"mirror": "https://registry.local"},
            "--mirror 'https://registry.local': give a registry",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(words: dict[str, Any], message: str) -> None:
    """Found, expected, what to do."""
    with pytest.raises(BadInput, match=message):
        _choose(**words)


def test_parts_that_need_others_are_parts() -> None:
    """A typing error in the table would never refuse anything."""
    assert all(part in PARTS and set(needed) <= set(PARTS) for part, needed in NEEDS.items())


def test_every_profile_can_be_chosen() -> None:
    """Each has what its parts need."""
    for profile in PROFILES:
        assert _choose(profile=profile).parts == frozenset(PROFILES[profile])


def test_names_are_ours() -> None:
    """The prefix distinguishes our clusters from others; it is not written twice."""
    assert _choose(name="two").name == "meshwake-two"
    assert _choose(name="meshwake-two").name == "meshwake-two"


def test_the_digest_names_every_field() -> None:
    """A cluster is used again only when nothing at all differs; the order of parts is nothing."""
    choice = _choose(profile="full")
    others: dict[str, Any] = {
        "name": "meshwake-other",
        "profile": "core",
        "parts": frozenset({"istio"}),
        "istio": "1.30.7",
        "kubernetes": "1.35.8",
        "workers": 3,
        "lifetime_s": 300,
        "mirror": "registry.local",
        "pins": "others",
    }
    assert set(others) == {entry.name for entry in dataclasses.fields(Choice)}
    digests = {
        dataclasses.replace(choice, **{name: value}).digest for name, value in others.items()
    }
    assert len(digests | {choice.digest}) == len(others) + 1
    assert _choose(profile="full", istio="1.30").digest == choice.digest
