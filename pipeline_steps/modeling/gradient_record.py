"""What the classification loss does to each category: encouraging and discouraging gradient at the logits. Pure torch.

Symbols:
    R: proposals of a batch; C: foreground categories, label C is background; W: windows of the training
    y: 1 in the column of a proposal's own category, else 0; p: predicted scores; w: weights of the loss

The gradient of the unnormalised loss (summed over proposals, before it is divided by R or scaled) at logit x[r, j] is
(p - y) w. Where y is 1 it is negative: it encourages category j. Everywhere else it is positive: it discourages j.
Summed over proposals their magnitudes do not depend on batch size, number of processes or loss scale: a proposal that
is fully wrong about a category counts 1. A sample is *valid* if its weight is not 0 (the paper, figure 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUANTITIES = ("encouraging", "discouraging", "positives", "negatives")
"""Sums of gradient magnitudes, and numbers of valid positive and negative samples."""


def sigmoid_logit_gradients(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Gradient of R times ``sigmoid_classification_loss`` of these arguments: float32 Tensor[R, C]."""
    gradients = logits.float().sigmoid()
    rows = (labels < logits.shape[1]).nonzero()[:, 0]
    gradients[rows, labels[rows]] -= 1
    return gradients if weights is None else gradients * weights


def softmax_logit_gradients(
    logits: Tensor, labels: Tensor, row_weights: Tensor | None = None, known: Tensor | None = None
) -> Tensor:
    """Gradient of R times ``softmax_classification_loss`` of these arguments, at the logits of foreground categories:
    float32 Tensor[R, C]."""
    x = logits.float()
    if known is not None:
        takes_part = F.pad(known, (0, 1), value=True).scatter(1, labels[:, None], True)
        x = x.masked_fill(~takes_part, -torch.inf)
    gradients = x.softmax(dim=1)
    gradients.scatter_add_(1, labels[:, None], gradients.new_full((len(labels), 1), -1.0))
    gradients = gradients[:, :-1]
    return gradients if row_weights is None else gradients * row_weights[:, None]


class GradientRecord:
    """Sums over the proposals of each window of a training.

    Attributes:
        sums: float64 Tensor[W, 4, C], :data:`QUANTITIES` of this process.
        window: the window that is being added to.
    """

    def __init__(self, windows: int, category_count: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(windows, len(QUANTITIES), category_count, dtype=torch.float64, device=device)
        self.window = 0

    def begin(self, iteration: int, iterations: int) -> None:
        """Choose the window of an iteration, 0-based, of ``iterations``."""
        self.window = iteration * len(self.sums) // iterations

    @torch.no_grad()
    def add(self, gradients: Tensor, labels: Tensor, weights: Tensor | None) -> None:
        """Add one batch.

        Args:
            gradients: Tensor[R, C] at the logits.
            labels: LongTensor[R], 0..C.
            weights: what the loss was weighted by, Tensor[R, C], Tensor[R, 1] or None: 0 is no valid sample.
        """
        valid = torch.ones_like(gradients) if weights is None else (weights != 0).expand_as(gradients).double()
        own = labels[:, None] == torch.arange(gradients.shape[1], device=labels.device)
        magnitudes = gradients.abs().double()
        self.sums[self.window] += torch.stack(
            [
                magnitudes.where(own, 0).sum(dim=0),
                magnitudes.where(~own, 0).sum(dim=0),
                valid.where(own, 0).sum(dim=0),
                valid.where(~own, 0).sum(dim=0),
            ]
        )
