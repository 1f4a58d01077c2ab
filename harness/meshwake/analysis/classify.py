"""Finds the behaviour class of a subject by what it does, never by its number.

A few scenarios distinguish the classes: in each, one check HOLDS for some and is BROKEN for others.
The verdicts of a class come from the model, those of the subject from its binary; a subject is of
the class whose verdicts it has. One that has those of no class is a new class, and the verdicts
that make it new are named. UNKNOWN distinguishes nothing: then several classes may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from meshwake.analysis.attempt import Attempt, ScenarioExperiment
from meshwake.core import versions
from meshwake.core.errors import ExitCode, HarnessFault
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Verdict
from meshwake.core.scenario import read_scenario
from meshwake.runner.corpus import scenario_file

# scenario -> the check that distinguishes, and what its verdict means.
CLASSIFYING: dict[str, tuple[str, str]] = {
    "lifetime_asked_for": (
        "no_expired_certificate_served",
        "asks for 24 h whatever SECRET_TTL says",
    ),
    "retry_waits_grow": ("renewals_on_time", "waits between retries grow"),
    "retry_of_each_identity": ("renewals_on_time", "each identity has a backoff of its own"),
    "ca_away_at_renewal": (
        "valid_certificate_kept",
        "a valid certificate is kept when a renewal fails",
    ),
    "new_authority_root": ("renewals_on_time", "the authority's root is read again"),
    "ztunnel_1481": ("recovers_within", "renewals do not forget time asleep (istio/ztunnel#1481)"),
}
SEEDS = (0, 1)
Verdicts = Mapping[str, Verdict]
RunScenario = Callable[[str, str, int], Attempt]  # scenario, check, seed


@dataclass(frozen=True)
class BehaviourSignature:
    """The verdicts of a subject, scenario by scenario, and the classes with the same ones. Where
    there is none, `nearest` are the classes with the fewest differences, and `new_in` these."""

    attempts: Mapping[str, tuple[Attempt, ...]]
    classes: tuple[str, ...]
    nearest: tuple[str, ...] = ()
    new_in: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0 when one class is left, 1 when it is a new one, 2 when several are."""
        if not self.classes:
            return ExitCode.SURPRISE
        if len(self.classes) > 1:
            return ExitCode.UNKNOWN
        return ExitCode.AS_EXPECTED

    @property
    def words(self) -> str:
        """The result in one sentence."""
        if len(self.classes) == 1:
            return f"behaviour class {self.classes[0]}"

        if not self.classes:
            news = ", ".join(f"{name} {self.verdict(name)}" for name in self.new_in)
            return f"a new class: like {' or '.join(self.nearest)}, except {news}"

        # Several are left only where a scenario that distinguishes them has no verdict.
        unknown = [name for name in self.attempts if self.verdict(name) is Verdict.UNKNOWN]
        return f"behaviour class {' or '.join(self.classes)}: {', '.join(unknown)} UNKNOWN"

    def verdict(self, scenario: str) -> Verdict:
        """Its verdict there; UNKNOWN when it varies between runs."""
        observed = {attempt.verdict for attempt in self.attempts[scenario]}
        if len(observed) != 1:
            return Verdict.UNKNOWN
        return observed.pop()

    def to_json(self) -> MutableJsonObject:
        """As `meshwake probe --json` prints it."""
        # A class that is certain; several, or a new one, are in the lists below.
        only = None
        if len(self.classes) == 1:
            only = self.classes[0]

        return {
            "class": only,
            "classes": list(self.classes),
            "nearest": list(self.nearest),
            "new_in": list(self.new_in),
            "answer": self.words,
            "exit_code": int(self.exit_code),
            "tested": [self._tested(name) for name in self.attempts],
        }

    def _tested(self, scenario: str) -> MutableJsonObject:
        """What was seen in one scenario, next to what each class does there."""
        first = self.attempts[scenario][0]
        by_class = {
            behaviour_class: known[scenario].value
            for behaviour_class, known in signatures_of_classes().items()
        }

        return {
            "scenario": scenario,
            "check": CLASSIFYING[scenario][0],
            "verdict": self.verdict(scenario).value,
            "evidence": {"because": first.because, "run": first.run},
            "by_class": by_class,
        }


def observe_signature(run: RunScenario) -> BehaviourSignature:
    """Runs every distinguishing scenario. A run that failed is repeated once, and so are those
    whose verdicts no class has."""
    attempts: dict[str, tuple[Attempt, ...]] = {}
    for name, (check, _) in CLASSIFYING.items():
        attempt = run(name, check, SEEDS[0])
        # A failure says nothing of the subject: it is replaced, and does not count as a verdict.
        if attempt.failed:
            attempt = run(name, check, SEEDS[1])
        attempts[name] = (attempt,)

    # A class that is new, or a run that was unlucky? Only what differs is run again.
    if not _like(_verdicts(attempts)):
        _, differing = _nearest(_verdicts(attempts))
        for name in differing:
            again = run(name, CLASSIFYING[name][0], SEEDS[1])
            attempts[name] = (*attempts[name], again)

    verdicts = _verdicts(attempts)
    classes = tuple(_like(verdicts))
    if classes:
        return BehaviourSignature(attempts, classes)

    nearest, new_in = _nearest(verdicts)
    return BehaviourSignature(attempts, (), nearest, new_in)


def _verdicts(attempts: Mapping[str, tuple[Attempt, ...]]) -> dict[str, Verdict]:
    bare = BehaviourSignature(attempts, ())
    return {name: bare.verdict(name) for name in attempts}


def _like(verdicts: Verdicts) -> list[str]:
    """The classes that these verdicts do not contradict."""
    like = []
    for behaviour_class, known in signatures_of_classes().items():
        differing = list(_differences(verdicts, known))
        if not differing:
            like.append(behaviour_class)
    return like


def _differences(verdicts: Verdicts, known: Verdicts) -> Iterator[str]:
    for name, verdict in verdicts.items():
        expected = known[name]
        # UNKNOWN contradicts nothing: it leaves both classes possible.
        if Verdict.UNKNOWN in (verdict, expected):
            continue
        if verdict is not expected:
            yield name


def _nearest(verdicts: Verdicts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes with the fewest differences, and those differences."""
    differences = {
        behaviour_class: tuple(_differences(verdicts, known))
        for behaviour_class, known in signatures_of_classes().items()
    }
    fewest = min(len(names) for names in differences.values())
    near = tuple(each for each, names in differences.items() if len(names) == fewest)

    # Where several are as near, the differences are those of the last of BEHAVIOUR_CLASSES.
    return near, differences[near[-1]]


@cache
def signatures_of_classes() -> dict[str, dict[str, Verdict]]:
    """The verdicts of the model for each class. Raises HarnessFault when two classes have the
    same."""
    signatures = {}
    for behaviour_class in versions.BEHAVIOUR_CLASSES:
        # Any release of the class: the model goes by the class, the expectations are not compared.
        row = next(row for row in versions.releases() if row.behaviour_class == behaviour_class)

        verdicts = {}
        for name in CLASSIFYING:
            attempt = experiment(name, "model")(row.version, SEEDS[0])
            verdicts[name] = attempt.verdict
        signatures[behaviour_class] = verdicts

    # Then the scenarios no longer distinguish them, and every answer would be one of two.
    distinct = {tuple(signature.values()) for signature in signatures.values()}
    if len(distinct) != len(signatures):
        raise HarnessFault(
            "two behaviour classes have the same verdicts in all distinguishing scenarios; see "
            "harness/meshwake/analysis/classify.py"
        )
    return signatures


def experiment(name: str, lab: str) -> ScenarioExperiment:
    """Runs the distinguishing scenario `name` on `lab`, of the releases."""
    check, _ = CLASSIFYING[name]
    scenario = read_scenario(scenario_file(name))

    # Many runs for one answer: what each of them recorded is of no further use.
    return ScenarioExperiment(scenario, check, lab, keep=False)
