"""Time and chance come in through the front door: below the model and the checks no code reads a
clock or rolls dice."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import meshwake
import pytest

ROOT = Path(meshwake.__file__).parent
WHERE = (
    "labs/model",
    "checks",
    "clocks/virtual.py",
    "core/clock_reading.py",
    "fixes",
    "labs/probes.py",
    "core/plan.py",
)
# Speaks to a real API server, by WebSocket, whose frames must be masked by chance; no lab runs it.
NOT = ("guard/kubernetes.py",)
# name -> what to use instead
BANNED = {
    "time": "the world time of the event, or a NodeClock",
    "datetime.now": "plan.starts_wall_s and a NodeClock",
    "datetime.utcnow": "plan.starts_wall_s and a NodeClock",
    "datetime.today": "plan.starts_wall_s and a NodeClock",
    "date.today": "plan.starts_wall_s and a NodeClock",
    "random.random": "random.Random(plan.seed)",
    "random.uniform": "random.Random(plan.seed)",
    "random.randint": "random.Random(plan.seed)",
    "random.choice": "random.Random(plan.seed)",
    "random.shuffle": "random.Random(plan.seed)",
    "random.SystemRandom": "random.Random(plan.seed)",
    "secrets": "random.Random(plan.seed)",
    "uuid": "a count, or the digest of the plan",
    "os.urandom": "random.Random(plan.seed)",
}


def files() -> list[Path]:
    found = [ROOT / where for where in WHERE]
    every = {
        path for where in found for path in ([where] if where.is_file() else where.rglob("*.py"))
    }
    return sorted(every - {ROOT / name for name in NOT})


def banned_in(source: str) -> Iterator[str]:
    """Every banned name that `source` imports or uses, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node), ".".join(ast.unparse(node).split(".")[-2:])]
        else:
            continue
        yield from (
            f"line {node.lineno}: {name}; use {BANNED[name]}"
            for name in dict.fromkeys(names)
            if name in BANNED
        )


def test_everything_that_the_rule_is_about_exists() -> None:
    """A file that was moved would not be looked at any more, as plan.py once was not."""
    assert [name for name in (*WHERE, *NOT) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_clock_and_no_dice(path: Path) -> None:
    """Same plan, same seed, same bytes: nothing else may decide."""
    assert list(banned_in(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now()",
        "import random\nrandom.random()",
        "from random import choice",
        "import os\nos.urandom(4)",
    ],
)
def test_the_rule_itself_finds(source: str) -> None:
    """Each way to get at a clock or a die is found."""
    assert list(banned_in(source))


def test_seeded_chance_is_allowed() -> None:
    """A generator that was given its seed is the front door."""
    assert list(banned_in("import random\nrandom.Random(7).uniform(0.8, 1.2)")) == []
