"""Residual networks stage by stage, and feature pyramids: detectron2's, with only the levels that somebody reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling.backbone import FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn


def residual_backbone(
    cfg: CfgNode,
    stem: CNNBlockBase,
    blocks_per_stage: Sequence[int],
    out_channels: int,
    block_of: Callable[[int, int], dict[str, Any]],
) -> ResNet:
    """A residual network below the pyramid: resolution halves and channels double from one stage to the next.

    Args:
        cfg: the configuration.
        stem: what comes before the stages.
        blocks_per_stage: number of blocks of each stage.
        out_channels: of the first stage.
        block_of: class of the blocks of a stage and their arguments, from its index and output channels.
    """
    stages, in_channels = [], stem.out_channels
    for index, blocks in enumerate(blocks_per_stage):
        stages.append(
            ResNet.make_stage(
                **block_of(index, out_channels),
                num_blocks=blocks,
                stride_per_block=[1 if index == 0 else 2] + [1] * (blocks - 1),
                in_channels=in_channels,
                out_channels=out_channels,
                norm=cfg.MODEL.RESNETS.NORM,
            )
        )
        in_channels, out_channels = out_channels, out_channels * 2
    out_features, freeze_at = cfg.MODEL.RESNETS.OUT_FEATURES, cfg.MODEL.BACKBONE.FREEZE_AT
    return ResNet(stem, stages, out_features=out_features, freeze_at=freeze_at)


def feature_pyramid(cfg: CfgNode, bottom_up: Backbone) -> FPN:
    """The pyramid that the configuration asks for: p6 by pooling p5 if it is read, else only the levels read."""
    arguments = {
        "bottom_up": bottom_up,
        "in_features": cfg.MODEL.FPN.IN_FEATURES,
        "out_channels": cfg.MODEL.FPN.OUT_CHANNELS,
        "norm": cfg.MODEL.FPN.NORM,
        "fuse_type": cfg.MODEL.FPN.FUSE_TYPE,
    }
    levels = {*cfg.MODEL.RPN.IN_FEATURES, *cfg.MODEL.ROI_HEADS.IN_FEATURES}
    if "p6" in levels:
        return FPN(**arguments, top_block=LastLevelMaxPool())
    return ReadLevelsFPN(**arguments, levels=levels)


class ReadLevelsFPN(FPN):
    """A pyramid without the output convolutions of levels that nobody reads.

    Their parameters would get no gradient, which distributed training treats as an error, and their work is wasted.
    """

    def __init__(self, *, levels: set[str], **arguments: object) -> None:
        super().__init__(**arguments)
        self.levels = levels
        for position, name in enumerate(reversed(self._out_features)):  # from low to high resolution
            if name not in levels:
                delattr(self, f"fpn_output{name[1:]}")
                self.output_convs[position] = nn.Identity()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images Tensor[N, 3, H, W] to ``{"p2": Tensor[N, channels, H/4, W/4], ...}``, high resolution first."""
        return {name: level for name, level in super().forward(x).items() if name in self.levels}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of the levels."""
        return {name: shape for name, shape in super().output_shape().items() if name in self.levels}
