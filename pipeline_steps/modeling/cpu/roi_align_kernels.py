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
def _axes(box, scale, height, width, size, sampling, points):
    """Sampling points of one box, into ``points``; returns their numbers per bin along y and x."""
    ylow, yhigh, xlow, xhigh, yweight, xweight = points
    half, bins = np.float32(0.5), np.float32(size)
    x1, y1 = box[0] * scale - half, box[1] * scale - half
    w, h = (box[2] * scale - half) - x1, (box[3] * scale - half) - y1
    gy = sampling if sampling > 0 else max(0, int(np.ceil(h / bins)))
    gx = sampling if sampling > 0 else max(0, int(np.ceil(w / bins)))
    _points(y1, h / bins, size, gy, height, ylow, yhigh, yweight)
    _points(x1, w / bins, size, gx, width, xlow, xhigh, xweight)
    return gy, gx


@njit(cache=True, nogil=True)
def _scratch(boxes, scales, size, sampling):
    """Room for the sampling points of any box along y and x: neighbours int64, weights float32."""
    room = size * sampling
    if sampling <= 0:
        largest = 1
        for k in range(len(boxes)):
            edge = max(boxes[k, 2] - boxes[k, 0], boxes[k, 3] - boxes[k, 1]) * scales[k]
            largest = max(largest, int(np.ceil(edge / size)) + 1)
        room = size * largest
    return (
        *(np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)),
        *(np.empty(room, np.float32), np.empty(room, np.float32)),
    )


@njit(cache=True, nogil=True, inline="always")
def _corners(upper, lower, left, right, y, x):
    """Table rows and weights of the four neighbours of a sampling point: upper left and right, lower left and right."""
    one = np.float32(1.0)
    rows = upper + left, upper + right, lower + left, lower + right
    return rows, ((one - y) * (one - x), (one - y) * x, y * (one - x), y * x)


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
    points = _scratch(boxes, scales, size, sampling)
    ylow, yhigh, xlow, xhigh, yweight, xweight = points
    for k in range(len(boxes)):
        gy, gx = _axes(boxes[k], scales[k], heights[k], widths[k], size, sampling, points)
        for i in range(size * gy):
            if yweight[i] < 0:
                continue
            upper, lower = starts[k] + ylow[i] * widths[k], starts[k] + yhigh[i] * widths[k]
            for j in range(size * gx):
                if xweight[j] < 0:
                    continue
                rows, (a, b, c, d) = _corners(upper, lower, xlow[j], xhigh[j], yweight[i], xweight[j])
                row = output[k, i // gy, j // gx]
                ra, rb, rc, rd = table[rows[0]], table[rows[1]], table[rows[2]], table[rows[3]]
                for channel in range(table.shape[1]):
                    row[channel] += a * ra[channel] + b * rb[channel] + c * rc[channel] + d * rd[channel]
        if gy * gx > 1:
            output[k] /= np.float32(gy * gx)


@njit(cache=True, nogil=True)
def spread(gradient, boxes, scales, starts, heights, widths, size, sampling, table_gradient) -> None:
    """Transpose of :func:`pool`: adds the gradient float32[K, m, m, D] of the output to that of the table, [P, D]."""
    points = _scratch(boxes, scales, size, sampling)
    ylow, yhigh, xlow, xhigh, yweight, xweight = points
    for k in range(len(boxes)):
        gy, gx = _axes(boxes[k], scales[k], heights[k], widths[k], size, sampling, points)
        share = np.float32(1.0) / np.float32(max(gy * gx, 1))
        for i in range(size * gy):
            if yweight[i] < 0:
                continue
            upper, lower = starts[k] + ylow[i] * widths[k], starts[k] + yhigh[i] * widths[k]
            for j in range(size * gx):
                if xweight[j] < 0:
                    continue
                rows, weights = _corners(upper, lower, xlow[j], xhigh[j], yweight[i], xweight[j])
                row = gradient[k, i // gy, j // gx]
                for corner in range(4):
                    target, factor = table_gradient[rows[corner]], weights[corner] * share
                    for channel in range(table_gradient.shape[1]):
                        target[channel] += factor * row[channel]
