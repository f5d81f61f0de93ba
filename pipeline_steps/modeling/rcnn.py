"""The detector as a whole: Mask R-CNN that hands per-image facts to its losses and opens its stages to testing.

Symbols:
    N: images of the batch; R: proposals, combined over images; C: foreground categories; k: boxes of one image

Where the host waits for the GPU in a training step (a test counts it), and why:
    once for each image: detectron2's proposals (are all finite; are any empty; non-maximum suppression, whose result
        has as many boxes as it has), and its transformation of anchors to deltas (are all anchors wider than 0)
    once for each step: numbers of anchors and of proposals to draw from (``sample_labels``); detectron2's losses of
        the proposal network (what was drawn, and how many, for its log) and of the boxes (foreground); detectron2's
        pooling (boxes of each level); polygons, which are drawn on the CPU; the losses, for the log and to see that
        they are finite; the norm of the gradient, if it is clipped, and fp16's check for infinities
    once in 20 steps: accuracies (``LVIS.STATISTICS_PERIOD``)
    with several GPUs: torch's SyncBatchNorm in every layer's forward pass
What remains is detectron2's and torch's; only copies of their code could be without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.build import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor

from pipeline_steps.modeling.facts import BatchFacts, sample_labels
from pipeline_steps.modeling.matcher import WaitlessMatcher
from pipeline_steps.modeling.roi_heads import Features


@PROPOSAL_GENERATOR_REGISTRY.register()
class LvisRPN(RPN):
    """detectron2's proposal network; the anchors to train on are drawn with per-image generators.

    Proposals that are not finite make the losses NaN, where detectron2's raises an error: all processes then finish the
    iteration, and the trainer can tell in all of them what happened and where.
    """

    _generators: Sequence[torch.Generator | None] = ()
    _diverged = False

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments from a configuration."""
        keys = cfg.MODEL.RPN
        matcher = WaitlessMatcher(keys.IOU_THRESHOLDS, keys.IOU_LABELS, allow_low_quality_matches=True)
        return {**super().from_config(cfg, input_shape), "anchor_matcher": matcher}

    def forward(
        self,
        images: ImageList,
        features: Features,
        gt_instances: list[Instances] | None = None,
        generators: Sequence[torch.Generator | None] = (),
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Proposals of each image, and in training the losses ``loss_rpn_cls`` and ``loss_rpn_loc``.

        ``generators`` draw the anchors to train on, one for each image; without them torch's global one does.
        """
        self._generators, self._diverged = generators, False
        proposals, losses = super().forward(images, features, gt_instances)
        if self._diverged:
            losses = {name: loss * math.nan for name, loss in losses.items()}
        return proposals, losses

    def predict_proposals(
        self, anchors: list[Boxes], logits: list[Tensor], deltas: list[Tensor], image_sizes: list[tuple[int, int]]
    ) -> list[Instances]:
        """Best proposals of each image; the whole image as the only one where training has diverged."""
        try:
            return super().predict_proposals(anchors, logits, deltas, image_sizes)
        except FloatingPointError:
            self._diverged = True
            whole = [
                logits[0].new_tensor([[0, 0, width, height]], dtype=torch.float32) for height, width in image_sizes
            ]
            return [
                Instances(size, proposal_boxes=Boxes(box), objectness_logits=box.new_zeros(1))
                for size, box in zip(image_sizes, whole)
            ]

    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Labels (1 object, 0 background, -1 not drawn) and matched boxes of all anchors, per image."""
        labels, boxes = super().label_and_sample_anchors(anchors, gt_instances)
        generators = self._generators or [None] * len(labels)
        drawn = sample_labels(labels, self.batch_size_per_image, self.positive_fraction, 0, generators)
        for label, (positive, negative) in zip(labels, drawn):
            label.fill_(-1)
            label[positive] = 1
            label[negative] = 0
        return labels, boxes

    def _subsample_labels(self, label: Tensor) -> Tensor:
        return label  # drawn for all images at once, above


@META_ARCH_REGISTRY.register()
class LvisRCNN(GeneralizedRCNN):
    """Mask R-CNN for LVIS: class-agnostic masks, box head with the paper's losses.

    Calling it in training mode gives a dict of scalar losses, in testing mode detectron2's detections. Testing at
    several scales is built from :meth:`extract_features`, :meth:`propose`, :meth:`scores` and :meth:`decode`, and from
    ``box_predictions`` and ``soft_masks`` of its ``roi_heads``.
    """

    channels_last: bool = False
    """Whether images are laid out channels-last before the backbone (set by ``build_detector``)."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses of N training samples (see ``BatchFacts.from_samples`` for their keys), or detections."""
        if not self.training:
            return self.inference(batched_inputs)
        facts = BatchFacts.from_samples(batched_inputs, self.roi_heads.num_classes, self.device)
        targets = [sample["instances"].to(self.device) for sample in batched_inputs]
        images = self.preprocess_image(batched_inputs)
        features = self.extract_features(images)
        proposals, proposal_losses = self.proposal_generator(images, features, targets, facts.generators)
        _, detector_losses = self.roi_heads(images, features, proposals, targets, facts)
        return {**detector_losses, **proposal_losses}

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise, pad and batch the samples' images; ``ImageList.tensor`` is Tensor[N, 3, H, W]."""
        images = super().preprocess_image(batched_inputs)
        if self.channels_last:
            images.tensor = images.tensor.contiguous(memory_format=torch.channels_last)
        return images

    def extract_features(self, images: ImageList) -> Features:
        """Backbone and pyramid: ``{"p2": Tensor[N, channels, H/4, W/4], ...}``."""
        return self.backbone(images.tensor)

    def propose(self, images: ImageList, features: Features) -> list[Instances]:
        """Proposals of each image (testing mode): ``proposal_boxes`` and ``objectness_logits``, best first."""
        proposals, _ = self.proposal_generator(images, features, None)
        return proposals

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of the foreground categories, 0..1: float32 Tensor[R, C]."""
        return self.roi_heads.box_predictor.scores(logits)

    def decode(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Apply deltas Tensor[R, 4] or [R, 4 C] to proposal boxes Tensor[R, 4]: float32, same shape as ``deltas``."""
        return self.roi_heads.box_predictor.box2box_transform.apply_deltas(deltas.float(), boxes)
