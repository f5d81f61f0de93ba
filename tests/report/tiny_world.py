"""A few images on disk with LVIS annotations, and a recipe that points to them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from tests.evaluation.worlds import make_world


def write_tiny_world(folder: Path, images: int = 10, seed: int = 0, **recipe: object) -> Path:
    """Write ``datasets/`` and ``recipe.yaml`` below ``folder``; the recipe's path."""
    truth, _ = make_world(seed, images=images, categories=9, most=1)
    rng = np.random.default_rng(seed)
    pictures = folder / "datasets/coco/val2017"
    pictures.mkdir(parents=True)
    for image in truth["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{image['id']:012d}.jpg"
        pixels = rng.integers(0, 255, (image["height"], image["width"], 3), np.uint8)
        cv2.imwrite(str(pictures / f"{image['id']:012d}.jpg"), cv2.GaussianBlur(pixels, (0, 0), 3))
    truth["annotations"] = [a for a in truth["annotations"] if a["area"] > 0]
    (folder / "datasets/lvis").mkdir()
    (folder / "datasets/lvis/lvis_v0.5_val.json").write_text(json.dumps(truth))
    path = folder / "recipe.yaml"
    settings = {"extends": "mini.yaml", "name": "tiny", "datasets_root": str(folder / "datasets"), **recipe}
    path.write_text(json.dumps(settings))  # JSON is YAML
    return path
