"""`Kubernetes` kept by kr8s: its asyncio side on a thread of our own, so that every call can be
given up in time.

kr8s brings kubeconfigs with all their ways to authenticate, and exec. Its own synchronous calls
wait without a bound (exec waits for ever for a pod to be ready); here each call is one coroutine
under one deadline, on the monotonic clock of the machine that the harness is on. What kinds a
server has is requested again as long as one is unknown: its definition may have been applied a
moment ago.
"""

from __future__ import annotations

import asyncio
import errno
import json
import tempfile
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import httpx_ws
import kr8s
from kr8s.asyncio import api as connect_kr8s
from kr8s.asyncio.objects import Pod as PodObject

from meshwake.core.errors import BadInput, HarnessFault
from meshwake.core.json_types import JsonObject, int_at, object_at, objects_at, text_at, texts_at
from meshwake.kubernetes import ported
from meshwake.kubernetes.api import (
    Conversation,
    Executed,
    LocalFailure,
    LoginFailed,
    Pod,
    Refused,
    Unreachable,
    identity_of,
    is_ready,
    kind_of,
)
from meshwake.kubernetes.kubeconfig import Access, read_access
from meshwake.kubernetes.labels import FIELD_MANAGER, OUR_LABELS, is_ours
from meshwake.kubernetes.talk import PROTOCOL, Talk, TalkOver

CALL_WITHIN_S = 15.0
# So many forwards are opened for one answer, if they are closed without any.
FORWARDS = 3
_Answer = TypeVar("_Answer")
_LOST = (
    OSError,  # TimeoutError and ssl.SSLError are some
    httpx.HTTPError,
    httpx_ws.HTTPXWSException,
    kr8s.APITimeoutError,
    kr8s.ConnectionClosedError,
    kr8s.NotFoundError,
    kr8s.ExecError,
    ported.PortFailed,
    TalkOver,
)
# What this machine itself has run out of.
_LOCAL = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EADDRINUSE,
    errno.EADDRNOTAVAIL,
}
# What kr8s raises where a login program fails (RuntimeError) or prints no credentials, and where an
# answer is not an API server's.
_NO_LOGIN = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, ImportError)
# 404: no such object or kind. 409: exists already, or was changed since it was read. From 500 on
# the server itself failed, which says nothing of the request.
_NOT_FOUND, _CONFLICT, _SERVER_ERROR = 404, 409, 500


def connect(kubeconfig: Path | Access, context: str | None = None) -> ThroughKr8s:
    """The cluster of a context (None: the current one). Raises Unreachable, with something to try,
    when it does not answer."""
    cluster = ThroughKr8s(kubeconfig, context)
    try:
        cluster.version()
    except LoginFailed:
        # Its message says already what to do, and kubectl would fail in the same way.
        cluster.close()
        raise
    except (Unreachable, Refused) as error:
        cluster.close()
        raise _does_not_answer(kubeconfig, context, error) from error
    return cluster


def _does_not_answer(
    kubeconfig: Path | Access, context: str | None, error: Exception
) -> Unreachable:
    file, of, why = kubeconfig, context, str(error)
    if isinstance(kubeconfig, Access):
        file, of = kubeconfig.file, kubeconfig.context
        # The credentials that it handed out may be what the server did not take.
        if kubeconfig.login_program is not None:
            why = f"{why}; one logs in to it by {kubeconfig.login_program!r}"

    option = f"--context {of} " if of else ""
    return Unreachable(
        f"{file}: the cluster of context {of or '(current)'} does not answer ({why}); "
        f"try: kubectl --kubeconfig {file} {option}get nodes"
    )


class ThroughKr8s:
    """See api.Kubernetes. Connects at the first request, and again after it could not."""

    def __init__(self, kubeconfig: Path | Access, context: str | None = None) -> None:
        self._kubeconfig, self._context = kubeconfig, context

        # Keys and certificates that the kubeconfig holds; they go with `close`.
        self._keys = tempfile.TemporaryDirectory(prefix="meshwake-", ignore_cleanup_errors=True)

        self._loop = asyncio.new_event_loop()

        # What a websocket's own tasks meet when a connection breaks is raised by the call that
        # waits for them; asyncio would print it a second time, with a traceback.
        self._loop.set_exception_handler(lambda loop, context: None)

        # A daemon: a program that fails before `close` ends all the same.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="kubernetes", daemon=True
        )
        self._thread.start()

        self._api: Any = None
        self._connecting = asyncio.Lock()

        # By the path of a group's version: kind -> (its name in paths, whether it lives in
        # namespaces). Pods need no look-up: who may see nothing but pods can be served, too.
        self._kinds: dict[str, dict[str, tuple[str, bool]]] = {"/api/v1": {"Pod": ("pods", True)}}
        self._versions: dict[str, list[str]] = {}

    def close(self) -> None:
        """See Kubernetes."""
        with suppress(Unreachable):
            self._call(_hang_up(self._api), CALL_WITHIN_S, "close")

        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=CALL_WITHIN_S)

        # One that is still running cannot be closed; it ends with the program.
        if not self._loop.is_running():
            self._loop.close()

        self._keys.cleanup()

    # The way to an answer

    def _call(self, work: Coroutine[Any, Any, _Answer], within_s: float, what: str) -> _Answer:
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, within_s), self._loop)
        try:
            # A second more than the coroutine has: normally its own deadline ends it, in the loop.
            return future.result(within_s + 1.0)
        except TimeoutError as error:
            stuck = not future.done()
            future.cancel()
            if stuck:
                raise LocalFailure(
                    f"{what}: this program itself did not get to it in {within_s:.0f} s"
                ) from error
            raise Unreachable(f"{what}: no answer within {within_s:.0f} s") from error

        except CancelledError as error:
            # Not by us: the task group of a websocket that breaks cancels the task that opened it,
            # and with it whatever waits there. Seen in an exec on a cluster at load 47.
            raise Unreachable(f"{what}: its connection was ended under way") from error

        except _LOST as error:
            raise _unreachable(what, error) from error

        except ExceptionGroup as group:  # of a websocket, whose tasks end together
            lost, others = group.split(_LOST)
            # With another error among them it is a fault of ours, which must be seen.
            if lost is None or others is not None:
                raise
            raise _unreachable(what, _first_of(lost), group) from group

        except kr8s.ServerError as error:
            raise _refused(what, error) from error

        except (ValueError, KeyError) as error:  # not an answer of an API server
            raise Unreachable(f"{what}: {error}") from error

    def about_pod(self, work: Coroutine[Any, Any, _Answer], within_s: float, what: str) -> _Answer:
        """The result of `work`, run on our loop within a bound. A pod that has just gone, or is not
        ready, is as much out of reach as a kubelet that does not answer: Unreachable."""
        try:
            return self._call(work, within_s, what)
        except Refused as error:
            raise Unreachable(str(error)) from error

    async def _connected(self) -> Any:
        # Several threads may make their first request at the same time: one of them connects.
        async with self._connecting:
            if self._api is None:
                self._api = await self._connect()
        return self._api

    async def _connect(self) -> Any:
        access = self._access()
        config: Any = access.laid_out(Path(self._keys.name))
        with warnings.catch_warnings():
            # kr8s warns of Kubernetes versions newer than itself.
            warnings.simplefilter("ignore")
            api = await _logged_in(access, partial(connect_kr8s, kubeconfig=config))

        # kr8s logs in again by itself when credentials have run out.
        auth: Any = api.auth
        auth.reauthenticate = partial(_logged_in, access, auth.reauthenticate)
        api.timeout = CALL_WITHIN_S
        return api

    def _access(self) -> Access:
        """Read again with each connection: a cluster that was started again may have another
        address."""
        if isinstance(self._kubeconfig, Access):
            return self._kubeconfig
        try:
            return read_access(self._kubeconfig, self._context)
        except BadInput as error:
            raise Unreachable(str(error)) from error

    async def _request(self, method: str, path: str, **about: Any) -> httpx.Response:
        api = await self._connected()
        base, _, last = path.rpartition("/")

        # kr8s puts a slash between the two: of "/" and "readyz" it would make a host's name of the
        # latter.
        base = base or str(api.auth.server).rstrip("/")
        async with api.call_api(method, version="", base=base, url=last, **about) as response:
            answer: httpx.Response = response
            return answer

    async def _path(
        self, kind: str, namespace: str | None, name: str = "", version: str = ""
    ) -> str:
        """The path of an object, or of all of a kind. Which kinds there are, and what they are
        called in paths, is read from the server itself, as kubectl does it: the plural of a
        CustomResourceDefinition may be any."""
        kind, _, group = kind.partition(".")
        for base in await self._bases(group, version):
            # Read again where the kind is unknown: its definition may have come since.
            if kind not in self._kinds.get(base, {}):
                self._kinds[base] = await self._read_kinds(base)

            if kind in self._kinds[base]:
                plural, is_namespaced = self._kinds[base][kind]
                return _joined_path(base, plural, namespace, name, is_namespaced=is_namespaced)

        raise _NoSuchKind(f"{group or 'v1'} has no kind {kind} (yet)")

    async def _read_kinds(self, base: str) -> dict[str, tuple[str, bool]]:
        """The kinds of a group's version: kind -> (its name in paths, whether it is namespaced)."""
        answer = (await self._request("GET", base)).json()
        return {
            each["kind"]: (each["name"], each["namespaced"])
            for each in answer["resources"]
            # pods/log, pods/exec and the like have the kind of what they belong to.
            if "/" not in each["name"]
        }

    async def _bases(self, group: str, version: str) -> list[str]:
        """The paths of a group's versions, the server's own choice first: not every kind is in each
        of them."""
        # The core group has one version, and its paths another root.
        if not group:
            return ["/api/v1"]
        if version:
            return [f"/apis/{group}/{version}"]

        if group not in self._versions:
            answer = (await self._request("GET", f"/apis/{group}")).json()
            preferred = str(answer["preferredVersion"]["version"])
            listed = [str(each["version"]) for each in answer.get("versions") or ()]
            # Each once: the preferred one is among those that are listed.
            self._versions[group] = list(dict.fromkeys([preferred, *listed]))
        return [f"/apis/{group}/{each}" for each in self._versions[group]]

    async def _on(
        self,
        method: str,
        kind: str,
        namespace: str | None,
        name: str,
        version: str = "",
        **about: Any,
    ) -> httpx.Response:
        path = await self._path(kind, namespace, name, version)
        return await self._request(method, path, **about)

    # Reading

    def version(self) -> str:
        """The version that the API server gives itself."""
        answer = self._call(self._request("GET", "/version"), CALL_WITHIN_S, "version")
        return str(answer.json()["gitVersion"])

    def ready(self) -> bool:
        """See Kubernetes."""
        try:
            answer = self._call(self._request("GET", "/readyz"), CALL_WITHIN_S, "readyz")
            return answer.text.strip() == "ok"
        except (Unreachable, Refused):
            return False

    def read(self, kind: str, namespace: str | None, name: str) -> JsonObject | None:
        """See Kubernetes."""
        work = self._on("GET", kind, namespace, name)
        answer = self._found(work, f"read {kind} {name}")
        return None if answer is None else dict(answer.json())

    def all(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[JsonObject]:
        """See Kubernetes."""
        query = {"labelSelector": _selector(labels)} if labels else {}
        work = self._on("GET", kind, namespace, "", params=query)
        answer = self._found(work, f"list {kind}")
        if answer is None:
            return []

        listed = answer.json()
        # The items of a list have neither: it is written once, at the list itself.
        about = {"kind": kind.partition(".")[0], "apiVersion": str(listed.get("apiVersion", ""))}
        return [{**about, **item} for item in listed.get("items") or []]

    def _found(self, work: Coroutine[Any, Any, httpx.Response], what: str) -> httpx.Response | None:
        """The answer to a GET; None where there is no such object, or no such kind (yet)."""
        try:
            return self._call(work, CALL_WITHIN_S, what)
        except Refused as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def ours(self, kind: str, labels: Mapping[str, str]) -> list[tuple[str | None, str]]:
        """See Kubernetes."""
        found = self.all(kind, None, {**OUR_LABELS, **labels})
        places = [_place_of(thing) for thing in found]

        # As text: a namespace may be None, which does not compare with one that has a name.
        return sorted(places, key=str)

    def pods(self, namespace: str | None, labels: Mapping[str, str]) -> list[Pod]:
        """See Kubernetes."""
        found = self.all("Pod", namespace, labels)
        # A pod on its way out is still listed, and ready, for up to its grace period (30 s).
        staying = [
            thing for thing in found if "deletionTimestamp" not in object_at(thing, "metadata")
        ]
        pods = [pod_of(thing) for thing in staying]
        return sorted(pods, key=lambda pod: pod.name)

    def log_lines(self, pod: Pod, container: str, since_s: int) -> list[str]:
        """See Kubernetes."""
        query = {
            "container": container,
            # The API server refuses 0.
            "sinceSeconds": str(max(since_s, 1)),
            # The whole answer is kept in memory.
            "limitBytes": "1000000",
        }
        work = self._request("GET", f"{_of_pod(pod)}/log", params=query)
        answer = self.about_pod(work, CALL_WITHIN_S, f"log of {pod}")
        return answer.text.splitlines()

    # Within pods

    def execute(
        self, pod: Pod, container: str, command: Sequence[str], within_s: float
    ) -> Executed:
        """See Kubernetes."""
        return self.about_pod(self._execute(pod, container, command), within_s, f"exec in {pod}")

    async def _execute(self, pod: Pod, container: str, command: Sequence[str]) -> Executed:
        thing = await PodObject.get(pod.name, namespace=pod.namespace, api=await self._connected())
        ended = await thing.async_exec(list(command), container=container, check=False)
        return Executed(
            ended.returncode,
            ended.stdout.decode(errors="replace"),
            ended.stderr.decode(errors="replace"),
        )

    def converse(self, pod: Pod, container: str, command: Sequence[str]) -> Conversation:
        """See Kubernetes."""
        return _Conversation(self, pod, container, command)

    async def open_talk(self, pod: Pod, container: str, command: Sequence[str]) -> Talk:
        """The exec behind a conversation, on our loop."""
        api = await self._connected()
        params = {
            "command": list(command),
            "container": container,
            "stdin": "true",
            "stdout": "true",
            "stderr": "true",
        }
        place = {"namespace": pod.namespace, "params": params, "subprotocols": (PROTOCOL,)}
        return Talk(api.open_websocket(version="v1", url=f"pods/{pod.name}/exec", **place))

    def get(self, pod: Pod, port: int, path: str, within_s: float) -> bytes:
        """See Kubernetes."""
        return self.about_pod(self._get(pod, port, path), within_s, f"GET {pod}:{port}{path}")

    async def _get(self, pod: Pod, port: int, path: str) -> bytes:
        api = await self._connected()
        url = f"pods/{pod.name}/portforward"
        place = {"namespace": pod.namespace, "params": {"ports": str(port)}}

        for _ in range(FORWARDS):
            async with api.open_websocket(version="v1", url=url, **place) as websocket:
                # Whatever else goes wrong is not repeated: only this says nothing of the pod.
                with suppress(ported.ClosedUnanswered):
                    return await ported.get(websocket, path)

        raise ported.ClosedUnanswered(f"{FORWARDS} forwards were closed without an answer")

    def get_from_service(
        self, namespace: str, service: str, port: int, path: str, within_s: float
    ) -> bytes:
        """See Kubernetes."""
        path_of_proxy = f"/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy{path}"
        work = self._request("GET", path_of_proxy)
        what = f"GET service {namespace}/{service}:{port}{path}"

        # What is behind a Service is a pod, too: it may be on its way up or out.
        return self.about_pod(work, within_s, what).content

    # Changing

    def apply(self, objects: Iterable[JsonObject]) -> None:
        """See Kubernetes."""
        for thing in objects:
            if not is_ours(texts_at(thing, "metadata", "labels")):
                raise HarnessFault(f"{identity_of(thing)} lacks our label and is not applied")

            namespace, name = _place_of(thing)
            # In the very version that it is written in: another has other fields.
            version = text_at(thing, "apiVersion").rpartition("/")[2]
            # "force": a field that kubectl or helm has set here is ours again.
            query = {"fieldManager": FIELD_MANAGER, "force": "true"}
            body = _body(thing, "apply-patch+yaml")

            work = self._on("PATCH", kind_of(thing), namespace, name, version, params=query, **body)
            self._call(work, CALL_WITHIN_S, f"apply {identity_of(thing)}")

    def replace(self, thing: JsonObject) -> bool:
        """See Kubernetes."""
        namespace, name = _place_of(thing)

        # POST creates, and is refused with 409 when the object exists; PUT replaces, and is refused
        # with 409 when it has another resourceVersion by now.
        is_update = "resourceVersion" in object_at(thing, "metadata")
        method = "PUT" if is_update else "POST"
        path_name = name if is_update else ""

        work = self._on(method, kind_of(thing), namespace, path_name, **_body(thing, "json"))
        try:
            self._call(work, CALL_WITHIN_S, f"{method} {identity_of(thing)}")
        except Refused as error:
            # 404: what was to be replaced has gone meanwhile.
            has_gone = is_update and error.status == _NOT_FOUND
            if has_gone or error.status == _CONFLICT:
                return False
            raise
        return True

    def patch(self, kind: str, namespace: str, name: str, patch: JsonObject) -> None:
        """See Kubernetes."""
        work = self._on(
            "PATCH",
            kind,
            namespace,
            name,
            params={"fieldManager": FIELD_MANAGER},
            **_body(patch, "strategic-merge-patch+json"),
        )
        self._call(work, CALL_WITHIN_S, f"patch {kind} {namespace}/{name}")

    def delete_ours(self, kind: str, namespace: str | None, name: str) -> bool:
        """See Kubernetes."""
        found = self.read(kind, namespace, name)
        if found is None:
            return False

        # An object of the same name that another made is left alone.
        if not is_ours(texts_at(found, "metadata", "labels")):
            return False

        # The uid makes sure that it is still the object whose label was looked at.
        uid = text_at(found, "metadata", "uid")
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        return self._delete(kind, namespace, name, body)

    def end_pod(self, pod: Pod) -> None:
        """See Kubernetes."""
        self._delete("Pod", pod.namespace, pod.name, {"preconditions": {"uid": pod.uid}})

    def _delete(self, kind: str, namespace: str | None, name: str, body: JsonObject) -> bool:
        options = {"kind": "DeleteOptions", **body}
        work = self._on("DELETE", kind, namespace, name, **_body(options, "json"))
        try:
            self._call(work, CALL_WITHIN_S, f"delete {kind} {name}")
        except Refused as error:
            # It has gone meanwhile, or another object has its name (the precondition on the uid).
            if error.status in {_NOT_FOUND, _CONFLICT}:
                return False
            raise
        return True


async def _logged_in(access: Access, log_in: Callable[[], Awaitable[_Answer]]) -> _Answer:
    try:
        return await log_in()
    except _NO_LOGIN as error:
        # A login program prints its complaint over several lines, some of them with a usage.
        message = " ".join(str(error).split())[:300]
        if access.login_program is None:
            raise Unreachable(
                f"{access}: no connection ({type(error).__name__}: {message})"
            ) from error

        raise LoginFailed(
            f"{access}: user {access.user_name!r} logs in by {access.login_program!r}, "
            "which handed out "
            f"no credentials: {type(error).__name__}: {message}"
        ) from error


class _Conversation:
    """See api.Conversation. Opened at the first request; one at a time."""

    def __init__(
        self, cluster: ThroughKr8s, pod: Pod, container: str, command: Sequence[str]
    ) -> None:
        self._cluster, self._pod, self._container, self._command = cluster, pod, container, command
        self._lock = threading.Lock()
        self._talk: Talk | None = None

    def ask(self, line: str, within_s: float) -> str:
        """See Conversation."""
        with self._lock:
            return self._cluster.about_pod(self._ask(line), within_s, f"exec in {self._pod}")

    def close(self) -> None:
        """See Conversation."""
        with self._lock, suppress(Unreachable):
            self._cluster.about_pod(self._close(), CALL_WITHIN_S, "close")

    async def _ask(self, line: str) -> str:
        if self._talk is None:
            self._talk = await self._cluster.open_talk(self._pod, self._container, self._command)
        return await self._talk.ask(line)

    async def _close(self) -> None:
        if self._talk is not None:
            await self._talk.close()


class _NoSuchKind(kr8s.ServerError):
    """As if the server had answered 404: this kind is not defined."""


def _refused(what: str, error: kr8s.ServerError) -> Refused | Unreachable:
    status = getattr(error.response, "status_code", _SERVER_ERROR)
    if isinstance(error, _NoSuchKind):
        status = _NOT_FOUND

    message = _message_of(error)
    if status >= _SERVER_ERROR:
        return Unreachable(f"{what}: {message}")
    return Refused(f"{what}: the API server refused: {message}", status)


def _message_of(error: kr8s.ServerError) -> str:
    """The API server's own sentence; kr8s gives it for 4xx only."""
    # kr8s has no answer at hand where the server was not reached.
    if error.response is None:
        return str(error)

    try:
        return str(error.response.json().get("message") or error)
    except (ValueError, AttributeError):
        # Not a Status of Kubernetes: a proxy on the way answers in HTML, or with a list.
        return str(error)


def _unreachable(
    what: str, error: BaseException, group: BaseException | None = None
) -> Unreachable:
    # What this machine lacks is somewhere down the chain of causes; on top there is httpx's own
    # "All connection attempts failed".
    for each in _causes(group or error):
        if isinstance(each, OSError) and each.errno in _LOCAL:
            return LocalFailure(f"{what}: no request was sent, for this machine could not: {each}")
    return Unreachable(f"{what}: {type(error).__name__}: {error}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                yield from _causes(each)
        error = error.__cause__ or error.__context__


def _first_of(group: BaseException) -> BaseException:
    """The first error in a group that is not a group itself."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def _hang_up(api: Any) -> None:
    """Closes the connections that kr8s keeps; it has no word for it."""
    session = getattr(api, "_session", None)
    if session is not None:
        await session.aclose()


def _body(content: JsonObject, media_type: str) -> dict[str, Any]:
    """What httpx takes as keyword arguments."""
    return {
        "content": json.dumps(content),
        "headers": {"Content-Type": f"application/{media_type}"},
    }


def _joined_path(
    base: str, plural: str, namespace: str | None, name: str, *, is_namespaced: bool
) -> str:
    """Without a namespace: all objects of a kind, in every namespace."""
    within = ""
    if is_namespaced and (namespace or name):
        within = f"/namespaces/{namespace or 'default'}"

    every = f"{base}{within}/{plural}"
    return f"{every}/{name}" if name else every


def _of_pod(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def pod_of(item: JsonObject) -> Pod:
    """A pod from what the API server reports of it."""
    containers = objects_at(item, "status", "containerStatuses")
    first = containers[0] if containers else {}
    return Pod(
        namespace=text_at(item, "metadata", "namespace"),
        name=text_at(item, "metadata", "name"),
        uid=text_at(item, "metadata", "uid"),
        node=text_at(item, "spec", "nodeName"),
        ready=is_ready(item),
        labels=texts_at(item, "metadata", "labels"),
        restarts=int_at(first, "restartCount"),
        address=text_at(item, "status", "podIP"),
        started="running" in object_at(first, "state"),
    )


def _place_of(thing: JsonObject) -> tuple[str | None, str]:
    """Namespace and name; None for an object that lives in no namespace."""
    return text_at(thing, "metadata", "namespace") or None, text_at(thing, "metadata", "name")
