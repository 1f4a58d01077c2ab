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
    shell: Shell,
    text: str,
    runs: tuple[Ran, ...] = (),
    value: Linear | None = None,
) -> str:
    """A new unknown, as the character that represents it in words."""
    return shell.memory.char_of(Unknown(text, runs, value))


def runs_in(shell: Shell, *words: str) -> tuple[Ran, ...]:
    """The commands whose output is in `words`."""
    runs: list[Ran] = []
    for each in shell.memory.unknowns_in("".join(words)):
        runs += each.runs
    return tuple(runs)


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
    expanded = list(words)
    # Before everything else, as in bash: what a variable has is not looked at for braces.
    if shell.expands_braces:
        expanded = [alternative for word in words for alternative in tree.without_braces(word)]

    found: list[str] = []
    for word in expanded:
        found += fields(shell, word)
    return found


def fields(shell: Shell, word: tree.Word) -> list[str]:
    """`word` expanded and split into fields, as arguments are."""
    arguments = shell.arguments[1:]
    found = _Fields()
    for segment in word.segments:
        # POSIX, 2.5.2: each argument is a field, also an empty one. Outside of quotes they are
        # split as any other text.
        if _is_each_argument(segment):
            found.add_arguments(arguments)
            continue

        expanded = _segment(shell, segment)
        # POSIX, 2.6.5: only what was expanded is split, and only outside of quotes.
        if segment.quoted or isinstance(segment, tree.Literal):
            found.add(expanded)
        else:
            found.add_split(expanded)

    # "$@" without arguments makes no field, not even the empty one that quotes make.
    complete = found.all()
    if complete == [""] and not arguments and any(map(_is_each_argument, word.segments)):
        return []
    return complete


class _Fields:
    """Fields that are complete, and the one that the next piece of the word continues."""

    def __init__(self) -> None:
        self._complete: list[str] = []
        # None: nothing is begun. An empty one in quotes is begun, and a field of its own.
        self._current: str | None = None

    def add(self, piece: str) -> None:
        """A piece that is not split. An empty one in quotes makes an empty field."""
        self._current = (self._current or "") + piece

    def add_split(self, piece: str) -> None:
        """A piece that white space splits."""
        # x$A is one field where A begins with a letter, and two where it begins with a blank.
        if piece[:1].isspace():
            self._end()

        parts = piece.split()
        self.add_arguments(parts)

        # $A"x" likewise: what follows the piece continues its last part, or not.
        if parts and piece[-1:].isspace():
            self._end()

    def add_arguments(self, arguments: list[str]) -> None:
        """Each is a field; the first continues the current one, and the last may be continued."""
        for position, argument in enumerate(arguments):
            # x"$@" is one field with the first of them.
            if position:
                self._end()

            self.add(argument)

    def all(self) -> list[str]:
        """All fields."""
        self._end()
        return self._complete

    def _end(self) -> None:
        """The next piece begins another field."""
        if self._current is None:
            return

        self._complete.append(self._current)
        self._current = None


def _is_each_argument(segment: tree.Segment) -> bool:
    """`$@` in quotes."""
    if not isinstance(segment, tree.Variable) or not segment.quoted:
        return False

    # ${@:-x} and its like are one text.
    return (segment.name, segment.operator) == ("@", "")


def _segment(shell: Shell, segment: tree.Segment) -> str:
    """One piece of a word, expanded."""
    match segment:
        case tree.Literal():
            return segment.text
        case tree.Variable():
            return _variable(shell, segment)
        case tree.Arithmetic():
            return number(shell, segment.text)
        case tree.Substitution():
            return _substitution(shell, segment)


def _substitution(shell: Shell, segment: tree.Substitution) -> str:
    """What `$(...)` prints. Its commands are not those of the script, but those of the unknown."""
    begins = len(shell.memory.ran)
    inner = shell.copy()
    with inner.ending():
        inner.follow(segment.body)

    # They stay with the unknown that they print; a restart among them would be one for its output.
    runs = tuple(shell.memory.ran[begins:])
    del shell.memory.ran[begins:]

    output = printed(runs)
    if output is not None:
        return output

    # A time is known as a sum even where its number is not.
    value = date_of(runs, shell.memory)
    return unknown(shell, f"$({segment.text})", runs, value)


# Variables


def value_of(shell: Shell, name: str) -> str | None:
    """A variable or parameter, or None when it is unset."""
    is_parameter = name.isdigit() or name in "#@*"
    if is_parameter:
        return _parameter(shell.arguments, name)

    # Before those that others set: a script may set HOME or PATH itself.
    if name in shell.variables:
        return shell.variables[name]

    # With envFrom, or EnvironmentFile= of a unit, not every variable is in the file.
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
    # $0 is the script itself, and does not count.
    if name == "#":
        return str(len(arguments) - 1)

    # Where they are separate fields, `fields` takes them itself.
    if name in "@*":
        return " ".join(arguments[1:])

    position = int(name)
    return arguments[position] if position < len(arguments) else None


def _variable(shell: Shell, segment: tree.Variable) -> str:
    """`$name` or `${name...}`, expanded."""
    value = value_of(shell, segment.name)
    if value is None:
        return _unset_variable(shell, segment)

    if not segment.operator:
        return value

    # What an operator makes of an unknown depends on the same commands.
    if not is_known(value):
        return unknown(shell, _written(segment), runs_in(shell, value))

    if _depends_on_being_set(segment):
        return _by_default(shell, value, segment)
    return _edited(shell, value, segment)


def _unset_variable(shell: Shell, segment: tree.Variable) -> str:
    """The same of a variable that is not set."""
    # ${NAME:-} and its like are what `set -u` leaves to a script.
    if _depends_on_being_set(segment):
        return _by_default(shell, None, segment)

    _check_may_be_unset(shell, segment.name)
    if not segment.operator:
        return ""
    return _edited(shell, "", segment)


def _depends_on_being_set(segment: tree.Variable) -> bool:
    """Whether its operator is `-`, `=`, `+` or `?`, with a colon or without."""
    return segment.operator.lstrip(":") in ("-", "=", "+", "?")


def _check_may_be_unset(shell: Shell, name: str) -> None:
    """Raises NotRead where the script ends at a variable that is not set."""
    if "nounset" in shell.options:
        raise NotRead(
            f"`set -u` ends it at ${name}, which nothing that is read here sets; set it, or write "
            f"${{{name}:-}}"
        )


def _by_default(shell: Shell, value: str | None, segment: tree.Variable) -> str:
    """The operators that depend on whether a variable is set; with a colon an empty one is not."""
    operator = segment.operator[-1]
    if segment.operator.startswith(":"):
        value = value or None

    # The only one that takes its argument where the variable is set.
    if operator == "+":
        if value is None:
            return ""
        return _argument(shell, segment)

    if value is not None:
        return value

    # POSIX, 2.6.2: a shell that is not interactive exits.
    if operator == "?":
        raise Ends("exit", False)

    default = _argument(shell, segment)
    if operator == "=":
        shell.variables[segment.name] = default
    return default


def _argument(shell: Shell, segment: tree.Variable) -> str:
    """What comes behind the operator, expanded."""
    if segment.word is None:
        return ""
    return text(shell, segment.word)


def _written(segment: tree.Variable) -> str:
    """The expansion as a script has it."""
    argument = segment.word.text if segment.word is not None else ""
    return f"${{{segment.name}{segment.operator}{argument}}}"


def _edited(shell: Shell, value: str, segment: tree.Variable) -> str:
    """The operators that cut a variable or change its case."""
    operator = segment.operator
    shape = pattern(shell, segment.word) if segment.word is not None else ""
    match operator:
        case "length":
            return str(len(value))
        case "#" | "##" | "%" | "%%":
            return _cut(value, operator, shape)
        # With a pattern only letters that match it change, which is not followed here.
        case "^^" if not shape:
            return value.upper()
        case ",," if not shape:
            return value.lower()

    # Neither are the others followed: ${name/old/new} and ${name:offset:length}.
    return unknown(shell, _written(segment))


def _cut(value: str, operator: str, shape: str) -> str:
    """`value` less what matches at its beginning (#) or at its end (%): the shortest such part, and
    the longest where the operator is doubled."""
    sizes = range(len(value) + 1)
    is_longest = len(operator) == 2

    for size in reversed(sizes) if is_longest else sizes:
        part, rest = value[:size], value[size:]
        if operator.startswith("%"):
            end = len(value) - size
            rest, part = value[:end], value[end:]

        if fnmatchcase(part, shape):
            return rest

    # POSIX, 2.6.2: what nothing matches stays whole.
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
    values = [shell.variables.get(name, "") for name in names]
    runs = runs_in(shell, *values)

    written = expression if value is None else expression.strip()
    return unknown(shell, f"$(({written}))", runs, value)


def calculated(shell: Shell, expression: str) -> Linear | None:
    """The sum that an expression is, or None."""
    # POSIX, 2.6.4: variables and commands in it are expanded first, as in double quotes.
    try:
        expanded = text(shell, _in_double_quotes(expression))
    except NotRead:
        return None

    def number_of(name: str) -> Linear | None:
        """The value of a name or of an unknown in the expression."""
        if not is_known(name):
            return shell.memory.linear(name)

        value = value_of(shell, name)
        if value is None:
            _check_may_be_unset(shell, name)

        # bash(1), arithmetic evaluation: a name without a value is 0, and so is an empty one.
        return shell.memory.linear(value or "0")

    return evaluate(expanded, number_of)


def _in_double_quotes(expression: str) -> tree.Word:
    """An expression as one word, so that what is expanded in it is not split."""
    # As an argument of a command, which the parser reads as any other.
    without_quotes = expression.replace('"', "")
    (item,) = parse(f'_ "{without_quotes}"').items
    node = item[0]

    # What closes the quotes too early, or ends the command, leaves another number of words.
    if not isinstance(node, tree.Simple) or len(node.words) != 2:
        raise NotRead(f"{expression!r} is not understood as a number")
    return node.words[1]
