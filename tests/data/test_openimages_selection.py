"""Choosing images: against a slow statement of the rule, and its properties one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.openimages.choice import choose_images


def slow_choice(pairs: set[tuple[int, int]], lvis_images: list[int], max_images: int, cap: int) -> list[int]:
    """The rule as it is told: look at everything again before every choice."""
    chosen: set[int] = set()
    taken = [0] * len(lvis_images)
    while len(chosen) < max_images:
        totals = [
            (lvis_images[c] + sum((image, c) in pairs for image in chosen), c)
            for c in range(len(lvis_images))
            if taken[c] < cap and any(category == c and image not in chosen for image, category in pairs)
        ]
        if not totals:
            break
        _, category = min(totals)
        chosen.add(min(image for image, c in pairs if c == category and image not in chosen))
        taken[category] += 1
    return sorted(chosen)


def choose(pairs: set[tuple[int, int]], lvis_images: list[int], max_images: int, cap: int):
    ordered = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return choose_images(ordered[:, 0], ordered[:, 1], np.array(lvis_images), max_images, cap)


@given(
    st.sets(st.tuples(st.integers(0, 15), st.integers(0, 4)), max_size=40),
    st.lists(st.integers(0, 6), min_size=5, max_size=5),
    st.integers(1, 20),
    st.integers(1, 6),
)
def test_choice_is_the_one_that_the_rule_makes(pairs, lvis_images, max_images, cap):
    choice = choose(pairs, lvis_images, max_images, cap)
    expected = slow_choice(pairs, lvis_images, max_images, cap)
    assert choice.images.tolist() == expected
    assert choice.added.tolist() == [sum((i, c) in pairs for i in expected) for c in range(5)]
    assert choice.available.tolist() == [sum(c == category for _, category in pairs) for c in range(5)]


def test_rare_categories_come_first_until_they_are_even():
    pairs = {(image, 0) for image in range(100)} | {(image, 1) for image in range(100, 200)}
    choice = choose(pairs, [5, 50], 60, 1000)
    assert choice.added.tolist() == [53, 7]  # 5 + 53 = 58 and 50 + 7 = 57: the last one went to the lower position


def test_the_cap_limits_what_is_taken_for_one_category():
    pairs = {(image, 0) for image in range(100)} | {(image, 1) for image in range(50, 200)}
    choice = choose(pairs, [0, 1000], 500, 10)
    assert choice.images.tolist() == [*range(10), *range(50, 60)]


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_file_does_not_matter(seed: int):
    random = np.random.default_rng(seed)
    pairs = np.unique(random.integers(0, [300, 20], (900, 2)), axis=0)
    counts = random.integers(0, 100, 20)
    first = choose_images(pairs[:, 0], pairs[:, 1], counts, 50, 9)
    pairs = random.permutation(pairs)
    second = choose_images(pairs[:, 0], pairs[:, 1], counts, 50, 9)
    assert first.images.tolist() == second.images.tolist()
    assert len(first.images) == 50


def test_no_boxes_choose_no_image():
    assert choose(set(), [1, 2], 10, 10).images.tolist() == []
