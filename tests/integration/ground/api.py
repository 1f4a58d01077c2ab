"""A real Kubernetes API on loopback: etcd and kube-apiserver with certificates of their own, gone
when the tests are.

What a cluster is made of is proved here against the program that will judge it on a user's machine:
schemas, defaults, CEL rules, admission policies, server-side apply and field owners, label
selectors. With controllers and simulated nodes (kwok) Deployments become ready and namespaces can
be deleted; no container ever runs.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.integration.ground.certificates import Certificates, write_certificates
from tests.integration.ground.programs import ControlPlane, Deadline, Program
from tests.support.ports import free_port

READY_WITHIN_S = 90
TRIES = 3
SERVICE_RANGE = "10.96.0.0/16"  # as kind gives it
NODE_ADDRESS = "172.18.0.2"
FIELD_MANAGER = "meshwake-ground"
SIMULATED = Path(__file__).parent / "simulated.yaml"
_REQUEST_WITHIN_S = 30
_FAKE_NODE = {"kwok.x-k8s.io/node": "fake"}


class Refused(AssertionError):
    """The API server refused; `status` is its HTTP status, the text its own message."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: {status}: {message}")
        self.status = status


@dataclass
class RealApi:
    """One running API server and what was started with it."""

    plane: ControlPlane
    directory: Path
    certificates: Certificates
    port: int
    programs: dict[str, Program] = field(default_factory=dict)
    _kinds: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)
    _trusts: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def version(self) -> str:
        """The version that the server gives itself, such as "1.34.4"."""
        return str(self.get("/version")["gitVersion"]).removeprefix("v")

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig (mode 600) of an administrator, context "ground"."""
        return self.directory / "kubeconfig"

    def get(self, path: str) -> dict[str, Any]:
        """The object or list at `path`; raises Refused."""
        return self.request("GET", path)

    def request(
        self, method: str, path: str, body: object = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One request as administrator; raises Refused with the server's own message, OSError
        without an answer."""
        status, content = self._exchange(
            method, path, None if body is None else json.dumps(body), content_type
        )
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"message": content}
        if status >= http.client.BAD_REQUEST:
            raise Refused(f"{method} {path}", status, str(answer.get("message") or answer))
        return dict(answer)

    def _exchange(
        self, method: str, path: str, body: str | None, content_type: str
    ) -> tuple[int, str]:
        if self._trusts is None:
            self._trusts = ssl.create_default_context(cafile=str(self.certificates.authority))
            self._trusts.load_cert_chain(
                self.certificates.admin_certificate, self.certificates.admin_key
            )
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=_REQUEST_WITHIN_S, context=self._trusts
        )
        try:
            connection.request(
                method, path, body, {"Content-Type": content_type, "Accept": "application/json"}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def path_of(self, thing: Mapping[str, Any]) -> str:
        """The path of one object, by what the server's discovery says of its kind; raises Refused
        for a kind it does not serve.
        """
        plural, namespaced = self._kind(str(thing["apiVersion"]), str(thing["kind"]))
        group = str(thing["apiVersion"])
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        within = (
            f"/namespaces/{thing['metadata'].get('namespace', 'default')}" if namespaced else ""
        )
        return f"{root}{within}/{plural}/{urllib.parse.quote(thing['metadata']['name'])}"

    def _kind(self, api_version: str, kind: str) -> tuple[str, bool]:
        if (api_version, kind) not in self._kinds:
            root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            for resource in self.get(root)["resources"]:
                if "/" not in resource["name"]:
                    self._kinds[api_version, resource["kind"]] = (
                        resource["name"],
                        resource["namespaced"],
                    )
        if (api_version, kind) not in self._kinds:
            raise Refused(
                f"kind {kind} of {api_version}",
                http.client.NOT_FOUND,
                "the server does not serve it",
            )
        return self._kinds[api_version, kind]

    def apply(
        self, thing: Mapping[str, Any], *, dry_run: bool = False, manager: str = FIELD_MANAGER
    ) -> dict[str, Any]:
        """Server-side apply, unknown and doubled fields refused (fieldValidation=Strict); raises
        Refused."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", "force": "true"}
        if dry_run:
            query["dryRun"] = "All"
        path = f"{self.path_of(thing)}?{urllib.parse.urlencode(query)}"
        return self.request("PATCH", path, dict(thing), "application/apply-patch+yaml")

    def apply_all(
        self, things: Iterable[Mapping[str, Any]], *, manager: str = FIELD_MANAGER
    ) -> None:
        """Applies each; new kinds (CRDs) and admission policies are awaited before the next object
        is sent."""
        for thing in things:
            self.apply(thing, manager=manager)
            if thing["kind"] == "CustomResourceDefinition":
                self.await_established(thing["metadata"]["name"])

    def await_established(self, crd: str) -> None:
        """Until the server serves the kind of this CRD."""
        deadline = Deadline(
            f"CustomResourceDefinition {crd} is established", READY_WITHIN_S, self._running()
        )
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}"
        while True:
            conditions = self.get(path).get("status", {}).get("conditions") or []
            if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
                return
            deadline.pause(conditions)

    def await_refusal(self, thing: Mapping[str, Any], word: str) -> None:
        """Until the server refuses `thing` with `word` in its reason; an admission policy is in
        force some time after it was applied.
        """
        deadline = Deadline(
            f"{thing['kind']} {thing['metadata']['name']} is refused",
            READY_WITHIN_S,
            self._running(),
        )
        last = "it was taken"
        while word not in last:
            deadline.pause(last)
            try:
                self.apply(thing, dry_run=True)
            except Refused as refused:
                last = str(refused)

    def kinds(self) -> dict[str, str]:
        """Every kind that the server lists and lets delete: the list's path -> the kind, in all
        groups, each kind in one version. A group's preferred version need not have all its kinds.
        """
        roots = ["/api/v1"]
        for group in self.get("/apis")["groups"]:
            roots += [f"/apis/{version['groupVersion']}" for version in group["versions"]]
        found: dict[str, str] = {}
        seen = set()
        for root in roots:
            for resource in self.get(root)["resources"]:
                kind = (root.rpartition("/")[0], resource["name"])
                if (
                    "/" not in resource["name"]
                    and kind not in seen
                    and {"list", "delete"} <= set(resource["verbs"])
                ):
                    seen.add(kind)
                    found[f"{root}/{resource['name']}"] = resource["kind"]
        return found

    def everything(self, selector: str = "") -> set[str]:
        """The names, as "KIND NAMESPACE/NAME", of all objects or of those whose labels fit; no
        events, no leases."""
        query = f"?labelSelector={urllib.parse.quote(selector)}" if selector else ""
        found = set()
        for path, kind in self.kinds().items():
            if kind in {"Event", "Lease"}:
                continue
            for thing in self._list(path + query):
                found.add(
                    f"{kind} {thing['metadata'].get('namespace', '')}/{thing['metadata']['name']}"
                )
        return found

    def _list(self, path: str) -> list[dict[str, Any]]:
        """The items at `path`; a kind that was defined a moment ago is answered 429 until its
        storage is there."""
        deadline = Deadline(f"list {path}", READY_WITHIN_S, self._running())
        while True:
            try:
                return list(self.get(path)["items"])
            except Refused as refused:
                if refused.status != http.client.TOO_MANY_REQUESTS:
                    raise
                deadline.pause(str(refused))

    def start_controllers(self) -> None:
        """kube-controller-manager and kube-scheduler; returns when the first account exists, made
        by the former."""
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0")
        self._start(
            "kube-controller-manager",
            *common,
            f"--service-account-private-key-file={self.certificates.account_key}",
            f"--root-ca-file={self.certificates.authority}",
            # A namespace is looked at again soon: tests wait for its deletion.
            "--concurrent-namespace-syncs=10",
        )
        self._start("kube-scheduler", *common)
        deadline = Deadline("account default/default", READY_WITHIN_S, self._running())
        while not self.exists("/api/v1/namespaces/default/serviceaccounts/default"):
            deadline.pause("no such account")

    def start_nodes(self, names: Iterable[str]) -> None:
        """Simulated nodes (kwok): ready at once, and so is what is scheduled to them."""
        self._start(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={SIMULATED}",
            "--manage-all-nodes=true",
            f"--node-ip={NODE_ADDRESS}",
        )
        wanted = list(names)
        for name in wanted:
            self.apply(_node(name))
        deadline = Deadline(f"nodes {', '.join(wanted)} are ready", READY_WITHIN_S, self._running())
        while waiting := [name for name in wanted if not self._node_ready(name)]:
            deadline.pause(f"not ready: {', '.join(waiting)}")

    def _node_ready(self, name: str) -> bool:
        conditions = self.get(f"/api/v1/nodes/{name}").get("status", {}).get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    def exists(self, path: str) -> bool:
        """Whether there is something at `path`."""
        try:
            self.get(path)
        except Refused as refused:
            if refused.status == http.client.NOT_FOUND:
                return False
            raise
        return True

    def _start(self, name: str, *arguments: str) -> Program:
        path = self.plane.programs[name]
        program = Program(
            name,
            [str(path), *arguments],
            self.directory / f"{name}.log",
            {"HOME": str(self.directory)},
        )
        self.programs[name] = program.start()
        return program

    def _running(self) -> list[Program]:
        return list(self.programs.values())

    def end(self) -> None:
        """Ends all, the last started first."""
        for program in reversed(self._running()):
            program.end()


def start_api(plane: ControlPlane, directory: Path) -> RealApi:
    """An API server that answers /readyz with yes; AssertionError with the last lines of its log
    when it does not."""
    certificates = write_certificates(directory / "certificates")
    failed: AssertionError | None = None
    for attempt in range(TRIES):  # a port that was free may be taken meanwhile
        here = directory / f"attempt-{attempt}"
        here.mkdir()
        api = RealApi(plane, here, certificates, free_port())
        try:
            _bring_up(api)
        except AssertionError as error:
            failed = error
            api.end()
        except BaseException:
            api.end()
            raise
        else:
            return api
    assert failed is not None
    raise failed


def _bring_up(api: RealApi) -> None:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    api._start(
        "etcd",
        f"--data-dir={api.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # it need not survive a power cut
    )
    certificates = api.certificates
    api._start(
        "kube-apiserver",
        f"--etcd-servers={client}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",  # Endpoints of a loopback address are not valid
        f"--secure-port={api.port}",
        f"--tls-cert-file={certificates.server_certificate}",
        f"--tls-private-key-file={certificates.server_key}",
        f"--client-ca-file={certificates.authority}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={certificates.account_public_key}",
        f"--service-account-signing-key-file={certificates.account_key}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--profiling=false",
    )
    _write_kubeconfig(api)
    deadline = Deadline(
        f"kube-apiserver {api.plane.version} is ready", READY_WITHIN_S, api._running()
    )
    last: object = "no answer yet"
    while True:
        with suppress(OSError, http.client.HTTPException):
            status, last = api._exchange("GET", "/readyz?verbose", None, "application/json")
            if status == http.client.OK:
                break
        deadline.pause(last)
    while not api.exists("/api/v1/namespaces/default"):
        deadline.pause("no namespace default yet")


def _write_kubeconfig(api: RealApi) -> None:
    def inline(path: Path) -> str:
        return base64.b64encode(path.read_bytes()).decode()

    cluster = {"server": api.url, "certificate-authority-data": inline(api.certificates.authority)}
    admin = {
        "client-certificate-data": inline(api.certificates.admin_certificate),
        "client-key-data": inline(api.certificates.admin_key),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "ground", "cluster": cluster}],
        "users": [{"name": "ground-admin", "user": admin}],
        "contexts": [{"name": "ground", "context": {"cluster": "ground", "user": "ground-admin"}}],
        "current-context": "ground",
    }
    api.kubeconfig.touch(mode=0o600)
    api.kubeconfig.write_text(yaml.safe_dump(content), encoding="utf-8")


def _node(name: str) -> dict[str, Any]:
    """A node as kind labels one; what it could hold is what a small machine could."""
    role = {"node-role.kubernetes.io/control-plane": ""} if name.endswith("control-plane") else {}
    machine = {"hostname": name, "os": "linux", "arch": "amd64"}
    room = {"cpu": "16", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": _FAKE_NODE,
            "labels": {f"kubernetes.io/{key}": value for key, value in machine.items()} | role,
        },
        "status": {"allocatable": room, "capacity": room},
    }


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a YAML file with one or more documents."""
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]
