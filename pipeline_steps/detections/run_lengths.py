"""Facts about compressed COCO run-length encodings without decoding them to pixels.

A mask of height h and width w is a sequence of run lengths in column-major order, alternately outside and inside the
object, that add up to h * w. Compressed, each is a variable-length number of 5-bit digits in the characters 48..111,
from the fourth run on as the difference to the run two before it.

Symbols: k masks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _measure(text, offsets):  # type: ignore[no-untyped-def]
    count = len(offsets) - 1
    areas = np.zeros(count, np.int64)
    totals = np.zeros(count, np.int64)
    for mask in range(count):
        before, last, inside, runs = 0, 0, False, 0
        position, end = offsets[mask], offsets[mask + 1]
        while position < end:
            value, shift, more = np.int64(0), 0, True
            while more and position < end and shift <= 30:
                digit = np.int64(text[position]) - 48
                if digit < 0 or digit > 63:
                    break
                value |= (digit & 31) << shift
                shift += 5
                position += 1
                more = digit & 32 != 0
                if not more and digit & 16:
                    value |= np.int64(-1) << shift
            if more:
                value = -1
            elif runs > 2:
                value += before
            if value < 0:
                totals[mask] = -1
                break
            before, last = last, value
            totals[mask] += value
            if inside:
                areas[mask] += value
            inside = not inside
            runs += 1
    return areas, totals


def measure_masks(rles: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Areas and numbers of pixels of masks.

    Args:
        rles: k compressed encodings.

    Returns:
        areas: int64[k], pixels inside the object; 0 is an empty mask.
        totals: int64[k], height times width of the image that the encoding was made for; -1 if it is malformed
            (characters outside the alphabet, an unfinished number, a negative run).
    """
    offsets = np.zeros(len(rles) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, rles), np.int64, len(rles)), out=offsets[1:])
    return _measure(np.frombuffer(b"".join(rles), np.uint8), offsets)
