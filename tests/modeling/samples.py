"""Small recipes and random training samples."""

from __future__ import annotations

from typing import Any

import torch

from pipeline_steps.recipe.load import CONFIG_FOLDER, resolve_recipe
from pipeline_steps.recipe.schema import Recipe

CATEGORIES = 20


def tiny_recipe(*, fast_cpu_modules: bool = True, **training: Any) -> Recipe:
    """The mini recipe with other training settings, and the modules for a CPU or the standard ones."""
    training = {"loss": "sigmoid", "precision": "fp32", "channels_last": False, "box_head_loss_scale": 1.0, **training}
    compute = {"fast_cpu_modules": fast_cpu_modules}
    return resolve_recipe({"extends": "mini.yaml", "training": training, "compute": compute}, CONFIG_FOLDER)


def sample(seed: int, *, objects: int = 5, has_masks: bool = True, size: int = 96, **facts: Any) -> dict[str, Any]:
    """A random training sample; ``facts`` adds or replaces keys."""
    from detectron2.structures import BitMasks, Boxes, Instances

    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(objects, 2, generator=generator) * (size - 46)
    edges = 18 + torch.rand(objects, 2, generator=generator) * 28
    boxes = torch.cat([corners, corners + edges], dim=1)
    instances = Instances((size, size), gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.randint(0, CATEGORIES, (objects,), generator=generator)
    if has_masks:
        masks = torch.zeros(objects, size, size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1 : (y1 + y2) // 2, x1:x2] = True
        instances.gt_masks = BitMasks(masks)
    judged = torch.zeros(CATEGORIES, dtype=torch.bool)
    judged[instances.gt_classes] = True
    return {
        "image": (torch.rand(3, size, size, generator=generator) * 255).to(torch.uint8),
        "height": size,
        "width": size,
        "image_id": seed,
        "file_name": f"{seed}.jpg",
        "instances": instances,
        "has_masks": has_masks,
        "judged": judged,
        "known": torch.ones(CATEGORIES, dtype=torch.bool),
        "region_boxes": torch.zeros(0, 4),
        "region_weights": torch.zeros(0),
        **facts,
    }
