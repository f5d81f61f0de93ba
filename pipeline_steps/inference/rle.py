"""Soft masks in boxes to COCO run-length encoding, without painting each mask into an image.

The bytes are those of detectron2's ``paste_masks_in_image`` followed by pycocotools ``encode``. The compiled encoder
samples the mask as ``grid_sample`` does but may round differently; pixels within a guard of the threshold are
therefore computed once more by ``grid_sample`` itself, and a mask with a different decision is encoded again with it.

The guard is a bound, not an estimate. A sampling position is rounded at most three times by half a unit in the last
place of a number below P (the power of two above S + 1), in either of two orders of operations, in either axis; a
position error e changes a value by at most e times the range of the mask (padding zeros included). With the rounding
of the sum this is below P * 2**-22 * range.

Symbols: k masks, S edge of a soft mask in cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import torch
from torch import Tensor
from torch.nn import functional

from pipeline_steps.inference.rle_kernels import encode_masks, pasted_range

_PIXELS_AT_ONCE = 4096


@torch.no_grad()
def encode_box_masks(
    soft_masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5
) -> list[dict[str, Any]]:
    """Encode the pixels of an image that k soft masks, stretched over their boxes, cover.

    Args:
        soft_masks: float32[k, S, S], mask probabilities; other types and devices are converted.
        boxes: float32[k, 4], x1 y1 x2 y2 in pixels of the image; may reach beyond it. A box that lies outside gives
            an empty mask (where detectron2's paste fails).
        height, width: size of the image in pixels.
        threshold: pixels whose interpolated value is at least this are inside; 0 or more.

    Returns:
        k dicts ``{"size": [height, width], "counts": bytes}``, byte-identical to detectron2's paste on a CPU and
        pycocotools' encode.

    Raises:
        ValueError: shapes that do not fit, a box that is not finite, a negative threshold.
    """
    masks = soft_masks.detach().to("cpu", torch.float32).contiguous().numpy()
    corners = boxes.detach().to("cpu", torch.float32).contiguous().numpy()
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or corners.shape != (len(masks), 4):
        raise ValueError(f"soft_masks[k, S, S] and boxes[k, 4] expected, got {soft_masks.shape} and {boxes.shape}")
    if not np.isfinite(corners).all():
        raise ValueError("a box is NaN or infinite")
    if threshold < 0 or height < 1 or width < 1:
        raise ValueError(f"threshold {threshold} is negative or the image {height} x {width} is empty")
    if not masks.size:
        return []
    proper = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    guard = _guard(masks.shape[1], max(float(masks.max()), 0.0) - min(float(masks.min()), 0.0))
    if not np.isfinite(guard):  # NaN or infinite mask values
        proper &= np.isfinite(masks).all(axis=(1, 2))
        largest = np.abs(masks[proper]).max(initial=0.0)
        guard = _guard(masks.shape[1], 2.0 * float(largest))
    if np.float32(threshold) <= guard:  # then all pixels around a box are close to the threshold
        proper[:] = False
    encoded = _encode_proper(masks[proper], corners[proper], height, width, np.float32(threshold), np.float32(guard))
    fast = dict(zip(np.flatnonzero(proper).tolist(), encoded))
    counts = [
        fast[i] if i in fast else _paste_and_encode(masks[i], corners[i], height, width, threshold)
        for i in range(len(masks))
    ]
    return [{"size": [height, width], "counts": value} for value in counts]


def _guard(size: int, mask_range: float) -> float:
    """Distance from the threshold within which two float32 samplings of a mask can disagree."""
    power = 1 << (size + 1).bit_length()
    return power * 2.0**-22 * mask_range


def _encode_proper(
    masks: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: np.float32, guard: np.float32
) -> list[bytes]:
    """Counts of finite masks in finite boxes with an area."""
    no_ends = np.zeros(len(masks), np.int64)
    text, ends, close, close_ends = encode_masks(
        masks, boxes, height, width, threshold, guard, np.zeros(0, np.int64), no_ends
    )
    result = _pieces(text, ends)
    if not len(close):
        return result
    owner = np.repeat(np.arange(len(masks)), np.diff(close_ends, prepend=0))
    position, decision = close >> 1, (close & 1).astype(bool)
    wrong = decision != _exact_decisions(masks, boxes, height, owner, position, threshold)
    if wrong.any():
        again, flips = np.unique(owner[wrong], return_counts=True)
        text, ends, _, _ = encode_masks(
            masks[again], boxes[again], height, width, threshold, guard, position[wrong], np.cumsum(flips)
        )
        for i, value in zip(again, _pieces(text, ends)):
            result[i] = value
    return result


def _pieces(text: np.ndarray, ends: np.ndarray) -> list[bytes]:
    raw, stops = text.tobytes(), ends.tolist()
    return [raw[begin:end] for begin, end in zip([0, *stops], stops)]


def _exact_decisions(
    masks: np.ndarray, boxes: np.ndarray, height: int, owner: np.ndarray, position: np.ndarray, threshold: np.float32
) -> np.ndarray:
    """Whether pixels are inside, bool[n], by grid_sample on the coordinates that detectron2's paste computes.

    Args:
        owner: int64[n], which mask a pixel belongs to.
        position: int64[n], x * height + y.
    """
    inside = np.empty(len(owner), bool)
    for first in range(0, len(owner), _PIXELS_AT_ONCE):
        part = slice(first, first + _PIXELS_AT_ONCE)
        box = boxes[owner[part]]
        pixel = np.stack((position[part] // height, position[part] % height), axis=1).astype(np.float32)
        grid = (pixel + 0.5 - box[:, :2]) / (box[:, 2:] - box[:, :2]) * 2 - 1
        sampled = functional.grid_sample(
            torch.from_numpy(masks[owner[part], None]), torch.from_numpy(grid[:, None, None]), align_corners=False
        )
        inside[part] = sampled.numpy().reshape(-1) >= threshold
    return inside


def _paste_and_encode(mask: np.ndarray, box: np.ndarray, height: int, width: int, threshold: float) -> bytes:
    """The straight way, for boxes without area and masks with NaN or infinite values."""
    from detectron2.layers.mask_ops import paste_masks_in_image

    ranges = pasted_range(box[0], box[2], width), pasted_range(box[1], box[3], height)
    if any(begin == end for begin, end in ranges):
        painted = np.zeros((height, width), np.uint8, order="F")
    else:
        tensors = torch.from_numpy(mask[None]), torch.from_numpy(box[None])
        pasted = paste_masks_in_image(*tensors, (height, width), threshold)
        painted = np.asfortranarray(pasted[0].numpy().astype(np.uint8))
    return coco_mask.encode(painted)["counts"]
