"""A real browser without a window: Chromium and its driver, as Debian has them. Nothing is
downloaded."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

WAITS_S = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1300,900",
    # Whatever a page asks of another machine fails: a report opens offline.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
)


def missing_browser() -> str | None:
    """Why there is none on this machine, or None."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if sys.platform.startswith("linux") and program and shutil.which("chromedriver"):
        return None
    return "no browser: apt install chromium chromium-driver"


def start_browser(profile: Path) -> webdriver.Chrome:
    """A new one, with an empty profile in `profile`; the caller ends it with quit()."""
    options = Options()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    started.set_script_timeout(60)
    started.set_page_load_timeout(120)
    return started


def open_page(browser: webdriver.Chrome, page: Path, query: str = "", done: str = "ready") -> None:
    """Opens a page of a report and waits until its script has run."""
    browser.get(f"{page.as_uri()}{query}")
    WebDriverWait(browser, WAITS_S).until(
        lambda it: it.execute_script(f"return document.documentElement.dataset.{done} === 'yes'")
    )
