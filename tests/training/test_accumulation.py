"""What gradient accumulation changes in a detector: batch statistics and the weight of a mask, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage

from pipeline_steps.modeling.build import build_detector
from pipeline_steps.training.distributed import Processes
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.schedule import split_batch
from tests.modeling.samples import CATEGORIES, sample, tiny_recipe

OPTIONS = [
    *(f"MODEL.{part}.NORM FrozenBN" for part in ("RESNETS", "FPN")),
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16",  # of which 4 are foreground, if there are as many objects
]


class OneIteration:
    """Losses and gradients of one iteration on four images with these numbers of objects, in ``steps`` parts."""

    def __init__(self, objects: list[int], steps: int) -> None:
        most = len(objects) // steps
        recipe = tiny_recipe(images_per_batch=4, max_images_per_gpu=most, detector_options=OPTIONS, loss="eql")
        torch.manual_seed(0)
        tail = torch.arange(CATEGORIES) > 5
        self.model = build_detector(recipe, "basic", CATEGORIES, tail)
        self.samples = [sample(seed, objects=count, sampling_seed=seed) for seed, count in enumerate(objects)]
        training = recipe.training_of(recipe.model("basic"))
        split = split_batch(4, most, 1)
        assert split.steps == steps
        trainer = Trainer(self.model, training, split, Processes(0, 1, 0, torch.device("cpu")))
        parts = [self.samples[start : start + most] for start in range(0, 4, most)]
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        with EventStorage(0) as storage:
            trainer._iterate(iter(parts), storage, lambda: False)
        self.model.load_state_dict(before)
        self.losses = {name: total for name, (total, _) in trainer.averages.state.items() if name.startswith("loss_")}
        scale = training.schedule.clip_gradient_norm / trainer.averages.state["gradient_norm"][0]
        self.gradients = {name: p.grad / min(1.0, scale) for name, p in self.model.named_parameters()}

    def mask_loss_and_count(self, images: slice) -> tuple[float, int]:
        """Mask loss of some of the images alone, and the number of their foreground proposals."""
        counts: list[int] = []
        heads = self.model.roi_heads
        original = heads.label_and_sample_proposals

        def counted(proposals: Any, targets: Any, facts: Any) -> Any:
            sampled, foreground = original(proposals, targets, facts)
            counts.extend(count for count, has_masks in zip(foreground, facts.has_masks) if has_masks)
            return sampled, foreground

        heads.label_and_sample_proposals = counted
        with EventStorage(0):
            loss = self.model(self.samples[images])["loss_mask"].item()
        heads.label_and_sample_proposals = original
        return loss, sum(counts)


def assert_same_gradients(a: OneIteration, b: OneIteration) -> None:
    for name, gradient in a.gradients.items():
        scale = gradient.abs().max() + 1e-12
        torch.testing.assert_close(b.gradients[name] / scale, gradient / scale, rtol=0, atol=2e-3, msg=name)


@pytest.mark.parametrize("steps", [2, 4])
def test_parts_with_as_many_objects_each_have_the_gradient_of_the_whole_batch(steps):
    whole, parts = OneIteration([5, 5, 5, 5], 1), OneIteration([5, 5, 5, 5], steps)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert_same_gradients(whole, parts)


def test_a_part_with_few_objects_weighs_their_masks_more_and_all_other_losses_are_those_of_the_batch():
    objects = [1, 1, 5, 5]
    whole, parts = OneIteration(objects, 1), OneIteration(objects, 2)
    for name in ("loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"):
        assert parts.losses[name] == pytest.approx(whole.losses[name], rel=1e-4), name
    (few, n), (many, m) = (whole.mask_loss_and_count(images) for images in (slice(0, 2), slice(2, 4)))
    assert n < m == 8
    assert whole.losses["loss_mask"] == pytest.approx((n * few + m * many) / (n + m), rel=1e-4)
    assert parts.losses["loss_mask"] == pytest.approx((few + many) / 2, rel=1e-4)
    assert parts.losses["loss_mask"] != pytest.approx(whole.losses["loss_mask"], rel=1e-5)
