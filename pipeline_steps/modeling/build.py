"""One function that builds any detector of a recipe."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.detectors import with_bases
from pipeline_steps.recipe.load import shipped_or_own
from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.recipe.testing import Compute
from pipeline_steps.recipe.training import Training

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from pipeline_steps.modeling.rcnn import LvisRCNN

log = logging.getLogger(__name__)


def lvis_config() -> CfgNode:
    """detectron2's default configuration with our keys, all below ``LVIS``, and their defaults.

    Values that belong to an architecture are set in ``config/detectors``; those of a training come from the recipe.
    """
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    cfg.LVIS = CfgNode()
    _set_training_keys(cfg, Training())
    # Box edge in pixels that the heads pool from level p4 (FPN, equation 1: 224, for images of 800 pixels).
    cfg.LVIS.CANONICAL_BOX_SIZE = 224
    # Statistics (accuracies, sample counts) are logged every so many iterations: each costs a device synchronisation.
    cfg.LVIS.STATISTICS_PERIOD = 20

    # The small backbones of the mini recipe.
    cfg.LVIS.MINI = CfgNode()
    cfg.LVIS.MINI.BLOCK = "basic"  # basic or bottleneck
    cfg.LVIS.MINI.BLOCKS_PER_STAGE = [2, 2, 2, 2]
    cfg.LVIS.MINI.WIDTH = 24  # channels of the stem and of res2; doubled at each later stage
    cfg.LVIS.MINI.GROUPS = 8  # of the 3x3 convolutions of bottleneck blocks
    return cfg


def _set_training_keys(cfg: CfgNode, training: Training) -> None:
    """The keys that come from the recipe's ``training`` section, which describes them and has their defaults."""
    cfg.LVIS.LOSS = training.loss
    cfg.LVIS.PRIOR_PROBABILITY = training.prior_probability
    cfg.LVIS.JUDGED_CATEGORIES = training.judged_categories
    cfg.LVIS.REGION_IOU = training.coco_ignore.iou
    cfg.LVIS.BOX_HEAD_LOSS_SCALE = training.box_head_loss_scale


def read_detector_file(name: str) -> CfgNode:
    """detectron2's and our defaults with a detector file laid over them.

    Raises:
        UserError: the file is missing, no YAML, or has unknown keys or values of a wrong type.
    """
    import yaml

    path = shipped_or_own(name)
    with_bases(path)
    cfg = lvis_config()
    try:
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except OSError as error:
        raise UserError(f"{path}: _BASE_: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    except (KeyError, ValueError, AssertionError) as error:
        raise UserError(f"{path}: {error.args[0] if error.args else error}") from None
    return cfg


def _apply_options(cfg: CfgNode, options: list[str], origin: str) -> None:
    words = [word for option in options for word in option.split(maxsplit=1)]
    if len(words) % 2:
        raise UserError(f"{origin}: detector_options must be pairs KEY VALUE, got {options}")
    try:
        cfg.merge_from_list(words)
    except (AssertionError, KeyError, ValueError) as error:
        raise UserError(f"{origin}: detector_options: {error.args[0] if error.args else error}") from None


def detector_config(recipe: Recipe, model_name: str, category_count: int) -> CfgNode:
    """The complete, frozen detectron2 configuration of a model, expert or pre-training of a recipe.

    Raises:
        UserError: the recipe has no such model, or its detector file or options are wrong.
    """
    model = recipe.model(model_name)
    training, testing = recipe.training_of(model), recipe.testing
    cfg = read_detector_file(model.detector)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = category_count
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = testing.score_threshold
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = testing.nms_iou
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = testing.proposals
    cfg.INPUT.MASK_FORMAT = training.mask_format
    _set_training_keys(cfg, training)
    _apply_options(cfg, training.detector_options, model_name)
    cfg.freeze()
    return cfg


def build_from_config(cfg: CfgNode, device: str | torch.device = "cpu") -> LvisRCNN:
    """The detector of a configuration, on ``device``, in training mode: the same standard modules on every device."""
    from detectron2.modeling import META_ARCH_REGISTRY

    import pipeline_steps.modeling.backbones
    import pipeline_steps.modeling.rcnn  # noqa: F401  registers the parts by name

    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = str(device)
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).to(device)


def build_detector(
    recipe: Recipe, model_name: str, category_count: int, tail: Tensor | None = None, device: str | torch.device = "cpu"
) -> LvisRCNN:
    """Build a model, expert or pre-training of a recipe, with random weights, in training mode.

    Args:
        category_count: C, its foreground categories.
        tail: BoolTensor[C], its rare and common categories; needed for training with the equalization loss.

    Raises:
        UserError: wrong name, detector file or options.
    """
    cfg = detector_config(recipe, model_name, category_count)
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0 and not recipe.model(model_name).init:
        log.warning("%s has no init, but MODEL.BACKBONE.FREEZE_AT freezes random layers", model_name)
    model = build_from_config(cfg, device)
    if tail is not None:
        model.roi_heads.box_predictor.set_tail(tail)
    apply_switches(model, recipe.training_of(recipe.model(model_name)), recipe.compute)
    return model


def apply_switches(model: LvisRCNN, training: Training, compute: Compute) -> None:
    """What changes the speed or memory of a detector but not what it computes (beyond rounding), in place."""
    from pipeline_steps.modeling.backbones.deformable import DeformableConv2d

    if compute.fast_cpu_modules and model.device.type == "cpu":
        from pipeline_steps.modeling.cpu.modules import use_fast_cpu_modules

        use_fast_cpu_modules(model)
    choice = compute.deformable_convolution
    for layer in model.modules():
        if isinstance(layer, DeformableConv2d):
            layer.batched = choice == "batched" or (choice == "auto" and model.device.type == "cpu")
    if training.activation_checkpointing:
        from pipeline_steps.modeling.activation_checkpointing import checkpoint_activations

        checkpoint_activations(model.backbone.bottom_up)
    if training.channels_last:
        model.to(memory_format=torch.channels_last)
        model.channels_last = True
    if training.compile_backbone:
        # In place: the names of the parameters stay as they are. Shapes vary with the images.
        model.backbone.compile(dynamic=True)
