"""Simple commands followed: builtins, functions, other shells, programs that start others.

Functions of the shell that comes to the command. A program that starts no other is what a script
does: it goes into the list of `memory.ran`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from meshwake.fixes.shell import expansion, program_name, tree
from meshwake.fixes.shell.builtins import BUILTINS
from meshwake.fixes.shell.memory import Doubt, Ends, File, Ran, Status
from meshwake.fixes.shell.programs import (
    kept_variables,
    printed,
    slept_s,
    started_by,
    status_of,
)
from meshwake.fixes.shell.tree import NotRead

if TYPE_CHECKING:
    from meshwake.fixes.shell.shell import Shell

# A function that calls itself, or a script that starts itself, must end here.
DEEPEST = 40
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
# What looks like a program that starts another, and is the shell itself.
_OF_THE_SHELL = ("exec", "command", "builtin", "time")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
# Letters may be joined: sh -ec SCRIPT.
_TAKES_SCRIPT = re.compile(r"[-+][^-]*c")


def simple(shell: Shell, node: tree.Simple) -> Status:
    """A simple command: its words expanded, its variables set."""
    shell.check_redirects(node.redirects)

    # POSIX, 2.9.1: words are expanded before the values of assignments.
    words = expansion.all_fields(shell, node.words)
    values: dict[str, str] = {}
    for name, appends, word in node.assignments:
        before = shell.variables.get(name, "") if appends else ""
        values[name] = before + expansion.text(shell, word)

    # NAME=value alone sets the shell's own variable; in front of a command it is for that command.
    if not words:
        shell.variables |= values
        if "allexport" in shell.options:
            shell.exported |= values.keys()
        return True

    kept, piped, exported = shell.variables, shell.piped, shell.exported
    shell.variables, shell.exported = kept | values, exported | values.keys()
    script = _stdin_script(shell, node, words)

    # A redirect of the command takes the place of the pipe.
    shell.piped = _here_string(shell, node) or piped
    try:
        status = execute(shell, words) if script is None else shell.script_in_subshell(script)
    finally:
        shell.piped = piped
        shell.exported -= values.keys() - exported
        _restore(shell, kept, values)

    # A person recognises a condition by how the script has it.
    if isinstance(status, Doubt) and not status.text:
        status = replace(status, text=node.text)
    return status


def _restore(shell: Shell, before: dict[str, str], own: dict[str, str]) -> None:
    """Variables that are written in front of a command are set for that command only."""
    # Others are kept as they are now: a function may have set them.
    for name in own:
        shell.variables.pop(name, None)
        if name in before:
            shell.variables[name] = before[name]


def _stdin_script(shell: Shell, node: tree.Simple, words: list[str]) -> str | None:
    """The script that a shell without arguments reads; None for any other command, and where it is
    not known."""
    if not _reads_script_from_stdin(words):
        return None

    for redirect in node.redirects:
        if redirect.operator == "<<<":
            return expansion.text(shell, redirect.target)

        # A here-document. The outer shell expands variables in it, unless its delimiter is quoted;
        # here the inner one does, which is the same where they are exported.
        if redirect.operator in ("<<", "<<-"):
            return "\n".join(redirect.lines)

    # `echo kubectl ... | sh`
    if shell.piped:
        return printed(shell.piped)
    return None


def _reads_script_from_stdin(words: list[str]) -> bool:
    """Whether it is a shell with options only: `sh -s`, `bash -e`."""
    if program_name(words[0]) not in _SHELLS:
        return False

    # An operand is the script's file, or the script itself behind -c.
    is_option = [word.startswith(("-", "+")) for word in words[1:]]
    return all(is_option)


def _here_string(shell: Shell, node: tree.Simple) -> tuple[Ran, ...]:
    """What a here-string gives to a command, as an echo would."""
    given: tuple[Ran, ...] = ()
    # Of several the last one counts: each redirects the standard input once more.
    for redirect in node.redirects:
        if redirect.operator == "<<<":
            text = expansion.text(shell, redirect.target)
            given = (Ran(("echo", text)),)
    return given


def execute(shell: Shell, words: list[str], *, may_be_function: bool = True) -> Status:
    """Follows a command, whatever starts it: sudo, env, timeout, another shell, xargs."""
    shell.depth += 1
    if shell.depth > DEEPEST:
        raise NotRead("starts programs from programs without end")
    try:
        return _execute(shell, words, may_be_function=may_be_function)
    finally:
        shell.depth -= 1


def _execute(shell: Shell, words: list[str], *, may_be_function: bool) -> Status:
    # POSIX, 2.9.1: a command whose words expand to nothing succeeds.
    if not words:
        return True

    name = program_name(words[0])
    # bash(1), command execution: functions come before builtins, and both before programs. What is
    # named with its folder is a program: kubectl() { /usr/bin/kubectl "$@"; } calls no function.
    if may_be_function and words[0] in shell.functions:
        return _call(shell, name, words)
    if name in BUILTINS:
        return BUILTINS[name](shell, words)

    if name in _SHELLS:
        return _other_shell(shell, words)

    # By its path: the folders of PATH hold nothing that a manifest mounts.
    file = shell.memory.files.get(words[0])
    if file is not None:
        return _file(shell, file, words)

    return _program_or_started(shell, name, words)


def _program_or_started(shell: Shell, name: str, words: list[str]) -> Status:
    """What is neither of the shell nor a script: a program, or what it starts in its turn."""
    started = started_by(words)
    if started is None:
        return program(shell, words)

    if name not in _OF_THE_SHELL:
        return _by_a_program(shell, words, started)

    # POSIX, command: it passes functions over, as do exec and bash's builtin.
    if name != "exec":
        return execute(shell, started, may_be_function=name == "time")

    # `exec >file` only redirects the shell. With a command nothing behind it ever runs.
    if not started:
        return True
    raise Ends("exit", execute(shell, started, may_be_function=False))


def _by_a_program(shell: Shell, words: list[str], started: list[str]) -> Status:
    """What timeout, env, sudo start: no program knows the functions of a shell."""
    # env NAME=value COMMAND: between the starter and what it starts.
    own_words = words[1 : len(words) - len(started)]
    given: dict[str, str] = {}
    for word in filter(_ASSIGNMENT.match, own_words):
        name, _, value = word.partition("=")
        given[name] = value

    kept = kept_variables(words, started)
    with shell.in_a_program(given, kept):
        return execute(shell, started)


def program(shell: Shell, words: list[str]) -> Status:
    """A program that starts no other."""
    ran = shell.record(words)
    if ran.program == "sleep":
        arguments = [word.lower() for word in words[1:]]
        # sleep(1) reads numbers as strtod(3) does. What comes behind it never runs.
        is_endless = not {"inf", "infinity"}.isdisjoint(arguments)
        if is_endless and not shell.background:
            raise Ends("exit", False)

        shell.after_s += slept_s(words[1:])

    return status_of(ran, shell.memory)


def _call(shell: Shell, name: str, words: list[str]) -> Status:
    """A function of the script. $0 stays that of the script (POSIX, 2.9.5)."""
    arguments = shell.arguments
    shell.arguments = [arguments[0], *words[1:]]
    try:
        return shell.follow(shell.functions[name])
    except Ends as end:
        if end.what != "return":
            raise
        return end.status
    finally:
        shell.arguments = arguments


def _file(shell: Shell, file: File, words: list[str]) -> Status:
    """A script that is mounted into the container, started by its path."""
    # EACCES: status 126. It stays in the list of commands, where the reason is given (actions.py).
    if not file.may_run:
        program(shell, words)
        return False
    inner = shell.new_process(words)
    inner.obey_first_line(file.text)
    return shell.after(inner, inner.script(file.text))


def _other_shell(shell: Shell, words: list[str]) -> Status:
    """`sh -c SCRIPT NAME ARGUMENTS` or `sh FILE ARGUMENTS`, in any spelling of its options."""
    inner = shell.new_process(["sh"])
    inner.obey_name(words[0])
    operands, is_command = _after_options_of_shell(inner, words)

    # What it reads from the standard input is not known here (see _stdin_script).
    if not operands:
        return program(shell, words)

    # sh -c SCRIPT NAME ARGUMENTS: the word behind the script is $0.
    if is_command:
        inner.arguments = operands[1:] or ["sh"]
        return shell.after(inner, inner.script(operands[0]))

    # `sh FILE` reads the file, so it need not be executable.
    file = shell.memory.files.get(operands[0])
    if file is None:
        return program(shell, words)
    inner.arguments = operands
    return shell.after(inner, inner.script(file.text))


def _after_options_of_shell(inner: Shell, words: list[str]) -> tuple[list[str], bool]:
    """The words behind the options, which `inner` takes; and whether the first is a script (-c)."""
    rest = words[1:]
    options = inner.take_options(rest)
    is_command = any(_TAKES_SCRIPT.match(option) for option in options)
    return rest, is_command
