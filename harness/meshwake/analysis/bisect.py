"""Since which release? The first version whose answer is another than that of its forerunners.

Releases are not one line: 1.28.6 is younger than 1.29.1; changes are brought back to old minors. So
it is looked for on the line of the first releases of each minor, then in every older minor whose
newest release has the change too. Within one line the search is binary, several versions at a time
where the machine allows.

    good    the check HOLDS          bad    it is BROKEN
    UNKNOWN is neither: such a version is left out, and where it hides the boundary the answer says between which two
    flaky   the versions on both sides of the boundary are run again with other seeds; one that answers now so, now so,
            is UNKNOWN from then on, is told, and the search goes on without it

Limits: a change that was made and taken back within one line is not seen unless one of the versions
asked shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from packaging.version import Version

from meshwake.analysis.attempt import Attempt, RunAttempt
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.outcome import Verdict
from meshwake.core.versions import minor_of

TRIES_AFTER_A_FAILURE = 1


@dataclass(frozen=True)
class BisectRequest:
    """What is asked. `good`, `bad`: what a person believes of the two ends of the range; `claimed`
    False: nobody said so, they are the ends of the table. `repeat`: how often the two sides of the
    boundary are run."""

    scenario: str
    check: str
    lab: str
    good: str
    bad: str
    claimed: bool = True
    repeat: int = 3
    seed: int = 0

    @property
    def wants_good(self) -> bool:
        """Whether the first good version is looked for, and not the first bad one."""
        return Version(self.good) > Version(self.bad)

    @property
    def ends(self) -> tuple[str, str]:
        """The older and the newer end."""
        return (self.bad, self.good) if self.wants_good else (self.good, self.bad)


@dataclass
class Observation:
    """All that was observed of one version."""

    version: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def flaky(self) -> bool:
        """Whether it answered now so, now so; runs that failed say nothing."""
        return len({attempt.verdict for attempt in self.attempts if not attempt.failed}) > 1

    @property
    def verdict(self) -> Verdict:
        """What it says; UNKNOWN when it cannot be relied on."""
        observed = [attempt.verdict for attempt in self.attempts if not attempt.failed]
        return observed[0] if observed and not self.flaky else Verdict.UNKNOWN

    @property
    def because(self) -> str:
        """Why, in one sentence."""
        if self.flaky:
            said = ", ".join(
                f"{attempt.verdict} with seed {attempt.seed}" for attempt in self.attempts
            )
            return f"flaky, so neither good nor bad: {said}"
        return next(
            (attempt for attempt in self.attempts if not attempt.failed), self.attempts[-1]
        ).because

    def to_json(self) -> dict[str, Any]:
        """As `meshwake bisect --json` prints it."""
        shown = next(
            (attempt for attempt in self.attempts if not attempt.failed), self.attempts[-1]
        )
        return {
            "version": self.version,
            "verdict": self.verdict.value,
            "evidence": {"because": self.because, "places": list(shown.places), "run": shown.run},
            "flaky": self.flaky,
            "runs": [
                {"seed": one.seed, "verdict": one.verdict.value, "run": one.run}
                for one in self.attempts
            ],
        }


@dataclass(frozen=True)
class Boundary:
    """Where one line changes: the last version of the old kind, the first of the new, and what lies
    between them that could not be asked."""

    last_old: str
    first_new: str
    undecided: tuple[str, ...] = ()


@dataclass(frozen=True)
class BisectResult:
    """The answer. `boundaries`: one for each line that has the change, oldest first; none: `why`
    says why not."""

    question: BisectRequest
    tested: tuple[Observation, ...]
    boundaries: tuple[Boundary, ...]
    why: str
    exit_code: ExitCode

    @property
    def exact(self) -> bool:
        """Whether no version that could not be asked hides the first boundary."""
        return bool(self.boundaries) and not self.boundaries[0].undecided

    @property
    def first(self) -> str | None:
        """The first version of the new kind, when that is certain."""
        return self.boundaries[0].first_new if self.exact else None

    def to_json(self) -> dict[str, Any]:
        """As `meshwake bisect --json` prints it (docs/bisect.md)."""
        question, wants_good = self.question, self.question.wants_good
        last = self.boundaries[0].last_old if self.exact else None
        return {
            "scenario": question.scenario,
            "check": question.check,
            "lab": question.lab,
            "good": question.good,
            "bad": question.bad,
            "first_good": self.first if wants_good else None,
            "first_bad": None if wants_good else self.first,
            "last_bad": last if wants_good else None,
            "last_good": None if wants_good else last,
            "first_in_minors": {
                minor_of(each.first_new): each.first_new for each in self.boundaries
            },
            "candidates": []
            if self.exact or not self.boundaries
            else candidates(self.boundaries[0]),
            "exact": self.exact,
            "answer": self.why,
            "exit_code": int(self.exit_code),
            "tested": [observation.to_json() for observation in self.tested],
        }


def candidates(boundary: Boundary) -> list[str]:
    """The versions of which any may be the first."""
    return [*boundary.undecided, boundary.first_new]


def check_request(question: BisectRequest) -> None:
    """Raises BadInput when there is nothing to search between."""
    for option, version in (("--good", question.good), ("--bad", question.bad)):
        if not versions.has_row(versions.find(version, option).version):
            raise BadInput(
                f"{option} {version}: has no row in clusters/versions.toml, so nothing lies between"
            )
    if Version(question.good) == Version(question.bad):
        raise BadInput(
            f"--good and --bad are both {question.good}; give two versions with something "
            "between them"
        )


@dataclass
class Bisect:
    """Carries out one question over the rows of the table. `report` hears of each version as it
    answers; `impossible` says without a run why a version cannot be asked here."""

    question: BisectRequest
    ask: RunAttempt
    jobs: int = 1
    report: Callable[[Observation], None] = lambda observation: None
    impossible: Callable[[str], str | None] = lambda version: None
    rows: tuple[str, ...] = ()
    observed: dict[str, Observation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            check_request(self.question)
            self.rows = tuple(row.version for row in versions.between(*self.question.ends))
        for row in self.rows:
            if (why := self.impossible(row)) is not None:
                attempt = Attempt(
                    row,
                    self.question.seed,
                    Verdict.UNKNOWN,
                    f"cannot run here: {why}",
                    possible=False,
                )
                self.observed[row] = Observation(row, [attempt])

    @property
    def possible(self) -> list[str]:
        """The versions that can be asked on this lab and machine."""
        return [
            row
            for row in self.rows
            if row not in self.observed or self.observed[row].attempts[0].possible
        ]

    def run(self) -> BisectResult:
        """The answer. Raises BadInput when the two ends are the wrong way round."""
        self._hear(self.rows[0], self.rows[-1])
        while True:
            older, newer = (self.observed[end].verdict for end in (self.rows[0], self.rows[-1]))
            if Verdict.UNKNOWN in (older, newer):
                return self._without_ends()
            if older is newer:
                return self._one_kind(older)
            self._mind_direction(older)
            boundaries = self._boundaries()
            if self._confirmed(boundaries):
                return self._found(boundaries)

    # Asking

    def _hear(self, *wanted: str) -> None:
        """Asks those of `wanted` that have not answered yet, `jobs` at a time."""
        new = [version for version in dict.fromkeys(wanted) if version not in self.observed]
        if self.jobs > 1 and len(new) > 1:
            with ThreadPoolExecutor(self.jobs) as pool:
                answered = list(pool.map(self._ask_first, new))
        else:
            answered = [self._ask_first(version) for version in new]
        for observation in answered:
            self.observed[observation.version] = observation
            self.report(observation)

    def _ask_first(self, version: str) -> Observation:
        observation = Observation(version, [self.ask(version, self.question.seed)])
        for number in range(1, TRIES_AFTER_A_FAILURE + 1):
            if observation.attempts[-1].failed:
                observation.attempts.append(self.ask(version, self.question.seed + number))
        return observation

    def _confirmed(self, boundaries: Sequence[Boundary]) -> bool:
        """Runs the two sides of every boundary again; False when one of them turned out to be
        flaky."""
        sides = list(
            dict.fromkeys(side for each in boundaries for side in (each.last_old, each.first_new))
        )
        again = [(side, seed) for side in sides for seed in self._seeds_left(side)]
        if not again:
            return True
        with ThreadPoolExecutor(max(self.jobs, 1)) as pool:
            attempts = list(pool.map(lambda asked: self.ask(*asked), again))
        for attempt in attempts:
            self.observed[attempt.version].attempts.append(attempt)
        flaky = [self.observed[side] for side in sides if self.observed[side].flaky]
        for observation in flaky:
            self.report(observation)
        return not flaky

    def _seeds_left(self, version: str) -> list[int]:
        done = self.observed[version].attempts
        first = max(attempt.seed for attempt in done) + 1
        return list(
            range(first, first + self.question.repeat - sum(not attempt.failed for attempt in done))
        )

    # Searching. `line`: versions that can be asked here, in order, the first of the old kind, the
    # last of the new.

    def _is_new(self, version: str) -> bool:
        self._hear(version)
        return self.observed[version].verdict is self.observed[self.rows[-1]].verdict

    def _is_old(self, version: str) -> bool:
        self._hear(version)
        return self.observed[version].verdict is self.observed[self.rows[0]].verdict

    def _answers(self, version: str) -> bool:
        self._hear(version)
        return self.observed[version].verdict is not Verdict.UNKNOWN

    def _boundaries(self) -> list[Boundary]:
        """On the line of first releases, and in each older minor that has the change too; oldest
        first."""
        old, new = self._search(self._first_of_each_minor())
        if minor_of(old) == minor_of(new):
            return [
                *self._brought_back(minor_of(new)),
                self._within(*self._search(self._from_to(old, new))),
            ]
        # The first release of a minor may have said nothing; then its later ones are asked too.
        middle = [row for row in self._from_to(old, new)[1:-1] if minor_of(row) != minor_of(old)]
        old, new = self._search([old, *middle, new])
        return [*self._brought_back(minor_of(new)), self._after_tail(old, new)]

    def _after_tail(self, old: str, new: str) -> Boundary:
        """The boundary between the minor of `old` and `new`: its last old release is the last one
        of that minor, or that before the change was brought back to it."""
        tail = [row for row in self._from_to(old, new)[:-1] if minor_of(row) == minor_of(old)]
        last = next(row for row in reversed(tail) if self._answers(row))
        if self._is_old(last):
            return self._within(last, new)
        last_old, brought_back = self._search(tail[: tail.index(last) + 1])
        hidden = [
            row for row in self._within(last_old, new).undecided if minor_of(row) != minor_of(old)
        ]
        return Boundary(last_old, new, (*self._within(last_old, brought_back).undecided, *hidden))

    def _brought_back(self, minor: str) -> list[Boundary]:
        """The boundaries in the minors before `minor`, wherever the last release that answers is
        new."""
        found = []
        for older in dict.fromkeys(map(minor_of, self.possible)):
            if versions.parse_version(older) >= versions.parse_version(minor):
                break
            line = [row for row in self.possible if minor_of(row) == older]
            last = next((row for row in reversed(line) if self._answers(row)), None)
            if last is None or self._is_old(last):
                continue
            first = next(row for row in line if self._answers(row))
            if self._is_old(first):
                found.append(
                    self._within(*self._search(line[line.index(first) : line.index(last) + 1]))
                )
        return found

    def _search(self, line: Sequence[str]) -> tuple[str, str]:
        """The last old version on `line` and the first new one after it."""
        low, high = 0, len(line) - 1
        while open_ := [at for at in range(low + 1, high) if not self._is_unknown(line[at])]:
            chosen = _spread(open_, self.jobs)
            self._hear(*(line[at] for at in chosen))
            new = [at for at in chosen if self._is_new(line[at])]
            high = min([high, *new])
            low = max([low, *(at for at in chosen if at < high and self._is_old(line[at]))])
        return line[low], line[high]

    def _is_unknown(self, version: str) -> bool:
        return version in self.observed and self.observed[version].verdict is Verdict.UNKNOWN

    def _from_to(self, first: str, last: str) -> list[str]:
        return [row for row in self.possible if Version(first) <= Version(row) <= Version(last)]

    def _within(self, old: str, new: str) -> Boundary:
        """The boundary with everything in it that was not observed, or said nothing."""
        return Boundary(
            old, new, tuple(row for row in self.rows if Version(old) < Version(row) < Version(new))
        )

    def _first_of_each_minor(self) -> list[str]:
        """The line on which minors follow one another: the first of each, and the end of the range."""
        line = list({minor_of(row): row for row in reversed(self.possible)}.values())[::-1]
        return line if line[-1] == self.possible[-1] else [*line, self.possible[-1]]

    # Answering

    def _mind_direction(self, older: Verdict) -> None:
        """What a person said of the two ends must be so; where nobody said anything, it is what was
        found."""
        question, found_good = (
            self.question,
            self.rows[0] if older is Verdict.HOLDS else self.rows[-1],
        )
        if Version(found_good) == Version(question.good):
            return
        if not question.claimed:
            self.question = replace(question, good=question.bad, bad=question.good)
            return
        raise BadInput(
            f"--good {question.good} is BROKEN and --bad {question.bad} HOLDS: are they swapped? "
            f"say --good {question.bad} --bad {question.good}"
        )

    def _without_ends(self) -> BisectResult:
        """An end says nothing, so nothing can be narrowed down; whether any version is good can
        still be said."""
        self._hear(*self.rows)
        unknown = [
            end
            for end in (self.rows[0], self.rows[-1])
            if self.observed[end].verdict is Verdict.UNKNOWN
        ]
        kinds = {self.observed[row].verdict for row in self.rows} - {Verdict.UNKNOWN}
        why = (
            f"{unknown[0]} is UNKNOWN, which is neither good nor bad: "
            f"{self.observed[unknown[0]].because}"
        )
        if len(kinds) == 1:
            why = f"{_none_of(kinds.pop())}, as far as they could be asked; {why}"
        elif kinds:
            told = [row for row in self.rows if self.observed[row].verdict is not Verdict.UNKNOWN]
            why += f"; the range that can be asked is {told[0]} to {told[-1]}"
        return self._answer((), why, ExitCode.UNKNOWN)

    def _one_kind(self, kind: Verdict) -> BisectResult:
        """Both ends are of one kind: then every version is asked before it is said of all."""
        self._hear(*self.rows)
        others = [
            row for row in self.rows if self.observed[row].verdict not in (kind, Verdict.UNKNOWN)
        ]
        unknown = [row for row in self.rows if self.observed[row].verdict is Verdict.UNKNOWN]
        if others:
            both = f"both ends, {self.rows[0]} and {self.rows[-1]}, are {kind}"
            words = (
                f"{both}, and between them {_listed(others)} "
                f"{'is' if len(others) == 1 else 'are'} not"
            )
            return self._answer((), f"{words}; narrow the range to one change", ExitCode.SURPRISE)
        asked = len(self.rows) - len(unknown)
        why = (
            f"{_none_of(kind)}: all {asked} that could be asked from {self.rows[0]} to "
            f"{self.rows[-1]} are {kind}"
        )
        silent = [row for row in unknown if self.observed[row].attempts[0].possible]
        if silent:
            why += f"; UNKNOWN: {_listed(silent)}"
        if len(silent) < len(unknown):
            why += f"; cannot run here: {_listed([row for row in unknown if row not in silent])}"
        return self._answer((), why, self._code_of_none(unknown))

    def _code_of_none(self, unknown: Sequence[str]) -> ExitCode:
        """A person who named a good version was wrong; one who did not has an answer, if all were
        asked. A version that cannot run here at all leaves nothing open that was asked of this
        machine."""
        if self.question.claimed:
            return ExitCode.SURPRISE
        open_ = [
            row
            for row in unknown
            if any(attempt.possible for attempt in self.observed[row].attempts)
        ]
        return ExitCode.UNKNOWN if open_ else ExitCode.AS_EXPECTED

    def _found(self, boundaries: Sequence[Boundary]) -> BisectResult:
        first, kind = boundaries[0], "good" if self.question.wants_good else "bad"
        other = "bad" if self.question.wants_good else "good"
        if first.undecided:
            why = (
                f"the first {kind} version is one of {_listed(candidates(first))}: "
                f"{first.last_old} is {other}, "
                f"{first.first_new} is {kind}, and what lies between says nothing"
            )
            return self._answer(boundaries, why, ExitCode.UNKNOWN)
        why = (
            f"the first {kind} version is {first.first_new}; the last {other} one before it is "
            f"{first.last_old}"
        )
        for boundary in boundaries[1:]:
            minor = minor_of(boundary.first_new)
            in_minor = (
                f"one of {_listed(candidates(boundary))}"
                if boundary.undecided
                else boundary.first_new
            )
            why += f"; in {minor} it is {in_minor} (up to {boundary.last_old} {other})"
        return self._answer(boundaries, why, ExitCode.AS_EXPECTED)

    def _answer(self, boundaries: Iterable[Boundary], why: str, code: ExitCode) -> BisectResult:
        tested = tuple(
            sorted(self.observed.values(), key=lambda observation: Version(observation.version))
        )
        return BisectResult(self.question, tested, tuple(boundaries), why, code)


def _spread(positions: Sequence[int], count: int) -> list[int]:
    """`count` of `positions` that cut them into parts of one size; the middle one for 1."""
    parts = min(count, len(positions)) + 1
    return sorted({positions[len(positions) * part // parts] for part in range(1, parts)})


def _none_of(kind: Verdict) -> str:
    return "no version is good" if kind is Verdict.BROKEN else "no version is bad"


def _listed(rows: Sequence[str]) -> str:
    if len(rows) <= 6:
        return ", ".join(rows)
    return f"{', '.join(rows[:3])} ... {rows[-1]} ({len(rows)} versions)"
