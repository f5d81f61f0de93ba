"""Multi-scale testing (paper, section 5): boxes of all views of an image merged per category, and masks of given boxes.

One pass of the backbone for each distinct view (scales that give the same size are one view). The detections of a view
are those of detectron2 at that size (:mod:`pipeline_steps.inference.postprocess`). The merge is that of detectron2's
test-time augmentation: per-category NMS of all views' detections with a score above 1e-8, then the best ``keep``.
Weighted-box fusion can be chosen instead. Soft masks are averaged over all views and mask models before the threshold.

Symbols: N images of a batch, R proposals, C categories, k boxes of one image, m edge of a soft mask (28), M models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from pipeline_steps.detections.fusion import weighted_fusion
from pipeline_steps.inference.postprocess import Detections, merge_detections, select_detections_from_deltas
from pipeline_steps.inference.rle import encode_box_masks
from pipeline_steps.inference.views import RenderedImages, View
from pipeline_steps.modeling.device import autocast
from pipeline_steps.recipe.testing import Testing
from pipeline_steps.recipe.training import Precision

if TYPE_CHECKING:
    from detectron2.structures import ImageList

    from pipeline_steps.modeling.rcnn import LvisRCNN


def extract_features(
    model: LvisRCNN, images: RenderedImages, precision: Precision
) -> Iterator[tuple[View, ImageList, dict[str, Tensor]]]:
    """Each distinct view with its normalised images and feature maps, one view at a time."""
    for view, pixels in zip(images.views, images.pixels):
        with autocast(model.device, precision):
            prepared = model.preprocess_image([{"image": image} for image in pixels])
            yield view, prepared, model.extract_features(prepared)


def detect_in_view(
    model: LvisRCNN, prepared: ImageList, features: dict[str, Tensor], testing: Testing, precision: Precision
) -> list[Detections]:
    """Detections of N images in one view, in its pixels."""
    with autocast(model.device, precision):
        proposals = model.propose(prepared, features)
        logits, deltas = model.roi_heads.box_predictions(features, proposals)
        scores = model.scores(logits)
        counts = [len(image) for image in proposals]
        return [
            select_detections_from_deltas(
                deltas_of_image,
                image.proposal_boxes.tensor,
                model.decode,
                scores_of_image,
                image.image_size,
                testing.score_threshold,
                testing.nms_iou,
                testing.keep_per_image,
            )
            for image, scores_of_image, deltas_of_image in zip(proposals, scores.split(counts), deltas.split(counts))
        ]


def _fuse(
    boxes: Tensor, scores: Tensor, categories: Tensor, count: int, images: RenderedImages, testing: Testing
) -> Detections:
    """Weighted-box fusion with the views as members; boxes without area are left out, as in the ensemble."""
    boxes = clip_boxes_to_image(boxes, images.image_size)
    sized = torch.nonzero((boxes[:, 2:] > boxes[:, :2]).all(dim=1))[:, 0]
    views = np.full(count, len(images.views))
    fused = weighted_fusion(
        boxes[sized].cpu().numpy(),
        scores[sized].cpu().numpy(),
        categories[sized].cpu().numpy(),
        testing.nms_iou,
        views,
        views.astype(np.float64),
    )
    keep = testing.keep_per_image
    index = sized.cpu()[torch.from_numpy(fused.index[:keep])]
    return Detections(
        torch.from_numpy(fused.boxes[:keep]).float().to(boxes.device),
        torch.from_numpy(fused.scores[:keep]).float().to(boxes.device),
        categories.cpu()[index].to(boxes.device),
        index.to(boxes.device),
    )


@torch.inference_mode()
def detect_boxes(
    model: LvisRCNN, images: RenderedImages, testing: Testing, precision: Precision = "fp32"
) -> list[Detections]:
    """Multi-scale detections of N images of one size.

    Args:
        model: in evaluation mode.

    Returns:
        For each image boxes float32[k, 4] in original pixels, scores, categories (0-based), best first.
    """
    of_views = [
        detect_in_view(model, prepared, features, testing, precision)
        for _, prepared, features in extract_features(model, images, precision)
    ]
    merged = []
    for of_image in zip(*of_views, strict=True):
        boxes = [view.boxes_to_image(found.boxes, images.image_size) for view, found in zip(images.views, of_image)]
        scores = torch.cat([found.scores for found in of_image])
        categories = torch.cat([found.categories for found in of_image])
        together = torch.cat(boxes), scores, categories, model.roi_heads.num_classes
        if testing.scale_fusion == "wbf":
            merged.append(_fuse(*together, images, testing))
        else:
            merged.append(merge_detections(*together, images.image_size, testing.nms_iou, testing.keep_per_image))
    return merged


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
        masks = model.roi_heads.soft_masks(features, in_view)
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
