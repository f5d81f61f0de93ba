"""The OpenImages analogue: boxes and verified labels of pictures, the CSV files, the class hierarchy, category tables.

A class that is present is either annotated (a verified positive label, and a box on every object), or only verified
(positive label without boxes), or not mentioned. Absent classes are verified negatives now and then, siblings of
present ones and whole parent classes among them. Clusters have one group-of box; objects in frames are depictions.
Columns and their order are those of the real files. Numbers have six decimals, as there.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.atomic import write_json, write_text
from pipeline_steps.common.files import csv_text
from pipeline_steps.data.category_tables import COLUMNS
from pipeline_steps.mini_world.randomness import chance, stream
from pipeline_steps.mini_world.scene import DrawnScene, SceneObject
from pipeline_steps.mini_world.stencil import SUPERSAMPLING
from pipeline_steps.mini_world.vocabulary import FRAME, MiniVocabulary, OpenImagesClass
from pipeline_steps.run.data_files import DatasetPaths

ROOT_MID = "/m/0bl9f"
"""``Entity``, the root of the hierarchy; it is no class itself."""

BOX_COLUMNS = (
    "ImageID", "Source", "LabelName", "Confidence", "XMin", "XMax", "YMin", "YMax",
    "IsOccluded", "IsTruncated", "IsGroupOf", "IsDepiction", "IsInside",
    "XClick1X", "XClick2X", "XClick3X", "XClick4X", "XClick1Y", "XClick2Y", "XClick3Y", "XClick4Y",
)  # fmt: skip
LABEL_COLUMNS = ("ImageID", "Source", "LabelName", "Confidence")
IMAGE_COLUMNS = (
    "ImageID", "Subset", "OriginalURL", "OriginalLandingURL", "License", "AuthorProfileURL", "Author", "Title",
    "OriginalSize", "OriginalMD5", "Thumbnail300KURL", "Rotation",
)  # fmt: skip
ROTATED, ROTATION_UNKNOWN = 0.03, 0.05
"""Shares of images that are stored turned, and of images whose rotation is not known (an empty field)."""

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
            Box(entry.mid, points, item.visible_share < OCCLUDED_BELOW, item.truncated, False, item.wish.depicted)
            for item in items
            if item not in group
            for points in [_extreme_points(item, self.image_size)]
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
            leaf = NEGATIVE_SIBLING if entry.shape in shapes else NEGATIVE_LEAF
            if chance(rng, NEGATIVE_PARENT if entry.children else leaf):
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


def image_name(seed: int, index: int) -> str:
    """ImageID of the image number ``index``: sixteen hexadecimal digits."""
    return f"{int(stream(seed, 'openimages id', index).integers(0, 1 << 63)):016x}"


def draw_rotation(seed: int, index: int) -> int | None:
    """Degrees by which the stored image must be turned counter-clockwise to stand upright; None: not known."""
    rng = stream(seed, "rotation", index)
    if chance(rng, ROTATED):
        return int(rng.integers(1, 4)) * 90
    return None if chance(rng, ROTATION_UNKNOWN) else 0


def box_row(image: str, box: Box) -> list[Any]:
    """A line of the boxes file."""
    flags = [int(flag) for flag in (box.occluded, box.truncated, box.group, box.depiction)]
    numbers = [f"{value:.6f}" for value in box.extent]
    clicks = [f"{point[axis]:.6f}" for axis in (0, 1) for point in box.clicks]
    return [image, "xclick", box.mid, 1, *numbers, *flags, 0, *clicks]


def hierarchy(vocabulary: MiniVocabulary) -> dict[str, Any]:
    """The class tree in the structure of ``bbox_labels_600_hierarchy.json``.

    A house may have picture frames as parts: parts are no kinds, and what is said of the whole does not hold for them.
    """
    by_mid = {entry.mid: entry for entry in vocabulary.openimages}
    frame = next(entry for entry in vocabulary.openimages if entry.shape == "frame")

    def node(entry: OpenImagesClass) -> dict[str, Any]:
        result: dict[str, Any] = {"LabelName": entry.mid}
        if entry.children:
            result["Subcategory"] = [node(by_mid[mid]) for mid in entry.children]
        if entry.shape == "house":
            result["Part"] = [{"LabelName": frame.mid}]
        return result

    below = {mid for entry in vocabulary.openimages for mid in entry.children}
    top = [node(entry) for entry in vocabulary.openimages if entry.mid not in below]
    return {"LabelName": ROOT_MID, "Subcategory": top}


class OpenImagesFiles:
    """Collects the OpenImages analogue and writes its files."""

    def __init__(self, vocabulary: MiniVocabulary) -> None:
        self.vocabulary = vocabulary
        self.boxes: list[list[Any]] = []
        self.labels: list[list[Any]] = []
        self.images: list[list[Any]] = []

    def add(self, name: str, labels: ImageLabels, jpeg: bytes, rotation: int | None) -> None:
        """Add an image and its labels; ``jpeg`` is the file's content."""
        self.boxes += [box_row(name, box) for box in labels.boxes]
        self.labels += [[name, "verification", mid, confidence] for mid, confidence in labels.verified]
        digest = base64.b64encode(hashlib.md5(jpeg, usedforsecurity=False).digest()).decode()
        url = f"https://farm1.staticflickr.com/mini/{name}"
        self.images.append(
            [
                name, "train", f"{url}_o.jpg", f"https://www.flickr.com/photos/mini/{name}",
                "https://creativecommons.org/licenses/by/2.0/", "https://www.flickr.com/people/mini/", "mini world",
                "shapes, still life", len(jpeg), digest, f"{url}_z.jpg", "" if rotation is None else f"{rotation:.1f}",
            ]
        )  # fmt: skip

    def write(self, folder: Path, paths: DatasetPaths) -> None:
        """Write all files into ``folder``, with the names that they have in ``paths``."""
        # As in the real files, rows are sorted by image.
        for path, columns, rows in (
            (paths.openimages_boxes, BOX_COLUMNS, self.boxes),
            (paths.openimages_labels, LABEL_COLUMNS, self.labels),
            (paths.openimages_rotation, IMAGE_COLUMNS, self.images),
        ):
            write_text(folder / path.name, csv_text(columns, sorted(rows, key=lambda row: str(row[0]))))
        first, *others = sorted((entry.mid, entry.name) for entry in self.vocabulary.openimages)  # without a header
        write_text(folder / paths.openimages_classes.name, csv_text(first, others))
        write_json(folder / paths.openimages_hierarchy.name, hierarchy(self.vocabulary))


def write_category_tables(vocabulary: MiniVocabulary, folder: Path) -> None:
    """Write coco_to_lvis.csv, openimages_to_lvis.csv and parents.csv into ``folder``.

    Shapes are the parents of the LVIS categories. As OpenImages classes they are broader than every LVIS
    category of theirs and not used; classes that match nothing have no row.
    """
    categories = vocabulary.categories
    coco = [
        (entry.coco_id, entry.name, categories[entry.key].synset, "equal", "use", "same shape and hue")
        for entry in vocabulary.coco
        if entry.key is not None
    ]
    write_text(folder / "coco_to_lvis.csv", csv_text(COLUMNS, coco))
    rows = []
    for entry in vocabulary.openimages:
        if entry.key is not None:
            rows.append((entry.mid, entry.name, categories[entry.key].synset, "equal", "use", "same shape and hue"))
        elif entry.shape is not None and entry.name.lower() != FRAME:
            rows += [
                (entry.mid, entry.name, category.synset, "broader", "no", "the shape in any hue")
                for category in categories
                if category.shape == entry.shape
            ]
    write_text(folder / "openimages_to_lvis.csv", csv_text(COLUMNS, rows))
    write_text(folder / "parents.csv", csv_text(("category", "parent"), [(c.synset, c.shape) for c in categories]))
