"""clusters/stack.toml: which version of everything, and where it is fetched from. Nothing here
guesses: what has no pin is refused."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from packaging.version import Version
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from meshwake.cluster.stack.pieces import Chart
from meshwake.core.errors import BadInput
from meshwake.core.refusal import invalid_choice
from meshwake.core.resources import CLUSTERS
from meshwake.core.versions import parse_version

STACK_FILE = CLUSTERS / "stack.toml"


def _version(text: str) -> str:
    try:
        parse_version(text)
    except BadInput as error:
        raise ValueError(f"{text!r} is not a version") from error
    return text


_VersionText = Annotated[str, AfterValidator(_version)]
_Minor = Annotated[str, Field(pattern=r"^\d+\.\d+$")]
_Https = Annotated[str, Field(pattern=r"^https://[^\s/]+(/\S*)?$")]
_Oci = Annotated[str, Field(pattern=r"^oci://[^\s/]+/\S+$")]
# A registry is always named, so that a mirror can replace it; tag, digest, or both.
_Image = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9.-]+\.[a-z0-9.-]+(:\d+)?/[a-z0-9._/-]+:[\w.-]+(@sha256:[0-9a-f]{64})?$"
    ),
]
_NodeImage = Annotated[str, Field(pattern=r"^\S+/kindest/node:v[\d.]+@sha256:[0-9a-f]{64}$")]


class _Strict(BaseModel):
    # A version without quotes is a number to TOML, and is refused: 1.30 would be read as 1.3.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class KubernetesPin(_Strict):
    """One Kubernetes version: kind's image of a node, with digest, and the kind release that it was
    built for."""

    node_image: _NodeImage
    built_for: str


class IstioMinor(_Strict):
    """One minor of Istio. `supported`: the Kubernetes minors of Istio's own table."""

    version: _VersionText
    hub: Annotated[str, Field(pattern=r"^[a-z0-9.-]+\.[a-z0-9.-]+/[a-z0-9._/-]+$")]
    gateway_api: Annotated[str, Field(pattern=r"^v\d+\.\d+\.\d+$")]
    kubernetes: _VersionText
    supported: list[_Minor]


class IstioPins(_Strict):
    """All minors. `repo` and `oci` hold the charts of each."""

    default: _Minor
    repo: _Https
    oci: _Oci
    minor: dict[_Minor, IstioMinor]


class ChartPin(_Strict):
    """One chart: `repo` for helm's --repo, `oci` the same chart in a registry."""

    version: str
    repo: _Https
    oci: _Oci


class ToolVersions(_Strict):
    """The oldest versions that work."""

    kind: _VersionText
    helm: _VersionText


class Pins(_Strict):
    """The whole file. Keys are versions or names; every version that another key names is there."""

    tools: ToolVersions
    kubernetes: dict[_VersionText, KubernetesPin]
    istio: IstioPins
    manifests: dict[str, _Https]
    charts: dict[str, ChartPin]
    images: dict[str, _Image]

    @model_validator(mode="after")
    def _everything_named_is_there(self) -> Pins:
        if self.istio.default not in self.istio.minor:
            raise ValueError(f"istio.default: {self.istio.default} has no [istio.minor] table")
        # At the start of every command, and not when a cluster is half made.
        for minor, pin in self.istio.minor.items():
            if pin.kubernetes not in self.kubernetes:
                raise ValueError(
                    f"istio.minor.{minor}.kubernetes: {pin.kubernetes} has no [kubernetes] table"
                )
            if gateway_api_manifest(pin) not in self.manifests:
                raise ValueError(
                    f"istio.minor.{minor}.gateway_api: no [manifests] entry "
                    f"{gateway_api_manifest(pin)}"
                )
            if minor_of(pin.version) != minor:
                raise ValueError(
                    f"istio.minor.{minor}.version: {pin.version} belongs to another minor"
                )
        return self

    @property
    def sha256(self) -> str:
        """Names the contents: two files with this in common give the same clusters."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def istio_minor(self, version: str) -> IstioMinor:
        """The pins for an Istio release, of which only the minor need be known here. Raises
        BadInput."""
        if minor_of(version) not in self.istio.minor:
            known = ", ".join(sorted(self.istio.minor, key=Version))
            raise BadInput(
                f"--istio {version}: minor {minor_of(version)} has no pins in "
                f"{STACK_FILE.name}; has: {known}"
            )
        return self.istio.minor[minor_of(version)]

    def kubernetes_version(self, text: str) -> str:
        """The pinned version that `text` names: in full, or by its minor. Raises BadInput."""
        wanted = text.removeprefix("v")
        # The newest first, for a minor that has several.
        for version in sorted(self.kubernetes, key=Version, reverse=True):
            if wanted in {version, minor_of(version)}:
                return version
        raise invalid_choice("--kubernetes", text, sorted(self.kubernetes, key=Version))

    def outside_support(self, istio: str, kubernetes: str) -> str | None:
        """A sentence when Istio's own table does not have this pair; None when it has."""
        supported = self.istio_minor(istio).supported
        if minor_of(kubernetes) in supported:
            return None
        return (
            f"Istio {istio} on Kubernetes {kubernetes} is outside Istio's support table "
            f"({supported[0]} to {supported[-1]}); it may work, and is not supported"
        )


def pinned_chart(name: str, namespace: str, pins: Pins, values: dict[str, Any]) -> Chart:
    """The release of a chart that has a pin, called as the chart is."""
    pin = pins.charts[name]
    return Chart(name, namespace, name, pin.repo, pin.version, values)


def minor_of(version: str) -> str:
    """1.30 of 1.30.7. Raises BadInput for anything else."""
    release = parse_version(version).release
    major_and_minor = map(str, release[:2])
    return ".".join(major_and_minor)


def gateway_api_manifest(pin: IstioMinor) -> str:
    """The key in [manifests] of the Gateway API that goes with an Istio minor."""
    return f"gateway-api-{pin.gateway_api}"


@cache
def read_pins(path: Path = STACK_FILE) -> Pins:
    """The pins in `path`. Raises BadInput that names the key that is wrong."""
    try:
        return Pins.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise BadInput(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    # pydantic lists all; one typing error often causes several.
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")

    # A validator of the whole file has no place.
    if not place:
        return message
    return f"{place}: {message}"
