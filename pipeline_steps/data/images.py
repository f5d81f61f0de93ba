"""Reading and resizing images, the same way in training and testing.

Arrays are uint8[H, W, 3] in BGR order, detectron2's default.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

cv2.setNumThreads(0)  # parallelism comes from processes: threads of every loader worker would fight for the cores


class UnreadableImageError(Exception):
    """An image file that cannot be used. ``path`` is the file, ``reason`` says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read_image(path: str | Path, height: int, width: int) -> np.ndarray:
    """Decode an image file; its EXIF orientation is applied.

    Args:
        path: the file.
        height, width: the size that the annotations were made for, in pixels.

    Returns:
        uint8[height, width, 3], BGR.

    Raises:
        UnreadableImageError: missing, empty, truncated, no image, or not of the stated size.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UnreadableImageError(str(path), error.strerror or str(error)) from None
    if not content:
        raise UnreadableImageError(str(path), "the file is empty")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UnreadableImageError(str(path), f"truncated, damaged or not an image ({len(content)} bytes)")
    if image.shape[:2] != (height, width):
        raise UnreadableImageError(
            str(path), f"is {image.shape[1]} x {image.shape[0]} pixels, but its annotations say {width} x {height}"
        )
    return image


def fit_size(height: int, width: int, shorter_edge: int, longer_edge: int) -> tuple[int, int]:
    """Size (height, width) with the given shorter edge, or less where the longer edge would exceed its limit.

    Computed step by step as detectron2's ``ResizeShortestEdge.get_output_shape`` does, so that rounding agrees for all
    sizes; a size of 0, which it can return, becomes 1.
    """
    scale = shorter_edge / min(height, width)
    new_height, new_width = (shorter_edge, scale * width) if height < width else (scale * height, shorter_edge)
    if max(new_height, new_width) > longer_edge:
        scale = longer_edge / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize to uint8[height, width, 3].

    Enlarging takes OpenCV, which is seven times faster than Pillow and differs by at most one grey level; shrinking
    takes Pillow, because OpenCV's bilinear filter would alias.
    """
    if image.shape[:2] == (height, width):
        return image
    if height >= image.shape[0] and width >= image.shape[1]:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
