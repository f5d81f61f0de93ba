"""A small hand-made LVIS data set that tests write, changed in one place each.

Ids are deliberately not contiguous: categories 1, 2, 4, 7 stand at positions 0, 1, 2, 3.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

CATEGORY_IDS = [1, 2, 4, 7]


def lvis_content(version: str = "v0.5") -> dict[str, Any]:
    """Content of a train file: two images, four categories (r, c, f, r), five annotations."""
    names = {1: ("acorn", "r"), 2: ("ball", "c"), 4: ("cat", "f"), 7: ("dagger", "r")}
    categories = [
        {
            "id": category_id,
            "name": name,
            "synset": f"{name}.n.01",
            "synonyms": [name],
            "def": f"a {name}",
            "frequency": letter,
            "image_count": {"r": 1, "c": 50, "f": 500}[letter],
            "instance_count": 1,
        }
        for category_id, (name, letter) in names.items()
    ]
    images = [
        {
            "id": image_id,
            "width": 64,
            "height": 48,
            "coco_url": f"http://images.cocodataset.org/train2017/{image_id:012d}.jpg",
            "neg_category_ids": negative,
            "not_exhaustive_category_ids": partly,
        }
        for image_id, negative, partly in ((11, [4], []), (12, [1, 2], [4]))
    ]
    if version == "v0.5":
        for image in images:
            image["file_name"] = f"COCO_train2014_{image['id']:012d}.jpg"
    boxes = [(101, 11, 1, [2, 3, 10, 12]), (102, 11, 2, [20, 20, 9, 9]), (103, 12, 4, [0, 0, 64, 48])]
    boxes += [(104, 12, 4, [5, 5, 20, 20]), (105, 12, 7, [30, 5, 8, 30])]
    annotations = [
        {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": box,
            "area": box[2] * box[3],
            "segmentation": [polygon(*box)],
        }
        for annotation_id, image_id, category_id, box in boxes
    ]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def polygon(x: float, y: float, w: float, h: float) -> list[float]:
    """The outline of a box."""
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def coco_content() -> dict[str, Any]:
    """COCO instances of the same images: categories 1 and 3, a crowd, a box without extent, an image of its own."""
    images = [{"id": i, "width": 64, "height": 48, "file_name": f"{i:012d}.jpg"} for i in (11, 12, 13)]
    for image in images:
        image["coco_url"] = f"http://images.cocodataset.org/train2017/{image['file_name']}"
    rows = [
        (1, 11, 1, [1.5, 2.25, 10, 20.5], 0),
        (2, 11, 3, [30, 30, 5, 5], 0),
        (3, 11, 1, [0, 0, 64, 48], 1),
        (4, 12, 3, [3, 3, 0, 7], 0),
        (5, 13, 1, [4, 4, 4, 4], 0),
    ]
    annotations = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": crowd,
            "segmentation": {"counts": [0, 64 * 48], "size": [48, 64]} if crowd else [polygon(*box)],
        }
        for number, image, category, box, crowd in rows
    ]
    categories = [
        {"id": 1, "name": "person", "supercategory": "person"},
        {"id": 3, "name": "car", "supercategory": "x"},
    ]
    return {"images": images, "annotations": annotations, "categories": categories}


def write(path: Path, content: Any) -> Path:
    """Write JSON and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def changed(content: dict[str, Any], *keys: str | int, to: Any = None, drop: bool = False) -> dict[str, Any]:
    """A copy of ``content`` with the value at ``keys`` replaced or dropped."""
    result = copy.deepcopy(content)
    place: Any = result
    for key in keys[:-1]:
        place = place[key]
    if drop:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return result
