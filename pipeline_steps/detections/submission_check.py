"""Validating any results file: every kind of violation with counts, examples and consequences.

The consequences that are named are those of the official ``lvis`` package (0.5.x), on which the test server runs.

Memory is one piece of the file, the run lengths of a few megabytes of masks, 8 bytes per result to find repeated ones,
and a number per image.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.common.files import require_file, without_garbage_collection
from pipeline_steps.detections.results_report import EXAMPLES, IouType, ResultsReport
from pipeline_steps.detections.results_stream import DamagedResults, iter_items, open_results
from pipeline_steps.detections.run_lengths import PackedMasks

_BATCH = 4096
_BATCH_BYTES = 1 << 22
_MAX_EDGE = 2**31 - 1
"""Pixels; pycocotools holds edges in 32 bits."""


class _Checker:
    """Checks results one by one; what can be done for many at once is done for a batch."""

    def __init__(self, report: ResultsReport, sizes: Mapping[int, tuple[int, int]], categories: frozenset[int]) -> None:
        self.report, self.sizes, self.categories = report, sizes, categories
        self.per_image: Counter[int] = Counter()
        self.hashes: list[np.ndarray] = []
        self._hashes = np.zeros(_BATCH, np.int64)
        self._masks: list[tuple[int, bytes, int]] = []
        self._mask_bytes = 0
        self._boxes_count = False
        """Whether the evaluator takes areas from boxes: it does if the first result has one."""

    def check(self, index: int, item: Any) -> None:
        """Check the result number ``index``."""
        report = self.report
        # Results that cannot be compared get a value of their own: no two of them count as repeated.
        self._hashes[index % _BATCH] = hash(("result", index))
        if index == 0:
            self._boxes_count = type(item) is dict and "bbox" in item
        if type(item) is not dict:
            report.add("not_object", f"result {index} is {item!r:.40}")
        else:
            self._check_score(index, item)
            image_id, category_id = self._whole(index, item, "image_id"), self._whole(index, item, "category_id")
            size = None
            if image_id is not None:
                self.per_image[image_id] += 1
                size = self.sizes.get(image_id)
                if size is None:
                    report.add("unknown_image", f"result {index}: {image_id!s:.40}")
            if category_id is not None and category_id not in self.categories:
                report.add("unknown_category", f"result {index}: {category_id!s:.40}")
            shape = (
                self._check_mask(index, item, size)
                if report.iou_type == "segm"
                else _check_box(report, index, item, size)
            )
            if shape is not None:
                self._hashes[index % _BATCH] = hash((image_id, category_id, shape))
        if index % _BATCH == _BATCH - 1:
            self.end_batch(_BATCH)

    def _refuse(self, index: int, key: str, item: dict[str, Any], wanted: str) -> None:
        """Report that a key (``outer.inner`` for that of an object in a result) is missing or not what is wanted."""
        name = key.rpartition(".")[2]
        if name not in item:
            self.report.add("missing_key", f"result {index}: {key}")
        else:
            self.report.add("wrong_type", f"result {index}: {key} is {item[name]!r:.40}, not {wanted}")

    def _whole(self, index: int, item: dict[str, Any], key: str) -> int | None:
        value = item.get(key)
        if type(value) is int:
            return value
        self._refuse(index, key, item, "a whole number")
        return None

    def _check_score(self, index: int, item: dict[str, Any]) -> None:
        score = item.get("score")
        if type(score) is float or type(score) is int:
            if score != score:
                self.report.add("nan_score", f"result {index}")
            elif not _finite(score):
                self.report.add("infinite_score", f"result {index}: {score!s:.40}")
        else:
            self._refuse(index, "score", item, "a number")

    def _check_mask(self, index: int, item: dict[str, Any], size: tuple[int, int] | None) -> str | None:
        """The counts, if they can be compared. Runs are checked with the batch."""
        report = self.report
        if "bbox" in item:
            report.add("bbox_beside_mask", f"result {index}")
        if self._boxes_count:
            self._check_box_beside(index, item)
        mask = item.get("segmentation")
        if type(mask) is list:
            report.add("polygon", f"result {index}")
            return None
        if type(mask) is not dict:
            self._refuse(index, "segmentation", item, "an object")
            return None
        counts, own = mask.get("counts"), mask.get("size")
        if "size" in mask and type(counts) is list:
            report.add("uncompressed_rle", f"result {index}")
        elif "size" in mask and type(counts) is not str:
            self._refuse(index, "segmentation.counts", mask, "a string")
        elif (
            type(own) is not list
            or len(own) != 2
            or any(type(edge) is not int or not 1 <= edge <= _MAX_EDGE for edge in own)
        ):
            self._refuse(index, "segmentation.size", mask, "[height, width]")
        else:
            self._await_runs(index, str(counts), item.get("image_id"), (own[0], own[1]), size)
            return str(counts)
        return None

    def _await_runs(
        self, index: int, counts: str, image_id: object, own: tuple[int, int], size: tuple[int, int] | None
    ) -> None:
        if size is not None and own != tuple(size):
            self.report.add("wrong_size", f"result {index}: {list(own)}, image {image_id} has {list(size)}")
        self._masks.append((index, counts.encode("utf-8", "surrogatepass"), own[0] * own[1]))
        self._mask_bytes += len(counts)
        if self._mask_bytes > _BATCH_BYTES:
            self._check_runs()

    def _check_box_beside(self, index: int, item: dict[str, Any]) -> None:
        """Check the box beside a mask, of which the evaluator takes width * height for the area."""
        if "bbox" not in item:
            self.report.add("missing_bbox", f"result {index}")
            return
        box = item["bbox"]
        if type(box) is not list or len(box) != 4 or not all(type(edge) in (int, float) for edge in box):
            self.report.add("wrong_type", f"result {index}: bbox is {box!r:.60}, not [x, y, width, height]")
        elif not all(map(_finite, box)) or not 0 < float(box[2]) * float(box[3]) < math.inf:
            self.report.add("no_area", f"result {index}: bbox {box!r:.60}")

    def end_batch(self, length: int) -> None:
        """Check what waits for the end of a batch of ``length`` results."""
        self.hashes.append(self._hashes[:length].copy())
        self._check_runs()

    def _check_runs(self) -> None:
        """Check the run lengths of the masks that wait."""
        if not self._masks:
            return
        areas, totals = PackedMasks.of([rle for _, rle, _ in self._masks]).measure()
        pixels = np.array([pixels for _, _, pixels in self._masks])
        for row in np.flatnonzero((totals != pixels) | (areas == 0)).tolist():
            index = self._masks[row][0]
            if totals[row] < 0:
                self.report.add("broken_rle", f"result {index}: malformed")
            elif totals[row] != pixels[row]:
                self.report.add("broken_rle", f"result {index}: {totals[row]} pixels instead of {pixels[row]}")
            else:
                self.report.add("empty_mask", f"result {index}")
        self._masks, self._mask_bytes = [], 0

    def finish(self, max_detections: int) -> None:
        """Check what only the whole file shows."""
        report = self.report
        rest = report.results - sum(map(len, self.hashes))
        if rest:
            self.end_batch(rest)
        report.images = sum(image_id in self.sizes for image_id in self.per_image)
        for image_id, count in self.per_image.items():
            if count > max_detections:
                report.add("over_cap", f"image {image_id}: {count}", count - max_detections)
        hashes = np.concatenate(self.hashes) if self.hashes else np.zeros(0, np.int64)
        self.hashes = []
        order = np.argsort(hashes, kind="stable")
        repeats = np.flatnonzero(np.diff(hashes[order]) == 0)
        for position in repeats[:EXAMPLES].tolist():
            report.add("repeated", f"result {order[position + 1]} repeats {order[position]}")
        if len(repeats) > EXAMPLES:
            report.counts["repeated"] = len(repeats)


def _finite(number: float) -> bool:
    """Whether a float holds it; JSON has integers of any length."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _check_box(
    report: ResultsReport, index: int, item: dict[str, Any], size: tuple[int, int] | None
) -> tuple[float, ...] | None:
    """The box, if it can be compared."""
    if "bbox" not in item:
        report.add("missing_key", f"result {index}: bbox")
        return None
    box = item["bbox"]
    numbers = type(box) is list and len(box) == 4 and all(type(edge) in (int, float) for edge in box)
    if not numbers or not all(map(_finite, box)):
        report.add("wrong_type", f"result {index}: bbox is {box!r:.60}, not [x, y, width, height]")
        return None
    x, y, width, height = box
    if width <= 0 or height <= 0:
        report.add("no_area", f"result {index}: {box}")
    elif size is not None and (x < -1 or y < -1 or x + width > size[1] + 1 or y + height > size[0] + 1):
        report.add("outside", f"result {index}: {box}")
    return tuple(box)


def check_results(
    path: str | Path,
    sizes: Mapping[int, tuple[int, int]],
    category_ids: Collection[int],
    iou_type: IouType = "segm",
    max_detections: int = 300,
) -> ResultsReport:
    """Read a whole results file and report what is wrong with it.

    Args:
        path: JSON file, or a zip archive with one JSON file in it.
        sizes: (height, width) of every image of the data set by id.
        iou_type: ``segm`` expects masks, ``bbox`` boxes x, y, width, height.
        max_detections: the cap per image.

    Raises:
        UserError: there is no such file. Everything else is in the report.
    """
    path = require_file(path, "results file")
    report = ResultsReport(path, iou_type, len(sizes))
    checker = _Checker(report, sizes, frozenset(category_ids))
    try:
        with open_results(path) as file, without_garbage_collection():
            for index, item in enumerate(iter_items(file)):
                report.results = index + 1
                checker.check(index, item)
        if not report.results:
            report.add("empty", "[]")
    except DamagedResults as damage:
        report.add(damage.kind, f"the file {damage}")
    checker.finish(max_detections)
    return report
