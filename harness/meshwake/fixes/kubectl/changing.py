"""How often what a patch writes becomes another value: pods are replaced only then.

`$(date +%s)` is another one each time, `$(date +%F)` once a day, `$(date +%Y-%m)` once a month:
what is written again the same changes no pod template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from meshwake.fixes.effects import CommandContext, NotUnderstood
from meshwake.fixes.shell import names
from meshwake.fixes.shell.linear import NOW
from meshwake.fixes.shell.memory import Memory, Ran, Unknown

# A patch whose annotation is $(date +%Y-%m) changes the template once a month, however often the
# job comes. Each of its runs was counted as a restart.
_EACH_TIME_S = 0.0
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3_600.0, 86_400.0
# Fields of date formats. A time of day without its day comes again the next day.
_MOMENT = re.compile(r"%[-_0^#:]*[sNcST+Xr]")
_DAY = re.compile(r"%[-_0^#]*[FDxjde]")
_TIMES_OF_DAY = (
    (re.compile(r"%[-_0^#]*[MR]"), _MINUTE_S),
    (re.compile(r"%[-_0^#]*[HIkl]"), _HOUR_S),
)
_ISO = re.compile(r"-I|--iso-8601|--rfc-3339")
_ISO_STEPS = {"": _DAY_S, "date": _DAY_S, "hours": _HOUR_S, "minutes": _MINUTE_S}
# What is another text in each run, as scripts write it.
_RANDOM = re.compile(r"\$RANDOM|\$SRANDOM|\$EPOCHSECONDS|\$\{RANDOM\}|/proc/sys/kernel/random/uuid")
# They make another text of the same input, and of another input another text.
_KEEP_DIFFERENCES = names("tr sed base64 md5sum sha1sum sha256sum sha512sum cksum xxd")
_OF_HASHES = names("cut head awk")
_HASHES = names("md5sum sha1sum sha256sum sha512sum cksum")


def changes_every_s(text: str, memory: Memory, place: CommandContext) -> float:
    """After how many seconds a text with unknowns is surely another one; 0: each time. Raises
    NotUnderstood where that is not known of any of them, and where there are none."""
    found: list[float] = []
    unsure: list[Unknown] = []
    for unknown in memory.unknowns_in(text):
        try:
            found.append(_of_unknown(unknown, place))
        except NotUnderstood:
            unsure.append(unknown)

    # One that surely changes is enough, whatever the others are.
    if found:
        return min(found)

    # The first of them is enough for the message.
    if unsure:
        raise NotUnderstood(
            f"whether {unsure[0].text} is another value each time is not known, and pods are "
            "replaced only then; write the time, $(date +%s)"
        )

    # A patch of written-out values changes the template once: the second run finds it as it is.
    raise NotUnderstood(
        "it writes the same value each time: pods are replaced the first time only; write the "
        "time, $(date +%s)"
    )


def _of_unknown(unknown: Unknown, place: CommandContext) -> float:
    """The same of one unknown, by what is known of it."""
    # A sum of now and seconds.
    factors = dict(unknown.value.factors) if unknown.value is not None else {}
    if NOW in factors:
        return _of_time(factors[NOW])

    if _RANDOM.search(unknown.text):
        return _EACH_TIME_S

    # A job has a pod of its own each time; on a machine the name stays.
    if place.in_pod and unknown.text in _OF_POD:
        return _EACH_TIME_S

    # A variable that only a run knows.
    if not unknown.runs:
        raise NotUnderstood(unknown.text)
    return _of_commands(*unknown.runs)


def _of_time(factor: Fraction) -> float:
    """`$(( $(date +%s) / 3600 ))` is another number each hour."""
    # Divided by 3600 the factor is 1/3600; a remainder (% 60) is not a sum, and never comes here.
    step_s = 1 / abs(factor)
    if step_s <= 1:
        return _EACH_TIME_S
    return float(step_s)


# Its name is another one for each job.
_OF_POD = ("$(hostname)", "$HOSTNAME", "${HOSTNAME}")


def _of_commands(first: Ran, *filters: Ran) -> float:
    """Of what commands print."""
    _check_filters(filters)
    if first.program == "date":
        return _of_date(first)

    # What they print is random.
    is_random = first.program in ("uuidgen", "mktemp") or first.words[:2] == ("openssl", "rand")
    if is_random:
        return _EACH_TIME_S

    raise NotUnderstood(first.program)


def _check_filters(filters: Sequence[Ran]) -> None:
    """Raises NotUnderstood for a filter that may make one text of two."""
    harmless = _KEEP_DIFFERENCES
    for ran in filters:
        # The first characters of a hash differ as the whole does; those of a date may not.
        if ran.program in _HASHES:
            harmless = _KEEP_DIFFERENCES | _OF_HASHES

        if ran.program not in harmless:
            raise NotUnderstood(ran.program)


def _of_date(ran: Ran) -> float:
    """After how long `date` prints another text."""
    options: list[str] = []
    form = ""
    for word in ran.words[1:]:
        if word.startswith("+"):
            form = word
        # The zone makes no difference to when it is another text.
        elif word not in _IN_UTC:
            options.append(word)

    # `date -d yesterday`, or of a file, is not the time of the run.
    if any(map(_OF_ANOTHER_MOMENT.match, options)):
        raise NotUnderstood("date of another moment")

    if form:
        return _of_format(form)
    return _of_options(options)


_IN_UTC = ("-u", "--utc", "--universal")
_OF_ANOTHER_MOMENT = re.compile(r"-u?[dr]|--date|--reference")


def _of_options(words: list[str]) -> float:
    """Without a format: `date`, `date -R`, `date -Iminutes`."""
    if words in ([], ["-R"], ["--rfc-email"]):
        return _EACH_TIME_S
    if not _ISO.match(words[0]):
        raise NotUnderstood("an option of date")

    # date(1): -I alone is the date; seconds and ns are another text each time.
    precision = _ISO.sub("", words[0]).removeprefix("=")
    return _ISO_STEPS.get(precision, _EACH_TIME_S)


def _of_format(form: str) -> float:
    """With a format: as often as its finest field changes."""
    if _MOMENT.search(form):
        return _EACH_TIME_S

    # A time of day without its day comes again the next day.
    if not _DAY.search(form):
        raise NotUnderstood("no day in it")

    for field, step_s in _TIMES_OF_DAY:
        if field.search(form):
            return step_s
    return _DAY_S
