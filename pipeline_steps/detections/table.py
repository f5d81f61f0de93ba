"""The detections table: one Parquet file with one row per detection, written and read by all steps.

Rows of an image are contiguous and sorted by ``rank_score`` descending; ties keep the order in which they were given.
An image without detections has no rows: whoever needs every image walks the data set's image ids and asks
:meth:`TableReader.image`, which answers with an empty record. Images may stand in any order; ascending ids are the
convention, and the order in which consumers that merge tables walk them.

The same detections and metadata give the same bytes. Memory of writer and reader is bounded by one row group (whole
images, 8,192 rows and up to one image more), besides an index of two integers per image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import require_file
from pipeline_steps.detections.record import FORMAT_VERSION, SCHEMA, ImageDetections, table_metadata
from pipeline_steps.detections.table_reader import TableReader, parse_metadata, readable
from pipeline_steps.detections.table_writer import TableWriter

__all__ = [
    "FORMAT_VERSION",
    "SCHEMA",
    "ImageDetections",
    "TableReader",
    "TableWriter",
    "checked_images",
    "iter_images",
    "read_metadata",
    "read_table",
    "table_metadata",
]


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
    with readable(path):
        return parse_metadata(path, pq.read_schema(path))


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The whole table (or some columns) in memory: about 45 bytes per detection plus the masks.

    Raises:
        UserError: missing, damaged or foreign file, or another version.
    """
    path = Path(path)
    read_metadata(path)
    with readable(path):
        return pq.read_table(
            path,
            columns=None if columns is None else list(columns),
            read_dictionary=["source"],
            page_checksum_verification=True,
        )


def checked_images(
    reader: TableReader, sizes: Mapping[int, tuple[int, int]], category_ids: Iterable[int]
) -> Iterator[ImageDetections]:
    """The images of ``reader`` in file order, each checked against the data set that the table is to be used with.

    For a consumer that reads the whole table anyway and whose output appears only at the end.

    Args:
        sizes: (height, width) of the data set's images by id.
        category_ids: ids of the data set's categories.

    Raises:
        UserError: everything that :class:`TableReader` finds; unknown image or category ids (a table of another data
            set or split); scores or boxes that are NaN or infinite; boxes with x2 < x1 or y2 < y1 or outside.
    """
    unknown = sorted(set(reader.image_ids) - set(sizes))
    if unknown:
        raise UserError(
            f"detections table {reader.path}: {len(unknown)} of {len(reader.image_ids)} image ids are "
            f"not in the data set ({listing(unknown)}): is it a table of another data set or split?"
        )
    known_categories = np.unique(np.fromiter(category_ids, np.int64))
    for image in reader:
        problem = _problem(image, known_categories, sizes[image.image_id])
        if problem:
            raise UserError(f"detections table {reader.path}: image {image.image_id} has {problem}")
        yield image


def _problem(image: ImageDetections, known_categories: np.ndarray, size: tuple[int, int]) -> str | None:
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
    height, width = size
    if image.boxes.min() < 0 or x2.max() > width or y2.max() > height:
        worst = image.boxes[int(np.argmax(np.max([-x1, -y1, x2 - width, y2 - height], axis=0)))]
        return f"a box {worst.tolist()} outside the image of {width} x {height} pixels: another data set?"
    return None
