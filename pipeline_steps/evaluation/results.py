"""Detections to evaluate, as columns: from a detections table (Parquet) or from a results file (JSON).

The score that counts is the written one: ``rank_score`` of a table, ``score`` of a results file.

Symbols: n detections in file order. Boxes are x, y, width, height as in results files. RLE = COCO run-length encoding.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import require_file
from pipeline_steps.detections.run_lengths import PackedMasks
from pipeline_steps.detections.table import read_metadata, read_table
from pipeline_steps.evaluation.results_file import read_results_file


@dataclass(frozen=True)
class Results:
    """Detections in file order."""

    path: Path  # the file
    image_ids: np.ndarray  # int64[n]
    category_ids: np.ndarray  # int64[n]
    scores: np.ndarray  # float64[n], written scores
    boxes: np.ndarray | None  # float64[n, 4], x, y, width, height; None if masks are evaluated
    packed: Callable[[np.ndarray], PackedMasks] | None
    """Reads the masks of the given rows (ascending positions); None if boxes are evaluated."""
    mask_sizes: np.ndarray | None = None
    """int64[n, 2], height and width that the masks claim; None in tables, where the image's size holds."""
    model_scores: np.ndarray | None = None
    """float64[n], the models' own scores; None in results files, which have one score."""
    recipe: str | None = None  # recipe that the detections come from, where the file tells
    metadata: dict[str, object] = field(default_factory=dict)  # what else the file tells about itself

    def __len__(self) -> int:
        return len(self.scores)

    def mapped(self, category_ids: Mapping[int, int]) -> "Results":
        """Detections of the categories that ``category_ids`` has, in the categories that it names; the order stays."""
        rows = np.flatnonzero(np.isin(self.category_ids, list(category_ids)))
        columns = {name: getattr(self, name) for name in ("image_ids", "scores", "boxes", "mask_sizes", "model_scores")}
        columns = {name: None if column is None else column[rows] for name, column in columns.items()}
        named = np.array([category_ids[own] for own in self.category_ids[rows].tolist()], np.int64)
        packed = self.packed
        masks = None if packed is None else lambda wanted: packed(rows[wanted])
        return replace(self, **columns, category_ids=named, packed=masks)

    def sound_masks(self, rows: np.ndarray, sizes: np.ndarray) -> tuple[PackedMasks, np.ndarray]:
        """The masks of some detections, checked before anything decodes them.

        Args:
            rows: int64[m], ascending positions.
            sizes: int64[m, 2], height and width of the image of each.

        Returns:
            the masks; areas int64[m] in pixels.

        Raises:
            UserError: a mask whose stated size or run lengths are not those of its image, or that is no mask at all.
        """
        assert self.packed is not None
        if self.mask_sizes is not None:
            self._refuse(rows, (self.mask_sizes[rows] != sizes).any(axis=1), "size is not that of their image", sizes)
        masks = self.packed(rows)
        areas, totals = masks.measure()
        self._refuse(rows, totals < 0, "run lengths are damaged", sizes)
        self._refuse(rows, totals != sizes.prod(axis=1), "run lengths do not add up to their image", sizes)
        return masks, areas

    def _refuse(self, rows: np.ndarray, wrong: np.ndarray, what: str, sizes: np.ndarray) -> None:
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise UserError(
                f"{self.path}: {wrong.sum()} masks whose {what}, first in row {rows[first]}, image "
                f"{self.image_ids[rows[first]]} of height, width {sizes[first].tolist()}"
            )


def read_results(path: str | Path, iou_type: str) -> Results:
    """Read detections, by the suffix of the file: ``.parquet`` is a detections table, anything else a results file.

    Raises:
        UserError: missing, truncated, empty or foreign file; scores or boxes that are NaN or infinite; no masks
            although they are asked for; boxes of negative size.
    """
    path = require_file(path, "detections")
    results = _read_table(path, iou_type) if path.suffix == ".parquet" else _read_json(path, iou_type)
    if not len(results):
        raise UserError(f"{path} holds no detections: there is nothing to evaluate")
    _require_finite(path, "scores", results.scores)
    if results.boxes is not None:
        _require_finite(path, "boxes", results.boxes)
        negative = np.flatnonzero((results.boxes[:, 2:] < 0).any(axis=1))
        if len(negative):
            raise UserError(
                f"{path}: {len(negative)} boxes of negative width or height, in rows {listing(negative.tolist())}; "
                "results files hold x, y, width, height"
            )
    return results


def _require_finite(path: Path, what: str, values: np.ndarray) -> None:
    wrong = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(wrong):
        raise UserError(
            f"{path}: {len(wrong)} detections with {what} that are NaN or infinite, in rows {listing(wrong.tolist())}; "
            "the model that wrote them is broken"
        )


def _read_table(path: Path, iou_type: str) -> Results:
    metadata = read_metadata(path)
    columns = ["image_id", "category_id", "rank_score", "score"]
    table = read_table(path, columns + ["x1", "y1", "x2", "y2"] * (iou_type == "bbox"))

    def numbers(name: str, kind: type[np.generic]) -> np.ndarray:  # to_numpy would import pandas: 50 MB, half a second
        chunks = [np.from_dlpack(chunk) for chunk in table[name].chunks]
        return np.concatenate([np.zeros(0, kind), *chunks], dtype=kind)

    boxes = None
    if iou_type == "bbox":
        x1, y1, x2, y2 = (numbers(name, np.float64) for name in ("x1", "y1", "x2", "y2"))
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
    elif table.num_rows and not _has_masks(path):
        raise UserError(
            f"{path} holds boxes without masks: evaluate with --iou-type bbox, or make masks with predict_masks first"
        )
    return Results(
        path=path,
        image_ids=numbers("image_id", np.int64),
        category_ids=numbers("category_id", np.int64),
        scores=numbers("rank_score", np.float64),
        model_scores=numbers("score", np.float64),
        boxes=boxes,
        packed=(lambda rows: _table_masks(path, rows)) if iou_type == "segm" else None,
        recipe=metadata.get("recipe"),
        metadata=metadata,
    )


def _has_masks(path: Path) -> bool:
    with pq.ParquetFile(path) as file:
        column = file.schema_arrow.get_field_index("rle")
        groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
        first = next(group for group in range(len(groups)) if groups[group].num_rows)
        return file.read_row_group(first, columns=[file.schema_arrow.names[column]])["rle"].null_count == 0


def _table_masks(path: Path, rows: np.ndarray) -> PackedMasks:
    """Masks of ascending ``rows``, one row group in memory at a time."""
    texts, lengths = [np.zeros(0, np.uint8)], [np.zeros(0, np.int64)]
    with pq.ParquetFile(path) as file:
        starts = np.cumsum([0, *(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))])
        bounds = np.searchsorted(rows, starts)
        for group, (begin, end) in enumerate(itertools.pairwise(bounds)):
            if begin == end:
                continue
            chosen = file.read_row_group(group, columns=["rle"])["rle"].combine_chunks()
            if end - begin < len(chosen):
                chosen = chosen.take(pa.array(rows[begin:end] - starts[group]))
            if chosen.null_count:
                raise UserError(f"{path}: some detections have no mask (null in column rle)")
            _, offsets, text = chosen.buffers()
            ends = np.frombuffer(offsets, np.int32)[chosen.offset : chosen.offset + len(chosen) + 1]
            texts.append(np.frombuffer(text or b"", np.uint8)[ends[0] : ends[-1]].copy())
            lengths.append(np.diff(ends).astype(np.int64))
    ends = np.cumsum(np.concatenate(lengths))
    return PackedMasks(np.concatenate(texts), ends - np.concatenate(lengths), ends)


def _read_json(path: Path, iou_type: str) -> Results:
    image_ids, category_ids, scores, shapes, masks = read_results_file(path, iou_type == "segm")
    return Results(
        path=path,
        image_ids=image_ids,
        category_ids=category_ids,
        scores=scores,
        boxes=shapes if masks is None else None,
        packed=None if masks is None else (lambda rows: masks[rows]),
        mask_sizes=None if masks is None else shapes,
    )
