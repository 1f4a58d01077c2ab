"""Makes docs/pictures: pages of a report, as a browser shows them.

    PYTHONPATH=.:harness python tools/pictures.py

The runs are made here, on a real ztunnel of the cache (meshwake fetch) and, for one half of a
picture, on the model. Look at each picture before it is committed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from meshwake.core.run import Run
from meshwake.core.scenario import FixName, read_scenario
from meshwake.report.html.folder import write_report
from meshwake.runner.choose import choose
from meshwake.runner.options import Options
from meshwake.runner.run import run_case
from selenium import webdriver

from tests.support.browser import missing_browser, open_page, start_browser
from tests.support.paths import DOCS, SCENARIOS

PICTURES = DOCS / "pictures"
WIDTH_PX = 1200
VERSION = "1.31.0-rc.0"
ISSUE = SCENARIOS / "regressions" / "ztunnel_1481.toml"
NIGHTS = SCENARIOS / "nightly_sleep.toml"


@dataclass(frozen=True)
class Picture:
    """`until`: the picture ends above the heading of this text."""

    name: str
    runs: list[Run]
    until: str


def made(scenario: Path, lab: str, fixes: tuple[FixName, ...] = ()) -> list[Run]:
    """A run of `scenario` as it is, or one for each fix. Raises LabUnavailable without the
    binary."""
    options = Options(lab=lab, istio=(VERSION,), fixes=fixes)
    return [run_case(case, options) for case in choose(read_scenario(scenario), options)]


def pictures() -> list[Picture]:
    """What the pages of docs show. A comparison is shown down to its timelines."""
    issue, modelled = made(ISSUE, "process"), made(ISSUE, "model")
    nights = made(NIGHTS, "process", ("none", "wake-guard"))
    return [
        Picture("issue-1481", issue, until="Findings"),
        Picture("with-and-without-the-wake-guard", nights, until="Numbers"),
        Picture("model-and-binary", [*modelled, *issue], until="Numbers"),
    ]


def take(browser: webdriver.Chrome, picture: Picture, folder: Path) -> Path:
    """Writes the report and photographs one page of it: the comparison where there are two runs."""
    write_report(folder, picture.runs)
    if len(picture.runs) == 1:
        open_page(browser, folder / "index.html")
    else:
        open_page(browser, folder / "compare.html", done="compared")
    # A picture has no scroll bar.
    browser.execute_script("document.documentElement.style.overflow = 'hidden'")
    height_px = _height_px(browser, picture.until)
    browser.set_window_size(WIDTH_PX, height_px + _chrome_px(browser))
    place = PICTURES / f"{picture.name}.png"
    browser.save_screenshot(str(place))
    return place


def _height_px(browser: webdriver.Chrome, until: str) -> int:
    find = "[...document.querySelectorAll('h2')].find((each) => each.textContent === arguments[0])"
    top = f"{find}.getBoundingClientRect().top + scrollY"
    return int(browser.execute_script(f"return Math.floor({top})", until))


def _chrome_px(browser: webdriver.Chrome) -> int:
    """How much higher a window is than its page."""
    return int(browser.execute_script("return window.outerHeight - window.innerHeight"))


def main() -> int:
    """Exit code 1 without a browser."""
    if reason := missing_browser():
        print(reason, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        browser = start_browser(Path(place) / "profile")
        try:
            browser.set_window_size(WIDTH_PX, 900)
            for picture in pictures():
                print(take(browser, picture, Path(place) / picture.name))
        finally:
            browser.quit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
