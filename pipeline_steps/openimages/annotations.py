"""OpenImages boxes and labels of one image as an LVIS record.

What OpenImages says about a class is said about an LVIS category only as far as the relation allows:

- a box of a class that is equal to the category or narrower is a box of the category;
- a class that is present makes every mapped class above it present, and with it the categories that are equal or
  broader; a category that is present but not (or not completely) boxed goes to ``not_exhaustive_category_ids``;
- a class that is absent makes every class below it absent (never the reverse), and with it the categories that are
  equal or narrower: S_N (``neg_category_ids``);
- the annotators had no name for all other categories: they are not in ``known_category_ids``.

Boxes that must not be learned as background, though they are no single object of a category, become ``group_boxes``
(``IsGroupOf``) or ``ignore_boxes``: views from inside (``IsInside``), and boxes of classes that are not mapped
themselves but are a kind of one that is. Depictions (``IsDepiction``) are dropped.

Symbols: *MID* OpenImages class id; S_P, S_N as in the paper, equation 4.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from pipeline_steps.data.category_tables import CategoryMapping
from pipeline_steps.data.openimages_classes import Vocabulary
from pipeline_steps.openimages.box_kernels import DEPICTION_FLAG, GROUP_FLAG
from pipeline_steps.openimages.labels import VerifiedLabels

FIRST_IMAGE_ID = 10_000_000_000
"""COCO ids have at most six digits: image ids of both can stand side by side."""


class Inference:
    """Which LVIS categories follow from which classes."""

    def __init__(self, vocabulary: Vocabulary, mapping: CategoryMapping) -> None:
        self.vocabulary = vocabulary
        self.mapping = mapping
        self.known_ids = mapping.known_lvis_ids
        # Cached per instance: a few hundred classes are asked for millions of times.
        self.present_with = cache(self._present_with)
        self.absent_with = cache(self._absent_with)
        self.ignored_mids = frozenset(
            mid for mid in vocabulary.names if mid not in mapping.lvis_ids and self.present_with(mid)
        )
        """Classes that are not mapped but are a kind of one that is."""

    def _present_with(self, mid: str) -> frozenset[int]:
        """LVIS ids that are present where class ``mid`` is."""
        above = self.vocabulary.with_ancestors(mid) & self.mapping.contained_sources
        return frozenset(self.mapping.lvis_ids[source] for source in above)

    def _absent_with(self, mid: str) -> frozenset[int]:
        """LVIS ids that are absent where class ``mid`` is."""
        below = self.vocabulary.with_descendants(mid) & self.mapping.covering_sources
        return frozenset(self.mapping.lvis_ids[source] for source in below)


@dataclass
class Objects:
    """Boxes of one image in pixels.

    Attributes:
        annotated: (LVIS id, [x, y, width, height]) of single objects, in file order.
        ignored: [x, y, width, height] of objects without a category of their own.
        groups: [x, y, width, height] of groups of objects.
        incomplete: LVIS ids that are present with objects that have no box of their own.
        present: all LVIS ids that the boxes show.
    """

    annotated: list[tuple[int, list[float]]] = field(default_factory=list)
    ignored: list[list[float]] = field(default_factory=list)
    groups: list[list[float]] = field(default_factory=list)
    incomplete: set[int] = field(default_factory=set)
    present: set[int] = field(default_factory=set)


def pixel_box(corners: np.ndarray, width: int, height: int) -> list[float]:
    """x1, y1, x2, y2 as fractions -> x, y, width, height in pixels, inside the image, to 0.01 pixel."""
    x1, y1, x2, y2 = np.clip(corners.astype(np.float64), 0, 1) * (width, height, width, height)
    left, top = round(float(x1), 2), round(float(y1), 2)
    # Rounded corners, not rounded extents: the box never leaves the image.
    return [left, top, round(round(float(x2), 2) - left, 2), round(round(float(y2), 2) - top, 2)]


def collect_objects(
    mids: list[str],
    boxes: np.ndarray,
    flags: np.ndarray,
    size: tuple[int, int],
    inference: Inference,
    counts: Counter[str],
) -> Objects:
    """Sort the boxes of one image.

    Args:
        mids: class of each of n boxes.
        boxes: float32[n, 4], x1 y1 x2 y2, fractions.
        flags: uint8[n], bits of ``box_kernels``.
        size: (width, height) in pixels.
        inference: what follows from the classes.
        counts: incremented for boxes that are left out: ``depiction``, ``repeated``, ``empty``.
    """
    objects = Objects()
    seen: set[tuple[Any, ...]] = set()
    for mid, corners, flag in zip(mids, boxes, flags.tolist(), strict=True):
        category, shown = inference.mapping.lvis_ids.get(mid), inference.present_with(mid)
        if category is None and not shown:
            continue
        if flag & DEPICTION_FLAG:
            counts["depiction"] += 1
            continue
        key = (mid, flag, *corners.tolist())
        if key in seen:
            counts["repeated"] += 1
            continue
        seen.add(key)
        box = pixel_box(corners, *size)
        if min(box[2:]) <= 0:
            counts["empty"] += 1
            continue
        objects.present |= shown
        if category is None or flag:
            (objects.groups if flag & GROUP_FLAG else objects.ignored).append(box)
            objects.incomplete |= shown
        else:
            objects.annotated.append((category, box))
            objects.incomplete |= shown - {category}
    return objects


def lvis_image(
    image_number: int,
    name: str,
    size: tuple[int, int],
    objects: Objects,
    labels: VerifiedLabels,
    inference: Inference,
    counts: Counter[str],
    judged_only: bool = False,
) -> dict[str, Any]:
    """The LVIS image record; ``counts["contradiction"]`` grows by categories that are present and absent at once.

    ``judged_only``: nothing is known of categories that are neither annotated nor absent; otherwise the annotators
    looked for every category that they have a name for.
    """
    annotated = {category for category, _ in objects.annotated}
    present = set(objects.present).union(*map(inference.present_with, labels.present))
    absent: set[int] = set().union(*map(inference.absent_with, labels.absent))
    counts["contradiction"] += len(absent & (present | annotated))
    return {
        "id": FIRST_IMAGE_ID + image_number,
        "file_name": name,
        "width": size[0],
        "height": size[1],
        "neg_category_ids": sorted(absent - present - annotated),
        "not_exhaustive_category_ids": sorted((present - annotated) | objects.incomplete),
        "box_only": True,
        **({"judged_only": True} if judged_only else {"known_category_ids": inference.known_ids}),
        "ignore_boxes": objects.ignored,
        "group_boxes": objects.groups,
    }
