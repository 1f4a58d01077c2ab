"""Schedules as Kubernetes reads them: robfig/cron v3, its ParseStandard.

Where it differs from other crons, and why that matters:

    a day matches     when day of the month and day of the week both match, if one of them is `*`; else when
    either does.
                      `*/2` is not `*` there: "0 3 */2 * 1-5" comes on every odd day, and on every
                      working day too
    Sunday            is 0, never 7
    @every 12h        is a delay, counted from the last time
    daylight saving   an hour that is left out has no times, an hour that comes twice has them twice
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import islice, pairwise
from typing import NamedTuple

from meshwake.core.durations import NS_PER_S, parse_go_duration_ns

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# robfig/cron, spec.go, Next: a schedule without a time within five years has none ("0 0 30 2 *").
_YEARS_LOOKED_AT = 5
# As many as show every gap of a week, and of days of a month.
_TIMES_COMPARED = 40
_DAY_S = 86_400
# 146 years: later than any scenario ends.
NEVER_NS = 1 << 62
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {
    name: at
    for at, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
_DAYS = {name: at for at, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}


class _Field(NamedTuple):
    name: str
    least: int
    most: int
    names: dict[str, int]


_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


@dataclass(frozen=True)
class Every:
    """`@every DURATION`."""

    delay_ns: int


@dataclass(frozen=True)
class Calendar:
    """Five fields; `either_day` says that one of the two days is enough."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def comes_on(self, day: date) -> bool:
        """Whether it has times on that day."""
        if day.month not in self.months:
            return False

        of_month = day.day in self.days

        # isoweekday() is 7 on a Sunday, which is 0 here.
        weekday = day.isoweekday() % 7
        of_week = weekday in self.weekdays
        if self.either_day:
            return of_month or of_week
        return of_month and of_week


def parse_schedule(text: str) -> Calendar | Every:
    """Reads spec.schedule. Raises ValueError with what is wrong."""
    # robfig/cron reads it, and the API server refuses it (the documentation of CronJobs).
    if re.match(r"\s*(CRON_)?TZ=", text):
        raise ValueError("no TZ= or CRON_TZ= in a schedule; spec.timeZone is for that")

    if text.startswith("@every "):
        delay_ns = parse_go_duration_ns(text.removeprefix("@every ").strip())
        # robfig/cron, constantdelay.go: whole seconds, at least one.
        delay_s = max(delay_ns // NS_PER_S, 1)
        return Every(delay_s * NS_PER_S)

    # Each macro means five fields.
    if text.startswith("@") and text not in _MACROS:
        raise ValueError(f"allowed are {', '.join(_MACROS)} and '@every DURATION'")
    fields = _MACROS.get(text, text)
    return _parse_fields(fields.split())


def _parse_fields(written: list[str]) -> Calendar:
    if len(written) != len(_FIELDS):
        raise ValueError(f"{len(written)} fields")
    parsed = [_field(text, field) for text, field in zip(written, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = parsed
    return Calendar(
        minutes.values,
        hours.values,
        days.values,
        months.values,
        weekdays.values,
        # Where both days are restricted, one of them is enough, as in every cron since Vixie's.
        either_day=not days.is_star and not weekdays.is_star,
    )


class _Values(NamedTuple):
    """The values of a field, or of a part of one, and whether it counts as `*`."""

    values: frozenset[int]
    is_star: bool


def _field(text: str, field: _Field) -> _Values:
    """What is written between two blanks: parts with commas between them."""
    values: set[int] = set()
    is_star = False

    # robfig/cron skips an empty part (strings.FieldsFunc): 1,,2 is 1,2.
    for part in filter(None, text.split(",")):
        own = _range(part, field)
        values |= own.values
        is_star |= own.is_star
    if not values:
        raise ValueError(f"{field.name}: {text!r}")
    return _Values(frozenset(values), is_star)


def _range(part: str, field: _Field) -> _Values:
    """`*`, `5`, `1-5`, and each with a step: `*/2`."""
    # robfig/cron, parser.go, getRange.
    span, *steps = part.split("/")
    ends = span.split("-")

    # 1/2/3, or 1-2-3.
    if len(steps) > 1 or len(ends) > 2:
        raise ValueError(f"{field.name}: {part!r}")

    is_star = ends[0] in ("*", "?")
    if is_star:
        low, high = field.least, field.most
    else:
        low = _number(ends[0], field, part)
        high = _number(ends[-1], field, part)

    step = 1
    if steps:
        # A step has no name: */MON is an error.
        step = _number(steps[0], field._replace(names={}), part)
        # 5/10 means 5-59/10.
        if len(ends) == 1:
            high = field.most
        # */2 restricts, so it does not count as a star where the two days are joined; */1 does.
        is_star = is_star and step == 1

    is_within = field.least <= low <= high <= field.most
    if not is_within or step < 1:
        raise ValueError(f"{field.name}: {part!r}; allowed is {field.least} to {field.most}")
    return _Values(frozenset(range(low, high + 1, step)), is_star)


def _number(text: str, field: _Field, part: str) -> int:
    """A number, or a name such as MON; `part` is what is wrong when it is neither."""
    named = field.names.get(text.lower())
    if named is not None:
        return named

    # Not int() alone, which takes "+5", "1_0" and digits of other scripts.
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{field.name}: {part!r}")
    return int(text)


class Times:
    """The times of a schedule, found once and looked up often: a job every ten minutes is due 4,000
    times a month, and each time is needed several times. All are of the wall clock, in
    nanoseconds since 1970."""

    def __init__(self, schedule: Calendar | Every, zone: tzinfo, from_wall_ns: int) -> None:
        self._schedule, self._zone = schedule, zone
        self._from_wall_ns = from_wall_ns
        self._coming: Iterator[int] = iter(())
        self._known: list[int] = []
        if isinstance(schedule, Calendar):
            self._begin(from_wall_ns)

    def _begin(self, from_wall_ns: int) -> None:
        assert isinstance(self._schedule, Calendar)
        self._from_wall_ns = from_wall_ns
        self._coming = calendar_times_ns(self._schedule, self._zone, from_wall_ns)
        self._known = [next(self._coming, NEVER_NS)]

    def next_wall_ns(self, served_wall_ns: int, now_wall_ns: int) -> int:
        """The first time after now, and after the one served last."""
        # After now, too: a wall clock that was set back has served times that lie ahead.
        after_wall_ns = max(served_wall_ns, now_wall_ns)
        if isinstance(self._schedule, Every):
            last_ns = self._every(served_wall_ns, after_wall_ns)
            return last_ns + self._schedule.delay_ns

        self._know(after_wall_ns)
        position = bisect_right(self._known, after_wall_ns)
        return self._known[position]

    def latest_wall_ns(
        self, served_wall_ns: int, now_wall_ns: int, deadline_s: int | None
    ) -> int | None:
        """The last time after the one served last and not after now that is not older than the
        deadline, or None."""
        earliest_ns = served_wall_ns
        if deadline_s is not None:
            earliest_ns = max(earliest_ns, now_wall_ns - deadline_s * NS_PER_S)
        if isinstance(self._schedule, Every):
            latest_ns = self._every(earliest_ns, now_wall_ns)
            return latest_ns if latest_ns > earliest_ns else None

        self._know(now_wall_ns)
        not_later = bisect_right(self._known, now_wall_ns)

        # None has come yet.
        if not_later == 0:
            return None
        latest_ns = self._known[not_later - 1]
        if latest_ns <= served_wall_ns:
            return None
        return latest_ns if latest_ns >= earliest_ns else None

    def _every(self, anchor_wall_ns: int, until_wall_ns: int) -> int:
        """The last of the chain that begins at the anchor, not after `until`."""
        assert isinstance(self._schedule, Every)
        delay_ns = self._schedule.delay_ns

        # Nothing has passed for a clock that was set back before the anchor.
        passed_ns = max(until_wall_ns - anchor_wall_ns, 0)
        delays = passed_ns // delay_ns
        return anchor_wall_ns + delays * delay_ns

    def _know(self, wall_ns: int) -> None:
        # A wall clock went back before the first time that is known. A year more, because it may
        # go back again.
        if wall_ns < self._from_wall_ns:
            self._begin(wall_ns - 366 * 86_400 * NS_PER_S)

        # One more than was needed, so that the next time is always there to be looked up.
        while self._known[-1] <= wall_ns:
            self._known.append(next(self._coming, NEVER_NS))


def calendar_times_ns(schedule: Calendar, zone: tzinfo, after_wall_ns: int) -> Iterator[int]:
    """The times of a calendar after `after_wall_ns`, in order; it ends where none comes for five
    years."""
    idle_most = timedelta(days=366 * _YEARS_LOOKED_AT)
    begin = _EPOCH + timedelta(seconds=after_wall_ns // NS_PER_S)
    day = begin.astimezone(zone).date()
    idle_until = day + idle_most
    while day < idle_until:
        if schedule.comes_on(day):
            for at_s in _times_of_day_s(schedule, zone, day):
                at_ns = at_s * NS_PER_S
                # Of the first day only those that are still to come.
                if at_ns > after_wall_ns:
                    yield at_ns
                    idle_until = day + idle_most
        day += timedelta(days=1)


def shortest_gap_s(schedule: Calendar | Every, zone: tzinfo) -> float:
    """The least time between two runs. A day that is an hour shorter counts as a whole one."""
    if isinstance(schedule, Every):
        return schedule.delay_ns / NS_PER_S

    times_ns = islice(calendar_times_ns(schedule, zone, 0), _TIMES_COMPARED)
    gaps_ns = [two_ns - one_ns for one_ns, two_ns in pairwise(times_ns)]
    gap_s = min(gaps_ns, default=NEVER_NS) / NS_PER_S

    # The day on which summer time begins has 23 hours.
    is_shorter_day = _DAY_S - 3_600 <= gap_s < _DAY_S
    return _DAY_S if is_shorter_day else gap_s


def _times_of_day_s(schedule: Calendar, zone: tzinfo, day: date) -> Iterator[int]:
    """By hours that really pass, so that one which is left out or comes twice is."""
    at_s = _midnight_s(day, zone)
    ends_s = _midnight_s(day + timedelta(days=1), zone)
    minutes = sorted(schedule.minutes)
    while at_s < ends_s:
        local = datetime.fromtimestamp(at_s, tz=zone)
        # A zone may change by half an hour (Lord Howe), so that an hour begins in its middle.
        hour_s = at_s - local.minute * 60
        if local.hour in schedule.hours and local.date() == day:
            for minute in minutes:
                minute_s = hour_s + minute * 60
                # Of an hour that begins in its middle the second half only.
                if minute_s >= at_s:
                    yield minute_s
        at_s = hour_s + 3_600


def _midnight_s(day: date, zone: tzinfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())
