"""Reading the detections table image by image, in file order or any other, with bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import require_file
from pipeline_steps.detections.record import BOX_COLUMNS, FORMAT_VERSION, METADATA_KEY, SCHEMA, ImageDetections

_REMEDY = "delete it, then run the step that writes it again"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the Parquet library says about damaged files into a message for people."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowException, OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"detections table {path} is truncated, damaged or not a Parquet file ({reason}): {_REMEDY}"
        ) from None


def parse_metadata(path: Path, schema: pa.Schema) -> dict[str, Any]:
    """Metadata of a table with this schema.

    Raises:
        UserError: no metadata, another version, or other columns.
    """
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise UserError(f"{path} is a Parquet file, but not a detections table of this pipeline (no metadata)")
    metadata = json.loads(raw)
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(
            f"detections table {path} has format version {version}, this program reads {FORMAT_VERSION}: {_REMEDY}"
        )
    if not schema.equals(SCHEMA):
        expected, found = (", ".join(f"{f.name} {f.type}" for f in s) for s in (SCHEMA, schema))
        raise UserError(f"detections table {path} has columns [{found}] instead of [{expected}]: {_REMEDY}")
    return metadata


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numbers(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of numbers without nulls. (``to_numpy`` would import pandas: 50 MB.)"""
    return np.from_dlpack(_array(column))


@dataclass
class _Block:
    """Decoded rows ``first`` .. ``first + count`` of the table."""

    first: int
    count: int
    columns: dict[str, np.ndarray]
    rles: list[bytes] | None


class TableReader:
    """Reads a table image by image, in any order; fast when the order of the file is followed.

    Opening reads the column of image ids only. Not for several threads at once.

    Args:
        path: the Parquet file.
        masks: False leaves the ``rle`` column unread.

    Raises:
        UserError: missing, damaged or foreign file, other version, or an image in two places of the file.
    """

    def __init__(self, path: str | Path, masks: bool = True) -> None:
        self.path = require_file(path, "detections table")
        with readable(self.path):
            self._file = pq.ParquetFile(
                self.path, read_dictionary=["source"], pre_buffer=False, page_checksum_verification=True
            )
            self.metadata = parse_metadata(self.path, self._file.schema_arrow)
        self._columns = [field.name for field in SCHEMA if masks or field.name != "rle"]
        self._block = _Block(0, 0, {}, None)
        groups = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(groups, dtype=np.int64)])
        self._index = self._index_images()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _index_images(self) -> dict[int, tuple[int, int]]:
        """First row and number of rows of each image, in file order."""
        index: dict[int, tuple[int, int]] = {}
        last = None
        for group in range(len(self._group_starts) - 1):
            with readable(self.path):
                ids = _numbers(self._file.read_row_group(group, columns=["image_id"], use_threads=False).column(0))
            starts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1)) if len(ids) else np.zeros(0, np.int64)
            lengths = np.diff(starts, append=len(ids))
            offset = int(self._group_starts[group])
            for image_id, start, length in zip(ids[starts].tolist(), starts.tolist(), lengths.tolist()):
                if image_id == last:
                    first, count = index[image_id]
                    index[image_id] = first, count + length
                elif image_id in index:
                    raise UserError(f"detections table {self.path}: the rows of image {image_id} are not contiguous")
                else:
                    index[image_id] = offset + start, length
                last = image_id
        return index

    @property
    def image_ids(self) -> list[int]:
        """Ids of the images that have detections, in file order."""
        return list(self._index)

    @property
    def rows(self) -> int:
        """Number of detections."""
        return int(self._group_starts[-1])

    def _load(self, first: int, count: int) -> None:
        """Decode the row groups that hold the rows ``first`` .. ``first + count``."""
        begin = int(np.searchsorted(self._group_starts, first, side="right")) - 1
        end = int(np.searchsorted(self._group_starts, first + count, side="left"))
        with readable(self.path):
            table = self._file.read_row_groups(list(range(begin, end)), self._columns, use_threads=False)
        table = table.unify_dictionaries()
        columns = {field.name: _numbers(table[field.name]) for field in SCHEMA if field.name not in ("source", "rle")}
        source = _array(table["source"])
        columns["source"] = np.asarray(source.dictionary.to_pylist(), object)[_numbers(source.indices)]
        rles = None
        if "rle" in self._columns and table["rle"].null_count < table.num_rows:
            if table["rle"].null_count:
                raise UserError(f"detections table {self.path}: some detections have no mask (null in column rle)")
            rles = table["rle"].to_pylist()
        self._block = _Block(int(self._group_starts[begin]), table.num_rows, columns, rles)

    def image(self, image_id: int) -> ImageDetections:
        """Detections of one image, empty if it has none. The arrays are views of the row group: copy to keep few.

        Raises:
            UserError: rows damaged, or not sorted by rank score (which a NaN rank score breaks, too).
        """
        if image_id not in self._index:
            return ImageDetections.empty(image_id)
        first, count = self._index[image_id]
        if not (self._block.first <= first and first + count <= self._block.first + self._block.count):
            self._load(first, count)
        begin = first - self._block.first
        rows = slice(begin, begin + count)
        column = self._block.columns
        rank_scores = column["rank_score"][rows]
        if np.isnan(rank_scores[0]) or not np.all(rank_scores[1:] <= rank_scores[:-1]):
            raise UserError(
                f"detections table {self.path}: rows of image {image_id} are not sorted "
                f"by rank_score, or it is NaN: {_REMEDY}"
            )
        return ImageDetections(
            image_id=image_id,
            category_ids=column["category_id"][rows],
            scores=column["score"][rows],
            rank_scores=rank_scores,
            boxes=np.stack([column[name][rows] for name in BOX_COLUMNS], axis=1),
            sources=column["source"][rows],
            rles=None if self._block.rles is None else self._block.rles[rows],
        )

    def __iter__(self) -> Iterator[ImageDetections]:
        return (self.image(image_id) for image_id in self._index)
