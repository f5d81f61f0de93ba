"""OpenImages files made by hand or at random, in the published format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

BOX_HEADER = (
    "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
)

CLASSES = {
    "/m/animal": "Animal",
    "/m/bear": "Bear",
    "/m/polar": "Polar bear",
    "/m/brown": "Brown bear",
    "/m/car": "Car",
    "/m/van": "Van",
    "/m/tree": "Tree",
}
HIERARCHY = {
    "LabelName": "/m/root",
    "Subcategory": [
        {
            "LabelName": "/m/animal",
            "Subcategory": [
                {"LabelName": "/m/bear", "Subcategory": [{"LabelName": "/m/polar"}, {"LabelName": "/m/brown"}]}
            ],
        },
        {
            "LabelName": "/m/car",
            "Subcategory": [{"LabelName": "/m/van"}],
            "Part": [{"LabelName": "/m/tree"}],
        },
        {"LabelName": "/m/tree"},
    ],
}


def image_id(number: int) -> str:
    """An ImageID."""
    return f"{number:016x}"


def box_line(image: str, mid: str, corners: tuple[float, float, float, float], flags: str = "000") -> str:
    """A line of the boxes file; ``corners`` x1 x2 y1 y2 as in the file; ``flags`` group-of, depiction, inside."""
    return ",".join([image, "xclick", mid, "1", *map(str, corners), "0", "0", *flags])


def write_boxes(path: Path, lines: list[str], header: str = BOX_HEADER) -> Path:
    """Write a boxes file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[list[object]]) -> Path:
    """Write rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path


def write_vocabulary(folder: Path) -> None:
    """Write class descriptions and hierarchy."""
    write_csv(folder / "class-descriptions-boxable.csv", [[mid, name] for mid, name in CLASSES.items()])
    (folder / "bbox_labels_600_hierarchy.json").write_text(json.dumps(HIERARCHY), encoding="utf-8")


def write_image(folder: Path, name: str, width: int, height: int, orientation: int | None = None) -> Path:
    """Write a JPEG of one colour."""
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.full((height, width, 3), 90, np.uint8))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = folder / f"{name}.jpg"
    image.save(path, exif=exif)
    return path
