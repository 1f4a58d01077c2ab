"""The builtins of a shell, and the programs that start others by what they read: xargs, su,
systemd-run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from meshwake.fixes.shell import names, program_name
from meshwake.fixes.shell.conditions import decide
from meshwake.fixes.shell.expansion import unknown
from meshwake.fixes.shell.memory import Ends, Status
from meshwake.fixes.shell.parser import parse
from meshwake.fixes.shell.programs import UNIT_S, after_options, printed, take_option

if TYPE_CHECKING:
    from meshwake.fixes.shell.shell import Shell


def _status_by_name(shell: Shell, words: list[str]) -> Status:
    """Of what changes nothing here: true, cd, ulimit and so on succeed."""
    return program_name(words[0]) != "false"


def _prints(shell: Shell, words: list[str]) -> Status:
    shell.record(words)
    return True


def _exit(shell: Shell, words: list[str]) -> Status:
    what = "return" if words[0] == "return" else "exit"
    # Without a number the status is that of the command before, which is taken for a success.
    succeeds = words[1:2] in ([], ["0"])
    raise Ends(what, succeeds)


def _number_of(words: list[str]) -> int:
    """The number that a builtin takes, as `shift 2`; 1 without one."""
    given = "".join(words[1:2])
    # A variable that only a run knows has the number that is usual.
    return int(given) if given.isdecimal() else 1


def _leave_loop(shell: Shell, words: list[str]) -> Status:
    # bash(1): more levels than there are loops leave all of them, and 0 is out of range.
    levels = max(1, min(_number_of(words), _LOOPS_MOST))
    raise Ends(words[0], levels=levels)


# No script has more loops in one another. Each is left by an exception of its own.
_LOOPS_MOST = 50


def _test(shell: Shell, words: list[str]) -> Status:
    operands = words[1:]
    # [ without ] is an error, with status 2.
    if words[0].endswith("["):
        if operands[-1:] != ["]"]:
            return False
        operands = operands[:-1]

    # POSIX, test: only = is of the standard, and test of dash knows no other.
    if "==" in operands:
        shell.must_not_be_dash("== in a test", "=")

    return decide(shell, operands, shell.memory.shown(words))


_DECLARED = re.compile(r"([A-Za-z_]\w*)(=|$)")


def _declare(shell: Shell, words: list[str]) -> Status:
    # `declare -x` is another spelling of `export`.
    exports = words[0] == "export" or "-x" in words or "allexport" in shell.options

    for word in words[1:]:
        # An option, or a name that no shell takes.
        match = _DECLARED.match(word)
        if match is None:
            continue

        name, equals = match.groups()
        # `export NAME` alone keeps the value that it has.
        if equals:
            shell.variables[name] = word[match.end() :]

        if exports:
            shell.exported |= {name}
    return True


def _unset(shell: Shell, words: list[str]) -> Status:
    # bash(1): without -v or -f a name is that of a variable and, where there is none, that of a
    # function; here both are taken away.
    for word in words[1:]:
        shell.variables.pop(word, None)
        shell.functions.pop(word, None)
    return True


def _shift(shell: Shell, words: list[str]) -> Status:
    # $0 stays.
    del shell.arguments[1 : 1 + _number_of(words)]
    return True


def _trap(shell: Shell, words: list[str]) -> Status:
    """What a script does at its end; what signals make of it is not followed."""
    # POSIX, trap: 0 is another name of EXIT.
    if {"EXIT", "0"}.isdisjoint(words[2:]):
        return True

    # `trap - EXIT` takes it back.
    action = words[1]
    shell.at_exit = "" if action == "-" else action
    return True


def _set(shell: Shell, words: list[str]) -> Status:
    # POSIX, set: options come first; what follows them is the new arguments, after -- also when that
    # is nothing. After a lone - the arguments stay when nothing follows.
    rest = words[1:]
    options = shell.take_options(rest)
    if rest or options[-1:] == ["--"]:
        shell.arguments = [shell.arguments[0], *rest]
    return True


def _read(shell: Shell, words: list[str]) -> Status:
    # POSIX, read: what it reads is split into as many words as there are names; bash has REPLY
    # where there are none.
    names = [word for word in words[1:] if not word.startswith("-")]

    # A loop `... | while read POD` is followed once, with what all lines have in common: where they
    # come from.
    for name in names or ["REPLY"]:
        shell.variables[name] = unknown(shell, f"${name}", shell.piped)
    return True


def _source(shell: Shell, words: list[str]) -> Status:
    """`. FILE`: what is known of it runs here."""
    if words[0] == "source":
        shell.must_not_be_dash("source", ".")

    # Only files that are mounted from the same manifest are known.
    path = "".join(words[1:2])
    file = shell.memory.files.get(path)
    if file is None:
        return shell.program(words)
    return shell.follow(parse(file.text))


def _eval(shell: Shell, words: list[str]) -> Status:
    text = " ".join(words[1:])
    return shell.follow(parse(text))


def _alias(shell: Shell, words: list[str]) -> Status:
    # bash(1): aliases are not expanded when the shell is not interactive, but dash expands them.
    if shell.expands_braces:
        return True

    # A function of the same text does the same: the words behind the alias are its arguments.
    for word in words[1:]:
        name, equals, text = word.partition("=")
        if equals:
            shell.functions[name] = parse(f'{text} "$@"')
    return True


def _xargs(shell: Shell, words: list[str]) -> Status:
    """Runs its words with what it reads behind them, or in place of what -I names."""
    options = _xargs_options(words[1:])
    status: Status = True
    for read in _given_to_xargs(shell, options):
        if options.replaces:
            command = [word.replace(options.replaces, read[0]) for word in options.command]
        else:
            command = [*options.command, *read]

        # No program knows the functions of a shell: `... | xargs f` starts none.
        with shell.in_a_program():
            status = shell.execute(command)
    return status


class _XargsOptions(NamedTuple):
    """The command that xargs runs; what in it is replaced by a line (-I); how many words it gives
    to it at a time (0: all)."""

    command: list[str]
    replaces: str | None
    at_once: int


_XARGS_WITH_VALUE = names("-n -L -P -d -E -s -a -I --max-args --max-procs --delimiter --max-lines")
# The value in the same word: -n1, -I{}.
_XARGS_JOINED = re.compile(r"(-[nLIi])(.+)", re.DOTALL)
# Their value is never the next word; without one it is {}.
_XARGS_BRACES = ("-i", "--replace")
# Options that mean the same here: lines and words of them are not distinguished.
_XARGS_NAMES = {"--replace": "-I", "-i": "-I", "-L": "-n", "--max-args": "-n", "--max-lines": "-n"}


def _xargs_options(words: list[str]) -> _XargsOptions:
    rest = list(words)
    options: dict[str, str] = {}
    while rest and rest[0].startswith("-"):
        joined = _XARGS_JOINED.fullmatch(rest[0])
        if joined is not None:
            rest[:1] = joined.groups()

        name, value = take_option(rest, _XARGS_WITH_VALUE)
        if name in _XARGS_BRACES:
            value = value or "{}"
        if value:
            options[_XARGS_NAMES.get(name, name)] = value

    at_once = options.get("-n", "")
    return _XargsOptions(
        # xargs(1): without a command it runs echo.
        command=rest or ["echo"],
        replaces=options.get("-I"),
        at_once=int(at_once) if at_once.isdigit() else 0,
    )


# xargs(1), -s: a command line has a limit, and what is longer is run in parts.
_XARGS_WORDS_MOST = 1_000


def _given_to_xargs(shell: Shell, options: _XargsOptions) -> list[list[str]]:
    """The words that it reads, for each time that it runs its command."""
    text = printed(shell.piped) if shell.piped else None
    # What is not known is one unknown, for as many words as it may be.
    if text is None:
        return [[unknown(shell, "what xargs reads", shell.piped)]]

    # xargs(1): with -I an item is a line, and otherwise a word.
    if options.replaces is not None:
        return [[line] for line in text.split("\n")]

    words = text.split()
    size = min(options.at_once or len(words), _XARGS_WORDS_MOST)

    # Of no words it makes no command, and a step of 0 is an error.
    starts = range(0, len(words), size or 1)
    return [words[start : start + size] for start in starts]


def _su(shell: Shell, words: list[str]) -> Status:
    """`su USER -c SCRIPT`."""
    if "-c" in words[:-1]:
        script = words[words.index("-c") + 1]
        return shell.script_in_subshell(script)

    # runuser(1): `runuser -u USER -- COMMAND` runs it without a shell.
    if "--" in words:
        command = words[words.index("--") + 1 :]
        return shell.execute(command)

    command = after_options(words[1:], frozenset({"-u", "--user", "-g", "-s"}))
    if command and words[0].endswith("runuser"):
        return shell.execute(command)

    # `su USER` alone is a shell that reads what comes in, which is not known.
    return shell.program(words)


_SYSTEMD_RUN_WITH_VALUE = names(
    "-u --unit -p --property -E --setenv --description --slice --uid --gid -M -H"
)
_TIMERS = names("--on-active --on-boot --on-calendar --on-startup --on-unit-active")


def _systemd_run(shell: Shell, words: list[str]) -> Status:
    """A transient unit lives on by itself, also when its starter is ended; a timer of it waits."""
    rest, wait_s = words[1:], 0.0
    while rest and rest[0].startswith("-"):
        name, value = take_option(rest, _SYSTEMD_RUN_WITH_VALUE | _TIMERS)
        if name not in _TIMERS:
            continue

        # Of the timers only --on-active counts from now; when the others fire is not known.
        timer_s = _timer_s(value)
        if name != "--on-active" or timer_s is None:
            return shell.program(words)
        wait_s = timer_s

    inner = shell.copy()
    # Not in the background even with `&`: it is systemd's child, and nothing of the script ends it.
    inner.background = False
    inner.after_s = shell.after_s + wait_s
    with inner.ending():
        inner.execute(rest)

    # systemd-run(1): it returns as soon as the unit is started.
    return True


_TIME_SPAN = re.compile(r"(\d+)\s*(s|sec|m|min|h)?")


def _timer_s(text: str) -> float | None:
    """A time span of systemd with one unit, seconds where it has none; None for any other."""
    match = _TIME_SPAN.fullmatch(text)
    if match is None:
        return None

    # systemd.time(7): m and min are minutes. Months, M, are not read.
    number, unit = match.groups(default="s")
    return int(number) * UNIT_S[unit[0]]


BUILTINS: dict[str, Callable[[Shell, list[str]], Status]] = {
    **dict.fromkeys(
        [":", "true", "false", "umask", "ulimit", "cd", "hash", "shopt", "disown"], _status_by_name
    ),
    **dict.fromkeys(["echo", "printf", "wait"], _prints),
    **dict.fromkeys(["exit", "return"], _exit),
    **dict.fromkeys(["break", "continue"], _leave_loop),
    **dict.fromkeys(["[", "test"], _test),
    **dict.fromkeys(["export", "readonly", "local", "declare", "typeset"], _declare),
    **dict.fromkeys(["su", "runuser"], _su),
    "unset": _unset,
    "shift": _shift,
    "set": _set,
    "trap": _trap,
    **dict.fromkeys([".", "source"], _source),
    "read": _read,
    "eval": _eval,
    "alias": _alias,
    "xargs": _xargs,
    "systemd-run": _systemd_run,
}
