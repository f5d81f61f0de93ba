"""The page of a run in a real browser: nothing fails, everything is drawn, and it fits a phone and a desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline_steps.common.cli import call_step
from pipeline_steps.report.figures.captions import CAPTIONS
from pipeline_steps.write_report import build_parser, main
from tests.report.browser import BROKEN_LINKS, NAMES, TOO_WIDE, UNDRAWN, Browser, find_browser

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason=f"no browser to check pages with (looked for {', '.join(NAMES)} on the PATH)"
)

PHONE, DESK = 390, 1280

SIZES = """
[...document.querySelectorAll("p, li, td, figcaption, a")].map(e => parseFloat(getComputedStyle(e).fontSize))
"""
COLUMN = """
[...document.querySelectorAll(".sortable tbody tr")].filter(r => !r.hidden)
  .map(r => r.cells[%d].dataset.value ?? r.cells[%d].textContent)
"""


@pytest.fixture(scope="module")
def page(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "index.html"
    options = ["--recipe", str(finished / "recipe.yaml"), "--results", str(finished / "results")]
    options += ["--figures", str(finished / "results/report/figures"), "--output", str(path)]
    assert call_step(build_parser(), main, options) == 0
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_browser()
    assert program is not None
    with Browser(program, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_page_is_drawn_whole_without_errors_and_fits_the_window(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    assert browser.problems == []
    assert browser.run(UNDRAWN) == []
    assert browser.run("document.images.length") == len(CAPTIONS)
    assert browser.run("document.querySelectorAll('.graph rect').length") == 4
    assert browser.run(BROKEN_LINKS) == []
    assert browser.run(TOO_WIDE) == []
    assert browser.run("document.documentElement.scrollWidth") == width
    assert min(browser.run(SIZES)) >= 12


def column(browser: Browser, number: int) -> list[str]:
    return browser.run(COLUMN % (number, number))


def click(browser: Browser, number: int) -> str | None:
    return browser.run(
        f"(() => {{ const head = document.querySelectorAll('.sortable th')[{number}];"
        "head.querySelector('button').click(); return head.getAttribute('aria-sort'); })()"
    )


def test_category_table_sorts_by_a_click_and_shows_only_what_is_asked_for(browser: Browser, page: Path) -> None:
    browser.open(page, DESK)
    heads = browser.run("[...document.querySelectorAll('.sortable th')].map(h => h.textContent)")
    number = heads.index("AP ensemble")

    def figures() -> list[float]:
        values = column(browser, number)
        missing = [k for k, value in enumerate(values) if value == ""]
        assert missing == list(range(len(values) - len(missing), len(values)))  # missing ones last, both ways
        return [float(value) for value in values if value != ""]

    before = sorted(figures_of(column(browser, number)))
    assert click(browser, number) == "descending"
    assert figures() == before[::-1]
    assert click(browser, number) == "ascending"
    assert figures() == before
    names = column(browser, 0)
    assert click(browser, 0) == "ascending"
    assert column(browser, 0) == sorted(names)
    browser.run(
        "(() => { const i = document.querySelector('.sortable input'); i.value = 'rare';"
        "i.dispatchEvent(new Event('input')); })()"
    )
    assert set(column(browser, 1)) == {"rare"}
    assert 0 < len(column(browser, 1)) < len(names)
    told = browser.run("document.querySelector('.sortable output').textContent")
    assert told == f"{len(column(browser, 1))} of {len(names)}"
    assert browser.problems == []


def figures_of(values: list[str]) -> list[float]:
    return [float(value) for value in values if value != ""]


def test_the_check_itself_notices_errors_missing_pictures_and_wide_pages(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        '<!DOCTYPE html><body><img src="gone.png" alt="gone"><a href="#nowhere">x</a><p style="width:2000px">wide</p>'
        "<script>console.error('told'); undefinedFunction()</script>"
    )
    browser.open(path, PHONE)
    found: dict[str, Any] = {"problems": browser.problems[:], "undrawn": browser.run(UNDRAWN)}
    browser.problems.clear()
    assert any("told" in problem for problem in found["problems"])
    assert any("undefinedFunction" in problem for problem in found["problems"])
    assert any("gone.png" in problem for problem in found["problems"])
    assert found["undrawn"] == ["gone"]
    assert browser.run(BROKEN_LINKS) == ["#nowhere"]
    assert browser.run(TOO_WIDE)
