"""Choosing OpenImages images for the LVIS categories that have the fewest.

Symbols: C LVIS categories by position; *pair* an image with a usable box of a category.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choice:
    """Result of :func:`choose_images`."""

    images: np.ndarray  # chosen image positions, ascending
    available: np.ndarray  # int64[C], images with a usable box, before choosing
    added: np.ndarray  # int64[C], chosen images with a usable box


def choose_images(
    pair_image: np.ndarray, pair_category: np.ndarray, lvis_images: np.ndarray, max_images: int, max_per_category: int
) -> Choice:
    """Choose images one at a time, always for the category that has the fewest so far.

    A category's count starts with its LVIS train images and grows with every chosen image that shows it, for whichever
    category's sake it was chosen. The next image of a category is the first one that is left, by position; ties between
    categories go to the lower position. So the choice depends on the data alone.

    Args:
        pair_image: int[m], image positions; positions follow the image ids.
        pair_category: int[m], category positions; every pair occurs once, in any order.
        lvis_images: int[C], LVIS train images of each category.
        max_images: images to choose at most.
        max_per_category: images to choose at most for the sake of one category.
    """
    categories = len(lvis_images)
    available = np.bincount(pair_category, minlength=categories)
    # Categories of each image, and images of each category in ascending order, as one array each with offsets.
    by_image = np.argsort(pair_image, kind="stable")
    image_positions, image_starts = np.unique(pair_image[by_image], return_index=True)
    image_stops = np.append(image_starts[1:], len(by_image))
    categories_of = pair_category[by_image]
    rank = np.repeat(np.arange(len(image_positions)), image_stops - image_starts)
    by_category = np.argsort(categories_of, kind="stable")
    images_of = rank[by_category]
    starts = np.concatenate([[0], np.cumsum(available)])

    total = np.asarray(lvis_images, dtype=np.int64).copy()
    added = np.zeros(categories, np.int64)
    taken_for = np.zeros(categories, np.int64)
    cursor = starts[:-1].copy()
    chosen = np.zeros(len(image_positions), bool)
    queue = [(int(total[category]), category) for category in np.flatnonzero(available).tolist()]
    heapq.heapify(queue)
    count = 0
    while queue and count < max_images:
        fewest, category = heapq.heappop(queue)
        if fewest != total[category]:  # out of date: images chosen for others showed it
            heapq.heappush(queue, (int(total[category]), category))
            continue
        while cursor[category] < starts[category + 1] and chosen[images_of[cursor[category]]]:
            cursor[category] += 1
        if cursor[category] == starts[category + 1] or taken_for[category] == max_per_category:
            continue
        image = images_of[cursor[category]]
        chosen[image] = True
        count += 1
        taken_for[category] += 1
        shown = categories_of[image_starts[image] : image_stops[image]]
        total[shown] += 1
        added[shown] += 1
        heapq.heappush(queue, (int(total[category]), category))
    return Choice(images=image_positions[chosen], available=available, added=added)
