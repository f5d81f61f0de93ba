"""Box post-processing: the best detections of an image after per-category NMS, found without looking at all of them.

With 1,230 sigmoid scores for each of 1,000 proposals and the paper's score threshold of 0.0 (section 4.1), all 1.23
million pairs are candidates, but the 300 detections that are kept lie among the few thousand best. NMS is greedy from
the best score down, so a detection depends on better ones only: candidates are taken in chunks of descending score
until ``top_k`` are kept. Nothing below the last chunk is sorted, decoded, clipped or compared.

The result is that of detectron2's ``fast_rcnn_inference_single_image``, to the last bit, for any input:

- A row (proposal) with a NaN or infinite score or box is left out, and ``proposal_index`` counts the rows that are
  left, as detectron2's does. Background scores are no input here, so they leave no row out.
- Candidates are scores > ``score_threshold``, compared in float32; boxes are clipped to the image.
- Up to 1,000 candidates (CPU; 25,000 on a GPU), torchvision separates categories by adding an offset to the boxes,
  which rounds them. That path is torchvision's own code here, too. Above, NMS is per category on the exact boxes.
- Ties: score descending, then ascending flat index (proposal * C + category). torchvision uses this rule inside NMS,
  but its last sort above 1,000 candidates is not stable, so detectron2's own order of equal scores is arbitrary.

Symbols: R proposals, C categories, n candidates, k detections.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from pipeline_steps.inference.lazy_nms import KeptDetections, all_finite, count_above, select_lazily, split_index
from pipeline_steps.inference.nms_device import TooManyCloseCalls, select_lazily_on_device

OFFSET_NMS_CANDIDATES = {"cpu": 1000, "cuda": 25_000}
"""Up to this many candidates torchvision's batched_nms separates categories by an offset (tested)."""

MERGE_SCORE_THRESHOLD = 1e-8
"""detectron2's test-time augmentation merges detections with a score above this."""

BoxesOf = Callable[[Tensor, Tensor], Tensor]
"""(proposals LongTensor[n], categories LongTensor[n]) -> their boxes float32[n, 4], clipped to the image."""


class Detections(NamedTuple):
    """Detections of one image, best first."""

    boxes: Tensor
    """float32[k, 4], x1 y1 x2 y2 in pixels of ``image_size``."""
    scores: Tensor
    """float32[k]."""
    categories: Tensor
    """int64[k], 0-based."""
    proposal_index: Tensor
    """int64[k], row among the rows without NaN and infinities."""


@torch.no_grad()
def select_detections(
    boxes: Tensor, scores: Tensor, image_size: tuple[int, int], score_threshold: float, nms_threshold: float, top_k: int
) -> Detections:
    """The ``top_k`` best detections after per-category NMS, as detectron2's ``fast_rcnn_inference`` finds them.

    Args:
        boxes: float32[R, 4] (class-agnostic) or float32[R, C * 4], decoded, in pixels of ``image_size``.
        scores: float32[R, C] without a background column; other types are converted.
        image_size: (height, width).
        score_threshold: only scores above this.
        nms_threshold: IoU above which the worse of two detections of a category is dropped.
        top_k: number of detections kept; negative keeps all.

    Returns:
        (boxes[k, 4], scores[k], categories[k], proposal_index[k]) on the device of the input.

    Raises:
        ValueError: shapes that do not fit.
    """
    boxes, scores = boxes.detach().float(), scores.detach().float()
    _check_shapes(boxes, scores, "boxes")
    if not (_is_finite(boxes) and _is_finite(scores)):
        valid = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
        boxes, scores = boxes[valid], scores[valid]
    own = _of_categories(boxes)

    def boxes_of(proposals: Tensor, categories: Tensor) -> Tensor:
        return clip_boxes_to_image(own(proposals, categories), image_size)

    return _select(boxes_of, scores, score_threshold, nms_threshold, top_k)


@torch.no_grad()
def select_detections_from_deltas(
    deltas: Tensor,
    proposals: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    scores: Tensor,
    image_size: tuple[int, int],
    score_threshold: float,
    nms_threshold: float,
    top_k: int,
) -> Detections:
    """:func:`select_detections` on boxes that are decoded only for the candidates that are looked at.

    Args:
        deltas: float32[R, 4] or float32[R, C * 4], predicted box regression.
        proposals: float32[R, 4].
        decode: (deltas[n, 4 or C * 4], proposals[n, 4]) -> boxes float32[n, 4 or C * 4], such as ``LvisRCNN.decode``;
            each row and category by itself.
        scores, image_size, score_threshold, nms_threshold, top_k: as in :func:`select_detections`.
    """
    deltas, proposals, scores = deltas.detach().float(), proposals.detach().float(), scores.detach().float()
    _check_shapes(deltas, scores, "deltas")
    if not (_decodes_to_finite(deltas) and _decodes_to_finite(proposals) and _is_finite(scores)):
        boxes = decode(deltas, proposals)
        return select_detections(boxes, scores, image_size, score_threshold, nms_threshold, top_k)
    own = _of_categories(deltas)

    def boxes_of(index: Tensor, categories: Tensor) -> Tensor:
        return clip_boxes_to_image(decode(own(index, categories), proposals[index]), image_size)

    return _select(boxes_of, scores, score_threshold, nms_threshold, top_k)


@torch.no_grad()
def merge_detections(
    boxes: Tensor,
    scores: Tensor,
    categories: Tensor,
    category_count: int,
    image_size: tuple[int, int],
    nms_threshold: float,
    top_k: int,
    score_threshold: float = MERGE_SCORE_THRESHOLD,
) -> Detections:
    """Merge detections of several views of one image by per-category NMS, as detectron2's test-time augmentation does.

    Args:
        boxes: float32[n, 4] in pixels of the original image.
        scores: float32[n].
        categories: int64[n], 0-based, below ``category_count``.
        image_size: (height, width) of the original image; boxes are clipped to it.

    Returns:
        As :func:`select_detections`; ``proposal_index`` is the position in the input among the finite ones.
    """
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
    boxes, scores, categories = clip_boxes_to_image(boxes[finite], image_size), scores[finite], categories[finite]
    candidates = torch.nonzero(scores > score_threshold)[:, 0]
    boxes, scores, categories = boxes[candidates], scores[candidates], categories[candidates]
    if boxes.device.type != "cpu" or len(boxes) <= _offset_nms_limit(boxes):
        keep = _batched_nms(boxes, scores, categories, nms_threshold)
        keep = keep[:top_k] if top_k >= 0 else keep
    else:
        order = torch.sort(scores, descending=True, stable=True).indices
        kept = KeptDetections(len(order) if top_k < 0 else min(top_k, len(order)), category_count)
        kept.extend(boxes[order], categories[order], nms_threshold)
        keep = order[torch.from_numpy(kept.position[: kept.count])]
    return Detections(boxes[keep], scores[keep], categories[keep], candidates[keep])


def _of_categories(values: Tensor) -> BoxesOf:
    """What picks the four values of rows and categories LongTensor[n] out of values[R, 4] or [R, C * 4]."""
    by_category = values.reshape(len(values), values.shape[1] // 4, 4)
    return lambda rows, categories: by_category[rows, categories if by_category.shape[1] > 1 else 0]


def _check_shapes(boxes: Tensor, scores: Tensor, what: str) -> None:
    if scores.ndim != 2 or boxes.ndim != 2 or len(boxes) != len(scores):
        raise ValueError(f"{what}[R, 4 or C * 4] and scores[R, C] expected, got {boxes.shape} and {scores.shape}")
    if boxes.shape[1] not in (4, 4 * scores.shape[1]):
        raise ValueError(f"{what} have {boxes.shape[1]} columns, neither 4 nor 4 * {scores.shape[1]}")


def _is_finite(values: Tensor) -> bool:
    if values.device.type != "cpu":
        return bool(torch.isfinite(values).all())
    return all_finite(values.contiguous().view(-1).numpy().view(np.uint32))


def _decodes_to_finite(values: Tensor) -> bool:
    """Whether numbers are so small that decoding them cannot overflow (a sufficient condition)."""
    if not values.numel():
        return True
    low, high = torch.aminmax(values)
    return bool((low > -1e15) & (high < 1e15))  # False for NaN


def _offset_nms_limit(values: Tensor) -> int:
    return OFFSET_NMS_CANDIDATES["cpu" if values.device.type == "cpu" else "cuda"]


def _batched_nms(boxes: Tensor, scores: Tensor, categories: Tensor, threshold: float) -> Tensor:
    """torchvision's batched_nms with a stable last sort: positions of the kept boxes, best first."""
    keep = batched_nms(boxes, scores, categories, threshold)
    if len(boxes) > _offset_nms_limit(boxes):
        keep = keep.sort().values
        keep = keep[scores[keep].sort(descending=True, stable=True).indices]
    return keep


def _select(boxes_of: BoxesOf, scores: Tensor, score_threshold: float, nms_threshold: float, top_k: int) -> Detections:
    """Choose the path: offset NMS for few candidates, lazy NMS otherwise. ``scores`` are finite."""
    categories = scores.shape[1]
    flat = scores.reshape(-1)
    if flat.device.type == "cpu":
        threshold = np.float32(score_threshold)
        count = count_above(flat.numpy(), threshold)
    else:
        count = int((flat > score_threshold).sum())
    if count > _offset_nms_limit(flat):
        if flat.device.type == "cpu":
            return Detections(*select_lazily(boxes_of, flat, categories, count, threshold, nms_threshold, top_k))
        if top_k >= 0:
            with suppress(TooManyCloseCalls):
                return Detections(
                    *select_lazily_on_device(boxes_of, flat, categories, score_threshold, nms_threshold, top_k)
                )
    index = torch.nonzero(flat > score_threshold)[:, 0]
    proposals, category = split_index(index, categories)
    boxes, chosen = boxes_of(proposals, category), flat[index]
    keep = _batched_nms(boxes, chosen, category, nms_threshold)
    keep = keep[:top_k] if top_k >= 0 else keep
    return Detections(boxes[keep], chosen[keep], category[keep], proposals[keep])
