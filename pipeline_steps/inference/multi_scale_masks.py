"""Multi-scale mask testing (paper, section 5): soft masks of given boxes, averaged before the threshold.

The average runs over all views (scales that give the same size are one view) and mask models. Masks are
class-agnostic, so boxes that several detections share get one mask.

Symbols: N images of a batch, k boxes of one image, m edge of a soft mask (28), M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline_steps.inference.multi_scale_boxes import extract_features
from pipeline_steps.inference.rle import encode_box_masks
from pipeline_steps.inference.views import RenderedImages, View
from pipeline_steps.modeling.device import autocast
from pipeline_steps.recipe.training import Precision

if TYPE_CHECKING:
    from pipeline_steps.modeling.rcnn import LvisRCNN


def masks_in_view(
    model: LvisRCNN,
    view: View,
    features: dict[str, Tensor],
    boxes: Sequence[Tensor],
    image_size: tuple[int, int],
    precision: Precision,
) -> list[Tensor]:
    """Soft masks float32[k, m, m] of N images' boxes float32[k, 4] (original pixels), seen in one view."""
    with autocast(model.device, precision):
        in_view = [view.boxes_to_view(of_image.to(model.device), image_size) for of_image in boxes]
        masks = model.soft_masks(features, in_view)
    return [of_image.flip(2) for of_image in masks] if view.flip else list(masks)


@torch.inference_mode()
def average_soft_masks(
    models: Sequence[LvisRCNN], images: RenderedImages, boxes: Sequence[Tensor], precisions: Sequence[Precision] = ()
) -> list[Tensor]:
    """Soft masks of given boxes over all views and models.

    Args:
        models: M models in evaluation mode.
        images: N images of one size.
        boxes: for each image float32[k, 4] in original pixels.
        precisions: of each model; none for fp32.

    Returns:
        For each image float32[k, m, m].
    """
    of_models: Sequence[Precision] = precisions or ["fp32"] * len(models)
    of_views = [
        masks_in_view(model, view, features, boxes, images.image_size, precision)
        for model, precision in zip(models, of_models, strict=True)
        for view, _, features in extract_features(model, images, precision)
    ]
    return [torch.stack(of_image).mean(dim=0) for of_image in zip(*of_views)]


def unique_boxes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct rows of boxes float32[k, 4] in order of first occurrence, and for each row its position among them."""
    rows = np.ascontiguousarray(boxes, np.float32).view(np.dtype((np.void, 16))).reshape(-1)
    _, first, inverse = np.unique(rows, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return boxes[np.sort(first)], rank[inverse]


def predict_rles(
    models: Sequence[LvisRCNN],
    images: RenderedImages,
    boxes: Sequence[np.ndarray],
    precisions: Sequence[Precision] = (),
) -> list[list[bytes]]:
    """Compressed COCO counts of the masks of given boxes, thresholded at 0.5.

    Args:
        boxes: for each of N images float32[k, 4] in original pixels; equal boxes get one mask.
        precisions: of each model; none for fp32.

    Returns:
        For each image k counts; the size is the image's. A mask may be empty.
    """
    unique = [unique_boxes(of_image) for of_image in boxes]
    soft = average_soft_masks(models, images, [torch.from_numpy(distinct) for distinct, _ in unique], precisions)
    result = []
    for masks, (distinct, index) in zip(soft, unique):
        encoded = encode_box_masks(masks, torch.from_numpy(distinct), *images.image_size)
        result.append([encoded[i]["counts"] for i in index])
    return result
