"""SENet-154 (Hu et al. 2018, the paper's reference 4), layer by layer as timm's legacy_senet154.

It differs from a ResNeXt-152 in the stem of three 3x3 convolutions, the wider 3x3 convolutions with half as wide 1x1
convolutions before them, 3x3 shortcuts where the resolution changes, and squeeze-and-excitation in every block.
"""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet
from torch import Tensor, nn

from pipeline_steps.modeling.backbones.deformable import DeformableConv2d
from pipeline_steps.modeling.backbones.pyramid import feature_pyramid, residual_backbone

_BLOCKS = (3, 8, 36, 3)
_GROUPS = 64
_REDUCTION = 16
_STEM_CHANNELS = 128


def _convolution(
    in_channels: int, out_channels: int, kernel: int, norm: str, stride: int = 1, groups: int = 1
) -> Conv2d:
    layer = Conv2d(
        in_channels,
        out_channels,
        kernel_size=kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
        norm=get_norm(norm, out_channels),
    )
    weight_init.c2_msra_fill(layer)
    return layer


class SENetStem(CNNBlockBase):
    """Three 3x3 convolutions and a max pooling, stride 4 together."""

    def __init__(self, in_channels: int, norm: str) -> None:
        super().__init__(in_channels, _STEM_CHANNELS, stride=4)
        self.conv1 = _convolution(in_channels, 64, 3, norm, stride=2)
        self.conv2 = _convolution(64, 64, 3, norm)
        self.conv3 = _convolution(64, _STEM_CHANNELS, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, in, H, W] to Tensor[N, 128, H/4, W/4]."""
        for convolution in (self.conv1, self.conv2, self.conv3):
            x = F.relu_(convolution(x))
        # No padding but rounding up, as in the Caffe network that the weights come from.
        return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)


class SqueezeExcitation(nn.Module):
    """Channel weights in 0..1 from the mean over the feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, kernel_size=1)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, channels, H, W], scaled per image and channel."""
        return x * self.fc2(F.relu_(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


class SEBottleneck(CNNBlockBase):
    """1x1, grouped 3x3 (plain or deformable), 1x1, squeeze-and-excitation, shortcut."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, norm: str, deformable: bool, shortcut_kernel: int
    ) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = _convolution(in_channels, out_channels // 2, 1, norm)
        if deformable:
            self.conv2 = DeformableConv2d(out_channels // 2, out_channels, stride=stride, groups=_GROUPS, norm=norm)
        else:
            self.conv2 = _convolution(out_channels // 2, out_channels, 3, norm, stride, _GROUPS)
        self.conv3 = _convolution(out_channels, out_channels, 1, norm)
        self.se = SqueezeExcitation(out_channels)
        self.shortcut = None
        if in_channels != out_channels:
            self.shortcut = _convolution(in_channels, out_channels, shortcut_kernel, norm, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor[N, in, H, W] to Tensor[N, out, H / stride, W / stride]."""
        out = F.relu_(self.conv1(x))
        out = F.relu_(self.conv2(out))
        out = self.se(self.conv3(out))
        return F.relu_(out + (x if self.shortcut is None else self.shortcut(x)))


def build_senet(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """SENet-154 below the pyramid; keys: MODEL.RESNETS.{NORM, DEFORM_ON_PER_STAGE, OUT_FEATURES}."""
    keys = cfg.MODEL.RESNETS
    stem = SENetStem(input_shape.channels, keys.NORM)

    def block_of(stage: int, _channels: int) -> dict[str, Any]:
        shortcut = 1 if stage == 0 else 3
        deformable = keys.DEFORM_ON_PER_STAGE[stage]
        return {"block_class": SEBottleneck, "deformable": deformable, "shortcut_kernel": shortcut}

    return residual_backbone(cfg, stem, _BLOCKS, 256, block_of)


@BACKBONE_REGISTRY.register()
def build_senet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """SENet-154 with a feature pyramid."""
    return feature_pyramid(cfg, build_senet(cfg, input_shape))
