"""Patterns of grep, as Python reads them; and whether a command that filters lines lets one
through."""

from __future__ import annotations

import re
from getopt import GetoptError, gnu_getopt

from meshwake.fixes.shell import names

_CLASSES = {
    "space": r"\s",
    "digit": r"\d",
    "alpha": "a-zA-Z",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
}


# The options of grep, for getopt: GNU's (grep.c, long_options), with those that busybox has too.
_SHORT = "EFGPe:f:ivywxcLlm:oqsbHhnTuUzA:B:C:aD:d:IrRV"
_LONG = sorted(
    names(
        "extended-regexp fixed-strings basic-regexp perl-regexp regexp= file= ignore-case "
        "no-ignore-case word-regexp line-regexp null-data no-messages invert-match version help "
        "max-count= byte-offset line-number line-buffered with-filename no-filename label= "
        "only-matching quiet silent binary binary-files= text devices= directories= recursive "
        "dereference-recursive include= exclude= exclude-from= exclude-dir= files-without-match "
        "files-with-matches count initial-tab null before-context= after-context= context= "
        "group-separator= no-group-separator"
    )
)
# What getopt cannot read: -3 for -C 3, and a value that may be missing. Both change only how lines
# are printed.
_NOT_OF_GETOPT = re.compile(r"-\d+|--colou?r(=.*)?")
_KINDS_OF_GREP = {
    "-G": "G",
    "--basic-regexp": "G",
    "-E": "E",
    "--extended-regexp": "E",
    "-F": "F",
    "--fixed-strings": "F",
    "-P": "P",
    "--perl-regexp": "P",
}
# A pattern of more characters is refused: Python's matching may take exponential time.
_LONGEST = 2_000


class PatternNotRead(Exception):
    """The filter is not understood."""


def grep_lets_through(words: tuple[str, ...], line: str) -> bool:
    """Whether `grep WORDS` prints `line`. Raises PatternNotRead."""
    grep = _Grep(words)
    return grep.matches(line) != grep.is_inverted


class _Grep:
    """The options of a grep, and its patterns. `kind`: G basic, E extended, F fixed, P Perl's."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.patterns: list[str] = []
        self.is_inverted = False
        program = words[0].rsplit("/", 1)[-1]
        self.kind = {"egrep": "E", "fgrep": "F"}.get(program, "G")

        # -w: "w", -x: "x"
        self.whole = ""
        self.flags = 0

        arguments = [word for word in words[1:] if not _NOT_OF_GETOPT.fullmatch(word)]
        try:
            options, operands = gnu_getopt(arguments, _SHORT, _LONG)
        except GetoptError as error:
            raise PatternNotRead(f"does not start: {error}") from error
        for name, value in options:
            self._set(name, value)

        # The first operand is the pattern, unless -e gave one.
        if not self.patterns:
            self.patterns, operands = operands[:1], operands[1:]
        if not self.patterns:
            raise PatternNotRead("has no pattern")

        # Then it does not read what is piped into it.
        if operands:
            raise PatternNotRead("reads a file")

        # grep(1): one argument may hold several patterns, separated by line ends.
        self.patterns = "\n".join(self.patterns).split("\n")

    def _set(self, name: str, value: str) -> None:
        """One option. Those that change only how lines are printed change nothing here."""
        if name in ("-f", "--file"):
            raise PatternNotRead("reads its patterns from a file")

        if name in ("-e", "--regexp"):
            self.patterns.append(value)
        elif name in ("-v", "--invert-match"):
            self.is_inverted = True
        elif name in ("-i", "-y", "--ignore-case"):
            self.flags |= re.IGNORECASE
        elif name in ("-x", "--line-regexp"):
            self.whole = "x"
        elif name in ("-w", "--word-regexp"):
            # grep(1): it has no effect where -x is given, too.
            self.whole = self.whole or "w"

        # Of several kinds the last counts.
        self.kind = _KINDS_OF_GREP.get(name, self.kind)

    def matches(self, line: str) -> bool:
        """Whether one of the patterns matches."""
        return any(self._matches(pattern, line) for pattern in self.patterns)

    def _matches(self, pattern: str, line: str) -> bool:
        if len(pattern) > _LONGEST:
            raise PatternNotRead("has a pattern of absurd length")

        # Fixed strings have no operators; Perl's and extended expressions have the same ones.
        is_fixed, is_basic = self.kind == "F", self.kind == "G"
        shape = re.escape(pattern) if is_fixed else _of_posix(pattern, basic=is_basic)
        if self.whole == "w":
            shape = rf"\b(?:{shape})\b"
        elif self.whole == "x":
            shape = rf"^(?:{shape})$"

        try:
            return re.search(shape, line, self.flags) is not None
        except (re.error, RecursionError, OverflowError) as error:
            raise PatternNotRead(f"has a pattern that is not understood: {pattern!r}") from error


def _of_posix(pattern: str, *, basic: bool) -> str:
    """A basic or extended expression of POSIX, as Python writes it."""
    found, position = "", 0
    while position < len(pattern):
        char, following = pattern[position], pattern[position + 1 : position + 2]
        if char == "\\" and following:
            found += _of_escaped(following, basic=basic)
            position += 2
        elif char == "[":
            end = _end_of_brackets(pattern, position)
            found += _of_brackets(pattern[position + 1 : end])
            position = end + 1
        else:
            # In a basic expression these are characters, and with a backslash operators; in
            # Python's, as in an extended one, the other way round.
            is_character = basic and char in _OPERATORS
            found += f"\\{char}" if is_character else char
            position += 1
    return found


_OPERATORS = "|(){}+?"


def _of_escaped(following: str, *, basic: bool) -> str:
    """A backslash and the character that follows it."""
    # In a basic expression the backslash makes an operator of them.
    if basic and following in _OPERATORS:
        return following

    # GNU grep: the beginning and the end of a word, one of which Python has a sign for.
    if following in "<>":
        return r"\b"

    # \n and \t are no line end and no tab to grep, but the letters.
    is_class = following in "bBdDsSwW"
    if following.isalpha() and not is_class:
        return re.escape(following)
    return f"\\{following}"


def _end_of_brackets(pattern: str, begins: int) -> int:
    """The position of the `]` that ends what the bracket at `begins` opens."""
    # A `]` in the first place is one of the characters: []abc].
    end = pattern.find("]", begins + 2)
    while end > 0:
        # The `]` of [[:space:]] ends a class, and not the brackets.
        classes_begun = pattern.count("[:", begins, end)
        classes_ended = pattern.count(":]", begins, end + 1)
        if classes_begun <= classes_ended:
            return end
        end = pattern.find("]", end + 1)
    raise PatternNotRead(f"has a pattern that is not understood: {pattern!r}")


def _of_brackets(inner: str) -> str:
    """What is between brackets, where POSIX knows no escapes: a backslash is itself."""
    inner = inner.replace("\\", "\\\\")
    for name, shape in _CLASSES.items():
        inner = inner.replace(f"[:{name}:]", shape)
    return f"[{inner}]"
