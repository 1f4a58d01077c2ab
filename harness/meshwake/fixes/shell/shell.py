"""A script followed with given arguments and variables: the commands that it comes to, in order.

Nothing is run. What a command would print is an unknown (one private character in a word, see
Unknown); what depends on an unknown is a `Doubt`: then both ways are followed, and the commands of
each carry it as a condition. A command that only does something (kubectl, echo, sleep) is taken to
succeed, and so is a question whose answer is yes wherever the fix is of use: is kubectl there, does
the API server answer, does k3s run?
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from meshwake.fixes.shell import syntax
from meshwake.fixes.shell.builtins import BUILTINS
from meshwake.fixes.shell.linear import Linear, evaluate
from meshwake.fixes.shell.memory import (
    UNKNOWN,
    Doubt,
    Ends,
    File,
    Memory,
    Ran,
    Status,
    Unknown,
    is_known,
)
from meshwake.fixes.shell.programs import (
    date_of,
    is_download,
    printed,
    slept_s,
    started_by,
    status_of,
)
from meshwake.fixes.shell.syntax import NotRead

STEPS_MOST = 20_000


_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})


_EXPAND_BRACES = frozenset({"bash", "zsh", "ksh"})
_MAY_BE_DASH = frozenset({"sh", "dash"})
# To dash `cmd &> file` is a command in the background, and an empty file.
_NOT_OF_DASH = {"&>": ">file 2>&1", "&>>": ">>file 2>&1", "<<<": "printf ... |"}


_CLUSTER_PATH = re.compile(r"k3s|k0s|rke2|kube|microk8s|crictl|/bin/|/sbin/|ztunnel|istio")


def run(
    script: str, arguments: Iterable[str] = (), variables: dict[str, str] | None = None
) -> Memory:
    """Follows a script by the shell that its first line names; a variable that is not given is
    unset. Raises NotRead."""
    memory = Memory()
    check_characters(script)
    shell = Shell(memory, dict(variables or {}), ["sh", *arguments])
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
        memory, dict(variables), ["sh"], unset_is_unknown=unset_is_unknown, after_s=after_s
    )
    with shell.ending() as result:
        result.append(shell.execute(list(words)))
    return Ended(result[-1], shell.after_s)


def check_characters(script: str) -> None:
    """Raises NotRead for what would be taken for an unknown."""
    if UNKNOWN.search(script) or "\x00" in script:
        raise NotRead("holds characters that no script has")


@dataclass
class Shell:
    """One shell: what it knows, and where it stands."""

    memory: Memory
    variables: dict[str, str]
    arguments: list[str]
    functions: dict[str, syntax.Node] = field(default_factory=dict)
    conditions: tuple[Doubt, ...] = ()
    after_s: float = 0
    background: bool = False
    piped: tuple[Ran, ...] = ()
    unset_is_unknown: bool = False
    depth: int = 0
    # `set -e`: a command that fails ends the script, unless its status is asked for.
    ends_on_failure: bool = False
    asks: bool = False
    expands_braces: bool = False
    # Whether it may be dash, which knows no more than POSIX asks for.
    may_be_dash: bool = False
    at_exit: str = ""

    # --- Scripts and nodes ---

    def script(self, text: str) -> Status:
        """Follows a whole script, to its end or exit, and what it does then (trap)."""
        with self.ending() as result:
            result.append(self.follow(syntax.parse(text)))
        if self.at_exit:
            last, self.at_exit = self.at_exit, ""
            with self.ending():
                self.follow(syntax.parse(last))
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
        for word in first.removeprefix("#!").split() if first.startswith("#!") else ():
            name = word.rsplit("/", 1)[-1]
            self.expands_braces = self.expands_braces or name in _EXPAND_BRACES
            self.may_be_dash = self.may_be_dash or (
                name in _MAY_BE_DASH and not self.memory.sh_is_no_dash
            )
            if word.startswith("-"):
                self.set_option(word, "")

    def follow(self, node: syntax.Node) -> Status:
        """Follows one node; its status."""
        self.memory.steps += 1
        if self.memory.steps > STEPS_MOST:
            raise NotRead(f"takes more than {STEPS_MOST} steps")
        return _FOLLOW[type(node)](self, node)

    def sequence(self, node: syntax.Sequence) -> Status:
        """Commands one after another; the status of the last."""
        status: Status = True
        for each, background in node.items:
            if background:
                other = self.copy()
                other.background = True
                with other.ending():
                    other.follow(each)
                self.variables["!"] = self.unknown("$!")
                status = True
            else:
                status = self.follow(each)
                if isinstance(each, _CHECKED) and not (
                    isinstance(each, syntax.Pipeline) and each.negated
                ):
                    self.check(status)
        return status

    def check(self, status: Status) -> None:
        """`set -e`: goes on only where a command has succeeded."""
        if not self.ends_on_failure or self.asks:
            return
        if status is False:
            raise Ends("exit", False)
        if isinstance(status, Doubt) and not is_download(status):
            self.conditions = (*self.conditions, status)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """What runs here may fail: somebody looks at its status."""
        before, self.asks = self.asks, True
        try:
            yield
        finally:
            self.asks = before

    def copy(self) -> Shell:
        """A subshell."""
        return replace(
            self,
            variables=dict(self.variables),
            arguments=list(self.arguments),
            functions=dict(self.functions),
            at_exit="",
        )

    def and_or(self, node: syntax.AndOr) -> Status:
        """`&&` and `||`."""
        status: Status = True
        _, last = node.parts[-1]
        for operator, each in node.parts:
            ran = operator == "" or isinstance(status, Doubt) or status == (operator == "&&")
            if not ran:
                continue
            if operator == "" or isinstance(status, bool):
                status = self._part(each, each is last)
            else:
                doubt = status if operator == "&&" else status.negated()
                taken = self.perhaps(doubt, lambda each=each: self._part(each, each is last))  # type: ignore[misc]
                status = _joined(operator, status, taken)
        return status

    def _part(self, node: syntax.Node, is_last: bool) -> Status:
        """A part of a list; the status of the last is not asked for."""
        if is_last:
            status = self.follow(node)
            if isinstance(status, bool):
                self.check(status)
            return status
        with self.asking():
            return self.follow(node)

    def perhaps(
        self, doubt: Doubt, way: Callable[[], Status], other: Callable[[], Status] | None = None
    ) -> Status:
        """Follows `way` on the condition of `doubt`, and `other` on its opposite. Where one of them
        ends, the rest is on the condition of the other."""
        before, conditions, after_s = dict(self.variables), self.conditions, self.after_s
        ends: list[Ends | None] = []
        outcomes: list[Status] = []
        variables: list[dict[str, str]] = []
        for condition, follow in ((doubt, way), (doubt.negated(), other)):
            self.variables, self.conditions = dict(before), (*conditions, condition)
            try:
                outcomes.append(follow() if follow is not None else True)
                ends.append(None)
            except Ends as end:
                ends.append(end)
                outcomes.append(end.status)
            variables.append(self.variables)
        self.after_s = after_s
        first, second = ends
        if first is not None and second is not None:
            raise first
        if first is not None or second is not None:
            goes_on = 1 if first is not None else 0
            self.variables = variables[goes_on]
            self.conditions = (*conditions, doubt.negated() if goes_on else doubt)
            return outcomes[goes_on]
        self.conditions, self.variables = conditions, self._merged(*variables)
        return outcomes[0] if outcomes[0] == outcomes[1] else Doubt(doubt.text, doubt.runs)

    def _merged(self, one: dict[str, str], other: dict[str, str]) -> dict[str, str]:
        return {
            name: one.get(name, "")
            if one.get(name) == other.get(name)
            else self.unknown(f"${name}")
            for name in one.keys() | other.keys()
        }

    def if_(self, node: syntax.If) -> Status:
        """An if, by what its conditions say."""
        return self._branches(list(node.branches), node.otherwise)

    def _branches(
        self,
        branches: list[tuple[syntax.Sequence, syntax.Sequence]],
        otherwise: syntax.Sequence | None,
    ) -> Status:
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
            status, lambda: self.follow(body), lambda: self._branches(rest, otherwise)
        )

    def while_(self, node: syntax.While) -> Status:
        """A body is followed once: what waits until something is there finds it there."""
        with self.asking():
            status = self.follow(node.condition)
        if isinstance(status, Doubt):
            doubt = status if node.wanted else status.negated()
            return self.perhaps(doubt, lambda: self._loop_body(node.body))
        if status is not node.wanted:
            return True
        reads = bool(self.piped)
        if self._loop_body(node.body) is False and not reads:
            raise Ends("exit")
        return True

    def _loop_body(self, body: syntax.Sequence) -> bool:
        """Whether it came to a break, or to its end with something that may have been one."""
        conditions = self.conditions
        try:
            self.follow(body)
        except Ends as end:
            if end.what not in ("break", "continue"):
                raise
            if end.levels > 1:
                raise Ends(end.what, levels=end.levels - 1) from end
            return end.what == "break"
        else:
            return self.conditions != conditions
        finally:
            self.conditions = conditions

    def for_(self, node: syntax.For) -> Status:
        """A for, over the words that are known and once for each unknown."""
        items = (
            self.arguments[1:]
            if node.words is None
            else [each for word in self._written(node.words) for each in self.fields(word)]
        )
        for item in items:
            self.variables[node.name] = item
            if self._loop_body(node.body):
                break
        return True

    def case(self, node: syntax.Case) -> Status:
        """A case, by the first pattern that matches."""
        return self._items(self.text(node.subject), node, 0)

    def _items(self, subject: str, node: syntax.Case, at: int) -> Status:
        if at >= len(node.items):
            return True
        patterns, body = node.items[at]
        matches = [self._matches(subject, pattern) for pattern in patterns]
        if True in matches:
            return self.follow(body)
        if None in matches:
            doubt = Doubt(
                f"case {node.subject.text} in {'|'.join(each.text for each in patterns)})",
                self._runs(subject),
            )
            return self.perhaps(
                doubt, lambda: self.follow(body), lambda: self._items(subject, node, at + 1)
            )
        return self._items(subject, node, at + 1)

    def _matches(self, subject: str, pattern: syntax.Word) -> bool | None:
        shape = self.pattern(pattern)
        if shape == "*":
            return True
        if not is_known(subject) or not is_known(shape):
            return None
        return fnmatchcase(subject, shape)

    def pattern(self, word: syntax.Word) -> str:
        """`word` as a pattern: what is quoted stands for itself."""
        found = ""
        for segment in word.segments:
            text = self.segment(segment)
            found += (
                re.sub(r"([*?\[])", r"[\1]", text) if segment.quoted else text.replace("[!", "[!")
            )
        return found

    def function(self, node: syntax.Function) -> Status:
        """A function is kept, and followed when it is called."""
        if node.by_keyword:
            self.must_not_be_dash(f"function {node.name}", f"{node.name}() {{ ... }}")
        self.functions[node.name] = node.body
        return True

    def group(self, node: syntax.Group) -> Status:
        """A group, in a shell of its own when in parentheses."""
        if not node.subshell:
            return self.follow(node.body)
        inner = self.copy()
        with inner.ending() as result:
            result.append(inner.follow(node.body))
        self.after_s = max(self.after_s, inner.after_s)
        return result[-1]

    def redirected(self, node: syntax.Redirected) -> Status:
        """Where output goes makes no difference."""
        for redirect in node.redirects:
            if redirect.operator in _NOT_OF_DASH:
                self.must_not_be_dash(redirect.operator, _NOT_OF_DASH[redirect.operator])
        return self.follow(node.body)

    def pipeline(self, node: syntax.Pipeline) -> Status:
        """A pipeline: each part reads what those before print; the status is that of the last."""
        status: Status = True
        begins, before = len(self.memory.ran), self.piped
        if len(node.parts) == 1:
            with self.asking():
                status = self.follow(node.parts[0])
        else:
            for position, part in enumerate(node.parts):
                inner = self.copy()
                inner.piped = tuple(self.memory.ran[begins:]) if position else before
                with inner.ending() as result:
                    result.append(inner.follow(part))
                status = result[-1]
                self.after_s = max(self.after_s, inner.after_s)
        if isinstance(status, Doubt):
            status = Doubt(
                node.text.lstrip("! "), tuple(self.memory.ran[begins:]), status.test, status.is_true
            )
        if not node.negated:
            return status
        return not status if isinstance(status, bool) else status.negated()

    # --- Simple commands ---

    def simple(self, node: syntax.Simple) -> Status:
        """A simple command: its words expanded, its variables set."""
        for redirect in node.redirects:
            if redirect.operator in _NOT_OF_DASH:
                self.must_not_be_dash(redirect.operator, _NOT_OF_DASH[redirect.operator])
        words = [field for word in self._written(node.words) for field in self.fields(word)]
        values = {}
        for name, appends, word in node.assignments:
            before = self.variables.get(name, "") if appends else ""
            values[name] = before + self.text(word)
        if not words:
            self.variables |= values
            return True
        kept, piped = self.variables, self.piped
        self.variables = kept | values
        script = self._stdin_script(node, words)
        self.piped = self._read_by(node) or piped
        try:
            status = self.execute(words) if script is None else self.script_in_subshell(script)
        finally:
            self.piped = piped
            self._keep(kept, values)
        if isinstance(status, Doubt) and not status.text:
            status = replace(status, text=node.text)
        return status

    def _written(self, words: Iterable[syntax.Word]) -> Iterable[syntax.Word]:
        """With `{a,b}` as two words, in a shell that knows them."""
        return (
            [each for word in words for each in syntax.without_braces(word)]
            if self.expands_braces
            else words
        )

    def _keep(self, before: dict[str, str], own: dict[str, str]) -> None:
        """Variables that stood before a command are its own."""
        for name in own:
            if name in before:
                self.variables[name] = before[name]
            else:
                self.variables.pop(name, None)

    def _stdin_script(self, node: syntax.Simple, words: list[str]) -> str | None:
        """What a shell without a script reads."""
        if words[0].rsplit("/", 1)[-1] not in _SHELLS or any(
            not each.startswith(("-", "+")) for each in words[1:]
        ):
            return None
        for each in node.redirects:
            if each.operator == "<<<":
                return self.text(each.target)
            if each.operator.startswith("<<"):
                return "\n".join(each.lines)
        return printed(self.piped) if self.piped else None

    def _read_by(self, node: syntax.Simple) -> tuple[Ran, ...]:
        """What a here-string gives to a command, as an echo would."""
        given = [each.target for each in node.redirects if each.operator == "<<<"]
        return (Ran(("echo", self.text(given[-1]))),) if given else ()

    def script_in_subshell(self, text: str) -> Status:
        """Follows a script that another shell reads."""
        inner = self.copy()
        inner.ends_on_failure = inner.asks = False
        return self._after(inner, inner.script(text))

    def execute(self, words: list[str]) -> Status:
        """Follows a command, whatever starts it: sudo, env, timeout, another shell, xargs."""
        self.depth += 1
        if self.depth > 40:
            raise NotRead("starts programs from programs without end")
        try:
            return self._execute(words)
        finally:
            self.depth -= 1

    def _execute(self, words: list[str]) -> Status:  # noqa: PLR0911  one for each kind of command
        if not words:
            return True
        name = words[0].rsplit("/", 1)[-1]
        if name in self.functions:
            return self._call(name, words)
        if name in BUILTINS:
            return BUILTINS[name](self, words)
        if name in _SHELLS:
            return self._other_shell(words)
        if (file := self.memory.files.get(words[0])) is not None:
            return self._file(file, words)
        inner = started_by(words)
        if inner is not None:
            if name == "exec":
                if not inner:
                    return True
                raise Ends("exit", self.execute(inner))
            return self.execute(inner)
        return self.program(words)

    def program(self, words: list[str]) -> Status:
        """A program that starts no other."""
        ran = Ran(tuple(words), self.conditions, self.after_s, self.background, self.piped)
        self.memory.ran.append(ran)
        if ran.program == "sleep":
            if (
                any(word.lower() in ("inf", "infinity") for word in words[1:])
                and not self.background
            ):
                raise Ends("exit", False)  # what comes behind it never runs
            self.after_s += slept_s(words[1:])
        return status_of(ran, self.memory)

    def _file(self, file: File, words: list[str]) -> Status:
        """A script that is mounted into the container, started by its path."""
        if not file.may_run:
            self.program(words)
            return False
        inner = self.new_shell(words)
        inner.obey_first_line(file.text)
        return self._after(inner, inner.script(file.text))

    def _after(self, inner: Shell, status: Status) -> Status:
        self.after_s = max(self.after_s, inner.after_s)
        return status

    def new_shell(self, arguments: list[str]) -> Shell:
        """Another shell, with these arguments."""
        inner = self.copy()
        inner.ends_on_failure = inner.asks = inner.expands_braces = inner.may_be_dash = False
        inner.arguments = arguments
        return inner

    def _call(self, name: str, words: list[str]) -> Status:
        arguments, self.arguments = self.arguments, [self.arguments[0], *words[1:]]
        try:
            return self.follow(self.functions[name])
        except Ends as end:
            if end.what != "return":
                raise
            return end.status
        finally:
            self.arguments = arguments

    def _other_shell(self, words: list[str]) -> Status:
        """`sh -c SCRIPT NAME ARGUMENTS` or `sh FILE ARGUMENTS`, in any spelling of its options."""
        position, is_command = 1, False
        inner = self.new_shell(["sh"])
        name = words[0].rsplit("/", 1)[-1]
        inner.expands_braces = name in _EXPAND_BRACES
        inner.may_be_dash = name in _MAY_BE_DASH and not self.memory.sh_is_no_dash
        while position < len(words) and words[position].startswith(("-", "+")):
            option = words[position]
            position += 1
            if option == "--":
                break
            inner.set_option(option, words[position] if position < len(words) else "")
            if option in ("-o", "+o", "-O"):
                position += 1
            elif not option.startswith("--") and "c" in option:
                is_command = True
        rest = words[position:]
        if not is_command and rest and rest[0] in self.memory.files:
            inner.arguments = rest
            return self._after(inner, inner.script(self.memory.files[rest[0]].text))
        if not is_command or not rest:
            return self.program(words)
        inner.arguments = rest[1:] or ["sh"]
        return self._after(inner, inner.script(rest[0]))

    def must_not_be_dash(self, what: str, instead: str) -> None:
        """Raises NotRead for what only some shells know that may be called sh."""
        if self.may_be_dash:
            raise NotRead(
                f"{what} is unknown to dash, which is sh in Debian, Ubuntu and their "
                "images, and fails there; write "
                f"{instead}, or let bash run it"
            )

    def set_option(self, option: str, following: str) -> None:
        """`-e`, `-euo pipefail`, `-o errexit`, and what takes them back."""
        is_letter = "e" in option and not option.startswith("--")
        if is_letter or (option.endswith("o") and following == "errexit"):
            self.ends_on_failure = option.startswith("-")

    # --- Words ---

    def unknown(self, text: str, runs: tuple[Ran, ...] = (), value: Linear | None = None) -> str:
        """A new unknown, as the character that stands for it."""
        return self.memory.char_of(Unknown(text, runs, value))

    def _runs(self, *words: str) -> tuple[Ran, ...]:
        return tuple(
            run for word in words for each in self.memory.unknowns_in(word) for run in each.runs
        )

    def text(self, word: syntax.Word) -> str:
        """`word` expanded, and not split."""
        return "".join(self.segment(each) for each in word.segments)

    def fields(self, word: syntax.Word) -> list[str]:  # noqa: C901  splitting goes piece by piece
        """`word` expanded and split into fields, as arguments are."""
        found: list[str] = []
        current: str | None = None
        for segment in word.segments:
            if (
                isinstance(segment, syntax.Variable)
                and segment.name in "@*"
                and not segment.operator
            ):
                arguments = self.arguments[1:]
                if segment.quoted and segment.name == "*":
                    arguments = [" ".join(arguments)]
                if arguments:
                    current = (current or "") + arguments[0]
                    for each in arguments[1:]:
                        found.append(current)
                        current = each
                continue
            text = self.segment(segment)
            if segment.quoted or isinstance(segment, syntax.Literal):
                current = (current or "") + text
                continue
            parts = text.split()
            if current is not None and text[:1].isspace():
                found.append(current)
                current = None
            for position, part in enumerate(parts):
                if position:
                    found.append(current or "")
                    current = part
                else:
                    current = (current or "") + part
            if current is not None and parts and text[-1:].isspace():
                found.append(current)
                current = None
        return [*found, current] if current is not None else found

    def segment(self, segment: syntax.Segment) -> str:
        """One piece of a word, expanded."""
        if isinstance(segment, syntax.Literal):
            return segment.text
        if isinstance(segment, syntax.Variable):
            return self._variable(segment)
        if isinstance(segment, syntax.Arithmetic):
            return self._arithmetic(segment.text)
        return self._substitution(segment)

    def value_of(self, name: str) -> str | None:
        """A variable, or None when it is unset."""
        if name.isdigit():
            return self.arguments[int(name)] if int(name) < len(self.arguments) else None
        if name == "#":
            return str(len(self.arguments) - 1)
        if name in "@*":
            return " ".join(self.arguments[1:])
        if name in self.variables:
            return self.variables[name]
        if name in "?$-!" or self.unset_is_unknown or name in _UNKNOWN_VARIABLES:
            return self.unknown(f"${name}")
        return None

    def _variable(self, segment: syntax.Variable) -> str:  # noqa: PLR0911  one for each operator
        value, operator = self.value_of(segment.name), segment.operator
        written = segment.word.text if segment.word else ""
        if not operator:
            return value or ""
        if value is not None and not is_known(value):
            return self.unknown(f"${{{segment.name}{operator}{written}}}", self._runs(value))
        is_set = value is not None and (bool(value) or not operator.startswith(":"))
        if operator in (":-", "-"):
            return value or "" if is_set else self.text(segment.word) if segment.word else ""
        if operator in (":=", "="):
            if not is_set:
                self.variables[segment.name] = self.text(segment.word) if segment.word else ""
            return self.variables.get(segment.name, value or "")
        if operator in (":+", "+"):
            return self.text(segment.word) if is_set and segment.word else ""
        if operator in (":?", "?"):
            if not is_set:
                raise Ends("exit", False)
            return value or ""
        return self._edited(value or "", segment)

    def _edited(self, value: str, segment: syntax.Variable) -> str:
        operator, word = segment.operator, segment.word
        if operator == "length":
            return str(len(value))
        shape = self.pattern(word) if word is not None else ""
        if operator in ("#", "##"):
            lengths = range(len(value) + 1)
            order = lengths if operator == "#" else reversed(lengths)
            return next((value[size:] for size in order if fnmatchcase(value[:size], shape)), value)
        if operator in ("%", "%%"):
            starts = range(len(value), -1, -1) if operator == "%" else range(len(value) + 1)
            return next((value[:at] for at in starts if fnmatchcase(value[at:], shape)), value)
        if operator in ("^^", ",,") and not shape:
            return value.upper() if operator == "^^" else value.lower()
        return self.unknown(f"${{{segment.name}{operator}{word.text if word else ''}}}")

    def _substitution(self, segment: syntax.Substitution) -> str:
        begins = len(self.memory.ran)
        inner = self.copy()
        with inner.ending():
            inner.follow(segment.body)
        runs = tuple(self.memory.ran[begins:])
        del self.memory.ran[begins:]
        output = printed(runs)
        if output is not None:
            return output
        return self.unknown(f"$({segment.text})", runs, date_of(runs, self.memory))

    def _arithmetic(self, text: str) -> str:
        return self.number(text)

    def number(self, text: str) -> str:
        """What an arithmetic expression is: digits, or an unknown of which a sum may be known."""
        value = self.calculated(text)
        if value is None:
            return self.unknown(f"$(({text}))", self._runs(*self._named(text)))
        known = value.as_int()
        return (
            str(known)
            if known is not None
            else self.unknown(f"$(({text.strip()}))", self._runs(*self._named(text)), value)
        )

    def calculated(self, text: str) -> Linear | None:
        """The sum that an expression is, or None."""
        try:
            expanded = self.text(_expandable(text))
        except NotRead:
            return None
        return evaluate(expanded, self._number_of)

    def _named(self, text: str) -> list[str]:
        return [self.variables.get(name, "") for name in re.findall(r"[A-Za-z_]\w*", text)]

    def _number_of(self, name: str) -> Linear | None:
        """The value of a name or of an unknown in an expression."""
        text = name if not is_known(name) else self.value_of(name) or "0"
        return self.linear(text)

    def linear(self, text: str) -> Linear | None:
        """See Memory.linear."""
        return self.memory.linear(text)

    # --- Conditions ---

    def double_bracket(self, node: syntax.DoubleBracket) -> Status:
        """`[[ ... ]]`."""
        self.must_not_be_dash("[[ ... ]]", "[ ... ]")
        words: list[str] = []
        for word in node.words:
            previous = words[-1] if words else ""
            is_shape = previous in ("==", "=", "!=")
            words.append(
                word.plain
                if word.plain in _OPERATORS
                else self.pattern(word)
                if is_shape
                else self.text(word)
            )
        return self.tested([str(word) for word in words], node.text, doubled=True)

    def double_parenthesis(self, node: syntax.DoubleParenthesis) -> Status:
        """`(( ... ))`."""
        match = re.fullmatch(r"(.+?)(<=|>=|==|!=|<|>)(.+)", node.text, re.DOTALL)
        names = {"<": "-lt", "<=": "-le", ">": "-gt", ">=": "-ge", "==": "-eq", "!=": "-ne"}
        if match is None:
            value = self.calculated(node.text)
            known = value.as_int() if value else None
            return known != 0 if known is not None else Doubt(f"(({node.text}))")
        return self.tested(
            [self.number(match[1]), names[match[2]], self.number(match[3])], f"(({node.text}))"
        )

    def tested(self, words: list[str], text: str, *, doubled: bool = False) -> Status:
        """What `test WORDS` says."""
        status, rest = self._any(words, text, doubled=doubled)
        return status if not rest else Doubt(text, self._runs(*words))

    def _any(self, words: list[str], text: str, *, doubled: bool) -> tuple[Status, list[str]]:
        status, rest = self._all(words, text, doubled=doubled)
        while rest and rest[0] in ("-o", "||"):
            other, rest = self._all(rest[1:], text, doubled=doubled)
            status = _joined("||", status, other)
        return status, rest

    def _all(self, words: list[str], text: str, *, doubled: bool) -> tuple[Status, list[str]]:
        status, rest = self._one(words, text, doubled=doubled)
        while rest and rest[0] in ("-a", "&&"):
            other, rest = self._one(rest[1:], text, doubled=doubled)
            status = _joined("&&", status, other)
        return status, rest

    def _one(self, words: list[str], text: str, *, doubled: bool) -> tuple[Status, list[str]]:
        if len(words) >= 3 and words[1] in _BINARY:
            return self._compared(words[0], words[1], words[2], text, doubled=doubled), words[3:]
        if not words:
            return False, []
        if words[0] == "!" and len(words) > 1:
            status, rest = self._one(words[1:], text, doubled=doubled)
            return (not status if isinstance(status, bool) else status.negated()), rest
        if words[0] == "(":
            status, rest = self._any(words[1:], text, doubled=doubled)
            return status, rest[1:] if rest[:1] == [")"] else ["("]
        if len(words) >= 2 and re.fullmatch(r"-[a-zA-Z]", words[0]):
            return self._asked(words[0], words[1], text), words[2:]
        return self._asked("-n", words[0], text), words[1:]

    def _asked(self, operator: str, word: str, text: str) -> Status:
        """An operator with one operand."""
        if operator in ("-n", "-z"):
            if UNKNOWN.sub("", word):
                return operator == "-n"
            if not word:
                return operator == "-z"
            doubt = Doubt(text, self._runs(word), ("-n", word))
            return doubt if operator == "-n" else doubt.negated()
        if operator in ("-t", "-v"):
            return False if operator == "-t" else self.value_of(word) is not None
        if _CLUSTER_PATH.search(word):
            return True
        return Doubt(text, self._runs(word), (operator, word))

    def _compared(  # noqa: PLR0911  one for each kind of operator
        self, left: str, operator: str, right: str, text: str, *, doubled: bool
    ) -> Status:
        if operator in _NUMBERS:
            one, other = self.linear(left), self.linear(right)
            known = (one - other).as_int() if one is not None and other is not None else None
            if known is None:
                return Doubt(text, self._runs(left, right), (left, operator, right))
            return _NUMBERS[operator](known)
        if not is_known(left) or not is_known(right):
            doubt = Doubt(text, self._runs(left, right), (left, "=", right))
            return doubt.negated() if operator == "!=" else doubt
        if operator == "=~":
            try:
                return re.search(_as_python(right), left) is not None
            except re.error:
                return Doubt(text)
        if operator in ("<", ">", "-nt", "-ot", "-ef"):
            return Doubt(text)
        equal = fnmatchcase(left, right) if doubled else left == right
        return equal == (operator != "!=")


_UNKNOWN_VARIABLES = frozenset(
    {"HOSTNAME", "RANDOM", "SECONDS", "PPID", "UID", "EUID", "LINENO", "PWD", "HOME", "PATH"}
)


_NUMBERS: dict[str, Callable[[int], bool]] = {
    "-eq": lambda difference: difference == 0,
    "-ne": lambda difference: difference != 0,
    "-lt": lambda difference: difference < 0,
    "-le": lambda difference: difference <= 0,
    "-gt": lambda difference: difference > 0,
    "-ge": lambda difference: difference >= 0,
}


_BINARY = frozenset(["=", "==", "!=", "=~", "<", ">", "-nt", "-ot", "-ef", *_NUMBERS])


_OPERATORS = frozenset(["&&", "||", "!", "(", ")", *_BINARY])


def _joined(operator: str, one: Status, other: Status) -> Status:
    """The status of `one && other`, or of `one || other`."""
    decides = operator == "||"
    if isinstance(one, bool):
        return one if one is decides else other
    if isinstance(other, bool):
        return other if other is decides else one
    return Doubt(f"{one.text} {operator} {other.text}", one.runs + other.runs)


def _expandable(text: str) -> syntax.Word:
    """The text of an expression, with what stands for variables and commands in it."""
    (item,) = syntax.parse('_ "' + text.replace('"', "") + '"').items
    node = item[0]
    if not isinstance(node, syntax.Simple) or len(node.words) != 2:
        raise NotRead(f"{text!r} is not understood as a number")
    return node.words[1]


def _as_python(expression: str) -> str:
    """A POSIX regular expression, as Python writes it."""
    for name, shape in (
        ("space", r"\s"),
        ("digit", r"\d"),
        ("alpha", "a-zA-Z"),
        ("alnum", "a-zA-Z0-9"),
    ):
        expression = expression.replace(f"[:{name}:]", shape)
    return expression


# Whose status `set -e` looks at: not that of what is made of other commands, which were looked at
# one by one.
_CHECKED = (
    syntax.Simple,
    syntax.Pipeline,
    syntax.Group,
    syntax.DoubleBracket,
    syntax.DoubleParenthesis,
)


_FOLLOW: dict[type, Callable[[Shell, Any], Status]] = {
    syntax.Simple: Shell.simple,
    syntax.Pipeline: Shell.pipeline,
    syntax.AndOr: Shell.and_or,
    syntax.Sequence: Shell.sequence,
    syntax.If: Shell.if_,
    syntax.While: Shell.while_,
    syntax.For: Shell.for_,
    syntax.Case: Shell.case,
    syntax.Function: Shell.function,
    syntax.Group: Shell.group,
    syntax.DoubleBracket: Shell.double_bracket,
    syntax.DoubleParenthesis: Shell.double_parenthesis,
    syntax.Redirected: Shell.redirected,
}
