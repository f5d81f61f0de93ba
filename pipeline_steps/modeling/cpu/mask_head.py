"""detectron2's mask head with a faster training pass on a CPU.

Symbols:
    K: boxes; D: channels of the last convolution; m: edge of the pooled features; U: channels after enlarging
"""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import Tensor


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
