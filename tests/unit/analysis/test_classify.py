from __future__ import annotations

import pytest
from meshwake.analysis.classify import TELLING, AskScenario, asker, portraits_of_classes, portray
from meshwake.analysis.trial import Trial
from meshwake.core.errors import ExitCode
from meshwake.core.outcome import Verdict
from meshwake.core.versions import BEHAVIOUR_CLASSES

HOLDS, BROKEN, UNKNOWN = Verdict.HOLDS, Verdict.BROKEN, Verdict.UNKNOWN


def answering(behaviour_class: str, **other: Verdict) -> AskScenario:
    """A subject like a class, except in `other`."""
    said = portraits_of_classes()[behaviour_class] | other
    return lambda name, check, seed: Trial("1.99.0", seed, said[name], "as a test says")


@pytest.mark.parametrize("behaviour_class", BEHAVIOUR_CLASSES)
def test_each_class_is_told_from_the_others(behaviour_class: str) -> None:
    """Every class answers in its own way, so what answers like it is of it."""
    portrait = portray(answering(behaviour_class))
    assert portrait.classes == (behaviour_class,)
    assert (portrait.words, portrait.exit_code) == (
        f"behaviour class {behaviour_class}",
        ExitCode.AS_EXPECTED,
    )


def test_releases_of_the_table_answer_like_their_class() -> None:
    """The first and the last of a class that was brought back in between."""
    for version, behaviour_class in (
        ("1.28.5", "D"),
        ("1.29.1", "D"),
        ("1.28.6", "E"),
        ("1.30.3", "E"),
    ):
        portrait = portray(lambda name, check, seed, of=version: asker(name, "model")(of, seed))  # type: ignore[misc]
        assert portrait.classes == (behaviour_class,)


def test_what_told_nothing_leaves_several_classes() -> None:
    """UNKNOWN is no answer: it takes no class away."""
    portrait = portray(answering("E", new_authority_root=UNKNOWN))
    assert portrait.classes == ("D", "E")
    assert portrait.words == "behaviour class D or E: new_authority_root told nothing"
    assert portrait.to_json()["class"] is None
    assert portrait.exit_code is ExitCode.UNKNOWN


def test_a_cured_fault_makes_a_new_class() -> None:
    """A binary that keeps time over a sleep is like none, and the answers that make it new are
    named."""
    portrait = portray(answering("E", lifetime_asked_for=HOLDS, ztunnel_1481=HOLDS))
    assert portrait.classes == ()
    assert (
        portrait.words == "a new class: like E, except lifetime_asked_for HOLDS, ztunnel_1481 HOLDS"
    )
    assert portrait.exit_code is ExitCode.SURPRISE


def test_an_answer_that_no_class_has_is_asked_again() -> None:
    """What is said only once is flaky, and takes no class away."""
    asked = []

    def ask(name: str, check: str, seed: int) -> Trial:
        asked.append((name, seed))
        said = portraits_of_classes()["C"][name]
        return Trial(
            "1.99.0", seed, HOLDS if name == "lifetime_asked_for" and seed == 0 else said, ""
        )

    portrait = portray(ask)
    assert portrait.classes == ("C",)
    assert [name for name, seed in asked if seed == 1] == ["lifetime_asked_for"]


def test_every_telling_scenario_tells() -> None:
    """None stands there for nothing: each divides the classes."""
    for name in TELLING:
        assert {portrait[name] for portrait in portraits_of_classes().values()} == {HOLDS, BROKEN}
