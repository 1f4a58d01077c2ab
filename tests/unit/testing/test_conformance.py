"""The conformance suite as the author of a lab uses it: from a test module of a project."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import DOCS

PAGE = (DOCS / "labs.md").read_text(encoding="utf-8")
TWO_LINES, LAB, TESTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A directory with the lab of the page, and nothing else."""
    pytester.makepyfile(my_lab=LAB)
    pytester.makeini("[pytest]\naddopts = -p no:hypothesispytest\npythonpath = .\n")
    return pytester


def test_the_examples_of_the_page_run(project: pytest.Pytester) -> None:
    """Every promise but the one of the fault that the lab refuses."""
    project.makepyfile(test_my_lab=TESTS)
    result = project.runpytest("-rs")
    result.assert_outcomes(passed=12, skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*fault 0: drift: the clocks of this lab cannot be slewed"])


def test_a_refusal_that_was_not_declared_fails(project: pytest.Pytester) -> None:
    """Else a lab that refuses everything would be green."""
    project.makepyfile(test_my_lab=TWO_LINES)
    result = project.runpytest("-k", "drift")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*add to `cannot` what the lab refuses on purpose*"])


@pytest.mark.parametrize(
    ("broken", "failing"),
    [
        # Each is the lab of the page with one promise broken, and the promise.
        ("        recorder.append = lambda event: None\n", "beginning_and_an_end"),
        (
            "        plan = plan.model_copy(update={'faults': ()})\n",
            "moves_the_clocks_that_it_says or ends_every_ztunnel",
        ),
        (
            "        plan = plan.model_copy(update={'attempt_every_ns': 7 * 10**12})\n",
            "attempted_when_both_ends_are_awake",
        ),
    ],
    ids=["records nothing", "leaves faults out", "attempts too rarely"],
)
def test_a_lab_that_breaks_a_promise_fails(
    project: pytest.Pytester, broken: str, failing: str
) -> None:
    """So that a green suite means something."""
    head, run, driver = LAB.rpartition("        driver = Driver")
    assert run, "the lab of the page has another form"
    project.makepyfile(my_lab=head + broken + run + driver, test_my_lab=TESTS)
    result = project.runpytest("-k", f"({failing}) and not drift")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) >= 1, outcomes
    assert "passed" not in outcomes, outcomes


def test_where_the_lab_cannot_run_it_is_skipped(project: pytest.Pytester) -> None:
    """With the reason of the lab."""
    project.makepyfile(
        my_lab=LAB.replace("return []", "return ['no appliance here; plug it in']", 1),
        test_my_lab=TWO_LINES,
    )
    result = project.runpytest("-rs")
    result.assert_outcomes(skipped=12)
    result.stdout.fnmatch_lines(["SKIPPED*no appliance here; plug it in"])
