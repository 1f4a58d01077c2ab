"""Every page of the documentation is in an index, and every link between files of the repository
leads to one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import DOCS, REPOSITORY

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
FOLDERS = ("docs", "scenarios", "clusters", "tests", ".github")
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(page for folder in FOLDERS for page in (REPOSITORY / folder).rglob("*.md")),
    ]
)


def targets(page: Path) -> list[Path]:
    """The files and folders of this repository that a page links to."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = [link for link in LINK.findall(text) if "://" not in link and not link.startswith("#")]
    return [(page.parent / link).resolve() for link in links]


@pytest.mark.parametrize(
    "folder", [DOCS, DOCS / "runbooks", DOCS / "adr"], ids=lambda path: path.name
)
def test_every_page_is_in_the_index_of_its_folder(folder: Path) -> None:
    """A page that is in no index is found by chance only."""
    pages = {page for page in folder.glob("*.md") if page.name != "README.md"}
    assert pages
    assert pages - set(targets(folder / "README.md")) == set()


def test_the_index_leads_to_every_folder_of_docs() -> None:
    """Pages of a folder have an index of their own, which the first one leads to."""
    folders = {folder for folder in DOCS.iterdir() if list(folder.glob("*.md"))}
    leads_to = {
        target if target.is_dir() else target.parent for target in targets(DOCS / "README.md")
    }
    assert folders <= leads_to


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    """A file that was moved takes the links to it along."""
    assert [str(target) for target in targets(page) if not target.exists()] == []


def test_the_rule_itself_finds(tmp_path: Path) -> None:
    """A link to nothing is found, one in an example or to elsewhere is not."""
    page = tmp_path / "page.md"
    page.write_text("[a](gone.md#part) [b](https://x.y/z)\n```\n[c](example.md)\n```\n[d](#here)\n")
    assert targets(page) == [tmp_path / "gone.md"]
