"""Reports in a real browser, opened from the disk: nothing fetched, phone and desk, light and dark, on paper, faults that axe finds."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from selftrain.report import write_comparison, write_report
from tests.browser.conftest import PHONE, WIDE, Page
from tests.watch import runs as made

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def opened(driver: webdriver.Chrome) -> Iterator[Callable[[Path], Page]]:
    """Opens a file. At the end: no error on the console, and nothing but files was read."""
    driver.get("about:blank")
    driver.get_log("browser"), driver.get_log("performance")
    pages: list[Page] = []

    def show(file: Path) -> Page:
        pages.append(Page(driver, file.as_uri()))
        driver.get(file.as_uri())
        return pages[-1]

    yield show
    log = [entry["message"] for entry in driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert not log
    assert not pages or pages[-1].hosts() <= {"", "about"}
    driver.get("about:blank")


def num_printed_pages(page: Page) -> int:
    """On A4, without backgrounds."""
    paper = base64.b64decode(page.driver.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})["data"])
    assert paper.startswith(b"%PDF")
    return len(re.findall(rb"/Type\s*/Page\b", paper))


def look_at(page: Page, most_pages: int) -> None:
    """It fits phone and desk in both themes, axe finds nothing serious, and it prints on few pages."""
    for theme in ("light", "dark"):
        page.theme(theme)
        for size in (WIDE, PHONE):
            page.size(*size)
            assert page.driver.execute_script("return document.documentElement.scrollWidth") <= size[0]
            assert page.faults() == []
    page.theme("light")
    page.size(*WIDE)
    assert 1 <= num_printed_pages(page) <= most_pages


def scroll_to(page: Page, heading: str) -> None:
    page.driver.execute_script("[...document.querySelectorAll('h2')].find((one) => one.textContent === arguments[0]).scrollIntoView()", heading)


def test_the_default_run(opened: Callable[[Path], Page], default_run: Path, tmp_path: Path, keeps_pictures: bool) -> None:
    shown = opened(write_report(default_run).html)
    assert len(shown.all("figure svg.chart")) == 12
    look_at(shown, 12)
    scroll_to(shown, "Outcome")
    shown.picture("report", tmp_path, keeps_pictures)


def test_a_collapsed_run(opened: Callable[[Path], Page], tmp_path: Path, keeps_pictures: bool) -> None:
    made.write_collapsed(tmp_path / "constant")
    shown = opened(write_report(tmp_path / "constant").html)
    assert shown.find(".verdict.halt")
    assert "lost" in shown.text("main")
    look_at(shown, 12)
    scroll_to(shown, "Guard")
    shown.picture("report-guard", tmp_path, keeps_pictures)


def test_an_empty_run(opened: Callable[[Path], Page], tmp_path: Path) -> None:
    made.write_empty(tmp_path / "empty")
    shown = opened(write_report(tmp_path / "empty").html)
    assert "No step is done yet." in shown.text("main")
    look_at(shown, 3)


def test_a_run_of_100_000_completions(opened: Callable[[Path], Page], tmp_path: Path) -> None:
    made.write_large(tmp_path / "large", 200, (20, 25), 20)
    file = write_report(tmp_path / "large").html
    assert file.stat().st_size < 5_000_000
    shown = opened(file)
    assert "100,000, 2 million tokens sampled" in shown.text("main")
    look_at(shown, 12)


def test_markup_in_a_report_stays_text(opened: Callable[[Path], Page], tmp_path: Path) -> None:
    made.write_hostile(tmp_path / "hostile")
    shown = opened(write_report(tmp_path / "hostile").html)
    assert shown.driver.execute_script("return window.hacked === undefined")
    assert shown.all("main :is(script, img, iframe, object, svg[onload], a)") == []
    assert made.HOSTILE[0] in shown.text("main")
    look_at(shown, 6)


def test_several_runs_side_by_side(opened: Callable[[Path], Page], default_run: Path, tmp_path: Path) -> None:
    made.write_collapsed(tmp_path / "constant")
    made.write_empty(tmp_path / "empty")
    shown = opened(write_comparison([default_run, tmp_path / "constant", tmp_path / "empty"], tmp_path).html)
    assert "avg@16 after minus before" in shown.text("main")
    look_at(shown, 12)
