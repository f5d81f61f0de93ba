"""The OpenImages analogue on disk: the CSV files, the class hierarchy and the category tables.

Columns and their order are those of the real files. Numbers have six decimals, as there.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline_steps.common.atomic import write_json
from pipeline_steps.mini_world.openimages_labels import Box, ImageLabels
from pipeline_steps.mini_world.randomness import chance, stream
from pipeline_steps.mini_world.vocabulary import FRAME, MiniVocabulary, OpenImagesClass

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
TABLE_COLUMNS = ("source_id", "source_name", "lvis_synset", "relation", "verdict", "note")
ROTATED, ROTATION_UNKNOWN = 0.03, 0.05
"""Shares of images that are stored turned, and of images whose rotation is not known (an empty field)."""


def write_csv(path: Path, columns: Sequence[str] | None, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows with or without a header line; lines end with a line feed alone on every platform."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if columns is not None:
            writer.writerow(columns)
        writer.writerows(rows)


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

    def write(self, folder: Path, names: dict[str, str]) -> None:
        """Write all files into ``folder``; ``names``: file names of boxes, labels, classes, hierarchy and images."""
        # As in the real files, rows are sorted by image.
        write_csv(folder / names["boxes"], BOX_COLUMNS, sorted(self.boxes, key=lambda row: row[0]))
        write_csv(folder / names["labels"], LABEL_COLUMNS, sorted(self.labels, key=lambda row: row[0]))
        write_csv(folder / names["images"], IMAGE_COLUMNS, sorted(self.images, key=lambda row: row[0]))
        classes = sorted((entry.mid, entry.name) for entry in self.vocabulary.openimages)
        write_csv(folder / names["classes"], None, classes)
        write_json(folder / names["hierarchy"], hierarchy(self.vocabulary))


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
    write_csv(folder / "coco_to_lvis.csv", TABLE_COLUMNS, coco)
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
    write_csv(folder / "openimages_to_lvis.csv", TABLE_COLUMNS, rows)
    write_csv(folder / "parents.csv", ("category", "parent"), [(c.synset, c.shape) for c in categories])
