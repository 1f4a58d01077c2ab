"""What `[ ... ]`, `test`, `[[ ... ]]` and `(( ... ))` say: yes, no, or a doubt."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from meshwake.fixes.shell import tree
from meshwake.fixes.shell.expansion import calculated, number, pattern, runs_in, text, value_of
from meshwake.fixes.shell.memory import UNKNOWN, Doubt, Status, is_known, joined, negated

if TYPE_CHECKING:
    from meshwake.fixes.shell.shell import Shell

# By the difference of the two numbers.
_NUMBERS: dict[str, Callable[[int], bool]] = {
    "-eq": lambda difference: difference == 0,
    "-ne": lambda difference: difference != 0,
    "-lt": lambda difference: difference < 0,
    "-le": lambda difference: difference <= 0,
    "-gt": lambda difference: difference > 0,
    "-ge": lambda difference: difference >= 0,
}
_ARITHMETIC = {"<": "-lt", "<=": "-le", ">": "-gt", ">=": "-ge", "==": "-eq", "!=": "-ne"}
# The order of a locale, and files of the node, are not known here.
_UNKNOWN_HERE = ("<", ">", "-nt", "-ot", "-ef")
_BINARY = frozenset(["=", "==", "!=", "=~", *_UNKNOWN_HERE, *_NUMBERS])
# A question about such a file is whether this is a cluster's node: yes, where the fix is of use.
_CLUSTER_PATH = re.compile(r"k3s|k0s|rke2|kube|microk8s|crictl|/bin/|/sbin/|ztunnel|istio")
_POSIX_CLASSES = {"space": r"\s", "digit": r"\d", "alpha": "a-zA-Z", "alnum": "a-zA-Z0-9"}


def double_bracket(shell: Shell, node: tree.DoubleBracket) -> Status:
    """`[[ ... ]]`."""
    shell.must_not_be_dash("[[ ... ]]", "[ ... ]")
    words: list[str] = []
    for word in node.words:
        # bash(1): the right side of these is a pattern.
        if words[-1:] in (["=="], ["="], ["!="]):
            words.append(pattern(shell, word))
        else:
            words.append(text(shell, word))

    return decide(shell, words, node.text, doubled=True)


def double_parenthesis(shell: Shell, node: tree.DoubleParenthesis) -> Status:
    """`(( ... ))`: a comparison, or a number that is true unless it is 0."""
    written = f"(({node.text}))"
    match = _COMPARISON.fullmatch(node.text)

    # As a test of two numbers: ((a < b)) is [ a -lt b ].
    if match is not None:
        left, operator, right = match.groups()
        words = [number(shell, left), _ARITHMETIC[operator], number(shell, right)]
        return decide(shell, words, written)

    value = calculated(shell, node.text)
    known = value.as_int() if value is not None else None
    if known is None:
        return Doubt(written)

    # bash(1): the status is 0, a success, where the number is not.
    return known != 0


_COMPARISON = re.compile(r"(.+?)(<=|>=|==|!=|<|>)(.+)", re.DOTALL)


def decide(shell: Shell, words: list[str], written: str, *, doubled: bool = False) -> Status:
    """What `test WORDS` says; `written` is how a person reads it. `doubled`: by the rules of
    `[[`."""
    reader = _Test(shell, list(words), written, doubled)
    status = reader.any()

    # Words that are left over were not understood, so what was read before may be wrong, too.
    if reader.rest:
        return Doubt(written, runs_in(shell, *words))
    return status


class _Test:
    """Reads the words of a test from the left; `rest` are those not read yet."""

    def __init__(self, shell: Shell, words: list[str], written: str, doubled: bool) -> None:
        self.rest = words
        self._shell = shell
        self._written = written
        self._doubled = doubled

    def any(self) -> Status:
        """Conditions joined by or, which binds less than and."""
        status = self._all()
        while self.rest[:1] in (["-o"], ["||"]):
            self._take(1)
            # Also what is not looked at any more must be read to its end.
            status = joined("||", status, self._all())
        return status

    def _all(self) -> Status:
        """Conditions joined by and."""
        status = self._one()
        while self.rest[:1] in (["-a"], ["&&"]):
            self._take(1)
            status = joined("&&", status, self._one())
        return status

    def _one(self) -> Status:
        """A comparison, a question with one operand, or what is negated or in parentheses."""
        # By how many words are left, as POSIX orders it: the operand of `[ ! = x ]` is "!".
        if len(self.rest) >= 3 and self.rest[1] in _BINARY:
            left, operator, right = self._take(3)
            return self._compared(left, operator, right)

        # POSIX, test: without operands it is false.
        if not self.rest:
            return False

        first = self.rest[0]
        if first == "(":
            return self._in_parentheses()

        # Without an operand `!` and `-f` are words like any other.
        has_operand = len(self.rest) > 1
        if has_operand and first == "!":
            self._take(1)
            return negated(self._one())

        if has_operand and re.fullmatch(r"-[a-zA-Z]", first):
            operator, word = self._take(2)
            return self._unary(operator, word)

        # One word alone: whether it is not empty.
        (word,) = self._take(1)
        return self._is_not_empty(word)

    def _in_parentheses(self) -> Status:
        self._take(1)
        status = self.any()
        if self.rest[:1] == [")"]:
            self._take(1)
        else:
            # What nothing closes is not understood, and stays as rest.
            self.rest = ["("]
        return status

    def _take(self, many: int) -> list[str]:
        taken, self.rest = self.rest[:many], self.rest[many:]
        return taken

    def _unary(self, operator: str, word: str) -> Status:
        """An operator with one operand."""
        if operator == "-n":
            return self._is_not_empty(word)
        if operator == "-z":
            return negated(self._is_not_empty(word))

        # Neither a job nor a hook has a terminal.
        if operator == "-t":
            return False

        # bash(1): whether a variable of this name is set.
        if operator == "-v":
            return value_of(self._shell, word) is not None

        # The others ask for a file, of which only those of a cluster are known to be there.
        if _CLUSTER_PATH.search(word):
            return True
        return Doubt(self._written, runs_in(self._shell, word), (operator, word))

    def _is_not_empty(self, word: str) -> Status:
        if not word:
            return False

        # Whatever an unknown in it turns out to be, the rest is not empty.
        if UNKNOWN.sub("", word):
            return True
        return Doubt(self._written, runs_in(self._shell, word), ("-n", word))

    def _compared(self, left: str, operator: str, right: str) -> Status:
        if operator in _NUMBERS:
            return self._numbers_compared(left, operator, right)

        # It is kept as an equality, which looking.py reads; the text has the operator as it is.
        if not is_known(left + right):
            runs = runs_in(self._shell, left, right)
            is_true = operator != "!="
            return Doubt(self._written, runs, (left, "=", right), is_true)

        if operator == "=~":
            return self._matches(left, right)
        if operator in _UNKNOWN_HERE:
            return Doubt(self._written)

        # In [[ ]] the right side is a pattern, in [ ] a text.
        is_equal = fnmatchcase(left, right) if self._doubled else left == right
        return is_equal != (operator == "!=")

    def _numbers_compared(self, left: str, operator: str, right: str) -> Status:
        memory = self._shell.memory
        one, other = memory.linear(left), memory.linear(right)

        # Two sums may be known to differ by a number although neither is: both count from now.
        if one is not None and other is not None:
            difference = (one - other).as_int()
            if difference is not None:
                return _NUMBERS[operator](difference)

        runs = runs_in(self._shell, left, right)
        return Doubt(self._written, runs, (left, operator, right))

    def _matches(self, left: str, expression: str) -> Status:
        """Whether an extended regular expression is found, by Python's rules for one."""
        # Python has no classes of POSIX in brackets.
        for name, shape in _POSIX_CLASSES.items():
            expression = expression.replace(f"[:{name}:]", shape)

        try:
            return re.search(expression, left) is not None
        except re.error:
            return Doubt(self._written)
