"""Deriving a fact once for each history."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar
from weakref import WeakKeyDictionary

from meshwake.core.history import History

_Fact = TypeVar("_Fact")


def once(derive: Callable[[History], _Fact]) -> Callable[[History], _Fact]:
    """Decorates `derive` so that it runs once for each history.

    A history never changes and every check needs the same facts. They are kept as long as the
    history is.
    """
    # Weak keys: the facts go with their history, and a sweep does not fill the memory.
    known: WeakKeyDictionary[History, _Fact] = WeakKeyDictionary()

    @wraps(derive)
    def look_up(history: History) -> _Fact:
        if history not in known:
            known[history] = derive(history)
        return known[history]

    return look_up
