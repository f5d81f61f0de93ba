"""Small residual backbones that learn the mini world on one CPU core, in two kinds so that an ensemble has variety.

A stem of two 3x3 convolutions (stride 4 together), then four stages; stage s has width * 2^(s - 2) channels, from
res2. ``basic``: two 3x3 convolutions per block. ``bottleneck``: 1x1, grouped 3x3, 1x1 as in ResNeXt.
"""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import Tensor

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.backbones.pyramid import feature_pyramid, residual_backbone


class SmallStem(CNNBlockBase):
    """Two 3x3 convolutions of stride 2: finer than a 7x7 convolution with pooling, for objects of some 20 pixels."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__(in_channels, out_channels, stride=4)
        self.in_channels = in_channels
        half = out_channels // 2
        shape = {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False}
        self.conv1 = Conv2d(in_channels, half, **shape, norm=get_norm(norm, half))
        self.conv2 = Conv2d(half, out_channels, **shape, norm=get_norm(norm, out_channels))
        for convolution in (self.conv1, self.conv2):
            weight_init.c2_msra_fill(convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, in, H, W] to Tensor[N, out, H/4, W/4]."""
        return F.relu_(self.conv2(F.relu_(self.conv1(x))))


@BACKBONE_REGISTRY.register()
def build_mini_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A small residual network with a feature pyramid (keys: LVIS.MINI)."""
    mini = cfg.LVIS.MINI
    if mini.BLOCK not in ("basic", "bottleneck"):
        raise UserError(f"LVIS.MINI.BLOCK is {mini.BLOCK!r}; choose basic or bottleneck")

    def block_of(_stage: int, channels: int) -> dict[str, Any]:
        if mini.BLOCK == "basic":
            return {"block_class": BasicBlock}
        return {"block_class": BottleneckBlock, "bottleneck_channels": channels, "num_groups": mini.GROUPS}

    stem = SmallStem(input_shape.channels, mini.WIDTH, cfg.MODEL.RESNETS.NORM)
    return feature_pyramid(cfg, residual_backbone(cfg, stem, mini.BLOCKS_PER_STAGE, mini.WIDTH, block_of))
