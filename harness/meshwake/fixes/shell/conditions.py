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
_BINARY = frozenset(["=", "==", "!=", "=~", "<", ">", "-nt", "-ot", "-ef", *_NUMBERS])
_OPERATORS = frozenset(["&&", "||", "!", "(", ")", *_BINARY])
# A question about such a file is whether this is a cluster's node: yes, where the fix is of use.
_CLUSTER_PATH = re.compile(r"k3s|k0s|rke2|kube|microk8s|crictl|/bin/|/sbin/|ztunnel|istio")
_POSIX_CLASSES = {"space": r"\s", "digit": r"\d", "alpha": "a-zA-Z", "alnum": "a-zA-Z0-9"}


def double_bracket(shell: Shell, node: tree.DoubleBracket) -> Status:
    """`[[ ... ]]`."""
    shell.must_not_be_dash("[[ ... ]]", "[ ... ]")
    words: list[str] = []
    for word in node.words:
        if word.plain in _OPERATORS:
            words.append(word.plain or "")
        elif words and words[-1] in ("==", "=", "!="):
            # The right side of these is a pattern.
            words.append(pattern(shell, word))
        else:
            words.append(text(shell, word))
    return decide(shell, words, node.text, doubled=True)


def double_parenthesis(shell: Shell, node: tree.DoubleParenthesis) -> Status:
    """`(( ... ))`: a comparison, or a number that is true unless it is 0."""
    match = re.fullmatch(r"(.+?)(<=|>=|==|!=|<|>)(.+)", node.text, re.DOTALL)
    if match is not None:
        left, operator, right = match.groups()
        words = [number(shell, left), _ARITHMETIC[operator], number(shell, right)]
        return decide(shell, words, f"(({node.text}))")
    value = calculated(shell, node.text)
    known = value.as_int() if value else None
    if known is None:
        return Doubt(f"(({node.text}))")
    return known != 0


def decide(shell: Shell, words: list[str], written: str, *, doubled: bool = False) -> Status:
    """What `test WORDS` says; `written` is how a person reads it. `doubled`: by the rules of
    `[[`."""
    reader = _Test(shell, list(words), written, doubled)
    status = reader.any()
    # Words that are left over were not understood, so what was read before may be wrong, too.
    return Doubt(written, runs_in(shell, *words)) if reader.rest else status


class _Test:
    """Reads the words of a test from the left; `rest` are those not read yet."""

    def __init__(self, shell: Shell, words: list[str], written: str, doubled: bool) -> None:
        self.rest = words
        self._shell, self._written, self._doubled = shell, written, doubled

    def any(self) -> Status:
        """Conditions joined by or."""
        status = self._all()
        while self.rest and self.rest[0] in ("-o", "||"):
            self._take(1)
            status = joined("||", status, self._all())
        return status

    def _all(self) -> Status:
        status = self._one()
        while self.rest and self.rest[0] in ("-a", "&&"):
            self._take(1)
            status = joined("&&", status, self._one())
        return status

    def _one(self) -> Status:
        # By how many words are left, as POSIX orders it: the operand of `[ ! = x ]` is "!".
        if len(self.rest) >= 3 and self.rest[1] in _BINARY:
            left, operator, right = self._take(3)
            return self._compared(left, operator, right)
        if not self.rest:
            return False
        first = self.rest[0]
        has_more = len(self.rest) > 1
        if first == "!" and has_more:
            self._take(1)
            return negated(self._one())
        if first == "(":
            return self._in_parentheses()
        if has_more and re.fullmatch(r"-[a-zA-Z]", first):
            operator, word = self._take(2)
            return self._unary(operator, word)
        # One word alone: whether it is not empty.
        (word,) = self._take(1)
        return self._unary("-n", word)

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
        if operator == "-v":
            return value_of(self._shell, word) is not None
        if _CLUSTER_PATH.search(word):
            return True
        return Doubt(self._written, runs_in(self._shell, word), (operator, word))

    def _is_not_empty(self, word: str) -> Status:
        # Whatever an unknown in it turns out to be, the rest is not empty.
        if UNKNOWN.sub("", word):
            return True
        if not word:
            return False
        return Doubt(self._written, runs_in(self._shell, word), ("-n", word))

    def _compared(self, left: str, operator: str, right: str) -> Status:
        if operator in _NUMBERS:
            return self._numbers_compared(left, operator, right)
        is_negated = operator == "!="
        both_known = is_known(left) and is_known(right)
        if not both_known:
            doubt = Doubt(self._written, runs_in(self._shell, left, right), (left, "=", right))
            return doubt.negated() if is_negated else doubt
        if operator == "=~":
            return self._matches(left, right)
        # The order of a locale, and files of the node, are not known here.
        if operator in ("<", ">", "-nt", "-ot", "-ef"):
            return Doubt(self._written)
        # In [[ ]] the right side is a pattern, in [ ] a text.
        is_equal = fnmatchcase(left, right) if self._doubled else left == right
        return is_equal != is_negated

    def _numbers_compared(self, left: str, operator: str, right: str) -> Status:
        memory = self._shell.memory
        one, other = memory.linear(left), memory.linear(right)
        difference = (one - other).as_int() if one is not None and other is not None else None
        if difference is None:
            return Doubt(self._written, runs_in(self._shell, left, right), (left, operator, right))
        return _NUMBERS[operator](difference)

    def _matches(self, left: str, expression: str) -> Status:
        for name, shape in _POSIX_CLASSES.items():
            expression = expression.replace(f"[:{name}:]", shape)
        try:
            return re.search(expression, left) is not None
        except re.error:
            return Doubt(self._written)
