"""The builtins of a shell, and the programs that start others by what they read: xargs, su,
systemd-run."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from meshwake.fixes.shell import names
from meshwake.fixes.shell.conditions import decide
from meshwake.fixes.shell.expansion import unknown
from meshwake.fixes.shell.memory import Ends, Ran, Status
from meshwake.fixes.shell.parser import parse
from meshwake.fixes.shell.programs import UNIT_S, after_options, printed

if TYPE_CHECKING:
    from meshwake.fixes.shell.shell import Shell


def _succeeds(shell: Shell, words: list[str]) -> Status:
    return True


def _fails(shell: Shell, words: list[str]) -> Status:
    return False


def _prints(shell: Shell, words: list[str]) -> Status:
    shell.memory.ran.append(
        Ran(tuple(words), shell.conditions, shell.after_s, shell.background, shell.piped)
    )
    return True


def _exit(shell: Shell, words: list[str]) -> Status:
    what = "return" if words[0] == "return" else "exit"
    # Without a number the status is that of the command before, which is taken for a success.
    raise Ends(what, words[1:2] in ([], ["0"]))


def _leave_loop(shell: Shell, words: list[str]) -> Status:
    levels = int(words[1]) if len(words) > 1 and words[1].isdigit() else 1
    # More levels than there are loops leave all of them.
    raise Ends(words[0], levels=max(1, min(levels, 50)))


def _test(shell: Shell, words: list[str]) -> Status:
    operands = words[1:]
    # [ without ] is an error, with status 2.
    if words[0].endswith("["):
        if operands[-1:] != ["]"]:
            return False
        operands = operands[:-1]
    if "==" in operands:
        shell.must_not_be_dash("== in a test", "=")
    return decide(shell, operands, shell.memory.shown(words))


def _declare(shell: Shell, words: list[str]) -> Status:
    exports = words[0] == "export" or "-x" in words or shell.exports_all
    for word in words[1:]:
        match = re.match(r"([A-Za-z_]\w*)(=|$)", word)
        if match is None:
            continue
        if match[2]:
            shell.variables[match[1]] = word[match.end() :]
        if exports:
            shell.exported |= {match[1]}
    return True


def _unset(shell: Shell, words: list[str]) -> Status:
    for word in words[1:]:
        shell.variables.pop(word, None)
        shell.functions.pop(word, None)
    return True


def _shift(shell: Shell, words: list[str]) -> Status:
    many = int(words[1]) if len(words) > 1 and words[1].isdigit() else 1
    del shell.arguments[1 : 1 + many]
    return True


def _trap(shell: Shell, words: list[str]) -> Status:
    """What a script does at its end; what signals make of it is not followed."""
    # `trap - EXIT` takes it back. 0 is another name of EXIT.
    if len(words) > 2 and {"EXIT", "0"} & set(words[2:]):
        shell.at_exit = "" if words[1] == "-" else words[1]
    return True


def _set(shell: Shell, words: list[str]) -> Status:
    for option, following in pairwise([*words[1:], ""]):
        # The rest are the new arguments.
        if option == "--":
            break
        if option[:1] in ("-", "+"):
            shell.set_option(option, following)
    if "--" in words:
        shell.arguments = [shell.arguments[0], *words[words.index("--") + 1 :]]
    return True


def _read(shell: Shell, words: list[str]) -> Status:
    # A loop `... | while read POD` is followed once, with what all lines have in common: where they
    # come from.
    names = [word for word in words[1:] if not word.startswith("-")] or ["REPLY"]
    for name in names:
        shell.variables[name] = unknown(shell, f"${name}", shell.piped)
    return True


def _source(shell: Shell, words: list[str]) -> Status:
    """`. FILE`: what is known of it runs here."""
    if words[0] == "source":
        shell.must_not_be_dash("source", ".")
    file = shell.memory.files.get(words[1]) if len(words) > 1 else None
    return shell.follow(parse(file.text)) if file is not None else shell.program(words)


def _eval(shell: Shell, words: list[str]) -> Status:
    text = " ".join(words[1:])
    return shell.follow(parse(text))


def _alias(shell: Shell, words: list[str]) -> Status:
    # bash(1): aliases are not expanded when the shell is not interactive, but dash expands them.
    if shell.expands_braces:
        return True
    for word in words[1:]:
        name, equals, text = word.partition("=")
        if equals:
            shell.functions[name] = parse(f'{text} "$@"')
    return True


def _xargs(shell: Shell, words: list[str]) -> Status:
    """Runs its words with what it reads behind them, or in place of what -I names."""
    options = _xargs_options(words[1:])
    status: Status = True
    for read in _given_to_xargs(shell, options.replaces is not None, options.at_once):
        if options.replaces:
            command = [word.replace(options.replaces, read[0]) for word in options.command]
        else:
            command = [*options.command, *read]
        with shell.in_a_program():
            status = shell.execute(command)
    return status


class _XargsOptions(NamedTuple):
    """The command that xargs runs; what in it is replaced by a line (-I); how many words it gives
    to it at a time (0: all)."""

    command: list[str]
    replaces: str | None
    at_once: int


_XARGS_WITH_VALUE = names("-n -L -P -d -E -s -a --max-args --max-procs --delimiter --max-lines")
# The value in the same word: -n1, --max-args=1.
_XARGS_NUMBER = re.compile(r"(?:-[nL]|--max-(?:args|lines)=)(\d+)")
# Options that mean the same here: lines and words of them are not distinguished.
_XARGS_NAMES = {"--replace": "-I", "-L": "-n", "--max-args": "-n", "--max-lines": "-n"}


def _xargs_options(words: list[str]) -> _XargsOptions:
    rest = list(words)
    options: dict[str, str] = {}
    while rest and rest[0].startswith("-"):
        name, value = _xargs_option(rest)
        if value:
            options[_XARGS_NAMES.get(name, name)] = value
    at_once = options.get("-n", "")
    return _XargsOptions(
        # Without a command xargs runs echo.
        command=rest or ["echo"],
        replaces=options.get("-I"),
        at_once=int(at_once) if at_once.isdigit() else 0,
    )


def _xargs_option(rest: list[str]) -> tuple[str, str]:
    """Takes one option from `rest`: its name and its value, "" where it has none."""
    option = rest.pop(0)
    number_inside = _XARGS_NUMBER.fullmatch(option)
    if number_inside is not None:
        return "-n", number_inside[1]
    if option.startswith("-I") and option != "-I":
        return "-I", option.removeprefix("-I")
    takes_next = option in _XARGS_WITH_VALUE or option in ("-I", "--replace")
    if not takes_next or not rest:
        return option, ""
    return option, rest.pop(0)


def _given_to_xargs(shell: Shell, by_lines: bool, at_once: int) -> list[list[str]]:
    """The words that it reads, for each time that it runs its command."""
    text = printed(shell.piped) if shell.piped else None
    # What is not known is one unknown, for as many words as it may be.
    if text is None:
        return [[unknown(shell, "what xargs reads", shell.piped)]]
    # xargs(1): with -I an item is a line, and otherwise a word.
    words = text.split("\n") if by_lines else text.split()
    size = 1 if by_lines else min(at_once or len(words), 1_000)
    return [words[at : at + size] for at in range(0, len(words), max(size, 1))]


def _su(shell: Shell, words: list[str]) -> Status:
    """`su USER -c SCRIPT`."""
    if "-c" in words[:-1]:
        script = words[words.index("-c") + 1]
        return shell.script_in_subshell(script)
    if "--" in words:
        return shell.execute(words[words.index("--") + 1 :])
    rest = after_options(words[1:], frozenset({"-u", "--user", "-g", "-s"}))
    if words[0].endswith("runuser") and rest:
        return shell.execute(rest)
    return shell.program(words)


_SYSTEMD_RUN_WITH_VALUE = names(
    "-u --unit -p --property -E --setenv --description --slice --uid --gid -M -H"
)
_TIMERS = names("--on-active --on-boot --on-calendar --on-startup --on-unit-active")


def _systemd_run(shell: Shell, words: list[str]) -> Status:
    """A transient unit lives on by itself, also when its starter is ended; a timer of it waits."""
    rest, wait_s = list(words[1:]), 0.0
    while rest and rest[0].startswith("-"):
        name, value = _systemd_run_option(rest)
        if name in _TIMERS:
            timer_s = _timer_s(value)
            # Of the timers only --on-active counts from now; when the others fire is not known.
            if name != "--on-active" or timer_s is None:
                return shell.program(words)
            wait_s = timer_s
    inner = shell.copy()
    # Not in the background even with `&`: it is systemd's child, and nothing of the script ends it.
    inner.background, inner.after_s = False, shell.after_s + wait_s
    with inner.ending():
        inner.execute(rest)
    return True


def _systemd_run_option(rest: list[str]) -> tuple[str, str]:
    """Takes one option from `rest`: its name and its value, "" where it has none."""
    name, equals, value = rest.pop(0).partition("=")
    takes_next = name in _TIMERS or name in _SYSTEMD_RUN_WITH_VALUE
    if takes_next and not equals and rest:
        value = rest.pop(0)
    return name, value


def _timer_s(text: str) -> float | None:
    """A time span of systemd with one unit, seconds where it has none; None for any other."""
    match = re.fullmatch(r"(\d+)\s*(s|sec|m|min|h)?", text)
    return int(match[1]) * UNIT_S[(match[2] or "s")[0]] if match is not None else None


BUILTINS: dict[str, Callable[[Shell, list[str]], Status]] = {
    **dict.fromkeys([":", "true", "umask", "ulimit", "cd", "hash", "shopt", "disown"], _succeeds),
    **dict.fromkeys(["echo", "printf", "wait"], _prints),
    **dict.fromkeys(["exit", "return"], _exit),
    **dict.fromkeys(["break", "continue"], _leave_loop),
    **dict.fromkeys(["[", "test"], _test),
    **dict.fromkeys(["export", "readonly", "local", "declare", "typeset"], _declare),
    **dict.fromkeys(["su", "runuser"], _su),
    "false": _fails,
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
