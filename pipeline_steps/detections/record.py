"""One image's detections, and the columns and metadata of the detections table that stores them.

Symbols: k detections of one image; boxes are x1 y1 x2 y2 in pixels of the original image; RLE = COCO
run-length encoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline_steps.common.files import file_digest

FORMAT_VERSION = 1
"""Raised when a reader of the previous version would misread the file."""

ROWS_PER_GROUP = 8192
"""A row group is closed by the image that reaches this many rows."""

METADATA_KEY = b"lvis_detections"
"""Key of the JSON metadata in the Parquet footer."""

BOX_COLUMNS = ("x1", "y1", "x2", "y2")

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("category_id", pa.int32(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("rank_score", pa.float32(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in BOX_COLUMNS),
        pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("rle", pa.binary()),
    ]
)
"""Columns. ``rle`` holds compressed COCO counts; it is null in every row of a table without masks."""


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """Detections of one image. Lists are converted; one string for ``sources`` holds for all detections.

    Raises:
        ValueError: arrays of different lengths.
    """

    image_id: int
    """Image id of the data set."""
    category_ids: np.ndarray
    """int32[k], category ids of the data set."""
    scores: np.ndarray
    """float32[k], the model's scores."""
    rank_scores: np.ndarray
    """float32[k], the scores that decide the order and are written to results files."""
    boxes: np.ndarray
    """float32[k, 4], x1 y1 x2 y2 in pixels of the original image."""
    sources: np.ndarray
    """object[k], name of the member that a detection comes from."""
    rles: list[bytes] | None = None
    """k compressed COCO counts, or None without masks. The size is that of the image."""

    def __post_init__(self) -> None:
        count = len(self.scores)
        values: dict[str, Any] = {
            "image_id": int(self.image_id),
            "category_ids": np.asarray(self.category_ids, np.int32),
            "scores": np.asarray(self.scores, np.float32),
            "rank_scores": np.asarray(self.rank_scores, np.float32),
            "boxes": np.asarray(self.boxes, np.float32).reshape(-1, 4),
            "sources": np.full(count, self.sources, object)
            if isinstance(self.sources, str)
            else np.asarray(self.sources, object),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value is not None and len(value) != count:
                raise ValueError(f"image {self.image_id}: {count} scores but {len(value)} {field.name}")

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls, image_id: int, masks: bool = False) -> Self:
        """An image without detections."""
        return cls(image_id, [], [], [], [], [], [] if masks else None)  # type: ignore[arg-type]  # become arrays

    def take(self, index: np.ndarray | slice) -> Self:
        """The detections at ``index`` (int[n], bool[k] or slice), in that order."""
        positions = np.arange(len(self))[index]
        return replace(
            self,
            category_ids=self.category_ids[positions],
            scores=self.scores[positions],
            rank_scores=self.rank_scores[positions],
            boxes=self.boxes[positions],
            sources=self.sources[positions],
            rles=None if self.rles is None else [self.rles[position] for position in positions],
        )

    def sorted(self) -> Self:
        """In the table's order: rank score descending, ties as they stand."""
        if np.all(self.rank_scores[1:] <= self.rank_scores[:-1]):
            return self
        return self.take(np.argsort(-self.rank_scores, kind="stable"))


def table_metadata(
    recipe: str, step: str, arguments: Mapping[str, Any], inputs: Mapping[str, str | Path]
) -> dict[str, Any]:
    """Metadata that a step gives to its :class:`TableWriter`.

    Args:
        recipe: name of the recipe.
        step: name of the step module.
        arguments: what decides the result (JSON values); leave out output paths and machine names.
        inputs: files that were read, by the name of their role; their SHA-256 digests are stored.
    """
    digests = {name: file_digest(path) for name, path in inputs.items()}
    return {"recipe": recipe, "step": step, "arguments": dict(arguments), "inputs": digests}
