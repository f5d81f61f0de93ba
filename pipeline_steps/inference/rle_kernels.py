"""Compiled encoding of soft masks in boxes as run lengths of the whole image, without painting the image.

A mask is sampled bilinearly as ``torch.nn.functional.grid_sample`` does (zero outside, corners not aligned), column by
column, because COCO run lengths go down the columns. Between two neighbouring mask rows a column is linear in y, so a
stretch of pixels whose two ends are on one side of the threshold is one run without looking at its pixels.

Pixels whose value is within ``guard`` of the threshold are reported: grid_sample may round them to the other side.

Symbols: k masks; S edge of a soft mask; H, W image size; a pixel's position is x * H + y; a count is a run length.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipeline_steps.detections.run_lengths import write_counts

f32 = np.float32


@njit(cache=True, error_model="numpy", inline="always")
def _sample_axis(low, high, begin, end, size, index, weight):
    """Mask cell (into the padded mask) and weight of the next cell for the pixel centres begin .. end of one axis."""
    one, two, half = f32(1), f32(2), f32(0.5)
    scale = f32(size) / two
    extent = high - low
    for pixel in range(begin, end):
        grid = (f32(pixel) + half - low) / extent * two - one  # -1..1 over the box, as detectron2 computes it
        cell = (grid + one) * scale - half
        floor = np.floor(cell)
        if floor < -1:
            index[pixel - begin], weight[pixel - begin] = 0, f32(0)
        elif floor >= size:
            index[pixel - begin], weight[pixel - begin] = size + 1, f32(0)
        else:
            index[pixel - begin], weight[pixel - begin] = int(floor) + 1, cell - floor


@njit(cache=True)
def pasted_range(low, high, size):
    """First and end of the pixels that detectron2's paste looks at along one axis; (0, 0) outside of the image."""
    begin = max(np.floor(low) - f32(1), f32(0))
    end = min(np.ceil(high) + f32(1), f32(size))
    if end <= begin:
        return 0, 0
    return int(begin), int(end)


@njit(cache=True)
def _doubled(values, used, needed):
    larger = np.empty(max(2 * values.size, needed), values.dtype)
    larger[:used] = values[:used]
    return larger


@njit(cache=True, error_model="numpy")
def _run_lengths(mask, box, height, width, threshold, guard, flips, scratch, close, closes):
    """Run lengths of one mask.

    Args:
        mask: float32[S + 3, S + 3], the transposed soft mask with a border of zeros, one before and two after.
        flips: positions, ascending, of close pixels whose decision is to be inverted.
        scratch: work arrays (counts, x index, x weight, y index, y weight, column, its
            sides, starts of stretches, their mask rows).
        close, closes: list of positions of close pixels so far, and its length.

    Returns:
        (number of counts, close, closes).
    """
    counts, x_index, x_weight, y_index, y_weight, column, side, starts, first_rows = scratch
    size = mask.shape[0] - 3
    x_begin, x_end = pasted_range(box[0], box[2], width)
    y_begin, y_end = pasted_range(box[1], box[3], height)
    if x_end == x_begin or y_end == y_begin:
        counts[0] = height * width
        return 1, close, closes
    _sample_axis(box[0], box[2], x_begin, x_end, size, x_index, x_weight)
    _sample_axis(box[1], box[3], y_begin, y_end, size, y_index, y_weight)
    rows = y_end - y_begin
    stretches = 0
    starts[0], first_rows[0] = 0, y_index[0]
    for y in range(1, rows):
        if y_index[y] != y_index[y - 1]:
            stretches += 1
            starts[stretches], first_rows[stretches] = y, y_index[y]
    stretches += 1
    starts[stretches] = rows
    above, below = threshold + guard, threshold - guard
    number, last, inside, flip = 0, 0, False, 0
    unchanged = np.int32(-2)  # sum of the sides of a stretch that continues the present run
    for x in range(x_begin, x_end):
        cell, right = x_index[x - x_begin], x_weight[x - x_begin]
        left = f32(1) - right
        base = x * height + y_begin
        left_cells, right_cells = mask[cell], mask[cell + 1]
        for row in range(size + 3):
            value = left_cells[row] * left + right_cells[row] * right
            column[row] = value
            side[row] = np.int32(value > above) - np.int32(value < below)
        for stretch in range(stretches):
            row = first_rows[stretch]
            sides = side[row] + side[row + 1]
            if sides == unchanged:
                continue
            start, stop = starts[stretch], starts[stretch + 1]
            if sides == -unchanged:
                counts[number] = base + start - last
                number, last, inside, unchanged = number + 1, base + start, not inside, sides
                continue
            upper, lower = column[row], column[row + 1]
            for y in range(start, stop):
                value = upper * (f32(1) - y_weight[y]) + lower * y_weight[y]
                on = value >= threshold
                if abs(value - threshold) <= guard:
                    if closes == close.size:
                        close = _doubled(close, closes, closes + 1)
                    close[closes] = (base + y) * 2 + on
                    closes += 1
                    if flip < flips.size and flips[flip] == base + y:
                        flip += 1
                        on = not on
                if on != inside:
                    counts[number] = base + y - last
                    number, last, inside, unchanged = number + 1, base + y, on, -unchanged
        if inside and (rows < height or x == x_end - 1) and base + rows < height * width:
            counts[number] = base + rows - last
            number, last, inside, unchanged = number + 1, base + rows, False, -2
    if height * width > last:
        counts[number] = height * width - last
        number += 1
    return number, close, closes


@njit(cache=True, nogil=True)
def encode_masks(masks, boxes, height, width, threshold, guard, flips, flip_ends):
    """Encode k masks.

    Args:
        masks: float32[k, S, S], finite.
        boxes: float32[k, 4], x1 < x2, y1 < y2, finite.
        height, width: image size.
        threshold, guard: float32; pixels >= threshold are inside.
        flips: int64[f], close pixels whose decision is inverted, of all masks in order, ascending within a mask.
        flip_ends: int64[k], end of the flips of each mask.

    Returns:
        text uint8[t], text_ends int64[k]: compressed counts of all masks in order;
        close int64[c], close_ends int64[k]: 2 * position + decision of the pixels within ``guard`` of the threshold.
    """
    number, size = masks.shape[0], masks.shape[1]
    padded = np.zeros((size + 3, size + 3), np.float32)
    edge = max(height, size)
    scratch = (
        np.empty(height * width + 2, np.int64),
        np.empty(width, np.int64),
        np.empty(width, np.float32),
        np.empty(height, np.int64),
        np.empty(height, np.float32),
        np.empty(size + 3, np.float32),
        np.empty(size + 3, np.int32),
        np.empty(edge + 4, np.int64),
        np.empty(edge + 4, np.int64),
    )
    text, text_ends, used = np.empty(512 * number + 64, np.uint8), np.empty(number, np.int64), 0
    close, close_ends, closes = np.empty(64, np.int64), np.empty(number, np.int64), 0
    for i in range(number):
        padded[1 : size + 1, 1 : size + 1] = masks[i].T
        mine = flips[(flip_ends[i - 1] if i else 0) : flip_ends[i]]
        counts, close, closes = _run_lengths(
            padded, boxes[i], height, width, threshold, guard, mine, scratch, close, closes
        )
        close_ends[i] = closes
        if used + 7 * counts > text.size:  # 7 characters of 5 bits hold any count and difference below 2**34
            text = _doubled(text, used, used + 7 * counts)
        used = write_counts(scratch[0], counts, text, used)
        text_ends[i] = used
    return text[:used], text_ends, close[:closes], close_ends
