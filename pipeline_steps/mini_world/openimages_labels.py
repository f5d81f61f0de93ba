"""What OpenImages says about a picture: boxes, and labels that people verified.

A class that is present is either annotated (a verified positive label, and a box on every object), or only verified
(positive label without boxes), or not mentioned. Absent classes are verified negatives now and then, siblings of
present ones and whole parent classes among them. Clusters have one group-of box; objects in frames are depictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline_steps.mini_world.randomness import chance
from pipeline_steps.mini_world.scene import DrawnScene, SceneObject
from pipeline_steps.mini_world.stencil import SUPERSAMPLING
from pipeline_steps.mini_world.vocabulary import MiniVocabulary, OpenImagesClass

ONLY_VERIFIED = 0.05
UNMENTIONED = 0.1
NEGATIVE_SIBLING, NEGATIVE_LEAF, NEGATIVE_PARENT = 0.3, 0.06, 0.2
SMALLEST_GROUP = 5
"""OpenImages draws one group-of box around more than about five objects that touch each other."""
OCCLUDED_BELOW = 0.97

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """One row of the boxes file. ``clicks``: topmost, leftmost, lowest and rightmost point, as parts of the edges."""

    mid: str
    clicks: tuple[Point, Point, Point, Point]
    occluded: bool
    truncated: bool
    group: bool
    depiction: bool

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """XMin, XMax, YMin, YMax."""
        (_, top), (left, _), (_, bottom), (right, _) = self.clicks
        return left, right, top, bottom

    def turned(self, quarters: int) -> Box:
        """The same box after turning the picture clockwise by quarter turns."""
        points = list(self.clicks)
        for _ in range(quarters):
            points = [(1 - y, x) for x, y in points]
        # Turned clockwise, the left becomes the top, the bottom becomes the left, and so on.
        top, left, bottom, right = (points[(k + quarters) % 4] for k in range(4))
        return replace(self, clicks=(top, left, bottom, right))


@dataclass(frozen=True)
class ImageLabels:
    """Boxes, and verified labels as pairs of MID and 0 (absent) or 1 (present)."""

    boxes: list[Box]
    verified: list[tuple[str, int]]


def _extreme_points(item: SceneObject, image_size: int) -> tuple[Point, Point, Point, Point]:
    """Topmost, leftmost, lowest and rightmost visible point, as parts of the image's edge."""
    left, top, right, bottom = item.box()
    mask, edge = item.visible.mask, image_size * SUPERSAMPLING
    x0, y0 = item.visible.x, item.visible.y

    def middle(line: np.ndarray, start: int) -> float:
        where = np.flatnonzero(line)
        return (start + int(where[len(where) // 2]) + 0.5) / edge

    return (
        (middle(mask[top - y0], x0), top / edge),
        (left / edge, middle(mask[:, left - x0], y0)),
        (middle(mask[bottom - 1 - y0], x0), bottom / edge),
        (right / edge, middle(mask[:, right - 1 - x0], y0)),
    )


class Annotator:
    """Labels pictures with the OpenImages classes of a vocabulary."""

    def __init__(self, vocabulary: MiniVocabulary, image_size: int) -> None:
        self.vocabulary, self.image_size = vocabulary, image_size
        self.leaves = {entry.key: entry for entry in vocabulary.openimages if entry.key is not None}
        self.shapes = {entry.shape: entry for entry in vocabulary.openimages if entry.key is None and entry.shape}
        self.parents = {child: entry for entry in vocabulary.openimages for child in entry.children}

    def class_of(self, item: SceneObject) -> OpenImagesClass | None:
        """The most specific class of an object: its leaf, else its shape; None if OpenImages has neither."""
        leaf = None if item.wish.key is None else self.leaves.get(item.wish.key)
        return leaf or self.shapes.get(item.wish.shape)

    def _with_parents(self, entry: OpenImagesClass) -> list[str]:
        mids = [entry.mid]
        while mids[-1] in self.parents:
            mids.append(self.parents[mids[-1]].mid)
        return mids

    def _boxes(self, entry: OpenImagesClass, items: list[SceneObject]) -> list[Box]:
        group = [item for item in items if item.wish.group]
        if len(group) < SMALLEST_GROUP:
            group = []
        boxes = [
            Box(
                entry.mid,
                _extreme_points(item, self.image_size),
                item.visible_share < OCCLUDED_BELOW,
                item.truncated,
                False,
                item.wish.depicted,
            )
            for item in items
            if item not in group
        ]
        if group:
            points = [_extreme_points(item, self.image_size) for item in group]
            extremes = (
                min((p[0] for p in points), key=lambda point: point[1]),
                min((p[1] for p in points), key=lambda point: point[0]),
                max((p[2] for p in points), key=lambda point: point[1]),
                max((p[3] for p in points), key=lambda point: point[0]),
            )
            boxes.append(Box(entry.mid, extremes, True, any(item.truncated for item in group), True, False))
        return boxes

    def _negatives(self, present: set[str], shapes: set[str], rng: np.random.Generator) -> list[str]:
        negatives = []
        for entry in self.vocabulary.openimages:
            if entry.mid in present:
                continue
            if entry.children:
                rate = NEGATIVE_PARENT
            else:
                rate = NEGATIVE_SIBLING if entry.shape in shapes else NEGATIVE_LEAF
            if chance(rng, rate):
                negatives.append(entry.mid)
        return negatives

    def label(self, scene: DrawnScene, rng: np.random.Generator) -> ImageLabels:
        """Boxes and verified labels of one picture."""
        by_class: dict[str, tuple[OpenImagesClass, list[SceneObject]]] = {}
        for item in scene.objects:
            if (entry := self.class_of(item)) is not None:
                by_class.setdefault(entry.mid, (entry, []))[1].append(item)
        boxes: list[Box] = []
        verified: list[tuple[str, int]] = []
        for entry, items in by_class.values():
            fate = rng.random()
            if fate < UNMENTIONED:
                continue
            verified.append((entry.mid, 1))
            if fate >= UNMENTIONED + ONLY_VERIFIED:
                boxes += self._boxes(entry, items)
        present = {mid for entry, _ in by_class.values() for mid in self._with_parents(entry)}
        shapes = {item.wish.shape for item in scene.objects}
        verified += [(mid, 0) for mid in self._negatives(present, shapes, rng)]
        return ImageLabels(boxes, verified)
