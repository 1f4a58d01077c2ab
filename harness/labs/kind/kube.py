"""Kubernetes, as far as bringing a cluster up needs it: objects read, applied on the server's side, waited for.

`Kube` is the promise; `ClientKube` keeps it through kr8s' transport (kubeconfigs with all their ways to authenticate).
It differs from `kubernetes.Kubernetes`, which is what a run asks of a whole cluster: here the API server may not be up
yet, kinds appear while one looks, and a refusal may be gone in a second. So discovery is never kept for a kind that is
unknown, and an error carries its HTTP status. All waiting is done by whoever asks; every request has a bound.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx
import kr8s
from kr8s import asyncio as kr8s_async

from harness.errors import HarnessFault, LabUnavailable
from harness.stack.pieces import Condition, identity_of

ANSWER_WITHIN_S = 30
FIELD_MANAGER = "meshwake"
# Where a kind lives when only its name is known, as in a Condition; "Gateway" is also Istio's word for something else.
API_VERSIONS = {
    "APIService": "apiregistration.k8s.io/v1",
    "Certificate": "cert-manager.io/v1",
    "ClusterIssuer": "cert-manager.io/v1",
    "ConfigMap": "v1",
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Event": "v1",
    "Gateway": "gateway.networking.k8s.io/v1",
    "GatewayClass": "gateway.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "IPAddressPool": "metallb.io/v1beta1",
    "Issuer": "cert-manager.io/v1",
    "Job": "batch/v1",
    "L2Advertisement": "metallb.io/v1beta1",
    "Namespace": "v1",
    "Node": "v1",
    "Pod": "v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "StatefulSet": "apps/v1",
}


class KubeRefused(LabUnavailable):
    """The API server could not be reached (`status` None), or answered with an error."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


class Kube(Protocol):
    """A cluster's API. Everything raises KubeRefused when it does not answer, or refuses."""

    def ready(self) -> bool:
        """Whether the API server says that it is ready; False too when it cannot be reached."""

    def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The object, or None when there is none, or no such kind yet."""

    def all(self, kind: str, namespace: str | None = None, labels: str = "") -> list[dict[str, Any]]:
        """All objects of `kind`, in one namespace or in all, that a label selector chooses."""

    def apply(self, thing: Mapping[str, Any]) -> None:
        """Applies an object on the server's side; what others set in it stays."""

    def fetch(self, path: str) -> str:
        """The answer to GET `path` of the API server, also through its proxy to pods and services."""

    def close(self) -> None:
        """Closes the connections."""


class ClientKube:
    """`Kube` through kr8s. One thread; not to be used inside a running event loop."""

    def __init__(self, kubeconfig: Path, context: str | None = None) -> None:
        self._kubeconfig, self._context = kubeconfig, context
        self._runner = asyncio.Runner()
        self._api: Any = None
        self._resources: dict[str, dict[str, dict[str, Any]]] = {}

    def close(self) -> None:
        """As `Kube.close` promises."""
        session = getattr(self._api, "_session", None)
        if session is not None:
            self._runner.run(session.aclose())
        self._runner.close()

    def ready(self) -> bool:
        """As `Kube.ready` promises."""
        try:
            return self.fetch("/readyz").strip() == "ok"
        except KubeRefused:
            return False

    def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """As `Kube.get` promises."""
        try:
            found: dict[str, Any] = json.loads(self.fetch(self._path(api_version_of(kind), kind, namespace, name)))
        except KubeRefused as error:
            if error.status == httpx.codes.NOT_FOUND:
                return None
            raise
        return found

    def all(self, kind: str, namespace: str | None = None, labels: str = "") -> list[dict[str, Any]]:
        """As `Kube.all` promises."""
        try:
            path = self._path(api_version_of(kind), kind, namespace, "")
            answer = json.loads(self._call("GET", path, params={"labelSelector": labels} if labels else {}))
        except KubeRefused as error:
            if error.status == httpx.codes.NOT_FOUND:
                return []
            raise
        return [{"kind": kind, "apiVersion": api_version_of(kind), **item} for item in answer.get("items") or []]

    def apply(self, thing: Mapping[str, Any]) -> None:
        """As `Kube.apply` promises."""
        metadata = thing["metadata"]
        path = self._path(thing["apiVersion"], thing["kind"], metadata.get("namespace"), metadata["name"])
        try:
            self._call(
                "PATCH",
                path,
                params={"fieldManager": FIELD_MANAGER, "force": "true"},
                headers={"content-type": "application/apply-patch+yaml"},
                content=json.dumps(thing),
            )
        except KubeRefused as error:
            raise KubeRefused(f"{identity_of(thing)} was refused: {error}", error.status) from error

    def fetch(self, path: str) -> str:
        """As `Kube.fetch` promises."""
        return self._call("GET", path)

    def _path(self, api_version: str, kind: str, namespace: str | None, name: str) -> str:
        base = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        resource = self._resource(base, kind)
        if not resource["namespaced"]:
            return f"{base}/{resource['name']}/{name}".rstrip("/")
        inside = f"/namespaces/{namespace or 'default'}" if namespace or name else ""
        return f"{base}{inside}/{resource['name']}/{name}".rstrip("/")

    def _resource(self, base: str, kind: str) -> dict[str, Any]:
        """Asked anew as long as the kind is unknown: its definition may have been applied a moment ago."""
        if kind not in self._resources.get(base, {}):
            self._resources[base] = self._served(base)
        if kind not in self._resources[base]:
            raise KubeRefused(f"{base} knows no {kind} (yet)", httpx.codes.NOT_FOUND)
        return self._resources[base][kind]

    def _served(self, base: str) -> dict[str, dict[str, Any]]:
        try:
            answer = json.loads(self._call("GET", base))
        except KubeRefused as error:
            if error.status == httpx.codes.NOT_FOUND:  # nobody has defined anything of this group
                return {}
            raise
        return {entry["kind"]: entry for entry in answer["resources"] if "/" not in entry["name"]}

    def _call(self, method: str, path: str, **kwargs: Any) -> str:
        return str(self._run(self._request(method, path, **kwargs), f"{method} {path}"))

    async def _request(self, method: str, path: str, **kwargs: Any) -> str:
        api = await self._connected()
        base, _, last = path.rpartition("/")
        # kr8s puts a slash between the two: of "/" and "readyz" it would make a host's name of the latter.
        base = base or str(api.auth.server).rstrip("/")
        async with api.call_api(method, version="", base=base, url=last, **kwargs) as answer:
            return str(answer.text)

    async def _connected(self) -> Any:
        if self._api is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # kr8s warns of Kubernetes versions newer than itself
                self._api = await kr8s_async.api(kubeconfig=str(self._kubeconfig), context=self._context)
            self._api.timeout = ANSWER_WITHIN_S
        return self._api

    def _run(self, work: Any, title: str) -> Any:
        try:
            return self._runner.run(asyncio.wait_for(work, ANSWER_WITHIN_S))
        except kr8s.ServerError as error:
            status = error.response.status_code if error.response is not None else None
            raise KubeRefused(f"{title}: {_reason(error)}", status) from error
        except (TimeoutError, kr8s.APITimeoutError) as error:
            raise KubeRefused(f"{title}: no answer within {ANSWER_WITHIN_S} s", None) from error
        except (httpx.HTTPError, OSError, ssl.SSLError, ValueError) as error:
            raise KubeRefused(f"{title}: {type(error).__name__}: {error}", None) from error


def _reason(error: kr8s.ServerError) -> str:
    """The API server's own sentence; kr8s gives it for 4xx only."""
    try:
        said = error.response.json() if error.response is not None else {}
        return str(said.get("message") or error)
    except (ValueError, AttributeError):
        return str(error)


def api_version_of(kind: str) -> str:
    """Where `kind` lives. HarnessFault for a kind that `API_VERSIONS` does not know."""
    if kind not in API_VERSIONS:
        raise HarnessFault(f"{kind}: harness/labs/kind/kube.py does not know where this kind lives")
    return API_VERSIONS[kind]


def unmet(kube: Kube, condition: Condition) -> str | None:
    """None when `condition` holds now; else what was seen instead. A server that does not answer was seen too."""
    try:
        if condition.name == "*":
            found: list[dict[str, Any] | None] = [*kube.all(condition.kind, condition.namespace)] or [None]
        else:
            found = [kube.get(condition.kind, condition.namespace, condition.name)]
    except KubeRefused as error:
        return str(error)
    seen = [said for thing in found if (said := _unmet_by(thing, condition.what)) is not None]
    return "; ".join(seen) if seen else None


def _unmet_by(thing: Mapping[str, Any] | None, what: str) -> str | None:
    if thing is None:
        return "there is none"
    who, status = identity_of(thing), thing.get("status") or {}
    if what == "exists":
        return None
    if what == "rolled out":
        said = _not_rolled_out(thing, status)
    elif what == "address":
        ingress = (status.get("loadBalancer") or {}).get("ingress")
        said = None if status.get("addresses") or ingress else "no address yet"
    elif what.startswith("condition="):
        said = _not_in_condition(thing, status, what.removeprefix("condition="))
    else:
        raise HarnessFault(f"{who}: nobody knows how to wait for {what!r}")
    return None if said is None else f"{who}: {said}"


def _not_in_condition(thing: Mapping[str, Any], status: Mapping[str, Any], name: str) -> str | None:
    generation = thing["metadata"].get("generation", 0)
    for condition in status.get("conditions") or []:
        if condition["type"] == name:
            if condition.get("observedGeneration", generation) < generation:
                return f"{name} was said of an older generation"
            if condition["status"] == "True":
                return None
            why = f"{condition.get('reason', '')} {condition.get('message', '')}".strip()
            return f"{name} is {condition['status']}: {why}"
    return f"{name} not said yet"


def _not_rolled_out(thing: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    if status.get("observedGeneration", 0) < thing["metadata"].get("generation", 0):
        return "not seen by its controller yet"
    if thing["kind"] == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        have = min(status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0))
        return None if 0 < wanted <= have else f"{have} of {wanted} pods available"
    wanted = (thing.get("spec") or {}).get("replicas", 1)
    have = min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0))
    leftover = status.get("replicas", 0) - wanted
    if have >= wanted and leftover <= 0:
        return None
    return f"{have} of {wanted} pods available" + (f", {leftover} old ones left" if leftover > 0 else "")
