"""Writing the detections table: streaming, atomic, same content same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.errors import UserError
from pipeline_steps.detections.record import (
    BOX_COLUMNS,
    FORMAT_VERSION,
    METADATA_KEY,
    ROWS_PER_GROUP,
    SCHEMA,
    ImageDetections,
)


class TableWriter:
    """Writes a table image by image; the file appears when the ``with`` block ends well, and not otherwise.

    Args:
        path: the Parquet file.
        metadata: JSON values, see :func:`table_metadata`; the format version is added.
    """

    def __init__(self, path: str | Path, metadata: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._metadata = {"format_version": FORMAT_VERSION, **metadata}
        self._pending: list[ImageDetections] = []
        self._pending_rows = 0
        self._seen: set[int] = set()
        self._masks: bool | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_output(self.path))
            text = json.dumps(self._metadata, sort_keys=True, allow_nan=False)
            self._writer = stack.enter_context(
                pq.ParquetWriter(
                    temporary,
                    SCHEMA.with_metadata({METADATA_KEY: text.encode()}),
                    compression="zstd",
                    write_page_checksum=True,
                    use_dictionary=["image_id", "category_id", "source"],
                    use_byte_stream_split=["score", "rank_score", *BOX_COLUMNS],
                    write_statistics=["image_id", "category_id", "score", "rank_score"],
                )
            )
            stack.push(self._flush_unless_failed)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _flush_unless_failed(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()

    def write_image(self, image_id: int, detections: ImageDetections) -> None:
        """Append the detections of one image, sorted into the table's order. Nothing is stored for an empty record.

        Raises:
            ValueError: the image was written before, ids disagree, or masks on some images only.
            UserError: a score or box is not finite.
        """
        if detections.image_id != image_id:
            raise ValueError(f"image_id {image_id} but detections of image {detections.image_id}")
        if image_id in self._seen:
            raise ValueError(f"{self.path}: image {image_id} is written a second time")
        self._seen.add(image_id)
        if not len(detections):
            return
        masks = detections.rles is not None
        if self._masks is None:
            self._masks = masks
        if masks != self._masks:
            raise ValueError(f"{self.path}: image {image_id} has {'' if masks else 'no '}masks, unlike those before it")
        for what in ("scores", "rank_scores", "boxes"):
            if not np.isfinite(getattr(detections, what)).all():
                raise UserError(
                    f"{self.path}: image {image_id} has {what} that are NaN or infinite: the model is broken"
                )
        self._pending.append(detections.sorted())
        self._pending_rows += len(detections)
        if self._pending_rows >= ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self._pending:
            return
        images = self._pending
        lengths = [len(image) for image in images]
        boxes = np.concatenate([image.boxes for image in images])
        sources = np.concatenate([image.sources for image in images])
        names, codes = np.unique(sources.astype(str), return_inverse=True)
        columns = [
            pa.array(np.repeat([image.image_id for image in images], lengths).astype(np.int64)),
            pa.array(np.concatenate([image.category_ids for image in images])),
            pa.array(np.concatenate([image.scores for image in images])),
            pa.array(np.concatenate([image.rank_scores for image in images])),
            *(pa.array(np.ascontiguousarray(boxes[:, side])) for side in range(4)),
            pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names.tolist(), pa.string())),
            pa.array([rle for image in images for rle in image.rles or []], pa.binary())
            if self._masks
            else pa.nulls(sum(lengths), pa.binary()),
        ]
        table = pa.Table.from_arrays(columns, schema=self._writer.schema)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self._pending, self._pending_rows = [], 0
