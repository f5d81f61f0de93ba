"""The whole way from the OpenImages files to LVIS-format training data for one recipe."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import csv_text
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_tables import load_mapping
from pipeline_steps.data.lvis import read_categories, read_lvis
from pipeline_steps.data.openimages_classes import read_vocabulary
from pipeline_steps.openimages.annotations import Inference, collect_objects, lvis_image
from pipeline_steps.openimages.boxes import BoxTable, read_boxes
from pipeline_steps.openimages.choice import Choice, choose_images
from pipeline_steps.openimages.labels import ImageSizes, read_rotated, read_sizes, read_verified_labels
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths

MAX_MISSING_SHARE = 0.05
"""Up to this share of the chosen images may lack a readable file (the servers lose some): they are left out."""

log = logging.getLogger(__name__)


Choose = Callable[[np.ndarray, np.ndarray, np.ndarray], Choice]


@dataclass(frozen=True)
class Selection:
    """Chosen images and what is needed to annotate them."""

    categories: CategoryList
    lvis_images: np.ndarray
    inference: Inference
    boxes: BoxTable
    choice: Choice
    judged_only: bool = False  # see :func:`~pipeline_steps.openimages.annotations.lvis_image`

    @property
    def image_ids(self) -> list[str]:
        """ImageIDs of the chosen images, ascending."""
        return [name.decode() for name in self.boxes.image_ids[self.choice.images]]


def lvis_image_counts(path: Path, categories: CategoryList) -> np.ndarray:
    """int64[C]: train images of each category; from the file's own counts if every category has one."""
    counts = [category.image_count for category in categories.categories]
    if None in counts:
        return read_lvis(path, "train").image_counts
    return np.array(counts, dtype=np.int64)


def usable_pairs(recipe: Recipe, boxes: BoxTable) -> tuple[np.ndarray, np.ndarray]:
    """Image and category positions of the pairs that count, int[m] each; without rotated images unless wanted."""
    paths = DatasetPaths(recipe)
    if boxes.problems:
        log.warning("%s: left out: %s", paths.openimages_boxes, boxes.describe_problems())
    if not recipe.data.openimages.skip_rotated:
        return boxes.pair_image, boxes.pair_category
    if not paths.openimages_rotation.is_file():
        log.warning("%s not found: rotated images cannot be left out", paths.openimages_rotation)
        return boxes.pair_image, boxes.pair_category
    names = np.array(sorted(read_rotated(paths.openimages_rotation)), dtype=boxes.image_ids.dtype)
    rotated = np.isin(boxes.image_ids, names)
    log.info("%d rotated images left out", rotated.sum())
    usable = ~rotated[boxes.pair_image]
    return boxes.pair_image[usable], boxes.pair_category[usable]


def choose_of_boxes(
    recipe: Recipe,
    categories: CategoryList,
    lvis_images: np.ndarray,
    inference: Inference,
    choose: Choose,
    judged_only: bool = False,
) -> Selection:
    """Read the boxes of the mapped classes and choose among the images that have one of them.

    Args:
        recipe, categories, inference, judged_only: of the selection.
        lvis_images: int64[C], LVIS train images of each category.
        choose: makes the choice from image and category positions of the pairs, and the ids of all images.

    Raises:
        UserError: the boxes are missing or damaged, or there are none.
    """
    paths, targets = DatasetPaths(recipe), inference.mapping.lvis_ids
    positions = categories.positions(targets.values()).tolist()
    boxes = read_boxes(
        paths.openimages_boxes, inference.vocabulary, dict(zip(targets, positions, strict=True)), inference.ignored_mids
    )
    pair_image, pair_category = usable_pairs(recipe, boxes)
    choice = choose(pair_image, pair_category, boxes.image_ids)
    if not len(choice.images):
        raise UserError(f"{paths.openimages_boxes}: no image has a usable box of a category that is asked for")
    log.info(
        "%d images chosen of %d; %d of %d categories get images",
        *(len(choice.images), len(np.unique(pair_image)), np.count_nonzero(choice.added), len(inference.known_ids)),
    )
    return Selection(categories, lvis_images, inference, boxes, choice, judged_only)


def require_enabled(recipe: Recipe) -> None:
    """Refuse a recipe that says it uses no OpenImages images."""
    if not recipe.data.openimages.enabled:
        raise UserError(f"recipe {recipe.name}: data.openimages.enabled is false, there is nothing to select")


def select(recipe: Recipe) -> Selection:
    """Choose images for the LVIS models of a recipe. Needs the annotation files only, no image.

    Raises:
        UserError: OpenImages is disabled; a file is missing or damaged; no image shows a shared category.
    """
    require_enabled(recipe)
    settings = recipe.data.openimages
    paths = DatasetPaths(recipe)
    categories = read_categories(paths.lvis_train)
    vocabulary = read_vocabulary(paths.openimages_classes, paths.openimages_hierarchy)
    mapping = load_mapping(recipe, "openimages", categories)
    unknown = [str(row) for row in mapping.rows if row.source_id not in vocabulary.names]
    if unknown:
        raise UserError(f"{paths.openimages_table}: classes that {paths.openimages_classes} lacks: {listing(unknown)}")
    if not mapping.lvis_ids:
        raise UserError(f"{paths.openimages_table}: no row has the recipe's relations, verdicts and frequency groups")
    counts = lvis_image_counts(paths.lvis_train, categories)

    def choose(pair_image: np.ndarray, pair_category: np.ndarray, _image_ids: np.ndarray) -> Choice:
        return choose_images(pair_image, pair_category, counts, settings.max_images, settings.max_images_per_category)

    return choose_of_boxes(recipe, categories, counts, Inference(vocabulary, mapping), choose)


def _check_files(found: ImageSizes, folder: Path, chosen: int) -> None:
    lost = [*found.missing, *found.unreadable]
    if len(lost) > MAX_MISSING_SHARE * chosen:
        raise UserError(
            f"{len(found.missing)} of {chosen} chosen images are not in {folder}, {len(found.unreadable)} are damaged "
            f"({listing(lost, 3)}): download them first; --list-only FILE writes the list"
        )
    for what, names in (("missing", found.missing), ("damaged", found.unreadable), ("turned by EXIF", found.turned)):
        if names:
            log.warning("%s: %d images %s, left out: %s", folder, len(names), what, listing(names))


def build_dataset(recipe: Recipe, selection: Selection) -> dict[str, Any]:
    """LVIS-format annotations of the chosen images, whose files must be there.

    Raises:
        UserError: more than 5 % of the images are missing or damaged, or a label file is.
    """
    paths = DatasetPaths(recipe)
    names = selection.image_ids
    found = read_sizes(paths.openimages_images, names)
    _check_files(found, paths.openimages_images, len(names))
    labels = read_verified_labels(paths.openimages_labels, names, selection.inference.vocabulary)
    folder = paths.openimages_images.relative_to(paths.root).as_posix()
    boxes, inference, counts = selection.boxes, selection.inference, Counter[str]()
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for position, name in zip(selection.choice.images.tolist(), names, strict=True):
        if name not in found.sizes:
            continue
        rows, size = boxes.rows_of(position), found.sizes[name]
        mids = [boxes.mids[code] for code in boxes.code[rows].tolist()]
        objects = collect_objects(mids, boxes.box[rows], boxes.flags[rows], size, inference, counts)
        if not objects.annotated:  # boxes of less than 0.01 pixel
            counts["image without boxes"] += 1
            continue
        file, judged_only = f"{folder}/{name}.jpg", selection.judged_only
        image = lvis_image(len(images), file, size, objects, labels[name], inference, counts, judged_only)
        images.append(image)
        for category, box in objects.annotated:
            annotation = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category, "bbox": box}
            annotations.append(annotation | {"area": round(box[2] * box[3], 2)})
    corrected = dict(+counts) or "nothing"
    log.info("%d images, %d boxes; left out or corrected: %s", len(images), len(annotations), corrected)
    return {
        "info": {"description": f"OpenImages boxes in LVIS format for the recipe {recipe.name}"},
        "images": images,
        "annotations": annotations,
        "categories": msgspec.to_builtins(list(selection.categories.categories)),
    }


def counted(dataset: dict[str, Any]) -> tuple[Counter[int], Counter[int]]:
    """Images with an annotation, and annotations, by category id."""
    pairs = [(annotation["image_id"], annotation["category_id"]) for annotation in dataset["annotations"]]
    return Counter(category for _, category in set(pairs)), Counter(category for _, category in pairs)


def summary_csv(selection: Selection, dataset: dict[str, Any]) -> str:
    """One line for each LVIS category: train images before and after, and what was added; as CSV text."""
    added, boxes = counted(dataset)
    known = set(selection.inference.known_ids)
    header = ["category_id", "name", "synset", "frequency", "shared", "lvis_images", "openimages_available"]
    rows = []
    for position, category in enumerate(selection.categories.categories):
        before, more = int(selection.lvis_images[position]), added[category.id]
        about = [category.id, category.name, category.synset, selection.categories.frequencies[position]]
        available = [int(category.id in known), before, int(selection.choice.available[position])]
        rows.append([*about, *available, more, boxes[category.id], before + more])
    log.info("%d images added for %d categories", len(dataset["images"]), len(added))
    return csv_text([*header, "images_added", "boxes_added", "images_after"], rows)
