"""CronJobs that look before they restart: the log-scanning watchdog, and the check for certificates
about to expire.

Both come when the CronJob controller comes (cron.py), both end in a restart of ztunnels, and
neither knows why a certificate ran out. The watchdog needs traffic that fails: it reads what
ztunnel logged since `--since`, and its pattern must find what ztunnel writes then. The near-expiry
check needs a certificate that is about to expire while the machine is awake.

What a job looks for is the condition on which its script comes to the restart (shell/); any other
condition is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple, TypeVar

from meshwake.clocks.virtual import Clocks
from meshwake.core.durations import NS_PER_S, parse_go_duration_ns
from meshwake.core.errors import BadInput
from meshwake.core.plan import Plan
from meshwake.fixes.actions import Action, CommandContext, PodLogs, pod_logs
from meshwake.fixes.cron import (
    RESTARTS_ZTUNNEL,
    carried_out,
    check_possible,
    cron_times_ns,
    tasks_of,
)
from meshwake.fixes.jobs import Task, acting, shown
from meshwake.fixes.patterns import PatternNotRead, grep_lets_through
from meshwake.fixes.shell.linear import NOW
from meshwake.fixes.shell.memory import Doubt, Memory, Ran, is_known
from meshwake.fixes.shell.programs import date_offset_s
from meshwake.guard.watch import PlannedRestart, View, Watcher
from meshwake.ztunnel.config_dump import CERT_CHAIN
from meshwake.ztunnel.logs import EXAMPLES_OF_EXPIRED, EXAMPLES_OF_OTHER_LINES

LOG_WATCHDOG, NEAR_EXPIRY = "log-watchdog", "near-expiry"
_TAIL_THAT_SHOWS_ALL = 1_000
Found = TypeVar("Found")


class _NotUnderstood(Exception):
    """The condition is not what such a job looks for; the text says why."""


class Scan(NamedTuple):
    """What the watchdog reads: how far back (None: all since ztunnel started), and whether of one
    ztunnel only."""

    since_ns: int | None
    of_one_pod: bool


class _CronWatcher:
    """Looks when its job runs; what it looks for is `finds`."""

    def __init__(self, plan: Plan, clocks: Clocks, task: Task, action: Action, name: str) -> None:
        self._plan, self._clocks, self._name, self._action = plan, clocks, name, action
        check_possible(plan, action)
        self._times_ns = list(cron_times_ns(plan, clocks, task.cron_job, name))

    def next_look_world_ns(self, after_world_ns: int) -> int | None:
        """See Watcher."""
        position = bisect_right(self._times_ns, after_world_ns)
        if position == len(self._times_ns):
            return None
        return self._times_ns[position]

    def look(self, view: View) -> list[PlannedRestart]:
        """See Watcher."""
        calls_for_it = any(self.finds(view, node.name) for node in self._plan.nodes)
        if not calls_for_it:
            return []

        # Wherever it was found: a CronJob acts on the whole cluster.
        return carried_out(self._plan, self._clocks, view.world_ns, self._action, self._name)

    def finds(self, view: View, node: str) -> bool:
        """Whether something on `node` calls for a restart."""
        raise NotImplementedError


class _LogWatcher(_CronWatcher):
    """`since_ns`: how far back the job reads the logs, by the wall clock."""

    since_ns: int | None = None

    def finds(self, view: View, node: str) -> bool:
        """See _CronWatcher."""
        if self.since_ns is None:
            return view.expiry_logged(node, 0)

        # kubelet compares the times of lines, which are of the node's wall clock.
        since_wall_ns = view.clocks(node).wall_ns - self.since_ns
        return view.expiry_logged(node, since_wall_ns)


class _ExpiryWatcher(_CronWatcher):
    """`threshold_ns`: how little of a certificate's life is taken for trouble."""

    threshold_ns = 0

    def finds(self, view: View, node: str) -> bool:
        """See _CronWatcher. It asks ztunnels only, as the check that people use does."""
        # By the clock of the node: a script compares with `date +%s`.
        latest_wall_ns = view.clocks(node).wall_ns + self.threshold_ns
        for process in view.seen(node):
            if process.target != "ztunnel":
                continue
            # One is enough: a restart fetches all of them again.
            for held in process.certificates:
                if held.not_after_wall_ns < latest_wall_ns:
                    return True
        return False


def log_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    """The watchdogs of `plan`, one for each CronJob that restarts ztunnel."""
    watchers: list[Watcher] = []
    for task in acting(tasks_of(plan), "ztunnel", RESTARTS_ZTUNNEL):
        action = _that_looks(
            task,
            LOG_WATCHDOG,
            "kubectl logs --since=... of ztunnel, and grep for an expired certificate",
        )
        scans = [
            _understood(task, action, condition, log_scan, "reads ztunnel's log")
            for condition in action.conditions
        ]
        of_one_pod = any(scan.of_one_pod for scan in scans)
        if of_one_pod and len(plan.nodes) > 1:
            raise BadInput(
                f"fix.manifest: CronJob {task.name}: kubectl logs ds/ztunnel reads the log of one "
                f"pod, and there are {len(plan.nodes)} nodes; write -l app=ztunnel --tail=-1"
            )

        watcher = _LogWatcher(plan, clocks, task, action, LOG_WATCHDOG)
        # Several conditions must all be true, so the shortest look back decides.
        known_ns = [scan.since_ns for scan in scans if scan.since_ns is not None]
        watcher.since_ns = min(known_ns, default=None)
        watchers.append(watcher)
    return watchers


def expiry_watchers(plan: Plan, clocks: Clocks) -> list[Watcher]:
    """The near-expiry checks of `plan`, one for each CronJob that restarts ztunnel."""
    watchers: list[Watcher] = []
    for task in acting(tasks_of(plan), "ztunnel", RESTARTS_ZTUNNEL):
        action = _that_looks(
            task,
            NEAR_EXPIRY,
            "the expirationTime of ztunnel's config_dump, compared with now and THRESHOLD_SECONDS",
        )
        does = "compares when certificates expire with a number of seconds"
        thresholds_ns = [
            _understood(task, action, condition, expiry_threshold_ns, does)
            for condition in action.conditions
        ]

        watcher = _ExpiryWatcher(plan, clocks, task, action, NEAR_EXPIRY)
        # All must be true, so the one that is true last decides.
        watcher.threshold_ns = min(thresholds_ns)
        watchers.append(watcher)
    return watchers


def _that_looks(task: Task, name: str, looks_at: str) -> Action:
    """The restart of `task` that hangs on what it found."""
    actions = task.reading.of("ztunnel")
    # One restart that comes whatever it finds makes the others of no account.
    if not all(action.conditions for action in actions):
        raise BadInput(
            f"fix.manifest: CronJob {task.name}: {actions[0].command!r} runs whatever it finds, "
            f"and {name} looks at {looks_at}; take fix daily-restart for a job that does not look"
        )
    return actions[0]


def _understood(
    task: Task,
    action: Action,
    condition: Doubt,
    read: Callable[[Doubt, Memory, CommandContext], Found],
    does: str,
) -> Found:
    """What `read` makes of a condition. Raises BadInput where it makes nothing of it."""
    try:
        return read(condition, task.memory, task.place)
    except _NotUnderstood as why:
        raise BadInput(
            f"fix.manifest: CronJob {task.name}: {action.command!r} runs when "
            f"{shown(condition, task.memory)}: {why}; "
            f"understood is a job that {does}"
        ) from why


# --- The log --------------------------------------------------------------------------------------


def log_scan(condition: Doubt, memory: Memory, place: CommandContext) -> Scan:
    """What a condition reads in ztunnel's log. Raises _NotUnderstood."""
    _finds_something(condition)
    runs = _without_echo(condition.runs, memory)
    if not runs:
        raise _NotUnderstood("it does not read a log")

    # kubectl logs ... | grep ..., with other filters around it.
    logs, *filters = runs
    read = pod_logs(logs, memory, place)
    if isinstance(read, str):
        raise _NotUnderstood(read)
    _check_filters(filters)

    return Scan(_since_ns(read, memory), read.of_one_pod)


def _check_filters(filters: list[Ran]) -> None:
    """Raises _NotUnderstood unless they find an expired certificate in a log, and nothing else."""
    programs = {ran.program for ran in filters}
    if not programs & _GREPS:
        raise _NotUnderstood("it does not look for an expired certificate (grep)")

    finds_expired = any(_lets_through(filters, line) for line in EXAMPLES_OF_EXPIRED)
    if not finds_expired:
        raise _NotUnderstood(
            "its pattern finds nothing that ztunnel writes when a certificate has expired"
        )

    # A pattern such as "cert" or "error" restarts a ztunnel that is well, at every look.
    finds_others = any(_lets_through(filters, line) for line in EXAMPLES_OF_OTHER_LINES)
    if finds_others:
        raise _NotUnderstood(
            "its pattern finds also what ztunnel writes while all certificates are valid"
        )


def _without_echo(runs: tuple[Ran, ...], memory: Memory) -> tuple[Ran, ...]:
    """`echo "$OUT" | grep` as what `OUT` was printed by, and the rest."""
    if not runs or runs[0].program not in ("echo", "printf"):
        return runs

    echo, *rest = runs
    unknowns = memory.unknowns_in(" ".join(echo.words[1:]))

    # Of several texts in one line, which has the certificate is not known.
    if len(unknowns) != 1:
        return runs
    return (*unknowns[0].runs, *rest)


def _finds_something(condition: Doubt) -> None:
    """The condition is that a line was found, in one of the ways to write it."""
    is_true = condition.is_true
    # `if ... | grep -q`, or [ -n "$(...)" ]: true where a line was found.
    if condition.test and condition.test[0] != "-n":
        # [ $(... | grep -c ...) -gt 0 ] and its opposites.
        _, *comparison = condition.test
        if comparison in _NO_LINE:
            is_true = not is_true
        elif comparison not in _A_LINE:
            raise _NotUnderstood("how many lines it takes is more than one, or not known")
    if not is_true:
        raise _NotUnderstood("it restarts when nothing was found")


# Comparisons that are true where at least one line was found, and where none was.
_A_LINE = (["-gt", "0"], ["-ge", "1"], ["-ne", "0"])
_NO_LINE = (["-eq", "0"], ["=", "0"], ["=", ""], ["-lt", "1"], ["-le", "0"])
_GREPS = frozenset(["grep", "egrep", "fgrep"])
# None of them drops the only line, or all that are about a certificate.
_DROP_NO_LINE = ("wc", "head", "tail", "sort", "uniq", "tee", "cat", "tr")


def _lets_through(filters: list[Ran], line: str) -> bool:
    """Whether `line` of a log is left after all filters. Raises _NotUnderstood."""
    for ran in filters:
        if ran.program in _DROP_NO_LINE:
            continue
        if ran.program not in _GREPS:
            raise _NotUnderstood(f"what {ran.program} lets through is not understood")

        lets_through = _grep_lets_through(ran, line)
        # What comes after it has nothing to read.
        if not lets_through:
            return False
    return True


def _grep_lets_through(ran: Ran, line: str) -> bool:
    if not is_known(" ".join(ran.words)):
        raise _NotUnderstood("the pattern of grep is not known")
    try:
        return grep_lets_through(ran.words, line)
    except PatternNotRead as error:
        raise _NotUnderstood(f"grep {error}") from error


def _since_ns(read: PodLogs, memory: Memory) -> int | None:
    """How far back the log is read; None: all of it."""
    _check_tail(read, memory)
    if read.since is not None:
        return _since_option_ns(read.since, memory)
    if read.since_time is not None:
        return _since_time_ns(read.since_time, memory)
    return None


def _check_tail(read: PodLogs, memory: Memory) -> None:
    """Raises _NotUnderstood when only the last lines are shown."""
    if read.tail is None:
        # kubectl logs --help: --tail is -1, all lines, unless a selector is given, and then 10.
        if read.by_selector:
            raise _NotUnderstood(
                "kubectl logs -l shows the last ten lines of each pod only; write --tail=-1"
            )
        return
    if read.tail == "-1":
        return

    # So many are taken for all that ztunnel writes between two looks.
    shows_all = read.tail.isdigit() and int(read.tail) >= _TAIL_THAT_SHOWS_ALL
    if not shows_all:
        raise _NotUnderstood(
            f"--tail={memory.shown(read.tail)} shows the last lines only; write --tail=-1"
        )


def _since_option_ns(since: str, memory: Memory) -> int:
    if not is_known(since):
        raise _NotUnderstood(f"--since={memory.shown(since)} is not known")
    try:
        return parse_go_duration_ns(since)
    except ValueError as error:
        raise _NotUnderstood(f"--since: {error}") from error


def _since_time_ns(since_time: str, memory: Memory) -> int:
    """Of `--since-time=$(date -d '10 minutes ago' ...)`."""
    unknowns = memory.unknowns_in(since_time)
    runs = unknowns[0].runs if len(unknowns) == 1 else ()
    offset_s = None

    # One date alone: what a pipeline makes of it is not followed.
    if len(runs) == 1 and runs[0].program == "date":
        offset_s = date_offset_s(runs[0].words, memory)

    # From a time that is still to come nothing is shown.
    if offset_s is None or offset_s >= 0:
        raise _NotUnderstood(
            f"--since-time={memory.shown(since_time)} is not understood; write --since=10m"
        )
    return -offset_s * NS_PER_S


# --- Certificates about to expire -----------------------------------------------------------------


def expiry_threshold_ns(condition: Doubt, memory: Memory, place: CommandContext) -> int:
    """Of a condition: how little of a certificate's life is left when it is true. Raises
    _NotUnderstood."""
    if len(condition.test) != 3:
        raise _NotUnderstood("it compares no numbers")
    left, operator, right = condition.test
    one, other = memory.linear(left), memory.linear(right)
    if one is None or other is None:
        raise _NotUnderstood(
            "what it compares is not a number that can be known (is THRESHOLD_SECONDS set?)"
        )

    # Brought to one side: factor * expiry + now_factor * now + number, compared with 0.
    difference = one - other
    names = dict(difference.factors)
    now = names.pop(NOW, Fraction(0))
    if len(names) != 1:
        raise _NotUnderstood(
            "it does not compare when a certificate expires with a number of seconds"
        )
    ((name, factor),) = names.items()

    # Equal and opposite: a difference of two times, whose zero does not matter.
    if factor != -now:
        raise _NotUnderstood(
            "it does not compare how long a certificate has left (expirationTime less date +%s)"
        )
    _must_expire(name, memory)

    is_less = {"-lt": True, "-le": True, "-gt": False, "-ge": False}.get(operator)
    # By a not it is the other way round, and with the expiry on the right once more.
    restarts_below = is_less == condition.is_true
    expiry_is_left = factor > 0
    if is_less is None or restarts_below != expiry_is_left:
        raise _NotUnderstood("it restarts while a certificate has much of its life left")

    # One ns more, so that a certificate with just that much left counts, as with -le.
    return int(-difference.number / factor * NS_PER_S) + 1


def _must_expire(name: str, memory: Memory) -> None:
    """The unknown is when the first certificate of a ztunnel expires."""
    commands: list[str] = []
    for unknown in memory.unknowns_in(name):
        commands += [memory.shown(ran.words) for ran in unknown.runs]
    text = " | ".join(commands)

    # From the admin interface of ztunnel itself, or by istioctl.
    is_ztunnels = re.search(r"config_dump|ztunnel-config|config-dump", text) is not None
    if "expirationTime" not in text or not is_ztunnels:
        raise _NotUnderstood("what it compares is not the expirationTime of ztunnel's certificates")
    _must_take_the_soonest(text)


# certificates[0], a root, certChain[-1], `sort -nr | head -1` and the head of what is not sorted
# were all taken for the soonest expiry: a check that never fires was found to be right.
_LATEST = re.compile(r"\bmax\b|max_by|\blast\b|\breverse\b|sort\b[^|]*\s(-\w*r|--reverse)|\btail\b")
# name[3], or [3] of a whole list.
_ITEM = re.compile(r"(\w*)\??\s*\[\s*(-?\d+)\s*\]")
_FIRST_LINE = re.compile(r"\bfirst\b|\blimit\(\s*1\b|\bhead\b")
_SORTED = re.compile(r"\bsort(_by)?\b")
_OF_SOME = re.compile(r"select\([^)]*identity")


def _must_take_the_soonest(text: str) -> None:
    """What is printed is when the leaf certificate expires that expires first, of all that ztunnel
    has. Raises _NotUnderstood."""
    if "rootCerts" in text:
        raise _NotUnderstood("it looks at root certificates, which live for years")
    if _LATEST.search(text):
        raise _NotUnderstood("it takes the certificate that expires last, not first")

    # Each identity's is renewed for itself, and the first to expire may be any of them.
    if _OF_SOME.search(text):
        raise _NotUnderstood("it looks at the certificates of some identities only")
    _check_items(text)

    for match in _FIRST_LINE.finditer(text):
        before = text[: match.start()]
        if not _SORTED.search(before):
            raise _NotUnderstood(
                f"{match[0]!r} takes the first of what is not sorted, not what expires first"
            )


def _check_items(text: str) -> None:
    """Raises _NotUnderstood for another item of a list than the leaf of a chain, or than the first
    of what is sorted."""
    for match in _ITEM.finditer(text):
        # The leaf: those that signed it come after it.
        if match.groups() == (CERT_CHAIN, "0"):
            continue

        before, number = text[: match.start()], match[2]
        is_first_of_sorted = number == "0" and _SORTED.search(before)
        if not is_first_of_sorted:
            raise _NotUnderstood(f"{match[0]!r} is not the certificate that expires first")
