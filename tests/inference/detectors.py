"""A small untrained detector whose detections and masks vary as a trained one's do, and images to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline_steps.inference.multi_scale import average_soft_masks, detect_boxes
from pipeline_steps.inference.postprocess import Detections
from pipeline_steps.inference.views import RenderedImages
from pipeline_steps.recipe import Recipe, resolve_recipe
from pipeline_steps.recipe.testing import Testing
from pipeline_steps.recipe.training import Precision

if TYPE_CHECKING:
    from pipeline_steps.modeling.rcnn import LvisRCNN

CATEGORIES = 30


def small_recipe(root: Path | str = "datasets", **testing: Any) -> Recipe:
    """The mini recipe with test-time settings."""
    return resolve_recipe(
        {
            "extends": "mini.yaml",
            "datasets_root": str(root),
            "testing": {"box_scales": [64, 96], "mask_scales": [64, 96], "precision": "fp32", **testing},
        }
    )


def make_image(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth random picture, uint8[height, width, 3]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(2, height // 12), max(2, width // 12), generator=generator)
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)
    return (fine[0].clamp(0, 1) * 255).byte().permute(1, 2, 0).contiguous().numpy()


@torch.no_grad()
def make_model(recipe: Recipe, name: str = "basic", seed: int = 0, categories: int = CATEGORIES) -> LvisRCNN:
    """The recipe's model with random weights; the last layers are widened, so that outputs differ between inputs."""
    from pipeline_steps.modeling.build import build_detector

    torch.manual_seed(seed)
    model = build_detector(recipe, name, categories, torch.ones(categories, dtype=torch.bool), "cpu")
    model.train(False)
    generator = torch.Generator().manual_seed(seed)

    def spread(layer: Any, scale: float) -> None:
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * scale)
        layer.bias.add_(torch.randn(layer.bias.shape, generator=generator))

    rpn = model.proposal_generator.rpn_head
    spread(rpn.objectness_logits, 2.0)
    spread(rpn.anchor_deltas, 0.3)
    spread(model.roi_heads.box_predictor.cls_score, 0.1)
    spread(model.roi_heads.box_predictor.bbox_pred, 0.1)
    spread(model.roi_heads.mask_head.predictor, 3.0)
    return model


def boxes_and_masks(
    model: LvisRCNN, images: RenderedImages, testing: Testing, precision: Precision = "fp32"
) -> list[tuple[Detections, Tensor]]:
    """Detections of N images and their soft masks by one model, without boxes that have no area (as detectron2's)."""
    found = detect_boxes(model, images, testing, precision)
    soft_masks = average_soft_masks([model], images, [of_image.boxes for of_image in found], [precision])
    result = []
    for detections, masks in zip(found, soft_masks):
        sized = (detections.boxes[:, 2:] > detections.boxes[:, :2]).all(dim=1)
        result.append((Detections(*(values[sized] for values in detections)), masks[sized]))
    return result
