from __future__ import annotations

import re
from pathlib import Path

import pytest
from meshwake.cluster.stack.pins import STACK_FILE, gateway_api_manifest, minor_of, read_pins
from meshwake.core.errors import BadInput

TEXT = STACK_FILE.read_text(encoding="utf-8")


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "stack.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_minor_has_what_goes_with_it() -> None:
    """Each Istio minor from 1.22 on names a node image and a Gateway API manifest that are there,
    inside its table."""
    pins = read_pins()
    assert [f"1.{minor}" for minor in range(31, 21, -1)] == list(pins.istio.minor)
    for minor, pin in pins.istio.minor.items():
        assert pins.outside_support(minor, pin.kubernetes) is None
        assert pins.manifests[gateway_api_manifest(pin)].startswith(
            "https://github.com/kubernetes-sigs/gateway-api/"
        )


def test_node_images_carry_their_version_and_digest() -> None:
    """The table's name and the image's tag say the same, and the digest pins the build."""
    for version, pin in read_pins().kubernetes.items():
        assert f":v{version}@sha256:" in pin.node_image


def test_no_registry_that_closes() -> None:
    """istio#61467: gcr.io/istio-release, registry.istio.io and the old chart bucket go in December
    2026."""
    pins = read_pins()
    places = [
        pins.istio.repo,
        pins.istio.oci,
        *(pin.hub for pin in pins.istio.minor.values()),
        *pins.images.values(),
    ]
    assert not [
        place
        for place in places
        if re.search(r"gcr\.io/istio-release|registry\.istio\.io|googleapis", place)
    ]


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    [
        ('default = "1.30"', 'default = "1.40"', "istio.default: 1.40 has no"),
        ('kubernetes  = "1.33.7"', 'kubernetes  = "1.33.9"', "kubernetes: 1.33.9 has no"),
        (
            'gateway_api = "v1.5.1"',
            'gateway_api = "v1.5.0"',
            "gateway_api: no .manifests. entry gateway-api-v1.5.0",
        ),
        (
            'version     = "1.29.6"',
            'version     = "1.28.6"',
            "istio.minor.1.29.version: 1.28.6 belongs",
        ),
        ('kind    = "0.33.0"', 'kind    = "newest"', "tools.kind: 'newest' is not a version"),
        ('kind    = "0.33.0"', "kind    = 33", "tools.kind: Input should be a valid string"),
        ('helm    = "3.16.0"', 'hlem    = "3.16.0"', "tools.helm: Field required"),
        (
            '"docker.io/prom/alertmanager:v0.28.1"',
            '"prom/alertmanager:v0.28.1"',
            "images.alertmanager: ",
        ),
        (
            '"docker.io/prom/alertmanager:v0.28.1"',
            '"docker.io/prom/alertmanager"',
            "images.alertmanager: ",
        ),
        ("[tools]", "[tools", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, line: str, instead: str, named: str) -> None:
    """The message carries file and key; nothing wrong is read as something else."""
    assert line in TEXT
    path = _written(tmp_path, TEXT.replace(line, instead))
    with pytest.raises(BadInput, match=f"{re.escape(str(path))}: .*{named}"):
        read_pins(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """No traceback for it."""
    with pytest.raises(BadInput, match="cannot be read"):
        read_pins(tmp_path / "none.toml")


def test_a_version_without_a_node_image_is_refused_with_those_that_have_one() -> None:
    """Not guessed at; a minor is enough, and a v in front is forgiven."""
    pins = read_pins()
    assert pins.kubernetes_version("v1.36") == "1.36.4"
    with pytest.raises(
        BadInput,
        match=r"'1\.34\.1' for --kubernetes: expected one of 1\.30\.13, .* did you mean '1\.34\.11'\?",
    ):
        pins.kubernetes_version("1.34.1")


def test_a_minor_without_pins_is_refused() -> None:
    """1.21 had no profile for ambient."""
    with pytest.raises(
        BadInput, match=r"--istio 1\.21\.0: minor 1\.21 has no pins in stack\.toml; has: 1\.22, "
    ):
        read_pins().istio_minor("1.21.0")


def test_what_is_outside_the_support_table_is_reported() -> None:
    """It is allowed, and reported."""
    message = read_pins().outside_support("1.22.8", "1.37.0")
    assert message is not None and message.startswith(
        "Istio 1.22.8 on Kubernetes 1.37.0 is outside Istio's support table"
    )


@pytest.mark.parametrize(
    ("version", "minor"), [("1.30.7", "1.30"), ("1.31.0-rc.0", "1.31"), ("1.30", "1.30")]
)
def test_minor_of(version: str, minor: str) -> None:
    """Pre-releases belong to the minor they lead to."""
    assert minor_of(version) == minor


def test_the_digest_of_pins_follows_their_contents(tmp_path: Path) -> None:
    """A comment changes nothing, a version does."""
    commented = read_pins(_written(tmp_path, TEXT + "\n# nothing\n"))
    assert commented.sha256 == read_pins().sha256
    changed = tmp_path / "other.toml"
    changed.write_text(TEXT.replace("pebble:2.10.1", "pebble:2.10.0"), encoding="utf-8")
    assert read_pins(changed).sha256 != read_pins().sha256
