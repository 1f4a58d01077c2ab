"""Finds the first release in which a check of a scenario has another verdict than before.

Releases are not one line: 1.28.6 is younger than 1.29.1, and changes are backported to old minors.
So the search first follows the line of the first releases of each minor, then looks into every
older minor whose newest release has the change too. Within one line the search is binary, several
versions at a time where the machine allows.

    good    the check HOLDS          bad    it is BROKEN
    UNKNOWN is neither: such a version is left out; where it hides the boundary, the result names the candidates
    flaky   the versions on both sides of the boundary are run again with other seeds; one whose verdict varies
            is UNKNOWN from then on, is reported, and the search continues without it

Limits: a change that was made and reverted within one line is not found unless one of the versions
that were run shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from packaging.version import Version

from meshwake.analysis.attempt import Attempt, RunAttempt
from meshwake.core import versions
from meshwake.core.errors import BadInput, ExitCode
from meshwake.core.json_types import MutableJsonObject
from meshwake.core.outcome import Verdict
from meshwake.core.versions import minor_of

# A run that failed in its lab has no verdict. One more, not several: what fails twice has a reason.
TRIES_AFTER_A_FAILURE = 1
_CANNOT_RUN = "cannot run here: "


@dataclass(frozen=True)
class BisectRequest:
    """What to search. `good`, `bad`: the two ends of the range; `claimed` False: the user did not
    name them, they are the ends of the table and may be the other way round. `repeat`: how often
    the two sides of the boundary are run."""

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
        """Whether the first good version is wanted, and not the first bad one."""
        return Version(self.good) > Version(self.bad)

    @property
    def ends(self) -> tuple[str, str]:
        """The older and the newer end."""
        return (self.bad, self.good) if self.wants_good else (self.good, self.bad)


@dataclass
class Observation:
    """All runs of one version."""

    version: str
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def flaky(self) -> bool:
        """Whether its verdict varies between runs; runs that failed have none."""
        verdicts = {attempt.verdict for attempt in self._finished}
        return len(verdicts) > 1

    @property
    def verdict(self) -> Verdict:
        """The verdict of its runs; UNKNOWN when it varies, or when all failed."""
        finished = self._finished
        if not finished or self.flaky:
            return Verdict.UNKNOWN

        # Not flaky: all others have the same.
        return finished[0].verdict

    @property
    def because(self) -> str:
        """Why, in one sentence."""
        if not self.flaky:
            return self._shown.because

        # With the seeds, so that each of the runs can be repeated.
        runs = [f"{attempt.verdict} with seed {attempt.seed}" for attempt in self.attempts]
        return f"flaky, so neither good nor bad: {', '.join(runs)}"

    @property
    def _finished(self) -> list[Attempt]:
        """The runs that did not fail."""
        return [attempt for attempt in self.attempts if not attempt.failed]

    @property
    def _shown(self) -> Attempt:
        """The run whose evidence is shown: the first that did not fail."""
        finished = self._finished
        if finished:
            return finished[0]

        # All failed: the last failure is shown.
        return self.attempts[-1]

    def to_json(self) -> MutableJsonObject:
        """As `meshwake bisect --json` prints it."""
        shown = self._shown
        runs = [
            {"seed": one.seed, "verdict": one.verdict.value, "run": one.run}
            for one in self.attempts
        ]
        return {
            "version": self.version,
            "verdict": self.verdict.value,
            "evidence": {
                "because": self.because,
                "places": list(shown.places),
                "run": shown.run,
            },
            "flaky": self.flaky,
            "runs": runs,
        }


@dataclass(frozen=True)
class Boundary:
    """Where one line changes: the last version of the old kind, the first of the new, and the
    versions between them that could not be run or are UNKNOWN."""

    last_old: str
    first_new: str
    undecided: tuple[str, ...] = ()


@dataclass(frozen=True)
class BisectResult:
    """What a search found. `boundaries`: one for each line that has the change, oldest first; where
    there is none, `why` has the reason."""

    question: BisectRequest
    tested: tuple[Observation, ...]
    boundaries: tuple[Boundary, ...]
    why: str
    exit_code: ExitCode

    @property
    def exact(self) -> bool:
        """Whether no undecided version hides the first boundary."""
        return bool(self.boundaries) and not self.boundaries[0].undecided

    @property
    def first(self) -> str | None:
        """The first version of the new kind, when that is certain."""
        return self.boundaries[0].first_new if self.exact else None

    def to_json(self) -> MutableJsonObject:
        """As `meshwake bisect --json` prints it (docs/bisect.md)."""
        question = self.question
        first_in_minors = {minor_of(each.first_new): each.first_new for each in self.boundaries}

        # Of these four keys the two of the other direction stay null: docs/bisect.md has all.
        ends: MutableJsonObject = {
            "first_good": None,
            "first_bad": None,
            "last_bad": None,
            "last_good": None,
        }
        possible_firsts: list[str] = []
        if self.exact:
            new, old = ("good", "bad") if question.wants_good else ("bad", "good")
            ends[f"first_{new}"] = self.boundaries[0].first_new
            ends[f"last_{old}"] = self.boundaries[0].last_old
        elif self.boundaries:
            possible_firsts = candidates(self.boundaries[0])

        return {
            "scenario": question.scenario,
            "check": question.check,
            "lab": question.lab,
            "good": question.good,
            "bad": question.bad,
            **ends,
            "first_in_minors": first_in_minors,
            "candidates": possible_firsts,
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
        # A version newer than all rows is found as well, without a row (core/versions.py).
        found = versions.find(version, option)
        if not versions.has_row(found.version):
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
    """Carries out one search over the rows of the table. `run_once` runs a version with a seed;
    `report` is called with each version when its verdict is known, and again when it turned out to
    be flaky; `impossible` says without a run why a version cannot run here."""

    question: BisectRequest
    run_once: RunAttempt
    jobs: int = 1
    report: Callable[[Observation], None] = lambda observation: None
    impossible: Callable[[str], str | None] = lambda version: None
    rows: tuple[str, ...] = ()
    observed: dict[str, Observation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rows:
            check_request(self.question)
            self.rows = tuple(row.version for row in versions.between(*self.question.ends))

        # Before anything runs, so that the search never chooses one of these as its middle.
        for row in self.rows:
            reason = self.impossible(row)
            if reason is not None:
                self.observed[row] = Observation(row, [self._not_run(row, reason)])

    def _not_run(self, version: str, reason: str) -> Attempt:
        because = f"{_CANNOT_RUN}{reason}"
        return Attempt(version, self.question.seed, Verdict.UNKNOWN, because, possible=False)

    @property
    def possible(self) -> list[str]:
        """The versions that can run on this lab and machine."""
        impossible = self._impossible(self.rows)
        return [row for row in self.rows if row not in impossible]

    def run(self) -> BisectResult:
        """The result. Raises BadInput when the two ends are the wrong way round."""
        oldest, newest = self.rows[0], self.rows[-1]
        self._run_all(oldest, newest)

        # Again where a side of the boundary turned out to be flaky: it is UNKNOWN from then on, and
        # the boundary is somewhere else. Ends, since each turn has one version less.
        while True:
            older, newer = self.observed[oldest].verdict, self.observed[newest].verdict
            if Verdict.UNKNOWN in (older, newer):
                return self._without_ends()
            if older is newer:
                return self._one_kind(older)

            self._check_direction(older)
            boundaries = self._boundaries()
            if self._confirmed(boundaries):
                return self._found(boundaries)

    # --- Running versions

    def _run_all(self, *wanted: str) -> None:
        """Runs those of `wanted` that have not run yet, `jobs` at a time."""
        new = [version for version in dict.fromkeys(wanted) if version not in self.observed]
        if self.jobs > 1 and len(new) > 1:
            with ThreadPoolExecutor(self.jobs) as pool:
                done = list(pool.map(self._run_first, new))
        else:
            done = [self._run_first(version) for version in new]

        for observation in done:
            self.observed[observation.version] = observation
            self.report(observation)

    def _run_first(self, version: str) -> Observation:
        """One run, and another with the next seed where it failed."""
        seed = self.question.seed
        observation = Observation(version, [self.run_once(version, seed)])
        for number in range(1, TRIES_AFTER_A_FAILURE + 1):
            if observation.attempts[-1].failed:
                observation.attempts.append(self.run_once(version, seed + number))
        return observation

    def _confirmed(self, boundaries: Sequence[Boundary]) -> bool:
        """Runs the two sides of every boundary again; False when one of them turned out to be
        flaky."""
        sides = _sides_of(boundaries)
        again = [(side, seed) for side in sides for seed in self._seeds_left(side)]
        if not again:
            return True

        with ThreadPoolExecutor(max(self.jobs, 1)) as pool:
            attempts = list(pool.map(lambda run: self.run_once(*run), again))

        for attempt in attempts:
            self.observed[attempt.version].attempts.append(attempt)
        return not self._report_flaky(sides)

    def _report_flaky(self, versions_run: Iterable[str]) -> list[Observation]:
        """Reports and returns those whose verdict varies."""
        observations = [self.observed[version] for version in versions_run]
        flaky = [observation for observation in observations if observation.flaky]
        for observation in flaky:
            self.report(observation)
        return flaky

    def _seeds_left(self, version: str) -> list[int]:
        """The seeds of the runs that `version` still lacks."""
        done = self.observed[version].attempts
        finished = sum(not attempt.failed for attempt in done)

        # Seeds that were used are not used again: on the model the same seed has the same answer.
        first = max(attempt.seed for attempt in done) + 1
        return list(range(first, first + self.question.repeat - finished))

    # --- Searching. `line`: versions that can run here, in order; the first is of the old kind, the
    # last of the new one.

    def _verdict(self, version: str) -> Verdict:
        self._run_all(version)
        return self.observed[version].verdict

    def _is_new(self, version: str) -> bool:
        return self._verdict(version) is self.observed[self.rows[-1]].verdict

    def _is_old(self, version: str) -> bool:
        return self._verdict(version) is self.observed[self.rows[0]].verdict

    def _boundaries(self) -> list[Boundary]:
        """On the line of first releases, and in each older minor that has the change too; oldest
        first."""
        # First between minors, then within one: releases of two minors overlap in time.
        old, new = self._search(self._first_of_each_minor())
        if minor_of(old) == minor_of(new):
            old, new = self._search(self._from_to(old, new))
            boundary = self._within(old, new)
            return [*self._backports_before(minor_of(new)), boundary]

        # The first release of a minor may have been UNKNOWN; then its later ones are run too.
        between = self._from_to(old, new)[1:-1]
        middle = [row for row in between if minor_of(row) != minor_of(old)]
        old, new = self._search([old, *middle, new])
        return [*self._backports_before(minor_of(new)), self._after_tail(old, new)]

    def _after_tail(self, old: str, new: str) -> Boundary:
        """The boundary between the minor of `old` and `new`: its last old release is the last one
        of that minor, or the one before the change was backported to it."""
        minor = minor_of(old)
        tail = [row for row in self._from_to(old, new)[:-1] if minor_of(row) == minor]
        last = self._first_conclusive(tail[::-1])
        assert last is not None  # `old` is one
        if self._is_old(last):
            return self._within(last, new)

        # A backport: the old kind ended within this minor, at a patch release of its own.
        until_last = tail[: tail.index(last) + 1]
        last_old, backport = self._search(until_last)
        in_tail = self._within(last_old, backport).undecided

        # In the tail only what lies before the backport is open.
        between = self._within(last_old, new).undecided
        after_tail = [row for row in between if minor_of(row) != minor]
        return Boundary(last_old, new, (*in_tail, *after_tail))

    def _backports_before(self, minor: str) -> list[Boundary]:
        """The boundaries in the minors before `minor`, wherever the last conclusive release is
        new."""
        found = []
        for older in self._first_in_minors():
            # The rows are in order, and so are their minors.
            if versions.parse_version(older) >= versions.parse_version(minor):
                break

            boundary = self._backport_in(older)
            if boundary is not None:
                found.append(boundary)
        return found

    def _backport_in(self, minor: str) -> Boundary | None:
        """The boundary within `minor`, if its first conclusive release is old and its last new."""
        line = [row for row in self.possible if minor_of(row) == minor]
        # The newest first: most minors never got the change, and one run shows it.
        last = self._first_conclusive(line[::-1])
        if last is None or self._is_old(last):
            return None

        # One that is new from its first release on has no boundary of its own.
        first = self._first_conclusive(line)
        if first is None or not self._is_old(first):
            return None

        searched = line[line.index(first) : line.index(last) + 1]
        return self._within(*self._search(searched))

    def _first_conclusive(self, line: Sequence[str]) -> str | None:
        """The first version on `line` that is not UNKNOWN."""
        # One after the other: each look runs a version, and none behind the first need be run.
        for row in line:
            if self._verdict(row) is not Verdict.UNKNOWN:
                return row
        return None

    def _search(self, line: Sequence[str]) -> tuple[str, str]:
        """The last old version on `line` and the first new one after it."""
        low, high = 0, len(line) - 1
        # Each turn runs at least one version between the two; UNKNOWN ones are no longer open.
        while True:
            open_ = self._open_positions(line, low, high)
            if not open_:
                return line[low], line[high]

            chosen = _spread(open_, self.jobs)
            self._run_all(*[line[at] for at in chosen])
            low, high = self._narrowed(line, low, high, chosen)

    def _narrowed(
        self, line: Sequence[str], low: int, high: int, chosen: Sequence[int]
    ) -> tuple[int, int]:
        """The range after the versions at positions `chosen` have run."""
        # The lowest new one is the new end of the range, so from the last to the first.
        for at in reversed(chosen):
            if self._is_new(line[at]):
                high = at

        for at in chosen:
            # A version after the first new one may be old: the change was reverted. It is ignored.
            if at < high and self._is_old(line[at]):
                low = at
        return low, high

    def _open_positions(self, line: Sequence[str], low: int, high: int) -> list[int]:
        """Positions between `low` and `high` whose version has not run, or is not UNKNOWN."""
        return [at for at in range(low + 1, high) if not self._is_unknown(line[at])]

    def _is_unknown(self, version: str) -> bool:
        # Without a run: one that has not run may turn out to be anything.
        if version not in self.observed:
            return False
        return self.observed[version].verdict is Verdict.UNKNOWN

    def _from_to(self, first: str, last: str) -> list[str]:
        """The versions that can run here from `first` to `last`, both of which are among them."""
        possible = self.possible
        return possible[possible.index(first) : possible.index(last) + 1]

    def _within(self, old: str, new: str) -> Boundary:
        """The boundary, with every version in it that did not run or is UNKNOWN."""
        # Of all rows, not only of the possible ones: any of them may be the first of the new kind.
        between = self.rows[self.rows.index(old) + 1 : self.rows.index(new)]
        return Boundary(old, new, between)

    def _first_of_each_minor(self) -> list[str]:
        """The line on which minors follow one another: the first of each, and the end of the
        range."""
        line, end = list(self._first_in_minors().values()), self.possible[-1]
        if line[-1] == end:
            return line
        return [*line, end]

    def _first_in_minors(self) -> dict[str, str]:
        """Minor to its first version that can run here, in order."""
        first: dict[str, str] = {}
        for row in self.possible:
            first.setdefault(minor_of(row), row)
        return first

    # --- The result

    def _check_direction(self, older: Verdict) -> None:
        """Raises BadInput when the ends that the user named are the other way round; ends that
        were not named are swapped."""
        question = self.question
        found_good = self.rows[0] if older is Verdict.HOLDS else self.rows[-1]
        if Version(found_good) == Version(question.good):
            return

        if not question.claimed:
            self.question = replace(question, good=question.bad, bad=question.good)
            return

        raise BadInput(
            f"--good {question.good} is BROKEN and --bad {question.bad} HOLDS: are they swapped? "
            f"try --good {question.bad} --bad {question.good}"
        )

    def _with_verdict(self, *wanted: Verdict) -> list[str]:
        return [row for row in self.rows if self.observed[row].verdict in wanted]

    def _without_ends(self) -> BisectResult:
        """An end is UNKNOWN, so nothing can be narrowed down; whether any version is good may still
        be known."""
        # All of them: without ends there is no half to choose.
        self._run_all(*self.rows)
        unknown = self.rows[0] if self._is_unknown(self.rows[0]) else self.rows[-1]
        because = self.observed[unknown].because
        why = f"{unknown} is UNKNOWN, which is neither good nor bad: {because}"

        conclusive = self._with_verdict(Verdict.HOLDS, Verdict.BROKEN)
        kinds = {self.observed[row].verdict for row in conclusive}
        if len(kinds) == 1:
            why = f"{_none_of(kinds.pop())}, as far as they could be run; {why}"
        elif kinds:
            why += f"; the range that can be run is {conclusive[0]} to {conclusive[-1]}"
        return self._result((), why, ExitCode.UNKNOWN)

    def _one_kind(self, kind: Verdict) -> BisectResult:
        """Both ends have one verdict: then every version is run before that is reported of all."""
        # A change that was made and reverted lies between two ends that are alike.
        self._run_all(*self.rows)
        other_kind = Verdict.BROKEN if kind is Verdict.HOLDS else Verdict.HOLDS
        others, unknown = self._with_verdict(other_kind), self._with_verdict(Verdict.UNKNOWN)
        first, last = self.rows[0], self.rows[-1]

        if others:
            verb = "is" if len(others) == 1 else "are"
            why = (
                f"both ends, {first} and {last}, are {kind}, and between them {_listed(others)} "
                f"{verb} not; narrow the range to one change"
            )
            return self._result((), why, ExitCode.SURPRISE)

        count = len(self.rows) - len(unknown)
        why = f"{_none_of(kind)}: all {count} that could be run from {first} to {last} are {kind}"

        # Two reasons why a version is UNKNOWN: another run may decide one, and never the other.
        impossible = self._impossible(unknown)
        inconclusive = [row for row in unknown if row not in impossible]
        if inconclusive:
            why += f"; UNKNOWN: {_listed(inconclusive)}"
        why += self._not_run_because(impossible)
        return self._result((), why, self._code_of_none(unknown))

    def _impossible(self, rows: Iterable[str]) -> list[str]:
        """Those of `rows` that cannot run here, now or later."""
        found = []
        for row in rows:
            # One that has not run yet was not refused either: refusals are noted at the start.
            if row not in self.observed:
                continue
            if not self.observed[row].attempts[0].possible:
                found.append(row)
        return found

    def _not_run_because(self, impossible: Sequence[str]) -> str:
        """The end of a sentence: the versions with the reason and what to do, once for all that
        have the same. "" without any."""
        reasons: dict[str, list[str]] = {}
        for row in impossible:
            because = self.observed[row].because.removeprefix(_CANNOT_RUN)
            # The command to type names the version; without it the reasons of several are equal.
            reasons.setdefault(because.replace(row, "VERSION"), []).append(row)

        ends = ""
        for because, same in reasons.items():
            reason = because
            # Of one version the command can be typed as it is shown.
            if len(same) == 1:
                reason = because.replace("VERSION", same[0])
            ends += f"; {_CANNOT_RUN}{_listed(same)} ({reason})"
        return ends

    def _code_of_none(self, unknown: Sequence[str]) -> ExitCode:
        """A user who named a good version was wrong; one who did not has an answer, if all could be
        run. A version that can never run here leaves nothing open on this machine."""
        if self.question.claimed:
            return ExitCode.SURPRISE

        if len(self._impossible(unknown)) < len(unknown):
            return ExitCode.UNKNOWN
        return ExitCode.AS_EXPECTED

    def _found(self, boundaries: Sequence[Boundary]) -> BisectResult:
        first = boundaries[0]
        kind, other = ("good", "bad") if self.question.wants_good else ("bad", "good")
        if first.undecided:
            why = (
                f"the first {kind} version is one of {_listed(candidates(first))}: "
                f"{first.last_old} is {other}, {first.first_new} is {kind}, and the versions "
                f"between are UNKNOWN{self._not_run_because(self._impossible(first.undecided))}"
            )
            return self._result(boundaries, why, ExitCode.UNKNOWN)

        why = (
            f"the first {kind} version is {first.first_new}; the last {other} one before it is "
            f"{first.last_old}"
        )

        # The other lines, each of a minor that has the change too.
        for boundary in boundaries[1:]:
            in_minor = boundary.first_new
            if boundary.undecided:
                in_minor = f"one of {_listed(candidates(boundary))}"

            minor = minor_of(boundary.first_new)
            why += f"; in {minor} it is {in_minor} (up to {boundary.last_old} {other})"
        return self._result(boundaries, why, ExitCode.AS_EXPECTED)

    def _result(self, boundaries: Iterable[Boundary], why: str, code: ExitCode) -> BisectResult:
        tested = sorted(self.observed.values(), key=lambda each: Version(each.version))
        return BisectResult(self.question, tuple(tested), tuple(boundaries), why, code)


def _sides_of(boundaries: Sequence[Boundary]) -> list[str]:
    sides: list[str] = []
    for boundary in boundaries:
        sides += [boundary.last_old, boundary.first_new]
    return list(dict.fromkeys(sides))


def _spread(positions: Sequence[int], count: int) -> list[int]:
    """`count` of `positions` that cut them into parts of one size; the middle one for 1."""
    parts = min(count, len(positions)) + 1
    return sorted({positions[len(positions) * part // parts] for part in range(1, parts)})


def _none_of(kind: Verdict) -> str:
    if kind is Verdict.BROKEN:
        return "no version is good"
    return "no version is bad"


def _listed(rows: Sequence[str]) -> str:
    if len(rows) <= 6:
        return ", ".join(rows)

    # A whole range does not fit a line; its beginning and its end say which it is.
    return f"{', '.join(rows[:3])} ... {rows[-1]} ({len(rows)} versions)"
