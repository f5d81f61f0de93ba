"""Deformable convolution (Dai et al. 2017, the paper's reference 1) on torchvision's operator or ours: CPU and GPU.

detectron2's own operator has no CPU path and needs its compiled extension.
"""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torchvision.ops
from detectron2.layers import Conv2d, get_norm
from detectron2.modeling.backbone.resnet import BottleneckBlock
from torch import Tensor, nn

from pipeline_steps.modeling.backbones.deform_conv import batched_deform_conv2d


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
