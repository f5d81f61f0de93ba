"""Residual networks stage by stage, and feature pyramids: detectron2's, with only the levels that somebody reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone import FPN, Backbone, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import Tensor, nn


def read_levels(cfg: CfgNode) -> set[str]:
    """Names of the pyramid levels that the proposal network or the heads read, e.g. {"p2", "p3", "p4"}."""
    return {*cfg.MODEL.RPN.IN_FEATURES, *cfg.MODEL.ROI_HEADS.IN_FEATURES}


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
    if "p6" in read_levels(cfg):
        return FPN(**arguments, top_block=LastLevelMaxPool())
    return ReadLevelsFPN(**arguments, levels=read_levels(cfg))


class ReadLevelsFPN(FPN):
    """A pyramid without the output convolutions of levels that nobody reads.

    Their parameters would get no gradient, which distributed training treats as an error, and their work is wasted.
    """

    output_convs: list[nn.Module | None]
    _out_features: list[str]

    def __init__(self, *, levels: set[str], **arguments: object) -> None:
        super().__init__(**arguments)
        kept: list[nn.Module | None] = []
        for name, convolution in zip(reversed(self._out_features), self.output_convs):  # from low to high resolution
            if name in levels:
                kept.append(convolution)
            else:
                delattr(self, f"fpn_output{name[1:]}")
                kept.append(None)
        self.output_convs = kept
        self._out_features = [name for name in self._out_features if name in levels]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Images Tensor[N, 3, H, W] to ``{"p2": Tensor[N, channels, H/4, W/4], ...}``, high resolution first."""
        features = self.bottom_up(x)
        outputs: dict[str, Tensor] = {}
        merged: Tensor | None = None
        for name, lateral, output in zip(reversed(self.in_features), self.lateral_convs, self.output_convs):
            level = lateral(features[name])
            if merged is not None:
                level = level + F.interpolate(merged, scale_factor=2.0, mode="nearest")
                if self._fuse_type == "avg":
                    level = level / 2
            merged = level
            if output is not None:
                outputs[f"p{name[3:]}"] = output(level)
        return {name: outputs[name] for name in self._out_features}
