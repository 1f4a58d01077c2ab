"""The report as a person meets it: opened from a folder in a real browser that reaches no
network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from meshwake.checks import judge
from meshwake.checks.facts.certificates import renewals
from meshwake.checks.facts.traffic import outages
from meshwake.core.durations import NS_PER_S
from meshwake.core.plan import Plan, PlannedNode
from meshwake.core.planned_faults import PlannedSuspend
from meshwake.core.run import Run
from meshwake.report.html.folder import write_report
from meshwake.report.result import Summary
from meshwake.runner.execution import execute
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from tests.support.browser import WAITS_S, open_page
from tests.support.scenarios import small
from tests.unit.report.runs import ISSUE_1481, NIGHTS, modelled, recorded

ON_KIND = "nightly_sleep-lapse-kind-1.31.0-rc.0"
GUARDED_ON_KIND = "nightly_sleep_with_guard-lapse-kind-1.31.0-rc.0"
REFUSED = Summary(
    "secret_ttl_720h",
    "kind",
    "1.31.0",
    "refused",
    why=f"no 'kind' on PATH; {'looked in /opt:' * 9}",
)
DAY_NS = 86_400 * NS_PER_S


def opened(browser: webdriver.Chrome, page: Path, query: str = "", done: str = "ready") -> None:
    """Opens a page and waits until its script has run; what the console printed of pages before is
    forgotten."""
    browser.get_log("browser")  # type: ignore[no-untyped-call]
    open_page(browser, page, query, done)


def complaints(browser: webdriver.Chrome) -> list[Any]:
    """What the console printed since the page was opened."""
    return list(browser.get_log("browser"))  # type: ignore[no-untyped-call]


def ask(browser: webdriver.Chrome, script: str) -> Any:
    """What JavaScript says."""
    return browser.execute_script(f"return {script}")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two runs of real ztunnels."""
    path = tmp_path_factory.mktemp("two") / "report"
    write_report(path, [recorded(ISSUE_1481), recorded(NIGHTS)])
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of page: runs of labs process and kind, with and without a fix, and a refusal."""
    path = tmp_path_factory.mktemp("many") / "report"
    names = (ISSUE_1481, NIGHTS, ON_KIND, GUARDED_ON_KIND)
    write_report(path, [recorded(name) for name in names], [REFUSED])
    return path


@pytest.fixture(scope="module")
def issue(two: Path) -> Path:
    """The page of the run of the issue."""
    return next(two.glob("ztunnel_1481-*.html"))


def drawn(browser: webdriver.Chrome, state: str) -> list[list[float]]:
    """From, to and row of every rectangle of a state, read from what plotly draws."""
    found: list[list[float]] = ask(
        browser,
        f"""(() => {{
          const trace = MESHWAKE.plots[0].div.data.find((each) => each.name === '{state}' && each.yaxis === 'y2');
          const found = [];
          for (let at = 0; trace && at < trace.x.length; at += 6)
            found.push([trace.x[at], trace.x[at + 1], Math.round((trace.y[at] + trace.y[at + 2]) / 2)]);
          return found;
        }})()""",
    )
    return found


def test_every_page_opens_offline_without_a_complaint(browser: webdriver.Chrome, two: Path) -> None:
    """The table, each run, and two next to one another; plotly drew something on each page of a
    run."""
    for page in sorted(two.glob("*.html")):
        opened(browser, page, done="compared" if page.name == "compare.html" else "ready")
        assert complaints(browser) == [], page.name
        if page.name != "index.html":
            assert len(browser.find_elements(By.CSS_SELECTOR, ".plot .main-svg")) > 0, page.name


def test_the_timeline_shows_what_the_history_says(browser: webdriver.Chrome, issue: Path) -> None:
    """Outages and renewals, to the second, as plotly has them."""
    run_1481 = recorded(ISSUE_1481)
    opened(browser, issue)
    red = [(from_s, to_s) for from_s, to_s, _ in drawn(browser, "fails")]
    assert red == [
        (out.from_world_s, out.to_world_s) for out in outages(run_1481.plan, run_1481.history)
    ]
    marks = ask(browser, "MESHWAKE.plots[0].div.data.find((each) => each.name === 'renewed').x")
    done_ns = sorted(one.done_world_ns or 0 for one in renewals(run_1481.plan, run_1481.history))
    assert sorted(marks) == [at / NS_PER_S for at in done_ns if at]
    assert (
        ask(
            browser, "MESHWAKE.plots[0].div.data.find((each) => each.name === 'monotonic').y.at(-1)"
        )
        == -17
    )


def test_evidence_jumps_to_its_place(browser: webdriver.Chrome, issue: Path) -> None:
    """The range is around it, the cursor on it, and the timeline has the keyboard."""
    opened(browser, issue)
    button = browser.find_element(By.CSS_SELECTOR, "[data-do=jump][data-at='3541.0']")
    browser.execute_script("arguments[0].click()", button)
    from_s, to_s = ask(browser, "MESHWAKE.page.range")
    assert from_s < 3541 < to_s
    assert to_s - from_s < 1000
    assert ask(browser, "MESHWAKE.page.cursor") == 3541
    assert ask(browser, "document.activeElement.classList.contains('plot')")
    assert "day 0 00:59:01" in browser.find_element(By.CSS_SELECTOR, ".readout").text


def test_by_keyboard(browser: webdriver.Chrome, issue: Path) -> None:
    """Arrows go from event to event and announce it; plus and minus zoom; zero shows all."""
    opened(browser, issue)
    plot = browser.find_element(By.CSS_SELECTOR, ".plot")
    plot.send_keys(Keys.ARROW_RIGHT)
    assert ask(browser, "MESHWAKE.page.cursor") == 240
    readout = browser.find_element(By.CSS_SELECTOR, ".readout")
    assert readout.get_attribute("aria-live") == "polite"
    assert "renewed" in readout.text
    plot.send_keys("+")
    assert ask(browser, "MESHWAKE.page.range[1] - MESHWAKE.page.range[0]") < 10_800
    plot.send_keys("0")
    assert ask(browser, "MESHWAKE.page.range") == [0, 10_800]


def test_the_axis_of_the_node_stops_with_its_clock(browser: webdriver.Chrome, issue: Path) -> None:
    """By its own wall clock the node never noticed the pause; then it was stepped by 17 minutes."""
    opened(browser, issue)
    browser.find_element(By.CSS_SELECTOR, "[data-axis=wall]").click()
    starts_s = recorded(ISSUE_1481).plan.starts_wall_s
    asleep = ask(browser, "MESHWAKE.plots[0].div.data[0].x.slice(0, 2)")
    assert [round(at - starts_s) for at in asleep] == [1800, 1800]
    assert ask(browser, "MESHWAKE.page.range") == [starts_s, starts_s + 10_800]
    assert complaints(browser) == []


@pytest.fixture(scope="module")
def autumn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two reports of months that end summer time, on two sides of an ocean."""
    folder = tmp_path_factory.mktemp("autumn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESHWAKE_RUNS", str(folder / "runs"))
        runs = [autumn_run("Europe/Berlin"), autumn_run("America/New_York")]
    write_report(folder / "report", runs)
    return folder / "report"


def autumn_run(zone: str) -> Run:
    """Nine days from Friday noon; summer time ends in the first or the second night to Sunday."""
    month = small(
        (
            'duration = "2d"',
            f'duration = "9d"\nrecorded_from = 2026-10-23T12:00:00Z\nrecorded_zone = "{zone}"',
        ),
        ('lasts = "8h"', 'lasts = "20h"'),
    )
    return modelled(month, zone.rpartition("/")[2].lower())


def test_dates_of_a_zone_are_those_of_python(browser: webdriver.Chrome, autumn: Path) -> None:
    """At every quarter of an hour, over the end of summer time; the browser's own zone and its own
    rules of summer time do not matter."""
    for name in ("berlin", "new_york"):
        opened(browser, next(autumn.glob(f"{name}-*.html")))
        zone = "Europe/Berlin" if name == "berlin" else "America/New_York"
        dates = autumn_run(zone).plan.dates
        assert dates is not None
        shown = ask(
            browser,
            "Array.from({length: 9 * 96}, (_, at) => "
            "MESHWAKE.moment(MESHWAKE.plots[0].run, at * 900, true))",
        )
        assert shown == [dates.to_the_second(at * 900) for at in range(9 * 96)]
        assert sum(" -" in each or " +" in each for each in shown) == 8
        assert complaints(browser) == []


def test_the_axis_has_local_midnights(browser: webdriver.Chrome, autumn: Path) -> None:
    """Before and after the change; the range and the reading of the cursor name the zone."""
    opened(browser, next(autumn.glob("berlin-*.html")))
    browser.execute_script("MESHWAKE.show(MESHWAKE.whole())")
    ticks = ask(browser, "MESHWAKE.plots[0].div.layout.xaxis")
    at_s = dict(zip(ticks["ticktext"], ticks["tickvals"], strict=True))
    # Friday 12:00 UTC is 14:00 in Berlin: midnight ten hours later, and on Sunday one more.
    assert at_s["2026-10-24"] == 10 * 3_600
    assert at_s["2026-10-26"] == (10 + 48 + 1) * 3_600
    assert browser.find_element(By.CSS_SELECTOR, ".range").text.endswith("Europe/Berlin")
    plot = browser.find_element(By.CSS_SELECTOR, ".plot")
    plot.send_keys(Keys.HOME)
    readout = browser.find_element(By.CSS_SELECTOR, ".readout").text
    assert "Fri 2026-10-23 14:00:00 · wall 2026-10-23 14:00:00 Europe/Berlin" in readout
    browser.find_element(By.CSS_SELECTOR, "[data-axis=wall]").click()
    assert "2026-10-23 14:00 to " in browser.find_element(By.CSS_SELECTOR, ".range").text


def test_two_months_of_two_zones(browser: webdriver.Chrome, autumn: Path) -> None:
    """Side by side each has the dates of its own zone; no date is shown in two ways."""
    opened(browser, autumn / "compare.html", done="compared")
    for zone in ("Europe/Berlin", "America/New_York"):
        assert zone in browser.find_element(By.CSS_SELECTOR, ".range").text
    page = browser.find_element(By.TAG_NAME, "main").text
    assert not re.search(r"\bday \d+ \d\d:|\d UTC\b", page)
    assert complaints(browser) == []


def test_one_zoom_for_all_plots(browser: webdriver.Chrome, two: Path) -> None:
    """Two runs share their time axis."""
    opened(browser, two / "compare.html", done="compared")
    browser.execute_script("MESHWAKE.show([1000, 2000])")
    ranges = ask(browser, "MESHWAKE.plots.map((plot) => [...plot.div.layout.xaxis.range])")
    assert ranges == [[1000, 2000], [1000, 2000]]
    differing = browser.find_elements(By.CSS_SELECTOR, "tr.differs td code")
    assert "valid_certificate_kept" not in [each.text for each in differing]


def test_dark_and_light(browser: webdriver.Chrome, issue: Path) -> None:
    """The page and the plots follow."""
    opened(browser, issue)
    paint = "getComputedStyle(document.body).backgroundColor"
    line = "MESHWAKE.plots[0].div.data.find((each) => each.name === 'wall').line.color"
    before = ask(browser, f"[{paint}, {line}]")
    browser.find_element(By.CSS_SELECTOR, "[data-do=theme]").click()
    after = ask(browser, f"[{paint}, {line}]")
    assert before[0] != after[0] and before[1] != after[1]
    browser.find_element(By.CSS_SELECTOR, "[data-do=theme]").click()


def test_names_for_who_cannot_see(browser: webdriver.Chrome, issue: Path) -> None:
    """Every button, field and timeline says what it is; headings are in order."""
    opened(browser, issue)
    nameless = ask(
        browser,
        "[...document.querySelectorAll('button, input, select, .plot')].filter((each) =>"
        " !(each.getAttribute('aria-label') || each.textContent.trim() || "
        "each.labels?.length)).length",
    )
    assert nameless == 0
    levels = ask(
        browser,
        "[...document.querySelectorAll('h1, h2, h3')].map((each) => Number(each.tagName[1]))",
    )
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
    assert "no connection for 1 h 7 m awake" in str(
        browser.find_element(By.CSS_SELECTOR, ".plot").get_attribute("aria-label")
    )


@contextmanager
def wide(browser: webdriver.Chrome, width_px: int) -> Iterator[None]:
    """A screen of another width, until the block ends."""
    size = {"width": width_px, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("width_px", [390, 1280])
def test_no_page_scrolls_sideways(browser: webdriver.Chrome, many: Path, width_px: int) -> None:
    """Neither the page nor anything on it, with all that can be opened open."""
    with wide(browser, width_px):
        for page in sorted(many.glob("*.html")):
            opened(browser, page, done="compared" if page.name == "compare.html" else "ready")
            browser.execute_script(
                "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
            )
            assert ask(browser, "document.documentElement.scrollWidth") <= width_px, page.name
            beyond = ask(
                browser,
                "[...document.querySelectorAll('.scroll, pre')].filter((each) => "
                "each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX !== "
                "'visible').map((each) => each.className || each.tagName)",
            )
            assert beyond == ([] if width_px < 760 else [each for each in beyond if each == "PRE"])
            assert complaints(browser) == [], page.name


def test_on_a_phone_a_lane_is_named_above_its_bars(browser: webdriver.Chrome, many: Path) -> None:
    """No name lies over what is drawn in any lane."""
    with wide(browser, 390):
        opened(browser, next(many.glob("nightly_sleep-kind-*.html")))
        names, bars = ask(
            browser,
            """(() => {
              const { div } = MESHWAKE.plots[0], axis = div._fullLayout.yaxis2;
              const top = div.getBoundingClientRect().top, px = (value) => axis._offset + axis.d2p(value);
              const labels = div.layout.annotations.filter((each) => each.yref === "y2").map((each) => each.text);
              const names = [...div.querySelectorAll(".annotation-text")]
                .filter((each) => labels.includes(each.textContent))
                .map((each) => each.getBoundingClientRect())
                .map((box) => [box.top - top, box.bottom - top]);
              const bars = [];
              for (const { yaxis, fill, name, x, y } of div.data) {
                if (yaxis !== "y2" || !fill || name === "asleep") continue;
                for (let at = 0; at < x.length; at += 6) bars.push([px(y[at]), px(y[at + 2])]);
              }
              return [names, bars];
            })()""",
        )
    assert len(names) == 4 and len(bars) > 20
    for top, bottom in names:
        for begins, ends in bars:
            assert bottom <= min(begins, ends) + 1 or top >= max(begins, ends) - 1


def test_a_comparison_begins_with_what_belongs_together(
    browser: webdriver.Chrome, many: Path
) -> None:
    """No fix and a fix on the same timeline, whatever the order of the files; else the same
    scenario elsewhere. From the page of a run it begins with that run."""
    opened(browser, many / "compare.html", done="compared")
    assert "the same timeline with and without a fix" in relation(browser)
    left, right = chosen(browser)
    assert left.startswith("nightly_sleep-kind") and right.startswith("nightly_sleep_with_guard")
    groups = ask(
        browser, "[...document.querySelectorAll('#right optgroup')].map((each) => each.label)"
    )
    assert groups == ["belongs to the first", "other runs"]

    page = next(many.glob("nightly_sleep-process-*.html"))
    opened(browser, page)
    browser.find_element(By.LINK_TEXT, "Compare").click()
    WebDriverWait(browser, WAITS_S).until(
        lambda it: ask(it, "document.documentElement.dataset.compared === 'yes'")
    )
    assert [each.partition("-1")[0] for each in chosen(browser)] == [
        "nightly_sleep-process",
        "nightly_sleep-kind",
    ]
    assert "the same scenario on two labs" in relation(browser)
    assert complaints(browser) == []


def test_the_address_of_a_comparison_can_be_sent(browser: webdriver.Chrome, many: Path) -> None:
    """It always has the choice; opened elsewhere it shows the same two."""
    opened(browser, many / "compare.html", done="compared")
    Select(browser.find_element(By.ID, "right")).select_by_value(
        next(many.glob("ztunnel_1481-*.html")).stem
    )
    WebDriverWait(browser, WAITS_S).until(lambda it: "ztunnel_1481" in headlines(it)[1])
    assert relation(browser) == "These two have neither scenario nor timeline in common."
    sent, shown = browser.current_url, headlines(browser)
    browser.get("about:blank")
    browser.get(sent)
    WebDriverWait(browser, WAITS_S).until(
        lambda it: ask(it, "document.documentElement.dataset.compared === 'yes'")
    )
    assert headlines(browser) == shown
    assert "right=ztunnel_1481" in browser.current_url


def relation(browser: webdriver.Chrome) -> str:
    """Why these two."""
    return browser.find_element(By.ID, "relation").text


def chosen(browser: webdriver.Chrome) -> list[str]:
    """The two of the lists; the address has the same."""
    values: list[str] = ask(
        browser, "['left', 'right'].map((id) => document.getElementById(id).value)"
    )
    in_address = ask(browser, "[...new URLSearchParams(location.search).values()]")
    assert in_address == values
    return values


def headlines(browser: webdriver.Chrome) -> list[str]:
    """The two cards on top."""
    return [each.text for each in browser.find_elements(By.CSS_SELECTOR, "#headlines section")]


def test_the_other_places_open_by_keyboard(browser: webdriver.Chrome, many: Path) -> None:
    """And one of them jumps to the timeline, as the first five do."""
    opened(browser, next(many.glob("nightly_sleep-kind-*.html")))
    summary = browser.find_element(By.CSS_SELECTOR, ".findings details summary")
    assert summary.text.startswith("and ") and " more, from day " in summary.text
    button = browser.find_element(By.CSS_SELECTOR, ".findings details [data-do=jump]")
    assert not button.is_displayed()
    summary.send_keys(Keys.ENTER)
    assert button.is_displayed()
    button.send_keys(Keys.ENTER)
    assert ask(browser, "MESHWAKE.page.cursor") == float(str(button.get_attribute("data-at")))


def a_year_of_fifty() -> Run:
    """Fifty machines, a year, a night of sleep every third day; certificates of thirty days keep
    the model quick."""
    names = [f"node-{number:02}" for number in range(50)]
    nights = [
        (day * DAY_NS + 15 * 3_600 * NS_PER_S, name) for day in range(0, 365, 3) for name in names
    ]
    plan = Plan(
        scenario="a_year",
        title="Fifty machines for a year",
        lab="model",
        version="1.31.0-rc.0",
        behaviour_class="E",
        seed=0,
        starts_wall_s=1_799_049_600,
        duration_ns=365 * DAY_NS,
        lifetime_s=720 * 3_600,
        backdate_s=120,
        nodes=tuple(PlannedNode(name=name, identities=(f"{name}/workload",)) for name in names),
        authority_node=None,
        pairs=tuple((f"{name}/workload", "node-49/workload") for name in names[:4]),
        attempt_every_ns=DAY_NS,
        faults=tuple(
            PlannedSuspend(
                index=index,
                node=name,
                at_world_ns=at_ns,
                lasts_ns=8 * 3_600 * NS_PER_S,
            )
            for index, (at_ns, name) in enumerate(nights)
        ),
    )
    history = execute(plan).history
    return Run(plan, history, judge(plan, history))


def test_a_year_of_fifty_nodes_stays_usable(browser: webdriver.Chrome, place: Path) -> None:
    """Three nodes are drawn, the others when they are opened; a zoom takes no longer than a person
    waits."""
    write_report(place, [a_year_of_fifty()])
    size = sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
    assert size < 25_000_000
    opened(browser, place / "index.html")
    assert ask(browser, "MESHWAKE.plots.length") == 50
    assert ask(browser, "MESHWAKE.plots.filter((plot) => plot.drawn).length") == 3
    browser.execute_script("document.querySelectorAll('details.node')[40].open = true")
    WebDriverWait(browser, WAITS_S).until(lambda it: ask(it, "MESHWAKE.plots[40].drawn"))
    # Against drawing the same page for the first time, so that a busy machine does not decide.
    first_ms, zoom_ms = ask(
        browser,
        """(() => {
          const timed = (work) => { const began = performance.now(); work(); return performance.now() - began; };
          return [timed(MESHWAKE.drawAll), timed(() => MESHWAKE.show([0, 86400 * 30]))];
        })()""",
    )
    assert zoom_ms < 10 * first_ms + 1_000
    assert complaints(browser) == []


def test_paper_is_wide_enough_for_every_table(browser: webdriver.Chrome, two: Path) -> None:
    """Paper cannot be scrolled; A4 between usual margins is 718 CSS pixels wide."""
    size = browser.get_window_size()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 718, "height": 1000, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        for page in sorted(two.glob("*.html")):
            opened(browser, page, done="compared" if page.name == "compare.html" else "ready")
            tables = ask(
                browser,
                "[...document.querySelectorAll('.scroll')].map((it) => [it.scrollWidth, "
                "it.clientWidth])",
            )
            assert tables
            assert all(scroll <= client for scroll, client in tables), f"{page.name}: {tables}"
            assert (
                ask(browser, "document.querySelectorAll('.modebar').length === 0")
                or ask(browser, "getComputedStyle(document.querySelector('.modebar')).display")
                == "none"
            )
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.set_window_size(size["width"], size["height"])
