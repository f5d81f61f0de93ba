"""Facts about compressed COCO run-length encodings without decoding them to pixels.

A mask of height h and width w is a sequence of run lengths in column-major order, alternately outside and inside the
object, that add up to h * w; :mod:`pipeline_steps.detections.number_code` is how they are compressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from pipeline_steps.detections import number_code

write_counts = njit(cache=True)(number_code.write_counts)
next_number = njit(cache=True, inline="always")(number_code.next_number)


@njit(cache=True, nogil=True)
def _measure(text, starts, ends):
    count = len(starts)
    areas = np.zeros(count, np.int64)
    totals = np.zeros(count, np.int64)
    for mask in range(count):
        before, last, inside, runs = 0, 0, False, 0
        position, end = starts[mask], ends[mask]
        while position < end:
            value, position = next_number(text, position, end)
            if position >= 0 and runs > 2:
                value += before
            if position < 0 or value < 0:
                totals[mask] = -1
                break
            before, last = last, value
            totals[mask] += value
            if inside:
                areas[mask] += value
            inside = not inside
            runs += 1
    return areas, totals


@dataclass(frozen=True)
class PackedMasks:
    """k compressed encodings in one buffer: a Python object for each of a million would take most of the memory."""

    text: np.ndarray
    """uint8, characters."""
    starts: np.ndarray
    """int64[k], where each begins."""
    ends: np.ndarray
    """int64[k], where each ends."""

    @classmethod
    def of(cls, rles: Sequence[bytes]) -> PackedMasks:
        """Masks from separate encodings."""
        ends = np.cumsum(np.fromiter(map(len, rles), np.int64, len(rles)))
        return cls(np.frombuffer(b"".join(rles), np.uint8), np.append(0, ends[:-1])[: len(rles)], ends)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: np.ndarray) -> PackedMasks:
        """Some of the masks, in the order of ``rows``, on the same buffer."""
        return PackedMasks(self.text, self.starts[rows], self.ends[rows])

    def texts(self) -> list[str]:
        """The encodings one by one."""
        text = self.text.tobytes().decode("latin-1")
        return [text[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist())]

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Areas and numbers of pixels of the masks.

        Returns:
            areas: int64[k], pixels inside the object; 0 is an empty mask.
            totals: int64[k], height times width of the image that the encoding was made for; -1 if it is malformed
                (characters outside the alphabet, an unfinished number, a negative run).
        """
        return _measure(self.text, self.starts, self.ends)
