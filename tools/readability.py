"""How readable the product's code is, in four numbers with limits.

    python tools/readability.py            print the numbers and the functions that are packed worst
    python tools/readability.py --check    the same; exit code 1 when a number is over its limit
    python tools/readability.py --lower    write today's numbers as limits where they are better

Lines are a bad measure: a budget of lines is met by packing five comprehensions into ten of them. So
what is counted is how dense the code is. The limits are a ratchet: `[tool.meshwake.readability]` in
pyproject.toml has the limit of today, which only gets better, and the target it moves towards.

How it counts (reproduces the review of commit 4b9da29: 0.425 branches a line, 119 of 195 functions):
every `def` below harness/meshwake but generated `*_pb2.py`, nested ones also as part of the outer
one. Branches are 1 and one more for each `if`, `for`, `while`, `except`, `case`, conditional
expression, `for` or `if` of a comprehension, and each `and` or `or`. Lines of a function are those
between its `def` and its end, without its docstring. A comment that only instructs a tool (`noqa`,
`type: ignore`) explains nothing and does not count.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
CODE = ROOT / "harness" / "meshwake"
SETTINGS = ROOT / "pyproject.toml"
TABLE = "[tool.meshwake.readability]"

LONGEST_LINE = 100
MANY_BRANCHES = 8
DENSE = 0.55

INSTRUCTION = re.compile(r"#\s*(noqa|type:|pragma|fmt:|ruff:|mypy:|pyright:)")
BRANCHING = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.IfExp,
    ast.ExceptHandler,
    ast.match_case,
)


class Function(NamedTuple):
    """One `def`: where it is, how long, how much it branches."""

    place: str
    name: str
    lines: int
    branches: int

    @property
    def density(self) -> float:
        """Branches a line."""
        return self.branches / self.lines

    @property
    def packed(self) -> bool:
        """Whether it branches much in few lines."""
        return self.branches >= MANY_BRANCHES and self.density > DENSE


class Source(NamedTuple):
    """What was counted in one file, or in all of them."""

    lines: int
    long_lines: int
    comments: int
    functions: tuple[Function, ...]


class Measure(NamedTuple):
    """One number that has a limit; `digits` is how exactly it is printed and compared."""

    name: str
    title: str
    value: float
    more_is_better: bool = False
    digits: int = 0

    def worse_than(self, limit: float) -> bool:
        """Whether the limit is broken, by the digits that are printed."""
        value = round(self.value, self.digits)
        return value < limit if self.more_is_better else value > limit

    def better_than(self, limit: float) -> bool:
        """Whether the limit could be drawn closer."""
        value = round(self.value, self.digits)
        return value > limit if self.more_is_better else value < limit


def branches_of(function: ast.AST) -> int:
    """Ways through a function, by the rule in the module's docstring."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, BRANCHING):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring; at least 1."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return max(lines, 1)


def functions_of(text: str, path: str) -> Iterator[Function]:
    """Every `def` of a file, also nested ones and methods."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(f"{path}:{node.lineno}", node.name, lines_of(node), branches_of(node))


def comments_in(text: str) -> int:
    """Comments that say something to a reader."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    return sum(INSTRUCTION.match(comment) is None for comment in comments)


def count(text: str, path: str) -> Source:
    """What is counted in one file."""
    lines = text.splitlines()
    return Source(
        lines=len(lines),
        long_lines=sum(len(line) > LONGEST_LINE for line in lines),
        comments=comments_in(text),
        functions=tuple(functions_of(text, path)),
    )


def count_all(code: Path = CODE, root: Path = ROOT) -> Source:
    """The sum of every file below `code`."""
    sources = [
        count(path.read_text(encoding="utf-8"), path.relative_to(root).as_posix())
        for path in sorted(code.rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    ]
    return Source(
        lines=sum(source.lines for source in sources),
        long_lines=sum(source.long_lines for source in sources),
        comments=sum(source.comments for source in sources),
        functions=tuple(function for source in sources for function in source.functions),
    )


def measures_of(source: Source) -> tuple[Measure, ...]:
    """The numbers that have limits."""
    functions = source.functions
    lines = max(source.lines, 1)
    lines_in_functions = max(sum(function.lines for function in functions), 1)
    branches = sum(function.branches for function in functions)
    return (
        Measure(
            "comments_per_100_lines",
            "comments per 100 lines",
            100 * source.comments / lines,
            more_is_better=True,
            digits=1,
        ),
        Measure(
            "branches_per_line",
            "branches per line of a function",
            branches / lines_in_functions,
            digits=2,
        ),
        Measure(
            "long_lines_percent",
            f"lines over {LONGEST_LINE} columns, percent",
            100 * source.long_lines / lines,
            digits=1,
        ),
        Measure(
            "packed_functions",
            f"functions with {MANY_BRANCHES} or more branches and over {DENSE} a line",
            sum(function.packed for function in functions),
        ),
    )


def worst_first(functions: Iterable[Function]) -> list[Function]:
    """The packed functions, densest first."""
    packed = [function for function in functions if function.packed]
    return sorted(packed, key=lambda function: (-function.density, function.place))


def over_limit(measures: Iterable[Measure], limits: Mapping[str, float]) -> list[str]:
    """One line for each limit that is broken."""
    return [
        f"{measure.title}: {measure.value:.{measure.digits}f}; "
        f"expected at {'least' if measure.more_is_better else 'most'} {limits[measure.name]}"
        for measure in measures
        if measure.worse_than(limits[measure.name])
    ]


def lowered(
    settings: str,
    measures: Iterable[Measure],
    limits: Mapping[str, float],
    targets: Mapping[str, float],
) -> str:
    """The text of pyproject.toml with closer limits where today's numbers are better. No limit goes
    beyond its target: what is reached need not be kept to the last digit."""
    before, table, after = settings.partition(TABLE)
    for measure in measures:
        if not measure.better_than(limits[measure.name]):
            continue
        reached = measure.better_than(targets[measure.name])
        value = targets[measure.name] if reached else round(measure.value, measure.digits)
        line = re.compile(rf"^({measure.name} *= *)[0-9.]+", re.MULTILINE)
        after = line.sub(rf"\g<1>{value:g}", after, count=1)
    return before + table + after


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 over a limit")
    parser.add_argument("--lower", action="store_true", help="draw the limits closer")
    parser.add_argument("--worst", type=int, default=15, help="how many functions to print")
    arguments = parser.parse_args()

    text = SETTINGS.read_text(encoding="utf-8")
    settings = tomllib.loads(text)["tool"]["meshwake"]["readability"]
    limits, targets = settings, settings["target"]
    source = count_all()
    measures = measures_of(source)

    for measure in measures:
        print(
            f"{measure.value:10.{measure.digits}f}  {measure.title} "
            f"(limit {limits[measure.name]}, target {targets[measure.name]})"
        )
    branching = sum(function.branches >= MANY_BRANCHES for function in source.functions)
    print(f"{branching:10}  functions with {MANY_BRANCHES} or more branches")
    print(f"{len(source.functions):10}  functions")
    print(f"{source.lines:10}  lines in all")
    for function in worst_first(source.functions)[: arguments.worst]:
        print(
            f"{function.density:10.2f}  {function.place} {function.name}: "
            f"{function.branches} branches in {function.lines} lines"
        )
    if arguments.lower:
        SETTINGS.write_text(lowered(text, measures, limits, targets), encoding="utf-8")
    broken = over_limit(measures, limits) if arguments.check else []
    for line in broken:
        print(f"over the limit: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
