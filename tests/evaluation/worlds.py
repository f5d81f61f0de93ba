"""Random LVIS-format worlds that hold what real ones do and what breaks evaluators.

Ids are neither contiguous nor sorted in the file; images and categories without anything; annotations without area;
verified negatives, not-exhaustive lists; tied and saturated scores; empty masks, zero-area boxes, unknown categories.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from pipeline_steps.detections.table import ImageDetections, TableWriter

World = tuple[dict[str, Any], list[dict[str, Any]]]
UNKNOWN_CATEGORY = 9999


def _polygon(rng: np.random.Generator, height: int, width: int) -> list[float]:
    centre = rng.uniform((0, 0), (width, height))
    radius = rng.uniform(2, (width / 2, height / 2))
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 9)))
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.clip(points, 0, (width, height)).round(2).ravel().tolist()


def _categories(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    ids = rng.choice(np.arange(1, 4 * count), count, replace=False).tolist()
    return [{"id": i, "name": f"thing_{i}", "frequency": "rcf"[k % 3], "image_count": k} for k, i in enumerate(ids)]


def make_truth(rng: np.random.Generator, images: int, categories: int) -> dict[str, Any]:
    """LVIS annotations; the last two categories are never annotated."""
    category_records = _categories(rng, categories)
    category_ids = [category["id"] for category in category_records]
    image_records, annotations = [], []
    for image_id in rng.choice(np.arange(1, 5 * images), images, replace=False).tolist():
        height, width = (int(n) for n in rng.integers(20, 70, 2) * rng.choice([1, 4]))
        present = rng.choice(category_ids[:-2], min(4, categories - 2), replace=False).tolist()
        negative = [c for c in rng.choice(category_ids, 2, replace=False).tolist() if c not in present]
        image_records.append(
            {
                "id": image_id,
                "height": height,
                "width": width,
                "neg_category_ids": negative,
                "not_exhaustive_category_ids": present[: int(rng.integers(0, 3))],
            }
        )
        for _ in range(rng.integers(0, 9)):
            polygons = [_polygon(rng, height, width) for _ in range(rng.integers(1, 3))]
            rle = mask_utils.merge(mask_utils.frPyObjects(polygons, height, width))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice(present)),
                    "segmentation": polygons,
                    "bbox": mask_utils.toBbox(rle).tolist(),
                    "area": float(mask_utils.area(rle)) * float(rng.random() < 0.95),
                }
            )
    return {"images": image_records, "annotations": annotations, "categories": category_records}


def _detection(rng: np.random.Generator, image: dict[str, Any], mine: list[dict[str, Any]], ids: list[int]) -> dict:
    height, width = image["height"], image["width"]
    category_id = int(rng.choice([*ids, UNKNOWN_CATEGORY]))
    if mine and rng.random() < 0.6:
        annotation = mine[rng.integers(len(mine))]
        moved = np.array(annotation["segmentation"][0]) + rng.normal(0, 1.5, len(annotation["segmentation"][0]))
        rle = mask_utils.merge(mask_utils.frPyObjects([moved.tolist()], height, width))
        box = np.array(annotation["bbox"]) + rng.normal(0, 1.5, 4)
        category_id = annotation["category_id"] if rng.random() < 0.8 else category_id
    else:
        mask = np.zeros((height, width), np.uint8, order="F")
        if rng.random() < 0.9:  # else: an empty mask
            y, x = rng.integers(height), rng.integers(width)
            mask[y : y + rng.integers(1, height), x : x + rng.integers(1, width)] = 1
        rle = mask_utils.encode(mask)
        box = np.array([rng.uniform(0, width), rng.uniform(0, height), *rng.choice([0, 1, 30], 2)], float)
    box[2:] = np.maximum(box[2:], 0)
    box = box.astype(np.float32).astype(float)
    score = float(np.float32(rng.choice([0.0, 0.25, 0.5, 1.0, rng.random()])))
    return {
        "image_id": image["id"],
        "category_id": category_id,
        "score": score,
        "bbox": box.tolist(),
        "segmentation": {"size": [height, width], "counts": rle["counts"].decode()},
    }


def make_world(seed: int, images: int = 14, categories: int = 9, most: int = 450) -> World:
    """Ground truth and detections; the first image has no detections, others up to ``most``."""
    rng = np.random.default_rng(seed)
    truth = make_truth(rng, images, categories)
    ids = [category["id"] for category in truth["categories"]]
    results = []
    for image in truth["images"][1:]:
        mine = [annotation for annotation in truth["annotations"] if annotation["image_id"] == image["id"]]
        results += [_detection(rng, image, mine, ids) for _ in range(rng.integers(0, most))]
    rng.shuffle(results)  # detections of an image need not be neighbours in a results file
    return truth, results


def write_world(folder: Path, world: World) -> tuple[Path, Path]:
    """Write annotations and results file; their paths."""
    paths = folder / "truth.json", folder / "results.json"
    for path, content in zip(paths, world):
        path.write_text(json.dumps(content))
    return paths


def write_table(path: Path, results: list[dict[str, Any]], masks: bool = True) -> Path:
    """The same detections as a detections table, whose raw scores are something else than the rank scores."""
    by_image: dict[int, list[dict[str, Any]]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    with TableWriter(path, {"recipe": "tiny", "step": "test"}) as writer:
        for image_id, group in by_image.items():
            boxes = np.array([result["bbox"] for result in group])
            scores = np.array([result["score"] for result in group])
            record = ImageDetections(
                image_id=image_id,
                category_ids=np.array([result["category_id"] for result in group]),
                scores=1 - scores,
                rank_scores=scores,
                boxes=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
                sources="model",
                rles=[result["segmentation"]["counts"].encode() for result in group] if masks else None,
            )
            writer.write_image(image_id, record)
    return path
