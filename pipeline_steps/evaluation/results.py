"""Detections to evaluate, as columns: from a detections table (Parquet) or from a results file (JSON).

The score that counts is the written one: ``rank_score`` of a table, ``score`` of a results file.

Symbols: n detections in file order. Boxes are x, y, width, height as in results files. RLE = COCO run-length encoding.
"""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import require_file, without_garbage_collection
from pipeline_steps.data.records import MAX_ID
from pipeline_steps.detections.run_lengths import PackedMasks
from pipeline_steps.detections.table import read_metadata, read_table


@dataclass(frozen=True)
class Results:
    """Detections in file order."""

    path: Path
    """The file."""
    image_ids: np.ndarray
    """int64[n]."""
    category_ids: np.ndarray
    """int64[n]."""
    scores: np.ndarray
    """float64[n], written scores."""
    boxes: np.ndarray | None
    """float64[n, 4], x, y, width, height; None if masks are evaluated."""
    packed: Callable[[np.ndarray], PackedMasks] | None
    """Reads the masks of the given rows (ascending positions); None if boxes are evaluated."""
    mask_sizes: np.ndarray | None = None
    """int64[n, 2], height and width that the masks claim; None in tables, where the image's size holds."""
    model_scores: np.ndarray | None = None
    """float64[n], the models' own scores; None in results files, which have one score."""
    recipe: str | None = None
    """Recipe that the detections come from, where the file tells."""
    metadata: dict[str, object] = field(default_factory=dict)
    """What else the file tells about itself."""

    def __len__(self) -> int:
        return len(self.scores)

    def mapped(self, category_ids: Mapping[int, int]) -> Results:
        """Detections of the categories that ``category_ids`` has, in the categories that it names; the order stays."""
        rows = np.flatnonzero(np.isin(self.category_ids, list(category_ids)))
        packed = self.packed
        return replace(
            self,
            image_ids=self.image_ids[rows],
            category_ids=np.array([category_ids[own] for own in self.category_ids[rows].tolist()], np.int64),
            scores=self.scores[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            packed=None if packed is None else lambda wanted: packed(rows[wanted]),
            mask_sizes=None if self.mask_sizes is None else self.mask_sizes[rows],
            model_scores=None if self.model_scores is None else self.model_scores[rows],
        )

    def masks(self, rows: np.ndarray) -> list[str]:
        """Compressed counts of the given rows, ascending positions."""
        assert self.packed is not None
        return self.packed(rows).texts()

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

    Args:
        path: the file.
        iou_type: ``segm`` or ``bbox``.

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
    boxes = None
    if iou_type == "bbox":
        x1, y1, x2, y2 = (table[name].to_numpy().astype(np.float64) for name in ("x1", "y1", "x2", "y2"))
        boxes = np.stack([x1, y1, x2 - x1, y2 - y1], axis=1)
    elif table.num_rows and not _has_masks(path):
        raise UserError(
            f"{path} holds boxes without masks: evaluate with --iou-type bbox, or make masks with predict_masks first"
        )
    return Results(
        path=path,
        image_ids=table["image_id"].to_numpy(),
        category_ids=table["category_id"].to_numpy().astype(np.int64),
        scores=table["rank_score"].to_numpy().astype(np.float64),
        model_scores=table["score"].to_numpy().astype(np.float64),
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
            texts.append(np.frombuffer(text, np.uint8)[ends[0] : ends[-1]].copy())
            lengths.append(np.diff(ends).astype(np.int64))
    ends = np.cumsum(np.concatenate(lengths))
    return PackedMasks(np.concatenate(texts), ends - np.concatenate(lengths), ends)


_Id = Annotated[int, msgspec.Meta(ge=-MAX_ID, le=MAX_ID)]


class _Mask(msgspec.Struct, gc=False):
    size: tuple[_Id, _Id]
    counts: str


class _MaskDetection(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id
    score: float
    segmentation: _Mask


class _BoxDetection(msgspec.Struct, gc=False):
    image_id: _Id
    category_id: _Id
    score: float
    bbox: tuple[float, float, float, float]


_Detection = _MaskDetection | _BoxDetection
_PIECE_BYTES = 1 << 25
_TAIL_BYTES = 1 << 17
_BETWEEN = re.compile(rb"\}\s*(,)\s*(?=\{)")
"""Between two detections."""

_HINTS = {
    ".segmentation.counts`": "masks must be compressed RLE (counts as text)",
    ".segmentation`": "masks must be compressed RLE objects with size and counts",
    "field `segmentation`": "the file has no masks: evaluate with --iou-type bbox",
    "field `bbox`": "the file has no boxes: evaluate with --iou-type segm",
    "Expected `array`": "a results file is one list of detections",
}


def _explain(path: Path, content: mmap.mmap, error: Exception) -> UserError:
    message = str(error)
    hint = next((hint for part, hint in _HINTS.items() if part in message), None)
    at = re.search(r"\(byte (\d+)\)", message)
    if at and re.match(rb"-?(NaN|Infinity)", content[int(at[1]) : int(at[1]) + 9]):
        hint = "scores or boxes are NaN or infinite; the model that wrote them is broken"
    if "truncated" in message:
        hint = "the file is truncated: write it again"
    return UserError(f"results file {path}: {message}" + (f" ({hint})" if hint else ""))


def _list_of(kind: type[_Detection]) -> type[list[_Detection]]:
    return list[kind]  # type: ignore[valid-type]  # made at run time


def _decode_pieces(file: BinaryIO, kind: type[_Detection]) -> Iterator[list[_Detection]]:
    """Decode a list of detections piece by piece: a third of the memory of decoding it whole.

    Pieces end between two detections. What looks like such a place may stand inside a text; then a piece is no JSON.
    """
    rest, start, many = b"", b"", _list_of(kind)
    while piece := file.read(_PIECE_BYTES):
        text = rest + piece
        tail = max(0, len(text) - _TAIL_BYTES)
        ends = [found.start(1) for found in _BETWEEN.finditer(text, tail)]
        if not ends:
            rest = text
            continue
        yield msgspec.json.decode(start + text[: ends[-1]] + b"]", type=many)
        rest, start = text[ends[-1] + 1 :], b"["
    yield msgspec.json.decode(start + rest, type=many)


def _decode_whole(path: Path, kind: type[_Detection]) -> list[_Detection]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return msgspec.json.decode(content, type=_list_of(kind))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _explain(path, content, error) from None


class _Columns:
    """Detections that were read so far."""

    def __init__(self) -> None:
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        self.lengths: list[np.ndarray] = []
        self.text = bytearray()

    def add(self, detections: list[_Detection]) -> None:
        if detections and isinstance(detections[0], _MaskDetection):
            masks = [detection.segmentation for detection in cast("list[_MaskDetection]", detections)]
            shapes: np.ndarray = np.array([mask.size for mask in masks], np.int64)
            counts = [mask.counts.encode("utf-8", "surrogatepass") for mask in masks]
            self.lengths.append(np.fromiter(map(len, counts), np.int64, len(counts)))
            self.text += b"".join(counts)
        else:
            shapes = np.array([detection.bbox for detection in cast("list[_BoxDetection]", detections)], np.float64)
        self.parts.append(
            (
                np.array([d.image_id for d in detections], np.int64),
                np.array([d.category_id for d in detections], np.int64),
                np.array([d.score for d in detections], np.float64),
                shapes,
            )
        )

    def masks(self) -> PackedMasks:
        """All masks."""
        lengths = np.concatenate([np.zeros(0, np.int64), *self.lengths])
        ends = np.cumsum(lengths)
        return PackedMasks(np.frombuffer(self.text, np.uint8), ends - lengths, ends)


def _read_json(path: Path, iou_type: str) -> Results:
    if not path.stat().st_size:
        raise UserError(f"results file {path} is empty (0 bytes)")
    kind = _MaskDetection if iou_type == "segm" else _BoxDetection
    with without_garbage_collection():
        columns = _Columns()
        try:
            with path.open("rb") as file:
                for detections in _decode_pieces(file, kind):
                    columns.add(detections)
        except (msgspec.DecodeError, UnicodeDecodeError):
            columns = _Columns()
            columns.add(_decode_whole(path, kind))  # tells what is wrong, or reads it after all
    parts = [part for part in columns.parts if len(part[0])] or columns.parts[:1]
    image_ids, category_ids, scores, shapes = (np.concatenate(column) for column in zip(*parts))
    masks = columns.masks()
    return Results(
        path=path,
        image_ids=image_ids,
        category_ids=category_ids,
        scores=scores,
        boxes=shapes if iou_type == "bbox" else None,
        packed=(lambda rows: masks[rows]) if iou_type == "segm" else None,
        mask_sizes=shapes if iou_type == "segm" else None,
    )
