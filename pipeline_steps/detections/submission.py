"""Writing a results file for the LVIS evaluator and test server: streaming, one image at a time.

Decisions:

- ``score`` is the table's ``rank_score``, because the evaluator applies its cap of 300 per image to what is written.
  It is written as the exact decimal of the float32 value, so that reading it back gives the same order.
- There is no ``bbox``: with it, the evaluator would take areas, and so the size groups, from boxes instead of masks.
- Empty masks are left out before the cap: the evaluator drops them after it, and they would have taken places.
- Masks are copied as they are, not decoded; validating the written file decodes them all.
"""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.detections.number_code import encode_run
from pipeline_steps.detections.record import ImageDetections
from pipeline_steps.detections.table import TableReader, checked_images

log = logging.getLogger(__name__)

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Fixed time stamp, the earliest that the format knows: the same results give the same archive."""


@dataclass
class WrittenResults:
    """What was written, and what was left out."""

    images: int = 0
    """Images with at least one written detection."""
    detections: int = 0
    """Written detections."""
    empty_masks: int = 0
    """Left out: masks without any pixel."""
    over_cap: int = 0
    """Left out: beyond the detections per image."""


def image_results(
    image: ImageDetections, height: int, width: int, max_detections: int, counts: WrittenResults
) -> bytes:
    """JSON objects of one image's detections, separated by commas, best first; empty if nothing is left.

    Raises:
        UserError: no masks.
    """
    if image.rles is None:
        raise UserError("the table has no masks: give the table that predict_masks writes")
    # Nothing but the first run of a COCO encoding can have length 0: a mask is empty if that run covers the image.
    outside = encode_run(height * width)
    kept = np.array([row for row, rle in enumerate(image.rles) if not rle.startswith(outside)], np.int64)
    counts.empty_masks += len(image) - len(kept)
    counts.over_cap += max(0, len(kept) - max_detections)
    kept = kept[:max_detections]
    if not len(kept):
        return b""
    counts.images += 1
    counts.detections += len(kept)
    # Pieces of text are 1.5 times faster than dicts; the alphabet of an RLE needs no escape but the backslash's.
    start = b'{"image_id":%d,"segmentation":{"size":[%d,%d],"counts":"' % (image.image_id, height, width)
    scores = orjson.dumps(image.rank_scores[kept].astype(np.float64), option=orjson.OPT_SERIALIZE_NUMPY)
    columns = zip(
        [image.rles[position] for position in kept.tolist()],
        image.category_ids[kept].tolist(),
        scores[1:-1].split(b","),
    )
    return b",\n".join(
        [
            b'%b%b"},"category_id":%d,"score":%b}' % (start, rle.replace(b"\\", b"\\\\"), category_id, score)
            for rle, category_id, score in columns
        ]
    )


def _write_json(
    reader: TableReader,
    sizes: Mapping[int, tuple[int, int]],
    category_ids: Collection[int],
    max_detections: int,
    file: BinaryIO,
) -> WrittenResults:
    counts = WrittenResults()
    progress = Progress("writing", len(reader.image_ids), "images")
    separator = b"["
    for image in checked_images(reader, sizes, category_ids):
        try:
            text = image_results(image, *sizes[image.image_id], max_detections, counts)
        except UserError as error:
            raise UserError(f"{reader.path}: {error}") from None
        if text:
            file.write(separator)
            file.write(text)
            separator = b",\n"
        progress.advance()
    if not counts.detections:
        raise UserError(f"{reader.path} has no detections to write: the evaluator fails on an empty results file")
    file.write(b"]\n")
    return counts


def write_zip(source: Path, target: Path, name: str) -> None:
    """Archive the file ``source`` as ``name`` in ``target``; the same content gives the same bytes."""
    entry = zipfile.ZipInfo(name, ZIP_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    with (
        source.open("rb") as file,
        zipfile.ZipFile(target, "w") as archive,
        archive.open(entry, "w", force_zip64=True) as compressed,
    ):
        shutil.copyfileobj(file, compressed, 1 << 20)


def write_submission(
    table: str | Path,
    output: str | Path,
    sizes: Mapping[int, tuple[int, int]],
    category_ids: Collection[int],
    max_detections: int = 300,
    zip_output: str | Path | None = None,
) -> WrittenResults:
    """Write the detections of ``table`` as a results file, and optionally a zipped copy; each appears whole or never.

    Args:
        table: detections with masks.
        sizes: (height, width) of every image of the data set by id.
        max_detections: written per image at most, by rank score.
        zip_output: archive with the JSON file in it.

    Raises:
        UserError: the table is damaged, without masks, empty, or one of another data set (see ``checked_images``).
    """
    with ExitStack() as stack:
        reader = stack.enter_context(TableReader(table))
        temporary = stack.enter_context(atomic_output(output))
        with temporary.open("wb", buffering=1 << 20) as file:
            counts = _write_json(reader, sizes, category_ids, max_detections, file)
        if zip_output is not None:
            archive = stack.enter_context(atomic_output(zip_output))
            write_zip(temporary, archive, Path(output).name)
    without = len(sizes) - counts.images
    log.info("%d detections in %d images; %d images without any", counts.detections, counts.images, without)
    log.info("left out: %d empty masks, %d beyond %d per image", counts.empty_masks, counts.over_cap, max_detections)
    return counts
