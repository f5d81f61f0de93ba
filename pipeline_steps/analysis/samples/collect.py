"""From a trained model to counts per category and examples of missing annotations."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline_steps.analysis.samples.count import SampleCounts, add_batch, sampled_batches
from pipeline_steps.analysis.samples.examples import Example, Examples
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.categories import GROUPS
from pipeline_steps.data.loader import Share, load_training_set, training_batches
from pipeline_steps.data.lvis import read_categories
from pipeline_steps.inference.detector import load_detector
from pipeline_steps.recipe import Recipe
from pipeline_steps.recipe.layers import merged
from pipeline_steps.recipe.training import Model
from pipeline_steps.run.data_files import DatasetPaths

EXAMPLES = 6  # pictures of missing annotations


@dataclass(frozen=True)
class Collected:
    """Result of :func:`collect_samples`."""

    counts: dict[str, Any]  # what the figure is drawn from: numbers of the whole and one entry per category
    missing: list[str]  # how many annotations are missing, in sentences
    examples: list[Example]  # images in which some are


def _with_coco_boxes(recipe: Recipe, model: Model) -> tuple[Recipe, bool]:
    """The recipe with the COCO boxes of training images as regions where there are any, and whether there are.

    Without COCO Ignore they get the weight 1, which changes nothing in the loss.
    """
    if "lvis_train" not in model.datasets or not DatasetPaths(recipe).coco_boxes_train.is_file():
        return recipe, False
    if recipe.training_of(model).coco_ignore.enabled:
        return recipe, True
    training = merged(model.training, {"coco_ignore": {"enabled": True, "beta": 1.0}})
    models = [m.model_copy(update={"training": training}) if m.name == model.name else m for m in recipe.models]
    return recipe.model_copy(update={"models": models}), True


def collect_samples(recipe: Recipe, name: str, weights: Path, images: int) -> Collected:
    """Look at what a model is trained on.

    Args:
        name: an LVIS model of it, with any loss.
        images: training images to look at, rounded up to whole batches.

    Raises:
        UserError: no such LVIS model, or data or weights that are missing or of another model.
    """
    model = next((model for model in recipe.models if model.name == name), None)
    if model is None:
        raise UserError(f"{name!r} is not an LVIS model of recipe {recipe.name}: choose one of models")
    recipe, has_coco = _with_coco_boxes(recipe, model)
    model = recipe.model(name)
    training = recipe.training_of(model)
    detector = load_detector(recipe, name, weights)
    training_set = load_training_set(recipe, name)
    if training_set.tail is None or training_set.category_ids != detector.category_ids.tolist():
        raise UserError(f"{weights} was trained with other categories than those of the training data: train it again")
    tail = torch.from_numpy(training_set.tail.copy()).to(detector.module.device)
    iterations = -(-images // training.images_per_batch)
    batches = training_batches(
        training_set.images,
        training,
        recipe.seed_of(model),
        recipe.data.max_unreadable_images,
        0,
        iterations,
        Share(images_per_step=min(training.max_images_per_gpu, training.images_per_batch)),
    )
    counts, examples = SampleCounts.zeros(len(tail)), Examples(EXAMPLES)
    progress = Progress("sampling", iterations * training.images_per_batch, "images")
    for batch in sampled_batches(detector.module, batches):
        add_batch(counts, batch, tail, training.judged_categories)
        if has_coco:
            examples.add(batch)
        progress.advance(len(batch.samples))
    counted = _as_json(recipe, name, counts, training_set.category_ids)
    return Collected(counted, _told(name, counts, has_coco), examples.best())


def _told(name: str, counts: SampleCounts, has_coco: bool) -> list[str]:
    if not has_coco:
        return ["There are no COCO boxes for the training images of this recipe (index_coco_boxes makes them)."]
    share = 100 * counts.background_on_coco / max(1, counts.background_in_lvis)
    return [
        f"Proposals that the model {name} would learn from as background although an object is there: LVIS does not "
        "annotate every object, and COCO, which has the same images, tells of some. Look at the blue boxes: "
        "training pushes down the scores of the very object that they hold. COCO Ignore lowers the weight of these "
        "samples.",
        f"{counts.background_on_coco:,} of {counts.background_in_lvis:,} background proposals in images of LVIS "
        f"({share:.1f} %) overlap a box of COCO by more than half.",
    ]


def _as_json(recipe: Recipe, name: str, counts: SampleCounts, category_ids: list[int]) -> dict[str, Any]:
    categories = read_categories(DatasetPaths(recipe).lvis_train)
    columns = {
        "positives": counts.positives,
        "negatives_from_objects": counts.from_objects,
        "negatives_from_objects_equalized": counts.from_objects_equalized,
        "negatives_from_background": counts.from_background,
    }
    rows = []
    for k, category_id in enumerate(category_ids):
        category = categories.by_id(category_id)
        letter = str(categories.frequencies[categories.positions([category_id])[0]])
        row = {"category_id": category_id, "name": category.name, "group": GROUPS[letter]}
        row["train_images"] = category.image_count
        rows.append(row | {key: int(column[k]) for key, column in columns.items()})
    return {
        "recipe": recipe.name,
        "model": name,
        "images": counts.images,
        "proposals": counts.proposals,
        "background_in_lvis": counts.background_in_lvis,
        "background_on_coco": counts.background_on_coco,
        "categories": rows,
    }
