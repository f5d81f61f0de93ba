"""Concatenating data sets into :class:`pipeline_steps.data.packed.PackedImages`, leaving out what cannot be learned."""

from __future__ import annotations

import ctypes
import gc
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.data.packed import PackedImages
from pipeline_steps.data.records import Annotation, ImageRecord

log = logging.getLogger(__name__)

FindImage = Callable[[ImageRecord], Path]

_NO_RLE = np.zeros(0, dtype=np.uint8)


class RegionSource(NamedTuple):
    """Regions for images of a data set: boxes x1 y1 x2 y2 by image id, and the weight of a proposal that hits one."""

    boxes: Mapping[int, Sequence[Sequence[float]]]
    weight: float


class _Ragged:
    """Collects values of items one after the other."""

    def __init__(self, dtype: type | np.dtype, width: int = 0) -> None:
        self.chunks: list[np.ndarray] = []
        self.lengths: list[int] = []
        self.dtype, self.width = dtype, width

    def add(self, values: Any) -> None:
        array = np.asarray(values, dtype=self.dtype)
        self.lengths.append(len(array))
        if len(array):
            self.chunks.append(array)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        empty = np.zeros((0, self.width) if self.width else 0, dtype=self.dtype)
        values = np.concatenate(self.chunks) if self.chunks else empty
        return values, np.concatenate([[0], np.cumsum(np.asarray(self.lengths, dtype=np.int64))]).astype(np.int64)


def _encloses_something(points: np.ndarray) -> bool:
    """Whether a polygon float64 x y x y ... has an area (shoelace formula, relative to its first point)."""
    x, y = points[0::2] - points[0], points[1::2] - points[1]
    return bool(x[:-1].dot(y[1:]) != y[:-1].dot(x[1:]))


def _compressed_rle(mask: dict[str, Any], image: ImageRecord, annotation: Annotation, origin: Path) -> bytes:
    if list(mask.get("size", ())) != [image.height, image.width]:
        raise UserError(
            f"{origin}: annotation {annotation.id}: RLE of size {mask.get('size')} in an image of height, width "
            f"{[image.height, image.width]}"
        )
    counts = mask["counts"]
    if isinstance(counts, str):
        return counts.encode()
    from pycocotools import mask as mask_tools

    return mask_tools.frPyObjects({"size": mask["size"], "counts": counts}, image.height, image.width)["counts"]


class _Packer:
    """Adds data sets one after the other; annotations that cannot be learned from are left out and counted."""

    def __init__(self, ignore_boxes: bool, unknown_categories: bool) -> None:
        self.ignore_boxes, self.unknown_categories = ignore_boxes, unknown_categories
        names = ("image_ids", "sizes", "box_only", "exhaustive", "judged_only", "known")
        self.columns: dict[str, list[Any]] = {name: [] for name in names}
        self.known_sets: dict[bytes, int] = {}
        self.ragged = {
            "paths": _Ragged(np.uint8),
            "positives": _Ragged(np.int32),
            "negatives": _Ragged(np.int32),
            "regions": _Ragged(np.float32, 4),
            "points": _Ragged(np.float32),
            "rles": _Ragged(np.uint8),
        }
        self.region_weights: list[float] = []
        self.region_groups: list[bool] = []
        self.objects: list[int] = []
        self.boxes: list[tuple[float, float, float, float]] = []
        self.classes: list[int] = []
        self.polygons: list[int] = []
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def _drop(self, reason: str, annotation: Annotation, origin: Path) -> None:
        self.dropped[reason] += 1
        self.examples.setdefault(reason, f"annotation {annotation.id} of {origin.name}")

    def _mask(self, annotation: Annotation, image: ImageRecord, origin: Path) -> tuple[list[np.ndarray], bytes] | None:
        """Polygons and run lengths, one of them empty; None if the mask has no area."""
        mask = annotation.mask()
        if isinstance(mask, dict):
            return [], _compressed_rle(mask, image, annotation, origin)
        # Two points and fewer enclose nothing, and pycocotools takes four numbers for a box.
        polygons = [np.array(polygon[: len(polygon) // 2 * 2]) for polygon in mask or () if len(polygon) >= 6]
        if not any(_encloses_something(polygon) for polygon in polygons):
            return None
        return polygons, b""

    def _add_object(self, annotation: Annotation, position: int, image: ImageRecord, origin: Path) -> bool:
        x, y, width, height = annotation.bbox
        if width <= 0 or height <= 0:
            self._drop("zero area", annotation, origin)
            return False
        box = (max(x, 0.0), max(y, 0.0), min(x + width, image.width), min(y + height, image.height))
        if box[2] <= box[0] or box[3] <= box[1]:
            self._drop("outside the image", annotation, origin)
            return False
        polygons: list[np.ndarray] = []
        rle = b""
        if not image.box_only:
            mask = self._mask(annotation, image, origin)
            if mask is None:
                self._drop("empty mask", annotation, origin)
                return False
            polygons, rle = mask
        self.boxes.append(box)
        self.classes.append(position)
        self.polygons.append(len(polygons))
        for polygon in polygons:
            self.ragged["points"].add(polygon)
        self.ragged["rles"].add(np.frombuffer(rle, np.uint8) if rle else _NO_RLE)
        return True

    def add(self, dataset: LvisDataset, image_path: FindImage, regions: RegionSource | None) -> None:
        """Add all images of ``dataset``, in file order."""
        position_of = {int(category_id): position for position, category_id in enumerate(dataset.categories.ids)}
        for image in dataset.images:
            annotations = [a for a in dataset.annotations[image.id] if not a.iscrowd]
            kept = sum(self._add_object(a, position_of[a.category_id], image, dataset.path) for a in annotations)
            self.objects.append(kept)
            judged_only = image.judged_only and self.unknown_categories
            known = np.ones(len(position_of), bool)
            if self.unknown_categories and not judged_only:  # what is judged has a column of its own
                known = dataset.known(image)
            self.columns["image_ids"].append(image.id)
            self.columns["sizes"].append((image.height, image.width))
            self.columns["box_only"].append(image.box_only)
            self.columns["exhaustive"].append(dataset.exhaustive)
            self.columns["judged_only"].append(judged_only)
            self.columns["known"].append(self.known_sets.setdefault(known.tobytes(), len(self.known_sets)))
            self.ragged["paths"].add(np.frombuffer(str(image_path(image)).encode(), np.uint8))
            # S_P holds what was judged to be there, whether or not the annotation is of use for a box.
            self.ragged["positives"].add(sorted({position_of[a.category_id] for a in annotations}))
            negatives = () if dataset.exhaustive else image.neg_category_ids
            self.ragged["negatives"].add([position_of[category_id] for category_id in negatives])
            single, groups = (image.ignore_boxes, image.group_boxes) if self.ignore_boxes else ((), ())
            boxes = [(x, y, x + w, y + h) for x, y, w, h in (*single, *groups)]
            weights = [0.0] * len(boxes)
            listed = () if regions is None else regions.boxes.get(image.id, ())
            if regions is not None:
                boxes.extend(listed)
                weights.extend([regions.weight] * len(listed))
            self.ragged["regions"].add(np.asarray(boxes, dtype=np.float32).reshape(-1, 4))
            self.region_weights.extend(weights)
            self.region_groups.extend([False] * len(single) + [True] * len(groups) + [False] * len(listed))

    def finish(self) -> PackedImages:
        arrays: dict[str, np.ndarray] = {}
        for name, ragged in self.ragged.items():
            arrays[name], arrays[f"{name}_offsets"] = ragged.finish()
            ragged.chunks.clear()
        count = len(self.objects)
        for name, lengths in (("objects", self.objects), ("polygons", self.polygons)):
            arrays[f"{name}_offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = [np.frombuffer(key, dtype=bool) for key in self.known_sets]
        return PackedImages(
            image_ids=np.asarray(self.columns["image_ids"], dtype=np.int64),
            sizes=np.asarray(self.columns["sizes"], dtype=np.int32).reshape(count, 2),
            box_only=np.asarray(self.columns["box_only"], dtype=bool),
            exhaustive=np.asarray(self.columns["exhaustive"], dtype=bool),
            judged_only=np.asarray(self.columns["judged_only"], dtype=bool),
            known_set=np.asarray(self.columns["known"], dtype=np.int32),
            known_sets=np.stack(rows),
            region_weights=np.asarray(self.region_weights, dtype=np.float32),
            region_groups=np.asarray(self.region_groups, dtype=bool),
            boxes=np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4),
            classes=np.asarray(self.classes, dtype=np.int32),
            **arrays,
        )


def pack(
    datasets: Sequence[LvisDataset],
    image_path: FindImage,
    regions: Sequence[RegionSource | None] | None = None,
    *,
    ignore_boxes: bool = True,
    unknown_categories: bool = True,
) -> PackedImages:
    """Concatenate data sets into one :class:`PackedImages`.

    Annotations without area, outside their image, or with an empty mask are left out; how many, and one example of
    each, goes to the log. Crowds are left out.

    Args:
        datasets: data sets with the same categories.
        image_path: finds the file of an image record.
        regions: for each data set its regions, or None.
        ignore_boxes: make the images' ``ignore_boxes`` and ``group_boxes`` regions of weight 0; if not, they are
            background.
        unknown_categories: heed the images' ``known_category_ids`` and ``judged_only``; if not, every category counts
            as known.

    Raises:
        UserError: the data sets have different categories; no image at all; an RLE of another size than its image.
    """
    first = datasets[0]
    for other in datasets[1:]:
        if other.category_ids != first.category_ids:
            differing = sorted(set(first.category_ids) ^ set(other.category_ids))
            raise UserError(
                f"{first.path} and {other.path} have different categories ({listing(differing)}): they cannot be "
                "trained on together; make the derived file again from this LVIS release"
            )
    packer = _Packer(ignore_boxes, unknown_categories)
    for index, dataset in enumerate(datasets):
        packer.add(dataset, image_path, regions[index] if regions else None)
    packed = packer.finish()
    if packer.dropped:
        parts = [f"{count} {reason} (e.g. {packer.examples[reason]})" for reason, count in packer.dropped.items()]
        log.warning("left out %d annotations: %s", packer.dropped.total(), "; ".join(parts))
    return packed


def return_free_memory() -> None:
    """Give memory that is free inside this process back to the operating system, where the C library can do so.

    Reading annotations leaves hundreds of megabytes of holes; loader processes would inherit them.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        log.debug("no malloc_trim")
