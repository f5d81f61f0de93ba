"""Classification losses of the box head and the weights that the paper puts into them. Pure torch.

Symbols:
    R: proposals of a batch, combined over its images
    C: foreground categories; label C is background
    N: images of the batch
    n: regions (boxes with a weight) of one image
    w[r, j]: weight of category j in the loss of proposal r
    S_P(i), S_N(i): categories annotated in image i, categories verified to be absent from image i

Every loss is the weighted sum over proposals and categories, divided by R (background and zero-weight rows count).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_PER_BLOCK = 128
"""Rows handled together on a CPU: a block of 128 x 1230 floats stays in the second-level cache (measured)."""

GROUP_OVERLAP = 0.5
"""A proposal of which more than this part lies in a group of objects is ignored, as in the evaluation of COCO and
OpenImages."""

_SOFTPLUS_LINEAR_FROM = 60.0
"""softplus(x) is x above this; exp(60) still fits into float32."""


def equalization_weights(labels: Tensor, image_index: Tensor, tail: Tensor, judged: Tensor) -> Tensor:
    """Weights of the equalization loss (the paper, equation 4).

    w[r, j] = 0 if proposal r is foreground and category j is rare or common and j is neither annotated nor verified
    to be absent in the proposal's image; 1 otherwise. The condition concerns category j, as in the equation; the
    paper's prose, "its category c is not in the union", would never hold, because c is always annotated.

    Args:
        labels: LongTensor[R], 0..C-1, or C for background.
        image_index: LongTensor[R], image of the proposal, 0..N-1.
        tail: BoolTensor[C], whether a category is rare or common.
        judged: BoolTensor[N, C], S_P united with S_N of each image.

    Returns:
        float32 Tensor[R, C] of zeros and ones.
    """
    foreground_rows = (judged | ~tail).float()  # (N, C)
    background_row = foreground_rows.new_ones(1, len(tail))
    table = torch.cat([foreground_rows, background_row])  # (N + 1, C)
    return table.index_select(0, torch.where(labels < len(tail), image_index, len(judged)))


def own_category_judged(labels: Tensor, category_count: int) -> tuple[Tensor, Tensor]:
    """``(image_index[R], judged[R, C])`` that judge nothing but a proposal's own category.

    With them, :func:`equalization_weights` ignores S_P and S_N, as the public code of the loss does.
    """
    judged = torch.zeros(len(labels), category_count + 1, dtype=torch.bool, device=labels.device)
    judged.scatter_(1, labels[:, None], True)
    return torch.arange(len(labels), device=labels.device), judged[:, :category_count]


def region_row_weights(
    boxes: Tensor,
    labels: Tensor,
    region_boxes: Tensor,
    region_weights: Tensor,
    iou: float,
    category_count: int,
    region_groups: Tensor | None = None,
) -> Tensor:
    """Row weights of the proposals of one image (COCO Ignore: the paper, section 3.1; groups of objects: weight 0).

    A background proposal that hits a region gets the region's weight, the smallest if it hits several. All other
    proposals get 1. A region around one object is hit by an IoU above ``iou``. A region around many objects (group-of
    boxes of OpenImages, crowds of COCO) is larger than any of them: it is hit if more than ``GROUP_OVERLAP`` of the
    proposal's own area lies in it.

    Args:
        boxes: Tensor[R, 4], proposals of one image, x1 y1 x2 y2.
        labels: LongTensor[R], ``category_count`` is background.
        region_boxes: Tensor[n, 4], in the same coordinates.
        region_weights: Tensor[n], e.g. beta = 0.5 for boxes that COCO annotates.
        iou: threshold for regions around one object.
        category_count: C.
        region_groups: BoolTensor[n], regions around many objects; None: there are none.

    Returns:
        float32 Tensor[R].
    """
    weights = torch.ones(len(boxes), device=boxes.device)
    if len(region_boxes) == 0 or len(boxes) == 0:
        return weights
    own, regions = boxes.float()[:, None], region_boxes.float()[None]
    extents = torch.minimum(own[..., 2:], regions[..., 2:]) - torch.maximum(own[..., :2], regions[..., :2])
    shared = extents.clamp(min=0).prod(dim=2)  # (R, n)
    own_area = (own[..., 2:] - own[..., :2]).prod(dim=2)  # (R, 1)
    whole = own_area + (regions[..., 2:] - regions[..., :2]).prod(dim=2) - shared
    hit = shared / whole > iou
    if region_groups is not None:
        hit = torch.where(region_groups[None], shared / own_area > GROUP_OVERLAP, hit)
    hit &= (labels == category_count)[:, None]
    return torch.where(hit, region_weights.float()[None], weights[:, None]).amin(dim=1)


def classification_weights(
    labels: Tensor,
    image_index: Tensor,
    *,
    tail: Tensor | None = None,
    judged: Tensor | None = None,
    known: Tensor | None = None,
    row_weights: Tensor | None = None,
) -> Tensor | None:
    """All weights of the sigmoid loss together: the product of the parts that are given.

    Args:
        labels: LongTensor[R], 0..C-1, or C for background.
        image_index: LongTensor[R], image of the proposal, 0..N-1.
        tail: BoolTensor[C], turns the equalization loss on (:func:`equalization_weights`).
        judged: BoolTensor[N, C] of S_P and S_N; None with ``tail`` judges only the proposal's own category.
        known: BoolTensor[N, C]; an unknown category gets no loss in its image, background proposals included.
        row_weights: Tensor[R], from :func:`region_row_weights`.

    Returns:
        float32 Tensor[R, C], Tensor[R, 1] if only the rows differ, or None if all weights are 1.
    """
    weights: Tensor | None = None
    if tail is not None and judged is not None:
        weights = equalization_weights(labels, image_index, tail, judged)
    elif tail is not None:
        own_index, own_judged = own_category_judged(labels, len(tail))
        weights = equalization_weights(labels, own_index, tail, own_judged)
    for factor in (
        None if known is None else known.float().index_select(0, image_index),
        None if row_weights is None else row_weights.float()[:, None],
    ):
        if factor is not None:
            # In place: one pass over (R, C) less. equalization_weights has made a tensor of its own.
            weights = factor if weights is None else weights.mul_(factor)
    return weights


class _WeightedSigmoidLoss(torch.autograd.Function):
    """sum_rj w_rj BCE(x_rj, y_rj) / R, saving one tensor: its derivative.

    With y the one-hot labels, BCE(x, y) = softplus(x) - x y and its derivative is sigmoid(x) - y, where
    sigmoid(x) = exp(x - softplus(x)) costs one exponential and keeps its relative precision far below zero, where
    the logits of rare categories are. Value and derivative come from one pass over the logits in cache-sized blocks.
    Differentiable once: the derivative is stored as a constant.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        row_count, category_count = logits.shape
        ctx.input_dtype = logits.dtype
        x = logits if logits.dtype == torch.float64 else logits.float()
        derivative = torch.empty_like(x, memory_format=torch.contiguous_format)
        total = x.new_zeros(())
        step = row_count if x.is_cuda else _ROWS_PER_BLOCK
        for start in range(0, row_count, step):
            rows = slice(start, start + step)
            losses = F.softplus(x[rows], threshold=_SOFTPLUS_LINEAR_FROM)
            torch.sub(x[rows], losses, out=derivative[rows]).exp_()
            if weights is None:
                total += losses.sum()
            else:
                block = weights[rows].expand_as(losses).to(x.dtype)
                derivative[rows].mul_(block)
                total += losses.mul_(block).sum()
        # The own category of every row; for background some category with weight 0. No nonzero(): on a GPU it would
        # wait for the device.
        own = (torch.arange(row_count, device=x.device), labels.clamp(max=category_count - 1))
        own_weights = (labels < category_count).to(x.dtype)
        if weights is not None:
            own_weights = own_weights * weights.expand_as(x)[own]
        total -= (x[own] * own_weights).sum()
        derivative[own] -= own_weights
        ctx.save_for_backward(derivative)
        return total / row_count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (derivative,) = ctx.saved_tensors
        return (derivative * (gradient / len(derivative))).to(ctx.input_dtype), None, None


def sigmoid_classification_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sigmoid cross-entropy over C categories (the paper, equations 1 to 3).

    Args:
        logits: Tensor[R, C], any floating type; computed in float32 (float64 stays float64).
        labels: LongTensor[R], 0..C-1, or C for background (no positive category).
        weights: Tensor[R, C], or [R, 1] for row weights, or None for ones. Not differentiated.

    Returns:
        Scalar: sum over proposals and categories, divided by R; 0 (still connected to ``logits``) if R is 0.
        It can be differentiated once, not twice.
    """
    if len(logits) == 0:
        return logits.sum() * 0.0
    with torch.autocast(logits.device.type, enabled=False):
        return _WeightedSigmoidLoss.apply(logits, labels, weights)


def softmax_classification_loss(
    logits: Tensor, labels: Tensor, row_weights: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """Softmax cross-entropy over C categories and background, the paper's first baseline.

    Args:
        logits: Tensor[R, C + 1], the last column is background; computed in float32 (float64 stays float64).
        labels: LongTensor[R], 0..C.
        row_weights: Tensor[R] or None for ones.
        known: BoolTensor[R, C] or None: unknown categories leave the softmax of their row and get no gradient.

    Returns:
        Scalar: sum of the rows' losses, divided by R; 0 (still connected to ``logits``) if R is 0.
    """
    if len(logits) == 0:
        return logits.sum() * 0.0
    with torch.autocast(logits.device.type, enabled=False):
        x = logits if logits.dtype == torch.float64 else logits.float()
        if known is not None:
            takes_part = F.pad(known, (0, 1), value=True).scatter(1, labels[:, None], True)
            x = x.masked_fill(~takes_part, -torch.inf)
        losses = F.cross_entropy(x, labels, reduction="none")
        return (losses if row_weights is None else losses * row_weights).sum() / len(logits)
