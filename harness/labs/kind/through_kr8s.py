"""`Kubernetes` kept by kr8s: its asyncio side on a thread of our own, so that every call can be given up in time.

kr8s' own synchronous calls wait without a bound (exec waits for ever for a pod to be ready), and mark a pod forward by
a port that must stay open; here each call is one coroutine under one deadline. The deadlines run on the monotonic
clock of the machine that the harness is on.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx_ws
import kr8s
from kr8s.asyncio import api as connect
from kr8s.asyncio.objects import Pod as PodObject

from harness.errors import LabUnavailable, SubjectFailed
from harness.labs.kind.kubernetes import OUR_LABELS, Executed, Pod, Unreachable

CALL_WITHIN_S = 15.0
FIELD_MANAGER = "meshwake"
_Answer = TypeVar("_Answer")
_LOST = (OSError, TimeoutError, httpx.HTTPError, httpx_ws.HTTPXWSException, kr8s.APITimeoutError)

# What kr8s raises for a file that is empty, or no kubeconfig.
_NO_KUBECONFIG = (ValueError, KeyError, TypeError, AttributeError)


def _first_of(group: BaseException) -> BaseException:
    return _first_of(group.exceptions[0]) if isinstance(group, BaseExceptionGroup) else group


class ThroughKr8s:
    """See kubernetes.Kubernetes. Raises LabUnavailable when the kubeconfig leads nowhere."""

    def __init__(self, kubeconfig: Path, context: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        # What a port forward's own tasks meet when a connection breaks is told by the call that waits for them; asyncio
        # would print it a second time, with a traceback.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread = threading.Thread(target=self._loop.run_forever, name="kubernetes", daemon=True)
        self._thread.start()
        self._api: Any = None
        try:
            self._api = self._call(self._connect(kubeconfig, context), CALL_WITHIN_S, "connect")
        except (Unreachable, kr8s.ServerError, kr8s.ConnectionClosedError, *_NO_KUBECONFIG) as error:
            self.close()
            raise LabUnavailable(
                f"{kubeconfig}: the cluster of context {context or '(current)'} does not answer ({error}); "
                "try: kubectl --kubeconfig FILE get nodes"
            ) from error

    async def _connect(self, kubeconfig: Path, context: str | None) -> Any:
        api = await connect(kubeconfig=str(kubeconfig), context=context)
        try:
            await api.async_version()
        except BaseException:
            await _hang_up(api)
            raise
        return api

    def close(self) -> None:
        """See Kubernetes."""
        with suppress(Unreachable):
            self._call(_hang_up(self._api), CALL_WITHIN_S, "close")
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=CALL_WITHIN_S)
        if not self._loop.is_running():
            self._loop.close()

    def _call(self, work: Coroutine[Any, Any, _Answer], within_s: float, what: str) -> _Answer:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, within_s), self._loop)
        try:
            return future.result(within_s + 1.0)
        except TimeoutError as error:
            future.cancel()
            raise Unreachable(f"{what}: no answer within {within_s:.0f} s") from error
        except _LOST as error:
            raise Unreachable(f"{what}: {type(error).__name__}: {error}") from error
        except ExceptionGroup as group:  # of a port forward, whose tasks end together
            lost, others = group.split((*_LOST, kr8s.ConnectionClosedError))
            if lost is None or others is not None:
                raise
            raise Unreachable(f"{what}: {_first_of(lost)!r}") from group
        except kr8s.ServerError as error:
            if error.response is not None and error.response.status_code >= 500:
                raise Unreachable(f"{what}: {error}") from error
            raise

    async def _request(self, method: str, url: str, version: str = "v1", **about: Any) -> httpx.Response:
        namespace = about.pop("namespace", None)
        async with self._api.call_api(method, version=version, url=url, namespace=namespace, **about) as response:
            answer: httpx.Response = response
            return answer

    # Reading

    def pods(self, namespace: str, labels: Mapping[str, str]) -> list[Pod]:
        """See Kubernetes."""
        query = {"labelSelector": _selector(labels)}
        answer = self._call(self._request("GET", "pods", namespace=namespace, params=query), CALL_WITHIN_S, "list pods")
        items = [item for item in answer.json()["items"] if "deletionTimestamp" not in item["metadata"]]
        return sorted((_pod(item) for item in items), key=lambda pod: pod.name)

    def read(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """See Kubernetes."""
        try:
            answer = self._call(self._on(kind, namespace, name, "GET"), CALL_WITHIN_S, f"read {kind} {name}")
        except kr8s.ServerError as error:
            if error.response is not None and error.response.status_code == 404:
                return None
            raise
        except ValueError:  # kr8s knows no such kind: nobody installed its definition
            return None
        return dict(answer.json())

    def ours(self, kind: str, labels: Mapping[str, str]) -> list[tuple[str | None, str]]:
        """See Kubernetes."""
        query = {"labelSelector": _selector({**OUR_LABELS, **labels})}
        try:
            answer = self._call(self._on(kind, None, "", "GET", params=query), CALL_WITHIN_S, f"list {kind}")
        except ValueError:
            return []
        found = [item["metadata"] for item in answer.json()["items"]]
        return sorted(((each.get("namespace"), each["name"]) for each in found), key=str)

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        """See Kubernetes."""
        query = {"container": container, "sinceSeconds": str(max(since_s, 1)), "limitBytes": "1000000"}
        work = self._request("GET", f"pods/{pod.name}/log", namespace=pod.namespace, params=query)
        return self._call_about_pod(work, CALL_WITHIN_S, f"log of {pod}").text.splitlines()

    # Within pods

    def execute(self, pod: Pod, container: str, command: Sequence[str], within_s: float) -> Executed:
        """See Kubernetes."""
        return self._call_about_pod(self._execute(pod, container, command), within_s, f"exec in {pod}")

    async def _execute(self, pod: Pod, container: str, command: Sequence[str]) -> Executed:
        thing = await PodObject.get(pod.name, namespace=pod.namespace, api=self._api)
        ended = await thing.async_exec(list(command), container=container, check=False)
        return Executed(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        """See Kubernetes."""
        return self._call_about_pod(self._get(pod, port, path, within_s), within_s, f"GET {pod}:{port}{path}")

    async def _get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        thing = await PodObject.get(pod.name, namespace=pod.namespace, api=self._api)
        async with (
            thing.portforward(port, local_port="auto") as local_port,
            httpx.AsyncClient(trust_env=False, timeout=within_s) as client,
        ):
            answer = await client.get(f"http://127.0.0.1:{local_port}{path}", headers={"connection": "close"})
            answer.raise_for_status()
            return answer.content

    def get_from_service(self, namespace: str, service: str, port: int, path: str, within_s: float) -> bytes:
        """See Kubernetes."""
        work = self._request("GET", f"services/{service}:{port}/proxy{path}", namespace=namespace)
        return self._call_about_pod(work, within_s, f"GET service {namespace}/{service}:{port}{path}").content

    def _call_about_pod(self, work: Coroutine[Any, Any, _Answer], within_s: float, what: str) -> _Answer:
        """A pod that has just gone, or is not ready, is as much out of reach as a kubelet that does not answer."""
        try:
            return self._call(work, within_s, what)
        except (kr8s.ServerError, kr8s.NotFoundError, kr8s.ExecError, kr8s.ConnectionClosedError) as error:
            raise Unreachable(f"{what}: {error}") from error

    # Changing

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """See Kubernetes."""
        for thing in objects:
            metadata = thing["metadata"]
            if not OUR_LABELS.items() <= metadata.get("labels", {}).items():
                raise SubjectFailed(f"{thing['kind']} {metadata['name']} lacks our label and is not applied")
            query = {"fieldManager": FIELD_MANAGER, "force": "true"}
            self._change(thing["kind"], thing["apiVersion"], metadata, thing, query, "application/apply-patch+yaml")

    def patch(self, kind: str, namespace: str, name: str, patch: Mapping[str, Any]) -> None:
        """See Kubernetes."""
        place = {"namespace": namespace, "name": name}
        query = {"fieldManager": FIELD_MANAGER}
        self._change(kind, "", place, patch, query, "application/strategic-merge-patch+json")

    def _change(
        self,
        kind: str,
        api_version: str,
        place: Mapping[str, Any],
        body: Mapping[str, Any],
        query: Mapping[str, str],
        content_type: str,
    ) -> None:
        group, _, _ = api_version.rpartition("/")
        full_kind = f"{kind}.{api_version.partition('/')[0]}" if group else kind
        work = self._on(
            full_kind,
            place.get("namespace"),
            place["name"],
            "PATCH",
            params=dict(query),
            content=json.dumps(body),
            headers={"Content-Type": content_type},
        )
        what = f"apply {kind} {place['name']}"
        try:
            self._call(work, CALL_WITHIN_S, what)
        except (kr8s.ServerError, ValueError) as error:
            raise SubjectFailed(f"{what}: the API server refused: {error}") from error

    def replace(self, thing: Mapping[str, Any]) -> bool:
        """See Kubernetes."""
        metadata, (group, _, _) = thing["metadata"], thing["apiVersion"].rpartition("/")
        kind = f"{thing['kind']}.{group}" if group else thing["kind"]
        name, method = (metadata["name"], "PUT") if "resourceVersion" in metadata else ("", "POST")
        body = {"content": json.dumps(thing), "headers": {"Content-Type": "application/json"}}
        what = f"{method} {kind} {metadata['name']}"
        try:
            self._call(self._on(kind, metadata.get("namespace"), name, method, **body), CALL_WITHIN_S, what)
        except kr8s.ServerError as error:
            status = error.response.status_code if error.response is not None else None
            # 404: what was to be replaced has gone meanwhile.
            if status == 409 or (status == 404 and method == "PUT"):
                return False
            raise SubjectFailed(f"{what}: the API server refused: {error}") from error
        return True

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        """See Kubernetes."""
        found = self.read(kind, namespace, name)
        if found is None or not OUR_LABELS.items() <= (found["metadata"].get("labels") or {}).items():
            return False
        # The uid makes sure that it is still the object whose label was looked at.
        body = {"propagationPolicy": "Background", "preconditions": {"uid": found["metadata"]["uid"]}}
        return self._delete(kind, namespace, name, body)

    def end_pod(self, pod: Pod) -> None:
        """See Kubernetes."""
        self._delete("Pod", pod.namespace, pod.name, {"preconditions": {"uid": pod.uid}})

    def _delete(self, kind: str, namespace: str | None, name: str, body: Mapping[str, Any]) -> bool:
        work = self._on(kind, namespace, name, "DELETE", content=json.dumps({"kind": "DeleteOptions", **body}))
        try:
            self._call(work, CALL_WITHIN_S, f"delete {kind} {name}")
        except kr8s.ServerError as error:
            if error.response is not None and error.response.status_code in {404, 409}:
                return False
            raise SubjectFailed(f"delete {kind} {name}: the API server refused: {error}") from error
        return True

    async def _on(self, kind: str, namespace: str | None, name: str, method: str, **about: Any) -> httpx.Response:
        """One request about an object, or all of a kind (name ""), wherever discovery says this kind lives."""
        # "daemonset.apps/v1", or "pod/v1" for what has no group.
        found, plural, namespaced = await self._api.async_lookup_kind(kind)
        singular, _, short_version = found.partition("/")
        group = singular.partition(".")[2]
        version = f"{group}/{short_version}" if group else short_version
        place = {"namespace": namespace} if namespaced and namespace else {}
        return await self._request(method, f"{plural}/{name}" if name else plural, version, **place, **about)


async def _hang_up(api: Any) -> None:
    """Closes the connections that kr8s keeps; it has no word for it."""
    session = getattr(api, "_session", None)
    if session is not None:
        await session.aclose()


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _pod(item: Mapping[str, Any]) -> Pod:
    metadata, status = item["metadata"], item.get("status", {})
    containers = status.get("containerStatuses") or [{}]
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", []))
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        node=item["spec"].get("nodeName", ""),
        ready=ready,
        labels=metadata.get("labels", {}),
        restarts=containers[0].get("restartCount", 0),
        address=status.get("podIP", ""),
    )
