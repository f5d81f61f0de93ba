"""OpenImages in its own classes: the training set of an OpenImages expert.

The network has an output for every class with a box in the selection, and for no other: an output that is never trained
would only take places under the cap of detections. What is known about an image follows the protocol of OpenImages,
which is federated as that of LVIS:

- a class with a box is present, and all its objects have boxes (groups of objects have one, and are regions);
- a class that people verified to be absent is absent, with every class below it;
- about all other classes nothing is known, above all about those that only a box of a class below makes present: there
  is no loss on them (``judged_only``). So a box of a limousine says nothing against the car that it is, unless the
  image has boxes of cars as well.

Own category ids are the places of the classes in the class descriptions, from 1: the same for every selection.
"""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from typing import Any

import numpy as np

from pipeline_steps.common.files import csv_text
from pipeline_steps.data.categories import CategoryList
from pipeline_steps.data.category_tables import CategoryMapping
from pipeline_steps.data.openimages_classes import Vocabulary, class_numbers, read_vocabulary
from pipeline_steps.data.records import Category
from pipeline_steps.openimages.annotations import Inference
from pipeline_steps.openimages.choice import Choice
from pipeline_steps.openimages.dataset import Selection, build_dataset, choose_of_boxes, counted, require_enabled
from pipeline_steps.recipe import Recipe
from pipeline_steps.run.data_files import DatasetPaths

log = logging.getLogger(__name__)


def own_mapping(vocabulary: Vocabulary) -> CategoryMapping:
    """Every class stands for itself."""
    numbers = class_numbers(vocabulary.names)
    every = frozenset(numbers)
    return CategoryMapping(rows=(), lvis_ids=numbers, covering_sources=every, contained_sources=every)


def seeded_order(image_ids: list[bytes], seed: int) -> np.ndarray:
    """int64[images]: positions in an order that depends on the seed and on each image's own id only.

    So the first images of it are the same whatever other images there are, and a larger selection holds a smaller one.
    """
    key = str(seed).encode()
    digests = [hashlib.blake2b(image_id, digest_size=16, key=key).digest() for image_id in image_ids]
    return np.argsort(np.array(digests, dtype="S16"), kind="stable")


def choose_seeded(
    pair_image: np.ndarray, pair_category: np.ndarray, image_ids: np.ndarray, categories: int, max_images: int | None,
    seed: int,
) -> Choice:  # fmt: skip
    """Choose the first images (None: all) of the seeded order that have a usable box.

    Args:
        pair_image, pair_category: int[m], positions; every pair occurs once.
        image_ids: ``S16[images]``.
        categories: C.
        max_images, seed: of ``data.openimages_own``.
    """
    usable = np.unique(pair_image)
    order = seeded_order(image_ids[usable].tolist(), seed)[:max_images]
    chosen = np.sort(usable[order])
    taken = np.isin(pair_image, chosen)
    return Choice(
        images=chosen,
        available=np.bincount(pair_category, minlength=categories),
        added=np.bincount(pair_category[taken], minlength=categories),
    )


def select_own(recipe: Recipe) -> Selection:
    """Choose images for the OpenImages expert. Needs the annotation files only, no image.

    Raises:
        UserError: OpenImages is disabled; a file is missing or damaged; no image has a usable box.
    """
    require_enabled(recipe)
    settings, paths = recipe.data.openimages_own, DatasetPaths(recipe)
    vocabulary = read_vocabulary(paths.openimages_classes, paths.openimages_hierarchy)
    mapping = own_mapping(vocabulary)
    categories = CategoryList(
        [Category(number, vocabulary.names[mid], freebase_id=mid) for mid, number in mapping.lvis_ids.items()],
        str(paths.openimages_classes),
    )
    chosen = partial(choose_seeded, categories=len(categories), max_images=settings.max_images, seed=settings.seed)
    none = np.zeros(len(categories), np.int64)
    return choose_of_boxes(recipe, categories, none, Inference(vocabulary, mapping), chosen, judged_only=True)


def build_own_dataset(recipe: Recipe, selection: Selection) -> dict[str, Any]:
    """LVIS-format annotations of the chosen images in OpenImages' classes; classes without a box are left out.

    Raises:
        UserError: see :func:`~pipeline_steps.openimages.dataset.build_dataset`.
    """
    dataset = build_dataset(recipe, selection)
    images, instances = counted(dataset)
    dataset["categories"] = [
        {"id": c.id, "name": c.name, "freebase_id": c.freebase_id}
        | {"image_count": images[c.id], "instance_count": instances[c.id]}
        for c in selection.categories.categories
        if instances[c.id]
    ]
    for image in dataset["images"]:
        for key in ("neg_category_ids", "not_exhaustive_category_ids"):
            image[key] = [category for category in image[key] if category in instances]
    kept, all_classes = len(dataset["categories"]), len(selection.categories)
    log.info("%d of %d classes have a box and become outputs of the network", kept, all_classes)
    return dataset


def own_summary_csv(selection: Selection, dataset: dict[str, Any]) -> str:
    """One line for each class: what there is and what was chosen; as CSV text."""
    kept = {category["id"]: category for category in dataset["categories"]}
    rows = []
    for position, category in enumerate(selection.categories.categories):
        counts = [kept.get(category.id, {}).get(key, 0) for key in ("image_count", "instance_count")]
        available = int(selection.choice.available[position])
        rows.append([category.id, category.name, category.freebase_id, available, *counts])
    return csv_text(["category_id", "name", "freebase_id", "images_available", "images", "boxes"], rows)
