"""Random detections for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.detections.table import ImageDetections, TableWriter

HEIGHT, WIDTH = 40, 60
A, B, C = (0, 0, 10, 10), (20, 20, 30, 30), (5, 5, 5, 25)
"""Two boxes apart from each other, and one without area."""


def random_boxes(rng: np.random.Generator, count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """float32[count, 4] with positive area inside the image."""
    corners = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * [width - 1, height - 1]
    corners[:, 1] += 0.5
    return corners.reshape(-1, 4).astype(np.float32)


def random_masks(rng: np.random.Generator, count: int, height: int = HEIGHT, width: int = WIDTH) -> list[bytes]:
    """Compressed encodings of ``count`` masks, none of them empty."""
    masks = rng.random((height, width, count)) < rng.uniform(0.05, 0.9, count)
    masks[0, 0] |= ~masks.any(axis=(0, 1))
    return [rle["counts"] for rle in mask_utils.encode(np.asfortranarray(masks, np.uint8))]


def random_image(
    rng: np.random.Generator, image_id: int, count: int, categories: int = 5, masks: bool = False
) -> ImageDetections:
    """Detections with scores that are all different."""
    scores = rng.permutation(np.linspace(0.001, 0.999, count + 1)[1:]).astype(np.float32)
    return ImageDetections(
        image_id=image_id,
        category_ids=rng.integers(1, categories + 1, count),
        scores=scores,
        rank_scores=scores + np.float32(0.05) * (np.arange(count) % 2),
        boxes=random_boxes(rng, count),
        sources=rng.choice(["basic", "bottleneck", "coco_expert"], count).astype(object),
        rles=random_masks(rng, count) if masks else None,
    )


def image_of(image_id: int, *rows: tuple, source: str = "x") -> ImageDetections:
    """Detections given as (category, score, box)."""
    categories, scores, boxes = zip(*rows)
    return ImageDetections(image_id, categories, scores, scores, np.array(boxes, np.float32), source)


def write_table(path: Path, images: Iterable[ImageDetections], **metadata: object) -> Path:
    """A table with these images."""
    with TableWriter(path, {"recipe": "sample", **metadata}) as writer:
        for image in images:
            writer.write_image(image.image_id, image)
    return path


def assert_same(left: ImageDetections, right: ImageDetections) -> None:
    """Equal in every column, bit by bit."""
    assert left.image_id == right.image_id
    for name in ("category_ids", "scores", "rank_scores", "boxes", "sources"):
        first, second = getattr(left, name), getattr(right, name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second, err_msg=name)
    assert (left.rles or []) == (right.rles or [])
