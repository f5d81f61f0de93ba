"""The number code of compressed COCO run-length encodings.

A run length, from the fourth on its difference to the one two before it, is a variable-length number of 5-bit digits
in the characters 48..111: low digits first, 32 in all but the last one, and the sign in that one's 16.

Plain Python, compiled where there are many masks (:mod:`pipeline_steps.detections.run_lengths`): numba takes 60 MB.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def write_counts(counts: Any, number: int, text: Any, position: int) -> int:
    """Write the first ``number`` of the run lengths ``counts`` to ``text`` from ``position`` on; returns the end."""
    for i in range(number):
        value = counts[i]
        if i > 2:
            value -= counts[i - 2]
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = (value != -1) if bits & 0x10 else (value != 0)
            text[position] = (bits | 0x20 if more else bits) + 48
            position += 1
    return position


def next_number(text: Any, position: int, end: int) -> tuple[Any, int]:
    """The number that begins at ``position`` and the position after it, which is -1 if it is malformed."""
    value, shift = np.int64(0), 0
    while position < end and shift <= 30:
        digit = np.int64(text[position]) - 48
        if digit < 0 or digit > 63:
            break
        value |= (digit & 31) << shift
        shift += 5
        position += 1
        if digit & 32 == 0:
            return (value | np.int64(-1) << shift if digit & 16 else value), position
    return np.int64(-1), -1


def encode_run(length: int) -> bytes:
    """The first run of a compressed encoding."""
    text = bytearray(13)  # of 5 bits: more than any number of 63 bits has
    return bytes(text[: write_counts([length], 1, text, 0)])
