"""Results files with one violation each, for two images and two categories."""

from __future__ import annotations

import math

import numpy as np
from pycocotools import mask as mask_utils

HEIGHT, WIDTH = 20, 30
SIZES = {1: (HEIGHT, WIDTH), 2: (HEIGHT, WIDTH)}


def rectangle(left: int, top: int, right: int, bottom: int, height: int = HEIGHT, width: int = WIDTH) -> dict:
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    rle = mask_utils.encode(mask)
    return {"size": [height, width], "counts": rle["counts"].decode()}


def result(image_id=1, category_id=1, score=0.9, segmentation=None, **more) -> dict:
    shape = rectangle(2, 3, 12, 13) if segmentation is None else segmentation
    return {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": shape, **more}


def other(**values) -> dict:
    """A result that repeats none of ``GOOD``."""
    return result(**{"segmentation": rectangle(0, 0, 5, 4), **values})


def without(item: dict, key: str) -> dict:
    return {name: value for name, value in item.items() if name != key}


GOOD = [result(), result(2, 2, 0.8)]

VIOLATIONS = {
    "not_list": {"annotations": GOOD},
    "empty": [],
    "not_object": [*GOOD, 5],
    "missing_key": [*GOOD, without(other(), "score")],
    "missing_bbox": [result(bbox=[2, 3, 10, 10]), result(2, 2, 0.8)],
    "wrong_type": [*GOOD, other(score="0.5")],
    "unknown_image": [*GOOD, other(image_id=99)],
    "unknown_category": [*GOOD, other(category_id=99)],
    "nan_score": [*GOOD, other(score=math.nan)],
    "infinite_score": [*GOOD, other(score=math.inf)],
    "polygon": [*GOOD, other(segmentation=[[0, 0, 5, 0, 5, 5]])],
    "uncompressed_rle": [*GOOD, other(segmentation={"size": [HEIGHT, WIDTH], "counts": [10, 5, HEIGHT * WIDTH - 15]})],
    "wrong_size": [*GOOD, other(segmentation=rectangle(2, 3, 12, 13, WIDTH, HEIGHT))],
    "broken_rle": [*GOOD, other(segmentation={"size": [HEIGHT, WIDTH], "counts": "04"})],
    "empty_mask": [*GOOD, other(segmentation=rectangle(0, 0, 0, 0))],
    "over_cap": [result(score=0.001 * i, segmentation=rectangle(0, 0, 1 + i % 30, 1 + i // 30)) for i in range(301)],
}
