"""Every object that the stack is made of, ours and those that real charts make with our values,
taken by a real API server: schemas, unknown fields, CEL rules of the definitions, the Gateway API's
admission policy.

What needs a chart or definitions that the cache lacks is left out by name; a profile of which
nothing was left to try is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from meshwake.cluster.stack.choice import Choice, choose_stack
from meshwake.cluster.stack.pieces import Chart, Objects, Piece, RemoteManifest, labelled
from meshwake.cluster.stack.pins import read_pins
from meshwake.cluster.stack.render import stages
from meshwake.kubernetes.labels import MANAGED_BY_LABEL, OUR_LABELS
from meshwake.ztunnel.binaries import cache_dir

from tests.integration.ground.api import FIELD_MANAGER, RealApi, Refused, documents, start_api
from tests.integration.ground.programs import control_plane_or_skip
from tests.integration.stack.charts import FACTS, chart_in_cache
from tests.integration.stack.charts import rendered as made_by_helm

# Their webhooks' pods never run here, so what they would decide about would be refused: they are
# only dry-run.
NOT_IN_FORCE = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
# An old minor, the default, and the newest: each has a Gateway API of its own.
CHOICES = [("core", "1.28"), ("full", "1.30"), ("full", "1.31")]


@pytest.fixture
def empty_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealApi]:
    """An API server of this test's own: definitions of different releases cannot be side by
    side."""
    api = start_api(control_plane_or_skip(), tmp_path_factory.mktemp("empty-api"))
    yield api
    api.end()


@pytest.mark.parametrize(("profile", "istio"), CHOICES)
def test_the_server_takes_every_object(
    empty_api: RealApi, profile: str, istio: str, record_property: Callable[[str, object], None]
) -> None:
    choice, pins = choose_stack(read_pins(), profile=profile, istio=istio), read_pins()
    ours, left_out = set(), []
    for stage in stages(choice, pins, FACTS):
        for piece in stage.pieces:
            things = things_of(piece, choice)
            if things is None:
                left_out.append(f"{stage.name}: {name_of(piece)}")
                continue
            for thing in things:
                put_in(empty_api, thing, "helm" if isinstance(piece, Chart) else FIELD_MANAGER)
            if isinstance(piece, Objects):
                ours |= {identity(thing) for thing in piece.objects}
    record_property("left out, for the cache has it not", ", ".join(left_out))
    assert ours
    assert ours <= empty_api.everything(f"{MANAGED_BY_LABEL}={OUR_LABELS[MANAGED_BY_LABEL]}")


def name_of(piece: Piece) -> str:
    return piece.release if isinstance(piece, Chart) else piece.name


def identity(thing: dict[str, Any]) -> str:
    return f"{thing['kind']} {thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"


def things_of(piece: Piece, choice: Choice) -> list[dict[str, Any]] | None:
    """The objects of a piece, in an order that a server can take; None when the cache lacks what
    they come from."""
    if isinstance(piece, Objects):
        return list(piece.objects)
    if isinstance(piece, RemoteManifest):
        release = piece.name.rpartition("-v")[2]
        place = cache_dir() / "crds" / "gateway-api" / release
        return [
            labelled(thing) for path in sorted(place.glob("*.yaml")) for thing in documents(path)
        ] or None
    return rendered(piece, choice)


def rendered(piece: Chart, choice: Choice) -> list[dict[str, Any]] | None:
    """What real helm makes of the chart with our values, definitions and namespace first."""
    if chart_in_cache(piece) is None:
        return None
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": piece.namespace}}
    made = [namespace, *made_by_helm(piece, choice.kubernetes)]
    first = {"CustomResourceDefinition": 0, "Namespace": 1}
    return sorted(made, key=lambda thing: first.get(thing["kind"], 2))


def put_in(api: RealApi, thing: dict[str, Any], manager: str = FIELD_MANAGER) -> None:
    """It must be taken. Another manager's apply takes nothing of ours away."""
    if thing["metadata"].get("namespace") == "":
        del thing["metadata"]["namespace"]
    if thing["kind"] in NOT_IN_FORCE:
        api.apply(thing, dry_run=True, manager=manager)
    else:
        api.apply_all([thing], manager=manager)


def test_older_definitions_of_the_gateway_api_are_refused(empty_api: RealApi) -> None:
    """Why a cluster keeps its Istio minor (clusters/stack.toml): the policy that comes with 1.5 and
    newer."""
    old, new = (cache_dir() / "crds" / "gateway-api" / release for release in ("1.4.1", "1.6.1"))
    if not (old.is_dir() and new.is_dir()):
        pytest.skip(f"needs the Gateway API's definitions in {old} and {new}")
    for path in sorted(new.glob("*.yaml")):
        for thing in documents(path):
            put_in(empty_api, thing)
    empty_api.await_refusal(documents(old / "gateway.networking.k8s.io_gateways.yaml")[0], "older")


@pytest.mark.parametrize("profile", ["core", "full"])
def test_a_field_that_is_spelt_wrong_would_be_seen(real_api: RealApi, profile: str) -> None:
    """The test above can fail: the demo's Deployment-like objects with one letter changed are
    refused."""
    choice, pins = choose_stack(read_pins(), profile=profile), read_pins()
    demo = next(stage for stage in stages(choice, pins, FACTS) if stage.name == "demo")
    (piece,) = (piece for piece in demo.pieces if isinstance(piece, Objects))
    thing = next(thing for thing in piece.objects if thing["kind"] == "DaemonSet")
    wrong = {**thing, "metadata": {**thing["metadata"], "namespace": "default"}}
    wrong["spec"] = {**thing["spec"], "templat": {}}
    with pytest.raises(Refused, match="templat"):
        real_api.apply(wrong, dry_run=True)
