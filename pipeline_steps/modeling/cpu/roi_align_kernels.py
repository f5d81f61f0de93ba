"""Compiled RoIAlign over all levels of a feature pyramid (CPU), forward and backward.

Features lie with their channels together, so that each of the four neighbours of a sampling point is one contiguous
row: torchvision's kernel walks channel by channel, and is several times slower in the backward pass. The forward pass
is float32 operation by operation as in torchvision's kernel and gives the same bits.

Symbols:
    P: pixels of all levels and images, one table row each; D: channels; K: boxes; m: edge of the output; s: sampling
    points per bin and axis
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _points(start, bin_size, bins: int, grid: int, length: int, low, high, weight) -> None:
    """Neighbours and weight of the upper one of all sampling points along one axis; weight -1 is outside."""
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    for b in range(bins):
        for g in range(grid):
            at = start + np.float32(b) * bin_size + (np.float32(g) + half) * bin_size / np.float32(grid)
            i = b * grid + g
            if at < -one or at > np.float32(length):
                weight[i] = -one
                continue
            at = max(at, zero)
            first = int(at)
            if first >= length - 1:
                low[i] = high[i] = length - 1
                weight[i] = np.float32(0.0)
            else:
                low[i] = first
                high[i] = first + 1
                weight[i] = at - np.float32(first)


@njit(cache=True, nogil=True)
def _axes(box, scale, height, width, size, sampling, ylow, yhigh, yweight, xlow, xhigh, xweight):
    """Sampling points of one box; returns their numbers per bin along y and x."""
    half, bins = np.float32(0.5), np.float32(size)
    x1, y1 = box[0] * scale - half, box[1] * scale - half
    w, h = (box[2] * scale - half) - x1, (box[3] * scale - half) - y1
    gy = sampling if sampling > 0 else max(0, int(np.ceil(h / bins)))
    gx = sampling if sampling > 0 else max(0, int(np.ceil(w / bins)))
    _points(y1, h / bins, size, gy, height, ylow, yhigh, yweight)
    _points(x1, w / bins, size, gx, width, xlow, xhigh, xweight)
    return gy, gx


@njit(cache=True, nogil=True)
def _room(boxes, scales, size, sampling) -> int:
    """The largest number of sampling points along one axis of any box."""
    if sampling > 0:
        return size * sampling
    largest = 1
    for k in range(len(boxes)):
        edge = max(boxes[k, 2] - boxes[k, 0], boxes[k, 3] - boxes[k, 1]) * scales[k]
        largest = max(largest, int(np.ceil(edge / size)) + 1)
    return size * largest


@njit(cache=True, nogil=True)
def pool(table, boxes, scales, starts, heights, widths, size, sampling, output) -> None:
    """RoIAlign (aligned) of K boxes, each on its own level and image.

    Args:
        table: float32[P, D].
        boxes: float32[K, 4], x1 y1 x2 y2 in image pixels.
        scales: float32[K], level pixels per image pixel.
        starts: int64[K], table row of the first pixel of the box's level and image.
        heights, widths: int64[K], size of that level.
        size: m.
        sampling: s; 0 takes as many points as a bin has pixels.
        output: float32[K, m, m, D], zeros; receives the result.
    """
    channels = table.shape[1]
    room = _room(boxes, scales, size, sampling)
    ylow, yhigh, xlow, xhigh = (np.empty(room, np.int64), np.empty(room, np.int64),
                                np.empty(room, np.int64), np.empty(room, np.int64))  # fmt: skip
    yweight, xweight = np.empty(room, np.float32), np.empty(room, np.float32)
    one = np.float32(1.0)
    for k in range(len(boxes)):
        gy, gx = _axes(
            boxes[k], scales[k], heights[k], widths[k], size, sampling, ylow, yhigh, yweight, xlow, xhigh, xweight
        )
        count = np.float32(max(gy * gx, 1))
        for i in range(size * gy):
            if yweight[i] < 0:
                continue
            upper = starts[k] + ylow[i] * widths[k]
            lower = starts[k] + yhigh[i] * widths[k]
            for j in range(size * gx):
                if xweight[j] < 0:
                    continue
                a = (one - yweight[i]) * (one - xweight[j])
                b = (one - yweight[i]) * xweight[j]
                c = yweight[i] * (one - xweight[j])
                d = yweight[i] * xweight[j]
                row = output[k, i // gy, j // gx]
                ra, rb = table[upper + xlow[j]], table[upper + xhigh[j]]
                rc, rd = table[lower + xlow[j]], table[lower + xhigh[j]]
                for channel in range(channels):
                    row[channel] += a * ra[channel] + b * rb[channel] + c * rc[channel] + d * rd[channel]
        if gy * gx > 1:
            output[k] /= count


@njit(cache=True, nogil=True)
def spread(gradient, boxes, scales, starts, heights, widths, size, sampling, table_gradient) -> None:
    """Transpose of :func:`pool`: adds the gradient float32[K, m, m, D] of the output to that of the table, [P, D]."""
    channels = table_gradient.shape[1]
    room = _room(boxes, scales, size, sampling)
    ylow, yhigh, xlow, xhigh = (np.empty(room, np.int64), np.empty(room, np.int64),
                                np.empty(room, np.int64), np.empty(room, np.int64))  # fmt: skip
    yweight, xweight = np.empty(room, np.float32), np.empty(room, np.float32)
    one = np.float32(1.0)
    for k in range(len(boxes)):
        gy, gx = _axes(
            boxes[k], scales[k], heights[k], widths[k], size, sampling, ylow, yhigh, yweight, xlow, xhigh, xweight
        )
        count = np.float32(1.0) / np.float32(max(gy * gx, 1))
        for i in range(size * gy):
            if yweight[i] < 0:
                continue
            upper = starts[k] + ylow[i] * widths[k]
            lower = starts[k] + yhigh[i] * widths[k]
            for j in range(size * gx):
                if xweight[j] < 0:
                    continue
                row = gradient[k, i // gy, j // gx]
                for line, y in ((upper, one - yweight[i]), (lower, yweight[i])):
                    for column, x in ((xlow[j], one - xweight[j]), (xhigh[j], xweight[j])):
                        target = table_gradient[line + column]
                        factor = y * x * count
                        for channel in range(channels):
                            target[channel] += factor * row[channel]
