from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshwake.analysis.attempt import Attempt, ScenarioExperiment
from meshwake.analysis.bisect import Bisect, BisectRequest, BisectResult, check_request
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.outcome import Verdict
from meshwake.core.scenario import read_scenario
from meshwake.core.versions import minor_of
from meshwake.runner.corpus import scenario_file
from packaging.version import Version

ROWS = tuple(f"1.{minor}.{patch}" for minor in range(18, 24) for patch in range(5))
HOLDS, BROKEN, UNKNOWN = Verdict.HOLDS, Verdict.BROKEN, Verdict.UNKNOWN
Says = Callable[[str, int], Verdict]


def search(
    says: Says, good: str = "1.23.4", bad: str = "1.18.0", jobs: int = 1, **more: object
) -> BisectResult:
    """A bisect over ROWS whose versions answer what `says`."""
    return bisect_of(says, good, bad, jobs, **more).run()


def bisect_of(says: Says, good: str, bad: str, jobs: int, **more: object) -> Bisect:
    question = BisectRequest(
        "a", "traffic_flows", "model", good, bad, bool(more.pop("claimed", True))
    )
    older, newer = sorted((good, bad), key=Version)
    rows = tuple(row for row in ROWS if Version(older) <= Version(row) <= Version(newer))

    def ask(version: str, seed: int) -> Attempt:
        verdict = says(version, seed)
        return Attempt(version, seed, verdict, f"it is {verdict}")

    return Bisect(question, ask, jobs, rows=rows, **more)  # type: ignore[arg-type]  # what a test adds


def since(first: str) -> Says:
    """Good from `first` on."""
    return lambda version, seed: HOLDS if Version(version) >= Version(first) else BROKEN


@settings(deadline=None)
@given(first=st.sampled_from(ROWS[1:]), jobs=st.integers(1, 5))
def test_the_first_good_version_is_found_wherever_it_is(first: str, jobs: int) -> None:
    """A change that stays: whatever the number of versions that are run at a time."""
    found = search(since(first), jobs=jobs)
    assert found.first == first
    assert found.exit_code is ExitCode.AS_EXPECTED
    assert found.boundaries[0].last_old == ROWS[ROWS.index(first) - 1]


@settings(deadline=None)
@given(first=st.sampled_from(ROWS[1:]))
def test_the_first_bad_version_is_found_as_well(first: str) -> None:
    """The other way round: good below, bad from `first` on."""
    says = since(first)
    found = search(
        lambda v, s: BROKEN if says(v, s) is HOLDS else HOLDS, good="1.18.0", bad="1.23.4"
    )
    assert found.to_json()["first_bad"] == first
    assert found.to_json()["first_good"] is None


@settings(deadline=None)
@given(
    brought_back=st.dictionaries(st.sampled_from(["18", "19", "20", "21"]), st.integers(1, 4)),
    main=st.sampled_from(["1.22.0", "1.23.0"]),
)
def test_what_was_brought_back_to_old_minors_is_found_in_each(
    brought_back: dict[str, int], main: str
) -> None:
    """Releases are not one line: every minor that got the change later has a first version of its
    own."""

    def says(version: str, seed: int) -> Verdict:
        _, minor, patch = version.split(".")
        later = Version(version) >= Version(main)
        return HOLDS if later or int(patch) >= brought_back.get(minor, 99) else BROKEN

    found = search(says)
    expected = {f"1.{minor}": f"1.{minor}.{patch}" for minor, patch in brought_back.items()}
    assert found.to_json()["first_in_minors"] == expected | {minor_of(main): main}
    assert found.first == min([main, *expected.values()], key=Version)
    assert found.exact


def test_few_are_run() -> None:
    """Two ends, four of the line of minors and of one minor's patches, and the last of each older
    minor: not all."""
    assert len(search(since("1.21.0")).tested) <= 10


def test_unknown_is_never_taken_for_good_or_bad() -> None:
    """Where it hides the boundary no first version is named, but those between which it lies."""
    hidden = ("1.20.3", "1.20.4", "1.21.0")
    found = search(lambda v, s: UNKNOWN if v in hidden else since("1.21.1")(v, s))
    assert found.first is None
    assert found.exit_code is ExitCode.UNKNOWN
    result = found.to_json()
    assert result["first_good"] is None
    assert result["candidates"] == [*hidden, "1.21.1"]
    assert "one of 1.20.3, 1.20.4, 1.21.0, 1.21.1" in found.why


def test_unknown_elsewhere_does_no_harm() -> None:
    """A minor whose first release says nothing is still searched."""
    found = search(
        lambda v, s: UNKNOWN if v in ("1.19.0", "1.21.0", "1.22.2") else since("1.20.2")(v, s)
    )
    assert found.first == "1.20.2"


def test_versions_that_cannot_run_are_not_run() -> None:
    """What is known beforehand costs no run, and hides the boundary only where it lies there."""
    ran = []

    def says(version: str, seed: int) -> Verdict:
        ran.append(version)
        return since("1.20.0")(version, seed)

    found = search(
        says,
        impossible=lambda version: (
            None if version in ("1.18.0", "1.19.4", "1.20.0", "1.23.4") else "no"
        ),
    )
    assert found.first == "1.20.0"
    assert set(ran) == {"1.18.0", "1.19.4", "1.20.0", "1.23.4"}


def test_what_cannot_run_has_its_reason_and_what_to_do() -> None:
    """Once for versions with the same; also where the change may lie in them."""
    reasons = {
        "1.19.1": "no binary; meshwake fetch 1.19.1",
        "1.19.2": "no binary; meshwake fetch 1.19.2",
        "1.20.0": "1.20.0 is withdrawn",
    }
    words = "; cannot run here: 1.19.1, 1.19.2 (no binary; meshwake fetch VERSION)"
    none = search(lambda v, s: BROKEN, impossible=reasons.get)
    assert none.why.endswith(f"{words}; cannot run here: 1.20.0 (1.20.0 is withdrawn)")
    between = search(since("1.19.2"), impossible=reasons.get)
    assert between.why.endswith(f"the versions between are UNKNOWN{words}")


def test_an_end_without_a_verdict_is_reported() -> None:
    """Nothing can be narrowed down; but if no version is good, that is reported."""
    found = search(lambda v, s: UNKNOWN if v == "1.18.0" else BROKEN)
    assert found.exit_code is ExitCode.UNKNOWN
    assert "no version is good, as far as they could be run; 1.18.0 is UNKNOWN" in found.why
    mixed = search(lambda v, s: UNKNOWN if v == "1.18.0" else since("1.20.0")(v, s))
    assert "the range that can be run is 1.18.1 to 1.23.4" in mixed.why


def test_no_version_is_good() -> None:
    """Every version is run before that is reported; a good one that was named was wrong."""
    found = search(lambda v, s: BROKEN)
    assert found.why.startswith(
        "no version is good: all 30 that could be run from 1.18.0 to 1.23.4 are BROKEN"
    )
    assert (found.first, found.exit_code) == (None, ExitCode.SURPRISE)
    assert len(found.tested) == len(ROWS)
    assert search(lambda v, s: BROKEN, claimed=False).exit_code is ExitCode.AS_EXPECTED
    assert search(lambda v, s: HOLDS, good="1.18.0", bad="1.23.4").why.startswith(
        "no version is bad"
    )


def test_a_change_that_was_taken_back_is_reported() -> None:
    """Both ends alike, and something else between them: not `no version is good`."""
    found = search(lambda v, s: HOLDS if v == "1.20.2" else BROKEN)
    assert "between them 1.20.2 is not" in found.why
    assert found.exit_code is ExitCode.SURPRISE


def test_swapped_ends_are_reported() -> None:
    """With what to say instead."""
    with pytest.raises(BadInput, match=r"are they swapped\? try --good 1\.23\.4 --bad 1\.18\.0"):
        search(since("1.20.0"), good="1.18.0", bad="1.23.4")


def test_without_a_claim_the_direction_is_what_was_found() -> None:
    """No option says which end is good: good below and bad above is a first bad version."""
    says = since("1.20.0")
    found = search(lambda v, s: BROKEN if says(v, s) is HOLDS else HOLDS, claimed=False)
    assert (found.to_json()["first_bad"], found.to_json()["first_good"]) == ("1.20.0", None)
    assert found.why == "the first bad version is 1.20.0; the last good one before it is 1.19.4"


def test_a_flaky_version_is_repeated_and_reported() -> None:
    """Its verdict varies between runs: neither good nor bad, and the bisect goes on without it."""

    def says(version: str, seed: int) -> Verdict:
        if version == "1.21.0":
            return HOLDS if seed % 2 == 0 else BROKEN
        return since("1.21.1")(version, seed)

    found = search(says)
    observation = next(
        observation for observation in found.tested if observation.version == "1.21.0"
    )
    assert observation.flaky
    assert (
        observation.because
        == "flaky, so neither good nor bad: HOLDS with seed 0, BROKEN with seed 1, HOLDS with "
        "seed 2"
    )
    assert found.first is None
    assert found.to_json()["candidates"] == ["1.21.0", "1.21.1"]


def test_a_flaky_end_does_not_count_as_an_end() -> None:
    """Then there is nothing to search between."""
    found = search(
        lambda v, s: (HOLDS, BROKEN)[s % 2] if v == "1.19.0" else BROKEN,
        good="1.19.0",
        bad="1.18.4",
    )
    assert found.exit_code is ExitCode.UNKNOWN
    assert "1.19.0 is UNKNOWN, which is neither good nor bad: flaky" in found.why


def test_a_run_that_failed_is_tried_again() -> None:
    """Once; what fails twice is UNKNOWN."""
    fails = {"1.20.0": 1, "1.21.0": 9}

    def ask(version: str, seed: int) -> Attempt:
        if fails.get(version, 0) > 0:
            fails[version] -= 1
            return Attempt(version, seed, UNKNOWN, "the run failed", failed=True)
        return Attempt(version, seed, since("1.20.0")(version, seed), "")

    bisect = Bisect(
        BisectRequest("a", "traffic_flows", "model", "1.23.4", "1.18.0"), ask, rows=ROWS
    )
    found = bisect.run()
    assert found.first == "1.20.0"
    assert bisect.observed["1.20.0"].verdict is HOLDS


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("1.28.0", "1.28.0", "are both 1.28.0"),
        ("1.99.0", "1.28.0", "--good 1.99.0: has no row"),
        ("1.28.0", "latest", "invalid value 'latest' for --bad"),
    ],
)
def test_a_question_without_a_range_is_refused(good: str, bad: str, words: str) -> None:
    """Same version, unknown version, no version."""
    with pytest.raises(BadInput, match=words):
        check_request(BisectRequest("a", "traffic_flows", "model", good, bad))


# The changes that really happened, over every row of the table, on the model.

KEYS = [
    ("retry_waits_grow", "renewals_on_time", {"1.22": "1.22.0"}),
    ("retry_of_each_identity", "renewals_on_time", {"1.24": "1.24.0"}),
    ("ca_away_at_renewal", "valid_certificate_kept", {"1.28": "1.28.0"}),
    (
        "new_authority_root",
        "renewals_on_time",
        {"1.28": "1.28.6", "1.29": "1.29.2", "1.30": "1.30.0"},
    ),
]


def on_the_model(scenario: str, check: str, good: str, bad: str) -> BisectResult:
    read = read_scenario(scenario_file(scenario))
    experiment = ScenarioExperiment(read, check, "model")
    question = BisectRequest(read.name, check, "model", good, bad)
    return Bisect(question, experiment, impossible=experiment.impossible).run()


@pytest.mark.slow(reason="runs every release")
@pytest.mark.parametrize(("scenario", "check", "first"), KEYS, ids=[key[0] for key in KEYS])
def test_answer_keys(scenario: str, check: str, first: dict[str, str]) -> None:
    """Each change is found where the source has it."""
    found = on_the_model(scenario, check, good="1.31.0-rc.0", bad="1.18.0")
    assert found.to_json()["first_in_minors"] == first
    assert found.to_json()["first_good"] == next(iter(first.values()))
    assert found.exit_code is ExitCode.AS_EXPECTED


def test_the_lifetime_that_is_requested() -> None:
    """The other direction: SECRET_TTL has an effect from 1.21 on, and a short one breaks."""
    found = on_the_model(
        "lifetime_asked_for", "no_expired_certificate_served", good="1.18.0", bad="1.31.0-rc.0"
    )
    assert found.to_json()["first_bad"] == "1.21.0"


@pytest.mark.slow(reason="runs every release")
def test_for_the_fault_itself_no_version_is_good() -> None:
    """istio/ztunnel#1481, over every row."""
    found = on_the_model(
        "one_long_suspend", "no_expired_certificate_served", good="1.31.0-rc.0", bad="1.18.0"
    )
    assert found.why.startswith("no version is good")
    assert found.to_json()["first_good"] is None
    rows = [row.version for row in versions.between("1.18.0", "1.31.0-rc.0") if row.classified]
    assert [
        observation.version for observation in found.tested if observation.verdict is BROKEN
    ] == rows
