"""Whether the project is written in the field's words, so that a reader can search for what he knows.

    python tools/vocabulary.py                  print how often each unwanted word is written
    python tools/vocabulary.py --check          the same; exit code 1 when one is written more often
                                                than tools/vocabulary_allowed.json allows
    python tools/vocabulary.py --where REGEX    print the lines with the words that match
    python tools/vocabulary.py --lower          draw the allowances closer where words have gone
    python tools/vocabulary.py --table          print the table of docs/glossary.md

The words, with what to write instead, are in tools/vocabulary.toml. They are counted in code, tests,
docs and messages. The allowance of a word in an area is a ratchet: it can only fall, and what has
come down to nothing stays there.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
WORDS = ROOT / "tools" / "vocabulary.toml"
ALLOWED = ROOT / "tools" / "vocabulary_allowed.json"

# Which files belong to which area. What lies elsewhere is not read.
AREAS = {
    "product": ("harness",),
    "docs": ("*.md", "docs", "scenarios", "clusters", ".github", ".ci", "Makefile"),
    "tests": ("tests", "tools", "conftest.py", "pyproject.toml"),
}
SUFFIXES = {".py", ".md", ".toml", ".yml", ".yaml", ".sh", ".js", ".css", ".html", ".j2", ".c", ""}

# Files that must name the words, and what was recorded or generated rather than written.
LEFT_OUT = {
    "tools/vocabulary.toml",
    "tools/vocabulary.py",
    "tests/repository/test_vocabulary.py",
    "docs/glossary.md",
}
LEFT_OUT_BELOW = ("tests/data/", "docs/pictures/")

# `told` is also found in `ToldRun`, `RunTold` and `_told_ending`, but not in `untold` and `toldest`.
NOT_IN_A_WORD = r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[A-Z]))(?i:{find})(?![a-z])"
ALONE = r"""(?<![\w'"\]\\-]){find}(?![\w'"-])"""


# Letters at the beginning; the last of them is not certain where a sign makes it optional.
_STEM = re.compile(r"([A-Za-z]+?)(?=[A-Za-z]?[?*{]|[^A-Za-z]|$)")


class Word(NamedTuple):
    """A word that is not written here."""

    find: str
    write: str
    why: str = ""
    exact: bool = False
    keep: str = ""

    @property
    def pattern(self) -> re.Pattern[str]:
        """Finds it, alone or as a part of a name, whatever its case; a space may be a line's end."""
        if self.exact:
            return re.compile(ALONE.format(find=self.find))
        return re.compile(NOT_IN_A_WORD.format(find=self.find.replace(" ", r"[\s_]+")))

    @property
    def stems(self) -> tuple[str, ...]:
        """What a text must hold for the word to be in it: of each alternative the letters that it
        begins with, in lower case. () where one begins with a sign, so that any text may."""
        found = [_STEM.match(each) for each in _alternatives(self.find)]
        stems = tuple(match[1].lower() for match in found if match is not None)
        return stems if len(stems) == len(found) else ()

    @property
    def plain(self) -> str:
        """As a reader sees it, without the signs of a regular expression."""
        return ", ".join(_without_signs(each) for each in _alternatives(self.find))


class Hit(NamedTuple):
    """One place where a word is written."""

    area: str
    place: str
    line: str


def _alternatives(find: str) -> list[str]:
    """`a|b(c|d)` as `a` and `b(c|d)`."""
    return re.split(r"\|(?![^(]*\))", find)


def _without_signs(find: str) -> str:
    """`tells?` as `tell`, `(is|are) away` as `is away`, `knock(s|ed)?` as `knock`."""
    optional_ending = re.sub(r"\([^)]*\)\?|.\?", "", find)
    first_of_several = re.sub(r"\((\w+)\|[^)]*\)", r"\1", optional_ending)
    return first_of_several.replace(".", "-")


def read_words(path: Path = WORDS) -> tuple[Word, ...]:
    """Every word of the list, in its order."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return tuple(Word(**entry) for entry in table["word"])


def files_of(area: str, root: Path = ROOT) -> Iterator[Path]:
    """Every file of an area whose words are ours."""
    for pattern in AREAS[area]:
        for start in sorted(root.glob(pattern)):
            found = sorted(start.rglob("*")) if start.is_dir() else [start]
            yield from (path for path in found if path.is_file() and _is_ours(path, root))


def _is_ours(path: Path, root: Path) -> bool:
    """Whether a person wrote it as prose or code of this project."""
    name = path.relative_to(root).as_posix()
    return (
        path.suffix in SUFFIXES
        and name not in LEFT_OUT
        and not name.startswith(LEFT_OUT_BELOW)
        and not path.name.endswith("_pb2.py")
        and "__pycache__" not in path.parts
    )


def _without_kept(word: Word, text: str) -> str:
    """`text` with the names that keep the word blanked out; every place stays where it was."""
    if not word.keep:
        return text
    return re.sub(word.keep, lambda kept: " " * len(kept.group()), text)


@cache
def _lower(text: str) -> str:
    return text.lower()


def hits(word: Word, texts: Mapping[str, Mapping[str, str]]) -> Iterator[Hit]:
    """Every place of a word in `texts` (area -> file -> text)."""
    pattern, stems = word.pattern, word.stems
    for area, files in texts.items():
        for name, text in files.items():
            # The whole check takes a quarter of the time that trying every pattern takes.
            if stems and not any(stem in _lower(text) for stem in stems):
                continue
            for match in pattern.finditer(_without_kept(word, text)):
                number = text.count("\n", 0, match.start()) + 1
                line = text.splitlines()[number - 1].strip()
                yield Hit(area, f"{name}:{number}", line)


def read_texts(root: Path = ROOT) -> dict[str, dict[str, str]]:
    """area -> file -> text."""
    return {
        area: {
            path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
            for path in files_of(area, root)
        }
        for area in AREAS
    }


def counted(
    words: Iterable[Word], texts: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, int]]:
    """word -> area -> how often, without zeros."""
    counts: dict[str, dict[str, int]] = {}
    for word in words:
        for hit in hits(word, texts):
            by_area = counts.setdefault(word.find, {})
            by_area[hit.area] = by_area.get(hit.area, 0) + 1
    return counts


def over_allowance(
    words: Iterable[Word],
    counts: Mapping[str, Mapping[str, int]],
    allowed: Mapping[str, Mapping[str, int]],
) -> list[str]:
    """One line for each word that is written too often in an area, with what to write instead."""
    lines = []
    for word in words:
        for area, count in counts.get(word.find, {}).items():
            limit = allowed.get(word.find, {}).get(area, 0)
            if count > limit:
                lines.append(
                    f"{word.plain}: {count} times in {area}, at most {limit} allowed; "
                    f"write instead: {word.write}"
                )
    return lines


def lowered(
    counts: Mapping[str, Mapping[str, int]], allowed: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]]:
    """The allowances drawn closer: never more than before, nothing for what has gone."""
    closer: dict[str, dict[str, int]] = {}
    for find, by_area in allowed.items():
        for area, limit in by_area.items():
            count = min(limit, counts.get(find, {}).get(area, 0))
            if count:
                closer.setdefault(find, {})[area] = count
    return closer


def table(words: Iterable[Word]) -> str:
    """The words as the table of the glossary."""
    rows = [f"| {word.plain} | {word.write} | {word.why} |" for word in words]
    return "\n".join(["| instead of | write | |", "| --- | --- | --- |", *rows])


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit 1 over an allowance")
    parser.add_argument("--lower", action="store_true", help="draw the allowances closer")
    parser.add_argument("--table", action="store_true", help="print the table of the glossary")
    parser.add_argument("--where", metavar="REGEX", help="print the lines with these words")
    arguments = parser.parse_args()

    words = read_words()
    if arguments.table:
        print(table(words))
        return 0
    texts = read_texts()
    if arguments.where:
        for word in words:
            if re.search(arguments.where, word.find):
                for hit in hits(word, texts):
                    print(f"{hit.place}: {hit.line}")
        return 0

    counts = counted(words, texts)
    allowed = json.loads(ALLOWED.read_text(encoding="utf-8"))
    print("".join(f"{area:>9}" for area in AREAS), " word")
    for word in words:
        by_area = counts.get(word.find, {})
        print("".join(f"{by_area.get(area, 0):9}" for area in AREAS), f" {word.plain}")
    if arguments.lower:
        text = json.dumps(lowered(counts, allowed), indent=2, sort_keys=True) + "\n"
        ALLOWED.write_text(text, encoding="utf-8")
    broken = over_allowance(words, counts, allowed) if arguments.check else []
    for line in broken:
        print(line, file=sys.stderr)
    if broken:
        print("python tools/vocabulary.py --where REGEX prints the lines", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
