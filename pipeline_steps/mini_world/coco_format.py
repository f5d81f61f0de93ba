"""The mini world in the format of COCO instances: the same images as LVIS, few categories, every object annotated.

A file names the images of its folder: with LVIS v1, train holds most images of LVIS val, as in COCO 2017.
COCO knows objects that the federated LVIS labels leave out, and objects that LVIS has no category for. Clusters are one
annotation with ``iscrowd`` 1 and a run-length mask, as in COCO; everything else has polygons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline_steps.mini_world.lvis_format import base_record, file_head
from pipeline_steps.mini_world.polygons import area_of, box_of, polygons_of
from pipeline_steps.mini_world.scene import DrawnScene, SceneObject
from pipeline_steps.mini_world.vocabulary import MiniVocabulary

SMALLEST_CROWD = 4
"""Clusters of fewer visible objects are annotated one by one."""


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Uncompressed COCO run-length code of a mask bool ``[H, W]``: column by column, the first run counts zeros."""
    flat = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [len(flat)]])).tolist()
    return {"counts": ([0, *counts] if flat[0] else counts), "size": list(mask.shape)}


class CocoSplit:
    """Collects one COCO split."""

    def __init__(self, split: str, image_size: int, vocabulary: MiniVocabulary, lvis_version: str) -> None:
        self.split, self.image_size, self.vocabulary, self.lvis_version = split, image_size, vocabulary, lvis_version
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self._by_key = {category.key: category.coco_id for category in vocabulary.coco if category.key is not None}
        self._by_shape = {category.shape: category.coco_id for category in vocabulary.coco if category.key is None}

    def category_of(self, item: SceneObject) -> int | None:
        """COCO category id of an object; None if COCO has none for it."""
        if item.wish.key is None:
            return self._by_shape.get(item.wish.shape)
        return self._by_key.get(item.wish.key)

    def _annotate(
        self, image: int, category: int, crowd: int, segmentation: Any, box: list[float], area: float
    ) -> None:
        self.annotations.append(
            {
                # As in COCO, ids are unique but neither start at 1 nor follow each other.
                "id": 900_100 + 13 * len(self.annotations),
                "image_id": image,
                "category_id": category,
                "segmentation": segmentation,
                "bbox": box,
                "area": area,
                "iscrowd": crowd,
            }
        )

    def _annotate_crowd(self, image: int, category: int, members: Sequence[SceneObject]) -> None:
        mask = np.logical_or.reduce([member.pixel_mask(self.image_size) for member in members])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        self._annotate(image, category, 1, run_lengths(mask), [float(value) for value in box], float(mask.sum()))

    def add(self, split: str, index: int, scene: DrawnScene) -> None:
        """Add image number ``index`` of an LVIS split with all objects that COCO has a category for."""
        record = base_record(split, index, self.image_size, self.lvis_version)
        record["file_name"] = f"{record['id']:012d}.jpg"
        self.images.append(record)
        cluster = [item for item in scene.objects if item.wish.group]
        crowd = cluster if len(cluster) >= SMALLEST_CROWD else []
        for item in scene.objects:
            category = self.category_of(item)
            if category is None or (crowd and item.wish.group):
                continue
            polygons = polygons_of(item.visible)
            area = area_of(polygons, self.image_size, self.image_size)
            self._annotate(record["id"], category, 0, polygons, box_of(polygons), area)
        if crowd and (category := self.category_of(crowd[0])) is not None:
            self._annotate_crowd(record["id"], category, crowd)

    def content(self) -> dict[str, Any]:
        """The file's content."""
        categories = [
            {"supercategory": category.supercategory, "id": category.coco_id, "name": category.name}
            for category in self.vocabulary.coco
        ]
        head = file_head(f"COCO 2017 {self.split} instances, mini world")
        return {**head, "images": self.images, "annotations": self.annotations, "categories": categories}
