"""Did you mean: the words that are close to one that was mistyped, and the one grammar in which a
value is refused.

    invalid value 'modle' for --lab: expected one of auto, model, process; did you mean 'model'?
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Half of the letters are the same: "modle" for model, "secret_ttl" for secret-ttl-720h. Anything
# further away is more likely another word than a typing error.
_SIMILARITY_MIN = 0.5


def closest(word: str, allowed: Iterable[str], most: int = 1) -> list[str]:
    """The words of `allowed` that `word` was probably meant to be, the best first; at most `most`."""
    return difflib.get_close_matches(word, list(allowed), n=most, cutoff=_SIMILARITY_MIN)


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """The end of a sentence: "; did you mean 'model'?", or nothing where no word is close."""
    near = closest(word, allowed)
    if not near:
        return ""
    return f"; did you mean {near[0]!r}?"


def one_of(value: object, allowed: Iterable[str]) -> str:
    """What was expected instead of `value`: "one of a, b, c; did you mean 'a'?"."""
    words = list(allowed)
    hint = did_you_mean(str(value), words)
    return f"one of {', '.join(words)}{hint}"


def invalid_value(where: str, value: object, expected: str) -> str:
    """The whole sentence. `where`: an option or a key of a file."""
    return f"invalid value {value!r} for {where}: expected {expected}"
