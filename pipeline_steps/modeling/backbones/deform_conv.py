"""Deformable convolution with all groups of channels in one batched product.

torchvision's operator multiplies group by group, 64 times per image and layer in ResNeXt-101 64x4d and SENet-154. Here
the sampled pixels are laid out once (im2col) and multiplied at once: on a CPU core the layers of these networks take
less than half of torchvision's time forward, and a fifth forward and backward (``python -m tests.benchmarks
deformable``).

Symbols:
    N: images; C: channels in, O: out; G: groups; K: taps of the kernel (9); L: output pixels; H, W: input size
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_CPU_BYTES, _GPU_BYTES = 16 << 20, 256 << 20
"""The sampled pixels of a layer are K times its input: they are made, used and dropped in parts of this size (on a CPU
measured: larger parts leave the cache, smaller ones cost more calls; on a GPU a guess)."""


def batched_deform_conv2d(x: Tensor, offset: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """``torchvision.ops.deform_conv2d`` of version 1 (no modulation) with one group of offsets and no bias.

    Equal to it but for the order of sums, forward and backward. As in torchvision's, the sampled pixels are not kept
    for the backward pass but sampled again.

    Args:
        x: Tensor[N, C, H, W].
        offset: Tensor[N, 2 K, H', W'], for each tap the shift down and to the right, in pixels.
        weight: Tensor[O, C / G, kernel, kernel].
        stride: of the taps' centres.
        padding: zeros around the image.

    Returns:
        Tensor[N, O, H', W'], channels-last if ``x`` is.
    """
    height, width = offset.shape[2:]
    if len(x) == 0:
        # Nothing, but connected to everything: distributed training waits for every gradient.
        return x.new_zeros((0, len(weight), height, width)) + 0.0 * (x.sum() + offset.sum() + weight.sum())
    taps = weight.shape[2] * weight.shape[3]
    groups, channels = x.shape[1] // weight.shape[1], x.shape[1]
    matrices = weight.view(groups, -1, weight.shape[1], taps).permute(0, 3, 2, 1)  # (G, K, C / G, O / G)
    matrices = matrices.reshape(groups, taps * weight.shape[1], -1)
    limit = _CPU_BYTES if x.device.type == "cpu" else _GPU_BYTES
    step = max(1, limit // (taps * channels * x.element_size()))
    images = []
    for image, shifts in zip(x.unbind(), offset.unbind()):
        neighbours, shares = _neighbours(shifts, image.shape[1], image.shape[2], weight.shape[2:], stride, padding)
        table = image.permute(1, 2, 0).reshape(-1, channels)  # (H W, C): a view of an image that is channels-last
        parts = [
            _product(table, where, share, matrices)
            for where, share in zip(neighbours.split(step), shares.split(step), strict=True)
        ]
        images.append(torch.cat(parts, dim=1).permute(1, 0, 2).reshape(height, width, -1))
    output = torch.stack(images).permute(0, 3, 1, 2)
    return output if x.is_contiguous(memory_format=torch.channels_last) else output.contiguous()


def _neighbours(
    shifts: Tensor, height: int, width: int, kernel: tuple[int, ...], stride: int, padding: int
) -> tuple[Tensor, Tensor]:
    """Rows of the pixel table around each sampling point, LongTensor[L, K, 4], and their bilinear weights [L, K, 4].

    Points outside the image count as zeros, so pixels that are not there have weight 0.
    """
    rows, columns = kernel
    shifts = shifts.view(rows, columns, 2, *shifts.shape[1:])

    def along(axis: int, taps: Tensor) -> Tensor:
        places = torch.arange(shifts.shape[3 + axis], device=shifts.device, dtype=shifts.dtype) * stride - padding
        places = places[:, None] if axis == 0 else places
        # (H', W', kernel, kernel)
        return (shifts[:, :, axis] + (places + taps)).permute(2, 3, 0, 1)

    taps = torch.arange(max(kernel), device=shifts.device, dtype=shifts.dtype)
    y = along(0, taps[:rows, None, None, None])
    x = along(1, taps[:columns, None, None])
    top, left = y.detach().floor(), x.detach().floor()
    down, right = y - top, x - left
    ys = torch.stack([top, top, top + 1, top + 1], dim=-1)
    xs = torch.stack([left, left + 1, left, left + 1], dim=-1)
    there = (ys >= 0) & (ys < height) & (xs >= 0) & (xs < width)
    index = (ys.clamp(0, height - 1) * width + xs.clamp(0, width - 1)).long()
    up_share, left_share = 1 - down, 1 - right
    shares = torch.stack([up_share * left_share, up_share * right, down * left_share, down * right], dim=-1) * there
    return index.flatten(0, 1).flatten(1, 2), shares.flatten(0, 1).flatten(1, 2)


def _product(table: Tensor, index: Tensor, shares: Tensor, matrices: Tensor) -> Tensor:
    """Output Tensor[G, L, O / G] of some output pixels; in the backward pass they are sampled again."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (table, shares, matrices)):
        return checkpoint(
            _sample_and_multiply, table, index, shares, matrices, use_reentrant=False, preserve_rng_state=False
        )
    return _sample_and_multiply(table, index, shares, matrices)


def _sample_and_multiply(table: Tensor, index: Tensor, shares: Tensor, matrices: Tensor) -> Tensor:
    pixels, taps = index.shape[:2]
    # A weighted sum of four table rows for every point and tap: that is what embedding bags are.
    sampled = F.embedding_bag(index.flatten(0, 1), table, per_sample_weights=shares.flatten(0, 1), mode="sum")
    groups = len(matrices)
    columns = sampled.view(pixels, taps, groups, -1).permute(2, 0, 1, 3).reshape(groups, pixels, -1)
    return torch.bmm(columns, matrices)
