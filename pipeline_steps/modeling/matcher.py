"""Matching of anchors and proposals with objects, without the host waiting for the device."""

from __future__ import annotations

import torch
from detectron2.modeling.matcher import Matcher
from torch import Tensor


class WaitlessMatcher(Matcher):
    """detectron2's matcher with equal results; its own checks every matrix on the host and lists the best anchors."""

    def __call__(self, match_quality_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Best object of each anchor, and its label.

        Args:
            match_quality_matrix: Tensor[G, A], IoU of G objects and A anchors, none negative.

        Returns:
            LongTensor[A], 0..G-1; and int8 Tensor[A], one of the matcher's labels.
        """
        if match_quality_matrix.numel() == 0:
            return super().__call__(match_quality_matrix)
        quality, matches = match_quality_matrix.max(dim=0)
        labels = quality.new_ones(len(quality), dtype=torch.int8)
        for label, low, high in zip(self.labels, self.thresholds[:-1], self.thresholds[1:]):
            labels.masked_fill_((quality >= low) & (quality < high), label)
        if self.allow_low_quality_matches:
            best = match_quality_matrix.amax(dim=1, keepdim=True)
            labels.masked_fill_((match_quality_matrix == best).any(dim=0), 1)
        return matches, labels
