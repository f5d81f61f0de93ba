"""The detections table: one Parquet file with one row per detection, written and read by all steps.

Rows of an image are contiguous and sorted by ``rank_score`` descending; ties keep the order in which they were given.
An image without detections has no rows: whoever needs every image walks the data set's image ids and asks
:meth:`TableReader.image`, which answers with an empty record. Images may stand in any order; ascending ids are the
convention, and the order in which consumers that merge tables walk them.

The same detections and metadata give the same bytes. Memory of writer and reader is bounded by one row group (whole
images, 16,384 rows and up to one image more), besides an index of two integers per image.

Symbols: k detections of one image; boxes are x1 y1 x2 y2 in pixels of the original image; RLE = COCO
run-length encoding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import require_file
from pipeline_steps.detections.record import (
    BOX_COLUMNS,
    FORMAT_VERSION,
    METADATA_KEY,
    SCHEMA,
    ImageDetections,
    table_metadata,
)
from pipeline_steps.detections.table_writer import TableWriter

__all__ = [
    "FORMAT_VERSION",
    "SCHEMA",
    "ImageDetections",
    "TableReader",
    "TableWriter",
    "check_against",
    "iter_images",
    "read_metadata",
    "read_table",
    "table_metadata",
]

_REMEDY = "delete it and run the step that writes it again"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what the Parquet library says about damaged files into a message for people."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowException, OSError, EOFError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"detections table {path} is truncated, damaged or no Parquet file ({reason}): {_REMEDY}"
        ) from None


def _parse_metadata(path: Path, schema: pa.Schema) -> dict[str, Any]:
    raw = (schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise UserError(f"{path} is a Parquet file but no detections table of this pipeline (no metadata)")
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
        with _readable(self.path):
            self._file = pq.ParquetFile(self.path, read_dictionary=["source"])
            self.metadata = _parse_metadata(self.path, self._file.schema_arrow)
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
            with _readable(self.path):
                ids = self._file.read_row_group(group, columns=["image_id"]).column(0).to_numpy()
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
        with _readable(self.path):
            table = self._file.read_row_groups(list(range(begin, end)), columns=self._columns).unify_dictionaries()
        columns = {field.name: table[field.name].to_numpy() for field in SCHEMA if field.name not in ("source", "rle")}
        source = table["source"].combine_chunks()
        source = source.chunk(0) if isinstance(source, pa.ChunkedArray) else source
        columns["source"] = np.asarray(source.dictionary.to_pylist(), object)[source.indices.to_numpy()]
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


def iter_images(path: str | Path, masks: bool = True) -> Iterator[ImageDetections]:
    """The images of a table that have detections, in file order, with bounded memory.

    Raises:
        UserError: see :class:`TableReader`.
    """
    with TableReader(path, masks) as reader:
        yield from reader


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Metadata of a table: ``format_version`` and what the writer was given.

    Raises:
        UserError: missing, damaged or foreign file, or another version.
    """
    path = require_file(path, "detections table")
    with _readable(path):
        return _parse_metadata(path, pq.read_schema(path))


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The whole table (or some columns) in memory: about 45 bytes per detection plus the masks.

    Raises:
        UserError: missing, damaged or foreign file, or another version.
    """
    path = Path(path)
    read_metadata(path)
    with _readable(path):
        return pq.read_table(path, columns=None if columns is None else list(columns), read_dictionary=["source"])


def check_against(
    path: str | Path,
    image_ids: Iterable[int] | Mapping[int, tuple[int, int]],
    category_ids: Iterable[int],
) -> None:
    """Check a whole table against the data set it is to be used with, in bounded memory.

    Args:
        path: the table.
        image_ids: ids of the data set's images, or a mapping from id to (height, width); with the sizes, boxes must
            lie within their image.
        category_ids: ids of the data set's categories.

    Raises:
        UserError: everything that :class:`TableReader` finds; unknown image or category ids (a table of another data
            set or split); scores or boxes that are NaN or infinite; boxes with x2 < x1 or y2 < y1 or outside.
    """
    with TableReader(path, masks=False) as reader:
        sizes = image_ids if isinstance(image_ids, Mapping) else None
        unknown = sorted(set(reader.image_ids) - set(image_ids))
        if unknown:
            raise UserError(
                f"detections table {reader.path}: {len(unknown)} of {len(reader.image_ids)} image ids are "
                f"not in the data set ({listing(unknown)}): is it a table of another data set or split?"
            )
        known_categories = np.unique(np.fromiter(category_ids, np.int64))
        for image in reader:
            problem = _problem(image, known_categories, None if sizes is None else sizes[image.image_id])
            if problem:
                raise UserError(f"detections table {reader.path}: image {image.image_id} has {problem}")


def _problem(image: ImageDetections, known_categories: np.ndarray, size: tuple[int, int] | None) -> str | None:
    """What is wrong with the detections of one image, if anything."""
    strangers = ~np.isin(image.category_ids, known_categories)
    if strangers.any():
        ids = np.unique(image.category_ids[strangers]).tolist()
        return f"category ids that the data set does not have ({listing(ids)}): is it a table of another data set?"
    for what in ("scores", "rank_scores", "boxes"):
        if not np.isfinite(getattr(image, what)).all():
            return f"{what} that are NaN or infinite: the model or the file is broken"
    x1, y1, x2, y2 = image.boxes.T
    if (x2 < x1).any() or (y2 < y1).any():
        return "boxes with x2 < x1 or y2 < y1; boxes are x1 y1 x2 y2 in pixels"
    if size is not None:
        height, width = size
        if image.boxes.min() < 0 or x2.max() > width or y2.max() > height:
            worst = image.boxes[int(np.argmax(np.max([-x1, -y1, x2 - width, y2 - height], axis=0)))]
            return f"a box {worst.tolist()} outside the image of {width} x {height} pixels: another data set?"
    return None
