"""How many GPU hours a recipe takes: a rough estimate before anything runs, from images, sizes, scales and models.

The constants are seconds of one GPU for one image of 800 x 1067 pixels (a 4:3 image with shorter edge 800). They are of
the size that detectron2's model zoo publishes for V100 cards in single precision (R50-FPN 0.13 s in training and
0.05 s in testing, X101-32x8d-FPN 0.35 s and 0.10 s), raised for the deformable convolutions and the larger networks
used here; newer cards in bfloat16 are two to four times as fast. Time is taken as proportional to the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline_steps.recipe.schema import Recipe
from pipeline_steps.recipe.training import Augmentation, Model
from pipeline_steps.recipe.variants import boxes_folder, with_variants

REFERENCE_PIXELS = 800 * 1067


@dataclass(frozen=True)
class Speed:
    """Seconds of one GPU for one reference image: a training step's share of it, and one view of it in testing."""

    train: float
    test: float


# Words in the name of a detector file, first match; the last entry is for anything else.
SPEEDS: tuple[tuple[str, Speed], ...] = (
    ("x101_dcn", Speed(0.60, 0.19)),
    ("se154", Speed(0.90, 0.28)),
    ("x101", Speed(0.42, 0.13)),
    ("r50", Speed(0.13, 0.05)),
    ("", Speed(0.20, 0.07)),
)

IMAGES = {"v0.5": {"val": 5_000, "test": 20_000}, "v1": {"val": 19_809, "test": 19_822}}
"""Images of the LVIS splits."""


def speed_of(model: Model) -> Speed:
    """Constants of the model's detector file."""
    name = Path(model.detector).stem
    return next(speed for word, speed in SPEEDS if word in name)


def pixels(shorter: float, longer: int) -> float:
    """Pixels of a 4:3 image resized to a shorter edge, the longer one being at most ``longer``."""
    shorter = min(shorter, longer * 3 / 4)
    return shorter * shorter * 4 / 3


def training_pixels(augmentation: Augmentation) -> float:
    """Mean pixels of a training image over the sizes that it is drawn from."""
    edges: Iterable[float] = augmentation.shorter_edge
    if augmentation.shorter_edge_sampling == "range":
        low, high = augmentation.shorter_edge
        edges = [low + (high - low) * (step + 0.5) / 20 for step in range(20)]
    sizes = [pixels(edge, augmentation.longer_edge) for edge in edges]
    return sum(sizes) / len(sizes)


def split_images(recipe: Recipe) -> dict[str, int]:
    """Images of val and test."""
    if recipe.data.source == "mini":
        return {"val": recipe.data.mini.val_images, "test": recipe.data.mini.test_images}
    return IMAGES[recipe.lvis_version]


def _views(scales: Iterable[int], recipe: Recipe) -> float:
    """Pixels of all views of a test image, in reference images; scales that become equal are computed once."""
    sizes = {pixels(scale, recipe.testing.longer_edge) for scale in scales}
    return sum(sizes) * (1 + recipe.testing.horizontal_flip) / REFERENCE_PIXELS


@dataclass(frozen=True)
class Stage:
    """GPU hours of a stage: of all its jobs, and of those whose output is not on the disk yet."""

    name: str
    total: float
    missing: float


def estimate(recipe: Recipe, exists: Callable[[str], bool]) -> list[Stage]:
    """GPU hours of each stage of a recipe.

    Args:
        recipe: the recipe.
        exists: whether an output, named relative to the recipe's results, is there.
    """
    stages = []
    for name, folder, models in (
        ("COCO pre-training", "pretrain", recipe.pretraining),
        ("LVIS fine-tuning", "finetune", recipe.models),
        ("experts", "experts", recipe.experts),
    ):
        stages.append(_stage(name, [(_training(recipe, m), f"{folder}/{m.name}/model.pth") for m in models], exists))
    boxes, masks = [], []
    images = split_images(recipe)
    members = dict.fromkeys([m.name for m in recipe.models] + [member.name for member in recipe.ensemble.members])
    for name in members:
        boxes += [
            (n * _box_seconds(recipe, name), f"predictions/{split}/{name}/boxes.parquet") for split, n in images.items()
        ]
    masks += [
        (n * _ensemble_mask_seconds(recipe), f"ensemble/{split}/detections.parquet") for split, n in images.items()
    ]
    views = _views(recipe.testing.mask_scales, recipe)
    for model in recipe.models:
        seconds = images["val"] * speed_of(model).test * views
        masks.append((seconds, f"predictions/val/{model.name}/detections.parquet"))
    stages += [_stage("box testing", boxes, exists), _stage("mask testing", masks, exists)]
    return (
        [*stages, _stage("variants for tables", _variants(recipe, images["val"]), exists)]
        if recipe.variants
        else stages
    )


def _box_seconds(recipe: Recipe, name: str) -> float:
    return speed_of(recipe.model(name)).test * _views(recipe.testing.box_scales, recipe)


def _ensemble_mask_seconds(recipe: Recipe) -> float:
    of_models = sum(speed_of(recipe.model(name)).test for name in recipe.mask_models())
    return of_models * _views(recipe.testing.mask_scales, recipe)


def _variants(recipe: Recipe, images: int) -> list[tuple[float, str]]:
    """Seconds and outputs of the tables' variants on val, boxes that are shared with the recipe not counted again."""
    recipes = with_variants(recipe)
    jobs: dict[str, float] = {}
    for folder, variant in list(recipes.items())[1:]:
        boxes = boxes_folder(recipes, folder)
        if boxes:
            for member in variant.ensemble.members:
                jobs[f"{boxes}predictions/val/{member.name}/boxes.parquet"] = images * _box_seconds(
                    variant, member.name
                )
        jobs[f"{folder}ensemble/val/detections.parquet"] = images * _ensemble_mask_seconds(variant)
    return [(seconds, output) for output, seconds in jobs.items()]


def _training(recipe: Recipe, model: Model) -> float:
    training = recipe.training_of(model)
    share = training_pixels(training.augmentation) / REFERENCE_PIXELS
    return training.schedule.images * speed_of(model).train * share


def _stage(name: str, jobs: list[tuple[float, str]], exists: Callable[[str], bool]) -> Stage:
    hours = [(seconds / 3600, exists(output)) for seconds, output in jobs]
    return Stage(name, sum(h for h, _ in hours), sum(h for h, there in hours if not there))


def estimate_lines(recipe: Recipe, results: str) -> list[str]:
    """The estimate as a small table; a remark instead if the recipe uses no GPUs."""
    if recipe.compute.device == "cpu" or not (recipe.compute.training_gpus or recipe.compute.inference_gpus):
        return ["GPU hours: none, this recipe runs on CPUs"]
    stages = estimate(recipe, lambda output: Path(results, output).exists())
    total = Stage("together", sum(s.total for s in stages), sum(s.missing for s in stages))
    lines = [f"GPU hours, estimated for V100-class cards:{'whole':>9}{'to do':>9}"]
    lines += [f"  {stage.name:40}{stage.total:9,.0f}{stage.missing:9,.0f}" for stage in (*stages, total)]
    return [*lines, "  (constants and their origin: pipeline_steps/recipe/gpu_hours.py)"]
