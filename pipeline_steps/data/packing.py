"""Concatenating data sets into :class:`pipeline_steps.data.packed.PackedImages`, leaving out what cannot be learned."""

from __future__ import annotations

import copy
import ctypes
import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.findings import Findings
from pipeline_steps.data.checks.geometry import clipped_corners, codes_of
from pipeline_steps.data.checks.masks import add_findings, chunks
from pipeline_steps.data.lvis import LvisDataset
from pipeline_steps.data.packed import PackedImages
from pipeline_steps.data.records import Annotation, ImageRecord

log = logging.getLogger(__name__)

FindImage = Callable[[ImageRecord], Path]


class RegionSource(NamedTuple):
    """Regions for images of a data set: boxes x1 y1 x2 y2 by image id, and the weight of a proposal that hits one."""

    boxes: Mapping[int, Sequence[tuple[float, float, float, float]]]
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

    def extend(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """Many items at once: all their values, and the number of values of each."""
        self.lengths.extend(lengths.tolist())
        self.chunks.append(np.asarray(values, dtype=self.dtype))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        empty = np.zeros((0, self.width) if self.width else 0, dtype=self.dtype)
        values = np.concatenate(self.chunks) if self.chunks else empty
        return values, np.concatenate([[0], np.cumsum(np.asarray(self.lengths, dtype=np.int64))]).astype(np.int64)


_COLUMNS: dict[str, type] = {
    "image_ids": np.int64, "sizes": np.int32, "box_only": np.bool_, "exhaustive": np.bool_, "judged_only": np.bool_,
    "known_set": np.int32, "region_weights": np.float32, "region_groups": np.bool_,
}  # fmt: skip
"""Arrays with a value for each image or region."""


def _joined(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


class _Packer:
    """Adds data sets one after the other; annotations that cannot be learned from are left out and counted."""

    def __init__(self, ignore_boxes: bool, unknown_categories: bool) -> None:
        self.ignore_boxes, self.unknown_categories = ignore_boxes, unknown_categories
        self.columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self.known_sets: dict[bytes, int] = {}
        self.ragged = {
            "paths": _Ragged(np.uint8),
            "positives": _Ragged(np.int32),
            "negatives": _Ragged(np.int32),
            "regions": _Ragged(np.float32, 4),
            "points": _Ragged(np.float32),
            "rles": _Ragged(np.uint8),
        }
        self.objects: list[int] = []
        self.boxes: list[np.ndarray] = []
        self.classes: list[np.ndarray] = []
        self.polygons: list[np.ndarray] = []

    def _add_objects(
        self, annotations: Sequence[Annotation], images: Sequence[ImageRecord], dataset: LvisDataset, findings: Findings
    ) -> np.ndarray:
        """Add the objects that can be learned from; bool[n], which ones. ``findings`` counts the masks that cannot."""
        usable = np.array([annotation.id not in dataset.unusable for annotation in annotations], dtype=bool)
        left_out = codes_of(catalogue.MASKS)
        for part, masks in chunks(annotations, images):
            add_findings(np.where(usable[part], masks.codes, 0), annotations[part], catalogue.MASKS, findings)
            usable[part] &= ~left_out[masks.codes]
            kept = usable[part]
            kept_polygons = np.repeat(kept, masks.polygons)
            self.polygons.append(masks.polygons[kept])
            self.ragged["points"].extend(
                masks.points[np.repeat(kept_polygons, masks.lengths)], masks.lengths[kept_polygons]
            )
            rles = [rle for rle, keep in zip(masks.rles, kept.tolist()) if keep]
            lengths = np.fromiter(map(len, rles), np.int64, len(rles))
            self.ragged["rles"].extend(np.frombuffer(b"".join(rles), np.uint8), lengths)
        boxes = np.array([annotation.bbox for annotation in annotations], np.float64).reshape(-1, 4)
        sizes = np.array([(image.height, image.width) for image in images], np.float64).reshape(-1, 2)
        self.boxes.append(clipped_corners(boxes, sizes)[usable].astype(np.float32))
        positions = dataset.categories.positions(annotation.category_id for annotation in annotations)
        self.classes.append(positions[usable].astype(np.int32))
        return usable

    def add(
        self, dataset: LvisDataset, image_path: FindImage, regions: RegionSource | None, max_unusable: float
    ) -> None:
        """Add all images of ``dataset``, in file order."""
        singles = [[a for a in dataset.annotations[image.id] if not a.iscrowd] for image in dataset.images]
        owners = np.repeat(np.arange(len(singles)), [len(group) for group in singles])
        annotations = [annotation for group in singles for annotation in group]
        findings = copy.deepcopy(dataset.findings)
        usable = self._add_objects(annotations, [dataset.images[k] for k in owners.tolist()], dataset, findings)
        findings.leave_out(dataset.path, len(annotations), max_unusable)
        self.objects.extend(np.bincount(owners[usable], minlength=len(singles)).tolist())
        position_of = {int(category_id): position for position, category_id in enumerate(dataset.categories.ids)}
        columns = self.columns
        for image, group in zip(dataset.images, singles):
            judged_only = image.judged_only and self.unknown_categories
            known = np.ones(len(position_of), bool)
            if self.unknown_categories and not judged_only:  # what is judged has a column of its own
                known = dataset.known(image)
            columns["image_ids"].append(image.id)
            columns["sizes"].append((image.height, image.width))
            columns["box_only"].append(image.box_only)
            columns["exhaustive"].append(dataset.exhaustive)
            columns["judged_only"].append(judged_only)
            columns["known_set"].append(self.known_sets.setdefault(known.tobytes(), len(self.known_sets)))
            self.ragged["paths"].add(np.frombuffer(str(image_path(image)).encode(), np.uint8))
            # S_P holds what was judged to be there, whether or not the annotation is of use for a box.
            self.ragged["positives"].add(sorted({position_of[a.category_id] for a in group}))
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
            columns["region_weights"].extend(weights)
            columns["region_groups"].extend([False] * len(single) + [True] * len(groups) + [False] * len(listed))

    def finish(self) -> PackedImages:
        arrays: dict[str, np.ndarray] = {k: np.asarray(values, _COLUMNS[k]) for k, values in self.columns.items()}
        arrays["sizes"] = arrays["sizes"].reshape(-1, 2)
        for name, ragged in self.ragged.items():
            arrays[name], arrays[f"{name}_offsets"] = ragged.finish()
            ragged.chunks.clear()
        for name, lengths in (("objects", self.objects), ("polygons", _joined(self.polygons, np.int64))):
            arrays[f"{name}_offsets"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = [np.frombuffer(key, dtype=bool) for key in self.known_sets]
        return PackedImages(
            known_sets=np.stack(rows),
            boxes=_joined(self.boxes, np.float32).reshape(-1, 4),
            classes=_joined(self.classes, np.int32),
            **arrays,
        )


def pack(
    datasets: Sequence[LvisDataset],
    image_path: FindImage,
    regions: Sequence[RegionSource | None] | None = None,
    *,
    ignore_boxes: bool = True,
    unknown_categories: bool = True,
    max_unusable: float = 1.0,
) -> PackedImages:
    """Concatenate data sets into one :class:`PackedImages`.

    Annotations that cannot be learned from (``checks.catalogue``) are left out; how many, and examples with their
    images, go to the log. Crowds are left out.

    Args:
        datasets: data sets with the same categories.
        image_path: finds the file of an image record.
        regions: for each data set its regions, or None.
        ignore_boxes: make the images' ``ignore_boxes`` and ``group_boxes`` regions of weight 0; if not, they are
            background.
        unknown_categories: heed the images' ``known_category_ids`` and ``judged_only``; if not, every category counts
            as known.
        max_unusable: share of a file's annotations that may be left out (``data.max_unusable_annotations``).

    Raises:
        UserError: the data sets have different categories; more annotations than allowed cannot be used.
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
        packer.add(dataset, image_path, regions[index] if regions else None, max_unusable)
    return packer.finish()


def return_free_memory() -> None:
    """Give memory that is free inside this process back to the operating system, where the C library can do so.

    Reading annotations leaves hundreds of megabytes of holes; loader processes would inherit them.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library than glibc
        log.debug("no malloc_trim")
