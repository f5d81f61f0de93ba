"""One training step, or one view of testing, of a detector on fake tensors: its FLOPs and its peak memory.

The network, its normalisation, mixed precision, activation checkpointing and optimiser are the real ones. What
depends on data is replaced by its largest size: proposals are all drawn, a quarter of them (the configured part)
foreground, and spread evenly over the levels of the pyramid; the losses, far below 1 % of either number, are plain
ones. Gradients are there from the beginning, as DistributedDataParallel and gradient accumulation keep them. The
tensors' device is the CPU because torch's backward pass asks the driver about any CUDA device, fake ones too; the
modules are the standard ones, and hold the same tensors on both devices (tested for the forward pass). Where there is
no GPU, ``torch.autocast("cuda")`` turns itself off with a warning: what is counted then is float32, half as much again.

Symbols:
    N: images of a step; R: proposals, combined over images
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline_steps.estimates.accounting import Accountant
from pipeline_steps.estimates.request import Request
from pipeline_steps.estimates.sizes import Size
from pipeline_steps.modeling.device import autocast
from pipeline_steps.recipe import Recipe

if TYPE_CHECKING:
    from pipeline_steps.modeling.rcnn import LvisRCNN

OBJECTS = 100
"""Annotated objects of an image, for matching them with the anchors. (More than memory allows are matched on the
CPU.)"""
MASKED_BOXES = 300
"""Boxes of an image whose masks are predicted."""


@dataclass(frozen=True)
class Account:
    """What one pass takes."""

    flops: dict[str, int]  # by kind, see :class:`pipeline_steps.estimates.accounting.Accountant`
    peak_bytes: int  # largest memory of all tensors together
    weight_bytes: int  # parameters and buffers
    trained_bytes: int  # parameters that are trained


def skeleton(recipe: Recipe, name: str, categories: int) -> LvisRCNN:
    """The detector on torch's meta device: all its modules, no weights."""
    from pipeline_steps.modeling.activation_checkpointing import checkpoint_activations
    from pipeline_steps.modeling.build import build_from_config, detector_config

    training = recipe.training_of(recipe.model(name))
    with torch.device("meta"):
        model = build_from_config(detector_config(recipe, name, categories), "meta")
    if training.activation_checkpointing:
        checkpoint_activations(model.backbone.bottom_up)
    model.channels_last = training.channels_last
    return model


def give_memory(model: nn.Module, device: str) -> None:
    """Put uninitialised tensors (fake ones inside a FakeTensorMode) in the place of all meta tensors, module by module.

    ``Module.to_empty`` cannot do it: fake parameters cannot be swapped.
    """
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(value, device=device), value.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device=device)


def _account(model: nn.Module, accountant: Accountant) -> Account:
    def size(tensors: Any) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    return Account(
        dict(accountant.flops),
        accountant.peak,
        size([*model.parameters(), *model.buffers()]),
        size(parameter for parameter in model.parameters() if parameter.requires_grad),
    )


def trace_training(recipe: Recipe, name: str, wanted: Request, size: Size) -> Account:
    """One training step of the model ``name`` with images of ``size`` (multiples of 32)."""
    from pipeline_steps.training.optimizer import build_optimizer

    training = recipe.training_of(recipe.model(name))
    model = skeleton(recipe, name, wanted.categories)
    with FakeTensorMode(allow_non_fake_inputs=True), Accountant() as accountant:
        give_memory(model, "cpu")
        model.train()
        optimizer = build_optimizer(model, training.schedule)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        pixels = torch.empty(wanted.images, 3, *size)
        with autocast(torch.device("cpu"), wanted.precision):
            loss = training_loss(model, pixels)
        loss.backward()
        del loss
    return _account(model, accountant)


def training_loss(model: LvisRCNN, pixels: Tensor) -> Tensor:
    """A training step's forward pass on normalised images Tensor[N, 3, H, W], without what depends on data."""
    if model.channels_last:
        pixels = pixels.contiguous(memory_format=torch.channels_last)
    features = model.backbone(pixels)
    heads, images = model.roi_heads, len(pixels)
    proposing = _proposal_loss(model, features, images)
    boxes = images * heads.batch_size_per_image
    logits, deltas = heads.box_predictor(
        heads.box_head(_pooled(heads.box_pooler, heads.box_in_features, features, boxes))
    )
    loss = proposing + F.binary_cross_entropy_with_logits(logits.float(), torch.zeros_like(logits, dtype=torch.float))
    loss = loss + deltas.float().abs().mean()
    if heads.mask_on:
        foreground = round(boxes * heads.positive_fraction)
        masks = _mask_logits(heads, features, foreground).float()
        loss = loss + F.binary_cross_entropy_with_logits(masks, torch.zeros_like(masks))
    return loss


def _proposal_loss(model: LvisRCNN, features: dict[str, Tensor], images: int) -> Tensor:
    """Losses of the proposal network on as many anchors as it draws, after matching objects with all anchors."""
    from detectron2.structures import Boxes, pairwise_iou

    network = model.proposal_generator
    levels = [features[name] for name in network.in_features]
    logits, deltas = network.rpn_head(levels)
    flat = torch.cat([x.permute(0, 2, 3, 1).flatten() for x in logits])
    moved = torch.cat([x.permute(0, 2, 3, 1).reshape(-1, 4) for x in deltas])
    with torch.no_grad():
        anchors = torch.empty(len(flat) // images, 4)
        pairwise_iou(Boxes(torch.empty(OBJECTS, 4)), Boxes(anchors))
    drawn = torch.zeros(images * network.batch_size_per_image, dtype=torch.long)
    chosen = flat[drawn].float()
    return F.binary_cross_entropy_with_logits(chosen, torch.zeros_like(chosen)) + moved[drawn].float().abs().mean()


def _pooled(pooler: Any, names: list[str], features: dict[str, Tensor], boxes: int) -> Tensor:
    """RoIAlign of ``boxes`` boxes, the same number from each level: Tensor[boxes, channels, m, m]."""
    shares = [boxes // len(names) + (level < boxes % len(names)) for level in range(len(names))]
    parts = []
    for name, level, share in zip(names, pooler.level_poolers, shares):
        rois = torch.zeros(share, 5)
        parts.append(level(features[name], rois))
    return torch.cat(parts)


def _mask_logits(heads: Any, features: dict[str, Tensor], boxes: int) -> Tensor:
    from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead

    pooled = _pooled(heads.mask_pooler, heads.mask_in_features, features, boxes)
    return MaskRCNNConvUpsampleHead.layers(heads.mask_head, pooled)  # as on a GPU


def trace_view(recipe: Recipe, name: str, wanted: Request, size: Size) -> Account:
    """Testing images at one size: their boxes, or the masks of boxes that are known."""
    model = skeleton(recipe, name, wanted.categories)
    with FakeTensorMode(allow_non_fake_inputs=True), Accountant() as accountant, torch.no_grad():
        give_memory(model, "cpu")
        model.train(False)
        pixels = torch.empty(wanted.images, 3, *size)
        with autocast(torch.device("cpu"), wanted.precision):
            features = model.backbone(pixels)
            heads = model.roi_heads
            if wanted.purpose == "masks":
                _mask_logits(heads, features, wanted.images * MASKED_BOXES).float().sigmoid()
            else:
                model.proposal_generator.rpn_head([features[key] for key in model.proposal_generator.in_features])
                boxes = wanted.images * wanted.proposals
                pooled = _pooled(heads.box_pooler, heads.box_in_features, features, boxes)
                logits, deltas = heads.box_predictor(heads.box_head(pooled))
                model.scores(logits)
                deltas.float()
    return _account(model, accountant)
