"""The page of a run in a real browser: nothing fails, everything is drawn, and it fits a phone and a desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline_steps.report.figures.captions import CAPTIONS
from tests.report.browser import BROKEN_LINKS, TOO_WIDE, UNDRAWN, Browser

PHONE, DESK = 390, 1280

SIZES = """
[...document.querySelectorAll("p, li, td, figcaption, a")].map(e => parseFloat(getComputedStyle(e).fontSize))
"""
COLUMN = """
[...document.querySelectorAll(".sortable tbody tr")].filter(r => !r.hidden)
  .map(r => r.cells[%d].dataset.value ?? r.cells[%d].textContent)
"""


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


HIDDEN = """
[...document.querySelectorAll(".wide")].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.ariaLabel)
"""
"""Tables of which a column is out of sight."""

CUT = """
[...document.querySelectorAll(".wide, .plot, .graph")].filter(e => e.scrollHeight > e.clientHeight + 1)
  .map(e => e.ariaLabel)
"""

TOPS = (
    "Object.fromEntries([...document.querySelectorAll('section')].map(s => [s.id, s.getBoundingClientRect().height]))"
)


def test_three_figures_stand_first(browser: Browser, page: Path) -> None:
    browser.open(page, DESK)
    shown = browser.run(
        "[...document.querySelectorAll('.headline div')].map(d => [d.innerText, d.getBoundingClientRect().bottom])"
    )
    assert len(shown) == 3
    assert max(bottom for _, bottom in shown) < 900  # without scrolling
    cells = dict(
        zip(
            *(
                browser.run(f"[...document.querySelector('.wide {row}').cells].map(c => c.textContent)")
                for row in ("thead tr", "tbody tr:last-child")
            )
        )
    )
    assert cells["model"] == "ensemble"
    for (text, _), column in zip(shown, ("AP", "AP_r", "AP_fixed")):
        assert cells[column] in text.split("\n"), column
    assert browser.box(".headline")[1] < browser.box("section")[1]


def test_every_column_is_in_sight_on_a_desk_and_ap_at_one_iou_and_by_size_are_among_them(
    browser: Browser, page: Path
) -> None:
    browser.open(page, DESK)
    assert browser.run(HIDDEN) == []
    heads = browser.run("[...document.querySelectorAll('th')].map(h => h.textContent)")
    assert {"AP50", "AP75", "AP_s", "AP_m", "AP_l", "AP ensemble"} <= set(heads)


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_list_of_sections_stays_in_sight_and_says_where_one_is(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    for anchor in ("categories", "training"):
        browser.run(f"document.getElementById('{anchor}').scrollIntoView()")
        browser.run("new Promise(done => setTimeout(done, 200))")
        _, first, _, last = browser.box("nav")
        assert first >= -1
        assert last <= 901
        assert browser.run("document.querySelector('nav [aria-current]').hash") == f"#{anchor}"
        assert browser.box(f"#{anchor} h2")[1] >= (last if width == PHONE else 0)  # not below the list


@pytest.mark.parametrize(("width", "scheme"), [(DESK, "light"), (PHONE, "dark")])
def test_nothing_serious_keeps_people_out(
    browser: Browser, page: Path, finished: Path, width: int, scheme: str
) -> None:
    browser.media(scheme)
    for path in (page, finished / "results/report/gallery.html", finished / "results/report/missing_annotations.html"):
        browser.open(path, width)
        browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert browser.barriers() == [], path.name


def test_barriers_are_noticed(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text('<!DOCTYPE html><html><body><p style="color:#bbb">pale</p><img src="data:,"><title>t</title>')
    browser.open(path, DESK)
    assert {"color-contrast", "image-alt", "html-has-lang"} <= {rule for _, rule, *_ in browser.barriers()}


def test_figures_are_dark_on_a_dark_page(browser: Browser, page: Path, tmp_path: Path) -> None:
    shown = {}
    for scheme in ("light", "dark"):
        browser.media(scheme)
        browser.open(page, DESK)
        browser.run("document.getElementById('figure-ap_by_group').scrollIntoView()")
        browser.screenshot(tmp_path / "shot.png", whole=False)
        box = browser.box("#figure-ap_by_group img")
        with Image.open(tmp_path / "shot.png") as image:
            shown[scheme] = np.asarray(image.convert("L").crop([round(v) for v in box]), float)
    assert np.median(shown["light"]) > 240
    assert np.median(shown["dark"]) < 40
    assert np.percentile(shown["dark"], 99) > 180  # what is written can be read


def test_page_on_paper_is_short_and_cuts_no_table(browser: Browser, page: Path) -> None:
    browser.media(paper=True)
    browser.open(page, 695)  # A4 without its margins, at 96 pixels to an inch
    assert browser.run(HIDDEN) == []
    assert browser.run("document.documentElement.scrollWidth") <= 695
    assert browser.run(CUT) == []
    assert not browser.run("document.querySelector('nav').checkVisibility()")
    browser.media()
    pages = browser.pdf().count(b"/Type /Page\n")
    assert 3 <= pages <= 14


def test_pictures_stand_after_the_results_and_leave_the_page_to_the_rest(browser: Browser, page: Path) -> None:
    browser.open(page, DESK)
    heights = browser.run(TOPS)
    order = list(heights)
    assert order.index("results") < order.index("pictures") < order.index("training")
    assert heights["pictures"] < 0.4 * sum(heights.values())


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
