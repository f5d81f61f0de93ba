"""Reading the boxes of OpenImages that matter for LVIS, in one pass and little memory.

The boxes file has 14.6 million lines (2.3 GB). What is kept of a wanted line takes 24 bytes.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import check_header, require_file
from pipeline_steps.data.openimages_classes import REMEDY, Vocabulary
from pipeline_steps.openimages import box_kernels as kernels

BLOCK_BYTES = 1 << 20
_COLUMNS = {
    "ImageID": kernels.IMAGE,
    "LabelName": kernels.LABEL,
    "XMin": kernels.X_MIN,
    "XMax": kernels.X_MAX,
    "YMin": kernels.Y_MIN,
    "YMax": kernels.Y_MAX,
    "IsGroupOf": kernels.GROUP,
    "IsDepiction": kernels.DEPICTION,
    "IsInside": kernels.INSIDE,
}
_PROBLEM_NAMES = (
    "too few cells",
    "unknown class",
    "ImageID not of 16 characters",
    "not a number",
    "empty or outside box",
    "IsGroupOf, IsDepiction or IsInside is not 1, 0 or -1",
)
MAX_PROBLEM_SHARE = 0.01
"""Up to this share of the lines may be unusable: they are counted and left out. More means a damaged or wrong file."""


@dataclass(frozen=True)
class BoxTable:
    """Wanted boxes, grouped by image; m images with a plain box (no flag) of an LVIS category, every pair once."""

    mids: list[str]  # class names by code
    image_ids: np.ndarray  # ``S16[images]``, ascending
    image: np.ndarray  # int32[n], position in ``image_ids``, ascending
    code: np.ndarray  # int16[n], position in ``mids``
    box: np.ndarray  # float32[n, 4], x1 y1 x2 y2 as fractions of width and height
    flags: np.ndarray  # uint8[n], bits GROUP_FLAG, DEPICTION_FLAG, INSIDE_FLAG of ``box_kernels``
    pair_image: np.ndarray  # int32[m], position of the image
    pair_category: np.ndarray  # int16[m], position of the category
    lines: int  # lines in the file, without the header
    problems: dict[str, tuple[int, int]]  # unusable lines by kind: (how many, number of the first)

    def rows_of(self, image: int) -> slice:
        """The rows of an image, by its position."""
        return slice(*np.searchsorted(self.image, (image, image + 1)).tolist())

    def describe_problems(self) -> str:
        """``3 lines with too few cells (first: line 17), ...``; empty if there are none."""
        return "; ".join(f"{many} lines: {kind} (first: line {line})" for kind, (many, line) in self.problems.items())


def _column_roles(header: bytes, path: Path) -> np.ndarray:
    names = header.decode("utf-8", "replace").removeprefix("\ufeff").strip().split(",")
    check_header(path, names, _COLUMNS)
    last = max(names.index(name) for name in _COLUMNS)
    return np.array([_COLUMNS.get(name, kernels.OTHER) for name in names[: last + 1]], dtype=np.int8)


class _Scanner:
    """State of a scan that goes on from block to block."""

    def __init__(self, roles: np.ndarray, mids: list[str], wanted: Collection[str], targets: dict[str, int]) -> None:
        names = [mid.encode() for mid in mids]
        self.roles = roles
        ends = np.cumsum([len(name) for name in names])
        table = kernels.class_table(np.frombuffer(b"".join(names), np.uint8), ends)
        self.targets = np.array([targets.get(mid, -1) for mid in mids], dtype=np.int16)
        self.classes = (*table, np.array([mid in wanted for mid in mids]), self.targets)
        self.last_run = np.full(int(self.targets.max()) + 2, -1, np.int64)
        self.problems = np.zeros(kernels.PROBLEMS, np.int64)
        self.examples = np.zeros(kernels.PROBLEMS, np.int64)
        self.state = (np.zeros(kernels.ID_BYTES + 1, np.uint8), self.last_run, self.problems, self.examples)
        self.lines = 0
        self.columns: tuple[list[np.ndarray], ...] = ([], [], [], [], [])
        """Blocks of run, code, box, flags and first."""
        self.run_ids: list[np.ndarray] = []
        self._allocate(1 << 16)

    def _allocate(self, lines: int) -> None:
        self.capacity = lines
        self.out: tuple[np.ndarray, ...] = (
            np.empty(lines, np.int32),
            np.empty((lines, kernels.ID_BYTES), np.uint8),
            np.empty(lines, np.int16),
            np.empty((lines, 4), np.float32),
            np.empty(lines, np.uint8),
            np.empty(lines, np.bool_),
        )

    def scan(self, block: np.ndarray) -> None:
        """Scan uint8[n] that ends with a line feed."""
        newlines = np.flatnonzero(block == ord("\n"))
        if len(newlines) > self.capacity:
            self._allocate(len(newlines) * 5 // 4)
        runs_before = self.last_run[-1]
        rows = kernels.scan_block(block, newlines, self.lines + 2, self.roles, self.classes, self.state, self.out)
        run, ids, *others = self.out
        for column, array in zip(self.columns, (run, *others), strict=True):
            column.append(array[:rows].copy())
        self.run_ids.append(ids[: self.last_run[-1] - runs_before].copy())
        self.lines += len(newlines)


def _scan_file(file: io.FileIO, scanner: _Scanner) -> None:
    """Feed whole lines to the scanner; a last line without line feed gets one."""
    block = np.empty(BLOCK_BYTES, np.uint8)
    filled = 0
    while True:
        count = file.readinto(block.data[filled:-1])
        if not count:
            break
        filled += count
        stop = filled - 1
        while stop >= 0 and block[stop] != ord("\n"):
            stop -= 1
        if stop < 0:
            if filled >= len(block) - 1:
                raise UserError(f"line {scanner.lines + 2} is longer than {len(block)} bytes: this is not a CSV file")
            continue
        scanner.scan(block[: stop + 1])
        rest = filled - stop - 1
        block[:rest] = block[stop + 1 : filled].copy()
        filled = rest
    if filled:
        block[filled] = ord("\n")
        scanner.scan(block[: filled + 1])


def _grouped(scanner: _Scanner) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Image ids ascending and without repetition, and the rows grouped by image in their order."""
    joined = []
    for column in scanner.columns:
        joined.append(np.concatenate(column))
        column.clear()  # one column at a time is in memory twice
    image, code, box, flags, first = joined
    ids = np.concatenate(scanner.run_ids).view(f"S{kernels.ID_BYTES}").reshape(-1)
    if len(ids) and not (ids[1:] > ids[:-1]).all():  # the published file is sorted; others need not be
        ids, position = np.unique(ids, return_inverse=True)
        order = np.argsort(position[image], kind="stable")
        image = position[image][order].astype(np.int32)
        code, box, flags = code[order], box[order], flags[order]
        target = scanner.targets[code].astype(np.int64)
        usable = np.flatnonzero((flags == 0) & (target >= 0))
        _, earliest = np.unique(image[usable] * np.int64(1 << 16) + target[usable], return_index=True)
        first = np.zeros(len(image), bool)
        first[usable[earliest]] = True
    return ids, (image, code, box, flags, first)


def read_boxes(
    path: str | Path, vocabulary: Vocabulary, targets: dict[str, int], wanted: Collection[str] = ()
) -> BoxTable:
    """Read the boxes of some classes.

    Args:
        path: ``oidv6-train-annotations-bbox.csv`` or a file with the same columns, in any order of columns and lines.
        vocabulary: all classes that may occur.
        targets: position of the LVIS category that a class stands for, by MID.
        wanted: further classes whose boxes are kept, though they stand for no LVIS category.

    Raises:
        UserError: the file or a column is missing, no line can be used, or more than 1 % of the lines cannot.
    """
    path = require_file(path, "OpenImages boxes", REMEDY)
    mids = sorted(vocabulary.names)
    with path.open("rb", buffering=0) as file:
        scanner = _Scanner(_column_roles(file.readline(), path), mids, {*targets, *wanted}, targets)
        try:
            _scan_file(file, scanner)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
    problems = {
        name: (int(many), int(line))
        for name, many, line in zip(_PROBLEM_NAMES, scanner.problems, scanner.examples, strict=True)
        if many
    }
    if not scanner.lines:
        raise UserError(f"{path} has no boxes: it is truncated; delete it and download it again")
    ids, (image, code, box, flags, first) = _grouped(scanner)
    table = BoxTable(
        mids=mids, image_ids=ids, image=image, code=code, box=box, flags=flags, pair_image=image[first],
        pair_category=scanner.targets[code[first]], lines=scanner.lines, problems=problems,
    )  # fmt: skip
    if sum(many for many, _ in problems.values()) > MAX_PROBLEM_SHARE * table.lines:
        raise UserError(
            f"{path}: more than {MAX_PROBLEM_SHARE:.0%} of {table.lines} lines cannot be used: "
            f"{table.describe_problems()}; delete it and download it again"
        )
    return table
