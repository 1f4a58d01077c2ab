"""Which class is it? A release comes into a class by what it does, never by its number.

A few scenarios tell the classes apart: in each, one check HOLDS for some and is BROKEN for others.
What a class answers is asked of the model, what the subject answers of the binary; a subject that
answers like one class is of that class. What answers like none is a new class, and the answers that
make it new are named. UNKNOWN tells nothing: then several classes may be left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from meshwake.analysis.trial import ScenarioAsker, Trial
from meshwake.core import versions
from meshwake.core.errors import ExitCode, HarnessFault
from meshwake.core.outcome import Verdict
from meshwake.core.scenario import read_scenario
from meshwake.runner.corpus import scenario_file

# scenario -> the check that tells, and what a person reads of it.
TELLING: dict[str, tuple[str, str]] = {
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
Answers = Mapping[str, Verdict]
AskScenario = Callable[[str, str, int], Trial]  # scenario, check, seed


@dataclass(frozen=True)
class Portrait:
    """What a subject answered, scenario by scenario, and the classes that answer so. `new_in`: the
    answers that no class has beside the others, when it is like none."""

    trials: Mapping[str, tuple[Trial, ...]]
    classes: tuple[str, ...]
    nearest: tuple[str, ...] = ()
    new_in: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0 when one class is left, 1 when it is a new one, 2 when several are."""
        if not self.classes:
            return ExitCode.SURPRISE
        return ExitCode.AS_EXPECTED if len(self.classes) == 1 else ExitCode.UNKNOWN

    @property
    def words(self) -> str:
        """The answer in one sentence."""
        if len(self.classes) == 1:
            return f"behaviour class {self.classes[0]}"
        if not self.classes:
            news = ", ".join(f"{name} {self.verdict(name)}" for name in self.new_in)
            return f"a new class: like {' or '.join(self.nearest)}, except {news}"
        unknown = [name for name in self.trials if self.verdict(name) is Verdict.UNKNOWN]
        return f"behaviour class {' or '.join(self.classes)}: {', '.join(unknown)} told nothing"

    def verdict(self, scenario: str) -> Verdict:
        """What it answered there; UNKNOWN when it answered now so, now so."""
        heard = {trial.verdict for trial in self.trials[scenario]}
        return heard.pop() if len(heard) == 1 else Verdict.UNKNOWN

    def to_json(self) -> dict[str, Any]:
        """As `meshwake probe --json` prints it."""
        return {
            "class": self.classes[0] if len(self.classes) == 1 else None,
            "classes": list(self.classes),
            "nearest": list(self.nearest),
            "new_in": list(self.new_in),
            "answer": self.words,
            "exit_code": int(self.exit_code),
            "tested": [
                {
                    "scenario": name,
                    "check": TELLING[name][0],
                    "verdict": self.verdict(name).value,
                    "evidence": {"because": trials[0].because, "run": trials[0].run},
                    "by_class": {
                        each: known[name].value for each, known in portraits_of_classes().items()
                    },
                }
                for name, trials in self.trials.items()
            ],
        }


def portray(ask: AskScenario) -> Portrait:
    """Asks every telling scenario. A run that failed is asked once more, and so is what no class
    would answer."""
    trials: dict[str, tuple[Trial, ...]] = {}
    for name, (check, _) in TELLING.items():
        trials[name] = (ask(name, check, SEEDS[0]),)
        if trials[name][0].failed:
            trials[name] = (ask(name, check, SEEDS[1]),)
    if not _like(_answers(trials)):
        for name in _nearest(_answers(trials))[1]:
            trials[name] = (*trials[name], ask(name, TELLING[name][0], SEEDS[1]))
    answers = _answers(trials)
    classes = tuple(_like(answers))
    return Portrait(trials, classes) if classes else Portrait(trials, (), *_nearest(answers))


def _answers(trials: Mapping[str, tuple[Trial, ...]]) -> dict[str, Verdict]:
    bare = Portrait(trials, ())
    return {name: bare.verdict(name) for name in trials}


def _like(answers: Answers) -> list[str]:
    return [
        each
        for each, known in portraits_of_classes().items()
        if not list(_differences(answers, known))
    ]


def _differences(answers: Answers, known: Answers) -> Iterator[str]:
    for name, verdict in answers.items():
        if Verdict.UNKNOWN not in (verdict, known[name]) and verdict is not known[name]:
            yield name


def _nearest(answers: Answers) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes with the fewest differences, and those differences."""
    differences = {
        each: tuple(_differences(answers, known)) for each, known in portraits_of_classes().items()
    }
    fewest = min(len(names) for names in differences.values())
    near = tuple(each for each, names in differences.items() if len(names) == fewest)
    return near, differences[near[-1]]


@cache
def portraits_of_classes() -> dict[str, dict[str, Verdict]]:
    """What the model answers for each class. Raises HarnessFault when two classes answer alike."""
    portraits = {}
    for behaviour_class in versions.BEHAVIOUR_CLASSES:
        row = next(row for row in versions.releases() if row.behaviour_class == behaviour_class)
        portraits[behaviour_class] = {
            name: asker(name, "model")(row.version, SEEDS[0]).verdict for name in TELLING
        }
    if len({tuple(portrait.values()) for portrait in portraits.values()}) != len(portraits):
        raise HarnessFault(
            "two behaviour classes answer all telling scenarios alike; see "
            "harness/meshwake/analysis/classify.py"
        )
    return portraits


def asker(name: str, lab: str) -> ScenarioAsker:
    """Asks the telling scenario `name` on `lab`, of the releases."""
    return ScenarioAsker(read_scenario(scenario_file(name)), TELLING[name][0], lab, keep=False)
