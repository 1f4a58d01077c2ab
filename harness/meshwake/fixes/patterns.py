"""Patterns of grep, as Python reads them; and whether a command that filters lines lets one
through."""

from __future__ import annotations

import re

_CLASSES = {
    "space": r"\s",
    "digit": r"\d",
    "alpha": "a-zA-Z",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "punct": r"!-/:-@\[-`{-~",
}


class PatternNotRead(Exception):
    """The filter is not understood."""


def grep_lets_through(words: tuple[str, ...], line: str) -> bool:  # noqa: C901  one branch for each option
    """Whether `grep WORDS` prints `line`. Raises PatternNotRead."""
    kind = {"egrep": "E", "fgrep": "F"}.get(words[0].rsplit("/", 1)[-1], "G")
    patterns, inverted, flags, whole = [], False, 0, ""
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word in ("-e", "--regexp") and rest:
            patterns.append(rest.pop(0))
        elif word.startswith("--regexp="):
            patterns.append(word.removeprefix("--regexp="))
        elif word in ("-m", "-A", "-B", "-C", "--max-count") and rest:
            rest.pop(0)
        elif word == "-f" or word.startswith("--file"):
            raise PatternNotRead("reads its patterns from a file")
        elif word.startswith("--"):
            name = word[2:].partition("=")[0]
            inverted |= name == "invert-match"
            kind = {"extended-regexp": "E", "fixed-strings": "F", "perl-regexp": "P"}.get(
                name, kind
            )
            flags |= re.IGNORECASE if name == "ignore-case" else 0
        elif re.fullmatch(r"-[a-zA-Z]+\d*", word):
            letters = word[1:]
            if letters.endswith("e") and rest:
                patterns.append(rest.pop(0))
            inverted |= "v" in letters
            flags |= re.IGNORECASE if "i" in letters else 0
            kind = next((letter for letter in letters if letter in "EFP"), kind)
            whole = "w" if "w" in letters else "x" if "x" in letters else whole
        elif not patterns:
            patterns.append(word)
        else:
            raise PatternNotRead("reads a file")
    if not patterns:
        raise PatternNotRead("has no pattern")
    return _matches("\n".join(patterns).split("\n"), kind, whole, flags, line) != inverted


def _matches(patterns: list[str], kind: str, whole: str, flags: int, line: str) -> bool:
    for pattern in patterns:
        if len(pattern) > 2_000:
            raise PatternNotRead("has a pattern of absurd length")
        shape = re.escape(pattern) if kind == "F" else _of_posix(pattern, basic=kind == "G")
        if whole:
            shape = rf"\b(?:{shape})\b" if whole == "w" else rf"^(?:{shape})$"
        try:
            if re.search(shape, line, flags):
                return True
        except (re.error, RecursionError, OverflowError) as error:
            raise PatternNotRead(f"has a pattern that is not understood: {pattern!r}") from error
    return False


def _of_posix(pattern: str, *, basic: bool) -> str:
    """A basic or extended expression of POSIX, as Python writes it."""
    found, position = "", 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\" and position + 1 < len(pattern):
            following = pattern[position + 1]
            if basic and following in "|(){}+?":
                found += following
            elif following in "<>":
                found += r"\b"
            elif following.isalpha() and following not in "bBdDsSwW":
                found += re.escape(following)
            else:
                found += f"\\{following}"
            position += 2
        elif char == "[":
            end = pattern.find("]", position + 2)
            while end > 0 and pattern.count("[:", position, end) > pattern.count(
                ":]", position, end + 1
            ):
                end = pattern.find("]", end + 1)
            if end < 0:
                raise PatternNotRead(f"has a pattern that is not understood: {pattern!r}")
            inner = pattern[position + 1 : end].replace("\\", "\\\\")
            for name, shape in _CLASSES.items():
                inner = inner.replace(f"[:{name}:]", shape)
            found += f"[{inner}]"
            position = end + 1
        else:
            found += f"\\{char}" if basic and char in "|(){}+?" else char
            position += 1
    return found
