"""All fixes, by name: known to scenarios, explained, and read from what a user would apply."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import kubernetes_validate
import pytest
import yaml
from meshwake.clocks.virtual import clocks_of
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan, PlannedFix
from meshwake.core.scenario import FixName
from meshwake.fixes import FIXES, DeployableFix, adapted, deploy

from tests.support.paths import REPOSITORY
from tests.support.plans import NIGHTS, plan


def with_fix(name: str, manifest: str | None = None, body: str = NIGHTS) -> Plan:
    of = plan(body, duration="3d")
    text = FIXES[name].read_manifest() if manifest is None else manifest
    return of.model_copy(update={"fix": PlannedFix(name=name, manifest=text)})


def test_scenarios_know_every_fix_and_no_other() -> None:
    assert tuple(FIXES) == get_args(FixName)


def test_docs_explain_every_fix() -> None:
    """docs/fixes.md has a row for each, and each says in the registry what it does and who does
    it."""
    rows = re.findall(
        r"^\| `([\w-]+)` \| ",
        (REPOSITORY / "docs" / "fixes.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert set(FIXES) <= set(rows)
    assert all(fix.does and fix.source for fix in FIXES.values())


@pytest.mark.parametrize("fix", FIXES.values(), ids=lambda fix: fix.name)
def test_each_is_deployed_from_its_own_manifest(fix: DeployableFix) -> None:
    """And a fix that is read from a manifest has one in this repository."""
    of = adapted(with_fix(fix.name))
    deploy(of, clocks_of(of))
    assert (fix.manifest is None) == (fix.manifest_path is None) or fix.read_manifest()


@pytest.mark.parametrize(
    "fix", [fix for fix in FIXES.values() if fix.manifest], ids=lambda fix: fix.name
)
def test_each_refuses_the_manifest_of_something_else(fix: DeployableFix) -> None:
    """What is not understood would be taken for a fix."""
    of = with_fix(fix.name, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
    with pytest.raises(BadInput, match=r"fix\.manifest"):
        deploy(adapted(of), clocks_of(of))


@pytest.mark.parametrize(
    "fix", [fix for fix in FIXES.values() if fix.manifest], ids=lambda fix: fix.name
)
def test_each_refuses_to_be_without_a_manifest(fix: DeployableFix) -> None:
    of = plan(NIGHTS).model_copy(update={"fix": PlannedFix(name=fix.name)})
    with pytest.raises(BadInput, match="needs manifest"):
        deploy(adapted(of), clocks_of(of))


# Files of helm and kustomize, which no API server reads.
NOT_MANIFESTS = {"values.yaml", "Chart.yaml", "kustomization.yaml"}
MANIFESTS = [
    path
    for path in sorted((REPOSITORY / "clusters/fixes").glob("*/*.yaml"))
    if path.name not in NOT_MANIFESTS
]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_an_api_server_would_take_every_manifest(path: Path) -> None:
    """By the schemas of a Kubernetes release, unknown fields refused."""
    for thing in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        kubernetes_validate.validate(thing, "1.34", strict=True)


@pytest.mark.parametrize(
    "path",
    sorted((REPOSITORY / "clusters/fixes").glob("*/cronjob.yaml")),
    ids=lambda p: p.parent.name,
)
def test_cron_jobs_may_do_what_they_do(path: Path) -> None:
    """Each has a service account of its own, bound to a role of the same name in its namespace."""
    objects = {each["kind"]: each for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))}
    job = objects["CronJob"]
    account = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"]
    assert objects["ServiceAccount"]["metadata"]["name"] == account
    assert objects["RoleBinding"]["subjects"][0]["name"] == account
    assert objects["RoleBinding"]["roleRef"]["name"] == objects["Role"]["metadata"]["name"]
    assert len({each["metadata"]["namespace"] for each in objects.values()}) == 1
