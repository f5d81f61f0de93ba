"""The views of an image that multi-scale testing looks at: sizes, flips, resized pixels, boxes there and back.

Sizes, resampling and box arithmetic are those of detectron2's test-time augmentation (ResizeShortestEdge, Pillow's
bilinear filter, float32), so that its results are reproduced. Unlike there, each view is resized from the original
pixels, and scales that the limit of the longer edge makes equal are one view, which is computed and counted once.

Symbols: H, W size of the original image; h, w size of a view; N images of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.images import UnreadableImageError, fit_size, read_image


@dataclass(frozen=True)
class View:
    """One size of an image, perhaps mirrored."""

    height: int
    width: int
    flip: bool = False

    def boxes_to_view(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Boxes float32[n, 4] of an image of (H, W), in this view's pixels."""
        boxes = boxes * self._scale(boxes, image_size, (self.height, self.width))
        return self._mirrored(boxes) if self.flip else boxes

    def boxes_to_image(self, boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Boxes float32[n, 4] of this view, in pixels of the image of (H, W)."""
        boxes = self._mirrored(boxes) if self.flip else boxes
        return boxes * self._scale(boxes, (self.height, self.width), image_size)

    @staticmethod
    def _scale(boxes: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
        vertical, horizontal = (to / of for to, of in zip(new, old))
        return boxes.new_tensor([horizontal, vertical, horizontal, vertical])

    def _mirrored(self, boxes: Tensor) -> Tensor:
        x1, y1, x2, y2 = boxes.unbind(1)
        return torch.stack((self.width - x2, y1, self.width - x1, y2), dim=1)

    def render(self, image: np.ndarray) -> Tensor:
        """The view's pixels, uint8[3, h, w], from the original image uint8[H, W, 3]."""
        if image.shape[:2] != (self.height, self.width):
            image = np.asarray(Image.fromarray(image).resize((self.width, self.height), Image.Resampling.BILINEAR))
        if self.flip:
            image = image[:, ::-1]
        return torch.from_numpy(image.transpose(2, 0, 1).copy())


def plan_views(height: int, width: int, scales: Sequence[int], longer_edge: int, flip: bool) -> tuple[View, ...]:
    """Distinct views of an image in the order of ``scales``, its shorter edges; ``flip`` adds each one mirrored."""
    sizes = dict.fromkeys(fit_size(height, width, scale, longer_edge) for scale in scales)
    return tuple(View(*size, mirrored) for size in sizes for mirrored in (False, True)[: 1 + flip])


@dataclass(frozen=True)
class RenderedImages:
    """N images of one size with the pixels of all their distinct views."""

    image_size: tuple[int, int]
    """(H, W) of the original images."""
    views: tuple[View, ...]
    pixels: tuple[tuple[Tensor, ...], ...]
    """For each view, N tensors uint8[3, h, w] in BGR order."""


def render_images(images: Sequence[np.ndarray], scales: Sequence[int], longer_edge: int, flip: bool) -> RenderedImages:
    """Resize N images uint8[H, W, 3] of one size to all views."""
    height, width = images[0].shape[:2]
    views = plan_views(height, width, scales, longer_edge, flip)
    pixels = tuple(tuple(view.render(image) for image in images) for view in views)
    return RenderedImages((height, width), views, pixels)


def load_image(path: Path, height: int, width: int, image_id: int) -> np.ndarray:
    """Read an image file: uint8[height, width, 3], BGR.

    Raises:
        UserError: missing, truncated, no image, or not of the size that the data set says.
    """
    try:
        return read_image(path, height, width)
    except UnreadableImageError as error:
        raise UserError(
            f"image {image_id} cannot be tested: {error}; get the file again, every image of the split is needed"
        ) from None
