"""Valid positive and negative samples of each category, with and without the equalization loss (the paper, figure 1).

A sample is a pair of a proposal and a category; it is valid if it has a weight above zero in the classification loss
(equation 4, unknown categories and ignore regions included). The proposals are those that training would draw: the
trained network proposes on training images, in the order and with the augmentation of the training, and the box head's
own rules label and sample them.

Symbols:
    N: images of a batch; R: sampled proposals, combined over the images; C: foreground categories, label C background
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import Tensor

from pipeline_steps.modeling.facts import BatchFacts
from pipeline_steps.modeling.losses import classification_weights, region_row_weights
from pipeline_steps.modeling.rcnn import LvisRCNN


@dataclass
class SampleCounts:
    """Sums over all batches so far."""

    positives: Tensor  # int64[C]: proposals of the category
    from_objects: Tensor
    """int64[C]: valid negatives that are proposals of other categories, without the equalization loss."""
    from_objects_equalized: Tensor  # int64[C]: the same with it
    from_background: Tensor
    """int64[C]: valid negatives that are background; the equalization loss leaves them as they are."""
    images: int = 0
    proposals: int = 0
    background_in_lvis: int = 0  # background proposals in images of LVIS
    background_on_coco: int = 0  # those of them that hit an object which COCO annotates

    @classmethod
    def zeros(cls, category_count: int) -> "SampleCounts":
        """No samples yet."""
        one, two, three, four = torch.zeros((4, category_count), dtype=torch.int64)
        return cls(one, two, three, four)


@dataclass(frozen=True)
class Batch:
    """One batch of training samples with the proposals that were drawn for it."""

    samples: list[dict[str, Any]]
    sampled: list[Instances]
    facts: BatchFacts
    row_weights: list[Tensor]  # Tensor[R_i] of each image: weights of its proposals (COCO Ignore, groups of objects)
    on_region: list[Tensor]  # BoolTensor[R_i] of each image: background that hits a region


@torch.no_grad()
def sample_proposals(model: LvisRCNN, samples: list[dict[str, Any]]) -> Batch:
    """Proposals of a batch as training would draw them, from a model in evaluation mode.

    Only the proposal network runs as in training, for its numbers of proposals; normalisation layers do not learn.
    """
    heads, network = model.roi_heads, model.proposal_generator
    facts = BatchFacts.from_samples(samples, heads.num_classes, model.device)
    targets = [sample["instances"].to(model.device) for sample in samples]
    images = model.preprocess_image(samples)
    features = model.extract_features(images)
    network.training = True
    try:
        with EventStorage():
            proposals, _ = network(images, features, targets, facts.generators)
            sampled, _ = heads.label_and_sample_proposals(proposals, targets, facts)
    finally:
        network.training = False
    threshold, background = heads.box_predictor.keys.REGION_IOU, heads.num_classes
    row_weights, on_region = [], []
    for image, boxes, weights, groups in zip(sampled, facts.region_boxes, facts.region_weights, facts.region_groups):
        own, labels = image.proposal_boxes.tensor, image.gt_classes
        row_weights.append(region_row_weights(own, labels, boxes, weights, threshold, background, groups))
        on_region.append(region_row_weights(own, labels, boxes, weights * 0, threshold, background, groups) == 0)
    return Batch(samples, sampled, facts, row_weights, on_region)


def _valid(weights: Tensor | None, shape: tuple[int, int], device: torch.device) -> Tensor:
    """BoolTensor[R, C]."""
    if weights is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    return (weights > 0).expand(shape)


@torch.no_grad()
def add_batch(counts: SampleCounts, batch: Batch, tail: Tensor, judged_categories: bool) -> None:
    """Count the samples of a batch.

    Args:
        tail: BoolTensor[C], rare and common categories.
        judged_categories: whether S_P and S_N keep their loss, see the recipe key of this name.
    """
    labels = torch.cat([image.gt_classes for image in batch.sampled])
    sizes = torch.tensor([len(image) for image in batch.sampled], device=labels.device)
    image_index = torch.repeat_interleave(torch.arange(len(sizes), device=labels.device), sizes)
    category_count = len(tail)
    shape = (len(labels), category_count)
    common = {"known": batch.facts.known, "row_weights": torch.cat(batch.row_weights)}
    plain = _valid(classification_weights(labels, image_index, **common), shape, labels.device)
    judged = batch.facts.judged if judged_categories else None
    equalized = _valid(
        classification_weights(labels, image_index, tail=tail, judged=judged, **common), shape, labels.device
    )
    foreground = labels < category_count
    positives = torch.bincount(labels[foreground], minlength=category_count)
    counts.positives += positives.cpu()
    counts.from_objects += (plain[foreground].sum(dim=0) - positives).cpu()
    counts.from_objects_equalized += (equalized[foreground].sum(dim=0) - positives).cpu()
    counts.from_background += plain[~foreground].sum(dim=0).cpu()
    counts.images += len(batch.samples)
    counts.proposals += len(labels)
    for sample, image, hits in zip(batch.samples, batch.sampled, batch.on_region):
        if sample["has_masks"]:  # on box-only images regions are groups of objects, not objects that COCO annotates
            counts.background_in_lvis += int((image.gt_classes == category_count).sum())
            counts.background_on_coco += int(hits.sum())


def sampled_batches(model: LvisRCNN, batches: Iterator[list[dict[str, Any]]]) -> Iterator[Batch]:
    """:func:`sample_proposals` for each batch; images that cannot be read are left out."""
    for samples in batches:
        readable = [sample for sample in samples if "image" in sample]
        if readable:
            yield sample_proposals(model, readable)
