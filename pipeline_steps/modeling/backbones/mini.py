"""Small residual backbones that learn the mini world on one CPU core, in two kinds so that an ensemble has variety.

A stem of two 3x3 convolutions (stride 4 together), then four stages; stage s has width * 2^(s - 2) channels, from
res2. ``basic``: two 3x3 convolutions per block. ``bottleneck``: 1x1, grouped 3x3, 1x1 as in ResNeXt.
"""

from __future__ import annotations

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import Tensor

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.backbones.pyramid import feature_pyramid


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


def _stage(cfg: CfgNode, blocks: int, in_channels: int, out_channels: int, stride: int) -> list[CNNBlockBase]:
    mini = cfg.LVIS.MINI
    arguments = {
        "num_blocks": blocks,
        "stride_per_block": [stride] + [1] * (blocks - 1),
        "in_channels": in_channels,
        "out_channels": out_channels,
        "norm": cfg.MODEL.RESNETS.NORM,
    }
    if mini.BLOCK == "basic":
        return ResNet.make_stage(BasicBlock, **arguments)
    if mini.BLOCK == "bottleneck":
        return ResNet.make_stage(BottleneckBlock, **arguments, bottleneck_channels=out_channels, num_groups=mini.GROUPS)
    raise UserError(f"LVIS.MINI.BLOCK is {mini.BLOCK!r}; choose basic or bottleneck")


@BACKBONE_REGISTRY.register()
def build_mini_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """A small residual network with a feature pyramid (keys: LVIS.MINI)."""
    mini = cfg.LVIS.MINI
    stem = SmallStem(input_shape.channels, mini.WIDTH, cfg.MODEL.RESNETS.NORM)
    stages, channels = [], mini.WIDTH
    for index, blocks in enumerate(mini.BLOCKS_PER_STAGE):
        out_channels = mini.WIDTH * 2**index
        stages.append(_stage(cfg, blocks, channels, out_channels, stride=1 if index == 0 else 2))
        channels = out_channels
    bottom_up = ResNet(stem, stages, out_features=cfg.MODEL.FPN.IN_FEATURES, freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT)
    return feature_pyramid(cfg, bottom_up)
