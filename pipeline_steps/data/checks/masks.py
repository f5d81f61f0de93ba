"""Reading and checking the masks of many annotations at once, before anything is made pixels.

The rasterisers of COCO trust their input: far coordinates and run lengths that do not add up end in segmentation faults
or in memory that nobody initialised.

Symbols: n annotations, P polygons, all their numbers x y x y ... one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
import numpy as np

from pipeline_steps.data.checks import catalogue
from pipeline_steps.data.checks.findings import Check, Findings
from pipeline_steps.data.checks.geometry import TOLERANCE
from pipeline_steps.data.records import Annotation, ImageRecord, Rle, Segmentation

CHUNK = 4096
"""Annotations whose masks are in memory as Python objects at once."""

_FLAT = 1e-9
"""Pixels² by which rounding makes the area of a straight line differ from 0, for each pixel² of its extent."""
_CODE = {check: code for code, check in enumerate(catalogue.MASKS)}
_one = msgspec.json.Decoder(Segmentation)
_many = msgspec.json.Decoder(list[Segmentation])


@dataclass(frozen=True)
class Masks:
    """Masks of n annotations."""

    codes: np.ndarray  # int8[n], what is wrong, by ``catalogue.MASKS``; the gravest of each
    values: list[Segmentation]  # polygons, RLE (text counts) or None; None too where the structure is wrong
    polygons: np.ndarray  # int64[n], polygons of each annotation
    lengths: np.ndarray  # int64[P], numbers of each polygon
    points: np.ndarray  # float64, the numbers
    rles: list[bytes]  # compressed counts, empty where there are none


def _decoded(annotations: Sequence[Annotation], codes: np.ndarray) -> list[Segmentation]:
    texts = [annotation.segmentation or b"null" for annotation in annotations]
    try:
        return _many.decode(b"[" + b",".join(texts) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError):
        values: list[Segmentation] = []
        for row, text in enumerate(texts):
            try:
                values.append(_one.decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError):
                values.append(None)
                codes[row] = _CODE[catalogue.MALFORMED_MASK]
        return values


def _compressed(rle: Rle, image: ImageRecord) -> bytes | None:
    """The counts as compressed text; None if they are none."""
    if isinstance(rle.counts, str):
        return rle.counts.encode("utf-8", "surrogatepass")
    if any(not 0 <= count <= image.height * image.width for count in rle.counts):
        return None
    from pycocotools import mask as mask_tools

    plain = {"size": list(rle.size), "counts": rle.counts}
    return mask_tools.frPyObjects(plain, image.height, image.width)["counts"]


def _check_rles(values: list[Segmentation], images: Sequence[ImageRecord], codes: np.ndarray) -> list[bytes]:
    rles = [b""] * len(values)
    rows = []
    for row, (value, image) in enumerate(zip(values, images)):
        if not isinstance(value, Rle):
            continue
        if value.size != (image.height, image.width):
            codes[row] = _CODE[catalogue.RLE_SIZE]
        elif (rle := _compressed(value, image)) is None:
            codes[row] = _CODE[catalogue.MALFORMED_RLE]
        else:
            codes[row] = 0
            rles[row] = rle
            rows.append(row)
    if rows:
        from pipeline_steps.detections.run_lengths import PackedMasks  # compiled code, which most files do without

        areas, totals = PackedMasks.of([rles[row] for row in rows]).measure()
        for row, area, total in zip(rows, areas.tolist(), totals.tolist()):
            if total < 0:
                codes[row] = _CODE[catalogue.MALFORMED_RLE]
            elif total != images[row].height * images[row].width:
                codes[row] = _CODE[catalogue.RLE_TOTAL]
            elif not area:
                codes[row] = _CODE[catalogue.EMPTY_RLE]
    return rles


def _check_polygons(
    owner: np.ndarray, lengths: np.ndarray, points: np.ndarray, sizes: np.ndarray, boxes: np.ndarray, codes: np.ndarray
) -> None:
    """Check P polygons of even lengths; ``owner`` int64[P] is ascending."""
    pairs = points.reshape(-1, 2)
    starts = np.concatenate([[0], np.cumsum(lengths[:-1] // 2)])
    low, high = np.minimum.reduceat(pairs, starts), np.maximum.reduceat(pairs, starts)
    # Shoelace formula relative to each polygon's first point; the products across two polygons are taken out.
    with np.errstate(all="ignore"):  # coordinates of 1e300 are found below
        relative = pairs - np.repeat(pairs[starts], lengths // 2, axis=0)
        cross = relative[:-1, 0] * relative[1:, 1] - relative[:-1, 1] * relative[1:, 0]
        cross = np.append(cross, 0.0)
        cross[starts[1:] - 1] = 0.0
        twice_area = np.abs(np.add.reduceat(cross, starts))
        flat = twice_area <= _FLAT * np.maximum(1.0, ((high - low) ** 2).sum(axis=1))
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    owners = owner[first]
    low, high = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
    edges, box = sizes[owners, ::-1], boxes[owners]
    corners = np.concatenate([box[:, :2], box[:, :2] + box[:, 2:]], axis=1)
    unlike = np.abs(np.concatenate([low, high], axis=1) - corners) > 2 * TOLERANCE
    # The gravest last: it stands.
    for check, failed in (
        (catalogue.POLYGON_UNLIKE_BOX, unlike.any(axis=1)),
        (catalogue.POLYGON_OUTSIDE, ((low < -TOLERANCE) | (high > edges + TOLERANCE)).any(axis=1)),
        (catalogue.FLAT_POLYGON, np.logical_and.reduceat(flat, first)),
        (catalogue.POLYGON_BEYOND, ((high <= 0) | (low >= edges)).any(axis=1)),
        (catalogue.FAR_POLYGON, ((low < -edges) | (high > 2 * edges)).any(axis=1)),
    ):
        codes[owners[failed]] = _CODE[check]


def read_masks(annotations: Sequence[Annotation], images: Sequence[ImageRecord]) -> Masks:
    """Read and check masks.

    Args:
        annotations: n annotations.
        images: the image of each. Masks on images with ``box_only`` are not read.
    """
    count = len(annotations)
    codes = np.zeros(count, np.int8)
    values = _decoded(annotations, codes)
    for row, (value, image) in enumerate(zip(values, images)):
        if image.box_only:
            codes[row] = _CODE[catalogue.MASK_ON_BOX_ONLY] if annotations[row].has_mask else 0
            values[row] = None
        elif value is None:
            codes[row] = codes[row] or _CODE[catalogue.NO_MASK]
        elif not value:
            codes[row] = _CODE[catalogue.EMPTY_LIST]
        elif type(value) is list and any(len(polygon) < 6 or len(polygon) % 2 for polygon in value):
            codes[row], values[row] = _CODE[catalogue.SHORT_POLYGON], None
    rles = _check_rles(values, images, codes)
    listed = [value if type(value) is list else () for value in values]
    polygons = np.fromiter(map(len, listed), np.int64, count)
    flattened = list(chain.from_iterable(listed))
    lengths = np.fromiter(map(len, flattened), np.int64, len(flattened))
    points = np.fromiter(chain.from_iterable(flattened), np.float64, int(lengths.sum()))
    if len(lengths):
        sizes = np.array([(image.height, image.width) for image in images], np.float64)
        boxes = np.array([annotation.bbox for annotation in annotations], np.float64)
        _check_polygons(np.repeat(np.arange(count), polygons), lengths, points, sizes, boxes, codes)
    return Masks(codes, values, polygons, lengths, points, rles)


def chunks(annotations: Sequence[Annotation], images: Sequence[ImageRecord]) -> Iterator[tuple[slice, Masks]]:
    """Masks of any number of annotations, :data:`CHUNK` at a time."""
    for begin in range(0, len(annotations), CHUNK):
        part = slice(begin, begin + CHUNK)
        yield part, read_masks(annotations[part], images[part])


def name_of(annotation: Annotation) -> str:
    """An annotation in messages."""
    return f"annotation {annotation.id} of image {annotation.image_id}"


def add_findings(
    codes: np.ndarray, annotations: Sequence[Annotation], checks: Sequence[Check | None], findings: Findings
) -> None:
    """Count what ``codes`` (int8[n], by ``checks``) say about annotations."""
    for code, check in enumerate(checks):
        if check is not None:
            findings.add(check, (name_of(annotations[row]) for row in np.flatnonzero(codes == code).tolist()))
