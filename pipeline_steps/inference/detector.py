"""Detectors for testing: the weights, and which data set's categories they speak of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.modeling.build import build_detector
from pipeline_steps.modeling.device import choose_device
from pipeline_steps.modeling.weights import load_model_weights, read_model_file
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.training import Precision

if TYPE_CHECKING:
    from pipeline_steps.modeling.rcnn import LvisRCNN

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detector:
    """A model of the recipe ready for testing: in evaluation mode, on its device."""

    name: str
    module: LvisRCNN
    category_ids: np.ndarray
    """int32[C], the data set's category id of each output."""
    precision: Precision


def load_detector(recipe: Recipe, name: str, weights: str | Path) -> Detector:
    """Build a model of the recipe on the device of ``compute.device`` and load its trained weights.

    Sets the number of CPU threads of an operation, too.

    Raises:
        UserError: no GPU or no such model, or a file that is missing, damaged or of another model.
    """
    torch.set_num_threads(recipe.compute.threads)
    device = choose_device(recipe.compute.device)
    content = read_model_file(weights)
    category_ids = content.get("category_ids")
    if content.get("kind") == "backbone" or not category_ids:
        raise UserError(f"{weights} is not a trained model: it has no category ids; give the model.pth of {name!r}")
    if content.get("model_name", name) != name:
        log.warning("%s was trained as %r and is used as %r", weights, content["model_name"], name)
    del content
    module = build_detector(recipe, name, len(category_ids), device=device)
    load_model_weights(module, weights)
    module.train(False)
    return Detector(name, module, np.asarray(category_ids, np.int32), recipe.test_precision(name))


def require_categories(detector: Detector, weights: str | Path, category_ids: list[int], dataset: str | Path) -> None:
    """Refuse a model of other categories.

    Raises:
        UserError: the ids that only one side has.
    """
    own, wanted = set(detector.category_ids.tolist()), set(category_ids)
    if own != wanted:
        only_own, only_wanted = sorted(own - wanted), sorted(wanted - own)
        parts = [f"the model has {listing(only_own)} which the data set lacks"] * bool(only_own)
        parts += [f"the data set has {listing(only_wanted)} which the model lacks"] * bool(only_wanted)
        raise UserError(
            f"{weights} ({len(own)} categories) does not fit {dataset} ({len(wanted)} categories): "
            f"{'; '.join(parts)}; is it a model of another data set or LVIS version?"
        )
