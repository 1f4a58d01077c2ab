"""Real charts, kept outside the repository, made into objects by real helm with our values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.stack.pieces import Chart, Facts
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import stages
from meshwake.ztunnel.binaries import cache_dir
from packaging.version import Version

from tests.integration.stack.programs import program, run

FACTS = Facts(pool="172.18.255.204-172.18.255.253")
ISTIO_CHARTS = ("base", "istiod", "cni", "ztunnel")
# Where charts of Istio keep what can be set: laid below what a person sets (1.22 and 1.23:
# "defaults").
_BELOW = ("_internal_defaults_do_not_set", "defaults")
_REFUSED = "helm says: "
_Loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader  # definitions are long


@cache
def our_charts(istio: str) -> Mapping[str, Chart]:
    """Every chart of the profile "full" with this minor of Istio, by the chart's name."""
    choice = choose_stack(read_pins(), profile="full", istio=istio)
    pieces = [piece for stage in stages(choice, read_pins(), FACTS) for piece in stage.pieces]
    return {piece.chart: piece for piece in pieces if isinstance(piece, Chart)}


def chart_in_cache(piece: Chart) -> Path | None:
    """The folder of the chart: of exactly this version, else of the newest of the same minor."""
    wanted = Version(piece.version)
    same = [
        place
        for place in (cache_dir() / "charts" / piece.chart.rpartition("/")[2]).glob("*/")
        if (place / "Chart.yaml").is_file()
        and Version(place.name).release[:2] == wanted.release[:2]
    ]
    return max(
        same, key=lambda place: (Version(place.name) == wanted, Version(place.name)), default=None
    )


def chart_or_skip(piece: Chart) -> Path:
    """As `chart_in_cache`; skips the test when there is none (docs/stack.md says how one comes
    there)."""
    place = chart_in_cache(piece)
    if place is None:
        pytest.skip(
            f"needs the real chart in {cache_dir() / 'charts'}/NAME/VERSION/ (docs/stack.md "
            "says how)"
        )
    return place


def rendered(
    piece: Chart, kubernetes: str, values: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """What helm makes of the chart with `values`, ours if there are none. Helm checks them against
    the chart's own schema, where it has one; AssertionError with what helm printed when it
    refuses."""
    printed, made = helm_template(piece, kubernetes, piece.values if values is None else values)
    assert made is not None, printed
    return made


def helm_template(
    piece: Chart, kubernetes: str, values: Mapping[str, Any]
) -> tuple[str, list[dict[str, Any]] | None]:
    """What helm printed, and what it made; None when it refused."""
    text = _template(
        str(chart_or_skip(piece)), piece.release, piece.namespace, kubernetes, json.dumps(values)
    )
    return (text, None) if text.startswith(_REFUSED) else ("", deepcopy(_parsed(text)))


# The same text for most versions of Kubernetes.
@cache
def _parsed(text: str) -> list[dict[str, Any]]:
    return [thing for thing in yaml.load_all(text, Loader=_Loader) if thing]


@cache
def _template(folder: str, release: str, namespace: str, kubernetes: str, values: str) -> str:
    helm = program("helm", "make tools")
    made = run(
        *(helm, "template", release, folder, f"--namespace={namespace}", "--include-crds"),
        *(f"--kube-version={kubernetes}", "--values=-"),
        says=values,
    )
    return made.stdout if made.returncode == 0 else _REFUSED + made.stdout


def keys_of(values: Any, prefix: str = "") -> Iterator[str]:
    """The leaves of `values`, written with dots."""
    if not isinstance(values, Mapping):
        yield prefix.removesuffix(".")
        return
    for key, value in values.items():
        yield from keys_of(value, f"{prefix}{key}.")


def unknown_keys(piece: Chart) -> list[str]:
    """Keys of ours that the chart's values.yaml does not have. A table that is empty there is
    handed on as it is."""
    known = yaml.safe_load((chart_or_skip(piece) / "values.yaml").read_text(encoding="utf-8"))
    for below in _BELOW:
        known = {**known, **(known.get(below) or {})}
    return [key for key in keys_of(piece.values) if not _knows(known, key.split("."))]


def _knows(known: Any, path: list[str]) -> bool:
    for part in path:
        if known == {}:
            return True
        if not isinstance(known, Mapping) or part not in known:
            return False
        known = known[part]
    return True


def altered(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """`values` with another value at `key`."""
    first, _, rest = key.partition(".")
    return {**values, first: altered(values[first], rest) if rest else _another(values[first])}


def _another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, list):
        return value[:-1]
    return f"{value}1"
