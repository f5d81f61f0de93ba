"""Faster modules of the detector's heads on a CPU, and putting them into a detector.

A replacement has the state of what it replaces and no more: they differ in their methods alone, and so a module is
replaced by changing its class. Names, values and identity of parameters and buffers stay (an optimizer goes on, a model
file fits with and without).

Symbols:
    N: images; D: channels; K: boxes, combined over images; m: edge of the pooled features; L: levels; U: channels after
    enlarging
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes
from torch import Tensor, nn

from pipeline_steps.modeling.cpu.normalization import synchronise_on_cpu
from pipeline_steps.modeling.cpu.roi_align_kernels import pool, spread


class _PyramidAlign(torch.autograd.Function):
    """RoIAlign of boxes that each belong to one level and image of a table of pixels [P, D]."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, where: tuple[np.ndarray, ...], size: int, sampling: int) -> Tensor:
        ctx.where, ctx.size, ctx.sampling, ctx.rows = where, size, sampling, len(table)
        output = torch.zeros((len(where[0]), size, size, table.shape[1]))
        pool(table.numpy(), *where, size, sampling, output.numpy())  # type: ignore[call-arg]  # `where` is five arrays
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        result = torch.zeros((ctx.rows, gradient.shape[-1]))
        spread(  # type: ignore[call-arg]  # as above
            gradient.float().contiguous().numpy(), *ctx.where, ctx.size, ctx.sampling, result.numpy()
        )
        return result, None, None, None


class PyramidPooler(ROIPooler):
    """detectron2's ROIPooler, faster for type ``ROIAlignV2`` on a CPU; the results are the same."""

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool boxes of N images from L levels.

        Args:
            x: L tensors [N, D, H_l, W_l], finest first.
            box_lists: boxes of each image, in image pixels.

        Returns:
            Tensor[K, D, m, m] with the dtype of ``x``.
        """
        first = self.level_poolers[0]
        if not getattr(first, "aligned", False):
            return super().forward(x, box_lists)
        boxes = torch.cat([boxes.tensor for boxes in box_lists]).detach().float().contiguous()
        image = np.repeat(np.arange(len(box_lists)), [len(boxes) for boxes in box_lists])
        level = np.zeros(len(boxes), dtype=np.int64)
        if len(x) > 1:
            level = assign_boxes_to_levels(
                box_lists, self.min_level, self.max_level, self.canonical_box_size, self.canonical_level
            ).numpy()
        heights = np.array([features.shape[2] for features in x])
        widths = np.array([features.shape[3] for features in x])
        level_starts = np.concatenate([[0], np.cumsum(heights * widths * len(box_lists))])
        scales = np.array([pooler.spatial_scale for pooler in self.level_poolers], dtype=np.float32)
        starts = level_starts[level] + image * heights[level] * widths[level]
        where = (boxes.numpy(), scales[level], starts, heights[level], widths[level])
        # With channels-last features this is a view of each level.
        rows = [features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]) for features in x]
        table = torch.cat(rows).float()
        pooled = _PyramidAlign.apply(table, where, self.output_size[0], first.sampling_ratio)
        return pooled.permute(0, 3, 1, 2).to(x[0].dtype)


class MatrixProductMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's mask head; in training the enlarging and the prediction are two matrix products.

    A 2x2 transposed convolution of stride 2 makes four pixels of every pixel, each by its own matrix; the 1x1
    prediction treats pixels one by one. So neither depends on where the pixels lie, and they are put into place at
    the end, when a single channel is left. The sums are rounded in another order than in the transposed convolution,
    so testing keeps to detectron2's, bit for bit.
    """

    def layers(self, x: Tensor) -> Tensor:
        """Pooled features Tensor[K, D, m, m] to mask logits Tensor[K, classes, 2 m, 2 m]."""
        if not self.training:
            return super().layers(x)
        for convolution in self.conv_norm_relus:
            x = convolution(x)
        boxes, channels, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        # weight [D, U, 2, 2] -> [2 * 2 * U, D]: rows of one output pixel follow each other
        weight = self.deconv.weight.permute(2, 3, 1, 0).reshape(-1, channels)
        enlarged = F.relu(F.linear(pixels, weight, self.deconv.bias.repeat(4)))
        logits = F.linear(
            enlarged.view(-1, self.deconv.out_channels), self.predictor.weight.flatten(1), self.predictor.bias
        )
        classes = self.predictor.out_channels
        logits = logits.view(boxes, height, width, 2, 2, classes).permute(0, 5, 1, 3, 2, 4)
        return logits.reshape(boxes, classes, 2 * height, 2 * width)


_REPLACEMENTS: dict[type[nn.Module], type[nn.Module]] = {
    ROIPooler: PyramidPooler,
    MaskRCNNConvUpsampleHead: MatrixProductMaskHead,
}


def use_fast_cpu_modules(model: nn.Module) -> nn.Module:
    """Replace the modules below ``model`` for which there is faster code on a CPU, in place; returns ``model``.

    Losses and detections are those of the standard modules, bit for bit but for the mask head in training, whose sums
    are rounded in another order; gradients differ by rounding.
    """
    for module in model.modules():
        module.__class__ = _REPLACEMENTS.get(type(module), type(module))
    return synchronise_on_cpu(model)
