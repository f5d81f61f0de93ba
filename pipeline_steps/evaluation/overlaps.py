"""How much detections overlap the objects of their image: masks as run lengths, or boxes, never as pixels.

The numbers are those of pycocotools' ``iou`` to the last bit; pairs that cannot reach the overlap that is asked for
are left out before their masks are compared.

Symbols: k shapes, d detections, g objects of the ground truth, p pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline_steps.detections.run_lengths import PackedMasks, next_number


@dataclass(frozen=True)
class Shapes:
    """k masks or boxes of any images."""

    boxes: np.ndarray  # float64[k, 4], x1 y1 x2 y2: of a mask around its pixels
    areas: np.ndarray  # float64[k], pixels
    starts: np.ndarray  # int64[k + 1], where the edges of each mask begin; all 0 for boxes
    edges: np.ndarray  # int32, pixels in column-major order at which a mask begins and ends, by turns


@dataclass(frozen=True)
class Overlaps:
    """What :func:`overlaps` finds. Objects are named by position, -1 for none."""

    best: np.ndarray
    """float64[2, d], the greatest IoU with an object of the same and of another category, 0 below the least asked."""
    objects: np.ndarray  # int64[2, d], that object; of equal ones the first
    rows: np.ndarray  # int64[p], ascending: detections that overlap an object of their category by at least 0.5
    targets: np.ndarray  # int64[p], that object; ascending within a detection
    ious: np.ndarray  # float64[p]
    boundary_ious: np.ndarray | None = None
    """float64[p], the smaller one of that and of the IoU of the boundaries, where it was asked for."""


@njit(cache=True, nogil=True)
def _edges(text, begins, ends, heights, edges, starts, boxes, areas):
    used = 0
    for mask in range(len(begins)):
        starts[mask] = used
        height = heights[mask]
        at, before, last, runs = np.int64(0), np.int64(0), np.int64(0), 0
        final, base = np.int64(0), np.int64(0)
        x1, y1, x2, y2 = np.int64(1 << 30), np.int64(1 << 30), np.int64(0), np.int64(0)
        position = begins[mask]
        while position < ends[mask]:
            value, position = next_number(text, position, ends[mask])
            if runs > 2:
                value += before
            before, last = last, value
            if runs % 2 and value:
                end = at + value - 1
                if used == starts[mask]:  # the other runs go on from here: a division for each would take half the time
                    final, base = at // height, at // height * height
                while at >= base + height:
                    final, base = final + 1, base + height
                first, top, bottom = final, at - base, end - base
                if end >= base + height:
                    while end >= base + height:
                        final, base = final + 1, base + height
                    top, bottom = 0, height - 1
                x1, y1, x2, y2 = min(x1, first), min(y1, top), max(x2, final + 1), max(y2, bottom + 1)
                areas[mask] += value
                edges[used], edges[used + 1] = at, end + 1
                used += 2
            at += value
            runs += 1
        if areas[mask]:
            boxes[mask, 0], boxes[mask, 1], boxes[mask, 2], boxes[mask, 3] = x1, y1, x2, y2
    starts[-1] = used
    return used


def mask_shapes(masks: PackedMasks | Sequence[bytes], heights: np.ndarray) -> Shapes:
    """Masks from compressed run lengths that were checked before.

    Args:
        masks: k compressed encodings.
        heights: int64[k], of the image of each.
    """
    packed = masks if isinstance(masks, PackedMasks) else PackedMasks.of(masks)
    count = len(packed)
    edges = np.empty(int((packed.ends - packed.starts).sum()) + 2, np.int32)  # a run takes a character at least
    starts, boxes, areas = np.zeros(count + 1, np.int64), np.zeros((count, 4)), np.zeros(count)
    used = _edges(packed.text, packed.starts, packed.ends, heights.astype(np.int64), edges, starts, boxes, areas)
    return Shapes(boxes, areas, starts, edges[:used])


def box_shapes(boxes: np.ndarray) -> Shapes:
    """Boxes x, y, width, height: float64[k, 4]."""
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] + boxes[:, :2]], axis=1)
    return Shapes(corners, boxes[:, 2] * boxes[:, 3], np.zeros(len(boxes) + 1, np.int64), np.zeros(0, np.int32))


@njit(cache=True, nogil=True)
def common_area(a, a_end, b, b_end, left, right):
    """Pixels that two masks share."""
    shared = 0
    while a < a_end and b < b_end:
        low, high = max(left[a], right[b]), min(left[a + 1], right[b + 1])
        if high > low:
            shared += high - low
        if left[a + 1] <= right[b + 1]:
            a += 2
        else:
            b += 2
    return shared


@njit(cache=True, nogil=True)
def _overlaps(
    boxes, areas, starts, edges, images, categories,
    their_boxes, their_areas, their_starts, their_edges, their_categories, crowd, first_of_image, least, others,
):  # fmt: skip
    count = len(images)
    best, objects = np.zeros((2, count)), np.full((2, count), -1, np.int64)
    rows, targets, ious, found = np.empty(1024, np.int64), np.empty(1024, np.int64), np.empty(1024), 0
    masks = starts[-1] > 0 or their_starts[-1] > 0
    for row in range(count):
        for target in range(first_of_image[images[row]], first_of_image[images[row] + 1]):
            other = np.int64(categories[row] != their_categories[target])
            if other and not others:
                continue
            width = min(boxes[row, 2], their_boxes[target, 2]) - max(boxes[row, 0], their_boxes[target, 0])
            height = min(boxes[row, 3], their_boxes[target, 3]) - max(boxes[row, 1], their_boxes[target, 1])
            if width <= 0 or height <= 0:
                continue
            common = width * height
            total = areas[row] if crowd[target] else areas[row] + their_areas[target]
            bound = min(common, areas[row], their_areas[target])
            if bound < (least - 1e-9) * (total if crowd[target] else total - bound):
                continue
            if masks:
                common = np.float64(
                    common_area(
                        starts[row], starts[row + 1], their_starts[target], their_starts[target + 1], edges, their_edges
                    )
                )
            if common <= 0:
                continue
            iou = common / (total if crowd[target] else total - common)
            if iou < least:
                continue
            if iou > best[other, row] and not crowd[target]:
                best[other, row], objects[other, row] = iou, target
            if not other and iou >= 0.5:
                if found == len(rows):
                    rows = np.append(rows, np.empty(found, np.int64))
                    targets = np.append(targets, np.empty(found, np.int64))
                    ious = np.append(ious, np.empty(found))
                rows[found], targets[found], ious[found] = row, target, iou
                found += 1
    return best, objects, rows[:found].copy(), targets[:found].copy(), ious[:found].copy()


def overlaps(
    found: Shapes,
    images: np.ndarray,
    categories: np.ndarray,
    objects: Shapes,
    object_images: np.ndarray,
    object_categories: np.ndarray,
    crowd: np.ndarray,
    least: float | None = None,
) -> Overlaps:
    """Compare detections with the objects of their images.

    Args:
        found: d detections.
        images: int64[d], position of the image of each.
        categories: int64[d], position of the category of each.
        objects: g objects, by image.
        object_images: int64[g], ascending.
        object_categories: int64[g].
        crowd: bool[g], crowd regions: the overlap is the share of the detection that lies in them, and they are never
            the best object.
        least: IoU below which objects of the same and of other categories do not count; None compares objects of the
            same category only, from IoU 0.5.
    """
    bounds = np.searchsorted(object_images, np.arange(max(images.max(initial=0), object_images.max(initial=0)) + 2))
    return Overlaps(
        *_overlaps(
            found.boxes, found.areas, found.starts, found.edges, images, categories,
            objects.boxes, objects.areas, objects.starts, objects.edges, object_categories, crowd, bounds,
            0.5 if least is None else least, least is not None,
        )
    )  # fmt: skip
