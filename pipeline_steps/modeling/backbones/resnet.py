"""ResNet-50 and ResNeXt-101 64x4d, optionally with deformable convolutions (keys: MODEL.RESNETS, as detectron2's)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone import FPN, ResNet
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.backbones.deformable import DeformableBottleneckBlock
from pipeline_steps.modeling.backbones.pyramid import feature_pyramid, residual_backbone

_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def build_resnet(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """The network below the pyramid; each stage is deformable if ``DEFORM_ON_PER_STAGE`` says so.

    Raises:
        UserError: a depth or an option that this backbone does not have.
    """
    keys = cfg.MODEL.RESNETS
    if keys.DEPTH not in _BLOCKS:
        raise UserError(f"MODEL.RESNETS.DEPTH is {keys.DEPTH}; choose one of {sorted(_BLOCKS)}")
    if keys.STRIDE_IN_1X1 or keys.DEFORM_MODULATED or keys.RES5_DILATION != 1 or keys.DEFORM_NUM_GROUPS != 1:
        raise UserError(
            "MODEL.RESNETS: this backbone has no STRIDE_IN_1X1, DEFORM_MODULATED, RES5_DILATION or DEFORM_NUM_GROUPS"
        )
    stem = BasicStem(input_shape.channels, keys.STEM_OUT_CHANNELS, keys.NORM)
    width = keys.NUM_GROUPS * keys.WIDTH_PER_GROUP

    def block_of(stage: int, _channels: int) -> dict[str, Any]:
        return {
            "block_class": DeformableBottleneckBlock if keys.DEFORM_ON_PER_STAGE[stage] else BottleneckBlock,
            "bottleneck_channels": width * 2**stage,
            "num_groups": keys.NUM_GROUPS,
            "stride_in_1x1": False,
        }

    return residual_backbone(cfg, stem, _BLOCKS[keys.DEPTH], keys.RES2_OUT_CHANNELS, block_of)


@BACKBONE_REGISTRY.register()
def build_lvis_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """ResNet or ResNeXt with a feature pyramid."""
    return feature_pyramid(cfg, build_resnet(cfg, input_shape))
