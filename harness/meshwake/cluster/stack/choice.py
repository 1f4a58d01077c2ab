"""What a person chose: parts, versions, number of machines. A choice has nothing left open and can
be compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from meshwake.cluster.stack.pins import Pins, minor_of
from meshwake.core.errors import BadInput
from meshwake.core.refusal import invalid_choice

PARTS: tuple[str, ...] = (
    "cilium",
    "hubble",
    "metallb",
    "istio",
    "gateway",
    "waypoint",
    "cert-manager",
    "observability",
)
PROFILES: dict[str, tuple[str, ...]] = {
    "core": ("cilium", "metallb", "istio", "gateway", "waypoint"),
    "full": PARTS,
}
# What a part is of no use without, and why.
NEEDS: dict[str, dict[str, str]] = {
    "hubble": {"cilium": "it is a part of Cilium"},
    "gateway": {
        "istio": "istiod makes the Gateway's pods",
        "metallb": "nothing else would give the Gateway an address",
    },
    "waypoint": {"istio": "istiod makes the waypoint's pods"},
}
# kind appends "-control-plane" and "-worker9": a host name, which the container gets, is at most 63
# characters long.
NAME_PREFIX, NAME_AT_MOST = "meshwake-", 40
WORKERS_MAX = 9
# istiod dates certificates back by 2 min (istio security/pkg/pki/util/generate_cert.go): a shorter
# life than that would have its half behind it when it is issued. It signs nothing longer than
# MAX_WORKLOAD_CERT_TTL, 90 days.
LIFETIME_MIN_S, LIFETIME_MAX_S = 180, 90 * 24 * 3600
# kind makes host names of NAME and "-control-plane" of it, and a host name has at most 63
# characters.
_NAME = re.compile(r"meshwake-[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class Choice:
    """A cluster as it was requested. `istio` and `kubernetes` are full versions; `lifetime_s` is
    that of workload certificates, from issue to expiry; `mirror` replaces every registry; `pins`
    names clusters/stack.toml as it was.
    """

    name: str
    profile: str
    parts: frozenset[str]
    istio: str
    kubernetes: str
    workers: int
    lifetime_s: int
    mirror: str | None
    pins: str = ""

    @property
    def digest(self) -> str:
        """Names the whole choice: a cluster made of an equal one can be used again."""
        content = json.dumps({**asdict(self), "parts": sorted(self.parts)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def choose_stack(
    pins: Pins,
    *,
    profile: str = "core",
    istio: str | None = None,
    kubernetes: str | None = None,
    workers: int = 2,
    name: str | None = None,
    with_parts: Iterable[str] = (),
    without_parts: Iterable[str] = (),
    lifetime_s: int = 600,
    mirror: str | None = None,
) -> Choice:
    """The choice that these words make. `istio` and `kubernetes` may be minors. Raises BadInput
    with what to write."""
    parts = _parts(profile, tuple(with_parts), tuple(without_parts))
    version = _istio(pins, istio)
    if not 1 <= workers <= WORKERS_MAX:
        raise BadInput(f"--nodes {workers}: a cluster has 1 to {WORKERS_MAX} workers")
    if not LIFETIME_MIN_S <= lifetime_s <= LIFETIME_MAX_S:
        raise BadInput(
            f"lifetime {lifetime_s} s: istiod dates certificates back by 120 s and signs "
            "none over 90 days; "
            f"give {LIFETIME_MIN_S} to {LIFETIME_MAX_S} s"
        )
    wanted = pins.istio_minor(version).kubernetes if kubernetes is None else kubernetes
    return Choice(
        name=full_name(name or f"{profile}-{version.replace('.', '-')}"),
        profile=profile,
        parts=parts,
        istio=version,
        kubernetes=pins.kubernetes_version(wanted),
        workers=workers,
        lifetime_s=lifetime_s,
        mirror=_mirror(mirror),
        # Part of the digest: other images make another cluster.
        pins=pins.sha256,
    )


def _istio(pins: Pins, wanted: str | None) -> str:
    version = pins.istio.default if wanted is None else wanted
    pin = pins.istio_minor(version)

    # A minor means its pinned release; a release in full is taken as it is, also one without a pin.
    if version == minor_of(version):
        return pin.version
    return version


def _parts(profile: str, added: tuple[str, ...], removed: tuple[str, ...]) -> frozenset[str]:
    if profile not in PROFILES:
        raise invalid_choice("--profile", profile, sorted(PROFILES))
    _check_known("--with", added)
    _check_known("--without", removed)
    both = sorted(set(added) & set(removed))
    if both:
        raise BadInput(f"{both[0]!r} is requested and left out at once; give one of the two")

    parts = frozenset(PROFILES[profile]) | set(added)
    parts -= set(removed)
    for part in PARTS:
        _check_needs(part, parts)
    return parts


def _check_known(option: str, named: tuple[str, ...]) -> None:
    for part in named:
        if part not in PARTS:
            raise invalid_choice(option, part, PARTS)


def _check_needs(part: str, parts: frozenset[str]) -> None:
    if part not in parts:
        return
    for needed, why in NEEDS.get(part, {}).items():
        if needed not in parts:
            raise BadInput(
                f"{part!r} needs {needed!r}: {why}; add {needed!r}, or leave out {part!r} as well"
            )


def full_name(text: str) -> str:
    """The name of a cluster of ours, with its prefix whether or not `text` has it. Raises
    BadInput."""
    name = text if text.startswith(NAME_PREFIX) else NAME_PREFIX + text
    if not is_our_name(name):
        raise BadInput(
            f"--name {text!r}: a cluster's name has small letters, digits and '-', and at "
            f"most {NAME_AT_MOST} "
            f"characters with its prefix {NAME_PREFIX!r}; only clusters so named are ever "
            "created or deleted"
        )
    return name


def is_our_name(name: str) -> bool:
    """Whether it can be the name of a cluster of ours."""
    return _NAME.fullmatch(name) is not None and len(name) <= NAME_AT_MOST


def _mirror(text: str | None) -> str | None:
    if text is None:
        return None
    mirror = text.rstrip("/")
    if "://" in mirror or not re.match(r"^[A-Za-z0-9.-]+(:\d+)?(/[a-z0-9._/-]+)?$", mirror):
        raise BadInput(
            f"--mirror {text!r}: give a registry as images name it, without https://: "
            "host[:port][/path]"
        )
    return mirror
