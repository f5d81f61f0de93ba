"""Our keys of the detectron2 configuration, all below ``cfg.LVIS``, with their defaults.

Values that belong to an architecture are set in ``config/detectors/*.yaml``; those of a training come from the recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline_steps.recipe.training import Training

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def lvis_config() -> CfgNode:
    """detectron2's default configuration with the ``LVIS`` keys added."""
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    cfg.LVIS = CfgNode()
    set_training_keys(cfg, Training())
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


def set_training_keys(cfg: CfgNode, training: Training) -> None:
    """The keys that come from the recipe's ``training`` section, which describes them and has their defaults."""
    cfg.LVIS.LOSS = training.loss
    cfg.LVIS.PRIOR_PROBABILITY = training.prior_probability
    cfg.LVIS.JUDGED_CATEGORIES = training.judged_categories
    cfg.LVIS.REGION_IOU = training.coco_ignore.iou
    cfg.LVIS.BOX_HEAD_LOSS_SCALE = training.box_head_loss_scale
