"""Our keys of the detectron2 configuration, all below ``cfg.LVIS``, with their defaults.

Values that belong to an architecture are set in ``config/detectors/*.yaml``; those of a training come from the recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detectron2.config import CfgNode


def lvis_config() -> CfgNode:
    """detectron2's default configuration with the ``LVIS`` keys added."""
    from detectron2.config import CfgNode, get_cfg

    cfg = get_cfg()
    cfg.LVIS = CfgNode()
    # Box classification loss: softmax, sigmoid or eql (recipe: training.loss).
    cfg.LVIS.LOSS = "sigmoid"
    # Initial foreground probability of sigmoid and eql heads (recipe: training.prior_probability).
    cfg.LVIS.PRIOR_PROBABILITY = 0.001
    # eql: S_P and S_N of equation 4 (recipe: training.judged_categories).
    cfg.LVIS.JUDGED_CATEGORIES = True
    # IoU above which a background proposal gets the weight of a region (recipe: training.coco_ignore.iou).
    cfg.LVIS.REGION_IOU = 0.5
    # Factor on the box-head losses (recipe: training.box_head_loss_scale).
    cfg.LVIS.BOX_HEAD_LOSS_SCALE = 1.0
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
