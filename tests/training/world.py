"""A tiny training world on disk, and recipes for it that train a very small detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe

LVIS_IDS = [1, 2, 3, 4, 6]
"""Ids with a gap and from 1 on: position k is not id k."""
COCO_IDS = [1, 3, 18]
SMALL_DETECTOR = [
    "LVIS.MINI.WIDTH 8",
    "LVIS.MINI.BLOCKS_PER_STAGE [1,1,1,1]",
    "MODEL.FPN.OUT_CHANNELS 16",
    "MODEL.ROI_BOX_HEAD.FC_DIM 32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM 16",
    "MODEL.ROI_MASK_HEAD.NUM_CONV 1",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16",
]


def _draw(generator: np.random.Generator, height: int, width: int, count: int) -> tuple[np.ndarray, list[list[int]]]:
    """A noisy picture with ``count`` bright rectangles, and their x, y, w, h."""
    picture = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
    boxes = []
    for _ in range(count):
        w, h = generator.integers(14, 24, 2).tolist()
        x, y = int(generator.integers(0, width - w)), int(generator.integers(0, height - h))
        picture[y : y + h, x : x + w] = generator.integers(120, 255, 3)
        boxes.append([x, y, w, h])
    return picture, boxes


def _annotation(identity: int, image: int, category: int, box: list[int], polygon: bool = True) -> dict[str, Any]:
    x, y, w, h = box
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    mask = {"segmentation": [outline]} if polygon else {}
    return {"id": identity, "image_id": image, "category_id": category, "bbox": box, "area": w * h, **mask}


def _category(identity: int, letter: str) -> dict[str, Any]:
    return {
        "id": identity,
        "name": f"thing{identity}",
        "synset": f"thing{identity}.n.01",
        "synonyms": [f"thing{identity}"],
        "def": "a rectangle",
        "frequency": letter,
        "image_count": {"r": 5, "c": 50, "f": 500}[letter],
        "instance_count": 7,
    }


def write_world(root: Path, images: int = 12, openimages: int = 6, size: int = 64) -> Path:
    """Write LVIS, COCO and derived OpenImages training files and their JPEGs below ``root``; returns ``root``."""
    generator = np.random.default_rng(7)
    for folder in ("lvis", "coco/train2017", "coco/annotations", "derived", "openimages/train"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    lvis_images, lvis_objects, coco_objects, regions = [], [], [], {}
    for number in range(images):
        image_id = 100 + number
        height, width = (size, size) if number % 3 else (size * 3 // 4, size)
        picture, boxes = _draw(generator, height, width, 3)
        cv2.imwrite(str(root / f"coco/train2017/{image_id:012d}.jpg"), picture)
        url = f"http://images.cocodataset.org/train2017/{image_id:012d}.jpg"
        positives = {LVIS_IDS[number % 5], LVIS_IDS[(number + 2) % 5]}
        negatives = [identity for identity in LVIS_IDS if identity not in positives][:2]
        lvis_images.append(
            {
                "id": image_id,
                "height": height,
                "width": width,
                "coco_url": url,
                "file_name": f"COCO_train2014_{image_id:012d}.jpg",
                "neg_category_ids": negatives,
                "not_exhaustive_category_ids": [],
            }
        )
        for box, category in zip(boxes, [*positives, min(positives)]):
            lvis_objects.append(_annotation(len(lvis_objects) + 1, image_id, category, box))
        for box, category in zip(boxes, COCO_IDS):
            coco_objects.append(_annotation(len(coco_objects) + 1, image_id, category, box) | {"iscrowd": 0})
        x, y, w, h = boxes[0]
        regions[str(image_id)] = [[x, y, x + w, y + h]]
    categories = [_category(identity, letter) for identity, letter in zip(LVIS_IDS, "rcffr")]
    lvis = {"images": lvis_images, "annotations": lvis_objects, "categories": categories}
    coco_categories = [{"id": i, "name": f"coco{i}", "supercategory": "thing"} for i in COCO_IDS]
    names = ("id", "height", "width", "coco_url", "file_name")
    coco_images = [{name: image[name] for name in names} for image in lvis_images]
    coco = {"images": coco_images, "annotations": coco_objects, "categories": coco_categories}
    box_only, box_only_objects = [], []
    for number in range(openimages):
        picture, boxes = _draw(generator, size, size, 3)
        cv2.imwrite(str(root / f"openimages/train/{number:04x}.jpg"), picture)
        box_only.append(
            {
                "id": 10_000_000_000 + number,
                "height": size,
                "width": size,
                "file_name": f"openimages/train/{number:04x}.jpg",
                "neg_category_ids": [3],
                "not_exhaustive_category_ids": [],
                "box_only": True,
                "known_category_ids": [1, 3, 6],
                "group_boxes": [boxes[2]],
            }
        )
        for box in boxes[:2]:
            box_only_objects.append(_annotation(len(box_only_objects) + 1, box_only[-1]["id"], 1, box, polygon=False))
    files = {
        "lvis/lvis_v0.5_train.json": lvis,
        "lvis/lvis_v0.5_val.json": {"images": []},  # COCO training leaves out what LVIS tests on
        "lvis/lvis_v0.5_image_info_test.json": {"images": []},
        "coco/annotations/instances_train2017.json": coco,
        "derived/openimages_lvis.json": {"images": box_only, "annotations": box_only_objects, "categories": categories},
        "derived/coco_boxes_train.json": {"boxes": regions},
    }
    for name, content in files.items():
        (root / name).write_text(json.dumps(content))
    return root


def recipe_values(root: Path, **training: Any) -> dict[str, Any]:
    """Raw values of a recipe that trains ``basic_coco`` on COCO and ``basic`` on LVIS and OpenImages below ``root``."""
    settings = {
        "images_per_batch": 4,
        "max_images_per_gpu": 4,
        "precision": "fp32",
        "channels_last": False,
        "schedule": {"images": 40, "warmup_images": 8},
        "augmentation": {"shorter_edge": [56, 64], "longer_edge": 80},
        "checkpoint_images": 8,
        "log_images": 8,
        "detector_options": SMALL_DETECTOR,
        **training,
    }
    return {"extends": "mini.yaml", "name": "tiny", "datasets_root": str(root), "training": settings}


def make_recipe(root: Path, **training: Any) -> Recipe:
    """The recipe of :func:`recipe_values`."""
    return resolve_recipe(recipe_values(root, **training), CONFIG_FOLDER)


def write_recipe(path: Path, root: Path, **training: Any) -> Path:
    """The same as a file, for command lines."""
    path.write_text(yaml.safe_dump(recipe_values(root, **training)))
    return path
