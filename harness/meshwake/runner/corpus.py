"""Which files a person means: a path, a directory, or the name of a scenario that comes with
meshwake.

`nightly_sleep` is scenarios/nightly_sleep.toml of the checkout or of the installed package, from
whatever directory the command is run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from meshwake.core import resources
from meshwake.core.errors import BadInput
from meshwake.system.hints import did_you_mean


def scenario_files(paths: Iterable[Path]) -> list[Path]:
    """The files named by `paths`, and those in the directories named. Raises BadInput for a
    directory without any, and for what is neither a path nor a name."""
    files: list[Path] = []
    for path in paths:
        named = _named(path)
        inside = sorted(named.rglob("*.toml")) if named.is_dir() else [named]
        if not inside:
            raise BadInput(f"{path}: contains no scenario (*.toml); see scenarios/README.md")
        files += inside
    return files


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
    if in_corpus.is_relative_to(resources.SCENARIOS) and in_corpus.exists():
        return in_corpus
    # A name, or the end of a path: `ztunnel_1481` and `regressions/ztunnel_1481` are the same.
    wanted = path.with_suffix(".toml").parts
    for file in corpus():
        if file.parts[-len(wanted) :] == wanted:
            return file
    names = [file.stem for file in corpus()]
    hint = did_you_mean(path.stem, names) or "; meshwake list shows the names"
    raise BadInput(
        f"{path}: no such scenario: expected a file, a directory of files, or a name{hint}"
    )
