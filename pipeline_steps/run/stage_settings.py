"""The part of a recipe that decides the result of each stage.

The workflow passes these as rule parameters: a changed value reruns the stage and what depends on it, and a value that
cannot change a result (threads, log intervals) reruns nothing. Each is JSON text with sorted keys, so that equal
settings are equal texts.
"""

import json
from typing import Any

from pipeline_steps.recipe.schema import Recipe

WITHOUT_EFFECT = {
    *("checkpoint_images", "log_images", "loader_workers", "activation_checkpointing", "compile_backbone", "tracker"),
}
"""Training keys that change speed or comfort, not the weights (beyond rounding)."""


OPENIMAGES_FORMAT = 2
"""Form of the files that are made from OpenImages; 2: groups of objects have a list of their own."""


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def mini_settings(recipe: Recipe) -> str:
    """Settings of the mini world."""
    return _text(recipe.data.mini.model_dump())


def openimages_settings(recipe: Recipe) -> str:
    """Settings of the OpenImages selection for LVIS models."""
    return _text([OPENIMAGES_FORMAT, recipe.lvis_version, recipe.data.openimages.model_dump()])


def openimages_own_settings(recipe: Recipe) -> str:
    """Settings of the OpenImages selection in OpenImages' own classes."""
    data = recipe.data
    return _text([OPENIMAGES_FORMAT, data.openimages_own.model_dump(), data.openimages.skip_rotated])


def training_settings(recipe: Recipe, name: str) -> str:
    """Settings of the training of the model ``name``, without its initial weights' own settings."""
    model = recipe.model(name)
    training = recipe.training_of(model).model_dump(exclude=WITHOUT_EFFECT)
    return _text(
        {
            "training": training,
            "datasets": model.datasets,
            "seed": recipe.seed_of(model),
            "recipe_version": recipe.recipe_version,
            "lvis_version": recipe.lvis_version,
        }
    )


_TESTING = {"longer_edge", "horizontal_flip", "precision", "batch_images"}
_BOXES = {"box_scales", "score_threshold", "nms_iou", "proposals", "scale_fusion", "keep_per_image"}


def box_testing(recipe: Recipe) -> dict[str, Any]:
    """Keys of the ``testing`` section that decide multi-scale boxes."""
    return recipe.testing.model_dump(include=_TESTING | _BOXES)


def mask_testing(recipe: Recipe) -> dict[str, Any]:
    """Keys of the ``testing`` section that decide multi-scale masks."""
    return recipe.testing.model_dump(include=_TESTING | {"mask_scales"})


def boxes_settings(recipe: Recipe) -> str:
    """Settings of multi-scale box testing."""
    return _text(box_testing(recipe))


def masks_settings(recipe: Recipe) -> str:
    """Settings of multi-scale mask testing."""
    return _text(mask_testing(recipe))


def _sharing(recipe: Recipe) -> dict[str, Any]:
    """What decides which categories the experts share with LVIS."""
    data = recipe.data
    return {
        "coco": [data.coco_relations, data.coco_verdicts],
        "openimages": [data.openimages.relations, data.openimages.verdicts, data.openimages.frequency_groups],
    }


def expert_settings(recipe: Recipe, name: str) -> str:
    """Settings of the evaluation of an expert in the categories that it shares with LVIS."""
    return _text(_sharing(recipe)[recipe.expert(name).category_table])


def merging(recipe: Recipe) -> dict[str, Any]:
    """Keys of the ``ensemble`` section that decide merging and re-scoring, besides how many detections are kept."""
    return recipe.ensemble.model_dump(exclude={"keep_per_image"})


def ensemble_settings(recipe: Recipe, split: str) -> str:
    """Settings of the re-scored ensemble of a split."""
    return _text(
        {
            "ensemble": merging(recipe),
            "keep": getattr(recipe.ensemble.keep_per_image, split),
            "sharing": _sharing(recipe),
            "tables": recipe.expert_vocabularies,
        }
    )
