from __future__ import annotations

import pytest
from meshwake.analysis.attempt import Attempt
from meshwake.analysis.classify import (
    CLASSIFYING,
    RunScenario,
    experiment,
    observe_signature,
    signatures_of_classes,
)
from meshwake.core.errors import ExitCode
from meshwake.core.outcome import Verdict
from meshwake.core.versions import BEHAVIOUR_CLASSES

HOLDS, BROKEN, UNKNOWN = Verdict.HOLDS, Verdict.BROKEN, Verdict.UNKNOWN


def answering(behaviour_class: str, **other: Verdict) -> RunScenario:
    """A subject like a class, except in `other`."""
    verdicts = signatures_of_classes()[behaviour_class] | other
    return lambda name, check, seed: Attempt("1.99.0", seed, verdicts[name], "as a test says")


@pytest.mark.slow(reason="runs the classifying scenarios on every class")
@pytest.mark.parametrize("behaviour_class", BEHAVIOUR_CLASSES)
def test_each_class_is_distinguished_from_the_others(behaviour_class: str) -> None:
    """Every class answers in its own way, so what answers like it is of it."""
    signature = observe_signature(answering(behaviour_class))
    assert signature.classes == (behaviour_class,)
    assert (signature.words, signature.exit_code) == (
        f"behaviour class {behaviour_class}",
        ExitCode.AS_EXPECTED,
    )


@pytest.mark.slow(reason="runs the classifying scenarios on four releases")
def test_releases_of_the_table_answer_like_their_class() -> None:
    """The first and the last of a class that was brought back in between."""
    for version, behaviour_class in (
        ("1.28.5", "D"),
        ("1.29.1", "D"),
        ("1.28.6", "E"),
        ("1.30.3", "E"),
    ):

        def run(name: str, check: str, seed: int, of: str = version) -> Attempt:
            return experiment(name, "model")(of, seed)

        signature = observe_signature(run)
        assert signature.classes == (behaviour_class,)


def test_a_scenario_without_a_verdict_leaves_several_classes() -> None:
    """UNKNOWN decides nothing: it takes no class away."""
    signature = observe_signature(answering("E", new_authority_root=UNKNOWN))
    assert signature.classes == ("D", "E")
    assert signature.words == "behaviour class D or E: new_authority_root UNKNOWN"
    assert signature.to_json()["class"] is None
    assert signature.exit_code is ExitCode.UNKNOWN


def test_a_cured_fault_makes_a_new_class() -> None:
    """A binary that keeps time over a sleep is like none, and the answers that make it new are
    named."""
    signature = observe_signature(answering("E", lifetime_asked_for=HOLDS, ztunnel_1481=HOLDS))
    assert signature.classes == ()
    assert (
        signature.words
        == "a new class: like E, except lifetime_asked_for HOLDS, ztunnel_1481 HOLDS"
    )
    assert signature.exit_code is ExitCode.SURPRISE


def test_a_verdict_that_no_class_has_is_run_again() -> None:
    """What comes out only once is flaky, and takes no class away."""
    ran = []

    def ask(name: str, check: str, seed: int) -> Attempt:
        ran.append((name, seed))
        verdict = signatures_of_classes()["C"][name]
        return Attempt(
            "1.99.0", seed, HOLDS if name == "lifetime_asked_for" and seed == 0 else verdict, ""
        )

    signature = observe_signature(ask)
    assert signature.classes == ("C",)
    assert [name for name, seed in ran if seed == 1] == ["lifetime_asked_for"]


def test_every_scenario_of_that_folder_divides_the_classes() -> None:
    """None is there for nothing."""
    for name in CLASSIFYING:
        assert {signature[name] for signature in signatures_of_classes().values()} == {
            HOLDS,
            BROKEN,
        }
