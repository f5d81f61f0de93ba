"""Image-level facts of OpenImages for a few chosen images: verified labels, rotation, sizes.

The files have millions of lines; only those of the chosen images are ever in memory.
"""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from PIL import Image, UnidentifiedImageError

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import check_header, require_file
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.openimages_classes import REMEDY, Vocabulary

log = logging.getLogger(__name__)

_ORIENTATION = 0x0112
_THREADS = 16
"""Opening a file on a network file system is waiting, not computing."""


@dataclass
class VerifiedLabels:
    """What people said about one image: MIDs of classes that are in it and of classes that are not."""

    present: set[str] = field(default_factory=set)
    absent: set[str] = field(default_factory=set)


def _scan(path: Path, columns: Collection[str]) -> pl.LazyFrame:
    """The columns of a CSV file as text.

    Raises:
        UserError: a column is missing, or the file is no CSV.
    """
    try:
        frame = pl.scan_csv(path, infer_schema=False)
        frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is not a valid CSV file: {error}") from None
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:  # polars renames repeated columns
        check_header(path, next(csv.reader(file), []), columns)
    return frame.select(columns)


def _collect(frame: pl.LazyFrame, path: Path) -> pl.DataFrame:
    try:
        return frame.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is damaged or truncated: {error}; delete it and download it again") from None


def read_verified_labels(
    path: str | Path, image_ids: Collection[str], vocabulary: Vocabulary
) -> defaultdict[str, VerifiedLabels]:
    """Human-verified image-level labels: confidence 1 means present, 0 absent.

    Args:
        path: ``train-annotations-human-imagelabels-boxable.csv``.
        image_ids: images of interest.
        vocabulary: known classes; lines of others are counted and left out.

    Returns:
        Labels by image id; images without any have empty sets.

    Raises:
        UserError: missing file or columns, or a confidence that is neither 0 nor 1.
    """
    path = require_file(path, "OpenImages image labels", REMEDY)
    frame = _scan(path, ["ImageID", "LabelName", "Confidence"]).filter(pl.col("ImageID").is_in(sorted(image_ids)))
    rows = _collect(frame.with_columns(pl.col("Confidence").cast(pl.Float32, strict=False).alias("value")), path)
    wrong = rows.filter(pl.col("value").is_null() | ~pl.col("value").is_in([0.0, 1.0]))
    if len(wrong):
        shown = [f"{image} {label} {value!r}" for image, label, value, _ in wrong.iter_rows()]
        raise UserError(f"{path}: Confidence of a verified label must be 0 or 1: {listing(shown, 3)}")
    labels: defaultdict[str, VerifiedLabels] = defaultdict(VerifiedLabels)
    unknown = 0
    for image_id, mid, _, value in rows.iter_rows():
        if mid not in vocabulary.names:
            unknown += 1
        elif value:
            labels[image_id].present.add(mid)
        else:
            labels[image_id].absent.add(mid)
    if unknown:
        log.warning("%s: %d labels of classes that are not in the class descriptions were left out", path, unknown)
    contradictions = 0
    for verdicts in labels.values():
        both = verdicts.present & verdicts.absent
        contradictions += len(both)
        verdicts.absent -= both
        verdicts.present -= both
    if contradictions:
        log.warning("%s: %d labels say both present and absent and were left out", path, contradictions)
    return labels


def read_rotated(path: str | Path) -> frozenset[str]:
    """Ids of images whose metadata give a rotation other than 0; an empty field means not known and does not count.

    Args:
        path: ``train-images-boxable-with-rotation.csv``.

    Raises:
        UserError: missing file or columns, or a rotation that is no number.
    """
    path = require_file(path, "OpenImages image information", REMEDY)
    frame = _scan(path, ["ImageID", "Rotation"]).filter(pl.col("Rotation").is_not_null() & (pl.col("Rotation") != ""))
    turned = frame.with_columns(pl.col("Rotation").cast(pl.Float32, strict=False).alias("degrees")).filter(
        pl.col("degrees").is_null() | (pl.col("degrees") != 0)
    )
    rows = _collect(turned, path)
    wrong = rows.filter(pl.col("degrees").is_null())
    if len(wrong):
        raise UserError(f"{path}: Rotation is not a number: {listing(wrong['Rotation'].to_list(), 3)}")
    return frozenset(rows["ImageID"].to_list())


@dataclass(frozen=True)
class ImageSizes:
    """Result of :func:`read_sizes`."""

    sizes: dict[str, tuple[int, int]]  # (width, height) in pixels by image id, as stored in the file
    turned: list[str]  # ids of images that a viewer turns (EXIF orientation); their boxes may be for either view
    missing: list[str]  # ids of images without a file
    unreadable: list[str]  # ids of images whose header is damaged


def _read_size(path: Path) -> tuple[int, int] | str:
    try:
        with Image.open(path) as image:
            if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
                return "turned"
            return image.size
    except FileNotFoundError:
        return "missing"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return "unreadable"


def read_sizes(folder: str | Path, image_ids: Iterable[str]) -> ImageSizes:
    """The sizes of ``<folder>/<image id>.jpg``, each header read once, without decoding a pixel."""
    ids = list(image_ids)
    sizes: dict[str, tuple[int, int]] = {}
    others: dict[str, list[str]] = {"turned": [], "missing": [], "unreadable": []}
    progress = Progress("image sizes", len(ids), "images")
    with ThreadPoolExecutor(_THREADS) as pool:
        read = pool.map(lambda name: _read_size(Path(folder, f"{name}.jpg")), ids)
        for image_id, found in zip(ids, read, strict=True):
            if isinstance(found, str):
                others[found].append(image_id)
            else:
                sizes[image_id] = found
            progress.advance()
    return ImageSizes(sizes, **others)
