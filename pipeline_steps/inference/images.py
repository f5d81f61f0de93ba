"""The views of an image that multi-scale testing looks at: sizes, flips, resized pixels, boxes there and back.

Sizes, resampling and box arithmetic are those of detectron2's test-time augmentation (ResizeShortestEdge, Pillow's
bilinear filter, float32), so that its results are reproduced. Unlike there, each view is resized from the original
pixels, and scales that the longest edge makes equal give one view, which counts as often as it was asked for.

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
from pipeline_steps.data.images import UnreadableImageError, read_image


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


@dataclass(frozen=True)
class ViewPlan:
    """The views of images of one size.

    Attributes:
        views: distinct views.
        order: for each scale (and flip) asked for, the position of its view in ``views``; equal ones repeat.
    """

    views: tuple[View, ...]
    order: tuple[int, ...]

    @property
    def pixels(self) -> int:
        """Pixels that the network sees."""
        return sum(view.height * view.width for view in self.views)


def plan_views(height: int, width: int, scales: Sequence[int], longer_edge: int, flip: bool) -> ViewPlan:
    """Views of an image of the given size.

    Args:
        scales: shorter edges.
        longer_edge: limit of the longer edge.
        flip: whether each size is also looked at mirrored.
    """
    views: dict[View, int] = {}
    order = []
    for scale in scales:
        size = fit_size(height, width, scale, longer_edge)
        for mirrored in (False, True)[: 1 + flip]:
            order.append(views.setdefault(View(*size, mirrored), len(views)))
    return ViewPlan(tuple(views), tuple(order))


def fit_size(height: int, width: int, shorter_edge: int, longer_edge: int) -> tuple[int, int]:
    """Size after resizing, rounded as detectron2's ``ResizeShortestEdge.get_output_shape`` does, step by step."""
    scale = shorter_edge / min(height, width)
    new_height, new_width = (shorter_edge, scale * width) if height < width else (scale * height, shorter_edge)
    if max(new_height, new_width) > longer_edge:
        scale = longer_edge / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


@dataclass(frozen=True)
class RenderedImages:
    """N images of one size with the pixels of all their views.

    Attributes:
        image_size: (H, W) of the original images.
        plan: their views.
        pixels: for each distinct view, N tensors uint8[3, h, w] in BGR order.
    """

    image_size: tuple[int, int]
    plan: ViewPlan
    pixels: tuple[tuple[Tensor, ...], ...]

    def __len__(self) -> int:
        return len(self.pixels[0])


def render_images(images: Sequence[np.ndarray], scales: Sequence[int], longer_edge: int, flip: bool) -> RenderedImages:
    """Resize N images uint8[H, W, 3] of one size to all views."""
    height, width = images[0].shape[:2]
    plan = plan_views(height, width, scales, longer_edge, flip)
    return RenderedImages(
        (height, width), plan, tuple(tuple(view.render(image) for image in images) for view in plan.views)
    )


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
