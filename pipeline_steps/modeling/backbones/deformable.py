"""Deformable convolution (Dai et al. 2017, the paper's reference 1) on torchvision's operator or ours: CPU and GPU.

detectron2's own operator has no CPU path and needs its compiled extension. torchvision's multiplies group by group, 64
times per image and layer in ResNeXt-101 64x4d and SENet-154. In ours the sampled pixels are laid out once (im2col) and
multiplied at once: on a CPU core the layers of these networks take less than half of torchvision's time forward, and a
fifth forward and backward (``python -m tests.benchmarks deformable``).

Symbols:
    N: images; C: channels in, O: out; G: groups; K: taps of the kernel (9); L: output pixels; H, W: input size
"""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
import torchvision.ops
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn
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


class DeformableConv2d(torchvision.ops.DeformConv2d):
    """A 3x3 convolution that samples its input at learned offsets, followed by a normalisation.

    The offsets come from a 3x3 convolution of the input that starts at zero: at first this is the plain convolution
    with the same weights, which is how ImageNet weights of plain networks are taken over. Version 1, without
    modulation, one group of offsets, as cited by the paper.
    """

    batched: bool = False
    """Whether all groups are multiplied at once (``batched_deform_conv2d``) or one after the other by torchvision."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, groups: int, norm: str) -> None:
        shape = {"kernel_size": 3, "stride": stride, "padding": 1}
        super().__init__(in_channels, out_channels, **shape, groups=groups, bias=False)
        self.offset = Conv2d(in_channels, 2 * 3 * 3, **shape)
        self.norm = get_norm(norm, out_channels)
        weight_init.c2_msra_fill(self)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, in, H, W] to Tensor[N, out, H / stride, W / stride] of the same type.

        Sampled in float32 under autocast: torchvision's operator knows no bfloat16.
        """
        offset = self.offset(x)
        with torch.autocast(x.device.type, enabled=False):
            if self.batched:
                out = batched_deform_conv2d(x.float(), offset.float(), self.weight, self.stride[0], self.padding[0])
            else:
                out = super().forward(x.float(), offset.float())
            out = out.to(offset.dtype)
        return out if self.norm is None else self.norm(out)


class DeformableBottleneckBlock(BottleneckBlock):
    """detectron2's bottleneck block with a deformable 3x3 convolution, which also carries the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, *, bottleneck_channels: int, num_groups: int, **arguments: Any
    ) -> None:
        shape = {"bottleneck_channels": bottleneck_channels, "num_groups": num_groups}
        super().__init__(in_channels, out_channels, **shape, **arguments)
        common = {"stride": arguments["stride"], "norm": arguments["norm"]}
        self.conv2 = DeformableConv2d(bottleneck_channels, bottleneck_channels, groups=num_groups, **common)
