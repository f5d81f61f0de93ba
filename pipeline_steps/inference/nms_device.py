"""Lazy NMS with tensor operations, for scores that live on a GPU (it runs on a CPU, too, where the tests check it).

Greedy NMS of a chunk of candidates, best first, is the unique fixed point of
``keep[j] = alive[j] and not any(keep[i] and suppresses[i, j] for i < j)``: starting from ``alive``, each round settles
at least one more candidate of every chain of suppressions, so a few rounds suffice.

A GPU kernel may round an IoU differently from a sequence of tensor operations. Pairs whose IoU is within ``GUARD`` of
the threshold are therefore decided by torchvision's own nms kernel, so that the result is what detectron2 computes on
the same device.

Symbols: C categories, n candidates of a chunk, k kept.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from pipeline_steps.inference.lazy_nms import split_index

CHUNK = 4096
"""Candidates per chunk: the matrix of overlaps within a chunk takes 16 M entries."""

GUARD = 1e-5
"""An IoU this near to the threshold is computed again by torchvision; rounding moves an IoU by less than 1e-6."""

CLOSE_CALLS = 500
"""Pairs within the guard that are decided one by one."""


class TooManyCloseCalls(Exception):
    """So many IoUs lie at the threshold that deciding them one by one would take longer than NMS of everything."""


def suppression_matrix(better: Tensor, worse: Tensor, same_category: Tensor, threshold: float) -> Tensor:
    """bool[a, b]: box a of ``better`` suppresses box b of ``worse``, as torchvision's nms on this device decides.

    Raises:
        TooManyCloseCalls: more than ``CLOSE_CALLS`` pairs of one category have an IoU at the threshold.
    """
    overlap = box_iou(better, worse).double()  # NaN for two boxes without area
    suppresses = (overlap > threshold) & same_category
    close = torch.nonzero(((overlap - threshold).abs() <= GUARD) & same_category)
    if len(close) > CLOSE_CALLS:
        raise TooManyCloseCalls
    for row, column in close.tolist():
        pair = torch.stack((better[row], worse[column]))
        suppresses[row, column] = len(nms(pair, pair.new_tensor([1.0, 0.0]), threshold)) == 1
    return suppresses


def keep_greedily_by_rounds(alive: Tensor, suppresses: Tensor) -> Tensor:
    """bool[n] of the candidates kept by greedy NMS.

    Args:
        alive: bool[n], best first; False for candidates that are suppressed already.
        suppresses: bool[n, n], zero on and below the diagonal.
    """
    keep = alive
    while True:
        following = alive & ~(suppresses & keep[:, None]).any(dim=0)
        if torch.equal(following, keep):
            return keep
        keep = following


def select_lazily_on_device(
    boxes_of: Callable[[Tensor, Tensor], Tensor],
    flat: Tensor,
    categories: int,
    score_threshold: float,
    nms_threshold: float,
    top_k: int,
    chunk: int = CHUNK,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The ``top_k`` > 0 best detections after per-category NMS; arguments and results as in ``select_lazily``.

    Raises:
        TooManyCloseCalls: see :func:`suppression_matrix`.
    """
    boxes = flat.new_empty((0, 4))
    scores = flat.new_empty(0)
    index = torch.empty(0, dtype=torch.long, device=flat.device)
    remaining = torch.where(flat > score_threshold, flat, -torch.inf)
    while len(index) < top_k:
        lower = torch.topk(remaining, min(chunk, len(flat)), sorted=False).values.min()
        exhausted = bool(lower == -torch.inf)
        found = torch.nonzero(remaining > lower if exhausted else remaining >= lower)[:, 0]  # ties stay together
        found = found[flat[found].sort(descending=True, stable=True).indices]
        for part in found.split(chunk):
            proposals, category = split_index(part, categories)
            new_boxes = boxes_of(proposals, category)
            kept_category = index % categories
            suppressed = suppression_matrix(
                boxes, new_boxes, kept_category[:, None] == category[None, :], nms_threshold
            ).any(dim=0)
            following = torch.triu(category[:, None] == category[None, :], diagonal=1)
            within = suppression_matrix(new_boxes, new_boxes, following, nms_threshold)
            keep = torch.nonzero(keep_greedily_by_rounds(~suppressed, within))[:, 0]
            boxes = torch.cat((boxes, new_boxes[keep]))
            scores = torch.cat((scores, flat[part[keep]]))
            index = torch.cat((index, part[keep]))
            if len(index) >= top_k:
                break
        if exhausted:
            break
        remaining[found] = -torch.inf
    index = index[:top_k]
    proposals, category = split_index(index, categories)
    return boxes[:top_k], scores[:top_k], category, proposals
