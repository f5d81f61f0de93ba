"""What the switches of the training data do, each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline_steps.data.loader import load_training_set
from tests.training.world import make_recipe


class TestSwitches:
    """COCO Ignore, group-of boxes, unknown categories: each alone changes what the samples say and nothing else."""

    def facts(self, world: Path, **training: Any) -> tuple[list[float], int]:
        """Weights of all regions, and number of pairs (image, category) without any loss."""
        images = load_training_set(make_recipe(world, **training), "basic").images
        known = np.stack([images.known(index) for index in range(len(images))])
        return sorted(images.region_weights.tolist()), int((~known).sum())

    def test_each_switch_has_its_own_effect(self, world):
        groups, boxes, unknown = [0.0] * 6, [0.5] * 12, 6 * 2
        off = {"coco_ignore": {"enabled": False}, "ignore_group_boxes": False, "ignore_unknown_categories": False}
        assert self.facts(world, **off) == ([], 0)
        assert self.facts(world, **off | {"coco_ignore": {"enabled": True}}) == (boxes, 0)
        assert self.facts(world, **off | {"coco_ignore": {"enabled": True, "beta": 0.25}}) == ([0.25] * 12, 0)
        assert self.facts(world, **off | {"ignore_group_boxes": True}) == (groups, 0)
        assert self.facts(world, **off | {"ignore_unknown_categories": True}) == ([], unknown)
        assert self.facts(world) == (groups + boxes, unknown)
