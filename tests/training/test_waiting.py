"""How often a training step lets the host wait for the device: counted on the CPU, where the same operators run."""

from __future__ import annotations

from collections import Counter

import torch
from detectron2.utils.events import EventStorage

from pipeline_steps.modeling.build import build_detector
from pipeline_steps.training.distributed import Processes
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.schedule import split_batch
from tests.gpu.synchronisations import synchronisations
from tests.modeling.samples import CATEGORIES, sample, tiny_recipe


def waits(images: int, objects: int) -> Counter[str]:
    """By file, of an iteration in which nothing is logged, the second one, with standard modules."""
    schedule = {"images": 2 * images, "warmup_images": 0}
    sizes = {"images_per_batch": images, "max_images_per_gpu": images}
    recipe = tiny_recipe(fast_cpu_modules=False, loss="eql", schedule=schedule, **sizes)
    torch.manual_seed(0)
    model = build_detector(recipe, "basic", CATEGORIES, torch.arange(CATEGORIES) % 3 > 0)
    trainer = Trainer(
        model.train(), recipe.training, split_batch(images, images, 1), Processes(0, 1, 0, torch.device("cpu"))
    )
    regions = {"region_boxes": torch.tensor([[8.0, 8, 60, 70]]), "region_weights": torch.tensor([0.5])}
    batch = [
        sample(seed, objects=objects, has_masks=seed != 1, sampling_seed=seed + 1, **regions) for seed in range(images)
    ]
    with EventStorage(1) as storage, synchronisations() as found:
        trainer._iterate(iter([batch]), storage, lambda: False)
    counts: Counter[str] = Counter()
    for (_, line), times in found.items():
        counts[line.partition(":")[0]] += times
    return counts


def test_only_detectron2s_proposals_and_anchors_wait_for_every_image():
    """See the docstring of pipeline_steps/modeling/rcnn.py for what each of these is."""
    one, three = waits(1, objects=4), waits(3, objects=4)
    each = {name: (three[name] - one[name]) / 2 for name in three}
    assert {name: times for name, times in each.items() if times} == {
        "detectron2/modeling/proposal_generator/proposal_utils.py": 2,
        "detectron2/structures/boxes.py": 1,
        "detectron2/layers/nms.py": 1,
        "detectron2/modeling/box_regression.py": 1,
    }
    assert {name: one[name] - each[name] for name in one if one[name] != each[name]} == {
        "pipeline_steps/modeling/facts.py": 3,  # drawing anchors and proposals; one looks at a tensor of the host
        "pipeline_steps/training/loop.py": 4,  # losses, norm of the gradient, two in the backward pass of the next
        "detectron2/modeling/proposal_generator/rpn.py": 4,
        "detectron2/modeling/box_regression.py": 3,
        "detectron2/layers/wrappers.py": 5,  # pooling for two heads from two levels, foreground of the box loss
        "detectron2/structures/image_list.py": 2,  # image sizes, on the host
    }


def test_objects_cost_no_waiting():
    assert waits(2, objects=9) == waits(2, objects=3)
