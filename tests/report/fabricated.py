"""Detections made up from ground truth, for looking at pages and pictures without a trained model.

Frequent objects are mostly found, rare ones often missed, low in score or taken for a similar category.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.detections.table import ImageDetections, TableWriter

FOUND = {"r": 0.5, "c": 0.75, "f": 0.92}
"""Share of the objects that get a detection of their category."""
SCORE = {"r": 0.3, "c": 0.55, "f": 0.75}
"""Mean score of these."""


def _outline(rng: np.random.Generator, polygons: list[list[float]], size: tuple[int, int], blur: float) -> dict:
    moved = [(np.array(polygon) + rng.normal(0, blur, 2).repeat(len(polygon) // 2)).tolist() for polygon in polygons]
    return mask_utils.merge(mask_utils.frPyObjects(moved, *size))


def fabricate(truth_path: Path, output: Path, recipe: str = "mini", seed: int = 0, masks: bool = True) -> Path:
    """Write a detections table for all images of an LVIS file with polygons."""
    rng = np.random.default_rng(seed)
    truth = json.loads(truth_path.read_text())
    categories = {category["id"]: category for category in truth["categories"]}
    ids = list(categories)
    by_image: dict[int, list[dict]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    with TableWriter(output, {"recipe": recipe, "step": "fabricate"}) as writer:
        for image in sorted(truth["images"], key=lambda image: image["id"]):
            size = image["height"], image["width"]
            found: list[tuple[int, float, dict]] = []
            for annotation in by_image[image["id"]]:
                letter = categories[annotation["category_id"]]["frequency"]
                for category_id, chance, mean in (
                    (annotation["category_id"], FOUND[letter], SCORE[letter]),
                    (ids[(ids.index(annotation["category_id"]) + 1) % len(ids)], 0.4, 0.3),
                ):
                    if rng.random() < chance:
                        score = float(np.clip(rng.normal(mean, 0.2), 0.02, 0.99))
                        found.append((category_id, score, _outline(rng, annotation["segmentation"], size, 1.0)))
            for _ in range(6):
                category_id = int(rng.choice(ids))
                x, y = rng.uniform(0, size[1] * 0.8), rng.uniform(0, size[0] * 0.8)
                square = [[x, y, x + 14, y, x + 14, y + 14, x, y + 14]]
                found.append((category_id, float(rng.beta(1, 6)), _outline(rng, square, size, 0.0)))
            boxes = np.array([mask_utils.toBbox(rle) for _, _, rle in found])
            boxes[:, 2:] += boxes[:, :2]
            scores = np.array([score for _, score, _ in found])
            letters = [categories[category_id]["frequency"] for category_id, _, _ in found]
            record = ImageDetections(
                image_id=image["id"],
                category_ids=np.array([category_id for category_id, _, _ in found]),
                scores=scores,
                rank_scores=scores + np.array([{"r": 0.1, "c": 0.05, "f": 0.0}[letter] for letter in letters]),
                boxes=boxes,
                sources=np.where(rng.random(len(found)) < 0.6, "basic", "bottleneck"),
                rles=[rle["counts"] for _, _, rle in found] if masks else None,
            )
            writer.write_image(image["id"], record)
    return output
