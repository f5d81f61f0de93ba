"""Reading a results file (JSON), the format of COCO and LVIS, into columns.

Symbols: n detections in file order. RLE = COCO run-length encoding.
"""

import mmap
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import msgspec
import numpy as np

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import without_garbage_collection
from pipeline_steps.data.records import MAX_ID
from pipeline_steps.detections.run_lengths import PackedMasks

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
_PIECE_BYTES = 1 << 22
_TAIL_BYTES = 1 << 17
_BETWEEN = re.compile(rb"\}\s*(,)\s*(?=\{)")  # between two detections

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
        count = len(detections)
        if detections and isinstance(detections[0], _MaskDetection):
            masks = [detection.segmentation for detection in cast("list[_MaskDetection]", detections)]
            shapes: np.ndarray = np.fromiter(
                chain.from_iterable(mask.size for mask in masks), np.int64, 2 * count
            ).reshape(-1, 2)
            counts = "".join([mask.counts for mask in masks])
            lengths: Iterable[int] = map(len, [mask.counts for mask in masks])
            if not counts.isascii():  # damaged; it is told later, with its row
                lengths = [len(mask.counts.encode("utf-8", "surrogatepass")) for mask in masks]
            self.lengths.append(np.fromiter(lengths, np.int64, count))
            self.text += counts.encode("utf-8", "surrogatepass")
        else:
            boxes = chain.from_iterable(detection.bbox for detection in cast("list[_BoxDetection]", detections))
            shapes = np.fromiter(boxes, np.float64, 4 * count).reshape(-1, 4)
        self.parts.append(
            (
                np.fromiter(map(attrgetter("image_id"), detections), np.int64, count),
                np.fromiter(map(attrgetter("category_id"), detections), np.int64, count),
                np.fromiter(map(attrgetter("score"), detections), np.float64, count),
                shapes,
            )
        )

    def masks(self) -> PackedMasks:
        """All masks."""
        lengths = np.concatenate([np.zeros(0, np.int64), *self.lengths])
        ends = np.cumsum(lengths)
        return PackedMasks(np.frombuffer(self.text, np.uint8), ends - lengths, ends)


def read_results_file(
    path: Path, masks: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, PackedMasks | None]:
    """Columns of a results file.

    Args:
        masks: read the masks and not the boxes; else the boxes and not the masks.

    Returns:
        image ids int64[n]; category ids int64[n]; scores float64[n]; int64[n, 2], height and width that the masks
        claim, or boxes float64[n, 4]; the masks, or None.

    Raises:
        UserError: the file is empty, truncated or no list of detections with masks, or boxes, as asked for.
    """
    if not path.stat().st_size:
        raise UserError(f"results file {path} is empty (0 bytes)")
    kind = _MaskDetection if masks else _BoxDetection
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
    return image_ids, category_ids, scores, shapes, columns.masks() if masks else None
