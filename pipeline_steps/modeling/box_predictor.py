"""The last layers of the box head, with the paper's losses.

Symbols:
    R: proposals, combined over the images of the batch; C: foreground categories, label C is background; N: images
    D: features of a proposal
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.facts import BatchFacts
from pipeline_steps.modeling.gradient_record import GradientRecord, sigmoid_logit_gradients, softmax_logit_gradients
from pipeline_steps.modeling.losses import (
    classification_weights,
    region_row_weights,
    sigmoid_classification_loss,
    softmax_classification_loss,
)


class LvisBoxPredictor(FastRCNNOutputLayers):
    """Classification and box regression of proposals.

    ``softmax`` has C + 1 logits, the last for background; ``sigmoid`` and ``eql`` have C and no background logit.
    """

    tail: Tensor | None

    @configurable
    def __init__(self, input_shape: ShapeSpec, *, keys: CfgNode, **arguments: Any) -> None:
        super().__init__(input_shape, **arguments)
        self.loss = keys.LOSS
        if self.loss not in ("softmax", "sigmoid", "eql"):
            raise UserError(f"LVIS.LOSS is {self.loss!r}; choose softmax, sigmoid or eql")
        self.keys = keys
        """The ``LVIS`` keys of the configuration."""
        self.gradient_record: GradientRecord | None = None
        self.register_buffer("tail", None, persistent=False)
        if self.loss != "softmax":
            self.cls_score: nn.Linear = nn.Linear(self.cls_score.in_features, self.num_classes)
            nn.init.normal_(self.cls_score.weight, std=0.01)
            prior = keys.PRIOR_PROBABILITY
            # All scores start at the prior: a sum over C negatives that start at 0.5 would swamp the first updates.
            nn.init.constant_(self.cls_score.bias, -math.log((1 - prior) / prior))

    @classmethod
    def from_config(cls, cfg: Any, input_shape: ShapeSpec) -> dict[str, Any]:
        """Constructor arguments from a configuration."""
        return {**super().from_config(cfg, input_shape), "keys": cfg.LVIS}

    def set_tail(self, tail: Tensor) -> None:
        """Name the rare and common categories: BoolTensor[C]. Needed to train with ``eql``, not to test."""
        if tail.shape != (self.num_classes,):
            raise UserError(f"frequencies of {len(tail)} categories for a detector of {self.num_classes}")
        self.tail = tail.bool().to(self.cls_score.weight.device)

    def scores(self, logits: Tensor) -> Tensor:
        """Scores in 0..1 of the foreground categories: float32 Tensor[R, C] from the logits of :meth:`forward`."""
        if self.loss == "softmax":
            return F.softmax(logits.float(), dim=1)[:, :-1]
        return logits.float().sigmoid()

    def predict_probs(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> tuple[Tensor, ...]:
        """Scores per image with a column for background, as detectron2's post-processing expects them."""
        scores = F.pad(self.scores(predictions[0]), (0, 1))
        return scores.split([len(image) for image in proposals])

    def losses(
        self, predictions: tuple[Tensor, Tensor], proposals: list[Instances], facts: BatchFacts, share: Tensor | float
    ) -> dict[str, Tensor]:
        """Losses of the box head, both normalised by the number of proposals.

        Args:
            predictions: logits Tensor[R, C] or [R, C + 1] and deltas Tensor[R, 4] or [R, 4 C].
            proposals: N images with ``proposal_boxes``, ``gt_classes`` and, where there are objects, ``gt_boxes``.
            share: this process's number of proposals divided by the mean over all processes.

        Returns:
            Scalars ``loss_cls`` and ``loss_box_reg``.
        """
        logits, deltas = predictions
        labels = torch.cat([image.gt_classes for image in proposals])
        boxes = torch.cat([image.proposal_boxes.tensor for image in proposals])
        # Without objects all proposals are background and the target boxes are never looked at.
        targets = torch.cat(
            [(image.gt_boxes if image.has("gt_boxes") else image.proposal_boxes).tensor for image in proposals]
        )
        scale = self.keys.BOX_HEAD_LOSS_SCALE * share
        losses = {
            "loss_cls": self._classification_loss(logits, labels, proposals, facts) * scale,
            "loss_box_reg": self.box_reg_loss(boxes, targets, deltas.float(), labels) * scale,
        }
        self._log_statistics(logits, labels)
        return losses

    def _row_weights(self, proposals: list[Instances], facts: BatchFacts) -> Tensor | None:
        if not any(len(boxes) for boxes in facts.region_boxes):
            return None
        return torch.cat(
            [
                region_row_weights(
                    image.proposal_boxes.tensor,
                    image.gt_classes,
                    boxes,
                    weights,
                    self.keys.REGION_IOU,
                    self.num_classes,
                    groups,
                )
                for image, boxes, weights, groups in zip(
                    proposals, facts.region_boxes, facts.region_weights, facts.region_groups
                )
            ]
        )

    def _classification_loss(
        self, logits: Tensor, labels: Tensor, proposals: list[Instances], facts: BatchFacts
    ) -> Tensor:
        image_index = torch.cat([labels.new_full((len(image),), index) for index, image in enumerate(proposals)])
        row_weights = self._row_weights(proposals, facts)
        if self.loss == "softmax":
            known = None if facts.known is None else facts.known.index_select(0, image_index)
            if self.gradient_record is not None:
                gradients = softmax_logit_gradients(logits.detach(), labels, row_weights, known)
                weights = classification_weights(labels, image_index, known=facts.known, row_weights=row_weights)
                self.gradient_record.add(gradients, labels, weights)
            return softmax_classification_loss(logits, labels, row_weights, known)
        equalize = self.loss == "eql"
        if equalize and self.tail is None:
            raise UserError("the equalization loss needs to know the rare and common categories of the training set")
        weights = classification_weights(
            labels,
            image_index,
            tail=self.tail if equalize else None,
            judged=facts.judged if equalize and self.keys.JUDGED_CATEGORIES else None,
            known=facts.known,
            row_weights=row_weights,
        )
        if self.gradient_record is not None:
            self.gradient_record.add(sigmoid_logit_gradients(logits.detach(), labels, weights), labels, weights)
        return sigmoid_classification_loss(logits, labels, weights)

    @torch.no_grad()
    def _log_statistics(self, logits: Tensor, labels: Tensor) -> None:
        storage = get_event_storage()
        if storage.iter % self.keys.STATISTICS_PERIOD != 0:
            return
        foreground = (labels < self.num_classes).nonzero()[:, 0]
        if len(foreground) == 0:
            return
        own = labels[foreground]
        scores = self.scores(logits[foreground])
        storage.put_scalar("fast_rcnn/fg_cls_accuracy", (scores.argmax(dim=1) == own).float().mean().item())
        storage.put_scalar("fast_rcnn/fg_score", scores.gather(1, own[:, None]).mean().item())
