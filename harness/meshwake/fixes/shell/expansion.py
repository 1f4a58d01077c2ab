"""Words expanded as a shell does it: variables, substitutions, arithmetic, splitting into fields.

What depends on something that only a run can know becomes an unknown (memory.Unknown). Functions
of the shell whose words they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from meshwake.fixes.shell import tree
from meshwake.fixes.shell.linear import Linear, evaluate
from meshwake.fixes.shell.memory import Ends, Ran, Unknown, is_known
from meshwake.fixes.shell.parser import parse
from meshwake.fixes.shell.programs import date_of, printed
from meshwake.fixes.shell.tree import NotRead

if TYPE_CHECKING:
    from meshwake.fixes.shell.shell import Shell

# Set in every shell, to a value that the script does not have.
_UNKNOWN_VARIABLES = frozenset(
    {"HOSTNAME", "RANDOM", "SECONDS", "PPID", "UID", "EUID", "LINENO", "PWD", "HOME", "PATH"}
)
# What kubelet sets in every container.
_OF_KUBELET = re.compile(r"_SERVICE_(HOST|PORT)")


def unknown(
    shell: Shell, text: str, runs: tuple[Ran, ...] = (), value: Linear | None = None
) -> str:
    """A new unknown, as the character that represents it in words."""
    return shell.memory.char_of(Unknown(text, runs, value))


def runs_in(shell: Shell, *words: str) -> tuple[Ran, ...]:
    """The commands whose output is in `words`."""
    unknowns = (each for word in words for each in shell.memory.unknowns_in(word))
    return tuple(run for each in unknowns for run in each.runs)


# Words


def text(shell: Shell, word: tree.Word) -> str:
    """`word` expanded, and not split."""
    return "".join(_segment(shell, segment) for segment in word.segments)


def pattern(shell: Shell, word: tree.Word) -> str:
    """`word` as a pattern: what is quoted matches itself."""
    found = ""
    for segment in word.segments:
        expanded = _segment(shell, segment)
        # fnmatch knows no backslash; brackets around one character make it mean itself.
        if segment.quoted:
            expanded = re.sub(r"([*?\[])", r"[\1]", expanded)
        found += expanded
    return found


def all_fields(shell: Shell, words: Iterable[tree.Word]) -> list[str]:
    """The fields of all `words`, with `{a,b}` as two words in a shell that expands braces."""
    written = list(words)
    # Before everything else, as in bash: what a variable has is not looked at for braces.
    if shell.expands_braces:
        written = [each for word in written for each in tree.without_braces(word)]
    return [field for word in written for field in fields(shell, word)]


def fields(shell: Shell, word: tree.Word) -> list[str]:
    """`word` expanded and split into fields, as arguments are."""
    found = _Fields()
    for segment in word.segments:
        if _is_all_arguments(segment):
            found.add_arguments(_arguments(shell, segment))
            continue
        expanded = _segment(shell, segment)
        # POSIX, 2.6.5: only what was expanded is split, and only outside of quotes.
        if segment.quoted or isinstance(segment, tree.Literal):
            found.add(expanded)
        else:
            found.add_split(expanded)
    complete = found.all()
    # "$@" without arguments makes not even an empty field.
    is_nothing = complete == [""] and any(map(_is_every_argument, word.segments))
    return [] if is_nothing else complete


class _Fields:
    """Fields that are complete, and the one that the next piece of the word continues."""

    def __init__(self) -> None:
        self._complete: list[str] = []
        self._current: str | None = None

    def add(self, piece: str) -> None:
        """A piece that is not split. An empty one in quotes makes an empty field."""
        self._current = (self._current or "") + piece

    def add_split(self, piece: str) -> None:
        """A piece that white space splits."""
        if piece[:1].isspace():
            self._end()
        parts = piece.split()
        for position, part in enumerate(parts):
            if position:
                self._end()
            self.add(part)
        if parts and piece[-1:].isspace():
            self._end()

    def add_arguments(self, arguments: list[str]) -> None:
        """Each is a field; the first continues the current one, and the last may be continued."""
        for position, argument in enumerate(arguments):
            if position:
                self._end()
            self.add(argument)

    def all(self) -> list[str]:
        """All fields."""
        self._end()
        return self._complete

    def _end(self) -> None:
        if self._current is not None:
            self._complete.append(self._current)
            self._current = None


def _is_all_arguments(segment: tree.Segment) -> bool:
    """`$@`, `$*`, quoted or not."""
    return isinstance(segment, tree.Variable) and segment.name in "@*" and not segment.operator


def _is_every_argument(segment: tree.Segment) -> bool:
    """`$@`, also in quotes."""
    return _is_all_arguments(segment) and isinstance(segment, tree.Variable) and segment.name == "@"


def _arguments(shell: Shell, segment: tree.Segment) -> list[str]:
    arguments = shell.arguments[1:]
    if segment.quoted and isinstance(segment, tree.Variable) and segment.name == "*":
        return [" ".join(arguments)]
    return arguments


def _segment(shell: Shell, segment: tree.Segment) -> str:
    """One piece of a word, expanded."""
    if isinstance(segment, tree.Literal):
        return segment.text
    if isinstance(segment, tree.Variable):
        return _variable(shell, segment)
    if isinstance(segment, tree.Arithmetic):
        return number(shell, segment.text)
    return _substitution(shell, segment)


def _substitution(shell: Shell, segment: tree.Substitution) -> str:
    """What `$(...)` prints. Its commands are not those of the script, but those of the unknown."""
    begins = len(shell.memory.ran)
    inner = shell.copy()
    with inner.ending():
        inner.follow(segment.body)
    runs = tuple(shell.memory.ran[begins:])
    # They stay with the unknown that they print; a restart among them would be one for its output.
    del shell.memory.ran[begins:]
    output = printed(runs)
    if output is not None:
        return output
    return unknown(shell, f"$({segment.text})", runs, date_of(runs, shell.memory))


# Variables


def value_of(shell: Shell, name: str) -> str | None:
    """A variable or parameter, or None when it is unset."""
    if name.isdigit() or name in "#@*":
        return _parameter(shell.arguments, name)
    if name in shell.variables:
        return shell.variables[name]
    if shell.unset_is_unknown or _is_set_by_others(name):
        return unknown(shell, f"${name}")
    return None


def _is_set_by_others(name: str) -> bool:
    """Whether a variable has a value although neither script nor manifest sets it."""
    # Of a process: $?, $$, $!, $-, and what every shell sets.
    if name in "?$-!" or name in _UNKNOWN_VARIABLES:
        return True
    # Of an environment that is not in the manifest: kubelet sets variables for each Service.
    return _OF_KUBELET.search(name) is not None


def _parameter(arguments: list[str], name: str) -> str | None:
    """$0, $1 and so on; how many there are; all of them."""
    # $0 does not count.
    if name == "#":
        return str(len(arguments) - 1)
    if name in "@*":
        return " ".join(arguments[1:])
    position = int(name)
    return arguments[position] if position < len(arguments) else None


def _variable(shell: Shell, segment: tree.Variable) -> str:
    value = value_of(shell, segment.name)
    if value is None:
        return _unset_variable(shell, segment)
    if not segment.operator:
        return value
    if not is_known(value):
        return unknown(shell, _written(segment), runs_in(shell, value))
    if _asks_whether_set(segment):
        return _by_default(shell, value, segment)
    return _edited(shell, value, segment)


def _unset_variable(shell: Shell, segment: tree.Variable) -> str:
    if _asks_whether_set(segment):
        return _by_default(shell, None, segment)
    _check_may_be_unset(shell, segment.name)
    return _edited(shell, "", segment) if segment.operator else ""


def _asks_whether_set(segment: tree.Variable) -> bool:
    return segment.operator.lstrip(":") in ("-", "=", "+", "?")


def _check_may_be_unset(shell: Shell, name: str) -> None:
    """Raises NotRead where the script ends at a variable that is not set."""
    if shell.ends_on_unset:
        raise NotRead(
            f"`set -u` ends it at ${name}, which nothing that is read here sets; set it, or write "
            f"${{{name}:-}}"
        )


def _by_default(shell: Shell, value: str | None, segment: tree.Variable) -> str:
    """The operators that depend on whether a variable is set; with a colon an empty one is not."""
    operator = segment.operator[-1]
    empty_is_unset = segment.operator.startswith(":")
    if value == "" and empty_is_unset:
        value = None
    if operator == "+":
        return _argument(shell, segment) if value is not None else ""
    if value is not None:
        return value
    if operator == "?":
        raise Ends("exit", False)
    default = _argument(shell, segment)
    if operator == "=":
        shell.variables[segment.name] = default
    return default


def _argument(shell: Shell, segment: tree.Variable) -> str:
    return text(shell, segment.word) if segment.word else ""


def _written(segment: tree.Variable) -> str:
    return f"${{{segment.name}{segment.operator}{segment.word.text if segment.word else ''}}}"


def _edited(shell: Shell, value: str, segment: tree.Variable) -> str:
    """The operators that cut a variable or change its case."""
    operator = segment.operator
    shape = pattern(shell, segment.word) if segment.word is not None else ""
    match operator:
        case "length":
            return str(len(value))
        case "#" | "##":
            return _without_beginning(value, shape, longest=operator == "##")
        case "%" | "%%":
            return _without_end(value, shape, longest=operator == "%%")
        # With a pattern only letters that match it change, which is not followed here.
        case "^^" if not shape:
            return value.upper()
        case ",," if not shape:
            return value.lower()
    return unknown(shell, _written(segment))


def _without_beginning(value: str, shape: str, *, longest: bool) -> str:
    """`value` less the shortest or longest beginning that matches."""
    sizes = list(range(len(value) + 1))
    for size in reversed(sizes) if longest else sizes:
        if fnmatchcase(value[:size], shape):
            return value[size:]
    return value


def _without_end(value: str, shape: str, *, longest: bool) -> str:
    """`value` less the shortest or longest end that matches."""
    starts = list(range(len(value) + 1))
    for start in starts if longest else reversed(starts):
        if fnmatchcase(value[start:], shape):
            return value[:start]
    return value


# Arithmetic


def number(shell: Shell, expression: str) -> str:
    """What an arithmetic expression is: digits, or an unknown of which a sum may be known."""
    value = calculated(shell, expression)
    known = value.as_int() if value is not None else None
    if known is not None:
        return str(known)
    # Not known as a number, but what it depends on is kept: a near-expiry check compares such.
    names = re.findall(r"[A-Za-z_]\w*", expression)
    runs = runs_in(shell, *(shell.variables.get(name, "") for name in names))
    written = expression if value is None else expression.strip()
    return unknown(shell, f"$(({written}))", runs, value)


def calculated(shell: Shell, expression: str) -> Linear | None:
    """The sum that an expression is, or None."""
    try:
        expanded = text(shell, _expandable(expression))
    except NotRead:
        return None

    def number_of(name: str) -> Linear | None:
        """The value of a name or of an unknown in the expression."""
        if not is_known(name):
            return shell.memory.linear(name)
        value = value_of(shell, name)
        # bash(1), arithmetic evaluation: a name without a value is 0.
        if value is None:
            _check_may_be_unset(shell, name)
        return shell.memory.linear(value or "0")

    return evaluate(expanded, number_of)


def _expandable(expression: str) -> tree.Word:
    """The text of an expression as a word, so that variables and commands in it are expanded."""
    # As an argument in double quotes of a command, which the parser reads as any other.
    (item,) = parse('_ "' + expression.replace('"', "") + '"').items
    node = item[0]
    if not isinstance(node, tree.Simple) or len(node.words) != 2:
        raise NotRead(f"{expression!r} is not understood as a number")
    return node.words[1]
