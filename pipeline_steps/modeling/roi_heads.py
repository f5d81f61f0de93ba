"""Box and mask head of the detector: training with the paper's losses, and the pieces that testing is made of.

Symbols:
    N: images of the batch; R: proposals, combined over images; C: foreground categories, label C is background
    G: annotated objects of one image; k: boxes of one image; m: edge of a soft mask (28)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_HEADS_REGISTRY
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.proposal_utils import add_ground_truth_to_proposals
from detectron2.modeling.roi_heads import StandardROIHeads
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, PolygonMasks, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torchvision.ops import roi_align

from pipeline_steps.common.errors import UserError
from pipeline_steps.modeling.box_predictor import LvisBoxPredictor
from pipeline_steps.modeling.cpu.normalization import ProcessBatchNorm2d
from pipeline_steps.modeling.facts import BatchFacts, sample_labels
from pipeline_steps.modeling.matcher import WaitlessMatcher

Features = dict[str, Tensor]

_SYNCHRONISED = (nn.SyncBatchNorm, ProcessBatchNorm2d)


def process_shares(counts: list[int], device: torch.device) -> tuple[list[Any], list[Any]]:
    """This process's counts divided by their means over all processes, and these means; scalars on ``device``.

    A loss that is a mean over local items, times its share, averages over processes to the mean over all items: the
    gradient of a batch does not depend on how it is spread over GPUs. Parts of a batch that are accumulated one after
    the other cannot know the counts of those to come: see :class:`pipeline_steps.training.schedule.BatchSplit`.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return [1.0] * len(counts), counts
    mine = torch.tensor(counts, dtype=torch.float32).to(device, non_blocking=True)
    means = mine.clone()
    dist.all_reduce(means)
    means /= dist.get_world_size()
    shares = mine / means.clamp(min=torch.finfo(torch.float32).tiny)
    return list(shares.unbind()), list(means.unbind())


def mask_targets(masks: Any, object_index: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Ground-truth masks cut out at ``boxes``.

    Args:
        masks: G masks, detectron2 ``BitMasks`` or ``PolygonMasks``.
        object_index: LongTensor[k], the object of each box.
        boxes: Tensor[k, 4] in image coordinates.
        size: edge of the targets.

    Returns:
        BoolTensor[k, size, size] on the device of ``boxes``.
    """
    if isinstance(masks, BitMasks):
        # As BitMasks.crop_and_resize, but without a copy of the full-size mask for every box.
        regions = torch.cat([object_index[:, None].to(boxes.dtype), boxes], dim=1)
        bitmaps = masks.tensor[:, None].to(boxes.dtype)
        return roi_align(bitmaps, regions, (size, size), 1.0, 0, aligned=True).squeeze(1) >= 0.5
    return masks[object_index.cpu()].crop_and_resize(boxes, size)


@ROI_HEADS_REGISTRY.register()
class LvisROIHeads(StandardROIHeads):
    """detectron2's standard heads with the paper's losses; box-only images take no part in the mask loss."""

    @classmethod
    def from_config(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Constructor arguments from a configuration."""
        if cfg.MODEL.MASK_ON and not cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK:
            raise UserError("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK must be True: one mask per box, for all categories")
        keys = cfg.MODEL.ROI_HEADS
        return {
            **super().from_config(cfg, input_shape),
            "proposal_matcher": WaitlessMatcher(keys.IOU_THRESHOLDS, keys.IOU_LABELS),
        }

    @classmethod
    def _init_box_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(cfg, input_shape)
        parts["box_pooler"] = _pooler(cfg, cfg.MODEL.ROI_BOX_HEAD, input_shape)
        parts["box_predictor"] = LvisBoxPredictor(cfg, parts["box_head"].output_shape)
        return parts

    @classmethod
    def _init_mask_head(cls, cfg: Any, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_mask_head(cfg, input_shape)
        if parts:
            parts["mask_pooler"] = _pooler(cfg, cfg.MODEL.ROI_MASK_HEAD, input_shape)
        return parts

    # ---- training -------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: ImageList,
        features: Features,
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        facts: BatchFacts | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Losses in training (``targets`` and ``facts`` are needed), detections in testing.

        Args:
            features: pyramid levels, Tensor[N, channels, H_l, W_l] each.
            proposals: N images with ``proposal_boxes`` and ``objectness_logits``.
            targets: N images with ``gt_boxes``, ``gt_classes`` and, unless box-only, ``gt_masks``.
        """
        if not self.training:
            return super().forward(images, features, proposals)
        if targets is None or facts is None:
            raise ValueError("training needs targets and facts")
        sampled, foreground = self.label_and_sample_proposals(proposals, targets, facts)
        masked = [count if has_masks else 0 for count, has_masks in zip(foreground, facts.has_masks)]
        mask_count = sum(masked)
        (box_share, mask_share), (_, mean_mask_count) = process_shares(
            [sum(len(image) for image in sampled), mask_count], self._device
        )
        losses = self.box_predictor.losses(self.box_predictions(features, sampled), sampled, facts, box_share)
        if self.mask_on and mask_count:
            losses["loss_mask"] = self._mask_loss(features, sampled, targets, masked) * mask_share
        elif self.mask_on:
            losses["loss_mask"] = self._no_mask_loss(features, others_have=bool(mean_mask_count > 0))
        return sampled, losses

    @property
    def _device(self) -> torch.device:
        return self.box_predictor.cls_score.weight.device

    @torch.no_grad()
    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances], facts: BatchFacts
    ) -> tuple[list[Instances], list[int]]:
        """Match proposals with objects and draw those to train on.

        Returns:
            N images with ``proposal_boxes``, ``gt_classes`` and, where there are objects, ``gt_boxes`` and
            ``gt_index`` (the object in ``targets``), foreground first; and the number of foreground proposals of each.
            Masks are not carried along: copying a full-size mask for every proposal takes more memory than the network.
        """
        if self.proposal_append_gt:
            proposals = add_ground_truth_to_proposals(targets, proposals)
        matches, labels = [], []
        for image, target in zip(proposals, targets):
            matched, kind = self.proposal_matcher(pairwise_iou(target.gt_boxes, image.proposal_boxes))
            own = target.gt_classes[matched] if len(target) else torch.zeros_like(matched)
            own = own.masked_fill(kind == 0, self.num_classes).masked_fill_(kind == -1, -1)
            matches.append(matched)
            labels.append(own if len(target) else torch.full_like(own, self.num_classes))
        drawn = sample_labels(
            labels, self.batch_size_per_image, self.positive_fraction, self.num_classes, facts.generators
        )
        sampled = []
        for image, target, matched, label, pair in zip(proposals, targets, matches, labels, drawn):
            rows = torch.cat(pair)
            own = image[rows]
            own.gt_classes = label[rows]
            if len(target):
                own.gt_index = matched[rows]
                own.gt_boxes = target.gt_boxes[own.gt_index]
            sampled.append(own)
        foreground = [len(positive) for positive, _ in drawn]
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", sum(foreground) / len(foreground))
        storage.put_scalar("roi_head/num_bg_samples", sum(len(negative) for _, negative in drawn) / len(drawn))
        return sampled, foreground

    def _mask_loss(
        self, features: Features, sampled: list[Instances], targets: list[Instances], counts: list[int]
    ) -> Tensor:
        """Mean binary cross-entropy of the masks of the first ``counts`` proposals, of which there is at least one."""
        boxes = [image.proposal_boxes[:count] for image, count in zip(sampled, counts)]
        logits = self._mask_logits(features, boxes)
        having = [image for image, count in enumerate(counts) if count]
        indices = [sampled[image].gt_index[: counts[image]] for image in having]
        edges = [boxes[image].tensor for image in having]
        if any(isinstance(targets[image].gt_masks, PolygonMasks) for image in having):
            # Polygons are drawn on the CPU: what they are cut out with goes there once, not for each image.
            indices, edges = (list(torch.cat(x).cpu().split([len(own) for own in x])) for x in (indices, edges))
        wanted = torch.cat(
            [
                mask_targets(targets[image].gt_masks, index, own, logits.shape[-1])
                for image, index, own in zip(having, indices, edges)
            ]
        ).to(logits.device)
        self._log_mask_statistics(logits, wanted)
        return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype))

    def _no_mask_loss(self, features: Features, others_have: bool) -> Tensor:
        """0, connected to all parameters of the mask head: every process must have a gradient for every parameter.

        Synchronised normalisation waits for all processes: if others have masks, this one goes through the layers with
        an empty batch, which adds nothing to the joined statistics. If nobody has any, nobody does, and running
        statistics stay. The empty batch is float32 whatever the precision: torch's SyncBatchNorm sends statistics of
        values in float32, but those of no values in the type of its input, and the two would not fit together.
        """
        zero = sum(parameter.sum() for parameter in self.mask_head.parameters()) * 0.0
        if not (others_have and any(isinstance(layer, _SYNCHRONISED) for layer in self.mask_head.modules())):
            return zero
        level, edge = features[self.mask_in_features[0]], self.mask_pooler.output_size
        with torch.autocast(level.device.type, enabled=False):
            empty = level.new_zeros((0, level.shape[1], *edge), dtype=torch.float32)
            return zero + self.mask_head.layers(empty).sum()

    @torch.no_grad()
    def _log_mask_statistics(self, logits: Tensor, wanted: Tensor) -> None:
        storage = get_event_storage()
        if storage.iter % self.box_predictor.keys.STATISTICS_PERIOD == 0:
            storage.put_scalar("mask_rcnn/accuracy", ((logits > 0) == wanted).float().mean().item())

    # ---- the pieces of testing ------------------------------------------------------------------------------------

    def box_predictions(self, features: Features, proposals: list[Instances]) -> tuple[Tensor, Tensor]:
        """Box head on given proposals (their ``proposal_boxes``).

        Returns:
            logits Tensor[R, C] (``softmax``: [R, C + 1]) and deltas Tensor[R, 4] or [R, 4 C].
        """
        levels = [features[name] for name in self.box_in_features]
        pooled = pool_in_float32(self.box_pooler, levels, [image.proposal_boxes for image in proposals])
        return self.box_predictor(self.box_head(pooled))

    def _mask_logits(self, features: Features, boxes: list[Boxes]) -> Tensor:
        """Mask head on given boxes of N images: float32 Tensor[sum of k, m, m]."""
        pooled = pool_in_float32(self.mask_pooler, [features[name] for name in self.mask_in_features], boxes)
        return self.mask_head.layers(pooled)[:, 0].float()

    def soft_masks(self, features: Features, boxes: list[Tensor]) -> list[Tensor]:
        """Mask probabilities inside given boxes: N tensors [k, 4] to N float32 tensors [k, m, m]."""
        logits = self._mask_logits(features, [Boxes(image) for image in boxes])
        return list(logits.sigmoid().split([len(image) for image in boxes]))


def pool_in_float32(pooler: ROIPooler, levels: list[Tensor], boxes: list[Boxes]) -> Tensor:
    """RoIAlign of N images' boxes from levels Tensor[N, D, H_l, W_l]: Tensor[R, D, m, m] of the levels' type.

    Computed in float32: detectron2 rounds the boxes to the type of the features, and bfloat16 has steps of 4 pixels
    beyond 512 and of 8 beyond 1024. The sampling itself is in float32 under autocast anyway.
    """
    return pooler([level.float() for level in levels], boxes).to(levels[0].dtype)


def _pooler(cfg: Any, head: Any, input_shape: dict[str, ShapeSpec]) -> ROIPooler:
    """RoIAlign over the pyramid, with our box size for level p4 (detectron2's configuration has no key for it)."""
    return ROIPooler(
        output_size=head.POOLER_RESOLUTION,
        scales=tuple(1.0 / input_shape[name].stride for name in cfg.MODEL.ROI_HEADS.IN_FEATURES),
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
        canonical_box_size=cfg.LVIS.CANONICAL_BOX_SIZE,
    )
