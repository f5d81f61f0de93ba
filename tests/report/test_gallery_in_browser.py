"""The gallery in a real browser, from disk: numbers, links between lists and objects, score and verdicts."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import Browser

BADGES = """
[...document.querySelectorAll(".scene")].flatMap(scene => [...scene.querySelectorAll(".panel > svg")].map(svg =>
  [...svg.querySelectorAll(".badge")].filter(b => !b.classList.contains("off")).map(b => {
    const box = b.querySelector("rect").getBoundingClientRect(), text = b.querySelector("text").getBoundingClientRect();
    return [box.left, box.top, box.right, box.bottom, text.left, text.right];
  })))
"""
VISIBLE = """
[...document.querySelectorAll(".panel:last-child li")].filter(r => r.checkVisibility())
  .map(r => [Number(r.dataset.score), r.dataset.kind])
"""
SHAPES = """
[...document.querySelectorAll(".panel:last-child svg .shape")]
  .filter(s => getComputedStyle(s).display !== "none" && s.closest("details").open).length
"""
SET = """
((name, value) => {
  const input = document.querySelector(".controls").elements[name];
  typeof value === "boolean" ? input.checked = value : input.value = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
})"""
HOT = "[...document.querySelectorAll('.hot')].map(e => [e.tagName.toLowerCase(), e.dataset.object])"
FOUND = """
[...document.querySelectorAll(".scene")].map(s =>
  [Number(s.querySelector(".found").value), s.querySelectorAll(".panel:first-child .mark.true").length])
"""


@pytest.fixture
def gallery(browser: Browser, finished: Path) -> Browser:
    """The page of pictures alone, opened from disk: a request for anything else is a problem."""
    browser.open(finished / "results/report/gallery.html", 1280)
    return browser


@pytest.mark.parametrize("width", [390, 1280])
def test_numbers_never_cover_each_other_and_stand_in_their_boxes(browser: Browser, finished: Path, width: int) -> None:
    browser.open(finished / "results/report/gallery.html", width)
    panels: list[list[list[float]]] = browser.run(BADGES)
    assert max(map(len, panels)) >= 8
    for badges in panels:
        for left, _, right, _, text_left, text_right in badges:
            assert left - 1 <= text_left <= text_right <= right + 1
        for one, two in itertools.combinations(badges, 2):
            apart = one[2] <= two[0] + 0.1 or two[2] <= one[0] + 0.1 or one[3] <= two[1] + 0.1 or two[3] <= one[1] + 0.1
            assert apart, (one, two)


def test_it_works_from_disk_without_a_network(gallery: Browser) -> None:
    assert gallery.page.startswith("file://")
    assert gallery.problems == []
    assert gallery.run("!document.querySelector('.controls').hidden")
    assert gallery.run("document.querySelectorAll('.scene svg .shape').length") > 20


def test_score_and_verdicts_narrow_what_is_drawn_and_listed(gallery: Browser) -> None:
    before: list[Any] = gallery.run(VISIBLE)
    kinds = {kind for _, kind in before}
    assert kinds == {"true", "false", "unjudged"}
    assert gallery.run(SHAPES) == len(before)
    gallery.run(f"{SET}('score', 0.6)")
    assert gallery.run(VISIBLE) == [row for row in before if row[0] >= 0.6]
    assert gallery.run("document.querySelector('.controls output').value") == "0.60"
    gallery.run(f"{SET}('score', 0.3)")
    for kind in kinds:
        gallery.run(f"{SET}('{kind}', false)")
        assert gallery.run(VISIBLE) == [row for row in before if row[1] != kind]
        assert gallery.run(SHAPES) == sum(row[1] != kind for row in before)
        gallery.run(f"{SET}('{kind}', true)")
    assert gallery.run(VISIBLE) == before


def test_objects_whose_detection_is_below_the_score_count_as_missed(gallery: Browser) -> None:
    before = gallery.run(FOUND)
    assert all(told == marked for told, marked in before)
    gallery.run(f"{SET}('score', 0.8)")
    after = gallery.run(FOUND)
    assert all(told == marked for told, marked in after)
    assert sum(told for told, _ in after) < sum(told for told, _ in before)
    gallery.run(f"{SET}('score', 1)")
    assert not any(told for told, _ in gallery.run(FOUND))
    gallery.run(f"{SET}('score', 0)")
    assert gallery.run(FOUND) == before


def middle(browser: Browser, selector: str) -> tuple[float, float]:
    browser.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
    left, top, right, bottom = browser.box(selector)
    return (left + right) / 2, (top + bottom) / 2


def test_a_line_of_the_list_and_its_object_light_up_together(gallery: Browser) -> None:
    match = gallery.run("document.querySelector('li[data-match]').dataset.match")
    key = gallery.run("document.querySelector('li[data-match]').dataset.object")
    expected = {("li", key), ("path", key), ("g", key), ("li", match), ("path", match), ("g", match)}
    gallery.hover(*middle(gallery, "li[data-match] .name"))
    assert {tuple(part) for part in gallery.run(HOT)} == expected
    gallery.hover(*middle(gallery, f".scene .badge[data-object={key}] rect"))  # its number in the picture
    assert {tuple(part) for part in gallery.run(HOT)} == expected
    gallery.hover(2, 2)
    assert gallery.run(HOT) == []


def test_lists_can_be_walked_with_the_keyboard(gallery: Browser) -> None:
    gallery.run("document.querySelector('.panel:last-child li').focus()")
    first = gallery.run("document.activeElement.dataset.object")
    assert ("li", first) in {tuple(part) for part in gallery.run(HOT)}
    gallery.press("ArrowDown")
    second = gallery.run("document.activeElement.dataset.object")
    assert second != first
    assert ("path", second) in {tuple(part) for part in gallery.run(HOT)}
    gallery.press("ArrowUp")
    assert gallery.run("document.activeElement.dataset.object") == first
    assert gallery.run("document.querySelectorAll('.panel:last-child li[tabindex=\"0\"]').length") == gallery.run(
        "[...document.querySelectorAll('.panel:last-child')].filter(p => p.querySelector('li')).length"
    )
