"""What decides the outcome of a training: its digest guards resuming, and differences are named key by key."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from pipeline_steps.recipe import Recipe
from pipeline_steps.run.stage_settings import WITHOUT_EFFECT

if TYPE_CHECKING:
    from detectron2.config import CfgNode

ORDER_VERSION = 1
"""Raise it when the same seed leads to another data order or augmentation: older checkpoints then no longer fit."""

CHANGEABLE = WITHOUT_EFFECT | {"max_images_per_gpu"}
"""Training keys that may change between stopping and resuming. ``max_images_per_gpu`` is among them although batch
statistics depend on it a little: lowering it is the remedy for a GPU that runs out of memory in the middle."""

Settings = dict[str, Any]


def outcome_settings(recipe: Recipe, model_name: str, config: CfgNode, init_digest: str, data_digest: str) -> Settings:
    """Everything that decides the weights, as plain nested values.

    Args:
        init_digest: digest of the initial weights; empty without any.
        data_digest: digest of the packed training images.
    """
    model = recipe.model(model_name)
    detector = json.loads(json.dumps({key: config[key] for key in ("MODEL", "INPUT", "LVIS")}))
    del detector["MODEL"]["DEVICE"]
    return {
        "model": model_name,
        "training": recipe.training_of(model).model_dump(mode="json", exclude=CHANGEABLE),
        "datasets": list(model.datasets),
        "data": data_digest,
        "seed": recipe.seed_of(model),
        "init": init_digest,
        "recipe_version": recipe.recipe_version,
        "order_version": ORDER_VERSION,
        "detector": detector,
    }


def digest(settings: Settings) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {key: item for name in value for key, item in _flat(value[name], f"{prefix}.{name}".lstrip(".")).items()}


def differences(stored: Settings, current: Settings) -> list[str]:
    """``training.seed: 0 -> 1`` for each key that differs; the detector, which mostly follows, comes last."""
    old, new = _flat(stored), _flat(current)
    keys = sorted(old.keys() | new.keys(), key=lambda key: (key.startswith("detector."), key))
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}" for key in keys if old.get(key) != new.get(key)
    ]
