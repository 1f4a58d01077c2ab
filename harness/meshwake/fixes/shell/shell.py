"""A script followed with given arguments and variables: the commands that it comes to, in order.

Nothing is run. What a command would print is an unknown (one private character in a word, see
Unknown); what depends on an unknown is a `Doubt`: then both ways are followed, and the commands of
each carry it as a condition. A command that only does something (kubectl, echo, sleep) is taken to
succeed, and so is a question whose answer is yes wherever the fix is of use: is kubectl there, does
the API server answer, does k3s run?
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple

from meshwake.fixes.shell import commands, conditions, expansion, program_name, tree
from meshwake.fixes.shell.memory import (
    UNKNOWN,
    Doubt,
    Ends,
    Memory,
    Ran,
    Status,
    is_known,
    joined,
    negated,
)
from meshwake.fixes.shell.parser import parse
from meshwake.fixes.shell.programs import is_download
from meshwake.fixes.shell.tree import NotRead

# A loop that never ends in a manifest must end here.
STEPS_MOST = 20_000


_EXPAND_BRACES = frozenset({"bash", "zsh", "ksh"})
# The options that count here, by their letters.
_OPTIONS = {"e": "errexit", "u": "nounset", "a": "allexport"}
_MAY_BE_DASH = frozenset({"sh", "dash"})
# To dash `cmd &> file` is a command in the background, and an empty file.
_NOT_OF_DASH = {"&>": ">file 2>&1", "&>>": ">>file 2>&1", "<<<": "printf ... |"}


def run(
    script: str, arguments: Iterable[str] = (), variables: dict[str, str] | None = None
) -> Memory:
    """Follows a script by the shell that its first line names; a variable that is not given is
    unset. Raises NotRead."""
    memory = Memory()
    check_characters(script)
    given = dict(variables or {})
    shell = Shell(memory, given, ["sh", *arguments], exported=frozenset(given))
    shell.obey_first_line(script)
    shell.script(script)
    return memory


class Ended(NamedTuple):
    """With which status something ended, and how long it had slept by then."""

    status: Status
    after_s: float


def run_words(
    words: Iterable[str],
    variables: dict[str, str],
    memory: Memory,
    *,
    unset_is_unknown: bool = False,
    after_s: float = 0,
) -> Ended:
    """Follows a program with its arguments, as a container or a service starts it; `memory` takes
    what it does. `after_s`: how long those before it slept. Raises NotRead."""
    shell = Shell(
        memory,
        dict(variables),
        ["sh"],
        exported=frozenset(variables),
        unset_is_unknown=unset_is_unknown,
        after_s=after_s,
    )
    with shell.ending() as result:
        result.append(shell.execute(list(words)))

    return Ended(result[-1], shell.after_s)


def check_characters(script: str) -> None:
    """Raises NotRead for what would be taken for an unknown."""
    # A zero byte ends a word in C, so no shell can hold it in one.
    has_zero = "\x00" in script
    if has_zero or UNKNOWN.search(script):
        raise NotRead("holds characters that no script has")


# bash(1): -O shopt, --rcfile and --init-file take a value, too.
_TAKES_VALUE = re.compile(r"[-+][^-]*[oO].*|--rcfile|--init-file")


def _option_names(option: str, following: str) -> set[str]:
    """The options that `-euo` and the word behind it mean."""
    # --posix, --login: none of them counts here.
    if option.startswith("--"):
        return set()

    letters = option[1:]
    found = {_OPTIONS.get(letter, letter) for letter in letters}
    if "o" in letters:
        found.add(following)
    return found


@dataclass
class Shell:
    """One shell: its variables and options, and where in the script it is.

    Words are expanded in expansion.py, tests decided in conditions.py, and simple commands followed
    in commands.py; here are scripts, lists, branches and loops.
    """

    memory: Memory
    variables: dict[str, str]
    arguments: list[str]
    functions: dict[str, tree.Node] = field(default_factory=dict)
    # The names of the variables that a program which is started gets too.
    exported: frozenset[str] = frozenset()
    # By the names of `set -o`: with errexit a command that fails ends the script unless its status
    # is tested, with nounset a variable that is not set does, with allexport all are exported.
    options: frozenset[str] = frozenset()
    conditions: tuple[Doubt, ...] = ()
    after_s: float = 0
    background: bool = False
    piped: tuple[Ran, ...] = ()
    unset_is_unknown: bool = False
    depth: int = 0
    # The status of what runs now is tested.
    asks: bool = False
    expands_braces: bool = False
    # Whether it may be dash, which knows no more than POSIX asks for.
    may_be_dash: bool = False
    at_exit: str = ""

    # --- Scripts and nodes ---

    def script(self, text: str) -> Status:
        """Follows a whole script, to its end or exit, and what it does then (trap)."""
        with self.ending() as result:
            result.append(self.follow(parse(text)))

        # Whatever ended it. An exit in the trap itself does not come to the trap again.
        if self.at_exit:
            last, self.at_exit = self.at_exit, ""
            with self.ending():
                self.follow(parse(last))
        return result[-1]

    @contextmanager
    def ending(self) -> Iterator[list[Status]]:
        """What ends a script ends here; the list takes its status."""
        result: list[Status] = [True]
        try:
            yield result
        except Ends as end:
            result.append(end.status)
        except RecursionError as error:
            raise NotRead("calls itself without end") from error

    def obey_first_line(self, text: str) -> None:
        """Becomes the shell that `#!` names, with its options."""
        first, _, _ = text.partition("\n")
        if not first.startswith("#!"):
            return

        # Every word, because the shell may be behind `env`: #!/usr/bin/env bash.
        for word in first.removeprefix("#!").split():
            self.obey_name(word)
            if word.startswith("-"):
                self.set_option(word, "")

    def obey_name(self, program: str) -> None:
        """Learns what the shell of this name knows beyond POSIX."""
        name = program_name(program)
        self.expands_braces |= name in _EXPAND_BRACES

        # In images of Alpine, Red Hat and SUSE sh is another shell (see Memory).
        if not self.memory.sh_is_not_dash:
            self.may_be_dash |= name in _MAY_BE_DASH

    def set_option(self, option: str, following: str) -> None:
        """`-e`, `-euo pipefail`, `-o errexit`; with a plus it is taken back."""
        names = _option_names(option, following)
        if option.startswith("+"):
            self.options -= names
        else:
            self.options |= names

    def take_options(self, rest: list[str]) -> list[str]:
        """Takes the options from the beginning of `rest`, of `sh` and of `set` alike, and obeys
        them; returns them. The last is -- or an older name of it, -, where that ended them."""
        taken = []
        while rest and rest[0].startswith(("-", "+")):
            option = rest.pop(0)
            taken.append(option)
            if option in ("--", "-"):
                break

            # -o and +o are followed by the name of the option, also in a bundle: -euo pipefail.
            following = rest.pop(0) if _TAKES_VALUE.fullmatch(option) and rest else ""
            self.set_option(option, following)
        return taken

    def must_not_be_dash(self, what: str, instead: str) -> None:
        """Raises NotRead for what only some of the shells understand that may be called sh."""
        if self.may_be_dash:
            raise NotRead(
                f"{what} is unknown to dash, which is sh in Debian, Ubuntu and their images, and "
                f"fails there; write {instead}, or let bash run it"
            )

    def script_in_subshell(self, text: str) -> Status:
        """Follows a script that another shell reads."""
        inner = self.new_process(["sh"])
        return self.after(inner, inner.script(text))

    def execute(self, words: list[str]) -> Status:
        """Follows a command by its words (commands.py)."""
        return commands.execute(self, words)

    def program(self, words: list[str]) -> Status:
        """Follows a program that starts no other (commands.py)."""
        return commands.program(self, words)

    def record(self, words: Iterable[str]) -> Ran:
        """Adds a command to those that the script comes to."""
        ran = Ran(tuple(words), self.conditions, self.after_s, self.background, self.piped)
        self.memory.ran.append(ran)
        return ran

    def follow(self, node: tree.Node) -> Status:
        """Follows one node; its status."""
        self.memory.steps += 1
        if self.memory.steps > STEPS_MOST:
            raise NotRead(f"takes more than {STEPS_MOST} steps")
        return _FOLLOW[type(node)](self, node)

    def sequence(self, node: tree.Sequence) -> Status:
        """Commands one after another; the status of the last."""
        status: Status = True
        for each, background in node.items:
            if background:
                self._in_background(each)
                status = True
                continue

            status = self.follow(each)
            # POSIX, set -e: not after a pipeline with `!`.
            is_negated = isinstance(each, tree.Pipeline) and each.negated
            if isinstance(each, _CHECKED) and not is_negated:
                self.check(status)
        return status

    def _in_background(self, node: tree.Node) -> None:
        """In a subshell for which nothing waits."""
        other = self.copy()
        other.background = True
        with other.ending():
            other.follow(node)

        self.variables["!"] = expansion.unknown(self, "$!")

    def check(self, status: Status) -> None:
        """`set -e`: goes on only where a command has succeeded."""
        # POSIX, set -e: not in the condition of an if, a loop, `&&` or `||`.
        if self.asks or "errexit" not in self.options:
            return

        if status is False:
            raise Ends("exit", False)

        # That a download succeeds is taken for granted.
        if status is True or is_download(status):
            return

        # What comes behind it happens only if it succeeds.
        self.conditions = (*self.conditions, status)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """What runs here may fail: its status is looked at."""
        before, self.asks = self.asks, True
        try:
            yield
        finally:
            self.asks = before

    def copy(self) -> Shell:
        """A subshell."""
        # It has all that we have, and what it sets is not seen here. Its trap is its own (POSIX,
        # trap: reset in a subshell).
        return replace(
            self,
            variables=dict(self.variables),
            arguments=list(self.arguments),
            functions=dict(self.functions),
            at_exit="",
        )

    def new_process(self, arguments: list[str]) -> Shell:
        """Another shell, with these arguments: it has what is exported, and none of our
        options."""
        variables = {name: self.variables[name] for name in self.exported & self.variables.keys()}
        return replace(
            self,
            variables=variables,
            arguments=arguments,
            functions={},
            options=frozenset(),
            asks=False,
            expands_braces=False,
            may_be_dash=False,
            at_exit="",
        )

    @contextmanager
    def in_a_program(
        self,
        variables: Mapping[str, str] | None = None,
        names: frozenset[str] | None = None,
    ) -> Iterator[None]:
        """What a program starts, with these variables too: no program has our functions. `names`:
        the exported variables that it passes on, where those are not all."""
        # `sh -c` sees no variable that is not exported, and timeout and xargs start no function:
        # scripts that restart nothing for that reason were followed as if they did.
        kept = self.functions, self.variables, self.exported
        given = dict(variables or {})
        self.functions, self.variables = {}, self.variables | given
        passed_on = self.exported if names is None else self.exported & names
        self.exported = passed_on | given.keys()
        try:
            yield
        finally:
            self.functions, self.variables, self.exported = kept

    def and_or(self, node: tree.AndOr) -> Status:
        """`&&` and `||`."""
        status: Status = True
        _, last = node.parts[-1]
        for operator, each in node.parts:
            if operator == "":
                status = self._part(each, each is last)
            elif isinstance(status, Doubt):
                # The next part runs on one of the two outcomes, which may be the opposite.
                doubt = status if operator == "&&" else status.negated()
                taken = self.perhaps(doubt, partial(self._part, each, each is last))
                status = joined(operator, status, taken)
            elif status == (operator == "&&"):
                status = self._part(each, each is last)
        return status

    def _part(self, node: tree.Node, is_last: bool) -> Status:
        """A part of a list; the status of the last is not tested."""
        # POSIX, set -e: of `a && b` only a failure of b counts.
        if is_last:
            status = self.follow(node)
            if isinstance(status, bool):
                self.check(status)
            return status

        with self.asking():
            return self.follow(node)

    def perhaps(
        self,
        doubt: Doubt,
        way: Callable[[], Status],
        other: Callable[[], Status] = lambda: True,
    ) -> Status:
        """Follows `way` on the condition of `doubt`, and `other` on its opposite. Where one of them
        ends, the rest is on the condition of the other."""
        before, conditions, after_s = dict(self.variables), self.conditions, self.after_s
        ends: list[Ends | None] = []
        outcomes: list[Status] = []
        variables: list[dict[str, str]] = []

        # Each begins with the variables and the conditions of now.
        for condition, follow in ((doubt, way), (doubt.negated(), other)):
            self.variables, self.conditions = dict(before), (*conditions, condition)
            try:
                outcomes.append(follow())
                ends.append(None)
            except Ends as end:
                outcomes.append(end.status)
                ends.append(end)
            variables.append(self.variables)

        # What either way sleeps is not counted behind the two.
        self.after_s = after_s
        first, second = ends
        if first is not None and second is not None:
            raise first

        if first is not None:
            self.variables = variables[1]
            self.conditions = (*conditions, doubt.negated())
            return outcomes[1]

        if second is not None:
            self.variables = variables[0]
            self.conditions = (*conditions, doubt)
            return outcomes[0]

        # Both go on, and what comes behind them hangs on neither.
        self.conditions = conditions
        self.variables = self._merged(*variables)
        if outcomes[0] == outcomes[1]:
            return outcomes[0]
        return Doubt(doubt.text, doubt.runs)

    def _merged(self, one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
        """The variables after either of two ways: unknown where the two differ."""
        # In the order of the script, so that unknowns are numbered alike in each run.
        merged = one | other
        for name in merged:
            if one.get(name) != other.get(name):
                merged[name] = expansion.unknown(self, f"${name}")
        return merged

    def if_(self, node: tree.If) -> Status:
        """An if, by what its conditions say."""
        return self._branches(list(node.branches), node.otherwise)

    def _branches(
        self,
        branches: list[tuple[tree.Sequence, tree.Sequence]],
        otherwise: tree.Sequence | None,
    ) -> Status:
        # An if of which no condition is true, and that has no else, succeeds (POSIX, 2.9.4).
        if not branches:
            return self.follow(otherwise) if otherwise is not None else True

        (condition, body), *rest = branches
        with self.asking():
            status = self.follow(condition)
        if status is True:
            return self.follow(body)
        if status is False:
            return self._branches(rest, otherwise)

        return self.perhaps(
            status,
            lambda: self.follow(body),
            lambda: self._branches(rest, otherwise),
        )

    def while_(self, node: tree.While) -> Status:
        """A body is followed once: what waits until something is there finds it there."""
        with self.asking():
            status = self.follow(node.condition)
        if isinstance(status, Doubt):
            doubt = status if node.wanted else status.negated()
            return self.perhaps(doubt, lambda: self._loop_body(node.body))

        # Without a turn of the body it succeeds (POSIX, 2.9.4).
        if status is not node.wanted:
            return True

        # `while read` ends with its input, and `while true` only by a break.
        reads = bool(self.piped)
        if self._loop_body(node.body) is False and not reads:
            raise Ends("exit")
        return True

    def _loop_body(self, body: tree.Sequence) -> bool:
        """Whether it came to a break, or to its end with something that may have been one."""
        conditions = self.conditions
        try:
            self.follow(body)
        except Ends as end:
            if end.what not in ("break", "continue"):
                raise
            # `break 2` leaves the loop around this one, too.
            if end.levels > 1:
                raise Ends(end.what, levels=end.levels - 1) from end
            return end.what == "break"
        else:
            # A doubt that stayed to the end: on its other outcome the body was left.
            return self.conditions != conditions
        finally:
            self.conditions = conditions

    def for_(self, node: tree.For) -> Status:
        """A for, over the words that are known and once for each unknown."""
        words = node.words
        # POSIX, 2.9.4: without `in` it is "$@".
        items = self.arguments[1:] if words is None else expansion.all_fields(self, words)

        for item in items:
            self.variables[node.name] = item
            has_ended = self._loop_body(node.body)
            if has_ended:
                break
        return True

    def case(self, node: tree.CaseCommand) -> Status:
        """A case, by the first pattern that matches."""
        return self._items(expansion.text(self, node.subject), node, 0)

    def _items(self, subject: str, node: tree.CaseCommand, at: int) -> Status:
        # A case of which no item matches succeeds (POSIX, 2.9.4).
        if at >= len(node.items):
            return True

        patterns, body = node.items[at]
        matches = [self._matches(subject, pattern) for pattern in patterns]
        if True in matches:
            return self.follow(body)
        if None not in matches:
            return self._items(subject, node, at + 1)

        # Whether it is this item hangs on what the subject is.
        shapes = "|".join(each.text for each in patterns)
        written = f"case {node.subject.text} in {shapes})"
        doubt = Doubt(written, expansion.runs_in(self, subject))
        return self.perhaps(
            doubt,
            lambda: self.follow(body),
            lambda: self._items(subject, node, at + 1),
        )

    def _matches(self, subject: str, pattern: tree.Word) -> bool | None:
        """Whether a pattern of a case matches; None where that is not known."""
        shape = expansion.pattern(self, pattern)
        # Also what is unknown matches it: the default of a case.
        if shape == "*":
            return True

        if not is_known(subject + shape):
            return None
        return fnmatchcase(subject, shape)

    def function(self, node: tree.Function) -> Status:
        """A function is kept, and followed when it is called."""
        if node.by_keyword:
            self.must_not_be_dash(f"function {node.name}", f"{node.name}() {{ ... }}")
        self.functions[node.name] = node.body
        return True

    def group(self, node: tree.Group) -> Status:
        """A group, in a shell of its own when in parentheses."""
        if not node.subshell:
            return self.follow(node.body)
        inner = self.copy()
        with inner.ending() as result:
            result.append(inner.follow(node.body))
        return self.after(inner, result[-1])

    def redirected(self, node: tree.Redirected) -> Status:
        """Where output goes makes no difference."""
        self.check_redirects(node.redirects)
        return self.follow(node.body)

    def check_redirects(self, redirects: Iterable[tree.Redirect]) -> None:
        """Raises NotRead for redirects that dash takes for something else."""
        for redirect in redirects:
            operator = redirect.operator
            if operator in _NOT_OF_DASH:
                instead = _NOT_OF_DASH[operator]
                self.must_not_be_dash(operator, instead)

    def pipeline(self, node: tree.Pipeline) -> Status:
        """A pipeline: each part reads what those before print; the status is that of the last."""
        begins = len(self.memory.ran)

        # `! command` alone, which needs no subshell.
        if len(node.parts) == 1:
            with self.asking():
                status = self.follow(node.parts[0])
        else:
            status = self._piped(node.parts)

        if isinstance(status, Doubt):
            # All parts decide: what the last one finds is what the others print.
            runs = tuple(self.memory.ran[begins:])
            status = Doubt(node.text.lstrip("! "), runs, status.test, status.is_true)

        return negated(status) if node.negated else status

    def _piped(self, parts: Iterable[tree.Node]) -> Status:
        """Each part in a shell of its own, which reads what all before it print."""
        status: Status = True
        begins = len(self.memory.ran)
        for position, part in enumerate(parts):
            inner = self.copy()
            # The first one reads what the pipeline as a whole reads.
            if position:
                inner.piped = tuple(self.memory.ran[begins:])

            with inner.ending() as result:
                result.append(inner.follow(part))
            status = self.after(inner, result[-1])
        return status

    def after(self, inner: Shell, status: Status) -> Status:
        """Goes on after another shell that was waited for; `status` again."""
        self.after_s = max(self.after_s, inner.after_s)
        return status


# Whose status `set -e` looks at: not that of what is made of other commands, which were looked at
# one by one.
_CHECKED = (
    tree.Simple,
    tree.Pipeline,
    tree.Group,
    tree.DoubleBracket,
    tree.DoubleParenthesis,
)


_FOLLOW: dict[type, Callable[[Shell, Any], Status]] = {
    tree.Simple: commands.simple,
    tree.Pipeline: Shell.pipeline,
    tree.AndOr: Shell.and_or,
    tree.Sequence: Shell.sequence,
    tree.If: Shell.if_,
    tree.While: Shell.while_,
    tree.For: Shell.for_,
    tree.CaseCommand: Shell.case,
    tree.Function: Shell.function,
    tree.Group: Shell.group,
    tree.DoubleBracket: conditions.double_bracket,
    tree.DoubleParenthesis: conditions.double_parenthesis,
    tree.Redirected: Shell.redirected,
}
