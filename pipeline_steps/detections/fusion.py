"""Merging boxes of several detectors per category: NMS (the paper's), weighted-box fusion, Gaussian soft-NMS.

Each function is one pass over the detections of one image in order of descending score, compiled with numba.

**Tie rule.** Equal scores keep the order of the input, so that with the members concatenated in the recipe's order the
earlier member wins, and within a member the earlier row. A box that overlaps two clusters equally joins the older one.
Outputs are sorted by score descending, then by input position. Without ties the results are those of the
ensemble-boxes package (Solovyev et al., "Weighted boxes fusion", 2021), whose own order among ties is not defined;
NMS is torchvision's ``nms`` applied to each category, ties and boxes without area included.

Arithmetic is float64; weighted-box fusion rounds the accumulated boxes to float32 after each step, as ensemble-boxes
does. The IoU of two boxes without area is undefined and never above a threshold.

Symbols: n detections of all members of one image, m merged ones, M members; IoU intersection over union.
All take boxes float[n, 4], x1 y1 x2 y2 in any unit; scores float[n], finite; and categories int[n], ids that are
non-negative and small (tables of their size are allocated).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Merged(NamedTuple):
    """Result of a merge, sorted by score descending, then by input position."""

    index: np.ndarray  # type: ignore[assignment]  # hides tuple.index
    """int64[m]: input position of the detection that was kept, or of the first (best) one of a fused cluster."""
    boxes: np.ndarray
    """float64[m, 4]"""
    scores: np.ndarray
    """float64[m]"""


@njit(cache=True, nogil=True, inline="always")
def _iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0.0 or height <= 0.0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@njit(cache=True, nogil=True)
def _nms(boxes, categories, order, threshold):
    kept = np.empty(len(order), np.int64)
    count = 0
    # The kept detections of one category form a chain: newest[category] -> older -> older ... -> -1.
    newest = np.full(categories.max() + 1, -1, np.int64)
    older = np.empty(len(order), np.int64)
    for position in order:
        category = categories[position]
        other = newest[category]
        while other >= 0 and not _iou(boxes[other], boxes[position]) > threshold:
            other = older[other]
        if other < 0:
            older[position] = newest[category]
            newest[category] = position
            kept[count] = position
            count += 1
    return kept[:count]


def nms(boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray, iou: float) -> Merged:
    """Greedy NMS within each category: a box goes if it overlaps a kept better one above ``iou``."""
    boxes, scores, categories, order = _prepare(boxes, scores, categories)
    if not len(order):
        return Merged(order, boxes, scores)
    kept = _nms(boxes, categories, order, iou)
    return Merged(kept, boxes[kept], scores[kept])


@njit(cache=True, nogil=True)
def _weighted_fusion(boxes, scores, categories, order, threshold):
    n = len(order)
    first = np.empty(n, np.int64)
    fused = np.empty((n, 4), np.float64)
    weighted_sum = np.empty((n, 4), np.float32)
    confidence = np.empty(n, np.float64)
    mean = np.empty(n, np.float64)
    size = np.empty(n, np.int64)
    count = 0
    # The clusters of one category form a chain, oldest first: the first of several equal overlaps is taken.
    oldest = np.full(categories.max() + 1, -1, np.int64)
    newest = np.full(categories.max() + 1, -1, np.int64)
    younger = np.empty(n, np.int64)
    for position in order:
        category = categories[position]
        box, score = boxes[position], scores[position]
        best, best_iou = -1, threshold
        cluster = oldest[category]
        while cluster >= 0:
            overlap = _iou(fused[cluster], box)
            if overlap > best_iou:
                best, best_iou = cluster, overlap
            cluster = younger[cluster]
        if best < 0:
            if oldest[category] < 0:
                oldest[category] = count
            else:
                younger[newest[category]] = count
            newest[category] = count
            younger[count] = -1
            first[count] = position
            size[count] = 1
            confidence[count] = mean[count] = score
            for side in range(4):
                fused[count, side] = box[side]
                weighted_sum[count, side] = np.float32(score * box[side])
            count += 1
            continue
        confidence[best] += score
        size[best] += 1
        mean[best] = np.float64(np.float32(confidence[best] / size[best]))
        for side in range(4):
            weighted_sum[best, side] = np.float32(np.float64(weighted_sum[best, side]) + score * box[side])
            if confidence[best] > 0.0:
                fused[best, side] = np.float64(np.float32(np.float64(weighted_sum[best, side]) / confidence[best]))
    return first[:count], fused[:count], mean[:count], size[:count]


def weighted_fusion(
    boxes: np.ndarray,
    scores: np.ndarray,
    categories: np.ndarray,
    iou: float,
    member_count: np.ndarray,
    total_weight: np.ndarray,
) -> Merged:
    """Weighted-box fusion (conf_type "avg", no overflow, of ensemble-boxes).

    A box joins the cluster of its category whose fused box it overlaps most, if that IoU is above ``iou``. A fused box
    is the mean of its cluster weighted by score; its score is mean score x min(cluster size, M) / sum of member
    weights, so that a box that few members found loses score. Here M and the sum are given per category: a member that
    cannot know a category (an expert of others) does not lower the scores of the rest there. With the same M and sum
    for all categories this is ensemble-boxes.

    Args:
        scores: the members' scores times their weights, not negative.
        member_count: int[largest category id + 1], members that know a category.
        total_weight: float[largest category id + 1], sum of their weights.
    """
    boxes, scores, categories, order = _prepare(boxes, scores, categories)
    if not len(order):
        return Merged(order, boxes, scores)
    first, fused, mean, size = _weighted_fusion(boxes, scores, categories, order, iou)
    category = categories[first]
    final = mean * np.minimum(size, member_count[category]) / total_weight[category]
    ranking = np.lexsort((first, -final))
    return Merged(first[ranking], fused[ranking], final[ranking])


@njit(cache=True, nogil=True)
def _soft_nms(boxes, scores, order, starts, sigma, threshold):
    kept = np.empty(len(order), np.int64)
    final = np.empty(len(order), np.float64)
    count = 0
    for run in range(len(starts) - 1):
        members = order[starts[run] : starts[run + 1]].copy()
        decayed = scores[members]
        for i in range(len(members)):
            best = i
            for j in range(i + 1, len(members)):
                if decayed[j] > decayed[best]:
                    best = j
            if not decayed[best] > threshold:
                break
            # Move the best to place i and shift the others: they keep their order, which decides among ties.
            member, score = members[best], decayed[best]
            for j in range(best, i, -1):
                members[j], decayed[j] = members[j - 1], decayed[j - 1]
            members[i], decayed[i] = member, score
            kept[count], final[count] = member, score
            count += 1
            for j in range(i + 1, len(members)):
                overlap = _iou(boxes[member], boxes[members[j]])
                if overlap > 0.0:
                    decayed[j] *= np.exp(-(overlap * overlap) / sigma)
    return kept[:count], final[:count]


def soft_nms(
    boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray, sigma: float, score_threshold: float = 0.0
) -> Merged:
    """Gaussian soft-NMS (Bodla et al., 2017): take the best box, multiply the others by exp(-IoU² / sigma), repeat.

    Detections whose score does not stay above ``score_threshold`` are dropped. ensemble-boxes keeps the same boxes but
    returns their undecayed scores; here the decayed ones are returned, as in the paper.

    Args:
        sigma: width of the Gaussian.
        score_threshold: in units of the scores.
    """
    boxes, scores, categories, order = _prepare(boxes, scores, categories)
    if not len(order):
        return Merged(order, boxes, scores)
    order = order[np.argsort(categories[order], kind="stable")]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(categories[order])) + 1, [len(order)]])
    kept, final = _soft_nms(boxes, scores, order, starts, sigma, score_threshold)
    ranking = np.lexsort((kept, -final))
    return Merged(kept[ranking], boxes[kept[ranking]], final[ranking])


def _prepare(
    boxes: np.ndarray, scores: np.ndarray, categories: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One dtype for the compiled functions, and the order: score descending, then input position."""
    scores = np.asarray(scores, np.float64)
    boxes = np.ascontiguousarray(boxes, np.float64).reshape(-1, 4)
    return boxes, scores, np.asarray(categories, np.int64), np.argsort(-scores, kind="stable")
