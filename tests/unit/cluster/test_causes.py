"""The true reason of failures as they were collected (tests/data/failures: `seen` says where each
is from)."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshwake.cluster.causes import (
    ClusterEvidence,
    all_causes,
    first_cause,
    last_words,
    read_evidence,
)
from meshwake.cluster.cluster import bring_up
from meshwake.cluster.stack.choice import choose_stack
from meshwake.cluster.steps import StepFailed

from tests.support.paths import DATA
from tests.unit.cluster.stack.choices import pins
from tests.unit.cluster.world import SimulatedEngine, SimulatedTools, World

FAILURES = sorted((DATA / "failures").glob("*.json"))


def written(files: dict[str, Any], place: Path) -> Path:
    """The files of a record, as failures.py lays them."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8"
        )
    return place


@pytest.mark.parametrize("path", FAILURES, ids=lambda path: path.stem)
def test_the_true_reason_is_found(path: Path, tmp_path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    found = first_cause(read_evidence(written(record["files"], tmp_path)), record["error"])
    assert str(found) == record["cause"]


def test_every_kind_of_failure_is_recorded() -> None:
    assert len(FAILURES) >= 10


def test_a_healthy_cluster_has_no_causes(tmp_path: Path) -> None:
    """A pod that was restarted once and is well now is none, nor is a warning that is over."""
    pods: list[dict[str, Any]] = [
        {
            "metadata": {"namespace": "a", "name": "b"},
            "status": {
                "phase": "Running",
                "conditions": [
                    {"type": "Ready", "status": "True"},
                    {"type": "PodScheduled", "status": "True"},
                ],
                "containerStatuses": [
                    {
                        "name": "c",
                        "ready": True,
                        "restartCount": 1,
                        "lastState": {"terminated": {"exitCode": 1}},
                    }
                ],
            },
        },
        {"metadata": {"namespace": "a", "name": "job"}, "status": {"phase": "Succeeded"}},
    ]
    about = {"kind": "Pod", "namespace": "a", "name": "b"}
    events: list[dict[str, Any]] = [
        {"type": "Warning", "reason": "Unhealthy", "message": "no", "involvedObject": about}
    ]
    nodes: list[dict[str, Any]] = [
        {"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    ]
    assert (
        all_causes(
            ClusterEvidence(
                {"Pod": pods, "Event": events, "Node": nodes},
                {"n/kubelet.log": "I1130 all is well"},
            )
        )
        == []
    )
    assert first_cause(ClusterEvidence(), "anything") is None
    assert first_cause(read_evidence(tmp_path / "nothing"), "anything") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("2026-11-30T02:00:00Z stderr F one\n2026-11-30T02:00:00Z stdout F two\n", "two"),
        (
            "panic: no such thing\n\ngoroutine 1 [running]:\nmain.main()\n\t/src/main.go:7\n",
            "panic: no such thing",
        ),
        (
            "Traceback (most recent call last):\n  File 'x'\nModuleNotFoundError: No "
            "module named 'y'\n",
            "ModuleNotFound",
        ),
        ("F1130 02:00:00.0 1 main.go:7] gone\nbye\n", "F1130"),
    ],
)
def test_last_words(text: str, expected: str) -> None:
    assert last_words(text).startswith(expected) and bool(last_words(text)) == bool(expected)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(
    st.text(),
    st.dictionaries(st.sampled_from(["n/kubelet.log", "n/pods/a_b_c/d/0.log", "x"]), st.text()),
)
def test_no_log_makes_it_fail(error: str, logs: dict[str, str]) -> None:
    first_cause(ClusterEvidence({}, logs), error)


@given(_JSON | st.lists(st.fixed_dictionaries({"metadata": _JSON}), max_size=3))
def test_files_that_are_no_lists_of_objects_are_left_out(content: Any) -> None:
    """A look that was cut off, or an API server that answered something else."""
    with TemporaryDirectory() as place:
        written({"pods.json": json.dumps(content), "events.json": "[{"}, Path(place))
        assert first_cause(read_evidence(Path(place)), "") is None


def test_the_reason_is_in_the_message_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all of it lies where the error says."""
    monkeypatch.setenv("MESHWAKE_STATE", str(tmp_path))
    world = World(pods=[json.loads(FAILURES[0].read_text())["files"]["pods.json"][0]])
    world.unmet.add("cert-manager")
    choice = choose_stack(pins(), profile="full", name="t", workers=1)
    with pytest.raises(
        StepFailed, match=r"step cert-manager (.|\n)*\ncause: Pod cert-manager/cert-manager-"
    ) as failed:
        bring_up(
            choice,
            pins(),
            SimulatedEngine(world),
            SimulatedTools(world),
            lambda _: None,
            dependencies=world.dependencies(),
        )
    assert failed.value.evidence is not None and (failed.value.evidence / "pods.json").is_file()
