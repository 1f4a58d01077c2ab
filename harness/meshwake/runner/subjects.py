"""Which ztunnels are under test: the binary that was given, the releases that were named, the
release of a cluster, or the newest of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwake.core import versions
from meshwake.core.errors import BadInput
from meshwake.core.plan import PlannedCluster
from meshwake.runner.options import Options
from meshwake.ztunnel import binaries


@dataclass(frozen=True)
class Subject:
    """The release under test and its binary, where there is one; `found` says where the binary
    comes from."""

    version: str
    ztunnel: Path | None
    found: str


def find_subjects(options: Options) -> tuple[Subject, ...]:
    """What `options` put under test; never empty. Raises BadInput where they contradict each
    other."""
    if options.ztunnel is not None:
        return (_given_binary(options.ztunnel, options),)

    # Each once, in the order in which they were typed.
    if options.istio:
        named = dict.fromkeys(options.istio)
        return tuple(_named_version(version) for version in named)

    if options.lab == "kind":
        return (Subject(_version_of_cluster(options.cluster), None, ""),)

    # Without a binary only the model can run, and it has classes for every release.
    return (_newest_in_cache() or Subject(versions.newest().version, None, ""),)


def _newest_in_cache() -> Subject | None:
    # A release that has no row in clusters/versions.toml has no class and no expectations.
    known = {release.version for release in versions.releases()}
    for binary in reversed(binaries.cached()):
        if binary.version in known:
            return Subject(binary.version, binary.path, "in the cache")
    return None


def _named_version(version: str) -> Subject:
    release = versions.find(version)
    binary = binaries.find(release.version)

    # Without one the case is refused, with how to get it; or it runs on the model.
    path = None if binary is None else binary.path
    return Subject(release.version, path, "in the cache")


def _version_of_cluster(cluster: PlannedCluster) -> str:
    """The release of the cluster that a run would use, or of the one that would be made."""
    # Only here: the modules of a cluster import a Kubernetes client, which other labs do not need.
    from meshwake.cluster.choosing import version_there
    from meshwake.cluster.stack.choice import choose_stack
    from meshwake.cluster.stack.pins import read_pins

    return version_there(cluster) or choose_stack(read_pins()).istio


def _given_binary(path: Path, options: Options) -> Subject:
    if options.lab in ("model", "kind"):
        raise BadInput(
            f"--ztunnel {path}: lab {options.lab} runs no binary; leave it out, or use "
            "--lab process"
        )
    if len(options.istio) > 1:
        raise BadInput(
            f"--ztunnel {path}: is one binary and cannot be {len(options.istio)} versions; "
            "give one --istio"
        )

    identity = binaries.identify(path)
    version = _version_of_build(identity, options.istio)
    return Subject(version, identity.path, f"given with --ztunnel {path}")


def _version_of_build(identity: binaries.Identity, named: Sequence[str]) -> str:
    """The release that was named, if one was, else the one that the binary reports of itself."""
    # A build of one's own may be named after the release that it is nearest to.
    if named:
        return _agreed_version(identity, named[0])

    own = identity.own_version
    if own is None:
        raise BadInput(
            f"--ztunnel {identity.path}: does not report its own version (it is not an official "
            "build); name the release it was built from: --istio VERSION"
        )

    try:
        return versions.find(own).version
    except BadInput as error:
        raise BadInput(
            f"--ztunnel {identity.path}: reports version {own}, which has no row in "
            "clusters/versions.toml; name the release it is nearest to: --istio VERSION"
        ) from error


def _agreed_version(identity: binaries.Identity, named: str) -> str:
    """The release that was named. A development build may be named after the nearest release, a
    release only after itself."""
    wanted = versions.find(named).version
    own = identity.own_version

    # Without a release of its own it is what the user says.
    if own is None or not versions.has_row(own):
        return wanted

    if versions.find(own).version != wanted:
        raise BadInput(
            f"--ztunnel {identity.path}: reports version {own}, --istio names {wanted}; "
            "leave --istio out"
        )
    return wanted
