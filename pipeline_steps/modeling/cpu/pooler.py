"""RoIAlign over a feature pyramid on a CPU: all levels at once by compiled loops.

Symbols:
    N: images; D: channels; K: boxes, combined over images; m: edge of the output; L: levels
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor

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
