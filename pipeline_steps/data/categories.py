"""The categories of a data set in their fixed order, and the one place where ids become positions.

Symbols: C number of categories; *id* the data set's own category id (LVIS: 1..1230, COCO: 1..90 with gaps);
*position* the 0-based contiguous index 0..C-1 by which networks and tensors number categories.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import msgspec
import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.data.records import Category

RARE_IMAGES = 10
COMMON_IMAGES = 100
"""LVIS groups: rare 1-10 train images, common 11-100, frequent more (LVIS paper, section 4)."""

GROUPS = {"r": "rare", "c": "common", "f": "frequent"}


def frequency_letter(image_count: int, rare: int = RARE_IMAGES, common: int = COMMON_IMAGES) -> str:
    """The group of a category with annotations in ``image_count`` train images, LVIS' unless limits are given."""
    return "r" if image_count <= rare else "c" if image_count <= common else "f"


class CategoryList:
    """Categories sorted by id.

    Attributes:
        categories: the records, sorted by id.
        ids: int64[C], sorted category ids.
    """

    def __init__(self, categories: Iterable[Category], origin: str) -> None:
        """``origin`` names the file in messages.

        Raises:
            UserError: no category at all, or an id twice.
        """
        self.origin = origin
        self.categories = tuple(sorted(categories, key=lambda category: category.id))
        self.ids = np.array([category.id for category in self.categories], dtype=np.int64)
        if not len(self.ids):
            raise UserError(f"{origin} has no categories")
        repeated = self.ids[1:][self.ids[1:] == self.ids[:-1]]
        if len(repeated):
            raise UserError(f"{origin}: duplicate category ids: {listing(sorted(set(repeated.tolist())))}")
        self._position = {int(category_id): position for position, category_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.categories)

    def __contains__(self, category_id: int) -> bool:
        return category_id in self._position

    def by_id(self, category_id: int) -> Category:
        """The category with this id (KeyError if there is none)."""
        return self.categories[self._position[category_id]]

    @property
    def names(self) -> list[str]:
        """Names by position."""
        return [category.name for category in self.categories]

    def positions(self, category_ids: Iterable[int]) -> np.ndarray:
        """Positions int64[k] of category ids, in the order given.

        Every id in a file goes through here, ``neg_category_ids`` included: LVIS ids start at 1 and positions at 0,
        and a list that skips this step is off by one without any visible error.

        Raises:
            UserError: an id that is not a category of this data set.
        """
        ids = [int(category_id) for category_id in category_ids]
        unknown = [category_id for category_id in ids if category_id not in self._position]
        if unknown:
            raise UserError(f"{self.origin}: no such category ids: {listing(sorted(set(unknown)))}")
        return np.array([self._position[category_id] for category_id in ids], dtype=np.int64)

    def mask(self, category_ids: Iterable[int]) -> np.ndarray:
        """bool[C], True at the positions of ``category_ids``."""
        mask = np.zeros(len(self), dtype=bool)
        mask[self.positions(category_ids)] = True
        return mask

    @cached_property
    def frequencies(self) -> np.ndarray:
        """Letters r, c, f by position, ``<U1[C]``: the file's letter, or from ``image_count`` where it has none.

        Raises:
            UserError: categories with neither, or with another letter.
        """
        letters, missing, wrong = [], [], []
        for category in self.categories:
            letter = category.frequency
            if letter is None and category.image_count is not None:
                letter = frequency_letter(category.image_count)
            if letter is None:
                missing.append(category.name)
            elif letter not in GROUPS:
                wrong.append(f"{category.name}: {letter!r}")
            letters.append(letter or "")
        if missing:
            raise UserError(
                f"{self.origin}: {len(missing)} of {len(self)} categories have neither 'frequency' nor 'image_count' "
                f"({listing(missing)}); the categories of the LVIS train file have both: copy its 'categories'"
            )
        if wrong:
            raise UserError(f"{self.origin}: 'frequency' must be r, c or f, not {listing(wrong)}")
        return np.array(letters, dtype="<U1")

    @property
    def tail(self) -> np.ndarray:
        """bool[C]: rare or common, the categories that the Equalization Loss protects (paper, section 2).

        The letter decides, never a ratio of counts: categories with exactly 100 images are common.
        """
        return self.frequencies != "f"


def with_counts(
    categories: Sequence[Category], images_of: dict[int, int], instances_of: dict[int, int]
) -> list[Category]:
    """``categories`` (of COCO) with their counts by category id, and the frequency letters that follow from them."""
    return [
        msgspec.structs.replace(
            category,
            frequency=frequency_letter(images_of.get(category.id, 0)),
            image_count=images_of.get(category.id, 0),
            instance_count=instances_of.get(category.id, 0),
        )
        for category in categories
    ]
