"""One registry in the place of all others, for machines that reach no other.

An image keeps its path, tag and digest and changes its host: quay.io/cilium/cilium:v1 becomes
MIRROR/cilium/cilium:v1. Charts are then taken from the same registry, where their artefacts lie
under the paths that their projects give them (`oci` in clusters/stack.toml). What is neither an
image nor a chart is not in registries: manifests keep their address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshwake.cluster.stack.pieces import Chart, Objects, Piece, Stage
from meshwake.cluster.stack.pins import Pins
from meshwake.core.errors import HarnessFault

OCI = "oci://"
# What is so called is built here, and in no registry (own_images.py).
_BUILT_HERE = "localhost/"
# What names a registry, or an image with its registry, in values and in objects. One of another
# kind than these would be passed by, so a test looks for any registry that is left.
_IMAGE_KEYS = frozenset({"hub", "image", "imageRegistry", "override", "repository"})

# Charts whose values name no image, and which have one key for the registry of all.
_REGISTRY_KEYS: Mapping[str, str] = {"cert-manager": "imageRegistry"}


def through_mirror(reference: str, mirror: str | None) -> str:
    """`reference`, an image, or a part of one that begins with a registry, as `mirror` names it."""
    if mirror is None or is_built_here(reference):
        return reference
    _, _, path = reference.partition("/")
    if not path:
        # A registry alone, as a chart's `hub` may be.
        return mirror
    return f"{mirror}/{path}"


def is_built_here(reference: str) -> bool:
    """Whether an image can be had from no registry at all."""
    return reference.startswith(_BUILT_HERE)


def is_registry(host: str) -> bool:
    """Whether the first part of a reference is a registry: by the rule of Docker's references it
    has a dot or a port, or is localhost."""
    if host == "localhost":
        return True
    return "." in host or ":" in host


def mirrored_stage(stage: Stage, mirror: str | None, pins: Pins) -> Stage:
    """`stage` with everything that is pulled from a registry pulled from `mirror`."""
    if mirror is None:
        return stage
    pieces = [_piece(piece, mirror, pins) for piece in stage.pieces]
    return replace(stage, pieces=tuple(pieces))


def _piece(piece: Piece, mirror: str, pins: Pins) -> Piece:
    if isinstance(piece, Objects):
        objects = [_renamed(thing, mirror) for thing in piece.objects]
        return replace(piece, objects=tuple(objects))
    if not isinstance(piece, Chart):
        return piece

    address = chart_address(piece, pins).removeprefix(OCI)
    values = _renamed(piece.values, mirror)

    # Most charts name each image in their values; these name only a registry, by this key.
    registry_key = _REGISTRY_KEYS.get(piece.chart)
    if registry_key is not None:
        values[registry_key] = mirror
    return replace(piece, chart=OCI + through_mirror(address, mirror), repo=None, values=values)


def chart_address(piece: Chart, pins: Pins) -> str:
    """The oci:// address of a chart."""
    if piece.repo == pins.istio.repo:
        return f"{pins.istio.oci}/{piece.chart}"
    if piece.chart not in pins.charts:
        raise HarnessFault(f"chart {piece.chart} has no pin, so where a mirror keeps it is unknown")
    return pins.charts[piece.chart].oci


def _renamed(value: Any, mirror: str) -> Any:
    if isinstance(value, list):
        return [_renamed(entry, mirror) for entry in value]
    if not isinstance(value, Mapping):
        return value

    renamed = {}
    for key, entry in value.items():
        # The repository of an image may also be given without its registry.
        if key in _IMAGE_KEYS and isinstance(entry, str) and _has_registry(entry):
            renamed[key] = through_mirror(entry, mirror)
        else:
            renamed[key] = _renamed(entry, mirror)
    return renamed


def _has_registry(reference: str) -> bool:
    """Whether it begins with a host; the name of an image alone does not."""
    host = reference.partition("/")[0]
    return is_registry(host)
