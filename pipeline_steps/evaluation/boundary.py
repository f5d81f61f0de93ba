"""Overlap of the boundaries of masks: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation
Evaluation", 2021, as the LVIS challenge of 2021 measures it.

The boundary of a mask is what erosion by a square of side 2 d + 1 takes away, with nothing outside of the image. A
pair's overlap is the smaller one of its mask IoU and its boundary IoU. Only the masks of pairs that can match are
eroded, and only inside of their boxes, column by column from their edges; no mask is made pixels.

Symbols: k masks; d erosion in pixels; edges, starts and pairs as in :mod:`pipeline_steps.evaluation.overlaps`.
"""

import numpy as np
from numba import njit

from pipeline_steps.evaluation.overlaps import Overlaps, Shapes, common_area


def dilations(sizes: np.ndarray, ratio: float) -> np.ndarray:
    """The d of each image: ``ratio`` times its diagonal, rounded, at least 1 (official ``mask_to_boundary``).

    Args:
        sizes: int64[N, 2], height and width.
        ratio: 0.02 in the challenge.

    Returns:
        int64[N].
    """
    return np.maximum(1, np.rint(ratio * np.sqrt((sizes.astype(np.float64) ** 2).sum(axis=1)))).astype(np.int64)


@njit(cache=True, inline="always")
def _with_room(values, used, more):
    if used + more <= len(values):
        return values
    larger = np.empty(max(2 * len(values), used + more), values.dtype)
    larger[:used] = values[:used]
    return larger


@njit(cache=True, nogil=True)
def _eroded(edges, height, d, streak, out):
    """Edges of the pixels whose square of side 2 d + 1 lies in the mask, and their number; ``out`` may be replaced.

    The minimum over a square is that down the columns, which shortens each run at both ends by d, and then that along
    the rows, which asks for 2 d + 1 such columns on end: ``streak`` int32[height] counts them.
    """
    side, used, k = 2 * d + 1, 0, 0
    streak[:height] = 0
    for x in range(edges[0] // height, (edges[-1] - 1) // height + 1):
        base, done = x * height, 0
        while k < len(edges) and edges[k] < base + height:
            low, high = max(edges[k] - base, 0) + d, min(edges[k + 1] - base, height) - d
            if low < high:
                streak[done:low] = 0
                shift, begin = base - d * height, -1
                out = _with_room(out, used, high - low + 2)
                for y in range(low, high):
                    streak[y] += 1
                    if (streak[y] >= side) == (begin < 0):
                        if begin < 0:
                            begin = y
                        else:
                            out[used], out[used + 1] = shift + begin, shift + y
                            used, begin = used + 2, -1
                if begin >= 0:
                    out[used], out[used + 1] = shift + begin, shift + high
                    used += 2
                done = high
            if edges[k + 1] > base + height:
                break  # the run goes on in the next column
            k += 2
        streak[done:height] = 0
    return out, used


@njit(cache=True, nogil=True)
def _boundaries(rows, boxes, areas, starts, edges, heights, ds):
    """Edges, starts and areas of the boundaries of the masks ``rows``."""
    result, used = np.empty(1024, np.int32), 0
    inner = np.empty(1024, np.int32)
    streak = np.zeros(heights.max() if len(heights) else 0, np.int32)
    result_starts, result_areas = np.zeros(len(rows) + 1, np.int64), np.zeros(len(rows))
    for row in range(len(rows)):
        mask, d = rows[row], ds[row]
        mine = edges[starts[mask] : starts[mask + 1]]
        inners, side = 0, 2 * d + 1
        if min(boxes[mask, 2] - boxes[mask, 0], boxes[mask, 3] - boxes[mask, 1]) >= side:
            inner, inners = _eroded(mine, heights[row], d, streak, inner)
        result = _with_room(result, used, len(mine) + inners)
        result_areas[row], at = areas[mask], 0
        for k in range(0, len(mine), 2):
            begin = mine[k]
            while at < inners and inner[at] < mine[k + 1]:
                if inner[at] > begin:
                    result[used], result[used + 1] = begin, inner[at]
                    used += 2
                begin = inner[at + 1]
                result_areas[row] -= begin - inner[at]
                at += 2
            if begin < mine[k + 1]:
                result[used], result[used + 1] = begin, mine[k + 1]
                used += 2
        result_starts[row + 1] = used
    return result_starts, result[:used].copy(), result_areas


def boundaries(shapes: Shapes, rows: np.ndarray, heights: np.ndarray, ds: np.ndarray) -> Shapes:
    """Boundaries of some masks; their boxes are those of the masks.

    Args:
        rows: int64[k], those that are wanted.
        heights: int64[k], height of the image of each.
        ds: int64[k], :func:`dilations` of it.
    """
    starts, edges, areas = _boundaries(rows, shapes.boxes, shapes.areas, shapes.starts, shapes.edges, heights, ds)
    return Shapes(shapes.boxes[rows], areas, starts, edges)


@njit(cache=True, nogil=True)
def _smaller(ious, rows, targets, crowd, found, objects):
    starts, edges, areas = found
    their_starts, their_edges, their_areas = objects
    result = ious.copy()
    for pair in range(len(ious)):
        row, target = rows[pair], targets[pair]
        if not crowd[pair]:
            common = common_area(
                starts[row], starts[row + 1], their_starts[target], their_starts[target + 1], edges, their_edges
            )
            result[pair] = min(ious[pair], common / (areas[row] + their_areas[target] - common))
    return result


def boundary_ious(
    found: Shapes, objects: Shapes, pairs: Overlaps, crowd: np.ndarray, heights: np.ndarray, ds: np.ndarray
) -> np.ndarray:
    """The smaller one of mask IoU and boundary IoU of each pair; mask IoU with crowd regions, as in the official code.

    Args:
        found: masks of detections.
        objects: masks of objects.
        pairs: p pairs of them.
        crowd: bool[g], crowd regions.
        heights: int64[g], height of the image of each object.
        ds: int64[g], :func:`dilations` of it.

    Returns:
        float64[p].
    """
    sides = []
    for shapes, wanted in ((found, pairs.rows), (objects, pairs.targets)):
        rows, first, position = np.unique(wanted, return_index=True, return_inverse=True)
        of = pairs.targets[first]  # an object of the same image
        edge = boundaries(shapes, rows, heights[of], ds[of])
        sides.append(((edge.starts, edge.edges, edge.areas), position.reshape(-1)))
    (mine, rows), (theirs, targets) = sides
    return _smaller(pairs.ious, rows, targets, crowd[pairs.targets], mine, theirs)
