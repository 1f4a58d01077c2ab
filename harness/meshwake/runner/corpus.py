"""Which files a person means: a path, a directory, or the name of a scenario that comes with
meshwake.

`nightly_sleep` is scenarios/nightly_sleep.toml of the checkout or of the installed package, from
whatever directory the command is run. `-k EXPRESSION` selects some of those that were named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from meshwake.checks.format import count
from meshwake.core import resources
from meshwake.core.errors import BadInput
from meshwake.runner.expression import Expression, read_expression
from meshwake.runner.flags import KEYWORD_OPTION
from meshwake.system.hints import closest, did_you_mean


def scenario_files(paths: Iterable[Path], expression: str = "") -> list[Path]:
    """The files named by `paths`, and those in the directories named; of these the ones that
    `expression`, the value of -k, selects by name or folder. Raises BadInput for a directory
    without any, for what is neither a path nor a name, and where nothing is selected."""
    selection = read_expression(expression, KEYWORD_OPTION)
    found: list[_Found] = []
    for path in paths:
        found += _found_by(path)

    selected = [each.file for each in found if selection.selects(each.name)]
    # No path at all is the caller's own matter: nothing was there to select from.
    if found and not selected:
        raise _nothing_selected(selection, [each.name for each in found])
    return selected


@dataclass(frozen=True)
class _Found:
    """A file, and its name with the folders below the directory that was named."""

    file: Path
    name: str


def _found_by(path: Path) -> list[_Found]:
    named = _named(path)
    if not named.is_dir():
        return [_Found(named, named.stem)]

    # Sorted, so that a run of a directory has the same order on every machine.
    files = sorted(file for file in named.rglob("*.toml") if not file.is_dir())
    if not files:
        raise BadInput(f"{path}: contains no scenario (*.toml); see scenarios/README.md")

    found = []
    for file in files:
        # Without the folders above: of files below ~/sleep-tests, "sleep" would select every one.
        below = file.relative_to(named)
        found.append(_Found(file, below.with_suffix("").as_posix()))
    return found


def _nothing_selected(selection: Expression, names: list[str]) -> BadInput:
    """With the nearest word or name for each word that is in no name."""
    candidates: set[str] = set()
    for name in names:
        # "sleep" and "nightly" of nightly_sleep: a mistyped word is near to one of them.
        candidates.update(re.split(r"[/_]", name))
        candidates.add(name.rpartition("/")[2])

    unknown, near = [], []
    for word in selection.words:
        if any(word in name for name in names):
            continue
        unknown.append(word)
        # Sorted, so that the same names give the same message everywhere.
        near += closest(word, sorted(candidates), most=2)

    if near:
        hint = f"did you mean {' or '.join(repr(each) for each in dict.fromkeys(near))}?"
    elif unknown:
        hint = f"no name contains {' or '.join(repr(word) for word in unknown)}"
    else:
        hint = "each word is in some name, but no name fits the whole expression"

    return BadInput(
        f"{KEYWORD_OPTION} {selection.text!r}: selects none of {count(len(names), 'scenario')}; {hint}"
    )


def scenario_file(word: str | Path) -> Path:
    """The one file that `word` names. Raises BadInput, also for a directory."""
    path = Path(word)
    named = _named(path)
    if named.is_dir():
        raise BadInput(f"{path}: is a directory; expected one scenario, a file or a name")
    return named


def corpus() -> list[Path]:
    """The scenarios that come with meshwake."""
    return sorted(resources.SCENARIOS.rglob("*.toml"))


def _named(path: Path) -> Path:
    if path.exists():
        return path

    # As messages and documents write it: scenarios/nightly_sleep.toml, scenarios/canary.
    in_corpus = resources.ROOT / path

    # Below it only: other TOML files of a checkout are no scenarios.
    if in_corpus.is_relative_to(resources.SCENARIOS) and in_corpus.exists():
        return in_corpus

    # A name, or the end of a path: `ztunnel_1481` and `regressions/ztunnel_1481` are the same.
    files = corpus()
    wanted = path.with_suffix(".toml").parts
    for file in files:
        if file.parts[-len(wanted) :] == wanted:
            return file

    # A file of one's own is named with its suffix; only those of the corpus have names.
    own = [file.name for file in path.parent.glob("*.toml") if not file.is_dir()]
    names = [file.stem for file in files]
    hint = did_you_mean(path.stem, names + own) or "; meshwake list shows the names"
    raise BadInput(
        f"{path}: no such scenario: expected a file, a directory of files, or a name{hint}"
    )
